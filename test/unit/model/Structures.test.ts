import { assert, describe, it } from "@effect/vitest"
import * as Limits from "../../../src/Limits.ts"
import { Heap } from "../../../src/model/Heap.ts"
import { Journal } from "../../../src/model/Journal.ts"
import { OutcomeLog } from "../../../src/model/OutcomeLog.ts"
import { defaults } from "../../../src/model/Policy.ts"
import { Queue } from "../../../src/model/Queue.ts"
import { Kind, readRow } from "../../../src/model/Records.ts"
import { Outcome, Task } from "../../../src/model/Task.ts"
import { TaskTable } from "../../../src/model/TaskTable.ts"
import { type Timer, Timers } from "../../../src/model/Timers.ts"
import { Random } from "../random.ts"
import { definition } from "./collected.ts"

const bytes = new Uint8Array(10)
const queue = new Queue(0, {
  name: "q",
  fingerprint: bytes,
  schema: "",
  accepts: [],
  policy: defaults,
  durability: "memory"
})
const rising = (a: number, b: number): number => a - b

describe("Heap", () => {
  it("gives out the smallest first, however it was filled and emptied", () => {
    const random = new Random(1)
    for (let round = 0; round < 200; round++) {
      const heap = new Heap<number>((a, b) => a < b)
      const plain: Array<number> = []
      for (let i = 0; i < 100; i++) {
        if (random.chance(60)) {
          const item = random.int(1_000) * 1_000 + i
          heap.push(item)
          plain.push(item)
        } else if (random.chance(50)) {
          plain.sort(rising)
          assert.strictEqual(heap.peek(), plain[0])
          assert.strictEqual(heap.pop(), plain.shift())
        } else if (plain.length > 0) {
          const item = random.pick(plain)
          assert.isTrue(heap.remove(item))
          plain.splice(plain.indexOf(item), 1)
          assert.isFalse(heap.remove(item))
        }
        assert.strictEqual(heap.size, plain.length)
        assert.deepStrictEqual(heap.toArray().sort(rising), plain.toSorted(rising))
      }
    }
  })
})

describe("Timers", () => {
  it("ring in order, and a removed one never", () => {
    const random = new Random(2)
    const timers = new Timers()
    const set = new Set<Timer>()
    for (let now = 0; now < 20_000; now++) {
      if (random.chance(70)) set.add(timers.add(now + random.int(500), { _tag: "Leases", queue }))
      if (random.chance(30) && set.size > 0) {
        const timer = random.pick([...set].slice(0, 50))
        timers.remove(timer)
        timers.remove(timer)
        set.delete(timer)
      }
      const due = [...set].filter(({ at }) => at <= now).length
      for (let i = 0; i < due; i++) {
        const timer = timers.take(now)
        assert.isTrue(timer !== undefined && timer.at <= now && set.delete(timer))
      }
      assert.isUndefined(timers.take(now))
      assert.strictEqual(timers.size, set.size)
      assert.isTrue(timers.entries().every((timer, slot) => timer.slot === slot))
      assert.strictEqual(timers.next, Math.min(Number.POSITIVE_INFINITY, ...[...set].map(({ at }) => at)))
    }
  })

  it("of an empty heap come never", () => {
    assert.strictEqual(new Timers().next, Number.POSITIVE_INFINITY)
  })
})

