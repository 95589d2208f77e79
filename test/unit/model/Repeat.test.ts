import { assert, describe, it } from "@effect/vitest"
import * as Limits from "../../../src/Limits.ts"
import { nextCron } from "../../../src/manager/Calendar.ts"
import { Engine } from "../../../src/model/Engine.ts"
import { check } from "../../../src/model/Invariants.ts"
import { defaults, type Policy } from "../../../src/model/Policy.ts"
import type { Queue } from "../../../src/model/Queue.ts"
import { Repeat, type RepeatDefinition, type RepeatState } from "../../../src/model/Repeat.ts"
import { Session } from "../../../src/model/Session.ts"
import { Task } from "../../../src/model/Task.ts"
import { Collected, definition } from "./collected.ts"

const minute = 60_000
const hour = 60 * minute

/** An engine, its clocks, and a worker that takes what it is told to. */
class World {
  readonly out = new Collected()
  readonly engine = new Engine({ epoch: 1, seed: 1, out: this.out, nextCron })
  readonly queue: Queue
  readonly session: Session
  /** Engine time. */
  now: number
  /** Wall time minus engine time. */
  offset = 0
  #request = 1

  constructor(startAt: string | number, policy: Partial<Policy> = {}) {
    this.now = typeof startAt === "number" ? startAt : Date.parse(startAt)
    this.queue = this.engine.declare(definition("q", { ...defaults, ...policy }))
    this.session = this.engine.connect((id) => new Session(id))
  }

  set(change: Partial<RepeatDefinition>): Repeat {
    const made = this.try(change)
    if (!(made instanceof Repeat)) throw new Error(made.subject)
    return made
  }

  try(change: Partial<RepeatDefinition>) {
    return this.engine.repeats.set(
      this.queue,
      {
        id: "r",
        everyMs: undefined,
        cron: undefined,
        zone: "UTC",
        payload: new Uint8Array([7]),
        options: undefined,
        ...change
      },
      this.now
    )
  }

  /** Passes time, from deadline to deadline. */
  pass(ms: number): void {
    const end = this.now + ms
    for (;;) {
      this.now = Math.min(end, Math.max(this.now, this.engine.nextDeadline))
      this.engine.tick(this.now)
      this.engine.dispatch(this.now)
      assert.deepStrictEqual(check(this.engine), [])
      if (this.now === end) return
    }
  }

  /** The wall clock jumps, and the manager notices. */
  jump(ms: number): void {
    this.offset += ms
    this.engine.wall(this.offset, this.now)
  }

  get wall(): string {
    return new Date(this.now + this.offset).toISOString()
  }

  /** Tasks that wait. */
  get waiting(): number {
    return this.queue.waiting
  }

