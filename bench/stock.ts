/**
 * Work `stock`: what a manager holds per task that waits in a durable store, how long a lease takes beside a million of
 * them whose payloads must be read back, and how often a drain in order reads a row.
 *
 * The manager keeps 16 MiB of payloads. `bytes-*` is what its process grew by (resident set, after a collection, less
 * those 16 MiB) for each task.
 */
import { randomBytes } from "node:crypto"
import { loadavg } from "node:os"
import { type ProfileTo, withChildren } from "./harness/children.ts"
import { withFolder } from "./harness/folder.ts"
import { hottestTables } from "./harness/profile.ts"
import { type Measurement, percentile, progress, spread } from "./harness/report.ts"
import type { Work, WorkOptions, WorkReport } from "./harness/work.ts"
import type { MemoryUse } from "./millrace/memoryUse.ts"
import { storeEnvironment } from "./millrace/processes.ts"
import type { LeaseTimes } from "./millrace/stock-master.ts"

const sizes: Readonly<Record<string, number>> = { "1m": 1_000_000, "10m": 10_000_000 }
/** Ten million take minutes: they are measured when they are asked for by name. */
const sizeDefault = "1m"
const residentBytes = 16 * 2 ** 20
const samples = 2_000
/** Among all works fewer are drained. */
const drainMost = 1_000_000
const drainShort = 200_000
const fillMs = 1_800_000
const durability = "fsync"
const common = { work: "stock", durability, workers: 0, system: "millrace" } as const

const variantsOf = (size: string): ReadonlyArray<string> =>
  ["bytes", "lease-empty-p50", "lease-empty-p99", "lease-p50", "lease-p99", "drain"].map((name) => `${size}-${name}`)

const runSize = (size: string, named: ProfileTo | undefined, options: WorkOptions): Promise<WorkReport> =>
  withFolder((folder) =>
    withChildren(async (start) => {
      const tasks = options.tasks ?? sizes[size]!
      const key = { MILLRACE_BENCH_KEY: randomBytes(32).toString("base64url") }
      const env = {
        ...key,
        ...storeEnvironment(durability, folder),
        MILLRACE_BENCH_RESIDENT: String(residentBytes),
        NODE_OPTIONS: "--max-old-space-size=12288"
      }
      const role = (name: string): URL => new URL(`./millrace/${name}.ts`, import.meta.url)
      const profile = (name: string) => named && { ...named, name: `${named.name}-${name}` }
      const manager = start({ name: "manager", script: role("manager"), env, profile: profile("manager") })
      const master = start({ name: "master", script: role("stock-master"), env: key, profile: profile("master") })
      const port = await manager.call<number>("port")
      const note = (text: string): void => progress(`stock ${size}: ${text}, load ${loadavg()[0]!.toFixed(1)}`)

      // A first lot makes what every manager holds, and is drained again: it is not counted.
      const lot = 100_000
      await master.call("fill", { port, from: 0, tasks: lot }, fillMs)
      await master.call("drain", { port, from: 0, tasks: lot }, fillMs)
      const before = await manager.call<MemoryUse>("memory", undefined, fillMs)
      const seconds = await master.call<number>("fill", { port, from: 0, tasks }, fillMs)
      const after = await manager.call<MemoryUse>("memory", undefined, fillMs)
      const bytes = (after.rssBytes - before.rssBytes - residentBytes) / tasks
      const [heap, buffers] = [
        (after.heapBytes - before.heapBytes) / tasks,
        (after.bufferBytes - before.bufferBytes - residentBytes) / tasks
      ]
      note(
        `${tasks} tasks put in ${seconds.toFixed(1)} s; a task: ${bytes.toFixed(1)} bytes of RSS, ${heap.toFixed(1)} of heap, ${buffers.toFixed(1)} of buffers`
      )

      const measurements: Array<Measurement> = [
        { ...common, variant: `${size}-bytes`, ...spread([bytes], 1), unit: "bytes/task", runs: 1 }
      ]
      const times = new Map<string, Array<number>>()
      for (let run = 0; run <= options.runs; run++) {
        const lease = await master.call<LeaseTimes>("leaseTimes", { port, samples }, fillMs)
        for (const [name, share] of [
          ["p50", 0.5],
          ["p99", 0.99]
        ] as const) {
          const [empty, stock] = [percentile(lease.empty, share), percentile(lease.stock, share)]
          note(`lease ${name} ${empty.toFixed(3)} ms empty, ${stock.toFixed(3)} ms beside the stock`)
          if (run === 0) continue
          times.set(`lease-empty-${name}`, [...(times.get(`lease-empty-${name}`) ?? []), empty])
          times.set(`lease-${name}`, [...(times.get(`lease-${name}`) ?? []), stock])
        }
      }
      for (const [name, values] of times) {
        measurements.push({
          ...common,
          variant: `${size}-${name}`,
          ...spread(values, 3),
          unit: "ms",
          runs: options.runs
        })
      }

      const from = samples * (options.runs + 1)
      const counted = await manager.call<{ rowsRead: number; rowsCleaned: number }>("counters")
      const drained = Math.min(tasks - from, options.short ? drainShort : drainMost)
      const took = await master.call<number>("drain", { port, from, tasks: drained }, fillMs)
      const then = await manager.call<{ rowsRead: number; rowsCleaned: number }>("counters")
      const rows = then.rowsRead - counted.rowsRead
      note(
        `${drained} drained in ${took.toFixed(1)} s, ${rows} rows read, ${then.rowsCleaned - counted.rowsCleaned} cleaned`
      )
      measurements.push({
        ...common,
        variant: `${size}-drain`,
        ...spread([drained / took], 0),
        unit: "tasks/s",
        runs: 1
      })
      const notes = [
        `stock ${size}: ${tasks} tasks of 200 bytes, ${residentBytes / 2 ** 20} MiB of payloads in memory; the drain of ${drained} tasks read ${rows} rows`
      ]
      return { measurements, notes }
    })
  )

export const stock: Work = {
  name: "stock",
  variants: Object.keys(sizes).flatMap(variantsOf),
  shortRuns: 1,
  profiled: true,
  run: async (options) => {
    const wanted = Object.keys(sizes).filter((size) =>
      options.variant === undefined ? size === sizeDefault : variantsOf(size).includes(options.variant)
    )
    const measurements: Array<Measurement> = []
    const notes: Array<string> = []
    for (const size of wanted) {
      const profile = options.profile && { ...options.profile, name: `${options.profile.name}-${size}` }
      const report = await runSize(size, profile, options)
      measurements.push(...report.measurements.filter(({ variant }) => variant === (options.variant ?? variant)))
      notes.push(...report.notes, ...hottestTables(profile, ["manager", "master"]))
    }
    return { measurements, notes }
  }
}
