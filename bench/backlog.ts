/**
 * Work `backlog`: the round trip of a `lease` beside a million waiting tasks, and on a queue that is otherwise empty.
 *
 * Each sample puts one task, leases one (this is timed) and commits it, in turns on both queues, so that whatever else the
 * machine does meets both. Manager and master are processes of their own over loopback TCP; the keys are 10,000 lanes.
 */
import { withChildren } from "./harness/children.ts"
import { hottestTables } from "./harness/profile.ts"
import { type Measurement, percentile, progress, spread } from "./harness/report.ts"
import type { Work } from "./harness/work.ts"
import type { LeaseTimes } from "./millrace/master.ts"
import { startProcesses } from "./millrace/processes.ts"

const samples = 2_000
const backlogDefault = 1_000_000
const fillMs = 120_000
const percentiles = { p50: 0.5, p99: 0.99 } as const
const queues = ["empty", "1m"] as const

export const backlog: Work = {
  name: "backlog",
  variants: queues.flatMap((queue) => Object.keys(percentiles).map((name) => `${queue}-${name}`)),
  shortRuns: 3,
  profiled: true,
  run: async (options) => {
    const waiting = options.tasks ?? backlogDefault
    const runs: Array<Record<(typeof queues)[number], Float64Array>> = []
    await withChildren(async (start) => {
      const { master } = await startProcesses(start, 0, options.profile)
      const seconds = await master.call<number>("fillBacklog", { tasks: waiting }, fillMs)
      progress(`backlog: ${waiting} tasks put in ${seconds.toFixed(1)} s`)
      for (let run = 0; run <= options.runs; run++) {
        const { backlog, empty } = await master.call<LeaseTimes>("leaseLatency", { samples, waiting })
        const label = run === 0 ? "warm-up" : `run ${run} of ${options.runs}`
        const [a, b] = [percentile(empty, 0.5), percentile(backlog, 0.5)]
        progress(`backlog ${label}: lease p50 ${a.toFixed(3)} ms empty, ${b.toFixed(3)} ms beside ${waiting}`)
        if (run > 0) runs.push({ empty, "1m": backlog })
      }
    })
    const measurements = queues.flatMap((queue) =>
      Object.entries(percentiles)
        .filter(([name]) => options.variant === undefined || options.variant === `${queue}-${name}`)
        .map(
          ([name, share]): Measurement => ({
            work: "backlog",
            variant: `${queue}-${name}`,
            durability: "memory",
            workers: 0,
            system: "millrace",
            ...spread(
              runs.map((times) => percentile(times[queue], share)),
              3
            ),
            unit: "ms",
            runs: options.runs
          })
        )
    )
    const notes = [
      `backlog: round trip of one lease, ${samples} samples a run on each queue, ${waiting} tasks of 10,000 lanes wait`,
      ...hottestTables(options.profile, ["manager", "master"])
    ]
    return { measurements, notes }
  }
}
