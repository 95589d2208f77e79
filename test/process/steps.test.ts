/**
 * Workers killed at every boundary of every step, and at random. `MILLRACE_STEP_KILLS` sets how many (default 40; 24 of them at
 * boundaries).
 */
import { assert, describe, it } from "@effect/vitest"
import { afterAll } from "vitest"
import { names, valueOf } from "./steps/queue.ts"
import { judge, reportLine, runSteps } from "./steps/run.ts"
import { stopAll } from "./support.ts"

afterAll(stopAll)

const kills = Number(process.env["MILLRACE_STEP_KILLS"] ?? 40)
const seed = Number(process.env["MILLRACE_SEED"] ?? 1)

describe("workers that are killed between their steps", () => {
  it(`run no recorded step again, and give what an uninterrupted run gives, over ${kills} kills`, async () => {
    const report = await runSteps({ kills, seed })
    console.log(reportLine(report))
    assert.deepStrictEqual(report.violations, [])
    const { before, done, random, recorded, within } = report.kills
    assert.strictEqual(before + done + random + recorded + within, kills)
    // What never happened was not tested.
    for (const count of [before, done, recorded, within]) assert.strictEqual(count, Math.min(6, kills / 4))
    assert.isAbove(report.interrupted, 0)
    assert.isAbove(report.replayed, 0, "recorded steps given again")
    assert.isAbove(report.repeated, 0, "steps cut before they were recorded")
  }, 1_200_000)
})

describe("the check of a run of steps", () => {
  const values = names.map((_, step) => valueOf(0, step))
  const nonces = names.map((_, step) => `a${step}`)
  const whole = names.flatMap((_, step) => [
    ["run", "0", `${step}`, `a${step}`],
    ["recorded", "0", `${step}`, `a${step}`]
  ])
  const check = (lines: ReadonlyArray<ReadonlyArray<string>>, result = { values, nonces }): ReadonlyArray<string> => {
    const violations: Array<string> = []
    judge(lines, new Map([[0, result]]), 1, violations)
    return violations
  }

  it("finds a step that ran again, another value, another result, and a task without one", () => {
    assert.deepStrictEqual(check(whole), [])
    assert.match(check([...whole, ["run", "0", "2", "b"]]).join(), /ran again/)
    assert.match(check([...whole, ["recorded", "0", "2", "b"]]).join(), /was a2 and is b/)
    assert.match(check(whole, { values: [...values.slice(1), 0], nonces }).join(), /task 0, step 0/)
    assert.match(check(whole, { values, nonces: nonces.toReversed() }).join(), /was recorded as/)
    const violations: Array<string> = []
    judge(whole, new Map(), 1, violations)
    assert.match(violations.join(), /no outcome/)
  })
})
