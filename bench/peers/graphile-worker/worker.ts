/**
 * A worker on graphile-worker. A job has no result: one goes to the master as a job of its own, and its task ends when that
 * is in the database. Results that come while others are on their way leave together.
 */
import process from "node:process"
import { handle } from "../../harness/handler.ts"
import { required, serve } from "../../harness/role.ts"
import type { Task } from "../../harness/urls.ts"
import { type JobSpec, openUtils, type Runner, runTasks, type WorkerUtils } from "./api.ts"

let stopped = false
let utils: WorkerUtils | undefined
let runner: Runner | undefined

const fail = (error: unknown): void => {
  if (stopped) return
  process.stderr.write(`graphile-worker worker: ${String(error)}\n`)
  process.exit(1)
}

interface Batch {
  readonly jobs: Array<JobSpec>
  readonly added: Promise<unknown>
}

let last: Promise<unknown> = Promise.resolve()
let next: Batch | undefined

/** Resolves when it is in the database. */
const addResult = (payload: object): Promise<unknown> => {
  if (next === undefined) {
    const jobs: Array<JobSpec> = []
    const added = last.then(() => {
      next = undefined
      return utils!.addJobs(jobs)
    })
    next = { jobs, added }
    last = added
  }
  next.jobs.push({ identifier: "result", payload })
  return next.added
}

const ready = async (): Promise<void> => {
  utils = await openUtils()
  const task = async (payload: Task): Promise<void> => {
    await addResult(handle(payload))
  }
  runner = await runTasks({ task }, Number(required("BENCH_PAYLOAD_BYTES")))
  runner.promise.catch(fail)
}

serve({ ready }, async () => {
  stopped = true
  await runner?.stop()
  await utils?.release()
})
