import process from "node:process"
import { ExactlyOnce, type PeerPass } from "../../harness/exactly-once.ts"
import { serve } from "../../harness/role.ts"
import { load, open, port } from "./api.ts"

const client = await open(Number(process.env["BQ_MC"] ?? 2))
const results = await open(1)
const check = new ExactlyOnce()
let stopped = false
const events = process.env["BQ_EVENTS"] === "yes"
const high = process.env["BQ_HIGH"] === "yes"
let queue: any

const read = async (): Promise<void> => {
  while (!stopped) {
    const { jobs, tokens } = await results.pull("results", 1_000, "master")
    if (jobs.length === 0) continue
    results
      .ack(
        jobs.map(({ id }) => id),
        tokens
      )
      .catch(fail)
    for (const { data } of jobs) check.take(data as never)
  }
}
const fail = (error: unknown): void => {
  if (!stopped) check.fail(String(error))
}
const { Queue, QueueEvents } = await load()
const ready = async (): Promise<void> => {
  if (high)
    queue = new Queue("tasks", {
      connection: { host: "127.0.0.1", port, poolSize: 4, maxInFlight: 256 },
      defaultJobOptions: { removeOnComplete: true },
      autoBatch: { enabled: true, maxSize: 256, maxDelayMs: 1 }
    })
  if (events || high) {
    const e = new QueueEvents("tasks", { connection: { host: "127.0.0.1", port } })
    e.on("completed", ({ returnvalue }: any) => check.take(returnvalue))
    e.on("error", fail)
    await e.waitUntilReady()
  } else for (let i = 0; i < Number(process.env["BQ_ML"] ?? 1); i++) read().catch(fail)
}

const pass = async (options: PeerPass): Promise<number> => {
  const { seconds } = await check.run(
    options,
    async (payloads, from, to) => {
      if (high) {
        if (options.batch === 1) await queue.add("url", payloads[from])
        else await queue.addBulk(payloads.slice(from, to).map((data) => ({ name: "url", data })))
      } else if (options.batch === 1) await client.push("tasks", payloads[from])
      else await client.pushAll("tasks", payloads.slice(from, to))
    },
    async () => {
      let n = 0
      for (const q of ["tasks", "results"]) {
        const { counts } = await client.counts(q)
        if (process.env["BQ_DEBUG"]) console.error(JSON.stringify(counts))
        n += Object.values(counts).reduce((a, b) => a + b, 0)
      }
      return n
    }
  )
  return seconds
}

serve({ ready, pass }, async () => {
  stopped = true
})
