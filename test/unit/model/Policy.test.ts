import { assert, describe, it } from "@effect/vitest"
import { Engine, type Out } from "../../../src/model/Engine.ts"
import { backoffMs, defaults, fault, fromNumbers, ranges, toNumbers } from "../../../src/model/Policy.ts"
import { Session } from "../../../src/model/Session.ts"
import { Reason } from "../../../src/model/Task.ts"
import { Random } from "../random.ts"
import { Collected, definition } from "./collected.ts"

describe("a policy", () => {
  for (const [field, min, max] of ranges) {
    it(`takes ${field} from ${min} to ${max}, whole numbers only`, () => {
      for (const value of [min, min + 1, max - 1, max]) {
        assert.isUndefined(fault({ ...defaults, [field]: value }), `${value}`)
      }
      const refused = [min - 1, min + 0.5, Number.NaN, Number.POSITIVE_INFINITY, -1, max + 1]
      for (const value of refused) assert.strictEqual(fault({ ...defaults, [field]: value })?.field, field, `${value}`)
    })
  }

  it("has defaults within its own ranges, and travels as numbers", () => {
    assert.isUndefined(fault(defaults))
    const other = fromNumbers(ranges.map(([, min]) => min))
    assert.deepStrictEqual(fromNumbers(toNumbers(other)), other)
    assert.isUndefined(fault(other))
  })

  it("that is shorter has defaults for what is missing; a longer one is cut", () => {
    assert.deepStrictEqual(fromNumbers([]), defaults)
    assert.deepStrictEqual(fromNumbers([7]), { ...defaults, capacity: 7 })
    assert.deepStrictEqual(fromNumbers([...toNumbers(defaults), 1, 2, 3]), defaults)
  })
})

describe("a back-off", () => {
  const policy = {
    ...defaults,
    backoffBaseMs: 100,
    backoffFactorPercent: 200,
    backoffCapMs: 1_000,
    backoffJitterPercent: 0
  }

  it("grows by its factor from the base to the cap", () => {
    const grown = [1, 2, 3, 4, 5, 6, 10_000].map((attempt) => backoffMs(policy, attempt, 0.7))
    assert.deepStrictEqual(grown, [100, 200, 400, 800, 1_000, 1_000, 1_000])
  })

  it("stays at the base with factor 1, and at nothing with base 0, whatever the attempt", () => {
    for (const attempt of [1, 2, 10_000]) {
      assert.strictEqual(backoffMs({ ...policy, backoffFactorPercent: 100 }, attempt, 0), 100)
      assert.strictEqual(backoffMs({ ...policy, backoffBaseMs: 0 }, attempt, 0), 0)
    }
  })

  it("draws its jitter from the whole jittered part and no more", () => {
    const random = new Random(4)
    for (const [percent, min] of [
      [0, 1_000],
      [25, 750],
      [50, 500],
      [100, 0]
    ] as const) {
      const drawn = Array.from({ length: 2_000 }, () =>
        backoffMs({ ...policy, backoffJitterPercent: percent }, 9, random.next())
      )
      const low = Math.min(...drawn)
      const high = Math.max(...drawn)
      assert.isTrue(low >= min && high <= 1_000 && drawn.every(Number.isSafeInteger), `${percent}: ${low} to ${high}`)
      if (percent > 0) assert.isTrue(low < min + 20 && high > 980, `${percent}: ${low} to ${high}`)
    }
  })

  it("in an engine is the same for the same seed and another for another", () => {
    const waits = (seed: number): ReadonlyArray<number> => {
      const out: Out = new Collected()
      const engine = new Engine({ epoch: 1, seed, out })
      engine.declare(
        definition("q", {
          backoffJitterPercent: 100,
          backoffBaseMs: 1_000,
          backoffFactorPercent: 100,
          maxAttempts: 100
        })
      )
      const session = engine.connect((id) => new Session(id))
      let now = 0
      engine.put(session, 0, 0, false, 0, [new Uint8Array()], undefined, now)
      return Array.from({ length: 30 }, (_, i) => {
        engine.lease(session, 2 * i + 1, 0, 1, 0, false, now)
        const failure = { reason: Reason.failed, error: undefined, text: "", retryAfterMs: undefined } as const
        engine.fail(session, 2 * i + 2, [1], [2 ** 32 + i + 1], [failure], now)
        const wait = [...engine.timers.entries()].find(({ subject }) => subject._tag === "Due")!.at - now
        now += wait
        engine.tick(now)
        engine.dispatch(now)
        return wait
      })
    }
    assert.deepStrictEqual(waits(1), waits(1))
    assert.notDeepEqual(waits(1), waits(2))
    assert.isTrue(waits(3).every((wait) => wait >= 0 && wait <= 1_000))
    assert.isAbove(new Set(waits(3)).size, 20)
    assert.doesNotThrow(() => waits(0))
  })
})

