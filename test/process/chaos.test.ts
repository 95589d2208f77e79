/**
 * The manager killed again and again under load, at random and at every boundary of a commit; workers killed too.
 *
 * `npm run chaos -- --kills N` runs more of it. `MILLRACE_CHAOS_KILLS` sets the random kills here (default 20).
 */
import { assert, describe, it } from "@effect/vitest"
import { afterAll } from "vitest"
import { check, type History } from "./chaos/check.ts"
import { reportLine, runChaos } from "./chaos/run.ts"
import { stopAll } from "./support.ts"

afterAll(stopAll)

const kills = Number(process.env["MILLRACE_CHAOS_KILLS"] ?? 20)

describe("a manager that is killed under load", () => {
  it(`loses nothing it has acknowledged and repeats nothing that is committed, over ${kills} + 9 kills`, async () => {
    const report = await runChaos({ kills, boundaryKills: 3, workerEvery: 4, seed: 1 })
    console.log(reportLine(report))
    assert.deepStrictEqual(report.violations, [])
    const { after, answer, before, random, worker } = report.kills
    assert.deepStrictEqual([random, before, after, answer], [kills, 3, 3, 3])
    // What never happened was not tested.
    assert.isAbove(worker, 0)
    assert.isAbove(report.heldOver, 0, "puts answered over a restart")
    assert.isAbove(report.outlasted, 0, "leases that outlasted a manager")
    assert.isAbove(report.redeliveries, 0, "tasks of killed workers")
  }, 300_000)

  it("is caught when its answers leave before their transaction", async () => {
    const report = await runChaos({ kills: 3, boundaryKills: 0, workerEvery: 0, seed: 2, plantedEarlyMs: 200 })
    assert.isAbove(report.violations.length, 0)
  }, 180_000)
})

describe("the check of a chaos run", () => {
  const whole: History = {
    said: "ack 1 a 10 12\noutcome Success a 1 50\nchild Success c 1 70\ncounts jobs 1 1 0 0 0\ncounts children 1 1 0 0 0\n",
    deliveries: "start 20 a 1 7\nend 30 a 1 7\nchild 60 c 1 7\n",
    deaths: [],
    managerDeaths: [25n]
  }

  it("finds nothing wrong with a history that is whole", () => {
    const { acknowledged, deliveries, outcomes, outlasted, violations } = check(whole)
    assert.deepStrictEqual(violations, [])
    assert.deepStrictEqual([acknowledged, outcomes, deliveries, outlasted], [1, 1, 3 - 1, 1])
  })

  const said = (from: string, to: string): History => ({ ...whole, said: whole.said.replace(from, to) })
  const delivered = (more: string): History => ({ ...whole, deliveries: whole.deliveries + more })
  const planted: ReadonlyArray<readonly [name: string, history: History, violation: RegExp]> = [
    ["a lost put", said("outcome Success a 1 50\n", ""), /put 1 was acknowledged .* no outcome/],
    ["an outcome read twice", said("child Success", "outcome Success a 1 51\nchild Success"), /read twice/],
    ["a put that became two tasks", said("child", "outcome Success b 1 51\nchild"), /became two tasks/],
    ["a put that was refused and ran", said("child", "outcome Success b 2 51\nchild"), /never answered and ran/],
    ["an outcome of another task", said("a 1 50", "a 2 50"), /has the outcome of 2/],
    ["a child that is missing", said("child Success c 1 70\n", ""), /1 successes have 0 children/],
    ["a second child", said("counts", "child Success d 1 71\ncounts"), /has two children/],
    ["counts that do not add up", said("jobs 1 1", "jobs 2 1"), /jobs: 2 puts/],
    ["a master that did not come to its end", said(/counts.*\n/s.exec(whole.said)![0], ""), /did not come to its end/],
    ["a delivery after the outcome", delivered("start 55 a 1 7\n"), /delivered after its outcome/],
    ["a delivery while the holder lives", delivered("start 40 a 1 8\n"), /while 7 lived and held it/]
  ]
  for (const [name, history, violation] of planted) {
    it(`finds ${name}`, () => {
      assert.isTrue(
        check(history).violations.some((text) => violation.test(text)),
        check(history).violations.join("\n")
      )
    })
  }

  it("permits a second delivery when the holder was killed before", () => {
    const history = { ...delivered("start 40 a 1 8\n"), deaths: [{ pid: 7, at: 35n }] }
    assert.deepStrictEqual(check(history).violations, [])
    assert.strictEqual(check(history).redeliveries, 1)
  })
})
