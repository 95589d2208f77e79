/**
 * The part of NATS JetStream's client that is used, looked for when it is needed, and the two streams: both are work queues,
 * from which a message goes when it is acknowledged.
 */
import { required } from "../../harness/role.ts"

export interface Message {
  readonly ack: () => void
  readonly json: () => unknown
}

interface Batch {
  readonly add: (subject: string, payload: string) => void
  readonly commit: (subject: string, payload: string, options: object) => Promise<unknown>
}

interface FastIngest {
  readonly add: (subject: string, payload: string) => Promise<unknown>
  readonly last: (subject: string, payload: string, options: object) => Promise<{ readonly count: number }>
}

interface JetStream {
  readonly publish: (subject: string, payload: string, options: object) => Promise<unknown>
  readonly startBatch: (subject: string, payload: string, options: object) => Promise<Batch>
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

/** Exported for companions of the package, which wrap it: the server's fast batches, which are stored as they come. */
interface Internal {
  readonly startFastIngest: (
    connection: Connection,
    subject: string,
    payload: string,
    options: object,
    timeoutMs: number
  ) => Promise<FastIngest>
}

interface Package {
  readonly jetstream: (connection: Connection) => JetStream
  readonly jetstreamManager: (connection: Connection) => Promise<Manager>
}

const transportName: string = "@nats-io/transport-node"
const packageName: string = "@nats-io/jetstream"

const ackWaitNanos = 30e9
/** The client waits 5 s by itself: a server that syncs each message has more than that in its queue. */
const timeout = 30_000

/**
 * Messages that are not acknowledged. A server that syncs takes longer for an acknowledgement than for a message of a batch:
 * without this bound it would hold tens of thousands of done tasks after the last result.
 */
const maxAckPending = required("BENCH_DURABILITY") === "fsync" ? 1_024 : 10_000

/** The server takes no longer atomic batch. */
export const batchMost = 1_000

export const open = async () => {
  const { connect } = (await import(transportName)) as Transport
  const { jetstream, jetstreamManager } = (await import(packageName)) as Package
  const { startFastIngest } = (await import(`${packageName}/internal`)) as Internal
  const connection = await connect({ servers: `127.0.0.1:${required("BENCH_PORT")}` })
  const manager = await jetstreamManager(connection)
  const stream = jetstream(connection)
  const storage = required("BENCH_DURABILITY") === "memory" ? "memory" : "file"
  const batches = { allow_atomic: true, allow_batched: true }
  // Every role adds them: the same configuration twice is one stream.
  for (const name of ["tasks", "results"]) {
    await manager.streams.add({ name, subjects: [name], retention: "workqueue", storage, ...batches })
    await manager.consumers.add(name, {
      durable_name: "readers",
      ack_policy: "explicit",
      ack_wait: ackWaitNanos,
      max_ack_pending: maxAckPending
    })
  }

  const publishOne = (subject: string, payload: string): Promise<unknown> =>
    stream.publish(subject, payload, { timeout })

  /** All of them or none; synced once. */
  const atomic = async (subject: string, payloads: ReadonlyArray<string>): Promise<void> => {
    const batch = await stream.startBatch(subject, payloads[0]!, { timeout })
    for (const payload of payloads.slice(1, -1)) batch.add(subject, payload)
    await batch.commit(subject, payloads.at(-1)!, { timeout })
  }

  /** Without headers, answered once; costs a server that syncs as much as single messages do. */
  const fast = async (subject: string, payloads: ReadonlyArray<string>): Promise<void> => {
    const options = { ackInterval: payloads.length, maxOutstandingAcks: 3, allowGaps: false, timeout }
    const batch = await startFastIngest(connection, subject, payloads[0]!, options, timeout)
    for (const payload of payloads.slice(1, -1)) void batch.add(subject, payload)
    const { count } = await batch.last(subject, payloads.at(-1)!, { timeout })
    if (count !== payloads.length) throw new Error(`${count} of ${payloads.length} messages are stored`)
  }

  const publishMany = required("BENCH_DURABILITY") === "fsync" ? atomic : fast
  /** Resolves when the server has stored all of them. */
  const publish = async (subject: string, payloads: ReadonlyArray<string>): Promise<void> => {
    if (payloads.length === 1) await publishOne(subject, payloads[0]!)
    else await publishMany(subject, payloads)
  }
  return { connection, manager, stream, publish }
}

/** Up to 1,024 messages or some 4 MiB are asked for ahead. */
export const consume = async (stream: JetStream, name: string, callback: (message: Message) => void): Promise<void> => {
  const most = Math.min(1_024, Math.floor(2 ** 22 / Number(required("BENCH_PAYLOAD_BYTES"))))
  const consumer = await stream.consumers.get(name, "readers")
  await consumer.consume({ max_messages: most, callback })
}
