/**
 * The part of pg-boss that is used, looked for when it is needed, its two queues, and the loop by which they are read.
 *
 * Queues do not notify: a NOTIFY holds a lock of the whole database until its transaction is on the disk, so that single
 * puts would sync one by one. `work` without it looks every half second at best, so a loop fetches by hand.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { required } from "../../harness/role.ts"
import { connectionString } from "../postgres/connection.ts"

export interface Job<Data> {
  readonly id: string
  readonly data: Data
}

export interface Db {
  readonly executeSql: (text: string) => Promise<{ readonly rows: ReadonlyArray<unknown> }>
}

interface Transaction {
  readonly db: Db
  readonly commit: () => Promise<void>
}

interface Pool extends Db {
  readonly beginTransaction: () => Promise<Transaction>
}

export interface PgBoss {
  readonly on: (event: string, listener: (error: Error) => void) => unknown
  readonly start: (options: { readonly attempts: number }) => Promise<unknown>
  readonly stop: (options: { readonly graceful: boolean }) => Promise<unknown>
  readonly createQueue: (name: string, options: { readonly partition: boolean }) => Promise<unknown>
  readonly send: (name: string, data: object) => Promise<unknown>
  readonly insert: (
    name: string,
    jobs: ReadonlyArray<{ readonly data: object }>,
    options?: { readonly db: Db }
  ) => Promise<unknown>
  readonly fetch: <Data>(name: string, options: { readonly batchSize: number }) => Promise<ReadonlyArray<Job<Data>>>
  readonly deleteJob: (
    name: string,
    jobs: ReadonlyArray<Job<unknown>>,
    options?: { readonly db: Db }
  ) => Promise<{ readonly affected: number }>
  readonly getDb: () => Pool
}

interface Package {
  readonly PgBoss: new (options: object) => PgBoss
}

const packageName: string = "pg-boss"

/** Jobs of one fetch. */
export const tasksMost = Math.min(256, Math.floor(2 ** 20 / Number(required("BENCH_PAYLOAD_BYTES"))))
export const resultsMost = 256

/** After a fetch that found less than it may: what comes meanwhile is fetched together. */
const pauseMs = 20

/** `connections`: the most that the process has at a time. */
export const open = async (connections: number, failed: (error: unknown) => void): Promise<PgBoss> => {
  const { PgBoss } = (await import(packageName)) as Package
  const boss = new PgBoss({ connectionString: connectionString(), max: connections, schedule: false })
  boss.on("error", failed)
  // Every role sets up the same: who comes second finds it done.
  await boss.start({ attempts: 5 })
  for (const name of ["tasks", "results"]) await boss.createQueue(name, { partition: true })
  return boss
}

/** Fetches until it is told to stop; `take` deletes the jobs it is given. */
export const readQueue = async <Data>(
  boss: PgBoss,
  name: string,
  batchSize: number,
  stopped: () => boolean,
  take: (jobs: ReadonlyArray<Job<Data>>) => Promise<void>
): Promise<void> => {
  while (!stopped()) {
    const jobs = await boss.fetch<Data>(name, { batchSize })
    if (jobs.length > 0) await take(jobs)
    if (jobs.length < batchSize) await sleep(pauseMs)
  }
}
