/**
 * Work `memory`: what the engine holds per waiting task with a payload of 200 bytes, at 1 and 10 million of them.
 *
 * `index` is the heap and the array buffers less the payload bytes, `rss` what the process grew by. Each run is a process
 * of its own; durability does not matter to it, for no store is there.
 */
import { withChildren } from "./harness/children.ts"
import { type Measurement, progress, spread } from "./harness/report.ts"
import type { Work } from "./harness/work.ts"
import type { Filled, FillOptions } from "./millrace/engine.ts"

const payloadBytes = 200
const sizes: Readonly<Record<string, number>> = { "1m": 1_000_000, "10m": 10_000_000 }
/** Ten million take minutes: they are measured when they are asked for by name. */
const sizeDefault = "1m"
const measures = { index: "indexBytes", rss: "rssBytes" } as const
/** Memory moves little from run to run, and ten million tasks take their time. */
const runsMax = 3
const fillMs = 900_000

export const memory: Work = {
  name: "memory",
  variants: Object.keys(sizes).flatMap((size) => Object.keys(measures).map((measure) => `${size}-${measure}`)),
  shortRuns: 1,
  run: async (options) => {
    const measurements: Array<Measurement> = []
    const runs = Math.min(runsMax, options.runs)
    for (const [size, count] of Object.entries(sizes)) {
      const wanted = Object.entries(measures).filter(
        ([measure]) =>
          options.variant === `${size}-${measure}` || (options.variant === undefined && size === sizeDefault)
      )
      if (wanted.length === 0) continue
      const tasks = options.tasks ?? count
      const filled: Array<Filled> = []
      for (let run = 1; run <= runs; run++) {
        const script = new URL("./millrace/engine.ts", import.meta.url)
        const env = { NODE_OPTIONS: "--max-old-space-size=16384" }
        const fill: FillOptions = { tasks, payloadBytes }
        const one = await withChildren((start) =>
          start({ name: "engine", script, env }).call<Filled>("fill", fill, fillMs)
        )
        filled.push(one)
        const each = (bytes: number): string => (bytes / tasks).toFixed(1)
        progress(
          `memory ${size} run ${run} of ${runs}: ${each(one.indexBytes)} bytes of index, ${each(one.rssBytes)} of RSS a task, filled in ${one.seconds.toFixed(1)} s`
        )
      }
      for (const [measure, field] of wanted) {
        measurements.push({
          work: "memory",
          variant: `${size}-${measure}`,
          durability: "memory",
          workers: 0,
          system: "millrace",
          ...spread(
            filled.map((one) => one[field] / tasks),
            1
          ),
          unit: "bytes/task",
          runs
        })
      }
    }
    return { measurements, notes: [`memory: ${payloadBytes} bytes of payload a task, one queue, no options, no store`] }
  }
}
