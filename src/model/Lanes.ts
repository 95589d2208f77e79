/**
 * The ready tasks of one queue, in lanes: which may be leased now, and when the next one may.
 *
 * Order: the lowest priority number that has an open lane, then weighted round-robin over its lanes, then place. Tasks
 * without a key are one lane without limits. Lanes with tasks that are open stand in the ring of their most urgent
 * priority; those that time will open lie in one heap, by when; those that wait for an event (a lease that ends, a
 * resume) are in no list at all. So a blocked lane costs nothing and delays no other, whatever their number.
 *
 *     ring[0..255] of open lanes | heap of lanes that open by themselves | heap of lanes that can be forgotten
 *
 * Every operation is O(1), or O(log lanes) where a heap changes. A lane without tasks, leases and settings is forgotten
 * when nothing distinguishes it from a new one. Times come in as arguments and never run backwards; between them the
 * latest one counts as now.
 */
import * as Limits from "../Limits.ts"
import { type Bucket, Lane, Stand } from "./Lane.ts"
import { LaneHeap } from "./LaneHeap.ts"
import {
  fullAt,
  type LaneLimits,
  type LaneOverride,
  overridden,
  refilled,
  spent,
  tokenAt,
  unlimited
} from "./LaneLimits.ts"
import type { Task } from "./Task.ts"

/** What of a lane outlives a restart. */
export interface LaneSetting {
  readonly paused: boolean
  /** Nothing is granted before this time. 0: as the limits say. */
  readonly slowedUntil: number
  readonly override: LaneOverride | undefined
}

/** Why a ready task of a lane may, or may not, be leased now. Of several bounds by time, the last to end is named. */
export type LaneState =
  | { readonly _tag: "Open" }
  | { readonly _tag: "Paused" }
  | { readonly _tag: "Concurrency"; readonly running: number; readonly limit: number }
  | { readonly _tag: "Rate" | "Gap" | "Slowed"; readonly until: number }

export interface LaneStats {
  readonly key: string
  /** Ready tasks. */
  readonly waiting: number
  /** Leased tasks. */
  readonly running: number
  readonly limits: LaneLimits
  readonly setting: LaneSetting
  readonly state: LaneState
}

/** What may be done to a lane while the queue runs; the numbers are the protocol's. */
export const LaneChange = { limit: 0, clear: 1, pause: 2, resume: 3, slowDown: 4 } as const
export type LaneChange = (typeof LaneChange)[keyof typeof LaneChange]

/** A time before all others, from which the distance to any other is an exact number. */
const never = -(2 ** 52)

export class Lanes {
  /** Ready tasks, of open and of blocked lanes. */
  size = 0
  readonly #defaults: LaneLimits
  readonly #idleMax: number
  readonly #plain = new Lane(undefined, unlimited, never)
  readonly #lanes = new Map<string, Lane>()
  /** The lane whose turn it is, by priority; and which priorities have one, 32 a word, most urgent first. */
  readonly #rings: Array<Lane | undefined> = []
  readonly #occupied = new Int32Array(8)
  readonly #timed = new LaneHeap()
  readonly #idle = new LaneHeap()
  /** Keyed lanes with tasks, by the number of bits of that number. */
  readonly #sizes: Array<Lane | undefined> = []
  #settings = 0
  #unlimitedTasks = 0
  #limitedLanes = 0
  #now = 0
  /** What a fresh lane has behind it: see `Lane`. */
  #since = never
  /** Fresh lanes open no earlier: some lane that still had to wait had to be forgotten. */
  #floor = 0

  /** `idleMax`: lanes remembered for nothing but their gap, their bucket or their slow-down. */
  constructor(defaults: LaneLimits = unlimited, idleMax: number = Limits.lanesIdleMax) {
    this.#defaults = defaults
    this.#idleMax = idleMax
  }

  // ---- tasks

  /** Assumes: `task` comes, by place and number, after all that were pushed before at this priority. */
  push(task: Task): void {
    const lane = this.#laneOf(task)
    lane.add(task)
    this.#added(lane, task)
  }

