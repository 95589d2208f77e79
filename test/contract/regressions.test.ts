/** Faults that a review found, each as the sequence that showed it. All over TCP, as a stranger's program would run. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Layer, Schema, Stream } from "effect"
import { Client, Manager, Store, type Task, TaskQueue, Worker } from "millrace"
import { Crawl, Master } from "millrace/crawl"
import { layerLink } from "../../src/client/Client.ts"
import { Network } from "../../src/platform/Network.ts"
import * as Node from "../../src/platform/Node.ts"
import { layerMemoryLog, MemoryDisk } from "../../src/testing/MemoryLog.ts"

const auth = { key: "regressions-0123456789abcdefghijklmnopqrstuvwxyz" }

const Start = Schema.Struct({ n: Schema.Int })

/** A manager on a free port, and what runs against it. */
const withManager = <A, E>(use: (port: number) => Effect.Effect<A, E>, port = 0) =>
  Effect.gen(function* () {
    const { address } = yield* Manager.Listening
    return yield* use(address._tag === "Tcp" ? address.port : 0)
  }).pipe(
    Effect.provide(
      Layer.fresh(
        Manager.layerTcp({ port, auth }).pipe(
          Layer.provide(Manager.layer({ queues: [] })),
          Layer.provide(Store.layerMemory)
        )
      )
    )
  )

const clientTo = (port: number) => Layer.fresh(Client.layerTcp({ port, auth }))

const until = <E, R>(condition: Effect.Effect<boolean, E, R>, seconds = 20) =>
  Effect.gen(function* () {
    for (let i = 0; i < seconds * 50; i++) {
      if (yield* condition) return
      yield* Effect.sleep("20 millis")
    }
    assert.fail(`not so within ${seconds} s`)
  })

