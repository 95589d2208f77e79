/**
 * What a client says to a manager: every message with its encoder and its decoder side by side.
 *
 * `decode` reads one message from a frame. Whatever does not follow the grammar is `Malformed`. The state x message
 * table (which message is legal when) is the connection's business, not the decoder's.
 */
import * as Limits from "../Limits.ts"
import { Malformed, Reader, type Writer } from "./Bytes.ts"

import * as Objects from "./ObjectMessages.ts"
import * as Operations from "./Operations.ts"
import * as Progress from "./ProgressMessages.ts"
import { head, isName, list, uints } from "./pieces.ts"
import { type LaneChange, type LaneLimits, ClientType as T, type TaskOptions } from "./Vocabulary.ts"

export interface Hello {
  readonly type: typeof T.hello
  readonly magic: string
  readonly versionMin: number
  readonly versionMax: number
  readonly capabilities: number
  readonly frameBytesMax: number
  readonly role: string
  readonly namespace: string
  readonly agent: string
}
export interface AuthFirst {
  readonly type: typeof T.authFirst
  readonly mechanism: string
  readonly message: string
}
export interface AuthFinal {
  readonly type: typeof T.authFinal
  readonly message: string
}
/** `held` is task, fence, task, fence, ...: the leases that a resuming client still has. */
export interface SessionOpen {
  readonly type: typeof T.sessionOpen
  readonly session: Uint8Array | undefined
  readonly held: ReadonlyArray<number>
}
export interface Heartbeat {
  readonly type: typeof T.heartbeat
  readonly sequence: number
  readonly held: ReadonlyArray<number>
  readonly reports?: ReadonlyArray<Progress.Report> | undefined
}
export interface Goodbye {
  readonly type: typeof T.goodbye
}
export interface Open {
  readonly type: typeof T.open
  readonly request: number
  readonly name: string
  readonly fingerprint: Uint8Array
  readonly schema: string
  readonly accepts: ReadonlyArray<Uint8Array>
  /** The policy's numbers in protocol order; undefined: open only if the queue exists. */
  readonly policy: ReadonlyArray<number> | undefined
}
export interface Put {
  readonly type: typeof T.put
  readonly request: number
  readonly queue: number
  readonly atomic: boolean
  readonly waitMs: number | undefined
  readonly payloads: ReadonlyArray<Uint8Array>
  readonly options: ReadonlyArray<TaskOptions | undefined> | undefined
}
export interface Lease {
  readonly type: typeof T.lease
  readonly request: number
  readonly queue: number
  readonly count: number
  readonly waitMs: number | undefined
  readonly get: boolean
}
export interface Subscribe {
  readonly type: typeof T.subscribe
  readonly request: number
  readonly queue: number
  readonly credit: number
  /** The part of the credit that is no free handler. */
  readonly prefetch: number
}
export interface Credit {
  readonly type: typeof T.credit
  readonly stream: number
  /** More. */
  readonly credit: number
  /** Of a stream of tasks: the part of all its credit that is no free handler, from now on. */
  readonly prefetch?: number | undefined
}
/** No answer of its own: the request it names is answered, if it still waits. */
export interface Abandon {
  readonly type: typeof T.abandon
  readonly request: number
}
/** The answers to these requests have arrived: from, to, from, to, ..., both included. Has no answer of its own. */
export interface Answered {
  readonly type: typeof T.answered
  readonly ranges: ReadonlyArray<number>
}
export interface Unsubscribe {
  readonly type: typeof T.unsubscribe
  readonly request: number
  readonly stream: number
}
export interface CommitEffects extends Objects.ObjectEffects {
  readonly puts: ReadonlyArray<{
    readonly queue: number
    readonly payload: Uint8Array
    readonly options: TaskOptions | undefined
    /** Which of the set additions must be new for this put to happen. */
    readonly ifNew?: number | undefined
  }>
}
export interface Commit {
  readonly type: typeof T.commit
  readonly request: number
  readonly tasks: ReadonlyArray<number>
  readonly fences: ReadonlyArray<number>
  readonly results: ReadonlyArray<Uint8Array>
  readonly effects: ReadonlyArray<CommitEffects | undefined> | undefined
  /** All items or none. Default false. */
  readonly together?: boolean | undefined
  /** For how long the lane of each task is slowed down. */
  readonly slowDowns?: ReadonlyArray<number | undefined> | undefined
}
export interface Release {
  readonly type: typeof T.release
  readonly request: number
  readonly held: ReadonlyArray<number>
}
export interface Failure {
  readonly reason: number
  readonly error: Uint8Array | undefined
  readonly text: string
  readonly retryAfterMs: number | undefined
  /** For how long the lane of the task is slowed down. */
  readonly slowDownMs?: number | undefined
}
export interface Fail {
  readonly type: typeof T.fail
  readonly request: number
  readonly tasks: ReadonlyArray<number>
  readonly fences: ReadonlyArray<number>
  readonly failures: ReadonlyArray<Failure>
}
export interface Started {
  readonly type: typeof T.started
  readonly held: ReadonlyArray<number>
}
export interface Acknowledge {
  readonly type: typeof T.acknowledge
  readonly held: ReadonlyArray<number>
}
export interface Renew {
  readonly type: typeof T.renew
  readonly request: number
  readonly held: ReadonlyArray<number>
}
export interface Peek {
  readonly type: typeof T.peek
  readonly request: number
  readonly queue: number
  readonly count: number
}
export interface Stats {
  readonly type: typeof T.stats
  readonly request: number
  readonly queue: number | undefined
}
export interface Join {
  readonly type: typeof T.join
  readonly request: number
  readonly queue: number
  readonly waitMs: number | undefined
}
export interface Close {
  readonly type: typeof T.close
  readonly request: number
  readonly queue: number
  readonly immediate: boolean
}
export interface Lane {
  readonly type: typeof T.lane
  readonly request: number
  readonly queue: number
  readonly key: string
  readonly change: LaneChange
  /** Of a change to the limits. */
  readonly limits: LaneLimits | undefined
  /** Of a slow-down. */
  readonly forMs: number | undefined
}
export interface Outcome {
  readonly type: typeof T.outcome
  readonly request: number
  readonly queue: number
  readonly task: number
  readonly waitMs: number | undefined
}
export interface Follow {
  readonly type: typeof T.follow
  readonly request: number
  readonly queue: number
  readonly cursor: number
  readonly credit: number
}
/** Why a task does not run; without a task, what limits the queue. */
export interface Explain {
  readonly type: typeof T.explain
  readonly request: number
  readonly queue: number
  readonly task: number | undefined
}
/** Makes a repeat or changes it. Either `everyMs` or `cron`. */
export interface Repeat {
  readonly type: typeof T.repeat
  readonly request: number
  readonly queue: number
  readonly id: string
  readonly everyMs: number | undefined
  readonly cron: string | undefined
  readonly zone: string
  readonly payload: Uint8Array
  readonly options: TaskOptions | undefined
}
export interface Repeats {
  readonly type: typeof T.repeats
  readonly request: number
  readonly queue: number
}
export interface RemoveRepeat {
  readonly type: typeof T.removeRepeat
  readonly request: number
  readonly queue: number
  readonly id: string
}

