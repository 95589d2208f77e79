/** The level of a queue: what it asks for, what the store gives, and what is left of it after a restart. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Schema, Scope, Stream } from "effect"
import { Client, Manager, Store, type Task, TaskQueue, Worker } from "millrace"
import { Engine } from "../../src/model/Engine.ts"
import { Session } from "../../src/model/Session.ts"
import { layerMemoryLog, MemoryDisk } from "../../src/testing/MemoryLog.ts"
import { Collected, definition } from "../unit/model/collected.ts"
import { eventually } from "./queue.ts"

type Level = "fsync" | "buffered" | "memory"

const queueOf = (name: string, durability?: Level) =>
  TaskQueue.make(name, { payload: Schema.String, result: Schema.Int, policy: { durability } })

type Queues = Manager.ManagerOptions["queues"]

/** One life of a manager over this store. */
const life = <A, E>(
  store: Layer.Layer<Store.Store, unknown>,
  use: Effect.Effect<A, E, Client.Client | Scope.Scope>,
  queues: Queues = []
) =>
  use.pipe(
    Effect.scoped,
    Effect.provide(Layer.fresh(Manager.layer({ queues }).pipe(Layer.provide(store)))),
    Effect.orDie
  )

const levelOf = (queue: ReturnType<typeof queueOf>) => Effect.map(queue.stats, ({ durability }) => durability)

describe("the durability of a queue", () => {
  const stores = {
    fsync: () => layerMemoryLog(new MemoryDisk({ durability: "fsync" })),
    buffered: () => layerMemoryLog(new MemoryDisk({ durability: "buffered" })),
    memory: () => Store.layerMemory
  }
  const expected: Readonly<Record<keyof typeof stores, ReadonlyArray<Level>>> = {
    fsync: ["fsync", "memory", "buffered", "fsync"],
    buffered: ["buffered", "memory", "buffered", "buffered"],
    memory: ["memory", "memory", "memory", "memory"]
  }
  for (const best of ["fsync", "buffered", "memory"] as const) {
    it.live(`is what it asks for, and never more than a ${best} store gives`, () =>
      Effect.gen(function* () {
        const asked = [undefined, "memory", "buffered", "fsync"] as const
        const declared = asked.map((level) => queueOf(`declared-${level ?? "own"}`, level))
        const opened = asked.map((level) => queueOf(`opened-${level ?? "own"}`, level))
        for (const queues of [declared, opened]) {
          const levels = yield* life(stores[best](), Effect.forEach(queues, levelOf), declared)
          assert.deepStrictEqual<ReadonlyArray<string>>(levels, expected[best])
        }
      })
    )
  }

  it.live("in memory leaves nothing in the log, and after a restart the queue is there and empty", () =>
    Effect.gen(function* () {
      const disk = new MemoryDisk()
      const store = layerMemoryLog(disk)
      const [light, heavy] = [queueOf("light", "memory"), queueOf("heavy")]
      const text = "a-payload-that-nobody-else-has"
      const [receipt, kept] = yield* life(
        store,
        Effect.gen(function* () {
          const kept = yield* heavy.put("stays")
          const receipt = yield* light.put(text)
          const [lease] = yield* light.lease()
          yield* light.commit(lease!, 1)
          yield* light.put(text)
          return [receipt, kept] as const
        })
      )
      assert.isFalse(disk.rows.some(({ body }) => Buffer.from(body).includes(text)))
      assert.isTrue(disk.rows.some(({ body }) => Buffer.from(body).includes("stays")))
      yield* life(
        store,
        Effect.gen(function* () {
          const stats = yield* light.stats
          assert.deepInclude(stats, { durability: "memory", ready: 0, leased: 0, done: 0, puts: 0 })
          assert.strictEqual((yield* heavy.stats).ready, 1)
          // Its number is not another task's now: the receipt names nothing, rather than a stranger.
          const again = yield* light.put("later")
          assert.isAbove(Number.parseInt(again.taskId.slice(16), 16), Number.parseInt(receipt.taskId.slice(16), 16))
          assert.strictEqual((yield* Effect.flip(light.outcome(receipt.taskId)))._tag, "TaskNotFound")
          const [lease] = yield* heavy.lease()
          assert.strictEqual(lease!.taskId, kept.taskId)
        })
      )
    })
  )

  it.live("of a queue that has tasks in the log does not sink to memory: what ends there would live again", () =>
    Effect.gen(function* () {
      const store = layerMemoryLog(new MemoryDisk())
      yield* life(store, queueOf("q").putAll(["a", "b"]), [queueOf("q")])
      const memory = queueOf("q", "memory")
      const end = Effect.gen(function* () {
        assert.strictEqual(yield* levelOf(memory), "buffered")
        const [lease] = yield* memory.lease()
        yield* memory.commit(lease!, 1)
      })
      yield* life(store, end, [memory])
      yield* life(
        store,
        Effect.gen(function* () {
          assert.deepInclude(yield* memory.stats, { ready: 1, done: 1 })
        }),
        [memory]
      )
    })
  )

  it.live("is the one of the store that the manager has now", () =>
    Effect.gen(function* () {
      const disk = new MemoryDisk()
      const q = queueOf("q")
      assert.strictEqual(yield* life(layerMemoryLog(disk), Effect.andThen(q.put("a"), levelOf(q))), "fsync")
      Object.assign(disk, { durability: "buffered" })
      assert.strictEqual(yield* life(layerMemoryLog(disk), levelOf(q)), "buffered")
    })
  )
})

