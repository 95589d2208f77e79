/**
 * Work `latency`: from the time at which a task is due in the master to the first line of its handler in a worker process
 * (`start`), and to its outcome in the master (`outcome`). One probe at a time, on a manager with nothing else to do
 * (`idle`), and on one with half of the load that it can bear (`load50`).
 *
 * The load comes from a process of its own, on another queue of the same manager, to the same workers. Before each run it
 * puts as fast as it can, one call each with 256 under way, and then half as many a second in an open loop, which does not
 * wait for anything. All processes read the machine's monotonic clock, so all are on one machine.
 */
import { loadavg } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { withChildren } from "./harness/children.ts"
import { withFolder } from "./harness/folder.ts"
import { everyMsAfter, type ProbeOptions, type ProbeTimes, warmUp } from "./harness/probes.ts"
import { hottestTables } from "./harness/profile.ts"
import { type Durability, type Measurement, percentile, progress, spread, table } from "./harness/report.ts"
import { variants as passes } from "./harness/variants.ts"
import type { Work } from "./harness/work.ts"
import type { Offered, PassResult } from "./millrace/master.ts"
import { type Processes, shownRoles, startProcesses, storeEnvironment } from "./millrace/processes.ts"

const workers = 2
const samplesDefault = 1_000
const samplesShort = 400
const durabilitiesDefault: ReadonlyArray<Durability> = ["memory", "fsync"]

const states = ["idle", "load50"] as const
type State = (typeof states)[number]
const ends = ["start", "outcome"] as const
type End = (typeof ends)[number]
/** A percentile of a run needs this many samples beyond it; with fewer, it is that of all runs together. */
const samplesBeyond = 5
const percentiles = { p50: 0.5, p99: 0.99, "p99.9": 0.999 } as const

const fullSpeedTasks = 40_000
const share = 0.5
/** The load is there this long before the first probe and after the last. */
const marginMs = 300
/** Than planned, on a machine that is busy with other things; then the run fails. */
const longerAtMost = 4

interface Crew {
  readonly durability: Durability
  readonly processes: Processes
  readonly runs: Record<State, Array<ProbeTimes>>
  readonly load: Array<Load>
  everyMs: number
}

interface Load {
  readonly fullPerSecond: number
  readonly putsPerSecond: number
  readonly donePerSecond: number
}

interface Probed {
  readonly times: ProbeTimes
  /** How long each of manager, workers and master could have run and another program did, of the time of the probes; their sum. */
  readonly kept: number
}

const probes = async ({ manager, master, workers }: Processes, options: ProbeOptions): Promise<Probed> => {
  const keptMs = async (): Promise<number> => {
    const each = await Promise.all([manager, master, ...workers].map((child) => child.call<number>("kept")))
    return each.reduce((sum, ms) => sum + ms, 0)
  }
  const before = await keptMs()
  const times = await master.call<ProbeTimes>("probes", options, 120_000)
  return { times, kept: ((await keptMs()) - before) / (times.untilMs - times.fromMs) }
}

/** Probes while the load is there; what the load was. */
const underLoad = async (processes: Processes, options: ProbeOptions): Promise<Probed & { readonly load: Load }> => {
  const generator = processes.generator!
  const { batch, inFlight } = passes["single"]!
  const full = { tasks: fullSpeedTasks, batch, inFlight }
  const fullPerSecond = full.tasks / (await generator.call<PassResult>("crawlDispatch", full)).seconds
  const perSecond = Math.round(fullPerSecond * share)
  const seconds = (options.samples * options.everyMs + 2 * marginMs) / 1_000
  const offer = { perSecond, most: Math.ceil(perSecond * seconds * longerAtMost) }
  const offering = generator.call<Offered>("offer", offer, 120_000)
  const probing = generator
    .call("offered")
    .then(() => sleep(marginMs))
    .then(() => probes(processes, options))
    .finally(() => sleep(marginMs).then(() => generator.call("enough")))
  const [{ endedMs, fromMs, tasks, untilMs }, { kept, times }] = await Promise.all([offering, probing])
  if (times.fromMs < fromMs || times.untilMs > untilMs) throw new Error("the load was not there all the time")
  const during = (toMs: number): number => (tasks / (toMs - fromMs)) * 1_000
  return { times, kept, load: { fullPerSecond, putsPerSecond: during(untilMs), donePerSecond: during(endedMs) } }
}

