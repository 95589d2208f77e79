/**
 * Work `crawl-dispatch`: a master puts N tasks with a URL of 60 bytes, two workers lease them, run a trivial typed handler
 * and commit its result, the master reads all N outcomes and checks each exactly once. Four processes, loopback TCP.
 *
 * The clock runs in the master, from the first put to the last outcome.
 */
import { join } from "node:path"
import { type Child, type Usage, withChildren } from "./harness/children.ts"
import { hottestTable } from "./harness/profile.ts"
import { type Measurement, progress, spread, table } from "./harness/report.ts"
import type { Work, WorkOptions, WorkReport } from "./harness/work.ts"
import type { PassOptions, PassResult } from "./millrace/master.ts"
import { shownRoles, startProcesses } from "./millrace/processes.ts"
import { workerOptions } from "./millrace/queue.ts"

const variants: Readonly<Record<string, PassOptions>> = {
  batch256: { tasks: 600_000, batch: 256, inFlight: 8 },
  single: { tasks: 300_000, batch: 1, inFlight: 256 }
}

const workers = 2

const runVariant = (
  variant: string,
  options: WorkOptions
): Promise<{ readonly measurement: Measurement; readonly note: string }> =>
  withChildren(async (start) => {
    const chosen = variants[variant]!
    const pass: PassOptions = { ...chosen, tasks: options.tasks ?? chosen.tasks }
    const profile = options.profile && { ...options.profile, name: `${options.profile.name}-${variant}` }
    const processes = await startProcesses(start, workers, profile)
    const { manager, master } = processes
    const all: ReadonlyArray<Child> = [manager, master, ...processes.workers]
    const rates: Array<number> = []
    let before: ReadonlyArray<Usage> = []
    let masterSeconds = 0
    for (let run = 0; run <= options.runs; run++) {
      if (run === 1) before = await Promise.all(all.map((child) => child.usage()))
      const { cpuSeconds, seconds } = await master.call<PassResult>("crawlDispatch", pass)
      const rate = pass.tasks / seconds
      const label = run === 0 ? "warm-up" : `run ${run} of ${options.runs}`
      progress(`crawl-dispatch ${variant} ${label}: ${seconds.toFixed(2)} s, ${Math.round(rate)} tasks/s`)
      if (run === 0) continue
      rates.push(rate)
      masterSeconds += cpuSeconds
    }
    const after = await Promise.all(all.map((child) => child.usage()))
    const rows = all.map((child, i) => {
      // What the master does before and after the clock runs is the bench's own.
      const seconds = child === master ? masterSeconds : after[i]!.cpuSeconds - before[i]!.cpuSeconds
      const microseconds = Number(((seconds * 1e6) / (pass.tasks * options.runs)).toFixed(2))
      return [child.name, microseconds, Math.round(after[i]!.rssBytes / 2 ** 20)]
    })
    const { batch, inFlight, tasks } = pass
    const { concurrency, prefetch } = workerOptions
    const note = [
      `${variant}: ${tasks} tasks a run, ${batch} a call, ${inFlight} calls in flight, worker concurrency ${concurrency}, prefetch ${prefetch}`,
      table(["process", "CPU us/task", "RSS MiB"], rows)
    ].join("\n")
    const measurement: Measurement = {
      work: "crawl-dispatch",
      variant,
      durability: "memory",
      workers,
      system: "millrace",
      ...spread(rates, 0),
      unit: "tasks/s",
      runs: options.runs
    }
    return { measurement, note }
  })

export const crawlDispatch: Work = {
  name: "crawl-dispatch",
  variants: Object.keys(variants),
  run: async (options): Promise<WorkReport> => {
    const measurements: Array<Measurement> = []
    const notes: Array<string> = []
    for (const variant of options.variant === undefined ? Object.keys(variants) : [options.variant]) {
      const { measurement, note } = await runVariant(variant, options)
      measurements.push(measurement)
      notes.push(note)
      // Profiles are written when the processes end.
      if (options.profile === undefined) continue
      const { directory, name } = options.profile
      for (const role of shownRoles) {
        notes.push(hottestTable(`${variant} ${role}`, join(directory, `${name}-${variant}-${role}.cpuprofile`)))
      }
    }
    return { measurements, notes }
  }
}
