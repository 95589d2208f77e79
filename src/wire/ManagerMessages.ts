/**
 * What a manager says to a client: every message with its encoder and its decoder side by side.
 *
 * Deliveries and outcomes are written item by item, straight from the engine's records: `openDeliver`, `delivery` for
 * each, `closeDeliver`. The rest goes through `encode`.
 */
import * as Limits from "../Limits.ts"
import { Malformed, type Reader, type Writer } from "./Bytes.ts"
import { putItem, readItem } from "./ClientMessages.ts"
import * as Objects from "./ObjectMessages.ts"
import * as Operations from "./Operations.ts"
import * as Progress from "./ProgressMessages.ts"
import { head, list, uintList, uints } from "./pieces.ts"
import {
  type Delivery,
  type Fact,
  type LaneCount,
  type Outcome as OutcomeItem,
  type QueueStats,
  type Reason,
  type Repeat,
  ManagerType as T
} from "./Vocabulary.ts"

export interface Hello {
  readonly type: typeof T.hello
  readonly magic: string
  readonly version: number
  readonly versionMin: number
  readonly versionMax: number
  readonly capabilities: number
  readonly frameBytesMax: number
  readonly mechanisms: ReadonlyArray<string>
}
export interface AuthChallenge {
  readonly type: typeof T.authChallenge
  readonly message: string
}
export interface AuthOk {
  readonly type: typeof T.authOk
  readonly message: string
}
export interface SessionOpened {
  readonly type: typeof T.sessionOpened
  readonly session: Uint8Array
  readonly resumed: boolean
  /** Upper half of every task id of this manager's namespace. */
  readonly instance: Uint8Array
  readonly heartbeatMs: number
  readonly requestsInFlightMax: number
  readonly durability: string
  /** Tasks of `held` that the session has lost. */
  readonly lost: ReadonlyArray<number>
}
export interface Heartbeat {
  readonly type: typeof T.heartbeat
  readonly sequence: number
  readonly lost: ReadonlyArray<number>
  /** Tasks whose handlers must be interrupted. */
  readonly cancelled: ReadonlyArray<number>
  /** The manager is about to stop: nothing new is taken. */
  readonly draining: boolean
  /** As in `sessionOpened`; they may have changed. */
  readonly heartbeatMs: number
  readonly requestsInFlightMax: number
  /** Tasks whose checkpoint was not taken, because the disk is full: to be said again. */
  readonly unsaved: ReadonlyArray<number>
}
/** Unsolicited, a `ControlKind`. Others are reserved; a client passes over what it does not know. */
export interface Control {
  readonly type: typeof T.control
  readonly kind: number
  /** Of kind 2: those whose handlers must stop. */
  readonly tasks: ReadonlyArray<number>
}
/** The last word on a connection. */
export interface Closing {
  readonly type: typeof T.closing
  readonly code: number
  readonly text: string
}
export interface Done {
  readonly type: typeof T.done
  readonly request: number
}
export interface Refused {
  readonly type: typeof T.refused
  readonly request: number
  readonly code: number
  readonly subject: string
  readonly value: number
  readonly limit: number
}
export interface Opened {
  readonly type: typeof T.opened
  readonly request: number
  readonly queue: number
  readonly durability: string
  readonly policy: ReadonlyArray<number>
  /** Where a reader of outcomes starts by default. */
  readonly outcomesNext: number
}
export interface PutDone {
  readonly type: typeof T.putDone
  readonly request: number
  readonly first: number
  readonly count: number
}
export interface PutItems {
  readonly type: typeof T.putItems
  readonly request: number
  readonly tasks: ReadonlyArray<number>
  readonly statuses: ReadonlyArray<number>
  /** Where the first task of a duplicate stood, per item; empty if there is no duplicate. */
  readonly firsts: ReadonlyArray<number>
}
export interface Leased {
  readonly type: typeof T.leased
  readonly request: number
  readonly items: ReadonlyArray<Delivery>
}
export interface Streaming {
  readonly type: typeof T.streaming
  readonly request: number
  readonly stream: number
}
export interface Items {
  readonly type: typeof T.items
  readonly request: number
  readonly codes: ReadonlyArray<number>
}
export interface Peeked {
  readonly type: typeof T.peeked
  readonly request: number
  readonly items: ReadonlyArray<Delivery>
}
export interface Stats {
  readonly type: typeof T.stats
  readonly request: number
  readonly queues: ReadonlyArray<QueueStats>
}
export interface Outcome {
  readonly type: typeof T.outcome
  readonly request: number
  readonly outcome: OutcomeItem
}
export interface Deliver {
  readonly type: typeof T.deliver
  readonly stream: number
  readonly items: ReadonlyArray<Delivery>
}
export interface Outcomes {
  readonly type: typeof T.outcomes
  readonly stream: number
  /** The cursor after the last item. */
  readonly next: number
  readonly items: ReadonlyArray<OutcomeItem>
}
/** The reader fell out of the retained window; the stream is closed. */
export interface Gap {
  readonly type: typeof T.gap
  readonly stream: number
  readonly cursor: number
  readonly oldest: number
}
/** The first fact of a task says what it is; the others what holds it, or the queue, back. */
export interface Explained {
  readonly type: typeof T.explained
  readonly request: number
  readonly facts: ReadonlyArray<Fact>
}
export interface Repeats {
  readonly type: typeof T.repeats
  readonly request: number
  readonly items: ReadonlyArray<Repeat>
}

