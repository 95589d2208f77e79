/** The master on BullMQ: `addBulk` or `add`; results are read from the `completed` events of the queue. */
import { ExactlyOnce, type PeerPass } from "../../harness/exactly-once.ts"
import { serve } from "../../harness/role.ts"
import { connection, load, queueName, type Result } from "./api.ts"

const { Queue, QueueEvents } = await load()
const check = new ExactlyOnce()
const queue = new Queue(queueName, {
  connection: connection(),
  // Five events a job: none may be trimmed before it is read.
  streams: { events: { maxLen: 1_000_000 } },
  defaultJobOptions: { removeOnComplete: true }
})
// From the beginning of the stream: an event before the first read is not lost.
const events = new QueueEvents(queueName, { connection: connection(), lastEventId: "0-0" })
events.on("completed", ({ returnvalue }: { readonly returnvalue: Result }) => check.take(returnvalue))
events.on("failed", ({ failedReason }: { readonly failedReason: string }) => check.fail(failedReason))
events.on("error", (error: Error) => check.fail(String(error)))
queue.on("error", (error: Error) => check.fail(String(error)))

const ready = async (): Promise<void> => {
  await queue.waitUntilReady()
  await events.waitUntilReady()
}

const pass = async (options: PeerPass): Promise<number> => {
  const { seconds } = await check.run(
    options,
    async (tasks, from, to) => {
      if (options.batch === 1) await queue.add("url", tasks[from]!)
      else await queue.addBulk(tasks.slice(from, to).map((data) => ({ name: "url", data })))
    },
    async () => {
      const counts = await queue.getJobCounts("wait", "active", "completed", "failed", "delayed", "prioritized")
      return Object.values(counts).reduce((sum, count) => sum + count, 0)
    }
  )
  return seconds
}

serve({ ready, pass }, async () => {})
