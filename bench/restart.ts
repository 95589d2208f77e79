/**
 * Work `restart`: the time from the start of a manager's process to its first answered lease, with a million tasks of 200
 * bytes in its store, after a SIGKILL of the one before. The client that asks runs already.
 */
import { randomBytes } from "node:crypto"
import { loadavg } from "node:os"
import { withChildren } from "./harness/children.ts"
import { withFolder } from "./harness/folder.ts"
import { hottestTables } from "./harness/profile.ts"
import { type Measurement, progress, spread } from "./harness/report.ts"
import { monotonicMs } from "./harness/role.ts"
import type { Work, WorkOptions, WorkReport } from "./harness/work.ts"
import { storeEnvironment } from "./millrace/processes.ts"

const tasksDefault = 1_000_000
const fillMs = 600_000
const durability = "fsync"

export const restart: Work = {
  name: "restart",
  variants: ["1m"],
  shortRuns: 3,
  profiled: true,
  run: async (options) => {
    const { measurements, notes } = await measure(options)
    // Each run kills the manager before it, so only the last one writes its profile.
    return { measurements, notes: [...notes, ...hottestTables(options.profile, ["manager", "master"])] }
  }
}

const measure = (options: WorkOptions): Promise<WorkReport> =>
  withFolder((folder) =>
    withChildren(async (start) => {
      const tasks = options.tasks ?? tasksDefault
      const env = {
        MILLRACE_BENCH_KEY: randomBytes(32).toString("base64url"),
        ...storeEnvironment(durability, folder)
      }
      const role = (name: string, profile?: string) =>
        start({
          name,
          script: new URL(`./millrace/${name}.ts`, import.meta.url),
          env,
          profile:
            options.profile && profile ? { ...options.profile, name: `${options.profile.name}-${profile}` } : undefined
        })
      const master = role("stock-master", "master")
      let manager = role("manager")
      let port = await manager.call<number>("port")
      const seconds = await master.call<number>("fill", { port, from: 0, tasks }, fillMs)
      progress(`restart: ${tasks} tasks put in ${seconds.toFixed(1)} s`)
      const times: Array<number> = []
      for (let run = 1; run <= options.runs; run++) {
        await manager.kill()
        await master.call("leave", { port })
        const from = monotonicMs()
        manager = role("manager", "manager")
        port = await manager.call<number>("port", undefined, fillMs)
        const listening = monotonicMs() - from
        const leased = (await master.call<number>("firstLease", { port }, fillMs)) - from
        const { cpuSeconds, rssBytes } = await manager.usage()
        progress(
          `restart run ${run} of ${options.runs}: listens after ${(listening / 1_000).toFixed(2)} s, first lease after ${(leased / 1_000).toFixed(2)} s, ${cpuSeconds.toFixed(2)} s of CPU, ${Math.round(rssBytes / 2 ** 20)} MiB, load ${loadavg()[0]!.toFixed(1)}`
        )
        times.push(leased / 1_000)
      }
      const waiting = await master.call<number>("size", { port })
      if (waiting !== tasks) throw new Error(`${waiting} tasks wait, ${tasks} were put`)
      const measurement: Measurement = {
        work: "restart",
        variant: "1m",
        durability,
        workers: 0,
        system: "millrace",
        ...spread(times, 2),
        unit: "s",
        runs: options.runs
      }
      return {
        measurements: [measurement],
        notes: [`restart: ${tasks} waiting tasks of 200 bytes, SIGKILL, from spawn to the first answered lease`]
      }
    })
  )
