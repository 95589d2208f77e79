/**
 * Worker programs: a handler for the tasks of a queue, run until the scope closes.
 *
 * A handler that succeeds commits its result; a typed failure fails the attempt; a defect fails it and keeps its cause;
 * interruption gives the task back uncounted. Leases are renewed while handlers run. When the scope closes (SIGINT and
 * SIGTERM under `runMain`), the worker takes nothing new, lets handlers end within the grace period, interrupts the rest,
 * reports every end, and only then lets go.
 *
 * Neither a failing handler nor a lost connection ends a worker. What does, a queue that refuses it or a fault of its own,
 * is tried again under its restart policy; after that it gives up, and says so.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { Client, type ClientShape, requestErrorOf, unexpected } from "../client/Client.ts"
import type { TaskQueue } from "../client/TaskQueue.ts"
import { LimitExceeded, type RequestError } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import type { Report } from "../wire/ProgressMessages.ts"
import { ManagerType as M } from "../wire/Vocabulary.ts"
import { around } from "./Around.ts"
import { type Handler, Runner } from "./Runner.ts"
import { Slots } from "./Slots.ts"
import type { CurrentTask } from "./Steps.ts"

export type { Handler } from "./Runner.ts"

/** How often a worker that cannot go on begins anew. */
export interface RestartPolicy {
  /** Restarts within `within` before the worker gives up. Default 5; 0: none. */
  readonly intensity?: number | undefined
  /** Default 1 minute. */
  readonly within?: Duration.Input | undefined
}

/** What concerns the tasks of one queue. */
export interface MemberOptions<E = never> {
  /**
   * Tasks leased ahead of free handlers, so that short handlers never wait for the network. Default: as many as are done in
   * 100 ms at the measured rate, at most 4,096, hence none when handlers take long. 0 keeps tasks free for idle workers.
   */
  readonly prefetch?: number | undefined
  /** Time of one attempt, after which its handler is interrupted and the attempt has failed. Default: none. */
  readonly timeout?: Duration.Input | undefined
  /**
   * Time of all attempts together, from when the first handler began, waits and restarts included: after it the task is
   * dead. Kept with the task as a step. Default: none.
   */
  readonly overall?: Duration.Input | undefined
  /**
   * When a typed failure is tried again, instead of the queue's back-off; when the schedule is over, the task has failed. The
   * queue's `maxAttempts` counts as well.
   */
  readonly retry?: Schedule.Schedule<unknown, E> | undefined
  /**
   * Time without a task, while a handler is free, after which the worker asks for one beside its stream. If there was one,
   * the manager has forgotten the stream: the worker says so and dials again, less and less often. Default 30 s, at least
   * 1 s, at most an hour.
   */
  readonly watchdog?: Duration.Input | undefined
}

/** What concerns a worker as a whole. */
export interface SharedOptions {
  /** Handlers at a time. Default 1. */
  readonly concurrency?: number | undefined
  /** Time that running handlers have when the worker stops. Default 10 s. */
  readonly grace?: Duration.Input | undefined
  readonly restart?: RestartPolicy | undefined
}

export interface WorkerOptions<E = never> extends MemberOptions<E>, SharedOptions {}

/** A worker that runs. */
export interface Running {
  /** Fails when the worker has given up; never succeeds. */
  readonly gaveUp: Effect.Effect<never, RequestError>
}

/**
 * What ends the grace period of every worker before its time, for those who are in a hurry: a second SIGINT, say. Default:
 * nothing does.
 */
export class Hurry extends Context.Reference<Effect.Effect<void>>("millrace/worker/Hurry", {
  defaultValue: () => Effect.never
}) {}

/** A queue of a worker of several, with what it does with its tasks. Made by `member`. */
export interface Member<Env> {
  /** @internal */
  readonly run: (shared: Shared) => Effect.Effect<Running, RequestError, Client | Env | Scope.Scope>
}

interface Shared {
  readonly slots: Slots
  readonly grace: Duration.Input
  readonly restart: RestartPolicy
}

