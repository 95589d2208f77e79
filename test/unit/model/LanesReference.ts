/**
 * Lanes as the design tells them, written naively: lists, searched and sorted for every question; limits decided by
 * replaying all that a lane was ever granted. Nothing is ever forgotten.
 */
import type { LaneLimits, LaneOverride } from "../../../src/model/LaneLimits.ts"
import type { Task } from "../../../src/model/Task.ts"

type Key = string | undefined
type Event =
  | { readonly _tag: "Grant"; readonly at: number }
  | { readonly _tag: "Limits"; readonly at: number; readonly limits: LaneLimits }

interface RefLane {
  readonly key: Key
  readonly events: Array<Event>
  running: number
  paused: boolean
  slowedUntil: number
  override: LaneOverride | undefined
}

const free: LaneLimits = { concurrency: 0, ratePerMinute: 0, burst: 1, gapMs: 0, weight: 1, limited: false }

const merged = (defaults: LaneLimits, override: LaneOverride | undefined): LaneLimits => {
  const all = { ...defaults }
  for (const [field, value] of Object.entries(override ?? {})) if (value !== undefined) Reflect.set(all, field, value)
  return { ...all, burst: Math.max(1, all.burst), limited: all.concurrency + all.ratePerMinute + all.gapMs > 0 }
}

export class LanesReference {
  now = 0
  tasks: Array<Task> = []
  readonly lanes: Array<RefLane> = []
  readonly #defaults: LaneLimits
  #rings: Array<Array<{ readonly lane: RefLane; turn: number }>> = Array.from({ length: 256 }, () => [])
  #restartedAt: number | undefined

  constructor(defaults: LaneLimits) {
    this.#defaults = defaults
  }

  // ---- what can be asked

  lane(key: Key): RefLane {
    const known = this.lanes.find((lane) => lane.key === key)
    if (known !== undefined) return known
    const lane: RefLane = { key, events: [], running: 0, paused: false, slowedUntil: 0, override: undefined }
    this.lanes.push(lane)
    return lane
  }

