/** The part of bunqueue's client that is used, looked for when it is needed. It runs on Bun only. */
import { required } from "../../harness/role.ts"
import type { Task } from "../../harness/urls.ts"

export interface Result {
  readonly url: string
  readonly ok: boolean
}

interface Response {
  readonly ok: boolean
  readonly error?: string
  readonly jobs?: ReadonlyArray<{ readonly id: string; readonly data: Task }>
  readonly tokens?: ReadonlyArray<string>
  readonly counts?: Readonly<Record<string, number>>
}

interface Queue {
  readonly add: (name: string, data: Task) => Promise<unknown>
  readonly addBulk: (jobs: ReadonlyArray<{ readonly name: string; readonly data: Task }>) => Promise<unknown>
}

interface QueueEvents {
  readonly on: (event: string, listener: (value: never) => void) => unknown
  readonly waitUntilReady: () => Promise<void>
}

interface Pool {
  readonly connect: () => Promise<void>
  readonly send: (command: object) => Promise<Response>
}

interface Package {
  readonly Queue: new (name: string, options: object) => Queue
  readonly QueueEvents: new (name: string, options: object) => QueueEvents
  /** What its own workers send commands through. */
  readonly TcpConnectionPool: new (
    options: object
  ) => Pool
}

const packageName: string = "bunqueue/client"

const load = async (): Promise<Package> => (await import(packageName)) as Package

export const queueName = "urls"

export const { Queue, QueueEvents, TcpConnectionPool } = await load()

export const connection = () => ({ host: "127.0.0.1", port: Number(required("BENCH_PORT")), maxInFlight: 256 })

/** Sends commands of its protocol through one connection of its own; fails where the answer says no. */
export const open = async (): Promise<(command: object) => Promise<Response>> => {
  const pool = new TcpConnectionPool({ ...connection(), poolSize: 1 })
  await pool.connect()
  return async (command) => {
    const response = await pool.send(command)
    if (!response.ok) throw new Error(`${response.error} in answer to ${JSON.stringify(command).slice(0, 60)}`)
    return response
  }
}
