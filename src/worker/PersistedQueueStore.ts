/**
 * The store of Effect's `PersistedQueue` at a manager: what is offered is a task, what is taken a lease of it.
 *
 * Effect's stores are the specification. One queue per name; an element's id is its dedupe id; success commits, a failure
 * waits as long as the queue's schedule says, an interruption gives back uncounted, an element that does not decode or has
 * no attempt left goes to the dead letters. A lease is renewed until the scope of its take closes.
 *
 * Claims are counted where they are made: in the task's checkpoint, written before the element is handed over. So a claim
 * whose process dies is counted as any other, over restarts of the manager too.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import * as PersistedQueue from "effect/persistence/PersistedQueue"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { Client, type ClientShape, Refusal, requestErrorOf, unexpected } from "../client/Client.ts"
import { make as makeCodec } from "../client/Codec.ts"
import type { PolicyOptions } from "../client/Definition.ts"
import type { Resident } from "../client/Link.ts"
import { queueNameOf } from "../client/QueueName.ts"
import { askObject, type DictHandle, type WriteError } from "../client/SharedObject.ts"
import { make as makeQueue, type TaskQueue, taskIdOf } from "../client/TaskQueue.ts"
import { AlreadyEnded, Closed, LeaseLost, type RequestError } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import { Code } from "../model/Refusal.ts"
import { Reason } from "../model/Task.ts"
import type * as ClientMessages from "../wire/ClientMessages.ts"
import type { Delivery } from "../wire/Vocabulary.ts"
import { ClientType as C, ManagerType as M } from "../wire/Vocabulary.ts"

/** What the queues that this store makes are like; what is not said is as in `PolicyOptions`. */
export interface Options
  extends Pick<PolicyOptions, "capacity" | "capacityBytes" | "durability" | "lease" | "payloadBytesMax"> {}

/** An element as it lies in its queue: the id beside what the Schema of the queue has made of the value. */
const Element = Schema.Struct({ id: Schema.String, element: Schema.Unknown })
/** When an element was completed, by the clock of who took it. */
const Completed = Schema.Struct({ at: Schema.Int })
/** When and of what an element failed. */
const Failed = Schema.Struct({ at: Schema.Int, cause: Schema.String })
/** How often the element was claimed; of this task alone, for a redrive begins anew. */
const Claims = Schema.Struct({ task: Schema.String, claims: Schema.Int })

type ElementQueue = TaskQueue<typeof Element.Type, typeof Completed.Type, typeof Failed.Type, typeof Claims.Type>

/**
 * The queue in which the elements of this `PersistedQueue` lie: for its counts, its dead letters, a redrive. Its name is
 * the same where a queue may be called so. Throws `DefinitionInvalid` for options out of range.
 */
export const queue = (name: string, options: Options = {}): ElementQueue =>
  makeQueue(queueNameOf(name), {
    payload: Element,
    result: Completed,
    error: Failed,
    checkpoint: Claims,
    policy: {
      ...options,
      // Takes say what theirs is.
      maxAttempts: Limits.attemptsMax,
      // Until a cleanup, and as long as there is room for them.
      dedupe: { count: Limits.dedupeKeptMax, age: Limits.delayMsMax },
      outcomes: { count: Limits.outcomesKeptMax, age: Limits.delayMsMax }
    }
  })

type Store = PersistedQueue.PersistedQueueStore["Service"]
type TakeOptions = Parameters<Store["take"]>[0]
type StoreError = PersistedQueue.PersistedQueueError

/**
 * Provides the store that `PersistedQueue.layer` asks for. Throws `DefinitionInvalid` for options out of range.
 *
 * While the manager is away a take waits and an offer fails.
 */