/** What the handlers of all of them need. */
type NeedsOf<Members extends ReadonlyArray<Member<unknown>>> = [Members[number]] extends [never]
  ? never
  : Members[number] extends Member<infer Env>
    ? Env
    : never

type HandlerEnv<Env> = Exclude<Env, Scope.Scope | CurrentTask>

/** One of the queues of `startMany`. `weight`, default 1: its share of the handlers when others have work too. */
export const member = <P, R, E, C, Env>(
  queue: TaskQueue<P, R, E, C>,
  handler: Handler<P, NoInfer<R>, NoInfer<E>, Env, NoInfer<C>>,
  options: MemberOptions<NoInfer<E>> & { readonly weight?: number | undefined } = {}
): Member<HandlerEnv<Env>> => ({
  run: (shared) =>
    Effect.flatMap(bounded("weight", options.weight ?? 1, 1, Limits.workerWeightMax), (weight) =>
      startOne(queue, handler, options, shared, weight)
    ) as Effect.Effect<Running, RequestError, Client | HandlerEnv<Env> | Scope.Scope>
})

/** Runs the worker in the current scope; returns when it has subscribed. */
export const start = <P, R, E, C, Env>(
  queue: TaskQueue<P, R, E, C>,
  handler: Handler<P, NoInfer<R>, NoInfer<E>, Env, NoInfer<C>>,
  options: WorkerOptions<NoInfer<E>> = {}
): Effect.Effect<Running, RequestError, Client | Exclude<Env, CurrentTask> | Scope.Scope> =>
  startMany([member(queue, handler, options)], options) as never

/**
 * Runs one worker for several queues, which share its handlers: a free one takes a task of the queue that has the fewest
 * running for its weight. Returns when it has subscribed to all.
 */
export const startMany = Effect.fnUntraced(function* <const Members extends ReadonlyArray<Member<unknown>>>(
  members: Members,
  options: SharedOptions = {}
): Effect.fn.Return<Running, RequestError, Client | NeedsOf<Members> | Scope.Scope> {
  yield* bounded("queues of a worker", members.length, 1, Limits.workerQueuesMax)
  const concurrency = yield* bounded("concurrency", options.concurrency ?? 1, 1, Limits.concurrencyMax)
  const { grace = Limits.graceMsDefault, restart = {} } = options
  yield* bounded("restart.intensity", restart.intensity ?? Limits.workerRestartsDefault, 0, Limits.workerRestartsMax)
  yield* boundedMs("restart.within (ms)", restart.within ?? Limits.workerRestartsWithinMs, 1, Limits.delayMsMax)
  const shared: Shared = { slots: new Slots(concurrency), grace, restart }
  // Each in a scope of its own: they stop at the same time, within one grace period.
  const scopes = yield* Scope.fork(yield* Effect.scope, "parallel")
  const running = yield* Effect.forEach(
    members,
    (member: Members[number]) => {
      const run = member.run(shared) as Effect.Effect<Running, RequestError, Client | NeedsOf<Members> | Scope.Scope>
      return Effect.flatMap(Scope.fork(scopes), (own) => Scope.provide(run, own))
    },
    { concurrency: "unbounded" }
  )
  return { gaveUp: Effect.raceAllFirst(running.map(({ gaveUp }) => gaveUp)) }
})