export type Answer =
  | Done
  | Refused
  | Opened
  | PutDone
  | PutItems
  | Leased
  | Streaming
  | Items
  | Peeked
  | Stats
  | Outcome
  | Explained
  | Repeats
  | Operations.Answer
  | Progress.Answer
  | Objects.ObjectAnswer
export type ManagerMessage =
  | Hello
  | AuthChallenge
  | AuthOk
  | SessionOpened
  | Heartbeat
  | Control
  | Closing
  | Answer
  | Deliver
  | Outcomes
  | Gap

// ---- encoding

export const encode = (w: Writer, m: ManagerMessage): void => {
  switch (m.type) {
    case T.hello:
      head(w, 8, m.type)
      w.str(m.magic)
      w.uint(m.version)
      w.uint(m.versionMin)
      w.uint(m.versionMax)
      w.uint(m.capabilities)
      w.uint(m.frameBytesMax)
      w.array(m.mechanisms.length)
      for (const mechanism of m.mechanisms) w.str(mechanism)
      return
    case T.authChallenge:
    case T.authOk:
      head(w, 2, m.type)
      return w.str(m.message)
    case T.sessionOpened:
      head(w, 8, m.type)
      w.bin(m.session)
      w.bool(m.resumed)
      w.bin(m.instance)
      w.uint(m.heartbeatMs)
      w.uint(m.requestsInFlightMax)
      w.str(m.durability)
      return uints(w, m.lost)
    case T.heartbeat:
      head(w, 8, m.type)
      w.uint(m.sequence)
      uints(w, m.lost)
      uints(w, m.cancelled)
      w.bool(m.draining)
      w.uint(m.heartbeatMs)
      w.uint(m.requestsInFlightMax)
      return uints(w, m.unsaved)
    case T.control:
      head(w, 3, m.type)
      w.uint(m.kind)
      return uints(w, m.tasks)
    case T.closing:
      head(w, 3, m.type)
      w.uint(m.code)
      return w.str(m.text)
    case T.done:
      head(w, 2, m.type)
      return w.uint(m.request)
    case T.refused:
      head(w, 6, m.type)
      w.uint(m.request)
      w.uint(m.code)
      w.str(m.subject)
      w.uint(m.value)
      return w.uint(m.limit)
    case T.opened:
      head(w, 6, m.type)
      w.uint(m.request)
      w.uint(m.queue)
      w.str(m.durability)
      uints(w, m.policy)
      return w.uint(m.outcomesNext)
    case T.putDone:
      head(w, 4, m.type)
      w.uint(m.request)
      w.uint(m.first)
      return w.uint(m.count)
    case T.putItems:
      head(w, 5, m.type)
      w.uint(m.request)
      uints(w, m.tasks)
      uints(w, m.statuses)
      return uints(w, m.firsts)
    case T.leased:
    case T.peeked:
      head(w, 3, m.type)
      w.uint(m.request)
      w.array(m.items.length)
      for (const d of m.items) encodeDelivery(w, d)
      return
    case T.streaming:
      head(w, 3, m.type)
      w.uint(m.request)
      return w.uint(m.stream)
    case T.items:
      head(w, 3, m.type)
      w.uint(m.request)
      return uints(w, m.codes)
    case T.stats:
      head(w, 3, m.type)
      w.uint(m.request)
      w.array(m.queues.length)
      for (const queue of m.queues) queueStats(w, queue)
      return
    case T.outcome:
      head(w, 3, m.type)
      w.uint(m.request)
      return outcome(w, m.outcome)
    case T.deliver: {
      const at = openDeliver(w, m.stream)
      for (const d of m.items) encodeDelivery(w, d)
      return closeDeliver(w, at, m.items.length)
    }
    case T.outcomes:
      openOutcomes(w, m.stream, m.next, m.items.length)
      for (const item of m.items) outcome(w, item)
      return
    case T.gap:
      head(w, 4, m.type)
      w.uint(m.stream)
      w.uint(m.cursor)
      return w.uint(m.oldest)
    case T.counted:
    case T.browsed:
    case T.redriven:
    case T.standings:
      return Operations.encodeAnswer(w, m)
    case T.found:
      return Progress.encodeAnswer(w, m)
    case T.explained:
      head(w, 3, m.type)
      w.uint(m.request)
      w.array(m.facts.length)
      for (const { at, kind, limit, subject, value } of m.facts) {
        w.array(5)
        w.uint(kind)
        w.str(subject)
        w.uint(at)
        w.uint(value)
        w.uint(limit)
      }
      return
    case T.repeats:
      head(w, 3, m.type)
      w.uint(m.request)
      w.array(m.items.length)
      for (const item of m.items) repeat(w, item)
      return
    default:
      return Objects.encodeAnswer(w, m)
  }
}