describe("a loss of power", () => {
  const loses = (disk: MemoryDisk, rows: number): void => {
    disk.rows = disk.rows.slice(0, rows)
    disk.last = disk.first - 1 + rows
  }
  const cases = [
    ["a store that does not sync", new MemoryDisk({ durability: "buffered" }), queueOf("q")],
    ["a queue that is not synced", new MemoryDisk(), queueOf("q", "buffered")]
  ] as const
  for (const [name, disk, q] of cases) {
    it.live(`may take the last puts of ${name}, and their ids name no other task`, () =>
      Effect.gen(function* () {
        const first = yield* life(layerMemoryLog(disk), q.put("kept"))
        const kept = disk.rows.length
        const lost = yield* life(layerMemoryLog(disk), Effect.all([q.put("lost"), q.put("lost too")]))
        loses(disk, kept)
        const ids = yield* life(
          layerMemoryLog(disk),
          Effect.gen(function* () {
            for (const { taskId } of lost) {
              assert.strictEqual((yield* Effect.flip(q.outcome(taskId, { timeout: 0 })))._tag, "TaskNotFound")
            }
            return yield* Effect.all([q.put("a"), q.put("b")])
          })
        )
        assert.strictEqual(new Set([first, ...lost, ...ids].map(({ taskId }) => taskId)).size, 5)
        // Again and again, and into a life that syncs.
        const all = new Set([...lost, ...ids].map(({ taskId }) => taskId))
        for (let i = 0; i < 5; i++) {
          loses(disk, kept)
          if (i === 4) Object.assign(disk, { durability: "fsync" })
          const { taskId } = yield* life(layerMemoryLog(disk), (i === 4 ? queueOf("q") : q).put("x"))
          assert.isFalse(all.has(taskId))
          all.add(taskId)
        }
      })
    )
  }
})

