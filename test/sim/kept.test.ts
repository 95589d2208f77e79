import { readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { simulate } from "millrace/testing"

/** Seeds that once failed, each with what it found. */
const kept = JSON.parse(readFileSync(new URL("./seeds.json", import.meta.url), "utf8")) as ReadonlyArray<{
  readonly seed: number
  readonly found: string
}>

describe("seeds that once failed", () => {
  for (const { found, seed } of kept) {
    it(`${seed}: ${found}`, async () => {
      assert.deepStrictEqual((await simulate(seed)).violations, [])
    })
  }
})