export type HandshakeMessage = Hello | AuthFirst | AuthFinal | SessionOpen
export type Request =
  | Open
  | Put
  | Lease
  | Subscribe
  | Unsubscribe
  | Commit
  | Release
  | Fail
  | Renew
  | Peek
  | Stats
  | Join
  | Close
  | Lane
  | Outcome
  | Follow
  | Explain
  | Repeat
  | Repeats
  | RemoveRepeat
  | Operations.Request
  | Progress.Request
  | Objects.ObjectRequest
export type ClientMessage =
  | HandshakeMessage
  | Request
  | Heartbeat
  | Goodbye
  | Credit
  | Started
  | Acknowledge
  | Abandon
  | Answered

// ---- encoding

export const encode = (w: Writer, m: ClientMessage): void => {
  switch (m.type) {
    case T.hello:
      head(w, 9, m.type)
      w.str(m.magic)
      w.uint(m.versionMin)
      w.uint(m.versionMax)
      w.uint(m.capabilities)
      w.uint(m.frameBytesMax)
      w.str(m.role)
      w.str(m.namespace)
      return w.str(m.agent)
    case T.authFirst:
      head(w, 3, m.type)
      w.str(m.mechanism)
      return w.str(m.message)
    case T.authFinal:
      head(w, 2, m.type)
      return w.str(m.message)
    case T.sessionOpen:
      head(w, 3, m.type)
      w.binOrNil(m.session)
      return uints(w, m.held)
    case T.heartbeat:
      head(w, m.reports === undefined ? 3 : 4, m.type)
      w.uint(m.sequence)
      uints(w, m.held)
      return m.reports === undefined ? undefined : Progress.encodeReports(w, m.reports)
    case T.goodbye:
      return head(w, 1, m.type)
    case T.open:
      head(w, 7, m.type)
      w.uint(m.request)
      w.str(m.name)
      w.bin(m.fingerprint)
      w.str(m.schema)
      w.array(m.accepts.length)
      for (const fingerprint of m.accepts) w.bin(fingerprint)
      return m.policy === undefined ? w.nil() : uints(w, m.policy)
    case T.put: {
      head(w, 6, m.type)
      w.uint(m.request)
      w.uint(m.queue)
      w.bool(m.atomic)
      w.uintOrNil(m.waitMs)
      w.array(m.payloads.length)
      for (let i = 0; i < m.payloads.length; i++) putItem(w, m.payloads[i]!, m.options?.[i])
      return
    }
    case T.lease:
      head(w, 6, m.type)
      w.uint(m.request)
      w.uint(m.queue)
      w.uint(m.count)
      w.uintOrNil(m.waitMs)
      return w.bool(m.get)
    case T.subscribe:
      head(w, 5, m.type)
      w.uint(m.request)
      w.uint(m.queue)
      w.uint(m.credit)
      return w.uint(m.prefetch)
    case T.credit:
      head(w, m.prefetch === undefined ? 3 : 4, m.type)
      w.uint(m.stream)
      w.uint(m.credit)
      return m.prefetch === undefined ? undefined : w.uint(m.prefetch)
    case T.abandon:
      head(w, 2, m.type)
      return w.uint(m.request)
    case T.answered:
      head(w, 2, m.type)
      return uints(w, m.ranges)
    case T.unsubscribe:
      head(w, 3, m.type)
      w.uint(m.request)
      return w.uint(m.stream)
    case T.commit: {
      head(w, 4, m.type)
      w.uint(m.request)
      w.array(m.tasks.length)
      for (let i = 0; i < m.tasks.length; i++) {
        const effects = m.effects?.[i]
        const slowDownMs = m.slowDowns?.[i]
        w.array(slowDownMs !== undefined ? 5 : effects === undefined ? 3 : 4)
        w.uint(m.tasks[i]!)
        w.uint(m.fences[i]!)
        w.bin(m.results[i]!)
        if (effects !== undefined) encodeEffects(w, effects)
        else if (slowDownMs !== undefined) w.nil()
        if (slowDownMs !== undefined) w.uint(slowDownMs)
      }
      return w.bool(m.together ?? false)
    }
    case T.release:
      head(w, 3, m.type)
      w.uint(m.request)
      return uints(w, m.held)
    case T.fail: {
      head(w, 3, m.type)
      w.uint(m.request)
      w.array(m.tasks.length)
      for (let i = 0; i < m.tasks.length; i++) {
        const failure = m.failures[i]!
        w.array(failure.slowDownMs === undefined ? 6 : 7)
        w.uint(m.tasks[i]!)
        w.uint(m.fences[i]!)
        w.uint(failure.reason)
        w.binOrNil(failure.error)
        w.str(failure.text)
        w.uintOrNil(failure.retryAfterMs)
        if (failure.slowDownMs !== undefined) w.uint(failure.slowDownMs)
      }
      return
    }
    case T.started:
    case T.acknowledge:
      head(w, 2, m.type)
      return uints(w, m.held)
    case T.renew:
      head(w, 3, m.type)
      w.uint(m.request)
      return uints(w, m.held)
    case T.peek:
      head(w, 4, m.type)
      w.uint(m.request)
      w.uint(m.queue)
      return w.uint(m.count)
    case T.stats:
      head(w, 3, m.type)
      w.uint(m.request)
      return w.uintOrNil(m.queue)
    case T.join:
      head(w, 4, m.type)
      w.uint(m.request)
      w.uint(m.queue)
      return w.uintOrNil(m.waitMs)
    case T.close:
      head(w, 4, m.type)
      w.uint(m.request)
      w.uint(m.queue)
      return w.bool(m.immediate)
    case T.lane:
      head(w, 7, m.type)
      w.uint(m.request)
      w.uint(m.queue)
      w.str(m.key)
      w.uint(m.change)
      if (m.limits === undefined) w.nil()
      else {
        w.array(5)
        w.uintOrNil(m.limits.concurrency)
        w.uintOrNil(m.limits.ratePerMinute)
        w.uintOrNil(m.limits.burst)
        w.uintOrNil(m.limits.gapMs)
        w.uintOrNil(m.limits.weight)
      }
      return w.uintOrNil(m.forMs)
    case T.outcome:
      head(w, 5, m.type)
      w.uint(m.request)
      w.uint(m.queue)
      w.uint(m.task)
      return w.uintOrNil(m.waitMs)
    case T.follow:
      head(w, 5, m.type)
      w.uint(m.request)
      w.uint(m.queue)
      w.uint(m.cursor)
      return w.uint(m.credit)
    case T.cancel:
    case T.pause:
    case T.purge:
    case T.browse:
    case T.redrive:
    case T.checkpoint:
      return Operations.encodeRequest(w, m)
    case T.step:
    case T.suspend:
    case T.signal:
    case T.find:
      return Progress.encodeRequest(w, m)
    case T.explain:
      head(w, 4, m.type)
      w.uint(m.request)
      w.uint(m.queue)
      return w.uintOrNil(m.task)
    case T.repeat:
      head(w, 8, m.type)
      w.uint(m.request)
      w.uint(m.queue)
      w.str(m.id)
      w.uintOrNil(m.everyMs)
      w.strOrNil(m.cron)
      w.str(m.zone)
      return putItem(w, m.payload, m.options)
    case T.repeats:
      head(w, 3, m.type)
      w.uint(m.request)
      return w.uint(m.queue)
    case T.removeRepeat:
      head(w, 4, m.type)
      w.uint(m.request)
      w.uint(m.queue)
      return w.str(m.id)
    default:
      return Objects.encodeRequest(w, m)
  }
}

