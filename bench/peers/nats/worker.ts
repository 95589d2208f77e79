/**
 * A worker on NATS JetStream: one batch of results at a time, of what has been handled meanwhile; the messages are
 * acknowledged when the server has it.
 */
import process from "node:process"
import { handle } from "../../harness/handler.ts"
import { serve } from "../../harness/role.ts"
import type { Task } from "../../harness/urls.ts"
import { batchMost, consume, type Message, open } from "./api.ts"

const { connection, publish, stream } = await open()
const done: Array<{ readonly message: Message; readonly result: string }> = []
let publishing = false
let stopped = false

const publishDone = async (): Promise<void> => {
  while (done.length > 0) {
    const batch = done.splice(0, batchMost)
    await publish(
      "results",
      batch.map(({ result }) => result)
    )
    for (const { message } of batch) message.ack()
  }
  publishing = false
}

const fail = (error: unknown): void => {
  if (stopped) return
  process.stderr.write(`nats worker: ${String(error)}\n`)
  process.exit(1)
}

const ready = (): Promise<void> =>
  consume(stream, "tasks", (message) => {
    done.push({ message, result: JSON.stringify(handle(message.json() as Task)) })
    if (publishing) return
    publishing = true
    setImmediate(() => publishDone().catch(fail))
  })

serve({ ready }, () => {
  stopped = true
  return connection.close()
})
