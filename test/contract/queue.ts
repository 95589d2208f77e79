/** What the operations of a queue promise, whatever lies between the program and its manager. */
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { type Client, Limits, TaskQueue } from "millrace"

class Failed extends Schema.TaggedError<Failed>()("Failed", { why: Schema.String }) {}

let names = 0

/** A queue of its own for every test: one manager serves them all. */
export const numbers = (policy: TaskQueue.PolicyOptions = {}, name = `numbers-${++names}`) =>
  TaskQueue.make(name, {
    payload: Schema.Int,
    result: Schema.String,
    error: Failed,
    policy: { backoff: { base: 0, jitter: 0 }, ...policy }
  })

const texts = (policy: TaskQueue.PolicyOptions) =>
  TaskQueue.make(`texts-${++names}`, { payload: Schema.String, policy })

const now = { timeout: 0 } as const

const tag = ({ _tag }: { readonly _tag: string }): string => _tag

/** Fails the test, typed, unless the effect fails with this tag; returns the error. */
export const failure = <A, E extends { readonly _tag: string }, R, T extends E["_tag"]>(
  effect: Effect.Effect<A, E, R>,
  tag: T
): Effect.Effect<Extract<E, { readonly _tag: T }>, never, R> =>
  Effect.map(Effect.result(effect), (result) => {
    if (result._tag === "Success") throw new Error(`succeeded, expected ${tag}`)
    assert.strictEqual(result.failure._tag, tag)
    return result.failure as Extract<E, { readonly _tag: T }>
  })

/** Polls until it holds: bounded, and no claim about how long it takes. */
export const eventually = <E, R>(holds: Effect.Effect<boolean, E, R>, what: string): Effect.Effect<void, E, R> =>
  Effect.gen(function* () {
    for (let i = 0; i < 2_000; i++) {
      if (yield* holds) return
      yield* Effect.sleep("5 millis")
    }
    throw new Error(`never happened: ${what}`)
  })

