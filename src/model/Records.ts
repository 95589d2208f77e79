/**
 * The records of the log: what a round has decided, as bytes, and back.
 *
 *     row = version, epoch, time of the round, record*        record = kind, fields in the order below
 *
 * Two sorts of records: *full* ones hold all there is to know of one thing (a queue, a task, an outcome, a session, an
 * answer), *changes* say what happened to a task since its full record. A full record replaces what was known; a change
 * of something unknown is passed over, for its full record lay in a row that has been cleaned. So the rows that are
 * left, read in order, always rebuild the present state, wherever the log was cut.
 *
 * Bytes of payloads and outcome bodies are not copied out: a record says where in its row they lie.
 */
import * as Limits from "../Limits.ts"
import { Malformed, Reader, type Writer } from "../wire/Bytes.ts"
import { formatVersion, type Row } from "./Journal.ts"
import type { LaneSetting } from "./Lanes.ts"
import type { ObjectKind } from "./Objects.ts"
import { type Durability, fromNumbers, type Policy } from "./Policy.ts"
import type { RepeatState } from "./Repeat.ts"
import type { AttemptReason, Outcome, Reason, TaskOptions } from "./Task.ts"

export const Kind = {
  queue: 1,
  put: 2,
  putWith: 3,
  task: 4,
  leased: 5,
  returned: 6,
  ended: 7,
  acknowledged: 8,
  outcome: 9,
  dedupe: 10,
  session: 11,
  sessionEnded: 12,
  answer: 13,
  answersSeen: 14,
  putProgress: 15,
  namespace: 16,
  repeat: 17,
  repeatRemoved: 18,
  purged: 19,
  redriven: 20,
  checkpoint: 21,
  object: 22,
  setAdded: 23,
  setRemoved: 24,
  counter: 25,
  dictEntry: 26,
  dictDeleted: 27,
  lane: 28,
  suspended: 29,
  entries: 30
} as const

/** Bytes that stay in the row: where they begin, and how many. */
export interface Span {
  readonly at: number
  readonly size: number
}

