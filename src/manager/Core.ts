/**
 * The manager without Effect: connections in, rounds through the engine, bytes out.
 *
 *     data -> frames -> [arrived] --round--> engine -> records -> store
 *                                               |                   | durable
 *                                               +-> replies held <--+-> one write per connection
 *
 * It is the only writer of its namespace. A round takes all that has arrived, steps it, stores it as one, and only then
 * lets replies and deliveries out; while a store commits, the next round collects. Nothing here allocates per task but
 * the engine's own record. Time, randomness, the store and logging come in through `Host`.
 */

import * as Scram from "../auth/Scram.ts"
import * as Limits from "../Limits.ts"
import { type Change, Engine, type Failure, type Out } from "../model/Engine.ts"
import * as Policy from "../model/Policy.ts"
import type { Queue, QueueDefinition } from "../model/Queue.ts"
import { Code, type Refusal, refusal } from "../model/Refusal.ts"
import type { LeaseStream, OutcomeStream, PutStatus, Session } from "../model/Session.ts"
import { type AttemptReason, Reason, State, type Task, type TaskOptions } from "../model/Task.ts"
import { randomBytes, sha256, timingSafeEqual } from "../platform/Crypto.ts"
import type { Connection, Handler } from "../platform/Network.ts"
import { soon } from "../platform/Schedule.ts"
import { concat, Malformed, Reader, toHex } from "../wire/Bytes.ts"
import * as Client from "../wire/ClientMessages.ts"
import { frame } from "../wire/Frames.ts"
import * as Wire from "../wire/ManagerMessages.ts"
import * as Vocabulary from "../wire/Vocabulary.ts"
import { type Gate, Peer, PeerSession, type PeerState } from "./Peer.ts"

const { ClientType: C, ManagerType: M } = Vocabulary

/** What a round has decided, in order. */
type StoreRecord =
  | { readonly _tag: "Queue"; readonly id: number; readonly definition: QueueDefinition; readonly closed: string }
  | {
      readonly _tag: "Put"
      readonly task: number
      readonly queue: number
      readonly payload: Uint8Array
      readonly options: TaskOptions | undefined
      readonly dueAt: number
    }
  | { readonly _tag: "Leased"; readonly task: number; readonly leases: number; readonly attempt: number }
  | {
      readonly _tag: "Ready" | "Delayed"
      readonly task: number
      readonly attempt: number
      readonly dueAt: number
      readonly reasons: ReadonlyArray<AttemptReason>
    }
  | {
      readonly _tag: "Ended"
      readonly task: number
      readonly cursor: number
      readonly outcome: number
      readonly body: Uint8Array | undefined
      readonly reasons: ReadonlyArray<AttemptReason>
    }
  | { readonly _tag: "Acknowledged"; readonly task: number }

/** What the core needs of the world. */
export interface Host {
  /** Milliseconds that never go back. */
  readonly now: () => number
  /** Calls `wake` at or after `at`; a new call replaces the last. */
  readonly alarm: (at: number) => void
  /** Stores the round, then calls back: exactly once. Not called when the store keeps nothing. */
  readonly commit: ((records: ReadonlyArray<StoreRecord>, done: () => void) => void) | undefined
  readonly durability: Policy.Durability
  /** The engine has thrown; the core has stopped. */
  readonly failed: (text: string) => void
  readonly log: (level: "info" | "warn" | "error", text: string, details: Readonly<Record<string, unknown>>) => void
}

export interface CoreOptions {
  readonly queues: ReadonlyArray<QueueDefinition>
  readonly host: Host
  /** The upper part of every fence. Default: random, so that lives of a memory manager differ. */
  readonly epoch?: number | undefined
}

export interface Counters {
  connections: number
  sessions: number
  rounds: number
  frames: number
  refused: number
  malformed: number
  authenticationFailures: number
}

export class Core implements Out {
  readonly engine: Engine
  /** Upper half of the task ids: ids of another manager, or of an earlier life of this one, are not found here. */
  readonly instance = randomBytes(8)
  readonly counters: Counters = {
    connections: 0,
    sessions: 0,
    rounds: 0,
    frames: 0,
    refused: 0,
    malformed: 0,
    authenticationFailures: 0
  }
  readonly #host: Host
  readonly #peers = new Set<Peer>()
  /** Peers that have heard the last word and have not closed yet. */
  readonly #closing = new Set<Peer>()
  readonly #sessions = new Map<string, PeerSession>()
  readonly #dirty: Array<Peer> = []
  #arrived: Array<{ readonly peer: Peer; readonly body: Uint8Array }> = []
  #gone: Array<Peer> = []
  #records: Array<StoreRecord> = []
  #scheduled = false
  #committing = false
  #unauthenticated = 0
  #stopped = false
  #failed = false
  readonly #drainingGates = new Set<Gate>()

