/**
 * `--check`: a short run of Millrace, compared with `bench/baseline.json`. Every round takes each row once, with the
 * calibration before and after it; what is compared is the median of the rounds' ratios.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { loadavg } from "node:os"
import { join } from "node:path"
import { withChildren } from "../harness/children.ts"
import { withFolder } from "../harness/folder.ts"
import type { ProbeTimes } from "../harness/probes.ts"
import { type Durability, machineParts, percentile, progress, spread, table } from "../harness/report.ts"
import type { PassOptions, PassResult } from "../millrace/master.ts"
import { startProcesses, storeEnvironment } from "../millrace/processes.ts"
import { startOverhead } from "../worker-overhead.ts"
import { type Calibration, type Speeds, startCalibration } from "./calibration.ts"
import {
  type Baseline,
  type Better,
  baselineOf,
  compare,
  faults,
  gains,
  type Measured,
  observedTolerance,
  parseBaseline,
  ratio,
  ratioOf,
  toleranceDefault
} from "./compare.ts"

export interface CheckOptions {
  readonly rounds: number
  /** Undefined: that of each row of the baseline. */
  readonly tolerance: number | undefined
  /** Write the baseline instead of comparing with it. */
  readonly update: boolean
  readonly json: boolean
}

const file = new URL("../baseline.json", import.meta.url)
const workers = 2
const passes: Readonly<Record<string, PassOptions>> = {
  batch256: { tasks: 250_000, batch: 256, inFlight: 8 },
  single: { tasks: 120_000, batch: 1, inFlight: 256 }
}
const durabilities: ReadonlyArray<Durability> = ["memory", "fsync"]
const latencySamples = 400
const overheadTasks = 60_000

/** A value in these is multiplied with this before it meets a speed a second. */
const seconds = { "tasks/s": 1, ms: 1e-3, "us/task": 1e-6 } as const

interface Row {
  readonly row: string
  readonly better: Better
  readonly calibration: Calibration
  readonly unit: keyof typeof seconds
  readonly take: () => Promise<number>
}

interface Taken {
  readonly values: Array<number>
  readonly ratios: Array<number>
}

/** The fitting calibration of a row of `crawl-dispatch`. */
const calibrationOf = (variant: string, durability: Durability): Calibration => {
  if (durability === "fsync") return variant === "single" ? "sqlite-16k" : "sqlite-256k"
  return variant === "single" ? "echo-single" : "echo-batched"
}

const median = (values: ReadonlyArray<number>): number => spread(values, 6).median

const measure = (rounds: number) =>
  withFolder((folder) =>
    withChildren(async (start) => {
      const calibrate = await startCalibration(start, join(folder, "calibration"))
      const rows: Array<Row> = []
      for (const durability of durabilities) {
        const env = storeEnvironment(durability, join(folder, durability))
        const { master } = await startProcesses(start, workers, undefined, "", env)
        for (const [variant, pass] of Object.entries(passes)) {
          rows.push({
            row: `crawl-dispatch ${variant} ${durability}`,
            better: "more",
            calibration: calibrationOf(variant, durability),
            unit: "tasks/s",
            take: async () => pass.tasks / (await master.call<PassResult>("crawlDispatch", pass)).seconds
          })
        }
        if (durability !== "memory") continue
        rows.push({
          row: "latency idle-start-p50",
          better: "less",
          calibration: "echo-round-trips",
          unit: "ms",
          take: async () =>
            percentile((await master.call<ProbeTimes>("probes", { samples: latencySamples, everyMs: 2 })).start, 0.5)
        })
      }
      const overhead = await startOverhead(start, undefined)
      rows.push({
        row: "worker-overhead typed",
        better: "less",
        calibration: "echo-cpu",
        unit: "us/task",
        take: () => overhead("typed", overheadTasks)
      })

      const taken = new Map(rows.map(({ row }): [string, Taken] => [row, { values: [], ratios: [] }]))
      progress("check: warming up")
      for (const { take } of rows) await take()
      await calibrate()
      const speeds: Array<Speeds> = [await calibrate()]
      for (let round = 1; round <= rounds; round++) {
        // Rows take turns in going first.
        const values = new Map<string, number>()
        for (let i = 0; i < rows.length; i++) {
          const { row, take } = rows[(i + round) % rows.length]!
          values.set(row, await take())
        }
        speeds.push(await calibrate())
        const [before, after] = [speeds.at(-2)!, speeds.at(-1)!]
        for (const { better, calibration, row, unit } of rows) {
          const value = values.get(row)!
          const { ratios, values: all } = taken.get(row)!
          all.push(value)
          ratios.push(ratio(better, value * seconds[unit], (before[calibration] + after[calibration]) / 2))
        }
        progress(`check: round ${round} of ${rounds}, load ${loadavg()[0]!.toFixed(1)}`)
      }
      const names = Object.keys(speeds[0]!) as Array<Calibration>
      return {
        calibrations: names.map((name) => ({
          name,
          ...spread(
            speeds.map((all) => all[name]),
            0
          )
        })),
        rows: rows.map(({ better, calibration, row, unit }) => {
          const { ratios, values } = taken.get(row)!
          const measured: Measured = { row, better, calibration, ratios }
          return { measured, value: Number(median(values).toPrecision(4)), unit }
        })
      }
    })
  )

