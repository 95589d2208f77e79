/** The master on pg-boss: `insert` of a batch or `send`; results from a queue of their own, by one loop. */
import { ExactlyOnce, type PeerPass } from "../../harness/exactly-once.ts"
import { serve } from "../../harness/role.ts"
import { type Job, open, type PgBoss, readQueue, resultsMost } from "./api.ts"

type Result = { readonly url: string; readonly ok: boolean }

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

const pass = async (options: PeerPass): Promise<number> => {
  const { seconds } = await check.run(
    options,
    async (tasks, from, to) => {
      if (options.batch === 1) await boss!.send("tasks", tasks[from]!)
      else {
        const jobs = tasks.slice(from, to).map((data) => ({ data }))
        await boss!.insert("tasks", jobs)
      }
    },
    async () => {
      const { rows } = await boss!.getDb().executeSql(held)
      return (rows[0] as { readonly held: number }).held
    }
  )
  return seconds
}

serve({ ready, pass }, async () => {
  stopped = true
  await boss?.stop({ graceful: false })
})
