/**
 * What a queue promises, as data: capacity, lease term, attempts, back-off, retention.
 *
 * A policy travels over the wire and is kept by the store, so it is plain numbers: milliseconds, counts, percent.
 * Never a function. `make` checks every field and names the one that is out of range.
 */
import * as Limits from "../Limits.ts"

/** How sure an answer to a mutation is: on disk, handed to the operating system, or in memory only. */
export type Durability = "fsync" | "buffered" | "memory"

/** From the least to the best. A policy's number is the index plus 1. */
const durabilities: ReadonlyArray<Durability> = ["memory", "buffered", "fsync"]

/** The number of a policy that asks for this level; undefined: for the store's own. */
export const durabilityNumber = (level: Durability | undefined): number =>
  level === undefined ? 0 : durabilities.indexOf(level) + 1

/** What a queue of this policy gets from a store that gives `best`: what it asks for, and never more than there is. */
export const durabilityOf = (policy: Policy, best: Durability): Durability => {
  const asked = policy.durability === 0 ? durabilities.length : policy.durability
  return durabilities[Math.min(asked - 1, durabilities.indexOf(best))]!
}

export interface Policy {
  /** Waiting tasks (ready + delayed) above which client puts wait or fail. Children of a commit always enter. */
  readonly capacity: number
  /** Tasks the queue takes in its whole life; what comes later is refused (a crawl's page budget). 0 = no bound. */
  readonly tasksMax: number
  readonly leaseMs: number
  readonly maxAttempts: number
  readonly backoffBaseMs: number
  /** Growth of the back-off per attempt, in percent: 200 doubles. */
  readonly backoffFactorPercent: number
  readonly backoffCapMs: number
  /** The part of a back-off that is random, in percent: 50 waits between half of it and all of it. */
  readonly backoffJitterPercent: number
  readonly payloadBytesMax: number
  readonly outcomesKept: number
  readonly outcomesKeptMs: number
  readonly dedupeKept: number
  readonly dedupeKeptMs: number
  /** Payload bytes of waiting tasks above which client puts wait or fail. 0 = no bound. */
  readonly capacityBytes: number
  /** What a put does where there is no room: one of `overflows`. */
  readonly overflow: number
  /** Leases of one lane at once, and a minute. 0 = no bound. */
  readonly laneConcurrency: number
  readonly laneRatePerMinute: number
  /** Leases that a rested lane is granted in one go, where there is a rate; 0 is 1. */
  readonly laneBurst: number
  /** Between two grants of one lane. 0 = none. */
  readonly laneGapMs: number
  /** What the queue asks of the store: 0 the store's own level, else an index into `durabilities` plus 1. */
  readonly durability: number
}

/** `dropOldest`: the put enters, and the oldest waiting tasks of the lowest urgency end as dead until there is room. */
export const overflows = { wait: 0, dropOldest: 1 } as const

export const defaults: Policy = {
  capacity: Limits.capacityDefault,
  tasksMax: 0,
  leaseMs: Limits.leaseMsDefault,
  maxAttempts: Limits.attemptsDefault,
  backoffBaseMs: Limits.backoffBaseMsDefault,
  backoffFactorPercent: Limits.backoffFactorDefault * 100,
  backoffCapMs: Limits.backoffCapMsDefault,
  backoffJitterPercent: 50,
  payloadBytesMax: Limits.payloadBytesMax,
  outcomesKept: Limits.outcomesKeptMax,
  outcomesKeptMs: Limits.outcomesKeptMs,
  dedupeKept: Limits.dedupeKeptMax,
  dedupeKeptMs: Limits.dedupeKeptMs,
  capacityBytes: 0,
  overflow: overflows.wait,
  laneConcurrency: 0,
  laneRatePerMinute: 0,
  laneBurst: 0,
  laneGapMs: 0,
  durability: 0
}

/** Field, smallest and largest value, in the order in which a policy travels. */
export const ranges: ReadonlyArray<readonly [field: keyof Policy, min: number, max: number]> = [
  ["capacity", 1, Number.MAX_SAFE_INTEGER],
  ["tasksMax", 0, Number.MAX_SAFE_INTEGER],
  ["leaseMs", Limits.leaseMsMin, Limits.leaseMsMax],
  ["maxAttempts", 1, Limits.attemptsMax],
  ["backoffBaseMs", 0, Limits.delayMsMax],
  ["backoffFactorPercent", 100, 10_000],
  ["backoffCapMs", 0, Limits.delayMsMax],
  ["backoffJitterPercent", 0, 100],
  ["payloadBytesMax", 1, Limits.payloadBytesCeiling],
  ["outcomesKept", 0, Limits.outcomesKeptMax],
  ["outcomesKeptMs", 0, Limits.delayMsMax],
  ["dedupeKept", 0, Limits.dedupeKeptMax],
  ["dedupeKeptMs", 0, Limits.delayMsMax],
  ["capacityBytes", 0, Number.MAX_SAFE_INTEGER],
  ["overflow", 0, overflows.dropOldest],
  ["laneConcurrency", 0, Limits.concurrencyMax],
  ["laneRatePerMinute", 0, Limits.laneRatePerMinuteMax],
  ["laneBurst", 0, Limits.laneBurstMax],
  ["laneGapMs", 0, Limits.laneGapMsMax],
  ["durability", 0, 3]
]

export interface PolicyFault {
  readonly field: string
  readonly value: number
  readonly min: number
  readonly max: number
}

/** The first field that is no whole number within its range, if any. */
export const fault = (policy: Policy): PolicyFault | undefined => {
  for (const [field, min, max] of ranges) {
    const value = policy[field]
    if (!Number.isSafeInteger(value) || value < min || value > max) return { field, value, min, max }
  }
  return undefined
}

export const toNumbers = (policy: Policy): ReadonlyArray<number> => ranges.map(([field]) => policy[field])

/** Ensures: missing numbers are the defaults, so that an older client's shorter policy still opens a queue. */
export const fromNumbers = (numbers: ReadonlyArray<number>): Policy => {
  const policy: { -readonly [K in keyof Policy]: number } = { ...defaults }
  ranges.forEach(([field], i) => {
    const value = numbers[i]
    if (value !== undefined) policy[field] = value
  })
  return policy
}

/**
 * How long an attempt that failed waits before the next one. `attempt` counts from 1; `random` lies in [0, 1).
 *
 * Exponential growth to a cap, then the jittered part is drawn (AWS Architecture Blog, "Exponential Backoff And
 * Jitter"): workers that failed together do not come back together.
 */
export const backoffMs = (policy: Policy, attempt: number, random: number): number => {
  // Nothing times an overflowed factor would be no number.
  const factor = Math.min(Number.MAX_SAFE_INTEGER, (policy.backoffFactorPercent / 100) ** (attempt - 1))
  const grown = policy.backoffBaseMs * factor
  const full = Math.min(policy.backoffCapMs, grown)
  return Math.round(full * (1 - (policy.backoffJitterPercent / 100) * random))
}