  limits(lane: RefLane): LaneLimits {
    return lane.key === undefined ? free : merged(this.#defaults, lane.override)
  }

  waiting(lane: RefLane): Array<Task> {
    return this.tasks
      .filter((task) => task.options?.key === lane.key)
      .sort((a, b) => a.priority - b.priority || a.place - b.place || a.n - b.n)
  }

  /** A gap counts from a grant, or a restart; a lane that has rested when its limits change is rested. */
  gapOver(lane: RefLane, now: number): boolean {
    let { gapMs } = this.limits({ ...lane, override: undefined })
    let grants = this.#restartedAt === undefined ? [] : [this.#restartedAt]
    for (const event of lane.events) {
      if (event._tag === "Grant") grants.push(event.at)
      else {
        const old = gapMs
        if (grants.every((at) => at + old <= event.at))
          grants = this.#restartedAt === undefined ? [] : [this.#restartedAt]
        gapMs = event.limits.gapMs
      }
    }
    return gapMs === 0 || grants.every((at) => at + gapMs <= now)
  }

  /** A bucket fills by rate / 60,000 tasks a millisecond, up to its burst; 0 at a restart, else full at first. */
  hasToken(lane: RefLane, now: number): boolean {
    const whole = 60_000n
    let limits = this.limits({ ...lane, override: undefined })
    let level = 0n
    let at = this.#restartedAt
    const flow = (to: number): void => {
      const full = BigInt(limits.burst) * whole
      level = at === undefined ? full : level + BigInt(to - at) * BigInt(limits.ratePerMinute)
      if (level > full) level = full
      at = to
    }
    for (const event of lane.events) {
      if (limits.ratePerMinute > 0) flow(event.at)
      if (event._tag === "Limits") {
        if (limits.ratePerMinute === 0 || level === BigInt(limits.burst) * whole) {
          level = 0n
          at = this.#restartedAt
        }
        limits = event.limits
      } else if (limits.ratePerMinute > 0) level -= whole
    }
    if (limits.ratePerMinute === 0) return true
    flow(now)
    return level >= whole
  }

  openByTime(lane: RefLane, now: number): boolean {
    return lane.slowedUntil <= now && this.gapOver(lane, now) && this.hasToken(lane, now)
  }

  blockedByEvent(lane: RefLane): boolean {
    const { concurrency } = this.limits(lane)
    return lane.paused || (concurrency > 0 && lane.running >= concurrency)
  }

  open(): Array<RefLane> {
    return this.#rings.flat().map(({ lane }) => lane)
  }

  first(): Task | undefined {
    const head = this.#rings.find((ring) => ring.length > 0)?.[0]
    return head === undefined ? undefined : this.waiting(head.lane)[0]
  }

  peek(count: number): Array<Task> {
    const rings = this.#rings.map((ring) => ring.map(({ lane, turn }) => ({ lane, turn, tasks: this.waiting(lane) })))
    const found: Array<Task> = []
    while (found.length < count) {
      const priority = rings.findIndex((ring) => ring.length > 0)
      if (priority < 0) break
      const ring = rings[priority]!
      const head = ring[0]!
      found.push(head.tasks.shift()!)
      if (--head.turn === 0) {
        head.turn = this.limits(head.lane).weight
        ring.push(ring.shift()!)
      }
      const next = head.tasks[0]
      if (next !== undefined && next.priority === priority) continue
      ring.splice(ring.indexOf(head), 1)
      if (next !== undefined) rings[next.priority]!.push({ ...head, turn: this.limits(head.lane).weight })
    }
    return found
  }

  why(lane: RefLane, now: number): string {
    const { concurrency } = this.limits(lane)
    if (lane.paused) return "Paused"
    if (concurrency > 0 && lane.running >= concurrency) return "Concurrency"
    return this.openByTime(lane, now) ? "Open" : "Time"
  }

  // ---- what happens

  add(task: Task): void {
    this.tasks.push(task)
    this.lane(task.options?.key)
    this.#refresh(this.now)
  }

  at(now: number): void {
    this.#refresh(now)
  }

  pop(now: number, prefetch: boolean): Task | undefined {
    this.#refresh(now)
    const ring = this.#rings.find((ring) => ring.length > 0)
    const head = ring?.[0]
    if (ring === undefined || head === undefined) return undefined
    const limits = this.limits(head.lane)
    if (prefetch && limits.limited) return undefined
    const task = this.waiting(head.lane)[0]!
    this.tasks = this.tasks.filter((other) => other !== task)
    head.lane.running++
    if (limits.limited) head.lane.events.push({ _tag: "Grant", at: now })
    if (--head.turn === 0) {
      head.turn = limits.weight
      ring.push(ring.shift()!)
    }
    this.#refresh(now)
    return task
  }

  /** Whether a task of this lane may be leased, and the lease itself, for a caller that keeps the tasks. */
  mayLease(key: Key, now: number): boolean {
    const lane = this.lane(key)
    return !this.blockedByEvent(lane) && this.openByTime(lane, now)
  }

  lease(key: Key, now: number): void {
    const lane = this.lane(key)
    lane.running++
    if (this.limits(lane).limited) lane.events.push({ _tag: "Grant", at: now })
  }

  ended({ options }: Pick<Task, "options">): void {
    this.lane(options?.key).running--
    this.#refresh(this.now)
  }

  remove(task: Task): void {
    this.tasks = this.tasks.filter((other) => other !== task)
    this.#refresh(this.now)
  }

  slowDown(key: string, until: number): void {
    const lane = this.lane(key)
    lane.slowedUntil = Math.max(lane.slowedUntil, until)
    this.#refresh(this.now)
  }

  pause(key: string, paused: boolean): void {
    this.lane(key).paused = paused
    this.#refresh(this.now)
  }

  override(key: string, override: LaneOverride | undefined): void {
    const lane = this.lane(key)
    if (lane.override !== override) {
      // It has another turn, at the end.
      this.#rings = this.#rings.map((ring) => ring.filter((entry) => entry.lane !== lane))
      lane.override = override
      lane.events.push({ _tag: "Limits", at: this.now, limits: this.limits(lane) })
    }
    this.#refresh(this.now)
  }

  clear(key: string): void {
    const lane = this.lane(key)
    lane.paused = false
    lane.slowedUntil = Math.min(lane.slowedUntil, this.now)
    this.override(key, undefined)
  }

  /** As after a restart: settings stay, what was granted is not known. `rebuilt`: nor the turns of the lanes. */
  restart(now: number, rebuilt: boolean): void {
    this.#restartedAt = now
    for (const lane of this.lanes) {
      lane.events.splice(0)
      if (lane.override !== undefined) lane.events.push({ _tag: "Limits", at: now, limits: this.limits(lane) })
    }
    if (rebuilt) {
      this.now = now
      this.#rings = this.#rings.map(() => [])
      const tasks = this.tasks.sort((a, b) => a.place - b.place || a.n - b.n)
      this.tasks = []
      for (const task of tasks) this.add(task)
    } else this.#refresh(now)
  }

  /** Lanes leave and join the rings of their most urgent priorities; those that time has opened, in its order. */
  #refresh(now: number): void {
    const joining: Array<{ lane: RefLane; priority: number; at: number }> = []
    for (const lane of this.lanes) {
      const priority = this.waiting(lane)[0]?.priority
      const open = priority !== undefined && !this.blockedByEvent(lane) && this.openByTime(lane, now)
      let stays = false
      this.#rings = this.#rings.map((ring, p) =>
        ring.filter((entry) => {
          if (entry.lane !== lane) return true
          stays = open && p === priority
          return stays
        })
      )
      if (!open || stays) continue
      let at = this.now
      while (at < now && !this.openByTime(lane, at)) at++
      joining.push({ lane, priority, at })
    }
    joining.sort((a, b) => a.at - b.at || ((a.lane.key ?? "") < (b.lane.key ?? "") ? -1 : 1))
    for (const { lane, priority } of joining) this.#rings[priority]!.push({ lane, turn: this.limits(lane).weight })
    this.now = now
  }
}
