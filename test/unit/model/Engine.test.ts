import { assert, describe, it } from "@effect/vitest"
import { Reference } from "./Reference.ts"
import { explained, opsPerSeed, Run } from "./run.ts"

const seeds = Number(process.env["MILLRACE_SEEDS"] ?? 300)

const kinds = [
  ..."put lease subscribe follow credit unsubscribe commit fail release renew started heartbeat acknowledge".split(" "),
  ..."outcome join congested close detach resume goodbye repeat removeRepeat repeats".split(" "),
  ..."definitionInvalid Repeats occurrence".split(" "),
  ..."pause cancel purge redrive checkpoint browse Counted Redriven".split(" "),
  ..."commitTogether".split(" "),
  ..."setKeys count countSet dictGet dictWrite list Object".split(" "),
  ..."conflict counterOverflow objectNotFound objectKindMismatch durabilityMixed leaseLost alreadyEnded".split(" "),
  ..."Done Put Leased Items Outcome queueNotFound closed payloadTooLarge full empty timedOut taskNotFound".split(" ")
]

describe("the engine beside the reference", () => {
  it(
    "gives the same answers, deliveries and counts for every seed, and its invariants hold after every round",
    () => {
      const counts = new Map<string, number>()
      for (let seed = 1; seed <= seeds; seed++) {
        const run = new Run(seed)
        try {
          run.go(opsPerSeed)
        } catch {
          throw explained(seed)
        }
        for (const [kind, count] of run.counts) counts.set(kind, (counts.get(kind) ?? 0) + count)
      }
      console.log(`engine: ${seeds} seeds x ${opsPerSeed} ops; ${JSON.stringify(Object.fromEntries(counts))}`)
      for (const kind of kinds) assert.isAbove(counts.get(kind) ?? 0, 0, `${kind} never happened`)
    },
    60_000 + seeds * 100
  )

  it("a planted difference is found", () => {
    class Forgetful extends Reference {
      override started(): void {}
    }
    const found: Array<number> = []
    for (let seed = 1; seed <= 20; seed++) {
      try {
        new Run(seed, { make: (policies) => new Forgetful(policies) }).go(opsPerSeed)
      } catch {
        found.push(seed)
      }
    }
    assert.isAbove(found.length, 0, "20 seeds did not notice that `started` does nothing")
  })
})
