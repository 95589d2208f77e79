/**
 * Worker programs: a handler for the tasks of a queue, run until the scope closes.
 *
 * A handler that succeeds commits its result; a typed failure fails the attempt; a defect fails it and keeps its cause;
 * interruption gives the task back uncounted. Leases are renewed while handlers run. When the scope closes (SIGINT and
 * SIGTERM under `runMain`), the worker takes nothing new, lets handlers end within the grace period, interrupts the rest,
 * reports every end, and only then lets go.
 */
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { Client, type ClientShape, requestErrorOf, unexpected } from "../client/Client.ts"
import type { TaskQueue } from "../client/TaskQueue.ts"
import { LimitExceeded, type RequestError } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import type { Report } from "../wire/ProgressMessages.ts"
import { ManagerType as M } from "../wire/Vocabulary.ts"
import { type Handler, Runner } from "./Runner.ts"
import type { CurrentTask } from "./Steps.ts"

export type { Handler } from "./Runner.ts"

export interface WorkerOptions {
  /** Handlers at a time. Default 1. */
  readonly concurrency?: number | undefined
  /**
   * Tasks leased ahead of free handlers, so that short handlers never wait for the network. Default: as many as
   * `concurrency`. 0 keeps long tasks free for idle workers.
   */
  readonly prefetch?: number | undefined
  /** Time that running handlers have when the worker stops. Default 10 s. */
  readonly grace?: Duration.Input | undefined
  /**
   * Time without a task, while a handler is free, after which the worker asks for one beside its stream. If there was one,
   * the manager has forgotten the stream: the worker says so and dials again, less and less often. Default 30 s, at least
   * 1 s, at most an hour.
   */
  readonly watchdog?: Duration.Input | undefined
}

/** Runs the worker in the current scope; returns when it has subscribed. */
export const start = Effect.fnUntraced(function* <P, R, E, C, Env>(
  queue: TaskQueue<P, R, E, C>,
  handler: Handler<P, NoInfer<R>, NoInfer<E>, Env, NoInfer<C>>,
  options: WorkerOptions = {}
): Effect.fn.Return<void, RequestError, Client | Exclude<Env, CurrentTask> | Scope.Scope> {
  const concurrency = yield* bounded("concurrency", options.concurrency ?? 1, 1, Limits.concurrencyMax)
  const prefetch = yield* bounded("prefetch", options.prefetch ?? concurrency, 0, Limits.creditMax)
  const watchdogMs = yield* bounded(
    "watchdog (ms)",
    Math.round(Duration.toMillis(options.watchdog ?? Limits.watchdogMsDefault)),
    Limits.watchdogMsMin,
    Limits.watchdogMsMax
  )
  const client = yield* Client
  // The worker itself provides every handler with its own task.
  const context = (yield* Effect.context<Exclude<Env, CurrentTask>>()) as Context.Context<Env>
  const run = Effect.runForkWith(context)
  const runner = new Runner(client, queue, handler, { concurrency, prefetch }, context, (text) => {
    run(Effect.logWarning(text).pipe(Effect.annotateLogs({ room: "worker", queue: queue.name })))
  })
  const { link } = client
  const subscribe = Effect.flatMap(client.open(queue), (opened) =>
    Effect.callback<void, RequestError>((resume) =>
      runner.subscribe(opened.id, (answer) => {
        if (answer instanceof Error) resume(Effect.fail(answer))
        else if (answer.type === M.refused) resume(Effect.fail(requestErrorOf({ _tag: "Refusal", refused: answer })))
        else if (answer.type !== M.streaming) resume(Effect.fail(unexpected(answer)))
        else resume(Effect.void)
      })
    )
  )
  const up = (resumed: boolean): void => {
    runner.up(resumed)
    // Refused: said once, and the program goes on without this queue.
    run(
      Effect.catch(unlessLost(subscribe), (error) =>
        Effect.logError(`the worker of "${queue.name}" cannot go on: ${error.message}`)
      )
    )
  }
  const resident = {
    held: (into: Array<number>) => runner.held(into),
    reports: (into: Array<Report>, sequence: number) => runner.reports(into, sequence),
    heard: (sequence: number, unsaved: ReadonlyArray<number>) => runner.heard(sequence, unsaved),
    lost: (tasks: ReadonlySet<number>) => runner.lost(tasks),
    down: () => runner.down(),
    up
  }
  // A third of the term: two renewals may be lost before the lease is.
  const { policy } = (yield* unlessLost(client.open(queue))) ?? queue.definition
  const every = Math.max(100, Math.min(link.heartbeatMs, Math.floor(policy.leaseMs / 3)))
  // Before the finalizer, hence interrupted after it: a handler that ends during the drain still has its lease.
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.andThen(
        Effect.sleep(every),
        Effect.sync(() => link.heartbeat())
      )
    )
  )
  yield* Effect.forkScoped(
    watch(runner, client, queue, watchdogMs, () => {
      run(Effect.logWarning(`the worker of "${queue.name}" was forgotten by the manager; dialling again`))
    })
  )
  link.residents.add(resident)
  yield* Effect.addFinalizer(() =>
    Effect.andThen(
      stop(runner, options.grace ?? Limits.graceMsDefault),
      Effect.sync(() => link.residents.delete(resident))
    )
  )
  yield* unlessLost(subscribe)
})

