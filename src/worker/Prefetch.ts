/**
 * How many tasks a worker leases ahead of its free handlers, out of how fast it has done the last ones.
 *
 * What is ahead lasts for `Limits.prefetchCoverMs` of work at the measured rate: longer than the way to the manager and
 * back. So short tasks never wait for the network, and long ones are not taken ahead: an idle worker may have them. (Little's
 * law: tasks on the way = rate x time on the way. Where they are too few, the rate that is measured is what they allow, and
 * the cover is more than they need: it grows.)
 */
import * as Limits from "../Limits.ts"

export class Prefetch {
  /** Tasks to lease ahead. */
  target: number
  readonly #fixed: boolean
  #ended = 0
  #since = 0

  /** `fixed` undefined: it adapts, and begins with `initial`. */
  constructor(fixed: number | undefined, initial: number) {
    this.#fixed = fixed !== undefined
    this.target = fixed ?? Math.min(initial, Limits.prefetchMax)
  }

  /** Told before every write: the time in milliseconds, and how many handlers have ended since. */
  look(now: number, ended: number): void {
    if (this.#fixed || ended === 0) return
    this.#ended += ended
    // The clock was set back.
    if (now < this.#since) this.#since = now
    const elapsed = now - this.#since
    if (elapsed < Limits.prefetchLookMs) return
    const covered = Math.floor((this.#ended / elapsed) * Limits.prefetchCoverMs)
    // So long ago that the time between was perhaps without work: not all at once.
    const known = elapsed <= Limits.prefetchTrustMs || covered >= this.target
    this.target = known ? Math.min(Limits.prefetchMax, covered) : Math.floor(this.target / 2)
    this.#ended = 0
    this.#since = now
  }
}