const startOne = Effect.fnUntraced(function* <P, R, E, C, Env>(
  queue: TaskQueue<P, R, E, C>,
  handler: Handler<P, R, E, Env, C>,
  options: MemberOptions<E>,
  { grace, restart, slots }: Shared,
  weight: number
): Effect.fn.Return<Running, RequestError, Client | Exclude<Env, CurrentTask> | Scope.Scope> {
  const { overall, prefetch, retry, timeout } = options
  if (prefetch !== undefined) yield* bounded("prefetch", prefetch, 0, Limits.creditMax)
  const watchdogMs = yield* boundedMs(
    "watchdog (ms)",
    options.watchdog ?? Limits.watchdogMsDefault,
    Limits.watchdogMsMin,
    Limits.watchdogMsMax
  )
  const timeoutMs = timeout === undefined ? undefined : yield* boundedMs("timeout (ms)", timeout, 1, Limits.delayMsMax)
  const overallMs = overall === undefined ? undefined : yield* boundedMs("overall (ms)", overall, 1, Limits.delayMsMax)
  const client = yield* Client
  const clock = yield* Clock.Clock
  // The worker itself provides every handler with its own task.
  const context = (yield* Effect.context<Exclude<Env, CurrentTask>>()) as Context.Context<Env>
  const run = Effect.runForkWith(context)
  const log = (text: string): void => {
    run(Effect.logWarning(text).pipe(Effect.annotateLogs({ room: "worker", queue: queue.name })))
  }
  const gaveUp = yield* Deferred.make<never, RequestError>()
  const runner = new Runner(
    client,
    queue,
    handler,
    { slots, weight, prefetch, timeoutMs, clock, around: around({ timeoutMs, overallMs, retry }) },
    context,
    log
  )
  const { link } = client
  const subscribeNow = Effect.flatMap(client.open(queue), (opened) =>
    Effect.callback<void, RequestError>((resume) =>
      runner.subscribe(opened.id, (answer) => {
        if (answer instanceof Error) resume(Effect.fail(answer))
        else if (answer.type === M.refused) resume(Effect.fail(requestErrorOf({ _tag: "Refusal", refused: answer })))
        else if (answer.type !== M.streaming) resume(Effect.fail(unexpected(answer)))
        else resume(Effect.void)
      })
    )
  )
  // One at a time: a connection that comes back while another try is under way would subscribe twice, with twice the credit.
  const subscribing = yield* Semaphore.make(1)
  const subscribe = subscribing.withPermits(1)(Effect.suspend(() => (runner.subscribed ? Effect.void : subscribeNow)))
  const restarts = new Restarts(restart, clock)
  const giveUp = (error: RequestError): Effect.Effect<void> =>
    Effect.andThen(
      Effect.logError(`the worker of "${queue.name}" gives up: ${error.message}`),
      Deferred.fail(gaveUp, error)
    )
  /** Until it is subscribed, or has given up. */
  const resubscribe: Effect.Effect<void> = Effect.catch(unlessLost(subscribe), (error) => {
    const pauseMs = restarts.next()
    if (pauseMs === undefined) return giveUp(error)
    const text = `the worker of "${queue.name}" cannot go on: ${error.message} Trying again in ${Math.round(pauseMs)} ms.`
    // A connection that comes back meanwhile subscribes by itself.
    return Effect.andThen(
      Effect.andThen(Effect.logWarning(text), Effect.sleep(pauseMs)),
      Effect.suspend(() => (link.connected && !runner.subscribed ? resubscribe : Effect.void))
    )
  })
  const resident = {
    held: (into: Array<number>) => runner.held(into),
    reports: (into: Array<Report>, sequence: number) => runner.reports(into, sequence),
    heard: (sequence: number, unsaved: ReadonlyArray<number>) => runner.heard(sequence, unsaved),
    lost: (tasks: ReadonlySet<number>) => runner.lost(tasks),
    down: () => runner.down(),
    up: (resumed: boolean) => {
      runner.up(resumed)
      run(resubscribe)
    }
  }
  // A third of the term: two renewals may be lost before the lease is.
  const { policy } = (yield* unlessLost(client.open(queue))) ?? queue.definition
  const third = Math.floor(policy.leaseMs / 3)
  // Before the finalizer, hence interrupted after it: a handler that ends during the drain still has its lease.
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.andThen(
        Effect.suspend(() => Effect.sleep(Math.max(100, Math.min(link.heartbeatMs, third)))),
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
      stop(runner, grace),
      Effect.sync(() => link.residents.delete(resident))
    )
  )
  yield* unlessLost(subscribe)
  return { gaveUp: Deferred.await(gaveUp) }
})

/** Counts the restarts of the last while, and says how long to wait before the next one. */
class Restarts {
  readonly #intensity: number
  readonly #withinMs: number
  readonly #clock: Clock.Clock
  #at: Array<number> = []

