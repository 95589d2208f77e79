/**
 * `npm run chaos -- --kills N [--seed S] [--json]`: N kills of a real manager under load, and everything it promised
 * checked. A quarter of the kills fall at the boundaries of a commit, a worker is killed with every third.
 *
 * Ends with code 1 and the violations when there are any. Progress goes to standard error.
 */
import { parseArgs } from "node:util"
import { reportLine, runChaos } from "../test/process/chaos/run.ts"
import { stopAll } from "../test/process/support.ts"

const { values } = parseArgs({
  options: { kills: { type: "string" }, seed: { type: "string" }, json: { type: "boolean" } }
})
const kills = Number(values.kills ?? "100")
const seed = Number(values.seed ?? "1")
if (!Number.isSafeInteger(kills) || kills < 4 || !Number.isSafeInteger(seed)) {
  console.error("chaos: --kills is a whole number from 4 on, --seed a whole number")
  process.exit(2)
}
const boundaryKills = Math.floor(kills / 12)
try {
  const report = await runChaos({
    kills: kills - 3 * boundaryKills,
    boundaryKills,
    workerEvery: 3,
    seed,
    progress: (line) => console.error(line)
  })
  console.log(values.json === true ? JSON.stringify(report) : reportLine(report))
  for (const violation of report.violations) console.error(`violation: ${violation}`)
  process.exitCode = report.violations.length === 0 ? 0 : 1
} finally {
  await stopAll()
}
