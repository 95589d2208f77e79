import { assert, describe, it } from "@effect/vitest"
import * as Limits from "../../../src/Limits.ts"
import { Engine } from "../../../src/model/Engine.ts"
import { check } from "../../../src/model/Invariants.ts"
import { type Life, legal, Standing, steps } from "../../../src/model/Life.ts"
import { Roster } from "../../../src/model/Roster.ts"
import { Session } from "../../../src/model/Session.ts"
import { Task } from "../../../src/model/Task.ts"
import { Random } from "../random.ts"
import { Collected, definition } from "./collected.ts"

const bytes = new Uint8Array(1)
const fence = (leases: number): number => 2 ** 32 + leases

const engineOf = (policy: Parameters<typeof definition>[1] = {}) => {
  const out = new Collected()
  const engine = new Engine({ epoch: 1, seed: 1, out })
  const queue = engine.declare(definition("q", policy))
  const session = engine.connect((id) => new Session(id))
  const put = (count: number): void => {
    for (let left = count; left > 0; left -= Limits.batchItemsMax) {
      const batch = new Array<Uint8Array>(Math.min(left, Limits.batchItemsMax)).fill(bytes)
      engine.put(session, left, 0, false, 0, batch, undefined, 0)
      out.answers.delete(left)
    }
  }
  return { engine, out, queue, session, put }
}

describe("the life of a task", () => {
  it("ends where no step leads on, and every other step is listed once", () => {
    const tags = Object.keys(steps) as ReadonlyArray<Life["_tag"]>
    const final = tags.filter((tag) => steps[tag].length === 0)
    assert.deepStrictEqual(final, ["Done", "Failed", "Dead", "Cancelled", "Taken", "Purged"])
    for (const from of tags) {
      assert.isFalse(legal(from, "New"))
      assert.strictEqual(new Set(steps[from]).size, steps[from].length)
      // All but what was not put yet is reached from somewhere.
      if (from !== "New")
        assert.isTrue(
          tags.some((tag) => legal(tag, from)),
          from
        )
    }
  })

  it("a step outside the table is reported", () => {
    const { engine, out, queue, session, put } = engineOf()
    put(1)
    const task = engine.tasks.owner(1)
    assert.instanceOf(task, Task)
    out.changed("checkpoint", task)
    out.changed("acknowledged", task)
    assert.deepStrictEqual(out.faults, ["task 1: Ready -> checkpoint (Ready)", "task 1: Ready -> acknowledged (Taken)"])
    assert.isDefined(queue)
    assert.isDefined(session)
  })
})

describe("a roster", () => {
  it("is walked like a sorted list, whatever was removed", () => {
    const random = new Random(7)
    for (let run = 0; run < 30; run++) {
      const roster = new Roster<number>()
      let naive: Array<number> = []
      let key = 0
      for (let op = 0; op < 400; op++) {
        const kind = random.int(10)
        if (kind < 4) {
          for (let i = random.int(random.chance(20) ? 900 : 9); i >= 0; i--) {
            key += 1 + random.int(3)
            roster.add(key, key)
            naive.push(key)
          }
        } else if (kind < 7 && naive.length > 0) {
          // From the front, from the end, or all but a few, as queues do.
          const from = random.chance(50) ? 0 : random.int(naive.length)
          const gone = naive.slice(from, from + random.int(random.chance(30) ? naive.length : 20))
          for (const one of gone) roster.remove(one)
          const left = new Set(gone)
          naive = naive.filter((one) => !left.has(one))
        } else {
          roster.remove(random.int(key + 2) + 0.5)
        }
        const after = random.int(key + 2)
        const max = random.int(50)
        assert.deepStrictEqual(roster.after(after, max), naive.filter((one) => one > after).slice(0, max))
        assert.strictEqual(roster.size, naive.length)
        assert.strictEqual(roster.get(after), naive.includes(after) ? after : undefined)
      }
    }
    assert.throws(() => {
      const roster = new Roster<number>()
      roster.add(2, 2)
      roster.add(2, 2)
    }, /only grows at its end/)
  })
})

