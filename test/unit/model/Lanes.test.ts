import { assert, describe, it } from "@effect/vitest"
import * as Limits from "../../../src/Limits.ts"
import { checkLanes } from "../../../src/model/LaneInvariants.ts"
import { type LaneLimits, type LaneOverride, overridden, unlimited } from "../../../src/model/LaneLimits.ts"
import { Lanes } from "../../../src/model/Lanes.ts"
import { defaults } from "../../../src/model/Policy.ts"
import { Queue } from "../../../src/model/Queue.ts"
import { Task } from "../../../src/model/Task.ts"
import { Random } from "../random.ts"
import { LanesReference } from "./LanesReference.ts"

const seeds = Number(process.env["MILLRACE_SEEDS"] ?? 300)
const opsPerSeed = 200

const bytes = new Uint8Array(1)
const queue = new Queue(0, {
  name: "q",
  fingerprint: bytes,
  schema: "",
  accepts: [],
  policy: defaults,
  durability: "memory"
})

const taskOf = (n: number, key?: string, priority = 128): Task =>
  new Task(n, queue, bytes, { priority, ...(key === undefined ? {} : { key }) }, 0)

const limits = (override: LaneOverride): LaneLimits => overridden(unlimited, override)

const sound = (lanes: Lanes): void => {
  const found: Array<string> = []
  checkLanes(lanes, (text) => found.push(text))
  assert.deepStrictEqual(found, [])
}

const numbers = (tasks: ReadonlyArray<Task>): ReadonlyArray<number> => tasks.map(({ n }) => n)

/** All that may be leased at `now`, in order; leases go on. */
const popAll = (lanes: Lanes, now: number): Array<Task> => {
  const found: Array<Task> = []
  for (let task = lanes.pop(now); task !== undefined; task = lanes.pop(now)) found.push(task)
  return found
}

const keysOf = (tasks: ReadonlyArray<Task>): string => tasks.map(({ options }) => options?.key ?? "-").join("")

/** One seeded run of lanes and reference side by side. */
class Run {
  readonly ops: Array<string> = []
  readonly counts = new Map<string, number>()
  readonly #random: Random
  readonly #defaults: LaneLimits
  readonly #reference: LanesReference
  #lanes: Lanes
  #leased: Array<Task> = []
  #away: Array<Task> = []
  #now = 1_000
  #n = 1

  constructor(seed: number) {
    const r = new Random(seed)
    this.#random = r
    this.#defaults = limits(r.chance(30) ? {} : this.#override())
    this.#lanes = new Lanes(this.#defaults)
    this.#reference = new LanesReference(this.#defaults)
    this.#seen(this.#now)
  }

  go(count: number): void {
    for (let i = 0; i < count; i++) {
      this.#operation()
      this.#compare()
    }
  }

