/** A worker process on BullMQ, with 64 handlers at a time. */
import process from "node:process"
import { serve } from "../../harness/role.ts"
import { connection, load, queueName } from "./api.ts"

const { Worker } = await load()
const worker = new Worker(queueName, async ({ data }) => ({ url: data.url, ok: true }), {
  connection: connection(),
  concurrency: 64
})
let stopped = false
worker.on("error", (error: Error) => {
  if (!stopped) process.stderr.write(`bullmq worker: ${String(error)}\n`)
})

serve({ ready: () => worker.waitUntilReady().then(() => {}) }, async () => {
  stopped = true
})
