import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Client, Errors, Limits, Manager, Step, TaskQueue, Worker } from "millrace"
import { Prefetch } from "../../src/worker/Prefetch.ts"
import { auth, inProcess, overTcp } from "./layers.ts"
import { eventually } from "./queue.ts"

class Bad extends Schema.TaggedError<Bad>()("Bad", { why: Schema.String }) {}

const listeningAt = (port: number) => Manager.layerTcp({ port, auth }).pipe(Layer.provideMerge(inProcess))

class One extends Context.Service<One, { readonly n: number }>()("One") {}
class Two extends Context.Service<Two, number>()("Two") {}

let names = 0
const queueOf = (policy: TaskQueue.PolicyOptions = {}, name = `options-${++names}`) =>
  TaskQueue.make(name, {
    payload: Schema.Int,
    result: Schema.Int,
    error: Bad,
    policy: { backoff: { base: 0, jitter: 0 }, ...policy }
  })

describe("time-outs and schedules of a worker", () => {
  it.layer(overTcp, { excludeTestServices: true })((it) => {
    it.effect("an attempt that takes too long is interrupted, counted and tried again; its deadline was known", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 3 })
        let interrupted = 0
        const deadlines: Array<number> = []
        yield* Worker.start(
          q,
          (task) => {
            deadlines.push((task.deadline ?? 0) - Date.now())
            return task.attempt < 3
              ? Effect.onInterrupt(Effect.never, () => Effect.sync(() => void interrupted++))
              : Effect.succeed(task.attempt)
          },
          { timeout: "50 millis" }
        )
        assert.strictEqual(yield* q.putWait(1), 3)
        assert.strictEqual(interrupted, 2)
        assert.isTrue(deadlines.every((left) => left > 0 && left <= 51))
        const q2 = queueOf({ maxAttempts: 2 })
        yield* Worker.start(q2, () => Effect.never, { timeout: "20 millis" })
        const dead = yield* Effect.flip(q2.putWait(1))
        assert.isTrue(dead._tag === "TaskDead" && dead.reasons.every((reason) => reason.includes("time-out of 20 ms")))
      })
    )

    it.effect("a task that takes too long over all attempts is dead, also when it waits between them", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 1_000 })
        let attempts = 0
        yield* Worker.start(
          q,
          () => Effect.andThen(Effect.sleep("30 millis"), Effect.fail(new Bad({ why: `${++attempts}` }))),
          {
            overall: "200 millis"
          }
        )
        const dead = yield* Effect.flip(q.putWait(1))
        assert.isTrue(dead._tag === "TaskDead" && dead.reasons.at(-1)!.includes("200 ms over all attempts"))
        assert.isTrue(attempts > 1 && attempts < 8, `${attempts}`)
        const slept = queueOf({ maxAttempts: 1 })
        yield* Worker.start(slept, () => Effect.as(Step.sleep("long", "1 second"), 1), { overall: "500 millis" })
        assert.strictEqual((yield* Effect.flip(slept.putWait(1)))._tag, "TaskDead")
      })
    )

    it.effect("a task that is put again after its time was over has all of it once more", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 1_000 })
        let patient = false
        yield* Worker.start(
          q,
          () => (patient ? Effect.succeed(1) : Effect.andThen(Effect.sleep("1 hour"), Effect.succeed(0))),
          { overall: "100 millis" }
        )
        const { taskId } = yield* q.put(1)
        assert.strictEqual((yield* q.outcome(taskId))._tag, "Dead")
        patient = true
        const [pair] = yield* q.redrive({ taskIds: [taskId] })
        const again = yield* q.outcome(pair!.to!)
        assert.isTrue(again._tag === "Success" && again.result === 1)
      })
    )

    it.effect("a schedule says when a failure is tried again, and when no more", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 10, backoff: { base: 3_600_000, jitter: 0 } })
        let attempts = 0
        yield* Worker.start(q, () => Effect.suspend(() => Effect.fail(new Bad({ why: `${++attempts}` }))), {
          retry: Schedule.max([Schedule.exponential("10 millis"), Schedule.recurs(3)])
        })
        const failed = yield* Effect.flip(q.putWait(1))
        assert.isTrue(failed._tag === "Bad" && failed.why === "4")
        assert.strictEqual(attempts, 4)
      })
    )

    it.effect(
      "the time of all attempts is no step of the handler: it may name a version, and go without that option",
      () =>
        Effect.gen(function* () {
          const q = queueOf({ maxAttempts: 3, backoff: { base: 200, jitter: 0 } })
          const first = yield* Scope.make()
          yield* Worker.start(q, () => Effect.andThen(Step.version(1), Effect.fail(new Bad({ why: "first" }))), {
            overall: "1 hour"
          }).pipe(Scope.provide(first))
          const { taskId } = yield* q.put(1)
          yield* eventually(
            Effect.map(q.browse({}), ({ tasks }) => tasks.some(({ reasons }) => reasons.length === 1)),
            "it failed"
          )
          yield* Scope.close(first, Exit.void)
          yield* Worker.start(q, () => Step.version(1))
          const outcome = yield* q.outcome(taskId)
          assert.deepStrictEqual(outcome._tag === "Success" ? [outcome.result, outcome.attempts] : outcome, [1, 2])
        })
    )

    it.effect("lost contact is no failure that a schedule counts", () =>
      Effect.gen(function* () {
        const q = queueOf({ maxAttempts: 1 })
        let runs = 0
        yield* Worker.start(
          q,
          (task) =>
            Effect.suspend(() =>
              ++runs === 1
                ? Effect.fail(new Errors.ConnectionLost({ address: "there", reason: "cut" }))
                : Effect.succeed(task.attempt)
            ),
          { retry: Schedule.recurs(0) }
        )
        assert.strictEqual(yield* q.putWait(1), 1)
      })
    )

    it.effect("a failure that cannot be shown as text ends the attempt like any other", () =>
      Effect.gen(function* () {
        for (const retry of [undefined, Schedule.recurs(0)]) {
          const q = queueOf({ maxAttempts: 1 })
          yield* Worker.start(q, () => Effect.fail(Object.create(null) as Bad), { retry })
          const dead = yield* Effect.flip(q.putWait(1))
          assert.isTrue(dead._tag === "TaskDead" && dead.reasons[0]!.includes("cannot be shown"), `${dead}`)
          const died = queueOf({ maxAttempts: 1 })
          yield* Worker.start(died, () => Effect.die(Object.create(null)), { retry })
          assert.strictEqual((yield* Effect.flip(died.putWait(1)))._tag, "TaskDead")
        }
      })
    )

    it.effect("options out of range are refused by name", () =>
      Effect.gen(function* () {
        const q = queueOf()
        const handler = () => Effect.succeed(1)
        for (const [options, limit] of [
          [{ concurrency: 0 }, "concurrency"],
          [{ prefetch: Limits.creditMax + 1 }, "prefetch"],
          [{ timeout: 0 }, "timeout (ms)"],
          [{ overall: 0 }, "overall (ms)"],
          [{ watchdog: 1 }, "watchdog (ms)"]
        ] as const) {
          const error = yield* Effect.flip(Worker.start(q, handler, options))
          assert.isTrue(error._tag === "LimitExceeded" && error.limit === limit, limit)
        }
        const weight = yield* Effect.flip(Worker.startMany([Worker.member(q, handler, { weight: 0 })]))
        assert.isTrue(weight._tag === "LimitExceeded" && weight.limit === "weight")
        assert.strictEqual((yield* Effect.flip(Worker.startMany([])))._tag, "LimitExceeded")
      })
    )
  })
})

