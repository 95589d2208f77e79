/**
 * `--peers`: work `crawl-dispatch` on Millrace and on what it may be compared with. Every round has one run of each
 * system, in an order that turns by one each round; the first round is the warm-up, and its speed says how many tasks a run
 * of that system has.
 */
import { loadavg } from "node:os"
import { join } from "node:path"
import { type Child, type StartOptions, withChildren } from "../harness/children.ts"
import { withFolder } from "../harness/folder.ts"
import { type Durability, type Measurement, progress, spread, table } from "../harness/report.ts"
import { through } from "../harness/through.ts"
import { variants } from "../harness/variants.ts"
import type { Work, WorkReport } from "../harness/work.ts"
import type { PassResult } from "../millrace/master.ts"
import { startProcesses, storeEnvironment } from "../millrace/processes.ts"
import { beanstalkd } from "./beanstalkd/system.ts"
import { bullmq } from "./bullmq/system.ts"
import { bunqueue } from "./bunqueue/system.ts"
import { faktory } from "./faktory/system.ts"
import { natsJetStream } from "./nats/system.ts"
import { pythonManagers, pythonManagersBatched } from "./python/system.ts"
import { redisScripts } from "./redis/system.ts"
import type { Crew, System } from "./system.ts"

const durabilitiesDefault: ReadonlyArray<Durability> = ["memory", "fsync"]

/** A run of a system takes about this long, whatever its speed, if the variant has so many tasks. */
const runSeconds = 2

const millrace: System = {
  name: "millrace",
  variants: Object.keys(variants),
  durabilities: ["memory", "buffered", "fsync"],
  missing: () => undefined,
  version: () => "",
  warmUp: 100_000,
  start: async ({ durability, folder, settings, start, through }) => {
    const { concurrency, workers } = settings
    const store = storeEnvironment(durability, folder)
    const { master } = await startProcesses(start, workers, undefined, "", store, { concurrency, through })
    return { pass: async (options) => (await master.call<PassResult>("crawlDispatch", options, 120_000)).seconds }
  }
}

/** Millrace comes first: the others are compared with it. */
const systems: ReadonlyArray<System> = [
  millrace,
  redisScripts,
  beanstalkd,
  bullmq,
  pythonManagers,
  pythonManagersBatched,
  natsJetStream,
  bunqueue,
  faktory
]

interface Entry {
  readonly system: System
  readonly crew: Crew
  /** All its processes, without those that only make the way longer. */
  readonly processes: ReadonlyArray<Child>
  cpuSeconds: number
  done: number
  readonly rates: Array<number>
  tasks: number
}

const tasksOf = (rate: number, most: number): number =>
  Math.min(most, Math.max(256, Math.round((rate * runSeconds) / 256) * 256))

const cpuSecondsOf = async (processes: ReadonlyArray<Child>): Promise<number> => {
  const usages = await Promise.all(processes.map((child) => child.usage()))
  return usages.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0)
}

type Row = Measurement & { readonly ratio: number; readonly cpu: number }

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
      const settings = variants[variant]!
      const { batch, inFlight, payloadBytes, workers } = settings
      const most = Math.min(tasks ?? Number.POSITIVE_INFINITY, settings.tasksMost)
      for (const system of present) {
        const processes: Array<Child> = []
        const context = {
          start: (options: StartOptions) => {
            const child = start(options)
            processes.push(child)
            return child
          },
          folder: join(folder, system.name),
          durability,
          settings,
          through: through(start, settings.addedRoundTripMs)
        }
        const first = Math.min(most, system.warmUp)
        const crew = await system.start(context)
        entries.push({ system, crew, processes, rates: [], tasks: first, cpuSeconds: 0, done: 0 })
      }
      for (let round = 0; round <= runs; round++) {
        for (let i = 0; i < entries.length; i++) {
          const entry = entries[(i + round) % entries.length]!
          const size = payloadBytes === undefined ? {} : { payloadBytes }
          const cpuBefore = await cpuSecondsOf(entry.processes)
          const seconds = await entry.crew.pass({ batch, inFlight, ...size, tasks: entry.tasks })
          const rate = entry.tasks / seconds
          const cpu = (await cpuSecondsOf(entry.processes)) - cpuBefore
          const label = round === 0 ? "warm-up" : `round ${round} of ${runs}`
          progress(
            `crawl-dispatch ${variant} ${durability} ${label} ${entry.system.name}: ${entry.tasks} tasks, ${seconds.toFixed(2)} s, ${Math.round(rate)} tasks/s, CPU us/task ${((cpu * 1e6) / entry.tasks).toFixed(2)}, load ${loadavg()[0]!.toFixed(1)}`
          )
          if (round > 0) {
            entry.rates.push(rate)
            entry.cpuSeconds += cpu
            entry.done += entry.tasks
          } else entry.tasks = tasksOf(rate, most)
        }
      }
      const own = entries[0]!.rates
      return entries.map(({ cpuSeconds, done, rates, system }) => ({
        work: "crawl-dispatch",
        variant,
        durability,
        workers,
        system: system.name,
        ...spread(rates, 0),
        unit: "tasks/s",
        runs,
        cpu: Number(((cpuSeconds * 1e6) / done).toFixed(2)),
        ratio: spread(
          rates.map((rate, i) => own[i]! / rate),
          2
        ).median
      }))
    })
  )

export const systemNames = systems.map(({ name }) => name)

const head = ["system", "median", "min", "max", "unit", "runs", "CPU us/task", "millrace/system"]

export const crawlDispatchPeers: Work = {
  name: "crawl-dispatch",
  variants: Object.keys(variants),
  run: async (options): Promise<WorkReport> => {
    const measurements: Array<Measurement> = []
    const notes: Array<string> = []
    const chosen = systems.filter(({ name }) => options.systems?.includes(name) ?? true)
    const present = chosen.filter((system) => {
      const why = system.missing()
      if (why !== undefined) notes.push(`skipped: ${system.name}: ${why}`)
      return why === undefined
    })
    if (present.length < chosen.length) notes.push("bench/setup.sh installs what can be had")
    for (const variant of options.variant === undefined ? Object.keys(variants) : [options.variant]) {
      for (const durability of options.durabilities ?? durabilitiesDefault) {
        const able = present.filter((s) => s.variants.includes(variant) && s.durabilities.includes(durability))
        const without = present.filter((s) => !able.includes(s)).map(({ name }) => name)
        const rows = await runPair(able, variant, durability, options.runs, options.tasks)
        measurements.push(...rows)
        const lines = rows.map((r) => [r.system, r.median, r.min, r.max, r.unit, r.runs, r.cpu, r.ratio])
        const none = without.length === 0 ? "" : `\nhas no such thing: ${without.join(", ")}`
        notes.push(
          `crawl-dispatch ${variant}, ${durability}, ${variants[variant]!.workers} workers\n${table(head, lines)}${none}`
        )
      }
    }
    const versions = present.map((system) => system.version()).filter((version) => version !== "")
    notes.push(`peers     ${versions.length === 0 ? "none" : [...new Set(versions)].join(", ")}`)
    return { measurements, notes }
  }
}
