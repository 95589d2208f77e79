/**
 * A worker on bunqueue: two loops (one, if it may run one handler at a time) on one connection of its own pool, each with
 * `PULLB` of up to 1,000 jobs or 1 MiB of payloads, and one `ACKB` for all of them, for whose answer the next `PULLB` does
 * not wait. Its `Worker` class, with 64 handlers, needs twice the processor time for a task.
 */
import process from "node:process"
import { required, serve } from "../../harness/role.ts"
import type { Task } from "../../harness/urls.ts"
import { open, queueName, type Result } from "./api.ts"

const send = await open()
const loops = required("BENCH_CONCURRENCY") === "1" ? 1 : 2
const most = Math.min(1_000, Math.floor(2 ** 20 / Number(required("BENCH_PAYLOAD_BYTES"))))
const lockMs = 30_000
let stopped = false

const handle = ({ url }: Task): Result => ({ url, ok: true })

const fail = (error: unknown): void => {
  if (stopped) return
  process.stderr.write(`bunqueue worker: ${String(error)}\n`)
  process.exit(1)
}

const loop = async (): Promise<void> => {
  const pull = {
    cmd: "PULLB",
    queue: queueName,
    count: most,
    timeout: 1_000,
    owner: String(process.pid),
    lockTtl: lockMs
  }
  while (!stopped) {
    const { jobs = [], tokens } = await send(pull)
    if (jobs.length === 0) continue
    const results = jobs.map(({ data }) => handle(data))
    send({ cmd: "ACKB", ids: jobs.map(({ id }) => id), tokens, results }).catch(fail)
  }
}

const ready = async (): Promise<void> => {
  for (let i = 0; i < loops; i++) loop().catch(fail)
}

serve({ ready }, async () => {
  stopped = true
})
