import { assert, describe, it } from "@effect/vitest"
import { RateKind, Rates, rateWindows } from "../../../src/model/Rates.ts"
import { Random } from "../random.ts"

const kinds = Object.values(RateKind)

describe("rates", () => {
  it("count what a list of all events counts, over bursts, steps and gaps of any length", () => {
    const r = new Random(7)
    let read = 0
    for (let run = 0; run < 20; run++) {
      const rates = new Rates()
      const events: Array<{ readonly kind: RateKind; readonly count: number; readonly at: number }> = []
      let now = r.pick([0, 1, 999, 1_800_000_000_000, 4_000_000_000_123])
      for (let step = 0; step < 200; step++) {
        const gap = r.pick([0, 1, 10, 999, 1_000, 1_001, 5_000, 59_999, 60_000, 63_000, 64_000, 65_000, 3_600_000])
        now += r.chance(70) ? r.int(300) : gap
        if (r.chance(80)) {
          const event = { kind: r.pick(kinds), count: 1 + r.int(4), at: now }
          events.push(event)
          rates.add(event.kind, event.count, now)
        }
        // Also long after the last event, which a reader must not need to have seen.
        const at = r.chance(50) ? now : now + r.int(130_000)
        for (const kind of kinds) {
          for (const window of rateWindows) {
            const from = Math.floor(at / 1_000) - window
            const expected = events
              .filter(
                (e) => e.kind === kind && Math.floor(e.at / 1_000) >= from && Math.floor(e.at / 1_000) < from + window
              )
              .reduce((sum, { count }) => sum + count, 0)
            assert.strictEqual(rates.count(kind, window, at), expected, `run ${run}, ${window} s before ${at}`)
            if (expected > 0) read++
          }
        }
      }
    }
    assert.isAbove(read, 3_000, "most readings were of something")
  })

  it("leave out the second that is under way, and change nothing when they are read", () => {
    const rates = new Rates()
    rates.add(RateKind.puts, 5, 10_999)
    assert.strictEqual(rates.count(RateKind.puts, 1, 10_999), 0)
    assert.strictEqual(rates.count(RateKind.puts, 1, 11_000), 5)
    assert.strictEqual(rates.count(RateKind.puts, 10, 999_000), 0)
    assert.strictEqual(rates.count(RateKind.puts, 10, 20_999), 5)
    assert.strictEqual(rates.count(RateKind.puts, 10, 21_000), 0)
    assert.strictEqual(rates.count(RateKind.puts, 60, 70_999), 5)
    assert.strictEqual(rates.count(RateKind.leases, 60, 70_999), 0)
  })
})
