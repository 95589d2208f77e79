/**
 * The part of BullMQ that is used. The package is looked for when it is needed: the project does not depend on it, and is
 * checked without it.
 */
import type { Result } from "../../harness/handler.ts"
import { required } from "../../harness/role.ts"
import type { Task } from "../../harness/urls.ts"

interface Closeable {
  readonly waitUntilReady: () => Promise<unknown>
  readonly close: () => Promise<void>
  readonly on: (event: string, listener: (value: never) => void) => unknown
}

export interface Queue extends Closeable {
  readonly add: (name: string, data: Task) => Promise<unknown>
  readonly addBulk: (jobs: ReadonlyArray<{ readonly name: string; readonly data: Task }>) => Promise<unknown>
  readonly getJobCounts: (...states: ReadonlyArray<string>) => Promise<Readonly<Record<string, number>>>
}

interface BullMq {
  readonly Queue: new (name: string, options: object) => Queue
  readonly QueueEvents: new (name: string, options: object) => Closeable
  readonly Worker: new (
    name: string,
    handler: (job: { readonly data: Task }) => Promise<Result>,
    options: object
  ) => Closeable
}

const packageName: string = "bullmq"

export const load = async (): Promise<BullMq> => (await import(packageName)) as BullMq

export const queueName = "urls"

export const connection = () => ({
  host: "127.0.0.1",
  port: Number(required("BENCH_PORT")),
  maxRetriesPerRequest: null
})
