/** Operating a queue from the command line: each command against a real manager. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { TaskQueue } from "millrace"
import { afterAll, beforeAll } from "vitest"
import { asClient, assertOneLine, run, serve, stopAll } from "./support.ts"

let port: string

beforeAll(async () => {
  port = String((await serve()).port)
})
afterAll(stopAll)

/** Runs a command to its end and returns what it printed, one line an item. */
const lines = async (...args: ReadonlyArray<string>): Promise<ReadonlyArray<string>> => {
  const ended = await run([...args, "--port", port])
  assert.strictEqual(ended.code, 0, ended.stderr)
  return ended.stdout.split("\n").filter((line) => line !== "")
}

const json = async (...args: ReadonlyArray<string>): Promise<ReadonlyArray<Record<string, unknown>>> =>
  (await lines(...args, "--json")).map((line) => JSON.parse(line) as Record<string, unknown>)

describe("operating a queue from the command line", () => {
  it("browse, cancel, pause, resume and purge do what they say, for people and for machines", async () => {
    const [one] = await lines("put", "jobs", '{"n":1}', '{"n":2}', '{"n":3}', "--create")
    const browsed = await json("browse", "jobs", "--limit", "2")
    assert.deepStrictEqual(
      browsed.map(({ payload }) => payload),
      [{ n: 1 }, { n: 2 }, undefined]
    )
    const cursor = String(browsed[2]!["cursor"])
    const rest = await lines("browse", "jobs", "--cursor", cursor, "--state", "ready", "--without-payloads")
    assert.strictEqual(rest.length, 1)
    assert.match(rest[0]!, /^[0-9a-f]{32} {2}ready .*priority 128$/)

    assert.deepStrictEqual(await lines("cancel", "jobs", one!), [`${one}  cancelled (it was ready)`])
    assert.deepStrictEqual(await json("cancel", "jobs", one!), [{ taskId: one, cancelled: false, was: "cancelled" }])
    const unknown = await run(["cancel", "jobs", "0".repeat(32), "--port", port])
    assert.strictEqual(unknown.code, 1)
    assert.match(unknown.stdout, /^0{32} {2}not found$/m)
    assert.match(unknown.stderr, /^millrace: The manager knows no task 0{32}/)

    assert.deepStrictEqual(await lines("pause", "jobs"), ['queue "jobs" is paused'])
    assert.match((await lines("stats")).join("\n"), /^jobs +\S+ +paused /m)
    assertOneLine(await run(["get", "jobs", "--timeout", "0", "--port", port]), /Queue "jobs" is empty/)
    assert.deepStrictEqual(await json("resume", "jobs"), [{ queue: "jobs", paused: false }])
    assert.deepStrictEqual(await lines("get", "jobs", "--timeout", "0"), ['{"n":2}'])

    assertOneLine(await run(["purge", "jobs", "--port", port]), /--yes is missing: give it to remove tasks for good/)
    assert.deepStrictEqual(await json("purge", "jobs", "--label", "none", "--yes"), [{ queue: "jobs", purged: 0 }])
    assert.deepStrictEqual(await lines("purge", "jobs", "--yes"), ["1 purged"])
  }, 120_000)

  it("lane limits, slows down and pauses the tasks of one key", async () => {
    const q = TaskQueue.make("sites", { payload: Schema.Int, key: (n) => `site${n % 2}` })
    await asClient(Number(port), q.putAll([0, 1, 2, 3]))
    const taken = () =>
      asClient(
        Number(port),
        Effect.map(q.lease({ max: 4 }), (all) => all.map(({ payload }) => payload))
      )
    assert.deepStrictEqual(await lines("lane", "sites", "site0", "--pause"), [
      'lane "site0" of queue "sites" is paused'
    ])
    assert.deepStrictEqual(await lines("lane", "sites", "site1", "--concurrency", "1", "--gap", "1 hour"), [
      'lane "site1" of queue "sites" now has limits of its own: concurrency 1, gap 1 hour; the rest is as the queue\'s policy says'
    ])
    assert.deepStrictEqual(await taken(), [1])
    await lines("lane", "sites", "site0", "--resume")
    await lines("lane", "sites", "site0", "--slow-down", "1 hour")
    assertOneLine(await run(["get", "sites", "--timeout", "0", "--port", port]), /Queue "sites" is empty/)
    const [said] = await json("lane", "sites", "site0", "--clear")
    assert.deepInclude(said, { queue: "sites", lane: "site0" })
    assert.deepStrictEqual(await taken(), [0, 2])
    for (const [flags, text] of [
      [[], /the change is missing: give limits/],
      [["--pause", "--clear"], /the change is more than one/],
      [["--gap", "soon"], /--gap is "soon": use a number and a unit/],
      [["--weight", "0"], /weight is 0, whole numbers from 1 to 1000 are allowed/],
      [["--rate", "0.005"], /ratePerSecond \(leases a minute; less by a gap\) is 0.3, whole numbers from 0 to/]
    ] as ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]>) {
      assertOneLine(await run(["lane", "sites", "site0", ...flags, "--port", port]), text)
    }
  }, 120_000)

  it("dead shows why, and redrive puts again", async () => {
    const [one, two] = await lines("put", "mortal", "1", "2", "--create")
    const kill = Effect.gen(function* () {
      const q = TaskQueue.untyped("mortal")
      for (const lease of yield* q.lease({ max: 2 })) yield* q.kill(lease, `poison ${lease.payload}`)
    })
    await asClient(Number(port), kill)
    assert.deepStrictEqual(
      (await json("dead", "mortal")).map(({ payload, reasons, state, taskId }) => [taskId, payload, reasons, state]),
      [
        [one, 1, ["attempt 1: killed: poison 1"], "dead"],
        [two, 2, ["attempt 1: killed: poison 2"], "dead"]
      ]
    )
    assertOneLine(await run(["redrive", "mortal", "--port", port]), /what to redrive is missing: .*--all/)
    assertOneLine(await run(["redrive", "mortal", one!, "--all", "--port", port]), /given twice/)
    assertOneLine(await run(["redrive", "mortal", "--priority-min", "256", "--port", port]), /use 0 to 255/)
    const [first] = await json("redrive", "mortal", two!)
    assert.strictEqual(first!["from"], two)
    const [second] = await lines("redrive", "mortal", "--all")
    assert.match(second!, new RegExp(`^${one} {2}put again as [0-9a-f]{32}$`))
    assert.deepStrictEqual(await lines("dead", "mortal"), [])
    assert.match((await lines("browse", "mortal"))[0]!, new RegExp(`^${first!["to"]} .*redriven from ${two} {2}2$`))
    for (const command of ["browse", "pause"]) {
      assertOneLine(await run([command, "nowhere", "--port", port]), /the manager has no such queue/)
    }
  }, 120_000)
})
