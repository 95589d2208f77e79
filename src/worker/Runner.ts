/**
 * Runs the tasks that one subscription delivers: at most `concurrency` handlers at a time, every end reported once.
 *
 *     delivered -> buffered -> running -> ended -> reported (commit, fail, release) -> answered
 *
 * One fiber per handler and nothing else per task: ends collect and travel in one message per write. A report that a
 * lost connection left unanswered is sent again when the session resumes; its fence makes the second one harmless.
 */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Tracer from "effect/Tracer"
import type { ClientShape, OpenableQueue } from "../client/Client.ts"
import { CodecFault } from "../client/Codec.ts"
import { Collected, type Collecting } from "../client/CommitEffects.ts"
import type { Resident, Settle } from "../client/Link.ts"
import { type TaskQueue, taskIdOf } from "../client/TaskQueue.ts"
import { isUntraced, spanOf } from "../client/Trace.ts"
import { DurabilityMixed, type PayloadInvalid, type PayloadTooLarge, StepChanged } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import { Code } from "../model/Refusal.ts"
import { Reason } from "../model/Task.ts"
import type { CommitEffects, Failure } from "../wire/ClientMessages.ts"
import type { Report } from "../wire/ProgressMessages.ts"
import type { Delivery, Entry } from "../wire/Vocabulary.ts"
import { ClientType as C, ManagerType as M } from "../wire/Vocabulary.ts"
import { Prefetch } from "./Prefetch.ts"
import type { Member, Slots } from "./Slots.ts"
import { CurrentTask, forMsOf, isStep, Steps, type Suspension } from "./Steps.ts"
import {
  AttemptTimedOut,
  boundedMs,
  type Control,
  isLostContact,
  Kill,
  type PutChildError,
  Release,
  RetryAfter,
  type Task,
  textOf
} from "./Task.ts"

export type Handler<P, R, E, Env, C = unknown> = (
  task: Task<P, C>
) => Effect.Effect<R, E | Control | PutChildError, Env>

export interface RunnerOptions {
  readonly slots: Slots
  /** Share of the slots when other queues want them too. */
  readonly weight: number
  /** Undefined: it adapts. */
  readonly prefetch: number | undefined
  /** Of one attempt. */
  readonly timeoutMs: number | undefined
  /** Wraps every handler. */
  readonly around: <A, E, R>(handled: Effect.Effect<A, E, R>, attempt: number) => Effect.Effect<A, E, R>
  readonly clock: Clock.Clock
}

interface Running {
  readonly task: number
  readonly fence: number
  /** What joins the commit; made by the first use. */
  collected: Collected | undefined
  /** What the handler asked for its lane. */
  slowDownMs: number | undefined
  fiber: Fiber.Fiber<unknown, unknown> | undefined
  /** What earlier attempts have recorded. */
  readonly entries: ReadonlyArray<Entry> | undefined
  /** Made by its first use. */
  steps: Steps | undefined
  /** The handler only waits: its interruption ends the attempt so. */
  suspension: Suspension | undefined
  /** What the next heartbeat says of it, and the heartbeat that has said it last. */
  progress: number | undefined
  checkpoint: Uint8Array | undefined
  reportedBy: number
  /** The lease is lost: whatever the handler ends with is not reported. */
  lost: boolean
}

/** How a task ended, until the manager has answered. */
type End = {
  readonly task: number
  readonly fence: number
  /** A checkpoint that no heartbeat has carried yet: it goes first. */
  checkpoint?: Uint8Array | undefined
} & (
  | {
      readonly _tag: "Commit"
      readonly result: Uint8Array
      readonly effects: CommitEffects | undefined
      readonly effectBytes: number
      slowDownMs?: number
    }
  | { readonly _tag: "Fail"; readonly failure: Failure }
  | { readonly _tag: "Release" }
  | { readonly _tag: "Suspend"; readonly suspension: Suspension }
)

