/**
 * Work `steady`: many more tasks than the log keeps, through a backlog of 2,048: the cleaner runs most of the time. Says how
 * fast tasks go before and while it runs, and how large the files stay.
 */
import { readdirSync, statSync } from "node:fs"
import { loadavg } from "node:os"
import { join } from "node:path"
import { withChildren } from "./harness/children.ts"
import { withFolder } from "./harness/folder.ts"
import { hottestTables } from "./harness/profile.ts"
import { type Measurement, progress, spread } from "./harness/report.ts"
import type { Work, WorkOptions, WorkReport } from "./harness/work.ts"
import type { PassResult } from "./millrace/master.ts"
import { shownRoles, startProcesses, storeEnvironment } from "./millrace/processes.ts"

const tasksDefault = 12_000_000
const passTasks = 600_000
const workers = 2
const durability = "fsync"
const common = { work: "steady", durability, workers, system: "millrace" } as const

const sizeMiB = (folder: string): number =>
  readdirSync(folder)
    .filter((name) => name.startsWith("millrace.db"))
    .reduce((sum, name) => sum + statSync(join(folder, name)).size, 0) /
  2 ** 20

export const steady: Work = {
  name: "steady",
  variants: ["uncleaned", "cleaned", "files"],
  onlyByName: true,
  profiled: true,
  run: async (options) => {
    const { measurements, notes } = await measure(options)
    return { measurements, notes: [...notes, ...hottestTables(options.profile, shownRoles)] }
  }
}

const measure = (options: WorkOptions): Promise<WorkReport> =>
  withFolder((folder) =>
    withChildren(async (start) => {
      const store = storeEnvironment(durability, folder)
      const { manager, master } = await startProcesses(start, workers, options.profile, "", store)
      const rates: Record<"uncleaned" | "cleaned", Array<number>> = { uncleaned: [], cleaned: [] }
      const sizes: Array<number> = []
      const counted = () => manager.call<{ rowsCleaned: number; commits: number }>("counters")
      const passes = Math.ceil((options.tasks ?? tasksDefault) / passTasks)
      let before = await counted()
      for (let pass = 0; pass < passes; pass++) {
        const used = await manager.usage()
        const { seconds } = await master.call<PassResult>("crawlDispatch", {
          tasks: passTasks,
          batch: 256,
          inFlight: 8
        })
        const { cpuSeconds, rssBytes } = await manager.usage()
        const after = await counted()
        const cleaned = after.rowsCleaned - before.rowsCleaned
        const size = sizeMiB(store["MILLRACE_BENCH_DATA"]!)
        before = after
        const each = ((cpuSeconds - used.cpuSeconds) * 1e6) / passTasks
        progress(
          `steady ${(pass + 1) * passTasks} tasks: ${Math.round(passTasks / seconds)} tasks/s, manager ${each.toFixed(2)} us of CPU a task, ${cleaned} rows cleaned, files ${size.toFixed(0)} MiB, RSS ${Math.round(rssBytes / 2 ** 20)} MiB, load ${loadavg()[0]!.toFixed(1)}`
        )
        // The first pass warms up.
        if (pass > 0) rates[cleaned > 0 ? "cleaned" : "uncleaned"].push(passTasks / seconds)
        sizes.push(size)
      }
      const measurements: Array<Measurement> = []
      for (const variant of ["uncleaned", "cleaned"] as const) {
        const values = rates[variant]
        if (values.length === 0) continue
        measurements.push({ ...common, variant, ...spread(values, 0), unit: "tasks/s", runs: values.length })
      }
      measurements.push({ ...common, variant: "files", ...spread(sizes, 0), unit: "MiB", runs: sizes.length })
      return {
        measurements: measurements.filter(({ variant }) => variant === (options.variant ?? variant)),
        notes: [
          `steady: ${passes * passTasks} tasks in passes of ${passTasks}, ${before.rowsCleaned} rows cleaned in all`
        ]
      }
    })
  )
