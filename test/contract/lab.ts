/**
 * A manager's core with its clock in the hands of the test, behind a real port or behind connections of no network:
 * deadlines are met to the millisecond, and what is written and not taken is measured.
 */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { deriveVerifier, keyBytes } from "../../src/auth/Credentials.ts"
import { Core, type Log } from "../../src/manager/Core.ts"
import type { Gate } from "../../src/manager/Peer.ts"
import type { Row } from "../../src/model/Journal.ts"
import { randomBytes } from "../../src/platform/Crypto.ts"
import { type Connection, type Handler, Network } from "../../src/platform/Network.ts"
import * as Node from "../../src/platform/Node.ts"
import { Reader } from "../../src/wire/Bytes.ts"
import * as ClientMessages from "../../src/wire/ClientMessages.ts"
import { FrameReader, frame } from "../../src/wire/Frames.ts"
import * as ManagerMessages from "../../src/wire/ManagerMessages.ts"
import { ClientType as C } from "../../src/wire/Vocabulary.ts"
import { auth } from "./layers.ts"
import { hello, Raw } from "./raw.ts"

export interface CoreLab {
  readonly core: Core
  readonly clock: { now: number }
}

/** `stored`: its payloads are in a store, and none of them in memory. */
export const coreLab = ({ stored = false } = {}): CoreLab => {
  const clock = { now: 1_000_000 }
  const rows = new Map<number, Row>()
  const log: Log = {
    low: () => false,
    commit: (batch, done) => {
      for (const { body, seq } of batch.rows) rows.set(seq, { seq, body: body.slice() })
      setImmediate(done)
    },
    read: (seqs, done) => void setImmediate(() => done(seqs.flatMap((seq) => rows.get(seq) ?? [])))
  }
  const core = new Core({
    queues: [],
    host: {
      now: () => clock.now,
      alarm: () => {},
      store: stored ? log : undefined,
      durability: stored ? "fsync" : "memory",
      failed: (text) => assert.fail(text),
      log: () => {}
    },
    ...(stored ? { identity: { instance: new Uint8Array(8), epoch: 1 }, residentBytesMax: 0 } : {})
  })
  core.start()
  return { core, clock }
}

export interface Accepted {
  readonly connection: Connection
  /** The most bytes that it had not taken after a write. */
  mostPending: number
  /** It was cut by the manager. */
  dropped: boolean
}

/** Behind a real port. */
export const lab = (options: { readonly stored?: boolean } = {}) => Effect.provide(labOf(options), Node.layer)

const labOf = Effect.fnUntraced(function* (options: { readonly stored?: boolean }) {
  const made = coreLab(options)
  const verifier = yield* Effect.promise(() => deriveVerifier("default", keyBytes(auth.key), randomBytes(16), 4_096))
  const gate: Gate = {
    verifier: (name) => (name === verifier.name ? verifier : undefined),
    grants: () => undefined,
    iterations: [4_096],
    mockSecret: randomBytes(32)
  }
  const accepted: Array<Accepted> = []
  const { listen } = yield* Network
  const address = yield* listen({ _tag: "Tcp", host: "127.0.0.1", port: 0 }, (connection) => {
    const write = (bytes: Uint8Array): void => {
      connection.write(bytes)
      seen.mostPending = Math.max(seen.mostPending, connection.pendingBytes())
    }
    const destroy = (): void => {
      seen.dropped = true
      connection.destroy()
    }
    const seen: Accepted = { connection: { ...connection, write, destroy }, mostPending: 0, dropped: false }
    accepted.push(seen)
    return made.core.accept(seen.connection, gate)
  })
  const port = address._tag === "Tcp" ? address.port : 0
  const connect = Effect.acquireRelease(
    Effect.sync(() => new Raw(port)),
    (raw) => Effect.sync(() => raw.socket.destroy())
  )
  return { ...made, accepted, connect }
})

/** A connection that takes nothing but what the test says. The peer behind it is trusted. */
export class Pipe {
  /** Written and not taken, as the connection tells it. */
  pending = 0
  paused = false
  closed = false
  destroyed = false
  readonly heard: Array<ManagerMessages.ManagerMessage> = []
  readonly handler: Handler
  readonly #reader = new FrameReader(Number.MAX_SAFE_INTEGER)

  constructor(core: Core, gate?: Gate) {
    this.handler = core.accept(
      {
        peer: "10.0.0.1:1",
        write: (bytes) =>
          this.#reader.push(bytes, (body) => {
            const messages = new Reader(body)
            while (!messages.done) this.heard.push(ManagerMessages.decode(messages))
          }),
        pendingBytes: () => this.pending,
        pause: () => {
          this.paused = true
        },
        resume: () => {
          this.paused = false
        },
        close: () => {
          this.closed = true
        },
        destroy: () => {
          this.destroyed = true
        }
      },
      gate
    )
  }

  say(...messages: ReadonlyArray<ClientMessages.ClientMessage>): void {
    this.handler.onData(
      frame((w) => {
        for (const message of messages) ClientMessages.encode(w, message)
      })
    )
  }

  /** Opens a session: a new one, or `session`. */
  open(session?: Uint8Array): void {
    this.say(hello)
    this.say({ type: C.sessionOpen, session, held: [] })
  }

  /** What was heard of this type, and is forgotten. */
  take<T extends ManagerMessages.ManagerMessage["type"]>(
    type: T
  ): ReadonlyArray<Extract<ManagerMessages.ManagerMessage, { readonly type: T }>> {
    const isIt = (
      message: ManagerMessages.ManagerMessage
    ): message is Extract<ManagerMessages.ManagerMessage, { readonly type: T }> => message.type === type
    const found = this.heard.filter(isIt)
    this.heard.splice(0, this.heard.length, ...this.heard.filter((message) => !isIt(message)))
    return found
  }
}

/** Lets a few rounds pass. */
export const settled = async (): Promise<void> => {
  for (let i = 0; i < 12; i++) await new Promise((resolve) => setImmediate(resolve))
}

/** Looks until it holds, for at most ten seconds. */
export const until = async (holds: () => boolean, what: string): Promise<void> => {
  for (let i = 0; i < 2_000; i++) {
    if (holds()) return
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  throw new Error(`never happened: ${what}`)
}