export const layer = (options: Options = {}): Layer.Layer<PersistedQueue.PersistedQueueStore, never, Client> => {
  queue("options", options)
  return Layer.effect(
    PersistedQueue.PersistedQueueStore,
    Effect.gen(function* () {
      const client = yield* Client
      const scope = yield* Effect.scope
      const places = new Map<string, Place>()
      const placeOf = (name: string): Place => {
        let place = places.get(name)
        if (place === undefined) {
          place = new Place(client, queue(name, options))
          places.set(name, place)
        }
        return place
      }
      const takesFrom = Effect.fnUntraced(function* (name: string) {
        const place = placeOf(name)
        if (!place.begin()) return place
        client.link.residents.add(place)
        yield* Effect.forkIn(place.feed, scope)
        yield* Effect.forkIn(place.renew, scope)
        return place
      })
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          for (const place of places.values()) client.link.residents.delete(place)
        })
      )
      return PersistedQueue.PersistedQueueStore.of({
        offer: (element) => placeOf(element.name).offer(element),
        take: (options) => Effect.flatMap(takesFrom(options.name), (place) => place.take(options)),
        cleanup: (options) => cleanUp(client, options)
      })
    })
  )
}

/** An element that we hold. */
interface Held {
  readonly task: number
  readonly fence: number
  readonly taskId: string
  readonly id: string
  readonly element: unknown
  /** With this one. */
  readonly attempts: number
  /** Whether the manager may have been told of this claim. */
  counted: boolean
  /** The lease is someone else's by now, or nobody's. */
  lost: boolean
}

interface Taker {
  held: Held | undefined
  readonly resume: (effect: Effect.Effect<Held, StoreError>) => void
}

type LeaseError = RequestError | LeaseLost | AlreadyEnded

/** One queue, and those who wait to take from it. */
class Place implements Resident {
  readonly #client: ClientShape
  readonly #queue: ElementQueue
  readonly #held = new Map<number, Held>()
  readonly #waiting = new Set<Taker>()
  readonly #wanted = Latch.makeUnsafe(false)
  readonly #opened = Latch.makeUnsafe(false)
  /** As the manager has it, whose policy wins. */
  #leaseMs: number
  /** Ends the request for leases that is out, if one is. */
  #stop: (() => void) | undefined = undefined
  #begun = false
  /** Dedupe ids under which ids that were cleaned up were offered again, the latest used last. */
  readonly #again = new Map<string, string>()

  constructor(client: ClientShape, queue: ElementQueue) {
    this.#client = client
    this.#queue = queue
    this.#leaseMs = queue.definition.policy.leaseMs
  }

  /** True the first time. */
  begin(): boolean {
    const first = !this.#begun
    this.#begun = true
    return first
  }

  // ---- resident of the link

