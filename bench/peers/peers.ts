/**
 * `--peers`: work `crawl-dispatch` on Millrace and on what it may be compared with. Every round has one run of each
 * system, in an order that turns by one each round; the first round is the warm-up, and its speed says how many tasks a run
 * of that system has.
 */
import { loadavg } from "node:os"
import { join } from "node:path"
import { withChildren } from "../harness/children.ts"
import { withFolder } from "../harness/folder.ts"
import { type Durability, type Measurement, progress, spread, table } from "../harness/report.ts"
import type { Work, WorkReport } from "../harness/work.ts"
import type { PassResult } from "../millrace/master.ts"
import { startProcesses, storeEnvironment } from "../millrace/processes.ts"
import { plainSockets } from "../prototype/system.ts"
import { beanstalkd } from "./beanstalkd/system.ts"
import { bullmq } from "./bullmq/system.ts"
import { natsJetStream } from "./nats/system.ts"
import { pythonManagers } from "./python/system.ts"
import { redisScripts } from "./redis/system.ts"
import type { Crew, System } from "./system.ts"

const workers = 2
const variants: Readonly<Record<string, { readonly batch: number; readonly inFlight: number }>> = {
  batch256: { batch: 256, inFlight: 8 },
  single: { batch: 1, inFlight: 256 }
}
const durabilitiesDefault: ReadonlyArray<Durability> = ["memory", "fsync"]

/** A run of a system takes about this long, whatever its speed, with this many tasks at most. */
const runSeconds = 4
const mostTasks = 600_000

const millrace: System = {
  name: "millrace",
  variants: Object.keys(variants),
  durabilities: ["memory", "buffered", "fsync"],
  missing: () => undefined,
  version: () => "",
  warmUp: 100_000,
  start: async ({ durability, folder, start, workers }) => {
    const { master } = await startProcesses(start, workers, undefined, "", storeEnvironment(durability, folder))
    return { pass: async (options) => (await master.call<PassResult>("crawlDispatch", options, 120_000)).seconds }
  }
}

/** Millrace comes first: the others are compared with it. */
const systems: ReadonlyArray<System> = [
  millrace,
  plainSockets,
  redisScripts,
  beanstalkd,
  bullmq,
  pythonManagers,
  natsJetStream
]

interface Entry {
  readonly system: System
  readonly crew: Crew
  readonly rates: Array<number>
  tasks: number
}

const tasksOf = (rate: number): number =>
  Math.min(mostTasks, Math.max(256, Math.round((rate * runSeconds) / 256) * 256))

type Row = Measurement & { readonly ratio: number }

/** All systems of one variant and durability. */
const runPair = (
  present: ReadonlyArray<System>,
  variant: string,
  durability: Durability,
  runs: number,
  tasks: number | undefined
): Promise<ReadonlyArray<Row>> =>
  withFolder((folder) =>
    withChildren(async (start) => {
      const entries: Array<Entry> = []
      for (const system of present) {
        const context = { start, folder: join(folder, system.name), variant, durability, workers }
        const first = tasks === undefined ? system.warmUp : Math.min(tasks, system.warmUp)
        entries.push({ system, crew: await system.start(context), rates: [], tasks: first })
      }
      for (let round = 0; round <= runs; round++) {
        for (let i = 0; i < entries.length; i++) {
          const entry = entries[(i + round) % entries.length]!
          const seconds = await entry.crew.pass({ ...variants[variant]!, tasks: entry.tasks })
          const rate = entry.tasks / seconds
          const label = round === 0 ? "warm-up" : `round ${round} of ${runs}`
          progress(
            `crawl-dispatch ${variant} ${durability} ${label} ${entry.system.name}: ${entry.tasks} tasks, ${seconds.toFixed(2)} s, ${Math.round(rate)} tasks/s, load ${loadavg()[0]!.toFixed(1)}`
          )
          if (round > 0) entry.rates.push(rate)
          else entry.tasks = tasks === undefined ? tasksOf(rate) : Math.min(tasks, tasksOf(rate))
        }
      }
      const own = entries[0]!.rates
      return entries.map(({ rates, system }) => ({
        work: "crawl-dispatch",
        variant,
        durability,
        workers,
        system: system.name,
        ...spread(rates, 0),
        unit: "tasks/s",
        runs,
        ratio: spread(
          rates.map((rate, i) => own[i]! / rate),
          2
        ).median
      }))
    })
  )

const head = ["system", "median", "min", "max", "unit", "runs", "millrace/system"]

export const crawlDispatchPeers: Work = {
  name: "crawl-dispatch",
  variants: Object.keys(variants),
  run: async (options): Promise<WorkReport> => {
    const measurements: Array<Measurement> = []
    const notes: Array<string> = []
    const present = systems.filter((system) => {
      const why = system.missing()
      if (why !== undefined) notes.push(`skipped: ${system.name}: ${why} (bench/setup.sh)`)
      return why === undefined
    })
    for (const variant of options.variant === undefined ? Object.keys(variants) : [options.variant]) {
      for (const durability of options.durabilities ?? durabilitiesDefault) {
        const able = present.filter((s) => s.variants.includes(variant) && s.durabilities.includes(durability))
        const without = present.filter((s) => !able.includes(s)).map(({ name }) => name)
        const rows = await runPair(able, variant, durability, options.runs, options.tasks)
        measurements.push(...rows)
        const lines = rows.map((r) => [r.system, r.median, r.min, r.max, r.unit, r.runs, r.ratio])
        const none = without.length === 0 ? "" : `\nhas no such thing: ${without.join(", ")}`
        notes.push(`crawl-dispatch ${variant}, ${durability}, ${workers} workers\n${table(head, lines)}${none}`)
      }
    }
    const versions = present.map((system) => system.version()).filter((version) => version !== "")
    notes.push(`peers     ${versions.length === 0 ? "none" : [...new Set(versions)].join(", ")}`)
    return { measurements, notes }
  }
}
