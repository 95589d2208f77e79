/**
 * Work `crawl-dispatch`: a master puts N tasks with a URL of 60 bytes, two workers lease them, run a trivial typed handler
 * and commit its result, the master reads all N outcomes and checks each exactly once. Four processes, loopback TCP.
 *
 * The clock runs in the master, from the first put to the last outcome.
 */
import { loadavg } from "node:os"
import { join } from "node:path"
import { type Child, withChildren } from "./harness/children.ts"
import { withFolder } from "./harness/folder.ts"
import { hottestTables } from "./harness/profile.ts"
import { type Durability, type Measurement, progress, spread, table } from "./harness/report.ts"
import { through } from "./harness/through.ts"
import { variants } from "./harness/variants.ts"
import type { Work, WorkOptions, WorkReport } from "./harness/work.ts"
import type { PassOptions, PassResult } from "./millrace/master.ts"
import { type Processes, shownRoles, startProcesses, storeEnvironment } from "./millrace/processes.ts"
import { workerOptions } from "./millrace/queue.ts"

/** What runs when no variant is named. */
const variantsDefault = ["batch256", "single"]

/** Of a run among all works: a second or two. */
const shortTasks: Readonly<Record<string, number>> = { batch256: 300_000, single: 150_000 }

const durabilitiesDefault: ReadonlyArray<Durability> = ["memory", "fsync"]

interface VariantReport {
  readonly measurements: ReadonlyArray<Measurement>
  readonly notes: ReadonlyArray<string>
}

/** The processes of one durability, and what its runs gave. */
interface Crew {
  readonly durability: Durability
  readonly processes: Processes
  readonly all: ReadonlyArray<Child>
  readonly rates: Array<number>
  readonly used: Array<number>
  masterSeconds: number
}

/** Runs take turns over the durabilities: whatever else the machine does meets all of them. */
const runVariant = (variant: string, options: WorkOptions): Promise<VariantReport> =>
  withFolder((folder) =>
    withChildren(async (start) => {
      const chosen = variants[variant]!
      const { batch, concurrency, inFlight, payloadBytes, tasksMost, workers } = chosen
      const tasks = options.tasks ?? (options.short ? shortTasks[variant] : undefined) ?? tasksMost
      const pass: PassOptions = { batch, inFlight, tasks, ...(payloadBytes === undefined ? {} : { payloadBytes }) }
      const { profile } = options
      const crews: Array<Crew> = []
      for (const durability of options.durabilities ?? durabilitiesDefault) {
        const named = profile && { ...profile, name: `${profile.name}-${variant}-${durability}` }
        const env = storeEnvironment(durability, join(folder, durability))
        const processes = await startProcesses(start, workers, named, "", env, {
          concurrency,
          through: through(start, chosen.addedRoundTripMs)
        })
        const all = [processes.manager, processes.master, ...processes.workers]
        crews.push({ durability, processes, all, rates: [], used: all.map(() => 0), masterSeconds: 0 })
      }
      for (let run = 0; run <= options.runs; run++) {
        for (const crew of crews) await runOnce(crew, pass, variant, run, options.runs)
      }
      const measurements: Array<Measurement> = []
      const notes: Array<string> = []
      for (const { all, durability, masterSeconds, processes, rates, used } of crews) {
        const usages = await Promise.all(all.map((child) => child.usage()))
        const rows = all.map((child, i) => {
          // What the master does before and after the clock runs is the bench's own.
          const seconds = child === processes.master ? masterSeconds : used[i]!
          const microseconds = Number(((seconds * 1e6) / (pass.tasks * options.runs)).toFixed(2))
          return [child.name, microseconds, Math.round(usages[i]!.rssBytes / 2 ** 20)]
        })
        notes.push(
          [
            `${variant}, ${durability}: ${tasks} tasks a run, ${batch} a call, ${inFlight} calls in flight, worker concurrency ${concurrency}, prefetch ${workerOptions.prefetch}`,
            table(["process", "CPU us/task", "RSS MiB"], rows)
          ].join("\n")
        )
        measurements.push({
          work: "crawl-dispatch",
          variant,
          durability,
          workers,
          system: "millrace",
          ...spread(rates, 0),
          unit: "tasks/s",
          runs: options.runs
        })
      }
      return { measurements, notes }
    })
  )

/** Run 0 is the warm-up. */
const runOnce = async (crew: Crew, pass: PassOptions, variant: string, run: number, runs: number): Promise<void> => {
  const { all, durability, processes, rates, used } = crew
  const before = await Promise.all(all.map((child) => child.usage()))
  const { cpuSeconds, seconds } = await processes.master.call<PassResult>("crawlDispatch", pass)
  const after = await Promise.all(all.map((child) => child.usage()))
  const rate = pass.tasks / seconds
  const label = run === 0 ? "warm-up" : `run ${run} of ${runs}`
  const each = after.map(({ cpuSeconds }, i) => ((cpuSeconds - before[i]!.cpuSeconds) * 1e6) / pass.tasks)
  progress(
    `crawl-dispatch ${variant} ${durability} ${label}: ${seconds.toFixed(2)} s, ${Math.round(rate)} tasks/s, CPU us/task ${each.map((us) => us.toFixed(2)).join(" ")}, load ${loadavg()[0]!.toFixed(1)}`
  )
  if (run === 0) return
  rates.push(rate)
  crew.masterSeconds += cpuSeconds
  for (let i = 0; i < all.length; i++) used[i]! += after[i]!.cpuSeconds - before[i]!.cpuSeconds
}

export const crawlDispatch: Work = {
  name: "crawl-dispatch",
  variants: Object.keys(variants),
  shortRuns: 3,
  profiled: true,
  run: async (options): Promise<WorkReport> => {
    const measurements: Array<Measurement> = []
    const notes: Array<string> = []
    for (const variant of options.variant === undefined ? variantsDefault : [options.variant]) {
      const report = await runVariant(variant, options)
      measurements.push(...report.measurements)
      notes.push(...report.notes)
      // Profiles are written when the processes end.
      const { profile } = options
      for (const durability of options.durabilities ?? durabilitiesDefault) {
        const named = profile && { ...profile, name: `${profile.name}-${variant}-${durability}` }
        notes.push(...hottestTables(named, shownRoles))
      }
    }
    return { measurements, notes }
  }
}