// ---- decoding

/** Elements of each message, its type included. */
const sizes: Readonly<Record<number, number>> = {
  [T.hello]: 9,
  [T.authFirst]: 3,
  [T.authFinal]: 2,
  [T.sessionOpen]: 3,
  [T.heartbeat]: 3,
  [T.goodbye]: 1,
  [T.open]: 7,
  [T.put]: 6,
  [T.lease]: 6,
  [T.subscribe]: 5,
  [T.credit]: 3,
  [T.abandon]: 2,
  [T.answered]: 2,
  [T.unsubscribe]: 3,
  [T.commit]: 4,
  [T.release]: 3,
  [T.fail]: 3,
  [T.started]: 2,
  [T.acknowledge]: 2,
  [T.renew]: 3,
  [T.peek]: 4,
  [T.stats]: 3,
  [T.join]: 4,
  [T.close]: 4,
  [T.lane]: 7,
  [T.outcome]: 5,
  [T.follow]: 5,
  [T.explain]: 4,
  [T.repeat]: 8,
  [T.repeats]: 3,
  [T.removeRepeat]: 4,
  ...Operations.requestSizes,
  ...Progress.requestSizes,
  ...Objects.requestSizes
}

/** The type of the message that a body begins with; nothing else of it is looked at. Throws `Malformed`. */
export const peekType = (body: Uint8Array): number => {
  const r = new Reader(body)
  return r.array(32) === 0 ? -1 : r.uint(0xff)
}

