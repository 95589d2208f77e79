/**
 * The manager without Effect: connections in, rounds through the engine, bytes out.
 *
 *     data -> frames -> [arrived] --round--> engine -> records -> store
 *                                               |                   | durable; payloads that only the store has
 *                                               +-> replies held <--+-> one write per connection
 *
 * It is the only writer of its namespace. A round takes all that has arrived, steps it, stores it as one, and only then
 * lets replies and deliveries out; while a store commits, the next round collects. Nothing here allocates per task but
 * the engine's own record. Time, randomness, the store and logging come in through `Host`.
 */

import { printable } from "../auth/Credentials.ts"
import { type Grant, permitsEverything } from "../auth/Roles.ts"
import * as Scram from "../auth/Scram.ts"
import * as Limits from "../Limits.ts"
import { clean } from "../model/Cleaner.ts"
import { type Change, Engine, type Failure, type Out } from "../model/Engine.ts"
import { explainQueue, explainTask } from "../model/Explain.ts"
import type { Row } from "../model/Journal.ts"
import { Standing, standingOf } from "../model/Life.ts"
import { dictCursor, type ObjectKind, type ObjectsOut, SetAction, setCursor } from "../model/Objects.ts"
import type { SharedSet } from "../model/objects/SharedSet.ts"
import * as Policy from "../model/Policy.ts"
import { Level, type Queue, type QueueDefinition } from "../model/Queue.ts"
import { Recorder } from "../model/Recorder.ts"
import { Code, type Refusal, refusal } from "../model/Refusal.ts"
import type { Repeat } from "../model/Repeat.ts"
import { Restorer } from "../model/Restore.ts"
import {
  type LeaseStream,
  type OutcomeStream,
  type PutBatch,
  type PutStatus,
  Remembered,
  type Session
} from "../model/Session.ts"
import { nextDues, statsOf } from "../model/Stats.ts"
import { progressBytesOf, Reason, Task, type TaskOptions } from "../model/Task.ts"
import { randomBytes, sha256, timingSafeEqual } from "../platform/Crypto.ts"
import { type Connection, type Handler, sourceOf } from "../platform/Network.ts"
import { soon } from "../platform/Schedule.ts"
import { Strangers } from "../platform/Strangers.ts"
import type { Batch } from "../store/Batch.ts"
import { concat, Malformed, Reader, toHex } from "../wire/Bytes.ts"
import * as Client from "../wire/ClientMessages.ts"
import { frame } from "../wire/Frames.ts"
import * as Wire from "../wire/ManagerMessages.ts"
import type * as Operations from "../wire/Operations.ts"
import type * as Progress from "../wire/ProgressMessages.ts"
import * as Vocabulary from "../wire/Vocabulary.ts"
import { Bursts } from "./Bursts.ts"
import { nextCron } from "./Calendar.ts"
import { type Denied, Guard } from "./Guard.ts"
import { Logins } from "./Logins.ts"
import { type Gate, Peer, PeerSession, type PeerState } from "./Peer.ts"

const { ClientType: C, ControlKind, ManagerType: M } = Vocabulary

/** What the core needs of the world. */
export interface Host {
  /** Milliseconds that never go back. */
  readonly now: () => number
  /** The wall clock, for cron schedules alone. Default: `now`. */
  readonly wall?: (() => number) | undefined
  /** Calls `wake` at or after `at`; a new call replaces the last. */
  readonly alarm: (at: number) => void
  /** The log of the namespace; undefined when the store keeps nothing. */
  readonly store: Log | undefined
  readonly durability: Policy.Durability
  /** The engine has thrown; the core has stopped. */
  readonly failed: (text: string) => void
  readonly log: (level: "info" | "warn" | "error", text: string, details: Readonly<Record<string, unknown>>) => void
}

/** The store as a round uses it. Each callback comes exactly once; a store that fails calls none and stops the core. */
export interface Log {
  readonly commit: (batch: Batch, done: () => void) => void
  readonly read: (seqs: ReadonlyArray<number>, done: (rows: ReadonlyArray<Row>) => void) => void
  /** No room for new work: puts are refused before they are stepped. */
  readonly low: () => boolean
}

export interface CoreOptions {
  readonly queues: ReadonlyArray<QueueDefinition>
  readonly host: Host
  /** Upper half of every task id, and upper part of every fence. Default: random, so that lives of a memory manager differ. */
  readonly identity?: { readonly instance: Uint8Array; readonly epoch: number } | undefined
  /** Bytes of payloads and outcome bodies kept in memory when there is a log. Default `Limits.residentBytesDefault`. */
  readonly residentBytesMax?: number | undefined
  /** For tests of other windows. Default: what this program speaks. */
  readonly versions?: Vocabulary.Versions | undefined
}

export interface Counters {
  connections: number
  sessions: number
  rounds: number
  commits: number
  rowsRead: number
  rowsCleaned: number
  frames: number
  refused: number
  /** Refused, or answered as not there, for want of a role. */
  notPermitted: number
  malformed: number
  authenticationFailures: number
}

export class Core implements Out {
  readonly engine: Engine
  /** Upper half of the task ids: ids of another manager, or of an earlier life of this one, are not found here. */
  readonly instance: Uint8Array
  readonly counters: Counters = {
    connections: 0,
    sessions: 0,
    rounds: 0,
    commits: 0,
    rowsRead: 0,
    rowsCleaned: 0,
    frames: 0,
    refused: 0,
    notPermitted: 0,
    malformed: 0,
    authenticationFailures: 0
  }
  readonly #host: Host
  readonly #peers = new Set<Peer>()
  /** Peers that have heard the last word and have not closed yet. */
  readonly #closing = new Set<Peer>()
  readonly #sessions = new Map<string, PeerSession>()
  /** Those of them without a connection, the one that has been so for longest first. */
  readonly #alone = new Set<PeerSession>()
  readonly #dirty: Array<Peer> = []
  #arrived: Array<{ readonly peer: Peer; readonly body: Uint8Array }> = []
  #gone: Array<Peer> = []
  readonly #recorder: Recorder | undefined
  readonly #restorer: Restorer | undefined
  readonly #options: CoreOptions
  /** Rows of the log: sizes of those that are there, from `#firstSeq` on, and their sum. */
  #rowBytes: Array<number> = []
  #rowBytesFrom = 0
  #firstSeq = 1
  #logBytes = 0
  /** Bytes written since the last look at what could be cleaned. */
  #appendedBytes = 0
  /** Rows read for the cleaner, and whether it waits for some. */
  #cleanable: ReadonlyArray<Row> = []
  #cleaning = false
  /** Rows read lately, the last used last. */
  readonly #rows = new Map<number, Uint8Array>()
  #rowsBytes = 0
  /** Rows that this round's answers and deliveries wait for. */
  readonly #wanted = new Set<number>()
  #deferredStreams: Array<LeaseStream> = []
  #deferredTasks: Array<Task> = []
  #deferredAnswers: Array<() => void> = []
  /** Queues whose readers wait for bodies from the store. */
  readonly #starved = new Set<Queue>()
  /** Rows that the last read did not find: whoever waits for them goes on without. Until the next round has dispatched. */
  readonly #unreadable = new Set<number>()
  /** Granted, and unreadable. */
  #damaged: Array<Task> = []
  #scheduled = false
  /** When it last looked at the clock. */
  #lookedAt: number
  #committing = false
  readonly #strangers = new Strangers()
  readonly #logins = new Logins()
  readonly #bursts: Bursts
  #stopped = false
  #failed = false
  readonly #drainingGates = new Set<Gate>()
  /** One per credential that may not do everything. */
  readonly #guards = new WeakMap<ReadonlyArray<Grant>, Guard>()

