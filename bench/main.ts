/**
 * `npm run bench`: measures, and prints what it measured.
 *
 *     npm run bench -- [--only WORK] [--variant VARIANT] [--durability fsync,memory] [--runs 5] [--tasks N] [--json] [--profile NAME] [--peers]
 *
 * With `--json` standard output has one object a line and nothing else; progress is on standard error. A result that is
 * missing, doubled or wrong ends it with exit code 1, a mistake in the command line with 2.
 */
import { mkdirSync } from "node:fs"
import process from "node:process"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { backlog } from "./backlog.ts"
import { crawlDispatch } from "./crawl-dispatch.ts"
import { download } from "./download.ts"
import {
  type Durability,
  durabilities,
  jsonLine,
  type Measurement,
  machine,
  progress,
  table
} from "./harness/report.ts"
import type { Work, WorkOptions } from "./harness/work.ts"
import { lanes } from "./lanes.ts"
import { latency } from "./latency.ts"
import { memory } from "./memory.ts"
import { crawlDispatchPeers } from "./peers/peers.ts"
import { restart } from "./restart.ts"
import { steady } from "./steady.ts"
import { stock } from "./stock.ts"

const works: ReadonlyArray<Work> = [crawlDispatch, latency, backlog, memory, lanes, restart, stock, steady, download]

class UsageError extends Error {}

const parse = () => {
  try {
    return parseArgs({
      options: {
        only: { type: "string" },
        variant: { type: "string" },
        durability: { type: "string" },
        runs: { type: "string", default: "5" },
        tasks: { type: "string" },
        json: { type: "boolean", default: false },
        profile: { type: "string" },
        peers: { type: "boolean", default: false }
      }
    }).values
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
}

const whole = (flag: string, text: string): number => {
  const value = Number(text)
  if (Number.isSafeInteger(value) && value > 0) return value
  throw new UsageError(`--${flag} takes a whole number above 0, not "${text}"`)
}

const chosenWorks = (
  works: ReadonlyArray<Work>,
  only: string | undefined,
  variant: string | undefined
): ReadonlyArray<Work> => {
  const named =
    only === undefined
      ? works.filter(({ onlyByName }) => onlyByName !== true)
      : works.filter(({ name }) => name === only)
  if (named.length === 0) {
    throw new UsageError(`there is no work "${only}" here; the works are ${works.map(({ name }) => name).join(", ")}`)
  }
  const chosen = variant === undefined ? named : named.filter(({ variants }) => variants.includes(variant))
  if (chosen.length > 0) return chosen
  throw new UsageError(`there is no variant "${variant}" of ${named.map(({ name }) => name).join(", ")}`)
}

const durabilitiesOf = (text: string): ReadonlyArray<Durability> =>
  text.split(",").map((name) => {
    const known = durabilities.find((durability) => durability === name)
    if (known !== undefined) return known
    throw new UsageError(`--durability takes some of ${durabilities.join(",")}, not "${text}"`)
  })

const profileOf = (name: string): WorkOptions["profile"] => {
  if (!/^[\w.-]+$/.test(name)) throw new UsageError(`--profile takes a name for its files, not "${name}"`)
  const directory = fileURLToPath(new URL("./profiles", import.meta.url))
  mkdirSync(directory, { recursive: true })
  return { directory, name }
}

const row = ({ durability, max, median, min, runs, system, unit, variant, work, workers }: Measurement) => [
  work,
  variant,
  durability,
  workers,
  system,
  median,
  min,
  max,
  unit,
  runs
]

const head = ["work", "variant", "durability", "workers", "system", "median", "min", "max", "unit", "runs"]

const main = async (): Promise<void> => {
  const { durability, json, only, peers, profile, runs, tasks, variant } = parse()
  if (peers && profile !== undefined) throw new UsageError("--peers takes no profile")
  const options: WorkOptions = {
    runs: whole("runs", runs),
    tasks: tasks === undefined ? undefined : whole("tasks", tasks),
    variant,
    durabilities: durability === undefined ? undefined : durabilitiesOf(durability),
    profile: profile === undefined ? undefined : profileOf(profile)
  }
  // The name of a work is a fine name for its profile, and then says which work is meant.
  const named = only ?? works.find(({ name }) => name === profile)?.name
  const people = (text: string): void => (json ? progress(text) : void process.stdout.write(`${text}\n`))
  const measurements: Array<Measurement> = []
  for (const work of chosenWorks(peers ? [crawlDispatchPeers] : works, named, variant)) {
    const report = await work.run(options)
    measurements.push(...report.measurements)
    if (json) for (const m of report.measurements) process.stdout.write(`${jsonLine(m)}\n`)
    for (const note of report.notes) people(`\n${note}`)
  }
  if (json) return progress(`\n${machine()}`)
  people(`\n${table(head, measurements.map(row))}\n\n${machine()}`)
  if (profile !== undefined) people("These figures were taken under a profiler: compare them with nothing.")
}

try {
  await main()
} catch (error) {
  progress(`bench: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = error instanceof UsageError ? 2 : 1
}
