/** A worker on NATS JetStream: a message is acknowledged when the server has its result. */
import process from "node:process"
import { handle } from "../../harness/handler.ts"
import { serve } from "../../harness/role.ts"
import type { Task } from "../../harness/urls.ts"
import { consume, open } from "./api.ts"

const { connection, stream } = await open()
let stopped = false

const fail = (error: unknown): void => {
  if (stopped) return
  process.stderr.write(`nats worker: ${String(error)}\n`)
  process.exit(1)
}

const ready = (): Promise<void> =>
  consume(stream, "tasks", (message) => {
    const result = JSON.stringify(handle(message.json() as Task))
    stream.publish("results", result).then(() => message.ack(), fail)
  })

serve({ ready }, () => {
  stopped = true
  return connection.close()
})
