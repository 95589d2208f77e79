/**
 * The outcomes of one queue: an append-only log, bounded by count, bytes and age, read by any number of readers.
 *
 * Entries are columns in segments, not objects: a million kept outcomes cost their bytes and about seventy more each.
 * `first` is the cursor of the oldest entry still held, `next` the cursor that the next entry will get. Cursors rise
 * by one and are never reused.
 */
import type { AttemptReason, Outcome } from "./Task.ts"

const segmentSize = 1_024

class Segment {
  readonly tasks = new Float64Array(segmentSize)
  readonly endedAt = new Float64Array(segmentSize)
  readonly attempts = new Uint32Array(segmentSize)
  readonly outcomes = new Uint8Array(segmentSize)
  readonly present = new Uint8Array(segmentSize)
  /** Bytes of each body, wherever it is. */
  readonly sizes = new Uint32Array(segmentSize)
  /** The row of the log with the record, the row with the body, and where in it the body begins; 0: in no log. */
  readonly homes = new Float64Array(segmentSize)
  readonly bodyHomes = new Float64Array(segmentSize)
  readonly bodyAts = new Uint32Array(segmentSize)
  /** What the bytes of each body lie in, with others, and where: a view each would be a hundred bytes more to keep. */
  readonly buffers: Array<ArrayBufferLike | undefined> = []
  readonly offsets = new Uint32Array(segmentSize)
  readonly reasons: Array<ReadonlyArray<AttemptReason> | undefined> = []
}

export class OutcomeLog {
  first = 0
  next = 0
  bytes = 0
  /** Bytes of bodies in memory. */
  residentBytes = 0
  /** No body before this cursor is in memory, unless it is nowhere else. */
  #residentFrom = 0
  #segments: Array<Segment> = []
  /** The segment number of `#segments[0]`. */
  #base = 0
  #keepCount: number
  #keepBytes: number
  #keepMs: number

  constructor(keepCount: number, keepBytes: number, keepMs: number) {
    this.#keepCount = keepCount
    this.#keepBytes = keepBytes
    this.#keepMs = keepMs
  }

  bound(keepCount: number, keepBytes: number, keepMs: number): void {
    this.#keepCount = keepCount
    this.#keepBytes = keepBytes
    this.#keepMs = keepMs
  }

