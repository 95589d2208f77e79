/**
 * The outcomes of one queue: an append-only log, bounded by count, bytes and age, read by any number of readers.
 *
 * Entries are columns in segments, not objects: a million kept outcomes cost their bytes and about forty more each.
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
  readonly bodies: Array<Uint8Array | undefined> = []
  readonly reasons: Array<ReadonlyArray<AttemptReason> | undefined> = []
}

export class OutcomeLog {
  first = 0
  next = 0
  bytes = 0
  #segments: Array<Segment> = []
  /** The segment number of `#segments[0]`. */
  #base = 0
  readonly #keepCount: number
  readonly #keepBytes: number
  readonly #keepMs: number

  constructor(keepCount: number, keepBytes: number, keepMs: number) {
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
    now: number
  ): number {
    const cursor = this.next++
    const offset = cursor % segmentSize
    if (offset === 0 || this.#segments.length === 0) this.#segments.push(new Segment())
    const segment = this.#segments[this.#segments.length - 1]!
    segment.tasks[offset] = task
    segment.endedAt[offset] = now
    segment.attempts[offset] = attempts
    segment.outcomes[offset] = outcome
    segment.bodies[offset] = body
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
      segment.bodies[offset] = undefined
      segment.reasons[offset] = undefined
      if (offset === segmentSize - 1) {
        this.#segments.shift()
        this.#base++
      }
    }
  }

  /** When the oldest entry grows too old; `undefined` for an empty log. */
  nextEviction(): number | undefined {
    return this.first < this.next ? this.endedAt(this.first) + this.#keepMs : undefined
  }

  /** Bytes of the body and, at most, of the reasons as UTF-8. */
  size(cursor: number): number {
    const body = this.body(cursor)?.byteLength ?? 0
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
  body(cursor: number): Uint8Array | undefined {
    return this.#at(cursor).bodies[cursor % segmentSize]
  }
  reasons(cursor: number): ReadonlyArray<AttemptReason> | undefined {
    return this.#at(cursor).reasons[cursor % segmentSize]
  }

  /** Assumes: `first <= cursor < next`. */
  #at(cursor: number): Segment {
    return this.#segments[Math.floor(cursor / segmentSize) - this.#base]!
  }
}