describe("operations look at a bounded number of tasks", () => {
  const count = Limits.sweepTasksMax + 10

  it("a purge goes on at the place it names, and leaves what was put since it began", () => {
    const { engine, out, put, queue, session } = engineOf()
    put(count)
    let told: ReadonlyArray<unknown> = []
    out.purged = (_, __, ...what) => {
      told = what
    }
    engine.operations.purge(session, 1, 0, {}, 0, undefined, 0)
    assert.deepStrictEqual(told, [Limits.sweepTasksMax, Limits.sweepTasksMax, count])
    put(5)
    engine.operations.purge(session, 2, 0, {}, Limits.sweepTasksMax, count, 0)
    assert.deepStrictEqual(told, [10, undefined, count])
    assert.deepStrictEqual([queue.ready.size, queue.purged], [5, count])
    engine.dispatch(0)
    assert.deepStrictEqual(check(engine), [])
  })

  it("a close at once cancels in parts, and hands nothing out meanwhile", () => {
    const { engine, out, put, queue, session } = engineOf()
    put(count)
    engine.subscribe(session, queue, 5)
    engine.operations.pause(session, 1, 0, true)
    engine.close(session, 2, 0, "immediate", 0)
    engine.operations.pause(session, 3, 0, false)
    engine.lease(session, 4, 0, 1, undefined, false, 0)
    engine.dispatch(0)
    assert.deepStrictEqual([queue.ready.size, queue.cancelled], [10, Limits.sweepTasksMax])
    assert.deepStrictEqual(out.answers.get(4), { _tag: "Refused", why: "closed" })
    assert.deepStrictEqual(check(engine), [])
    assert.strictEqual(engine.nextDeadline, 0)
    engine.tick(0)
    engine.dispatch(0)
    assert.deepStrictEqual([queue.ready.size, queue.cancelled, out.grants.size], [0, count, 0])
    assert.deepStrictEqual(check(engine), [])
  })

  it("a close at once cancels one part a round, however much is left", () => {
    const { engine, put, queue, session } = engineOf()
    put(2 * Limits.sweepTasksMax + 10)
    engine.close(session, 1, 0, "immediate", 0)
    const left: Array<number> = []
    for (let i = 0; i < 3; i++) {
      left.push(queue.ready.size)
      engine.due(0)
      engine.expire(0)
      engine.dispatch(0)
      assert.deepStrictEqual(check(engine), [])
    }
    assert.deepStrictEqual([...left, queue.ready.size], [Limits.sweepTasksMax + 10, 10, 0, 0])
  })

  it("a redrive does not meet again what it has put again", () => {
    const { engine, out, put, queue, session } = engineOf({ capacity: 1 })
    put(1)
    const kill = (n: number): void => {
      engine.lease(session, 10 * n, 0, 1, 0, false, 0)
      const failure = { reason: 1, error: undefined, text: "", retryAfterMs: undefined } as const
      engine.fail(session, 10 * n + 1, [n], [fence(1)], [failure], 0)
    }
    kill(1)
    let told: ReadonlyArray<unknown> = []
    out.redriven = (_, __, ...what) => {
      told = what
    }
    engine.operations.redrive(session, 1, 0, undefined, {}, 0, undefined, 0)
    assert.deepStrictEqual(told, [[1, 2], undefined, 1])
    kill(2)
    engine.operations.redrive(session, 2, 0, undefined, {}, 0, 1, 0)
    assert.deepStrictEqual(told, [[], undefined, 1])
    assert.strictEqual(queue.deadLetters.size, 1)
    engine.dispatch(0)
    assert.deepStrictEqual(check(engine), [])
  })
})

describe("a cancelled lease", () => {
  it("is told to its holder by the heartbeat for as long as it names the lease, and nothing is remembered for it", () => {
    const { engine, out, put, session } = engineOf()
    put(2)
    engine.lease(session, 1, 0, 2, 0, false, 0)
    engine.operations.cancel(session, 2, 0, [1], 0)
    assert.deepStrictEqual(out.stops, [`${session.id}:1`])
    const held = [1, fence(1), 2, fence(1), 9, fence(1)]
    for (let i = 0; i < 2; i++) {
      const cancelled: Array<number> = []
      assert.deepStrictEqual([engine.heartbeat(session, held, 0, cancelled), cancelled], [[9], [1]])
    }
    // After a resume it is lost like any other.
    engine.detach(session, 0)
    assert.deepStrictEqual(engine.resume(session, held, 0), [1, 9])
    engine.dispatch(0)
    assert.deepStrictEqual(check(engine), [])
    const queue = engine.queues[0]!
    assert.deepStrictEqual(
      [1, 2, 3].map((n) => engine.operations.standing(queue, n)),
      [Standing.cancelled, Standing.leased, Standing.gone]
    )
  })
})

describe("a queue that drops the oldest", () => {
  for (const [how, back] of [
    ["was released", (engine: Engine, session: Session) => engine.release(session, 8, [1, fence(1)], 0)],
    [
      "backs off",
      (engine: Engine, session: Session) => {
        const failure = { reason: 0, error: undefined, text: "", retryAfterMs: 50 } as const
        engine.fail(session, 8, [1], [fence(1)], [failure], 0)
      }
    ]
  ] as const) {
    it(`drops a task that ${how}, though it was passed over while it was leased`, () => {
      const { engine, put, queue, session } = engineOf({ capacity: 1, overflow: 1 })
      put(1)
      engine.lease(session, 7, 0, 1, 0, false, 0)
      put(2)
      back(engine, session)
      assert.deepStrictEqual(
        engine.tasks.after(queue, 0, 9).tasks.map(({ n }) => n),
        [1, 3]
      )
      put(1)
      assert.deepStrictEqual(
        engine.tasks.after(queue, 0, 9).tasks.map(({ n }) => n),
        [4]
      )
      engine.dispatch(0)
      assert.deepStrictEqual(check(engine), [])
    })
  }
})
