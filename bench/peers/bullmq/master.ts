/** The master on BullMQ: `addBulk` or `add`; results are read from the `completed` events of the queue. */
import type { PeerPass, Put } from "../../harness/exactly-once.ts"
import type { Result } from "../../harness/handler.ts"
import type { ProbeOptions, ProbeTimes } from "../../harness/probes.ts"
import { Results } from "../../harness/results.ts"
import { serve } from "../../harness/role.ts"
import { connection, load, queueName } from "./api.ts"

const { Queue, QueueEvents } = await load()
const outcomes = new Results()
const queue = new Queue(queueName, {
  connection: connection(),
  // Five events a job: none may be trimmed before it is read.
  streams: { events: { maxLen: 1_000_000 } },
  defaultJobOptions: { removeOnComplete: true }
})
// From the beginning of the stream: an event before the first read is not lost.
const events = new QueueEvents(queueName, { connection: connection(), lastEventId: "0-0" })
events.on("completed", ({ returnvalue }: { readonly returnvalue: Result }) => outcomes.take(returnvalue))
events.on("failed", ({ failedReason }: { readonly failedReason: string }) => outcomes.fail(failedReason))
events.on("error", (error: Error) => outcomes.fail(String(error)))
queue.on("error", (error: Error) => outcomes.fail(String(error)))

const ready = async (): Promise<void> => {
  await queue.waitUntilReady()
  await events.waitUntilReady()
}

const put: Put = async (tasks, from, to) => {
  if (to - from === 1) await queue.add("url", tasks[from]!)
  else await queue.addBulk(tasks.slice(from, to).map((data) => ({ name: "url", data })))
}

const rest = async (): Promise<number> => {
  const counts = await queue.getJobCounts("wait", "active", "completed", "failed", "delayed", "prioritized")
  return Object.values(counts).reduce((sum, count) => sum + count, 0)
}

const pass = async (options: PeerPass): Promise<number> => (await outcomes.check.run(options, put, rest)).seconds

const probes = (options: ProbeOptions): Promise<ProbeTimes> =>
  outcomes.probing.run(options, (task) => put([task], 0, 1), rest)

serve({ ready, pass, probes }, async () => {})
