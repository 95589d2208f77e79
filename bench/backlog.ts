/**
 * Work `backlog`: the round trip of a `lease` beside many waiting tasks, and on a queue that is otherwise empty.
 *
 * Each sample puts one task, leases one (this is timed) and commits it, in turns on both queues, so that whatever else the
 * machine does meets both. Manager and master are processes of their own over loopback TCP. A million tasks in 10,000 lanes, and by name also a million in 100,000 lanes and
 * ten million in 10,000.
 */
import { withChildren } from "./harness/children.ts"
import { hottestTables } from "./harness/profile.ts"
import { type Measurement, percentile, progress, spread } from "./harness/report.ts"
import type { Work, WorkOptions, WorkReport } from "./harness/work.ts"
import type { LeaseTimes } from "./millrace/master.ts"
import { startProcesses } from "./millrace/processes.ts"

const samples = 2_000
const fillMs = 600_000
const percentiles = { p50: 0.5, p99: 0.99 } as const
const queues = ["empty", "full"] as const
type Queue = (typeof queues)[number]

const sizes: Readonly<Record<string, { readonly waiting: number; readonly lanes: number }>> = {
  "1m": { waiting: 1_000_000, lanes: 10_000 },
  "1m-100k": { waiting: 1_000_000, lanes: 100_000 },
  "10m": { waiting: 10_000_000, lanes: 10_000 }
}
const sizeDefault = "1m"

const variants = Object.keys(sizes).flatMap((size) =>
  queues.flatMap((queue) =>
    Object.entries(percentiles).map(([name, share]) => ({ name: `${size}-${queue}-${name}`, size, queue, share }))
  )
)

const runSize = async (size: string, options: WorkOptions): Promise<WorkReport> => {
  const { lanes } = sizes[size]!
  const waiting = options.tasks ?? sizes[size]!.waiting
  const profile = options.profile && { ...options.profile, name: `${options.profile.name}-${size}` }
  const runs: Array<Record<Queue, Float64Array>> = []
  await withChildren(async (start) => {
    const { master } = await startProcesses(start, 0, profile, "", {}, { lanes })
    const seconds = await master.call<number>("fillBacklog", { tasks: waiting }, fillMs)
    progress(`backlog ${size}: ${waiting} tasks put in ${seconds.toFixed(1)} s`)
    for (let run = 0; run <= options.runs; run++) {
      const { backlog, empty } = await master.call<LeaseTimes>("leaseLatency", { samples, waiting })
      const label = run === 0 ? "warm-up" : `run ${run} of ${options.runs}`
      const [a, b] = [percentile(empty, 0.5), percentile(backlog, 0.5)]
      progress(`backlog ${size} ${label}: lease p50 ${a.toFixed(3)} ms empty, ${b.toFixed(3)} ms beside ${waiting}`)
      if (run > 0) runs.push({ empty, full: backlog })
    }
  })
  const measured = (queue: Queue, share: number) =>
    spread(
      runs.map((times) => percentile(times[queue], share)),
      3
    )
  const measurements = variants
    .filter((variant) => variant.size === size && (options.variant ?? variant.name) === variant.name)
    .map(
      ({ name, queue, share }): Measurement => ({
        work: "backlog",
        variant: name,
        durability: "memory",
        workers: 0,
        system: "millrace",
        ...measured(queue, share),
        unit: "ms",
        runs: options.runs
      })
    )
  const ratio = (share: number): string => (measured("full", share).median / measured("empty", share).median).toFixed(2)
  const note =
    `backlog ${size}: round trip of one lease, ${samples} samples a run on each queue, beside ${waiting} tasks in ` +
    `${lanes} lanes: ${ratio(0.5)} x an empty queue's at p50, ${ratio(0.99)} x at p99`
  return { measurements, notes: [note, ...hottestTables(profile, ["manager", "master"])] }
}

export const backlog: Work = {
  name: "backlog",
  variants: variants.map(({ name }) => name),
  shortRuns: 3,
  profiled: true,
  run: async (options) => {
    const wanted = variants.filter(({ name, size }) =>
      options.variant === undefined ? size === sizeDefault : name === options.variant
    )
    const reports: Array<WorkReport> = []
    for (const size of new Set(wanted.map(({ size }) => size))) reports.push(await runSize(size, options))
    return {
      measurements: reports.flatMap(({ measurements }) => measurements),
      notes: reports.flatMap(({ notes }) => notes)
    }
  }
}
