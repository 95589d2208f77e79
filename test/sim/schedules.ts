import { assert } from "@effect/vitest"
import { addCounts, FaultCounts, faultKinds, noCounts, operationKinds, simulate } from "millrace/testing"

/** Runs a range of seeds; every failure names the command that shows it. */
export const hold = async (from: number, count: number): Promise<void> => {
  const counts = noCounts()
  const faults = new FaultCounts()
  const kinds = new FaultCounts()
  const failed: Array<string> = []
  for (let seed = from; seed < from + count; seed++) {
    const report = await simulate(seed)
    addCounts(counts, report.counts)
    faults.add(report.faults)
    kinds.add(report.kinds)
    for (const violation of report.violations.slice(0, 2)) {
      failed.push(`npm run sim -- --seed ${seed} --trace    ${violation}`)
    }
  }
  console.log(JSON.stringify({ from, ...counts, faults, kinds }))
  assert.deepStrictEqual(failed, [])
  assert.deepStrictEqual(faults.missing(faultKinds), [], "kinds of faults that never happened")
  assert.deepStrictEqual(kinds.missing(operationKinds), [], "kinds of operations that never happened")
}
