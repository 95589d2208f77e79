/** What operating a queue promises, whatever lies between the program and its manager. */
import { assert, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { type Client, Limits, TaskQueue, Worker } from "millrace"
import { eventually, failure } from "./queue.ts"

let names = 0

class Failed extends Schema.TaggedError<Failed>()("Failed", { why: Schema.String }) {}

const numbers = (policy: TaskQueue.PolicyOptions = {}) =>
  TaskQueue.make(`operated-${++names}`, {
    payload: Schema.Int,
    result: Schema.String,
    error: Failed,
    checkpoint: Schema.Struct({ step: Schema.Int }),
    policy: { backoff: { base: 0, jitter: 0 }, ...policy }
  })

const now = { timeout: 0 } as const

const payloads = <P>(tasks: ReadonlyArray<TaskQueue.BrowsedTask<P>>): ReadonlyArray<P | undefined> =>
  tasks.map(({ payload }) => payload)

export const suite = (provided: Layer.Layer<Client.Client, unknown>): void => {
  it.layer(provided, { excludeTestServices: true })((it) => {
    it.effect("a waiting task is cancelled at once, and its one outcome says so", () =>
      Effect.gen(function* () {
        const q = numbers()
        const ready = yield* q.put(1)
        const delayed = yield* q.put(2, { delay: "1 hour" })
        const waiting = yield* Effect.forkChild(q.outcome(ready.taskId))
        assert.deepStrictEqual(yield* q.cancel(ready.taskId), {
          taskId: ready.taskId,
          cancelled: true,
          was: "ready"
        })
        assert.strictEqual((yield* q.cancel(delayed.taskId)).was, "delayed")
        assert.strictEqual((yield* Fiber.join(waiting))._tag, "Cancelled")
        yield* failure(q.get(now), "Empty")
        assert.deepStrictEqual(yield* q.cancelAll([ready.taskId, "0".repeat(32), "nonsense"]), [
          { taskId: ready.taskId, cancelled: false, was: "cancelled" },
          { taskId: "0".repeat(32), cancelled: false, was: "gone" },
          { taskId: "nonsense", cancelled: false, was: "gone" }
        ])
        yield* q.join()
        assert.strictEqual((yield* q.stats).cancelled, 2)
      })
    )

    it.effect("a cancel says how a task had ended, and changes nothing then", () =>
      Effect.gen(function* () {
        const q = numbers({ maxAttempts: 1 })
        const receipts = yield* q.putAll([1, 2, 3])
        const [one, two, three] = yield* q.lease({ max: 3 })
        yield* q.commit(one!, "")
        yield* q.fail(two!, new Failed({ why: "" }))
        yield* q.kill(three!, "")
        const done = yield* q.cancelAll(receipts.map(({ taskId }) => taskId))
        assert.deepStrictEqual(
          done.map(({ cancelled, was }) => [cancelled, was]),
          [
            [false, "success"],
            [false, "failure"],
            [false, "dead"]
          ]
        )
        assert.strictEqual((yield* q.stats).cancelled, 0)
      })
    )

    it.effect("a leased task is cancelled at once: a late commit, checkpoint or renewal is refused", () =>
      Effect.gen(function* () {
        const q = numbers()
        const { taskId } = yield* q.put(1)
        const [lease] = yield* q.lease()
        assert.deepStrictEqual(yield* q.cancel(taskId), { taskId, cancelled: true, was: "leased" })
        assert.strictEqual((yield* q.outcome(taskId))._tag, "Cancelled")
        yield* failure(q.commit(lease!, "late"), "AlreadyEnded")
        yield* failure(q.checkpoint(lease!, { step: 1 }), "AlreadyEnded")
        yield* failure(q.renew(lease!), "AlreadyEnded")
        const { cancelled, done, leased } = yield* q.stats
        assert.deepStrictEqual([cancelled, done, leased], [1, 0, 0])
      })
    )

    it.effect(
      "the handler of a cancelled task is interrupted without waiting for a heartbeat, and reports nothing",
      () =>
        Effect.gen(function* () {
          const q = numbers()
          const begun = yield* Deferred.make<void>()
          const stopped = yield* Deferred.make<void>()
          const handler = Effect.fnUntraced(function* (task: { readonly payload: number }) {
            if (task.payload > 1) return "done"
            yield* Deferred.succeed(begun, undefined)
            return yield* Effect.onInterrupt(Effect.never, () => Deferred.succeed(stopped, undefined))
          })
          const { taskId } = yield* q.put(1)
          yield* Effect.gen(function* () {
            yield* Deferred.await(begun)
            yield* q.cancel(taskId)
            yield* Deferred.await(stopped)
            // The slot is free again, and its credit has come back.
            assert.strictEqual(yield* q.putWait(2), "done")
          }).pipe(Effect.provide(Worker.layer(q, handler, { concurrency: 1 })))
          const { cancelled, dead, done, puts } = yield* q.stats
          assert.deepStrictEqual([cancelled, dead, done, puts], [1, 0, 1, 2])
        })
    )

    it.effect("a paused queue takes puts and hands out nothing; what is leased goes on", () =>
      Effect.gen(function* () {
        const q = numbers()
        yield* q.putAll([1, 2])
        const [lease] = yield* q.lease()
        yield* q.pause()
        yield* q.pause()
        assert.isTrue((yield* q.stats).paused)
        yield* q.put(3)
        yield* failure(q.get(now), "Empty")
        yield* failure(q.get({ timeout: "20 millis" }), "Empty")
        const waiting = yield* Effect.forkChild(q.get())
        yield* q.commit(lease!, "")
        assert.deepStrictEqual(yield* q.peek(9), [2, 3])
        yield* q.resume()
        assert.strictEqual(yield* Fiber.join(waiting), 2)
        assert.isFalse((yield* q.stats).paused)
        assert.strictEqual(yield* q.get(now), 3)
      })
    )

    it.effect("purge removes what waits and fits, and whoever waits for its outcome is told", () =>
      Effect.gen(function* () {
        const q = numbers({ capacity: 5 })
        yield* q.put(0)
        const [lease] = yield* q.lease()
        const first = yield* q.put(1, { id: "x", labels: ["old", "a"] })
        yield* q.put(2, { labels: ["old"], delay: "1 hour", ttl: "1 hour" })
        yield* q.put(3, { priority: 5, key: "k" })
        yield* q.putAll([4, 5])
        const blocked = yield* Effect.forkChild(q.put(6))
        const waiting = yield* Effect.forkChild(Effect.result(q.outcome(first.taskId)))
        yield* Effect.sleep("20 millis")
        assert.strictEqual(yield* q.purge({ label: "none" }), 0)
        assert.strictEqual(yield* q.purge({ label: "old" }), 2)
        yield* Fiber.join(blocked)
        const told = yield* Fiber.join(waiting)
        assert.strictEqual(told._tag === "Failure" && told.failure._tag, "TaskNotFound")
        assert.strictEqual(yield* q.purge({ priorityMax: 5, key: "k" }), 1)
        assert.strictEqual(yield* q.purge(), 3)
        yield* q.commit(lease!, "what is leased stays")
        yield* q.join()
        const { delayed, done, purged, puts, ready } = yield* q.stats
        assert.deepStrictEqual([delayed, done, purged, puts, ready], [0, 1, 6, 7, 0])
        const again = yield* q.put(1, { id: "x" })
        assert.deepStrictEqual(again.first, { taskId: first.taskId, state: "gone" })
      })
    )

    it.effect("a purge or a page of more tasks than one message looks at goes on by itself", () =>
      Effect.gen(function* () {
        const q = numbers()
        const count = 2 * Limits.sweepTasksMax + 5
        yield* q.putAll(Array.from({ length: count }, (_, i) => i))
        yield* q.put(-1, { labels: ["needle"] })
        const first = yield* q.browse({ label: "needle" })
        assert.deepStrictEqual([first.tasks.length, first.cursor === undefined], [0, false])
        const second = yield* q.browse({ label: "needle", cursor: first.cursor })
        const third = yield* q.browse({ label: "needle", cursor: second.cursor })
        assert.deepStrictEqual([payloads(third.tasks), third.cursor], [[-1], undefined])
        assert.strictEqual(yield* q.purge({ priorityMin: 128 }), count + 1)
        assert.strictEqual(yield* q.size, 0)
      })
    )

    it.effect("browse shows tasks by state and filter, page by page", () =>
      Effect.gen(function* () {
        const q = numbers()
        yield* q.putAll([1, 2])
        yield* q.lease({ max: 2 })
        yield* q.put(3, { id: "three", key: "k", labels: ["a", "b"], priority: 7 })
        yield* q.put(4, { delay: "1 hour" })
        const all = yield* q.browse()
        assert.deepStrictEqual(payloads(all.tasks), [1, 2, 3, 4])
        assert.deepStrictEqual(
          all.tasks.map(({ state }) => state),
          ["leased", "leased", "ready", "delayed"]
        )
        const [leased, , ready, delayed] = all.tasks
        assert.deepStrictEqual([leased!.attempt, ready!.attempt], [1, 0])
        assert.isTrue(leased!.holder !== undefined && leased!.atMs > leased!.putAtMs && ready!.holder === undefined)
        assert.isAtLeast(delayed!.atMs - delayed!.putAtMs, 3_600_000)
        assert.deepStrictEqual([ready!.id, ready!.key, ready!.labels, ready!.priority], ["three", "k", ["a", "b"], 7])
        assert.deepStrictEqual(payloads((yield* q.browse({ state: "ready" })).tasks), [3])
        for (const filter of [{ id: "three" }, { key: "k" }, { label: "b" }, { priorityMax: 7 }]) {
          assert.deepStrictEqual(payloads((yield* q.browse({ ...filter, payloads: false })).tasks), [undefined])
          assert.deepStrictEqual(payloads((yield* q.browse(filter)).tasks), [3])
        }
        const page = yield* q.browse({ limit: 2 })
        assert.deepStrictEqual(payloads(page.tasks), [1, 2])
        // What was shown may go, and what comes has its place at the end.
        yield* q.cancel(page.tasks[1]!.taskId)
        yield* q.put(5)
        const rest = yield* q.browse({ limit: 3, cursor: page.cursor })
        assert.deepStrictEqual(payloads(rest.tasks), [3, 4, 5])
        yield* failure(q.browse({ limit: Limits.pageItemsMax + 1 }), "LimitExceeded")
        yield* failure(q.browse({ priorityMin: 256 }), "LimitExceeded")
        yield* failure(q.browse({ label: "x".repeat(Limits.labelBytesMax + 1) }), "LimitExceeded")
      })
    )

    it.effect("dead letters carry the reasons of every attempt", () =>
      Effect.gen(function* () {
        const q = numbers({ maxAttempts: 2 })
        yield* q.putAll([1, 2])
        for (let attempts = 0; attempts < 3; attempts++) {
          const [lease] = yield* q.lease({ timeout: "30 seconds" })
          if (lease!.payload === 2) yield* q.kill(lease!, "poison")
          else yield* q.fail(lease!, new Failed({ why: `try ${attempts}` }))
        }
        const letters = yield* Stream.runCollect(q.deadLetters())
        assert.sameMembers([...payloads(letters)], [1, 2])
        const one = letters.find(({ payload }) => payload === 1)!
        assert.strictEqual(one.state, "dead")
        assert.strictEqual(one.reasons.length, 2)
        assert.match(one.reasons.join("\n"), /attempt 1: failed[\s\S]*attempt 2: failed/)
        assert.match(letters.find(({ payload }) => payload === 2)!.reasons.join(), /killed: poison/)
      })
    )

    it.effect("redrive makes a new task with its origin and checkpoint; the old id keeps its outcome", () =>
      Effect.gen(function* () {
        const q = numbers({ capacity: 1 })
        const { taskId } = yield* q.put(1, { id: "x", labels: ["l"], priority: 3, ttl: "1 hour" })
        const [lease] = yield* q.lease()
        yield* q.checkpoint(lease!, { step: 4 })
        yield* q.kill(lease!, "bug")
        // The queue is full: a redrive enters all the same.
        yield* q.put(2)
        const [done, none] = yield* q.redrive({ taskIds: [taskId, "0".repeat(32)] })
        assert.deepStrictEqual([done!.from, none], [taskId, { from: "0".repeat(32), to: undefined }])
        assert.strictEqual(yield* Stream.runCount(q.deadLetters()), 0)
        assert.strictEqual((yield* q.outcome(taskId))._tag, "Dead")
        const [again] = yield* q.lease()
        assert.deepStrictEqual(
          [again!.taskId, again!.payload, again!.attempt, again!.checkpoint],
          [done!.to!, 1, 1, { step: 4 }]
        )
        const { tasks } = yield* q.browse({ state: "leased" })
        assert.deepStrictEqual([tasks[0]!.origin, tasks[0]!.labels, tasks[0]!.id], [taskId, ["l"], undefined])
        assert.strictEqual((yield* q.put(3, { id: "x" })).first?.state, "dead")
        yield* q.commit(again!, "well")
        assert.strictEqual((yield* q.outcome(done!.to!))._tag, "Success")
        assert.deepStrictEqual(yield* q.redrive({ taskIds: [taskId] }), [{ from: taskId, to: undefined }])
        const { dead, deadLetters, puts, redriven } = yield* q.stats
        assert.deepStrictEqual([dead, deadLetters, puts, redriven], [1, 0, 3, 1])
      })
    )

    it.effect("redrive of all that fit takes those that were dead when it began", () =>
      Effect.gen(function* () {
        const q = numbers()
        const count = Limits.redriveTasksMax + 7
        yield* q.putAll(
          Array.from({ length: count }, (_, i) => i),
          { id: (n) => `n${n}` }
        )
        for (let killed = 0; killed < count; ) {
          const leases = yield* q.lease({ max: 500 })
          yield* Effect.forEach(leases, (lease) => q.kill(lease, "all"), { concurrency: 100, discard: true })
          killed += leases.length
        }
        assert.strictEqual((yield* q.redrive({ id: "n3" })).length, 1)
        const rest = yield* q.redrive()
        assert.strictEqual(rest.length, count - 1)
        assert.strictEqual(new Set(rest.map(({ to }) => to)).size, count - 1)
        const { deadLetters, ready, redriven } = yield* q.stats
        assert.deepStrictEqual([deadLetters, ready, redriven], [0, count, count])
        yield* q.close({ mode: "immediate" })
        yield* failure(q.redrive(), "Closed")
      })
    )

    it.effect("a checkpoint is handed to the next attempt, the last one wins, and an old fence saves nothing", () =>
      Effect.gen(function* () {
        const q = numbers()
        yield* q.put(1)
        const [lease] = yield* q.lease()
        assert.isUndefined(lease!.checkpoint)
        yield* q.checkpoint(lease!, { step: 1 })
        yield* q.checkpoint(lease!, { step: 2 })
        yield* failure(q.checkpoint(lease!, { step: 0.5 }), "PayloadInvalid")
        yield* q.release(lease!)
        yield* failure(q.checkpoint(lease!, { step: 9 }), "LeaseLost")
        const [again] = yield* q.lease()
        assert.deepStrictEqual(again!.checkpoint, { step: 2 })
        yield* failure(q.checkpoint(lease!, { step: 9 }), "LeaseLost")
        yield* q.fail(again!, new Failed({ why: "" }))
        const [third] = yield* q.lease({ timeout: "30 seconds" })
        assert.deepStrictEqual(third!.checkpoint, { step: 2 })
        yield* q.commit(third!, "")
      })
    )

    it.effect("a put with a known id says what happened to the first", () =>
      Effect.gen(function* () {
        const q = numbers()
        const first = yield* q.put(1, { id: "x" })
        assert.isUndefined(first.first)
        const state = Effect.map(q.put(9, { id: "x" }), (receipt) => {
          assert.isTrue(receipt.duplicate && receipt.taskId === first.taskId && receipt.first!.taskId === first.taskId)
          return receipt.first!.state
        })
        assert.strictEqual(yield* state, "ready")
        const [lease] = yield* q.lease()
        assert.strictEqual(yield* state, "leased")
        yield* q.fail(lease!, new Failed({ why: "" }), { retryAfter: "1 hour" })
        assert.strictEqual(yield* state, "delayed")
        yield* q.cancel(first.taskId)
        assert.strictEqual(yield* state, "cancelled")
        const many = yield* q.putAll([1, 2, 1], { id: (n) => `n${n}` })
        assert.deepStrictEqual(
          many.map((receipt) => receipt.first?.state),
          [undefined, undefined, "ready"]
        )
      })
    )

    it.effect("capacity in bytes makes puts wait, time out or fail like capacity in tasks", () =>
      Effect.gen(function* () {
        const q = TaskQueue.make(`bytes-${++names}`, { payload: Schema.String, policy: { capacityBytes: 100 } })
        const text = (size: number): string => "x".repeat(size - 3) // a codec byte and two quotes
        yield* q.put(text(60))
        yield* q.put(text(40))
        assert.isTrue(yield* q.isFull)
        const full = yield* failure(q.put(text(4), now), "Full")
        assert.strictEqual(full.capacityBytes, 100)
        yield* failure(q.put(text(4), { timeout: "20 millis" }), "Full")
        const waiting = yield* Effect.forkChild(q.put(text(50)))
        yield* Effect.sleep("20 millis")
        assert.strictEqual((yield* q.get()).length, 57)
        yield* Fiber.join(waiting)
        yield* eventually(
          Effect.map(q.stats, ({ waitingBytes }) => waitingBytes === 90),
          "90 bytes wait"
        )
        // One that could never wait here is too large, and an atomic batch is refused as a whole.
        const large = yield* failure(q.put(text(101)), "PayloadTooLarge")
        assert.strictEqual(large.limitBytes, 100)
        yield* failure(q.putAll([text(60), text(60)], { atomic: true }), "Full")
        assert.strictEqual(yield* q.size, 2)
      })
    )

    it.effect("a queue that drops the oldest always takes a put, and the least urgent go first", () =>
      Effect.gen(function* () {
        const q = numbers({ capacity: 3, overflow: "dropOldest" })
        const [one] = yield* q.putAll([1, 2, 3], now)
        yield* q.put(4, { priority: 0, ...now })
        const outcome = yield* q.outcome(one!.taskId)
        assert.match(outcome._tag === "Dead" ? outcome.reasons.join() : "", /dropped/)
        assert.deepStrictEqual(yield* q.peek(9), [4, 2, 3])
        // The least urgent of all is what comes: it makes room itself.
        const last = yield* q.put(5, { priority: 255, ...now })
        assert.strictEqual((yield* q.outcome(last.taskId))._tag, "Dead")
        const [lease] = yield* q.lease()
        yield* q.putAll([6, 7, 8], now)
        yield* q.release(lease!)
        assert.deepStrictEqual(yield* q.peek(9), [4, 6, 7, 8])
        yield* q.put(9, now)
        assert.deepStrictEqual(yield* q.peek(9), [4, 8, 9])
        const { dead, dropped } = yield* q.stats
        assert.deepStrictEqual([dead, dropped], [6, 6])
        yield* failure(q.putAll([1, 2, 3, 4], { atomic: true }), "Full")
      })
    )

    it.effect(
      "a queue closed at once tells takers so, though a task is still leased, and cancels what is put back",
      () =>
        Effect.gen(function* () {
          const q = numbers()
          const { taskId } = yield* q.put(1)
          const [lease] = yield* q.lease()
          const taker = yield* Effect.forkChild(Effect.result(q.get()))
          yield* Effect.sleep("20 millis")
          yield* q.close({ mode: "immediate" })
          const told = yield* Fiber.join(taker)
          assert.strictEqual(told._tag === "Failure" && told.failure._tag, "Closed")
          yield* failure(q.get(now), "Closed")
          yield* failure(q.put(2), "Closed")
          const joined = yield* Effect.forkChild(q.join())
          yield* q.release(lease!)
          yield* Fiber.join(joined)
          assert.strictEqual((yield* q.outcome(taskId))._tag, "Cancelled")
        })
    )

    it.effect("closing a long queue at once cancels all of it", () =>
      Effect.gen(function* () {
        const q = numbers()
        const count = 2 * Limits.sweepTasksMax + 5
        yield* q.putAll(Array.from({ length: count }, (_, i) => i))
        yield* q.close({ mode: "immediate" })
        yield* failure(q.get(now), "Closed")
        yield* q.join()
        const { cancelled, ready } = yield* q.stats
        assert.deepStrictEqual([cancelled, ready], [count, 0])
      })
    )
  })
}
