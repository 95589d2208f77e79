/**
 * One session with a manager, over as many connections as it takes.
 *
 * Requests go out in frames, many at a time, and are answered by number. The link dials, logs in, and after a loss dials
 * again with back-off and full jitter; it resumes its session, so that leases held by a worker stay its own. What was in
 * flight when a connection broke is asked again under its number when the session resumes, and has one effect; it fails
 * with the indefinite `ConnectionLost` when the session is gone, or does not come back within `Limits.resendMs`. What is
 * asked while there is no connection fails with the definite `ConnectFailed`. Nothing is queued without bound: at most `requestsInFlightMax` requests are out, later
 * ones wait for their turn.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import { type Auth, keyText, userDefault } from "../auth/Auth.ts"
import { isKey, isName, keyBytes, saltPassword } from "../auth/Credentials.ts"
import * as Scram from "../auth/Scram.ts"
import {
  AuthenticationFailed,
  ConnectFailed,
  ConnectionLost,
  ProtocolViolated,
  type RequestError,
  VersionUnsupported
} from "../Errors.ts"
import * as Limits from "../Limits.ts"
import { Code } from "../model/Refusal.ts"
import { randomBytes, sha256 } from "../platform/Crypto.ts"
import type { Connection, Handler } from "../platform/Network.ts"
import { soon } from "../platform/Schedule.ts"
import { concat, Malformed, Reader, toHex } from "../wire/Bytes.ts"
import * as Client from "../wire/ClientMessages.ts"
import { FrameReader, FrameWriter, frame } from "../wire/Frames.ts"
import * as Manager from "../wire/ManagerMessages.ts"
import type { Report } from "../wire/ProgressMessages.ts"
import {
  ClientType as C,
  ControlKind,
  type Delivery,
  isRemembered,
  ManagerType as M,
  magic,
  type Outcome,
  type Versions,
  versionsSpoken,
  versionsText
} from "../wire/Vocabulary.ts"
import { Doors } from "./Addresses.ts"

export type LoginError = ConnectFailed | AuthenticationFailed | VersionUnsupported | ProtocolViolated

/** Called once, with the answer or with the error that came instead. */
export type Settle = (answer: Manager.Answer | RequestError) => void

/** Someone who is pushed to: a worker, or a reader of outcomes. */
export interface StreamReceiver {
  readonly deliver?: (items: ReadonlyArray<Delivery>) => void
  readonly outcomes?: (items: ReadonlyArray<Outcome>, next: number) => void
  readonly gap?: (cursor: number, oldest: number) => void
}

/** Someone who lives longer than a connection. */
export interface Resident {
  /** Adds the leases it holds and wants renewed, as task, fence, task, fence, ... */
  readonly held?: (into: Array<number>) => void
  /** Adds leases that a resumed session still has, and that only their owner renews. */
  readonly kept?: (into: Array<number>) => void
  /** Adds what the next heartbeat says of its tasks. */
  readonly reports?: (into: Array<Report>, sequence: number) => void
  /**
   * The manager has heard all that was said before the heartbeat of this number, and stored what rode on it, except the
   * checkpoints of the tasks in `unsaved`.
   */
  readonly heard?: (sequence: number, unsaved: ReadonlyArray<number>) => void
  /** These tasks are no longer leased to us. */
  readonly lost?: (tasks: ReadonlySet<number>) => void
  /** The connection is gone: streams are closed and will not deliver. */
  readonly down?: () => void
  /** A connection is open. `resumed`: the session is the old one, leases and queue numbers still hold. */
  readonly up?: (resumed: boolean) => void
}

/** A way to a manager. */
export interface Door {
  /** For messages. */
  readonly address: string
  readonly dial: (handler: (connection: Connection) => Handler) => Effect.Effect<Connection, ConnectFailed>
}