export const suite = (provided: Layer.Layer<Client.Client, unknown>): void => {
  it.layer(provided, { excludeTestServices: true })((it) => {
    it.effect("gives out in put order, and counts what is where", () =>
      Effect.gen(function* () {
        const q = numbers()
        assert.isTrue(yield* q.isEmpty)
        yield* q.put(1)
        yield* q.putAll([2, 3, 4])
        assert.deepStrictEqual(yield* q.peek(10), [1, 2, 3, 4])
        assert.deepStrictEqual([yield* q.size, yield* q.isEmpty, yield* q.isFull], [4, false, false])
        assert.deepStrictEqual([yield* q.get(), yield* q.get(), yield* q.get(now)], [1, 2, 3])
        const [lease] = yield* q.lease()
        assert.strictEqual(lease?.payload, 4)
        yield* q.commit(lease!, "four")
        const { acknowledged, delayed, done, leased, puts, ready } = yield* eventuallyStats(
          q,
          (s) => s.acknowledged === 3
        )
        assert.deepStrictEqual([acknowledged, delayed, done, leased, puts, ready], [3, 0, 1, 0, 4, 0])
      })
    )

    it.effect("gives out the lowest priority number first, in put order within it", () =>
      Effect.gen(function* () {
        const q = numbers()
        yield* q.put(1)
        yield* q.put(2, { priority: 255 })
        yield* q.put(3, { priority: 0 })
        yield* q.put(4)
        yield* q.put(5, { priority: 0 })
        const leases = yield* q.lease({ max: 10 })
        assert.deepStrictEqual(
          leases.map(({ payload }) => payload),
          [3, 5, 1, 4, 2]
        )
        yield* failure(q.put(6, { priority: 256 }), "LimitExceeded")
      })
    )

    it.effect("a full queue refuses at once, after a time, or lets wait until there is room (M24)", () =>
      Effect.gen(function* () {
        const q = numbers({ capacity: 2 })
        yield* q.putAll([1, 2])
        assert.isTrue(yield* q.isFull)
        const full = yield* failure(q.put(3, now), "Full")
        assert.deepStrictEqual([full.queue, full.capacity, full.accepted], [q.name, 2, 0])
        yield* failure(q.put(3, { timeout: "30 millis" }), "Full")
        const waiting = yield* Effect.forkChild(q.put(4))
        yield* failure(q.put(5, { timeout: "30 millis" }), "Full")
        assert.strictEqual(yield* q.get(), 1)
        yield* Fiber.join(waiting)
        assert.deepStrictEqual([yield* q.get(), yield* q.get()], [2, 4])
      })
    )

    it.effect("putAll into a full queue says how many it took", () =>
      Effect.gen(function* () {
        const q = numbers({ capacity: 3 })
        const full = yield* failure(q.putAll([1, 2, 3, 4, 5], now), "Full")
        assert.strictEqual(full.accepted, 3)
        assert.deepStrictEqual(yield* q.peek(10), [1, 2, 3])
      })
    )

    it.effect("an empty queue lets wait, for a time or not at all", () =>
      Effect.gen(function* () {
        const q = numbers()
        yield* failure(q.get(now), "Empty")
        yield* failure(q.get({ timeout: "30 millis" }), "Empty")
        yield* failure(q.lease(now), "Empty")
        const waiting = yield* Effect.forkChild(q.get({ timeout: "30 seconds" }))
        yield* q.put(7)
        assert.strictEqual(yield* Fiber.join(waiting), 7)
      })
    )

    it.effect("a lease ends once: a second commit is refused, and an old fence changes nothing (M22)", () =>
      Effect.gen(function* () {
        const q = numbers()
        const { taskId } = yield* q.put(1)
        const [first] = yield* q.lease()
        yield* q.release(first!)
        yield* failure(q.commit(first!, "late"), "LeaseLost")
        const [second] = yield* q.lease()
        assert.deepStrictEqual([second!.taskId, second!.attempt], [taskId, 1])
        yield* failure(q.commit(first!, "old fence"), "LeaseLost")
        yield* failure(q.renew(first!), "LeaseLost")
        yield* q.renew(second!)
        yield* q.commit(second!, "done")
        yield* failure(q.commit(second!, "again"), "AlreadyEnded")
        yield* failure(q.fail(second!, new Failed({ why: "" })), "AlreadyEnded")
        yield* failure(q.release(second!), "AlreadyEnded")
        const outcome = yield* q.outcome(taskId)
        assert.deepStrictEqual(outcome, { _tag: "Success", taskId, attempts: 1, result: "done" })
      })
    )

    it.effect("a lease that runs out is redelivered, and its commit comes too late", () =>
      Effect.gen(function* () {
        const q = numbers({ lease: "1 second" })
        const { taskId } = yield* q.put(1)
        const [first] = yield* q.lease()
        assert.strictEqual(first!.leaseMs, 1_000)
        const [second] = yield* q.lease({ timeout: "30 seconds" })
        assert.deepStrictEqual([second!.taskId, second!.payload], [taskId, 1])
        yield* failure(q.commit(first!, "late"), "LeaseLost")
        yield* q.commit(second!, "in time")
        const outcome = yield* q.outcome(taskId)
        assert.strictEqual(outcome._tag === "Success" && outcome.result, "in time")
      })
    )

    it.effect("a failed attempt is tried again until maxAttempts, then the failure is the outcome", () =>
      Effect.gen(function* () {
        const q = numbers({ maxAttempts: 3, backoff: { base: "10 millis", jitter: 0 } })
        const { taskId } = yield* q.put(1)
        for (let attempt = 1; attempt <= 3; attempt++) {
          const [lease] = yield* q.lease({ timeout: "30 seconds" })
          assert.strictEqual(lease!.attempt, attempt)
          yield* q.fail(lease!, new Failed({ why: `no ${attempt}` }))
        }
        const outcome = yield* q.outcome(taskId)
        assert.isTrue(outcome._tag === "Failure" && outcome.error.why === "no 3")
        assert.strictEqual(outcome.attempts, 3)
        assert.strictEqual(outcome._tag === "Failure" ? outcome.reasons.length : 0, 3)
        assert.strictEqual((yield* q.stats).dead, 1)
      })
    )

    it.effect("retryAfter replaces the back-off, and one beyond the longest delay harms nobody", () =>
      Effect.gen(function* () {
        const q = numbers({ backoff: { base: "1 hour", cap: "1 hour", jitter: 0 } })
        yield* q.putAll([1, 2])
        const [one, two] = yield* q.lease({ max: 2 })
        yield* q.fail(one!, new Failed({ why: "" }), { retryAfter: "10 millis" })
        const [again] = yield* q.lease({ timeout: "30 seconds" })
        assert.strictEqual(again!.payload, 1)
        yield* q.fail(two!, new Failed({ why: "" }), { retryAfter: "1000 days" })
        assert.strictEqual((yield* q.stats).delayed, 1)
      })
    )

    it.effect("a killed task is dead at once, with its reason and its payload", () =>
      Effect.gen(function* () {
        const q = numbers()
        const { taskId } = yield* q.put(13)
        const [lease] = yield* q.lease()
        yield* q.kill(lease!, "unlucky")
        const outcome = yield* q.outcome(taskId)
        assert.isTrue(outcome._tag === "Dead" && outcome.payload === 13)
        assert.match(outcome._tag === "Dead" ? outcome.reasons.join() : "", /unlucky/)
        yield* failure(q.get(now), "Empty")
      })
    )

    it.effect("a task whose time to live is over is dead", () =>
      Effect.gen(function* () {
        const q = numbers()
        const { taskId } = yield* q.put(1, { ttl: "20 millis" })
        const outcome = yield* q.outcome(taskId)
        assert.match(outcome._tag === "Dead" ? outcome.reasons.join() : "", /expired/)
        yield* failure(q.get(now), "Empty")
      })
    )

    it.effect("a delayed task waits, and counts as waiting", () =>
      Effect.gen(function* () {
        const q = numbers()
        yield* q.put(1, { delay: "40 millis" })
        assert.deepStrictEqual([yield* q.size, (yield* q.stats).delayed], [1, 1])
        yield* failure(q.get(now), "Empty")
        assert.strictEqual(yield* q.get({ timeout: "30 seconds" }), 1)
      })
    )

    it.effect("a dedupe id admits one task, while it lives and after it", () =>
      Effect.gen(function* () {
        const q = numbers()
        const first = yield* q.put(1, { id: "x" })
        const second = yield* q.put(2, { id: "x" })
        assert.deepStrictEqual([first.duplicate, second.duplicate, second.taskId], [false, true, first.taskId])
        const [lease] = yield* q.lease()
        yield* q.commit(lease!, "")
        assert.isTrue((yield* q.put(3, { id: "x" })).duplicate)
        const many = yield* q.putAll([4, 5, 4], { id: (n) => `n${n}` })
        assert.deepStrictEqual(
          many.map(({ duplicate }) => duplicate),
          [false, false, true]
        )
        const { duplicates, puts } = yield* q.stats
        assert.deepStrictEqual([puts, duplicates], [3, 3])
      })
    )

    it.effect("putAll of 10,000 items keeps their order", () =>
      Effect.gen(function* () {
        const q = numbers()
        const all = Array.from({ length: 10_000 }, (_, i) => i)
        const receipts = yield* q.putAll(all)
        assert.strictEqual(new Set(receipts.map(({ taskId }) => taskId)).size, 10_000)
        const taken: Array<number> = []
        while (taken.length < 10_000) {
          const leases = yield* q.lease({ max: 4_096 })
          taken.push(...leases.map(({ payload }) => payload))
        }
        assert.deepStrictEqual(taken, all)
      })
    )

    it.effect("an atomic batch is put whole or not at all, and refused above the capacity or one frame", () =>
      Effect.gen(function* () {
        const q = numbers({ capacity: 5 })
        const atomic = { ...now, atomic: true }
        yield* failure(q.putAll([1, 2, 3, 4, 5, 6], { atomic: true }), "Full")
        yield* q.putAll([1, 2, 3], atomic)
        yield* failure(q.putAll([4, 5, 6], atomic), "Full")
        assert.strictEqual(yield* q.size, 3)
        yield* q.putAll([4, 5], atomic)
        const large = numbers()
        yield* large.putAll(new Array<number>(Limits.batchItemsMax).fill(1), atomic)
        yield* failure(large.putAll(new Array<number>(Limits.batchItemsMax + 1).fill(1), atomic), "LimitExceeded")
      })
    )

    it.effect("putWait has the result, the typed error, or why there will be neither", () =>
      Effect.gen(function* () {
        const q = numbers({ maxAttempts: 1 })
        const answers = yield* Effect.forkChild(
          Effect.all([Effect.exit(q.putWait(1)), Effect.exit(q.putWait(2)), Effect.exit(q.putWait(3))], {
            concurrency: 3
          })
        )
        for (let i = 0; i < 3; i++) {
          const [lease] = yield* q.lease()
          if (lease!.payload === 1) yield* q.commit(lease!, "one")
          else if (lease!.payload === 2) yield* q.fail(lease!, new Failed({ why: "two" }))
          else yield* q.kill(lease!, "three")
        }
        const [one, two, three] = yield* Fiber.join(answers)
        assert.deepStrictEqual(one, Exit.succeed("one"))
        assert.match(String(two), /Failed/)
        assert.match(String(three), /TaskDead/)
      })
    )

    it.effect("whoever waits for the outcome of a task that a `get` takes is told", () =>
      Effect.gen(function* () {
        const q = numbers()
        const { taskId } = yield* q.put(1)
        yield* failure(q.outcome(taskId, now), "TimedOut")
        const waiting = yield* Effect.forkChild(Effect.result(q.outcome(taskId, { timeout: "30 seconds" })))
        yield* Effect.sleep("20 millis")
        assert.strictEqual(yield* q.get(), 1)
        const result = yield* Fiber.join(waiting)
        assert.strictEqual(result._tag === "Failure" && result.failure._tag, "TaskNotFound")
        yield* failure(q.outcome("0".repeat(32)), "TaskNotFound")
        yield* failure(q.outcome("nonsense"), "TaskNotFound")
      })
    )

    it.effect("join waits for the last task, leased ones included", () =>
      Effect.gen(function* () {
        const q = numbers()
        yield* q.join()
        yield* q.put(1)
        yield* failure(q.join(now), "TimedOut")
        const [lease] = yield* q.lease()
        yield* failure(q.join({ timeout: "20 millis" }), "TimedOut")
        const joined = yield* Effect.forkChild(q.join())
        yield* q.commit(lease!, "")
        yield* Fiber.join(joined)
      })
    )

    it.effect("a draining queue refuses puts, gives out the rest, then is closed to takers", () =>
      Effect.gen(function* () {
        const q = numbers({ capacity: 2 })
        yield* q.putAll([1, 2])
        const waiting = yield* Effect.forkChild(Effect.result(q.put(3)))
        yield* Effect.sleep("20 millis")
        yield* q.close()
        const put = yield* Fiber.join(waiting)
        assert.strictEqual(put._tag === "Failure" && put.failure._tag, "Closed")
        yield* failure(q.put(4), "Closed")
        assert.strictEqual(yield* q.get(), 1)
        const [lease] = yield* q.lease()
        const taker = yield* Effect.forkChild(Effect.result(q.get()))
        yield* q.commit(lease!, "")
        const taken = yield* Fiber.join(taker)
        assert.strictEqual(taken._tag === "Failure" && taken.failure._tag, "Closed")
        yield* failure(q.get(), "Closed")
      })
    )

    it.effect("a queue closed at once cancels what waits", () =>
      Effect.gen(function* () {
        const q = numbers()
        yield* q.put(0)
        const [lease] = yield* q.lease()
        const ready = yield* q.put(1)
        const delayed = yield* q.put(2, { delay: "1 hour" })
        yield* q.close({ mode: "immediate" })
        for (const { taskId } of [ready, delayed]) assert.strictEqual((yield* q.outcome(taskId))._tag, "Cancelled")
        yield* q.commit(lease!, "still mine")
        const { cancelled, closed, done } = yield* q.stats
        assert.deepStrictEqual([closed, done, cancelled], ["immediate", 1, 2])
      })
    )

    it.effect("two readers each see every outcome in order", () =>
      Effect.gen(function* () {
        const q = numbers()
        const read = q.outcomes.pipe(Stream.take(2_000), Stream.runCollect)
        const first = yield* Effect.forkChild(read)
        const receipts = yield* q.putAll(Array.from({ length: 2_000 }, (_, i) => i))
        for (let done = 0; done < 2_000; ) {
          const leases = yield* q.lease({ max: 500 })
          yield* Effect.forEach(leases, (lease) => q.commit(lease, String(lease.payload)), { concurrency: 100 })
          done += leases.length
        }
        const expected = receipts.map(({ taskId }) => taskId)
        for (const outcomes of [yield* Fiber.join(first), yield* read]) {
          assert.deepStrictEqual(new Set(outcomes.map(({ taskId }) => taskId)), new Set(expected))
          assert.isTrue(outcomes.every(({ _tag }) => _tag === "Success"))
        }
      })
    )

    it.effect("a reader that fell out of the retained window is told which outcomes it missed", () =>
      Effect.gen(function* () {
        const q = numbers({ outcomes: { count: 2 } })
        for (let i = 0; i < 5; i++) {
          yield* q.put(i)
          const [lease] = yield* q.lease()
          yield* q.commit(lease!, "")
        }
        const gap = yield* failure(Stream.runCollect(Stream.take(q.outcomes, 1)), "OutcomesGap")
        assert.deepStrictEqual([gap.cursor, gap.oldest], [0, 3])
      })
    )

    it.effect("an unknown queue is named, where opening must not make it", () =>
      Effect.gen(function* () {
        const error = yield* failure(TaskQueue.untyped("never-made").stats, "QueueNotFound")
        assert.strictEqual(error.queue, "never-made")
        assert.match(error.message, /never-made/)
      })
    )

    it.effect("other Schemas under the same name are refused with the line that differs, unless accepted", () =>
      Effect.gen(function* () {
        const q = numbers()
        yield* q.put(1)
        const other = TaskQueue.make(q.name, { payload: Schema.String, result: Schema.String, error: Failed })
        const error = yield* failure(other.put("x"), "SchemaMismatch")
        assert.strictEqual(error.queue, q.name)
        assert.match(error.difference, /the manager has .* where the client has .*string/)
        const accepting = TaskQueue.make(q.name, { payload: Schema.Unknown, accepts: [q.fingerprint] })
        assert.deepStrictEqual(yield* accepting.peek(), [1])
      })
    )

    it.effect("a payload that does not fit its Schema is refused with its path, and not sent", () =>
      Effect.gen(function* () {
        const q = TaskQueue.make(`shapes-${++names}`, {
          payload: Schema.Struct({ list: Schema.Array(Schema.Struct({ n: Schema.Int })) })
        })
        const error = yield* failure(q.put({ list: [{ n: 1 }, { n: 1.5 }] }), "PayloadInvalid")
        assert.deepStrictEqual([error.what, error.path], ["payload", "list.1.n"])
        yield* failure(q.putAll([{ list: [] }, { list: [{ n: Number.NaN }] }]), "PayloadInvalid")
        assert.strictEqual(yield* q.size, 0)
      })
    )

    it.effect("a payload of the limit passes, one byte more is refused", () =>
      Effect.gen(function* () {
        const q = texts({ payloadBytesMax: 1_000 })
        // A codec byte and two quotes.
        yield* q.put("x".repeat(997))
        const error = yield* failure(q.put("x".repeat(998)), "PayloadTooLarge")
        assert.deepStrictEqual([error.bytes, error.limitBytes], [1_001, 1_000])
        const usual = texts({})
        yield* usual.put("x".repeat(Limits.payloadBytesMax - 3))
        yield* failure(usual.put("x".repeat(Limits.payloadBytesMax - 2)), "PayloadTooLarge")
        assert.strictEqual((yield* usual.get()).length, Limits.payloadBytesMax - 3)
      })
    )

    it.effect("the largest payload that a queue may allow comes back, and its death is told", () =>
      Effect.gen(function* () {
        const q = texts({ payloadBytesMax: Limits.payloadBytesCeiling })
        const large = "x".repeat(Limits.payloadBytesCeiling - 3)
        const { taskId } = yield* q.put(large)
        const [lease] = yield* q.lease()
        assert.strictEqual(lease!.payload.length, large.length)
        yield* q.kill(lease!, "too heavy")
        const outcome = yield* q.outcome(taskId)
        assert.strictEqual(outcome._tag === "Dead" && outcome.payload?.length, large.length)
      })
    )

    it.effect("labels and keys are measured in bytes before they are sent", () =>
      Effect.gen(function* () {
        const q = numbers()
        yield* q.put(1, { labels: ["ä".repeat(Limits.labelBytesMax / 2)], key: "ä".repeat(Limits.taskKeyBytesMax / 2) })
        yield* failure(q.put(2, { labels: ["ä".repeat(Limits.labelBytesMax / 2) + "a"] }), "LimitExceeded")
        yield* failure(q.put(2, { key: "ä".repeat(Limits.taskKeyBytesMax / 2) + "a" }), "LimitExceeded")
        yield* failure(q.put(2, { id: "ä".repeat(Limits.taskIdBytesMax / 2) + "a" }), "LimitExceeded")
        assert.strictEqual(yield* q.size, 1)
      })
    )

    it.effect("a queue whose tasksMax is used up is closed to puts", () =>
      Effect.gen(function* () {
        const q = numbers({ tasksMax: 3 })
        yield* q.putAll([1, 2])
        yield* failure(q.putAll([3, 4], { atomic: true }), "Closed")
        yield* q.put(3)
        yield* failure(q.put(4), "Closed")
        assert.strictEqual(yield* q.get(), 1)
        yield* failure(q.put(5), "Closed")
        assert.strictEqual((yield* q.stats).puts, 3)
      })
    )

    it.effect("interrupting those who wait to take loses nothing", () =>
      Effect.gen(function* () {
        const q = numbers()
        for (let i = 0; i < 50; i++) {
          const waiting = yield* Effect.forkChild(i % 2 === 0 ? q.get() : q.lease())
          if (i % 3 > 0) yield* Effect.sleep("1 millis")
          const put = yield* Effect.forkChild(q.put(i))
          if (i % 5 > 0) yield* Effect.yieldNow
          const exit = yield* Effect.andThen(Fiber.interrupt(waiting), Fiber.await(waiting))
          yield* Fiber.join(put)
          // Taken, or still there.
          if (Exit.isFailure(exit)) assert.strictEqual(yield* q.get({ timeout: "20 seconds" }), i)
        }
      })
    )

    it.effect("explains a task in each state of its life, and what limits its queue", () =>
      Effect.gen(function* () {
        const q = numbers({ backoff: { base: "1 hour", cap: "1 hour", jitter: 0 } })
        assert.deepStrictEqual((yield* q.explain()).blockers.map(tag), ["Empty", "NoWorker"])
        const { taskId } = yield* q.put(1)
        const other = yield* q.put(2, { delay: "1 hour" })
        const ready = yield* q.explain(taskId)
        assert.deepStrictEqual(ready._tag === "Ready" ? ready.blockers.map(tag) : ready, ["NoWorker"])
        const delayed = yield* q.explain(other.taskId)
        assert.strictEqual(delayed._tag === "Delayed" && delayed.why, "delay")
        const [lease] = yield* q.lease()
        const leased = yield* q.explain(taskId)
        assert(leased._tag === "Leased", leased.text)
        assert.match(leased.holder, /^\S+ \(session \d+, .+\)$/)
        assert.deepStrictEqual([leased.attempt, leased.started], [1, false])
        yield* q.fail(lease!, new Failed({ why: "rain" }))
        const backOff = yield* q.explain(taskId)
        assert.strictEqual(backOff._tag === "Delayed" && backOff.why, "back-off")
        assert.match(backOff.text, /\(back-off\) after 1 of 5 attempts/)
        yield* q.close({ mode: "immediate" })
        const ended = yield* q.explain(taskId)
        assert.strictEqual(ended._tag === "Ended" && ended.outcome, "cancelled")
        assert.include((yield* q.explain()).blockers.map(tag), "Closed")
        assert.strictEqual((yield* q.explain("0".repeat(32)))._tag, "NotFound")
        assert.strictEqual((yield* q.explain("nonsense"))._tag, "NotFound")
      })
    )

    it.effect("stats have bytes, ages and rates besides counts", () =>
      Effect.gen(function* () {
        const q = texts({})
        yield* q.put("x".repeat(97))
        yield* q.put("x".repeat(47), { delay: "1 hour" })
        const first = yield* q.stats
        assert.deepInclude(first, { waitingBytes: 150, paused: false, repeats: 0, lanes: [], durability: "memory" })
        assert.isAbove(first.nextDueMs, 3_000_000)
        yield* q.get()
        const later = yield* eventually(
          Effect.map(
            q.stats,
            ({ commits10s, leases10s, puts10s }) => puts10s === 2 && leases10s === 1 && commits10s === 1
          ),
          "rates of what has been done"
        ).pipe(Effect.andThen(q.stats))
        assert.deepInclude(later, { waitingBytes: 50, failures60s: 0 })
      })
    )

    it.effect("a repeat puts its payload one occurrence at a time, until it is removed", () =>
      Effect.gen(function* () {
        const q = numbers({ capacity: 1 })
        yield* q.put(0)
        const made = yield* q.repeat("tick", { every: "1 second" }, 7, { priority: 0, labels: ["a"] })
        assert.deepInclude(made, { id: "tick", payload: 7, occurrences: 0, taskId: undefined, lastAtMs: undefined })
        // A full queue does not hold it back, and its priority does what priorities do.
        const [lease] = yield* Effect.andThen(
          eventually(
            Effect.map(q.size, (size) => size === 2),
            "the first occurrence"
          ),
          q.lease()
        )
        assert.strictEqual(lease!.payload, 7)
        const [running] = yield* q.repeats
        assert.deepInclude(running, { occurrences: 1, taskId: lease!.taskId, schedule: { everyMs: 1_000 } })
        assert.strictEqual((yield* q.stats).repeats, 1)
        yield* q.commit(lease!, "")
        const [second] = yield* Effect.andThen(
          eventually(
            Effect.map(q.size, (size) => size === 2),
            "the second occurrence"
          ),
          q.lease()
        )
        assert.strictEqual(second!.payload, 7)
        assert.isTrue(yield* q.removeRepeat("tick"))
        assert.isFalse(yield* q.removeRepeat("tick"))
        assert.isFalse(yield* q.removeRepeat("x".repeat(300)))
        assert.deepStrictEqual(yield* q.repeats, [])
        yield* q.commit(second!, "")
      })
    )

    it.effect("a repeat by calendar has its next time in its zone; what cannot be is refused with the remedy", () =>
      Effect.gen(function* () {
        const q = numbers()
        const made = yield* q.repeat("nightly", { cron: "30 3 * * *", zone: "Asia/Kathmandu" }, 1)
        assert.match(new Date(made.nextAtMs).toISOString(), /T21:45:00.000Z$/)
        const again = yield* q.repeat("nightly", { cron: "30 3 * * *", zone: "Asia/Kathmandu" }, 2)
        assert.deepStrictEqual([again.nextAtMs, again.payload], [made.nextAtMs, 2])
        const bad = yield* failure(q.repeat("x", { cron: "* * *" }, 1), "DefinitionInvalid")
        assert.deepStrictEqual([bad.queue, bad.field, bad.value], [q.name, "cron", '"* * *"'])
        assert.match(bad.remedy, /^use five fields: minute hour/)
        const zone = yield* failure(q.repeat("x", { cron: "* * * * *", zone: "Moon" }, 1), "DefinitionInvalid")
        assert.deepStrictEqual([zone.field, zone.value], ["zone", '"Moon"'])
        const fast = yield* failure(q.repeat("x", { every: "999 millis" }, 1), "DefinitionInvalid")
        assert.deepStrictEqual([fast.field, fast.value], ["every", "999 ms"])
        yield* failure(q.repeat("x", { every: Number.NaN }, 1), "DefinitionInvalid")
        yield* failure(q.repeat("x", { every: "1 hour" }, 1.5), "PayloadInvalid")
        yield* failure(q.repeat("x", { every: "1 hour" }, 1, { priority: 256 }), "LimitExceeded")
        yield* failure(q.repeat("x".repeat(257), { every: "1 hour" }, 1), "LimitExceeded")
        yield* failure(q.repeat("x", { cron: "*".repeat(257) }, 1), "LimitExceeded")
        assert.deepStrictEqual(
          (yield* q.repeats).map(({ id }) => id),
          ["nightly"]
        )
        yield* q.close()
        assert.deepStrictEqual(yield* q.repeats, [])
        yield* failure(q.repeat("x", { every: "1 hour" }, 1), "Closed")
      })
    )

    it.effect("256 requests in flight are not a limit to the program", () =>
      Effect.gen(function* () {
        const q = numbers()
        yield* Effect.forEach(
          Array.from({ length: 2_000 }, (_, i) => i),
          (n) => q.put(n),
          { concurrency: "unbounded" }
        )
        assert.strictEqual(yield* q.size, 2_000)
      })
    )
  })
}

const eventuallyStats = (
  q: ReturnType<typeof numbers>,
  holds: (stats: TaskQueue.QueueStats) => boolean
): Effect.Effect<TaskQueue.QueueStats, unknown, Client.Client> =>
  Effect.andThen(eventually(Effect.map(q.stats, holds), "the counts"), q.stats)
