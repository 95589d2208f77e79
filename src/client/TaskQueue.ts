/**
 * A queue definition: name, Schemas, policy, and everything that a program does with the queue.
 *
 * One shared value, used by producer, worker and manager. It holds no state: every operation asks the `Client` in its
 * environment, in process or across the network. Payload, result, error and checkpoint are checked against their Schemas
 * here, before anything is sent; the manager sees bytes.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Errors from "../Errors.ts"
import * as Limits from "../Limits.ts"
import { type QueueExplanation, queueExplanationOf, type TaskExplanation, taskExplanationOf } from "../model/Explain.ts"
import type { QueueDefinition } from "../model/Queue.ts"
import { Code } from "../model/Refusal.ts"
import { PutStatus } from "../model/Session.ts"
import { Outcome as OutcomeKind, Reason } from "../model/Task.ts"
import { fromHex, toHex } from "../wire/Bytes.ts"
import type * as ClientMessages from "../wire/ClientMessages.ts"
import type * as ManagerMessages from "../wire/ManagerMessages.ts"
import { isName } from "../wire/pieces.ts"
import type * as Wire from "../wire/Vocabulary.ts"
import { ClientType as C, ManagerType as M, optionsBytes } from "../wire/Vocabulary.ts"
import { Client, type ClientShape, type OpenQueue, type Refusal, requestErrorOf, unexpected } from "./Client.ts"
import { type Codec, CodecFault, fingerprint, make as makeCodec, type Plain } from "./Codec.ts"
import { type CollectError, Collected, type Collecting } from "./CommitEffects.ts"
import { type Options, policyOf } from "./Definition.ts"

import { type LaneError, LaneHandle } from "./LaneHandle.ts"
import type { Settle } from "./Link.ts"
import * as Operate from "./Operate.ts"

import { type Outcome, reasonText } from "./Outcome.ts"
import { OutcomeReader } from "./OutcomeReader.ts"
import { type Repeat, type RepeatOptions, repeatOf, type Schedule, scheduleOf } from "./Repeat.ts"
import { askObject, type ObjectError, type WriteError, writeErrorOf } from "./SharedObject.ts"
import * as Signal from "./Signal.ts"
import { Receipt, taskIdOf, taskNumberOf } from "./TaskId.ts"
import { traceOf } from "./Trace.ts"

export type { Blocker, QueueExplanation, TaskExplanation } from "../model/Explain.ts"
export type { Collecting } from "./CommitEffects.ts"
export type { LaneOptions, Options, PolicyOptions } from "./Definition.ts"
export type { LaneError, LaneHandle } from "./LaneHandle.ts"
export type {
  BrowsedTask,
  BrowseOptions,
  Cancellation,
  Filter,
  Page,
  Redriven,
  Standing
} from "./Operate.ts"

export type { Outcome } from "./Outcome.ts"
export type { Repeat, RepeatOptions, Schedule } from "./Repeat.ts"
export { Receipt, taskIdOf } from "./TaskId.ts"

/** How long a call waits: a duration, 0 for not at all, or for ever (the default). */
export type Timeout = Duration.Input | "forever"

export interface PutOptions {
  /** Dedupe id: at most one task per id while that task lives and for the retention after it. */
  readonly id?: string | undefined
  /** 0..255, lower first. Default 128. */
  readonly priority?: number | undefined
  readonly delay?: Duration.Input | undefined
  /** How long the task may wait before it is dead. */
  readonly ttl?: Duration.Input | undefined
  readonly key?: string | undefined
  readonly labels?: ReadonlyArray<string> | undefined
  /** How long to wait for room. */
  readonly timeout?: Timeout | undefined
}

export interface PutAllOptions<P> {
  readonly id?: ((payload: P) => string) | undefined
  readonly priority?: number | undefined
  readonly delay?: Duration.Input | undefined
  readonly ttl?: Duration.Input | undefined
  readonly timeout?: Timeout | undefined
  /** All or nothing; then the payloads must fit one batch (4,096 items, 4 MiB). Default false. */
  readonly atomic?: boolean | undefined
}

/** A task leased by hand: until it is committed, released, failed or killed, or its term is over. */
export interface Lease<P, C = unknown> {
  readonly taskId: string
  readonly payload: P
  /** Counts from 1. */
  readonly attempt: number
  readonly key: string | undefined
  /** What an earlier attempt saved; undefined if none did, or if it does not decode. */
  readonly checkpoint: C | undefined
  /** Milliseconds of the term; renew before it is over. */
  readonly leaseMs: number
  readonly handle: { readonly task: number; readonly fence: number }
}

type Held = Pick<Lease<unknown>, "taskId" | "handle">

export interface FoundTask {
  readonly taskId: string
  readonly state: Operate.Standing
}

export type OutcomeStream<R, E, P> = Stream.Stream<
  Outcome<R, E, P>,
  Errors.RequestError | Errors.OutcomesGap | Errors.DecodeFailed,
  Client
>

/** What a reader with a name may fail with. */
export type ReaderError = ObjectError | Errors.OutcomesGap | Errors.DecodeFailed

export type PutError =
  | Errors.RequestError
  | Errors.PayloadInvalid
  | Errors.PayloadTooLarge
  | Errors.Full
  | Errors.Closed
  | Errors.PutIncomplete
export type GetError = Errors.RequestError | Errors.Empty | Errors.Closed | Errors.DecodeFailed
export type OutcomeError = Errors.RequestError | Errors.TaskNotFound | Errors.TimedOut | Errors.DecodeFailed
export type CommitAllError = CollectError | WriteError | Errors.LeaseLost | Errors.AlreadyEnded
export type RepeatError = Errors.RequestError | Errors.PayloadInvalid | Errors.PayloadTooLarge | Errors.Closed
export type LeaseError = Errors.RequestError | Errors.LeaseLost | Errors.AlreadyEnded

/**
 * Counts of a queue, taken without scanning it. `outcomesFirst` and `outcomesNext` are the cursors of the outcomes that
 * are kept; `puts10s` and its like say how many there were in the last 10 whole seconds; ages and times to the next event
 * are in ms, 0 where there is none.
 */
export interface QueueStats extends Wire.QueueStats {}

export class TaskQueue<P, R = void, E = never, C = void> {
  readonly name: string
  readonly definition: Omit<QueueDefinition, "durability">
  readonly payload: Codec<P>
  readonly result: Codec<R>
  readonly error: Codec<E>
  readonly checkpointCodec: Codec<C>
  readonly key: ((payload: P) => string) | undefined
  /** Whether opening it may make it. */
  readonly create: boolean

  constructor(name: string, options: Options<P, R, E, C>) {
    const result = options.result ?? (Schema.Void as unknown as Plain<R>)
    const error = options.error ?? (Schema.Never as unknown as Plain<E>)
    const checkpoint = options.checkpoint ?? (Schema.Void as unknown as Plain<C>)
    const { hash, text } = fingerprint({ payload: options.payload, result, error, checkpoint })
    this.name = name
    this.payload = makeCodec(options.payload)
    this.result = makeCodec(result)
    this.error = makeCodec(error)
    this.checkpointCodec = makeCodec(checkpoint)
    this.key = options.key
    this.create = options.untyped?.create ?? true
    this.definition = {
      name,
      fingerprint: options.untyped === undefined ? hash : new Uint8Array(),
      schema: options.untyped === undefined ? text : "",
      accepts: (options.accepts ?? []).map(fromHex),
      policy: policyOf(name, options.policy ?? {})
    }
  }

