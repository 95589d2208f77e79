/**
 * A worker on pg-boss: two loops (one, if it may run one handler at a time), each with up to 256 jobs or 1 MiB of payloads.
 * The results go into their queue in the transaction that deletes the jobs.
 */
import process from "node:process"
import { handle } from "../../harness/handler.ts"
import { required, serve } from "../../harness/role.ts"
import type { Task } from "../../harness/urls.ts"
import { type Job, open, type PgBoss, readQueue, tasksMost } from "./api.ts"

const loops = required("BENCH_CONCURRENCY") === "1" ? 1 : 2
let stopped = false
let boss: PgBoss | undefined

const fail = (error: unknown): void => {
  if (stopped) return
  process.stderr.write(`pg-boss worker: ${String(error)}\n`)
  process.exit(1)
}

const take =
  (boss: PgBoss) =>
  async (jobs: ReadonlyArray<Job<Task>>): Promise<void> => {
    const results = jobs.map(({ data }) => ({ data: handle(data) }))
    const { commit, db } = await boss.getDb().beginTransaction()
    await boss.insert("results", results, { db })
    const { affected } = await boss.deleteJob("tasks", jobs, { db })
    if (affected !== jobs.length) throw new Error("a job was lost")
    await commit()
  }

const ready = async (): Promise<void> => {
  // One for each loop, and one for what pg-boss does by itself.
  boss = await open(loops + 1, fail)
  for (let i = 0; i < loops; i++) readQueue(boss, "tasks", tasksMost, () => stopped, take(boss)).catch(fail)
}

serve({ ready }, async () => {
  stopped = true
  await boss?.stop({ graceful: false })
})
