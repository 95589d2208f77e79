/**
 * The part of bunqueue's client that is used, looked for when it is needed: its pool of TCP connections, which pipelines the
 * commands of its protocol.
 */
import { required } from "../../harness/role.ts"

interface Response {
  readonly ok: boolean
  readonly error?: string
}

interface Job {
  readonly id: string
  readonly data: unknown
}

interface Pool {
  readonly connect: () => Promise<void>
  readonly send: (command: object) => Promise<Response>
  readonly close: () => void
}

interface Package {
  readonly TcpConnectionPool: new (options: object) => Pool
  readonly QueueEvents: new (name: string, options: object) => any
  readonly Queue: new (name: string, options: object) => any
  readonly Worker: new (name: string, handler: any, options: object) => any
}

const packageName: string = "bunqueue/client"
export const load = async () => (await import(packageName)) as Package

export const port = Number(required("BENCH_PORT"))

export class Client {
  readonly #pool: Pool
  constructor(pool: Pool) {
    this.#pool = pool
  }
  async #send<A>(command: object): Promise<A & Response> {
    const response = await this.#pool.send(command)
    if (!response.ok) throw new Error(`bunqueue: ${response.error}`)
    return response as A & Response
  }
  push(queue: string, data: unknown): Promise<unknown> {
    return this.#send({ cmd: "PUSH", queue, data, removeOnComplete: true })
  }
  pushAll(queue: string, data: ReadonlyArray<unknown>): Promise<unknown> {
    return this.#send({ cmd: "PUSHB", queue, jobs: data.map((value) => ({ data: value, removeOnComplete: true })) })
  }
  pull(queue: string, count: number, owner: string) {
    return this.#send<{ jobs: ReadonlyArray<Job>; tokens: ReadonlyArray<string> }>({
      cmd: "PULLB",
      queue,
      count,
      timeout: 1_000,
      owner,
      lockTtl: 30_000
    })
  }
  ack(ids: ReadonlyArray<string>, tokens: ReadonlyArray<string>, results?: ReadonlyArray<unknown>) {
    return this.#send({ cmd: "ACKB", ids, tokens, ...(results === undefined ? {} : { results }) })
  }
  counts(queue: string) {
    return this.#send<{ counts: Record<string, number> }>({ cmd: "GetJobCounts", queue })
  }
  close() {
    this.#pool.close()
  }
}

export const open = async (connections: number): Promise<Client> => {
  const { TcpConnectionPool } = await load()
  const pool = new TcpConnectionPool({
    host: "127.0.0.1",
    port,
    poolSize: connections,
    pipelining: true,
    maxInFlight: 256
  })
  await pool.connect()
  return new Client(pool)
}