  /** The fingerprint of this definition in hex, for the `accepts` of its successor. */
  get fingerprint(): string {
    return toHex(this.definition.fingerprint)
  }

  // ---- producers

  /**
   * Puts one task. Waits for room as long as `timeout` says (default: for ever), then fails with `Full`.
   *
   * Success means the task is as durable as the queue's level. `PayloadInvalid` names the path in the payload;
   * `ConnectionLost` is indefinite, all other errors are definite.
   */
  put(payload: P, options?: PutOptions): Effect.Effect<Receipt, PutError, Client> {
    return Effect.flatMap(Client, (client) =>
      Effect.withFiber((fiber) => {
        const trace = traceOf(fiber)
        const opened = client.opened(this)
        return opened === undefined
          ? Effect.flatMap(client.open(this), (queue) => this.#putOne(client, queue, payload, options, trace))
          : this.#putOne(client, opened, payload, options, trace)
      })
    )
  }

  /**
   * Puts many tasks, in batches of up to 4,096 items or 4 MiB, in order. Every payload is checked before the first is
   * sent. Fails with `Full` after `timeout`, or with `Closed`; their `accepted` counts those put, from the front. Whatever
   * else happens after the first batch is `PutIncomplete`, which says how many were put and whether others may have been.
   */
  putAll(
    payloads: Iterable<P>,
    options: PutAllOptions<P> = {}
  ): Effect.Effect<ReadonlyArray<Receipt>, PutError, Client> {
    return Effect.flatMap(Client, (client) =>
      Effect.withFiber((fiber) =>
        Effect.flatMap(client.open(this), (queue) => this.#putMany(client, queue, payloads, options, traceOf(fiber)))
      )
    )
  }

  /**
   * Puts one task and waits for its outcome: its result, its typed error, or why it will not have one. Waits as long as it
   * takes: `timeout` is for room in the queue. Under `Effect.timeout` the wait ends and the task stays on the queue.
   */
  putWait(
    payload: P,
    options?: PutOptions
  ): Effect.Effect<
    R,
    E | PutError | Errors.TaskDead | Errors.TaskCancelled | Errors.TaskNotFound | Errors.DecodeFailed,
    Client
  > {
    return Effect.flatMap(this.put(payload, options), (receipt) =>
      Effect.flatMap(
        this.outcome(receipt.taskId),
        (outcome): Effect.Effect<R, E | Errors.TaskDead | Errors.TaskCancelled> => {
          const { attempts, taskId } = outcome
          switch (outcome._tag) {
            case "Success":
              return Effect.succeed(outcome.result)
            case "Failure":
              return Effect.fail(outcome.error)
            case "Dead":
              return Effect.fail(new Errors.TaskDead({ taskId, attempts, reasons: outcome.reasons }))
            case "Cancelled":
              return Effect.fail(new Errors.TaskCancelled({ taskId }))
          }
        }
      )
    ).pipe(Effect.catchTag("TimedOut", (error) => Effect.die(error)))
  }

  // ---- consumers

  /**
   * Takes one payload for good, as Python's `Queue.get` does: waits up to `timeout` (default: for ever), then fails with
   * `Empty`. If this program dies before it has the payload, the task returns to the queue. Leaves no outcome.
   */
  get(options: { readonly timeout?: Timeout | undefined } = {}): Effect.Effect<P, GetError, Client> {
    return Effect.flatMap(Client, (client) =>
      Effect.flatMap(this.#lease(client, 1, options.timeout, true), ([item]): Effect.Effect<P, GetError> => {
        if (item === undefined) return Effect.fail(new Errors.Empty({ queue: this.name }))
        const payload = this.#decode("payload", this.payload, item.payload)
        if (Exit.isSuccess(payload)) {
          client.gets.acknowledge(item.task, item.fence)
          return payload
        }
        const held = this.#heldOf(client, item)
        const dead = this.#failAs(client, held, Reason.undecodable, "the payload does not decode")
        return Effect.andThen(
          Effect.catchTag(dead, ["LeaseLost", "AlreadyEnded"], () => Effect.void),
          payload
        )
      })
    )
  }

  /** Leases up to `max` tasks by hand (default 1): the first as soon as there is one, the others if they are there. */
  lease(
    options: { readonly max?: number | undefined; readonly timeout?: Timeout | undefined } = {}
  ): Effect.Effect<ReadonlyArray<Lease<P, C>>, GetError, Client> {
    return Effect.flatMap(Client, (client) =>
      Effect.flatMap(this.#lease(client, options.max ?? 1, options.timeout, false), (items) =>
        Effect.gen({ self: this }, function* () {
          const leases: Array<Lease<P, C>> = []
          const queue = yield* client.open(this)
          const now = yield* Clock.currentTimeMillis
          for (const item of items) client.leases.add(item.task, item.fence, now, queue.policy.leaseMs)
          for (const item of items) {
            const payload = this.payload.decode(item.payload)
            if (Exit.isFailure(payload)) {
              const text = "the payload does not decode"
              // Whoever holds the task by now will find the same.
              yield* Effect.catchTag(
                this.#failAs(client, this.#heldOf(client, item), Reason.undecodable, text),
                ["LeaseLost", "AlreadyEnded"],
                () => Effect.void
              )
              continue
            }
            leases.push({
              taskId: this.#taskId(client, item.task),
              payload: payload.value,
              attempt: item.attempt,
              key: item.key,
              checkpoint: this.decodeCheckpoint(item.checkpoint),
              leaseMs: queue.policy.leaseMs,
              handle: { task: item.task, fence: item.fence }
            })
          }
          if (leases.length > 0) return leases
          return yield* new Errors.DecodeFailed({
            queue: this.name,
            what: "payload",
            reason: `${items.length} leased tasks do not decode and went to the dead letters`
          })
        })
      )
    )
  }

  /** Ends the lease in success. An old fence, or a lease that is over, changes nothing: `LeaseLost`. */
  commit(
    lease: Lease<P>,
    result: R
  ): Effect.Effect<void, LeaseError | Errors.PayloadInvalid | Errors.PayloadTooLarge, Client> {
    type Failure = LeaseError | Errors.PayloadInvalid | Errors.PayloadTooLarge
    return Effect.flatMap(Client, (client): Effect.Effect<void, Failure> => {
      const bytes = this.#encode("result", this.result, result)
      if (bytes instanceof Error) return Effect.fail(bytes)
      if (bytes.byteLength > Limits.payloadBytesMax) return Effect.fail(this.#tooLarge(bytes.byteLength))
      const { fence, task } = lease.handle
      return this.#item(client, lease, (request) => ({
        type: C.commit,
        request,
        tasks: [task],
        fences: [fence],
        results: [bytes],
        effects: undefined
      }))
    })
  }

  /**
   * Ends leases in success, all or none, together with what `also` collects: child puts, set additions, increments, dict
   * writes. At most 4,096 leases and 4 MiB. Refused with the reason (`LeaseLost` of any of the leases, `Conflict` of a dict
   * write, ...), it has changed nothing and the leases go on; so they do when `also` fails.
   */
  commitAll<X = never, Env = never>(
    items: readonly [
      { readonly lease: Lease<P>; readonly result: R },
      ...ReadonlyArray<{ readonly lease: Lease<P>; readonly result: R }>
    ],
    options: { readonly also?: ((commit: Collecting) => Effect.Effect<unknown, X, Env>) | undefined } = {}
  ): Effect.Effect<void, CommitAllError | X, Client | Env> {
    return Effect.gen({ self: this }, function* () {
      const client = yield* Client
      const collected = new Collected(client)
      if (options.also !== undefined) yield* options.also(collected)
      const results: Array<Uint8Array> = []
      let bytes = collected.bytes
      for (const { lease, result } of items) {
        const encoded = this.#encode("result", this.result, result)
        if (encoded instanceof Error) return yield* Effect.fail(encoded)
        if (encoded.byteLength > Limits.payloadBytesMax) return yield* Effect.fail(this.#tooLarge(encoded.byteLength))
        if (!lease.taskId.startsWith(client.link.session?.prefix ?? "")) {
          return yield* new Errors.LeaseLost({ taskId: lease.taskId })
        }
        results.push(encoded)
        bytes += encoded.byteLength
      }
      const over = (limit: string, value: number, max: number) => new Errors.LimitExceeded({ limit, value, max })
      if (items.length > Limits.batchItemsMax) {
        return yield* over("batchItemsMax", items.length, Limits.batchItemsMax)
      }
      // What is collected may fill a batch, and one result is as large as it may be.
      if (bytes > 2 * Limits.batchBytesMax) return yield* over("batchBytesMax", bytes, Limits.batchBytesMax)
      const effects = collected.effects
      const answer = yield* client
        .ask((request) => ({
          type: C.commit,
          request,
          tasks: items.map(({ lease }) => lease.handle.task),
          fences: items.map(({ lease }) => lease.handle.fence),
          results,
          effects: effects === undefined ? undefined : items.map((_, i) => (i === 0 ? effects : undefined)),
          together: true
        }))
        .pipe(Effect.catchTag("Refusal", (refusal) => Effect.fail(this.#commitFailure(client, refusal))))
      if (answer.type !== M.done) return yield* Effect.fail(unexpected(answer))
      for (const { lease } of items) client.leases.end(lease.handle.task)
    })
  }

  #commitFailure(client: ClientShape, refusal: Refusal): CommitAllError {
    const { code, limit, subject, value } = refusal.refused
    switch (code) {
      case Code.leaseLost:
        return new Errors.LeaseLost({ taskId: this.#taskId(client, value) })
      case Code.alreadyEnded:
        return new Errors.AlreadyEnded({ taskId: this.#taskId(client, value) })
      case Code.payloadTooLarge:
        return new Errors.PayloadTooLarge({
          queue: subject === "" ? this.name : subject,
          bytes: value,
          limitBytes: limit
        })
      default:
        return writeErrorOf(refusal)
    }
  }

  /** Gives the task back, uncounted, at its old place. */
  release(lease: Lease<P>): Effect.Effect<void, LeaseError, Client> {
    const { fence, task } = lease.handle
    return Effect.flatMap(Client, (client) =>
      this.#item(client, lease, (request) => ({ type: C.release, request, held: [task, fence] }))
    )
  }

  /** A failed attempt with its typed error: back-off and another attempt, or dead after the last. */
  fail(
    lease: Lease<P>,
    error: E,
    options: { readonly retryAfter?: Duration.Input | undefined } = {}
  ): Effect.Effect<void, LeaseError | Errors.PayloadInvalid | Errors.PayloadTooLarge, Client> {
    type Failure = LeaseError | Errors.PayloadInvalid | Errors.PayloadTooLarge
    return Effect.flatMap(Client, (client): Effect.Effect<void, Failure> => {
      const bytes = this.#encode("error", this.error, error)
      if (bytes instanceof Error) return Effect.fail(bytes)
      if (bytes.byteLength > Limits.payloadBytesMax) return Effect.fail(this.#tooLarge(bytes.byteLength))
      const retryAfterMs =
        options.retryAfter === undefined
          ? undefined
          : Math.min(Limits.delayMsMax, Math.max(0, Math.ceil(Duration.toMillis(options.retryAfter))))
      return this.#failAs(client, lease, Reason.failed, String(error), bytes, retryAfterMs)
    })
  }

  /** Dead at once, without another attempt. */
  kill(lease: Lease<P>, reason: string): Effect.Effect<void, LeaseError, Client> {
    return Effect.flatMap(Client, (client) => this.#failAs(client, lease, Reason.killed, reason))
  }

  /** Starts the term of the lease anew. */
  renew(lease: Lease<P>): Effect.Effect<void, LeaseError, Client> {
    const { fence, task } = lease.handle
    return Effect.flatMap(Client, (client) =>
      Effect.andThen(
        this.#item(client, lease, (request) => ({ type: C.renew, request, held: [task, fence] })),
        Effect.map(Clock.currentTimeMillis, (now) => client.leases.add(task, fence, now, lease.leaseMs))
      )
    )
  }

  /**
   * Saves the progress of a leased task: the next attempt's lease has it, and so has the task that a redrive makes. Replaces
   * what was saved before. Under an old fence, or a lease that is over, nothing changes: `LeaseLost`, `AlreadyEnded`.
   */
  checkpoint(
    lease: Lease<P>,
    value: C
  ): Effect.Effect<void, LeaseError | Errors.PayloadInvalid | Errors.PayloadTooLarge, Client> {
    type Failure = LeaseError | Errors.PayloadInvalid | Errors.PayloadTooLarge
    return Effect.flatMap(Client, (client): Effect.Effect<void, Failure> => {
      const bytes = this.encodeCheckpoint(value)
      if (bytes instanceof Error) return Effect.fail(bytes)
      return Operate.checkpoint(client, lease.taskId, lease.handle, bytes)
    })
  }

  /**
   * Tells a task what its handler waits for, or will. The first value of a signal counts. The answer means that it is as
   * durable as the queue.
   */
  signal<A>(task: Signal.Named, signal: Signal.Signal<A>, value: A): Effect.Effect<void, Signal.SignalError, Client> {
    return Effect.flatMap(Client, (client) =>
      Effect.flatMap(client.open(this), ({ id }) => {
        const number = typeof task === "string" ? taskNumberOf(client.link.session?.prefix, task) : undefined
        return Signal.send(client, { name: this.name, number: id }, task, number, signal, value)
      })
    )
  }

  /** The task that was put under this dedupe id, and where it stands; undefined: the manager remembers none. */
  find(id: string): Effect.Effect<FoundTask | undefined, Errors.RequestError, Client> {
    return Effect.flatMap(Client, (client) =>
      Effect.flatMap(client.open(this), (queue) =>
        client.ask((request) => ({ type: C.find, request, queue: queue.id, id }))
      ).pipe(
        Effect.catchTag("Refusal", (refusal) => Effect.fail(requestErrorOf(refusal))),
        Effect.flatMap((answer) => {
          if (answer.type !== M.found) return Effect.fail(unexpected(answer))
          const { standing, task } = answer
          if (task === undefined) return Effect.undefined
          return Effect.succeed({ taskId: this.#taskId(client, task), state: Operate.standingOf(standing) })
        })
      )
    )
  }

  // ---- operators

  /**
   * Cancels a task that has not ended. One that waits is cancelled at once; one that is leased too: its handler is
   * interrupted, and what it reports is refused (`AlreadyEnded`). The answer says where the task stood.
   */
  cancel(taskId: string): Effect.Effect<Operate.Cancellation, Errors.RequestError, Client> {
    return Effect.flatMap(this.cancelAll([taskId]), ([done]) =>
      done === undefined ? Effect.die("no answer for the task") : Effect.succeed(done)
    )
  }

  /** Cancels many; the answers come in the order of the ids. */
  cancelAll(
    taskIds: Iterable<string>
  ): Effect.Effect<ReadonlyArray<Operate.Cancellation>, Errors.RequestError, Client> {
    return this.#with((client, queue) => Operate.cancel(client, queue, this.name, [...taskIds]))
  }

  /** From now on the queue takes puts and hands out nothing: a `get` waits, or fails with `Empty`. Running handlers go on. */
  pause(): Effect.Effect<void, Errors.RequestError, Client> {
    return this.#with((client, queue) => Operate.pause(client, queue, this.name, true))
  }

  /** Ends a pause. */
  resume(): Effect.Effect<void, Errors.RequestError, Client> {
    return this.#with((client, queue) => Operate.pause(client, queue, this.name, false))
  }

  /**
   * Removes waiting tasks, all or those that fit, and returns how many. They have no outcome: whoever waits for one gets
   * `TaskNotFound`. Tasks that are put while it runs stay; a long purge goes in parts, and others work between them.
   */
  purge(filter: Operate.Filter = {}): Effect.Effect<number, Errors.RequestError, Client> {
    return this.#with((client, queue) => Operate.purge(client, queue, this.name, filter))
  }

  /**
   * A page of tasks that have not ended, in put order, or of dead letters, in the order in which they died. A task that is
   * there all the time is on exactly one page, whatever comes and goes meanwhile.
   */
  browse(options: Operate.BrowseOptions = {}): Effect.Effect<Operate.Page<P>, Errors.RequestError, Client> {
    return this.#with((client, queue) =>
      Operate.browse(client, queue, this.name, options, (prefix, item) => this.#browsedOf(prefix, item))
    )
  }

  /** The tasks that will not be retried, with the reasons of their attempts, in the order in which they died. */
  deadLetters(
    options: Operate.Filter & { readonly payloads?: boolean | undefined } = {}
  ): Stream.Stream<Operate.BrowsedTask<P>, Errors.RequestError, Client> {
    return Stream.paginate(0, (cursor: number) =>
      Effect.map(this.browse({ ...options, state: "dead", cursor }), (page) => [
        page.tasks,
        Option.fromUndefinedOr(page.cursor)
      ])
    )
  }

  /**
   * Puts dead letters again: those named, or all that fit. Each becomes a new task that knows its `origin` and has its
   * checkpoint; the old id keeps its one outcome, and its dedupe id. They always enter, whatever the capacity.
   */
  redrive(
    options: Operate.Filter & { readonly taskIds?: Iterable<string> | undefined } = {}
  ): Effect.Effect<ReadonlyArray<Operate.Redriven>, Errors.RequestError | Errors.Closed, Client> {
    const { taskIds, ...filter } = options
    const named = taskIds === undefined ? undefined : [...taskIds]
    return this.#with((client, queue) => Operate.redrive(client, queue, this.name, named, filter))
  }

  // ---- readers

  /**
   * The first waiting payloads in the order in which they would be leased, left where they are. At most 1,000. A credential
   * that may not see payloads (an observer) gets `DecodeFailed`; `browse` without payloads is for it.
   */
  peek(count = 1): Effect.Effect<ReadonlyArray<P>, Errors.RequestError | Errors.DecodeFailed, Client> {
    return Effect.flatMap(Client, (client) =>
      Effect.flatMap(client.open(this), (queue) =>
        this.#ask(client, (request) => ({
          type: C.peek,
          request,
          queue: queue.id,
          count: Math.min(count, Limits.pageItemsMax)
        }))
      )
    ).pipe(
      Effect.flatMap(
        (answer): Effect.Effect<ReadonlyArray<P>, Errors.RequestError | Errors.DecodeFailed> =>
          answer.type === M.peeked
            ? Effect.forEach(answer.items, (item) => this.#decode("payload", this.payload, item.payload))
            : Effect.fail(unexpected(answer))
      )
    )
  }

  /** Counts of the queue by state, ages, rates, bytes, its capacity and its durability. */
  get stats(): Effect.Effect<QueueStats, Errors.RequestError, Client> {
    return this.#stats
  }

  /** Waiting tasks: ready and delayed, as capacity counts them. */
  get size(): Effect.Effect<number, Errors.RequestError, Client> {
    return Effect.map(this.#stats, (stats) => stats.ready + stats.delayed)
  }

  get isEmpty(): Effect.Effect<boolean, Errors.RequestError, Client> {
    return Effect.map(this.size, (size) => size === 0)
  }

  get isFull(): Effect.Effect<boolean, Errors.RequestError, Client> {
    return Effect.map(
      this.#stats,
      ({ capacity, capacityBytes, delayed, ready, waitingBytes }) =>
        ready + delayed >= capacity || (capacityBytes > 0 && waitingBytes >= capacityBytes)
    )
  }

  /**
   * Why a task is not running (ended, leased by whom and until when, delayed, waiting for what); without a task, what
   * limits the queue. A task that is not found is an answer, not an error. `text` is for people.
   */
  explain(taskId: string): Effect.Effect<TaskExplanation, Errors.RequestError, Client>
  explain(): Effect.Effect<QueueExplanation, Errors.RequestError, Client>
  explain(taskId?: string): Effect.Effect<TaskExplanation | QueueExplanation, Errors.RequestError, Client> {
    type Explanation = Effect.Effect<TaskExplanation | QueueExplanation, Errors.RequestError>
    return Effect.flatMap(Client, (client) =>
      Effect.flatMap(client.open(this), (queue): Explanation => {
        const task = taskId === undefined ? undefined : taskNumberOf(client.link.session?.prefix, taskId)
        if (taskId !== undefined && task === undefined) {
          return Effect.succeed({ _tag: "NotFound", text: "not found: no task of this manager has such an id" })
        }
        const answer = this.#ask(client, (request) => ({ type: C.explain, request, queue: queue.id, task }))
        return Effect.flatMap(answer, (answer): Explanation => {
          if (answer.type !== M.explained) return Effect.fail(unexpected(answer))
          if (task === undefined) return Effect.succeed(queueExplanationOf(answer.facts))
          const explanation = taskExplanationOf(answer.facts)
          return explanation === undefined ? Effect.fail(unexpected(answer)) : Effect.succeed(explanation)
        })
      })
    )
  }

  // ---- repeats

  /**
   * Puts this payload again and again: one occurrence at a time, the next one when it is due and the last one has ended.
   * What was missed meanwhile, or while the manager was down, collapses into one. An occurrence ignores the capacity.
   *
   * Saying the same schedule under the same id again keeps its next due time; another schedule counts from now, and an
   * occurrence under way goes on. `DefinitionInvalid` names `every`, `cron` or `zone`, its value and the remedy. Closing
   * the queue removes its repeats. As durable as the queue.
   */
  repeat(
    id: string,
    schedule: Schedule,
    payload: P,
    options?: RepeatOptions
  ): Effect.Effect<Repeat<P>, RepeatError, Client> {
    return Effect.flatMap(Client, (client) =>
      Effect.flatMap(client.open(this), (queue): Effect.Effect<Repeat<P>, RepeatError> => {
        const when = scheduleOf(this.name, id, schedule)
        if (when instanceof Error) return Effect.fail(when)
        const bytes = this.encodePayload(queue, payload)
        if (bytes instanceof Error) return Effect.fail(bytes)
        const item = this.wireOptions(payload, options)
        const fault = this.optionsFault(item)
        if (fault !== undefined) return Effect.fail(fault)
        return client
          .ask((request) => ({
            type: C.repeat,
            request,
            queue: queue.id,
            id,
            ...when,
            payload: bytes,
            options: item
          }))
          .pipe(
            Effect.catchTag("Refusal", (refusal): Effect.Effect<never, RepeatError> => {
              if (refusal.refused.code === Code.closed) return Effect.fail(new Errors.Closed({ queue: this.name }))
              if (refusal.refused.code === Code.payloadTooLarge) return Effect.fail(this.#tooLarge(bytes.byteLength))
              return Effect.fail(requestErrorOf(refusal))
            }),
            Effect.flatMap((answer): Effect.Effect<Repeat<P>, RepeatError> => {
              const [made] = answer.type === M.repeats ? answer.items : []
              if (made === undefined) return Effect.fail(unexpected(answer))
              return Effect.succeed(repeatOf(client.link.session?.prefix ?? "", this.payload, made))
            })
          )
      })
    )
  }

  /** The repeats of the queue, at most 1,000. */
  get repeats(): Effect.Effect<ReadonlyArray<Repeat<P>>, Errors.RequestError, Client> {
    return this.#repeats((request, queue) => ({ type: C.repeats, request, queue }))
  }

  /** Whether there was such a repeat. An occurrence under way goes on. */
  removeRepeat(id: string): Effect.Effect<boolean, Errors.RequestError, Client> {
    if (utf8.encode(id).byteLength > Limits.repeatIdBytesMax) return Effect.succeed(false)
    return Effect.map(
      this.#repeats((request, queue) => ({ type: C.removeRepeat, request, queue, id })),
      (removed) => removed.length > 0
    )
  }

  #repeats(
    make: (request: number, queue: number) => ClientMessages.Request
  ): Effect.Effect<ReadonlyArray<Repeat<P>>, Errors.RequestError, Client> {
    return Effect.flatMap(Client, (client) =>
      Effect.flatMap(client.open(this), (queue) =>
        Effect.flatMap(
          this.#ask(client, (request) => make(request, queue.id)),
          (answer): Effect.Effect<ReadonlyArray<Repeat<P>>, Errors.RequestError> => {
            if (answer.type !== M.repeats) return Effect.fail(unexpected(answer))
            const prefix = client.link.session?.prefix ?? ""
            return Effect.succeed(answer.items.map((item) => repeatOf(prefix, this.payload, item)))
          }
        )
      )
    )
  }

  /** Waits until nothing is left to do: no task is ready, delayed or leased. */
  join(
    options: { readonly timeout?: Timeout | undefined } = {}
  ): Effect.Effect<void, Errors.RequestError | Errors.TimedOut, Client> {
    return Effect.flatMap(Client, (client) =>
      Effect.flatMap(client.open(this), (queue) =>
        client.ask((request) => ({ type: C.join, request, queue: queue.id, waitMs: waitMsOf(options.timeout) }))
      )
    ).pipe(
      Effect.catchTag(
        "Refusal",
        (refusal): Effect.Effect<never, Errors.RequestError | Errors.TimedOut> =>
          refusal.refused.code === Code.timedOut
            ? Effect.fail(new Errors.TimedOut({ operation: `join of queue "${this.name}"` }))
            : Effect.fail(requestErrorOf(refusal))
      ),
      Effect.asVoid
    )
  }

  /**
   * `drain` (default) refuses puts from now on, lets the rest be done, and then refuses takes; `immediate` refuses takes at
   * once and cancels what waits. Who waits to put or to take is told at once: `Closed`. Python's `Queue.shutdown`.
   */
  close(
    options: { readonly mode?: "drain" | "immediate" | undefined } = {}
  ): Effect.Effect<void, Errors.RequestError, Client> {
    return Effect.flatMap(Client, (client) =>
      Effect.flatMap(client.open(this), (queue) =>
        this.#ask(client, (request) => ({
          type: C.close,
          request,
          queue: queue.id,
          immediate: options.mode === "immediate"
        }))
      )
    ).pipe(Effect.asVoid)
  }

  /** The lane of all tasks with this key: pause it, limit it, slow it down. Nothing is sent before one of those. */
  lane(key: string): LaneHandle {
    return new LaneHandle(key, (change): Effect.Effect<void, LaneError, Client> => {
      const fault = this.optionsFault({ key })
      if (fault !== undefined) return Effect.fail(fault)
      return Effect.flatMap(Client, (client) =>
        Effect.flatMap(client.open(this), (queue) =>
          this.#ask(client, (request) => ({ type: C.lane, request, queue: queue.id, ...change }))
        )
      ).pipe(Effect.asVoid)
    })
  }

  /** What became of a task; waits up to `timeout` (default: for ever) for it to end. */
  outcome(
    taskId: string,
    options: { readonly timeout?: Timeout | undefined } = {}
  ): Effect.Effect<Outcome<R, E, P>, OutcomeError, Client> {
    return Effect.flatMap(Client, (client) =>
      Effect.flatMap(client.open(this), (queue): Effect.Effect<Outcome<R, E, P>, OutcomeError> => {
        const task = taskNumberOf(client.link.session?.prefix, taskId)
        if (task === undefined) return Effect.fail(new Errors.TaskNotFound({ taskId }))
        return client
          .ask((request) => ({ type: C.outcome, request, queue: queue.id, task, waitMs: waitMsOf(options.timeout) }))
          .pipe(
            Effect.catchTag("Refusal", (refusal): Effect.Effect<never, OutcomeError> => {
              if (refusal.refused.code === Code.taskNotFound) return Effect.fail(new Errors.TaskNotFound({ taskId }))
              if (refusal.refused.code === Code.timedOut) {
                return Effect.fail(new Errors.TimedOut({ operation: `outcome of task ${taskId}` }))
              }
              return Effect.fail(requestErrorOf(refusal))
            }),
            Effect.flatMap((answer): Effect.Effect<Outcome<R, E, P>, OutcomeError> => {
              if (answer.type !== M.outcome) return Effect.fail(unexpected(answer))
              const outcome = this.#outcomeOf(client.link.session?.prefix ?? "", answer.outcome)
              return outcome instanceof Error ? Effect.fail(outcome) : Effect.succeed(outcome)
            })
          )
      })
    )
  }

  /**
   * Every outcome from this client's first put or open of the queue on, in order, without end; each reader sees all.
   *
   * Goes on over reconnects. A reader that falls out of the retained window fails with `OutcomesGap`.
   */
  get outcomes(): OutcomeStream<R, E, P> {
    return this.#outcomesFrom(undefined)
  }

  /** The same from a cursor on: `stats.outcomesNext` for what ends from now, `stats.outcomesFirst` for all that is kept. */
  outcomesFrom(cursor: number): OutcomeStream<R, E, P> {
    return this.#outcomesFrom(cursor)
  }

  /**
   * The outcomes, for a reader with a name: it goes on where it was, over restarts of its program and of the manager. Its
   * cursor is kept at the manager, as durably as the best of its queues, and moves when the next outcomes are pulled: those
   * that were pulled last, and perhaps not dealt with, come again. One reader a name at a time. The first time it begins
   * where `outcomes` does.
   */
  outcomesAs(name: string): Stream.Stream<Outcome<R, E, P>, ReaderError, Client> {
    const handle = { kind: "counter", name: `cursor.${this.name}.${name}` } as const
    if (!isName.test(handle.name)) {
      const remedy = "use A-Z a-z 0-9 . _ : - and at most 200 characters with the queue's name"
      const fields = { queue: this.name, field: "name of a reader", value: JSON.stringify(name), remedy }
      return Stream.fail(new Errors.DefinitionInvalid(fields))
    }
    // One more than the cursor: a counter begins at 0.
    const kept = (client: ClientShape): Effect.Effect<number, ObjectError> =>
      neverOfCursors(
        askObject(
          client,
          handle,
          (request, object) => ({ type: C.count, request, object, by: 0 }),
          M.counter,
          ({ value }) => value
        )
      )
    const keep = (client: ClientShape, cursor: number): Effect.Effect<unknown, ObjectError> =>
      neverOfCursors(
        askObject(
          client,
          handle,
          (request, object) => ({ type: C.countSet, request, object, expected: undefined, value: cursor + 1 }),
          M.counter,
          (answer) => answer
        )
      )
    return Stream.unwrap(
      Effect.gen({ self: this }, function* () {
        const client = yield* Client
        const queue = yield* client.open(this)
        const before = yield* kept(client)
        let known = before > 0 ? before - 1 : queue.outcomesFrom
        const reader = new OutcomeReader(client, this, known)
        if (before === 0) yield* keep(client, known)
        yield* reader.start
        const pull = this.#pullOf(client, reader)
        const save = Effect.suspend(() => {
          const { cursor } = reader
          if (cursor === known) return Effect.void
          return Effect.map(keep(client, cursor), () => {
            known = cursor
          })
        })
        return Stream.fromPull(Effect.succeed(Effect.andThen(save, pull)))
      })
    )
  }

  #outcomesFrom(cursor: number | undefined): OutcomeStream<R, E, P> {
    return Stream.unwrap(
      Effect.gen({ self: this }, function* () {
        const client = yield* Client
        const queue = yield* client.open(this)
        const reader = new OutcomeReader(client, this, cursor ?? queue.outcomesFrom)
        yield* reader.start
        return Stream.fromPull(Effect.succeed(this.#pullOf(client, reader)))
      })
    )
  }

  #pullOf(client: ClientShape, reader: OutcomeReader) {
    const prefix = client.link.session?.prefix ?? ""
    type Decoded = readonly [Outcome<R, E, P>, ...Array<Outcome<R, E, P>>]
    return Effect.flatMap(reader.next, (items): Effect.Effect<Decoded, Errors.DecodeFailed> => {
      const decoded: Array<Outcome<R, E, P>> = []
      for (const item of items) {
        const outcome = this.#outcomeOf(prefix, item)
        if (outcome instanceof Error) return Effect.fail(outcome)
        decoded.push(outcome)
      }
      return Effect.succeed(decoded as unknown as Decoded)
    })
  }

  // ---- inside

  #with<A, F>(
    run: (client: ClientShape, queue: OpenQueue) => Effect.Effect<A, F>
  ): Effect.Effect<A, F | Errors.RequestError, Client> {
    return Effect.flatMap(Client, (client) => Effect.flatMap(client.open(this), (queue) => run(client, queue)))
  }

  /** What does not decode is another program's: the attempt begins without it. */
  /** @internal */
  encodeCheckpoint(value: C): Uint8Array | Errors.PayloadInvalid | Errors.PayloadTooLarge {
    const bytes = this.#encode("checkpoint", this.checkpointCodec, value)
    if (bytes instanceof Error) return bytes
    return bytes.byteLength > Limits.payloadBytesMax ? this.#tooLarge(bytes.byteLength) : bytes
  }

  /** @internal What does not decode counts as not saved. */
  decodeCheckpoint(bytes: Uint8Array | undefined): C | undefined {
    if (bytes === undefined) return undefined
    const value = this.checkpointCodec.decode(bytes)
    return Exit.isSuccess(value) ? value.value : undefined
  }

  #browsedOf(prefix: string, item: Wire.Browsed): Operate.BrowsedTask<P> {
    const { origin, payload: bytes, progress, reasons, state, task, ...rest } = item
    const payload = bytes === undefined ? undefined : this.payload.decode(bytes)
    return {
      ...rest,
      taskId: taskIdOf(prefix, task),
      state: Operate.standingOf(state),
      origin: origin === undefined ? undefined : taskIdOf(prefix, origin),
      payload: payload !== undefined && Exit.isSuccess(payload) ? payload.value : undefined,
      reasons: reasons.map(reasonText),
      progress: progress === undefined ? undefined : progress / Limits.progressWhole
    }
  }

  #encode<A>(what: Errors.PayloadInvalid["what"], codec: Codec<A>, value: A): Uint8Array | Errors.PayloadInvalid {
    const bytes = codec.encode(value)
    return bytes instanceof CodecFault
      ? new Errors.PayloadInvalid({ queue: this.name, what, path: bytes.path, reason: bytes.reason })
      : bytes
  }

  #decode<A>(what: Errors.DecodeFailed["what"], codec: Codec<A>, bytes: Uint8Array): Exit.Exit<A, Errors.DecodeFailed> {
    const decoded = codec.decode(bytes)
    return Exit.isSuccess(decoded) ? Exit.succeed(decoded.value) : Exit.fail(this.#decodeFailed(what, decoded.cause))
  }

  #decodeFailed(what: Errors.DecodeFailed["what"], cause: Cause.Cause<CodecFault>): Errors.DecodeFailed {
    const fault = cause.reasons.find(Cause.isFailReason)?.error
    const reason = fault === undefined ? "unknown" : `at ${fault.path}: ${fault.reason}`
    return new Errors.DecodeFailed({ queue: this.name, what, reason })
  }

  #tooLarge(bytes: number): Errors.PayloadTooLarge {
    return new Errors.PayloadTooLarge({ queue: this.name, bytes, limitBytes: this.definition.policy.payloadBytesMax })
  }

  #heldOf(client: ClientShape, { fence, task }: Wire.Delivery): Held {
    return { taskId: this.#taskId(client, task), handle: { task, fence } }
  }

  #taskId(client: ClientShape, n: number): string {
    return taskIdOf(client.link.session?.prefix ?? "", n)
  }

  #ask(
    client: ClientShape,
    make: (request: number) => ClientMessages.Request
  ): Effect.Effect<Effect.Success<ReturnType<ClientShape["ask"]>>, Errors.RequestError> {
    return Effect.catchTag(client.ask(make), "Refusal", (refusal) => Effect.fail(requestErrorOf(refusal)))
  }

  get #stats(): Effect.Effect<Wire.QueueStats, Errors.RequestError, Client> {
    return Effect.flatMap(Client, (client) =>
      Effect.flatMap(client.open(this), (queue) =>
        this.#ask(client, (request) => ({ type: C.stats, request, queue: queue.id }))
      )
    ).pipe(
      Effect.flatMap((answer) => {
        const stats = answer.type === M.stats ? answer.queues[0] : undefined
        return stats === undefined ? Effect.fail(unexpected(answer)) : Effect.succeed(stats)
      })
    )
  }

  /** @internal What the options of a put become on the wire; undefined for a plain one. */
  wireOptions(payload: P, options: PutOptions | undefined, trace?: string): Wire.TaskOptions | undefined {
    const key = options?.key ?? this.key?.(payload)
    if (options === undefined && key === undefined && trace === undefined) return undefined
    const { delay, id, labels, priority, ttl } = options ?? {}
    if (
      id === undefined &&
      priority === undefined &&
      delay === undefined &&
      ttl === undefined &&
      labels === undefined
    ) {
      if (key === undefined && trace === undefined) return undefined
    }
    return {
      id,
      priority,
      delayMs: delay === undefined ? undefined : Math.ceil(Duration.toMillis(delay)),
      ttlMs: ttl === undefined ? undefined : Math.ceil(Duration.toMillis(ttl)),
      key,
      labels,
      trace
    }
  }

  /** @internal Checks what the protocol bounds, so that a mistake is a typed error and not a closed connection. */
  optionsFault(options: Wire.TaskOptions | undefined): Errors.LimitExceeded | undefined {
    if (options === undefined) return undefined
    const over = (limit: string, value: number, max: number): Errors.LimitExceeded | undefined =>
      value >= 0 && value <= max && Number.isSafeInteger(value)
        ? undefined
        : new Errors.LimitExceeded({ limit, value, max })
    return (
      over("taskIdBytesMax", utf8Bytes(options.id), Limits.taskIdBytesMax) ??
      over("taskKeyBytesMax", utf8Bytes(options.key), Limits.taskKeyBytesMax) ??
      over("priority", options.priority ?? 0, 255) ??
      over("delay (ms)", options.delayMs ?? 0, Limits.delayMsMax) ??
      over("ttl (ms)", options.ttlMs ?? 0, Limits.delayMsMax) ??
      over("labelsPerTaskMax", options.labels?.length ?? 0, Limits.labelsPerTaskMax) ??
      options.labels
        ?.map((label) => over("labelBytesMax", utf8Bytes(label), Limits.labelBytesMax))
        .find((fault) => fault !== undefined)
    )
  }

  /** @internal A payload as bytes within the queue's limit. */
  encodePayload(queue: OpenQueue, payload: P): Uint8Array | Errors.PayloadInvalid | Errors.PayloadTooLarge {
    const bytes = this.#encode("payload", this.payload, payload)
    if (bytes instanceof Error || bytes.byteLength <= queue.policy.payloadBytesMax) return bytes
    return new Errors.PayloadTooLarge({
      queue: this.name,
      bytes: bytes.byteLength,
      limitBytes: queue.policy.payloadBytesMax
    })
  }

  #putOne(
    client: ClientShape,
    queue: OpenQueue,
    payload: P,
    options: PutOptions | undefined,
    trace: string | undefined
  ): Effect.Effect<Receipt, PutError> {
    return Effect.callback((resume) => {
      const bytes = this.encodePayload(queue, payload)
      if (bytes instanceof Error) return resume(Effect.fail(bytes))
      const item = this.wireOptions(payload, options, trace)
      const fault = this.optionsFault(item)
      if (fault !== undefined) return resume(Effect.fail(fault))
      const { link } = client
      const request = link.nextRequest
      const message: ClientMessages.Put = {
        type: C.put,
        request,
        queue: queue.id,
        atomic: true,
        waitMs: waitMsOf(options?.timeout),
        payloads: [bytes],
        options: item === undefined ? undefined : [item]
      }
      const settle: Settle = (answer) => {
        if (answer instanceof Error) return resume(Effect.fail(answer))
        const prefix = link.session?.prefix ?? ""
        if (answer.type === M.putDone) return resume(Effect.succeed(new Receipt(prefix, answer.first, undefined)))
        if (answer.type === M.putItems) {
          const status = answer.statuses[0]
          if (status === PutStatus.spent) return resume(Effect.fail(new Errors.Closed({ queue: this.name })))
          return resume(Effect.succeed(receiptOf(prefix, answer, 0)))
        }
        resume(Effect.fail(this.#putFailure(answer, queue)))
      }
      link.ask(message, settle, true)
      return Effect.sync(() => link.abandon(request))
    })
  }

  #putFailure(answer: ManagerMessages.Answer, queue: OpenQueue): PutError {
    if (answer.type !== M.refused) return unexpected(answer)
    const { code, limit, value } = answer
    if (code === Code.full) return this.#full(queue, 0)
    if (code === Code.closed) return new Errors.Closed({ queue: this.name })
    if (code === Code.payloadTooLarge) {
      return new Errors.PayloadTooLarge({ queue: this.name, bytes: value, limitBytes: limit })
    }
    return requestErrorOf({ _tag: "Refusal", refused: answer })
  }

  #full({ policy: { capacity, capacityBytes } }: OpenQueue, accepted: number): Errors.Full {
    return new Errors.Full({ queue: this.name, capacity, ...(capacityBytes > 0 ? { capacityBytes } : {}), accepted })
  }

  /** An error of one message, as the failure of a whole call of which so many items were put by the messages before. */
  #incomplete<E extends PutError>(error: E, accepted: number): E | Errors.PutIncomplete {
    if (accepted === 0) return error
    const { name: queue } = this
    return new Errors.PutIncomplete({ queue, accepted, rest: Errors.facts[error._tag].outcome, reason: error.message })
  }

  #putMany = Effect.fnUntraced(
    { self: this },
    function* (
      client: ClientShape,
      queue: OpenQueue,
      all: Iterable<P>,
      options: PutAllOptions<P>,
      trace: string | undefined
    ): Effect.fn.Return<ReadonlyArray<Receipt>, PutError> {
      const payloads: Array<Uint8Array> = []
      let items: Array<Wire.TaskOptions | undefined> | undefined
      const plain = options.id === undefined && options.priority === undefined && !options.delay && !options.ttl
      for (const payload of all) {
        const bytes = this.encodePayload(queue, payload)
        if (bytes instanceof Error) return yield* Effect.fail(bytes)
        payloads.push(bytes)
        if (plain && this.key === undefined && trace === undefined) continue
        const { delay, priority, ttl } = options
        const item = this.wireOptions(payload, { id: options.id?.(payload), priority, delay, ttl }, trace)
        const fault = this.optionsFault(item)
        if (fault !== undefined) return yield* fault
        items ??= []
        items[payloads.length - 1] = item
      }
      const batches = split(payloads, items)
      if (options.atomic === true && batches.length > 1) {
        return yield* new Errors.LimitExceeded({
          limit: "batchItemsMax",
          value: payloads.length,
          max: Limits.batchItemsMax
        })
      }
      const waitMs = waitMsOf(options.timeout)
      const receipts: Array<Receipt> = []
      for (const [from, to] of batches) {
        const answer = yield* client
          .ask((request) => ({
            type: C.put,
            request,
            queue: queue.id,
            atomic: options.atomic ?? false,
            waitMs,
            payloads: payloads.slice(from, to),
            options: items?.slice(from, to)
          }))
          .pipe(
            Effect.catchTag("Refusal", (refusal) => Effect.succeed(refusal.refused)),
            Effect.mapError((error) => this.#incomplete(error, receipts.length))
          )
        const prefix = client.link.session?.prefix ?? ""
        if (answer.type === M.putDone) {
          if (answer.count !== to - from) {
            const reason = `the manager says that ${answer.count} of ${to - from} tasks were put`
            return yield* this.#incomplete(new Errors.ProtocolViolated({ reason }), receipts.length)
          }
          for (let i = 0; i < answer.count; i++) receipts.push(new Receipt(prefix, answer.first + i, undefined))
          continue
        }
        if (answer.type !== M.putItems) {
          const failure = this.#putFailure(answer, queue)
          if (failure._tag === "Closed") {
            return yield* new Errors.Closed({ queue: this.name, accepted: receipts.length })
          }
          if (failure._tag === "Full") return yield* this.#full(queue, receipts.length)
          return yield* this.#incomplete(failure, receipts.length)
        }
        for (let i = 0; i < answer.tasks.length; i++) {
          const status = answer.statuses[i]
          if (status === PutStatus.spent) {
            return yield* new Errors.Closed({ queue: this.name, accepted: receipts.length })
          }
          if (status === PutStatus.full) {
            return yield* this.#full(queue, receipts.length)
          }
          receipts.push(receiptOf(prefix, answer, i))
        }
      }
      return receipts
    }
  )

  #lease(
    client: ClientShape,
    count: number,
    timeout: Timeout | undefined,
    get: boolean
  ): Effect.Effect<ReadonlyArray<Wire.Delivery>, GetError> {
    return Effect.flatMap(client.open(this), (queue) =>
      client.ask((request) => ({
        type: C.lease,
        request,
        queue: queue.id,
        count: Math.max(1, Math.min(count, Limits.batchItemsMax)),
        waitMs: waitMsOf(timeout),
        get
      }))
    ).pipe(
      Effect.catchTag("Refusal", (refusal): Effect.Effect<never, GetError> => {
        if (refusal.refused.code === Code.empty) return Effect.fail(new Errors.Empty({ queue: this.name }))
        if (refusal.refused.code === Code.closed) return Effect.fail(new Errors.Closed({ queue: this.name }))
        return Effect.fail(requestErrorOf(refusal))
      }),
      Effect.flatMap((answer) =>
        answer.type === M.leased ? Effect.succeed(answer.items) : Effect.fail(unexpected(answer))
      )
    )
  }

  /** A request about one lease. */
  #item(
    client: ClientShape,
    { handle: { task }, taskId }: Held,
    make: (request: number) => ClientMessages.Request
  ): Effect.Effect<void, LeaseError> {
    // Numbers begin anew in each life of a manager: a lease of an earlier one must not meet another task of this one.
    if (!taskId.startsWith(client.link.session?.prefix ?? "")) return Effect.fail(new Errors.LeaseLost({ taskId }))
    return Effect.flatMap(this.#ask(client, make), (answer): Effect.Effect<void, LeaseError> => {
      if (answer.type !== M.done && answer.type !== M.items) return Effect.fail(unexpected(answer))
      client.leases.end(task)
      if (answer.type === M.done) return Effect.void
      switch (answer.codes[0]) {
        case 0:
          return Effect.void
        case Code.leaseLost:
          return Effect.fail(new Errors.LeaseLost({ taskId }))
        case Code.alreadyEnded:
          return Effect.fail(new Errors.AlreadyEnded({ taskId }))
        default:
          return Effect.fail(new Errors.ProtocolViolated({ reason: `unknown item code ${answer.codes[0]}` }))
      }
    })
  }

  #failAs(
    client: ClientShape,
    lease: Held,
    reason: Reason,
    text: string,
    error?: Uint8Array,
    retryAfterMs?: number
  ): Effect.Effect<void, LeaseError> {
    return this.#item(client, lease, (request) => ({
      type: C.fail,
      request,
      tasks: [lease.handle.task],
      fences: [lease.handle.fence],
      failures: [{ reason, error, text: text.slice(0, Limits.reasonBytesMax / 4), retryAfterMs }]
    }))
  }

  /** A plain value: outcomes come by the thousand, and each would cost an `Exit` or two. */
  #outcomeOf(prefix: string, item: Wire.Outcome): Outcome<R, E, P> | Errors.DecodeFailed {
    const { attempts } = item
    const taskId = taskIdOf(prefix, item.task)
    const body = item.body ?? noBytes
    switch (item.outcome) {
      case OutcomeKind.success: {
        const result = this.result.decode(body)
        if (Exit.isFailure(result)) return this.#decodeFailed("result", result.cause)
        return { _tag: "Success", taskId, attempts, result: result.value }
      }
      case OutcomeKind.failure: {
        const error = this.error.decode(body)
        if (Exit.isFailure(error)) return this.#decodeFailed("error", error.cause)
        return { _tag: "Failure", taskId, attempts, error: error.value, reasons: item.reasons.map(reasonText) }
      }
      default: {
        // The body of a task that ended without result or error is its payload, if that decodes at all.
        const decoded = this.payload.decode(body)
        const payload = Exit.isSuccess(decoded) ? decoded.value : undefined
        if (item.outcome === OutcomeKind.cancelled) return { _tag: "Cancelled", taskId, attempts, payload }
        return { _tag: "Dead", taskId, attempts, payload, reasons: item.reasons.map(reasonText) }
      }
    }
  }
}

