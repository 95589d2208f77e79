import { assert, describe, it } from "@effect/vitest"
import kept from "./kept.json" with { type: "json" }
import { Reference } from "./Reference.ts"
import { type Counts, kinds, runSeeds } from "./seeds.ts"

/** Of both files together; a file takes half of them, so that two cores work. */
const seeds = Number(process.env["MILLRACE_SEEDS"] ?? 10_000)

describe("the engine beside the reference", () => {
  it(
    "gives the same answers, deliveries and counts for every seed, and its invariants hold after every round",
    () => {
      const counts: Counts = {}
      const count = Math.ceil(seeds / 2)
      runSeeds(1, count, counts)
      console.log(`engine: seeds 1 to ${count}; ${JSON.stringify(counts)}`)
      for (const kind of kinds) assert.isAbove(counts[kind] ?? 0, 0, `${kind} never happened`)
    },
    60_000 + seeds * 100
  )

  it("holds for seeds that have failed", () => {
    for (const { progress, seed } of kept) runSeeds(seed, 1, {}, { progress })
  })

  it("a planted difference is found", () => {
    class Forgetful extends Reference {
      override started(): void {}
    }
    assert.throws(
      () => runSeeds(1, 20, {}, { make: (policies) => new Forgetful(policies) }),
      /^seed \d+: .*\n\d+ #\d+ s\d+ /s,
      "20 seeds did not notice that `started` does nothing"
    )
  })
})
