import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Task, TaskQueue, Worker } from "millrace"
import { overTcp } from "./layers.ts"
import { eventually } from "./queue.ts"

class Bad extends Schema.TaggedError<Bad>()("Bad", { why: Schema.String }) {}

let names = 0
const queueOf = (policy: TaskQueue.PolicyOptions = {}, name = `work-${++names}`) =>
  TaskQueue.make(name, {
    payload: Schema.Int,
    result: Schema.Int,
    error: Bad,
    policy: { backoff: { base: 0, jitter: 0 }, ...policy }
  })

describe("a worker over TCP", () => {
  it.layer(overTcp, { excludeTestServices: true })((it) => {
    it.effect("runs at most as many handlers as its concurrency, and commits every success", () =>
      Effect.gen(function* () {
        const q = queueOf()
        let running = 0
        let most = 0
        yield* Worker.start(
          q,
          Effect.fnUntraced(function* (task) {
            most = Math.max(most, ++running)
            yield* Effect.sleep("2 millis")
            running--
            return task.payload * 2
          }),
          { concurrency: 5 }
        )
        const receipts = yield* q.putAll(Array.from({ length: 200 }, (_, i) => i))
        yield* q.join()
        assert.strictEqual(most, 5)
        const { dead, done, leased } = yield* q.stats
        assert.deepStrictEqual([done, dead, leased], [200, 0, 0])
        const outcome = yield* q.outcome(receipts[21]!.taskId)
        assert.isTrue(outcome._tag === "Success" && outcome.result === 42)
      })
    )

    it.effect("a typed failure is tried again, then the outcome has the typed error", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 3 })
        const attempts: Array<number> = []
        yield* Worker.start(q, (task) => {
          attempts.push(task.attempt)
          return Effect.fail(new Bad({ why: `no ${task.attempt}` }))
        })
        const exit = yield* Effect.result(q.putWait(1))
        assert.isTrue(exit._tag === "Failure" && exit.failure._tag === "Bad" && exit.failure.why === "no 3")
        assert.deepStrictEqual(attempts, [1, 2, 3])
      })
    )

    it.effect("a defect counts an attempt and its cause is kept", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 2 })
        yield* Worker.start(q, () => Effect.die(new Error("the very cause")))
        const { taskId } = yield* q.put(1)
        const outcome = yield* q.outcome(taskId)
        assert.strictEqual(outcome.attempts, 2)
        assert.match(outcome._tag === "Dead" ? outcome.reasons.join("\n") : "", /defect.*the very cause/)
      })
    )

    it.effect("Task.kill ends at once, Task.retryAfter tries again, Task.release is not counted", () =>
      Effect.gen(function* () {
        const q = queueOf()
        let released = 0
        yield* Worker.start(q, (task): Effect.Effect<number, Task.Control> => {
          if (task.payload === 1) return Task.kill("poison")
          if (task.payload === 2 && task.attempt < 3) return Task.retryAfter("1 millis")
          if (task.payload === 3 && released++ < 4) return Task.release
          if (task.payload === 4 && task.attempt === 1) return Task.retryAfter("Infinity")
          return Effect.succeed(task.attempt)
        })
        const [one, two, three, four] = yield* q.putAll([1, 2, 3, 4])
        const dead = yield* q.outcome(one!.taskId)
        assert.match(dead._tag === "Dead" ? dead.reasons.join() : "", /poison/)
        assert.strictEqual(dead.attempts, 1)
        const again = yield* q.outcome(two!.taskId)
        assert.isTrue(again._tag === "Success" && again.result === 3)
        const back = yield* q.outcome(three!.taskId)
        assert.isTrue(back._tag === "Success" && back.result === 1)
        yield* eventually(
          Effect.map(q.stats, ({ delayed }) => delayed === 1),
          "the endless retry waits"
        )
        assert.isString(four!.taskId)
      })
    )

    it.effect("children come with the commit, once per dedupe id, and not with a failure", () =>
      Effect.gen(function* () {
        const parents = queueOf({ maxAttempts: 2 })
        const children = queueOf({ capacity: 1 })
        yield* Worker.start(
          parents,
          Effect.fnUntraced(function* (task) {
            for (const n of [1, 2, 3]) yield* task.put(children, n, { id: `child-${n}` })
            yield* task.put(children, 100 + task.attempt)
            if (task.payload < 0 || task.attempt === 1) return yield* new Bad({ why: "after the puts" })
            return 0
          }),
          { concurrency: 4 }
        )
        yield* parents.putAll([1, 2, -1, 3])
        yield* parents.join()
        const found = yield* children.peek(100)
        // Above the capacity of 1: children always enter.
        assert.deepStrictEqual(
          [...found].sort((a, b) => a - b),
          [1, 2, 3, 102, 102, 102]
        )
        const { dead, done } = yield* parents.stats
        assert.deepStrictEqual([done, dead], [3, 1])
      })
    )

    it.effect("a handler that outlasts its lease keeps it", () =>
      Effect.gen(function* () {
        const q = queueOf({ lease: "1 second" })
        let runs = 0
        yield* Worker.start(q, () => {
          runs++
          return Effect.as(Effect.sleep("2500 millis"), runs)
        })
        assert.strictEqual(yield* q.putWait(1), 1)
        assert.strictEqual(runs, 1)
      })
    )

    it.effect("a drain lets running handlers finish and gives back what has not begun", () =>
      Effect.gen(function* () {
        const q = queueOf()
        const scope = yield* Scope.make()
        const go = yield* Latch.make()
        let began = 0
        const handler = (task: Task.Task<number>) => {
          began++
          return Effect.as(go.await, task.payload)
        }
        yield* Scope.provide(Worker.start(q, handler, { concurrency: 2, prefetch: 3 }), scope)
        yield* q.putAll([1, 2, 3, 4, 5, 6, 7])
        yield* eventually(
          Effect.map(q.stats, ({ leased }) => leased === 5 && began === 2),
          "two run, three are held ahead"
        )
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
        yield* eventually(
          Effect.map(q.stats, ({ leased, ready }) => leased === 2 && ready === 5),
          "what has not begun is back"
        )
        yield* go.open
        yield* Effect.exit(Effect.flatMap(Effect.succeed(closing), (fiber) => Effect.suspend(() => joined(fiber))))
        const { done, leased, ready } = yield* q.stats
        assert.deepStrictEqual([done, leased, ready, began], [2, 0, 5, 2])
        const leases = yield* q.lease({ max: 5 })
        assert.deepStrictEqual(
          leases.map(({ attempt, payload }) => [attempt, payload]),
          [3, 4, 5, 6, 7].map((n) => [1, n])
        )
      })
    )

    it.effect("a handler interrupted at the end of the grace period gives its task back, uncounted", () =>
      Effect.gen(function* () {
        const q = queueOf()
        const scope = yield* Scope.make()
        yield* Scope.provide(
          Worker.start(q, () => Effect.never, { grace: "10 millis" }),
          scope
        )
        yield* q.put(1)
        yield* eventually(
          Effect.map(q.stats, ({ leased }) => leased === 1),
          "it runs"
        )
        yield* Scope.close(scope, Exit.void)
        const [lease] = yield* q.lease({ timeout: "20 seconds" })
        assert.deepStrictEqual([lease!.payload, lease!.attempt], [1, 1])
      })
    )

    it.effect("a payload that does not decode goes to the dead letters and the worker goes on", () =>
      Effect.gen(function* () {
        const q = queueOf()
        yield* q.put(1)
        const other = TaskQueue.make(q.name, { payload: Schema.String, accepts: [q.fingerprint] })
        const { taskId } = yield* other.put("not a number")
        yield* Worker.start(q, (task) => Effect.succeed(task.payload))
        const outcome = yield* other.outcome(taskId)
        assert.match(outcome._tag === "Dead" ? outcome.reasons.join() : "", /undecodable/)
        assert.strictEqual(yield* q.putWait(2), 2)
      })
    )

    it.effect("outcomes tell each task once, whoever did it", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 1 })
        const handler = (task: Task.Task<number>): Effect.Effect<number, Bad> =>
          task.payload % 10 === 0 ? Effect.fail(new Bad({ why: "" })) : Effect.succeed(task.payload)
        for (let i = 0; i < 3; i++) yield* Worker.start(q, handler, { concurrency: 8 })
        const receipts = yield* q.putAll(Array.from({ length: 3_000 }, (_, i) => i))
        const outcomes = yield* q.outcomes.pipe(Stream.take(3_000), Stream.runCollect)
        assert.deepStrictEqual(outcomes.map(({ taskId }) => taskId).sort(), receipts.map(({ taskId }) => taskId).sort())
        assert.strictEqual(outcomes.filter(({ _tag }) => _tag === "Failure").length, 300)
      })
    )
  })
})

const joined = (fiber: import("effect/Fiber").Fiber<void>): Effect.Effect<void> =>
  Effect.callback((resume) => void fiber.addObserver((exit) => resume(exit)))
