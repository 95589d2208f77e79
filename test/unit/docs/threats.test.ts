/**
 * The threats to a manager, M1 to M26, each by its number at the end of the names of the tests that hold it off, and the
 * table of docs/security.md, which has the same numbers and the same files.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"

const root = fileURLToPath(new URL("../../..", import.meta.url))
const numbers = Array.from({ length: 26 }, (_, i) => `M${i + 1}`)

/** Numbers without a test, and why. */
const without: Readonly<Record<string, string>> = { M18: "there is no dashboard yet" }

/** What a source says of one test: its name, of which the numbers at its end. */
const named = /\bit(?:\.\w+)*\((?:[^()]*\)\()?\s*(["'`])([^\n]*) \((M\d+(?:, M\d+)*)\)\1,/g

const tagsOf = (source: string): ReadonlyArray<string> =>
  Array.from(source.matchAll(named), ([, , , tags]) => tags!.split(", ")).flat()

/** Which files have tests of which number. */
const carried = new Map<string, Set<string>>()
for (const entry of readdirSync(join(root, "test"), { recursive: true, withFileTypes: true })) {
  if (!entry.isFile() || !entry.name.endsWith(".ts")) continue
  const file = relative(root, join(entry.parentPath, entry.name))
  const source = readFileSync(join(root, file), "utf8")
  if (file.endsWith("docs/threats.test.ts")) continue
  for (const tag of tagsOf(source)) carried.set(tag, (carried.get(tag) ?? new Set()).add(file))
}

const page = readFileSync(join(root, "docs/security.md"), "utf8")
const section = /^## Threats and their tests\n([\s\S]*?)(?=^## |$(?![\s\S]))/m.exec(page)?.[1] ?? ""
const rows = section
  .split("\n")
  .filter((line) => /^\| M\d/.test(line))
  .map((line) => line.split(/\s*\|\s*/).slice(1, -1))

describe("the threats to a manager", () => {
  it("are numbers at the end of names of tests", () => {
    const source = [
      'it("a (M1)", () => {})',
      "it.live(`$" + '{x === "y"} b (M2, M30)`, () => 1)',
      'it.effect(\n  "c (M3)",\n  () => 1)',
      'it.each([{ a: 1 }])("d (M4)", () => {})',
      'it.skipIf(no)("e (M5)", () => {})',
      'describe("f (M6)", () => {})',
      'it("g (M7) h", () => {})',
      'const name = "i (M8)",'
    ].join("\n")
    assert.deepStrictEqual(tagsOf(source), ["M1", "M2", "M30", "M3", "M4", "M5"])
  })

  it("have a test each, but those that say why not; no test has a number that there is not", () => {
    assert.deepStrictEqual(
      numbers.filter((number) => !carried.has(number)),
      Object.keys(without)
    )
    assert.deepStrictEqual(
      [...carried.keys()].filter((number) => !numbers.includes(number)),
      []
    )
    // The reason still holds.
    assert.isFalse(existsSync(join(root, "src/dashboard")), "a dashboard needs the tests of M18")
  })

  it("are held off by tests that the runner finds", () => {
    for (const file of new Set([...carried.values()].flatMap((files) => [...files]))) {
      if (file.endsWith(".test.ts")) continue
      assert.include(readFileSync(join(root, file.replace(".ts", ".test.ts")), "utf8"), "suite(", file)
    }
  })

  it("are the rows of the table in docs/security.md, with what is done and with the files of their tests", () => {
    assert.deepStrictEqual(
      rows.map(([number]) => number),
      numbers
    )
    let files = 0
    for (const [number = "", threat = "", answer = "", tests = "", ...more] of rows) {
      assert.deepStrictEqual(more, [], number)
      for (const text of [threat, answer]) assert.isAtLeast(text.split(" ").length, 2, `${number}: ${text}`)
      const named = Array.from(tests.matchAll(/`([^`]+)`/g), ([, file]) => `test/${file}`)
      for (const file of named) assert.isTrue(existsSync(join(root, file)), `${number}: ${file}`)
      assert.deepStrictEqual(named.sort(), [...(carried.get(number) ?? [])].sort(), number)
      if (number in without) assert.strictEqual(tests, without[number], number)
      files += named.length
    }
    console.log(`threats: ${numbers.length - Object.keys(without).length} of ${numbers.length} tested, ${files} files`)
  })
})
