/**
 * Work `lanes`: how much of what 1,000 lanes with a gap of 50 ms allow (20,000 leases a second) is served by 1, 2 and 4
 * worker processes, and what a lease costs beside 1,000,000 waiting tasks in 10,000 lanes. All over loopback TCP.
 *
 * Asserted, besides that every task is done once: no two grants of a lane are less than 50 ms apart by the engine's clock,
 * which counts whole milliseconds. The smallest gap by the machine's clock, and at the start of the handlers, is printed.
 */
import { type Child, type ProfileTo, withChildren } from "./harness/children.ts"
import { hottestTables } from "./harness/profile.ts"
import { type Measurement, percentile, progress, spread } from "./harness/report.ts"
import type { Work, WorkOptions, WorkReport } from "./harness/work.ts"
import type { Grants } from "./millrace/lane-manager.ts"
import type { Fill } from "./millrace/lane-master.ts"
import { gapMs } from "./millrace/lane-queue.ts"
import { shownRoles, startProcesses } from "./millrace/processes.ts"

const sites = 1_000
const pagesPerSite = 200
/** Among all works: two seconds a run. */
const pagesShort = 40
const crews: Readonly<Record<string, number>> = { "gap50-1": 1, "gap50-2": 2, "gap50-4": 4 }

const waiting: Fill = { sites: 10_000, pagesPerSite: 100 }
const samplesDefault = 5_000
const leaseVariants = ["lease-empty-p50", "lease-full-p50", "lease-empty-p99", "lease-full-p99"] as const

const common = { work: "lanes", durability: "memory", system: "millrace" } as const

/** The smallest time between the starts of two handlers of one site. */
const smallestStartGapMs = (starts: ReadonlyArray<Float64Array>): number => {
  const bySite = Array.from({ length: sites }, (): Array<number> => [])
  for (const some of starts) for (let i = 0; i < some.length; i += 2) bySite[some[i]!]!.push(some[i + 1]!)
  let smallest = Number.POSITIVE_INFINITY
  for (const times of bySite) {
    times.sort((a, b) => a - b)
    for (let i = 1; i < times.length; i++) smallest = Math.min(smallest, times[i]! - times[i - 1]!)
  }
  return smallest
}

const runGap = (
  variant: string,
  profile: ProfileTo | undefined,
  options: WorkOptions
): Promise<{ readonly measurement: Measurement; readonly note: string }> =>
  withChildren(async (start) => {
    const workers = crews[variant]!
    const pagesDefault = options.short ? pagesShort : pagesPerSite
    const pages = options.tasks === undefined ? pagesDefault : Math.max(2, Math.ceil(options.tasks / sites))
    const processes = await startProcesses(start, workers, profile, "lane-")
    const { manager, master } = processes
    const rates: Array<number> = []
    let [smallest, smallestMachine, smallestStart] = [1, 1, 1].map(() => Number.POSITIVE_INFINITY)
    const startsOf = (): Promise<ReadonlyArray<Float64Array>> =>
      Promise.all(processes.workers.map((child: Child) => child.call<Float64Array>("starts")))
    for (let run = 0; run <= options.runs; run++) {
      await master.call("crawl", { sites, pagesPerSite: run === 0 ? 20 : pages } satisfies Fill, 600_000)
      const seen = await manager.call<Grants>("grants")
      const starts = await startsOf()
      if (run === 0) continue
      if (seen.smallestGapMs < gapMs) throw new Error(`two grants of a lane were ${seen.smallestGapMs} ms apart`)
      if (seen.grants !== sites * pages) throw new Error(`${seen.grants} grants of ${sites * pages} tasks`)
      // Between its first and its last page a site has one gap less than pages.
      const rate = (seen.grants - sites) / seen.seconds
      progress(`lanes ${variant} run ${run} of ${options.runs}: ${Math.round(rate)} tasks/s`)
      rates.push(rate)
      smallest = Math.min(smallest!, seen.smallestGapMs)
      smallestMachine = Math.min(smallestMachine!, seen.smallestMachineGapMs)
      smallestStart = Math.min(smallestStart!, smallestStartGapMs(starts))
    }
    const { cpuSeconds } = await manager.usage()
    const allowed = (sites * 1_000) / gapMs
    const figures = spread(rates, 0)
    const note = [
      `${variant}: ${sites} lanes, ${pages} tasks each, gap ${gapMs} ms, ${workers} workers: ` +
        `${((100 * figures.median) / allowed).toFixed(1)} % of ${allowed}/s`,
      `smallest gap: ${smallest} ms by the engine's clock, ${smallestMachine!.toFixed(2)} ms by the machine's, ` +
        `${smallestStart!.toFixed(2)} ms between two starts of handlers; manager ${cpuSeconds.toFixed(1)} s of CPU`
    ].join("\n")
    return { measurement: { ...common, variant, workers, ...figures, unit: "tasks/s", runs: options.runs }, note }
  })

