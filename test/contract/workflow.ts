/**
 * What Effect's documentation and its `layerMemory` promise of a workflow engine, as cases that any engine must pass.
 *
 * They wait for conditions, and register their workflows in the scope of the test.
 */
import { assert, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as PersistedQueue from "effect/persistence/PersistedQueue"
import * as Schema from "effect/Schema"
import * as Activity from "effect/workflow/Activity"
import * as DurableClock from "effect/workflow/DurableClock"
import * as DurableDeferred from "effect/workflow/DurableDeferred"
import * as DurableQueue from "effect/workflow/DurableQueue"
import * as Workflow from "effect/workflow/Workflow"
import type * as WorkflowEngine from "effect/workflow/WorkflowEngine"
import { eventually } from "./queue.ts"

export class Bad extends Schema.TaggedError<Bad>()("Bad", { why: Schema.String }) {}

let names = 0
export const workflowOf = (annotations: Context.Context<never> = Context.empty()) =>
  Workflow.make(`Case ${++names}`, {
    payload: { id: Schema.String, at: Schema.optional(Schema.Date) },
    success: Schema.String,
    error: Bad,
    idempotencyKey: ({ id }) => id,
    annotations
  })

export const register = <R>(layer: Layer.Layer<never, never, R>) => Effect.asVoid(Layer.build(layer))

export const Approval = DurableDeferred.make("approval", { success: Schema.String, error: Bad })

type Any = ReturnType<typeof workflowOf>

export const approve = (workflow: Any, executionId: string, value: string) =>
  DurableDeferred.succeed(Approval, {
    token: DurableDeferred.tokenFromExecutionId(Approval, { workflow, executionId }),
    value
  })

export const untilSuspended = (workflow: Any, executionId: string) =>
  eventually(
    Effect.map(workflow.poll(executionId), (polled) => Option.isSome(polled) && polled.value._tag === "Suspended"),
    "it is suspended"
  )

/** An activity that notes that it runs. */
export const noted = (ran: Array<string>, name: string) =>
  Activity.make({ name, success: Schema.String, execute: Effect.sync(() => `${name}${ran.push(name)}`) })

const long = (name: string, duration = "150 millis") =>
  DurableClock.sleep({ name, duration: duration as "150 millis", inMemoryThreshold: 0 })

/** The error of what must fail. */
const errorOf = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<E, never, R> =>
  Effect.matchEffect(effect, { onFailure: Effect.succeed, onSuccess: () => Effect.die("it did not fail") })

export const suite = <E>(provided: Layer.Layer<WorkflowEngine.WorkflowEngine, E>): void => {
  it.layer(provided, { excludeTestServices: true })((it) => {
    it.effect("executed many times under one key it runs once, and all get its result", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        let runs = 0
        yield* register(
          workflow.toLayer(({ at, id }, executionId) =>
            Effect.sync(() => `${++runs} ${id} ${at?.toISOString()} ${executionId}`)
          )
        )
        const payload = { id: "a", at: new Date(0) }
        const id = yield* workflow.executionId(payload)
        const expected = `1 a 1970-01-01T00:00:00.000Z ${id}`
        const two = yield* Effect.all([workflow.execute(payload), workflow.execute(payload)], { concurrency: 2 })
        assert.deepStrictEqual([...two, yield* workflow.execute({ id: "a" })], [expected, expected, expected])
        assert.strictEqual(
          yield* workflow.execute({ id: "b" }),
          `2 b undefined ${yield* workflow.executionId({ id: "b" })}`
        )
      })
    )

    it.effect("with discard it is begun, and polled: nothing, suspended, complete", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        yield* register(workflow.toLayer(() => DurableDeferred.await(Approval)))
        const id = yield* workflow.executionId({ id: "a" })
        assert.isTrue(Option.isNone(yield* workflow.poll(id)))
        assert.strictEqual(yield* workflow.execute({ id: "a" }, { discard: true }), id)
        yield* untilSuspended(workflow, id)
        yield* approve(workflow, id, "yes")
        assert.strictEqual(yield* workflow.execute({ id: "a" }), "yes")
        const polled = yield* workflow.poll(id)
        assert.deepStrictEqual(polled, Option.some(new Workflow.Complete({ exit: Exit.succeed("yes") })))
      })
    )

    it.effect("a failure is its end: typed, for everybody, and not run again", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        let runs = 0
        yield* register(workflow.toLayer(() => Effect.suspend(() => Effect.fail(new Bad({ why: `${++runs}` })))))
        for (let i = 0; i < 2; i++) {
          const error = yield* Effect.flip(workflow.execute({ id: "a" }))
          assert.isTrue(error instanceof Bad && error.why === "1")
        }
        const polled = Option.getOrThrow(yield* workflow.poll(yield* workflow.executionId({ id: "a" })))
        assert.isTrue(polled._tag === "Complete" && Exit.isFailure(polled.exit))
      })
    )

    it.effect("a defect is its end, and is captured unless the workflow says otherwise", () =>
      Effect.gen(function* () {
        for (const captured of [true, false]) {
          const workflow = workflowOf(Context.make(Workflow.CaptureDefects, captured))
          let runs = 0
          yield* register(
            workflow.toLayer(() =>
              Effect.suspend(() => {
                runs++
                return Effect.die(new Error("broken"))
              })
            )
          )
          const exit = yield* Effect.exit(workflow.execute({ id: "a" }))
          assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
          assert.match(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "", /broken/)
          const polled = yield* Effect.exit(workflow.poll(yield* workflow.executionId({ id: "a" })))
          assert.strictEqual(Exit.isSuccess(polled), captured)
          assert.strictEqual(runs, 1)
        }
      })
    )

    it.effect("an activity that ended, well or badly, is not run again by a later run of the body", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        const ran: Array<string> = []
        let [bodies, failures, deaths] = [0, 0, 0]
        yield* register(
          workflow.toLayer(
            Effect.fnUntraced(function* () {
              bodies++
              const first = yield* noted(ran, "first")
              const failing = Activity.make({
                name: "failing",
                error: Bad,
                execute: Effect.suspend(() => Effect.fail(new Bad({ why: `${++failures}` })))
              })
              const dying = Activity.make({ name: "dying", execute: Effect.suspend(() => Effect.die(`${++deaths}`)) })
              const error = yield* errorOf(failing)
              const defect = yield* Effect.exit(dying)
              yield* long("wait")
              yield* DurableDeferred.await(Approval)
              const last = yield* noted(ran, "last")
              const squashed = Exit.isFailure(defect) ? String(Cause.squash(defect.cause)) : "no"
              return [first, error.why, squashed, last].join(" ")
            })
          )
        )
        const id = yield* workflow.execute({ id: "a" }, { discard: true })
        yield* untilSuspended(workflow, id)
        yield* approve(workflow, id, "go")
        assert.strictEqual(yield* workflow.execute({ id: "a" }), "first1 1 1 last2")
        assert.deepStrictEqual([ran, failures, deaths], [["first", "last"], 1, 1])
        assert.isAbove(bodies, 1)
      })
    )

    it.effect("each attempt of an activity has a record of its own", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        const ran: Array<number> = []
        yield* register(
          workflow.toLayer(
            Effect.fnUntraced(function* () {
              const value = yield* Activity.make({
                name: "flaky",
                success: Schema.Int,
                error: Bad,
                execute: Effect.flatMap(Activity.CurrentAttempt, (attempt) => {
                  ran.push(attempt)
                  return attempt < 3 ? Effect.fail(new Bad({ why: "flaky" })) : Effect.succeed(attempt)
                })
              }).pipe(Activity.retry({ times: 5 }))
              yield* long("wait")
              return `${value}`
            })
          )
        )
        assert.strictEqual(yield* workflow.execute({ id: "a" }), "3")
        assert.deepStrictEqual(ran, [1, 2, 3])
      })
    )

    it.effect("a deferred is completed by its token, once: with a value, or an error", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        yield* register(workflow.toLayer(() => DurableDeferred.await(Approval)))
        for (const [id, exit] of [
          ["a", Exit.succeed("yes")],
          ["b", Exit.fail(new Bad({ why: "no" }))],
          ["c", Exit.die("dead")]
        ] as const) {
          const executionId = yield* workflow.execute({ id }, { discard: true })
          yield* untilSuspended(workflow, executionId)
          const token = yield* DurableDeferred.tokenFromPayload(Approval, { workflow, payload: { id } })
          yield* DurableDeferred.done(Approval, { token, exit })
          yield* approve(workflow, executionId, "too late")
          const ended = yield* Effect.exit(workflow.execute({ id }))
          assert.strictEqual(ended._tag, exit._tag)
          if (Exit.isSuccess(ended)) assert.strictEqual(ended.value, "yes")
          else assert.match(Cause.pretty(ended.cause), id === "b" ? /Bad/ : /dead/)
        }
      })
    )

    it.effect("a deferred that is completed before its execution begins counts", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        yield* register(workflow.toLayer(() => DurableDeferred.await(Approval)))
        yield* approve(workflow, yield* workflow.executionId({ id: "a" }), "early")
        assert.strictEqual(yield* workflow.execute({ id: "a" }), "early")
      })
    )

    it.effect("clocks, in memory and beyond, end once they are due", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        let after = 0
        yield* register(
          workflow.toLayer(
            Effect.fnUntraced(function* ({ at }) {
              yield* DurableClock.sleep({ name: "none", duration: 0 })
              yield* DurableClock.sleep({ name: "short", duration: "20 millis" })
              yield* long("long", "300 millis")
              yield* Activity.make({ name: "after", execute: Effect.sync(() => after++) })
              return String(Date.now() - (at?.getTime() ?? 0) >= 320)
            })
          )
        )
        const id = yield* workflow.execute({ id: "a", at: new Date() }, { discard: true })
        yield* untilSuspended(workflow, id)
        assert.strictEqual(yield* workflow.execute({ id: "a" }), "true")
        assert.strictEqual(after, 1)
      })
    )

    it.effect("a clock is due when it was due at first, however often its execution is resumed", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        yield* register(workflow.toLayer(() => Effect.as(long("wait", "500 millis"), "due")))
        const id = yield* workflow.execute({ id: "a" }, { discard: true })
        let ended = false
        for (let i = 0; i < 200 && !ended; i++) {
          const polled = yield* workflow.poll(id)
          ended = Option.isSome(polled) && polled.value._tag === "Complete"
          yield* workflow.resume(id)
          yield* Effect.sleep("20 millis")
        }
        assert.isTrue(ended)
      })
    )

    it.effect("of a deferred and a clock the first one counts, in every run", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        const Second = DurableDeferred.make("second")
        yield* register(
          workflow.toLayer(
            Effect.fnUntraced(function* ({ id }) {
              const first = yield* DurableDeferred.raceAll({
                name: "who",
                success: Schema.String,
                error: Bad,
                effects: [
                  DurableDeferred.await(Approval),
                  Effect.as(long("patience", id === "patient" ? "1 hour" : "100 millis"), "time is over")
                ]
              })
              yield* DurableDeferred.await(Second)
              return first
            })
          )
        )
        const second = (executionId: string) =>
          DurableDeferred.succeed(Second, {
            token: DurableDeferred.tokenFromExecutionId(Second, { workflow, executionId }),
            value: undefined
          })
        const a = yield* workflow.execute({ id: "patient" }, { discard: true })
        yield* untilSuspended(workflow, a)
        yield* approve(workflow, a, "approved")
        yield* second(a)
        assert.strictEqual(yield* workflow.execute({ id: "patient" }), "approved")
        const b = yield* workflow.execute({ id: "impatient" }, { discard: true })
        yield* Effect.sleep("300 millis")
        yield* untilSuspended(workflow, b)
        yield* approve(workflow, b, "approved")
        yield* second(b)
        assert.strictEqual(yield* workflow.execute({ id: "impatient" }), "time is over")
      })
    )

    it.effect("a deferred cuts a run that does something else beside waiting for it", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        let begun = 0
        yield* register(
          workflow.toLayer(() =>
            DurableDeferred.raceAll({
              name: "who",
              success: Schema.String,
              error: Bad,
              effects: [
                DurableDeferred.await(Approval),
                Activity.make({
                  name: "endless",
                  success: Schema.String,
                  execute: Effect.suspend(() => {
                    begun++
                    return Effect.never
                  })
                })
              ]
            })
          )
        )
        const id = yield* workflow.execute({ id: "a" }, { discard: true })
        yield* eventually(
          Effect.sync(() => begun === 1),
          "it has begun"
        )
        yield* approve(workflow, id, "enough")
        assert.strictEqual(yield* workflow.execute({ id: "a" }), "enough")
      })
    )

    it.effect("an effect is recorded into a deferred, and the first of several activities counts", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        const ran: Array<string> = []
        yield* register(
          workflow.toLayer(
            Effect.fnUntraced(function* () {
              const slow = Activity.make({ name: "slow", success: Schema.String, execute: Effect.never })
              const into = yield* DurableDeferred.into(noted(ran, "into"), Approval)
              const read = yield* DurableDeferred.await(Approval)
              const first = yield* Activity.raceAll("race", [slow, noted(ran, "fast")])
              yield* long("wait")
              return [into, read, first].join(" ")
            })
          )
        )
        assert.strictEqual(yield* workflow.execute({ id: "a" }), "into1 into1 fast2")
        assert.deepStrictEqual(ran, ["into", "fast"])
      })
    )

    it.effect("a child gives its parent its result or its failure, runs once, and wakes it", () =>
      Effect.gen(function* () {
        const [parent, child] = [workflowOf(), workflowOf()]
        const ran: Array<string> = []
        yield* register(
          child.toLayer(
            Effect.fnUntraced(function* ({ id }) {
              ran.push(id)
              if (id === "bad") return yield* new Bad({ why: "child" })
              if (id === "waits") return yield* DurableDeferred.await(Approval)
              return `child ${id}`
            })
          )
        )
        yield* register(
          parent.toLayer(
            Effect.fnUntraced(function* () {
              const quick = yield* child.execute({ id: "quick" })
              const bad = yield* errorOf(child.execute({ id: "bad" }))
              const waits = yield* child.execute({ id: "waits" })
              return [quick, bad.why, waits].join(" ")
            })
          )
        )
        const id = yield* parent.execute({ id: "a" }, { discard: true })
        const waiting = yield* child.executionId({ id: "waits" })
        yield* untilSuspended(child, waiting)
        yield* untilSuspended(parent, id)
        yield* approve(child, waiting, "woken")
        assert.strictEqual(yield* parent.execute({ id: "a" }), "child quick child woken")
        assert.deepStrictEqual(
          ran.filter((id) => id !== "waits"),
          ["quick", "bad"]
        )
      })
    )

    it.effect("children run beside each other, and one that was begun before is joined", () =>
      Effect.gen(function* () {
        const [parent, child] = [workflowOf(), workflowOf()]
        const begun: Array<string> = []
        yield* register(
          child.toLayer(({ id }) =>
            Effect.andThen(
              Activity.make({ name: "begin", execute: Effect.sync(() => begun.push(id)) }),
              DurableDeferred.await(Approval)
            )
          )
        )
        yield* register(
          parent.toLayer(() =>
            Effect.map(
              Effect.forEach(["1", "2", "3"], (id) => child.execute({ id }), { concurrency: "unbounded" }),
              (all) => all.join(" ")
            )
          )
        )
        yield* child.execute({ id: "2" }, { discard: true })
        const id = yield* parent.execute({ id: "a" }, { discard: true })
        for (const name of ["1", "2", "3"]) yield* untilSuspended(child, yield* child.executionId({ id: name }))
        yield* untilSuspended(parent, id)
        for (const name of ["2", "3", "1"]) yield* approve(child, yield* child.executionId({ id: name }), name)
        yield* parent.resume(id)
        assert.strictEqual(yield* parent.execute({ id: "a" }), "1 2 3")
        assert.deepStrictEqual(begun.toSorted(), ["1", "2", "3"])
      })
    )

    it.effect("what is compensated is compensated in reverse, after a failure, once, and not after a success", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        const [ran, undone]: [Array<string>, Array<string>] = [[], []]
        const ends: Array<string> = []
        yield* register(
          workflow.toLayer(
            Effect.fnUntraced(function* ({ id }) {
              yield* Workflow.addFinalizer((exit) => Effect.sync(() => ends.push(`${id} ${exit._tag}`)))
              for (const name of ["one", "two"]) {
                yield* workflow.withCompensation(noted(ran, `${id} ${name}`), (value, cause) =>
                  Effect.sync(() => undone.push(`${value} ${Cause.hasFails(cause)}`))
                )
              }
              yield* long("wait")
              if (id === "bad") return yield* new Bad({ why: "late" })
              return "done"
            })
          )
        )
        assert.strictEqual((yield* Effect.flip(workflow.execute({ id: "bad" }))).why, "late")
        assert.deepStrictEqual(undone, ["bad two2 true", "bad one1 true"])
        assert.strictEqual(yield* workflow.execute({ id: "good" }), "done")
        assert.strictEqual(undone.length, 2)
        assert.deepStrictEqual(ran, ["bad one", "bad two", "good one", "good two"])
        assert.include(ends, "bad Failure")
      })
    )

    it.effect("an interruption ends an execution that waits, compensates, and reaches its children", () =>
      Effect.gen(function* () {
        const [parent, child] = [workflowOf(), workflowOf()]
        const [ran, undone]: [Array<string>, Array<string>] = [[], []]
        const body = (workflow: Any, name: string, rest: Effect.Effect<string, Bad, never>) =>
          Effect.gen(function* () {
            yield* workflow.withCompensation(noted(ran, name), (_, cause) =>
              Effect.sync(() => undone.push(`${name} ${Cause.hasInterrupts(cause)}`))
            )
            const value = yield* rest
            yield* noted(ran, `${name} after`)
            return value
          })
        // What the bodies need is there: the engine provides it.
        type Closed = Effect.Effect<string, Bad, never>
        yield* register(child.toLayer(() => body(child, "child", DurableDeferred.await(Approval) as Closed)))
        yield* register(parent.toLayer(() => body(parent, "parent", child.execute({ id: "c" }) as Closed)))
        const id = yield* parent.execute({ id: "a" }, { discard: true })
        const childId = yield* child.executionId({ id: "c" })
        yield* untilSuspended(child, childId)
        yield* untilSuspended(parent, id)
        yield* parent.interrupt(id)
        for (const [workflow, executionId] of [
          [parent, id],
          [child, childId]
        ] as const) {
          yield* eventually(
            Effect.map(workflow.poll(executionId), (polled) => {
              if (Option.isNone(polled) || polled.value._tag !== "Complete") return false
              const { exit } = polled.value
              return Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)
            }),
            "it is interrupted"
          )
        }
        assert.deepStrictEqual(undone.toSorted(), ["child true", "parent true"])
        assert.deepStrictEqual(ran, ["parent", "child"])
        yield* parent.interrupt(id)
        yield* parent.interrupt("nobody")
      })
    )

    it.effect("an interruption lets the activity under way end, and nothing new begin", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        const ran: Array<string> = []
        const undone: Array<string> = []
        const gate = yield* Deferred.make<void>()
        yield* register(
          workflow.toLayer(
            Effect.fnUntraced(function* () {
              const busy = Activity.make({
                name: "busy",
                success: Schema.String,
                execute: Effect.andThen(
                  Effect.sync(() => ran.push("busy")),
                  Effect.as(Deferred.await(gate), "busy")
                )
              })
              yield* workflow.withCompensation(busy, (value) => Effect.sync(() => undone.push(value)))
              return yield* noted(ran, "next")
            })
          )
        )
        const id = yield* workflow.execute({ id: "a" }, { discard: true })
        yield* eventually(
          Effect.sync(() => ran.length === 1),
          "it is busy"
        )
        yield* workflow.interrupt(id)
        yield* Deferred.succeed(gate, undefined)
        const exit = yield* Effect.exit(workflow.execute({ id: "a" }))
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
        assert.deepStrictEqual([ran, undone], [["busy"], ["busy"]])
      })
    )

    it.effect("an unsafe interruption cuts an activity", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        let begun = 0
        const engine = yield* Effect.service(EngineTag)
        yield* register(
          workflow.toLayer(() =>
            Activity.make({
              name: "endless",
              success: Schema.String,
              execute: Effect.suspend(() => {
                begun++
                return Effect.never
              })
            })
          )
        )
        const id = yield* workflow.execute({ id: "a" }, { discard: true })
        yield* eventually(
          Effect.sync(() => begun === 1),
          "it has begun"
        )
        yield* engine.interruptUnsafe(workflow, id)
        yield* eventually(
          Effect.map(
            workflow.poll(id),
            (polled) => Option.isSome(polled) && polled.value._tag === "Complete" && Exit.isFailure(polled.value.exit)
          ),
          "it is over"
        )
        assert.strictEqual(begun, 1)
      })
    )

    it.effect("with SuspendOnFailure a failure suspends until somebody resumes it", () =>
      Effect.gen(function* () {
        const workflow = workflowOf(Context.make(Workflow.SuspendOnFailure, true))
        const ran: Array<string> = []
        let mended = false
        let tried = 0
        yield* register(
          workflow.toLayer(
            Effect.fnUntraced(function* () {
              const before = yield* noted(ran, "before")
              yield* Activity.make({
                name: "breaks",
                error: Bad,
                execute: Effect.suspend(() => {
                  tried++
                  return mended ? Effect.void : Effect.fail(new Bad({ why: "not yet" }))
                })
              })
              return `${before} ${yield* DurableDeferred.await(Approval)}`
            })
          )
        )
        const id = yield* workflow.execute({ id: "a" }, { discard: true })
        yield* untilSuspended(workflow, id)
        yield* workflow.resume(id)
        yield* eventually(
          Effect.sync(() => tried === 2),
          "it has failed again"
        )
        yield* untilSuspended(workflow, id)
        // No resume: it stays suspended.
        yield* approve(workflow, id, "approved")
        yield* untilSuspended(workflow, id)
        assert.strictEqual(tried, 2)
        mended = true
        yield* workflow.resume(id)
        assert.strictEqual(yield* workflow.execute({ id: "a" }), "before1 approved")
        assert.deepStrictEqual([ran, tried], [["before"], 3])
      })
    )

    it.effect("a caller that stops waiting leaves the execution alone", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        yield* register(workflow.toLayer(() => DurableDeferred.await(Approval)))
        const caller = yield* Effect.forkChild(workflow.execute({ id: "a" }))
        const id = yield* workflow.executionId({ id: "a" })
        yield* untilSuspended(workflow, id)
        yield* Fiber.interrupt(caller)
        yield* approve(workflow, id, "still there")
        assert.strictEqual(yield* workflow.execute({ id: "a" }), "still there")
      })
    )

    it.effect("a detached child goes on without its parent", () =>
      Effect.gen(function* () {
        const [parent, child] = [workflowOf(), workflowOf()]
        yield* register(child.toLayer(() => DurableDeferred.await(Approval)))
        yield* register(parent.toLayer(() => child.execute({ id: "c" }, { discard: true, detached: true })))
        const id = yield* child.executionId({ id: "c" })
        assert.strictEqual(yield* parent.execute({ id: "a" }), id)
        yield* untilSuspended(child, id)
        yield* approve(child, id, "alone")
        assert.strictEqual(yield* child.execute({ id: "c" }), "alone")
      })
    )

    it.effect("DurableQueue hands work to others and waits for it", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        const Work = DurableQueue.make({
          name: workflow._tag,
          payload: { n: Schema.Int },
          success: Schema.Int,
          error: Bad,
          idempotencyKey: ({ n }) => `${n}`
        })
        let worked = 0
        const worker = DurableQueue.worker(Work, ({ n }) =>
          Effect.suspend(() => {
            worked++
            return n < 0 ? Effect.fail(new Bad({ why: "negative" })) : Effect.succeed(2 * n)
          })
        )
        const body = workflow.toLayer(
          Effect.fnUntraced(function* () {
            const good = yield* DurableQueue.process(Work, { n: 21 })
            const bad = yield* errorOf(DurableQueue.process(Work, { n: -1 }))
            yield* long("wait")
            return `${good} ${bad.why}`
          })
        )
        const factory = PersistedQueue.layer.pipe(Layer.provide(PersistedQueue.layerStoreMemory))
        yield* register(Layer.provide(Layer.merge(worker, body), factory))
        assert.strictEqual(yield* workflow.execute({ id: "a" }), "42 negative")
        assert.strictEqual(worked, 2)
      })
    )
  })
}

const EngineTag = Context.Service<WorkflowEngine.WorkflowEngine, WorkflowEngine.WorkflowEngine["Service"]>(
  "effect/workflow/WorkflowEngine"
)