  lease(): Task {
    const [task] = this.queue.ready.peek(1, this.now)
    assert.isDefined(task)
    this.engine.lease(this.session, this.#request++, 0, 1, 0, false, this.now)
    return task!
  }

  commit(task: Task): void {
    const fence = this.engine.fence(task)
    this.engine.commit(this.session, this.#request++, [task.n], [fence], [new Uint8Array()], undefined, this.now)
    this.engine.dispatch(this.now)
    assert.deepStrictEqual(check(this.engine), [])
  }

  /** Runs the occurrence that waits, at once. */
  run(): void {
    this.commit(this.lease())
  }
}

/** The wall times of the next occurrences, each run at once. */
const occurrences = (world: World, count: number): ReadonlyArray<string> => {
  const found: Array<string> = []
  while (found.length < count) {
    world.pass(Math.max(0, world.engine.nextDeadline - world.now))
    if (world.waiting === 0) continue
    found.push(world.wall)
    world.run()
  }
  return found
}

describe("a repeat with an interval", () => {
  it("puts its payload each interval, the first one interval from now", () => {
    const world = new World(1_000_000)
    world.set({ everyMs: 5 * minute })
    for (let i = 1; i <= 5; i++) {
      world.pass(5 * minute - 1)
      assert.strictEqual(world.queue.puts, i - 1)
      world.pass(1)
      assert.strictEqual(world.queue.puts, i)
      world.run()
    }
  })

  it("never has two occurrences: what was missed while one ran collapses into one, and the grid stays", () => {
    const world = new World(1_000_000)
    const repeat = world.set({ everyMs: minute })
    world.pass(minute)
    world.pass(10 * minute + 1)
    assert.deepStrictEqual([world.queue.puts, world.waiting], [1, 1])
    const task = world.lease()
    world.commit(task)
    // Ten were missed: one comes at once, the next one where it would have been.
    world.pass(1)
    assert.deepStrictEqual([world.queue.puts, world.waiting], [2, 1])
    assert.strictEqual(repeat.nextAt, 1_000_000 + 12 * minute)
    world.commit(world.lease())
    world.pass(minute - 3)
    assert.strictEqual(world.queue.puts, 2)
    world.pass(1)
    assert.strictEqual(world.queue.puts, 3)
  })

  it("waits until its task has ended, through failures and back-off, and goes on when it is dead", () => {
    const world = new World(0, { maxAttempts: 2, backoffBaseMs: 10 * minute, backoffCapMs: hour })
    world.set({ everyMs: minute })
    world.pass(minute)
    const failure = { reason: 0, error: undefined, text: "no", retryAfterMs: undefined } as const
    const fail = (task: Task): void =>
      world.engine.fail(world.session, 900 + task.leases, [task.n], [world.engine.fence(task)], [failure], world.now)
    fail(world.lease())
    world.pass(9 * minute)
    assert.deepStrictEqual([world.queue.puts, world.queue.delayed], [1, 1])
    world.pass(minute)
    fail(world.lease())
    world.pass(1)
    assert.deepStrictEqual([world.queue.puts, world.queue.dead, world.waiting], [2, 1, 1])
  })

  it("goes on after a get, which leaves no outcome", () => {
    const world = new World(0)
    world.set({ everyMs: minute })
    world.pass(minute)
    const task = world.lease()
    world.engine.acknowledge(world.session, [task.n, world.engine.fence(task)], world.now)
    world.pass(minute)
    assert.strictEqual(world.queue.puts, 2)
  })

  it("is put into a full queue, and needs no capacity of client puts", () => {
    const world = new World(0, { capacity: 1 })
    world.engine.put(world.session, 1_000, 0, false, 0, [new Uint8Array(1)], undefined, 0)
    world.set({ everyMs: minute })
    world.pass(minute)
    assert.strictEqual(world.waiting, 2)
  })

  it("is removed where the queue takes no more in its life, or is closed", () => {
    const spent = new World(0, { tasksMax: 1 })
    spent.set({ everyMs: minute })
    spent.pass(minute)
    spent.run()
    spent.pass(hour)
    assert.deepStrictEqual([spent.queue.puts, spent.engine.repeats.count(spent.queue)], [1, 0])
    for (const mode of ["drain", "immediate"] as const) {
      const world = new World(0)
      world.set({ everyMs: minute })
      world.pass(minute)
      world.engine.close(world.session, 1_000, 0, mode, world.now)
      world.pass(hour)
      assert.deepStrictEqual([world.queue.puts, world.engine.repeats.count(world.queue)], [1, 0])
      const why = world.try({ everyMs: minute })
      assert.isFalse(why instanceof Repeat)
    }
  })

  it("said again keeps its time; with another schedule it counts from now; its task goes on in either case", () => {
    const world = new World(0)
    world.set({ everyMs: 10 * minute })
    world.pass(9 * minute)
    const again = world.set({ everyMs: 10 * minute, payload: new Uint8Array([8]) })
    world.pass(minute)
    const task = world.lease()
    assert.deepStrictEqual([...task.payload!], [8])
    world.set({ everyMs: 2 * minute })
    assert.strictEqual(again.nextAt, 12 * minute)
    world.pass(hour)
    assert.strictEqual(world.queue.puts, 1, "the task of the earlier schedule has not ended")
    assert.strictEqual(world.engine.repeats.count(world.queue), 1)
  })

  it("removed leaves its occurrence alone, and what it puts no more", () => {
    const world = new World(0)
    world.set({ everyMs: minute })
    world.pass(minute)
    assert.isDefined(world.engine.repeats.remove(world.queue, "r"))
    assert.isUndefined(world.engine.repeats.remove(world.queue, "r"))
    assert.strictEqual(world.waiting, 1)
    world.run()
    world.pass(hour)
    assert.strictEqual(world.queue.puts, 1)
    assert.strictEqual(world.engine.timers.next > world.now + 12 * hour, true)
  })
})

describe("a repeat with a cron expression", () => {
  it("follows the local time of its zone over both changes of daylight saving", () => {
    const spring = new World("2026-03-27T12:00:00Z")
    spring.set({ cron: "30 2 * * *", zone: "Europe/Berlin" })
    assert.deepStrictEqual(occurrences(spring, 3), [
      "2026-03-28T01:30:00.000Z",
      "2026-03-29T01:30:00.000Z",
      "2026-03-30T00:30:00.000Z"
    ])
    const autumn = new World("2026-10-24T12:00:00Z")
    autumn.set({ cron: "30 2 * * *", zone: "Europe/Berlin" })
    assert.deepStrictEqual(occurrences(autumn, 2), ["2026-10-25T00:30:00.000Z", "2026-10-26T01:30:00.000Z"])
    const hourly = new World("2026-10-24T23:30:00Z")
    hourly.set({ cron: "0 * * * *", zone: "UTC" })
    assert.deepStrictEqual(occurrences(hourly, 3), [
      "2026-10-25T00:00:00.000Z",
      "2026-10-25T01:00:00.000Z",
      "2026-10-25T02:00:00.000Z"
    ])
  })

  it("collapses what a wall clock set forward has passed over, and goes on from there", () => {
    const world = new World("2026-01-01T00:10:00Z")
    world.set({ cron: "0 * * * *" })
    world.jump(5 * hour)
    assert.deepStrictEqual(occurrences(world, 2), ["2026-01-01T05:10:00.000Z", "2026-01-01T06:00:00.000Z"])
  })

  it("repeats nothing when the wall clock is set back a little, and does not wait years when it was far ahead", () => {
    const world = new World("2026-01-01T00:10:00Z")
    world.set({ cron: "0 * * * *" })
    assert.deepStrictEqual(occurrences(world, 1), ["2026-01-01T01:00:00.000Z"])
    world.pass(10 * minute)
    world.jump(-2 * hour)
    // 00:10 again, and 01:00 has been.
    assert.deepStrictEqual(occurrences(world, 1), ["2026-01-01T02:00:00.000Z"])
    const wrong = new World("2036-05-05T00:10:00Z")
    wrong.set({ cron: "0 3 * * *" })
    wrong.jump(Date.parse("2026-05-05T00:10:00Z") - wrong.now)
    assert.deepStrictEqual(occurrences(wrong, 1), ["2026-05-05T03:00:00.000Z"])
  })

  it("set back between two looks at the clock is not early", () => {
    const world = new World("2026-01-01T00:10:00Z")
    const repeat = world.set({ cron: "0 * * * *" })
    // Steps below the bound are taken at the next one above it; until then the timer is as wrong as they are.
    world.jump(-(Limits.wallStepMsMin - 1))
    world.pass(50 * minute - 1)
    assert.strictEqual(world.queue.puts, 0)
    world.jump(-minute)
    world.pass(minute)
    assert.strictEqual(world.queue.puts, 0)
    world.pass(2_000)
    assert.strictEqual(repeat.occurrences, 1)
  })

  it("does not look at the wall clock if it is an interval", () => {
    const world = new World(0)
    world.set({ everyMs: hour })
    world.jump(10 * hour)
    world.pass(hour - 1)
    assert.strictEqual(world.queue.puts, 0)
    world.jump(-20 * hour)
    world.pass(1)
    assert.strictEqual(world.queue.puts, 1)
  })
})

describe("a repeat that a store has kept", () => {
  const restored = (world: World, state: RepeatState, startAt: number, lives: ReadonlyArray<number>): World => {
    const next = new World(startAt)
    const kept: RepeatState = structuredClone({ ...state, timer: undefined, queue: undefined })
    assert.notStrictEqual(next.engine, world.engine)
    // Tasks are restored before their repeats.
    for (const n of lives) {
      assert.strictEqual(n, 1)
      next.engine.put(next.session, 2_000, 0, false, 0, [new Uint8Array([7])], undefined, startAt)
    }
    next.engine.repeats.restore(next.queue, kept, (n) => next.engine.tasks.owner(n) instanceof Task, startAt)
    return next
  }

  it("puts one for all that the manager was down for, then keeps its grid", () => {
    const world = new World(0)
    const repeat = world.set({ everyMs: minute })
    world.pass(minute)
    world.run()
    const next = restored(world, repeat, 10 * minute + 5_000, [])
    next.pass(0)
    assert.strictEqual(next.queue.puts, 1)
    next.run()
    next.pass(minute - 5_001)
    assert.strictEqual(next.queue.puts, 1)
    next.pass(1)
    assert.strictEqual(next.queue.puts, 2)
    const [after] = next.engine.repeats.of(next.queue)
    assert.strictEqual(after!.occurrences, 3)
  })

  it("waits for its occurrence if that lives, and does not if that is gone", () => {
    const world = new World(0)
    const repeat = world.set({ everyMs: minute })
    world.pass(minute)
    assert.strictEqual(repeat.task, 1)
    const living = restored(world, repeat, 10 * minute, [1])
    living.pass(hour)
    assert.strictEqual(living.queue.puts, 1)
    living.run()
    living.pass(0)
    assert.strictEqual(living.queue.puts, 2)
    const gone = restored(world, repeat, 10 * minute, [])
    gone.pass(0)
    assert.strictEqual(gone.queue.puts, 1)
  })

  it("with a cron expression is due by the wall clock of its new life", () => {
    const world = new World("2026-01-01T00:10:00Z")
    const repeat = world.set({ cron: "0 3 * * *", zone: "UTC" })
    const next = restored(world, repeat, Date.parse("2026-01-01T02:00:00Z"), [])
    assert.deepStrictEqual(occurrences(next, 1), ["2026-01-01T03:00:00.000Z"])
    const late = restored(world, repeat, Date.parse("2026-01-05T12:00:00Z"), [])
    assert.deepStrictEqual(occurrences(late, 2), ["2026-01-05T12:00:00.000Z", "2026-01-06T03:00:00.000Z"])
    // The clock of the earlier life was years ahead.
    const back = restored(world, repeat, Date.parse("2020-01-05T12:00:00Z"), [])
    assert.deepStrictEqual(occurrences(back, 1), ["2020-01-06T03:00:00.000Z"])
  })
})

describe("what a repeat may be", () => {
  const refused = (world: World, change: Partial<RepeatDefinition>): string => {
    const why = world.try(change)
    assert(!(why instanceof Repeat), "it was accepted")
    assert.strictEqual(world.out.repeated.size, world.engine.repeats.count(world.queue))
    return `${why.subject} ${why.value} ${why.limit}`
  }

  it("is refused with queue, field, remedy and value", () => {
    const world = new World("2026-01-01T00:00:00Z")
    assert.match(refused(world, { cron: "61 * * * *" }), /^q\ncron\nuse five fields[^\n]*\n"61 \* \* \* \*"/)
    assert.match(refused(world, { cron: "0 0 31 2 *" }), /^q\ncron\nit never occurs/)
    assert.match(refused(world, { cron: "* * * * *", zone: "x" }), /^q\nzone\nuse the IANA name[^\n]*\n"x"/)
    assert.match(refused(world, {}), /^q\nschedule\n/)
    assert.match(refused(world, { cron: "* * * * *", everyMs: 5_000 }), /^q\nschedule\n/)
    assert.match(refused(world, { everyMs: 999 }), /^q\nevery\nuse 1000 to \d+ milliseconds\n999 ms/)
    assert.match(refused(world, { everyMs: Limits.delayMsMax + 1 }), /^q\nevery\n/)
    world.set({ id: "a", everyMs: Limits.repeatEveryMsMin })
    world.set({ id: "b", everyMs: Limits.delayMsMax })
    assert.match(refused(world, { everyMs: minute, payload: new Uint8Array(2 ** 20 + 1) }), /^q 1048577 1048576/)
  })

  it("is bounded by number and by bytes", () => {
    const world = new World(0)
    for (let i = 0; i < Limits.repeatsPerQueueMax; i++) world.set({ id: `${i}`, everyMs: hour })
    assert.match(refused(world, { id: "more", everyMs: hour }), /^repeatsPerQueueMax 1001 1000/)
    world.set({ id: "0", everyMs: minute })
    world.engine.repeats.remove(world.queue, "1")
    world.set({ id: "more", everyMs: hour })
    const large = new World(0)
    const payload = new Uint8Array(2 ** 20)
    for (const id of ["a", "b", "c", "d"]) large.set({ id, everyMs: hour, payload })
    assert.match(refused(large, { id: "e", everyMs: hour }), /^repeatBytesPerQueueMax 4194305 4194304/)
    large.set({ id: "d", everyMs: hour, payload: new Uint8Array(2 ** 20 - 1) })
    large.set({ id: "e", everyMs: hour })
    const alone = new World(0, { payloadBytesMax: Limits.payloadBytesCeiling })
    alone.set({ everyMs: hour, payload: new Uint8Array(Limits.payloadBytesCeiling) })
    assert.match(refused(alone, { id: "e", everyMs: hour }), /^repeatBytesPerQueueMax/)
  })
})