describe("limits of a task", () => {
  it("1,000 releases are one too many", () => {
    const out = new Collected()
    const engine = new Engine({ epoch: 1, seed: 1, out })
    const queue = engine.declare(definition("q", {}))
    const session = engine.connect((id) => new Session(id))
    engine.put(session, 0, 0, false, 0, [new Uint8Array()], undefined, 0)
    for (let i = 1; i <= 1_000; i++) {
      assert.strictEqual(queue.dead, 0)
      engine.lease(session, 2 * i, 0, 1, 0, false, 0)
      engine.release(session, 2 * i + 1, [1, 2 ** 32 + i], 0)
    }
    assert.deepStrictEqual([queue.dead, queue.log.reasons(0)?.at(-1)?.reason], [1, Reason.releasedTooOften])
  })

  it("so are 1,000 leases lost before their handler is known to have begun", () => {
    const out = new Collected()
    const engine = new Engine({ epoch: 1, seed: 1, out })
    const queue = engine.declare(definition("q", { leaseMs: 1_000 }))
    const session = engine.connect((id) => new Session(id))
    engine.put(session, 0, 0, false, 0, [new Uint8Array()], undefined, 0)
    for (let i = 1; i <= 1_000; i++) {
      assert.strictEqual(queue.dead, 0)
      engine.lease(session, i, 0, 1, 0, true, 1_000 * i)
      engine.tick(1_000 * (i + 1))
    }
    assert.deepStrictEqual([queue.dead, queue.log.reasons(0)?.at(-1)?.reason], [1, Reason.releasedTooOften])
    assert.strictEqual(queue.leased, 0)
  })

  it("only the newest 16 reasons are kept", () => {
    const out = new Collected()
    const engine = new Engine({ epoch: 1, seed: 1, out })
    const queue = engine.declare(definition("q", { maxAttempts: 30, backoffBaseMs: 0 }))
    const session = engine.connect((id) => new Session(id))
    engine.put(session, 0, 0, false, 0, [new Uint8Array()], undefined, 0)
    for (let i = 1; i <= 30; i++) {
      engine.tick(i)
      engine.lease(session, 2 * i, 0, 1, 0, false, i)
      const failure = { reason: Reason.failed, error: undefined, text: `${i}`, retryAfterMs: undefined } as const
      engine.fail(session, 2 * i + 1, [1], [2 ** 32 + i], [failure], i)
    }
    const texts = queue.log.reasons(0)?.map(({ text }) => text)
    assert.deepStrictEqual(
      texts,
      Array.from({ length: 16 }, (_, i) => `${i + 15}`)
    )
  })

  it("a lease answer stays within 4 MiB unless its first task alone is larger", () => {
    const out = new Collected()
    const engine = new Engine({ epoch: 1, seed: 1, out })
    engine.declare(definition("q", { payloadBytesMax: 16 * 1_048_576 }))
    const session = engine.connect((id) => new Session(id))
    const sizes = [4 * 1_048_576 - 1, 16 * 1_048_576, 1]
    for (const [i, size] of sizes.entries()) {
      engine.put(session, i, 0, false, 0, [new Uint8Array(size)], undefined, 0)
    }
    for (const request of [10, 11, 12]) engine.lease(session, request, 0, 9, 0, false, 0)
    const tasks = [10, 11, 12].map((request) => out.answers.get(request))
    assert.deepStrictEqual(
      tasks,
      ["1/1/1", "2/1/1", "3/1/1"].map((task) => ({ _tag: "Leased", tasks: [task] }))
    )
  })
})
