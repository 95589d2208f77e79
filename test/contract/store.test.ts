/** Every store against the contract, and what the manager owes its store: persist, then promise. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Schema } from "effect"
import { type Client, Errors, Limits, Manager, SharedCounter, SharedDict, SharedSet, Store, TaskQueue } from "millrace"
import { Faults, layerFaulty } from "../../src/testing/FaultyStore.ts"
import { layerMemoryLog, MemoryDisk } from "../../src/testing/MemoryLog.ts"
import { batch, type Disk, loaded, rowsFrom, same, storeContract, withStore } from "./store.ts"

const folders: Array<string> = []
const folder = (): string => {
  const made = mkdtempSync(join(tmpdir(), "millrace-store-"))
  folders.push(made)
  return join(made, "data")
}
afterAll(() => {
  for (const made of folders) rmSync(made, { recursive: true, force: true })
})

const sqlite = (options: Partial<Store.SqliteOptions>) => (): Disk => {
  const directory = folder()
  return {
    layer: Store.layerSqlite({ ballastBytes: 65_536, lowWaterBytes: 0, ...options, directory }),
    damage: (seq) => {
      const database = new DatabaseSync(join(directory, "millrace.db"))
      database.prepare("update log set body = zeroblob(length(body)) where seq = ?").run(seq)
      database.close()
    }
  }
}

const memory = (): Disk => ({ layer: layerMemoryLog(new MemoryDisk()) })

storeContract("memory log", memory)
storeContract("sqlite", sqlite({}))
storeContract("sqlite, without a thread", sqlite({ thread: false }))
storeContract("sqlite, buffered", sqlite({ durability: "buffered", thread: false }))
storeContract("faulty without a fault", () => ({
  layer: layerFaulty(new Faults({ commit: () => undefined })).pipe(Layer.provide(memory().layer))
}))

describe("the store that keeps nothing", () => {
  it.live("has an identity that differs each time", () =>
    Effect.gen(function* () {
      const identity = withStore({ layer: Store.layerMemory }, (store) => {
        assert.isFalse(store.keeps)
        assert.strictEqual(store.durability, "memory")
        return Effect.succeed(`${store.identity.instance.join()} ${store.identity.epoch}`)
      })
      assert.notStrictEqual(yield* identity, yield* identity)
    })
  )
})

describe("planned faults", () => {
  const run = (disk: MemoryDisk, faults: Faults) => ({
    layer: layerFaulty(faults).pipe(Layer.provide(layerMemoryLog(disk)))
  })

  it.live("full is definite and may be tried again; broken is applied or not, and ends the store", () =>
    Effect.gen(function* () {
      const disk = new MemoryDisk()
      const plan = [undefined, "full", undefined, "brokenNotApplied", "brokenApplied", "stall"] as const
      const faults = new Faults({ commit: (n) => plan[n - 1], missRead: (n) => n === 2, stallMs: 1 })
      yield* withStore(run(disk, faults), (store) =>
        Effect.gen(function* () {
          yield* store.commit(batch(rowsFrom(1, 1)))
          assert.strictEqual((yield* Effect.flip(store.commit(batch(rowsFrom(2, 1)))))._tag, "StoreFull")
          yield* store.commit(batch(rowsFrom(2, 1)))
          assert.strictEqual((yield* Effect.flip(store.commit(batch(rowsFrom(3, 1)))))._tag, "StoreBroken")
          assert.strictEqual((yield* Effect.flip(store.commit(batch(rowsFrom(3, 1)))))._tag, "StoreBroken")
        })
      )
      yield* withStore(run(disk, faults), (store) =>
        Effect.gen(function* () {
          same(yield* loaded(store), rowsFrom(1, 2))
          assert.strictEqual((yield* Effect.flip(store.commit(batch(rowsFrom(3, 1)))))._tag, "StoreBroken")
        })
      )
      yield* withStore(run(disk, faults), (store) =>
        Effect.gen(function* () {
          same(yield* loaded(store), rowsFrom(1, 3))
          yield* store.commit(batch(rowsFrom(4, 1)))
          same(yield* store.read([1, 4]), [...rowsFrom(1, 1), ...rowsFrom(4, 1)])
          same(yield* store.read([1, 4]), rowsFrom(1, 1))
        })
      )
      assert.deepStrictEqual(faults.fired, { full: 1, brokenNotApplied: 1, brokenApplied: 1, stall: 1, missRead: 1 })
    })
  )
})

const Q = TaskQueue.make("stored", { payload: Schema.Int })

describe("a store that breaks", () => {
  it.live("stops the manager: what waits is indefinite, nothing new is taken, and the manager says why", () =>
    Effect.gen(function* () {
      let breaks = false
      const broken = Layer.succeed(
        Store.Store,
        Store.Store.of({
          ...(yield* Store.Store.pipe(Effect.provide(Store.layerMemory))),
          durability: "fsync",
          keeps: true,
          commit: () => (breaks ? Effect.fail(new Errors.StoreBroken({ reason: "no such disk" })) : Effect.void),
          reopen: Effect.fail(new Errors.StoreBroken({ reason: "no such disk" }))
        })
      )
      yield* Effect.gen(function* () {
        const manager = yield* Manager.Manager
        yield* Q.put(0)
        breaks = true
        const failure = yield* Effect.flip(Q.put(1))
        assert.strictEqual(failure._tag, "ConnectionLost")
        assert.strictEqual(Errors.facts[failure._tag].outcome, "indefinite")
        const why = yield* manager.failed.pipe(Effect.flip, Effect.timeout("5 seconds"))
        assert.strictEqual(why._tag, "StoreBroken")
        assert.include(why.message, "no such disk")
        assert.strictEqual((yield* Effect.flip(Q.put(2)))._tag, "ConnectFailed")
      }).pipe(Effect.provide(Manager.layer({ queues: [Q] }).pipe(Layer.provide(broken))))
    })
  )
})

describe("a store that is slow", () => {
  it.live("costs nobody a lease: a renewal that arrived while the disk stalled comes before the lease's end", () => {
    const Short = TaskQueue.make("short", { payload: Schema.Int, policy: { lease: "1 second" } })
    let stalls = Number.POSITIVE_INFINITY
    const faults = new Faults({ commit: (n) => (n === stalls ? "stall" : undefined), stallMs: 2_000 })
    return Effect.gen(function* () {
      yield* Short.put(1)
      const [lease] = yield* Short.lease()
      stalls = faults.commits + 1
      const put = yield* Effect.forkChild(Short.put(2))
      yield* Effect.sleep("300 millis")
      yield* Short.renew(lease!)
      assert.strictEqual(faults.fired.stall, 1)
      yield* Short.commit(lease!)
      assert.strictEqual((yield* Fiber.join(put)).duplicate, false)
      assert.strictEqual((yield* Short.stats).done, 1)
    }).pipe(
      Effect.provide(
        Manager.layer({ queues: [Short] }).pipe(Layer.provide(layerFaulty(faults)), Layer.provide(memory().layer))
      )
    )
  })
})

describe("a store whose disk runs full", () => {
  it.effect("refuses what would add to it, and takes what takes away or is a commit", () =>
    Effect.gen(function* () {
      let low = false
      let fills = false
      const inner = memory().layer
      const filling = Layer.effect(
        Store.Store,
        Effect.map(Store.Store, (store) =>
          Store.Store.of({
            ...store,
            low: () => low,
            commit: (batch) =>
              Effect.andThen(
                store.commit(batch),
                Effect.sync(() => {
                  low ||= fills
                })
              )
          })
        )
      ).pipe(Layer.provide(inner))
      yield* Effect.gen(function* () {
        const seen = SharedSet.make("seen")
        const robots = SharedDict.make("robots", { value: Schema.Int })
        const pages = SharedCounter.make("pages")
        yield* Q.putAll([1, 2])
        yield* seen.add("a")
        yield* robots.set("a", 1)
        low = true
        for (const refused of [
          Q.put(3),
          Q.repeat("hourly", { every: "1 hour" }, 4),
          seen.add("b"),
          robots.set("b", 2),
          robots.setIfAbsent("c", 3)
        ] as ReadonlyArray<Effect.Effect<unknown, { readonly _tag: string }, Client.Client>>) {
          const error = yield* Effect.flip(refused)
          assert.strictEqual(error._tag, "StoreFull")
          assert.strictEqual(Errors.facts.StoreFull.outcome, "definite")
        }
        const [first, second] = yield* Q.lease({ max: 2 })
        assert.strictEqual((yield* Effect.flip(Q.checkpoint(first!, undefined)))._tag, "StoreFull")
        yield* Q.kill(first!, "poison")
        assert.strictEqual((yield* Effect.flip(Q.redrive()))._tag, "StoreFull")
        yield* Q.release(second!)
        assert.strictEqual(yield* pages.increment(), 1)
        assert.deepStrictEqual([yield* seen.has("a"), yield* seen.remove("a")], [true, true])
        assert.isTrue(yield* robots.delete("a"))
        const [again] = yield* Q.lease()
        yield* Q.commit(again!)
        assert.deepInclude(yield* Q.stats, { done: 1, dead: 1, ready: 0 })
        low = false
        yield* seen.add("b")
        yield* Q.put(3)
        fills = true
        const most = Array.from({ length: Limits.batchItemsMax + 1 }, (_, i) => i)
        const error = yield* Effect.flip(Q.putAll(most))
        assert.deepInclude(error, { _tag: "PutIncomplete", accepted: Limits.batchItemsMax, rest: "definite" })
        assert.include(error.message, "store is full")
        assert.deepInclude(yield* Q.stats, { puts: Limits.batchItemsMax + 3 })
      }).pipe(Effect.provide(Manager.layer({ queues: [Q] }).pipe(Layer.provide(filling))))
    })
  )
})