/** The next message. Throws `Malformed`. */
export const decode = (r: Reader): ClientMessage => {
  const length = r.array(32)
  const type = length === 0 ? -1 : r.uint(0xff)
  const size = sizes[type]
  if (size === undefined) throw new Malformed(`unknown message type ${type}`)
  if (length < size) throw new Malformed(`message ${type} has ${length} elements, not ${size}`)
  const message = body(r, type)
  if (length === size) return message
  const grown = added(r, message)
  r.skip(length - size - (grown === undefined ? 0 : 1))
  return grown ?? message
}

/** The message with what may follow its elements; undefined: nothing that this version knows. */
const added = (r: Reader, message: ClientMessage): ClientMessage | undefined => {
  if (message.type === T.heartbeat) return { ...message, reports: Progress.decodeReports(r) }
  if (message.type === T.credit) return { ...message, prefetch: r.uint(Limits.creditMax) }
  return undefined
}

const body = (r: Reader, type: number): ClientMessage => {
  switch (type) {
    case T.hello:
      return {
        type,
        magic: r.str(16),
        versionMin: r.uint(),
        versionMax: r.uint(),
        capabilities: r.uint(),
        frameBytesMax: r.uint(),
        role: r.str(Limits.nameCharsMax),
        namespace: name(r),
        agent: r.str(Limits.nameCharsMax)
      }
    case T.authFirst:
      return { type, mechanism: r.str(64), message: r.str(Limits.scramMessageCharsMax) }
    case T.authFinal:
      return { type, message: r.str(Limits.scramMessageCharsMax) }
    case T.sessionOpen:
      return { type, session: r.binOrNil(16), held: held(r) }
    case T.heartbeat:
      return { type, sequence: r.uint(), held: held(r) }
    case T.goodbye:
      return { type }
    case T.open:
      return {
        type,
        request: r.uint(),
        name: name(r),
        fingerprint: fingerprint(r),
        schema: r.str(Limits.schemaTextBytesMax),
        accepts: list(r, Limits.acceptedFingerprintsMax, () => fingerprint(r)),
        policy: r.nil() ? undefined : list(r, 64, () => r.uint())
      }
    case T.put: {
      const request = r.uint()
      const queue = r.uint()
      const atomic = r.bool()
      const waitMs = r.uintOrNil(Limits.waitMsMax)
      const count = r.array(Limits.batchItemsMax)
      const payloads: Array<Uint8Array> = []
      let options: Array<TaskOptions | undefined> | undefined
      for (let i = 0; i < count; i++) {
        if (r.atBin) payloads.push(r.bin(Limits.payloadBytesCeiling))
        else {
          const length = r.array(32)
          payloads.push(r.bin(Limits.payloadBytesCeiling))
          options ??= new Array<TaskOptions | undefined>(count).fill(undefined)
          options[i] = taskOptions(r, length)
        }
      }
      return { type, request, queue, atomic, waitMs, payloads, options }
    }
    case T.lease:
      return {
        type,
        request: r.uint(),
        queue: r.uint(),
        count: r.uint(Limits.batchItemsMax),
        waitMs: r.uintOrNil(Limits.waitMsMax),
        get: r.bool()
      }
    case T.subscribe:
      return {
        type,
        request: r.uint(),
        queue: r.uint(),
        credit: r.uint(Limits.creditMax),
        prefetch: r.uint(Limits.creditMax)
      }
    case T.credit:
      return { type, stream: r.uint(), credit: r.uint(Limits.creditMax) }
    case T.abandon:
      return { type, request: r.uint() }
    case T.answered: {
      const ranges = list(r, 2 * Limits.answerRangesMax, () => r.uint())
      if (ranges.length % 2 === 1) throw new Malformed("ranges come in pairs of first and last")
      return { type, ranges }
    }
    case T.unsubscribe:
      return { type, request: r.uint(), stream: r.uint() }
    case T.commit: {
      const request = r.uint()
      const count = r.array(Limits.batchItemsMax)
      const tasks: Array<number> = []
      const fences: Array<number> = []
      const results: Array<Uint8Array> = []
      let effects: Array<CommitEffects | undefined> | undefined
      let slowDowns: Array<number | undefined> | undefined
      for (let i = 0; i < count; i++) {
        const length = r.array(32)
        if (length < 3) throw new Malformed("a commit item has a task, a fence and a result")
        tasks.push(r.uint())
        fences.push(r.uint())
        results.push(r.bin(Limits.payloadBytesMax))
        if (length > 3 && !(length > 4 && r.nil())) {
          effects ??= new Array<CommitEffects | undefined>(count).fill(undefined)
          effects[i] = decodeEffects(r)
        }
        if (length > 4) {
          const slowDownMs = r.uintOrNil(Limits.delayMsMax)
          slowDowns ??= new Array<number | undefined>(count).fill(undefined)
          slowDowns[i] = slowDownMs
          r.skip(length - 5)
        }
      }
      const together = r.bool()
      if (slowDowns !== undefined) return { type, request, tasks, fences, results, effects, together, slowDowns }
      return { type, request, tasks, fences, results, effects, together }
    }
    case T.release:
      return { type, request: r.uint(), held: held(r) }
    case T.fail: {
      const request = r.uint()
      const count = r.array(Limits.batchItemsMax)
      const tasks: Array<number> = []
      const fences: Array<number> = []
      const failures: Array<Failure> = []
      for (let i = 0; i < count; i++) {
        const length = r.array(32)
        if (length < 6) throw new Malformed("a failure item has six elements")
        tasks.push(r.uint())
        fences.push(r.uint())
        const failure: Failure = {
          reason: r.uint(15),
          error: r.binOrNil(Limits.payloadBytesMax),
          text: r.str(Limits.reasonBytesMax),
          retryAfterMs: r.uintOrNil(Limits.delayMsMax)
        }
        if (length === 6) failures.push(failure)
        else {
          failures.push({ ...failure, slowDownMs: r.uintOrNil(Limits.delayMsMax) })
          r.skip(length - 7)
        }
      }
      return { type, request, tasks, fences, failures }
    }
    case T.started:
    case T.acknowledge:
      return { type, held: held(r) }
    case T.renew:
      return { type, request: r.uint(), held: held(r) }
    case T.peek:
      return { type, request: r.uint(), queue: r.uint(), count: r.uint(Limits.pageItemsMax) }
    case T.stats:
      return { type, request: r.uint(), queue: r.uintOrNil() }
    case T.join:
      return { type, request: r.uint(), queue: r.uint(), waitMs: r.uintOrNil(Limits.waitMsMax) }
    case T.close:
      return { type, request: r.uint(), queue: r.uint(), immediate: r.bool() }
    case T.lane:
      return {
        type,
        request: r.uint(),
        queue: r.uint(),
        key: r.str(Limits.taskKeyBytesMax),
        change: r.uint(4) as LaneChange,
        limits: r.nil() ? undefined : laneLimits(r),
        forMs: r.uintOrNil(Limits.delayMsMax)
      }
    case T.outcome:
      return { type, request: r.uint(), queue: r.uint(), task: r.uint(), waitMs: r.uintOrNil(Limits.waitMsMax) }
    case T.follow:
      return { type, request: r.uint(), queue: r.uint(), cursor: r.uint(), credit: r.uint(Limits.creditMax) }
    case T.explain:
      return { type, request: r.uint(), queue: r.uint(), task: r.uintOrNil() }
    case T.repeat:
      return {
        type,
        request: r.uint(),
        queue: r.uint(),
        id: r.str(Limits.repeatIdBytesMax),
        everyMs: r.uintOrNil(),
        cron: r.strOrNil(Limits.cronBytesMax),
        zone: r.str(Limits.zoneBytesMax),
        ...readItem(r)
      }
    case T.repeats:
      return { type, request: r.uint(), queue: r.uint() }
    case T.removeRepeat:
      return { type, request: r.uint(), queue: r.uint(), id: r.str(Limits.repeatIdBytesMax) }
    default:
      if (type in Progress.requestSizes) return Progress.decodeRequest(r, type)
      return type < 0x60 ? Operations.decodeRequest(r, type) : Objects.decodeRequest(r, type)
  }
}