export interface QueueRecord {
  readonly kind: typeof Kind.queue
  readonly id: number
  readonly name: string
  readonly fingerprint: Uint8Array
  readonly schema: string
  readonly accepts: ReadonlyArray<Uint8Array>
  readonly policy: Policy
  readonly durability: Durability
  readonly closed: number
  readonly paused: boolean
  /** See `queueCounters`. */
  readonly counters: ReadonlyArray<number>
}
export interface PutRecord {
  readonly kind: typeof Kind.put | typeof Kind.putWith
  readonly n: number
  readonly queue: number
  /** Delayed until; 0: ready. */
  readonly dueAt: number
  /** The dead letter that this task was put again from; 0: none. */
  readonly origin: number
  readonly checkpoint: Uint8Array | undefined
  readonly options: TaskOptions | undefined
  readonly payload: Span
}
export interface TaskRecord {
  readonly kind: typeof Kind.task
  readonly n: number
  readonly queue: number
  readonly state: number
  readonly putAt: number
  /** Delayed: due at. Ended (a dead letter): died at. */
  readonly at: number
  /** Of a dead letter: the cursor of its outcome. */
  readonly place: number
  readonly origin: number
  readonly attempt: number
  readonly leases: number
  readonly releases: number
  readonly losses: number
  readonly expired: boolean
  /** Number of the session that holds the lease, and its fence; 0: none. */
  readonly holder: number
  readonly fence: number
  readonly reasons: ReadonlyArray<AttemptReason>
  readonly checkpoint: Uint8Array | undefined
  readonly options: TaskOptions | undefined
  readonly payload: Span
}
export interface LeasedRecord {
  readonly kind: typeof Kind.leased
  readonly n: number
  readonly session: number
}
export interface ReturnedRecord {
  readonly kind: typeof Kind.returned
  readonly n: number
  readonly state: number
  readonly at: number
  readonly place: number
  readonly attempt: number
  readonly releases: number
  readonly losses: number
  readonly reasons: ReadonlyArray<AttemptReason>
}
export interface EndedRecord {
  readonly kind: typeof Kind.ended
  readonly n: number
  /** Of itself: the full record of its task may have been cleaned. */
  readonly queue: number
  readonly cursor: number
  readonly outcome: Outcome
  readonly attempts: number
  readonly reasons: ReadonlyArray<AttemptReason>
  /** Undefined: the body is the payload, where that lies. */
  readonly body: Span | undefined
}
export interface AcknowledgedRecord {
  readonly kind: typeof Kind.acknowledged | typeof Kind.purged | typeof Kind.redriven
  readonly n: number
  readonly queue: number
}
export interface CheckpointRecord {
  readonly kind: typeof Kind.checkpoint
  readonly n: number
  readonly bytes: Uint8Array
}
/** Delayed until `at`, and a signal ends that. */
export interface SuspendedRecord {
  readonly kind: typeof Kind.suspended
  readonly n: number
  readonly at: number
  readonly attempt: number
}
/** Steps and signals that a task, or a dead letter, has from now on besides those it had. */
export interface EntriesRecord {
  readonly kind: typeof Kind.entries
  readonly n: number
  readonly entries: ReadonlyArray<readonly [name: string, value: Uint8Array]>
}
export interface OutcomeRecord {
  readonly kind: typeof Kind.outcome
  readonly n: number
  readonly queue: number
  readonly cursor: number
  readonly outcome: Outcome
  readonly attempts: number
  readonly endedAt: number
  readonly reasons: ReadonlyArray<AttemptReason>
  readonly body: Span
}
export interface DedupeRecord {
  readonly kind: typeof Kind.dedupe
  readonly queue: number
  readonly id: string
  readonly n: number
  readonly until: number
}
export interface SessionRecord {
  readonly kind: typeof Kind.session
  readonly id: number
  readonly token: Uint8Array
  readonly principal: string
}
export interface SessionEndedRecord {
  readonly kind: typeof Kind.sessionEnded
  readonly id: number
}
/** `message` is the answer as it travels. */
export interface AnswerRecord {
  readonly kind: typeof Kind.answer
  readonly session: number
  readonly request: number
  readonly message: Uint8Array
}
/** `ranges` is from, to, from, to, ...: both included. */
export interface AnswersSeenRecord {
  readonly kind: typeof Kind.answersSeen
  readonly session: number
  readonly ranges: ReadonlyArray<number>
}
/** How much of a put that waits for room has entered. */
export interface PutProgressRecord {
  readonly kind: typeof Kind.putProgress
  readonly session: number
  readonly request: number
  readonly tasks: ReadonlyArray<number>
  readonly statuses: ReadonlyArray<number>
}

export interface RepeatRecord {
  readonly kind: typeof Kind.repeat
  readonly queue: number
  readonly state: RepeatState
}
export interface RepeatRemovedRecord {
  readonly kind: typeof Kind.repeatRemoved
  readonly queue: number
  readonly id: string
}
/** Numbers that are never given twice. */
export interface NamespaceRecord {
  readonly kind: typeof Kind.namespace
  readonly nextTask: number
  readonly nextSession: number
  /** The secret that fingerprints of sets rest on. */
  readonly objectsKey: Uint8Array
}
/** What is kept of a lane; undefined: nothing any more. */
export interface LaneRecord {
  readonly kind: typeof Kind.lane
  readonly queue: number
  readonly key: string
  readonly setting: LaneSetting | undefined
}
export interface ObjectRecord {
  readonly kind: typeof Kind.object
  readonly id: number
  readonly name: string
  readonly object: ObjectKind
  readonly durability: Durability
}
/** `at`: where in the row the key lies, its length first. */
export interface SetAddedRecord {
  readonly kind: typeof Kind.setAdded
  readonly id: number
  readonly fingerprint: Uint32Array
  readonly at: number
  readonly key: Span
}
export interface SetRemovedRecord {
  readonly kind: typeof Kind.setRemoved
  readonly id: number
  readonly fingerprint: Uint32Array
}
export interface CounterRecord {
  readonly kind: typeof Kind.counter
  readonly id: number
  readonly value: number
  readonly version: number
}
export interface DictEntryRecord {
  readonly kind: typeof Kind.dictEntry
  readonly id: number
  readonly key: string
  readonly version: number
  readonly born: number
  readonly value: Uint8Array
}
export interface DictDeletedRecord {
  readonly kind: typeof Kind.dictDeleted
  readonly id: number
  readonly key: string
  readonly version: number
}