describe("one worker for several queues", () => {
  it.layer(overTcp, { excludeTestServices: true })((it) => {
    it.effect("shares its handlers by weight, and never runs more than its concurrency", () =>
      Effect.gen(function* () {
        const queues = [queueOf(), queueOf(), queueOf()]
        const running = [0, 0, 0]
        const done = [0, 0, 0]
        let most = 0
        const samples: Array<ReadonlyArray<number>> = []
        for (const q of queues) yield* q.putAll(Array.from({ length: 400 }, (_, i) => i))
        const members = queues.map((q, i) =>
          Worker.member(
            q,
            () =>
              Effect.gen(function* () {
                running[i]!++
                most = Math.max(most, running[0]! + running[1]! + running[2]!)
                yield* Effect.sleep("4 millis")
                if (done.every((count) => count < 300)) samples.push([...running])
                running[i]!--
                done[i]!++
                return 1
              }),
            { weight: [1, 2, 4][i]! }
          )
        )
        yield* Worker.startMany(members, { concurrency: 14 })
        for (const q of queues) yield* q.join()
        assert.strictEqual(most, 14)
        assert.deepStrictEqual(done, [400, 400, 400])
        const mean = [0, 1, 2].map((i) => samples.reduce((sum, sample) => sum + sample[i]!, 0) / samples.length)
        // By weight 2, 4 and 8 of 14; the first tasks came before the others' did.
        assert.isTrue(mean[2]! > 1.5 * mean[1]! && mean[1]! > 1.5 * mean[0]!, mean.join())
      })
    )

    it.effect("stops all of them at once, within one grace period", () =>
      Effect.gen(function* () {
        const queues = [queueOf(), queueOf()] as const
        const done = yield* Deferred.make<void>()
        let running = 0
        const handler = () =>
          Effect.suspend(() => {
            running++
            return Effect.as(Deferred.await(done), 1)
          })
        const scope = yield* Scope.make()
        yield* Worker.startMany(
          queues.map((q) => Worker.member(q, handler, { prefetch: 1 })),
          { concurrency: 2, grace: "1 hour" }
        ).pipe(Scope.provide(scope))
        const all = (what: "leased" | "ready", count: number) =>
          eventually(
            Effect.map(
              Effect.forEach(queues, (q) => q.stats),
              (stats) => stats.every((of) => of[what] === count)
            ),
            `${count} of each are ${what}`
          )
        yield* Effect.forEach(queues, (q) => q.put(1))
        yield* eventually(
          Effect.sync(() => running === 2),
          "both run"
        )
        yield* Effect.forEach(queues, (q) => q.put(2))
        yield* all("leased", 2)
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
        // What has not begun goes back, of both, while both have a handler that runs.
        yield* all("ready", 1)
        yield* Deferred.succeed(done, undefined)
        yield* Fiber.join(closing)
      })
    )

    it.effect("may have handlers that need different things, and says so in its type", () =>
      Effect.gen(function* () {
        const [a, b] = [queueOf(), queueOf()]
        const members = [Worker.member(a, () => Effect.map(One, ({ n }) => n)), Worker.member(b, () => Two)] as const
        // @ts-expect-error It needs `Two` as well.
        const missing: Layer.Layer<never, Errors.RequestError, Client.Client | One> = Worker.layerMany(members)
        assert.isDefined(missing)
        const layer: Layer.Layer<never, Errors.RequestError, Client.Client | One | Two> = Worker.layerMany(members)
        yield* Layer.build(Layer.provide(layer, [Layer.succeed(One, { n: 1 }), Layer.succeed(Two, 2)]))
        assert.deepStrictEqual([yield* a.putWait(0), yield* b.putWait(0)], [1, 2])
      })
    )

    it.effect("one queue may use what the others do not", () =>
      Effect.gen(function* () {
        const [a, b] = [queueOf(), queueOf()]
        const all = yield* Deferred.make<void>()
        let running = 0
        const handler = () =>
          Effect.suspend(() => {
            if (++running === 4) Deferred.doneUnsafe(all, Effect.void)
            return Effect.as(Deferred.await(all), 1)
          })
        yield* Worker.startMany(
          [Worker.member(a, handler), Worker.member(b, () => Effect.succeed(2), { weight: 100 })],
          {
            concurrency: 4
          }
        )
        yield* a.putAll([1, 2, 3, 4])
        yield* a.join()
        assert.strictEqual(yield* b.putWait(1), 2)
      })
    )
  })
})

