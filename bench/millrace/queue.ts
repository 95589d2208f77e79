/** The queue that all works on Millrace use, and how its workers are driven. */
import * as Schema from "effect/Schema"
import * as TaskQueue from "../../src/TaskQueue.ts"

export const Urls = TaskQueue.make("bench.urls", {
  payload: Schema.Struct({ url: Schema.String }),
  result: Schema.Struct({ url: Schema.String, ok: Schema.Boolean })
})

/** As above; the result carries when the handler began, on the machine's monotonic clock. */
export const Probes = TaskQueue.make("bench.probes", {
  payload: Schema.Struct({ url: Schema.String }),
  result: Schema.Struct({ url: Schema.String, startedAtMs: Schema.Number })
})

const lanes = 10_000

/** Two queues that differ in what waits on them. */
const laned = (name: string) =>
  TaskQueue.make(name, {
    payload: Schema.Struct({ url: Schema.String }),
    key: ({ url }) => `lane-${indexOf(url) % lanes}`,
    policy: { capacity: 100_000_000 }
  })
export const Backlog = laned("bench.backlog")
export const Empty = laned("bench.empty")

/** 64 handlers at a time; more are leased ahead, so that a handler that ends at once never waits for the network. */
export const workerOptions = { concurrency: 64, prefetch: 1_024 } as const

const urlBytes = 60
const urlBase = "https://images.example.org/"

/** The URL of a task: exactly 60 bytes, and another one for every task of every pass. */
export const urlOf = (pass: number, index: number): string => {
  const tail = `/${String(index).padStart(9, "0")}.png`
  const url = `${urlBase}${String(pass).padStart(urlBytes - urlBase.length - tail.length, "0")}${tail}`
  if (url.length !== urlBytes) throw new Error(`a URL of ${url.length} bytes: ${url}`)
  return url
}

/** The index in a URL made by `urlOf`. Compare the whole URL as well. */
export const indexOf = (url: string): number => Number(url.slice(-13, -4))