  constructor(options: CoreOptions) {
    this.#host = options.host
    const random = randomBytes(4)
    const seed = new DataView(random.buffer, random.byteOffset, 4).getUint32(0)
    // A memory manager has a new epoch in each life: a fence of an earlier one fits nothing of this one.
    const epoch = options.epoch ?? 1 + (seed % 2 ** 20)
    this.engine = new Engine({ epoch, seed, out: this })
    for (const definition of options.queues) this.engine.declare(definition)
  }

  // ---- connections

  /** Takes over a connection. `gate` decides who may log in; without one the peer is trusted (in-process). */
  accept(connection: Connection, gate: Gate | undefined): Handler {
    const peer = new Peer(connection, gate, this.#host.now())
    if (this.#stopped || (gate !== undefined && this.#drainingGates.has(gate)))
      this.#refuseConnection(peer, Code.draining, "the manager is stopping")
    else if (this.#unauthenticated >= Limits.connectionsUnauthenticatedMax) {
      this.#refuseConnection(peer, Code.tooManyConnections, "too many connections in the handshake")
    } else if (this.#peers.size >= Limits.connectionsMax) {
      this.#refuseConnection(peer, Code.tooManyConnections, "too many connections")
    } else {
      this.#peers.add(peer)
      this.#unauthenticated++
      this.counters.connections++
    }
    return {
      onData: (chunk) => this.#data(peer, chunk, gate),
      onDrain: () => this.#drained(peer),
      onClose: () => this.#closed(peer)
    }
  }

  /** Looks at deadlines that no message ends: handshakes, silent peers, peers that do not close, sessions left alone. */
  sweep(): void {
    const now = this.#host.now()
    for (const peer of this.#peers) {
      if (peer.state !== "open") {
        if (now - peer.acceptedAt >= Limits.handshakeMs) {
          this.#fault(peer, Code.handshakeTimeout, `the handshake took over ${Limits.handshakeMs} ms`)
        }
      } else if (peer.gate !== undefined && now - peer.lastHeardAt >= Limits.heartbeatDeadMs) {
        this.#fault(peer, Code.protocol, `nothing was heard for ${Limits.heartbeatDeadMs} ms`)
      }
    }
    for (const peer of this.#closing) {
      if (now - peer.closingAt >= Limits.closeMs) peer.connection.destroy()
    }
    for (const session of this.#sessions.values()) {
      if (session.peer === undefined && session.leased === 0 && now - session.detachedAt >= Limits.sessionIdleMs) {
        this.#endSession(session, now)
      }
    }
  }

  /** Whether every waiting answer has been written out. */
  get idle(): boolean {
    return !this.#scheduled && !this.#committing && this.#arrived.length === 0
  }

  /** Refuses new work on the connections of one door from now on, and says so to their sessions. */
  drain(gate: Gate): void {
    this.#drainingGates.add(gate)
    for (const peer of this.#peers) {
      if (peer.gate !== gate) continue
      peer.draining = true
      if (peer.state !== "open" || peer.session === undefined) continue
      for (const stream of [...peer.session.leaseStreams.keys()]) this.engine.unsubscribe(peer.session, stream)
      peer.send({ type: M.control, kind: 1 })
      this.#touch(peer)
    }
    this.wake()
  }

  /** Closes the connections of one door. */
  close(gate: Gate): void {
    for (const peer of [...this.#peers]) {
      if (peer.gate === gate) this.#fault(peer, Code.draining, "the manager has stopped listening")
    }
  }

  /** Closes every connection. */
  stop(): void {
    this.#stopped = true
    for (const peer of [...this.#peers]) this.#fault(peer, Code.draining, "the manager has stopped")
  }

  /** Asks for a round. */
  wake(): void {
    if (this.#scheduled || this.#committing) return
    this.#scheduled = true
    soon(() => {
      this.#scheduled = false
      this.#round()
    })
  }

  // ---- bytes

  #data(peer: Peer, chunk: Uint8Array, gate: Gate | undefined): void {
    if (peer.state === "closed") return
    peer.lastHeardAt = this.#host.now()
    peer.reader.push(chunk, (body) => {
      this.counters.frames++
      if (peer.state === "open") {
        peer.inbound += body.byteLength
        this.#arrived.push({ peer, body })
      } else this.#handshake(peer, body, gate)
    })
    if (peer.reader.fault !== undefined) {
      this.counters.malformed++
      return this.#fault(peer, Code.protocol, peer.reader.fault)
    }
    if (peer.inbound > Limits.inboundBytesPause && !peer.paused) {
      peer.paused = true
      peer.connection.pause()
    }
    if (peer.inbound > 0) this.wake()
  }

  #drained(peer: Peer): void {
    if (peer.session?.congested && peer.connection.pendingBytes() <= Limits.outboundBytesPause) {
      this.engine.congested(peer.session, false)
      this.wake()
    }
  }

  #closed(peer: Peer): void {
    this.#closing.delete(peer)
    peer.disconnected = true
    if (!this.#peers.delete(peer)) return
    if (peer.state !== "open") {
      this.#unauthenticated--
      peer.state = "closed"
      return
    }
    // What arrived before the end is stepped first: an acknowledgement, a last commit, a goodbye.
    this.#gone.push(peer)
    this.wake()
  }

  /** One error, then close. */
  #fault(peer: Peer, code: number, text: string): void {
    if (peer.state === "closed") return
    if (code !== Code.draining) {
      const details = { peer: peer.connection.peer, state: peer.state, reason: text }
      this.#host.log("warn", "connection closed by the manager", details)
    }
    if (peer.state !== "open") this.#unauthenticated--
    peer.state = "closed"
    this.#peers.delete(peer)
    if (peer.session !== undefined) {
      this.#gone.push(peer)
      this.wake()
    }
    // Answers that wait for the store are not let out by a fault: they stay unanswered, and indefinite.
    peer.connection.write(frame((w) => Wire.encode(w, { type: M.closing, code, text })))
    peer.connection.close()
    peer.closingAt = this.#host.now()
    if (!peer.disconnected) this.#closing.add(peer)
  }

  #refuseConnection(peer: Peer, code: number, text: string): void {
    this.counters.refused++
    peer.state = "closed"
    peer.connection.write(frame((w) => Wire.encode(w, { type: M.closing, code, text })))
    peer.connection.close()
  }

  // ---- handshake

  #handshake(peer: Peer, body: Uint8Array, gate: Gate | undefined): void {
    if (peer.state === "closed") return
    try {
      if (++peer.framesBeforeLogin > Limits.preAuthFramesMax) throw new Malformed("too many frames before login")
      const reader = new Reader(body)
      const allowed = handshakeTypes[peer.state]
      if (allowed === undefined || Client.peekType(body) !== allowed) {
        throw new Malformed(`only message ${allowed ?? "?"} is allowed in state ${peer.state}`)
      }
      const message = Client.decode(reader)
      if (!reader.done) throw new Malformed("a handshake frame has one message")
      this.#handshakeStep(peer, message, body, gate)
      peer.flush()
    } catch (error) {
      if (!(error instanceof Malformed)) throw error
      this.counters.malformed++
      this.#fault(peer, Code.protocol, error.message)
    }
  }

  #handshakeStep(peer: Peer, message: Client.ClientMessage, body: Uint8Array, gate: Gate | undefined): void {
    if (peer.state === "hello" && message.type === C.hello) {
      if (message.magic !== Vocabulary.magic) throw new Malformed("this is not the millrace protocol")
      if (message.versionMax < Vocabulary.versionMin || message.versionMin > Vocabulary.versionMax) {
        const ours = `${Vocabulary.versionMin}-${Vocabulary.versionMax}`
        return this.#fault(peer, Code.version, ours)
      }
      if (message.namespace !== "default") {
        return this.#fault(peer, Code.protocol, `this manager has no namespace "${message.namespace}"`)
      }
      const hello = frame((w) =>
        Wire.encode(w, {
          type: M.hello,
          magic: Vocabulary.magic,
          version: Math.min(message.versionMax, Vocabulary.versionMax),
          versionMin: Vocabulary.versionMin,
          versionMax: Vocabulary.versionMax,
          capabilities: 0,
          frameBytesMax: Limits.frameBytesMax,
          mechanisms: gate === undefined ? [] : ["SCRAM-SHA-256"]
        })
      )
      peer.helloHash = sha256(concat([body, hello.subarray(4)]))
      peer.connection.write(hello)
      peer.state = gate === undefined ? "session" : "challenge"
      if (gate === undefined) {
        peer.principal = "in-process"
        peer.reader.limit = Limits.frameBytesMax
      }
      return
    }
    if (peer.state === "challenge" && message.type === C.authFirst && gate !== undefined) {
      if (message.mechanism !== "SCRAM-SHA-256") throw new Malformed("the only mechanism is SCRAM-SHA-256")
      const step = Scram.serverFirst({
        clientFirst: message.message,
        lookup: gate.verifier,
        mockSecret: gate.mockSecret,
        iterationsInUse: gate.iterations,
        nonce: randomBytes(Limits.scramNonceBytesMin),
        helloHash: peer.helloHash!
      })
      if (step._tag === "Refused") return this.#loginFailed(peer, step.reason)
      peer.scram = step.state
      peer.state = "proof"
      return peer.send({ type: M.authChallenge, message: step.message })
    }
    if (peer.state === "proof" && message.type === C.authFinal) {
      const verdict = Scram.serverFinal(peer.scram!, message.message)
      peer.scram = undefined
      if (verdict._tag === "Refused") return this.#loginFailed(peer, verdict.reason)
      peer.principal = verdict.name
      peer.state = "session"
      peer.reader.limit = Limits.frameBytesMax
      return peer.send({ type: M.authOk, message: verdict.message })
    }
    if (peer.state === "session" && message.type === C.sessionOpen) return this.#openSession(peer, message)
    throw new Malformed(`message ${message.type} is not allowed in state ${peer.state}`)
  }

