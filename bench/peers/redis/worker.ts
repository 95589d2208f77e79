/**
 * A worker on Redis with scripts: four loops on one connection (one, if it may run one handler at a time), each with up
 * to 256 leases or 1 MiB of payloads. A loop's acknowledgements and its next lease leave together. With nothing to lease,
 * one blocking peek on another connection waits for all loops.
 */
import process from "node:process"
import { required, serve } from "../../harness/role.ts"
import { Redis } from "./client.ts"
import { call, loadScripts } from "./scripts.ts"

const port = Number(required("BENCH_PORT"))
const redis = new Redis(port)
const peeks = new Redis(port)
const loops = required("BENCH_CONCURRENCY") === "1" ? 1 : 4
const most = Math.min(256, Math.floor(2 ** 20 / Number(required("BENCH_PAYLOAD_BYTES"))))
const leaseMs = 30_000
let stopped = false

let peeking: Promise<unknown> | undefined
/** Moves the head of `ready` to where it is: resolves when there is one, or after a second. */
const peek = (): Promise<unknown> => {
  peeking ??= peeks.send("BLMOVE", "ready", "ready", "LEFT", "LEFT", 1).finally(() => {
    peeking = undefined
  })
  return peeking
}

const handle = ({ url }: { readonly url: string }) => ({ url, ok: true })

const fail = (error: unknown): void => {
  if (stopped) return
  process.stderr.write(`redis worker: ${String(error)}\n`)
  process.exit(1)
}

const ready = async (): Promise<void> => {
  const scripts = await loadScripts(redis)
  const loop = async (): Promise<void> => {
    let done: Array<string> = []
    while (!stopped) {
      const acked = done.length === 0 ? undefined : call(redis, scripts.ack, done)
      const leased = call(redis, scripts.lease, [most, leaseMs])
      if (acked !== undefined && (await acked) !== done.length / 2) throw new Error("a lease was lost")
      const tasks = (await leased) as ReadonlyArray<string>
      done = []
      if (tasks.length === 0) await peek()
      for (let i = 0; i < tasks.length; i += 2) {
        done.push(tasks[i]!, JSON.stringify(handle(JSON.parse(tasks[i + 1]!) as { url: string })))
      }
    }
  }
  for (let i = 0; i < loops; i++) loop().catch(fail)
  setInterval(() => call(redis, scripts.sweep, []).catch(fail), 1_000)
}

serve({ ready }, async () => {
  stopped = true
  redis.close()
  peeks.close()
})
