/** The master on beanstalkd: puts into one tube, reserves and deletes up to 256 results at a time of another. */
import { ExactlyOnce, type PeerPass } from "../../harness/exactly-once.ts"
import { required, serve } from "../../harness/role.ts"
import { Beanstalk } from "./client.ts"

const port = Number(required("BENCH_PORT"))
const tasks = new Beanstalk(port)
const results = new Beanstalk(port)
const check = new ExactlyOnce()
const most = 256
let stopped = false

const fail = (error: unknown): void => {
  if (!stopped) check.fail(String(error))
}

const read = async (): Promise<void> => {
  while (!stopped) {
    for (const { body, id } of await results.reserve(most)) {
      results.expect("DELETED", `delete ${id}`).catch(fail)
      check.take(JSON.parse(body) as { url: string; ok: boolean })
    }
  }
}

const ready = async (): Promise<void> => {
  await tasks.tubes("tasks", "tasks")
  await results.tubes("results", "results")
  read().catch(fail)
}

/** Jobs of a tube, whatever their state. */
const held = async (tube: string): Promise<number> => {
  const { body } = await tasks.expect("OK", `stats-tube ${tube}`)
  const states = ["ready", "reserved", "delayed", "buried"]
  return states.reduce((sum, state) => sum + Number(new RegExp(`current-jobs-${state}: (\\d+)`).exec(body)?.[1]), 0)
}

const pass = async (options: PeerPass): Promise<number> => {
  const { seconds } = await check.run(
    options,
    async (payloads, from, to) => {
      await Promise.all(payloads.slice(from, to).map((payload) => tasks.put(JSON.stringify(payload))))
    },
    async () => (await held("tasks")) + (await held("results"))
  )
  return seconds
}

serve({ ready, pass }, async () => {
  stopped = true
  tasks.close()
  results.close()
})
