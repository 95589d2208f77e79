/**
 * Effect's `WorkflowEngine` at a manager: existing workflows become durable and distributed by this layer.
 *
 * `WorkflowEngine.layerMemory` is the specification. One queue per workflow; an execution is a task whose dedupe id is the
 * execution id, its final exit is the task's result. A run of the body is an attempt of the task: what activities end with
 * and when clocks are due are steps, what deferreds, children, interrupts and resumes tell is a signal. An execution that
 * waits is a suspended task: no worker holds it. Lease and fence keep two machines from running one execution at once.
 *
 * Names of entries, behind `!` those that anybody may tell:
 *
 *     a<attempt>/<activity>   c/<clock>   s/<child>   x/<child>   f/<resumes>
 *     !d/<deferred>   !x/<child>   !p/<parent>   !r/<random>   !i   !u
 *
 * What a completed child tells its parents are tasks of the commit that completes it: it is told whatever dies meanwhile.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Workflow from "effect/workflow/Workflow"
import * as WorkflowEngine from "effect/workflow/WorkflowEngine"
import { Client } from "../client/Client.ts"
import { CodecFault, make as makeCodec } from "../client/Codec.ts"
import type { PolicyOptions } from "../client/Definition.ts"
import type { Outcome } from "../client/Outcome.ts"
import { digestOf, queueNameOf } from "../client/QueueName.ts"
import type { Signal } from "../client/Signal.ts"
import { taskNumberOf } from "../client/TaskId.ts"
import { make as makeQueue, type TaskQueue } from "../client/TaskQueue.ts"
import type { RequestError } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import { replayed, type StepError } from "./Step.ts"
import { CurrentTask, type Steps } from "./Steps.ts"
import { Kill, kill, type Task } from "./Task.ts"
import * as Worker from "./Worker.ts"

/** What the queues of the workflows, and their workers, are like; what is not said is as for any queue and worker. */
export interface Options
  extends Pick<PolicyOptions, "capacity" | "durability" | "lease" | "payloadBytesMax" | "outcomes" | "dedupe"> {
  /** Bodies of one workflow that run at a time in this program. Default 32. One that waits does not count. */
  readonly concurrency?: number | undefined
  /** Time that running bodies have when the layer is released. Default 10 s; what is cut then is run again elsewhere. */
  readonly grace?: Duration.Input | undefined
}

type Json = Schema.Json
const Named = Schema.Struct({ workflow: Schema.String, execution: Schema.String })
type Named = typeof Named.Type

/** An execution as it lies in its queue. */
const Execution = Schema.Struct({
  execution: Schema.String,
  payload: Schema.Json,
  parent: Schema.optionalKey(Named)
})
/** `captured` false: a defect of a workflow that does not capture them. */
const Ended = Schema.Struct({ exit: Schema.Json, captured: Schema.Boolean })
type ExecutionQueue = TaskQueue<typeof Execution.Type, typeof Ended.Type>

/** What is to be told to an execution. */
const Note = Schema.Struct({ ...Named.fields, entry: Schema.String, value: Schema.Json })
class Unknown extends Schema.TaggedError<Unknown>()("Unknown", Named.fields) {}

/** The queue of the executions of this workflow: for its counts, its dead letters, a cancel. */
export const queue = (workflow: string, options: Options = {}): ExecutionQueue =>
  makeQueue(queueNameOf(`workflow.${workflow}`), {
    payload: Execution,
    result: Ended,
    policy: { ...policyOf(options), maxAttempts: Limits.workflowAttemptsMax }
  })

const policyOf = ({ concurrency: _, grace: __, ...policy }: Options): PolicyOptions => policy

/** Notes that could not be told at once, or that join a commit; a commit never spans memory and stored queues. */
const notesQueue = (options: Options) =>
  makeQueue(`workflow-notes${options.durability === "memory" ? "-memory" : ""}`, {
    payload: Note,
    error: Unknown,
    policy: {
      ...(options.durability === undefined ? {} : { durability: options.durability }),
      payloadBytesMax: 2 * Limits.payloadBytesMax,
      maxAttempts: Limits.workflowNoteAttemptsMax,
      backoff: { base: 200, cap: "1 minute" }
    }
  })