describe("a client that only reads", () => {
  it.live("goes on after a restart of the manager as if nothing had been", () =>
    Effect.gen(function* () {
      const disk = new MemoryDisk()
      const auth = { key: "durability-0123456789abcdefghijklmnopqrstuvwxyz" }
      const q = queueOf("read")
      const open = (port: number) =>
        Effect.gen(function* () {
          const scope = yield* Scope.make()
          const layer = Manager.layerTcp({ port, auth }).pipe(
            Layer.provide(Manager.layer({ queues: [] })),
            Layer.provide(layerMemoryLog(disk))
          )
          const context = yield* Layer.buildWithScope(Layer.fresh(layer), scope)
          const { address } = yield* Manager.Listening.pipe(Effect.provideContext(context))
          return { port: address._tag === "Tcp" ? address.port : 0, close: Scope.close(scope, Exit.void) }
        })
      const first = yield* open(0)
      const client = Layer.fresh(Client.layerTcp({ port: first.port, auth }))
      const done = Effect.gen(function* () {
        yield* q.put("x")
        const [lease] = yield* q.lease()
        yield* q.commit(lease!, 1)
      }).pipe(Effect.provide(client))
      const seen: Array<string> = []
      yield* q.stats.pipe(Effect.provide(client))
      const reader = yield* q.outcomesFrom(0).pipe(
        Stream.take(2),
        Stream.runForEach(({ _tag }) => Effect.sync(() => seen.push(_tag))),
        Effect.provide(client),
        Effect.forkChild
      )
      yield* done
      yield* eventually(
        Effect.sync(() => seen.length === 1),
        "the first outcome is read"
      )
      yield* first.close
      const second = yield* open(first.port)
      yield* done
      yield* Fiber.join(reader)
      assert.deepStrictEqual(seen, ["Success", "Success"])
      yield* second.close
    })
  )
})

describe("a commit that spans memory and the store", () => {
  for (const [from, to] of [
    ["memory", "fsync"],
    ["fsync", "memory"]
  ] as const) {
    it.live(`is refused: a child of a ${from} task on a ${to} queue`, () =>
      Effect.gen(function* () {
        const [parent, child, sibling] = [queueOf("parent", from), queueOf("child", to), queueOf("sibling", from)]
        const failures: Array<string> = []
        const worker = Worker.layer(parent, (task: Task.Task<string>) =>
          Effect.gen(function* () {
            yield* task.put(sibling, "of the same level")
            const error = yield* Effect.orDie(Effect.flip(task.put(child, "of another")))
            failures.push(error._tag)
            assert.match(error.message, /"parent" .*"child".*policy\.durability/)
            return 1
          })
        )
        yield* life(
          layerMemoryLog(new MemoryDisk()),
          Effect.gen(function* () {
            yield* child.stats
            yield* parent.put("x")
            yield* eventually(
              Effect.map(parent.stats, ({ dead, done }) => done + dead === 1),
              "the task has ended"
            )
            assert.deepStrictEqual(failures, ["DurabilityMixed"])
            assert.strictEqual((yield* parent.stats).done, 1)
            assert.strictEqual((yield* sibling.stats).puts, 1)
            assert.strictEqual((yield* child.stats).puts, 0)
          }).pipe(Effect.provide(worker))
        )
      })
    )
  }

  it("is refused by the engine too, as a whole, whoever asks", () => {
    const out = new Collected()
    const engine = new Engine({ epoch: 1, seed: 1, out })
    for (const durability of ["fsync", "memory", "buffered"] as const) {
      engine.declare({ ...definition(durability, {}), durability })
    }
    const session = engine.connect((id) => new Session(id))
    const payload = new Uint8Array([1])
    engine.put(session, 1, 0, false, 0, [payload], undefined, 0)
    engine.lease(session, 2, 0, 1, 0, false, 0)
    const childOf = (queue: number) => ({ queue, payload, options: undefined })
    const commit = (request: number, queues: ReadonlyArray<number>): void =>
      engine.commit(
        session,
        request,
        [1],
        [2 ** 32 + 1],
        [payload],
        [{ puts: queues.map(childOf), sets: [], counts: [], writes: [] }],
        0
      )
    commit(3, [2, 1])
    assert.deepStrictEqual(out.answers.get(3), { _tag: "Items", items: ["durabilityMixed"] })
    assert.deepStrictEqual(
      engine.queues.map(({ puts, leased }) => [puts, leased]),
      [
        [1, 1],
        [0, 0],
        [0, 0]
      ]
    )
    commit(4, [2, 0])
    assert.deepStrictEqual(out.answers.get(4), { _tag: "Done" })
  })
})
