/** The master on NATS JetStream: a publish a task, each answered by the server; results from a stream of their own. */
import { ExactlyOnce, type PeerPass } from "../../harness/exactly-once.ts"
import { serve } from "../../harness/role.ts"
import { consume, open } from "./api.ts"

const { connection, manager, stream } = await open()
const check = new ExactlyOnce()

const ready = (): Promise<void> =>
  consume(stream, "results", (message) => {
    message.ack()
    check.take(message.json() as { url: string; ok: boolean })
  })

const held = async (name: string): Promise<number> => (await manager.streams.info(name)).state.messages

const pass = async (options: PeerPass): Promise<number> => {
  const { seconds } = await check.run(
    options,
    async (tasks, from, to) => {
      await Promise.all(tasks.slice(from, to).map((task) => stream.publish("tasks", JSON.stringify(task))))
    },
    async () => (await held("tasks")) + (await held("results"))
  )
  return seconds
}

serve({ ready, pass }, () => connection.close())
