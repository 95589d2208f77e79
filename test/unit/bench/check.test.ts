/** What `npm run bench -- --check` says of a run, given its figures. */
import { assert, describe, it } from "@effect/vitest"
import {
  type Baseline,
  baselineOf,
  compare,
  faults,
  gains,
  type Measured,
  observedTolerance,
  parseBaseline,
  ratio,
  toleranceMax
} from "../../../bench/check/compare.ts"

const about = { machine: "two cores", versions: "node 24" }
const rate = "crawl-dispatch batch256 memory"
const time = "latency idle-start-p50"

/** Rounds of a quiet machine around a ratio. */
const rounds = (middle: number): ReadonlyArray<number> => [0.97, 1.02, 1, 0.99, 1.03].map((x) => x * middle)
const rateRow = (middle: number): Measured => ({
  row: rate,
  better: "more",
  calibration: "echo-batched",
  ratios: rounds(middle)
})
const timeRow = (middle: number): Measured => ({
  row: time,
  better: "less",
  calibration: "echo-round-trips",
  ratios: rounds(middle)
})
const baseline = baselineOf(about, [rateRow(0.2), timeRow(3)])

const verdicts = (measured: ReadonlyArray<Measured>, tolerance?: number): ReadonlyArray<string> =>
  compare(baseline, measured, tolerance).map(({ row, verdict }) => `${row}: ${verdict}`)

describe("the check against a baseline", () => {
  it("catches a rate that is 30 % lower, and passes one that is 10 % lower", () => {
    assert.deepStrictEqual(verdicts([rateRow(0.2 * 0.7), timeRow(3)]), [`${rate}: worse`, `${time}: same`])
    assert.deepStrictEqual(verdicts([rateRow(0.2 * 0.9), timeRow(3)]), [`${rate}: same`, `${time}: same`])
  })

  it("catches a time that is 30 % longer, and passes one that is 10 % longer", () => {
    assert.deepStrictEqual(verdicts([rateRow(0.2), timeRow(3 * 1.3)]), [`${rate}: same`, `${time}: worse`])
    assert.deepStrictEqual(verdicts([rateRow(0.2), timeRow(3 * 1.1)]), [`${rate}: same`, `${time}: same`])
  })

  it("says of what is worse the row, both ratios, by how much, and what to do", () => {
    const lines = faults(compare(baseline, [rateRow(0.14), timeRow(3)]))
    assert.strictEqual(lines.length, 1)
    for (const part of [rate, "0.14 ", "0.2 in the baseline", "30.0 %", "20.0 %", "quiet machine", "--profile"]) {
      assert.include(lines[0], part)
    }
  })

  it("mentions what is better, and does not fail for it", () => {
    const findings = compare(baseline, [rateRow(0.3), timeRow(2)])
    assert.deepStrictEqual(faults(findings), [])
    assert.deepStrictEqual(
      gains(findings).map((line) => line.split(": better by ")[1]),
      ["50.0 %", "33.3 %"]
    )
  })

  it("names a row that was not measured and one that the baseline does not have", () => {
    const other: Measured = { ...timeRow(1), row: "worker-overhead" }
    assert.deepStrictEqual(verdicts([rateRow(0.2), other]), [
      `${rate}: same`,
      `${time}: missing`,
      "worker-overhead: unknown"
    ])
    const lines = faults(compare(baseline, [rateRow(0.2), other]))
    assert.deepStrictEqual(
      lines.map((line) => line.split(":")[0]),
      [time, "worker-overhead"]
    )
    for (const line of lines) assert.include(line, "--check --update")
  })

  it("does not compare ratios to different loops", () => {
    const moved: Measured = { ...rateRow(0.2), calibration: "echo-single" }
    assert.deepStrictEqual(verdicts([moved, timeRow(3)]), [`${rate}: unknown`, `${time}: same`])
  })

  it("takes another tolerance for all rows", () => {
    assert.deepStrictEqual(verdicts([rateRow(0.18), timeRow(3.3)], 0.05), [`${rate}: worse`, `${time}: worse`])
    assert.deepStrictEqual(verdicts([rateRow(0.14), timeRow(3.9)], 0.5), [`${rate}: same`, `${time}: same`])
  })

  it("is not moved by one round that something else disturbed", () => {
    const disturbed: Measured = { ...rateRow(0.2), ratios: [0.2, 0.05, 0.199, 0.201, 0.2] }
    assert.deepStrictEqual(verdicts([disturbed, timeRow(3)]), [`${rate}: same`, `${time}: same`])
  })
})

describe("ratios", () => {
  it("stay as they are when the whole machine is half as fast", () => {
    assert.strictEqual(ratio("more", 250_000, 1_000_000), ratio("more", 125_000, 500_000))
    assert.strictEqual(ratio("less", 0.15, 20_000), ratio("less", 0.3, 10_000))
  })
})

describe("the baseline", () => {
  it("comes back from its file as it was", () => {
    assert.deepStrictEqual(parseBaseline(JSON.stringify(baseline)), baseline)
    assert.deepStrictEqual(baseline.rows[rate], {
      better: "more",
      calibration: "echo-batched",
      ratio: 0.2,
      tolerance: 0.2
    })
  })

  it("tolerates as much as its own rounds were apart, up to a limit", () => {
    assert.strictEqual(observedTolerance({ ...rateRow(1), ratios: [0.75, 1, 1.25] }), 0.25)
    assert.strictEqual(observedTolerance({ ...rateRow(1), ratios: [0.2, 1, 1.8] }), toleranceMax)
  })

  const broken: ReadonlyArray<readonly [what: string, text: string, says: RegExp]> = [
    ["another format", JSON.stringify({ ...baseline, format: 2 }), /format 1/],
    ["no rows", JSON.stringify({ ...baseline, rows: undefined }), /rows/],
    ["a ratio of 0", JSON.stringify({ ...baseline, rows: { a: { ...baseline.rows[rate], ratio: 0 } } }), /row "a"/],
    ["no JSON", "{", /JSON/]
  ]
  for (const [what, text, says] of broken) {
    it(`is refused with ${what}`, () => {
      assert.throws(() => parseBaseline(text), says)
    })
  }

  it("is in the repository, as this version reads it", async () => {
    const { readFile } = await import("node:fs/promises")
    const text = await readFile(new URL("../../../bench/baseline.json", import.meta.url), "utf8")
    const committed: Baseline = parseBaseline(text)
    assert.isAtLeast(Object.keys(committed.rows).length, 5)
  })
})
