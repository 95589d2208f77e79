/** The master on NATS JetStream: a publish a task, each answered by the server; results from a stream of their own. */
import type { PeerPass, Put } from "../../harness/exactly-once.ts"
import type { Result } from "../../harness/handler.ts"
import type { ProbeOptions, ProbeTimes } from "../../harness/probes.ts"
import { Results } from "../../harness/results.ts"
import { serve } from "../../harness/role.ts"
import { consume, open } from "./api.ts"

const { connection, manager, stream } = await open()
const outcomes = new Results()

const ready = (): Promise<void> =>
  consume(stream, "results", (message) => {
    message.ack()
    outcomes.take(message.json() as Result)
  })

const held = async (name: string): Promise<number> => (await manager.streams.info(name)).state.messages

const put: Put = async (tasks, from, to) => {
  await Promise.all(tasks.slice(from, to).map((task) => stream.publish("tasks", JSON.stringify(task))))
}

const rest = async (): Promise<number> => (await held("tasks")) + (await held("results"))

const pass = async (options: PeerPass): Promise<number> => (await outcomes.check.run(options, put, rest)).seconds

const probes = (options: ProbeOptions): Promise<ProbeTimes> =>
  outcomes.probing.run(options, (task) => put([task], 0, 1), rest)

serve({ ready, pass, probes }, () => connection.close())
