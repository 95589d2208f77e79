import { assert, describe, it } from "@effect/vitest"
import { type Counts, kinds, runSeeds } from "./seeds.ts"

/** Of both files together; a file takes half of them, so that two cores work. */
const seeds = Number(process.env["MILLRACE_SEEDS"] ?? 10_000)

describe("the engine beside the reference", () => {
  it(
    "gives the same answers, deliveries and counts for every seed, and its invariants hold after every round, of the second half",
    () => {
      const counts: Counts = {}
      const before = Math.ceil(seeds / 2)
      runSeeds(before + 1, seeds - before, counts)
      console.log(`engine: seeds ${before + 1} to ${seeds}; ${JSON.stringify(counts)}`)
      for (const kind of kinds) assert.isAbove(counts[kind] ?? 0, 0, `${kind} never happened`)
    },
    60_000 + seeds * 100
  )
})