  /** Takes back a task at the place it had. */
  giveBack(task: Task): void {
    const lane = this.#laneOf(task)
    lane.addBack(task)
    this.#added(lane, task)
  }

  /**
   * The next task that may be leased now, charged to its lane: pair it with `ended`. With `prefetch`, only if the next
   * one's lane has no limits: what a lane may do now must not wait inside a worker.
   */
  pop(now: number, prefetch = false): Task | undefined {
    this.open(now)
    const plain = this.#plain
    if (plain.size === this.size) return plain.size === 0 ? undefined : this.#popPlain(plain)
    const lane = this.#head()
    if (lane === undefined) return undefined
    const { limits } = lane
    if (limits.limited) {
      if (prefetch) return undefined
      if (limits.ratePerMinute > 0) {
        lane.level = spent(refilled(limits, lane.level, lane.levelAt, now))
        lane.levelAt = now
      }
      lane.grantedAt = now
    } else this.#unlimitedTasks--
    const task = lane.take()
    lane.running++
    this.size--
    if (--lane.turn <= 0) {
      lane.turn = limits.weight
      this.#rings[lane.priority] = lane.ringNext
    }
    if (lane.key !== undefined) this.#sized(lane)
    if (limits.limited || lane.size === 0 || lane.first!.priority !== lane.priority) this.#settle(lane)
    return task
  }

