/**
 * An independent account of the lanes (S22): what each is limited to, by its queue's policy and by what was changed while
 * the queue runs, and what it was granted. Part of `Ledger`, whose log has its decisions.
 *
 * Where a change of limits leaves open how much a lane has rested, this allows the most that it may have.
 */
import type { Engine } from "../model/Engine.ts"
import type { LaneOverride } from "../model/LaneLimits.ts"
import type { Policy } from "../model/Policy.ts"
import type { Violated } from "./Ledger.ts"

/** What was changed of a lane. Times are the engine's milliseconds. */
export interface LaneDecision {
  readonly what: "lane"
  readonly queue: number
  readonly key: string
  readonly now: number
  readonly change: "limit" | "clear" | "pause" | "resume" | "slowDown"
  /** limit. */
  readonly limits: LaneOverride | undefined
  /** slowDown. */
  readonly forMs: number | undefined
}

interface Known {
  readonly queue: number
  readonly key: string
  paused: boolean
  slowedUntil: number
  override: LaneOverride | undefined
  /** The last grant, and what the bucket held then. */
  grantedAt: number
  level: number
  levelAt: number
}

const fields = ["concurrency", "ratePerMinute", "burst", "gapMs", "weight"] as const

export class LaneLedger {
  readonly #lanes = new Map<string, Known>()
  readonly #policies: ReadonlyArray<Policy>
  readonly #say: Violated

  constructor(policies: ReadonlyArray<Policy>, say: Violated) {
    this.#policies = policies
    this.#say = say
  }

  clear(): void {
    this.#lanes.clear()
  }

  judge(d: LaneDecision): void {
    const lane = this.#lane(d.queue, d.key)
    switch (d.change) {
      case "pause":
        lane.paused = true
        return
      case "resume":
        lane.paused = false
        return
      case "slowDown":
        lane.slowedUntil = Math.max(lane.slowedUntil, d.now + (d.forMs ?? 0))
        return
      case "clear":
        lane.paused = false
        lane.slowedUntil = 0
        return this.#override(lane, undefined, d.now)
      case "limit":
        return this.#override(lane, d.limits ?? {}, d.now)
    }
  }

  /** A task of the lane is leased, with `running` leases beside it. */
  granted(queue: number, key: string, task: number, running: number, now: number): void {
    const lane = this.#lane(queue, key)
    const limits = this.#limits(lane)
    const say = (text: string): void => this.#say("S22", `lane "${key}" of queue ${queue} ${text} task ${task}`)
    if (lane.paused) say("is paused and was given")
    if (now < lane.slowedUntil) say(`is slowed down for ${lane.slowedUntil - now} ms and was given`)
    if (limits.concurrency > 0 && running >= limits.concurrency) say(`has ${running} leases and was given`)
    const sinceMs = now - lane.grantedAt
    if (sinceMs < limits.gapMs) say(`was given ${limits.gapMs - sinceMs} ms too early`)
    const level = Math.min(limits.burst, filled(lane, limits.ratePerMinute, now)) - 1
    if (limits.ratePerMinute > 0 && level < -0.01) say("was given above its rate")
    lane.grantedAt = now
    lane.level = level
    lane.levelAt = now
  }

  /** S16: what is set outlives a restart. */
  restored(engine: Engine): void {
    for (const { key, override, paused, queue, slowedUntil } of this.#lanes.values()) {
      const ready = engine.queues[queue]?.ready
      const setting = ready?.setting(key)
      const slowed = ready !== undefined && slowedUntil > ready.inside().now ? slowedUntil : 0
      const same =
        (setting?.paused ?? false) === paused &&
        (setting?.slowedUntil ?? 0) === slowed &&
        (setting?.override === undefined) === (override === undefined) &&
        fields.every((field) => setting?.override?.[field] === override?.[field])
      if (!same) this.#say("S16", `lane "${key}" of queue ${queue} was loaded with other settings`)
    }
  }

  #lane(queue: number, key: string): Known {
    const known = this.#lanes.get(`${queue} ${key}`)
    if (known !== undefined) return known
    const lane: Known = {
      queue,
      key,
      paused: false,
      slowedUntil: 0,
      override: undefined,
      grantedAt: Number.NEGATIVE_INFINITY,
      level: Number.POSITIVE_INFINITY,
      levelAt: 0
    }
    this.#lanes.set(`${queue} ${key}`, lane)
    return lane
  }

  #limits({ override, queue }: Known) {
    const policy = this.#policies[queue]
    return {
      concurrency: override?.concurrency ?? policy?.laneConcurrency ?? 0,
      ratePerMinute: override?.ratePerMinute ?? policy?.laneRatePerMinute ?? 0,
      burst: Math.max(1, override?.burst ?? policy?.laneBurst ?? 0),
      gapMs: override?.gapMs ?? policy?.laneGapMs ?? 0
    }
  }

  #override(lane: Known, override: LaneOverride | undefined, now: number): void {
    const { burst, gapMs, ratePerMinute } = this.#limits(lane)
    lane.override = override
    // What has rested under the old limits has rested.
    if (lane.grantedAt + gapMs <= now) lane.grantedAt = Number.NEGATIVE_INFINITY
    const level = filled(lane, ratePerMinute, now)
    lane.level = level >= burst ? Number.POSITIVE_INFINITY : level
    lane.levelAt = now
  }
}

const filled = ({ level, levelAt }: Known, ratePerMinute: number, now: number): number =>
  ratePerMinute === 0 ? Number.POSITIVE_INFINITY : level + ((now - levelAt) * ratePerMinute) / 60_000
