/**
 * The engine of one namespace: a deterministic state machine over its queues.
 *
 * Commands and time go in; changes (for the store) and replies (for the sessions) come out through `Out`, in the order
 * in which they were decided. The engine owns its indexes and mutates them; it reads no clock, draws no randomness of
 * its own, does no I/O and never waits. Whoever drives it must not let a reply out before the changes of the same round
 * are stored.
 *
 *     puts -> [ready | delayed] -> leased -> ended (success, failure, dead, cancelled), outcome in the log
 *
 * Invariant after every command: `Invariants.check` holds.
 */
import * as Limits from "../Limits.ts"
import type { LaneOverride } from "./LaneLimits.ts"
import { LaneChange } from "./Lanes.ts"
import type { Standing } from "./Life.ts"
import { type ObjectEffects, Objects, type ObjectsOut } from "./Objects.ts"
import { type Inside, Operations } from "./Operations.ts"
import { backoffMs } from "./Policy.ts"
import { Progress } from "./Progress.ts"
import { Level, Queue, type QueueDefinition } from "./Queue.ts"
import { RateKind } from "./Rates.ts"
import { Code, type Refusal, refusal } from "./Refusal.ts"
import { type NextCron, Repeat, type RepeatDefinition, Repeats } from "./Repeat.ts"
import { LeaseStream, OutcomeStream, type PutBatch, PutStatus, type Session, Waiter } from "./Session.ts"
import { type AttemptReason, Outcome, progressBytesOf, Reason, State, Task, type TaskOptions } from "./Task.ts"
import { TaskTable } from "./TaskTable.ts"
import { type Timer, Timers } from "./Timers.ts"

/** Durable transitions, in order: what a log must hold to rebuild the engine. `ready` and `delayed` are of a task that returns. */
export type Change =
  | "put"
  | "leased"
  | "ready"
  | "delayed"
  | "ended"
  | "acknowledged"
  /** Removed by command, without an outcome. */
  | "purged"
  /** Delayed, and a signal ends that; its attempt is given back. */
  | "suspended"
  /** `task.checkpoint` is another one. */
  | "checkpoint"
  /** The last one of `task.entries` is new. */
  | "entry"
  /** The ended task is no dead letter any more: it was put again, as the task of the "put" before. */
  | "redriven"

/** Where the engine's decisions go. Calls are synchronous and in order; arrays are the receiver's to read, not keep. */
export interface Out extends ObjectsOut {
  readonly changed: (change: Change, task: Task) => void
  readonly queueChanged: (queue: Queue) => void
  /** A put that waits for room has entered in part. */
  readonly putProgress: (session: Session, request: number, batch: PutBatch) => void
  /** `queue.ready.setting(key)` says what of this lane is to be kept from now on. */
  readonly laneChanged: (queue: Queue, key: string) => void
  readonly refused: (session: Session, request: number, why: Refusal) => void
  readonly done: (session: Session, request: number) => void
  readonly putDone: (session: Session, request: number, first: number, count: number) => void
  readonly putItems: (
    session: Session,
    request: number,
    tasks: ReadonlyArray<number>,
    statuses: ReadonlyArray<PutStatus>,
    firsts: ReadonlyArray<Standing> | undefined
  ) => void
  readonly leased: (session: Session, request: number, tasks: ReadonlyArray<Task>) => void
  /** One code per item, 0 = done. */
  readonly items: (session: Session, request: number, codes: ReadonlyArray<number>) => void
  readonly deliver: (stream: LeaseStream, task: Task) => void
  /** Returns how many it has taken: fewer when the session cannot take more for now, and is congested. */
  readonly outcomes: (stream: OutcomeStream, from: number, count: number) => number
  readonly outcomesGap: (stream: OutcomeStream, oldest: number) => void
  readonly outcome: (session: Session, request: number, queue: Queue, cursor: number) => void
  /** The repeat is new, has other numbers now, or is removed. With its task, part of what a store keeps. */
  readonly repeatChanged: (repeat: Repeat, removed: boolean) => void
  readonly repeats: (session: Session, request: number, repeats: ReadonlyArray<Repeat>) => void
  readonly standings: (session: Session, request: number, standings: ReadonlyArray<Standing>) => void
  /** How many a purge removed, and where it goes on (undefined: it is done) up to `upTo`. */
  readonly purged: (session: Session, request: number, count: number, next: number | undefined, upTo: number) => void
  /** Pairs of dead letter and new task, 0 where there was no letter. */
  readonly redriven: (
    session: Session,
    request: number,
    pairs: ReadonlyArray<number>,
    next: number | undefined,
    upTo: number
  ) => void
  /** Unasked for: the handler of a task that this session holds must stop. */
  readonly cancelling: (session: Session, task: number) => void
}

export interface CommitEffects extends ObjectEffects {
  readonly puts: ReadonlyArray<{
    readonly queue: number
    readonly payload: Uint8Array
    readonly options: TaskOptions | undefined
    /** Which of the set additions must be new for this put to happen; undefined: it happens in any case. */
    readonly ifNew?: number | undefined
  }>
}

export interface Failure {
  readonly reason: Reason
  /** The typed error as the handler's queue encodes it. */
  readonly error: Uint8Array | undefined
  readonly text: string
  readonly retryAfterMs: number | undefined
  /** Nothing of the task's lane is granted for so long. */
  readonly slowDownMs?: number | undefined
}

export interface EngineOptions {
  /** Rises with every ownership of the namespace; the upper part of every fence. */
  readonly epoch: number
  /** Seeds the jitter of back-offs. */
  readonly seed: number
  /** Bytes of payloads and outcome bodies kept in memory, if there is a log that has them. Default: no bound. */
  readonly residentBytesMax?: number | undefined
  readonly out: Out
  /** Reads cron expressions. Default: there are none, and a cron schedule is refused. */
  readonly nextCron?: NextCron | undefined
  /** 16 secret random bytes, made once per namespace, for the fingerprints of sets. Default: zeros, for tests only. */
  readonly objectsKey?: Uint8Array | undefined
  /** Whether the keys of sets are kept in memory, because no store has them. Default true. */
  readonly keepTexts?: boolean | undefined
}

const noCron: NextCron = () => ({ field: "cron", remedy: "this manager has no calendar; use every" })

/** Fence = epoch x fenceBase + the number of the lease. */
export const fenceBase = 2 ** 32

export class Engine {
  readonly queues: Array<Queue> = []
  readonly timers = new Timers()
  readonly tasks = new TaskTable()
  readonly sessions = new Set<Session>()
  readonly repeats: Repeats
  readonly operations: Operations
  readonly progress: Progress
  readonly objects: Objects
  readonly #byName = new Map<string, Queue>()
  readonly #touched = new Set<Queue>()
  /** Queues with leases that are over since `due`, until `expire`. */
  readonly #overdue: Array<Queue> = []
  /** Queues of which another part is cancelled, until the end of `due`. */
  readonly #unswept: Array<Queue> = []
  readonly #out: Out
  readonly #epochFence: number
  /** Fences of leases that were granted under an earlier epoch and still run. */
  readonly #oldFences = new Map<number, number>()
  #random: number
  #nextTask = 1
  #nextSession = 1
  #nextStream = 1
  /** Bytes of payloads in memory. */
  residentBytes = 0
  readonly #residentBytesMax: number
  /** Put above the bound; their payloads leave memory when the round is stored. */
  #excess: Array<Task> = []
  /** Queues whose outcome log grew in this round. */
  readonly #grown = new Set<Queue>()