  held(into: Array<number>): void {
    for (const { fence, task } of this.#held.values()) into.push(task, fence)
  }

  lost(tasks: ReadonlySet<number>): void {
    for (const task of tasks) {
      const held = this.#held.get(task)
      if (held !== undefined) held.lost = true
      this.#held.delete(task)
    }
  }

  up(resumed: boolean): void {
    if (!resumed) this.lost(new Set(this.#held.keys()))
  }

  // ---- offers

  readonly offer: Store["offer"] = (options) =>
    this.#offer(options).pipe(Effect.mapError((error) => storeError("Failed to offer element", error)))

  readonly #offer = Effect.fnUntraced({ self: this }, function* (options: Parameters<Store["offer"]>[0]) {
    const { delay, element, id, isCustomId } = options
    // An id that was made for this offer is nobody else's: nothing need be remembered.
    let key = isCustomId ? (this.#again.get(id) ?? id) : undefined
    for (;;) {
      const receipt = yield* Effect.provideService(
        this.#queue.put({ id, element }, { id: key, delay }),
        Client,
        this.#client
      )
      const { first } = receipt
      if (first === undefined) return
      if (first.state === "ready" || first.state === "delayed" || first.state === "leased") return
      const cutoff = (yield* cleanedUp(this.#client))[first.state === "success" ? "completed" : "failed"]
      if (cutoff === undefined) return
      const endedAt = yield* this.#endOf(first.taskId)
      if (endedAt === undefined || endedAt > cutoff) return
      // The manager still remembers the id, and the cleanup does not: from that element on there is another one.
      key = `${id}\u0000${first.taskId}`
      this.#again.delete(id)
      this.#again.set(id, key)
      for (const [oldest] of this.#again) {
        if (this.#again.size <= Limits.reofferedIdsKeptMax) break
        this.#again.delete(oldest)
      }
    }
  })

  /** When the element was completed or failed; undefined: the manager does not know any more, or never did. */
  #endOf(taskId: string): Effect.Effect<number | undefined, RequestError> {
    return this.#queue.outcome(taskId, { timeout: 0 }).pipe(
      Effect.map((outcome) =>
        outcome._tag === "Success" ? outcome.result.at : outcome._tag === "Failure" ? outcome.error.at : undefined
      ),
      Effect.catchTag(["TaskNotFound", "TimedOut", "DecodeFailed"], () => Effect.undefined),
      Effect.provideService(Client, this.#client)
    )
  }

  // ---- takes

  readonly take = (options: TakeOptions): ReturnType<Store["take"]> =>
    Effect.uninterruptibleMask((restore) => {
      const next: ReturnType<Store["take"]> = Effect.suspend(() => {
        let taker: Taker | undefined
        const wait = Effect.callback<Held, StoreError>((resume) => {
          const mine: Taker = { held: undefined, resume }
          taker = mine
          this.#wait(mine)
          return Effect.sync(() => this.#leave(mine))
        })
        return restore(wait).pipe(
          Effect.onExit((exit) =>
            Exit.isFailure(exit) && taker?.held !== undefined ? this.#giveBack(taker.held) : Effect.void
          ),
          Effect.flatMap((held) => {
            if (held.attempts > options.maxAttempts) {
              const cause = "the lease ended in the last attempt, and nothing was reported"
              return Effect.andThen(this.#fail(held, Reason.killed, cause), next)
            }
            return restore(this.#count(held)).pipe(
              Effect.onExit((exit) => (Exit.isFailure(exit) ? this.#giveBack(held) : Effect.void)),
              Effect.flatMap((ours) => {
                if (!ours) return next
                const { attempts, element, id } = held
                return Effect.as(
                  Effect.addFinalizer((exit) => this.#settle(held, exit, options)),
                  { id, attempts, element }
                )
              })
            )
          })
        )
      })
      return next
    })

  #wait(taker: Taker): void {
    this.#waiting.add(taker)
    this.#wanted.openUnsafe()
  }

  #leave(taker: Taker): void {
    this.#waiting.delete(taker)
    if (this.#waiting.size > 0) return
    this.#wanted.closeUnsafe()
    this.#stop?.()
  }

  /** Asks for as many elements as are waited for, again and again. Never ends. */
  readonly feed: Effect.Effect<never> = Effect.suspend(() => {
    let said = false
    const round = Effect.andThen(
      this.#wanted.await,
      Effect.flatMap(this.#client.open(this.#queue), ({ id, policy }) => {
        this.#leaseMs = policy.leaseMs
        this.#opened.openUnsafe()
        return this.#lease(id)
      })
    ).pipe(
      Effect.andThen(
        Effect.sync(() => {
          said = false
        })
      ),
      Effect.catch((failure): Effect.Effect<void> => {
        const error = failure._tag === "Refusal" ? refusedError(this.#queue.name, failure) : failure
        if (!isPassing(error)) return Effect.sync(() => this.#refuse(storeError("Failed to take element", error)))
        const say = said ? Effect.void : Effect.logWarning(`takes from "${this.#queue.name}" wait: ${error.message}`)
        said = true
        return Effect.andThen(say, Effect.sleep(Limits.takeRetryMs))
      })
    )
    return Effect.forever(round)
  })

  #lease(queue: number): Effect.Effect<void, RequestError | Refusal> {
    return Effect.callback((resume) => {
      const { link } = this.#client
      const count = Math.min(this.#waiting.size, Limits.batchItemsMax)
      if (count === 0) return resume(Effect.void)
      const request = link.nextRequest
      this.#stop = () => {
        this.#stop = undefined
        link.abandon(request)
        resume(Effect.void)
      }
      link.ask(
        { type: C.lease, request, queue, count, waitMs: undefined, get: false },
        (answer) => {
          this.#stop = undefined
          if (answer instanceof Error) return resume(Effect.fail(answer))
          if (answer.type === M.refused) return resume(Effect.fail(new Refusal(answer)))
          if (answer.type !== M.leased) return resume(Effect.fail(unexpected(answer)))
          for (const item of answer.items) this.#arrived(item)
          resume(Effect.void)
        },
        true
      )
      return Effect.sync(() => this.#stop?.())
    })
  }

  #arrived({ attempt, checkpoint, fence, payload, task }: Delivery): void {
    const { link } = this.#client
    const value = this.#queue.payload.decode(payload)
    if (Exit.isFailure(value)) {
      const text = "the payload is no element of a persisted queue"
      const failure = { reason: Reason.undecodable, error: undefined, text, retryAfterMs: undefined }
      const { nextRequest: request } = link
      return link.ask({ type: C.fail, request, tasks: [task], fences: [fence], failures: [failure] }, () => {}, true)
    }
    const [taker] = this.#waiting
    if (taker === undefined) {
      return link.ask({ type: C.release, request: link.nextRequest, held: [task, fence] }, () => {}, true)
    }
    const taskId = taskIdOf(link.session?.prefix ?? "", task)
    const saved = checkpoint === undefined ? undefined : this.#queue.checkpointCodec.decode(checkpoint)
    const claims = saved !== undefined && Exit.isSuccess(saved) && saved.value.task === taskId ? saved.value.claims : 0
    const { element, id } = value.value
    // The manager counts failures: the more, should a claim not have been written.
    const attempts = Math.max(claims + 1, attempt)
    const held: Held = { task, fence, taskId, id, element, attempts, counted: false, lost: false }
    this.#held.set(task, held)
    taker.held = held
    this.#waiting.delete(taker)
    if (this.#waiting.size === 0) this.#wanted.closeUnsafe()
    taker.resume(Effect.succeed(held))
  }

  /** Takes that wait cannot go on. */
  #refuse(error: StoreError): void {
    for (const taker of [...this.#waiting]) {
      this.#waiting.delete(taker)
      taker.resume(Effect.fail(error))
    }
    this.#wanted.closeUnsafe()
  }

  /** Renews what is held here, thrice in a term. Never ends. */
  readonly renew: Effect.Effect<never> = Effect.suspend(() => {
    const everyMs = (): number => Math.min(Limits.heartbeatMs, Math.floor(this.#leaseMs / 3))
    const round = Effect.andThen(
      Effect.suspend(() => Effect.sleep(everyMs())),
      Effect.sync(() => {
        if (this.#held.size > 0) this.#client.link.heartbeat()
      })
    )
    return Effect.andThen(this.#opened.await, Effect.forever(round))
  })

  // ---- what becomes of an element

  /** Writes the claim. False: the lease is over. On a full disk the element is handed over all the same. */
  readonly #count = (held: Held): Effect.Effect<boolean, StoreError> =>
    Effect.suspend(() => {
      held.counted = true
      return this.#writeClaims(held, held.attempts)
    }).pipe(
      Effect.as(true),
      Effect.retry({ schedule: Schedule.spaced(Limits.takeRetryMs), while: isPassing }),
      Effect.catchTag(["LeaseLost", "AlreadyEnded"], () => Effect.as(this.#forget(held), false)),
      Effect.catchTag("StoreFull", (error) =>
        Effect.as(Effect.logWarning(`an attempt is not counted: ${error.message}`), true)
      ),
      Effect.mapError((error) => storeError("Failed to take element", error))
    )

  #writeClaims(held: Held, claims: number): Effect.Effect<void, LeaseError> {
    const value = this.#queue.checkpointCodec.encode({ task: held.taskId, claims }) as Uint8Array
    const { fence, task } = held
    return this.#ask(held, (request) => ({
      type: C.checkpoint,
      request,
      tasks: [task],
      fences: [fence],
      values: [value]
    }))
  }

  #settle(held: Held, exit: Exit.Exit<unknown, unknown>, options: TakeOptions): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (Exit.isSuccess(exit)) return this.#complete(held)
      const { cause } = exit
      const undecodable = undecodableOf(cause)
      if (undecodable !== undefined) return this.#fail(held, Reason.undecodable, Cause.pretty(undecodable))
      if (Cause.hasInterruptsOnly(cause)) return this.#giveBack(held)
      if (held.attempts >= options.maxAttempts) return this.#fail(held, Reason.killed, Cause.pretty(cause))
      return Effect.flatMap(options.retryDelay(held.attempts), (delay) =>
        this.#fail(held, Reason.failed, Cause.pretty(cause), delay)
      )
    })
  }

  #complete(held: Held): Effect.Effect<void> {
    const { fence, task } = held
    return Effect.flatMap(Clock.currentTimeMillis, (at) => {
      const result = this.#queue.result.encode({ at: Math.floor(at) }) as Uint8Array
      const commit = this.#ask(held, (request) => ({
        type: C.commit,
        request,
        tasks: [task],
        fences: [fence],
        results: [result],
        effects: undefined
      }))
      return this.#report(held, commit)
    })
  }

  #fail(held: Held, reason: Reason, cause: string, delay?: Duration.Duration): Effect.Effect<void> {
    const { fence, task } = held
    return Effect.flatMap(Clock.currentTimeMillis, (at) => {
      const text = cause.slice(0, Limits.reasonBytesMax / 4)
      const error = this.#queue.error.encode({ at: Math.floor(at), cause: text }) as Uint8Array
      const retryAfterMs =
        delay === undefined ? undefined : Math.min(Limits.delayMsMax, Math.max(0, Math.ceil(Duration.toMillis(delay))))
      const fail = this.#ask(held, (request) => ({
        type: C.fail,
        request,
        tasks: [task],
        fences: [fence],
        failures: [{ reason, error, text, retryAfterMs }]
      }))
      return this.#report(held, fail)
    })
  }

