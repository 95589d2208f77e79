/**
 * How often something happened in the last 1, 10 and 60 whole seconds: a ring of one bucket per second.
 *
 * Counting is an integer addition, and once a second the clearing of what has grown old; reading adds up to 60 numbers
 * and changes nothing. Time is an argument. The second that is under way is not counted, so that a rate does not
 * depend on when within a second it is read. An idle gap of any length costs one clearing of the ring.
 */

/** What is counted. Leases count each grant, failures each attempt that ended badly, a lost one included. */
export const RateKind = { puts: 0, leases: 1, commits: 2, failures: 3 } as const
export type RateKind = (typeof RateKind)[keyof typeof RateKind]

/** Seconds that a rate may look back. */
export const rateWindows = [1, 10, 60] as const

const kinds = 4
/** A power of two above the longest window and the second under way. */
const seconds = 64

export class Rates {
  /** Bucket of second s and kind k: `(s % 64) * 4 + k`. Valid for the 64 seconds up to `#second`. */
  readonly #counts = new Uint32Array(seconds * kinds)
  #second = 0
  /** Where `#second` ends; the hot path compares with it and does not divide. */
  #until = 0

  add(kind: RateKind, count: number, now: number): void {
    if (now >= this.#until) this.#turn(Math.floor(now / 1_000))
    this.#counts[(this.#second & (seconds - 1)) * kinds + kind]! += count
  }

  /** How many there were in the last `windowSeconds` whole seconds before `now`. Assumes: at most 60, and `now` not before an `add`. */
  count(kind: RateKind, windowSeconds: number, now: number): number {
    const current = Math.floor(now / 1_000)
    let sum = 0
    for (let second = current - windowSeconds; second < current; second++) {
      // Nothing was counted since; what lies within the window has not been cleared for a later second.
      if (second <= this.#second) sum += this.#counts[(second & (seconds - 1)) * kinds + kind]!
    }
    return sum
  }

  /** A later second begins: the buckets of those in between are empty again. */
  #turn(second: number): void {
    const stale = Math.min(seconds, second - this.#second)
    for (let i = 0; i < stale; i++) {
      const at = ((second - i) & (seconds - 1)) * kinds
      this.#counts.fill(0, at, at + kinds)
    }
    this.#second = second
    this.#until = (second + 1) * 1_000
  }
}
