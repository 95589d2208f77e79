/** Workers that are replaced under load, and one that runs for long. */
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { afterAll } from "vitest"
import * as Client from "../../src/Client.ts"
import * as Manager from "../../src/Manager.ts"
import * as Store from "../../src/Store.ts"
import { Deploys } from "./fixtures/deployQueue.ts"
import { fixture, key, type Program, start, startCommand, stopAll, temporaryFolder } from "./support.ts"

afterAll(stopAll)

const auth = { key }
const listening = (store: Layer.Layer<Store.Store, unknown>) =>
  Manager.layerTcp({ port: 0, auth }).pipe(
    Layer.provideMerge(Manager.layer({ queues: [Deploys] })),
    Layer.provide(store)
  )

const withManager = <A, E>(
  store: Layer.Layer<Store.Store, unknown>,
  run: (port: number) => Effect.Effect<A, E, Client.Client>
): Promise<A> =>
  Effect.runPromise(
    Effect.flatMap(Manager.Listening, ({ address }) => {
      const port = address._tag === "Tcp" ? address.port : 0
      return Effect.provide(Effect.scoped(run(port)), Client.layerTcp({ port, auth }))
    }).pipe(Effect.provide(listening(store))) as Effect.Effect<A>
  )

describe("a rolling replacement of four workers under load", () => {
  it("counts no attempt, commits every task once, and every old worker ends in order", async () => {
    const store = Store.layerSqlite({ directory: join(temporaryFolder(), "data") })
    const seen = new Map<number, number>()
    const pids = new Set<number>()
    let put = 0
    await withManager(store, (port) =>
      Effect.gen(function* () {
        const worker = async (): Promise<Program> => {
          const program = start(fixture("deployWorker.ts"), [String(port)])
          await program.said(/ready/)
          return program
        }
        yield* Effect.forkChild(
          Stream.runForEach(Deploys.outcomes, (outcome) =>
            Effect.sync(() => {
              assert.strictEqual(outcome._tag, "Success", JSON.stringify(outcome))
              if (outcome._tag !== "Success") return
              seen.set(outcome.result.n, (seen.get(outcome.result.n) ?? 0) + 1)
              pids.add(outcome.result.pid)
              assert.strictEqual(outcome.result.attempt, 1)
              assert.strictEqual(outcome.attempts, 1)
            })
          )
        )
        let over = false
        const load = yield* Effect.forkChild(
          Effect.gen(function* () {
            while (!over) {
              yield* Deploys.putAll(Array.from({ length: 50 }, () => ({ n: put++, ms: put % 7 === 0 ? 120 : 5 })))
              yield* Effect.sleep("40 millis")
            }
          })
        )
        const workers = yield* Effect.promise(() => Promise.all([worker(), worker(), worker(), worker()]))
        for (let i = 0; i < workers.length; i++) {
          const old = workers[i]!
          // The new one first, as a deployment does it; every other time the old one first.
          if (i % 2 === 0) workers[i] = yield* Effect.promise(worker)
          old.kill("SIGTERM")
          const ended = yield* Effect.promise(() => old.ended())
          // Interrupted, as `runMain` says it, and not killed.
          assert.deepStrictEqual([ended.code, ended.signal], [130, null], ended.stderr)
          if (i % 2 === 1) workers[i] = yield* Effect.promise(worker)
        }
        over = true
        yield* Fiber.join(load)
        yield* Deploys.join()
        for (let i = 0; i < 1_000 && seen.size < put; i++) yield* Effect.promise(() => sleep(10))
        const { dead, done } = yield* Deploys.stats
        assert.deepStrictEqual([done, dead], [put, 0])
      })
    )
    assert.strictEqual(seen.size, put)
    assert.isTrue([...seen.values()].every((count) => count === 1))
    assert.isAbove(pids.size, 4, "old workers and new ones did some")
    console.log(`deploy: 4 workers replaced, ${put} tasks, every one in its first attempt`)
  }, 120_000)
})

describe("a worker that runs for long", () => {
  it("has the memory after 100,000 tasks that it had after the first ones", async () => {
    const heaps: Array<number> = []
    await withManager(Store.layerMemory, (port) =>
      Effect.gen(function* () {
        const program = startCommand(process.execPath, [
          "--expose-gc",
          fixture("deployWorker.ts"),
          String(port),
          "flat"
        ])
        yield* Effect.promise(() => program.said(/ready/))
        for (let i = 0; i < 25; i++) {
          yield* Deploys.putAll(
            Array.from({ length: 4_000 }, (_, n) => ({ n: 4_000 * i + n, ms: n % 400 === 0 ? 1 : 0 }))
          )
        }
        yield* Deploys.join()
        yield* Effect.promise(() => program.said(/heap 100000 \d+/))
        for (const [, bytes] of program.stdout.matchAll(/heap \d+ (\d+)/g)) heaps.push(Number(bytes))
        program.kill("SIGTERM")
        yield* Effect.promise(() => program.ended())
      })
    )
    assert.strictEqual(heaps.length, 10)
    // After a collection: what is left of 80,000 tasks would show, were it ten bytes a task.
    const grown = heaps[9]! - heaps[1]!
    console.log(
      `memory: heap ${heaps.map((bytes) => (bytes / 1_048_576).toFixed(1)).join(", ")} MiB after each 10,000 tasks`
    )
    assert.isBelow(grown, 800_000)
  }, 120_000)
})