/** Answers whether nothing is worse. */
export const check = async ({ json, rounds, tolerance, update }: CheckOptions): Promise<boolean> => {
  const known = existsSync(file) ? parseBaseline(readFileSync(file, "utf8")) : undefined
  if (known === undefined && !update)
    throw new Error("there is no bench/baseline.json; write one with --check --update")
  const { calibrations, rows } = await measure(rounds)
  const measured = rows.map(({ measured }) => measured)
  const people = (text: string): void => (json ? progress(text) : void process.stdout.write(`${text}\n`))
  const about = machineParts()
  if (json) {
    for (const { max, median, min, name } of calibrations) {
      process.stdout.write(`${JSON.stringify({ calibration: name, median, min, max, unit: "1/s" })}\n`)
    }
  }
  const loops = table(
    ["calibration", "median", "min", "max", "unit"],
    calibrations.map(({ max, median, min, name }) => [name, median, min, max, "/s"])
  )
  people(`\n${loops}`)
  if (update) {
    const baseline: Baseline = baselineOf(about, measured)
    writeFileSync(file, `${JSON.stringify(baseline, undefined, 2)}\n`)
    const lines = rows.map(({ measured, unit, value }) => {
      const { calibration, row } = measured
      return [row, value, unit, calibration, ratioOf(measured), observedTolerance(measured)] as const
    })
    if (json) {
      for (const [row, value, unit, calibration, ratio, tolerance] of lines) {
        process.stdout.write(`${JSON.stringify({ row, value, unit, calibration, ratio, tolerance })}\n`)
      }
    }
    people(
      `\n${table(["row", "value", "unit", "calibration", "ratio", "tolerance"], lines)}\n\n${about.machine}\n${about.versions}`
    )
    const noisy = lines.filter(([, , , , , tolerance]) => tolerance > toleranceDefault)
    if (noisy.length > 0) {
      people(`The rounds of ${noisy.map(([row]) => row).join(", ")} are far apart: take it again on a quiet machine.`)
    }
    people("bench/baseline.json is written.")
    return true
  }
  const baseline = known!
  const findings = compare(baseline, measured, tolerance)
  const lines = findings.map(({ baseline, now, row, tolerance, verdict, worseBy }) => {
    const one = rows.find(({ measured }) => measured.row === row)
    const { unit, value } = one ?? { unit: undefined, value: undefined }
    const calibration = one?.measured.calibration
    return { row, value, unit, calibration, baseline, now, worseBy, tolerance, verdict }
  })
  if (json) for (const line of lines) process.stdout.write(`${JSON.stringify(line)}\n`)
  const percent = (share: number | undefined): string => (share === undefined ? "" : `${(share * 100).toFixed(1)} %`)
  const cells = lines.map((line) => [
    line.row,
    line.value ?? "",
    line.unit ?? "",
    line.calibration ?? "",
    line.baseline ?? "",
    line.now ?? "",
    percent(line.worseBy),
    percent(line.tolerance),
    line.verdict
  ])
  const head = ["row", "value", "unit", "calibration", "baseline", "now", "worse by", "tolerance", "verdict"]
  people(`\n${table(head, cells)}\n\n${about.machine}\n${about.versions}`)
  if (about.machine.replace(/, load .*/, "") !== baseline.machine.replace(/, load .*/, "")) {
    people(`The baseline is of another machine, where the ratios may differ: ${baseline.machine}`)
  }
  if (about.versions !== baseline.versions) people(`The baseline is of other versions: ${baseline.versions}`)
  for (const gain of gains(findings)) people(`better: ${gain}`)
  const wrong = faults(findings)
  for (const fault of wrong) progress(`FAILED: ${fault}`)
  if (wrong.length === 0) people(`Nothing is worse than the baseline tolerates (${rounds} rounds).`)
  return wrong.length === 0
}
