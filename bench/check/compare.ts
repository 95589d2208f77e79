/**
 * A short run against a committed one. A row is a figure of Millrace as a ratio to a calibration figure of the same run, so
 * that what makes the whole machine slower or faster cancels out.
 */

/** `more`: tasks a second, say; `less`: milliseconds. */
export type Better = "more" | "less"

/** A row as it was measured: its ratio in each round. */
export interface Measured {
  readonly row: string
  readonly better: Better
  /** The loop whose speed it was divided by (`more`) or multiplied with (`less`). */
  readonly calibration: string
  readonly ratios: ReadonlyArray<number>
}

export interface BaselineRow {
  readonly better: Better
  readonly calibration: string
  readonly ratio: number
  /** Share by which the ratio may be worse. */
  readonly tolerance: number
}

export interface Baseline {
  readonly format: 1
  readonly machine: string
  readonly versions: string
  readonly rows: Readonly<Record<string, BaselineRow>>
}

/** `missing`: only the baseline has it. `unknown`: the baseline has nothing to compare it with. */
export type Verdict = "worse" | "better" | "same" | "missing" | "unknown"

export interface Finding {
  readonly row: string
  readonly verdict: Verdict
  readonly baseline: number | undefined
  readonly now: number | undefined
  /** Share by which it is worse; below 0: better. */
  readonly worseBy: number | undefined
  readonly tolerance: number | undefined
}

export const toleranceDefault = 0.2
/** More than this is no tolerance: the machine is too busy to say anything. */
export const toleranceMax = 0.4

const median = (values: ReadonlyArray<number>): number => {
  if (values.length === 0) throw new Error("no round was measured")
  const sorted = values.toSorted((a, b) => a - b)
  const upper = sorted[sorted.length >> 1]!
  return sorted.length % 2 === 1 ? upper : (sorted[(sorted.length >> 1) - 1]! + upper) / 2
}

/** Four digits: ratios differ by orders of magnitude. */
const rounded = (value: number): number => Number(value.toPrecision(4))

export const ratioOf = ({ ratios }: Measured): number => rounded(median(ratios))

/** What one round gives. */
export const ratio = (better: Better, value: number, calibration: number): number =>
  better === "more" ? value / calibration : value * calibration

/** How far the rounds are apart on either side, within what may be tolerated. */
export const observedTolerance = ({ ratios }: Measured): number => {
  const apart = (Math.max(...ratios) - Math.min(...ratios)) / (2 * median(ratios))
  return Math.ceil(Math.min(toleranceMax, Math.max(toleranceDefault, apart)) * 100) / 100
}

export const baselineOf = (
  about: Pick<Baseline, "machine" | "versions">,
  measured: ReadonlyArray<Measured>
): Baseline => ({
  format: 1,
  machine: about.machine,
  versions: about.versions,
  rows: Object.fromEntries(
    measured.map((one) => {
      const { better, calibration, row } = one
      return [row, { better, calibration, ratio: ratioOf(one), tolerance: observedTolerance(one) }]
    })
  )
})

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null

const isRow = (value: unknown): value is BaselineRow =>
  isRecord(value) &&
  (value["better"] === "more" || value["better"] === "less") &&
  typeof value["calibration"] === "string" &&
  typeof value["ratio"] === "number" &&
  value["ratio"] > 0 &&
  typeof value["tolerance"] === "number" &&
  value["tolerance"] > 0

/** Throws what is wrong with the file. */
export const parseBaseline = (text: string): Baseline => {
  const value: unknown = JSON.parse(text)
  if (!isRecord(value) || value["format"] !== 1) throw new Error("the baseline is not of format 1")
  const { machine, rows, versions } = value
  if (typeof machine !== "string" || typeof versions !== "string" || !isRecord(rows)) {
    throw new Error("the baseline has no machine, versions or rows")
  }
  const known: Record<string, BaselineRow> = {}
  for (const [name, row] of Object.entries(rows)) {
    if (!isRow(row)) throw new Error(`row "${name}" of the baseline is not as --update writes it`)
    known[name] = row
  }
  return { format: 1, machine, versions, rows: known }
}

/** Rows of the baseline in their order, then those that it does not know. `tolerance` overrides that of each row. */
export const compare = (
  baseline: Baseline,
  measured: ReadonlyArray<Measured>,
  tolerance?: number
): ReadonlyArray<Finding> => {
  const found = new Map(measured.map((one) => [one.row, one]))
  const findings: Array<Finding> = []
  const nothing = { baseline: undefined, now: undefined, worseBy: undefined, tolerance: undefined }
  for (const [row, before] of Object.entries(baseline.rows)) {
    const one = found.get(row)
    found.delete(row)
    if (one === undefined) findings.push({ ...nothing, row, verdict: "missing", baseline: before.ratio })
    else if (one.calibration !== before.calibration || one.better !== before.better) {
      findings.push({ ...nothing, row, verdict: "unknown", now: ratioOf(one) })
    } else {
      const now = ratioOf(one)
      const worseBy = before.better === "more" ? 1 - now / before.ratio : now / before.ratio - 1
      const allowed = tolerance ?? before.tolerance
      const verdict = worseBy > allowed ? "worse" : worseBy < -allowed ? "better" : "same"
      findings.push({ row, verdict, baseline: before.ratio, now, worseBy, tolerance: allowed })
    }
  }
  for (const one of found.values()) findings.push({ ...nothing, row: one.row, verdict: "unknown", now: ratioOf(one) })
  return findings
}

const percent = (share: number): string => `${(share * 100).toFixed(1)} %`

/** A line for each row that fails the check; none: it has passed. */
export const faults = (findings: ReadonlyArray<Finding>): ReadonlyArray<string> =>
  findings.flatMap(({ baseline, now, row, tolerance, verdict, worseBy }) => {
    switch (verdict) {
      case "worse":
        return [
          `${row}: ${now} to its calibration, ${baseline} in the baseline: worse by ${percent(worseBy!)}, ${percent(tolerance!)} are allowed; run it again on a quiet machine, then look with --profile`
        ]
      case "missing":
        return [`${row}: in the baseline (${baseline}) and not in this run; write a new one with --check --update`]
      case "unknown":
        return [`${row}: the baseline has nothing to compare ${now} with; write a new one with --check --update`]
      default:
        return []
    }
  })

/** A line for each row that is better than tolerance explains. */
export const gains = (findings: ReadonlyArray<Finding>): ReadonlyArray<string> =>
  findings
    .filter(({ verdict }) => verdict === "better")
    .map(
      ({ baseline, now, row, worseBy }) =>
        `${row}: ${now}, ${baseline} in the baseline: better by ${percent(-worseBy!)}`
    )
