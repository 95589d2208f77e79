import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { Client, Manager, Store, TaskQueue, Worker } from "millrace"
import { temporaryFolder } from "../process/support.ts"

const Letters = TaskQueue.make("letters", { payload: Schema.Int, result: Schema.Int })

const auth = { key: "a-secret-of-the-contract-tests-0123456789ab" }

describe("a reader of outcomes with a name", () => {
  it.live("goes on where it was, over its own restarts and those of the manager; others see all for themselves", () =>
    Effect.gen(function* () {
      const directory = join(temporaryFolder(), "data")
      const life = <A, E>(program: Effect.Effect<A, E, Client.Client>) =>
        Effect.flatMap(Manager.Listening, ({ address }) => {
          const port = address._tag === "Tcp" ? address.port : 0
          const worker = Worker.layer(Letters, (task) => Effect.succeed(task.payload))
          return Effect.provide(program, Layer.provideMerge(worker, Client.layerTcp({ port, auth })))
        }).pipe(
          Effect.provide(
            Manager.layerTcp({ port: 0, auth }).pipe(
              Layer.provideMerge(Manager.layer({ queues: [Letters] })),
              Layer.provide(Store.layerSqlite({ directory })),
              Layer.fresh
            )
          )
        )
      const seen: Array<number> = []
      /** Reads until `last`; `then` is put as soon as `after` was dealt with. */
      const read = (name: string, last: number, after?: number, then?: number) =>
        Letters.outcomesAs(name).pipe(
          Stream.map((outcome) => (outcome._tag === "Success" ? outcome.result : -1)),
          Stream.tap((n) => (n === after ? Effect.asVoid(Letters.put(then!)) : Effect.void)),
          Stream.tap((n) => Effect.sync(() => seen.push(n))),
          Stream.takeUntil((n) => n === last),
          Stream.runDrain
        )
      // 4 is put when 3 was read, and read with a later pull: 3 has been dealt with.
      yield* life(Effect.andThen(Letters.putAll([1, 2, 3]), read("a", 4, 3, 4)))
      assert.deepStrictEqual(seen.splice(0), [1, 2, 3, 4])
      yield* life(Effect.andThen(Letters.putAll([5, 6]), read("a", 6)))
      // What was pulled last comes again, and nothing is left out.
      assert.deepStrictEqual(seen.splice(0), [4, 5, 6])
      yield* life(Effect.andThen(Letters.put(7), Effect.andThen(Letters.join(), read("a", 8, 7, 8))))
      assert.deepStrictEqual(seen.splice(0).slice(-2), [7, 8])
      // Another name begins where a reader without one does.
      yield* life(Effect.andThen(Letters.put(9), read("b", 9)))
      assert.deepStrictEqual(seen.splice(0), [9])
      const error = yield* Effect.flip(life(Stream.runDrain(Letters.outcomesAs("no name!"))))
      assert.strictEqual(error._tag, "DefinitionInvalid")
    })
  )
})
