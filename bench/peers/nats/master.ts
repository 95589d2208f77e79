/** The master on NATS JetStream: a batch of 256 or a publish for each task; results come from a stream of their own. */
import { setTimeout as sleep } from "node:timers/promises"
import type { PeerPass, Put } from "../../harness/exactly-once.ts"
import type { Result } from "../../harness/handler.ts"
import type { ProbeOptions, ProbeTimes } from "../../harness/probes.ts"
import { Results } from "../../harness/results.ts"
import { serve } from "../../harness/role.ts"
import { consume, open } from "./api.ts"

const { connection, manager, publish, stream } = await open()
const outcomes = new Results()

const ready = (): Promise<void> =>
  consume(stream, "results", (message) => {
    message.ack()
    outcomes.take(message.json() as Result)
  })

/** Acknowledgements of the last tasks and results may take the server so long. */
const acknowledgedWithinMs = 20_000

const held = async (name: string): Promise<number> => (await manager.streams.info(name)).state.messages

const rest = async (): Promise<number> => {
  for (const until = Date.now() + acknowledgedWithinMs; ; await sleep(50)) {
    const messages = (await held("tasks")) + (await held("results"))
    if (messages === 0 || Date.now() > until) return messages
  }
}

const put: Put = (tasks, from, to) =>
  publish(
    "tasks",
    tasks.slice(from, to).map((task) => JSON.stringify(task))
  )

const pass = async (options: PeerPass): Promise<number> => (await outcomes.check.run(options, put, rest)).seconds

const probes = (options: ProbeOptions): Promise<ProbeTimes> =>
  outcomes.probing.run(options, (task) => put([task], 0, 1), rest)

serve({ ready, pass, probes }, () => connection.close())
