import { spawnSync } from "node:child_process"
import { existsSync, globSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { type Part, parts, scaled } from "../../../scripts/release/parts.ts"
import { plants } from "../../sim/planted/plants.ts"

const root = fileURLToPath(new URL("../../..", import.meta.url))
const release = (...args: ReadonlyArray<string>) =>
  spawnSync(process.execPath, [`${root}scripts/test-release.ts`, ...args], { cwd: root, encoding: "utf8" })
const part = (name: string): Part => parts.find((part) => part.name === name)!

describe("the run before a release", () => {
  it("has a part for every count that the tests take from the environment", () => {
    const read = new Set<string>()
    for (const file of globSync("test/**/*.ts", { cwd: root })) {
      const source = readFileSync(root + file, "utf8")
      for (const [, name] of source.matchAll(/Number\(process\.env\["(MILLRACE_\w+)"\]/g)) read.add(name!)
    }
    assert.includeMembers([...read], ["MILLRACE_SEEDS", "MILLRACE_IMAGES", "MILLRACE_KILLS", "MILLRACE_CHAOS_KILLS"])
    const set = new Set(parts.flatMap(({ variable }) => variable ?? []))
    for (const each of parts) {
      for (const { env } of each.programs(each.count ?? 1, 1)) for (const name of Object.keys(env ?? {})) set.add(name)
    }
    assert.deepStrictEqual(
      [...read].filter((name) => !set.has(name)),
      []
    )
  })

  it("runs programs that are there, every planted bug among them", () => {
    for (const each of parts) {
      const programs = each.programs(each.count ?? 1, 7)
      assert.isAbove(programs.length, 0, each.name)
      for (const { args } of programs) {
        for (const file of args.filter((arg) => /\.m?ts$|\.mjs$/.test(arg))) {
          assert.isTrue(existsSync(file.startsWith("/") ? file : root + file), file)
        }
      }
    }
    const names = part("planted")
      .programs(plants.length, 7)
      .map(({ env }) => env?.["MILLRACE_PLANTED"])
    assert.deepStrictEqual(
      names,
      plants.map(({ name }) => name)
    )
  })

  it("asks for the counts of a release, or for a part of them that still says something", () => {
    const counts = Object.fromEntries(parts.map((each) => [each.name, [scaled(each, 1), scaled(each, 0.000_001)]]))
    assert.deepStrictEqual(counts["model"], [1_000_000, 100])
    assert.deepStrictEqual(counts["simulation"], [200_000, 2])
    assert.deepStrictEqual(counts["chaos"], [1_000, 12])
    assert.deepStrictEqual(counts["fuzz"], [100_000_000, 80_000])
    assert.deepStrictEqual(counts["live-sequences"], [100_000, 200])
    assert.deepStrictEqual(counts["at-rest"], [100_000, 240])
    assert.deepStrictEqual(counts["commit"], [1, 1])
  })

  it("takes a planted bug for found only when one seed failed and the bug was there", () => {
    const expected = part("planted").programs(1, 7)[0]!.expected!
    assert.isTrue(expected(1, '{"failed":[9]}', "seed 9 FAILED: lost"))
    assert.isFalse(expected(0, '{"failed":[]}', ""))
    assert.isFalse(expected(1, '{"failed":[9]}', '"x" was not planted: it was never loaded'))
    assert.isFalse(expected(1, "", "there is no planted bug"))
  })

  it("refuses flags that are wrong, with code 2 and the name of the flag", () => {
    for (const [args, said] of [
      [["--scale", "2"], /--scale is 2/],
      [["--scale", "much"], /--scale is much/],
      [["--only", "model,none"], /--only names none; the parts are commit, model/],
      [["--only", ""], /--only names nothing/],
      [["--from", "x"], /--from is x/],
      [["--fast"], /--fast/]
    ] as const) {
      const { status, stderr, stdout } = release(...args)
      assert.strictEqual(status, 2, stderr)
      assert.match(stderr, said)
      assert.strictEqual(stdout, "")
    }
  })
})
