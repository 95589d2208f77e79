/** A worker process on BullMQ, with 64 handlers at a time, or one. */
import process from "node:process"
import { required, serve } from "../../harness/role.ts"
import { connection, load, queueName } from "./api.ts"

const { Worker } = await load()
const worker = new Worker(queueName, async ({ data }) => ({ url: data.url, ok: true }), {
  connection: connection(),
  concurrency: Number(required("BENCH_CONCURRENCY"))
})
let stopped = false
worker.on("error", (error: Error) => {
  if (!stopped) process.stderr.write(`bullmq worker: ${String(error)}\n`)
})

serve({ ready: () => worker.waitUntilReady().then(() => {}) }, async () => {
  stopped = true
})
