import process from "node:process"
import { serve } from "../../harness/role.ts"
import { load, open, port } from "./api.ts"

let stopped = false
const events = process.env["BQ_EVENTS"] === "yes"
const high = process.env["BQ_HIGH"] === "yes"
const client = await open(Number(process.env["BQ_WC"] ?? 2))
const most = Number(process.env["BQ_MOST"] ?? 256)
const handle = ({ url }: { readonly url: string }) => ({ url, ok: true })
const fail = (error: unknown): void => {
  if (stopped) return
  process.stderr.write(`bunqueue worker: ${String(error)}\n`)
  process.exit(1)
}
const loop = async (): Promise<void> => {
  const owner = `worker-${process.pid}`
  while (!stopped) {
    const { jobs, tokens } = await client.pull("tasks", most, owner)
    if (jobs.length === 0) continue
    const answers = jobs.map(({ data }) => handle(data as { url: string }))
    const ids = jobs.map(({ id }) => id)
    if (events) client.ack(ids, tokens, answers).catch(fail)
    else
      client
        .pushAll("results", answers)
        .then(() => client.ack(ids, tokens))
        .catch(fail)
  }
}
const ready = async (): Promise<void> => {
  if (high) {
    const { Worker } = await load()
    const w = new Worker("tasks", async (job: any) => handle(job.data), {
      connection: { host: "127.0.0.1", port, poolSize: 4 },
      concurrency: 64,
      batchSize: 64,
      pollTimeout: 1000,
      heartbeatInterval: 10000
    })
    w.on("error", fail)
  } else for (let i = 0; i < Number(process.env["BQ_L"] ?? 2); i++) loop().catch(fail)
}

serve({ ready }, async () => {
  stopped = true
})