/** From when they were due, and from the call: what lies between is what this process was late. */
export const shown = (times: ProbeTimes): string =>
  ends
    .map((end) => {
      const each = (values: Float64Array): string =>
        Object.values(percentiles)
          .map((share) => percentile(values, share).toFixed(3))
          .join(" ")
      const { [end]: due, late } = times
      return `${end} ${each(due.slice())}, from the call ${each(due.map((ms, i) => ms - late[i]!))}`
    })
    .join("; ")

export const measured = (runs: ReadonlyArray<ProbeTimes>, end: End, share: number) => {
  const each = spread(
    runs.map((times) => percentile(times[end].slice(), share)),
    3
  )
  if (runs[0]![end].length * (1 - share) >= samplesBeyond) return each
  const all = Float64Array.from(runs.flatMap((times) => [...times[end]]))
  return { ...each, median: Number(percentile(all, share).toFixed(3)) }
}

export const variants = states.flatMap((state) =>
  ends.flatMap((end) =>
    Object.entries(percentiles).map(([name, share]) => ({ name: `${state}-${end}-${name}`, state, end, share }))
  )
)

export const latency: Work = {
  name: "latency",
  variants: variants.map(({ name }) => name),
  shortRuns: 1,
  profiled: true,
  run: (options) => {
    const samples = options.tasks ?? (options.short ? samplesShort : samplesDefault)
    const chosen = variants.filter(({ name }) => options.variant === undefined || options.variant === name)
    const within = [...new Set(chosen.map(({ state }) => state))]
    const { profile } = options
    const crews: Array<Crew> = []
    return withFolder(async (folder) => {
      await withChildren(async (start) => {
        for (const durability of options.durabilities ?? durabilitiesDefault) {
          const named = profile && { ...profile, name: `${profile.name}-${durability}` }
          const store = storeEnvironment(durability, join(folder, durability))
          const generator = within.includes("load50")
          const processes = await startProcesses(start, workers, named, "", store, { generator })
          crews.push({ durability, processes, runs: { idle: [], load50: [] }, load: [], everyMs: 0 })
        }
        // Run 0 is the warm-up.
        for (let run = 0; run <= options.runs; run++) {
          const label = run === 0 ? "warm-up" : `run ${run} of ${options.runs}`
          for (const crew of crews) {
            const { durability, load, processes, runs } = crew
            const due = run === 0 ? warmUp : { samples, everyMs: crew.everyMs }
            for (const state of within) {
              const one =
                state === "idle"
                  ? { ...(await probes(processes, due)), load: undefined }
                  : await underLoad(processes, due)
              if (run > 0) runs[state].push(one.times)
              else crew.everyMs = Math.max(crew.everyMs, everyMsAfter(one.times))
              if (run > 0 && one.load !== undefined) load.push(one.load)
              progress(
                `latency ${state} ${durability} ${label}: p50 p99 p99.9 of ${shown(one.times)}; kept from running ${Math.round(one.kept * 100)} %, load ${loadavg()[0]!.toFixed(1)}`
              )
              if (one.load === undefined) continue
              const { donePerSecond, fullPerSecond, putsPerSecond } = one.load
              progress(
                `  full speed ${Math.round(fullPerSecond)}, put ${Math.round(putsPerSecond)}, done ${Math.round(donePerSecond)} tasks/s`
              )
            }
          }
        }
      })
      const measurements = crews.flatMap(({ durability, runs }) =>
        chosen.map(
          ({ end, name, share, state }): Measurement => ({
            work: "latency",
            variant: name,
            durability,
            workers,
            system: "millrace",
            ...measured(runs[state], end, share),
            unit: "ms",
            runs: options.runs
          })
        )
      )
      const notes = [
        `latency: ${samples} probes a run, from when each was due; one every ${crews.map(({ durability, everyMs }) => `${everyMs} ms (${durability})`).join(", ")}`
      ]
      const loads = crews
        .filter(({ load }) => load.length > 0)
        .map(({ durability, load }) => {
          const full = spread(
            load.map(({ fullPerSecond }) => fullPerSecond),
            0
          ).median
          const put = spread(
            load.map(({ putsPerSecond }) => putsPerSecond),
            0
          ).median
          return [durability, full, put, Number((put / full).toFixed(2))]
        })
      if (loads.length > 0) {
        notes.push(
          `load50, median of the runs\n${table(["durability", "full tasks/s", "put tasks/s", "share"], loads)}`
        )
      }
      // Profiles are written when the processes end.
      for (const { durability } of crews) {
        notes.push(...hottestTables(profile && { ...profile, name: `${profile.name}-${durability}` }, shownRoles))
      }
      return { measurements, notes }
    })
  }
}