/** Begins a delivery whose length is not known yet. Returns what `closeDeliver` needs. */
export const openDeliver = (w: Writer, stream: number): number => {
  head(w, 3, T.deliver)
  w.uint(stream)
  return w.openArray()
}

export const closeDeliver = (w: Writer, at: number, length: number): void => w.closeArray(at, length)

/** Elements that are not set at the end are left out: a plain task takes four. */
export const delivery = (
  w: Writer,
  task: number,
  fence: number,
  attempt: number,
  payload: Uint8Array,
  key: string | undefined,
  trace: string | undefined,
  checkpoint: Uint8Array | undefined,
  entries?: ReadonlyMap<string, Uint8Array> | undefined
): void => {
  const plain = key === undefined && trace === undefined && checkpoint === undefined && entries === undefined
  w.array(plain ? 4 : entries === undefined ? 7 : 8)
  w.uint(task)
  w.uint(fence)
  w.uint(attempt)
  w.bin(payload)
  if (plain) return
  w.strOrNil(key)
  w.strOrNil(trace)
  w.binOrNil(checkpoint)
  if (entries !== undefined) Progress.encodeEntries(w, entries, entries.size)
}

const encodeDelivery = (w: Writer, d: Delivery): void => {
  const entries = d.entries === undefined ? undefined : new Map(d.entries)
  delivery(w, d.task, d.fence, d.attempt, d.payload, d.key, d.trace, d.checkpoint, entries)
}

export const openOutcomes = (w: Writer, stream: number, next: number, count: number): void => {
  head(w, 4, T.outcomes)
  w.uint(stream)
  w.uint(next)
  w.array(count)
}

export const outcome = (w: Writer, item: OutcomeItem): void => {
  outcomeHead(w, item.task, item.outcome, item.attempts, item.endedAtMs, item.body, item.reasons)
}