describe("a worker that cannot go on", () => {
  it.layer(overTcp, { excludeTestServices: true })((it) => {
    it.effect("in a hurry it does not wait for the grace period: its tasks go back", () =>
      Effect.gen(function* () {
        const q = queueOf()
        const begun = yield* Deferred.make<void>()
        const hurry = yield* Deferred.make<void>()
        const scope = yield* Scope.make()
        yield* Worker.start(q, () => Effect.andThen(Deferred.succeed(begun, undefined), Effect.never), {
          grace: "1 hour"
        }).pipe(Scope.provide(scope), Effect.provideService(Worker.Hurry, Deferred.await(hurry)))
        yield* q.put(1)
        yield* Deferred.await(begun)
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
        yield* Deferred.succeed(hurry, undefined)
        yield* Fiber.join(closing)
        yield* eventually(
          Effect.map(q.stats, ({ leased, ready }) => leased === 0 && ready === 1),
          "the task is back"
        )
      })
    )
  })
})

describe("a worker that is refused", () => {
  it.live("is begun anew so often, then gives up, and says why", () =>
    Effect.gen(function* () {
      const q = queueOf()
      const manager = (port: number) =>
        Effect.gen(function* () {
          const scope = yield* Scope.make()
          const context = yield* Layer.buildWithScope(listeningAt(port), scope)
          const { address } = Context.get(context, Manager.Listening)
          return { port: address._tag === "Tcp" ? address.port : 0, stop: Scope.close(scope, Exit.void), context }
        })
      const first = yield* manager(0)
      const client = Client.layerTcp({ port: first.port, auth, reconnectCap: "50 millis" })
      yield* Effect.gen(function* () {
        yield* Effect.provide(q.put(1), first.context)
        // It opens what is there, and makes nothing.
        const untyped = TaskQueue.untyped(q.name)
        const { gaveUp } = yield* Worker.start(untyped, () => Effect.succeed(1), {
          restart: { intensity: 2 }
        })
        yield* eventually(
          Effect.map(Effect.provide(q.stats, first.context), ({ done }) => done === 1),
          "it works"
        )
        yield* first.stop
        const second = yield* manager(first.port)
        const error = yield* Effect.flip(gaveUp)
        assert.strictEqual(error._tag, "QueueNotFound")
        yield* second.stop
      }).pipe(Effect.scoped, Effect.provide(client))
    })
  )
})