export interface LinkOptions extends Door {
  /** Tried after this one, in order; the one that let us in is tried first from then on. */
  readonly others?: ReadonlyArray<Door> | undefined
  /** Undefined: the other end is in this process and asks for nothing. */
  readonly auth: Auth | undefined
  /** Whether a login without channel binding is refused. Default: one without is taken where an end cannot. */
  readonly bound?: boolean | undefined
  /** Whether the first connection is tried again and again, or fails the layer. */
  readonly waitForManager: boolean
  /** Longest pause between two attempts to connect. Default `Limits.reconnectCapMs`. */
  readonly reconnectCapMs?: number | undefined
  /** PBKDF2. Default: the runtime's, beside the event loop; a simulation has no such thing. */
  readonly saltPassword?:
    | ((key: Uint8Array, salt: Uint8Array, iterations: number) => Effect.Effect<Uint8Array>)
    | undefined
  /** Fails when the manager will not come back: what waits for that need not wait any longer. */
  readonly gone?: Effect.Effect<never, { readonly message: string }> | undefined
  /** For tests of other windows. Default: what this program speaks. */
  readonly versions?: Versions | undefined
}

interface Waiting {
  readonly message: Client.Request
  readonly settle: Settle
  /** Asked again when the session resumes; otherwise it fails with the connection. */
  readonly again: boolean
}

interface Session {
  readonly token: Uint8Array
  readonly instance: Uint8Array
  readonly prefix: string
  readonly durability: string
}

export class Link {
  session: Session | undefined = undefined
  connected = false
  /** Counts sessions that began anew; what was learned under an older one (queue numbers) is void. */
  generation = 0
  /** Where we are, or tried to be. */
  address: string
  readonly residents = new Set<Resident>()
  readonly #options: LinkOptions
  readonly #versions: Versions
  readonly #doors: Doors<Door>
  readonly #streams = new Map<number, StreamReceiver>()
  readonly #pending = new Map<number, Waiting>()
  /** In flight when the connection broke, in the order of their numbers; they wait for the session to resume. */
  #limbo: Array<Waiting> = []
  #lostAt = 0
  /** Answers that have arrived and the manager still remembers: from, to, from, to, ... */
  #answered: Array<number> = []
  #answeredCount = 0
  readonly #backlog: Array<Waiting> = []
  #backlogFrom = 0
  #lastError: LoginError | undefined = undefined
  #nextRequest = 1
  #nextHeartbeat = 1
  /** As the manager has last said, within our own bounds. */
  heartbeatMs = Limits.heartbeatMs
  #requestsInFlightMax = Limits.requestsInFlightMax
  #heard = false
  /** Looks since the manager was last heard, and since our last heartbeat. */
  #silentLooks = 0
  #quietLooks = 0
  #connection: Connection | undefined = undefined
  #out = new FrameWriter()
  #scheduled = false
  #closing = false
  #beforeFlush: Array<() => void> = []
  readonly #salted = new Map<string, Uint8Array>()

  constructor(options: LinkOptions) {
    this.#options = options
    this.#versions = options.versions ?? versionsSpoken
    this.address = options.address
    this.#doors = new Doors<Door>([options, ...(options.others ?? [])])
  }

  // ---- asking

  get nextRequest(): number {
    return this.#nextRequest++
  }

