/**
 * `--peers`: work `crawl-dispatch` on Millrace and on what it may be compared with. Every round has one run of each
 * system, in an order that turns by one each round; the first round is the warm-up. Its speed in a round says how many tasks
 * the next one of a system has.
 */
import { loadavg } from "node:os"
import { join } from "node:path"
import process from "node:process"
import { type Child, type StartOptions, withChildren } from "../harness/children.ts"
import type { PeerPass } from "../harness/exactly-once.ts"
import { withFolder } from "../harness/folder.ts"
import type { ProbeTimes } from "../harness/probes.ts"
import { type Durability, type Measurement, progress, spread, table } from "../harness/report.ts"
import { through } from "../harness/through.ts"
import { variants } from "../harness/variants.ts"
import type { Work, WorkReport } from "../harness/work.ts"
import type { PassResult } from "../millrace/master.ts"
import { startProcesses, storeEnvironment } from "../millrace/processes.ts"
import { plainSockets } from "../prototype/system.ts"
import { beanstalkd } from "./beanstalkd/system.ts"
import { bullmq } from "./bullmq/system.ts"
import { bunqueue } from "./bunqueue/system.ts"
import { faktory } from "./faktory/system.ts"
import { graphileWorker } from "./graphile-worker/system.ts"
import { natsJetStream } from "./nats/system.ts"
import { pgBoss } from "./pg-boss/system.ts"
import { pythonManagers, pythonManagersBatched } from "./python/system.ts"
import { redisScripts } from "./redis/system.ts"
import type { Context, Crew, System } from "./system.ts"

const durabilitiesDefault: ReadonlyArray<Durability> = ["memory", "fsync"]

/** A run of a system takes about this long, whatever its speed, if the variant has so many tasks. */
const runSeconds = 1.5

const millrace: System = {
  name: "millrace",
  variants: Object.keys(variants),
  durabilities: ["memory", "buffered", "fsync"],
  missing: () => undefined,
  version: () => "",
  probes: true,
  warmUp: 100_000,
  start: async ({ durability, folder, settings, start, through }) => {
    const { concurrency, workers } = settings
    const store = storeEnvironment(durability, folder)
    const { master } = await startProcesses(start, workers, undefined, "", store, { concurrency, through })
    return {
      pass: async (options) => (await master.call<PassResult>("crawlDispatch", options, 120_000)).seconds,
      probes: (options) => master.call<ProbeTimes>("probes", options, 120_000)
    }
  }
}

/** Millrace comes first: the others are compared with it. */
export const systems: ReadonlyArray<System> = [
  millrace,
  plainSockets,
  redisScripts,
  beanstalkd,
  bullmq,
  pythonManagers,
  pythonManagersBatched,
  natsJetStream,
  bunqueue,
  pgBoss,
  graphileWorker,
  faktory
]

