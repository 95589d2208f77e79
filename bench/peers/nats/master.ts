/** The master on NATS JetStream: a batch of 256 or a publish for each task; results come from a stream of their own. */
import { setTimeout as sleep } from "node:timers/promises"
import { ExactlyOnce, type PeerPass } from "../../harness/exactly-once.ts"
import { serve } from "../../harness/role.ts"
import { consume, open } from "./api.ts"

const { connection, manager, publish, stream } = await open()
const check = new ExactlyOnce()

const ready = (): Promise<void> =>
  consume(stream, "results", (message) => {
    message.ack()
    check.take(message.json() as { url: string; ok: boolean })
  })

/** Acknowledgements of the last tasks and results may take the server so long. */
const acknowledgedWithinMs = 20_000

const heldOf = async (name: string): Promise<number> => (await manager.streams.info(name)).state.messages

const held = async (): Promise<number> => {
  for (const until = Date.now() + acknowledgedWithinMs; ; await sleep(50)) {
    const messages = (await heldOf("tasks")) + (await heldOf("results"))
    if (messages === 0 || Date.now() > until) return messages
  }
}

const pass = async (options: PeerPass): Promise<number> => {
  const { seconds } = await check.run(
    options,
    (tasks, from, to) =>
      publish(
        "tasks",
        tasks.slice(from, to).map((task) => JSON.stringify(task))
      ),
    held
  )
  return seconds
}

serve({ ready, pass }, () => connection.close())
