/**
 * `--peers`: work `latency` on Millrace and on other systems, without load. Every round has the probes of each system, in
 * an order that turns by one each round; the first round is the warm-up. Before it each system has many more: what runs on a
 * virtual machine is compiled then, as it is where it has been in use for a minute.
 */
import { loadavg } from "node:os"
import { join } from "node:path"
import { withChildren } from "../harness/children.ts"
import { withFolder } from "../harness/folder.ts"
import { everyMsAfter, type ProbeTimes, warmUp } from "../harness/probes.ts"
import { type Durability, type Measurement, percentile, progress, spread, table } from "../harness/report.ts"
import { variants as passes } from "../harness/variants.ts"
import type { Work, WorkReport } from "../harness/work.ts"
import { measured, variants as ownVariants, shown } from "../latency.ts"
import { systems } from "./peers.ts"
import type { Crew, System } from "./system.ts"

const samplesDefault = 500
const longWarmUp = { samples: 2_000, everyMs: 2 }
const durabilitiesDefault: ReadonlyArray<Durability> = ["memory", "fsync"]
const settings = passes["single"]!
const variants = ownVariants.filter(({ share, state }) => state === "idle" && share < 0.999)

interface Entry {
  readonly system: System
  readonly crew: Crew
  readonly runs: Array<ProbeTimes>
  everyMs: number
}

const runAll = (
  present: ReadonlyArray<System>,
  durability: Durability,
  runs: number,
  samples: number
): Promise<ReadonlyArray<Entry>> =>
  withFolder((folder) =>
    withChildren(async (start) => {
      const entries: Array<Entry> = []
      for (const system of present) {
        const through = async (port: number) => port
        const context = { start, folder: join(folder, system.name), durability, settings, through, probes: true }
        const crew = await system.start(context)
        await crew.probes!(longWarmUp)
        entries.push({ system, crew, runs: [], everyMs: 0 })
      }
      for (let round = 0; round <= runs; round++) {
        for (let i = 0; i < entries.length; i++) {
          const entry = entries[(i + round) % entries.length]!
          const { crew, everyMs, runs: times, system } = entry
          const one = await crew.probes!(round === 0 ? warmUp : { samples, everyMs })
          const label = round === 0 ? "warm-up" : `round ${round} of ${runs}`
          progress(
            `latency idle ${durability} ${label} ${system.name}: p50 p99 p99.9 of ${shown(one)}, load ${loadavg()[0]!.toFixed(1)}`
          )
          if (round > 0) times.push(one)
          else entry.everyMs = everyMsAfter(one)
        }
      }
      return entries
    })
  )

const head = ["system", "median", "min", "max", "unit", "runs", "system/millrace"]

export const latencyPeers: Work = {
  name: "latency",
  variants: variants.map(({ name }) => name),
  run: async (options): Promise<WorkReport> => {
    const samples = options.tasks ?? samplesDefault
    const measurements: Array<Measurement> = []
    const notes: Array<string> = []
    const chosen = variants.filter(({ name }) => options.variant === undefined || options.variant === name)
    const present: Array<System> = []
    for (const system of systems) {
      if (options.systems?.includes(system.name) === false) continue
      const why = system.missing()
      if (why === undefined) present.push(system)
      else notes.push(`skipped: ${system.name}: ${why} (bench/setup.sh)`)
    }
    for (const durability of options.durabilities ?? durabilitiesDefault) {
      const able = present.filter((s) => s.probes === true && s.durabilities.includes(durability))
      const without = present.filter((s) => !able.includes(s)).map(({ name }) => name)
      const entries = await runAll(able, durability, options.runs, samples)
      for (const { end, name, share } of chosen) {
        const rounds = entries.map(({ runs }) => runs.map((times) => percentile(times[end].slice(), share)))
        const rows = entries.map(({ runs, system }, i): Measurement & { readonly ratio: number } => {
          const each = rounds[i]!.map((value, round) => value / rounds[0]![round]!)
          const { name: of } = system
          const common = { work: "latency", variant: name, durability, workers: settings.workers, system: of } as const
          const ratio = spread(each, 2).median
          return { ...common, ...measured(runs, end, share), unit: "ms", runs: options.runs, ratio }
        })
        measurements.push(...rows)
        const lines = rows.map((r) => [r.system, r.median, r.min, r.max, r.unit, r.runs, r.ratio])
        notes.push(`latency ${name}, ${durability}, ${settings.workers} workers\n${table(head, lines)}`)
      }
      if (without.length > 0) notes.push(`latency, ${durability}: has no such thing: ${without.join(", ")}`)
    }
    const versions = present.map((system) => system.version()).filter((version) => version !== "")
    notes.push(`peers     ${versions.length === 0 ? "none" : [...new Set(versions)].join(", ")}`)
    return { measurements, notes }
  }
}
