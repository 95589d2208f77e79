/**
 * `npm test`: everything that a commit must pass, on two cores, with no network but loopback.
 *
 *     format and lint -> types -> tests (unit, contract, process)
 *
 * Ends with a plain line `N passed, M failed`. The checks before the tests count as one each.
 */
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))
const bin = (file: string): string => join(root, "node_modules", file)

const run = (name: string, file: string, args: ReadonlyArray<string>): boolean => {
  const startedAt = performance.now()
  const { status } = spawnSync(process.execPath, [bin(file), ...args], { cwd: root, stdio: "inherit" })
  console.log(
    `${status === 0 ? "ok    " : "FAILED"} ${name} (${((performance.now() - startedAt) / 1_000).toFixed(1)} s)`
  )
  return status === 0
}

const folder = mkdtempSync(join(tmpdir(), "millrace-test-"))
const results = join(folder, "results.json")
try {
  const checks = [
    run("format and lint", "@biomejs/biome/bin/biome", ["check", "--error-on-warnings", "."]),
    run("types", "typescript/bin/tsc", ["--noEmit"])
  ]
  const args = [
    "run",
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${results}`,
    ...process.argv.slice(2)
  ]
  const tests = run("tests", "vitest/vitest.mjs", args)
  let passed = checks.filter((ok) => ok).length
  let failed = checks.length - passed
  try {
    const report = JSON.parse(readFileSync(results, "utf8")) as {
      numPassedTests: number
      numFailedTests: number
      numFailedTestSuites: number
    }
    passed += report.numPassedTests
    // A file that does not load has no failed test of its own.
    failed += Math.max(report.numFailedTests, tests ? 0 : 1)
  } catch {
    failed++
  }
  console.log(`${passed} passed, ${failed} failed`)
  process.exitCode = failed === 0 ? 0 : 1
} finally {
  rmSync(folder, { recursive: true, force: true })
}