const noBytes = new Uint8Array()

const receiptOf = (prefix: string, { firsts, statuses, tasks }: ManagerMessages.PutItems, i: number): Receipt =>
  new Receipt(prefix, tasks[i] ?? 0, statuses[i] === PutStatus.duplicate ? Operate.standingOf(firsts[i]) : undefined)

/**
 * Defines a queue. Throws `DefinitionInvalid` for a name or a policy out of range: a definition is made once, at module
 * level, and a mistake in it is a mistake in the program.
 */
export const make = <P, R = void, E = never, C = void>(
  name: string,
  options: Options<P, R, E, C>
): TaskQueue<P, R, E, C> => new TaskQueue(name, options)

/**
 * A queue by its name alone: payload, result and error are whatever JSON they are. For tools that look at the queues of
 * others. It opens queues of any Schema; unless `create`, one that does not exist fails with `QueueNotFound`.
 */
export const untyped = (
  name: string,
  options: { readonly create?: boolean | undefined } = {}
): TaskQueue<unknown, unknown, unknown, unknown> =>
  new TaskQueue(name, {
    payload: Schema.Unknown,
    result: Schema.Unknown,
    error: Schema.Unknown,
    checkpoint: Schema.Unknown,
    untyped: { create: options.create ?? false }
  })