// ---- pieces

/** Leases as task, fence, task, fence, ... */
const held = (r: Reader): ReadonlyArray<number> => {
  const values = list(r, 2 * Limits.creditMax, () => r.uint())
  if (values.length % 2 === 1) throw new Malformed("leases come in pairs of task and fence")
  return values
}

/** SHA-256, or nothing at all for a client that brings no Schemas. */
const fingerprint = (r: Reader): Uint8Array => {
  const bytes = r.bin(32)
  if (bytes.byteLength !== 0 && bytes.byteLength !== 32) throw new Malformed("a fingerprint has 32 bytes, or none")
  return bytes
}

const name = (r: Reader): string => {
  const text = r.str(Limits.nameCharsMax)
  if (!isName.test(text)) throw new Malformed("a name has 1 to 200 characters of A-Z a-z 0-9 . _ : -")
  return text
}

const laneLimits = (r: Reader): LaneLimits => {
  const length = r.array(32)
  if (length < 5) throw new Malformed("the limits of a lane are five numbers")
  const limits: LaneLimits = {
    concurrency: r.uintOrNil(Limits.concurrencyMax),
    ratePerMinute: r.uintOrNil(Limits.laneRatePerMinuteMax),
    burst: r.uintOrNil(Limits.laneBurstMax),
    gapMs: r.uintOrNil(Limits.laneGapMsMax),
    weight: r.uintOrNil(Limits.laneWeightMax)
  }
  r.skip(length - 5)
  return limits
}