export const outcomeHead = (
  w: Writer,
  task: number,
  kind: number,
  attempts: number,
  endedAtMs: number,
  body: Uint8Array | undefined,
  reasons: ReadonlyArray<Reason> | undefined
): void => {
  const plain = reasons === undefined || reasons.length === 0
  w.array(plain ? 5 : 6)
  w.uint(task)
  w.uint(kind)
  w.uint(attempts)
  w.uint(endedAtMs)
  w.binOrNil(body)
  if (plain) return
  w.array(reasons.length)
  for (const reason of reasons) {
    w.array(3)
    w.uint(reason.attempt)
    w.uint(reason.reason)
    w.str(reason.text)
  }
}

// ---- decoding

const sizes: Readonly<Record<number, number>> = {
  [T.hello]: 8,
  [T.authChallenge]: 2,
  [T.authOk]: 2,
  [T.sessionOpened]: 8,
  [T.heartbeat]: 8,
  [T.control]: 3,
  [T.closing]: 3,
  [T.done]: 2,
  [T.refused]: 6,
  [T.opened]: 6,
  [T.putDone]: 4,
  [T.putItems]: 5,
  [T.leased]: 3,
  [T.streaming]: 3,
  [T.items]: 3,
  [T.peeked]: 3,
  [T.stats]: 3,
  [T.outcome]: 3,
  [T.deliver]: 3,
  [T.outcomes]: 4,
  [T.gap]: 4,
  [T.explained]: 3,
  [T.repeats]: 3,
  ...Operations.answerSizes,
  ...Progress.answerSizes,
  ...Objects.answerSizes
}

/** The next message. Throws `Malformed`. */
export const decode = (r: Reader): ManagerMessage => {
  const length = r.array(32)
  const type = length === 0 ? -1 : r.uint(0xff)
  const size = sizes[type]
  if (size === undefined) throw new Malformed(`unknown message type ${type}`)
  if (length < size) throw new Malformed(`message ${type} has ${length} elements, not ${size}`)
  const message = body(r, type)
  if (length > size) r.skip(length - size)
  return message
}

const body = (r: Reader, type: number): ManagerMessage => {
  switch (type) {
    case T.hello:
      return {
        type,
        magic: r.str(16),
        version: r.uint(),
        versionMin: r.uint(),
        versionMax: r.uint(),
        capabilities: r.uint(),
        frameBytesMax: r.uint(),
        mechanisms: list(r, 16, () => r.str(64))
      }
    case T.authChallenge:
    case T.authOk:
      return { type, message: r.str(Limits.scramMessageCharsMax) }
    case T.sessionOpened:
      return {
        type,
        session: r.bin(16),
        resumed: r.bool(),
        instance: r.bin(8),
        heartbeatMs: r.uint(),
        requestsInFlightMax: r.uint(),
        durability: r.str(16),
        lost: uintList(r, Limits.creditMax)
      }
    case T.heartbeat:
      return {
        type,
        sequence: r.uint(),
        lost: uintList(r, Limits.creditMax),
        cancelled: uintList(r, Limits.creditMax),
        draining: r.bool(),
        heartbeatMs: r.uint(),
        requestsInFlightMax: r.uint(),
        unsaved: uintList(r, Limits.batchItemsMax)
      }
    case T.control:
      return { type, kind: r.uint(), tasks: uintList(r, Limits.creditMax) }
    case T.closing:
      return { type, code: r.uint(), text: r.str(Limits.reasonBytesMax) }
    case T.done:
      return { type, request: r.uint() }
    case T.refused:
      return {
        type,
        request: r.uint(),
        code: r.uint(),
        subject: r.str(2 * Limits.schemaTextBytesMax),
        value: r.uint(),
        limit: r.uint()
      }
    case T.opened:
      return {
        type,
        request: r.uint(),
        queue: r.uint(),
        durability: r.str(16),
        policy: uintList(r, 64),
        outcomesNext: r.uint()
      }
    case T.putDone:
      return { type, request: r.uint(), first: r.uint(), count: r.uint() }
    case T.putItems:
      return {
        type,
        request: r.uint(),
        tasks: uintList(r, Limits.batchItemsMax),
        statuses: uintList(r, Limits.batchItemsMax),
        firsts: uintList(r, Limits.batchItemsMax)
      }
    case T.leased:
    case T.peeked:
      return { type, request: r.uint(), items: list(r, Limits.creditMax, () => decodeDelivery(r)) }
    case T.streaming:
      return { type, request: r.uint(), stream: r.uint() }
    case T.items:
      return { type, request: r.uint(), codes: uintList(r, Limits.creditMax) }
    case T.stats:
      return { type, request: r.uint(), queues: list(r, Limits.queuesMax, () => decodeQueueStats(r)) }
    case T.outcome:
      return { type, request: r.uint(), outcome: decodeOutcome(r) }
    case T.deliver:
      return { type, stream: r.uint(), items: list(r, Limits.creditMax, () => decodeDelivery(r)) }
    case T.outcomes:
      return { type, stream: r.uint(), next: r.uint(), items: list(r, Limits.creditMax, () => decodeOutcome(r)) }
    case T.gap:
      return { type, stream: r.uint(), cursor: r.uint(), oldest: r.uint() }
    case T.explained:
      return { type, request: r.uint(), facts: list(r, Limits.factsMax, () => decodeFact(r)) }
    case T.repeats:
      return { type, request: r.uint(), items: list(r, Limits.repeatsPerQueueMax, () => decodeRepeat(r)) }
    default:
      if (type === T.found) return Progress.decodeAnswer(r, type)
      return type < 0x60 ? Operations.decodeAnswer(r, type) : Objects.decodeAnswer(r, type)
  }
}

