/** The master on pg-boss: `insert` of a batch or `send`; results from a queue of their own, by one loop. */
import { ExactlyOnce, type PeerPass, type Put } from "../../harness/exactly-once.ts"
import type { Result } from "../../harness/handler.ts"
import { serve } from "../../harness/role.ts"
import { type Job, open, type PgBoss, readQueue, resultsMost } from "./api.ts"

/** Single puts wait for one of these, and are synced together with those of the others. */
const connections = 32

const check = new ExactlyOnce()
let boss: PgBoss | undefined
let stopped = false

const fail = (error: unknown): void => {
  if (!stopped) check.fail(String(error))
}

const ready = async (): Promise<void> => {
  const opened = await open(connections, fail)
  boss = opened
  const take = async (jobs: ReadonlyArray<Job<Result>>): Promise<void> => {
    for (const { data } of jobs) check.take(data)
    await opened.deleteJob("results", jobs)
  }
  readQueue(opened, "results", resultsMost, () => stopped, take).catch(fail)
}

const held = "SELECT count(*)::int AS held FROM pgboss.job WHERE name IN ('tasks', 'results')"

const put: Put = async (tasks, from, to) => {
  if (to - from === 1) await boss!.send("tasks", tasks[from]!)
  else {
    const jobs = tasks.slice(from, to).map((data) => ({ data }))
    await boss!.insert("tasks", jobs)
  }
}

const rest = async (): Promise<number> => {
  const { rows } = await boss!.getDb().executeSql(held)
  return (rows[0] as { readonly held: number }).held
}

const pass = async (options: PeerPass): Promise<number> => (await check.run(options, put, rest)).seconds

serve({ ready, pass }, async () => {
  stopped = true
  await boss?.stop({ graceful: false })
})
