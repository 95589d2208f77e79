/**
 * Work `latency`: from the master's call of `put` to the first line of the handler in a worker process, one task at a
 * time on an idle manager. Both ends read the machine's monotonic clock, so both are on one machine.
 */
import { withChildren } from "./harness/children.ts"
import { hottestTables } from "./harness/profile.ts"
import { type Measurement, percentile, progress, spread } from "./harness/report.ts"
import type { Work } from "./harness/work.ts"
import { shownRoles, startProcesses } from "./millrace/processes.ts"

const workers = 2
const samplesDefault = 1_000
const pauseMs = 1
const percentiles = { "idle-p50": 0.5, "idle-p99": 0.99 } as const

export const latency: Work = {
  name: "latency",
  variants: Object.keys(percentiles),
  shortRuns: 3,
  profiled: true,
  run: async (options) => {
    const samples = options.tasks ?? samplesDefault
    const runs: Array<Float64Array> = []
    await withChildren(async (start) => {
      const { master } = await startProcesses(start, workers, options.profile)
      for (let run = 0; run <= options.runs; run++) {
        const times = await master.call<Float64Array>("latency", { samples, pauseMs })
        const [p50, p99] = [percentile(times, 0.5), percentile(times, 0.99)]
        const label = run === 0 ? "warm-up" : `run ${run} of ${options.runs}`
        progress(`latency ${label}: p50 ${p50.toFixed(3)} ms, p99 ${p99.toFixed(3)} ms`)
        if (run > 0) runs.push(times)
      }
    })
    const measurements = Object.entries(percentiles)
      .filter(([variant]) => options.variant === undefined || options.variant === variant)
      .map(
        ([variant, share]): Measurement => ({
          work: "latency",
          variant,
          durability: "memory",
          workers,
          system: "millrace",
          ...spread(
            runs.map((times) => percentile(times, share)),
            3
          ),
          unit: "ms",
          runs: options.runs
        })
      )
    const note = `latency: put -> handler start, ${samples} tasks a run, one at a time, ${pauseMs} ms apart`
    return { measurements, notes: [note, ...hottestTables(options.profile, shownRoles)] }
  }
}