  constructor({ intensity, within }: RestartPolicy, clock: Clock.Clock) {
    this.#intensity = intensity ?? Limits.workerRestartsDefault
    this.#withinMs = Duration.toMillis(within ?? Limits.workerRestartsWithinMs)
    this.#clock = clock
  }

  /** Milliseconds; undefined: too often. */
  next(): number | undefined {
    const now = this.#clock.currentTimeMillisUnsafe()
    this.#at = this.#at.filter((at) => at > now - this.#withinMs)
    if (this.#at.length >= this.#intensity) return undefined
    this.#at.push(now)
    return Math.min(Limits.workerRestartCapMs, Limits.workerRestartBaseMs * 2 ** (this.#at.length - 1))
  }
}

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

/** A worker as a layer: it works as long as the layer lives. One that gives up logs an error, and the layer stays. */
export const layer = <P, R, E, C, Env>(
  queue: TaskQueue<P, R, E, C>,
  handler: Handler<P, NoInfer<R>, NoInfer<E>, Env, NoInfer<C>>,
  options?: WorkerOptions<NoInfer<E>>
): Layer.Layer<never, RequestError, Client | HandlerEnv<Env>> =>
  Layer.effectDiscard(start(queue, handler, options)) as Layer.Layer<never, RequestError, Client | HandlerEnv<Env>>

/**
 * One worker for several queues as a layer. A queue whose lanes have limits wants a worker of its own: here its tasks may wait
 * in the worker for handlers that the others use.
 */
export const layerMany = <const Members extends ReadonlyArray<Member<unknown>>>(
  members: Members,
  options?: SharedOptions
): Layer.Layer<never, RequestError, Client | Exclude<NeedsOf<Members>, Scope.Scope>> =>
  Layer.effectDiscard(startMany(members, options)) as Layer.Layer<
    never,
    RequestError,
    Client | Exclude<NeedsOf<Members>, Scope.Scope>
  >

/** A worker as an effect that ends only when the worker gives up. */
export const run = <P, R, E, C, Env>(
  queue: TaskQueue<P, R, E, C>,
  handler: Handler<P, NoInfer<R>, NoInfer<E>, Env, NoInfer<C>>,
  options?: WorkerOptions<NoInfer<E>>
): Effect.Effect<never, RequestError, Client | HandlerEnv<Env>> =>
  Effect.scoped(Effect.flatMap(start(queue, handler, options), ({ gaveUp }) => gaveUp)) as Effect.Effect<
    never,
    RequestError,
    Client | HandlerEnv<Env>
  >

const stop = Effect.fnUntraced(function* <P, R, E, C, Env>(runner: Runner<P, R, E, C, Env>, grace: Duration.Input) {
  const idle = yield* Deferred.make<void>()
  const hurry = yield* Hurry
  runner.drain(() => Deferred.doneUnsafe(idle, Effect.void))
  const ended = yield* Effect.timeoutOption(
    Effect.raceFirst(Effect.as(Deferred.await(idle), true), Effect.as(hurry, false)),
    grace
  )
  if (ended._tag === "None" || !ended.value) {
    yield* Effect.logInfo(`interrupting ${runner.active} handlers after the grace period; their tasks are released`)
    runner.interruptAll()
    yield* Effect.timeoutOption(Deferred.await(idle), "1 second")
  }
  const settled = Effect.gen(function* () {
    while (!runner.settled) yield* Effect.sleep("2 millis")
  })
  yield* Effect.timeoutOption(settled, "2 seconds")
  runner.leave()
}, Effect.uninterruptible)

const bounded = (limit: string, value: number, min: number, max: number): Effect.Effect<number, LimitExceeded> =>
  Number.isSafeInteger(value) && value >= min && value <= max
    ? Effect.succeed(value)
    : Effect.fail(new LimitExceeded({ limit, value, max }))

const boundedMs = (
  limit: string,
  value: Duration.Input,
  min: number,
  max: number
): Effect.Effect<number, LimitExceeded> => bounded(limit, Math.round(Duration.toMillis(value)), min, max)