// ---- pieces

const decodeDelivery = (r: Reader): Delivery => {
  const length = r.array(32)
  if (length < 4) throw new Malformed("a delivery has four elements at least")
  const task = r.uint()
  const fence = r.uint()
  const attempt = r.uint()
  const payload = r.bin(Limits.payloadBytesCeiling)
  const key = length > 4 ? r.strOrNil(Limits.taskKeyBytesMax) : undefined
  const trace = length > 5 ? r.strOrNil(Limits.traceBytesMax) : undefined
  const checkpoint = length > 6 ? r.binOrNil(Limits.payloadBytesMax) : undefined
  const entries = length > 7 ? Progress.decodeEntries(r) : undefined
  if (length > 8) r.skip(length - 8)
  const delivery = { task, fence, attempt, payload, key, trace, checkpoint }
  return entries === undefined ? delivery : { ...delivery, entries }
}

const noReasons: ReadonlyArray<Reason> = []

const decodeOutcome = (r: Reader): OutcomeItem => {
  const length = r.array(32)
  if (length < 5) throw new Malformed("an outcome has five elements at least")
  const task = r.uint()
  const kind = r.uint(15)
  const attempts = r.uint()
  const endedAtMs = r.uint()
  // The body of a dead task is its payload.
  const body = r.binOrNil(Limits.payloadBytesCeiling)
  const reasons =
    length > 5
      ? list(r, Limits.reasonsKeptMax, () => {
          const size = r.array(32)
          if (size < 3) throw new Malformed("a reason has three elements")
          const reason: Reason = { attempt: r.uint(), reason: r.uint(), text: r.str(Limits.reasonBytesMax) }
          r.skip(size - 3)
          return reason
        })
      : noReasons
  if (length > 6) r.skip(length - 6)
  return { task, outcome: kind, attempts, endedAtMs, body, reasons }
}

/** The counts of a queue in the order in which they travel, after its three words. */
const statsFields = [
  "capacity",
  "ready",
  "delayed",
  "leased",
  "done",
  "dead",
  "cancelled",
  "acknowledged",
  "puts",
  "duplicates",
  "refused",
  "oldestReadyMs",
  "outcomesFirst",
  "outcomesNext",
  "workers"
] as const

