/** The part of graphile-worker that is used, looked for when it is needed, and its settings. */
import process from "node:process"
import { required } from "../../harness/role.ts"
import { connectionString } from "../postgres/connection.ts"

export interface JobSpec {
  readonly identifier: string
  readonly payload: object
}

interface Client {
  readonly query: (text: string) => Promise<{ readonly rows: ReadonlyArray<unknown> }>
}

export interface WorkerUtils {
  readonly addJob: (identifier: string, payload: object) => Promise<unknown>
  readonly addJobs: (jobs: ReadonlyArray<JobSpec>) => Promise<unknown>
  readonly migrate: () => Promise<void>
  readonly withPgClient: <A>(use: (client: Client) => Promise<A>) => Promise<A>
  readonly release: () => Promise<void>
}

export interface Runner {
  readonly stop: () => Promise<void>
  readonly promise: Promise<void>
}

export type TaskList = Readonly<Record<string, (payload: never) => Promise<void>>>

interface Package {
  readonly Logger: new (scoped: () => (level: string, message: string) => void) => object
  readonly makeWorkerUtils: (options: object) => Promise<WorkerUtils>
  readonly run: (options: object) => Promise<Runner>
}

const packageName: string = "graphile-worker"

const load = async (): Promise<Package> => (await import(packageName)) as Package

/** It says each job that is done. */
const logger = ({ Logger }: Package): object =>
  new Logger(() => (level, message) => {
    if (level === "error") process.stderr.write(`graphile-worker ${level}: ${message}\n`)
  })

/** To put jobs with. */
export const openUtils = async (): Promise<WorkerUtils> => {
  const loaded = await load()
  const preset = { worker: { connectionString: connectionString(), maxPoolSize: 10 } }
  const utils = await loaded.makeWorkerUtils({ preset, logger: logger(loaded) })
  // Every role sets up the same: who comes second finds it done.
  await utils.migrate()
  return utils
}

/** Fetched at a time: a multiple of the concurrency, so that results leave in full batches. */
const localJobs = 512

const concurrency = Number(required("BENCH_CONCURRENCY"))

/** Runs tasks with the settings that its documentation names for speed. */
export const runTasks = async (
  taskList: TaskList,
  payloadBytes: number,
  concurrentJobs = concurrency
): Promise<Runner> => {
  const loaded = await load()
  const worker = {
    connectionString: connectionString(),
    concurrentJobs,
    // One each to fetch, to complete, to fail and to listen, and one to spare: tasks use none of their own.
    maxPoolSize: 5,
    localQueue: { size: Math.max(concurrentJobs, Math.min(localJobs, Math.floor(2 ** 20 / payloadBytes))) },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0
  }
  return loaded.run({
    preset: { worker },
    logger: logger(loaded),
    taskList,
    parsedCronItems: [],
    noHandleSignals: true
  })
}