export type Record =
  | NamespaceRecord
  | ObjectRecord
  | LaneRecord
  | SetAddedRecord
  | SetRemovedRecord
  | CounterRecord
  | DictEntryRecord
  | DictDeletedRecord
  | RepeatRecord
  | RepeatRemovedRecord
  | QueueRecord
  | PutRecord
  | TaskRecord
  | LeasedRecord
  | ReturnedRecord
  | EndedRecord
  | AcknowledgedRecord
  | CheckpointRecord
  | SuspendedRecord
  | EntriesRecord
  | OutcomeRecord
  | DedupeRecord
  | SessionRecord
  | SessionEndedRecord
  | AnswerRecord
  | AnswersSeenRecord
  | PutProgressRecord

export const durabilities: ReadonlyArray<Durability> = ["memory", "buffered", "fsync"]
export const closedStates = ["open", "drain", "immediate"] as const

/** What a row says, in order. */
export interface Visitor {
  readonly row: (seq: number, epoch: number, now: number) => void
  readonly record: (record: Record) => void
  /** A put without options, in place of its record: where its payload lies. Undefined: as a record, like the others. */
  readonly put?: ((n: number, queue: number, at: number, size: number) => void) | undefined
}

/** Reads a row. Throws `Malformed` for what this version does not write. */
export const readRow = ({ body, seq }: Row, visitor: Visitor): void => {
  const r = new Reader(body)
  const version = r.uint()
  if (version !== formatVersion) {
    throw new Malformed(`row ${seq} has format ${version}, this version reads ${formatVersion}`)
  }
  visitor.row(seq, r.uint(), r.uint())
  while (!r.done) {
    if (visitor.put !== undefined && body[r.position] === Kind.put) {
      // Most of a log of waiting tasks: without two objects for each a million take 1.4 s of CPU for 1.55.
      r.position++
      const n = r.uint()
      const queue = r.uint()
      const size = r.binSize(bytesMax)
      visitor.put(n, queue, r.position - size, size)
    } else visitor.record(decode(r))
  }
}

// ---- pieces

const bytesMax = Limits.frameBytesMax

export const span = (r: Reader): Span => {
  const size = r.binSize(bytesMax)
  return { at: r.position - size, size }
}

/** A copy: rows are not kept for what was read from them. */
export const copy = (r: Reader): Uint8Array => r.bin(bytesMax).slice()

export const list = <A>(r: Reader, item: () => A): Array<A> => {
  const length = r.array(bytesMax)
  const items: Array<A> = []
  for (let i = 0; i < length; i++) items.push(item())
  return items
}

export const writeList = <A>(w: Writer, items: ReadonlyArray<A>, write: (item: A) => void): void => {
  w.array(items.length)
  for (const item of items) write(item)
}

export const writeReasons = (w: Writer, reasons: ReadonlyArray<AttemptReason> | undefined): void => {
  if (reasons === undefined) return w.array(0)
  w.array(reasons.length)
  for (const { attempt, reason, text } of reasons) {
    w.uint(attempt)
    w.uint(reason)
    w.str(text)
  }
}

const noReasons: ReadonlyArray<AttemptReason> = []

