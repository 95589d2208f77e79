/** What the manager owes its store: persist, then promise. The suite of the stores themselves comes with the second one. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema, Stream } from "effect"
import { Errors, Manager, Store, TaskQueue } from "millrace"

const Q = TaskQueue.make("stored", { payload: Schema.Int })

describe("a store that breaks", () => {
  it.live("stops the manager: what waits is indefinite, nothing new is taken, and the manager says why", () => {
    const broken = Layer.succeed(
      Store.Store,
      Store.Store.of({
        durability: "fsync",
        keeps: true,
        load: Stream.empty,
        commit: (records) =>
          records.some((record) => record._tag === "Put")
            ? Effect.fail(new Errors.StoreBroken({ reason: "no such disk" }))
            : Effect.void
      })
    )
    return Effect.gen(function* () {
      const manager = yield* Manager.Manager
      const failure = yield* Effect.flip(Q.put(1))
      assert.strictEqual(failure._tag, "ConnectionLost")
      assert.strictEqual(Errors.facts[failure._tag].outcome, "indefinite")
      const why = yield* manager.failed.pipe(Effect.flip, Effect.timeout("5 seconds"))
      assert.strictEqual(why._tag, "StoreBroken")
      assert.include(why.message, "no such disk")
      assert.strictEqual((yield* Effect.flip(Q.put(2)))._tag, "ConnectFailed")
    }).pipe(Effect.provide(Manager.layer({ queues: [Q] }).pipe(Layer.provide(broken))))
  })
})
