/**
 * `npm run bench`: measures, and prints what it measured.
 *
 *     npm run bench -- [--only WORK] [--variant VARIANT] [--durability fsync,memory] [--runs 5] [--tasks N] [--json] [--profile NAME]
 *                      [--peers [--systems redis-scripts,beanstalkd]]
 *     npm run bench -- --check [--update] [--tolerance 20] [--runs 5] [--json]
 *
 * With `--json` standard output has one object a line and nothing else; progress is on standard error. A result that is
 * missing, doubled or wrong ends it with exit code 1, as does a budget that a work does not keep and what is worse than the
 * baseline of `--check`; a mistake in the command line with 2.
 */
import { mkdirSync } from "node:fs"
import process from "node:process"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { backlog } from "./backlog.ts"
import { check } from "./check/check.ts"
import { connections } from "./connections.ts"
import { crawl } from "./crawl.ts"
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
import { monotonicMs } from "./harness/role.ts"
import type { Work, WorkOptions } from "./harness/work.ts"
import { lanes } from "./lanes.ts"
import { latency } from "./latency.ts"
import { memory } from "./memory.ts"
import { latencyPeers } from "./peers/latency.ts"
import { crawlDispatchPeers, systemNames } from "./peers/peers.ts"
import { sharedStatePeers } from "./peers/shared-state.ts"
import { reconnect } from "./reconnect.ts"
import { restart } from "./restart.ts"
import { sharedSetMemory } from "./shared-set-memory.ts"
import { sharedState } from "./shared-state.ts"
import { steady } from "./steady.ts"
import { stock } from "./stock.ts"
import { workerOverhead } from "./worker-overhead.ts"

const works: ReadonlyArray<Work> = [
  crawlDispatch,
  latency,
  backlog,
  memory,
  lanes,
  restart,
  stock,
  workerOverhead,
  sharedState,
  steady,
  sharedSetMemory,
  reconnect,
  connections,
  crawl,
  download
]

const runsDefault = 5

class UsageError extends Error {}

const parse = () => {
  try {
    return parseArgs({
      options: {
        only: { type: "string" },
        variant: { type: "string" },
        durability: { type: "string" },
        runs: { type: "string" },
        tasks: { type: "string" },
        json: { type: "boolean", default: false },
        profile: { type: "string" },
        peers: { type: "boolean", default: false },
        systems: { type: "string" },
        check: { type: "boolean", default: false },
        update: { type: "boolean", default: false },
        tolerance: { type: "string" }
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

/** The works to run; without a name all but those that run by name only. */
const chosenWorks = (
  works: ReadonlyArray<Work>,
  only: string | undefined,
  variant: string | undefined
): ReadonlyArray<Work> => {
  const named = works.filter(({ name, onlyByName }) => (only === undefined ? onlyByName !== true : name === only))
  if (named.length === 0) {
    throw new UsageError(`there is no work "${only}" here; the works are ${works.map(({ name }) => name).join(", ")}`)
  }
  const chosen = variant === undefined ? named : named.filter(({ variants }) => variants.includes(variant))
  if (chosen.length > 0) return chosen
  const known = named.map(({ name, variants }) => `${name} has ${variants.join(", ")}`).join("; ")
  throw new UsageError(`there is no such variant "${variant}": ${known}`)
}

const durabilitiesOf = (text: string): ReadonlyArray<Durability> =>
  text.split(",").map((name) => {
    const known = durabilities.find((durability) => durability === name)
    if (known !== undefined) return known
    throw new UsageError(`--durability takes some of ${durabilities.join(",")}, not "${text}"`)
  })

const systemsOf = (text: string): ReadonlyArray<string> => {
  const names = text.split(",")
  const unknown = names.filter((name) => !systemNames.includes(name))
  if (unknown.length === 0) return ["millrace", ...names]
  throw new UsageError(`--systems takes some of ${systemNames.join(",")}, not "${unknown.join(",")}"`)
}

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

type Flags = ReturnType<typeof parse>

const runCheck = async (flags: Flags): Promise<void> => {
  for (const flag of ["only", "variant", "durability", "tasks", "profile", "peers", "systems"] as const) {
    if (flags[flag] !== undefined && flags[flag] !== false) throw new UsageError(`--check takes no --${flag}`)
  }
  const { json, runs, tolerance, update } = flags
  if (update && tolerance !== undefined) throw new UsageError("--update takes the tolerance from what it measures")
  const passed = await check({
    rounds: runs === undefined ? runsDefault : whole("runs", runs),
    tolerance: tolerance === undefined ? undefined : whole("tolerance", tolerance) / 100,
    update,
    json
  })
  if (!passed) process.exitCode = 1
}

const main = async (): Promise<void> => {
  const flags = parse()
  if (flags.check) return runCheck(flags)
  const { durability, json, only, peers, profile, runs, systems, tasks, tolerance, update, variant } = flags
  if (update || tolerance !== undefined) throw new UsageError("--update and --tolerance belong to --check")
  if (peers && profile !== undefined) throw new UsageError("--peers takes no profile")
  if (systems !== undefined && !peers) throw new UsageError("--systems goes with --peers")
  // The name of a work is a fine name for its profile, and then says which work is meant.
  const named = only ?? works.find(({ name }) => name === profile)?.name
  const common = {
    tasks: tasks === undefined ? undefined : whole("tasks", tasks),
    short: named === undefined && !peers,
    variant,
    systems: systems === undefined ? undefined : systemsOf(systems),
    durabilities: durability === undefined ? undefined : durabilitiesOf(durability)
  }
  const given = runs === undefined ? undefined : whole("runs", runs)
  const profiled = profile === undefined ? undefined : profileOf(profile)
  const people = (text: string): void => (json ? progress(text) : void process.stdout.write(`${text}\n`))
  const measurements: Array<Measurement> = []
  const failures: Array<string> = []
  const chosen = chosenWorks(peers ? [crawlDispatchPeers, latencyPeers, sharedStatePeers] : works, named, variant)
  const without = profiled === undefined ? [] : chosen.filter((work) => work.profiled !== true)
  if (chosen.length === without.length) {
    const able = works.filter((work) => work.profiled === true).map(({ name }) => name)
    throw new UsageError(`${without.map(({ name }) => name).join(", ")} gives no profile; those are ${able.join(", ")}`)
  }
  if (without.length > 0) people(`no profile, and not run: ${without.map(({ name }) => name).join(", ")}`)
  for (const work of chosen.filter((work) => !without.includes(work))) {
    const options: WorkOptions = {
      ...common,
      runs: given ?? (common.short ? work.shortRuns : undefined) ?? work.runs ?? runsDefault,
      profile: profiled && { ...profiled, name: named === undefined ? `${profiled.name}-${work.name}` : profiled.name }
    }
    const from = monotonicMs()
    const report = await work.run(options)
    progress(`${work.name} took ${((monotonicMs() - from) / 1_000).toFixed(1)} s`)
    measurements.push(...report.measurements)
    failures.push(...(report.failures ?? []))
    if (json) for (const m of report.measurements) process.stdout.write(`${jsonLine(m)}\n`)
    for (const note of report.notes) people(`\n${note}`)
  }
  if (json) progress(`\n${machine()}`)
  else people(`\n${table(head, measurements.map(row))}\n\n${machine()}`)
  if (profiled !== undefined) people("These figures were taken under a profiler: compare them with nothing.")
  for (const failure of failures) progress(`FAILED: ${failure}`)
  if (failures.length > 0) process.exitCode = 1
}

try {
  await main()
} catch (error) {
  progress(`bench: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = error instanceof UsageError ? 2 : 1
}