/** An item without options is its payload alone; trailing options that are not set are left out. */
export const putItem = (w: Writer, payload: Uint8Array, options: TaskOptions | undefined): void => {
  if (options === undefined) return w.bin(payload)
  w.array(8)
  w.bin(payload)
  w.strOrNil(options.id)
  w.uintOrNil(options.priority)
  w.uintOrNil(options.delayMs)
  w.uintOrNil(options.ttlMs)
  w.strOrNil(options.key)
  if (options.labels === undefined) w.nil()
  else {
    w.array(options.labels.length)
    for (const label of options.labels) w.str(label)
  }
  w.strOrNil(options.trace)
}

/** A payload alone, or an item with options. */
export const readItem = (r: Reader): { readonly payload: Uint8Array; readonly options: TaskOptions | undefined } => {
  if (r.atBin) return { payload: r.bin(Limits.payloadBytesCeiling), options: undefined }
  const length = r.array(32)
  const payload = r.bin(Limits.payloadBytesCeiling)
  return { payload, options: taskOptions(r, length) }
}

/** Assumes: the payload, the first of `length` elements, has been read. */
const taskOptions = (r: Reader, length: number): TaskOptions => {
  if (length < 8) throw new Malformed("a task with options has eight elements")
  const options: TaskOptions = {
    id: r.strOrNil(Limits.taskIdBytesMax),
    priority: r.uintOrNil(255),
    delayMs: r.uintOrNil(Limits.delayMsMax),
    ttlMs: r.uintOrNil(Limits.delayMsMax),
    key: r.strOrNil(Limits.taskKeyBytesMax),
    labels: r.nil() ? undefined : list(r, Limits.labelsPerTaskMax, () => r.str(Limits.labelBytesMax)),
    trace: r.strOrNil(Limits.traceBytesMax)
  }
  r.skip(length - 8)
  return options
}

