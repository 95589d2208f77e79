/** Effect's `PersistedQueue`: the same cases on Effect's own stores and on ours. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Layer, Schedule, Scheduler, Schema, Scope, Stream } from "effect"
import { PersistedQueue } from "effect/persistence"
import { Client, Limits, Manager, PersistedQueueStore, Store, TaskQueue } from "millrace"
import { ClientType } from "../../src/wire/Vocabulary.ts"
import { layerSqlite } from "./effectSql.ts"
import { auth, connected, inProcess, listening } from "./layers.ts"
import { boom, contract, holding, items, nothingElse, taken } from "./persistedQueue.ts"
import { eventually } from "./queue.ts"

const folders: Array<string> = []
const folder = (): string => {
  const made = mkdtempSync(join(tmpdir(), "millrace-persisted-"))
  folders.push(made)
  return join(made, "data")
}
afterAll(() => {
  for (const made of folders) rmSync(made, { recursive: true, force: true })
})

const sqliteOverTcp = connected.pipe(
  Layer.provide(
    Manager.layerTcp({ port: 0, auth }).pipe(
      Layer.provide(Manager.layer({ queues: [] })),
      Layer.provide(
        Layer.suspend(() => Store.layerSqlite({ directory: folder(), ballastBytes: 65_536, lowWaterBytes: 0 }))
      )
    )
  )
)

describe("PersistedQueue", () => {
  contract({ name: "Effect's memory store", layer: PersistedQueue.layerStoreMemory, remembersOwnIds: true })
  contract({
    name: "Effect's SQL store",
    layer: PersistedQueue.layerStoreSql({ pollInterval: "20 millis" }).pipe(Layer.provide(layerSqlite)),
    remembersOwnIds: true
  })
  contract({
    name: "Millrace, in process",
    layer: PersistedQueueStore.layer().pipe(Layer.provide(inProcess)),
    remembersOwnIds: false
  })
  contract({
    name: "Millrace over TCP, on disk",
    layer: PersistedQueueStore.layer().pipe(Layer.provide(sqliteOverTcp)),
    remembersOwnIds: false
  })
})

const keyOf = (user: string): string => `key-of-${user}-0123456789-abcdefghijklmnopqrstuvwxyz`

const queues = (options?: PersistedQueueStore.Options) =>
  PersistedQueue.layer.pipe(Layer.provideMerge(PersistedQueueStore.layer(options)))

describe("Millrace's store of PersistedQueue", () => {
  it.layer(queues().pipe(Layer.provideMerge(inProcess)), { excludeTestServices: true })((it) => {
    it.effect(
      "puts a retried element behind what was offered before it failed, and keeps the place of an interrupted one",
      () =>
        Effect.gen(function* () {
          const queue = yield* items()
          for (const n of [1n, 2n, 3n]) yield* queue.offer({ n })
          const { fiber } = yield* holding(queue)
          yield* Fiber.interrupt(fiber)
          yield* boom(queue)
          const order = [yield* taken(queue), yield* taken(queue), yield* taken(queue)]
          assert.deepStrictEqual(
            order.map(({ n, attempts }) => [n, attempts]),
            [
              [2, 1],
              [3, 1],
              [1, 2]
            ]
          )
        })
    )

    it.effect("keeps what failed as a dead letter with its cause, and a redrive begins to count anew", () =>
      Effect.gen(function* () {
        const store = yield* PersistedQueue.PersistedQueueStore
        const queue = yield* items({ maxAttempts: 2 })
        const tasks = PersistedQueueStore.queue(queue.name)
        yield* queue.offer({ n: 1n }, { id: "dead" })
        yield* boom(queue)
        yield* queue.take(() => Effect.fail(new Error("the very cause"))).pipe(Effect.flip)
        yield* store.offer({ name: queue.name, id: "odd", element: { n: null }, isCustomId: true })
        yield* nothingElse(queue)
        const letters = yield* Stream.runCollect(tasks.deadLetters())
        assert.deepStrictEqual(
          letters.map(({ attempt, id, payload }) => ({ attempt, id, payload })),
          [
            { attempt: 2, id: "dead", payload: { id: "dead", element: { n: "1" } } },
            { attempt: 1, id: "odd", payload: { id: "odd", element: { n: null } } }
          ]
        )
        assert.match(letters[0]!.reasons.join("\n"), /attempt 2: killed: .*the very cause/)
        assert.match(letters[1]!.reasons.join("\n"), /attempt 1: undecodable: .*n/)
        assert.lengthOf(yield* tasks.redrive({ id: "dead" }), 1)
        assert.deepStrictEqual(yield* taken(queue), { n: 1, id: "dead", attempts: 1 })
      })
    )

    it.effect("leaves nothing leased or counted by takes that were interrupted while they waited", () =>
      Effect.gen(function* () {
        const queue = yield* items()
        const tasks = PersistedQueueStore.queue(queue.name)
        for (let i = 0; i < 60; i++) {
          const waiting = yield* Effect.forEach(Array.from({ length: 3 }), () => Effect.forkScoped(taken(queue)))
          yield* Effect.forkScoped(queue.offer({ n: BigInt(i) }))
          // Sooner and later: before the element is there, while it is handed over, while its claim is written, after.
          for (let later = i % 20; later > 0; later--) yield* Effect.yieldNow
          yield* Fiber.interruptAll(waiting)
          // One that was done may have been interrupted right after.
          const { done } = yield* tasks.stats
          if (done === i) assert.deepInclude(yield* taken(queue), { n: i, attempts: 1 })
        }
        yield* eventually(
          Effect.map(tasks.stats, ({ leased, waitingTakers }) => leased + waitingTakers === 0),
          "nobody waits and nothing is held"
        )
        assert.isTrue(yield* tasks.isEmpty)
      })
    )

    it.effect("gives back what comes for a take that is interrupted in that very moment", () =>
      Effect.gen(function* () {
        const { link } = yield* Client.Client
        const ask = link.ask.bind(link)
        let before = (_: number): void => {}
        let after = (): void => {}
        link.ask = (message, settle, again) => {
          const settled: typeof settle = (answer) => {
            const count = answer instanceof Error || !("items" in answer) ? 0 : answer.items.length
            before(count)
            settle(answer)
            if (count > 0) after()
          }
          ask(message, message.type === ClientType.lease ? settled : settle, again)
        }
        yield* Effect.addFinalizer(() =>
          Effect.sync(() => {
            link.ask = ask
          })
        )
        const queue = yield* items()
        const tasks = PersistedQueueStore.queue(queue.name)
        // Its fiber lets others run before it sees what it was brought.
        let lets = false
        class Letting extends Scheduler.MixedScheduler {
          override shouldYield(): boolean {
            const now = lets
            lets = false
            return now
          }
        }
        const one = yield* Effect.forkScoped(Effect.provideService(taken(queue), Scheduler.Scheduler, new Letting()))
        before = (count) => {
          lets = count > 0
        }
        after = () => one.interruptUnsafe()
        yield* queue.offer({ n: 1n })
        assert.isTrue(Exit.isFailure(yield* Fiber.await(one)))
        before = after = () => {}
        assert.deepInclude(yield* taken(queue), { n: 1, attempts: 1 })
        // Of several that come at once, one comes for a take that is gone by then.
        yield* tasks.pause()
        for (const n of [1n, 2n, 3n, 4n]) yield* queue.offer({ n })
        const waiting = yield* Effect.forEach([1, 2, 3, 4], () => Effect.forkScoped(taken(queue)))
        let most = 0
        before = (count) => {
          most = Math.max(most, count)
          if (count >= 3) waiting[3]!.interruptUnsafe()
        }
        yield* tasks.resume()
        assert.isTrue(Exit.isFailure(yield* Fiber.await(waiting[3]!)))
        assert.isAtLeast(most, 3)
        const got = [...(yield* Effect.forEach(waiting.slice(0, 3), Fiber.join)), yield* taken(queue)]
        assert.deepStrictEqual(
          got.map(({ attempts, n }) => [n, attempts]),
          [1, 2, 3, 4].map((n) => [n, 1])
        )
      })
    )

    it.effect("more takes may wait than requests may be under way", () =>
      Effect.gen(function* () {
        const queue = yield* items()
        const count = 2 * Limits.requestsInFlightMax
        const waiting = yield* Effect.forEach(Array.from({ length: count }), () => Effect.forkScoped(taken(queue)))
        yield* Effect.sleep("20 millis")
        yield* Effect.forEach(Array.from({ length: count }), (_, n) => queue.offer({ n: BigInt(n) }), {
          concurrency: 64
        })
        const got = yield* Effect.forEach(waiting, Fiber.join)
        assert.strictEqual(new Set(got.map(({ n }) => n)).size, count)
      })
    )

    it.effect("a lease is renewed as long as its take lasts", () =>
      Effect.gen(function* () {
        const queue = yield* items()
        yield* queue.offer({ n: 1n })
        const { fiber, go } = yield* holding(queue)
        yield* Effect.sleep("2500 millis")
        yield* nothingElse(queue)
        yield* go.open
        yield* Fiber.join(fiber)
        const { done } = yield* PersistedQueueStore.queue(queue.name).stats
        assert.strictEqual(done, 2)
      }).pipe(Effect.provide(Layer.fresh(queues({ lease: "1 second" }))))
    )

    it.effect("an id that was cleaned up comes again once, whoever offers it", () =>
      Effect.gen(function* () {
        const queue = yield* items()
        for (let round = 0; round < 4; round++) {
          // Each with a store of its own, which remembers nothing.
          const offer = Effect.gen(function* () {
            const mine = yield* items({ name: queue.name })
            yield* mine.offer({ n: BigInt(round) }, { id: "again" })
          }).pipe(Effect.provide(Layer.fresh(queues())))
          yield* Effect.all([offer, offer, offer], { concurrency: 3 })
          assert.deepInclude(yield* taken(queue), { n: round, id: "again", attempts: 1 })
          yield* nothingElse(queue)
          const store = yield* PersistedQueue.PersistedQueueStore
          yield* Effect.all(
            [1, 2, 3].map(() => store.cleanup({ timeToLive: Duration.zero, failedTimeToLive: undefined })),
            { concurrency: 3 }
          )
        }
        yield* nothingElse(queue)
      })
    )

    it.effect("a queue that is another program's is an error, of takes that wait too", () =>
      Effect.gen(function* () {
        const other = TaskQueue.make("not-persisted", { payload: Schema.Int })
        yield* other.put(1)
        const queue = yield* items({ name: "not-persisted" })
        for (const error of [yield* Effect.flip(queue.offer({ n: 1n })), yield* Effect.flip(taken(queue))]) {
          assert.strictEqual(error._tag, "PersistedQueueError")
          assert.match(error.message, /not-persisted/)
        }
        const closed = yield* items()
        const waiting = yield* Effect.forkScoped(Effect.flip(taken(closed)))
        yield* eventually(
          Effect.map(PersistedQueueStore.queue(closed.name).stats, ({ waitingTakers }) => waitingTakers > 0),
          "the take waits"
        )
        yield* PersistedQueueStore.queue(closed.name).close({ mode: "immediate" })
        assert.strictEqual((yield* Fiber.join(waiting))._tag, "PersistedQueueError")
      })
    )

    it.effect("options out of range are the program's mistake", () =>
      Effect.sync(() => {
        assert.throws(() => PersistedQueueStore.layer({ lease: "1 milli" }), /leaseMs|lease/)
      })
    )
  })

  it.live("gives back what a store that is closed still holds, and the claim is counted", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      yield* Effect.gen(function* () {
        const store = yield* PersistedQueue.PersistedQueueStore
        yield* store.offer({ name: "left", id: "a", element: { n: "1" }, isCustomId: true })
        const options = { name: "left", maxAttempts: 5, retryDelay: () => Effect.succeed(Duration.zero) }
        // In a scope that outlives the connection: nobody says what became of it.
        const { attempts } = yield* Scope.provide(store.take(options), scope)
        assert.strictEqual(attempts, 1)
      }).pipe(Effect.provide(queues().pipe(Layer.provide(connected), Layer.fresh)))
      yield* Effect.gen(function* () {
        const queue = yield* items({ name: "left" })
        assert.deepStrictEqual(yield* taken(queue), { n: 1, id: "a", attempts: 2 })
      }).pipe(Effect.provide(queues().pipe(Layer.provide(connected), Layer.fresh)))
    }).pipe(Effect.scoped, Effect.provide(Layer.fresh(listening)))
  )

  it.live("goes on after a restart of the manager: what waits, what was done, and how often it was tried", () =>
    Effect.gen(function* () {
      const directory = folder()
      const life = <A, E>(use: Effect.Effect<A, E, PersistedQueue.PersistedQueueFactory | Scope.Scope>) =>
        use.pipe(
          Effect.scoped,
          Effect.provide(
            queues().pipe(
              Layer.provide(Manager.layer({ queues: [] })),
              Layer.provide(Store.layerSqlite({ directory, ballastBytes: 65_536, lowWaterBytes: 0 })),
              Layer.fresh
            )
          )
        )
      yield* life(
        Effect.gen(function* () {
          const queue = yield* items({ name: "lives" })
          yield* queue.offer({ n: 1n }, { id: "done" })
          yield* taken(queue)
          yield* queue.offer({ n: 2n }, { id: "tried" })
          yield* boom(queue)
          yield* boom(queue)
          yield* queue.offer({ n: 3n }, { id: "waits" })
        })
      )
      yield* life(
        Effect.gen(function* () {
          const queue = yield* items({ name: "lives" })
          yield* queue.offer({ n: 9n }, { id: "done" })
          yield* queue.offer({ n: 9n }, { id: "waits" })
          assert.deepStrictEqual(
            [yield* taken(queue), yield* taken(queue)].sort((a, b) => a.n - b.n),
            [
              { n: 2, id: "tried", attempts: 3 },
              { n: 3, id: "waits", attempts: 1 }
            ]
          )
          yield* nothingElse(queue)
        })
      )
    })
  )

  it.live("takes that wait, and elements that are held, outlast a restart of the manager", () =>
    Effect.gen(function* () {
      const directory = folder()
      const path = join(directory, "..", "m.sock")
      const start = Effect.gen(function* () {
        const scope = yield* Scope.make()
        yield* Layer.buildWithScope(
          Layer.fresh(
            Manager.layerTcp({ path, auth }).pipe(
              Layer.provide(Manager.layer({ queues: [] })),
              Layer.provide(Store.layerSqlite({ directory, ballastBytes: 65_536, lowWaterBytes: 0 }))
            )
          ),
          scope
        )
        return scope
      })
      const first = yield* start
      yield* Effect.gen(function* () {
        const queue = yield* items({ name: "outlasts", retrySchedule: Schedule.spaced(0) })
        yield* queue.offer({ n: 1n }, { id: "held" })
        const { fiber, go } = yield* holding(queue)
        const waiting = yield* Effect.forkScoped(taken(queue))
        yield* Scope.close(first, Exit.void)
        assert.strictEqual((yield* Effect.flip(queue.offer({ n: 2n })))._tag, "PersistedQueueError")
        const second = yield* start
        yield* Effect.retry(
          queue.offer({ n: 2n }, { id: "later" }),
          Schedule.spaced("20 millis").pipe(Schedule.upTo({ times: 500 }))
        )
        assert.deepStrictEqual(yield* Fiber.join(waiting), { n: 2, id: "later", attempts: 1 })
        yield* go.open
        yield* Fiber.join(fiber)
        const { dead, done, leased, ready } = yield* PersistedQueueStore.queue("outlasts").stats
        assert.deepStrictEqual({ dead, done, leased, ready }, { dead: 0, done: 2, leased: 0, ready: 0 })
        yield* Scope.close(second, Exit.void)
      }).pipe(
        Effect.scoped,
        Effect.provide(queues().pipe(Layer.provideMerge(Client.layerTcp({ path, auth, reconnectCap: "20 millis" }))))
      )
    })
  )

  it.live("needs producer to offer and worker to take, and an object only for cleanups", () =>
    Effect.gen(function* () {
      const { address } = yield* Manager.Listening
      const as = (user: string) =>
        Effect.provide(
          queues().pipe(
            Layer.provide(
              Client.layerTcp({
                port: address._tag === "Tcp" ? address.port : 0,
                auth: user === "" ? auth : { user, key: keyOf(user) }
              })
            ),
            Layer.fresh
          )
        )
      const clean = Effect.flatMap(PersistedQueue.PersistedQueueStore, (store) =>
        store.cleanup({ timeToLive: Duration.zero, failedTimeToLive: undefined })
      )
      const queue = items({ name: "limited" })
      const offer = Effect.flatMap(queue, ({ offer }) => offer({ n: 1n }, { id: "a" }))
      const take = Effect.flatMap(queue, taken)
      yield* offer.pipe(as("offers"))
      for (const denied of [offer.pipe(as("takes")), take.pipe(as("offers")), clean.pipe(as("takes"))]) {
        assert.match((yield* Effect.flip(denied)).message, /credential|role/)
      }
      assert.deepStrictEqual(yield* take.pipe(as("takes")), { n: 1, id: "a", attempts: 1 })
      yield* offer.pipe(as("offers"))
      yield* clean.pipe(as(""))
      // It may not know that there was a cleanup.
      yield* offer.pipe(as("offers"))
      const { ready } = yield* PersistedQueueStore.queue("limited").stats.pipe(Effect.provide(connected))
      assert.strictEqual(ready, 0)
      yield* offer.pipe(as(""))
      assert.deepStrictEqual(yield* take.pipe(as("takes")), { n: 1, id: "a", attempts: 1 })
    }).pipe(
      Effect.scoped,
      Effect.provide(
        Layer.fresh(
          Manager.layerTcp({
            port: 0,
            auth: [
              auth,
              { user: "offers", key: keyOf("offers"), roles: [{ role: "producer", queues: ["limited"] }] },
              { user: "takes", key: keyOf("takes"), roles: [{ role: "worker", queues: ["limited"] }] }
            ]
          }).pipe(Layer.provide(inProcess))
        )
      )
    )
  )
})