/** What a counter never says no with when it is set to a cursor. */
const neverOfCursors = <A>(effect: Effect.Effect<A, WriteError>): Effect.Effect<A, ObjectError> =>
  Effect.catchTag(effect, ["Conflict", "CounterOverflow", "DurabilityMixed"], (error) => Effect.die(error))

const waitMsOf = (timeout: Timeout | undefined): number | undefined => {
  if (timeout === undefined || timeout === "forever") return undefined
  const ms = Math.ceil(Duration.toMillis(timeout))
  return ms > Limits.waitMsMax ? undefined : Math.max(0, ms)
}

/** Ranges of payloads that fit one message each. */
const split = (
  payloads: ReadonlyArray<Uint8Array>,
  items: ReadonlyArray<Wire.TaskOptions | undefined> | undefined
): ReadonlyArray<readonly [from: number, to: number]> => {
  const ranges: Array<readonly [number, number]> = []
  let from = 0
  let bytes = 0
  payloads.forEach((payload, i) => {
    const size = payload.byteLength + optionsBytes(items?.[i])
    if (i > from && (i - from >= Limits.batchItemsMax || bytes + size > Limits.batchBytesMax)) {
      ranges.push([from, i])
      from = i
      bytes = 0
    }
    bytes += size
  })
  if (from < payloads.length) ranges.push([from, payloads.length])
  return ranges
}

const utf8 = new TextEncoder()
const utf8Bytes = (text: string | undefined): number =>
  text === undefined ? 0 : text.length * 3 <= Limits.labelBytesMax ? text.length : utf8.encode(text).byteLength
