/** The master on graphile-worker: `addJobs` of a batch or `addJob`; results are jobs, which it runs. */
import { ExactlyOnce, type PeerPass } from "../../harness/exactly-once.ts"
import { serve } from "../../harness/role.ts"
import { openUtils, type Runner, runTasks, type WorkerUtils } from "./api.ts"

/** Bytes of a result, about. */
const resultBytes = 80
/** Of the results, whatever the variant says of the workers. */
const concurrentResults = 64

const check = new ExactlyOnce()
let utils: WorkerUtils | undefined
let runner: Runner | undefined
let stopped = false

const ready = async (): Promise<void> => {
  utils = await openUtils()
  const result = async (payload: { readonly url: string; readonly ok: boolean }): Promise<void> => check.take(payload)
  runner = await runTasks({ result }, resultBytes, concurrentResults)
  runner.promise.catch((error: unknown) => {
    if (!stopped) check.fail(String(error))
  })
}

const held = "SELECT count(*)::int AS held FROM graphile_worker.jobs"

const pass = async (options: PeerPass): Promise<number> => {
  const { seconds } = await check.run(
    options,
    async (tasks, from, to) => {
      if (options.batch === 1) await utils!.addJob("task", tasks[from]!)
      else await utils!.addJobs(tasks.slice(from, to).map((payload) => ({ identifier: "task", payload })))
    },
    async () => {
      const { rows } = await utils!.withPgClient((client) => client.query(held))
      return (rows[0] as { readonly held: number }).held
    }
  )
  return seconds
}

serve({ ready, pass }, async () => {
  stopped = true
  await runner?.stop()
  await utils?.release()
})