/** Those that a later version added: a manager without them leaves them out, and they read as 0. */
const statsAdded = [
  "nextDueMs",
  "nextLeaseEndMs",
  "waitingBytes",
  "outcomeBytes",
  "deadLetterBytes",
  "deadLetters",
  "waitingPuts",
  "waitingTakers",
  "readers",
  "repeats",
  "puts1s",
  "puts10s",
  "puts60s",
  "leases1s",
  "leases10s",
  "leases60s",
  "commits1s",
  "commits10s",
  "commits60s",
  "failures1s",
  "failures10s",
  "failures60s"
] as const

/** Those after the lanes, added later still. */
const statsOfOperations = ["purged", "dropped", "redriven", "capacityBytes"] as const

const queueStats = (w: Writer, stats: QueueStats): void => {
  w.array(3 + statsFields.length + 1 + statsAdded.length + 1 + statsOfOperations.length)
  w.str(stats.name)
  w.str(stats.durability)
  w.str(stats.closed)
  for (const field of statsFields) w.uint(stats[field])
  w.bool(stats.paused)
  for (const field of statsAdded) w.uint(stats[field])
  w.array(stats.lanes.length)
  for (const [key, waiting, leased, blockedMs] of stats.lanes) {
    w.array(4)
    w.str(key)
    w.uint(waiting)
    w.uint(leased)
    w.uint(blockedMs)
  }
  for (const field of statsOfOperations) w.uint(stats[field])
}

const decodeQueueStats = (r: Reader): QueueStats => {
  const length = r.array(64)
  let left = length - 3 - statsFields.length
  if (left < 0) throw new Malformed("the counts of a queue are incomplete")
  const words = { name: r.str(Limits.nameCharsMax), durability: r.str(16), closed: r.str(16) }
  const counts = Object.fromEntries(statsFields.map((field) => [field, r.uint()])) as Record<
    (typeof statsFields)[number],
    number
  >
  const paused = left-- > 0 ? r.bool() : false
  const added = Object.fromEntries(statsAdded.map((field) => [field, left-- > 0 ? r.uint() : 0])) as Record<
    (typeof statsAdded)[number],
    number
  >
  const lanes = left-- > 0 ? list(r, Limits.topLanesMax, () => decodeLane(r)) : []
  const operations = Object.fromEntries(statsOfOperations.map((field) => [field, left-- > 0 ? r.uint() : 0])) as Record<
    (typeof statsOfOperations)[number],
    number
  >
  if (left > 0) r.skip(left)
  return { ...words, ...counts, paused, ...added, lanes, ...operations }
}

const decodeLane = (r: Reader): LaneCount => {
  const length = r.array(32)
  if (length < 4) throw new Malformed("the counts of a lane have four elements")
  const lane: LaneCount = [r.str(Limits.taskKeyBytesMax), r.uint(), r.uint(), r.uint()]
  r.skip(length - 4)
  return lane
}

const decodeFact = (r: Reader): Fact => {
  const length = r.array(32)
  if (length < 5) throw new Malformed("a fact has five elements")
  const fact: Fact = {
    kind: r.uint(),
    subject: r.str(Limits.reasonBytesMax),
    at: r.uint(),
    value: r.uint(),
    limit: r.uint()
  }
  r.skip(length - 5)
  return fact
}

const repeat = (w: Writer, item: Repeat): void => {
  w.array(9)
  w.str(item.id)
  w.uintOrNil(item.everyMs)
  w.strOrNil(item.cron)
  w.str(item.zone)
  w.uint(item.nextAtMs)
  w.uintOrNil(item.task)
  w.uintOrNil(item.lastAtMs)
  w.uint(item.occurrences)
  putItem(w, item.payload, item.options)
}

const decodeRepeat = (r: Reader): Repeat => {
  const length = r.array(32)
  if (length < 9) throw new Malformed("a repeat has nine elements")
  const item: Repeat = {
    id: r.str(Limits.repeatIdBytesMax),
    everyMs: r.uintOrNil(),
    cron: r.strOrNil(Limits.cronBytesMax),
    zone: r.str(Limits.zoneBytesMax),
    nextAtMs: r.uint(),
    task: r.uintOrNil(),
    lastAtMs: r.uintOrNil(),
    occurrences: r.uint(),
    ...readItem(r)
  }
  r.skip(length - 9)
  return item
}
