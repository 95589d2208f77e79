/**
 * What a lane may be granted: so many leases at once, so many a minute, so long apart; and its weight among lanes.
 *
 * Whole numbers throughout, so that a decision never hangs on rounding. A bucket counts in 60,000ths of a task, for at
 * r tasks a minute exactly r of them flow in per millisecond.
 */
import type { Policy } from "./Policy.ts"

export interface LaneLimits {
  /** Leases at once. 0: no bound. */
  readonly concurrency: number
  /** Leases a minute, over time. 0: no bound. */
  readonly ratePerMinute: number
  /** Leases that a rested lane may be granted in one go, at least 1; only of meaning with a rate. */
  readonly burst: number
  /** Milliseconds between two grants. 0: none. */
  readonly gapMs: number
  /** Tasks a lane gives in its turn, at least 1. */
  readonly weight: number
  /** Whether one of the bounds above holds: such a lane gets no prefetch. */
  readonly limited: boolean
}

/** What one lane has instead of its queue's defaults. A field that is left out is the default's. */
export interface LaneOverride {
  readonly concurrency?: number | undefined
  readonly ratePerMinute?: number | undefined
  readonly burst?: number | undefined
  readonly gapMs?: number | undefined
  readonly weight?: number | undefined
}

const make = (
  concurrency: number,
  ratePerMinute: number,
  burst: number,
  gapMs: number,
  weight: number
): LaneLimits => ({
  concurrency,
  ratePerMinute,
  burst: Math.max(1, burst),
  gapMs,
  weight: Math.max(1, weight),
  limited: concurrency > 0 || ratePerMinute > 0 || gapMs > 0
})

export const unlimited: LaneLimits = make(0, 0, 1, 0, 1)

export type LanePolicy = Pick<Policy, "laneConcurrency" | "laneRatePerMinute" | "laneBurst" | "laneGapMs">

export const ofPolicy = (policy: LanePolicy): LaneLimits =>
  make(policy.laneConcurrency, policy.laneRatePerMinute, policy.laneBurst, policy.laneGapMs, 1)

export const overridden = (defaults: LaneLimits, override: LaneOverride): LaneLimits =>
  make(
    override.concurrency ?? defaults.concurrency,
    override.ratePerMinute ?? defaults.ratePerMinute,
    override.burst ?? defaults.burst,
    override.gapMs ?? defaults.gapMs,
    override.weight ?? defaults.weight
  )

/** One task, as a bucket counts. */
const share = 60_000

/** What a bucket that held `level` at `at` holds at `now`: at most `burst` tasks. Assumes: a rate. */
export const refilled = (limits: LaneLimits, level: number, at: number, now: number): number => {
  const full = limits.burst * share
  // Compared as times first: a product over years would be no exact number.
  return now >= fullAt(limits, level, at) ? full : level + (now - at) * limits.ratePerMinute
}

/** What is left of a bucket after one grant. */
export const spent = (level: number): number => level - share

/** When a bucket that held `level` at `at` holds one task: the first whole millisecond. */
export const tokenAt = (limits: LaneLimits, level: number, at: number): number =>
  level >= share ? at : at + Math.ceil((share - level) / limits.ratePerMinute)

export const fullAt = (limits: LaneLimits, level: number, at: number): number =>
  level >= limits.burst * share ? at : at + Math.ceil((limits.burst * share - level) / limits.ratePerMinute)