/**
 * Provides the engine. Throws `DefinitionInvalid` for options out of range.
 *
 * `execute` waits over reconnects, and a workflow need not be registered in the program that executes it. See the guide
 * for what differs from `WorkflowEngine.layerMemory`.
 */
export const layer = (options: Options = {}): Layer.Layer<WorkflowEngine.WorkflowEngine, never, Client> => {
  queue("options", options)
  return Layer.effect(WorkflowEngine.WorkflowEngine, make(options))
}

// ---- names of entries

/** Any text as a part of a name: one that is too long is hashed. */
const named = (kind: string, text: string): string =>
  3 * text.length + kind.length <= Limits.entryNameBytesMax ? kind + text : `${kind}#${digestOf(text)}`

const interruptEntry = "!i"
const unsafeEntry = "!u"
const deferredEntry = (name: string): string => named("!d/", name)
const keyOf = (workflow: string, execution: string): string => `${workflow.length}:${workflow}/${execution}`
const childEntry = (child: string): string => named("!x/", child)

// ---- values

const jsonCodec = makeCodec(Schema.Json)
const numbers = makeCodec(Schema.Number)

/** Of activities and deferreds: values and errors are JSON by then, defects of activities are not. */
const ActivityExit = Schema.toCodecJson(Schema.Exit(Schema.Json, Schema.Json, Schema.Defect()))
const DeferredExit = Schema.toCodecJson(Schema.Exit(Schema.Json, Schema.Json, Schema.Json))
/** What a clock tells. */
const voidExit = Schema.encodeUnknownSync(DeferredExit)(Exit.succeed(null)) as Json
const endedCodec = makeCodec(Ended)
const sizeOf = (value: typeof Ended.Type): number => {
  const bytes = endedCodec.encode(value)
  return bytes instanceof CodecFault ? 0 : bytes.byteLength
}
const orNull = Exit.map((value: unknown) => (value ?? null) as Json)

interface Schemas {
  readonly payload: Schema.Codec<object, Json>
  readonly exit: Schema.Codec<Exit.Exit<unknown, unknown>, Json>
}
const schemas = new WeakMap<Workflow.Any, Schemas>()
/** Built once per workflow. What services they need is in the context of whoever calls: the typed engine says so. */
const schemasOf = (workflow: Workflow.Any): Schemas => {
  const known = schemas.get(workflow)
  if (known !== undefined) return known
  const { errorSchema, payloadSchema, successSchema } = workflow
  const made = {
    payload: Schema.toCodecJson(payloadSchema),
    exit: Schema.toCodecJson(Schema.Exit(successSchema, errorSchema, Schema.Defect()))
  } as unknown as Schemas
  schemas.set(workflow, made)
  return made
}
const decodeExit = (workflow: Workflow.Any, json: Json) =>
  Effect.orDie(Schema.decodeEffect(schemasOf(workflow).exit)(json))
const encodeExit = (workflow: Workflow.Any, exit: Exit.Exit<unknown, unknown>) =>
  Schema.encodeEffect(schemasOf(workflow).exit)(exit)

/** Whether it may go well at another time. */
const isPassing = ({ _tag }: { readonly _tag: string }): boolean =>
  _tag === "ConnectionLost" || _tag === "ConnectFailed" || _tag === "Draining" || _tag === "StoreFull"

const pauses = Schedule.min([Schedule.exponential(100, 2), Schedule.spaced(Limits.reconnectCapMs)])

/** While the manager is away it waits; what is not the network's fault is a defect. */
const steady = <A, E extends { readonly _tag: string }, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, never, R> => Effect.orDie(Effect.retry(effect, { while: isPassing, schedule: pauses }))

// ---- runs

type Instance = WorkflowEngine.WorkflowInstance["Service"]
type Body = (
  payload: object,
  executionId: string
) => Effect.Effect<unknown, unknown, WorkflowEngine.WorkflowInstance | WorkflowEngine.WorkflowEngine>