  #override(): LaneOverride {
    const r = this.#random
    return {
      concurrency: r.chance(50) ? r.int(4) : undefined,
      ratePerMinute: r.chance(40) ? r.pick([0, 60, 700, 1_234, 60_000, 120_000]) : undefined,
      burst: r.chance(40) ? r.int(4) : undefined,
      gapMs: r.chance(40) ? r.pick([0, 1, 7, 50]) : undefined,
      weight: r.chance(40) ? 1 + r.int(4) : undefined
    }
  }

  #key(): string {
    return this.#random.pick(["a", "b", "c", "d"])
  }

  #seen(now: number): void {
    this.#now = now
    this.#lanes.open(now)
    this.#reference.at(now)
  }

  #operation(): void {
    const r = this.#random
    const lanes = this.#lanes
    const reference = this.#reference
    const say = (name: string, ...args: ReadonlyArray<unknown>): void => {
      this.counts.set(name, (this.counts.get(name) ?? 0) + 1)
      this.ops.push(`${this.#now} ${name} ${JSON.stringify(args)}`)
    }
    const kind = r.int(100)
    if (kind < 32) {
      const task = taskOf(this.#n++, r.chance(25) ? undefined : this.#key(), r.chance(70) ? 128 : r.pick([0, 127, 255]))
      say("push", task.n, task.options)
      lanes.push(task)
      return reference.add(task)
    }
    if (kind < 60) {
      // The time of the call may be later than any before.
      if (r.chance(30)) this.#now += r.int(3)
      const prefetch = r.chance(15)
      say("pop", prefetch)
      const expected = reference.pop(this.#now, prefetch)
      assert.strictEqual(lanes.pop(this.#now, prefetch)?.n, expected?.n, "popped")
      if (expected !== undefined) this.#leased.push(expected)
      return
    }
    if (kind < 72 && this.#leased.length > 0) {
      const task = this.#leased.splice(r.int(this.#leased.length), 1)[0]!
      const back = r.chance(40)
      say("ended", task.n, back)
      lanes.ended(task)
      reference.ended(task)
      if (!back) return r.chance(30) ? void this.#away.push(task) : undefined
      lanes.giveBack(task)
      return reference.add(task)
    }
    if (kind < 75 && this.#away.length > 0) {
      const task = this.#away.pop()!
      task.place = this.#n
      say("back", task.n)
      lanes.giveBack(task)
      return reference.add(task)
    }
    if (kind < 79 && reference.tasks.length > 0) {
      const task = r.pick(reference.tasks)
      say("remove", task.n)
      lanes.remove(task)
      return reference.remove(task)
    }
    if (kind < 88) {
      const ms = r.chance(20) ? r.int(300) : r.int(20)
      say("time", ms)
      return this.#seen(this.#now + ms)
    }
    const key = this.#key()
    if (kind < 90) {
      const until = this.#now + r.int(60) - 5
      say("slowDown", key, until)
      lanes.slowDown(key, until)
      return reference.slowDown(key, until)
    }
    if (kind < 92) {
      say("pause", key)
      lanes.pause(key)
      return reference.pause(key, true)
    }
    if (kind < 95) {
      say("resume", key)
      lanes.resume(key)
      return reference.pause(key, false)
    }
    if (kind < 97) {
      const override = this.#override()
      say("override", key, override)
      lanes.override(key, override)
      return reference.override(key, override)
    }
    if (kind < 99) {
      say("clear", key)
      lanes.clear(key)
      return reference.clear(key)
    }
    if (r.chance(50)) {
      say("restart")
      this.#lanes.restart(this.#now)
      return reference.restart(this.#now, false)
    }
    say("rebuilt")
    const rebuilt = new Lanes(this.#defaults)
    rebuilt.restart(this.#now)
    const settings = [...lanes.settings()]
    for (const [key, setting] of settings) rebuilt.restore(key, setting)
    for (const task of this.#leased) rebuilt.leasedBefore(task)
    for (const task of reference.tasks) {
      task.prev = undefined
      task.next = undefined
    }
    reference.restart(this.#now, true)
    for (const task of reference.tasks) rebuilt.push(task)
    assert.deepStrictEqual([...rebuilt.settings()].sort(), settings.sort())
    this.#lanes = rebuilt
  }

  #compare(): void {
    const r = this.#random
    const lanes = this.#lanes
    const reference = this.#reference
    sound(lanes)
    assert.strictEqual(lanes.size, reference.tasks.length)
    const count = r.int(6)
    assert.strictEqual(lanes.first(this.#now)?.n, reference.first()?.n, "first")
    assert.deepStrictEqual(numbers(lanes.peek(count, this.#now)), numbers(reference.peek(count)), "peek")
    const open = reference.open()
    assert.strictEqual(lanes.leasable > 0, open.length > 0)
    const blocked = reference.lanes.filter(
      (lane) => reference.waiting(lane).length > 0 && !reference.blockedByEvent(lane) && !open.includes(lane)
    )
    const at = lanes.nextOpenAt
    if (blocked.length === 0) assert.strictEqual(at, Number.POSITIVE_INFINITY)
    else {
      assert.isTrue(
        blocked.some((lane) => reference.openByTime(lane, at)),
        `nothing opens at ${at}`
      )
      assert.isFalse(
        blocked.some((lane) => reference.openByTime(lane, at - 1)),
        `a lane opens before ${at}`
      )
    }
    assert.isAtMost(lanes.nextDeadline, at)
    const lane = reference.lanes[r.int(Math.max(1, reference.lanes.length))]
    if (lane?.key !== undefined) {
      const stats = lanes.laneStats(lane.key, this.#now)
      const expected = reference.why(lane, this.#now)
      const { state } = stats
      const time = state._tag === "Rate" || state._tag === "Gap" || state._tag === "Slowed"
      assert.strictEqual(time ? "Time" : state._tag, expected)
      if (time) {
        assert.isTrue(reference.openByTime(lane, state.until) && !reference.openByTime(lane, state.until - 1))
        if (state._tag === "Gap") assert.isFalse(reference.gapOver(lane, state.until - 1))
        if (state._tag === "Rate") assert.isFalse(reference.hasToken(lane, state.until - 1))
      }
      assert.deepStrictEqual(
        [stats.waiting, stats.running, stats.limits, stats.setting.paused, stats.setting.override],
        [reference.waiting(lane).length, lane.running, reference.limits(lane), lane.paused, lane.override]
      )
      assert.strictEqual(stats.setting.slowedUntil, lane.slowedUntil > this.#now ? lane.slowedUntil : 0)
    }
    const full = reference.lanes.filter(({ key }) => key !== undefined).map((lane) => reference.waiting(lane).length)
    assert.deepStrictEqual(
      lanes.topLanes(3, this.#now).map(({ waiting }) => waiting),
      full
        .filter((waiting) => waiting > 0)
        .sort((a, b) => b - a)
        .slice(0, 3)
    )
  }
}

describe("lanes", () => {
  it("take turns, whatever the order of the puts", () => {
    const lanes = new Lanes()
    "aaaabbc".split("").forEach((key, i) => void lanes.push(taskOf(i + 1, key)))
    lanes.push(taskOf(8))
    assert.strictEqual(keysOf(lanes.peek(99, 0)), "abc-abaa")
    assert.strictEqual(keysOf(popAll(lanes, 0)), "abc-abaa")
    sound(lanes)
  })

  it("give as many tasks in a turn as their weight says", () => {
    const lanes = new Lanes()
    lanes.override("a", { weight: 3 })
    "aaaaaaaabbbbb".split("").forEach((key, i) => void lanes.push(taskOf(i + 1, key)))
    assert.strictEqual(keysOf(popAll(lanes, 0)), "aaabaaabaabbb")
  })

  it("share by weight over time, and a lane that comes late is not made to wait for a long queue of another", () => {
    const lanes = new Lanes()
    lanes.override("b", { weight: 4 })
    for (let n = 1; n <= 2_000; n++) lanes.push(taskOf(n, n % 2 === 0 ? "a" : "b"))
    const first = keysOf(Array.from({ length: 500 }, () => lanes.pop(0)!))
    assert.strictEqual(first.split("b").length - 1, 400)
    lanes.push(taskOf(2_001, "late"))
    assert.include(keysOf(Array.from({ length: 10 }, () => lanes.pop(0)!)), "late")
  })

  it("of a more urgent priority go first, and one that is blocked lets the others pass", () => {
    const lanes = new Lanes(limits({ concurrency: 1 }))
    const urgent = [taskOf(1, "a", 0), taskOf(2, "a", 0)]
    for (const task of urgent) lanes.push(task)
    lanes.push(taskOf(3, "b", 7))
    lanes.push(taskOf(4, undefined, 200))
    assert.deepStrictEqual(numbers(popAll(lanes, 0)), [1, 3, 4])
    lanes.ended(urgent[0]!)
    assert.deepStrictEqual(numbers(popAll(lanes, 0)), [2])
  })

  it("have at most their concurrency of leases, and go on when one ends", () => {
    const lanes = new Lanes(limits({ concurrency: 2 }))
    for (let n = 1; n <= 5; n++) lanes.push(taskOf(n, "a"))
    const held = popAll(lanes, 0)
    assert.deepStrictEqual(numbers(held), [1, 2])
    assert.deepStrictEqual(lanes.why(taskOf(9, "a"), 0), { _tag: "Concurrency", running: 2, limit: 2 })
    assert.strictEqual(lanes.nextOpenAt, Number.POSITIVE_INFINITY)
    lanes.ended(held[1]!)
    assert.deepStrictEqual(numbers(popAll(lanes, 0)), [3])
    sound(lanes)
  })

  it("leave a gap between two grants: not a millisecond less, and no more", () => {
    const lanes = new Lanes(limits({ gapMs: 50 }))
    for (let n = 1; n <= 3; n++) lanes.push(taskOf(n, "a"))
    assert.deepStrictEqual(numbers(popAll(lanes, 1_000)), [1])
    assert.deepStrictEqual(lanes.why(taskOf(9, "a"), 1_001), { _tag: "Gap", until: 1_050 })
    assert.strictEqual(lanes.nextOpenAt, 1_050)
    assert.deepStrictEqual(numbers(popAll(lanes, 1_049)), [])
    assert.deepStrictEqual(numbers(popAll(lanes, 1_050)), [2])
    assert.deepStrictEqual(numbers(popAll(lanes, 5_000)), [3])
  })

  it("are granted a burst, then so many a minute, to the millisecond and without drift", () => {
    const lanes = new Lanes(limits({ ratePerMinute: 700, burst: 3 }))
    for (let n = 1; n <= 2_000; n++) lanes.push(taskOf(n, "a"))
    assert.strictEqual(popAll(lanes, 1_000).length, 3)
    let granted = 0
    while (lanes.nextOpenAt <= 61_000) {
      const at = lanes.nextOpenAt
      assert.isUndefined(lanes.pop(at - 1))
      assert.isDefined(lanes.pop(at))
      granted++
    }
    assert.strictEqual(granted, 700)
    assert.strictEqual(popAll(lanes, 900_000).length, 3)
  })

  it("that are paused give nothing until they are resumed", () => {
    const lanes = new Lanes()
    lanes.pause("a")
    lanes.push(taskOf(1, "a"))
    lanes.push(taskOf(2, "b"))
    assert.deepStrictEqual(numbers(popAll(lanes, 0)), [2])
    assert.deepStrictEqual(lanes.why(taskOf(9, "a"), 0), { _tag: "Paused" })
    assert.deepStrictEqual(lanes.setting("a"), { paused: true, slowedUntil: 0, override: undefined })
    lanes.resume("a")
    assert.isUndefined(lanes.setting("a"))
    assert.deepStrictEqual(numbers(popAll(lanes, 0)), [1])
  })

  it("that are slowed down open when they were told to; a shorter word does not shorten it", () => {
    const lanes = new Lanes()
    lanes.push(taskOf(1, "a"))
    lanes.open(100)
    lanes.slowDown("a", 900)
    lanes.slowDown("a", 300)
    assert.deepStrictEqual(lanes.why(taskOf(9, "a"), 100), { _tag: "Slowed", until: 900 })
    assert.isUndefined(lanes.pop(899))
    assert.strictEqual(lanes.pop(900)?.n, 1)
  })

  it("give nothing to prefetch where they have limits", () => {
    const lanes = new Lanes()
    lanes.override("a", { concurrency: 5 })
    lanes.push(taskOf(1, "b"))
    lanes.push(taskOf(2, "a"))
    assert.strictEqual(lanes.pop(0, true)?.n, 1)
    assert.isUndefined(lanes.pop(0, true))
    assert.strictEqual(lanes.pop(0)?.n, 2)
  })

  it("keep the place of a task that comes back", () => {
    const lanes = new Lanes(limits({ concurrency: 2 }))
    for (let n = 1; n <= 4; n++) lanes.push(taskOf(n, "a"))
    const held = popAll(lanes, 0)
    lanes.ended(held[1]!)
    lanes.giveBack(held[1]!)
    lanes.ended(held[0]!)
    lanes.giveBack(held[0]!)
    assert.deepStrictEqual(numbers(lanes.peek(9, 0)), [1, 2, 3, 4])
    assert.deepStrictEqual(numbers(popAll(lanes, 0)), [1, 2])
  })

  it("wait a full gap and start with an empty bucket after a restart, also those not heard of before", () => {
    const lanes = new Lanes(limits({ gapMs: 50, ratePerMinute: 600, burst: 10 }))
    lanes.restart(10_000)
    lanes.push(taskOf(1, "a"))
    lanes.push(taskOf(2, "a"))
    assert.strictEqual(lanes.nextOpenAt, 10_100)
    assert.deepStrictEqual(numbers(popAll(lanes, 10_100)), [1])
    assert.strictEqual(lanes.nextOpenAt, 10_200)
    lanes.push(taskOf(3, "b"))
    assert.deepStrictEqual(numbers(popAll(lanes, 10_100)), [3])
  })

  it("are forgotten when they are as new, not before, and whatever is kept of them is kept", () => {
    const lanes = new Lanes(limits({ gapMs: 50 }))
    for (let n = 1; n <= 100; n++) lanes.push(taskOf(n, `lane ${n}`))
    lanes.pause("kept")
    for (const task of popAll(lanes, 1_000)) lanes.ended(task)
    assert.strictEqual(lanes.lanes, 101)
    assert.strictEqual(lanes.nextOpenAt, Number.POSITIVE_INFINITY)
    assert.strictEqual(lanes.nextDeadline, 2_000)
    lanes.open(1_049)
    assert.strictEqual(lanes.lanes, 101)
    lanes.open(1_050)
    assert.strictEqual(lanes.lanes, 1)
    assert.strictEqual(lanes.nextDeadline, Number.POSITIVE_INFINITY)
    lanes.resume("kept")
    assert.strictEqual(lanes.lanes, 0)
    sound(lanes)
  })

  it("that a hundred thousand others are blocked beside give their tasks at once, and wake nobody early", () => {
    const lanes = new Lanes(limits({ gapMs: 60_000 }))
    for (let n = 1; n <= 200_000; n++) lanes.push(taskOf(n, `lane ${n % 100_000}`))
    assert.strictEqual(popAll(lanes, 1_000).length, 100_000)
    lanes.push(taskOf(200_001))
    assert.strictEqual(lanes.pop(1_001)?.n, 200_001)
    assert.strictEqual(lanes.nextOpenAt, 61_000)
    assert.isFalse(lanes.open(60_999))
    assert.strictEqual(lanes.topLanes(3, 60_999).length, 3)
  })

  it("with the most tasks are found", () => {
    const lanes = new Lanes()
    let n = 1
    for (let lane = 1; lane <= 40; lane++) for (let i = 0; i < lane; i++) lanes.push(taskOf(n++, `${lane}`))
    const top = lanes.topLanes(5, 0).map(({ key, waiting }) => [key, waiting])
    assert.deepStrictEqual(
      top,
      [39, 38, 37, 36, 40].map((size) => [`${size}`, size]).sort((a, b) => +b[1]! - +a[1]!)
    )
  })

  it("can be paused or limited up to a bound, and those that are can still be changed", () => {
    const lanes = new Lanes()
    for (let i = 1; i < Limits.laneSettingsMax; i++) lanes.pause(`${i}`)
    assert.isTrue(lanes.roomForSetting("0"))
    lanes.pause("0")
    assert.isFalse(lanes.roomForSetting("one more"))
    assert.isTrue(lanes.roomForSetting("7"))
    lanes.clear("7")
    assert.isTrue(lanes.roomForSetting("one more"))
  })

  it("give out everything when all is taken, be it open or not", () => {
    const lanes = new Lanes(limits({ concurrency: 1 }))
    lanes.pause("b")
    "aaabbc".split("").forEach((key, i) => void lanes.push(taskOf(i + 1, key, i * 40)))
    lanes.push(taskOf(7))
    lanes.pop(0)
    const all: Array<number> = []
    for (let task = lanes.takeAny(); task !== undefined; task = lanes.takeAny()) all.push(task.n)
    assert.deepStrictEqual(all.sort(), [2, 3, 4, 5, 6, 7])
    assert.strictEqual(lanes.size, 0)
    sound(lanes)
  })
})

describe("S22: limits of lanes", () => {
  it("are never exceeded, restarts and forgotten lanes included", () => {
    let grants = 0
    let forgotten = 0
    for (let seed = 1; seed <= 150; seed++) {
      const r = new Random(seed)
      const gapMs = r.pick([0, 10, 35])
      const ratePerMinute = r.pick([0, 1_000, 2_600])
      const concurrency = r.int(4)
      const policy = limits({ gapMs, ratePerMinute, concurrency, burst: 1 + r.int(4) })
      // So few are remembered that some with a wait before them must be forgotten.
      const idleMax = r.pick([1, 3, 1_000])
      let lanes = new Lanes(policy, idleMax)
      const history = new Map<string, Array<number>>()
      let held: Array<Task> = []
      let waiting: Array<Task> = []
      let now = 1_000
      lanes.open(now)
      for (let n = 1; n <= 600; n++) {
        now += r.int(r.chance(10) ? 60 : 6)
        if (r.chance(70)) {
          const task = taskOf(n, `${r.int(12)}`)
          waiting.push(task)
          lanes.push(task)
        }
        for (let task = lanes.pop(now); task !== undefined; task = lanes.pop(now)) {
          const granted = task
          const key = granted.options!.key!
          waiting = waiting.filter((other) => other !== granted)
          held.push(granted)
          grants++
          const times = history.get(key) ?? []
          times.push(now)
          history.set(key, times)
          const running = held.filter(({ options }) => options!.key === key).length
          if (concurrency > 0) assert.isAtMost(running, concurrency)
          if (gapMs > 0 && times.length > 1) assert.isAtLeast(now - times.at(-2)!, gapMs)
          for (let i = 0; ratePerMinute > 0 && i < times.length; i++) {
            const most = policy.burst + ((now - times[i]!) * ratePerMinute) / 60_000
            if (times.length - i > most) assert.fail(`seed ${seed}: lane ${key} has too many grants at ${now}`)
          }
        }
        held = held.filter((task) => {
          if (r.chance(60)) return true
          lanes.ended(task)
          return false
        })
        if (idleMax < 10) forgotten += Number(lanes.lanes < history.size)
        if (r.chance(5)) sound(lanes)
        if (!r.chance(1)) continue
        lanes = new Lanes(policy, idleMax)
        for (const task of held) lanes.leasedBefore(task)
        for (const task of waiting) {
          task.prev = undefined
          task.next = undefined
          lanes.push(task)
        }
        lanes.restart(now)
      }
    }
    assert.isAbove(grants, 10_000)
    assert.isAbove(forgotten, 1_000)
  })
})

describe("lanes beside the reference", () => {
  it(
    "give out the same tasks, for the same reasons, at the same times, for every seed",
    () => {
      const counts = new Map<string, number>()
      for (let seed = 1; seed <= seeds; seed++) {
        const run = new Run(seed)
        try {
          run.go(opsPerSeed)
        } catch (error) {
          throw new Error(`seed ${seed}: ${String(error)}\n${run.ops.slice(-60).join("\n")}`, { cause: error })
        }
        for (const [kind, count] of run.counts) counts.set(kind, (counts.get(kind) ?? 0) + count)
      }
      console.log(`lanes: ${seeds} seeds x ${opsPerSeed} ops; ${JSON.stringify(Object.fromEntries(counts))}`)
      const kinds = "push pop ended back remove time slowDown pause resume override clear restart rebuilt".split(" ")
      for (const kind of kinds) assert.isAbove(counts.get(kind) ?? 0, 0, `${kind} never happened`)
    },
    60_000 + seeds * 100
  )
})
