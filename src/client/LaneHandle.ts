/**
 * One lane of a queue, as an operator or a program changes it while the queue runs.
 *
 * Every change is answered when it holds, and holds until it is changed again, restarts of the manager included.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Errors from "../Errors.ts"
import * as Limits from "../Limits.ts"
import { LaneChange } from "../model/Lanes.ts"
import type * as Wire from "../wire/Vocabulary.ts"
import type { Client } from "./Client.ts"
import { type LaneOptions, ratePerMinuteOf } from "./Definition.ts"

export type LaneError = Errors.RequestError | Errors.LimitExceeded

/** What a change asks of the manager. */
export interface LaneRequest {
  readonly key: string
  readonly change: LaneChange
  readonly limits: Wire.LaneLimits | undefined
  readonly forMs: number | undefined
}

export class LaneHandle {
  readonly key: string
  readonly #ask: (request: LaneRequest) => Effect.Effect<void, LaneError, Client>

  /** @internal */
  constructor(key: string, ask: (request: LaneRequest) => Effect.Effect<void, LaneError, Client>) {
    this.key = key
    this.#ask = ask
  }

  /** Nothing more of the lane is leased until `resume`; what is leased goes on. */
  get pause(): Effect.Effect<void, LaneError, Client> {
    return this.#change(LaneChange.pause)
  }

  get resume(): Effect.Effect<void, LaneError, Client> {
    return this.#change(LaneChange.resume)
  }

  /** Ends what `pause`, `limit` and `slowDown` set: the lane is as the queue's policy says. */
  get clear(): Effect.Effect<void, LaneError, Client> {
    return this.#change(LaneChange.clear)
  }

  /** Gives the lane limits of its own, in place of earlier ones. What is left out is as the queue's policy says. */
  limit(options: LaneOptions): Effect.Effect<void, LaneError, Client> {
    return Effect.suspend(() => {
      const { burst, concurrency, gap, ratePerSecond, weight } = options
      const limits: Wire.LaneLimits = {
        concurrency,
        ratePerMinute: ratePerSecond === undefined ? undefined : ratePerMinuteOf(ratePerSecond),
        burst,
        gapMs: gap === undefined ? undefined : Math.round(Duration.toMillis(gap)),
        weight
      }
      const fault =
        over("concurrency", limits.concurrency, 0, Limits.concurrencyMax) ??
        over("ratePerSecond (leases a minute; less by a gap)", limits.ratePerMinute, 0, Limits.laneRatePerMinuteMax) ??
        over("burst", limits.burst, 0, Limits.laneBurstMax) ??
        over("gap (ms)", limits.gapMs, 0, Limits.laneGapMsMax) ??
        over("weight", limits.weight, 1, Limits.laneWeightMax)
      if (fault !== undefined) return Effect.fail(fault)
      return this.#ask({ key: this.key, change: LaneChange.limit, limits, forMs: undefined })
    })
  }

  /** Nothing more of the lane is leased for `duration`; a longer one that was asked for before holds. */
  slowDown(duration: Duration.Input): Effect.Effect<void, LaneError, Client> {
    return Effect.suspend(() => {
      const forMs = Math.ceil(Duration.toMillis(duration))
      const fault = over("slowDown (ms)", forMs, 0, Limits.delayMsMax)
      if (fault !== undefined) return Effect.fail(fault)
      return this.#ask({ key: this.key, change: LaneChange.slowDown, limits: undefined, forMs })
    })
  }

  #change(change: LaneChange): Effect.Effect<void, LaneError, Client> {
    return this.#ask({ key: this.key, change, limits: undefined, forMs: undefined })
  }
}

const over = (limit: string, value: number | undefined, min: number, max: number): Errors.LimitExceeded | undefined =>
  value === undefined || (Number.isSafeInteger(value) && value >= min && value <= max)
    ? undefined
    : new Errors.LimitExceeded({ limit, value, max, ...(value > max ? {} : { min }) })