/** [puts, set additions, counter increments, dict writes]; a put without a condition has two elements. */
const encodeEffects = (w: Writer, effects: CommitEffects): void => {
  w.array(4)
  w.array(effects.puts.length)
  for (const put of effects.puts) {
    w.array(put.ifNew === undefined ? 2 : 3)
    w.uint(put.queue)
    putItem(w, put.payload, put.options)
    if (put.ifNew !== undefined) w.uint(put.ifNew)
  }
  Objects.encodeEffects(w, effects)
}

const decodeEffects = (r: Reader): CommitEffects => {
  const length = r.array(32)
  if (length < 4) throw new Malformed("the effects of a commit are four lists")
  const puts = list(r, Limits.commitEffectsMax, () => {
    const length = r.array(32)
    if (length < 2) throw new Malformed("a child put has a queue and an item")
    const queue = r.uint()
    const { options, payload } = readItem(r)
    const ifNew = length > 2 ? r.uintOrNil(Limits.commitEffectsMax) : undefined
    if (length > 3) r.skip(length - 3)
    return ifNew === undefined ? { queue, payload, options } : { queue, payload, options, ifNew }
  })
  const others = Objects.decodeEffects(r)
  if (length > 4) r.skip(length - 4)
  for (const { ifNew } of puts) {
    if (ifNew !== undefined && ifNew >= others.sets.length) throw new Malformed(`no set addition ${ifNew}`)
  }
  return { puts, ...others }
}