  /** What `pop` comes to where no task has a key. */
  #popPlain(plain: Lane): Task {
    const task = plain.take()
    plain.running++
    this.size--
    this.#unlimitedTasks--
    if (plain.size === 0) this.#leaveRing(plain)
    else if (plain.first!.priority !== plain.priority) this.#settle(plain)
    return task
  }

  /** Counts a lease that was granted before a restart: its end will be told like any other's. */
  leasedBefore(task: Task): void {
    const lane = this.#laneOf(task)
    lane.running++
    if (lane.limits.limited || lane.size === 0) this.#settle(lane)
  }

  /** A lease of this task is over, however it ended. Neither a gap nor a rate is given back. */
  ended(task: Task): void {
    const lane = this.#laneOf(task)
    lane.running--
    if (lane === this.#plain) return
    if (lane.limits.limited || lane.size === 0) this.#settle(lane)
  }

  /** Assumes: the task is ready. O(1), or O(returned tasks of its lane and priority) for one that had come back. */
  remove(task: Task): void {
    const lane = this.#laneOf(task)
    if (lane.stand === Stand.ring && !lane.limits.limited) this.#unlimitedTasks--
    lane.remove(task)
    this.size--
    if (lane.key !== undefined) this.#sized(lane)
    this.#settle(lane)
  }

  /** Some ready task, be its lane open or not, taken out and charged to nobody: for a queue that cancels all. */
  takeAny(): Task | undefined {
    const lane = this.#plain.size > 0 ? this.#plain : this.#largest()
    const task = lane?.first?.first()
    if (task !== undefined) this.remove(task)
    return task
  }

  /** The task that `pop` would give, left where it is. */
  first(now: number): Task | undefined {
    this.open(now)
    return this.#head()?.first?.first()
  }

  /**
   * The first `count` tasks of open lanes in the order of their leases, were no lane to reach a limit meanwhile. Left
   * where they are. O(count), and the returned tasks of the lanes looked at.
   */
  peek(count: number, now: number): Array<Task> {
    this.open(now)
    const found: Array<Task> = []
    interface Cursor {
      readonly lane: Lane
      bucket: Bucket
      tasks: Iterator<Task, void>
      next: Task | undefined
      turn: number
    }
    const at = (lane: Lane, bucket: Bucket, turn: number): Cursor => {
      const tasks = bucket.tasks()
      return { lane, bucket, tasks, next: tasks.next().value ?? undefined, turn }
    }
    /** Lanes that come to a priority when they are done with a more urgent one. */
    const joining = new Map<number, Array<Cursor>>()
    const after = (last: number): number => {
      let next = this.#ringFrom(last + 1)
      for (const priority of joining.keys()) if (priority > last && priority < next) next = priority
      return next
    }
    for (let priority = after(-1); priority < 256 && found.length < count; priority = after(priority)) {
      const turns: Array<Cursor> = []
      const head = this.#rings[priority]
      let lane = head
      // More lanes than tasks asked for would not get their turn.
      for (let i = found.length; lane !== undefined && i < count; i++) {
        turns.push(at(lane, lane.first!, lane.turn))
        lane = lane.ringNext === head ? undefined : lane.ringNext
      }
      turns.push(...(joining.get(priority) ?? []))
      for (let i = 0; i < turns.length && found.length < count; i++) {
        const cursor = turns[i]!
        for (; cursor.turn > 0 && cursor.next !== undefined && found.length < count; cursor.turn--) {
          found.push(cursor.next)
          cursor.next = cursor.tasks.next().value ?? undefined
        }
        cursor.turn = cursor.lane.limits.weight
        if (cursor.next !== undefined) turns.push(cursor)
        else if (cursor.bucket.next !== undefined) {
          const next = at(cursor.lane, cursor.bucket.next, cursor.turn)
          const others = joining.get(next.bucket.priority)
          if (others === undefined) joining.set(next.bucket.priority, [next])
          else others.push(next)
        }
      }
    }
    return found
  }

  // ---- time

  /** Opens the lanes whose time has come and forgets some that are as new. Whether a task may be leased now. */
  open(now: number): boolean {
    this.#now = now
    while (this.#timed.next <= now) this.#settle(this.#timed.peek()!)
    if (this.#idle.next <= now) this.#forgetIdle(now)
    return this.#leasable()
  }

  /** When a lane with tasks opens by itself, next; `Infinity` if none does. */
  get nextOpenAt(): number {
    return this.#timed.next
  }

  /** When to call `open`, if nothing else does before: lanes that open at once, and lanes to forget once a second. */
  get nextDeadline(): number {
    if (this.#idle.size === 0) return this.#timed.next
    const forget = (Math.floor(Math.max(this.#idle.next, this.#now) / 1_000) + 1) * 1_000
    return Math.min(this.#timed.next, forget)
  }

  /**
   * About how many tasks could be leased now, for sharing them out: those of lanes without limits, and one for each
   * other open lane. 0 if and only if none can.
   */
  get leasable(): number {
    return this.#unlimitedTasks + this.#limitedLanes
  }

  /** Whether the next task's lane has limits. */
  get nextIsLimited(): boolean {
    return this.#head()?.limits.limited === true
  }

  /**
   * A manager took over and does not know what lanes were granted last: each waits for a full gap, with an empty bucket.
   * O(lanes).
   */
  restart(now: number): void {
    this.#now = now
    this.#since = now
    for (const lane of [...this.#lanes.values()]) {
      lane.grantedAt = now
      lane.level = 0
      lane.levelAt = now
      this.#settle(lane)
    }
  }

  // ---- settings

  /** Nothing of this lane is granted before `until`; never sooner than an earlier call said. */
  slowDown(key: string, until: number): void {
    const lane = this.#laneFor(key)
    if (until > lane.slowedUntil) lane.slowedUntil = until
    this.#settle(lane)
  }

  pause(key: string): void {
    this.#set(key, true, this.#lanes.get(key)?.override)
  }

  /** Ends a pause. A slow-down goes on. */
  resume(key: string): void {
    this.#set(key, false, this.#lanes.get(key)?.override)
  }

  /** From now on these limits hold for the lane, in place of those of an earlier call and of the queue's defaults. */
  override(key: string, limits: LaneOverride): void {
    this.#set(key, this.#lanes.get(key)?.paused === true, limits)
  }

  /** Ends pause, slow-down and override: the lane is as the queue's defaults say. */
  clear(key: string): void {
    const lane = this.#lanes.get(key)
    if (lane === undefined) return
    lane.slowedUntil = Math.min(lane.slowedUntil, Math.max(this.#now, this.#floor))
    this.#set(key, false, undefined)
  }

  /** Whether one more lane may be paused or have limits of its own. */
  roomForSetting(key: string): boolean {
    const lane = this.#lanes.get(key)
    return this.#settings < Limits.laneSettingsMax || (lane !== undefined && hasSetting(lane))
  }

  /** What must be kept of this lane; `undefined`: nothing. */
  setting(key: string): LaneSetting | undefined {
    const lane = this.#lanes.get(key)
    return lane === undefined ? undefined : this.#settingOf(lane)
  }

  /** Every lane of which something must be kept. O(lanes). */
  *settings(): Generator<readonly [key: string, setting: LaneSetting], void> {
    for (const [key, lane] of this.#lanes) {
      const setting = this.#settingOf(lane)
      if (setting !== undefined) yield [key, setting]
    }
  }

  /** Puts back what `setting` gave. */
  restore(key: string, setting: LaneSetting): void {
    this.#set(key, setting.paused, setting.override)
    this.slowDown(key, setting.slowedUntil)
  }

  // ---- what can be asked

  /** Why the lane of this ready task may, or may not, be granted a lease now. */
  why(task: Task, now: number): LaneState {
    const key = task.options?.key
    return key === undefined ? { _tag: "Open" } : this.laneStats(key, now).state
  }

  /** O(1). A lane without tasks and leases is as a new one. */
  laneStats(key: string, now: number): LaneStats {
    const lane = this.#lanes.get(key) ?? this.#fresh(key)
    return {
      key,
      waiting: lane.size,
      running: lane.running,
      limits: lane.limits,
      setting: this.#settingOf(lane) ?? { paused: false, slowedUntil: 0, override: undefined },
      state: stateOf(lane, now)
    }
  }

  /**
   * The `count` lanes with the most ready tasks, the fullest first. Looks at no more than `count` and 1,000 lanes: beyond
   * that it is exact only within a factor of two.
   */
  topLanes(count: number, now: number): Array<LaneStats> {
    const found: Array<Lane> = []
    let left = count + Limits.pageItemsMax
    for (let size = this.#sizes.length - 1; size > 0 && found.length < count; size--) {
      const some: Array<Lane> = []
      for (let lane = this.#sizes[size]; lane !== undefined && left > 0; lane = lane.sizeNext, left--) some.push(lane)
      found.push(...some.sort((a, b) => b.size - a.size))
    }
    return found.slice(0, count).map((lane) => this.laneStats(lane.key!, now))
  }

  /** Keyed lanes that are remembered. */
  get lanes(): number {
    return this.#lanes.size
  }

  /** The lists as they are, for `Invariants`. */
  inside(): LanesInside {
    return {
      plain: this.#plain,
      lanes: this.#lanes,
      rings: this.#rings,
      timed: this.#timed.entries(),
      idle: this.#idle.entries(),
      sizes: this.#sizes,
      occupied: this.#occupied,
      now: this.#now,
      settings: this.#settings,
      unlimitedTasks: this.#unlimitedTasks,
      limitedLanes: this.#limitedLanes
    }
  }

  // ---- inside

  #laneOf(task: Task): Lane {
    const key = task.options?.key
    return key === undefined ? this.#plain : this.#laneFor(key)
  }

  #laneFor(key: string): Lane {
    const known = this.#lanes.get(key)
    if (known !== undefined) return known
    const lane = this.#fresh(key)
    this.#lanes.set(key, lane)
    return lane
  }

  #fresh(key: string): Lane {
    const lane = new Lane(key, this.#defaults, this.#since)
    if (this.#floor > this.#now) lane.slowedUntil = this.#floor
    return lane
  }

  #added(lane: Lane, task: Task): void {
    this.size++
    if (lane.key !== undefined) this.#sized(lane)
    if (lane.stand === Stand.ring && task.priority >= lane.priority) {
      if (!lane.limits.limited) this.#unlimitedTasks++
    } else if (lane.stand === Stand.ring) {
      if (!lane.limits.limited) this.#unlimitedTasks++
      this.#settle(lane)
    } else if (lane.size === 1) this.#settle(lane)
  }

  #leasable(): boolean {
    return this.#unlimitedTasks > 0 || this.#limitedLanes > 0
  }

  #head(): Lane | undefined {
    if (!this.#leasable()) return undefined
    return this.#rings[this.#ringFrom(0)]
  }

  /** The most urgent priority from this one on that has an open lane; 256: none has. */
  #ringFrom(priority: number): number {
    let bits = this.#occupied[priority >> 5]! & (-1 >>> (priority & 31))
    for (let word = priority >> 5; ; bits = this.#occupied[word]!) {
      if (bits !== 0) return word * 32 + Math.clz32(bits)
      if (++word >= 8) return 256
    }
  }

  #largest(): Lane | undefined {
    for (let size = this.#sizes.length - 1; size > 0; size--) {
      if (this.#sizes[size] !== undefined) return this.#sizes[size]
    }
    return undefined
  }

  /** Puts the lane where it belongs now; one that stands there already keeps its turn. */
  #settle(lane: Lane): void {
    const now = this.#now
    if (lane.size > 0) {
      if (lane.paused || full(lane)) return this.#leave(lane)
      const at = opensAt(lane)
      if (at > now) {
        if (lane.stand === Stand.timed && lane.at === at) return
        this.#leave(lane)
        lane.stand = Stand.timed
        return this.#timed.add(lane, at)
      }
      const { priority } = lane.first!
      if (lane.stand === Stand.ring && lane.priority === priority) return
      this.#leave(lane)
      return this.#enterRing(lane, priority)
    }
    if (lane.running > 0 || hasSetting(lane) || lane.key === undefined) return this.#leave(lane)
    const at = asNewAt(lane)
    if (lane.stand === Stand.idle && lane.at === at) return
    this.#leave(lane)
    if (at <= now) {
      this.#lanes.delete(lane.key)
      return
    }
    lane.stand = Stand.idle
    this.#idle.add(lane, at)
    if (this.#idle.size <= this.#idleMax) return
    // Too many to remember them all: the one with the shortest wait goes, and new lanes wait as long as it had to.
    const first = this.#idle.peek()!
    this.#floor = Math.max(this.#floor, first.at)
    this.#forget(first)
  }

  #leave(lane: Lane): void {
    switch (lane.stand) {
      case Stand.ring:
        return this.#leaveRing(lane)
      case Stand.timed:
        this.#timed.remove(lane)
        break
      case Stand.idle:
        this.#idle.remove(lane)
    }
    lane.stand = Stand.nowhere
  }

  /** To the end of the ring: just before the lane whose turn it is. */
  #enterRing(lane: Lane, priority: number): void {
    lane.stand = Stand.ring
    lane.priority = priority
    lane.turn = lane.limits.weight
    if (lane.limits.limited) this.#limitedLanes++
    else this.#unlimitedTasks += lane.size
    const head = this.#rings[priority]
    if (head === undefined) {
      lane.ringPrev = lane
      lane.ringNext = lane
      this.#rings[priority] = lane
      this.#occupied[priority >> 5]! |= 1 << (31 - (priority & 31))
      return
    }
    const last = head.ringPrev!
    last.ringNext = lane
    lane.ringPrev = last
    lane.ringNext = head
    head.ringPrev = lane
  }

  #leaveRing(lane: Lane): void {
    lane.stand = Stand.nowhere
    if (lane.limits.limited) this.#limitedLanes--
    else this.#unlimitedTasks -= lane.size
    const { priority } = lane
    if (lane.ringNext === lane) {
      this.#rings[priority] = undefined
      this.#occupied[priority >> 5]! &= ~(1 << (31 - (priority & 31)))
    } else {
      lane.ringPrev!.ringNext = lane.ringNext
      lane.ringNext!.ringPrev = lane.ringPrev
      if (this.#rings[priority] === lane) this.#rings[priority] = lane.ringNext
    }
    lane.ringPrev = undefined
    lane.ringNext = undefined
  }

  /** Keeps the lane in the list of those with about as many tasks. */
  #sized(lane: Lane): void {
    const size = 32 - Math.clz32(lane.size)
    const before = lane.sizeClass
    if (size === before) return
    if (before > 0) {
      if (lane.sizePrev === undefined) this.#sizes[before] = lane.sizeNext
      else lane.sizePrev.sizeNext = lane.sizeNext
      if (lane.sizeNext !== undefined) lane.sizeNext.sizePrev = lane.sizePrev
    }
    lane.sizeClass = size
    lane.sizePrev = undefined
    lane.sizeNext = undefined
    if (size === 0) return
    const head = this.#sizes[size]
    lane.sizeNext = head
    if (head !== undefined) head.sizePrev = lane
    this.#sizes[size] = lane
  }

  #set(key: string, paused: boolean, override: LaneOverride | undefined): void {
    const lane = this.#laneFor(key)
    const had = hasSetting(lane)
    if (override !== lane.override) {
      this.#leave(lane)
      const { limits } = lane
      // What has rested under its old limits is rested under its new ones, be it remembered or not.
      if (lane.grantedAt + limits.gapMs <= this.#now) lane.grantedAt = this.#since
      if (limits.ratePerMinute === 0 || fullAt(limits, lane.level, lane.levelAt) <= this.#now) {
        lane.level = 0
        lane.levelAt = this.#since
      } else {
        lane.level = refilled(limits, lane.level, lane.levelAt, this.#now)
        lane.levelAt = this.#now
      }
      lane.override = override
      lane.limits = override === undefined ? this.#defaults : overridden(this.#defaults, override)
    }
    lane.paused = paused
    this.#settings += Number(hasSetting(lane)) - Number(had)
    this.#settle(lane)
  }

  #settingOf(lane: Lane): LaneSetting | undefined {
    const { override, paused } = lane
    const slowedUntil = lane.slowedUntil > this.#now ? lane.slowedUntil : 0
    return hasSetting(lane) || slowedUntil > 0 ? { paused, slowedUntil, override } : undefined
  }

  #forgetIdle(now: number): void {
    // A bounded part of them: a hundred thousand that rest at once must not hold up a lease.
    for (let i = 0; i < Limits.lanesForgottenAtOnce && this.#idle.next <= now; i++) this.#forget(this.#idle.peek()!)
  }

  /** Assumes: the lane is idle. */
  #forget(lane: Lane): void {
    this.#leave(lane)
    this.#lanes.delete(lane.key!)
  }
}

export interface LanesInside {
  readonly plain: Lane
  readonly lanes: ReadonlyMap<string, Lane>
  readonly rings: ReadonlyArray<Lane | undefined>
  readonly timed: ReadonlyArray<Lane>
  readonly idle: ReadonlyArray<Lane>
  readonly sizes: ReadonlyArray<Lane | undefined>
  readonly occupied: Readonly<ArrayLike<number>>
  readonly now: number
  readonly settings: number
  readonly unlimitedTasks: number
  readonly limitedLanes: number
}

const hasSetting = (lane: Lane): boolean => lane.paused || lane.override !== undefined

const full = ({ limits, running }: Lane): boolean => limits.concurrency > 0 && running >= limits.concurrency

/** When time lets the lane be granted a lease, whatever else bounds it. */
const opensAt = (lane: Lane): number => {
  const { limits } = lane
  let at = lane.slowedUntil
  if (limits.gapMs > 0) at = Math.max(at, lane.grantedAt + limits.gapMs)
  if (limits.ratePerMinute > 0) at = Math.max(at, tokenAt(limits, lane.level, lane.levelAt))
  return at
}

/** When a lane that is left alone is as a new one. */
const asNewAt = (lane: Lane): number => {
  const { limits } = lane
  let at = lane.slowedUntil
  if (limits.gapMs > 0) at = Math.max(at, lane.grantedAt + limits.gapMs)
  if (limits.ratePerMinute > 0) at = Math.max(at, fullAt(limits, lane.level, lane.levelAt))
  return at
}

const stateOf = (lane: Lane, now: number): LaneState => {
  const { limits, running } = lane
  if (lane.paused) return { _tag: "Paused" }
  if (full(lane)) return { _tag: "Concurrency", running, limit: limits.concurrency }
  const until = opensAt(lane)
  if (until <= now) return { _tag: "Open" }
  if (until === lane.slowedUntil) return { _tag: "Slowed", until }
  const gap = limits.gapMs > 0 && until === lane.grantedAt + limits.gapMs
  return { _tag: gap ? "Gap" : "Rate", until }
}