export class Runner<P, R, E, QC, Env> implements Resident, Member {
  readonly #client: ClientShape
  readonly #queue: TaskQueue<P, R, E, QC>
  readonly #handler: Handler<P, R, E, Env, QC>
  readonly #options: RunnerOptions
  readonly #context: Context.Context<Env>
  readonly #log: (text: string) => void
  readonly #running = new Map<number, Running>()
  /** Ends that wait to be written, and ends that wait for their answer. */
  #ends: Array<End> = []
  readonly #reported = new Set<ReadonlyArray<End>>()
  #buffer: Array<Delivery> = []
  #bufferFrom = 0
  #unannounced: Array<Running> = []
  #stream = -1
  /** Credit that was freed and is not said yet; negative: so much is to be kept back. */
  #creditDue = 0
  readonly #prefetch: Prefetch
  /** What the manager was told last. */
  #prefetchTold = 0
  #endedSince = 0
  #writing = false
  #draining = false
  #idle: (() => void) | undefined = undefined
  /** Deliveries so far, and how many there were when the stream was last found to be there. */
  #deliveries = 0
  #deliveriesSeen = 0
  /** Those that have something to say with the next heartbeat. */
  readonly #reporting = new Set<Running>()

  constructor(
    client: ClientShape,
    queue: TaskQueue<P, R, E, QC>,
    handler: Handler<P, R, E, Env, QC>,
    options: RunnerOptions,
    context: Context.Context<Env>,
    log: (text: string) => void
  ) {
    this.#client = client
    this.#queue = queue
    this.#handler = handler
    this.#options = options
    this.#context = context
    this.#prefetch = new Prefetch(options.prefetch, options.slots.total)
    options.slots.add(this)
    this.#log = log
  }

  // ---- life