/** One attempt of an execution in this program. */
class Run {
  readonly instance: Instance
  readonly steps: Steps
  readonly scope: Scope.Closeable
  /** When the clocks that this run has come to are due, by the names of their deferreds. */
  readonly clocks = new Map<string, number>()
  /** Signals that this run has told itself: the next run sees who was first. */
  readonly own = new Set<string>()
  /** Deferreds of clocks whose end the body knows of. */
  readonly given = new Set<string>()
  fiber: Fiber.Fiber<Workflow.Result<unknown, unknown>> | undefined
  interrupting: boolean
  readonly unsafe: boolean
  /** It goes on elsewhere: nothing of it counts. */
  abandoned = false
  /** Why it cannot go on. */
  fault: RequestError | Kill | undefined
  /** When to look after children that may have ended without a word. */
  lookAt: number | undefined

  constructor(instance: Instance, steps: Steps, scope: Scope.Closeable) {
    this.instance = instance
    this.steps = steps
    this.scope = scope
    this.interrupting = steps.entries.has(interruptEntry)
    this.unsafe = steps.entries.has(unsafeEntry)
  }

  /** Finalizers of the workflow are skipped. */
  abandon(): void {
    this.abandoned = true
    this.instance.abandoned = true
    this.instance.suspended = false
  }

  /** Ends the run for a reason that is not the workflow's. */
  fail(fault: RequestError | Kill): Effect.Effect<never> {
    return Effect.suspend(() => {
      this.fault ??= fault
      this.abandon()
      this.fiber?.interruptUnsafe()
      return Effect.interrupt
    })
  }

  /** Records a step; what cannot be recorded ends the run. */
  record(name: string, value: Json): Effect.Effect<void> {
    const bytes = jsonCodec.encode(value)
    if (bytes instanceof CodecFault) return this.fail(new Kill({ reason: `${name} at ${bytes.path}: ${bytes.reason}` }))
    if (bytes.byteLength > Limits.payloadBytesMax) {
      const most = `at most ${Limits.payloadBytesMax} are recorded`
      return this.fail(new Kill({ reason: `what "${name}" ended with has ${bytes.byteLength} bytes, ${most}` }))
    }
    // A copy: short values share their buffer.
    return this.#guarded(this.steps.record(name, bytes.slice()))
  }

  /** The instant that the first run recorded under this name. */
  instant(name: string, first: number): Effect.Effect<number> {
    return this.#guarded(replayed(this.steps, name, numbers, first))
  }

  read(entry: string): Json | undefined {
    const bytes = this.steps.entries.get(entry)
    if (bytes === undefined) return undefined
    const value = jsonCodec.decode(bytes)
    return Exit.isSuccess(value) ? value.value : undefined
  }

  count(kind: string): number {
    let count = 0
    for (const name of this.steps.entries.keys()) if (name.startsWith(kind)) count++
    return count
  }

  #guarded<A>(effect: Effect.Effect<A, StepError>): Effect.Effect<A> {
    const recorded = Effect.catch(effect, (error) =>
      this.fail(
        error._tag === "StepInvalid" || error._tag === "StepChanged" ? new Kill({ reason: error.message }) : error
      )
    )
    // Before anything of the workflow takes the interruption for one of its own.
    return Effect.onInterrupt(recorded, () => Effect.sync(() => this.steps.lost && this.abandon()))
  }
}

/** Where a clock that never fires is set. */
const clockMsMax = 1_000 * Limits.delayMsMax

/** The run that a body belongs to: another one of the same execution may have begun here since. */
class CurrentRun extends Context.Service<CurrentRun, Run>()("millrace/worker/CurrentRun") {}

const isSuspended = (result: Workflow.Result<unknown, unknown>): result is Workflow.Suspended =>
  result._tag === "Suspended"

// ---- the engine

type ExecuteOptions = Parameters<WorkflowEngine.Encoded["execute"]>[1]