describe("OutcomeLog", () => {
  const append = (log: OutcomeLog, task: number, now: number, body: Uint8Array | undefined = bytes): number =>
    log.append(task, Outcome.success, body, undefined, 1, now)

  it("keeps what was written, under cursors that rise by one", () => {
    const log = new OutcomeLog(10_000, 1_000_000, 1_000)
    const reasons = [{ attempt: 1, reason: 0, text: "x" }] as const
    for (let i = 0; i < 3_000; i++) {
      assert.strictEqual(log.append(i * 2, i % 2 === 0 ? Outcome.dead : Outcome.failure, bytes, reasons, i, i + 5), i)
    }
    for (const cursor of [0, 1, 1_023, 1_024, 1_025, 2_047, 2_048, 2_999]) {
      assert.strictEqual(log.task(cursor), cursor * 2)
      assert.strictEqual(log.attempts(cursor), cursor)
      assert.strictEqual(log.endedAt(cursor), cursor + 5)
      assert.strictEqual(log.outcome(cursor), cursor % 2 === 0 ? Outcome.dead : Outcome.failure)
      assert.deepStrictEqual(log.body(cursor), bytes)
      assert.deepStrictEqual(log.reasons(cursor), reasons)
    }
  })

  it("drops the oldest by count: the limit stays, one more does not", () => {
    const log = new OutcomeLog(3, 1_000_000, 1_000)
    const dropped: Array<number> = []
    for (let task = 1; task <= 3; task++) append(log, task, 0)
    log.evict(0, (task) => dropped.push(task))
    assert.deepStrictEqual([log.first, log.next, dropped], [0, 3, []])
    append(log, 4, 0)
    log.evict(0, (task) => dropped.push(task))
    assert.deepStrictEqual([log.first, log.next, dropped], [1, 4, [1]])
  })

  it("drops the oldest by bytes", () => {
    const log = new OutcomeLog(100, 30, 1_000)
    const dropped: Array<number> = []
    for (let task = 1; task <= 3; task++) append(log, task, 0)
    log.append(4, Outcome.success, undefined, undefined, 1, 0)
    log.evict(0, (task) => dropped.push(task))
    assert.deepStrictEqual([log.bytes, dropped], [30, []])
    append(log, 5, 0, new Uint8Array(11))
    log.evict(0, (task) => dropped.push(task))
    assert.deepStrictEqual([log.bytes, dropped], [21, [1, 2]])
  })

  it("drops what is too old, not a millisecond early, and says when to look again", () => {
    const log = new OutcomeLog(100, 1_000, 1_000)
    assert.isUndefined(log.nextEviction())
    append(log, 1, 50)
    append(log, 2, 70)
    const dropped: Array<number> = []
    assert.strictEqual(log.nextEviction(), 1_050)
    log.evict(1_049, (task) => dropped.push(task))
    assert.deepStrictEqual(dropped, [])
    log.evict(1_050, (task) => dropped.push(task))
    assert.deepStrictEqual(dropped, [1])
    assert.strictEqual(log.nextEviction(), 1_070)
  })

  it("stays right over many segments with a moving window", () => {
    const log = new OutcomeLog(1_500, 1_000_000, 1_000_000)
    let next = 0
    for (let i = 0; i < 10_000; i++) {
      append(log, i, i)
      log.evict(i, (task) => assert.strictEqual(task, next++))
      assert.strictEqual(log.task(log.first), log.first)
    }
    assert.strictEqual(log.next - log.first, 1_500)
    assert.strictEqual(log.bytes, 15_000)
  })

  it("that keeps nothing still counts", () => {
    const log = new OutcomeLog(0, 1_000, 1_000)
    for (let i = 0; i < 2_100; i++) {
      assert.strictEqual(append(log, i, 0), i)
      log.evict(0, () => {})
      assert.strictEqual(log.first, log.next)
    }
    assert.strictEqual(log.bytes, 0)
  })
})

describe("TaskTable", () => {
  it("finds living and ended tasks and forgets removed ones, over pages", () => {
    const table = new TaskTable()
    const tasks = Array.from({ length: 5_000 }, (_, n) => new Task(n, queue, bytes, undefined, 0))
    for (const task of tasks) table.add(task.n, task)
    for (const task of tasks) assert.strictEqual(table.owner(task.n), task)
    for (let n = 0; n < 5_000; n += 2) table.end(n, queue, n + 7)
    for (let n = 0; n < 5_000; n += 4) table.remove(n)
    for (const task of tasks) {
      const { n } = task
      if (n % 4 === 0) assert.isUndefined(table.owner(n))
      else if (n % 2 === 0) assert.deepStrictEqual([table.owner(n) === queue, table.cursor(n)], [true, n + 7])
      else assert.strictEqual(table.owner(n), task)
    }
    for (let n = 0; n < 5_000; n++) table.remove(n)
    for (let n = 0; n < 6_000; n++) assert.isUndefined(table.owner(n))
    table.remove(3)
    table.add(3, tasks[3]!)
    assert.strictEqual(table.owner(3), tasks[3])
  })
})

