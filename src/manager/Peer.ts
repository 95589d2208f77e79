/**
 * One connection as the manager sees it, from accept to close, and the session behind it.
 *
 *     hello -> challenge -> proof -> session -> open -> closed
 *
 * Before `open` nothing but the handshake is parsed, in small frames and few; a fault is answered once, then the
 * connection closes. A session outlives its connection: the newest connection that proves itself for it takes over.
 */
import type { Verifier } from "../auth/Credentials.ts"
import type { Grant } from "../auth/Roles.ts"
import type { ServerState } from "../auth/Scram.ts"
import * as Limits from "../Limits.ts"
import type { LeaseStream } from "../model/Session.ts"
import { Session } from "../model/Session.ts"
import { type Connection, sourceOf } from "../platform/Network.ts"
import type { Writer } from "../wire/Bytes.ts"
import { FrameReader, FrameWriter } from "../wire/Frames.ts"
import * as Manager from "../wire/ManagerMessages.ts"
import type { Guard } from "./Guard.ts"

export type PeerState = "hello" | "challenge" | "proof" | "session" | "open" | "closed"

/** Who may log in on a listener, and what they may do. */
export interface Gate {
  readonly verifier: (name: string) => Verifier | undefined
  /** Of a name that has a verifier; undefined: everything. The same list at every call. */
  readonly grants: (name: string) => ReadonlyArray<Grant> | undefined
  readonly iterations: ReadonlyArray<number>
  readonly mockSecret: Uint8Array
}

/** The engine's session with what the manager knows about it. */
export class PeerSession extends Session {
  peer: Peer | undefined = undefined
  detachedAt = 0
  /** It has had another connection before this one: requests may come again. */
  resumed = false
  /** Looks at its commands; undefined: its credential may do everything. */
  guard: Guard | undefined = undefined
}

export class Peer {
  state: PeerState = "hello"
  session: PeerSession | undefined = undefined
  principal: string | undefined = undefined
  grants: ReadonlyArray<Grant> | undefined = undefined
  scram: ServerState | undefined = undefined
  helloHash: Uint8Array | undefined = undefined
  /** The challenge, while failures of others or its own hold it back. */
  held: { readonly until: number; readonly message: string } | undefined = undefined
  /** It was challenged in its turn, after failures; otherwise it must find none when its proof comes. */
  inTurn = false
  framesBeforeLogin = 0
  /** Puts that waited when this connection took its session over, until they are asked again on it. */
  crossing: Set<number> | undefined = undefined
  /** Requests that have no answer yet. */
  inFlight = 0
  /** Bytes that have arrived and not been stepped. */
  inbound = 0
  paused = false
  /** Bytes of deliveries of this round that are read from the store first. */
  deferred = 0
  /** Heard since the manager last looked, and looks since then; the same of what was said to it. */
  heard = true
  silentLooks = 0
  said = true
  quietLooks = 0
  /** Set when something is written; the round flushes it. */
  dirty = false
  /** The network has closed it; what had arrived before is still stepped. */
  disconnected = false
  /** When the manager said its last word. */
  closingAt = 0
  readonly acceptedAt: number
  readonly connection: Connection
  /** Where it is: its address without the port. */
  readonly source: string
  /** The door it came through; an in-process peer has none, and has proven itself by being here. */
  readonly gate: Gate | undefined
  /** Its door is closing: no new work. */
  draining = false
  readonly reader = new FrameReader(Limits.preAuthFrameBytesMax)
  readonly out = new FrameWriter()
  #delivering: LeaseStream | undefined = undefined
  #writer: Writer | undefined = undefined
  #arrayAt = 0
  #delivered = 0

  constructor(connection: Connection, gate: Gate | undefined, now: number) {
    this.connection = connection
    this.source = sourceOf(connection.peer)
    this.gate = gate
    this.acceptedAt = now
  }

  /** Where to write the next message; ends a delivery under way. */
  message(): Writer {
    this.endDelivery()
    return this.out.begin()
  }

  send(message: Manager.ManagerMessage): void {
    Manager.encode(this.message(), message)
  }

  /** The writer for one more task of `stream`: consecutive ones share a message until a frame is full. */
  delivery(stream: LeaseStream): Writer {
    if (this.#writer !== undefined && this.#delivering === stream && this.out.frameSize < Limits.frameBytesTarget) {
      this.#delivered++
      return this.#writer
    }
    this.endDelivery()
    const writer = this.out.begin()
    this.#writer = writer
    this.#delivering = stream
    this.#arrayAt = Manager.openDeliver(writer, stream.id)
    this.#delivered = 1
    return writer
  }

  endDelivery(): void {
    if (this.#writer === undefined) return
    Manager.closeDeliver(this.#writer, this.#arrayAt, this.#delivered)
    this.#writer = undefined
    this.#delivering = undefined
  }

  /** Hands what was written to the connection, in one write. */
  flush(): void {
    this.endDelivery()
    if (this.out.empty || this.disconnected) return
    this.said = true
    this.out.flush(this.connection)
  }

  /** Written and not taken: what waits here, and what waits in the connection. */
  get outbound(): number {
    return this.out.size + this.connection.pendingBytes()
  }
}
