import { execFileSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { canary, simulate } from "millrace/testing"

const script = fileURLToPath(new URL("../../scripts/sim.ts", import.meta.url))

describe("a seed", () => {
  it("gives the same trace, whatever ran before it in the process", async () => {
    const seeds = [3, 4, 5, 6, 7, 8]
    const first = []
    for (const seed of seeds) first.push((await simulate(seed)).hash)
    const again = []
    for (const seed of seeds.toReversed()) again.unshift((await simulate(seed)).hash)
    assert.deepStrictEqual(again, first)
    assert.strictEqual(new Set(first).size, seeds.length)
  })

  it("gives the same trace in another process, printed or not", async () => {
    for (const seed of [11, 12]) {
      const here = (await simulate(seed)).hash
      const printed = (await simulate(seed, { print: () => {} })).hash
      const out = execFileSync(process.execPath, [script, "--seed", String(seed), "--json"], { encoding: "utf8" })
      const there = (JSON.parse(out) as { readonly hash: string }).hash
      assert.deepStrictEqual([printed, there], [here, here])
    }
  })
})

describe("the canary", () => {
  it("fails: a lost acknowledged put is reported", async () => {
    for (const seed of [1, 2, 3]) {
      const { violations } = await canary(seed)
      assert.isTrue(
        violations.some((violation) => violation.startsWith("S1")),
        `seed ${seed}: ${violations[0]}`
      )
    }
  })
})
