/**
 * 128-bit fingerprints in memory, each with the place of its key in the log: 24 bytes an entry, about 30 with free slots.
 *
 *     bounds -> segment: [ f f . f f f . . f f f . ] sorted, every entry at or after its home slot
 *
 * Open addressing whose order is the order of the fingerprints: a home slot rises with the fingerprint, and an insertion
 * moves up what is greater. A search therefore ends at the first greater entry, a page of a listing begins after the last
 * fingerprint of the one before, and neither growth nor a restart changes that order. Segments grow alone, a step at a time,
 * and split in two when they are large: no call moves more than one segment. They split at uneven places, so that they do
 * not all grow at the same time: the table takes the same share of free slots at every size, and what one segment leaves
 * another takes.
 *
 * Invariant: within a segment entries strictly rise, none stands before its home, none is behind a free slot of its home.
 */

/** Words of an entry: four of fingerprint, the lower 32 bits of the row, then 8 more bits of it and 24 of offset. */
const entryWords = 6
/** Slots behind the last home slot, so that no search wraps around. */
const overflowSlots = 64
const capacityMin = 8
/** Entries above which a segment splits: about 240 KB, moved in a tenth of a millisecond. */
const segmentEntriesMax = 8_192
/** Above it, capacities are multiples of it: few sizes, so that what one segment leaves fits another. */
const capacityStep = 1_024
/** Left arrays that are kept for the next segment of their size; the collector would take its time with them. */
const spareMax = 32
/** Entries per slot above which a segment grows. */
const loadMax = 0.86

/** Largest place that an entry can name: rows by number, offsets in bytes. */
export const rowMax = 2 ** 40 - 1
export const offsetMax = 2 ** 24 - 1

const none = new Uint32Array()

class Segment {
  words: Uint32Array
  /** Home slots. */
  capacity: number
  count = 0
  /** First words from `low` to below `low + span` belong here. */
  readonly low: number
  readonly span: number

  constructor(low: number, span: number) {
    this.low = low
    this.span = span
    this.capacity = 0
    this.words = none
  }

  /** The slot at which the search for a fingerprint with this first word begins. */
  home(w0: number): number {
    return Math.floor(((w0 - this.low) * this.capacity) / this.span)
  }
}

/** Entries in the order of their fingerprints. */
export interface Page {
  readonly count: number
  /** Four words each. */
  readonly fingerprints: Uint32Array
  readonly rows: ReadonlyArray<number>
  readonly offsets: ReadonlyArray<number>
  /** Whether entries follow. */
  readonly more: boolean
}

export class FingerprintTable {
  size = 0
  /** The place of the entry that `find` found last. */
  row = 0
  offset = 0
  readonly #segments: Array<Segment> = [new Segment(0, 2 ** 32)]
  /** The `low` of each segment. */
  readonly #bounds: Array<number> = [0]
  /** Arrays that segments have left, all free. */
  readonly #spare: Array<Uint32Array> = []
  #splits = 0
  /** Where the last search ended: the entry, or where it would go. */
  #segment: Segment
  #at = 0

  constructor() {
    this.#segment = this.#segments[0]!
    this.#refill(this.#segment, none, 0, 0, capacityMin)
  }