  /** The reason is for the log; the peer hears one generic word. */
  #loginFailed(peer: Peer, reason: string): void {
    this.counters.authenticationFailures++
    this.#host.log("warn", "login refused", { peer: peer.connection.peer, reason })
    this.#fault(peer, Code.authentication, "authentication failed")
  }

  #openSession(peer: Peer, message: Client.SessionOpen): void {
    const now = this.#host.now()
    const known = message.session === undefined ? undefined : this.#sessions.get(toHex(message.session))
    let session: PeerSession
    let lost: ReadonlyArray<number> = []
    const mine =
      known !== undefined && known.principal === peer.principal && timingSafeEqual(known.token, message.session!)
    if (known !== undefined && mine) {
      // The newest connection of a session wins.
      const old = known.peer
      if (old !== undefined) {
        old.session = undefined
        this.#fault(old, Code.replaced, "another connection took over this session")
        this.engine.detach(known, now)
      }
      session = known
      lost = this.engine.resume(session, message.held, now)
    } else {
      if (this.#sessions.size >= Limits.sessionsMax)
        return this.#fault(peer, Code.tooManyConnections, "too many sessions")
      const token = randomBytes(16)
      session = this.engine.connect((id) => new PeerSession(id, token, peer.principal!))
      this.#sessions.set(toHex(token), session)
      lost = message.held.filter((_, i) => i % 2 === 0)
      this.counters.sessions++
    }
    session.peer = peer
    peer.session = session
    peer.state = "open"
    this.#unauthenticated--
    peer.send({
      type: M.sessionOpened,
      session: session.token,
      resumed: mine,
      instance: this.instance,
      heartbeatMs: Limits.heartbeatMs,
      requestsInFlightMax: Limits.requestsInFlightMax,
      durability: this.#host.durability,
      lost
    })
    this.wake()
  }

  // ---- rounds

  #round(): void {
    if (this.#committing || this.#failed) return
    try {
      this.#runRound()
    } catch (error) {
      // A broken invariant: nothing that this engine says may be trusted any more.
      this.#failed = true
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
      this.#host.failed(text)
      this.stop()
    }
  }

  #runRound(): void {
    const now = this.#host.now()
    this.counters.rounds++
    this.engine.tick(now)
    const arrived = this.#arrived
    this.#arrived = []
    for (const { body, peer } of arrived) this.#step(peer, body, now)
    for (const peer of this.#gone.splice(0)) this.#detach(peer, now)
    this.engine.dispatch(now)
    if (this.#host.commit !== undefined && this.#records.length > 0) {
      const records = this.#records
      this.#records = []
      this.#committing = true
      this.#host.commit(records, () => {
        this.#committing = false
        this.#letOut()
        this.wake() // whatever arrived, fell due or was drained meanwhile
      })
    } else this.#letOut()
    this.#host.alarm(this.engine.nextDeadline)
  }

  /** Persist, then promise: this runs when the round is as durable as the store makes it. */
  #letOut(): void {
    for (const peer of this.#dirty.splice(0)) {
      peer.dirty = false
      if (peer.state === "closed") continue
      peer.flush()
      if (peer.session === undefined) continue
      const pending = peer.connection.pendingBytes()
      if (pending > Limits.outboundBytesMax) this.#outboundFull(peer)
      else if (pending > Limits.outboundBytesPause) this.engine.congested(peer.session, true)
      else if (peer.session.congested) {
        // The system took it all at once: there will be no drain to wait for.
        this.engine.congested(peer.session, false)
        this.wake()
      }
    }
  }

  /** A peer asks and does not read. */
  #outboundFull(peer: Peer): void {
    const text = `${peer.outbound} bytes wait to be read, at most ${Limits.outboundBytesMax} may`
    this.#fault(peer, Code.limitExceeded, text)
    peer.connection.destroy()
  }

  /** Called after each delivery: what a session cannot take now, another may, or it may later. */
  #checkCongestion(peer: Peer): void {
    if (peer.out.size > Limits.outboundBytesPause && peer.session !== undefined) {
      this.engine.congested(peer.session, true)
    }
  }

  #step(peer: Peer, body: Uint8Array, now: number): void {
    if (peer.state !== "open") return
    peer.inbound -= body.byteLength
    if (peer.paused && peer.inbound <= Limits.inboundBytesPause / 2) {
      peer.paused = false
      peer.connection.resume()
    }
    try {
      const reader = new Reader(body)
      let messages = 0
      while (!reader.done && peer.state === "open") {
        if (++messages > Limits.messagesPerFrameMax) throw new Malformed("too many messages in one frame")
        this.#message(peer, Client.decode(reader), now)
        if (peer.out.size > Limits.outboundBytesPause && peer.outbound > Limits.outboundBytesMax)
          this.#outboundFull(peer)
      }
    } catch (error) {
      if (!(error instanceof Malformed)) throw error
      this.counters.malformed++
      this.#fault(peer, Code.protocol, error.message)
    }
  }

  #message(peer: Peer, m: Client.ClientMessage, now: number): void {
    const session = peer.session!
    const { engine } = this
    switch (m.type) {
      case C.abandon:
        return engine.abandon(session, m.request)
      case C.credit:
        return engine.credit(session, m.stream, m.credit)
      case C.started:
        return engine.started(session, m.held)
      case C.acknowledge:
        return engine.acknowledge(session, m.held, now)
      case C.heartbeat: {
        const lost = engine.heartbeat(session, m.held, now)
        peer.send({ type: M.heartbeat, sequence: m.sequence, lost, cancelled: [] })
        return this.#touch(peer)
      }
      case C.goodbye:
        peer.session = undefined
        this.#endSession(session, now)
        peer.state = "closed"
        this.#peers.delete(peer)
        return peer.connection.close()
      case C.hello:
      case C.authFirst:
      case C.authFinal:
      case C.sessionOpen:
        throw new Malformed(`message ${m.type} is not allowed in state open`)
      default:
        return this.#request(peer, session, m, now)
    }
  }

  #request(peer: Peer, session: PeerSession, m: Client.Request, now: number): void {
    const { engine } = this
    if (++peer.inFlight > Limits.requestsInFlightMax) {
      const why = refusal(Code.limitExceeded, "requestsInFlightMax", peer.inFlight, Limits.requestsInFlightMax)
      return this.refused(session, m.request, why)
    }
    switch (m.type) {
      case C.put:
        if (peer.draining) return this.refused(session, m.request, refusal(Code.draining, ""))
        return engine.put(session, m.request, m.queue, m.atomic, m.waitMs, m.payloads, m.options, now)
      case C.commit:
        return engine.commit(session, m.request, m.tasks, m.fences, m.results, m.effects, now)
      case C.open:
        return this.#open(session, m)
      case C.lease:
        // Whoever asked is gone; what it would get would only wait for its lease to end.
        if (peer.disconnected) return
        if (peer.draining) return this.refused(session, m.request, refusal(Code.draining, ""))
        return engine.lease(session, m.request, m.queue, m.count, m.waitMs, m.get, now)
      case C.subscribe: {
        if (peer.draining) return this.refused(session, m.request, refusal(Code.draining, ""))
        const queue = this.#streamable(session, m.request, m.queue)
        if (queue === undefined) return
        const { id } = engine.subscribe(session, queue, m.credit)
        return this.#answer(session, { type: M.streaming, request: m.request, stream: id })
      }
      case C.follow: {
        const queue = this.#streamable(session, m.request, m.queue)
        if (queue === undefined) return
        const cursor = Math.min(m.cursor, queue.log.next)
        const { id } = engine.follow(session, queue, cursor, m.credit)
        return this.#answer(session, { type: M.streaming, request: m.request, stream: id })
      }
      case C.unsubscribe:
        engine.unsubscribe(session, m.stream)
        return this.done(session, m.request)
      case C.release:
        return engine.release(session, m.request, m.held, now)
      case C.fail:
        return engine.fail(session, m.request, m.tasks, m.fences, m.failures.map(failureOf), now)
      case C.renew:
        return engine.renew(session, m.request, m.held, now)
      case C.join:
        return engine.join(session, m.request, m.queue, m.waitMs, now)
      case C.close:
        return engine.close(session, m.request, m.queue, m.immediate ? "immediate" : "drain", now)
      case C.outcome:
        return engine.outcome(session, m.request, m.queue, m.task, m.waitMs, now)
      case C.peek: {
        const queue = engine.queues[m.queue]
        if (queue === undefined) return this.#noQueue(session, m.request, m.queue)
        const items = within(queue.ready.peek(m.count)).map((task) => this.#delivery(task))
        return this.#answer(session, { type: M.peeked, request: m.request, items })
      }
      case C.stats: {
        if (m.queue !== undefined && engine.queues[m.queue] === undefined) {
          return this.#noQueue(session, m.request, m.queue)
        }
        const queues = m.queue === undefined ? engine.queues : [engine.queues[m.queue]!]
        const stats = queues.slice(0, Limits.pageItemsMax).map((queue) => queueStats(queue, now))
        return this.#answer(session, { type: M.stats, request: m.request, queues: stats })
      }
    }
  }

  #open(session: PeerSession, m: Client.Open): void {
    let queue = this.engine.find(m.name)
    if (queue === undefined) {
      if (m.policy === undefined) return this.refused(session, m.request, refusal(Code.queueNotFound, m.name))
      if (this.engine.queues.length >= Limits.queuesMax) {
        return this.refused(
          session,
          m.request,
          refusal(Code.limitExceeded, "queuesMax", this.engine.queues.length, Limits.queuesMax)
        )
      }
      const policy = Policy.fromNumbers(m.policy)
      const fault = Policy.fault(policy)
      if (fault !== undefined) {
        const text = `${m.name}\n${fault.field}\nuse a whole number from ${fault.min} to ${fault.max}`
        return this.refused(session, m.request, refusal(Code.definitionInvalid, text, fault.value, fault.max))
      }
      this.#host.log("info", `queue "${m.name}" made by its first open`, { peer: session.peer?.connection.peer })
      queue = this.engine.declare({
        name: m.name,
        fingerprint: m.fingerprint.slice(),
        schema: m.schema,
        accepts: m.accepts.map((fingerprint) => fingerprint.slice()),
        policy,
        durability: this.#host.durability
      })
    }
    const { definition } = queue
    const ours = definition.fingerprint
    const accepted =
      equal(ours, m.fingerprint) ||
      definition.accepts.some((older) => equal(older, m.fingerprint)) ||
      m.accepts.some((older) => equal(older, ours))
    if (m.fingerprint.byteLength > 0 && ours.byteLength > 0 && !accepted) {
      const text = `${m.name}\n${difference(definition.schema, m.schema)}`
      return this.refused(session, m.request, refusal(Code.schemaMismatch, text))
    }
    this.#answer(session, {
      type: M.opened,
      request: m.request,
      queue: queue.id,
      durability: definition.durability,
      policy: Policy.toNumbers(queue.policy),
      outcomesNext: queue.log.next
    })
  }

  #streamable(session: PeerSession, request: number, queueId: number): Queue | undefined {
    const queue = this.engine.queues[queueId]
    if (queue === undefined) {
      this.#noQueue(session, request, queueId)
      return undefined
    }
    const streams = session.leaseStreams.size + session.outcomeStreams.size
    if (streams >= Limits.subscriptionsPerSessionMax) {
      const max = Limits.subscriptionsPerSessionMax
      this.refused(session, request, refusal(Code.limitExceeded, "subscriptionsPerSessionMax", streams + 1, max))
      return undefined
    }
    return queue
  }

  #noQueue(session: PeerSession, request: number, queueId: number): void {
    this.refused(session, request, refusal(Code.queueNotFound, `#${queueId}`, queueId))
  }

  #detach(peer: Peer, now: number): void {
    const { session } = peer
    peer.state = "closed"
    if (session === undefined || session.peer !== peer) return
    session.peer = undefined
    session.detachedAt = now
    this.engine.detach(session, now)
  }

  #endSession(session: PeerSession, now: number): void {
    this.engine.goodbye(session, now)
    session.peer = undefined
    this.#sessions.delete(toHex(session.token))
  }

  #touch(peer: Peer): void {
    if (peer.dirty) return
    peer.dirty = true
    this.#dirty.push(peer)
  }

  /** The peer to write an answer to; undefined when its connection is gone and nobody waits. */
  #answering(session: Session): Peer | undefined {
    const { peer } = session as PeerSession
    if (peer === undefined || peer.state !== "open") return undefined
    peer.inFlight--
    this.#touch(peer)
    return peer
  }

  #answer(session: Session, answer: Wire.Answer): void {
    this.#answering(session)?.send(answer)
  }

  #delivery(task: Task): Vocabulary.Delivery {
    return {
      task: task.n,
      fence: this.engine.fence(task),
      attempt: task.attempt,
      payload: task.payload,
      key: task.options?.key,
      trace: task.options?.trace,
      checkpoint: task.checkpoint
    }
  }

  // ---- Out: what the engine decided

  changed = (change: Change, task: Task): void => {
    if (this.#host.commit !== undefined) this.#records.push(record(change, task))
  }
  queueChanged = (queue: Queue): void => {
    if (this.#host.commit === undefined) return
    this.#records.push({ _tag: "Queue", id: queue.id, definition: queue.definition, closed: queue.closed })
  }
  refused = (session: Session, request: number, why: Refusal): void => {
    this.counters.refused++
    this.#answer(session, { type: M.refused, request, ...why })
  }
  done = (session: Session, request: number): void => this.#answer(session, { type: M.done, request })
  putDone = (session: Session, request: number, first: number, count: number): void =>
    this.#answer(session, { type: M.putDone, request, first, count })
  putItems = (
    session: Session,
    request: number,
    tasks: ReadonlyArray<number>,
    statuses: ReadonlyArray<PutStatus>
  ): void => this.#answer(session, { type: M.putItems, request, tasks, statuses })
  leased = (session: Session, request: number, tasks: ReadonlyArray<Task>): void =>
    this.#answer(session, { type: M.leased, request, items: tasks.map((task) => this.#delivery(task)) })
  items = (session: Session, request: number, codes: ReadonlyArray<number>): void =>
    this.#answer(session, { type: M.items, request, codes })
  outcome = (session: Session, request: number, queue: Queue, cursor: number): void =>
    this.#answer(session, { type: M.outcome, request, outcome: outcomeAt(queue, cursor) })

  deliver = (stream: LeaseStream, task: Task): void => {
    const { peer } = stream.session as PeerSession
    if (peer === undefined || peer.state !== "open") return
    this.#touch(peer)
    const { options } = task
    const w = peer.delivery(stream)
    Wire.delivery(
      w,
      task.n,
      this.engine.fence(task),
      task.attempt,
      task.payload,
      options?.key,
      options?.trace,
      task.checkpoint
    )
    this.#checkCongestion(peer)
  }

  outcomes = (stream: OutcomeStream, from: number, count: number): number => {
    const { peer } = stream.session as PeerSession
    if (peer === undefined || peer.state !== "open") return 0
    this.#touch(peer)
    const { log } = stream.queue
    const end = from + count
    let cursor = from
    while (cursor < end && !stream.session.congested) {
      // As many as fill a frame; results may be large.
      let upTo = cursor
      for (let bytes = 0; upTo < end && bytes < Limits.frameBytesTarget; upTo++) {
        bytes += 32 + log.size(upTo)
      }
      const w = peer.message()
      Wire.openOutcomes(w, stream.id, upTo, upTo - cursor)
      for (; cursor < upTo; cursor++) {
        const reasons = log.reasons(cursor)
        Wire.outcomeHead(
          w,
          log.task(cursor),
          log.outcome(cursor),
          log.attempts(cursor),
          log.endedAt(cursor),
          log.body(cursor),
          reasons
        )
      }
      this.#checkCongestion(peer)
    }
    return cursor - from
  }

  outcomesGap = (stream: OutcomeStream, oldest: number): void => {
    const { peer } = stream.session as PeerSession
    if (peer === undefined || peer.state !== "open") return
    peer.send({ type: M.gap, stream: stream.id, cursor: stream.cursor, oldest })
    this.#touch(peer)
  }
}

/** The one message that each state before `open` waits for: nothing else is parsed. */
const handshakeTypes: Readonly<Partial<Record<PeerState, number>>> = {
  hello: C.hello,
  challenge: C.authFirst,
  proof: C.authFinal,
  session: C.sessionOpen
}

/** A client reports what its handlers did; the other reasons are the engine's own to give. */
const reportable = new Set<number>([Reason.failed, Reason.killed, Reason.defect, Reason.timeout, Reason.undecodable])

const failureOf = (failure: Client.Failure): Failure => ({
  ...failure,
  reason: reportable.has(failure.reason) ? (failure.reason as Failure["reason"]) : Reason.failed
})

const record = (change: Change, task: Task): StoreRecord => {
  const { attempt, n, queue } = task
  switch (change) {
    case "put":
      return {
        _tag: "Put",
        task: n,
        queue: queue.id,
        payload: task.payload,
        options: task.options,
        dueAt: task.state === State.delayed ? task.at : 0
      }
    case "leased":
      return { _tag: "Leased", task: n, leases: task.leases, attempt }
    case "ready":
      return { _tag: "Ready", task: n, attempt, dueAt: 0, reasons: task.reasons ?? [] }
    case "delayed":
      return { _tag: "Delayed", task: n, attempt, dueAt: task.at, reasons: task.reasons ?? [] }
    case "ended": {
      const cursor = queue.log.next - 1
      return {
        _tag: "Ended",
        task: n,
        cursor,
        outcome: queue.log.outcome(cursor),
        body: queue.log.body(cursor),
        reasons: task.reasons ?? []
      }
    }
    case "acknowledged":
      return { _tag: "Acknowledged", task: n }
  }
}

const outcomeAt = ({ log }: Queue, cursor: number): Vocabulary.Outcome => ({
  task: log.task(cursor),
  outcome: log.outcome(cursor),
  attempts: log.attempts(cursor),
  endedAtMs: log.endedAt(cursor),
  body: log.body(cursor),
  reasons: log.reasons(cursor) ?? []
})

const queueStats = (queue: Queue, now: number): Vocabulary.QueueStats => {
  const oldest = queue.ready.first()
  return {
    name: queue.definition.name,
    durability: queue.definition.durability,
    closed: queue.closed,
    capacity: queue.policy.capacity,
    ready: queue.ready.size,
    delayed: queue.delayed,
    leased: queue.leased,
    done: queue.done,
    dead: queue.dead,
    cancelled: queue.cancelled,
    acknowledged: queue.acknowledged,
    puts: queue.puts,
    duplicates: queue.duplicates,
    refused: queue.refused,
    oldestReadyMs: oldest === undefined ? 0 : Math.max(0, now - oldest.putAt),
    outcomesFirst: queue.log.first,
    outcomesNext: queue.log.next,
    workers: queue.leaseStreams.length
  }
}

/** The first tasks that fit into one answer. */
const within = (tasks: ReadonlyArray<Task>): ReadonlyArray<Task> => {
  let bytes = 0
  for (let i = 0; i < tasks.length; i++) {
    bytes += tasks[i]!.payload.byteLength
    if (i > 0 && bytes > Limits.batchBytesMax) return tasks.slice(0, i)
  }
  return tasks
}

/** The first line in which two schema texts differ. */
const difference = (ours: string, theirs: string): string => {
  const left = ours.split("\n")
  const right = theirs.split("\n")
  let part = "payload"
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    part = /^(\w+): /.exec(left[i] ?? "")?.[1] ?? part
    if (left[i] !== right[i]) {
      const [ours, theirs] = [clip(left[i] ?? "nothing"), clip(right[i] ?? "nothing")]
      return `in the ${part} the manager has ${ours} where the client has ${theirs}`
    }
  }
  return "the texts agree and the fingerprints do not"
}

const clip = (text: string): string => (text.length > 300 ? `${text.slice(0, 300)}...` : text.trim())

const equal = (a: Uint8Array, b: Uint8Array): boolean =>
  a.byteLength === b.byteLength && a.every((byte, i) => byte === b[i])