  constructor(options: EngineOptions) {
    this.#out = options.out
    this.#epochFence = options.epoch * fenceBase
    this.#random = options.seed >>> 0
    this.#residentBytesMax = options.residentBytesMax ?? Number.POSITIVE_INFINITY
    this.repeats = new Repeats({
      timers: this.timers,
      nextCron: options.nextCron ?? noCron,
      put: (queue, payload, options, now) => this.#accept(queue, payload, options, now),
      changed: (repeat, removed) => this.#out.repeatChanged(repeat, removed)
    })
    this.operations = new Operations(this.#inside())
    this.progress = new Progress(this.#inside())
    const key = options.objectsKey ?? new Uint8Array(16)
    this.objects = new Objects({ key, keepTexts: options.keepTexts ?? true, out: options.out })
  }

  // ---- restoring, by `Restorer` alone

  /** Numbers that the next task and the next session get. */
  get numbers(): { readonly task: number; readonly session: number } {
    return { task: this.#nextTask, session: this.#nextSession }
  }

  restoreNumbers(task: number, session: number): void {
    this.#nextTask = Math.max(this.#nextTask, task)
    this.#nextSession = Math.max(this.#nextSession, session)
  }

  /** Assumes: no queue has this id. */
  restoreQueue(id: number, definition: QueueDefinition): Queue {
    const queue = new Queue(id, definition)
    this.queues[id] = queue
    return queue
  }

  /** The queue's definition is known, or another than before. */
  redefine(queue: Queue, definition: QueueDefinition): void {
    queue.define(definition)
    this.#byName.set(definition.name, queue)
  }

  /** Links a restored task into the lists of its state; a leased one keeps its fence and gets a new term. */
  restoreTask(task: Task, fence: number | undefined, now: number): void {
    const { queue } = task
    const ttlMs = task.options?.ttlMs
    if (ttlMs !== undefined && !task.expired) {
      if (task.state === State.leased && task.putAt + ttlMs <= now) task.expired = true
      else task.expiry = this.timers.add(task.putAt + ttlMs, { _tag: "Expiry", task })
    }
    queue.enter(task)
    if (task.state === State.leased && task.holder !== undefined) {
      task.holder.leased++
      if (fence !== undefined) this.#oldFences.set(task.n, fence)
      task.at = now + queue.policy.leaseMs
      queue.leaseAppend(task)
      queue.ready.leasedBefore(task)
      if (queue.leaseTimer === undefined) this.#armLeases(queue)
    } else if (task.state === State.delayed) this.#delay(task, task.at)
    else if (task.place === task.n) queue.ready.push(task)
    else queue.ready.giveBack(task)
    this.#touched.add(queue)
  }

  /** Drops what the bounds no longer allow, of a queue that has been restored. */
  restored(queue: Queue, now: number): void {
    this.#forgetIds(queue, now)
    this.#evict(queue, now)
    if (queue.closed !== "immediate") return
    // What was not cancelled yet when the manager stopped.
    queue.sweptTo = 0
    this.#sweep(queue, now)
  }

  // ---- memory

  /** The round is stored: what is above the bound may leave memory. */
  shed(): void {
    for (const task of this.#excess) {
      if (task.payload === undefined || task.state === State.ended) continue
      this.residentBytes -= task.payloadBytes
      task.payload = undefined
    }
    if (this.#excess.length > 0) this.#excess = []
    // Of outcomes those that ended last are read next, so the oldest leave.
    for (const queue of this.#grown) queue.log.shed(Math.floor(this.#residentBytesMax / 4))
    this.#grown.clear()
  }

  /** What `Operations` works with. */
  #inside(): Inside {
    return {
      out: this.#out,
      tasks: this.tasks,
      queue: (session, request, queueId) => this.#queue(session, request, queueId),
      held: (session, n, fence) => this.#held(session, n, fence),
      nextTask: () => this.#nextTask,
      take: (task, now) => this.#take(task, now),
      unlist: (task) => this.#unlistTask(task),
      end: (task, outcome, body, now) => this.#end(task, outcome, body, now),
      vanish: (task, now) => this.#vanish(task, now),
      suspend: (task, at, now) => this.#suspend(task, at, now),
      wake: (task, now) => this.#wake(task, now),
      touch: (queue) => this.#touched.add(queue)
    }
  }

  // ---- queues

  /** The queue of that name: as it is if it exists (its definition wins), made from `definition` otherwise. */
  declare(definition: QueueDefinition): Queue {
    const known = this.#byName.get(definition.name)
    if (known !== undefined) return known
    const queue = new Queue(this.queues.length, definition)
    this.queues.push(queue)
    this.#byName.set(definition.name, queue)
    this.#out.queueChanged(queue)
    return queue
  }

  find(name: string): Queue | undefined {
    return this.#byName.get(name)
  }

  /** What the holder of the task's lease must show. A lease that outlived a restart keeps the fence it was given. */
  fence(task: Task): number {
    if (this.#oldFences.size > 0) {
      const fence = this.#oldFences.get(task.n)
      if (fence !== undefined) return fence
    }
    return this.#epochFence + task.leases
  }

  // ---- sessions

  connect<S extends Session>(make: (id: number) => S): S {
    const session = make(this.#nextSession++)
    this.sessions.add(session)
    return session
  }

  /** The session's connection is gone: what it waits for is dropped, its leases run for one more term from now. */
  detach(session: Session, now: number): void {
    // A put that waits for room is under way and will have its one effect; its answer is remembered.
    this.#silence(session, false)
    if (session.leased === 0) return
    for (const queue of this.queues) {
      for (const task of this.#leasesOf(queue, session)) this.#extend(task, now)
    }
  }

  /** Whether this request of the session still waits inside the engine. */
  waits(session: Session, request: number): boolean {
    for (const waiter of session.waiting) if (waiter.request === request) return true
    return false
  }

  /**
   * A connection proved itself for this session. Leases that are neither in `held` nor in `answered` (tasks of answers
   * that will be given again) were never received: they go back, uncounted.
   */
  resume(
    session: Session,
    held: ReadonlyArray<number>,
    now: number,
    answered: ReadonlySet<number> = new Set()
  ): ReadonlyArray<number> {
    session.congested = false
    const lost = [...this.heartbeat(session, held, now)]
    if (session.leased > 0) {
      const kept = new Map<number, number>()
      for (let i = 0; i < held.length; i += 2) kept.set(held[i]!, Math.max(held[i + 1]!, kept.get(held[i]!) ?? 0))
      for (const queue of this.queues) {
        for (const task of this.#leasesOf(queue, session)) {
          const fence = kept.get(task.n)
          if (fence === this.fence(task) || answered.has(task.n)) continue
          if (fence !== undefined) lost.push(task.n)
          this.#release(task, now)
        }
      }
    }
    return lost
  }

  /** The session is over: every lease it holds goes back, uncounted. */
  goodbye(session: Session, now: number): void {
    this.#silence(session, true)
    if (session.leased > 0) {
      for (const queue of this.queues) {
        for (const task of this.#leasesOf(queue, session)) this.#release(task, now)
      }
    }
    this.sessions.delete(session)
  }

  congested(session: Session, congested: boolean): void {
    if (session.congested === congested) return
    session.congested = congested
    if (congested) return
    for (const stream of session.leaseStreams.values()) this.#touched.add(stream.queue)
    for (const stream of session.outcomeStreams.values()) this.#touched.add(stream.queue)
  }

  // ---- producers

  put(
    session: Session,
    request: number,
    queueId: number,
    atomic: boolean,
    waitMs: number | undefined,
    payloads: ReadonlyArray<Uint8Array>,
    options: ReadonlyArray<TaskOptions | undefined> | undefined,
    now: number
  ): void {
    const queue = this.#queue(session, request, queueId)
    if (queue === undefined) return
    const { policy } = queue
    // Asked again after a restart: what had entered before has entered, whatever has become of the queue.
    const before = session.partial?.get(request)
    if (queue.closed !== "open" && before === undefined) {
      return this.#out.refused(session, request, refusal(Code.closed, queue.definition.name))
    }
    for (let i = 0; i < payloads.length; i++) {
      if (payloads[i]!.byteLength > queue.putBytesMax) {
        const bytes = payloads[i]!.byteLength
        const why = refusal(Code.payloadTooLarge, queue.definition.name, bytes, queue.putBytesMax)
        return this.#out.refused(session, request, why)
      }
    }
    if (payloads.length === 0) return this.#out.putDone(session, request, this.#nextTask, 0)
    const room = policy.capacity - queue.waiting
    const inTurn = waitMs === 0 || queue.putWaiters.length === 0
    const plain = policy.tasksMax === 0 && policy.capacityBytes === 0 && before === undefined
    if (options === undefined && payloads.length <= room && inTurn && plain) {
      // The hot path: no id, no delay, room for all. One range answers for the whole batch.
      const first = this.#nextTask
      for (let i = 0; i < payloads.length; i++) this.#accept(queue, payloads[i]!, undefined, now)
      return this.#out.putDone(session, request, first, payloads.length)
    }
    const batch: PutBatch = {
      home: before?.home ?? 0,
      queue: queue.definition.name,
      payloads,
      options,
      atomic,
      tasks: [...(before?.tasks ?? [])],
      statuses: [...(before?.statuses ?? [])],
      firsts: undefined
    }
    if (queue.closed !== "open") return this.#answerPut(session, request, queue, batch)
    this.#forgetIds(queue, now)
    if (atomic && this.#outgrows(queue, batch)) {
      const why = refusal(Code.full, queue.definition.name, payloads.length, policy.capacity)
      return this.#out.refused(session, request, why)
    }
    if (inTurn) this.#enter(queue, batch, now)
    if (batch.tasks.length === payloads.length) this.#answerPut(session, request, queue, batch)
    else if (waitMs === 0 || (atomic && payloads.length > policy.capacity)) {
      // A batch above the capacity fits only while enough of its ids are known: they may be forgotten while it waits,
      // and it would wait for ever, before all who come later.
      this.#answerPut(session, request, queue, batch)
    } else {
      if (batch.tasks.length > 0) this.#out.putProgress(session, request, batch)
      queue.putWaiters.push(this.#wait(new Waiter("put", session, request, queue, 0, false, batch), waitMs, now))
    }
  }

  // ---- leases

  lease(
    session: Session,
    request: number,
    queueId: number,
    count: number,
    waitMs: number | undefined,
    get: boolean,
    now: number
  ): void {
    const queue = this.#queue(session, request, queueId)
    if (queue === undefined) return
    if (queue.gives && queue.ready.open(now) && (waitMs === 0 || queue.leaseWaiters.length === 0)) {
      // Its lane may be blocked by this, and the next one be free for others.
      this.#touched.add(queue)
      return this.#answerLease(session, request, queue, count, now)
    }
    if (this.#exhausted(queue)) return this.#out.refused(session, request, refusal(Code.closed, queue.definition.name))
    if (waitMs === 0) return this.#out.refused(session, request, refusal(Code.empty, queue.definition.name))
    queue.leaseWaiters.push(
      this.#wait(new Waiter("lease", session, request, queue, count, get, undefined), waitMs, now)
    )
    this.#touched.add(queue)
  }

  /**
   * Opens a stream of leases: from now on tasks are pushed while the stream has credit, and those of lanes with limits
   * while it has more than `prefetch`.
   */
  subscribe(session: Session, queue: Queue, credit: number, prefetch = 0): LeaseStream {
    const stream = new LeaseStream(this.#nextStream++, session, queue, credit, prefetch)
    session.leaseStreams.set(stream.id, stream)
    queue.leaseStreams.push(stream)
    this.#touched.add(queue)
    return stream
  }

  /** Opens a stream of outcomes from `cursor` on. */
  follow(session: Session, queue: Queue, cursor: number, credit: number): OutcomeStream {
    const stream = new OutcomeStream(this.#nextStream++, session, queue, cursor, credit)
    session.outcomeStreams.set(stream.id, stream)
    queue.outcomeStreams.push(stream)
    this.#touched.add(queue)
    return stream
  }

  /**
   * More credit; and how much of all of it is prefetch from now on, if that is said. Of a stream that is not (or no longer)
   * open it is ignored: the peer's message crossed ours.
   */
  credit(session: Session, streamId: number, credit: number, prefetch?: number | undefined): void {
    const leases = session.leaseStreams.get(streamId)
    if (leases !== undefined && prefetch !== undefined) leases.prefetch = Math.min(Limits.creditMax, prefetch)
    const stream = leases ?? session.outcomeStreams.get(streamId)
    if (stream === undefined) return
    stream.credit = Math.min(Limits.creditMax, stream.credit + credit)
    this.#touched.add(stream.queue)
  }

  unsubscribe(session: Session, streamId: number): void {
    const leases = session.leaseStreams.get(streamId)
    if (leases !== undefined) {
      session.leaseStreams.delete(streamId)
      removeFrom(leases.queue.leaseStreams, leases)
    }
    const outcomes = session.outcomeStreams.get(streamId)
    if (outcomes !== undefined) {
      session.outcomeStreams.delete(streamId)
      removeFrom(outcomes.queue.outcomeStreams, outcomes)
    }
  }

  /** The handler began: from here on a lost lease counts. */
  started(session: Session, held: ReadonlyArray<number>): void {
    for (let i = 0; i + 1 < held.length; i += 2) {
      const task = this.#held(session, held[i]!, held[i + 1]!)
      if (typeof task !== "number") task.started = true
    }
  }

  /**
   * Renews what the session still holds and tells it what it has lost. `held` is task, fence, task, fence, ... Tasks that
   * were cancelled go to `cancelled` instead, if there is such a list: nothing is remembered for this, the log knows.
   */
  heartbeat(
    session: Session,
    held: ReadonlyArray<number>,
    now: number,
    cancelled?: Array<number>
  ): ReadonlyArray<number> {
    const lost: Array<number> = []
    for (let i = 0; i + 1 < held.length; i += 2) {
      const task = this.#held(session, held[i]!, held[i + 1]!)
      if (typeof task !== "number") this.#extend(task, now)
      else if (cancelled !== undefined && task === Code.alreadyEnded && this.#wasCancelled(held[i]!)) {
        cancelled.push(held[i]!)
        // Lost, and leased to the same session again: told by the task's number, it would drop the lease that it has.
      } else if (!this.#holds(session, held[i]!)) lost.push(held[i]!)
    }
    return lost
  }

  #wasCancelled(n: number): boolean {
    const owner = this.tasks.owner(n)
    return (
      owner !== undefined && !(owner instanceof Task) && owner.log.outcome(this.tasks.cursor(n)) === Outcome.cancelled
    )
  }

  renew(session: Session, request: number, held: ReadonlyArray<number>, now: number): void {
    const codes: Array<number> = []
    for (let i = 0; i + 1 < held.length; i += 2) {
      const task = this.#held(session, held[i]!, held[i + 1]!)
      if (typeof task !== "number") this.#extend(task, now)
      codes.push(typeof task === "number" ? task : 0)
    }
    this.#answerItems(session, request, codes)
  }

  /**
   * Ends leases in success. Each item is done or refused as one, with all that it brings about; `together`, all items are,
   * and the refusal says why.
   */
  commit(
    session: Session,
    request: number,
    tasks: ReadonlyArray<number>,
    fences: ReadonlyArray<number>,
    results: ReadonlyArray<Uint8Array>,
    effects: ReadonlyArray<CommitEffects | undefined> | undefined,
    now: number,
    together = false,
    slowDowns?: ReadonlyArray<number | undefined> | undefined
  ): void {
    if (together) return this.#commitTogether(session, request, tasks, fences, results, effects, now)
    let codes: Array<number> | undefined
    for (let i = 0; i < tasks.length; i++) {
      const code = this.#commitOne(session, tasks[i]!, fences[i]!, results[i]!, effects?.[i], now, slowDowns?.[i])
      if (code !== 0 && codes === undefined) codes = new Array<number>(i).fill(0)
      codes?.push(code)
    }
    if (codes === undefined) this.#out.done(session, request)
    else this.#out.items(session, request, codes)
  }

  release(session: Session, request: number, held: ReadonlyArray<number>, now: number): void {
    const codes: Array<number> = []
    for (let i = 0; i + 1 < held.length; i += 2) {
      const task = this.#held(session, held[i]!, held[i + 1]!)
      if (typeof task !== "number") this.#release(task, now)
      codes.push(typeof task === "number" ? task : 0)
    }
    this.#answerItems(session, request, codes)
  }

  fail(
    session: Session,
    request: number,
    tasks: ReadonlyArray<number>,
    fences: ReadonlyArray<number>,
    failures: ReadonlyArray<Failure>,
    now: number
  ): void {
    const codes: Array<number> = []
    for (let i = 0; i < tasks.length; i++) {
      const task = this.#held(session, tasks[i]!, fences[i]!)
      if (typeof task !== "number") this.#fail(task, failures[i]!, now)
      codes.push(typeof task === "number" ? task : 0)
    }
    this.#answerItems(session, request, codes)
  }

  /** The client has received the answer to a `get`: the task is its own now. It leaves no outcome. */
  acknowledge(session: Session, held: ReadonlyArray<number>, now: number): void {
    for (let i = 0; i + 1 < held.length; i += 2) {
      const task = this.#held(session, held[i]!, held[i + 1]!)
      if (typeof task === "number") continue
      this.#takeLease(task)
      task.queue.acknowledged++
      task.queue.rates.add(RateKind.commits, 1, now)
      this.#vanish(task, now)
      this.#out.changed("acknowledged", task)
      this.#leave(task)
    }
  }

  /** The client no longer wants the answer: a request that still waits is answered as if its wait were over. */
  abandon(session: Session, request: number): void {
    for (const waiter of session.waiting) if (waiter.request === request) return this.#timeOut(waiter)
  }

  /** The task, if this session holds it under this fence. */
  leaseOf(session: Session, n: number, fence: number): Task | undefined {
    const task = this.#held(session, n, fence)
    return typeof task === "number" ? undefined : task
  }

  /** Tasks that are not over. */
  get unfinished(): number {
    return this.queues.reduce((sum, queue) => sum + queue.unfinished, 0)
  }

  /** Bytes that the log of the namespace needs for what lives, about: payloads, outcome bodies, and their records. */
  get storedBytes(): number {
    let bytes = 0
    for (const queue of this.queues) {
      if (queue.level !== Level.memory) bytes += queue.storedBytes
    }
    return bytes
  }

  /** The payload of a task that was just granted cannot be read back: it will never be delivered. */
  damaged(task: Task, now: number): void {
    if (task.state !== State.leased) return
    this.#takeLease(task)
    this.#addReason(task, Reason.damaged, "its payload in the store does not match its digest")
    this.#end(task, Outcome.dead, task.payload, now)
  }

  /** Looks at the queue again at the end of the round. */
  touch(queue: Queue): void {
    this.#touched.add(queue)
  }

  // ---- readers

  /** What became of a task: at once if it has ended, else when it does or the wait is over. */
  outcome(
    session: Session,
    request: number,
    queueId: number,
    n: number,
    waitMs: number | undefined,
    now: number
  ): void {
    const queue = this.#queue(session, request, queueId)
    if (queue === undefined) return
    const owner = this.tasks.owner(n)
    if (owner === queue) return this.#out.outcome(session, request, queue, this.tasks.cursor(n))
    if (!(owner instanceof Task) || owner.queue !== queue) {
      return this.#out.refused(session, request, refusal(Code.taskNotFound, queue.definition.name, n))
    }
    if (waitMs === 0) return this.#out.refused(session, request, refusal(Code.timedOut, queue.definition.name, n))
    const waiter = this.#wait(new Waiter("outcome", session, request, queue, n, false, undefined), waitMs, now)
    const waiting = queue.outcomeWaiters.get(n)
    if (waiting === undefined) queue.outcomeWaiters.set(n, [waiter])
    else waiting.push(waiter)
  }

  /** Answered when nothing is left to do: no task is ready, delayed or leased. */
  join(session: Session, request: number, queueId: number, waitMs: number | undefined, now: number): void {
    const queue = this.#queue(session, request, queueId)
    if (queue === undefined) return
    if (queue.unfinished === 0) return this.#out.done(session, request)
    if (waitMs === 0) {
      const why = refusal(Code.timedOut, queue.definition.name, queue.unfinished)
      return this.#out.refused(session, request, why)
    }
    queue.joinWaiters.push(this.#wait(new Waiter("join", session, request, queue, 0, false, undefined), waitMs, now))
  }

  /**
   * `drain` refuses client puts, and takes when nothing is left; `immediate` also refuses takes and cancels what waits, a
   * part of it at once and the rest in the rounds that follow. Closing never opens again.
   */
  close(session: Session, request: number, queueId: number, mode: "drain" | "immediate", now: number): void {
    const queue = this.#queue(session, request, queueId)
    if (queue === undefined) return
    if (queue.closed !== "immediate") queue.closed = mode
    this.#out.queueChanged(queue)
    this.repeats.closed(queue)
    if (mode === "immediate") {
      queue.sweptTo ??= 0
      this.#sweep(queue, now)
      // Whatever comes back from now on is cancelled: there is nothing to wait for.
      for (const waiter of queue.leaseWaiters.splice(0)) {
        this.#endWait(waiter)
        this.#out.refused(waiter.session, waiter.request, refusal(Code.closed, queue.definition.name))
      }
    }
    for (const waiter of queue.putWaiters.splice(0)) {
      this.#endWait(waiter)
      this.#answerPut(waiter.session, waiter.request, queue, waiter.put!)
    }
    this.#touched.add(queue)
    this.#out.done(session, request)
  }

  // ---- repeats

  repeat(session: Session, request: number, queueId: number, definition: RepeatDefinition, now: number): void {
    const queue = this.#queue(session, request, queueId)
    if (queue === undefined) return
    const made = this.repeats.set(queue, definition, now)
    if (made instanceof Repeat) this.#out.repeats(session, request, [made])
    else this.#out.refused(session, request, made)
  }

  /** Answered with the repeat that was removed, or with none. */
  removeRepeat(session: Session, request: number, queueId: number, id: string): void {
    const queue = this.#queue(session, request, queueId)
    if (queue === undefined) return
    const removed = this.repeats.remove(queue, id)
    this.#out.repeats(session, request, removed === undefined ? [] : [removed])
  }

  listRepeats(session: Session, request: number, queueId: number): void {
    const queue = this.#queue(session, request, queueId)
    if (queue !== undefined) this.#out.repeats(session, request, this.repeats.of(queue))
  }

  /** Changes what one lane may do, until it is changed again: restarts included. */
  lane(
    session: Session,
    request: number,
    queueId: number,
    key: string,
    change: LaneChange,
    limits: LaneOverride | undefined,
    forMs: number | undefined,
    now: number
  ): void {
    const queue = this.#queue(session, request, queueId)
    if (queue === undefined) return
    const { ready } = queue
    ready.open(now)
    const adds = change === LaneChange.limit || change === LaneChange.pause
    if (adds && !ready.roomForSetting(key)) {
      const why = refusal(Code.limitExceeded, "laneSettingsMax", Limits.laneSettingsMax + 1, Limits.laneSettingsMax)
      return this.#out.refused(session, request, why)
    }
    if (change === LaneChange.limit) ready.override(key, limits ?? {})
    else if (change === LaneChange.clear) ready.clear(key)
    else if (change === LaneChange.pause) ready.pause(key)
    else if (change === LaneChange.resume) ready.resume(key)
    else ready.slowDown(key, now + (forMs ?? 0))
    this.#out.laneChanged(queue, key)
    this.#touched.add(queue)
    this.#out.done(session, request)
  }

  // ---- time

  /** How far the wall clock is ahead of engine time; only cron schedules care. Told at the start and now and then. */
  wall(offset: number, now: number): void {
    this.repeats.wall(offset, now)
  }

  /** When `tick` must be called next, or `Infinity`. */
  get nextDeadline(): number {
    return this.timers.next
  }

  /** All that falls due by `now`. */
  tick(now: number): void {
    do {
      this.due(now)
      this.expire(now)
      // A repeat waited for a lease that has just ended, and its time has come.
    } while (this.timers.next <= now)
  }

  /** What falls due by `now`, but for leases: those end in `expire`. */
  due(now: number): void {
    for (let timer = this.timers.take(now); timer !== undefined; timer = this.timers.take(now)) this.#fire(timer, now)
    for (const queue of this.#unswept.splice(0)) this.#sweep(queue, now)
  }

  /**
   * Ends the leases that are over. Called after the commands of a round: a renewal that has arrived while the manager
   * waited for its disk is handled before the lease it renews ends.
   */
  expire(now: number): void {
    for (const queue of this.#overdue.splice(0)) {
      while (queue.leaseHead !== undefined && queue.leaseHead.at <= now) this.#lose(queue.leaseHead, now)
      if (queue.leaseTimer === undefined) this.#armLeases(queue)
    }
  }

  /** Hands out what can be handed out. Called once per round, after its commands. */
  dispatch(now: number): void {
    for (const queue of this.#touched) {
      this.#touched.delete(queue)
      this.#admit(queue, now)
      this.#serve(queue, now)
      this.#publish(queue)
      this.#evict(queue, now)
      this.#armLanes(queue)
      if (queue.unfinished === 0) this.#settle(queue)
    }
  }

  // ---- inside

  #fire(timer: Timer, now: number): void {
    const { subject } = timer
    switch (subject._tag) {
      case "Due": {
        const { task } = subject
        task.due = undefined
        task.queue.delayed--
        return this.#giveBack(task, now)
      }
      case "Expiry": {
        const { task } = subject
        task.expiry = undefined
        task.expired = true
        if (task.state === State.ready) task.queue.ready.remove(task)
        else if (task.state === State.delayed) this.#undelay(task)
        else return // Leased: it may still end well; if it comes back, it is over.
        return this.#expire(task, now)
      }
      case "Wait":
        return this.#timeOut(subject.waiter)
      case "Leases": {
        const { queue } = subject
        queue.leaseTimer = undefined
        return void this.#overdue.push(queue)
      }
      case "Outcomes": {
        const { queue } = subject
        queue.evictTimer = undefined
        // Dropped by `dispatch`, after its readers have been given what ended just now.
        return void this.#touched.add(queue)
      }
      case "Lanes": {
        const { queue } = subject
        queue.laneTimer = undefined
        this.#touched.add(queue)
        return
      }
      case "Repeat":
        return this.repeats.due(subject.repeat, now)
      case "Sweep":
        // One part a round, however much there is.
        subject.queue.sweepTimer = undefined
        return void this.#unswept.push(subject.queue)
    }
  }

  #queue(session: Session, request: number, queueId: number): Queue | undefined {
    const queue = this.queues[queueId]
    if (queue === undefined) this.#out.refused(session, request, refusal(Code.queueNotFound, `#${queueId}`, queueId))
    return queue
  }

  /** Ensures: the new task's number is the next one. Returns it, the negated number of a duplicate, or 0 if spent. */
  #accept(queue: Queue, payload: Uint8Array, options: TaskOptions | undefined, now: number): number {
    const id = options?.id
    if (id !== undefined) {
      this.#forgetIds(queue, now)
      const first = queue.ids.get(id)
      if (first !== undefined) {
        queue.duplicates++
        return -first.n
      }
    }
    if (queue.policy.tasksMax > 0 && queue.puts >= queue.policy.tasksMax) {
      queue.refused++
      return 0
    }
    const task = new Task(this.#nextTask, queue, payload, options, now)
    this.#take(task, now)
    return task.n
  }

  /** Assumes: the task's number is the next one, and its dedupe id is free. */
  #take(task: Task, now: number): void {
    const { n, options, queue } = task
    this.#nextTask++
    this.tasks.add(n, task)
    queue.enter(task)
    queue.puts++
    queue.rates.add(RateKind.puts, 1, now)
    this.residentBytes += task.payloadBytes
    if (this.residentBytes > this.#residentBytesMax && queue.level !== Level.memory) this.#excess.push(task)
    if (options !== undefined) {
      const { id } = options
      if (id !== undefined) queue.ids.set(id, { id, n, until: Number.POSITIVE_INFINITY, home: 0 })
      if (options.ttlMs !== undefined) task.expiry = this.timers.add(now + options.ttlMs, { _tag: "Expiry", task })
    }
    if (options?.delayMs !== undefined && options.delayMs > 0) this.#delay(task, now + options.delayMs)
    else queue.ready.push(task)
    this.#out.changed("put", task)
    this.#touched.add(queue)
    if (queue.closed === "immediate") this.#cancel(task, now) // a child: what waits in this queue is cancelled
  }

  /** Takes in as much of the batch as there is room for; all or nothing of an atomic one. */
  #enter(queue: Queue, batch: PutBatch, now: number): void {
    const { tasksMax } = queue.policy
    this.#forgetIds(queue, now)
    if (batch.atomic) {
      // A put whose id is there already needs no room: asking again must not wait for what it has.
      const fresh = this.#fresh(queue, batch)
      if (queue.overflow === undefined && !queue.hasRoom(fresh, this.#freshBytes(queue, batch))) return
      if (tasksMax > 0 && fresh > 0 && queue.puts + fresh > tasksMax) {
        queue.refused += batch.payloads.length
        for (let i = 0; i < batch.payloads.length; i++) {
          batch.tasks.push(0)
          batch.statuses.push(PutStatus.spent)
        }
        return
      }
    }
    for (let i = batch.tasks.length; i < batch.payloads.length; i++) {
      const options = batch.options?.[i]
      const payload = batch.payloads[i]!
      const known = options?.id !== undefined && queue.ids.has(options.id)
      if (!known && queue.overflow === undefined && !queue.hasRoom(1, payload.byteLength)) return
      const n = this.#accept(queue, payload, options, now)
      if (n > 0 && queue.overflow !== undefined) this.#dropOldest(queue, now)
      else if (n < 0) {
        batch.firsts ??= new Array<Standing>(batch.payloads.length).fill(0)
        batch.firsts[i] = this.operations.standing(queue, -n)
      }
      batch.tasks.push(Math.abs(n))
      batch.statuses.push(n > 0 ? PutStatus.accepted : n < 0 ? PutStatus.duplicate : PutStatus.spent)
    }
  }

  /** Items of the batch whose dedupe id is not taken yet. */
  #fresh(queue: Queue, batch: PutBatch): number {
    let fresh = 0
    for (let i = 0; i < batch.payloads.length; i++) {
      const id = batch.options?.[i]?.id
      if (id === undefined || !queue.ids.has(id)) fresh++
    }
    return fresh
  }

  /** Payload bytes of these; 0 where nothing bounds them. */
  #freshBytes(queue: Queue, batch: PutBatch): number {
    let bytes = 0
    if (queue.policy.capacityBytes === 0) return bytes
    for (let i = 0; i < batch.payloads.length; i++) {
      const id = batch.options?.[i]?.id
      if (id === undefined || !queue.ids.has(id)) bytes += batch.payloads[i]!.byteLength
    }
    return bytes
  }

  /** Whether the batch as a whole would never fit. */
  #outgrows(queue: Queue, batch: PutBatch): boolean {
    const { capacity, capacityBytes } = queue.policy
    if (batch.payloads.length > capacity && this.#fresh(queue, batch) > capacity) return true
    return capacityBytes > 0 && this.#freshBytes(queue, batch) > capacityBytes
  }

  /** Makes room for what has just entered: the oldest waiting tasks of the lowest urgency end. */
  #dropOldest(queue: Queue, now: number): void {
    while (queue.overfull) {
      const task = queue.overflow!.next()
      if (task === undefined) return
      this.#unlistTask(task)
      queue.dropped++
      this.#addReason(task, Reason.dropped, "the queue was full, and newer tasks came")
      this.#end(task, Outcome.dead, task.payload, now)
    }
  }

  #answerPut(session: Session, request: number, queue: Queue, batch: PutBatch): void {
    session.partial?.delete(request)
    if (batch.tasks.length === 0) {
      const closed = queue.closed !== "open"
      const why = refusal(
        closed ? Code.closed : Code.full,
        queue.definition.name,
        batch.payloads.length,
        queue.policy.capacity
      )
      return this.#out.refused(session, request, why)
    }
    while (batch.tasks.length < batch.payloads.length) {
      batch.tasks.push(0)
      batch.statuses.push(queue.closed === "open" ? PutStatus.full : PutStatus.spent)
    }
    this.#out.putItems(session, request, batch.tasks, batch.statuses, batch.firsts)
  }

  #delay(task: Task, at: number): void {
    task.state = State.delayed
    task.at = at
    task.queue.delayed++
    task.due = this.timers.add(at, { _tag: "Due", task })
  }

  #undelay(task: Task): void {
    if (task.due !== undefined) this.timers.remove(task.due)
    task.due = undefined
    task.suspended = false
    task.queue.delayed--
  }

  /** Assumes: the task waits, ready or delayed. */
  #cancel(task: Task, now: number): void {
    this.#unlistTask(task)
    this.#end(task, Outcome.cancelled, task.payload, now)
  }

  /** Takes a living task out of the list that its state puts it in. */
  #unlistTask(task: Task): void {
    if (task.state === State.leased) this.#takeLease(task)
    else if (task.state === State.delayed) this.#undelay(task)
    else task.queue.ready.remove(task)
  }

  /** Cancels a part of what waits in a queue that was closed at once, and goes on in the next round. */
  #sweep(queue: Queue, now: number): void {
    if (queue.sweptTo === undefined || queue.sweepTimer !== undefined) return
    const { last, tasks } = this.tasks.after(queue, queue.sweptTo, Limits.sweepTasksMax)
    for (const task of tasks) if (task.state !== State.leased) this.#cancel(task, now)
    // What is leased is cancelled when it comes back, and so is what is put from now on.
    queue.sweptTo = last
    if (last !== undefined) queue.sweepTimer = this.timers.add(now, { _tag: "Sweep", queue })
  }

  #grant(task: Task, session: Session, now: number): void {
    const { queue } = task
    task.attempt++
    task.leases++
    task.started = false
    task.progress = undefined
    task.holder = session
    task.at = now + queue.policy.leaseMs
    session.leased++
    queue.rates.add(RateKind.leases, 1, now)
    queue.leaseAppend(task)
    if (queue.leaseTimer === undefined) this.#armLeases(queue)
    this.#out.changed("leased", task)
  }

  #armLeases(queue: Queue): void {
    if (queue.leaseHead !== undefined) {
      queue.leaseTimer = this.timers.add(queue.leaseHead.at, { _tag: "Leases", queue })
    }
  }

  /** Keeps one timer on the next lane to open. One that rings too early does no harm: it is set again. */
  #armLanes(queue: Queue): void {
    const at = queue.ready.nextDeadline
    const { laneTimer } = queue
    if (laneTimer !== undefined) {
      if (laneTimer.at <= at) return
      this.timers.remove(laneTimer)
    }
    queue.laneTimer = at === Number.POSITIVE_INFINITY ? undefined : this.timers.add(at, { _tag: "Lanes", queue })
  }