describe("what a review found", () => {
  it.live("a queue of one place turns over thousands of waiting puts in one round", () => {
    const Q = TaskQueue.make("narrow", { payload: Schema.Int, policy: { capacity: 1 } })
    return withManager((port) =>
      Effect.gen(function* () {
        const batch = Array.from({ length: 4_096 }, (_, i) => i)
        yield* Effect.all([Q.putAll(batch), Q.putAll(batch), Q.putAll(batch)], { concurrency: 3 })
        yield* Q.join({ timeout: "20 seconds" })
        assert.strictEqual((yield* Q.stats).done, 3 * 4_096)
      }).pipe(
        Effect.provide(
          Worker.layer(Q, () => Effect.void, { concurrency: 10_000 }).pipe(Layer.provideMerge(clientTo(port)))
        )
      )
    )
  })

  it.live("errors and children too large to report fail their own attempts, and the worker goes on", () => {
    class Huge extends Schema.TaggedError<Huge>()("Huge", { text: Schema.String }) {}
    const Child = TaskQueue.make("child", { payload: Schema.Int })
    const Q = TaskQueue.make("poison", {
      payload: Start,
      result: Schema.String,
      error: Huge,
      policy: { maxAttempts: 1 }
    })
    const handler = Effect.fnUntraced(function* (task: Task.Task<typeof Start.Type>) {
      const { n } = task.payload
      if (n === 0) return yield* new Huge({ text: "x".repeat(2_000_000) })
      if (n <= 30) return yield* new Huge({ text: "x".repeat(900_000) })
      if (n === 31) for (let i = 0; i < 8_000; i++) yield* task.put(Child, i, { id: `${i}${"y".repeat(3_000)}` })
      return "fine"
    })
    return withManager((port) =>
      Effect.gen(function* () {
        yield* Q.putAll(Array.from({ length: 40 }, (_, n) => ({ n })))
        yield* Q.join({ timeout: "20 seconds" })
        const stats = yield* Q.stats
        assert.deepStrictEqual([stats.dead, stats.done], [32, 8])
        assert.strictEqual((yield* Child.stats).puts, 0)
      }).pipe(Effect.provide(Worker.layer(Q, handler, { concurrency: 40 }).pipe(Layer.provideMerge(clientTo(port)))))
    )
  })

  it.live("takes that were interrupted wait no longer, here or at the manager", () => {
    const Q = TaskQueue.make("impatient", { payload: Schema.Int })
    return withManager((port) =>
      Effect.gen(function* () {
        const impatient = Effect.timeoutOption(Q.get(), "50 millis")
        yield* Effect.all(
          Array.from({ length: 600 }, () => impatient),
          { concurrency: 200 }
        )
        assert.strictEqual(yield* Q.size.pipe(Effect.timeout("5 seconds")), 0)
        yield* Q.put(7)
        yield* Effect.sleep("100 millis")
        const stats = yield* Q.stats
        assert.deepStrictEqual([stats.ready, stats.leased, stats.dead], [1, 0, 0])
        const [lease] = yield* Q.lease()
        assert.deepStrictEqual([lease?.payload, lease?.attempt], [7, 1])
      }).pipe(Effect.provide(clientTo(port)))
    )
  })

  it.live("a handler that throws before it makes its effect is a defect, and the next task runs", () => {
    const Q = TaskQueue.make("throwing", { payload: Schema.String, result: Schema.String, policy: { maxAttempts: 1 } })
    const handler = (task: Task.Task<string>) => Effect.succeed(new URL(task.payload).host)
    return withManager((port) =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(Q.putWait("no address"))
        assert.strictEqual(error._tag, "TaskDead")
        assert.strictEqual(yield* Q.putWait("http://a.test/"), "a.test")
      }).pipe(Effect.provide(Worker.layer(Q, handler).pipe(Layer.provideMerge(clientTo(port)))))
    )
  })

  it.live("a worker that blocked past its lease and gets the task again ends it once, with the new lease", () => {
    const Q = TaskQueue.make("blocking", { payload: Schema.Int, result: Schema.Int, policy: { lease: "1 second" } })
    let runs = 0
    const handler = Effect.fnUntraced(function* (task: Task.Task<number>) {
      const run = ++runs
      yield* Effect.sleep("20 millis")
      if (run === 1) {
        // A blocked event loop: no heartbeat leaves, no timer fires.
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_600)
      }
      yield* Effect.sleep("1500 millis")
      return task.payload
    })
    return withManager((port) =>
      Effect.gen(function* () {
        assert.strictEqual(yield* Q.putWait(5).pipe(Effect.timeout("15 seconds")), 5)
        assert.strictEqual((yield* Q.stats).done, 1)
      }).pipe(Effect.provide(Worker.layer(Q, handler, { concurrency: 4 }).pipe(Layer.provideMerge(clientTo(port)))))
    )
  })

  it.live("a lease of an earlier life of the manager does nothing to a task of this one", () => {
    const A = TaskQueue.make("a", { payload: Schema.String, result: Schema.String })
    const B = TaskQueue.make("b", { payload: Schema.String, result: Schema.String })
    return Effect.gen(function* () {
      const first = yield* withManager((port) =>
        Effect.gen(function* () {
          yield* A.put("alice")
          const [lease] = yield* A.lease()
          return lease!
        }).pipe(Effect.provide(clientTo(port)))
      )
      yield* withManager((port) =>
        Effect.gen(function* () {
          const { taskId } = yield* B.put("bob")
          const [lease] = yield* B.lease()
          assert.strictEqual((yield* Effect.flip(A.commit(first, "done: alice")))._tag, "LeaseLost")
          yield* B.commit(lease!, "done: bob")
          const outcome = yield* B.outcome(taskId)
          assert.strictEqual(outcome._tag === "Success" ? outcome.result : outcome._tag, "done: bob")
        }).pipe(Effect.provide(clientTo(port)))
      )
    })
  })

  it.live(
    "a payload that get took is not handed out again when its acknowledgement is lost with the connection",
    () => {
      const Q = TaskQueue.make("taken", { payload: Schema.Int })
      return withManager((port) =>
        Effect.gen(function* () {
          const network = yield* Network
          let cut = false
          const client = layerLink({
            address: "test",
            auth,
            waitForManager: false,
            dial: (handler) =>
              network.dial({ _tag: "Tcp", host: "127.0.0.1", port }, 5_000, (made) => {
                const inner = handler(made)
                const onData = (chunk: Uint8Array): void => {
                  inner.onData(chunk)
                  // The answer is in; the acknowledgement has not left yet.
                  if (cut) made.destroy()
                  cut = false
                }
                return { ...inner, onData }
              })
          })
          yield* Effect.gen(function* () {
            yield* Q.put(7)
            yield* Q.size
            yield* Effect.sleep("20 millis") // out of the call that brought the answer
            cut = true
            assert.strictEqual(yield* Q.get(), 7)
            yield* until(Effect.map(Effect.exit(Q.size), Exit.isSuccess))
            yield* until(Effect.map(Q.stats, ({ acknowledged }) => acknowledged === 1))
            assert.strictEqual((yield* Effect.flip(Q.get({ timeout: 0 })))._tag, "Empty")
          }).pipe(Effect.provide(client))
        }).pipe(Effect.provide(Node.layer))
      )
    }
  )

  it.live("a payload that get cannot decode goes to the dead letters", () => {
    const Text = TaskQueue.untyped("mixed", { create: true })
    const Number = TaskQueue.make("mixed", { payload: Schema.Int })
    return withManager((port) =>
      Effect.gen(function* () {
        yield* Text.put("not a number")
        assert.strictEqual((yield* Effect.flip(Number.get()))._tag, "DecodeFailed")
        const stats = yield* Number.stats
        assert.deepStrictEqual([stats.acknowledged, stats.dead, stats.ready], [0, 1, 0])
      }).pipe(Effect.provide(clientTo(port)))
    )
  })

  it.live("a put of an id that is there already is answered by a full queue at once", () => {
    const Q = TaskQueue.make("full", { payload: Schema.Int, policy: { capacity: 1 } })
    return withManager((port) =>
      Effect.gen(function* () {
        const first = yield* Q.put(1, { id: "one" })
        const again = yield* Q.put(1, { id: "one", timeout: 0 })
        assert.deepStrictEqual([again.taskId, again.duplicate], [first.taskId, true])
        const waiting = yield* Deferred.make<string>()
        yield* Effect.forkChild(
          Q.put(2).pipe(
            Effect.flip,
            Effect.flatMap((error) => Deferred.succeed(waiting, error._tag))
          )
        )
        yield* Effect.sleep("50 millis")
        yield* Q.close()
        assert.strictEqual(yield* Deferred.await(waiting), "Closed")
      }).pipe(Effect.provide(clientTo(port)))
    )
  })

  it.live("a crawl does not end before its last record is written", () => {
    const { Pages } = Crawl.queues()
    const worker = Worker.layer(Pages, ({ payload }) => {
      const { url } = payload
      return Effect.succeed({ url, finalUrl: url, status: 200, bytes: 1, links: 0, images: 0, dropped: 0 })
    })
    return withManager((port) =>
      Effect.gen(function* () {
        const written: Array<string> = []
        const summary = yield* Master.crawl({
          url: "http://127.0.0.1/",
          onRecord: ({ url }) =>
            Effect.andThen(
              Effect.sleep("300 millis"),
              Effect.sync(() => void written.push(url))
            )
        })
        assert.strictEqual(summary.pages, 1)
        assert.deepStrictEqual(written, ["http://127.0.0.1/"])
      }).pipe(Effect.provide(Layer.provideMerge(worker, clientTo(port))))
    )
  })

  it.live("a reader of outcomes goes on past one whose row the store has lost", () => {
    const Q = TaskQueue.make("unreadable", { payload: Schema.Int, result: Schema.String })
    const disk = new MemoryDisk()
    const manager = Manager.layer({ queues: [Q], residentBytesMax: 0 }).pipe(Layer.provide(layerMemoryLog(disk)))
    return Effect.gen(function* () {
      for (let n = 0; n < 3; n++) {
        yield* Q.put(n)
        const [lease] = yield* Q.lease()
        yield* Q.commit(lease!, `result ${n}`)
      }
      const latin = new TextDecoder("latin1")
      disk.rows = disk.rows.filter(({ body }) => !latin.decode(body).includes("result 1"))
      const read = Q.outcomesFrom(0).pipe(Stream.take(3), Stream.runDrain, Effect.timeout("5 seconds"), Effect.flip)
      assert.strictEqual((yield* read)._tag, "DecodeFailed")
      const [last] = yield* Q.outcomesFrom(2).pipe(Stream.take(1), Stream.runCollect)
      assert.deepStrictEqual(last?._tag === "Success" ? last.result : undefined, "result 2")
    }).pipe(Effect.provide(Layer.fresh(manager)))
  })
})