  /** Bytes of all slots, free ones included. */
  get bytes(): number {
    let bytes = 16 * this.#segments.length
    for (const words of this.#spare) bytes += words.byteLength
    for (const segment of this.#segments) bytes += segment.words.byteLength
    return bytes
  }

  has(f: Uint32Array): boolean {
    return this.#search(f)
  }

  /** Whether it is there; then `row` and `offset` say where its key is. */
  find(f: Uint32Array): boolean {
    if (!this.#search(f)) return false
    const { words } = this.#segment
    const high = words[this.#at + 5]!
    this.row = (high >>> 24) * 2 ** 32 + words[this.#at + 4]!
    this.offset = high & offsetMax
    return true
  }

  /** Adds an entry; false if it is there already, with whatever place it has. */
  add(f: Uint32Array, row: number, offset: number): boolean {
    if (this.#search(f)) return false
    if (this.#segment.count >= Math.floor(this.#segment.capacity * loadMax)) this.#grow(f)
    for (;;) {
      const { words } = this.#segment
      const at = this.#at
      let free = at
      while (free < words.length && !isFree(words, free)) free += entryWords
      if (free < words.length) {
        if (free > at) words.copyWithin(at + entryWords, at, free)
        words[at] = f[0]!
        words[at + 1] = f[1]!
        words[at + 2] = f[2]!
        words[at + 3] = f[3]!
        place(words, at, row, offset)
        this.#segment.count++
        this.size++
        return true
      }
      this.#widen(f)
    }
  }

  /** Says that the key of an entry is elsewhere now. False if there is no such entry. */
  move(f: Uint32Array, row: number, offset: number): boolean {
    if (!this.#search(f)) return false
    place(this.#segment.words, this.#at, row, offset)
    return true
  }

  delete(f: Uint32Array): boolean {
    if (!this.#search(f)) return false
    const segment = this.#segment
    const { words } = segment
    const at = this.#at
    // What stands behind its home moves down by one, up to a free slot or an entry that is at home.
    let end = at + entryWords
    while (end < words.length && !isFree(words, end)) {
      if (segment.home(words[end]!) * entryWords === end) break
      end += entryWords
    }
    words.copyWithin(at, at + entryWords, end)
    words.fill(0, end - entryWords, end)
    segment.count--
    this.size--
    return true
  }

  /**
   * Up to `count` entries after `after` (from the first on, without it).
   *
   * Ensures: a listing page by page shows every entry that was there all the time exactly once, whatever is added or
   * deleted meanwhile; what came or went during the listing may be shown or not.
   */
  page(after: Uint32Array | undefined, count: number): Page {
    const fingerprints = new Uint32Array(4 * Math.min(count, this.size))
    const rows: Array<number> = []
    const offsets: Array<number> = []
    let found = 0
    let index = 0
    let at = 0
    if (after !== undefined) {
      const there = this.#search(after)
      index = this.#index(after[0]!)
      at = there ? this.#at + entryWords : this.#at
    }
    for (; index < this.#segments.length; index++) {
      const { words } = this.#segments[index]!
      for (; at < words.length; at += entryWords) {
        if (isFree(words, at)) continue
        if (found === count) return { count, fingerprints, rows, offsets, more: true }
        for (let i = 0; i < 4; i++) fingerprints[4 * found + i] = words[at + i]!
        const high = words[at + 5]!
        rows.push((high >>> 24) * 2 ** 32 + words[at + 4]!)
        offsets.push(high & offsetMax)
        found++
      }
      at = 0
    }
    return { count: found, fingerprints, rows, offsets, more: false }
  }

  /** What is wrong with the table, for `Invariants`. */
  faults(): ReadonlyArray<string> {
    const found: Array<string> = []
    let size = 0
    for (const [index, segment] of this.#segments.entries()) {
      const { words } = segment
      let last: number | undefined
      let count = 0
      for (let at = 0; at < words.length; at += entryWords) {
        if (isFree(words, at)) continue
        count++
        const home = segment.home(words[at]!) * entryWords
        if (home > at) found.push(`segment ${index}: an entry before its home`)
        for (let slot = home; slot < at; slot += entryWords) {
          if (isFree(words, slot)) found.push(`segment ${index}: an entry behind a free slot`)
        }
        if (last !== undefined && order(words, last, words, at) >= 0) found.push(`segment ${index}: out of order`)
        if (this.#segments[this.#index(words[at]!)] !== segment) found.push(`segment ${index}: a foreign entry`)
        last = at
      }
      if (count !== segment.count) found.push(`segment ${index}: count ${segment.count}, ${count} entries`)
      size += count
    }
    if (size !== this.size) found.push(`size ${this.size}, ${size} entries`)
    return found
  }

  #index(w0: number): number {
    const bounds = this.#bounds
    let low = 0
    for (let high = bounds.length; high - low > 1; ) {
      const middle = (low + high) >>> 1
      if (bounds[middle]! <= w0) low = middle
      else high = middle
    }
    return low
  }

  #search(f: Uint32Array): boolean {
    const w0 = f[0]!
    const segment = this.#segments[this.#index(w0)]!
    const { words } = segment
    let at = segment.home(w0) * entryWords
    this.#segment = segment
    for (; at < words.length; at += entryWords) {
      const a = words[at]!
      if (a < w0) {
        if (a === 0 && isFree(words, at)) break
        continue
      }
      if (a > w0) break
      const o = order(words, at, f, 0)
      if (o < 0 && !isFree(words, at)) continue
      this.#at = at
      return o === 0
    }
    this.#at = at
    return false
  }

  /** Makes room in the segment of this fingerprint, and finds its place anew. */
  #grow(f: Uint32Array): void {
    const segment = this.#segment
    const { capacity, count, span, words } = segment
    if (count >= segmentEntriesMax && span > 1) this.#split(segment)
    else {
      this.#refill(segment, words, 0, words.length, capacity + Math.max(4, capacity >>> 3))
      this.#leave(words)
    }
    this.#search(f)
  }

  /** The entries crowd at the end of their segment: it gets more slots behind its last home. */
  #widen(f: Uint32Array): void {
    const segment = this.#segment
    const { capacity, words } = segment
    const overflow = words.length / entryWords - capacity
    this.#refill(segment, words, 0, words.length, capacity, 2 * overflow)
    this.#leave(words)
    this.#search(f)
  }

  #split({ count, low, span, words }: Segment): void {
    // Between 3/8 and 5/8, by the golden ratio: the same in every run, and never in step.
    const part = 0.375 + 0.25 * ((++this.#splits * 0.618_033_988_75) % 1)
    const lower = Math.max(1, Math.floor(span * part))
    let middle = 0
    let below = 0
    for (; middle < words.length; middle += entryWords) {
      if (isFree(words, middle)) continue
      if (words[middle]! >= low + lower) break
      below++
    }
    const first = new Segment(low, lower)
    const second = new Segment(low + lower, span - lower)
    this.#refill(first, words, 0, middle, Math.ceil((below / loadMax) * 1.05))
    this.#refill(second, words, middle, words.length, Math.ceil(((count - below) / loadMax) * 1.05))
    this.#leave(words)
    const index = this.#index(low)
    this.#segments.splice(index, 1, first, second)
    this.#bounds.splice(index + 1, 0, second.low)
  }

  /** Gives the segment an array of this capacity, filled with what rises here; longer should entries crowd at its end. */
  #refill(
    segment: Segment,
    from: Uint32Array,
    start: number,
    end: number,
    capacity: number,
    overflow = overflowSlots
  ): void {
    const whole = capacity > capacityStep ? Math.ceil(capacity / capacityStep) * capacityStep : capacity
    segment.capacity = Math.max(capacityMin, whole)
    segment.count = 0
    const words = this.#take((segment.capacity + overflow) * entryWords)
    segment.words = words
    let next = 0
    for (let at = start; at < end; at += entryWords) {
      if (isFree(from, at)) continue
      const to = Math.max(segment.home(from[at]!) * entryWords, next)
      if (to >= words.length) {
        this.#leave(words)
        return this.#refill(segment, from, start, end, capacity, 2 * overflow)
      }
      for (let i = 0; i < entryWords; i++) words[to + i] = from[at + i]!
      next = to + entryWords
      segment.count++
    }
  }

  #take(length: number): Uint32Array {
    const spare = this.#spare
    for (let i = spare.length - 1; i >= 0; i--) {
      const words = spare[i]!
      if (words.length !== length) continue
      spare[i] = spare.at(-1)!
      spare.pop()
      return words
    }
    return new Uint32Array(length)
  }

  #leave(words: Uint32Array): void {
    if (words.length < capacityStep * entryWords) return
    words.fill(0)
    if (this.#spare.length < spareMax) this.#spare.push(words)
  }
}

const isFree = (words: Uint32Array, at: number): boolean =>
  words[at] === 0 && words[at + 1] === 0 && words[at + 2] === 0 && words[at + 3] === 0

const place = (words: Uint32Array, at: number, row: number, offset: number): void => {
  words[at + 4] = row % 2 ** 32
  words[at + 5] = Math.floor(row / 2 ** 32) * 2 ** 24 + offset
}

/** Below, at or above 0 as the one entry comes before, is, or comes after the other. */
const order = (a: Uint32Array, i: number, b: Uint32Array, j: number): number => {
  for (let word = 0; word < 4; word++) {
    const left = a[i + word]!
    const right = b[j + word]!
    if (left !== right) return left < right ? -1 : 1
  }
  return 0
}
