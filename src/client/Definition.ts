/**
 * What a queue definition is made of: the options that a program writes, and the policy as data that they become.
 *
 * Checked here, once: a name or a number out of range is a mistake of the program and throws `DefinitionInvalid`.
 */
import * as Duration from "effect/Duration"
import * as Errors from "../Errors.ts"
import * as Policy from "../model/Policy.ts"
import type { Plain } from "./Codec.ts"

export interface PolicyOptions {
  /** Waiting tasks above which puts wait or fail. Default 1,000,000. */
  readonly capacity?: number | undefined
  /** Payload bytes of waiting tasks above which puts wait or fail. Default: no bound. */
  readonly capacityBytes?: number | undefined
  /**
   * What a put does where there is no room. `wait` (default): it waits, or fails with `Full`. `dropOldest`: it enters, and
   * the oldest waiting tasks of the lowest urgency end as dead until what waits fits.
   */
  readonly overflow?: "wait" | "dropOldest" | undefined
  /** Tasks the queue takes in its whole life. Default: no bound. */
  readonly tasksMax?: number | undefined
  /** Term of a lease; a worker renews it while its handler runs. 1 s to 24 h, default 30 s. */
  readonly lease?: Duration.Input | undefined
  /** Default 5. */
  readonly maxAttempts?: number | undefined
  /** Wait between attempts: base x factor^(attempt-1), at most cap, the jittered part of it random (0 to 1). */
  readonly backoff?:
    | {
        readonly base?: Duration.Input | undefined
        readonly factor?: number | undefined
        readonly cap?: Duration.Input | undefined
        readonly jitter?: number | undefined
      }
    | undefined
  /** Default 1 MiB, at most 16 MiB. */
  readonly payloadBytesMax?: number | undefined
  /** Outcomes kept: default 1,000,000 and 24 h, and 256 MiB of results. */
  readonly outcomes?: { readonly count?: number | undefined; readonly age?: Duration.Input | undefined } | undefined
  /** Dedupe ids kept after their task ended: default 1,000,000 and 24 h. */
  readonly dedupe?: { readonly count?: number | undefined; readonly age?: Duration.Input | undefined } | undefined
  /** What the tasks of one key may do together, whatever the number of workers. Default: no bounds. */
  readonly lane?: Pick<LaneOptions, "concurrency" | "ratePerSecond" | "burst" | "gap"> | undefined
  /**
   * What an answer means: on disk (`fsync`), handed to the operating system (`buffered`), or in memory only. Default: the
   * level of the manager's store, which is also the best there is: who asks for more gets that, and `stats` shows it.
   * A commit never spans `memory` and stored queues (`DurabilityMixed`).
   */
  readonly durability?: Policy.Durability | undefined
}

/** Bounds of a lane. 0 is no bound. */
export interface LaneOptions {
  /** Leases at once. */
  readonly concurrency?: number | undefined
  /** Leases a second over time, kept as a whole number a minute: 0.5 is one every 2 seconds. */
  readonly ratePerSecond?: number | undefined
  /** Leases that a rested lane is granted in one go, where there is a rate. Default 1. */
  readonly burst?: number | undefined
  /** Between two leases, from grant to grant. */
  readonly gap?: Duration.Input | undefined
  /** Tasks that the lane gives in its turn among the lanes that are open. Default 1, at most 1,000. */
  readonly weight?: number | undefined
}

/** Never more than was asked for, and never none because it was little: what is below one a minute fails its range. */
export const ratePerMinuteOf = (ratePerSecond: number): number =>
  ratePerSecond > 0 && ratePerSecond < 1 / 60 ? ratePerSecond * 60 : Math.floor(ratePerSecond * 60 + 1e-9)

export interface Options<P, R, E, C> {
  readonly payload: Plain<P>
  /** Default: no result (`Schema.Void`). */
  readonly result?: Plain<R> | undefined
  /** Typed failures a handler may end with. Default: none (`Schema.Never`). */
  readonly error?: Plain<E> | undefined
  readonly checkpoint?: Plain<C> | undefined
  /** The lane of a task. */
  readonly key?: ((payload: P) => string) | undefined
  readonly policy?: PolicyOptions | undefined
  /** @internal No Schemas: any fingerprint opens it, and the queue is not made unless `create`. */
  readonly untyped?: { readonly create: boolean } | undefined
  /** Fingerprints (hex) of older definitions whose programs may still open this queue. */
  readonly accepts?: ReadonlyArray<string> | undefined
}

const namePattern = /^[A-Za-z0-9._:-]{1,200}$/

/** The policy that these options mean. Throws `DefinitionInvalid`. */
export const policyOf = (name: string, options: PolicyOptions): Policy.Policy => {
  if (!namePattern.test(name)) {
    throw new Errors.DefinitionInvalid({
      queue: name,
      field: "name",
      value: JSON.stringify(name),
      remedy: "use 1 to 200 characters of A-Z a-z 0-9 . _ : -"
    })
  }
  const ms = (input: Duration.Input | undefined, fallback: number): number =>
    input === undefined ? fallback : Math.round(Duration.toMillis(input))
  const { defaults } = Policy
  const policy: Policy.Policy = {
    capacity: options.capacity ?? defaults.capacity,
    tasksMax: options.tasksMax ?? defaults.tasksMax,
    leaseMs: ms(options.lease, defaults.leaseMs),
    maxAttempts: options.maxAttempts ?? defaults.maxAttempts,
    backoffBaseMs: ms(options.backoff?.base, defaults.backoffBaseMs),
    backoffFactorPercent: Math.round((options.backoff?.factor ?? defaults.backoffFactorPercent / 100) * 100),
    backoffCapMs: ms(options.backoff?.cap, defaults.backoffCapMs),
    backoffJitterPercent: Math.round((options.backoff?.jitter ?? defaults.backoffJitterPercent / 100) * 100),
    payloadBytesMax: options.payloadBytesMax ?? defaults.payloadBytesMax,
    outcomesKept: options.outcomes?.count ?? defaults.outcomesKept,
    outcomesKeptMs: ms(options.outcomes?.age, defaults.outcomesKeptMs),
    dedupeKept: options.dedupe?.count ?? defaults.dedupeKept,
    dedupeKeptMs: ms(options.dedupe?.age, defaults.dedupeKeptMs),
    capacityBytes: options.capacityBytes ?? defaults.capacityBytes,
    overflow: Policy.overflows[options.overflow ?? "wait"],
    laneConcurrency: options.lane?.concurrency ?? defaults.laneConcurrency,
    laneRatePerMinute: ratePerMinuteOf(options.lane?.ratePerSecond ?? defaults.laneRatePerMinute / 60),
    laneBurst: options.lane?.burst ?? defaults.laneBurst,
    laneGapMs: ms(options.lane?.gap, defaults.laneGapMs),
    durability: Policy.durabilityNumber(options.durability)
  }
  const fault = Policy.fault(policy)
  if (fault === undefined) return policy
  throw new Errors.DefinitionInvalid({
    queue: name,
    field: `policy.${fault.field}`,
    value: String(fault.value),
    remedy: `use a whole number from ${fault.min} to ${fault.max}`
  })
}