describe("a walk over the task table", () => {
  it("sees the living tasks of one queue in order, in parts of any size, whatever ended or went between", () => {
    const random = new Random(11)
    for (let run = 0; run < 20; run++) {
      const table = new TaskTable()
      const queues = [0, 1].map((id) => new Queue(id, definition(`q${id}`, {})))
      const living = new Map<number, Task>()
      let n = 0
      for (let op = 0; op < 40; op++) {
        for (let i = random.int(300); i > 0; i--) {
          n += 1 + random.int(random.chance(1) ? 3_000 : 2)
          const task = new Task(n, queues[random.int(2)]!, new Uint8Array(), undefined, 0)
          table.add(n, task)
          living.set(n, task)
        }
        for (const [key, task] of living) {
          if (!random.chance(15)) continue
          living.delete(key)
          // Ended and kept, ended and forgotten, or taken without an outcome.
          const how = random.int(3)
          if (how < 2) table.end(key, task.queue, 0)
          if (how > 0) table.remove(key)
        }
        const queue = queues[random.int(2)]!
        const max = 1 + random.int(80)
        const start = random.int(n + 2)
        const found: Array<number> = []
        for (let after: number | undefined = start; after !== undefined; ) {
          const { last, tasks } = table.after(queue, after, max)
          assert.isAtMost(tasks.length, max)
          assert.isTrue(last === undefined || last > after, "a walk goes on")
          found.push(...tasks.map((task) => task.n))
          after = last
        }
        const expected = [...living.values()].filter((task) => task.queue === queue && task.n > start)
        assert.deepStrictEqual(
          found,
          expected.map((task) => task.n)
        )
      }
    }
  })

  it("looks at a bounded number of tasks of others, and goes on behind them", () => {
    const table = new TaskTable()
    const [mine, other] = ["mine", "other"].map((name, id) => new Queue(id, definition(name, {})))
    // Where one part ends and the next begins.
    const needles = [Limits.walkSlotsMax - 1, Limits.walkSlotsMax, 2 * Limits.walkSlotsMax]
    for (let n = 1; n <= 2 * Limits.walkSlotsMax; n++) {
      table.add(n, new Task(n, needles.includes(n) ? mine! : other!, new Uint8Array(), undefined, 0))
    }
    let parts = 0
    const found: Array<number> = []
    for (let after: number | undefined = 0; after !== undefined; parts++) {
      const walked = table.after(mine!, after, 10)
      found.push(...walked.tasks.map((task) => task.n))
      after = walked.last
    }
    assert.deepStrictEqual([found, parts], [needles, 3])
  })

  it("passes over pages in which nothing lives: what has ended costs a walk nothing", () => {
    const table = new TaskTable()
    const queue = new Queue(0, definition("q", {}))
    const count = 2 * Limits.walkSlotsMax
    for (let n = 1; n <= count; n++) table.add(n, new Task(n, queue, new Uint8Array(), undefined, 0))
    for (let n = 1; n < count; n++) {
      if (n % 2 === 0) table.end(n, queue, n)
      else table.remove(n)
    }
    // One part: a page that still counted its dead as living would be looked at, and there are too many for one.
    const { last, tasks } = table.after(queue, 0, 10)
    assert.deepStrictEqual([tasks.map((task) => task.n), last], [[count], undefined])
  })
})

describe("the journal of a round", () => {
  it("keeps what was written at other times in rows of their own", () => {
    const journal = new Journal(1, 1)
    const times = (): ReadonlyArray<number> => {
      const seen: Array<number> = []
      for (const row of journal.take()) readRow(row, { row: (_, __, now) => seen.push(now), record: () => {} })
      return seen
    }
    const write = (): void => {
      const w = journal.record()
      w.uint(Kind.sessionEnded)
      w.uint(7)
    }
    journal.begin(10)
    write()
    journal.begin(10)
    write()
    assert.deepStrictEqual(times(), [10])
    journal.begin(20)
    write()
    journal.begin(30)
    write()
    assert.deepStrictEqual(times(), [20, 30])
  })
})
