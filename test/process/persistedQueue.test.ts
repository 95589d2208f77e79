/** A take of a persisted queue whose process is killed, or told to stop. */
import { afterAll, assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as PersistedQueue from "effect/persistence/PersistedQueue"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as PersistedQueueStore from "../../src/PersistedQueueStore.ts"
import { asClient, fixture, serve, start, stopAll, until } from "./support.ts"

afterAll(stopAll)

const queueOf = (name: string) => PersistedQueue.make({ name, schema: Schema.String, maxAttempts: 4 })

const use = <A, E>(port: number, effect: Effect.Effect<A, E, PersistedQueue.PersistedQueueFactory>) =>
  asClient(
    port,
    Effect.suspend(() =>
      effect.pipe(
        Effect.provide(PersistedQueue.layer.pipe(Layer.provide(PersistedQueueStore.layer({ lease: "1 second" }))))
      )
    )
  )

describe("a taker of a persisted queue", () => {
  it("that is killed has used its attempt, and the last one is the last", { timeout: 60_000 }, async () => {
    const { port } = await serve(["--memory"])
    await use(
      port,
      Effect.flatMap(queueOf("killed"), (queue) => queue.offer("a", { id: "a" }))
    )
    // More often than a task may be lost while its handler runs.
    for (let attempt = 1; attempt <= 4; attempt++) {
      const taker = start(fixture("taker.ts"), [`${port}`, "killed"])
      const [, seen] = await taker.said(/holds (\d+)/)
      assert.strictEqual(Number(seen), attempt)
      taker.kill("SIGKILL")
      await taker.ended()
    }
    const tasks = PersistedQueueStore.queue("killed")
    const dead = Stream.runCollect(tasks.deadLetters())
    await use(
      port,
      Effect.gen(function* () {
        const queue = yield* queueOf("killed")
        const next = yield* Effect.forkScoped(queue.take((value, { attempts }) => Effect.succeed([value, attempts])))
        yield* Effect.promise(() => until("a is dead", async () => (await asClient(port, dead)).length > 0))
        yield* queue.offer("b", { id: "b" })
        assert.deepStrictEqual(yield* Fiber.join(next), ["b", 1])
      }).pipe(Effect.scoped)
    )
    const letters = await asClient(port, dead)
    assert.deepStrictEqual(
      letters.map(({ id }) => id),
      ["a"]
    )
    assert.match(letters[0]!.reasons.join("\n"), /killed: the lease ended in the last attempt/)
  })

  it("that is told to stop gives its element back uncounted", { timeout: 60_000 }, async () => {
    const { port } = await serve(["--memory"])
    await use(
      port,
      Effect.flatMap(queueOf("stopped"), (queue) => queue.offer("a", { id: "a" }))
    )
    for (let round = 1; round <= 2; round++) {
      const taker = start(fixture("taker.ts"), [`${port}`, "stopped"])
      const [, seen] = await taker.said(/holds (\d+)/)
      assert.strictEqual(Number(seen), 1)
      taker.kill("SIGTERM")
      await taker.ended()
    }
  })
})
