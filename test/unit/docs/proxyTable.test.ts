/** The published table of the proxy's faults has every fault there is, and what it says of itself adds up. */
import { readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { faults } from "../../proxy/faults.ts"
import { operations } from "../../proxy/operations.ts"

const text = readFileSync(new URL("../../../bench/RESULTS.md", import.meta.url), "utf8")
const section = /^## What the proxy fired\n([\s\S]*?)(?=^## |$(?![\s\S]))/m.exec(text)?.[1] ?? ""
const table = /^```\n([\s\S]*?)^```/m.exec(section)?.[1] ?? ""
const [heading = "", ...rows] = table.trimEnd().split("\n")
const lines = rows.map((row) => {
  const [, name = "", numbers = ""] = /^(\S+(?: \S+)?)\s+([\d\s]+)$/.exec(row) ?? []
  return { name, counts: numbers.split(/\s+/).map(Number) }
})

describe("the table of what the proxy fired", () => {
  it("names the faults of the registry, all of them and no other", () => {
    assert.deepStrictEqual(
      lines.map(({ name }) => name),
      faults.map(({ name }) => name)
    )
    assert.match(heading, /^fault +fired +answered +definite +indefinite +reconnected$/)
  })

  it("has every operation under every fault in every round, each of them ended one way", () => {
    const rounds = Number(/MILLRACE_PROXY_ROUNDS=(\d+)/.exec(section)?.[1])
    assert.include(section, `each of ${operations.length} operations`)
    for (const { counts, name } of lines) {
      const [fired, answered, definite, indefinite] = counts
      assert.strictEqual(fired, rounds * operations.length, name)
      assert.strictEqual(answered! + definite! + indefinite!, fired, name)
    }
  })
})