  /** Uncounted, at its old place. */
  #giveBack(held: Held): Effect.Effect<void> {
    const { attempts, counted, fence, task } = held
    const release = this.#ask(held, (request) => ({ type: C.release, request, held: [task, fence] }))
    // On a full disk the claim stays counted.
    const uncount = counted
      ? Effect.catchTag(this.#writeClaims(held, attempts - 1), "StoreFull", () => Effect.void)
      : Effect.void
    return this.#report(held, Effect.andThen(uncount, release))
  }

  /** Tries for as long as a lease goes, as Effect's stores do, and dies of what is left. A lost lease is no error. */
  #report(held: Held, effect: Effect.Effect<void, LeaseError>): Effect.Effect<void> {
    const schedule = Schedule.min([Schedule.exponential(200, 1.5), Schedule.spaced(5_000)]).pipe(
      Schedule.upTo({ duration: this.#leaseMs })
    )
    return effect.pipe(
      Effect.retry({ schedule, while: isPassing }),
      Effect.catchTag(["LeaseLost", "AlreadyEnded"], () => Effect.void),
      Effect.orDie,
      Effect.ensuring(this.#forget(held))
    )
  }

  /** The same task may have been leased to us again meanwhile. */
  #forget(held: Held): Effect.Effect<void> {
    return Effect.sync(() => {
      if (this.#held.get(held.task) === held) this.#held.delete(held.task)
    })
  }

  /** A request about one lease. */
  #ask(
    held: Held,
    make: (request: number) => ClientMessages.Request
  ): Effect.Effect<void, RequestError | LeaseLost | AlreadyEnded> {
    return Effect.suspend((): Effect.Effect<void, LeaseError> => {
      const { lost, taskId } = held
      // Numbers begin anew in each life of a manager: a lease of an earlier one must not meet another task of this one.
      if (lost || !taskId.startsWith(this.#client.link.session?.prefix ?? "")) {
        return Effect.fail(new LeaseLost({ taskId }))
      }
      return this.#client.ask(make).pipe(
        Effect.catchTag("Refusal", (refusal) => Effect.fail(requestErrorOf(refusal))),
        Effect.flatMap((answer): Effect.Effect<void, LeaseError> => {
          if (answer.type === M.done) return Effect.void
          if (answer.type !== M.items) return Effect.fail(unexpected(answer))
          if (answer.codes[0] === 0) return Effect.void
          return Effect.fail(
            answer.codes[0] === Code.alreadyEnded ? new AlreadyEnded({ taskId }) : new LeaseLost({ taskId })
          )
        })
      )
    })
  }
}

const refusedError = (queue: string, refusal: Refusal): RequestError | Closed =>
  refusal.refused.code === Code.closed ? new Closed({ queue }) : requestErrorOf(refusal)

/** What is over when the manager is there again. */
const isPassing = ({ _tag }: { readonly _tag: string }): boolean =>
  _tag === "ConnectFailed" || _tag === "ConnectionLost" || _tag === "Draining"

const storeError = (what: string, cause: { readonly message: string }): StoreError =>
  new PersistedQueue.PersistedQueueError({ message: `${what}: ${cause.message}`, cause })

/** What Effect's factory says of an element that does not decode; the class is its own. */
const undecodableOf = (cause: Cause.Cause<unknown>): Cause.Cause<unknown> | undefined => {
  for (const { error } of cause.reasons.filter(Cause.isFailReason)) {
    if (!Predicate.isTagged(error, "~effect/persistence/PersistedQueue/DeadLetter")) continue
    return "cause" in error && Cause.isCause(error.cause) ? error.cause : cause
  }
  return undefined
}

// ---- cleanups

/** Instants; what was completed, or failed, until then is cleaned up. Of all queues of this manager. */
const Cleanups = Schema.Struct({ completed: Schema.optional(Schema.Int), failed: Schema.optional(Schema.Int) })
type Cleanups = typeof Cleanups.Type

const cleanups: DictHandle<Cleanups> = {
  kind: "dict",
  name: "effect:persisted-queues",
  value: makeCodec(Cleanups)
}
const cleanupsKey = "cleanups"

const readCleanups = (
  client: ClientShape
): Effect.Effect<{ readonly value: Cleanups; readonly version: number }, WriteError> =>
  askObject(
    client,
    cleanups,
    (request, object) => ({ type: C.dictGet, request, object, keys: [cleanupsKey] }),
    M.entries,
    ({ items }) => {
      const value = items[0] === undefined ? undefined : cleanups.value.decode(items[0].value)
      return {
        value: value !== undefined && Exit.isSuccess(value) ? value.value : {},
        version: items[0]?.version ?? 0
      }
    }
  )

/** Nothing, for a credential that may not see it. */
const cleanedUp = (client: ClientShape): Effect.Effect<Cleanups, Exclude<WriteError, { _tag: "NotPermitted" }>> =>
  readCleanups(client).pipe(
    Effect.map(({ value }) => value),
    Effect.catchTag("NotPermitted", () => Effect.succeed({}))
  )

/**
 * Nothing is removed at once: the manager's own bounds do that. What was cleaned up is written down, and an id that was
 * is free for the next offer.
 */
const cleanUp = (
  client: ClientShape,
  { failedTimeToLive, timeToLive }: Parameters<Store["cleanup"]>[0]
): Effect.Effect<void, StoreError> =>
  Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const { value, version } = yield* readCleanups(client)
    const bytes = cleanups.value.encode({
      completed: later(value.completed, now, timeToLive),
      failed: failedTimeToLive === undefined ? value.failed : later(value.failed, now, failedTimeToLive)
    }) as Uint8Array
    yield* askObject(
      client,
      cleanups,
      (request, object) => ({
        type: C.dictWrite,
        request,
        object,
        writes: [{ key: cleanupsKey, value: bytes, expected: version }]
      }),
      M.written,
      () => undefined
    )
  }).pipe(
    // Another cleanup at the same time.
    Effect.retry({ times: 10, while: ({ _tag }) => _tag === "Conflict" }),
    Effect.mapError((error) => storeError("Failed to clean up", error))
  )

/** What was cleaned up once stays so, whatever later cleanups say. */
const later = (before: number | undefined, now: number, timeToLive: Duration.Duration): number | undefined => {
  const cutoff = Math.floor(now - Duration.toMillis(timeToLive))
  if (!Number.isSafeInteger(cutoff)) return before
  return before === undefined ? cutoff : Math.max(before, cutoff)
}
