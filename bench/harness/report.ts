/** What a work measured, as lines of JSON for programs and as a table for people. */
import { readFileSync } from "node:fs"
import * as os from "node:os"
import process from "node:process"

/** What an answer of the system means: kept in memory, handed to the operating system, on disk. */
export type Durability = "memory" | "buffered" | "fsync"

export const durabilities: ReadonlyArray<Durability> = ["memory", "buffered", "fsync"]

/** One line of `--json`. The order of its fields is part of the format. */
export interface Measurement {
  readonly work: string
  readonly variant: string
  readonly durability: Durability
  readonly workers: number
  readonly system: string
  readonly median: number
  readonly min: number
  readonly max: number
  readonly unit:
    | "tasks/s"
    | "ms"
    | "s"
    | "bytes/task"
    | "bytes/session"
    | "logins/s"
    | "MiB"
    | "us/task"
    | "ops/s"
    | "bytes/key"
    | "ns"
    | "attempts/client"
    | "pages/s"
    | "pages/CPU-s"
    | "CPU-s/1000 pages"
    | "files/s"
    | "CPU s/1,000 files"
  readonly runs: number
  /** Above 1 where Millrace is faster than this system: the median of each round's. Only beside peers. */
  readonly ratio?: number
  /** Microseconds of CPU a task, of all processes of the system. Only beside peers. */
  readonly cpu?: number
}

export const progress = (text: string): void => void process.stderr.write(`${text}\n`)

/** Median, least and largest, rounded to what the unit can carry. */
export const spread = (
  values: ReadonlyArray<number>,
  digits: number
): { readonly median: number; readonly min: number; readonly max: number } => {
  if (values.length === 0) throw new Error("no run was measured")
  const sorted = values.toSorted((a, b) => a - b)
  const upper = sorted[sorted.length >> 1]!
  const median = sorted.length % 2 === 1 ? upper : (sorted[(sorted.length >> 1) - 1]! + upper) / 2
  const round = (value: number): number => Number(value.toFixed(digits))
  return { median: round(median), min: round(sorted[0]!), max: round(sorted.at(-1)!) }
}

/** Nearest rank. Sorts in place. */
export const percentile = (values: Float64Array, share: number): number => {
  values.sort()
  return values[Math.max(0, Math.ceil(values.length * share) - 1)]!
}

export const jsonLine = (m: Measurement): string => {
  const { cpu, durability, max, median, min, ratio, runs, system, unit, variant, work, workers } = m
  return JSON.stringify({ work, variant, durability, workers, system, median, min, max, unit, runs, cpu, ratio })
}

/** Columns as wide as their longest cell; numbers to the right. */
export const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string | number>>): string => {
  const cells = [head, ...rows.map((row) => row.map((cell) => (typeof cell === "number" ? grouped(cell) : cell)))]
  const widths = head.map((_, column) => Math.max(...cells.map((row) => (row[column] ?? "").length)))
  const right = head.map((_, column) => rows.length > 0 && rows.every((row) => typeof row[column] === "number"))
  return cells
    .map((row) =>
      row
        .map((cell, i) => (right[i] ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}

const grouped = (value: number): string => value.toLocaleString("en-US", { maximumFractionDigits: 3 })

const versionOf = (path: string): string =>
  (JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8")) as { readonly version: string }).version

/** What the figures depend on besides the code. */
export const machineParts = (): { readonly machine: string; readonly versions: string } => {
  const cpus = os.cpus()
  const gib = Math.round(os.totalmem() / 2 ** 30)
  const load = os.loadavg()[0]!.toFixed(2)
  return {
    machine: `${cpus.length} x ${cpus[0]?.model.trim() ?? "unknown CPU"}, ${gib} GiB, ${os.type()} ${os.release()}, load ${load}`,
    versions: `millrace ${versionOf("../../package.json")}, node ${process.versions.node}, effect ${versionOf("../../node_modules/effect/package.json")}`
  }
}

export const machine = (): string => {
  const { machine, versions } = machineParts()
  return `machine   ${machine}\nversions  ${versions}`
}