const make = Effect.fnUntraced(function* (options: Options) {
  const client = yield* Client
  const engineScope = yield* Effect.scope
  const withClient = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.provideService(effect, Client, client)
  const deferreds = WorkflowEngine.makeDeferredState()
  const notes = notesQueue(options)
  const queues = new Map<string, ExecutionQueue>()
  const queueOf = (workflow: string): ExecutionQueue => {
    let known = queues.get(workflow)
    if (known === undefined) {
      known = queue(workflow, options)
      queues.set(workflow, known)
    }
    return known
  }
  const runs = new Map<string, Run>()
  const runOf = ({ executionId, workflow }: Instance): Effect.Effect<Run | undefined> =>
    Effect.map(Effect.serviceOption(CurrentRun), (current) => {
      const own = Option.getOrUndefined(current)
      const isOwn = own?.instance.executionId === executionId && own.instance.workflow._tag === workflow._tag
      // A context may have come from elsewhere.
      return isOwn ? own : runs.get(keyOf(workflow._tag, executionId))
    })

  /** Tells an execution; the first value of an entry counts. */
  const tell = (to: Named, entry: string, value: Json): Effect.Effect<"told" | "ended" | "unknown"> => {
    const signal: Signal<Json> = { name: entry, entry, codec: jsonCodec }
    return queueOf(to.workflow)
      .signal({ id: to.execution }, signal, value)
      .pipe(
        Effect.as("told" as const),
        Effect.catchTags({
          AlreadyEnded: () => Effect.succeed("ended" as const),
          TaskNotFound: () => Effect.succeed("unknown" as const)
        }),
        steady,
        withClient
      )
  }

  const complete = Effect.fnUntraced(function* (to: Named, deferredName: string, exit: Json) {
    const entry = deferredEntry(deferredName)
    const run = runs.get(keyOf(to.workflow, to.execution))
    if (run !== undefined && (run.steps.entries.has(entry) || run.own.has(entry))) return false
    const told = yield* tell(to, entry, exit)
    // It may be executed later.
    if (told === "unknown") yield* withClient(steady(notes.put({ ...to, entry, value: exit })))
    run?.own.add(entry)
    return true
  })

  const fire = (run: Run, name: string, dueAt: number) =>
    Effect.gen(function* () {
      yield* Effect.sleep(Math.max(0, dueAt - (yield* Clock.currentTimeMillis)))
      const { executionId, workflow } = run.instance
      const to = { workflow: workflow._tag, execution: executionId }
      if (run.given.has(name)) return
      // The body may come to it meanwhile.
      if ((yield* complete(to, name, voidExit)) && !run.given.has(name)) {
        yield* Effect.forkIn(deferreds.deferredDone(executionId, name), engineScope)
      }
    })

  const resultOf = (
    workflow: Workflow.Any,
    outcome: Outcome<typeof Ended.Type, never>
  ): Effect.Effect<{ readonly exit: Exit.Exit<unknown, unknown>; readonly captured: boolean }> => {
    if (outcome._tag === "Success") {
      const { captured, exit } = outcome.result
      return Effect.map(decodeExit(workflow, exit), (exit) => ({ captured, exit }))
    }
    const why = outcome._tag === "Dead" ? `was given up (${outcome.reasons.at(-1) ?? "no reason"})` : "was cancelled"
    const exit = Exit.die(new Error(`an execution of workflow "${workflow._tag}" ${why}`))
    return Effect.succeed({ captured: true, exit })
  }

  /** What became of an execution that the manager knows; undefined: it has not ended within that time. */
  const outcomeOf = (workflow: Workflow.Any, taskId: string, timeout: Duration.Input | "forever") =>
    queueOf(workflow._tag)
      .outcome(taskId, { timeout })
      .pipe(
        Effect.catchTag("TimedOut", () => Effect.undefined),
        steady,
        withClient,
        Effect.flatMap((outcome) => (outcome === undefined ? Effect.undefined : resultOf(workflow, outcome)))
      )

  const find = (workflow: Workflow.Any, executionId: string) =>
    withClient(steady(queueOf(workflow._tag).find(executionId)))

  /** The result for a parent, which lets go of its worker if the child takes longer than a moment. */
  const awaitChild = Effect.fnUntraced(function* (
    workflow: Workflow.Any,
    executionId: string,
    run: Run | undefined,
    lookAfterMs: number
  ) {
    const child = keyOf(workflow._tag, executionId)
    const found = yield* find(workflow, executionId)
    if (found === undefined) return yield* Effect.die(new Error(`execution ${child} is no longer remembered`))
    const ended = yield* outcomeOf(workflow, found.taskId, Limits.workflowChildWaitMs)
    if (ended === undefined) {
      const lookAt = (yield* Clock.currentTimeMillis) + lookAfterMs
      if (run !== undefined) run.lookAt = Math.min(run.lookAt ?? lookAt, lookAt)
      return new Workflow.Suspended({})
    }
    const { exit } = ended
    // A child that completed tells it by itself; one that was cancelled or given up does not.
    if (found.state === "dead" || found.state === "cancelled") {
      yield* run?.record(named("x/", child), yield* Effect.orDie(encodeExit(workflow, exit))) ?? Effect.void
    }
    return new Workflow.Complete({ exit })
  })

  /** Looks whether somebody else has told something that the run waits for while it does other things. */
  const watch = Effect.fnUntraced(function* (run: Run, taskId: string, executions: ExecutionQueue) {
    for (;;) {
      yield* Effect.sleep(Limits.workflowLookMs)
      const { given, instance, own, steps } = run
      const unknown = (name: string): boolean => !given.has(name) && !steps.entries.has(deferredEntry(name))
      if (![...instance.awaitedDeferreds.keys()].some(unknown)) continue
      const task = taskNumberOf(client.link.session?.prefix, taskId)
      if (task === undefined) continue
      const known = steps.entries.size + own.size
      const page = executions.browse({ cursor: task - 1, limit: 1, payloads: false, state: "leased" })
      const [seen] = (yield* Effect.retry(page, { while: isPassing, schedule: pauses })).tasks
      if (seen?.taskId !== taskId || seen.entries <= known || steps.entries.size + own.size > known) continue
      instance.suspended = true
      run.fiber?.interruptUnsafe()
      return
    }
  })

  const attempt = (workflow: Workflow.Any, execute: Body) => (task: Task<typeof Execution.Type>) =>
    Effect.gen(function* () {
      const { execution, parent, payload: encoded } = task.payload
      const { steps } = yield* CurrentTask
      // A body may take another branch than before: a race has losers.
      steps.accepted = true
      const payload = yield* Effect.catch(Schema.decodeEffect(schemasOf(workflow).payload)(encoded), (error) =>
        kill(`the payload does not fit the workflow: ${error.message}`)
      )
      const scope = yield* Scope.make()
      const instance = WorkflowEngine.WorkflowInstance.initial(workflow, execution)
      const run = new Run(instance, steps, scope)
      const failed = `f/${run.count("!r/")}`
      // Suspended by its own failure: only `resume` and `interrupt` end that.
      if (steps.entries.has(failed) && !run.interrupting) return yield* steps.wait(undefined)
      const key = keyOf(workflow._tag, execution)
      runs.set(key, run)
      yield* Effect.addFinalizer(() => {
        if (runs.get(key) === run) runs.delete(key)
        return Scope.close(scope, Exit.void)
      })
      const suspendOnFailure = Context.get(workflow.annotations, Workflow.SuspendOnFailure)
      const fiber = yield* execute(payload, execution).pipe(
        Effect.onExit((exit) => {
          if (run.abandoned || !run.interrupting) return Effect.void
          const ends = run.unsafe || instance.suspended || (suspendOnFailure && Exit.isFailure(exit))
          if (!ends) return Effect.void
          instance.interrupted = true
          instance.suspended = false
          return Effect.withFiber((fiber) => Effect.interruptible(Fiber.interrupt(fiber)))
        }),
        Workflow.intoResult,
        Effect.provideService(WorkflowEngine.WorkflowEngine, engine),
        Effect.provideService(CurrentRun, run),
        (effect) => deferreds.trackRun(instance, effect),
        Effect.forkChild
      )
      run.fiber = fiber
      yield* Effect.forkIn(Effect.ignore(withClient(watch(run, task.id, queueOf(workflow._tag)))), scope)
      const exit = yield* Effect.onInterrupt(Fiber.await(fiber), () => {
        run.abandon()
        return Fiber.interrupt(fiber)
      })
      const { fault } = run
      if (fault !== undefined && !(fault instanceof Kill)) return yield* Effect.fail(fault)
      const preempted = Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause) && instance.suspended
      if (fault === undefined && (preempted || (Exit.isSuccess(exit) && isSuspended(exit.value)))) {
        const result = Exit.isSuccess(exit) && isSuspended(exit.value) ? exit.value : undefined
        // What it holds is released, what is to happen at its end is left to the run that ends it.
        instance.abandoned = true
        yield* Scope.close(instance.scope, Exit.void)
        if (result?.failed === true) {
          yield* run.record(failed, null)
          return yield* steps.wait(undefined)
        }
        return yield* steps.wait(yield* dueOf(run))
      }
      const captured = Exit.isSuccess(exit)
      const ended = Exit.isFailure(exit) ? exit : isSuspended(exit.value) ? Exit.void : exit.value.exit
      const instead = (why: string) => Effect.orDie(encodeExit(workflow, Exit.die(new Error(why))))
      const fitting = Effect.catch(encodeExit(workflow, ended), (error) =>
        instead(`the result does not fit the workflow: ${error.message}`)
      )
      let json = yield* fault === undefined ? fitting : instead(fault.reason)
      const size = sizeOf({ exit: json, captured })
      if (size > Limits.payloadBytesMax) {
        json = yield* instead(`the result has ${size} bytes, at most ${Limits.payloadBytesMax}`)
      }
      for (const to of parentsOf(run, parent)) {
        yield* task.put(notes, { ...to, entry: childEntry(key), value: json })
      }
      return { exit: json, captured: captured || fault !== undefined }
    }).pipe(Effect.scoped)

  /** When a suspended run is to come back by itself. A clock that has fired is told first. */
  const dueOf = Effect.fnUntraced(function* (run: Run) {
    const { executionId, workflow } = run.instance
    const to = { workflow: workflow._tag, execution: executionId }
    const now = yield* Clock.currentTimeMillis
    let due = run.lookAt
    for (const [name, dueAt] of run.clocks) {
      const entry = deferredEntry(name)
      if (run.steps.entries.has(entry) || run.own.has(entry)) continue
      if (dueAt <= now) yield* complete(to, name, voidExit)
      else due = Math.min(due ?? dueAt, dueAt)
    }
    return due
  })

  let noting = false
  /** Tells the notes, in every program with a workflow. */
  const startNoting = Effect.suspend(() => {
    if (noting) return Effect.void
    noting = true
    const handler = (task: Task<typeof Note.Type>) =>
      Effect.gen(function* () {
        const { entry, execution, value, workflow } = task.payload
        const told = yield* tell({ workflow, execution }, entry, value)
        if (told === "unknown") return yield* new Unknown({ workflow, execution })
        if (entry.startsWith("!d/")) {
          const run = runs.get(keyOf(workflow, execution))
          if (run !== undefined) yield* Effect.forkIn(deferreds.deferredDone(execution, entry.slice(3)), engineScope)
        }
      })
    const working = { concurrency: Limits.workflowNotesAtOnce, grace: options.grace }
    return Effect.orDie(Worker.start(notes, handler, working)).pipe(Scope.provide(engineScope), withClient)
  })

  const engine: WorkflowEngine.WorkflowEngine["Service"] = WorkflowEngine.makeUnsafe({
    register: Effect.fnUntraced(function* (workflow, execute) {
      yield* startNoting
      const { concurrency = Limits.workflowConcurrencyDefault, grace } = options
      yield* Worker.start(queueOf(workflow._tag), attempt(workflow, execute), { concurrency, grace }).pipe(
        withClient,
        Effect.orDie
      )
    }),

    execute: ((workflow: Workflow.Any, { detached, discard, executionId, parent, payload }: ExecuteOptions) =>
      Effect.gen(function* () {
        const run = parent === undefined ? undefined : yield* runOf(parent)
        const child = keyOf(workflow._tag, executionId)
        const started = named("s/", child)
        const known = run?.read(childEntry(child)) ?? run?.read(named("x/", child))
        if (known !== undefined && !discard) return new Workflow.Complete({ exit: yield* decodeExit(workflow, known) })
        const link =
          parent === undefined || detached === true
            ? undefined
            : { workflow: parent.workflow._tag, execution: parent.executionId }
        let lookAfterMs: number = Limits.workflowChildLookMs
        if (run?.steps.entries.has(started) !== true) {
          const encoded = yield* Effect.orDie(Schema.encodeEffect(schemasOf(workflow).payload)(payload))
          const element = { execution: executionId, payload: encoded, ...(link === undefined ? {} : { parent: link }) }
          const receipt = yield* withClient(steady(queueOf(workflow._tag).put(element, { id: executionId })))
          if (parent === undefined) {
            if (discard) return undefined
            const ended = yield* outcomeOf(workflow, receipt.taskId, "forever")
            if (ended === undefined) return yield* Effect.die(new Error(`no outcome of ${child}`))
            return ended.captured ? new Workflow.Complete({ exit: ended.exit }) : yield* ended.exit
          }
          if (receipt.duplicate && link !== undefined && !discard) {
            // It may end at this moment and not see this: so its parent looks after it sooner.
            lookAfterMs = Limits.workflowJoinedLookMs
            yield* tell(
              { workflow: workflow._tag, execution: executionId },
              named("!p/", keyOf(link.workflow, link.execution)),
              link
            )
          } else yield* run?.record(started, null) ?? Effect.void
        }
        if (discard) return undefined
        return yield* awaitChild(workflow, executionId, run, lookAfterMs)
      })) as WorkflowEngine.Encoded["execute"],

    poll: Effect.fnUntraced(function* (workflow, executionId) {
      const found = yield* find(workflow, executionId)
      if (found === undefined || found.state === "gone") return Option.none()
      if (found.state === "ready" || found.state === "leased") return Option.none()
      if (found.state === "delayed") return Option.some(new Workflow.Suspended({}))
      const ended = yield* outcomeOf(workflow, found.taskId, 0)
      if (ended === undefined) return Option.none()
      if (ended.captured) return Option.some(new Workflow.Complete({ exit: ended.exit }))
      return yield* Effect.die(Exit.isFailure(ended.exit) ? ended.exit.cause : ended.exit)
    }),

    interrupt: Effect.fnUntraced(function* (workflow, executionId) {
      const run = runs.get(keyOf(workflow._tag, executionId))
      yield* tell({ workflow: workflow._tag, execution: executionId }, interruptEntry, null)
      if (run !== undefined) run.interrupting = true
    }),

    interruptUnsafe: Effect.fnUntraced(function* (workflow, executionId) {
      const to = { workflow: workflow._tag, execution: executionId }
      // In this order: a run that sees the first sees what it means.
      yield* tell(to, unsafeEntry, null)
      yield* tell(to, interruptEntry, null)
      const run = runs.get(keyOf(workflow._tag, executionId))
      if (run === undefined) return
      // The next run sees it, and ends.
      run.instance.suspended = true
      run.fiber?.interruptUnsafe()
    }),

    resume: Effect.fnUntraced(function* (workflow, executionId) {
      const run = runs.get(keyOf(workflow._tag, executionId))
      const nth = run === undefined ? "" : `${run.count("!r/")}`
      const random = (yield* Effect.clockWith((clock) => clock.currentTimeNanos)).toString(36)
      yield* tell({ workflow: workflow._tag, execution: executionId }, `!r/${nth}${random}`, null)
    }),

    activityExecute: Effect.fnUntraced(function* (activity, attempt) {
      const instance = yield* WorkflowEngine.WorkflowInstance
      const run = yield* runOf(instance)
      if (run === undefined)
        return yield* Effect.die(new Error(`activity "${activity.name}" has outlived its workflow`))
      const name = named(`a${attempt}/`, activity.name)
      const known = run.read(name)
      if (known !== undefined) {
        return new Workflow.Complete({ exit: yield* Effect.orDie(Schema.decodeEffect(ActivityExit)(known)) })
      }
      // It is run only to know what is to be compensated: nothing new begins.
      if (run.interrupting && !instance.interrupted) return new Workflow.Suspended({})
      const own = WorkflowEngine.WorkflowInstance.initial(instance.workflow, instance.executionId)
      own.interrupted = instance.interrupted
      const result = yield* (activity.executeEncoded as Effect.Effect<unknown, unknown>).pipe(
        Workflow.intoResult,
        Effect.provideService(WorkflowEngine.WorkflowInstance, own)
      )
      if (result._tag === "Complete") {
        const json = yield* Effect.orDie(Schema.encodeUnknownEffect(ActivityExit)(orNull(result.exit)))
        yield* run.record(name, json as Json)
      }
      return result
    }),

    deferredResult: Effect.fnUntraced(function* (deferred) {
      const instance = yield* WorkflowEngine.WorkflowInstance
      const run = yield* runOf(instance)
      if (run === undefined) return Option.none()
      const known = run.read(deferredEntry(deferred.name))
      if (known !== undefined) return Option.some(yield* Effect.orDie(Schema.decodeEffect(DeferredExit)(known)))
      const due = run.clocks.get(deferred.name)
      if (due === undefined || (yield* Clock.currentTimeMillis) < due) return Option.none()
      const to = { workflow: instance.workflow._tag, execution: instance.executionId }
      run.given.add(deferred.name)
      yield* complete(to, deferred.name, voidExit)
      return Option.some(Exit.void)
    }),

    deferredDone: Effect.fnUntraced(function* ({ deferredName, executionId, exit, workflowName }) {
      const json = yield* Effect.orDie(Schema.encodeUnknownEffect(DeferredExit)(orNull(exit)))
      if (!(yield* complete({ workflow: workflowName, execution: executionId }, deferredName, json as Json))) return
      const wake = deferreds.deferredDone(executionId, deferredName)
      const instance = yield* Effect.serviceOption(WorkflowEngine.WorkflowInstance)
      // A run cannot wait for its own end.
      const own = Option.isSome(instance) && instance.value.executionId === executionId
      yield* own ? Effect.forkIn(wake, engineScope) : wake
    }),

    scheduleClock: Effect.fnUntraced(function* (workflow, { clock, executionId }) {
      const { name } = clock.deferred
      const run = runs.get(keyOf(workflow._tag, executionId))
      if (run === undefined) return yield* Effect.die(new Error(`clock "${clock.name}" has outlived its workflow`))
      if (run.clocks.has(name)) return
      const now = yield* Clock.currentTimeMillis
      const dueAt = yield* run.instant(
        named("c/", clock.name),
        Math.ceil(now + Math.min(Duration.toMillis(clock.duration), clockMsMax))
      )
      run.clocks.set(name, dueAt)
      if (!run.steps.entries.has(deferredEntry(name))) yield* Effect.forkIn(fire(run, name, dueAt), run.scope)
    })
  })
  return engine
})

const parentsOf = (run: Run, parent: Named | undefined): ReadonlyArray<Named> => {
  const parents = new Map<string, Named>()
  if (parent !== undefined) parents.set(keyOf(parent.workflow, parent.execution), parent)
  for (const entry of run.steps.entries.keys()) {
    if (!entry.startsWith("!p/")) continue
    const told = Schema.decodeUnknownOption(Named)(run.read(entry))
    if (Option.isSome(told)) parents.set(keyOf(told.value.workflow, told.value.execution), told.value)
  }
  return [...parents.values()]
}