  constructor(options: CoreOptions) {
    this.#options = options
    this.#host = options.host
    this.#lookedAt = options.host.now()
    this.#bursts = new Bursts((text, details) => this.#host.log("warn", text, details))
    const { store } = options.host
    const random = randomBytes(4)
    const seed = new DataView(random.buffer, random.byteOffset, 4).getUint32(0)
    // A memory manager has a new epoch in each life: a fence of an earlier one fits nothing of this one.
    const epoch = options.identity?.epoch ?? 1 + (seed % 2 ** 20)
    this.instance = options.identity?.instance ?? randomBytes(8)
    const residentBytesMax =
      store === undefined ? Number.POSITIVE_INFINITY : (options.residentBytesMax ?? Limits.residentBytesDefault)
    this.engine = new Engine({
      epoch,
      seed,
      out: this,
      residentBytesMax,
      nextCron,
      objectsKey: randomBytes(16),
      keepTexts: store === undefined
    })
    this.#tellWall(this.#host.now())
    if (store === undefined) {
      for (const definition of options.queues) this.engine.declare(definition)
      return
    }
    const own = new Map(options.queues.map((definition) => [definition.name, definition]))
    this.#restorer = new Restorer(this.engine, {
      session: (id, token, principal) => new PeerSession(id, token, principal),
      answer: (message) => Wire.decode(new Reader(message)),
      definition: (name) => own.get(name),
      durability: options.host.durability
    })
    this.#recorder = new Recorder(1, epoch)
  }

  // ---- the log

  /** One row of the log, in order, before `start`. Throws `Malformed` for a row that this version cannot read. */
  restore(row: Row): void {
    this.#restorer!.apply(row)
    if (this.#rowBytes.length === 0) this.#firstSeq = row.seq
    this.#rowBytes.push(row.body.byteLength)
    this.#logBytes += row.body.byteLength
  }

  /** The time of the last round in the log: engine time must not be before it. */
  get restoredUntil(): number {
    return this.#restorer?.lastNow ?? 0
  }

  /** After the last row of the log: the engine is whole, and connections may come. */
  start(): void {
    const restorer = this.#restorer
    const recorder = this.#recorder
    if (restorer === undefined || recorder === undefined) return
    const now = this.#host.now()
    recorder.journal.seq = restorer.lastSeq + 1
    recorder.namespaceHome = restorer.namespaceHome
    if (this.#rowBytes.length === 0) this.#firstSeq = recorder.journal.seq
    recorder.journal.begin(now)
    restorer.finish(now)
    const { engine } = this
    const epoch = this.#options.identity?.epoch ?? 1
    // What was not synced may be lost, and the log cannot tell whether there was such. A number that was given and lost must
    // not name another task to whoever kept it, be the log a second old or a few lives: the epoch is always synced.
    if (epoch > 1) {
      const skipped = Limits.taskNumbersSkipped * (1 + (epoch % Limits.livesLostMax))
      engine.restoreNumbers(engine.numbers.task + skipped, 0)
    }
    for (const [queue, homes] of restorer.laneHomes) recorder.laneHomes.set(queue, homes)
    for (const [id, seq] of restorer.objectHomes) recorder.objectHomes.set(id, seq)
    for (const [task, seq] of restorer.checkpointHomes) recorder.restoreCheckpointHome(task, seq)
    for (const session of restorer.sessions) {
      if (!(session instanceof PeerSession)) continue
      session.detachedAt = now
      session.resumed = true
      this.#sessions.set(toHex(session.token), session)
      this.#alone.add(session)
    }
    if (recorder.namespaceHome === 0)
      recorder.namespace(engine.numbers.task, engine.numbers.session, engine.objects.key)
    for (const definition of this.#options.queues) {
      const known = this.engine.find(definition.name)
      // Its own definition wins over the one in the log, and the log learns it.
      if (known === undefined) this.engine.declare(definition)
      else recorder.queue(known)
    }
    this.wake()
  }

  /** Rows with payloads of dead letters: they stay in memory, within their own bounds, so that a redrive has them. */
  lettersAway(): ReadonlyArray<number> {
    const rows = new Set<number>()
    for (const queue of this.engine.queues) {
      for (const { task } of queue.deadLetters.all())
        if (task.payload === undefined && task.home > 0) rows.add(task.home)
    }
    return [...rows].sort((a, b) => a - b)
  }

  lettersRead(rows: ReadonlyArray<Row>): void {
    const bodies = new Map(rows.map(({ body, seq }) => [seq, body]))
    for (const queue of this.engine.queues) {
      for (const { task } of queue.deadLetters.all()) {
        if (task.payload === undefined) {
          task.payload = bodies.get(task.home)?.slice(task.homeAt, task.homeAt + task.payloadBytes)
        }
      }
    }
  }

  // ---- connections

  /** Takes over a connection. `gate` decides who may log in; without one the peer is trusted (in-process). */
  accept(connection: Connection, gate: Gate | undefined): Handler {
    const peer = new Peer(connection, gate, this.#host.now())
    if (this.#stopped || (gate !== undefined && this.#drainingGates.has(gate)))
      this.#refuseConnection(peer, Code.draining, "the manager is stopping")
    else {
      const full =
        this.#peers.size >= Limits.connectionsMax ? "too many connections" : this.#strangers.enter(peer.source)
      if (full === undefined) {
        this.#peers.add(peer)
        this.counters.connections++
      } else this.#refuseConnection(peer, Code.tooManyConnections, full)
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
    // A round that was stopped before it began must find out.
    if (!this.#scheduled) this.#lookedAt = now
    this.#tellWall(now)
    this.#bursts.sweep(now)
    for (const peer of this.#peers) {
      if (peer.state !== "open") {
        if (peer.held !== undefined && peer.held.until <= now) this.#challenge(peer, peer.held.message)
        if (now - peer.acceptedAt >= Limits.handshakeMs) {
          this.#fault(peer, Code.handshakeTimeout, `the handshake took over ${Limits.handshakeMs} ms`)
        }
      } else if (peer.gate !== undefined) this.#lookAtSilence(peer)
    }
    for (const peer of this.#closing) {
      if (now - peer.closingAt >= Limits.closeMs) peer.connection.destroy()
    }
    for (const session of this.#alone) {
      if (now - session.detachedAt < Limits.sessionIdleMs) break
      if (session.leased === 0) this.#endSession(session, now)
    }
  }

  /**
   * Looks are counted, not time: a manager that was stopped for long reads what came meanwhile before it judges. A peer
   * that is not read for the moment cannot be heard.
   */
  #lookAtSilence(peer: Peer): void {
    peer.silentLooks = peer.heard || peer.paused ? 0 : peer.silentLooks + 1
    peer.quietLooks = peer.said ? 0 : peer.quietLooks + 1
    peer.heard = false
    peer.said = false
    if (peer.silentLooks * Limits.silenceLookMs >= Limits.heartbeatDeadMs) {
      return this.#fault(peer, Code.protocol, `nothing was heard for ${Limits.heartbeatDeadMs} ms`)
    }
    // Its answers wait, for the store or for the rest of what it says. Past what is held back for the round: this says
    // nothing of it.
    if (peer.quietLooks * Limits.silenceLookMs < Limits.quietMs || peer.connection.pendingBytes() > 0) return
    peer.said = true
    const alive: Wire.ManagerMessage = { ...heartbeat, draining: peer.draining }
    peer.connection.write(frame((w) => Wire.encode(w, alive)))
  }

  /** A wall clock that was moved may make a cron schedule due. */
  #tellWall(now: number): void {
    const { wall } = this.#host
    if (wall === undefined) return
    const before = this.engine.nextDeadline
    this.engine.wall(wall() - now, now)
    if (this.engine.nextDeadline !== before) this.wake()
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
      peer.send({ type: M.control, kind: ControlKind.draining, tasks: [] })
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
    peer.heard = true
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
      this.#strangers.leave(peer.source)
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
    // A login that failed has been told of, with the reason that the peer does not hear.
    if (code !== Code.draining && code !== Code.authentication) {
      const details = { peer: peer.connection.peer, state: peer.state, reason: text }
      this.#bursts.add("connection closed by the manager", peer.source, details, this.#host.now())
    }
    if (peer.state !== "open") this.#strangers.leave(peer.source)
    peer.state = "closed"
    this.#peers.delete(peer)
    if (peer.session !== undefined) {
      this.#gone.push(peer)
      this.wake()
    }
    // Answers that wait for the store are not let out by a fault: they stay unanswered, and indefinite.
    peer.connection.write(frame((w) => Wire.encode(w, { type: M.closing, code, text })))
    this.#close(peer)
  }

  /** Sends what is written; a peer that does not take it is cut by a later look. */
  #close(peer: Peer): void {
    peer.connection.close()
    peer.closingAt = this.#host.now()
    if (!peer.disconnected) this.#closing.add(peer)
  }

  #refuseConnection(peer: Peer, code: number, text: string): void {
    this.counters.refused++
    if (code !== Code.draining) {
      const details = { peer: peer.connection.peer, reason: text }
      this.#bursts.add("connection refused", peer.source, details, this.#host.now())
    }
    peer.state = "closed"
    peer.connection.write(frame((w) => Wire.encode(w, { type: M.closing, code, text })))
    peer.connection.close()
  }

  /** A connection that a listener gave up before it could carry frames. */
  failedHandshake(from: string, reason: string): void {
    this.counters.refused++
    this.#bursts.add("connection refused", sourceOf(from), { peer: from, reason: printable(reason) }, this.#host.now())
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
      // The last word of the handshake waits for its round: what it says of leases must be stored first.
      if (peer.state !== "open") peer.flush()
    } catch (error) {
      if (!(error instanceof Malformed)) throw error
      this.counters.malformed++
      this.#fault(peer, Code.protocol, error.message)
    }
  }

  #handshakeStep(peer: Peer, message: Client.ClientMessage, body: Uint8Array, gate: Gate | undefined): void {
    if (peer.state === "hello" && message.type === C.hello) {
      if (message.magic !== Vocabulary.magic) throw new Malformed("this is not the millrace protocol")
      const versions = this.#options.versions ?? Vocabulary.versionsSpoken
      const version = Math.min(message.versionMax, versions.max)
      if (version < Math.max(message.versionMin, versions.min)) {
        return this.#fault(peer, Code.version, Vocabulary.versionsText(versions))
      }
      if (message.namespace !== "default") {
        return this.#fault(peer, Code.protocol, `this manager has no namespace "${message.namespace}"`)
      }
      const hello = frame((w) =>
        Wire.encode(w, {
          type: M.hello,
          magic: Vocabulary.magic,
          version,
          versionMin: versions.min,
          versionMax: versions.max,
          capabilities: 0,
          frameBytesMax: Limits.frameBytesMax,
          mechanisms: gate === undefined ? [] : mechanismsOf(peer)
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
      if (!mechanismsOf(peer).includes(message.mechanism)) throw new Malformed("that mechanism was not offered")
      const step = Scram.serverFirst({
        clientFirst: message.message,
        lookup: gate.verifier,
        mockSecret: gate.mockSecret,
        iterationsInUse: gate.iterations,
        nonce: randomBytes(Limits.scramNonceBytesMin),
        helloHash: peer.helloHash!,
        mechanism: message.mechanism,
        binding: peer.connection.channelBinding
      })
      if (step._tag === "Refused") return this.#loginFailed(peer, step.reason)
      peer.scram = step.state
      peer.state = "proof"
      const now = this.#host.now()
      const at = this.#logins.answerAt(peer.source, step.state.verifier.name, now)
      if (at === undefined) return this.#fault(peer, Code.tooManyConnections, tooManyFailures)
      peer.inTurn = !this.#logins.isFree(peer.source, step.state.verifier.name, now)
      if (at > now) peer.held = { until: at, message: step.message }
      else this.#challenge(peer, step.message)
      return
    }
    if (peer.state === "proof" && message.type === C.authFinal) {
      if (peer.held !== undefined) throw new Malformed("a proof before its challenge")
      const { name } = peer.scram!.verifier
      // Many challenges first and all proofs then is no way round the turns.
      if (!peer.inTurn && !this.#logins.isFree(peer.source, name, this.#host.now())) {
        return this.#fault(peer, Code.tooManyConnections, tooManyFailures)
      }
      const verdict = Scram.serverFinal(peer.scram!, message.message)
      peer.scram = undefined
      peer.helloHash = undefined
      if (verdict._tag === "Refused") {
        this.#logins.failed(peer.source, name, this.#host.now())
        return this.#loginFailed(peer, verdict.reason)
      }
      this.#logins.accepted(peer.source, name)
      peer.principal = verdict.name
      peer.grants = gate?.grants(verdict.name)
      peer.state = "session"
      peer.reader.limit = Limits.frameBytesMax
      return peer.send({ type: M.authOk, message: verdict.message })
    }
    if (peer.state === "session" && message.type === C.sessionOpen) return this.#openSession(peer, message)
    throw new Malformed(`message ${message.type} is not allowed in state ${peer.state}`)
  }

  #challenge(peer: Peer, message: string): void {
    peer.held = undefined
    peer.send({ type: M.authChallenge, message })
    peer.flush()
  }

  /** The reason is for the log; the peer hears one generic word. */
  #loginFailed(peer: Peer, reason: string): void {
    this.counters.authenticationFailures++
    this.#bursts.add("login refused", peer.source, { peer: peer.connection.peer, reason }, this.#host.now())
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
      this.#alone.delete(session)
      session.resumed = true
      this.#admit(session, peer)
      this.#recorder?.journal.begin(now)
      const { guard } = session
      const answered = answeredTasks(session)
      // What the credential may no longer lease goes back.
      const resume = (held: ReadonlyArray<number>, answered: ReadonlySet<number>) =>
        this.engine.resume(session, held, now, answered)
      lost =
        guard === undefined
          ? resume(message.held, answered)
          : guard.lost(session, message.held, (held) => resume(held, guard.leasable(answered)))
      for (const { kind, request } of session.waiting) {
        if (kind !== "put") continue
        peer.crossing ??= new Set()
        peer.crossing.add(request)
      }
    } else {
      if (this.#sessions.size >= Limits.sessionsMax) this.#endOldestSession(now)
      if (this.#sessions.size >= Limits.sessionsMax)
        return this.#fault(peer, Code.tooManyConnections, "too many sessions")
      const token = randomBytes(16)
      session = this.engine.connect((id) => new PeerSession(id, token, peer.principal!))
      this.#sessions.set(toHex(token), session)
      this.#admit(session, peer)
      lost = message.held.filter((_, i) => i % 2 === 0)
      this.counters.sessions++
    }
    session.peer = peer
    peer.session = session
    peer.state = "open"
    this.#strangers.leave(peer.source)
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
    this.#touch(peer)
    this.wake()
  }

  /** From now on the session may do what the credential of this connection may. */
  #admit(session: PeerSession, { grants }: Peer): void {
    session.guard = undefined
    session.forbids = undefined
    if (grants === undefined || permitsEverything(grants)) return
    const guard = this.#guards.get(grants) ?? new Guard(grants, this.engine, this.#denied)
    this.#guards.set(grants, guard)
    session.guard = guard
    session.forbids = (effects) => guard.effects(session, effects)
  }

  readonly #denied: Denied = (session, action) => {
    this.counters.notPermitted++
    const credential = session.principal
    const details = { peer: session.peer?.connection.peer, credential, action }
    this.#bursts.add("not permitted", credential, details, this.#host.now())
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
    if (this.#wasStopped(now)) return this.wake()
    this.counters.rounds++
    this.#recorder?.journal.begin(now)
    const dropBefore = this.#clean()
    for (const task of this.#damaged.splice(0)) this.engine.damaged(task, now)
    this.engine.due(now)
    const arrived = this.#arrived
    this.#arrived = []
    for (const { body, peer } of arrived) this.#step(peer, body, now)
    // A connection that is lost gives its leases their grace before they end.
    for (const peer of this.#gone.splice(0)) this.#detach(peer, now)
    this.engine.expire(now)
    // Read anew: what is granted counts from here, and a long round must not shorten the gap of a lane.
    this.engine.dispatch(this.#host.now())
    this.#unreadable.clear()
    this.#host.alarm(this.engine.nextDeadline)
    const { store } = this.#host
    if (store === undefined || this.#recorder === undefined) return this.#letOut()
    const level = this.#recorder.level
    const rows = this.#recorder.take()
    if (rows.length === 0 && dropBefore === 0 && this.#wanted.size === 0) return this.#letOut()
    this.#committing = true
    if (rows.length === 0 && dropBefore === 0) return this.#fetch(store)
    for (const { body } of rows) {
      this.#rowBytes.push(body.byteLength)
      this.#logBytes += body.byteLength
      this.#appendedBytes += body.byteLength
    }
    this.counters.commits++
    store.commit({ rows, dropBefore, durability: level === Level.fsync ? "fsync" : "buffered" }, () => {
      this.engine.shed()
      this.#fetch(store)
    })
  }

  /**
   * Nobody has looked at the clock for long: this program was stopped, in the midst of something, and what came meanwhile
   * may not be read yet. The round, which ends leases, comes after that.
   */
  #wasStopped(now: number): boolean {
    const stopped = now - this.#lookedAt >= 2 * Limits.silenceLookMs
    this.#lookedAt = now
    return stopped
  }

  /** What the round's answers need and only the store has. */
  #fetch(store: Log): void {
    if (this.#wanted.size === 0) return this.#endRound(store)
    const seqs = [...this.#wanted].sort((a, b) => a - b)
    this.#wanted.clear()
    this.counters.rowsRead += seqs.length
    store.read(seqs, (rows) => {
      for (const row of rows) this.#keepRow(row)
      if (rows.length < seqs.length) for (const seq of seqs) if (!this.#rows.has(seq)) this.#unreadable.add(seq)
      this.#deliverDeferred()
      this.#trimRows()
      this.#endRound(store)
    })
  }

  #endRound(store: Log): void {
    this.#committing = false
    this.#letOut()
    this.#planCleaning(store)
    this.wake() // whatever arrived, fell due or was drained meanwhile
  }

  // ---- rows of the log

  #keepRow({ body, seq }: Row): void {
    this.#rowsBytes += body.byteLength - (this.#rows.get(seq)?.byteLength ?? 0)
    this.#rows.delete(seq)
    this.#rows.set(seq, body)
  }

  /** After the round that wanted them: before, a row might go that it needs. */
  #trimRows(): void {
    for (const [oldest, bytes] of this.#rows) {
      if (this.#rows.size <= 1 || this.#rowsBytes <= Limits.rowsCachedBytes) break
      this.#rows.delete(oldest)
      this.#rowsBytes -= bytes.byteLength
    }
  }

  /** Bytes of a row that was read; undefined: it must be read first. */
  #bytesAt(seq: number, at: number, size: number): Uint8Array | undefined {
    if (size === 0) return noBytes
    return this.#rows.get(seq)?.subarray(at, at + size)
  }

  #payload(task: Task): Uint8Array | undefined {
    return task.payload ?? (task.home > 0 ? this.#bytesAt(task.home, task.homeAt, task.payloadBytes) : noBytes)
  }

  #outcomeBody({ log }: Queue, cursor: number): Uint8Array | undefined {
    const body = log.body(cursor)
    if (body !== undefined) return body
    const home = log.bodyHome(cursor)
    return home > 0 ? this.#bytesAt(home, log.bodyAt(cursor), log.bodyBytes(cursor)) : noBytes
  }

  /** Deliveries and answers that waited for their bytes. What cannot be read is damaged: it ends as dead. */
  #deliverDeferred(): void {
    const streams = this.#deferredStreams
    const tasks = this.#deferredTasks
    this.#deferredStreams = []
    this.#deferredTasks = []
    for (let i = 0; i < tasks.length; i++) {
      const task = tasks[i]!
      const stream = streams[i]!
      const { peer } = stream.session as PeerSession
      if (peer !== undefined) peer.deferred = 0
      const payload = this.#payload(task)
      if (payload === undefined) this.#isDamaged(task)
      else if (peer !== undefined && peer.state === "open") this.#writeDelivery(peer, stream, task, payload)
    }
    const answers = this.#deferredAnswers
    this.#deferredAnswers = []
    for (const answer of answers) answer()
    for (const queue of this.#starved) this.engine.touch(queue)
    this.#starved.clear()
  }

  #isDamaged(task: Task): void {
    this.#damaged.push(task)
    this.#host.log("error", "a payload in the store is damaged; its task goes to the dead letters", {
      queue: task.queue.definition.name,
      task: task.n,
      row: task.home
    })
  }

  /** Writes again what lives in the rows read for it. Returns the first row that must stay, or 0. */
  #clean(): number {
    const rows = this.#cleanable
    if (rows.length === 0 || this.#recorder === undefined) return 0
    this.#cleanable = []
    this.#cleaning = false
    for (const row of rows) clean(row, this.engine, this.#recorder, this.#cleanerHost)
    this.counters.rowsCleaned += rows.length
    for (const { body, seq } of rows) {
      this.#logBytes -= body.byteLength
      this.#rowBytesFrom++
      this.#firstSeq = seq + 1
    }
    if (this.#rowBytesFrom > 1_024 && this.#rowBytesFrom * 2 > this.#rowBytes.length) {
      this.#rowBytes.splice(0, this.#rowBytesFrom)
      this.#rowBytesFrom = 0
    }
    return this.#firstSeq
  }

  readonly #cleanerHost = {
    session: (id: number): Session | undefined => {
      for (const session of this.engine.sessions) if (session.id === id) return session
      return undefined
    },
    answer: (session: Session, request: number): void => {
      const remembered = session.answers.get(request)
      if (remembered !== undefined) this.#recordAnswer(session, request, remembered)
    }
  }

  /**
   * Starts to clean when more than half of the log, and some slack, is history. It cleans three bytes for each that was
   * written meanwhile: enough to keep up where up to two thirds live, and little beside what the rounds do anyway.
   */
  #planCleaning(store: Log): void {
    if (this.#cleaning || this.#logBytes <= Limits.logSlackBytes) return
    if (this.#logBytes <= Limits.logSlackBytes + 2 * this.engine.storedBytes) return
    this.#cleaning = true
    const last = this.#recorder!.journal.seq - 1
    const most = Math.min(Limits.bytesCleanedPerRoundMax, Math.max(Limits.rowBytesTarget, 3 * this.#appendedBytes))
    this.#appendedBytes = 0
    const seqs: Array<number> = []
    for (let bytes = 0; seqs.length < Limits.rowsCleanedPerRoundMax && bytes < most; ) {
      const seq = this.#firstSeq + seqs.length
      if (seq >= last) break
      bytes += this.#rowBytes[this.#rowBytesFrom + seqs.length]!
      seqs.push(seq)
    }
    if (seqs.length === 0) {
      this.#cleaning = false
      return
    }
    store.read(seqs, (rows) => {
      if (rows.length < seqs.length) {
        // Unreadable, so nobody can tell what lives in it: it stays, and so does all after it.
        this.#host.log("error", "a row of the store is damaged; the log is no longer cleaned", { rows: seqs })
        return
      }
      this.#cleanable = rows
      this.wake()
    })
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

  /** Drops a peer for which too much waits already: what one round writes is bounded as well. */
  #dropsFull(peer: Peer): boolean {
    const isFull = peer.out.size > Limits.outboundBytesPause && peer.outbound > Limits.outboundBytesMax
    if (isFull) this.#outboundFull(peer)
    return isFull
  }

  /** Called after each delivery: what a session cannot take now, another may, or it may later. */
  #checkCongestion(peer: Peer): void {
    if (peer.out.size + peer.deferred > Limits.outboundBytesPause && peer.session !== undefined) {
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
        if (this.#dropsFull(peer)) return
      }
    } catch (error) {
      if (!(error instanceof Malformed)) throw error
      this.counters.malformed++
      this.#fault(peer, Code.protocol, error.message)
    }
  }

  #message(peer: Peer, said: Client.ClientMessage, now: number): void {
    const session = peer.session!
    const { engine } = this
    const { guard } = session
    const m = guard === undefined ? said : guard.narrowed(session, said)
    switch (m.type) {
      case C.abandon:
        return engine.abandon(session, m.request)
      case C.credit:
        return engine.credit(session, m.stream, m.credit, m.prefetch)
      case C.answered:
        session.seen(m.ranges)
        return this.#recorder?.answersSeen(session, m.ranges)
      case C.started:
        return engine.started(session, m.held)
      case C.acknowledge:
        return engine.acknowledge(session, m.held, now)
      case C.heartbeat: {
        const cancelled: Array<number> = []
        const ask = (held: ReadonlyArray<number>) => engine.heartbeat(session, held, now, cancelled)
        const lost = guard === undefined ? ask(m.held) : guard.lost(session, m.held, ask)
        const unsaved = m.reports === undefined ? noTasks : this.#report(session, m.reports)
        const { draining } = peer
        peer.send({ ...heartbeat, sequence: m.sequence, lost, cancelled, draining, unsaved })
        return this.#touch(peer)
      }
      case C.goodbye:
        peer.session = undefined
        this.#endSession(session, now)
        peer.state = "closed"
        this.#peers.delete(peer)
        return this.#close(peer)
      case C.hello:
      case C.authFirst:
      case C.authFinal:
      case C.sessionOpen:
        throw new Malformed(`message ${m.type} is not allowed in state open`)
      default:
        return this.#request(peer, session, m, now)
    }
  }

  /** Takes what a heartbeat says of leased tasks. Returns those whose checkpoint does not fit on the disk. */
  #report(session: PeerSession, reports: ReadonlyArray<Progress.Report>): ReadonlyArray<number> {
    const full = this.#host.store?.low() === true
    const isUnsaved = ({ checkpoint, fence, task: n }: Progress.Report): boolean => {
      if (!full || checkpoint === undefined) return false
      const task = this.engine.leaseOf(session, n, fence)
      return task !== undefined && task.queue.level !== Level.memory
    }
    this.engine.progress.report(
      session,
      reports.map((report) => ({
        ...report,
        // Copied: the frame that brought it would live as long as the task.
        checkpoint: isUnsaved(report) ? undefined : report.checkpoint?.slice()
      }))
    )
    return full ? reports.filter(isUnsaved).map(({ task }) => task) : noTasks
  }

  #request(peer: Peer, session: PeerSession, m: Client.Request, now: number): void {
    const { engine } = this
    if (++peer.inFlight > Limits.requestsInFlightMax) {
      const why = refusal(Code.limitExceeded, "requestsInFlightMax", peer.inFlight, Limits.requestsInFlightMax)
      return this.refused(session, m.request, why)
    }
    const before = session.answers.get(m.request)
    if (before !== undefined && this.#answerAgain(session, m.request, before.answer as Wire.Answer)) return
    // A put that waited when its connection went: it still waits and is answered here, or has been while it was asked
    // again. A refusal is not remembered: asked once more, the put would be done after all.
    if (peer.crossing?.delete(m.request)) return
    if (session.resumed && engine.waits(session, m.request)) return
    const { guard } = session
    if (guard !== undefined) {
      const why = guard.refusal(session, m)
      if (why !== undefined) return this.refused(session, m.request, why)
    }
    switch (m.type) {
      case C.put: {
        // One that has entered in part cannot be refused any more: it goes on.
        const begun = session.partial?.has(m.request) === true
        if (peer.draining && !begun) return this.refused(session, m.request, refusal(Code.draining, ""))
        if (!begun && this.#isStored(m.queue) && this.#isFull(session, m.request, m.payloads)) return
        return engine.put(session, m.request, m.queue, m.atomic, m.waitMs, m.payloads, m.options, now)
      }
      case C.commit:
        return engine.commit(session, m.request, m.tasks, m.fences, m.results, m.effects, now, m.together, m.slowDowns)
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
        const { id } = engine.subscribe(session, queue, m.credit, m.prefetch)
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
      case C.lane:
        return engine.lane(session, m.request, m.queue, m.key, m.change, m.limits, m.forMs, now)
      case C.outcome:
        return engine.outcome(session, m.request, m.queue, m.task, m.waitMs, now)
      case C.peek: {
        const queue = engine.queues[m.queue]
        if (queue === undefined) return this.#noQueue(session, m.request, m.queue)
        const withheld = guard?.may(m.queue, "payloads") === false
        const tasks = within(queue.ready.peek(m.count, now))
        return this.#answerTasks(session, withheld ? [] : tasks, () => {
          const items = tasks.map((task) =>
            withheld
              ? { ...this.#delivery(task, noBytes), checkpoint: undefined, entries: undefined }
              : this.#delivery(task, this.#payload(task) ?? noBytes)
          )
          this.#answer(session, { type: M.peeked, request: m.request, items })
        })
      }
      case C.stats: {
        if (m.queue !== undefined && engine.queues[m.queue] === undefined) {
          return this.#noQueue(session, m.request, m.queue)
        }
        const all = guard === undefined ? engine.queues : engine.queues.filter(({ id }) => guard.may(id, "stats"))
        const queues = m.queue === undefined ? all : [engine.queues[m.queue]!]
        const stats = statsOf(engine, queues.slice(0, Limits.pageItemsMax), now)
        return this.#answer(session, { type: M.stats, request: m.request, queues: stats })
      }
      case C.explain: {
        const queue = engine.queues[m.queue]
        if (queue === undefined) return this.#noQueue(session, m.request, m.queue)
        const facts =
          m.task === undefined
            ? explainQueue(queue, nextDues(engine.timers, [queue]).get(queue), now)
            : explainTask(engine, queue, m.task, now, holderOf)
        return this.#answer(session, { type: M.explained, request: m.request, facts })
      }
      case C.repeat: {
        if (peer.draining) return this.refused(session, m.request, refusal(Code.draining, ""))
        if (this.#isStored(m.queue) && this.#isFull(session, m.request, [m.payload])) return
        const { cron, everyMs, id, zone } = m
        // Kept for long: neither holds the frame that it came in.
        const definition = {
          id,
          everyMs,
          cron,
          zone,
          payload: m.payload.slice(),
          options: occurrenceOptions(m.options)
        }
        return engine.repeat(session, m.request, m.queue, definition, now)
      }
      case C.repeats:
        return engine.listRepeats(session, m.request, m.queue)
      case C.removeRepeat:
        return engine.removeRepeat(session, m.request, m.queue, m.id)
      case C.openObject: {
        const create = m.create && !peer.draining
        return engine.objects.open(session, m.request, m.name, m.kind as ObjectKind, create, this.#host.durability)
      }
      case C.setKeys:
        if (m.action === SetAction.add && this.#keepsObject(m.object) && this.#isFull(session, m.request, m.keys))
          return
        return engine.objects.setKeys(session, m.request, m.object, m.action as SetAction, m.keys)
      case C.count:
        return engine.objects.count(session, m.request, m.object, m.by)
      case C.countSet:
        return engine.objects.countSet(session, m.request, m.object, m.expected, m.value)
      case C.dictGet:
        return engine.objects.dictGet(session, m.request, m.object, m.keys)
      case C.dictWrite: {
        const values = m.writes.flatMap(({ value }) => value ?? [])
        if (values.length > 0 && this.#keepsObject(m.object) && this.#isFull(session, m.request, values)) return
        return engine.objects.dictWrite(session, m.request, m.object, m.writes)
      }
      case C.listObject:
        return engine.objects.list(session, m.request, m.object, m.after, m.count)
      default:
        return this.#operate(session, m, now)
    }
  }

  /** Whether that task is on a stored queue. */
  #keepsTask(n: number): boolean {
    const task = this.engine.tasks.owner(n)
    return task instanceof Task && task.queue.level !== Level.memory
  }

  #operate(session: PeerSession, m: Operations.Request | Progress.Request, now: number): void {
    const { operations, queues } = this.engine
    switch (m.type) {
      case C.cancel:
        return operations.cancel(session, m.request, m.queue, m.tasks, now)
      case C.pause:
        return operations.pause(session, m.request, m.queue, m.paused)
      case C.purge:
        return operations.purge(session, m.request, m.queue, m.filter, m.after, m.upTo, now)
      case C.redrive:
        if (this.#isStored(m.queue) && this.#isFull(session, m.request, [])) return
        return operations.redrive(session, m.request, m.queue, m.tasks, m.filter, m.after, m.upTo, now)
      case C.checkpoint: {
        if (m.tasks.some((n) => this.#keepsTask(n)) && this.#isFull(session, m.request, m.values)) return
        // Copied: the frame that brought it would live as long as the task.
        const values = m.values.map((value) => value.slice())
        return this.engine.progress.checkpoint(session, m.request, m.tasks, m.fences, values)
      }
      case C.step: {
        if (m.items.some(({ task }) => this.#keepsTask(task))) {
          const values = m.items.map(({ value }) => value)
          if (this.#isFull(session, m.request, values)) return
        }
        return this.engine.progress.step(session, m.request, m.items.map(ownValue))
      }
      case C.suspend:
        return this.engine.progress.suspend(session, m.request, m.items, now)
      case C.signal: {
        if (this.#isStored(m.queue) && this.#isFull(session, m.request, [m.value])) return
        const { name, queue, request, value } = m
        return this.engine.progress.signal(session, request, queue, m.task ?? m.id!, name, value.slice(), now)
      }
      case C.find: {
        const queue = queues[m.queue]
        if (queue === undefined) return this.#noQueue(session, m.request, m.queue)
        const task = this.engine.progress.find(queue, m.id, now)
        const standing = task === undefined ? Standing.gone : operations.standing(queue, task)
        return this.#answer(session, { type: M.found, request: m.request, task, standing })
      }
      case C.browse: {
        const queue = queues[m.queue]
        if (queue === undefined) return this.#noQueue(session, m.request, m.queue)
        const { filter, limit, payloads } = m
        // A state that this manager does not know: no task is in it.
        const state = m.state === undefined ? undefined : (m.state as Standing)
        const page = operations.browse(queue, { state, filter, after: m.after, limit, payloads })
        return this.#answerTasks(session, payloads ? page.tasks : [], () => {
          const items = page.tasks.map((task, i) => {
            return browsed(task, page.diedAt?.[i], payloads ? (this.#payload(task) ?? noBytes) : undefined)
          })
          this.#answer(session, { type: M.browsed, request: m.request, items, next: page.next })
        })
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
        durability: Policy.durabilityOf(policy, this.#host.durability)
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
    // Whoever only reads or waits is known again after a restart as well, and goes on where it was.
    if (queue.level !== Level.memory) this.#recorder?.session(session)
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
    this.#alone.add(session)
    this.engine.detach(session, now)
  }

  #endSession(session: PeerSession, now: number): void {
    this.#recorder?.journal.begin(now)
    this.engine.goodbye(session, now)
    this.#recorder?.sessionEnded(session)
    session.peer = undefined
    this.#sessions.delete(toHex(session.token))
    this.#alone.delete(session)
  }

  /** Makes room for a session: the one that has been without a connection, and without leases, for longest. */
  #endOldestSession(now: number): void {
    for (const session of this.#alone) if (session.leased === 0) return this.#endSession(session, now)
  }

  #isStored(queueId: number): boolean {
    return this.engine.queues[queueId]?.level !== Level.memory
  }

  #keepsObject(id: number): boolean {
    return this.engine.objects.all[id]?.durability !== "memory"
  }

  /**
   * Refuses what would add to a disk that runs full. Commits, releases, counters and all that takes away go on, by the
   * store's reserve (reliability 2.3).
   */
  #isFull(session: PeerSession, request: number, added: ReadonlyArray<Uint8Array>): boolean {
    if (this.#host.store?.low() !== true) return false
    const bytes = added.reduce((sum, { byteLength }) => sum + byteLength, 0)
    this.refused(session, request, refusal(Code.storeFull, "", bytes))
    return true
  }

  /** Runs `answer` when the payloads of these tasks are at hand. */
  #answerTasks(session: Session, tasks: ReadonlyArray<Task>, answer: () => void): void {
    if (tasks.every((task) => this.#payload(task) !== undefined)) return answer()
    // All of them: what is in memory now may have left it when the round is stored.
    for (const task of tasks) if (task.home > 0) this.#wanted.add(task.home)
    const { peer } = session as PeerSession
    if (peer !== undefined) this.#touch(peer)
    this.#deferredAnswers.push(answer)
  }

  /** Gives a remembered answer again. False: there is nothing left of it, and the request counts as new. */
  #answerAgain(session: PeerSession, request: number, answer: Wire.Answer): boolean {
    if (answer.type !== M.leased) {
      this.#answering(session)?.send(answer)
      return true
    }
    const tasks: Array<Task> = []
    for (const { fence, task } of answer.items) {
      const held = this.engine.leaseOf(session, task, fence)
      if (held !== undefined) tasks.push(held)
    }
    if (tasks.length === 0) {
      session.answers.delete(request)
      return false
    }
    // They fitted when they were granted; what has been recorded since may be more than a frame takes.
    const fitting = within(tasks)
    this.#answerTasks(session, fitting, () => {
      const items = this.#deliveries(fitting)
      this.#answering(session)?.send({ type: M.leased, request, items })
    })
    return true
  }

  /** Without those that turn out to be damaged. */
  #deliveries(tasks: ReadonlyArray<Task>): ReadonlyArray<Vocabulary.Delivery> {
    const items: Array<Vocabulary.Delivery> = []
    for (const task of tasks) {
      const payload = this.#payload(task)
      if (payload === undefined) this.#isDamaged(task)
      else items.push(this.#delivery(task, payload))
    }
    return items
  }

  /** Keeps an answer until the client says that it has it, here and in the log. */
  #remember(session: PeerSession, answer: Wire.Answer): void {
    // Only what identifies a lease: its payload is with the task.
    const kept: Wire.Answer = answer.type === M.leased ? { ...answer, items: answer.items.map(leaseOnly) } : answer
    const remembered = new Remembered(kept)
    session.answers.set(answer.request, remembered)
    if (this.#recorder !== undefined && this.#recorder.level > Level.memory) {
      this.#recordAnswer(session, answer.request, remembered)
    }
    if (session.answers.size > Limits.answersRememberedMax && session.peer !== undefined) {
      const text = `${session.answers.size} answers are not acknowledged, at most ${Limits.answersRememberedMax} may be`
      this.#fault(session.peer, Code.limitExceeded, text)
    }
  }

  #recordAnswer(session: Session, request: number, remembered: Remembered): void {
    const recorder = this.#recorder!
    recorder.answer(session, request, (w) => Wire.encode(w, remembered.answer as Wire.Answer))
    remembered.home = recorder.journal.seq
  }

  #touch(peer: Peer): void {
    if (peer.dirty) return
    peer.dirty = true
    this.#dirty.push(peer)
  }

  /** The peer to write an answer to; undefined when its connection is gone and nobody waits. */
  #answering(session: Session): Peer | undefined {
    const { peer } = session as PeerSession
    if (peer === undefined || peer.state !== "open" || this.#dropsFull(peer)) return undefined
    peer.inFlight--
    this.#touch(peer)
    return peer
  }

  #answer(session: Session, answer: Wire.Answer): void {
    if (Vocabulary.isRemembered(answer.type)) this.#remember(session as PeerSession, answer)
    this.#answering(session)?.send(answer)
  }

  #delivery(task: Task, payload: Uint8Array): Vocabulary.Delivery {
    return {
      task: task.n,
      fence: this.engine.fence(task),
      attempt: task.attempt,
      payload,
      key: task.options?.key,
      trace: task.options?.trace,
      checkpoint: task.checkpoint,
      entries: task.entries === undefined ? undefined : [...task.entries]
    }
  }

  // ---- Out: what the engine decided

  changed = (change: Change, task: Task): void => {
    const recorder = this.#recorder
    if (recorder === undefined) return
    if (change === "put" && recorder.unreserved(task)) {
      recorder.reserve(this.engine.numbers.task, this.engine.numbers.session, this.engine.objects.key)
    }
    recorder.changed(change, task)
  }
  queueChanged = (queue: Queue): void => this.#recorder?.queue(queue)
  putProgress = (session: Session, request: number, batch: PutBatch): void => {
    const queue = this.engine.find(batch.queue)
    if (queue?.level !== Level.memory) this.#recorder?.putProgress(session, request, batch)
  }
  laneChanged = (queue: Queue, key: string): void => this.#recorder?.lane(queue, key)
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
    statuses: ReadonlyArray<PutStatus>,
    firsts: ReadonlyArray<Standing> | undefined
  ): void => this.#answer(session, { type: M.putItems, request, tasks, statuses, firsts: firsts ?? [] })
  leased = (session: Session, request: number, tasks: ReadonlyArray<Task>): void => {
    // Remembered at once, in the round that grants: what is deferred is only the bytes.
    const leases = tasks.map((task) => this.#delivery(task, noBytes))
    this.#remember(session as PeerSession, { type: M.leased, request, items: leases })
    this.#answerTasks(session, tasks, () => {
      this.#answering(session)?.send({ type: M.leased, request, items: this.#deliveries(tasks) })
    })
  }
  items = (session: Session, request: number, codes: ReadonlyArray<number>): void =>
    this.#answer(session, { type: M.items, request, codes })
  outcome = (session: Session, request: number, queue: Queue, cursor: number): void => {
    const answer = (): void => {
      const outcome = outcomeAt(queue, cursor, this.#outcomeBody(queue, cursor))
      this.#answer(session, { type: M.outcome, request, outcome })
    }
    if (this.#outcomeBody(queue, cursor) !== undefined) return answer()
    this.#wanted.add(queue.log.bodyHome(cursor))
    this.#deferredAnswers.push(() => {
      // It may have grown too old meanwhile.
      if (cursor >= queue.log.first) answer()
      else this.refused(session, request, refusal(Code.taskNotFound, queue.definition.name))
    })
  }

  repeats = (session: Session, request: number, repeats: ReadonlyArray<Repeat>): void =>
    this.#answer(session, {
      type: M.repeats,
      request,
      items: repeats.map((repeat) => {
        const item = repeatItem(repeat)
        const { guard } = session as PeerSession
        return guard?.may(repeat.queue.id, "payloads") === false ? { ...item, payload: noBytes } : item
      })
    })
  repeatChanged = (repeat: Repeat, removed: boolean): void => this.#recorder?.repeat(repeat, removed)

  standings = (session: Session, request: number, standings: ReadonlyArray<Standing>): void =>
    this.#answer(session, { type: M.standings, request, standings })
  purged = (session: Session, request: number, count: number, next: number | undefined, upTo: number): void =>
    this.#answer(session, { type: M.counted, request, count, next, upTo })
  redriven = (
    session: Session,
    request: number,
    tasks: ReadonlyArray<number>,
    next: number | undefined,
    upTo: number
  ): void => this.#answer(session, { type: M.redriven, request, tasks, next, upTo })
  /** Without a connection nothing is said now: the heartbeat after the next resume asks for the lease, and is told. */
  cancelling = (session: Session, task: number): void => {
    const { peer } = session as PeerSession
    if (peer === undefined || peer.state !== "open") return
    peer.send({ type: M.control, kind: ControlKind.cancelled, tasks: [task] })
    this.#touch(peer)
  }

  // Shared objects: what a store keeps of them is its owner's next step; until then nothing is stored.
  objectMade: ObjectsOut["objectMade"] = (object) => this.#recorder?.object(object)
  setAdded: ObjectsOut["setAdded"] = (set, fingerprint, key, place) =>
    this.#recorder?.setAdded(set, fingerprint, key, place)
  setRemoved: ObjectsOut["setRemoved"] = (set, fingerprint) => this.#recorder?.setRemoved(set, fingerprint)
  counterChanged: ObjectsOut["counterChanged"] = (counter) => this.#recorder?.counter(counter)
  dictChanged: ObjectsOut["dictChanged"] = (dict, key, entry, version) =>
    this.#recorder?.dict(dict, key, entry, version)
  objectOpened: ObjectsOut["objectOpened"] = (session, request, object) => {
    const size = object.kind === "counter" ? 0 : object.size
    this.#answer(session, { type: M.objectOpened, request, object: object.id, durability: object.durability, size })
  }
  bits: ObjectsOut["bits"] = (session, request, count, bits) =>
    this.#answer(session, { type: M.bits, request, count, bits })
  counted: ObjectsOut["counted"] = (session, request, done, value) =>
    this.#answer(session, { type: M.counter, request, done, value })
  dictEntries: ObjectsOut["dictEntries"] = (session, request, items) =>
    this.#answer(session, { type: M.entries, request, items })
  dictWritten: ObjectsOut["dictWritten"] = (session, request, versions) =>
    this.#answer(session, { type: M.written, request, versions })
  setPage: ObjectsOut["setPage"] = (session, request, set, page) => {
    const answer = (): void => {
      const keys = page.rows.map((row, i) => this.#setKey(set, row, page.offsets[i]!) ?? noBytes)
      this.#answer(session, { type: M.keys, request, keys, next: page.more ? setCursor(page) : undefined })
    }
    if (set.texts !== undefined) return answer()
    for (const row of page.rows) if (!this.#rows.has(row)) this.#wanted.add(row)
    if (this.#wanted.size === 0) return answer()
    this.#deferredAnswers.push(answer)
  }

  /** A key of a set, out of the row that holds it. */
  #setKey(set: SharedSet, row: number, offset: number): Uint8Array | undefined {
    if (set.texts !== undefined) return set.texts.read(row, offset)
    const body = this.#rows.get(row)
    if (body === undefined) return undefined
    const reader = new Reader(body)
    reader.position = offset
    return reader.bin(Limits.setKeyBytesMax)
  }
  dictPage: ObjectsOut["dictPage"] = (session, request, items, more) => {
    const last = more ? items.at(-1) : undefined
    this.#answer(session, { type: M.pairs, request, items, next: last === undefined ? undefined : dictCursor(last) })
  }

  deliver = (stream: LeaseStream, task: Task): void => {
    const { peer } = stream.session as PeerSession
    if (peer === undefined || peer.state !== "open") return
    this.#touch(peer)
    const payload = this.#payload(task)
    if (payload === undefined) {
      this.#wanted.add(task.home)
      this.#deferredStreams.push(stream)
      this.#deferredTasks.push(task)
      peer.deferred += task.payloadBytes + progressBytesOf(task)
    } else this.#writeDelivery(peer, stream, task, payload)
    this.#checkCongestion(peer)
  }

  #writeDelivery(peer: Peer, stream: LeaseStream, task: Task, payload: Uint8Array): void {
    const { options } = task
    const w = peer.delivery(stream)
    const fence = this.engine.fence(task)
    const { attempt, checkpoint, entries, n } = task
    Wire.delivery(w, n, fence, attempt, payload, options?.key, options?.trace, checkpoint, entries)
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
        const home = log.bodyHome(upTo)
        if (this.#outcomeBody(stream.queue, upTo) === undefined && !this.#unreadable.has(home)) {
          // Only the store has it: this reader goes on when it has been read, or cannot be.
          this.#wanted.add(home)
          this.#starved.add(stream.queue)
          break
        }
        bytes += 32 + log.size(upTo)
      }
      if (upTo === cursor) break
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
          this.#outcomeBody(stream.queue, cursor),
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
const tooManyFailures = "too many failed logins; try again in a few seconds"

/** The login is bound to its TLS connection where this end can. */
const mechanismsOf = ({ connection }: Peer): ReadonlyArray<string> =>
  connection.channelBinding === undefined ? [Scram.mechanism] : [Scram.mechanismPlus, Scram.mechanism]

const handshakeTypes: Readonly<Partial<Record<PeerState, number>>> = {
  hello: C.hello,
  challenge: C.authFirst,
  proof: C.authFinal,
  session: C.sessionOpen
}

const noBytes = new Uint8Array()

/** A client reports what its handlers did; the other reasons are the engine's own to give. */
const reportable = new Set<number>([Reason.failed, Reason.killed, Reason.defect, Reason.timeout, Reason.undecodable])

const failureOf = (failure: Client.Failure): Failure => ({
  ...failure,
  reason: reportable.has(failure.reason) ? (failure.reason as Failure["reason"]) : Reason.failed
})

/** Tasks of answers that the client may not have received. */
const answeredTasks = (session: Session): ReadonlySet<number> => {
  const tasks = new Set<number>()
  for (const { answer } of session.answers.values()) {
    const { items, type } = answer as Wire.Leased
    if (type === M.leased) for (const { task } of items) tasks.add(task)
  }
  return tasks
}

const outcomeAt = ({ log }: Queue, cursor: number, body: Uint8Array | undefined): Vocabulary.Outcome => ({
  task: log.task(cursor),
  outcome: log.outcome(cursor),
  attempts: log.attempts(cursor),
  endedAtMs: log.endedAt(cursor),
  body,
  reasons: log.reasons(cursor) ?? []
})

/** Who holds the lease: the credential, and where it connects from. */
const holderOf = ({ holder }: Task): string => {
  if (holder === undefined) return "nobody"
  const { id, peer, principal } = holder as PeerSession
  return `${principal} (session ${id}, ${peer === undefined ? "not connected" : peer.connection.peer})`
}

/** An occurrence has no dedupe id, which would admit one only, and no delay: the schedule says when. */
const occurrenceOptions = (options: TaskOptions | undefined): TaskOptions | undefined =>
  options === undefined ? undefined : { ...options, id: undefined, delayMs: undefined }

const repeatItem = (repeat: Repeat): Vocabulary.Repeat => {
  const { cron, everyMs, id, options, payload, zone } = repeat.definition
  return {
    id,
    everyMs,
    cron,
    zone,
    nextAtMs: repeat.nextAt,
    task: repeat.task === 0 ? undefined : repeat.task,
    lastAtMs: repeat.lastAt === 0 ? undefined : repeat.lastAt,
    occurrences: repeat.occurrences,
    payload,
    options
  }
}

const browsed = (task: Task, diedAt: number | undefined, payload: Uint8Array | undefined): Vocabulary.Browsed => {
  const { attempt, checkpoint, entries, holder, n, options, origin, priority, progress, putAt, reasons, suspended } =
    task
  const state = diedAt === undefined ? standingOf(task) : Standing.dead
  return {
    task: n,
    state,
    attempt,
    priority,
    putAtMs: putAt,
    atMs: diedAt ?? (state === Standing.ready ? 0 : task.at),
    holder: holder?.id,
    origin: origin === 0 ? undefined : origin,
    payload,
    id: options?.id,
    key: options?.key,
    labels: options?.labels ?? [],
    reasons: reasons ?? [],
    checkpointBytes: checkpoint?.byteLength ?? 0,
    progress,
    entries: entries?.size ?? 0,
    // Its time may be over meanwhile.
    suspended: suspended && state === Standing.delayed
  }
}

/** What a remembered answer keeps of a lease: its payload and its progress are with the task. */
const leaseOnly = (item: Vocabulary.Delivery): Vocabulary.Delivery => ({
  ...item,
  payload: noBytes,
  checkpoint: undefined,
  entries: undefined
})

/** Copied: the frame that brought it would live as long as the task. */
const ownValue = <A extends { readonly value: Uint8Array }>(item: A): A => ({ ...item, value: item.value.slice() })

const noTasks: ReadonlyArray<number> = []

const heartbeat = {
  type: M.heartbeat,
  sequence: 0,
  lost: noTasks,
  cancelled: noTasks,
  draining: false,
  heartbeatMs: Limits.heartbeatMs,
  requestsInFlightMax: Limits.requestsInFlightMax,
  unsaved: noTasks
} as const

/** The first tasks that fit into one answer. */
const within = (tasks: ReadonlyArray<Task>): ReadonlyArray<Task> => {
  let bytes = 0
  for (let i = 0; i < tasks.length; i++) {
    bytes += tasks[i]!.payloadBytes + progressBytesOf(tasks[i]!)
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