/** Never ends. Found forgotten, it waits longer each time until something is delivered again. */
const watch = Effect.fnUntraced(function* <P, R, E, C, Env>(
  runner: Runner<P, R, E, C, Env>,
  client: ClientShape,
  queue: TaskQueue<P, R, E, C>,
  watchdogMs: number,
  say: () => void
) {
  let waitMs = watchdogMs
  for (;;) {
    yield* Effect.sleep(waitMs)
    if (!runner.unfed) {
      waitMs = watchdogMs
      continue
    }
    const opened = client.opened(queue)
    if (opened === undefined) continue
    runner.probe(opened.id, () => {
      waitMs = Math.min(2 * waitMs, Limits.watchdogMsMax)
      say()
      client.link.redial("the manager has forgotten a worker's stream")
    })
  }
})

/** A connection lost meanwhile is no error here: when the link is up again, it subscribes. */
const unlessLost = <A, R>(effect: Effect.Effect<A, RequestError, R>): Effect.Effect<A | undefined, RequestError, R> =>
  Effect.catchTag(effect, ["ConnectionLost", "ConnectFailed"], () => Effect.undefined)

/** A worker as a layer: it works as long as the layer lives. */
export const layer = <P, R, E, C, Env>(
  queue: TaskQueue<P, R, E, C>,
  handler: Handler<P, NoInfer<R>, NoInfer<E>, Env, NoInfer<C>>,
  options?: WorkerOptions
): Layer.Layer<never, RequestError, Client | Exclude<Env, Scope.Scope | CurrentTask>> =>
  Layer.effectDiscard(start(queue, handler, options)) as Layer.Layer<
    never,
    RequestError,
    Client | Exclude<Env, Scope.Scope | CurrentTask>
  >

/** A worker as an effect that never ends by itself. */
export const run = <P, R, E, C, Env>(
  queue: TaskQueue<P, R, E, C>,
  handler: Handler<P, NoInfer<R>, NoInfer<E>, Env, NoInfer<C>>,
  options?: WorkerOptions
): Effect.Effect<never, RequestError, Client | Exclude<Env, Scope.Scope | CurrentTask>> =>
  Effect.scoped(Effect.andThen(start(queue, handler, options), Effect.never)) as Effect.Effect<
    never,
    RequestError,
    Client | Exclude<Env, Scope.Scope | CurrentTask>
  >

const stop = Effect.fnUntraced(function* <P, R, E, C, Env>(runner: Runner<P, R, E, C, Env>, grace: Duration.Input) {
  const idle = yield* Deferred.make<void>()
  runner.drain(() => Deferred.doneUnsafe(idle, Effect.void))
  const ended = yield* Effect.timeoutOption(Deferred.await(idle), grace)
  if (ended._tag === "None") {
    yield* Effect.logInfo(`interrupting ${runner.active} handlers after the grace period; their tasks are released`)
    runner.interruptAll()
    yield* Effect.timeoutOption(Deferred.await(idle), "1 second")
  }
  const settled = Effect.gen(function* () {
    while (!runner.settled) yield* Effect.sleep("2 millis")
  })
  yield* Effect.timeoutOption(settled, "2 seconds")
}, Effect.uninterruptible)

const bounded = (limit: string, value: number, min: number, max: number): Effect.Effect<number, LimitExceeded> =>
  Number.isSafeInteger(value) && value >= min && value <= max
    ? Effect.succeed(value)
    : Effect.fail(new LimitExceeded({ limit, value, max }))
