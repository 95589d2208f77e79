/** The master on beanstalkd: puts into one tube, reserves and deletes up to 256 results at a time of another. */
import type { PeerPass, Put } from "../../harness/exactly-once.ts"
import type { Result } from "../../harness/handler.ts"
import type { ProbeOptions, ProbeTimes } from "../../harness/probes.ts"
import { Results } from "../../harness/results.ts"
import { required, serve } from "../../harness/role.ts"
import { Beanstalk } from "./client.ts"

const port = Number(required("BENCH_PORT"))
const tasks = new Beanstalk(port)
const results = new Beanstalk(port)
const outcomes = new Results()
const most = 256
let stopped = false

const fail = (error: unknown): void => {
  if (!stopped) outcomes.fail(String(error))
}

const read = async (): Promise<void> => {
  while (!stopped) {
    for (const { body, id } of await results.reserve(most)) {
      results.expect("DELETED", `delete ${id}`).catch(fail)
      outcomes.take(JSON.parse(body) as Result)
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

const put: Put = async (payloads, from, to) => {
  await Promise.all(payloads.slice(from, to).map((payload) => tasks.put(JSON.stringify(payload))))
}

const rest = async (): Promise<number> => (await held("tasks")) + (await held("results"))

const pass = async (options: PeerPass): Promise<number> => (await outcomes.check.run(options, put, rest)).seconds

const probes = (options: ProbeOptions): Promise<ProbeTimes> =>
  outcomes.probing.run(options, (task) => put([task], 0, 1), rest)

serve({ ready, pass, probes }, async () => {
  stopped = true
  tasks.close()
  results.close()
})
