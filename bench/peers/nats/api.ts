/**
 * The part of NATS JetStream's client that is used, looked for when it is needed, and the two streams: both are work queues,
 * from which a message goes when it is acknowledged.
 */
import { required } from "../../harness/role.ts"

export interface Message {
  readonly ack: () => void
  readonly json: () => unknown
}

export interface JetStream {
  readonly publish: (subject: string, payload: string) => Promise<unknown>
  readonly consumers: {
    readonly get: (
      stream: string,
      consumer: string
    ) => Promise<{ readonly consume: (options: object) => Promise<unknown> }>
  }
}

interface Manager {
  readonly streams: {
    readonly add: (config: object) => Promise<unknown>
    readonly info: (stream: string) => Promise<{ readonly state: { readonly messages: number } }>
  }
  readonly consumers: { readonly add: (stream: string, config: object) => Promise<unknown> }
}

interface Connection {
  readonly close: () => Promise<void>
}

interface Transport {
  readonly connect: (options: object) => Promise<Connection>
}

interface Package {
  readonly jetstream: (connection: Connection) => JetStream
  readonly jetstreamManager: (connection: Connection) => Promise<Manager>
}

const transportName: string = "@nats-io/transport-node"
const packageName: string = "@nats-io/jetstream"

const ackWaitNanos = 30e9

export const open = async () => {
  const { connect } = (await import(transportName)) as Transport
  const { jetstream, jetstreamManager } = (await import(packageName)) as Package
  const connection = await connect({ servers: `127.0.0.1:${required("BENCH_PORT")}` })
  const manager = await jetstreamManager(connection)
  const storage = required("BENCH_DURABILITY") === "memory" ? "memory" : "file"
  // Every role adds them: the same configuration twice is one stream.
  for (const name of ["tasks", "results"]) {
    await manager.streams.add({ name, subjects: [name], retention: "workqueue", storage })
    await manager.consumers.add(name, {
      durable_name: "readers",
      ack_policy: "explicit",
      ack_wait: ackWaitNanos,
      max_ack_pending: 10_000
    })
  }
  return { connection, manager, stream: jetstream(connection) }
}

/** Up to 1,024 messages are asked for ahead. */
export const consume = async (stream: JetStream, name: string, callback: (message: Message) => void): Promise<void> => {
  const consumer = await stream.consumers.get(name, "readers")
  await consumer.consume({ max_messages: 1_024, callback })
}
