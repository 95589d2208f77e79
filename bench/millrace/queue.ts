/** The queue that all works on Millrace use, and how its workers are driven. */
import process from "node:process"
import * as Schema from "effect/Schema"
import * as TaskQueue from "../../src/TaskQueue.ts"
import { indexOf } from "../harness/urls.ts"

export { indexOf, urlOf } from "../harness/urls.ts"

export const Urls = TaskQueue.make("bench.urls", {
  payload: Schema.Struct({ url: Schema.String }),
  result: Schema.Struct({ url: Schema.String, ok: Schema.Boolean })
})

/** As above, with more in the payload. */
export const Pages = TaskQueue.make("bench.pages", {
  payload: Schema.Struct({ url: Schema.String, body: Schema.String }),
  result: Schema.Struct({ url: Schema.String, ok: Schema.Boolean })
})

/** As above; the result carries when the handler began, on the machine's monotonic clock. */
export const Probes = TaskQueue.make("bench.probes", {
  payload: Schema.Struct({ url: Schema.String }),
  result: Schema.Struct({ url: Schema.String, startedAtMs: Schema.Number })
})

const lanes = Number(process.env["MILLRACE_BENCH_LANES"] ?? 10_000)

/** Two queues that differ in what waits on them. */
const laned = (name: string) =>
  TaskQueue.make(name, {
    payload: Schema.Struct({ url: Schema.String }),
    key: ({ url }) => `lane-${indexOf(url) % lanes}`,
    policy: { capacity: 100_000_000 }
  })
export const Backlog = laned("bench.backlog")
export const Empty = laned("bench.empty")

/**
 * 64 handlers at a time if the environment does not say otherwise; more are leased ahead, so that a handler that ends at
 * once never waits for the network.
 */
export const workerOptions = {
  concurrency: Number(process.env["MILLRACE_BENCH_CONCURRENCY"] ?? 64),
  prefetch: 1_024
} as const
