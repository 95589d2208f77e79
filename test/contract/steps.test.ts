import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Client, Manager, Signal, Step, Task, TaskQueue, Worker } from "millrace"
import { layerMemoryLog, MemoryDisk } from "../../src/testing/MemoryLog.ts"
import { overTcp } from "./layers.ts"
import { eventually } from "./queue.ts"

class Bad extends Schema.TaggedError<Bad>()("Bad", { why: Schema.String }) {}
const Progress = Schema.Struct({ page: Schema.Int })
const Approved = Signal.make("approved", Schema.Boolean)

let names = 0
const queueOf = (policy: TaskQueue.PolicyOptions = {}) =>
  TaskQueue.make(`steps-${++names}`, {
    payload: Schema.Int,
    result: Schema.Array(Schema.String),
    error: Bad,
    checkpoint: Progress,
    policy: { backoff: { base: 0, jitter: 0 }, ...policy }
  })

describe("steps, over TCP", () => {
  it.layer(overTcp, { excludeTestServices: true })((it) => {
    it.effect("a recorded step is not run again by a later attempt, and gives the same value", () =>
      Effect.gen(function* () {
        const q = queueOf()
        const ran: Array<string> = []
        const step = (name: string, attempt: number) =>
          Step.run(
            name,
            Schema.String,
            Effect.sync(() => {
              ran.push(`${name} ${attempt}`)
              return `${name} of attempt ${attempt}`
            })
          )
        yield* Worker.start(
          q,
          Effect.fnUntraced(function* (task) {
            const a = yield* step("a", task.attempt)
            if (task.attempt === 1) return yield* new Bad({ why: "first" })
            const [b, c] = yield* Effect.all([step("b", task.attempt), step("c", task.attempt)], { concurrency: 2 })
            if (task.attempt === 2) return yield* Effect.die("second")
            return [a, b, c]
          })
        )
        const result = yield* q.putWait(1)
        assert.deepStrictEqual(result, ["a of attempt 1", "b of attempt 2", "c of attempt 2"])
        assert.deepStrictEqual(ran, ["a 1", "b 2", "c 2"])
      })
    )

    it.effect("a failed step runs again in the next attempt, unless its failures are recorded", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 3 })
        let [loose, kept, retried] = [0, 0, 0]
        yield* Worker.start(
          q,
          Effect.fnUntraced(function* (task) {
            const first = yield* Effect.result(
              Step.run(
                "kept",
                Schema.String,
                Effect.suspend(() => Effect.fail(new Bad({ why: `kept ${++kept}` }))),
                { error: Bad }
              )
            )
            yield* Step.run(
              "retried",
              Schema.Int,
              Effect.suspend(() => (++retried % 3 === 0 ? Effect.succeed(retried) : Effect.fail("again" as const))),
              { retry: Schedule.recurs(5) }
            ).pipe(Effect.catchIf((error) => error === "again", Effect.die))
            yield* Step.run(
              "loose",
              Schema.Int,
              Effect.suspend(() => (++loose < 3 ? Effect.fail(new Bad({ why: "loose" })) : Effect.succeed(loose)))
            )
            return [
              first._tag === "Failure" && first.failure._tag === "Bad" ? first.failure.why : "?",
              `${task.attempt}`
            ]
          })
        )
        assert.deepStrictEqual(yield* q.putWait(1), ["kept 1", "3"])
        assert.deepStrictEqual([loose, kept, retried], [3, 1, 3])
      })
    )

    it.effect("a sleeping task holds no worker, is not counted as an attempt, and goes on", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 1 })
        const asleep = yield* Deferred.make<void>()
        let runs = 0
        yield* Worker.start(
          q,
          Effect.fnUntraced(function* (task) {
            if (task.payload === 2) return ["beside"]
            runs++
            yield* Deferred.succeed(asleep, undefined)
            yield* Step.sleep("a while", "1500 millis")
            return [`attempt ${task.attempt}`]
          })
        )
        const { taskId } = yield* q.put(1)
        yield* Deferred.await(asleep)
        // One handler at a time: it could not run if the sleeping one held its place.
        assert.deepStrictEqual(yield* q.putWait(2), ["beside"])
        const [task] = (yield* q.browse({ state: "delayed" })).tasks
        assert.deepStrictEqual([task?.taskId, task?.suspended, task?.attempt, task?.entries], [taskId, true, 0, 1])
        const outcome = yield* q.outcome(taskId)
        assert.isTrue(outcome._tag === "Success" && outcome.result[0] === "attempt 1" && runs === 2)
      })
    )

    it.effect("a task waits for a signal without a worker; one that came before counts; the first value wins", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 1 })
        let runs = 0
        yield* Worker.start(
          q,
          Effect.fnUntraced(function* (task) {
            runs++
            const before = yield* Step.run("before", Schema.Int, Effect.succeed(task.payload))
            const approved = yield* Step.waitFor(Approved)
            return [`${before} ${approved}`]
          })
        )
        const { taskId } = yield* q.put(1)
        yield* eventually(
          Effect.map(q.browse({ state: "delayed" }), (page) => page.tasks.some((task) => task.suspended)),
          "it waits"
        )
        yield* q.signal(taskId, Approved, true)
        yield* Effect.ignore(q.signal(taskId, Approved, false))
        const outcome = yield* q.outcome(taskId)
        assert.isTrue(outcome._tag === "Success" && outcome.result[0] === "1 true")
        assert.strictEqual(runs, 2)
        const late = yield* Effect.flip(q.signal(taskId, Approved, true))
        assert.strictEqual(late._tag, "AlreadyEnded")
        const never = yield* Effect.flip(q.signal({ id: "nobody" }, Approved, true))
        assert.strictEqual(never._tag, "TaskNotFound")
        // Told before the worker has it.
        yield* q.pause()
        const second = yield* q.put(2, { id: "second" })
        yield* q.signal({ id: "second" }, Approved, false)
        assert.deepStrictEqual(yield* q.find("second"), { taskId: second.taskId, state: "ready" })
        yield* q.resume()
        const early = yield* q.outcome(second.taskId)
        assert.isTrue(early._tag === "Success" && early.result[0] === "2 false")
        assert.strictEqual(runs, 3)
      })
    )

    it.effect("a wait with a time-out ends in the same way in every attempt", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 3 })
        yield* Worker.start(
          q,
          Effect.fnUntraced(function* (task) {
            const told = yield* Effect.result(Step.waitFor(Approved, { timeout: "1200 millis" }))
            const word = told._tag === "Success" ? `${told.success}` : told.failure._tag
            yield* Step.run("after", Schema.String, Effect.succeed(word))
            if (task.attempt === 1) return yield* new Bad({ why: "once more" })
            return [word]
          })
        )
        assert.deepStrictEqual(yield* q.putWait(1), ["TimedOut"])
      })
    )

    it.effect("waits for one signal with time-outs have names, and each its own time", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 1 })
        const reminded: Array<number> = []
        yield* Worker.start(
          q,
          Effect.fnUntraced(function* (task) {
            if (task.payload === 2) {
              const once = Effect.ignore(Step.waitFor(Approved, { timeout: "10 millis" }))
              yield* once
              return [
                `${yield* Effect.catchTag(Step.waitFor(Approved, { timeout: "10 millis" }), "TimedOut", Effect.die)}`
              ]
            }
            for (let i = 0; i < 3; i++) {
              const told = yield* Effect.result(Step.waitFor(Approved, { timeout: "20 millis", name: `reminder ${i}` }))
              if (told._tag === "Success") return [`told after ${i}`]
              yield* Step.run(
                `remind ${i}`,
                Schema.Int,
                Effect.sync(() => reminded.push(i))
              )
            }
            return [`never, ${yield* Step.waitFor(Approved)}`]
          })
        )
        const { taskId } = yield* q.put(1)
        yield* eventually(
          Effect.sync(() => reminded.length === 3),
          "three reminders"
        )
        yield* q.signal(taskId, Approved, true)
        const outcome = yield* q.outcome(taskId)
        assert.isTrue(outcome._tag === "Success" && outcome.result[0] === "never, true", JSON.stringify(outcome))
        assert.deepStrictEqual(reminded, [0, 1, 2])
        const twice = yield* Effect.flip(q.putWait(2))
        assert.isTrue(twice._tag === "TaskDead" && twice.reasons.at(-1)!.includes("another step of that name"))
      })
    )

    it.effect("a wait where nothing can be interrupted fails, and does not hang", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 1 })
        yield* Worker.start(q, () => Effect.uninterruptible(Effect.as(Step.sleep("long", "1 hour"), [])))
        const dead = yield* Effect.flip(q.putWait(1))
        assert.isTrue(
          dead._tag === "TaskDead" && dead.reasons.at(-1)!.includes("uninterruptible"),
          JSON.stringify(dead)
        )
      })
    )

    it.effect("while a step runs beside a wait, the attempt is not cut", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 1 })
        let long = 0
        yield* Worker.start(
          q,
          Effect.fnUntraced(function* () {
            const [, value] = yield* Effect.all(
              [
                Step.waitFor(Approved),
                Step.run(
                  "long",
                  Schema.Int,
                  Effect.andThen(
                    Effect.sleep("300 millis"),
                    Effect.sync(() => ++long)
                  )
                )
              ],
              { concurrency: 2 }
            )
            return [`${value}`]
          })
        )
        const { taskId } = yield* q.put(1)
        yield* eventually(
          Effect.map(q.browse({ state: "delayed" }), (page) => page.tasks.some((task) => task.suspended)),
          "it waits"
        )
        yield* q.signal(taskId, Approved, true)
        const outcome = yield* q.outcome(taskId)
        assert.isTrue(outcome._tag === "Success" && outcome.result[0] === "1" && long === 1)
      })
    )

    it.effect("a handler whose steps have changed fails clearly, or accepts the older version", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 4, backoff: { base: 200, jitter: 0 } })
        const text = Step.run("text", Schema.String, Effect.succeed("x"))
        const first = yield* Scope.make()
        yield* Worker.start(q, () =>
          Effect.andThen(Step.version(1), Effect.andThen(text, Effect.fail(new Bad({ why: "1" }))))
        ).pipe(Scope.provide(first))
        const { taskId } = yield* q.put(1)
        yield* eventually(
          Effect.map(q.browse({ state: "delayed" }), (page) => page.tasks.some(({ reasons }) => reasons.length === 1)),
          "it failed"
        )
        yield* Scope.close(first, Exit.void)
        const handlers: ReadonlyArray<Effect.Effect<ReadonlyArray<string>, Step.StepError | Bad, Step.CurrentTask>> = [
          Effect.as(Step.version(2), []),
          Effect.andThen(Step.version(1), Effect.as(Step.run("text", Schema.Int, Effect.succeed(1)), [])),
          Effect.map(Step.version(3, { accepts: [1] }), (version) => [`as ${version}`])
        ]
        yield* Worker.start(q, (task) => handlers[task.attempt - 2]!)
        const outcome = yield* q.outcome(taskId)
        assert.isTrue(outcome._tag === "Success" && outcome.result[0] === "as 1", JSON.stringify(outcome))
      })
    )

    it.effect("a step that was recorded and is not reached any more fails the attempt; names are unique", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 2 })
        const one = Step.run("one", Schema.Int, Effect.succeed(1))
        yield* Worker.start(q, (task) =>
          task.payload === 2
            ? Effect.as(Effect.andThen(one, one), [])
            : task.attempt === 1
              ? Effect.andThen(one, Effect.fail(new Bad({ why: "" })))
              : Effect.succeed([])
        )
        const gone = yield* Effect.flip(q.putWait(1))
        assert.isTrue(gone._tag === "TaskDead" && gone.reasons.at(-1)!.includes('Step "one": it is recorded, and'))
        const twice = yield* Effect.flip(q.putWait(2))
        assert.isTrue(twice._tag === "TaskDead" && twice.reasons.at(-1)!.includes("another step of that name"))
      })
    )

    it.effect("a short wait beside a long one ends when it is over", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 1 })
        yield* Worker.start(q, () =>
          Effect.raceFirst(
            Effect.as(Step.waitFor(Approved), ["told"]),
            Effect.as(Step.sleep("short", "300 millis"), ["slept"])
          )
        )
        const result = yield* Effect.timeoutOption(q.putWait(1), "10 seconds")
        assert.deepStrictEqual(result._tag === "Some" ? result.value : "it waits for the signal", ["slept"])
      })
    )

    it.effect("a wait without a time-out goes on after one that timed out", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 1 })
        yield* Worker.start(
          q,
          Effect.fnUntraced(function* () {
            const first = yield* Effect.result(Step.waitFor(Approved, { timeout: "10 millis" }))
            return [first._tag, `${yield* Step.waitFor(Approved)}`]
          })
        )
        const { taskId } = yield* q.put(1)
        yield* eventually(
          Effect.map(q.browse({}), (page) => page.tasks.some(({ entries, suspended }) => suspended && entries === 2)),
          "it waits once more"
        )
        yield* q.signal(taskId, Approved, true)
        const outcome = yield* q.outcome(taskId)
        assert.deepStrictEqual(outcome._tag === "Success" ? outcome.result : outcome, ["Failure", "true"])
      })
    )

    it.effect("checkpoints of many tasks and workers all arrive, however large they are together", () =>
      Effect.gen(function* () {
        const client = yield* Client.Client
        const Large = Schema.String
        const queues = Array.from({ length: 3 }, () =>
          TaskQueue.make(`steps-${++names}`, { payload: Schema.Int, checkpoint: Large })
        )
        const over = yield* Deferred.make<void>()
        const text = "x".repeat(1_000_000)
        for (const q of queues) {
          yield* Worker.start(
            q,
            Effect.fnUntraced(function* (task) {
              yield* task.saveCheckpoint(`${task.payload} ${text}`)
              yield* Deferred.await(over)
            }),
            { concurrency: 10 }
          )
          yield* q.putAll(Array.from({ length: 10 }, (_, i) => i))
        }
        const { generation } = client.link
        yield* eventually(
          Effect.gen(function* () {
            client.link.heartbeat()
            const pages = yield* Effect.forEach(queues, (q) => q.browse({ state: "leased" }))
            const saved = pages
              .flatMap(({ tasks }) => tasks)
              .filter(({ checkpointBytes }) => checkpointBytes > 1_000_000)
            return saved.length === 30
          }),
          "all are saved"
        )
        assert.strictEqual(client.link.generation, generation)
        yield* Deferred.succeed(over, undefined)
        for (const q of queues) yield* q.join()
      })
    )

    it.effect("the last checkpoint is handed to the next attempt, typed; progress is shown", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 5 })
        const client = yield* Client.Client
        const shown = yield* Deferred.make<void>()
        yield* Worker.start(
          q,
          Effect.fnUntraced(function* (task) {
            const page = task.checkpoint?.page ?? 0
            yield* task.saveCheckpoint({ page: page + 1 })
            yield* task.saveCheckpoint({ page: page + 2 })
            if (task.attempt === 1) return yield* new Bad({ why: "failed" })
            if (task.attempt === 2 && page === 2) return yield* Task.release
            if (task.attempt === 2 && page === 4) {
              yield* task.progress(0.25)
              yield* Deferred.await(shown)
              return yield* Effect.die("defect")
            }
            return [`${task.attempt} ${page}`]
          })
        )
        const { taskId } = yield* q.put(1)
        yield* eventually(
          Effect.gen(function* () {
            client.link.heartbeat()
            const [task] = (yield* q.browse({ state: "leased" })).tasks
            return task?.progress === 0.25 && task.checkpointBytes > 0
          }),
          "its progress is shown"
        )
        yield* Deferred.succeed(shown, undefined)
        const outcome = yield* q.outcome(taskId)
        assert.isTrue(outcome._tag === "Success" && outcome.result[0] === "3 6", JSON.stringify(outcome))
      })
    )
  })
})

describe("a step", () => {
  it.live("adds at most one transaction of the store", () =>
    Effect.gen(function* () {
      const commits: Array<number> = []
      for (const steps of [0, 1, 2, 5]) {
        const disk = new MemoryDisk()
        const q = queueOf()
        yield* Effect.gen(function* () {
          yield* Worker.start(
            q,
            Effect.fnUntraced(function* () {
              for (let i = 0; i < steps; i++) yield* Step.run(`${i}`, Schema.Int, Effect.succeed(i))
              return []
            })
          )
          // One after the other: no round is shared.
          for (let n = 0; n < 20; n++) yield* q.putWait(n)
          commits.push(disk.commits)
        }).pipe(
          Effect.scoped,
          Effect.provide(Manager.layer({ queues: [q] }).pipe(Layer.provide(layerMemoryLog(disk)), Layer.fresh))
        )
      }
      const [none = 0, ...more] = commits
      console.log(`transactions of 20 tasks with 0, 1, 2 and 5 steps: ${commits.join(", ")}`)
      more.forEach((count, i) => {
        const added = count - none
        assert.isAtMost(added, 20 * [1, 2, 5][i]! + 1)
        assert.isAbove(added, 0)
      })
    })
  )
})
