import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { plants } from "./planted/plants.ts"

const hook = fileURLToPath(new URL("./planted/hook.ts", import.meta.url))
const script = fileURLToPath(new URL("../../scripts/sim.ts", import.meta.url))

const runPlanted = (name: string, from = 1) =>
  spawnSync(process.execPath, ["--import", hook, script, "--seeds", "2000", "--from", `${from}`, "--first", "--json"], {
    encoding: "utf8",
    env: { ...process.env, MILLRACE_PLANTED: name }
  })

describe("planted bugs", () => {
  for (const { from, name } of plants.filter(({ rare }) => rare !== true)) {
    it(`found within 2,000 seeds: ${name}`, { timeout: 300_000 }, () => {
      const { status, stderr, stdout } = runPlanted(name, from)
      const summary = JSON.parse(stdout) as { readonly failed: ReadonlyArray<number>; readonly schedules: number }
      console.log(`${name}: after ${summary.schedules} schedules, ${/FAILED: (.*)/.exec(stderr)?.[1]}`)
      assert.strictEqual(status, 1)
      assert.strictEqual(summary.failed.length, 1)
      assert.notInclude(stderr, "was not planted")
    })
  }

  it("are refused when their piece of the source is gone", () => {
    const { status, stderr } = runPlanted("no such bug")
    assert.notStrictEqual(status, 0)
    assert.include(stderr, "there is no planted bug")
  })
})