interface Entry {
  readonly system: System
  readonly crew: Crew
  /** All its processes, without those that only make the way longer. */
  readonly processes: ReadonlyArray<Child>
  /** Rejects when one of them has ended before its time. */
  readonly failed: Promise<never>
  /** Ends them. */
  readonly release: () => Promise<unknown>
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

/** A system that could not do its work: it has no figure, and the others go on. */
interface Failure {
  readonly system: System
  readonly reason: string
}

/** Starts a system in a group of its own: what goes wrong there is its own. */
const hire = (system: System, context: Omit<Context, "start" | "through">): Promise<Entry> =>
  new Promise((resolve, reject) => {
    let release = (): void => {}
    const released = new Promise<void>((settle) => {
      release = settle
    })
    const end = (): Promise<unknown> => {
      release()
      return over
    }
    const over = withChildren(async (start) => {
      const processes: Array<Child> = []
      const counted = (options: StartOptions): Child => {
        const child = start(options)
        processes.push(child)
        return child
      }
      const longer = through(start, context.settings.addedRoundTripMs)
      const crew = await system.start({ ...context, start: counted, through: longer })
      const entry = { system, crew, processes, rates: [], tasks: 0, cpuSeconds: 0, done: 0 }
      resolve({ ...entry, failed: over as Promise<never>, release: end })
      await released
    })
    over.catch(reject)
  })

/** One pass, and what it used. */
const passOf = async (entry: Entry, options: Omit<PeerPass, "tasks">): Promise<{ seconds: number; cpu: number }> => {
  const before = await cpuSecondsOf(entry.processes)
  const seconds = await entry.crew.pass({ ...options, tasks: entry.tasks })
  return { seconds, cpu: (await cpuSecondsOf(entry.processes)) - before }
}

/** All systems of one variant and durability. */
const runPair = (
  present: ReadonlyArray<System>,
  variant: string,
  durability: Durability,
  runs: number,
  tasks: number | undefined
): Promise<{ readonly rows: ReadonlyArray<Row>; readonly failures: ReadonlyArray<Failure> }> =>
  withFolder(async (folder) => {
    let entries: Array<Entry> = []
    const failures: Array<Failure> = []
    const settings = variants[variant]!
    const { batch, inFlight, payloadBytes, workers } = settings
    const most = Math.min(tasks ?? Number.POSITIVE_INFINITY, settings.tasksMost)
    const lose = (system: System, error: unknown): void => {
      // There is nothing to compare with.
      if (system === millrace) throw error
      const reason = error instanceof Error ? error.message : String(error)
      progress(`crawl-dispatch ${variant} ${durability} ${system.name} failed: ${reason}`)
      failures.push({ system, reason })
    }
    try {
      for (const system of present) {
        try {
          const entry = await hire(system, { folder: join(folder, system.name), durability, settings })
          entries.push({ ...entry, tasks: Math.min(most, system.warmUp) })
        } catch (error) {
          lose(system, error)
        }
      }
      const size = payloadBytes === undefined ? {} : { payloadBytes }
      for (let round = 0; round <= runs; round++) {
        const order = entries.map((_, i) => entries[(i + round) % entries.length]!)
        for (const entry of order) {
          const { name } = entry.system
          try {
            const pass = passOf(entry, { batch, inFlight, ...size })
            const { cpu, seconds } = await Promise.race([pass, entry.failed])
            const rate = entry.tasks / seconds
            const label = round === 0 ? "warm-up" : `round ${round} of ${runs}`
            progress(
              `crawl-dispatch ${variant} ${durability} ${label} ${name}: ${entry.tasks} tasks, ${seconds.toFixed(2)} s, ${Math.round(rate)} tasks/s, CPU us/task ${((cpu * 1e6) / entry.tasks).toFixed(2)}, load ${loadavg()[0]!.toFixed(1)}`
            )
            if (round > 0) {
              entry.rates.push(rate)
              entry.cpuSeconds += cpu
              entry.done += entry.tasks
            }
            entry.tasks = tasksOf(rate, most)
          } catch (error) {
            lose(entry.system, error)
            entries = entries.filter((other) => other !== entry)
            await entry.release().catch(() => {})
          }
        }
      }
    } finally {
      for (const entry of entries) await entry.release().catch(() => {})
    }
    const own = entries[0]!.rates
    const rows = entries.map(({ cpuSeconds, done, rates, system }) => ({
      work: "crawl-dispatch",
      variant,
      durability,
      workers,
      system: system.name,
      ...spread(rates, 0),
      unit: "tasks/s" as const,
      runs,
      cpu: Number(((cpuSeconds * 1e6) / done).toFixed(2)),
      ratio: spread(
        rates.map((rate, i) => own[i]! / rate),
        2
      ).median
    }))
    return { rows, failures }
  })

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
        const { failures, rows } = await runPair(able, variant, durability, options.runs, options.tasks)
        if (failures.length > 0) process.exitCode = 1
        measurements.push(...rows)
        const lines = rows.map((r) => [r.system, r.median, r.min, r.max, r.unit, r.runs, r.cpu, r.ratio])
        const none = without.length === 0 ? "" : `\nhas no such thing: ${without.join(", ")}`
        notes.push(
          `crawl-dispatch ${variant}, ${durability}, ${variants[variant]!.workers} workers\n${table(head, lines)}${none}${failures.map(({ reason, system }) => `\nfailed, no figure: ${system.name}: ${reason}`).join("")}`
        )
      }
    }
    const versions = present.map((system) => system.version()).filter((version) => version !== "")
    notes.push(`peers     ${versions.length === 0 ? "none" : [...new Set(versions)].join(", ")}`)
    return { measurements, notes }
  }
}
