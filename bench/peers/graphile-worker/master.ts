/** The master on graphile-worker: `addJobs` of a batch or `addJob`; results are jobs, which it runs. */
import type { PeerPass, Put } from "../../harness/exactly-once.ts"
import type { Result } from "../../harness/handler.ts"
import type { ProbeOptions, ProbeTimes } from "../../harness/probes.ts"
import { Results } from "../../harness/results.ts"
import { serve } from "../../harness/role.ts"
import { openUtils, type Runner, runTasks, type WorkerUtils } from "./api.ts"

/** Bytes of a result, about. */
const resultBytes = 80
/** Of the results, whatever the variant says of the workers. */
const concurrentResults = 64

const outcomes = new Results()
let utils: WorkerUtils | undefined
let runner: Runner | undefined
let stopped = false

const ready = async (): Promise<void> => {
  utils = await openUtils()
  const result = async (payload: Result): Promise<void> => outcomes.take(payload)
  runner = await runTasks({ result }, resultBytes, concurrentResults)
  runner.promise.catch((error: unknown) => {
    if (!stopped) outcomes.fail(String(error))
  })
}

const held = "SELECT count(*)::int AS held FROM graphile_worker.jobs"

const put: Put = async (tasks, from, to) => {
  if (to - from === 1) await utils!.addJob("task", tasks[from]!)
  else await utils!.addJobs(tasks.slice(from, to).map((payload) => ({ identifier: "task", payload })))
}

const rest = async (): Promise<number> => {
  const { rows } = await utils!.withPgClient((client) => client.query(held))
  return (rows[0] as { readonly held: number }).held
}

const pass = async (options: PeerPass): Promise<number> => (await outcomes.check.run(options, put, rest)).seconds

const probes = (options: ProbeOptions): Promise<ProbeTimes> =>
  outcomes.probing.run(options, (task) => put([task], 0, 1), rest)

serve({ ready, pass, probes }, async () => {
  stopped = true
  await runner?.stop()
  await utils?.release()
})