  append(
    task: number,
    outcome: Outcome,
    body: Uint8Array | undefined,
    reasons: ReadonlyArray<AttemptReason> | undefined,
    attempts: number,
    now: number,
    /** Of the body, where it is not in memory. */
    bodyBytes = body?.byteLength ?? 0
  ): number {
    const cursor = this.next++
    const offset = cursor % segmentSize
    if (this.#segments.length === 0) this.#base = Math.floor(cursor / segmentSize)
    if (offset === 0 || this.#segments.length === 0) this.#segments.push(new Segment())
    const segment = this.#segments[this.#segments.length - 1]!
    segment.present[offset] = 1
    segment.sizes[offset] = bodyBytes
    this.residentBytes += body?.byteLength ?? 0
    segment.tasks[offset] = task
    segment.endedAt[offset] = now
    segment.attempts[offset] = attempts
    segment.outcomes[offset] = outcome
    segment.buffers[offset] = body?.buffer
    segment.offsets[offset] = body?.byteOffset ?? 0
    segment.reasons[offset] = reasons
    this.bytes += this.size(cursor)
    return cursor
  }

  /** Drops what is over its bounds, oldest first, and tells `dropped` the task of each. */
  evict(now: number, dropped: (task: number) => void): void {
    while (
      this.first < this.next &&
      (this.next - this.first > this.#keepCount ||
        this.bytes > this.#keepBytes ||
        this.endedAt(this.first) + this.#keepMs <= now)
    ) {
      const cursor = this.first++
      const offset = cursor % segmentSize
      const segment = this.#segments[0]!
      dropped(segment.tasks[offset]!)
      this.bytes -= this.size(cursor)
      if (segment.buffers[offset] !== undefined) this.residentBytes -= segment.sizes[offset]!
      segment.present[offset] = 0
      segment.buffers[offset] = undefined
      segment.reasons[offset] = undefined
      if (offset === segmentSize - 1) {
        this.#segments.shift()
        this.#base++
      }
    }
  }

  /** Where the log of the namespace has the record and its body. */
  place(cursor: number, home: number, bodyHome: number, bodyAt: number): void {
    const segment = this.#at(cursor)
    const offset = cursor % segmentSize
    segment.homes[offset] = home
    segment.bodyHomes[offset] = bodyHome
    segment.bodyAts[offset] = bodyAt
  }

  /** Drops bodies that the log of the namespace has, oldest first, until at most `max` bytes are in memory. */
  shed(max: number): void {
    for (; this.residentBytes > max && this.#residentFrom < this.next; this.#residentFrom++) {
      const cursor = this.#residentFrom
      if (cursor < this.first) {
        this.#residentFrom = this.first - 1
        continue
      }
      const segment = this.#at(cursor)
      const offset = cursor % segmentSize
      if (segment.bodyHomes[offset] === 0) continue
      if (segment.buffers[offset] === undefined) continue
      this.residentBytes -= segment.sizes[offset]!
      segment.buffers[offset] = undefined
    }
  }

  /** Puts back an entry read from the log of the namespace, in any order; `restored` ends it. Its body stays there. */
  restore(
    cursor: number,
    task: number,
    outcome: Outcome,
    reasons: ReadonlyArray<AttemptReason> | undefined,
    attempts: number,
    endedAt: number,
    bodyBytes: number
  ): void {
    const number = Math.floor(cursor / segmentSize)
    if (this.#segments.length === 0) this.#base = number
    while (number < this.#base) {
      this.#segments.unshift(new Segment())
      this.#base--
    }
    while (number >= this.#base + this.#segments.length) this.#segments.push(new Segment())
    const segment = this.#at(cursor)
    const offset = cursor % segmentSize
    segment.present[offset] = 1
    segment.tasks[offset] = task
    segment.endedAt[offset] = endedAt
    segment.attempts[offset] = attempts
    segment.outcomes[offset] = outcome
    segment.buffers[offset] = undefined
    segment.reasons[offset] = reasons === undefined || reasons.length === 0 ? undefined : reasons
    segment.sizes[offset] = bodyBytes
    this.next = Math.max(this.next, cursor + 1)
  }

  /** Ends restoring: the log begins after the last gap. Tells `dropped` the task of each entry before it. */
  restored(dropped: (task: number) => void): void {
    this.first = this.next
    while (this.first > this.#base * segmentSize && this.#segments.length > 0 && this.#present(this.first - 1))
      this.first--
    for (let cursor = this.#base * segmentSize; cursor < this.first; cursor++) {
      if (this.#present(cursor)) dropped(this.task(cursor))
    }
    while (this.#segments.length > 0 && (this.#base + 1) * segmentSize <= this.first) {
      this.#segments.shift()
      this.#base++
    }
    this.#residentFrom = this.first
    this.bytes = 0
    for (let cursor = this.first; cursor < this.next; cursor++) this.bytes += this.size(cursor)
  }

  #present(cursor: number): boolean {
    const segment = this.#segments[Math.floor(cursor / segmentSize) - this.#base]
    return segment !== undefined && segment.present[cursor % segmentSize] === 1
  }

  /** When the oldest entry grows too old; `undefined` for an empty log. */
  nextEviction(): number | undefined {
    return this.first < this.next ? this.endedAt(this.first) + this.#keepMs : undefined
  }

  /** Bytes of the body and, at most, of the reasons as UTF-8. */
  size(cursor: number): number {
    const body = this.bodyBytes(cursor)
    const reasons = this.reasons(cursor)
    return reasons === undefined ? body : reasons.reduce((bytes, { text }) => bytes + 3 * text.length, body)
  }

  task(cursor: number): number {
    return this.#at(cursor).tasks[cursor % segmentSize]!
  }
  endedAt(cursor: number): number {
    return this.#at(cursor).endedAt[cursor % segmentSize]!
  }
  attempts(cursor: number): number {
    return this.#at(cursor).attempts[cursor % segmentSize]!
  }
  outcome(cursor: number): Outcome {
    return this.#at(cursor).outcomes[cursor % segmentSize]! as Outcome
  }
  bodyBytes(cursor: number): number {
    return this.#at(cursor).sizes[cursor % segmentSize]!
  }
  /** The row of the log with the record; 0: in no log. */
  home(cursor: number): number {
    return this.#at(cursor).homes[cursor % segmentSize]!
  }
  /** The row of the log with the body, and where in it the body begins. */
  bodyHome(cursor: number): number {
    return this.#at(cursor).bodyHomes[cursor % segmentSize]!
  }
  bodyAt(cursor: number): number {
    return this.#at(cursor).bodyAts[cursor % segmentSize]!
  }
  /** Undefined: none, or only in the log (`bodyBytes` tells). */
  body(cursor: number): Uint8Array | undefined {
    const segment = this.#at(cursor)
    const offset = cursor % segmentSize
    const buffer = segment.buffers[offset]
    return buffer && new Uint8Array(buffer, segment.offsets[offset], segment.sizes[offset])
  }
  reasons(cursor: number): ReadonlyArray<AttemptReason> | undefined {
    return this.#at(cursor).reasons[cursor % segmentSize]
  }

  /** Assumes: `first <= cursor < next`. */
  #at(cursor: number): Segment {
    return this.#segments[Math.floor(cursor / segmentSize) - this.#base]!
  }
}