const runLeases = (profile: ProfileTo | undefined, options: WorkOptions): Promise<WorkReport> =>
  withChildren(async (start) => {
    const samples = options.tasks ?? samplesDefault
    const { master } = await startProcesses(start, 0, profile, "lane-")
    progress(`lanes lease: putting ${waiting.sites * waiting.pagesPerSite} tasks`)
    await master.call("fill", waiting, 600_000)
    const times = { empty: [] as Float64Array[], full: [] as Float64Array[] }
    // Turn by turn: what else the machine does meets both alike.
    for (let run = 0; run <= options.runs; run++) {
      for (const which of ["empty", "full"] as const) {
        const some = await master.call<Float64Array>("leases", { full: which === "full", samples }, 600_000)
        const [p50, p99] = [percentile(some, 0.5), percentile(some, 0.99)]
        progress(`lanes lease ${which} run ${run}: p50 ${p50.toFixed(3)} ms, p99 ${p99.toFixed(3)} ms`)
        if (run > 0) times[which].push(some)
      }
    }
    const measurements = leaseVariants.map((variant): Measurement => {
      const share = variant.endsWith("p50") ? 0.5 : 0.99
      const all = times[variant.includes("full") ? "full" : "empty"]
      const figures = spread(
        all.map((some) => percentile(some, share)),
        3
      )
      return { ...common, variant, workers: 0, ...figures, unit: "ms", runs: options.runs }
    })
    const of = (name: string): number => measurements.find(({ variant }) => variant === name)!.median
    const [p50, p99] = ["p50", "p99"].map((p) => (of(`lease-full-${p}`) / of(`lease-empty-${p}`)).toFixed(2))
    const notes = [
      `lease by hand beside 1,000,000 tasks in 10,000 lanes: ${p50} x an empty queue's at p50, ${p99} x at p99`
    ]
    return { measurements, notes }
  })

export const lanes: Work = {
  name: "lanes",
  variants: [...Object.keys(crews), ...leaseVariants],
  shortRuns: 1,
  profiled: true,
  run: async (options) => {
    const measurements: Array<Measurement> = []
    const notes: Array<string> = []
    for (const variant of Object.keys(crews).filter((name) => (options.variant ?? name) === name)) {
      const profile = options.profile && { ...options.profile, name: `${options.profile.name}-${variant}` }
      const { measurement, note } = await runGap(variant, profile, options)
      measurements.push(measurement)
      // Profiles are written when the processes end.
      notes.push(note, ...hottestTables(profile, shownRoles))
    }
    if (options.variant === undefined || options.variant.startsWith("lease")) {
      const profile = options.profile && { ...options.profile, name: `${options.profile.name}-lease` }
      const report = await runLeases(profile, options)
      measurements.push(
        ...report.measurements.filter(({ variant }) => options.variant === undefined || options.variant === variant)
      )
      notes.push(...report.notes, ...hottestTables(profile, ["manager", "master"]))
    }
    return { measurements, notes }
  }
}