  /**
   * Sends a request made with `nextRequest`. The answer, or an error, arrives at `settle`. `again`: a connection that is
   * lost meanwhile is no error, the request is sent once more under its number.
   */
  ask(message: Client.Request, settle: Settle, again = false): void {
    if (!this.connected) return settle(this.#unavailable())
    const waiting: Waiting = { message, settle, again }
    if (this.#pending.size >= this.#requestsInFlightMax || this.#congested()) this.#backlog.push(waiting)
    else this.#send(waiting)
  }

  /** The caller no longer wants the answer; whatever it hands over is handed back. */
  abandon(request: number): void {
    const at = this.#backlog.findIndex((waiting, i) => i >= this.#backlogFrom && waiting.message.request === request)
    if (at >= 0) {
      this.#backlog.splice(at, 1)
      return
    }
    const limbo = this.#limbo.findIndex((waiting) => waiting.message.request === request)
    const waiting = limbo >= 0 ? this.#limbo[limbo] : this.#pending.get(request)
    if (waiting === undefined) return
    const { again, message } = waiting
    const abandoned: Waiting = {
      // Asked again it does not wait: it only learns what it was given.
      message: "waitMs" in message ? { ...message, waitMs: 0 } : message,
      again,
      settle: (answer) => {
        if (answer instanceof Error || answer.type !== M.leased || answer.items.length === 0) return
        const held = answer.items.flatMap(({ fence, task }) => [task, fence])
        this.ask({ type: C.release, request: this.nextRequest, held }, () => {}, true)
      }
    }
    if (limbo >= 0) {
      this.#limbo[limbo] = abandoned
      return
    }
    this.#pending.set(request, abandoned)
    // It may wait there for ever: end it, so that its place among the requests in flight is free again.
    this.tell({ type: C.abandon, request })
  }

  /** Sends a message that has no answer. Dropped when there is no connection. */
  tell(message: Client.Credit | Client.Started | Client.Acknowledge | Client.Heartbeat | Client.Abandon): void {
    if (!this.connected) return
    Client.encode(this.#out.begin(), message)
    this.#schedule()
  }

  /** Calls `write` right before the next write to the connection: for messages that collect until then. */
  beforeFlush(write: () => void): void {
    this.#beforeFlush.push(write)
    this.#schedule()
  }

  receive(stream: number, receiver: StreamReceiver): void {
    this.#streams.set(stream, receiver)
  }

  forget(stream: number): void {
    this.#streams.delete(stream)
  }

  /** The number of the next heartbeat: its answer proves all that is said until then. */
  get nextHeartbeat(): number {
    return this.#nextHeartbeat
  }

  /** Renews every lease held on this link, and learns which are lost. */
  heartbeat(): void {
    if (!this.connected) return
    const held = this.#held()
    let from = 0
    do {
      const part = held.length <= heldMax ? held : held.slice(from, from + heldMax)
      const sequence = this.#nextHeartbeat++
      const reports: Array<Report> = []
      for (const resident of this.residents) resident.reports?.(reports, sequence)
      this.tell({ type: C.heartbeat, sequence, held: part, reports: reports.length === 0 ? undefined : reports })
      from += heldMax
    } while (from < held.length)
  }

  /** Sends this with the next write, as a heartbeat of its own: what must be heard before what follows. */
  report(reports: ReadonlyArray<Report>): number {
    const sequence = this.#nextHeartbeat++
    this.tell({ type: C.heartbeat, sequence, held: [], reports })
    return sequence
  }

  // ---- life

  /** Dials until the scope closes. Returns when the first login has succeeded. */
  readonly run: Effect.Effect<void, LoginError, Scope.Scope> = Effect.suspend(() => this.#start())

  #start = Effect.fnUntraced({ self: this }, function* () {
    const { auth } = this.#options
    if (auth !== undefined && !isKey(keyBytes(keyText(auth)))) {
      return yield* this.#authFailed("the key is empty, or longer than 1,024 bytes")
    }
    const ready = yield* Deferred.make<void, LoginError>()
    yield* Effect.addFinalizer(() => this.#goodbye)
    // A defect must not leave the one who waits for the first login waiting for ever.
    const kept = Effect.tapCause(this.#keepConnected(ready), (cause) => Deferred.failCause(ready, cause))
    yield* Effect.forkScoped(kept)
    const { gone } = this.#options
    if (gone !== undefined) {
      yield* Effect.forkScoped(Effect.catch(gone, ({ message }) => Effect.sync(() => this.#failLimbo(message))))
    }
    yield* Effect.forkScoped(
      Effect.forever(
        Effect.andThen(
          Effect.sleep(Limits.silenceLookMs),
          Effect.sync(() => this.#look())
        )
      )
    )
    yield* Deferred.await(ready)
  })

  #keepConnected = Effect.fnUntraced({ self: this }, function* (ready: Deferred.Deferred<void, LoginError>) {
    let attempt = 0
    let said = false
    let ever = false
    for (;;) {
      const exit = yield* Effect.result(this.#doors.enter((door) => this.#login(door)))
      if (exit._tag === "Success") {
        if (said) yield* Effect.logInfo(`connected to the manager at ${this.address}${ever ? " again" : ""}`)
        ever = true
        attempt = 0
        said = false
        this.#lastError = undefined
        yield* Deferred.succeed(ready, undefined)
        const reason = yield* Deferred.await(exit.success)
        if (this.#closing) return
        this.#lostAt = yield* Clock.currentTimeMillis
        said = true
        yield* Effect.logWarning(`the connection to ${this.address} was lost (${reason}); connecting again`)
      } else {
        this.#lastError = exit.failure
        // A manager that is not there yet may come; a wrong key does not become right by waiting.
        const hopeless = exit.failure._tag !== "ConnectFailed"
        const outMs = (yield* Clock.currentTimeMillis) - this.#lostAt
        if (hopeless || outMs >= Limits.resendMs) this.#failLimbo(exit.failure.message)
        if (!ever && (hopeless || !this.#options.waitForManager)) return yield* Deferred.fail(ready, exit.failure)
        if (!said) yield* Effect.logWarning(`${exit.failure.message} Trying again until it answers.`)
        said = true
      }
      // Exponential with full jitter: a thousand clients that lost their manager together do not come back together.
      const cap = Math.min(
        this.#options.reconnectCapMs ?? Limits.reconnectCapMs,
        Limits.reconnectBaseMs * 2 ** Math.min(attempt, 16)
      )
      attempt++
      yield* Effect.sleep(Duration.millis((yield* Random.next) * cap))
    }
  })

  #goodbye = Effect.suspend(() => {
    this.#closing = true
    const connection = this.#connection
    this.#failLimbo("closed by this program")
    if (connection === undefined) return Effect.void
    this.#flush()
    connection.write(frame((w) => Client.encode(w, { type: C.goodbye })))
    connection.close()
    this.#lose("closed by this program")
    return Effect.void
  })

  // ---- login

  /** Returns what tells that the connection is over. */
  #login = Effect.fnUntraced({ self: this }, function* ({ address, dial }: Door) {
    this.address = address
    const closed = yield* Deferred.make<string>()
    const mailbox = new Mailbox()
    let open = false
    // An impostor must not fill our memory while we work out a proof for it.
    let proven = this.#options.auth === undefined
    let framesUnproven = 0
    const reader = new FrameReader(proven ? Limits.frameBytesMax : Limits.unprovenFrameBytesMax)
    const connection = yield* dial((made) => ({
      onData: (chunk) => {
        this.#heard = true
        reader.push(chunk, (body) => {
          if (open) this.#frame(body, made)
          else if (proven || ++framesUnproven <= Limits.preAuthFramesMax) mailbox.put(body)
          else made.destroy()
        })
        if (reader.fault !== undefined) made.destroy()
      },
      onDrain: () => this.#pump(),
      onClose: (reason) => {
        mailbox.close(reason)
        if (this.#connection === made) this.#lose(reason)
        Deferred.doneUnsafe(closed, Effect.succeed(reason))
      }
    }))
    const handshake = this.#handshake(connection, mailbox, () => {
      proven = true
      reader.limit = Limits.frameBytesMax
    })
    const opened = yield* handshake.pipe(
      Effect.timeoutOrElse({
        duration: 3 * Limits.handshakeMs,
        orElse: () =>
          Effect.fail(new ConnectFailed({ address: this.address, reason: "the handshake was not answered in time" }))
      }),
      Effect.onError(() => Effect.sync(() => connection.destroy()))
    )
    const known = this.session
    const resumed = opened.resumed && known !== undefined
    if (!resumed) this.generation++
    this.session = {
      token: opened.session.slice(),
      instance: opened.instance.slice(),
      prefix: toHex(opened.instance),
      durability: opened.durability
    }
    this.#limits(opened.heartbeatMs, opened.requestsInFlightMax)
    this.#connection = connection
    this.#out = new FrameWriter()
    this.#silentLooks = 0
    this.connected = true
    open = true
    const limbo = this.#limbo
    this.#limbo = []
    if (resumed) for (const waiting of limbo) this.#send(waiting)
    else {
      this.#answered = []
      this.#answeredCount = 0
    }
    if (opened.lost.length > 0) this.#lost(opened.lost)
    for (const resident of [...this.residents]) resident.up?.(resumed)
    if (!resumed) this.#settleLost(limbo, "the session is gone")
    // What arrived in the same read as the last word of the handshake.
    for (let body = mailbox.poll(); body !== undefined; body = mailbox.poll()) this.#frame(body, connection)
    return closed
  })

  #handshake = Effect.fnUntraced(
    { self: this },
    function* (connection: Connection, mailbox: Mailbox, proven: () => void) {
      const { auth } = this.#options
      const say = (message: Client.ClientMessage): Uint8Array => {
        const bytes = frame((w) => Client.encode(w, message))
        connection.write(bytes)
        return bytes.subarray(4)
      }
      const helloBody = say({
        type: C.hello,
        magic,
        versionMin: this.#versions.min,
        versionMax: this.#versions.max,
        capabilities: 0,
        frameBytesMax: Limits.frameBytesMax,
        role: "",
        namespace: "default",
        agent: "millrace/0.1.0"
      })
      const serverHelloBody = yield* this.#next(mailbox)
      const hello = yield* this.#expect(serverHelloBody, M.hello)
      if (hello.magic !== magic)
        return yield* new ProtocolViolated({ reason: "the other end is not a millrace manager" })
      yield* this.#agree(hello)
      if (auth !== undefined) {
        const user = auth.user ?? userDefault
        if (!isName(user)) {
          return yield* new AuthenticationFailed({ address: this.address, reason: `"${user}" is no credential name` })
        }
        const choice = Scram.chooseMechanism(hello.mechanisms, connection.channelBinding)
        if (choice === undefined) return yield* this.#authFailed("the manager offers no SCRAM-SHA-256")
        if (this.#options.bound === true && choice.mechanism !== Scram.mechanismPlus) {
          const here = connection.channelBinding === undefined ? "this runtime" : "the manager"
          return yield* this.#authFailed(`the login must be bound to its TLS connection, and ${here} cannot do that`)
        }
        const helloHash = sha256(concat([helloBody, serverHelloBody]))
        const nonce = randomBytes(Limits.scramNonceBytesMin)
        const first = Scram.clientFirst({ name: user, nonce, helloHash, gs2: choice.gs2 })
        say({ type: C.authFirst, mechanism: choice.mechanism, message: first.message })
        const challenge = yield* this.#expect(yield* this.#next(mailbox), M.authChallenge)
        const step = Scram.clientChallenge(first.state, challenge.message)
        if (step._tag === "Refused") return yield* this.#authFailed(step.reason)
        const salted = yield* this.#saltedKey(auth, step.salt, step.iterations)
        const final = Scram.clientFinal(step.state, salted)
        say({ type: C.authFinal, message: final.message })
        const ok = yield* this.#expect(yield* this.#next(mailbox), M.authOk)
        const verdict = Scram.clientVerify(final.state, ok.message)
        // The manager must know the key as well: no command goes to one that does not.
        if (verdict._tag === "Refused") return yield* this.#authFailed(verdict.reason)
        proven()
      } else if (hello.mechanisms.length > 0) {
        return yield* new AuthenticationFailed({
          address: this.address,
          reason: "the manager wants a key; none was given"
        })
      }
      say({ type: C.sessionOpen, session: this.session?.token, held: this.session === undefined ? [] : this.#kept() })
      return yield* this.#expect(yield* this.#next(mailbox), M.sessionOpened)
    }
  )

  /** The manager chooses the version; one that this side does not speak is refused before anything is said in it. */
  #agree({
    version,
    versionMax,
    versionMin
  }: Manager.Hello): Effect.Effect<void, VersionUnsupported | ProtocolViolated> {
    const { max, min } = this.#versions
    if (version >= min && version <= max) return Effect.void
    const [ours, theirs] = [versionsText(this.#versions), versionsText({ min: versionMin, max: versionMax })]
    if (versionMax < min || versionMin > max) return Effect.fail(new VersionUnsupported({ ours, theirs }))
    const reason = `the manager chose version ${version}, and this side speaks ${ours}`
    return Effect.fail(new ProtocolViolated({ reason }))
  }

  /** PBKDF2 once per salt and iteration count: reconnecting costs the manager and us a few HMACs. */
  #saltedKey = Effect.fnUntraced({ self: this }, function* (auth: Auth, salt: Uint8Array, iterations: number) {
    const cacheKey = `${toHex(salt)}:${iterations}`
    const known = this.#salted.get(cacheKey)
    if (known !== undefined) return known
    const key = keyBytes(keyText(auth))
    const salted = yield* this.#options.saltPassword?.(key, salt, iterations) ??
      Effect.promise(() => saltPassword(key, salt, iterations))
    this.#salted.clear()
    this.#salted.set(cacheKey, salted)
    return salted
  })

  #authFailed(reason: string): AuthenticationFailed {
    return new AuthenticationFailed({ address: this.address, reason })
  }

  #next(mailbox: Mailbox): Effect.Effect<Uint8Array, ConnectFailed> {
    return Effect.callback((resume) => {
      mailbox.take(
        (body) => resume(Effect.succeed(body)),
        (reason) => resume(Effect.fail(new ConnectFailed({ address: this.address, reason })))
      )
    })
  }

  #expect<T extends Manager.ManagerMessage["type"]>(
    body: Uint8Array,
    type: T
  ): Effect.Effect<Extract<Manager.ManagerMessage, { readonly type: T }>, LoginError> {
    let message: Manager.ManagerMessage
    try {
      message = Manager.decode(new Reader(body))
    } catch (error) {
      if (!(error instanceof Malformed)) throw error
      return Effect.fail(new ProtocolViolated({ reason: `${this.address} does not speak the millrace protocol` }))
    }
    if (message.type === type) {
      return Effect.succeed(message as Extract<Manager.ManagerMessage, { readonly type: T }>)
    }
    if (message.type !== M.closing) {
      return Effect.fail(new ProtocolViolated({ reason: `unexpected message ${message.type}` }))
    }
    if (message.code === Code.authentication) return Effect.fail(this.#authFailed("wrong key or unknown user"))
    if (message.code === Code.version) {
      return Effect.fail(new VersionUnsupported({ ours: versionsText(this.#versions), theirs: message.text }))
    }
    return Effect.fail(new ConnectFailed({ address: this.address, reason: message.text }))
  }

  // ---- bytes

  #frame(body: Uint8Array, connection: Connection): void {
    if (this.#connection !== connection) return
    try {
      const reader = new Reader(body)
      while (!reader.done) this.#message(Manager.decode(reader))
    } catch (error) {
      if (!(error instanceof Malformed)) throw error
      connection.destroy()
      this.#lose(`the manager broke the protocol: ${error.message}`)
    }
    this.#pump()
  }

  #message(m: Manager.ManagerMessage): void {
    switch (m.type) {
      case M.deliver:
        return this.#streams.get(m.stream)?.deliver?.(m.items)
      case M.outcomes:
        return this.#streams.get(m.stream)?.outcomes?.(m.items, m.next)
      case M.gap: {
        const receiver = this.#streams.get(m.stream)
        this.#streams.delete(m.stream)
        return receiver?.gap?.(m.cursor, m.oldest)
      }
      case M.heartbeat:
        if (m.sequence > 0) for (const resident of [...this.residents]) resident.heard?.(m.sequence, m.unsaved)
        this.#limits(m.heartbeatMs, m.requestsInFlightMax)
        return m.lost.length + m.cancelled.length > 0 ? this.#lost([...m.lost, ...m.cancelled]) : undefined
      case M.control:
        // A manager that drains has closed our streams of tasks; what is under way is taken until it closes.
        return m.kind === ControlKind.cancelled ? this.#lost(m.tasks) : undefined
      case M.closing: {
        const connection = this.#connection
        this.#lose(m.text)
        // One that keeps nothing and stops does not come back with this session: nobody needs to wait for it.
        if (m.code === Code.draining && this.session?.durability === "memory") this.#failLimbo(m.text)
        return connection?.destroy()
      }
      case M.hello:
      case M.authChallenge:
      case M.authOk:
      case M.sessionOpened:
        throw new Malformed(`message ${m.type} after the handshake`)
      default: {
        if (isRemembered(m.type)) this.#acknowledge(m.request)
        const waiting = this.#pending.get(m.request)
        if (waiting === undefined) return
        this.#pending.delete(m.request)
        waiting.settle(m)
      }
    }
  }

  #send(waiting: Waiting): void {
    this.#pending.set(waiting.message.request, waiting)
    Client.encode(this.#out.begin(), waiting.message)
    // The manager begins with it while the rest is written, and no buffer grows for all of a turn.
    if (this.#out.size >= Limits.outboundBytesTurn && this.connected) this.#out.flush(this.#connection!)
    this.#schedule()
  }

  /** Said with the next write: the manager may forget this answer. */
  #acknowledge(request: number): void {
    const ranges = this.#answered
    const last = ranges.length - 1
    if (last > 0 && ranges[last] === request - 1) ranges[last] = request
    else ranges.push(request, request)
    // With nothing else to say for long, it is said for itself.
    if (++this.#answeredCount >= Limits.requestsInFlightMax) this.#schedule()
  }

  #writeAnswered(): void {
    const most = 2 * Limits.answerRangesMax
    for (let i = 0; i < this.#answered.length; i += most) {
      Client.encode(this.#out.begin(), { type: C.answered, ranges: this.#answered.slice(i, i + most) })
    }
    this.#answered = []
    this.#answeredCount = 0
  }

  /** Sends what waited for its turn, while there is room. */
  #pump(): void {
    const backlog = this.#backlog
    while (
      this.#backlogFrom < backlog.length &&
      this.connected &&
      this.#pending.size < this.#requestsInFlightMax &&
      !this.#congested()
    ) {
      this.#send(backlog[this.#backlogFrom++]!)
    }
    if (this.#backlogFrom === backlog.length) {
      backlog.length = 0
      this.#backlogFrom = 0
    } else if (this.#backlogFrom > 1_024) {
      backlog.splice(0, this.#backlogFrom)
      this.#backlogFrom = 0
    }
  }

  #congested(): boolean {
    return this.#connection !== undefined && this.#connection.pendingBytes() > Limits.inboundBytesPause
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    soon(() => {
      this.#scheduled = false
      this.#flush()
    })
  }

  #flush(): void {
    if (!this.connected) return
    for (const write of this.#beforeFlush.splice(0)) write()
    const due = this.#answeredCount >= Limits.requestsInFlightMax
    if (this.#answeredCount > 0 && (due || !this.#out.empty)) this.#writeAnswered()
    if (this.#connection !== undefined) this.#out.flush(this.#connection)
  }

  /** What the manager asks for, as far as it makes sense: it may ask for less than we would do, and not for nothing. */
  #limits(heartbeatMs: number, requestsInFlightMax: number): void {
    this.heartbeatMs = Math.min(Limits.heartbeatMs, Math.max(Limits.heartbeatMsMin, heartbeatMs))
    this.#requestsInFlightMax = Math.min(Limits.requestsInFlightMax, Math.max(1, requestsInFlightMax))
  }

  /** Finds a manager that has fallen silent, and lets it hear of us. */
  #look(): void {
    if (!this.connected) return
    // Looks are counted, not time: a program that was stopped for long reads what came meanwhile before it judges.
    this.#silentLooks = this.#heard ? 0 : this.#silentLooks + 1
    this.#heard = false
    if (this.#options.auth !== undefined && this.#silentLooks * Limits.silenceLookMs >= Limits.heartbeatDeadMs) {
      return this.redial(`nothing was heard for ${Limits.heartbeatDeadMs} ms`)
    }
    if (++this.#quietLooks * Limits.silenceLookMs < this.heartbeatMs) return
    this.#quietLooks = 0
    this.heartbeat()
  }

  /** Gives the connection up; the session is resumed on another one. */
  redial(reason: string): void {
    const connection = this.#connection
    this.#lose(reason)
    connection?.destroy()
  }

  #held(): Array<number> {
    const held: Array<number> = []
    for (const resident of this.residents) resident.held?.(held)
    return held
  }

  /** All that a resumed session has; what the manager does not find here it gives to others. */
  #kept(): Array<number> {
    const kept = this.#held()
    for (const resident of this.residents) resident.kept?.(kept)
    // What does not fit is given back, and fenced.
    return kept.length <= heldMax ? kept : kept.slice(0, heldMax)
  }

  #lost(tasks: ReadonlyArray<number>): void {
    const set = new Set(tasks)
    for (const resident of [...this.residents]) resident.lost?.(set)
  }

  /** The connection is over: what is in flight may have been done, what waited for its turn was not. */
  #lose(reason: string): void {
    if (!this.connected) return
    this.connected = false
    this.#connection = undefined
    this.#streams.clear()
    this.#beforeFlush = []
    const pending = [...this.#pending.values()].sort((a, b) => a.message.request - b.message.request)
    this.#pending.clear()
    const backlog = this.#backlog.splice(0).slice(this.#backlogFrom)
    this.#backlogFrom = 0
    for (const resident of [...this.residents]) resident.down?.()
    this.#limbo.push(...pending.filter(({ again }) => again && !this.#closing))
    this.#settleLost(
      pending.filter(({ again }) => !again || this.#closing),
      reason
    )
    for (const { settle } of backlog) settle(this.#unavailable())
  }

  #settleLost(waiting: ReadonlyArray<Waiting>, reason: string): void {
    const lost = new ConnectionLost({ address: this.address, reason })
    for (const { settle } of waiting) settle(lost)
  }

  #failLimbo(reason: string): void {
    this.#settleLost(this.#limbo.splice(0), reason)
  }

  #unavailable(): RequestError {
    return this.#lastError ?? new ConnectFailed({ address: this.address, reason: "not connected at the moment" })
  }
}

/** Numbers in one list of leases: a task and a fence each. */
const heldMax = 2 * Limits.creditMax

/** Frames of the handshake, one taken at a time. */
class Mailbox {
  readonly #bodies: Array<Uint8Array> = []
  #taker: ((body: Uint8Array) => void) | undefined = undefined
  #onClosed: ((reason: string) => void) | undefined = undefined
  #closed: string | undefined = undefined

  put(body: Uint8Array): void {
    const taker = this.#taker
    this.#taker = undefined
    if (taker === undefined) this.#bodies.push(body)
    else taker(body)
  }

  take(taken: (body: Uint8Array) => void, closed: (reason: string) => void): void {
    const body = this.#bodies.shift()
    if (body !== undefined) return taken(body)
    if (this.#closed !== undefined) return closed(this.#closed)
    this.#taker = taken
    this.#onClosed = closed
  }

  poll(): Uint8Array | undefined {
    return this.#bodies.shift()
  }

  close(reason: string): void {
    this.#closed = reason
    if (this.#taker !== undefined) this.#onClosed?.(reason)
    this.#taker = undefined
  }
}