  /** Subscribes with all the credit that is free. `settled` hears how it went. */
  subscribe(queueId: number, settled: Settle): void {
    const { link } = this.#client
    const concurrency = this.#options.slots.total
    const { target } = this.#prefetch
    const free = concurrency + target - this.#running.size - this.#buffered
    const credit = Math.max(0, Math.min(Limits.creditMax, free))
    // What becomes free from here on, be it before the answer, is credit that this subscription has not counted.
    // Of the credit this much is no free handler: a task of a lane with limits would only wait in the buffer.
    const prefetch = Math.max(0, Math.min(target, Limits.creditMax - concurrency))
    this.#prefetchTold = prefetch
    // What does not fit now is kept back from what ends.
    this.#creditDue = Math.min(0, free)
    link.ask({ type: C.subscribe, request: link.nextRequest, queue: queueId, credit, prefetch }, (answer) => {
      if (!(answer instanceof Error) && answer.type === M.streaming) {
        this.#stream = answer.stream
        if (this.#creditDue > 0) this.#schedule()
        link.receive(answer.stream, { deliver: (items) => this.#deliver(items) })
        if (this.#draining) this.#unsubscribe()
      }
      settled(answer)
    })
  }

  /** Lets go of the slots: for good. */
  leave(): void {
    this.#options.slots.remove(this)
    // What it held is free for the others.
    this.#options.slots.fill()
  }

  /** Takes nothing new, gives back what has not begun, and calls `idle` when every handler has ended. */
  drain(idle: () => void): void {
    this.#draining = true
    this.#idle = idle
    this.#unsubscribe()
    for (let i = this.#bufferFrom; i < this.#buffer.length; i++) {
      const { fence, task } = this.#buffer[i]!
      this.#ends.push({ _tag: "Release", task, fence })
    }
    this.#buffer = []
    this.#bufferFrom = 0
    this.#schedule()
    this.#checkIdle()
  }

  /** Interrupts every handler; their tasks are released. */
  interruptAll(): void {
    for (const { fiber } of [...this.#running.values()]) fiber?.interruptUnsafe()
  }

  /** Whether all ends have been answered (or there is nobody to answer). */
  get settled(): boolean {
    return !this.#client.link.connected || (this.#ends.length === 0 && this.#reported.size === 0)
  }

  get subscribed(): boolean {
    return this.#stream >= 0
  }

  get active(): number {
    return this.#running.size
  }

  /**
   * Whether nothing has come since the last call, though a handler is free and its credit is with the manager. Looked at
   * now and then: the queue may be empty, its lanes blocked, or our stream forgotten.
   */
  get unfed(): boolean {
    const fed = this.#deliveries > this.#deliveriesSeen
    this.#deliveriesSeen = this.#deliveries
    return !fed && this.#stream >= 0 && !this.#draining && this.#buffered < this.#options.slots.free
  }

  /**
   * Takes a task beside the stream, for a moment: true if there was one, which the stream should have brought. It goes
   * back, uncounted.
   */
  probe(queueId: number, forgotten: () => void): void {
    const { link } = this.#client
    const before = this.#deliveries
    const ask = { type: C.lease, request: link.nextRequest, queue: queueId, count: 1, waitMs: 0, get: false } as const
    link.ask(
      ask,
      (answer) => {
        if (answer instanceof Error || answer.type !== M.leased || answer.items.length === 0) return
        for (const { fence, task } of answer.items) this.#ends.push({ _tag: "Release", task, fence })
        this.#schedule()
        // It may have come just now, and to both.
        if (this.#deliveries === before) forgotten()
      },
      true
    )
  }

  // ---- resident of the link

  held(into: Array<number>): void {
    for (const { fence, lost, task } of this.#running.values()) if (!lost) into.push(task, fence)
    for (let i = this.#bufferFrom; i < this.#buffer.length; i++)
      into.push(this.#buffer[i]!.task, this.#buffer[i]!.fence)
    for (const { fence, task } of this.#ends) into.push(task, fence)
    // A report under way may be done already; naming its lease keeps it from being given back before it arrives.
    if (this.#client.link.connected) return
    for (const ends of this.#reported) for (const { fence, task } of ends) into.push(task, fence)
  }

  reports(into: Array<Report>, sequence: number): void {
    // What others have to say goes into the same message.
    let bytes = into.reduce((sum, { checkpoint }) => sum + (checkpoint?.byteLength ?? 0), 0)
    for (const running of this.#reporting) {
      const { checkpoint, fence, lost, progress, task } = running
      if (lost) {
        this.#reporting.delete(running)
        continue
      }
      // Said already, and not answered yet.
      if (running.reportedBy > 0) continue
      bytes += checkpoint?.byteLength ?? 0
      // What does not fit waits for the next one.
      if (into.length >= Limits.batchItemsMax || (bytes > Limits.batchBytesMax && into.length > 0)) return
      running.reportedBy = sequence
      into.push({ task, fence, progress, checkpoint })
    }
  }

  heard(sequence: number, unsaved: ReadonlyArray<number>): void {
    for (const running of this.#reporting) {
      // Something newer may have been said since: then it is said again.
      if (running.reportedBy !== sequence) continue
      running.progress = undefined
      if (unsaved.includes(running.task)) {
        running.reportedBy = 0
        continue
      }
      running.checkpoint = undefined
      this.#reporting.delete(running)
    }
  }

  /** A part of what a handler has done for itself. */
  report(running: Running, progress: number | undefined, checkpoint: Uint8Array | undefined): void {
    if (progress !== undefined) running.progress = progress
    if (checkpoint !== undefined) running.checkpoint = checkpoint
    running.reportedBy = 0
    // To the end: whoever saves often does not go before the others.
    this.#reporting.delete(running)
    this.#reporting.add(running)
  }

  lost(tasks: ReadonlySet<number>): void {
    for (const task of tasks) {
      const running = this.#running.get(task)
      if (running !== undefined) this.lose(running)
    }
    if (this.#buffered > 0) {
      const kept = this.#buffer.slice(this.#bufferFrom).filter(({ task }) => !tasks.has(task))
      this.#creditDue += this.#buffered - kept.length
      this.#buffer = kept
      this.#bufferFrom = 0
    }
    this.#ends = this.#ends.filter(({ task }) => !tasks.has(task))
  }

  /** Its handler is interrupted, and whatever it ends with is not reported. */
  lose(running: Running): void {
    running.lost = true
    running.fiber?.interruptUnsafe()
  }

  suspend(running: Running, suspension: Suspension): void {
    if (running.lost || running.suspension !== undefined) return
    running.suspension = suspension
    running.fiber?.interruptUnsafe()
  }

  down(): void {
    this.#stream = -1
    this.#writing = false
  }

  up(resumed: boolean): void {
    for (const running of this.#reporting) running.reportedBy = 0
    if (resumed) this.#ends = [...this.#reported].flat().concat(this.#ends)
    else {
      // Another session holds none of our leases: the tasks will be delivered again, to whoever has credit.
      this.lost(new Set([...this.#running.keys(), ...this.#buffer.map(({ task }) => task)]))
      this.#ends = []
    }
    this.#reported.clear()
    // What has begun without a connection was not said either.
    if (this.#ends.length > 0 || this.#unannounced.length > 0) this.#schedule()
  }

  // ---- running

  get weight(): number {
    return this.#options.weight
  }

  get waiting(): boolean {
    return this.#bufferFrom < this.#buffer.length && !this.#draining
  }

  startNext(): void {
    const item = this.#buffer[this.#bufferFrom++]!
    if (this.#bufferFrom === this.#buffer.length) {
      this.#buffer = []
      this.#bufferFrom = 0
    }
    this.#start(item)
  }

  get #buffered(): number {
    return this.#buffer.length - this.#bufferFrom
  }

  #deliver(items: ReadonlyArray<Delivery>): void {
    this.#deliveries++
    if (this.#draining) {
      for (const { fence, task } of items) this.#ends.push({ _tag: "Release", task, fence })
      return this.#schedule()
    }
    if (this.#buffered === 0) {
      this.#buffer = items.slice()
      this.#bufferFrom = 0
    } else for (const item of items) this.#buffer.push(item)
    this.#options.slots.fill()
  }

  #start(item: Delivery): void {
    const payload = this.#queue.payload.decode(item.payload)
    if (Exit.isFailure(payload)) {
      const fault = payload.cause.reasons.find(Cause.isFailReason)?.error
      const text = fault === undefined ? "the payload does not decode" : `payload at ${fault.path}: ${fault.reason}`
      return this.#end({ ...failureOf(item, Reason.undecodable, text) })
    }
    const { fence, task } = item
    const running: Running = {
      task,
      fence,
      collected: undefined,
      slowDownMs: undefined,
      fiber: undefined,
      entries: item.entries,
      steps: undefined,
      suspension: undefined,
      progress: undefined,
      checkpoint: undefined,
      reportedBy: 0,
      lost: false
    }
    // Suspended: a handler that throws before it has made its effect ends as a defect like any other.
    const { clock, timeoutMs } = this.#options
    const deadline = timeoutMs === undefined ? undefined : clock.currentTimeMillisUnsafe() + timeoutMs
    const current = new RunningTask(this, this.#client, this.#queue, item, payload.value, running, deadline)
    const handled = this.#options.around(
      Effect.suspend(() => this.#handler(current)),
      item.attempt
    )
    const run = Effect.runForkWith(Context.add(this.#context, CurrentTask, current))
    const fiber = run(item.trace === undefined ? handled : this.#traced(handled, item, item.trace))
    const exit = fiber.pollUnsafe()
    // Many handlers end without waiting for anything: they never show up among the running.
    if (exit !== undefined) return this.#end(this.#endOf(running, exit))
    running.fiber = fiber
    // We outstayed an earlier lease of the same task (a blocked event loop) and have it again: only this one counts.
    const outstayed = this.#running.get(task)
    if (outstayed !== undefined) this.lose(outstayed)
    this.#running.set(task, running)
    this.#unannounced.push(running)
    this.#schedule()
    fiber.addObserver((exit) => this.#ended(running, exit))
  }

  /** As a span of the trace that its task came with; without a tracer what the handler puts belongs to that trace still. */
  #traced<A, F, S>(handled: Effect.Effect<A, F, S>, item: Delivery, trace: string): Effect.Effect<A, F, S> {
    const parent = spanOf(trace)
    if (parent === undefined) return handled
    const { name } = this.#queue.definition
    return Effect.withFiber((fiber): Effect.Effect<A, F, S> => {
      if (isUntraced(fiber)) return Effect.provideService(handled, Tracer.ParentSpan, parent)
      const id = taskIdOf(this.#client.link.session?.prefix ?? "", item.task)
      const message = { "messaging.destination.name": name, "messaging.message.id": id }
      const attributes = { "messaging.system": "millrace", ...message, "millrace.attempt": item.attempt }
      return Effect.withSpan(handled, `process ${name}`, { parent, kind: "consumer", attributes }) as Effect.Effect<
        A,
        F,
        S
      >
    })
  }

  #ended(running: Running, exit: Exit.Exit<R, E | Control | PutChildError>): void {
    if (this.#running.get(running.task) === running) this.#running.delete(running.task)
    if (running.lost) {
      this.#reporting.delete(running)
      this.#creditDue++
      this.#schedule()
    } else this.#end(this.#endOf(running, exit))
    this.#options.slots.fill()
    this.#checkIdle()
  }

  #endOf(running: Running, exit: Exit.Exit<R, E | Control | PutChildError>): End {
    const end = this.#endingOf(running, exit)
    const { checkpoint, slowDownMs } = running
    this.#reporting.delete(running)
    if (checkpoint !== undefined && end._tag !== "Commit") end.checkpoint = checkpoint
    if (slowDownMs === undefined || end._tag === "Release" || end._tag === "Suspend") return end
    if (end._tag === "Commit") return { ...end, slowDownMs }
    const longest = Math.max(slowDownMs, end.failure.slowDownMs ?? 0)
    return { ...end, failure: { ...end.failure, slowDownMs: longest } }
  }

  #endingOf(running: Running, exit: Exit.Exit<R, E | Control | PutChildError>): End {
    const { collected, entries, fence, steps, suspension, task } = running
    if (Exit.isSuccess(exit)) {
      const unreached = steps === undefined ? entries?.find(([name]) => isStep(name))?.[0] : steps.unreached
      if (unreached !== undefined) {
        const changed = new StepChanged({
          step: unreached,
          reason: "it is recorded, and the handler did not come to it"
        })
        return failureOf(running, Reason.defect, changed.message)
      }
      const result = this.#queue.result.encode(exit.value)
      if (result instanceof CodecFault) {
        return failureOf(
          running,
          Reason.defect,
          `the result does not fit its Schema at ${result.path}: ${result.reason}`
        )
      }
      if (result.byteLength > Limits.payloadBytesMax) {
        return failureOf(
          running,
          Reason.defect,
          `the result has ${result.byteLength} bytes, at most ${Limits.payloadBytesMax}`
        )
      }
      return {
        _tag: "Commit",
        task,
        fence,
        result,
        effects: collected?.effects,
        effectBytes: collected?.bytes ?? 0
      }
    }
    const { cause } = exit
    const failed = cause.reasons.find(Cause.isFailReason)
    if (failed !== undefined) return this.#failedEnd(running, failed.error)
    if (Cause.hasInterruptsOnly(cause)) {
      return suspension === undefined ? { _tag: "Release", task, fence } : { _tag: "Suspend", task, fence, suspension }
    }
    return failureOf(running, Reason.defect, Cause.pretty(cause))
  }

  #failedEnd(running: Running, error: E | Control | PutChildError): End {
    const { fence, task } = running
    if (error instanceof AttemptTimedOut) return failureOf(running, Reason.timeout, error.message)
    if (error instanceof Kill) return failureOf(running, Reason.killed, error.reason, this.#typed(error.error))
    if (error instanceof Release) return { _tag: "Release", task, fence }
    if (error instanceof RetryAfter) {
      const end = failureOf(running, Reason.failed, error.reason, this.#typed(error.error), error.ms)
      return error.lane === true ? { ...end, failure: { ...end.failure, slowDownMs: error.ms } } : end
    }
    if (isLostContact(error)) return { _tag: "Release", task, fence }
    const bytes = this.#queue.error.encode(error as E)
    const text = textOf(error)
    if (bytes instanceof CodecFault) {
      return failureOf(running, Reason.defect, `a failure outside the queue's error Schema: ${text}`)
    }
    // The manager would not take it: the attempt fails all the same, and its text stays.
    const fits = bytes.byteLength <= Limits.payloadBytesMax
    return failureOf(running, Reason.failed, text, fits ? bytes : undefined)
  }

  /** The error of a control as the queue's Schema has it; one that does not fit is left out, its reason stays. */
  #typed(error: unknown): Uint8Array | undefined {
    if (error === undefined) return undefined
    const bytes = this.#queue.error.encode(error as E)
    return bytes instanceof CodecFault || bytes.byteLength > Limits.payloadBytesMax ? undefined : bytes
  }

  // ---- reporting

  #end(end: End): void {
    this.#ends.push(end)
    this.#creditDue++
    this.#endedSince++
    this.#schedule()
  }

  #schedule(): void {
    if (this.#writing || !this.#client.link.connected) return
    this.#writing = true
    this.#client.link.beforeFlush(() => this.#write())
  }

  /** Writes all ends as a few messages, then the credit they freed. */
  #write(): void {
    this.#writing = false
    const { link } = this.#client
    const started: Array<number> = []
    for (const { fence, lost, task } of this.#unannounced) {
      if (!lost && this.#running.has(task)) started.push(task, fence)
    }
    this.#unannounced = []
    if (started.length > 0) link.tell({ type: C.started, held: started })
    const ends = this.#ends
    this.#ends = []
    this.#saveLast(ends)
    let commits: Array<Extract<End, { _tag: "Commit" }>> = []
    let bytes = 0
    const fails: Array<Extract<End, { _tag: "Fail" }>> = []
    const releases: Array<End> = []
    const suspends: Array<Extract<End, { _tag: "Suspend" }>> = []
    for (const end of ends) {
      if (end._tag === "Fail") fails.push(end)
      else if (end._tag === "Release") releases.push(end)
      else if (end._tag === "Suspend") suspends.push(end)
      else {
        const size = end.result.byteLength + end.effectBytes
        if (commits.length > 0 && (commits.length >= Limits.batchItemsMax || bytes + size > Limits.batchBytesMax)) {
          this.#commit(commits)
          commits = []
          bytes = 0
        }
        commits.push(end)
        bytes += size
      }
    }
    if (commits.length > 0) this.#commit(commits)
    let failing: typeof fails = []
    let failingBytes = 0
    for (const end of fails) {
      const size = 64 + 3 * end.failure.text.length + (end.failure.error?.byteLength ?? 0)
      if (failing.length > 0 && (failing.length >= 128 || failingBytes + size > Limits.batchBytesMax)) {
        this.#fail(failing)
        failing = []
        failingBytes = 0
      }
      failing.push(end)
      failingBytes += size
    }
    if (failing.length > 0) this.#fail(failing)
    for (let i = 0; i < releases.length; i += Limits.batchItemsMax)
      this.#release(releases.slice(i, i + Limits.batchItemsMax))
    for (let i = 0; i < suspends.length; i += Limits.batchItemsMax)
      this.#suspend(suspends.slice(i, i + Limits.batchItemsMax))
    if (this.#stream >= 0) this.#giveCredit()
  }

  #giveCredit(): void {
    const before = this.#prefetch.target
    this.#prefetch.look(this.#options.clock.currentTimeMillisUnsafe(), this.#endedSince)
    this.#endedSince = 0
    const { target } = this.#prefetch
    this.#creditDue += target - before
    const credit = Math.max(0, this.#creditDue)
    // What is still to be kept back is ahead of the handlers, too.
    const ahead = target + credit - this.#creditDue
    const prefetch = Math.min(ahead, Math.max(0, Limits.creditMax - this.#options.slots.total))
    if (credit === 0 && prefetch === this.#prefetchTold) return
    const said = prefetch === this.#prefetchTold ? undefined : prefetch
    this.#client.link.tell({ type: C.credit, stream: this.#stream, credit, prefetch: said })
    this.#prefetchTold = prefetch
    this.#creditDue -= credit
  }

  #commit(ends: ReadonlyArray<Extract<End, { _tag: "Commit" }>>): void {
    const { link } = this.#client
    const anyEffects = ends.some(({ effects }) => effects !== undefined)
    const slowDowns = ends.some(({ slowDownMs }) => slowDownMs !== undefined)
    link.ask(
      {
        type: C.commit,
        request: link.nextRequest,
        tasks: ends.map(({ task }) => task),
        fences: ends.map(({ fence }) => fence),
        results: ends.map(({ result }) => result),
        effects: anyEffects ? ends.map(({ effects }) => effects) : undefined,
        slowDowns: slowDowns ? ends.map(({ slowDownMs }) => slowDownMs) : undefined
      },
      this.#settling(ends)
    )
  }

  #fail(ends: ReadonlyArray<Extract<End, { _tag: "Fail" }>>): void {
    const { link } = this.#client
    link.ask(
      {
        type: C.fail,
        request: link.nextRequest,
        tasks: ends.map(({ task }) => task),
        fences: ends.map(({ fence }) => fence),
        failures: ends.map(({ failure }) => failure)
      },
      this.#settling(ends)
    )
  }

  #release(ends: ReadonlyArray<End>): void {
    const { link } = this.#client
    const held = ends.flatMap(({ fence, task }) => [task, fence])
    link.ask({ type: C.release, request: link.nextRequest, held }, this.#settling(ends))
  }

  #suspend(ends: ReadonlyArray<Extract<End, { _tag: "Suspend" }>>): void {
    const { link } = this.#client
    const items = ends.map(({ fence, suspension, task }) => {
      return { task, fence, forMs: forMsOf(suspension), seen: suspension.seen }
    })
    link.ask({ type: C.suspend, request: link.nextRequest, items }, this.#settling(ends))
  }

  /** Checkpoints that no heartbeat has carried yet go before the ends of their attempts. */
  #saveLast(ends: ReadonlyArray<End>): void {
    let reports: Array<Report> = []
    let bytes = 0
    for (const { checkpoint, fence, task } of ends) {
      if (checkpoint === undefined) continue
      reports.push({ task, fence, progress: undefined, checkpoint })
      bytes += checkpoint.byteLength
      if (reports.length < Limits.batchItemsMax && bytes < Limits.batchBytesMax) continue
      this.#client.link.report(reports)
      reports = []
      bytes = 0
    }
    if (reports.length > 0) this.#client.link.report(reports)
  }

  #settling(ends: ReadonlyArray<End>): Settle {
    this.#reported.add(ends)
    return (answer) => {
      // The connection broke: `up` sends them again, or drops them with their leases.
      if (answer instanceof Error) return
      this.#reported.delete(ends)
      if (answer.type === M.refused) this.#log(`the manager refused a report with code ${answer.code}`)
      else if (answer.type === M.items) {
        const refused = answer.codes.filter((code) => code !== 0)
        for (let i = 0; i < ends.length; i++) {
          const code = answer.codes[i] ?? 0
          if (code === 0 || code === Code.leaseLost || code === Code.alreadyEnded) continue
          // We still hold the lease: say so, or it would only run out. After a conflict another attempt reads anew.
          const conflict = code === Code.conflict
          const text = conflict
            ? "a dict entry has another version"
            : `the manager refused the report with code ${code}`
          this.#ends.push(failureOf(ends[i]!, conflict ? Reason.failed : Reason.defect, text))
          this.#schedule()
        }
        this.#log(`${refused.length} reports came too late or were refused (codes ${[...new Set(refused)].join(", ")})`)
      }
      this.#checkIdle()
    }
  }

  #unsubscribe(): void {
    const { link } = this.#client
    if (this.#stream < 0 || !link.connected) return
    link.ask({ type: C.unsubscribe, request: link.nextRequest, stream: this.#stream }, () => {})
    // What is on its way still arrives, and is released.
  }

  #checkIdle(): void {
    if (this.#draining && this.#running.size === 0) this.#idle?.()
  }
}

const failureOf = (
  { fence, task }: { readonly task: number; readonly fence: number },
  reason: Reason,
  text: string,
  error?: Uint8Array,
  retryAfterMs?: number
): Extract<End, { _tag: "Fail" }> => ({
  _tag: "Fail",
  task,
  fence,
  failure: { reason, error, text: text.slice(0, Limits.reasonBytesMax / 4), retryAfterMs }
})

/** What a running task needs of its queue. */
type Checkpointed<C> = OpenableQueue & Pick<TaskQueue<never, never, never, C>, "decodeCheckpoint" | "encodeCheckpoint">

/** The handler's view; a class, so that a task costs one object and no closures. */
class RunningTask<P, QC> implements Task<P, QC> {
  readonly payload: P
  readonly attempt: number
  readonly key: string | undefined
  readonly trace: string | undefined
  readonly deadline: number | undefined
  readonly #runner: Pick<Runner<P, never, never, QC, never>, "report" | "lose" | "suspend">
  readonly #queue: Checkpointed<QC>
  readonly #client: ClientShape
  readonly #checkpoint: Uint8Array | undefined
  readonly #running: Running

  constructor(
    runner: Pick<Runner<P, never, never, QC, never>, "report" | "lose" | "suspend">,
    client: ClientShape,
    queue: Checkpointed<QC>,
    item: Delivery,
    payload: P,
    running: Running,
    deadline: number | undefined
  ) {
    this.#runner = runner
    this.#queue = queue
    this.payload = payload
    this.attempt = item.attempt
    this.key = item.key
    this.trace = item.trace
    this.#client = client
    this.#checkpoint = item.checkpoint
    this.#running = running
    this.deadline = deadline
  }

  get checkpoint(): QC | undefined {
    return this.#queue.decodeCheckpoint(this.#checkpoint)
  }

  /** @internal For `Step`. */
  get steps(): Steps {
    const running = this.#running
    const { fence, task } = running
    running.steps ??= new Steps(
      {
        client: this.#client,
        task,
        fence,
        suspend: (suspension) => this.#runner.suspend(running, suspension),
        lost: () => this.#runner.lose(running)
      },
      running.entries
    )
    return running.steps
  }

  progress(fraction: number): Effect.Effect<void> {
    return Effect.sync(() => {
      const part = Number.isNaN(fraction) ? 0 : Math.min(1, Math.max(0, fraction))
      this.#runner.report(this.#running, Math.round(part * Limits.progressWhole), undefined)
    })
  }

  saveCheckpoint(checkpoint: QC): Effect.Effect<void, PayloadInvalid | PayloadTooLarge> {
    return Effect.suspend(() => {
      const bytes = this.#queue.encodeCheckpoint(checkpoint)
      if (bytes instanceof Error) return Effect.fail(bytes)
      // Of its own: it may wait for long.
      this.#runner.report(this.#running, undefined, bytes.slice())
      return Effect.void
    })
  }

  get id(): string {
    return taskIdOf(this.#client.link.session?.prefix ?? "", this.#running.task)
  }

  get slowDown(): Task<P>["slowDown"] {
    const running = this.#running
    return (duration: Duration.Input) =>
      Effect.sync(() => {
        running.slowDownMs = Math.max(running.slowDownMs ?? 0, boundedMs(duration))
      })
  }

  get put(): Task<P>["put"] {
    const client = this.#client
    const own = this.#queue
    const { put } = this.#collected
    return (queue, payload, options) =>
      Effect.flatMap(client.open(queue), (opened) => {
        const ours = client.opened(own)?.durability ?? opened.durability
        return (ours === "memory") === (opened.durability === "memory")
          ? put(queue, payload, options)
          : Effect.fail(new DurabilityMixed({ name: queue.name, queue: own.definition.name }))
      })
  }
  get putIfNew(): Collecting["putIfNew"] {
    return this.#collected.putIfNew
  }
  get addToSet(): Collecting["addToSet"] {
    return this.#collected.addToSet
  }
  get increment(): Collecting["increment"] {
    return this.#collected.increment
  }
  get set(): Collecting["set"] {
    return this.#collected.set
  }
  get delete(): Collecting["delete"] {
    return this.#collected.delete
  }

  get #collected(): Collected {
    this.#running.collected ??= new Collected(this.#client)
    return this.#running.collected
  }
}