describe("tasks taken ahead", () => {
  it("are as many as last for the cover, and none when tasks take long", () => {
    const p = new Prefetch(undefined, 8)
    let now = 1_000
    const pass = (ms: number, ended: number): number => {
      now += ms
      p.look(now, ended)
      return p.target
    }
    pass(Limits.prefetchLookMs, 1)
    assert.strictEqual(pass(200, 2_000), 10 * Limits.prefetchCoverMs)
    assert.strictEqual(pass(200, 2_000_000), Limits.prefetchMax)
    assert.strictEqual(pass(Limits.prefetchLookMs - 1, 1), Limits.prefetchMax, "too early to tell")
    assert.strictEqual(pass(1_000, 20), Math.floor((21 / 1_099) * Limits.prefetchCoverMs))
    assert.strictEqual(pass(1_000, 1), 0)
    assert.strictEqual(pass(5_000, 1), 0)
    for (let i = 0; i < 3; i++) pass(200, 200)
    assert.strictEqual(p.target, Limits.prefetchCoverMs)
    assert.strictEqual(pass(60_000, 1), Limits.prefetchCoverMs / 2, "after a long time without work: not all at once")
    const fixed = new Prefetch(5, 8)
    fixed.look(5_000, 100_000)
    assert.strictEqual(fixed.target, 5)
  })
})