  #slowDown(task: Task, forMs: number | undefined, now: number): void {
    const key = task.options?.key
    if (forMs === undefined || key === undefined) return
    task.queue.ready.slowDown(key, now + forMs)
    this.#out.laneChanged(task.queue, key)
  }

  /** Takes the task out of the lease list, and ends its share of its lane; the caller says what it becomes. */
  #takeLease(task: Task): void {
    task.queue.leaseRemove(task)
    if (this.#oldFences.size > 0) this.#oldFences.delete(task.n)
    task.queue.ready.ended(task)
    if (task.holder !== undefined) task.holder.leased--
    task.holder = undefined
  }

  #extend(task: Task, now: number): void {
    const { queue } = task
    queue.leaseRemove(task)
    task.at = now + queue.policy.leaseMs
    queue.leaseAppend(task)
  }

  /** The task if this session holds it under this fence, else the code to answer. */
  #held(session: Session, n: number, fence: number): Task | number {
    const owner = this.tasks.owner(n)
    if (owner instanceof Task) {
      return owner.state === State.leased && owner.holder === session && this.fence(owner) === fence
        ? owner
        : Code.leaseLost
    }
    return owner === undefined ? Code.leaseLost : Code.alreadyEnded
  }

  /** Under whatever fence. */
  #holds(session: Session, n: number): boolean {
    const owner = this.tasks.owner(n)
    return owner instanceof Task && owner.holder === session
  }

  #leasesOf(queue: Queue, session: Session): ReadonlyArray<Task> {
    const found: Array<Task> = []
    for (let task = queue.leaseHead; task !== undefined; task = task.next) if (task.holder === session) found.push(task)
    return found
  }

  #commitOne(
    session: Session,
    n: number,
    fence: number,
    result: Uint8Array,
    effects: CommitEffects | undefined,
    now: number,
    slowDownMs: number | undefined
  ): number {
    const task = this.#held(session, n, fence)
    if (typeof task === "number") return task
    if (effects === undefined) {
      if (result.byteLength > Limits.payloadBytesMax) return Code.payloadTooLarge
    } else {
      this.objects.beginCheck()
      const why = this.#effectsFault(session, result, effects) ?? this.#durabilityFault([task.queue], [effects])
      if (why !== undefined) return why.code
      this.#apply(effects, now)
    }
    this.#slowDown(task, slowDownMs, now)
    this.#takeLease(task)
    task.queue.rates.add(RateKind.commits, 1, now)
    this.#end(task, Outcome.success, result, now)
    return 0
  }

  #commitTogether(
    session: Session,
    request: number,
    tasks: ReadonlyArray<number>,
    fences: ReadonlyArray<number>,
    results: ReadonlyArray<Uint8Array>,
    effects: ReadonlyArray<CommitEffects | undefined> | undefined,
    now: number
  ): void {
    const found: Array<Task> = []
    this.objects.beginCheck()
    for (let i = 0; i < tasks.length; i++) {
      const task = this.#held(session, tasks[i]!, fences[i]!)
      // The same lease twice: the second time it would be over.
      if (typeof task === "number" || found.includes(task)) {
        const code = typeof task === "number" && task === Code.leaseLost ? Code.leaseLost : Code.alreadyEnded
        return this.#out.refused(session, request, refusal(code, "", tasks[i]!))
      }
      const why = this.#effectsFault(session, results[i]!, effects?.[i])
      if (why !== undefined) return this.#out.refused(session, request, why)
      found.push(task)
    }
    const mixed = this.#durabilityFault(
      found.map(({ queue }) => queue),
      effects ?? []
    )
    if (mixed !== undefined) return this.#out.refused(session, request, mixed)
    for (let i = 0; i < found.length; i++) {
      const brought = effects?.[i]
      if (brought !== undefined) this.#apply(brought, now)
      this.#takeLease(found[i]!)
      this.#end(found[i]!, Outcome.success, results[i]!, now)
    }
    this.#out.done(session, request)
  }

  /** Why one item of a commit cannot be. Changes nothing: what is refused leaves no trace. */
  #effectsFault(session: Session, result: Uint8Array, effects: CommitEffects | undefined): Refusal | undefined {
    const bytes = result.byteLength
    if (bytes > Limits.payloadBytesMax) return refusal(Code.payloadTooLarge, "", bytes, Limits.payloadBytesMax)
    if (effects === undefined) return undefined
    const forbidden = session.forbids?.(effects)
    if (forbidden !== undefined) return forbidden
    for (const { payload, queue: id } of effects.puts) {
      const queue = this.queues[id]
      if (queue === undefined) return refusal(Code.queueNotFound, `#${id}`, id)
      const { payloadBytesMax } = queue.policy
      if (payload.byteLength <= payloadBytesMax) continue
      return refusal(Code.payloadTooLarge, queue.definition.name, payload.byteLength, payloadBytesMax)
    }
    return this.objects.fault(effects)
  }

  /** One commit is as durable as all that it touches: what is only in memory does not mix with what is stored. */
  #durabilityFault(
    queues: ReadonlyArray<Queue>,
    effects: ReadonlyArray<CommitEffects | undefined>
  ): Refusal | undefined {
    const inMemory = queues[0]?.definition.durability === "memory"
    const differs = (of: { readonly durability: string }): boolean => (of.durability === "memory") !== inMemory
    for (const { definition } of queues) if (differs(definition)) return mixed(definition.name)
    for (const each of effects) {
      if (each === undefined) continue
      for (const { queue } of each.puts) {
        const { definition } = this.queues[queue]!
        if (differs(definition)) return mixed(definition.name)
      }
      for (const list of [each.sets, each.counts, each.writes]) {
        for (const { object } of list) {
          const shared = this.objects.all[object]!
          if (differs(shared)) return mixed(shared.name)
        }
      }
    }
    return undefined
  }

  /** Assumes: no fault was found in these effects. */
  #apply(effects: CommitEffects, now: number): void {
    this.objects.apply(effects)
    const { added } = this.objects
    // Children always enter: a crawl that waited for its own children's room would stand still for ever.
    for (const { ifNew, options, payload, queue } of effects.puts) {
      if (ifNew === undefined || added[ifNew] === true) this.#accept(this.queues[queue]!, payload, options, now)
    }
  }

  #fail(task: Task, failure: Failure, now: number): void {
    const { queue } = task
    this.#slowDown(task, failure.slowDownMs, now)
    this.#takeLease(task)
    this.#addReason(task, failure.reason, failure.text)
    queue.rates.add(RateKind.failures, 1, now)
    const final = failure.reason === Reason.killed || failure.reason === Reason.undecodable
    if (final || task.attempt >= queue.policy.maxAttempts) {
      if (failure.error !== undefined) return this.#end(task, Outcome.failure, failure.error, now)
      return this.#end(task, Outcome.dead, task.payload, now)
    }
    if (task.expired) return this.#expire(task, now)
    if (queue.closed === "immediate") return this.#end(task, Outcome.cancelled, task.payload, now)
    const wait = failure.retryAfterMs ?? backoffMs(queue.policy, task.attempt, this.#nextRandom())
    // A back-off gives up its place: whatever is put until then goes first.
    task.place = this.#nextTask
    this.#delay(task, now + wait)
    queue.overflow?.add(task)
    this.#out.changed("delayed", task)
    this.#touched.add(queue)
  }

  #release(task: Task, now: number): void {
    this.#takeLease(task)
    this.#uncounted(task, now)
  }

  /** A handler that only waits holds no lease. Its place is its own still, and nothing is counted. */
  #suspend(task: Task, at: number, now: number): void {
    const { queue } = task
    this.#takeLease(task)
    task.attempt--
    if (task.expired) return this.#expire(task, now)
    if (queue.closed === "immediate") return this.#end(task, Outcome.cancelled, task.payload, now)
    task.suspended = true
    // It came through this far: what loses its workers is elsewhere.
    task.lossesWhileStarted = 0
    this.#delay(task, at)
    queue.overflow?.add(task)
    this.#out.changed("suspended", task)
    this.#touched.add(queue)
  }

  /** Assumes: the task is delayed. */
  #wake(task: Task, now: number): void {
    this.#undelay(task)
    this.#giveBack(task, now)
  }

  /** Gives the attempt back and the task too, but not for ever. */
  #uncounted(task: Task, now: number): void {
    task.attempt--
    if (++task.releases >= Limits.releasesMax) {
      this.#addReason(task, Reason.releasedTooOften, `released ${task.releases} times`)
      return this.#end(task, Outcome.dead, task.payload, now)
    }
    this.#giveBack(task, now)
  }

  /**
   * The lease ran out. Lost before the handler began, as far as we were told: the attempt is given back. Bounded like a
   * release, for a handler that ends its process, or blocks it, before a word of it leaves would come back for ever.
   */
  #lose(task: Task, now: number): void {
    const session = task.holder?.id ?? 0
    this.#takeLease(task)
    if (task.started) {
      task.queue.rates.add(RateKind.failures, 1, now)
      const text = `the worker of session ${session} was lost, or outstayed its lease, while the handler ran`
      this.#addReason(task, Reason.leaseLost, text)
      if (++task.lossesWhileStarted >= Limits.lossesWhileStartedMax) {
        this.#addReason(task, Reason.quarantined, `lost ${task.lossesWhileStarted} times while its handler ran`)
        return this.#end(task, Outcome.dead, task.payload, now)
      }
      if (task.attempt >= task.queue.policy.maxAttempts) return this.#end(task, Outcome.dead, task.payload, now)
      return this.#giveBack(task, now)
    }
    this.#uncounted(task, now)
  }

  /** Puts a task back where it waited, unless its time is over or its queue takes nothing back. */
  #giveBack(task: Task, now: number): void {
    const { queue } = task
    task.suspended = false
    if (task.expired) return this.#expire(task, now)
    if (queue.closed === "immediate") return this.#end(task, Outcome.cancelled, task.payload, now)
    queue.ready.giveBack(task)
    queue.overflow?.add(task)
    this.#out.changed("ready", task)
    this.#touched.add(queue)
  }

  #expire(task: Task, now: number): void {
    this.#addReason(task, Reason.expired, "its time to live is over")
    this.#end(task, Outcome.dead, task.payload, now)
  }

  /**
   * Assumes: the task is in no list. Ensures: exactly one outcome. Its body is the result, the typed error, or, where
   * there is neither, the payload: who reads of a dead task wants to know which one.
   */
  #end(task: Task, outcome: Outcome, body: Uint8Array | undefined, now: number): void {
    const { queue } = task
    task.state = State.ended
    queue.leave(task)
    const ofPayload = outcome === Outcome.dead || outcome === Outcome.cancelled
    const bytes = ofPayload ? task.payloadBytes : (body?.byteLength ?? 0)
    const kept = ofPayload ? task.payload : body
    if (queue.level !== Level.memory) this.#grown.add(queue)
    const cursor = queue.log.append(task.n, outcome, kept, task.reasons, task.attempt, now, bytes)
    this.tasks.end(task.n, queue, cursor)
    if (outcome === Outcome.success) queue.done++
    else if (outcome === Outcome.cancelled) queue.cancelled++
    else {
      queue.dead++
      queue.deadLetters.add(task, cursor, now)
    }
    this.#forget(task, now)
    this.#out.changed("ended", task)
    this.#leave(task)
    const waiting = queue.outcomeWaiters.get(task.n)
    if (waiting !== undefined) {
      queue.outcomeWaiters.delete(task.n)
      for (const waiter of waiting) {
        this.#endWait(waiter)
        this.#out.outcome(waiter.session, waiter.request, queue, cursor)
      }
    }
    this.#touched.add(queue)
  }

  /** An ended task no longer counts as resident: a dead letter keeps its payload within the bounds of the letters. */
  #leave(task: Task): void {
    if (task.payload !== undefined) this.residentBytes -= task.payloadBytes
  }

  /** Assumes: the task is in no list. It is gone, without an outcome; whoever waits for one is told so. */
  #vanish(task: Task, now: number): void {
    const { queue } = task
    task.state = State.ended
    queue.leave(task)
    this.#forget(task, now)
    this.tasks.remove(task.n)
    this.#touched.add(queue)
    const waiting = queue.outcomeWaiters.get(task.n)
    if (waiting === undefined) return
    queue.outcomeWaiters.delete(task.n)
    for (const waiter of waiting) {
      this.#endWait(waiter)
      const why = refusal(Code.taskNotFound, queue.definition.name, task.n)
      this.#out.refused(waiter.session, waiter.request, why)
    }
  }

  /** Drops timers of an ended task and starts the retention of its dedupe id. */
  #forget(task: Task, now: number): void {
    const { options, queue } = task
    if (this.repeats.running.size > 0) this.repeats.ended(task.n)
    if (task.expiry !== undefined) {
      this.timers.remove(task.expiry)
      task.expiry = undefined
    }
    if (options?.id === undefined) return
    const entry = queue.ids.get(options.id)
    if (entry === undefined || entry.n !== task.n) return
    entry.until = now + queue.policy.dedupeKeptMs
    entry.home = task.home
    queue.idsEnded.push(entry)
    this.#forgetIds(queue, now)
  }

  /** Drops the dedupe ids whose retention is over, by age and by number. */
  #forgetIds(queue: Queue, now: number): void {
    const kept = (): number => queue.idsEnded.length - queue.idsEndedFrom
    while (kept() > 0) {
      const oldest = queue.idsEnded[queue.idsEndedFrom]!
      if (kept() <= queue.policy.dedupeKept && oldest.until > now) break
      queue.ids.delete(oldest.id)
      queue.idsEndedFrom++
      queue.dedupeDropped++
    }
    if (queue.idsEndedFrom > 1_024 && queue.idsEndedFrom * 2 > queue.idsEnded.length) {
      queue.idsEnded.splice(0, queue.idsEndedFrom)
      queue.idsEndedFrom = 0
    }
  }

  #evict(queue: Queue, now: number): void {
    queue.log.evict(now, (n) => this.tasks.remove(n))
    if (queue.evictTimer !== undefined) return
    const at = queue.log.nextEviction()
    if (at !== undefined) queue.evictTimer = this.timers.add(at, { _tag: "Outcomes", queue })
  }

  #addReason(task: Task, reason: Reason, text: string): void {
    const entry: AttemptReason = { attempt: task.attempt, reason, text }
    if (task.reasons === undefined) task.reasons = [entry]
    else {
      if (task.reasons.length >= Limits.reasonsKeptMax) task.reasons.shift()
      task.reasons.push(entry)
    }
  }

  // ---- waiting requests

  #wait(waiter: Waiter, waitMs: number | undefined, now: number): Waiter {
    waiter.session.waiting.add(waiter)
    if (waitMs !== undefined) waiter.timer = this.timers.add(now + waitMs, { _tag: "Wait", waiter })
    return waiter
  }

  #endWait(waiter: Waiter): void {
    waiter.ended = true
    waiter.session.waiting.delete(waiter)
    if (waiter.timer !== undefined) this.timers.remove(waiter.timer)
    waiter.timer = undefined
  }

  #unlist(waiter: Waiter): void {
    const { queue } = waiter
    switch (waiter.kind) {
      case "put":
        return removeFrom(queue.putWaiters, waiter)
      case "lease":
        return removeFrom(queue.leaseWaiters, waiter)
      case "join":
        return removeFrom(queue.joinWaiters, waiter)
      case "outcome": {
        const waiting = queue.outcomeWaiters.get(waiter.count)
        if (waiting === undefined) return
        removeFrom(waiting, waiter)
        if (waiting.length === 0) queue.outcomeWaiters.delete(waiter.count)
      }
    }
  }

  #timeOut(waiter: Waiter): void {
    const { queue, request, session } = waiter
    this.#endWait(waiter)
    this.#unlist(waiter)
    switch (waiter.kind) {
      case "put":
        // What waited behind it may fit where it did not.
        this.#touched.add(queue)
        return this.#answerPut(session, request, queue, waiter.put!)
      case "lease":
        return this.#out.refused(session, request, refusal(Code.empty, queue.definition.name))
      case "join":
      case "outcome":
        return this.#out.refused(session, request, refusal(Code.timedOut, queue.definition.name, waiter.count))
    }
  }

  /** Drops everything that the session waits for or subscribes to. Nothing is handed to it any more. */
  #silence(session: Session, puts: boolean): void {
    for (const waiter of session.waiting) {
      if (waiter.kind === "put" && !puts) continue
      this.#endWait(waiter)
      this.#unlist(waiter)
      this.#touched.add(waiter.queue)
    }
    for (const id of [...session.leaseStreams.keys(), ...session.outcomeStreams.keys()]) this.unsubscribe(session, id)
  }

  // ---- handing out

  /** Lets waiting puts in while there is room, in their order. */
  #admit(queue: Queue, now: number): void {
    while (queue.putWaiters.length > 0) {
      const waiter = queue.putWaiters[0]!
      const batch = waiter.put!
      const entered = batch.tasks.length
      this.#enter(queue, batch, now)
      if (batch.tasks.length < batch.payloads.length) {
        if (batch.tasks.length > entered) this.#out.putProgress(waiter.session, waiter.request, batch)
        return
      }
      queue.putWaiters.shift()
      this.#endWait(waiter)
      this.#answerPut(waiter.session, waiter.request, queue, batch)
    }
  }

  /** Hands out, lets in what then has room, and again: a loop, for a small queue may turn over thousands of times. */
  #serve(queue: Queue, now: number): void {
    do this.#handOut(queue, now)
    while (this.#admitMore(queue, now))
  }

  /** Whether room came, and something that waited to be put has taken it. */
  #admitMore(queue: Queue, now: number): boolean {
    if (queue.putWaiters.length === 0) return false
    const { puts } = queue
    this.#admit(queue, now)
    return queue.puts > puts
  }

  #handOut(queue: Queue, now: number): void {
    const { ready } = queue
    if (!queue.gives) {
      // What opens meanwhile is seen all the same: its time would stay the next deadline, and call for rounds without end.
      ready.open(now)
      return
    }
    while (ready.open(now) && queue.leaseWaiters.length > 0) {
      const waiter = queue.leaseWaiters.shift()!
      this.#endWait(waiter)
      this.#answerLease(waiter.session, waiter.request, queue, waiter.count, now)
    }
    while (ready.open(now)) {
      let open = 0
      let given = 0
      for (const stream of queue.leaseStreams) if (stream.credit > 0 && !stream.session.congested) open++
      if (open === 0) break
      // An even share each, in one run: every stream gets work, and its tasks travel in one message.
      const share = Math.ceil(ready.leasable / open)
      for (let i = 0; i < queue.leaseStreams.length && ready.leasable > 0; i++) {
        queue.leaseTurn = (queue.leaseTurn + 1) % queue.leaseStreams.length
        const stream = queue.leaseStreams[queue.leaseTurn]!
        if (stream.session.congested) continue
        for (let give = Math.min(share, stream.credit); give > 0 && !stream.session.congested; give--) {
          const task = ready.pop(now, stream.credit <= stream.prefetch)
          if (task === undefined) break
          given++
          stream.credit--
          this.#grant(task, stream.session, now)
          this.#out.deliver(stream, task)
        }
      }
      // The next task's lane has limits: it waits for a free handler, here rather than behind a busy one.
      if (given === 0) break
    }
  }

  #publish(queue: Queue): void {
    const streams = queue.outcomeStreams
    for (let i = 0; i < streams.length; i++) {
      const stream = streams[i]!
      if (stream.credit <= 0 || stream.session.congested || stream.cursor >= queue.log.next) continue
      if (stream.cursor < queue.log.first) {
        this.#out.outcomesGap(stream, queue.log.first)
        this.unsubscribe(stream.session, stream.id)
        // The others have their turn before the log lets go of anything: what is new in this round may leave with it.
        i--
        continue
      }
      const count = Math.min(stream.credit, queue.log.next - stream.cursor)
      const taken = this.#out.outcomes(stream, stream.cursor, count)
      stream.cursor += taken
      stream.credit -= taken
    }
  }

  /** Nothing is left to do: joins are answered, and takes of a closed queue learn that nothing will come. */
  #settle(queue: Queue): void {
    for (const waiter of queue.joinWaiters.splice(0)) {
      this.#endWait(waiter)
      this.#out.done(waiter.session, waiter.request)
    }
    if (queue.closed === "open") return
    for (const waiter of queue.leaseWaiters.splice(0)) {
      this.#endWait(waiter)
      this.#out.refused(waiter.session, waiter.request, refusal(Code.closed, queue.definition.name))
    }
  }

  #answerLease(session: Session, request: number, queue: Queue, count: number, now: number): void {
    const tasks: Array<Task> = []
    let bytes = 0
    while (tasks.length < count && bytes < Limits.batchBytesMax) {
      const task = queue.ready.first(now)
      if (task === undefined) break
      bytes += task.payloadBytes + progressBytesOf(task)
      // The first may be as large as a queue allows; with others beside it, it would not fit one frame.
      if (tasks.length > 0 && bytes > Limits.batchBytesMax) break
      queue.ready.pop(now)
      this.#grant(task, session, now)
      tasks.push(task)
    }
    if (queue.putWaiters.length > 0) this.#touched.add(queue)
    this.#out.leased(session, request, tasks)
  }

  #exhausted(queue: Queue): boolean {
    return queue.closed === "immediate" || (queue.closed === "drain" && queue.unfinished === 0)
  }

  #answerItems(session: Session, request: number, codes: ReadonlyArray<number>): void {
    if (codes.every((code) => code === 0)) this.#out.done(session, request)
    else this.#out.items(session, request, codes)
  }

  /** xorshift32 (Marsaglia 2003): enough for jitter, and the same for the same seed. */
  #nextRandom(): number {
    let x = this.#random === 0 ? 0x9e3779b9 : this.#random
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.#random = x >>> 0
    return this.#random / 0x1_0000_0000
  }
}

const mixed = (name: string): Refusal => refusal(Code.durabilityMixed, name)

const removeFrom = <A>(list: Array<A>, item: A): void => {
  const at = list.indexOf(item)
  if (at >= 0) list.splice(at, 1)
}