export const readReasons = (r: Reader): ReadonlyArray<AttemptReason> => {
  const length = r.array(bytesMax)
  if (length === 0) return noReasons
  const reasons: Array<AttemptReason> = []
  for (let i = 0; i < length; i++) {
    reasons.push({ attempt: r.uint(), reason: r.uint(255) as Reason, text: r.str(bytesMax) })
  }
  return reasons
}

/** The delay has become the task's due time; the rest is kept as it was put. */
export const writeOptions = (w: Writer, options: TaskOptions): void => {
  w.strOrNil(options.id)
  w.uintOrNil(options.priority)
  w.uintOrNil(options.ttlMs)
  w.strOrNil(options.key)
  if (options.labels === undefined) w.nil()
  else writeList(w, options.labels, (label) => w.str(label))
  w.strOrNil(options.trace)
}

export const readOptions = (r: Reader): TaskOptions => ({
  id: r.strOrNil(bytesMax),
  priority: r.uintOrNil(255),
  ttlMs: r.uintOrNil(),
  key: r.strOrNil(bytesMax),
  labels: r.nil() ? undefined : list(r, () => r.str(bytesMax)),
  trace: r.strOrNil(bytesMax)
})

const setting = (r: Reader): LaneSetting => {
  const paused = r.bool()
  const slowedUntil = r.uint()
  if (r.nil()) return { paused, slowedUntil, override: undefined }
  r.array(0)
  const concurrency = r.uintOrNil()
  const ratePerMinute = r.uintOrNil()
  const burst = r.uintOrNil()
  const gapMs = r.uintOrNil()
  return { paused, slowedUntil, override: { concurrency, ratePerMinute, burst, gapMs, weight: r.uintOrNil() } }
}

/** A fingerprint: four words. */
const words = (r: Reader): Uint32Array => Uint32Array.from({ length: 4 }, () => r.uint())

/** Options after a mark, or nil. */
const optionsOrNil = (r: Reader): TaskOptions | undefined => {
  if (r.nil()) return undefined
  r.array(0)
  return readOptions(r)
}

// ---- decoding

