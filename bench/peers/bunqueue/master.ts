/**
 * The master on bunqueue: `addBulk`, or `add`, which its client makes batches of (at once, or of what comes while one is
 * under way); results are read from the `completed` events of the queue.
 */
import { ExactlyOnce, type PeerPass } from "../../harness/exactly-once.ts"
import { serve } from "../../harness/role.ts"
import { connection, open, Queue, QueueEvents, queueName, type Result } from "./api.ts"

const send = await open()
const check = new ExactlyOnce()
const queue = new Queue(queueName, {
  connection: { ...connection(), poolSize: 2 },
  autoBatch: { maxSize: 256, maxDelayMs: 5 },
  defaultJobOptions: { removeOnComplete: true }
})
const events = new QueueEvents(queueName, { connection: connection() })
events.on("completed", ({ returnvalue }: { readonly returnvalue: Result }) => check.take(returnvalue))
events.on("failed", ({ failedReason }: { readonly failedReason: string }) => check.fail(failedReason))
events.on("error", (error: Error) => check.fail(String(error)))

const pass = async (options: PeerPass): Promise<number> => {
  const { seconds } = await check.run(
    options,
    async (tasks, from, to) => {
      if (options.batch === 1) await queue.add("url", tasks[from]!)
      else await queue.addBulk(tasks.slice(from, to).map((data) => ({ name: "url", data })))
    },
    async () => {
      const { counts } = await send({ cmd: "GetJobCounts", queue: queueName })
      return Object.values(counts!).reduce((sum, count) => sum + count, 0)
    }
  )
  return seconds
}

serve({ ready: () => events.waitUntilReady(), pass }, async () => {})