const decode = (r: Reader): Record => {
  const kind = r.uint()
  switch (kind) {
    case Kind.queue:
      return {
        kind,
        id: r.uint(),
        name: r.str(bytesMax),
        fingerprint: copy(r),
        schema: r.str(bytesMax),
        accepts: list(r, () => copy(r)),
        policy: fromNumbers(list(r, () => r.uint())),
        durability: durabilities[r.uint(2)]!,
        closed: r.uint(2),
        paused: r.bool(),
        counters: list(r, () => r.uint())
      }
    case Kind.put:
      return {
        kind,
        n: r.uint(),
        queue: r.uint(),
        dueAt: 0,
        origin: 0,
        checkpoint: undefined,
        options: undefined,
        payload: span(r)
      }
    case Kind.putWith:
      return {
        kind,
        n: r.uint(),
        queue: r.uint(),
        dueAt: r.uint(),
        origin: r.uint(),
        checkpoint: r.nil() ? undefined : copy(r),
        options: optionsOrNil(r),
        payload: span(r)
      }
    case Kind.task:
      return {
        kind,
        n: r.uint(),
        queue: r.uint(),
        state: r.uint(3),
        putAt: r.uint(),
        at: r.uint(),
        place: r.uint(),
        origin: r.uint(),
        attempt: r.uint(),
        leases: r.uint(),
        releases: r.uint(),
        losses: r.uint(),
        expired: r.bool(),
        holder: r.uint(),
        fence: r.uint(),
        reasons: readReasons(r),
        checkpoint: r.nil() ? undefined : copy(r),
        options: optionsOrNil(r),
        payload: span(r)
      }
    case Kind.leased:
      return { kind, n: r.uint(), session: r.uint() }
    case Kind.returned:
      return {
        kind,
        n: r.uint(),
        state: r.uint(3),
        at: r.uint(),
        place: r.uint(),
        attempt: r.uint(),
        releases: r.uint(),
        losses: r.uint(),
        reasons: readReasons(r)
      }
    case Kind.ended:
      return {
        kind,
        n: r.uint(),
        queue: r.uint(),
        cursor: r.uint(),
        outcome: r.uint(3) as Outcome,
        attempts: r.uint(),
        reasons: readReasons(r),
        body: r.nil() ? undefined : span(r)
      }
    case Kind.acknowledged:
    case Kind.purged:
    case Kind.redriven:
      return { kind, n: r.uint(), queue: r.uint() }
    case Kind.outcome:
      return {
        kind,
        n: r.uint(),
        queue: r.uint(),
        cursor: r.uint(),
        outcome: r.uint(3) as Outcome,
        attempts: r.uint(),
        endedAt: r.uint(),
        reasons: readReasons(r),
        body: span(r)
      }
    case Kind.dedupe:
      return { kind, queue: r.uint(), id: r.str(bytesMax), n: r.uint(), until: r.uint() }
    case Kind.session:
      return { kind, id: r.uint(), token: copy(r), principal: r.str(bytesMax) }
    case Kind.sessionEnded:
      return { kind, id: r.uint() }
    case Kind.answer: {
      const session = r.uint()
      const request = r.uint()
      const from = r.position
      r.skip(1)
      return { kind, session, request, message: r.bytes.slice(from, r.position) }
    }
    case Kind.answersSeen:
      return { kind, session: r.uint(), ranges: list(r, () => r.uint()) }
    case Kind.putProgress:
      return {
        kind,
        session: r.uint(),
        request: r.uint(),
        tasks: list(r, () => r.uint()),
        statuses: list(r, () => r.uint())
      }
    case Kind.namespace:
      return { kind, nextTask: r.uint(), nextSession: r.uint(), objectsKey: copy(r) }
    case Kind.checkpoint:
      return { kind, n: r.uint(), bytes: copy(r) }
    case Kind.suspended:
      return { kind, n: r.uint(), at: r.uint(), attempt: r.uint() }
    case Kind.entries:
      return { kind, n: r.uint(), entries: list(r, () => [r.str(bytesMax), copy(r)] as const) }
    case Kind.repeat:
      return {
        kind,
        queue: r.uint(),
        state: {
          definition: {
            id: r.str(bytesMax),
            everyMs: r.uintOrNil(),
            cron: r.strOrNil(bytesMax),
            zone: r.str(bytesMax),
            payload: copy(r),
            options: optionsOrNil(r)
          },
          nextAt: r.uint(),
          cronAfter: r.uint(),
          task: r.uint(),
          lastAt: r.uint(),
          occurrences: r.uint()
        }
      }
    case Kind.repeatRemoved:
      return { kind, queue: r.uint(), id: r.str(bytesMax) }
    case Kind.lane: {
      const queue = r.uint()
      const key = r.str(bytesMax)
      return { kind, queue, key, setting: r.nil() ? undefined : setting(r) }
    }
    case Kind.object:
      return {
        kind,
        id: r.uint(),
        name: r.str(bytesMax),
        object: r.uint(2) as ObjectKind,
        durability: durabilities[r.uint(2)]!
      }
    case Kind.setAdded: {
      const id = r.uint()
      const fingerprint = words(r)
      const at = r.position
      return { kind, id, fingerprint, at, key: span(r) }
    }
    case Kind.setRemoved:
      return { kind, id: r.uint(), fingerprint: words(r) }
    case Kind.counter: {
      const id = r.uint()
      const negative = r.bool()
      const value = r.uint()
      return { kind, id, value: negative ? -value : value, version: r.uint() }
    }
    case Kind.dictEntry:
      return { kind, id: r.uint(), key: r.str(bytesMax), version: r.uint(), born: r.uint(), value: copy(r) }
    case Kind.dictDeleted:
      return { kind, id: r.uint(), key: r.str(bytesMax), version: r.uint() }
    default:
      throw new Malformed(`record kind ${kind} is not known to this version`)
  }
}
