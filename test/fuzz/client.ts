/**
 * A client whose manager is hostile: before login an impostor that has not got the key, or changes what the real one says;
 * after login one that answers with whatever the grammar has.
 *
 * The impostor never gets more than a login out of the client: no session is asked for. The answers of the other end as
 * typed errors or as values, never as a defect and never as an exception in the handler of the connection, which would
 * end the program.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schema from "effect/Schema"
import { deriveKeys, type Verifier } from "../../src/auth/Credentials.ts"
import * as Scram from "../../src/auth/Scram.ts"
import { type Client, layerLink } from "../../src/client/Client.ts"
import { ConnectFailed } from "../../src/Errors.ts"
import * as Limits from "../../src/Limits.ts"
import { Code } from "../../src/model/Refusal.ts"
import { randomBytes, sha256 } from "../../src/platform/Crypto.ts"
import type { Connection, Handler } from "../../src/platform/Network.ts"
import * as SharedCounter from "../../src/SharedCounter.ts"
import * as SharedDict from "../../src/SharedDict.ts"
import * as SharedSet from "../../src/SharedSet.ts"
import * as Signal from "../../src/Signal.ts"
import * as Step from "../../src/Step.ts"
import * as TaskQueue from "../../src/TaskQueue.ts"
import * as Worker from "../../src/Worker.ts"
import { concat, Malformed, Reader } from "../../src/wire/Bytes.ts"
import * as ClientMessages from "../../src/wire/ClientMessages.ts"
import { FrameReader, frame } from "../../src/wire/Frames.ts"
import * as ManagerMessages from "../../src/wire/ManagerMessages.ts"
import { ClientType as C, ManagerType as M } from "../../src/wire/Vocabulary.ts"
import { Random } from "../unit/random.ts"
import { managerMessages } from "../unit/wire/messages.ts"
import { mutated, sameBytes } from "./bytes.ts"

export interface ClientResult {
  inputs: number
  /** Logins that succeeded, and messages of an open client that were answered. */
  opened: number
  answers: number
  /** How logins and operations ended. */
  readonly ends: Record<string, number>
  failure: string | undefined
}

const salted = sha256(Uint8Array.of(9))
const salt = sha256(Uint8Array.of(10)).subarray(0, 16)
const verifier: Verifier = { name: "default", salt, iterations: 4_096, ...deriveKeys(salted) }
const impostor: Verifier = { ...verifier, ...deriveKeys(sha256(Uint8Array.of(11))) }

const all = Object.values(managerMessages)
const usual: Readonly<Record<number, ReadonlyArray<keyof typeof managerMessages>>> = {
  [C.open]: ["opened"],
  [C.put]: ["putDone", "putItems"],
  [C.lease]: ["leased"],
  [C.commit]: ["items"],
  [C.release]: ["items"],
  [C.fail]: ["items"],
  [C.peek]: ["peeked"],
  [C.stats]: ["stats"],
  [C.outcome]: ["outcome"],
  [C.browse]: ["browsed"],
  [C.purge]: ["counted"],
  [C.redrive]: ["redriven"],
  [C.cancel]: ["standings"],
  [C.openObject]: ["objectOpened"],
  [C.setKeys]: ["bits"],
  [C.count]: ["counter"],
  [C.countSet]: ["counter"],
  [C.dictGet]: ["entries"],
  [C.dictWrite]: ["written"],
  [C.signal]: ["done"],
  [C.find]: ["found"],
  [C.subscribe]: ["streaming", "deliver"],
  [C.step]: ["done", "items"]
}

type Known = "ConnectFailed" | "AuthenticationFailed" | "VersionUnsupported" | "ProtocolViolated"
const known: ReadonlySet<string> = new Set<Known>([
  "ConnectFailed",
  "AuthenticationFailed",
  "VersionUnsupported",
  "ProtocolViolated"
])

/** The SCRAM text of a message; undefined: it is none. */
const textOf = (body: Uint8Array): string | undefined => {
  try {
    const message = ManagerMessages.decode(new Reader(body))
    return message.type === M.authChallenge || message.type === M.authOk
      ? `${message.type} ${message.message}`
      : undefined
  } catch {
    return undefined
  }
}

const sameText = (a: Uint8Array, b: Uint8Array): boolean => textOf(a) !== undefined && textOf(a) === textOf(b)

/** A manager in this process that plays one input. */
class Hostile {
  /** What is wrong with the client. */
  wrong: string | undefined
  answers = 0
  readonly connection: Connection
  readonly #random: Random
  readonly #handler: Handler
  readonly #reader = new FrameReader(Limits.frameBytesMax)
  readonly #verifier: Verifier
  /** The message of the login that is changed; 9: none. */
  readonly #changed: number
  #said = 0
  #touched = false
  #hello: Uint8Array = new Uint8Array()
  #helloHash: Uint8Array = new Uint8Array()
  #scram: Scram.ServerState | undefined
  #open = false
  #ended = false
  #left: number

  constructor(random: Random, make: (connection: Connection) => Handler) {
    this.#random = random
    this.#verifier = random.int(4) === 0 ? impostor : verifier
    this.#changed = random.pick([0, 1, 2, 3, 9, 9, 9])
    this.#left = 1 + random.int(12)
    this.connection = {
      peer: "hostile",
      write: (bytes) => setImmediate(() => this.#hear(bytes)),
      pendingBytes: () => 0,
      pause: () => {},
      resume: () => {},
      close: () => this.#end(),
      destroy: () => this.#end()
    }
    this.#handler = make(this.connection)
  }

  #end(): void {
    if (this.#ended) return
    this.#ended = true
    setImmediate(() => this.#call(() => this.#handler.onClose("closed")))
  }

  #call(run: () => void): void {
    try {
      run()
    } catch (error) {
      this.wrong ??= `an exception in the handler of the connection: ${error instanceof Error ? error.stack : String(error)}`
    }
  }

  #write(bytes: Uint8Array): void {
    const own = bytes.slice()
    setImmediate(() => {
      if (!this.#ended) this.#call(() => this.#handler.onData(own))
    })
  }

  /** A message of the login, as it should be or changed on its way. Returns what the manager takes for said. */
  #login(message: ManagerMessages.ManagerMessage): Uint8Array {
    const random = this.#random
    const whole = frame((w) => ManagerMessages.encode(w, message))
    const body = whole.subarray(4)
    if (this.#said++ !== this.#changed) {
      this.#write(whole)
      return body
    }
    if (random.int(3) === 0) {
      // Other messages, whole ones, and as many as one likes.
      const other = random.pick(all)(random)
      const bytes = frame((w) => ManagerMessages.encode(w, other))
      this.#touch(body, bytes)
      for (let i = random.int(20); i >= 0; i--) this.#write(bytes)
      return body
    }
    const raw = random.int(3) === 0
    const changed = mutated(random, raw ? whole : body, body, []).slice(0, 4_096)
    const bytes = raw
      ? changed
      : concat([Uint8Array.of(0, 0, changed.byteLength >> 8, changed.byteLength & 255), changed])
    this.#touch(body, bytes)
    this.#write(bytes)
    if (random.int(2) === 0) this.#end()
    else setImmediate(() => setImmediate(() => setImmediate(() => this.#end())))
    return body
  }

  /** Whether what arrives first says something else. Elements that a newer manager adds to a SCRAM message do not. */
  #touch(body: Uint8Array, bytes: Uint8Array): void {
    let first: Uint8Array | undefined
    new FrameReader(Limits.frameBytesMax).push(bytes, (each) => {
      first ??= each
    })
    if (first !== undefined && (sameBytes(first, 0, first.byteLength, body, body.byteLength) || sameText(first, body)))
      return
    this.#touched = true
  }

  #hear(bytes: Uint8Array): void {
    if (this.#ended) return
    try {
      this.#reader.push(bytes, (body) => {
        const r = new Reader(body)
        while (!r.done) this.#message(ClientMessages.decode(r), body)
      })
    } catch (error) {
      this.wrong ??= `what the client says is ${error instanceof Malformed ? "malformed" : "wrong"}: ${String(error)}`
    }
  }

  #message(m: ClientMessages.ClientMessage, body: Uint8Array): void {
    const random = this.#random
    switch (m.type) {
      case C.hello: {
        this.#hello = body.slice()
        const answer = this.#login({
          type: M.hello,
          magic: "millrace",
          version: 1,
          versionMin: 1,
          versionMax: 1,
          capabilities: 0,
          frameBytesMax: Limits.frameBytesMax,
          mechanisms: ["SCRAM-SHA-256"]
        })
        this.#helloHash = sha256(concat([this.#hello, answer]))
        return
      }
      case C.authFirst: {
        const step = Scram.serverFirst({
          clientFirst: m.message,
          lookup: () => this.#verifier,
          mockSecret: salted,
          nonce: randomBytes(18),
          helloHash: this.#helloHash
        })
        if (step._tag === "Refused") return this.#end()
        this.#scram = step.state
        this.#login({ type: M.authChallenge, message: step.message })
        return
      }
      case C.authFinal: {
        const verdict = Scram.serverFinal(this.#scram!, m.message)
        // Who has no key says something all the same.
        const message = verdict._tag === "Refused" ? `v=${Buffer.from(salted).toString("base64")}` : verdict.message
        this.#login({ type: M.authOk, message })
        return
      }
      case C.sessionOpen:
        if (this.#touched || this.#verifier === impostor)
          this.wrong ??= "a session was asked for before the manager had proven itself"
        this.#open = true
        this.#login({
          type: M.sessionOpened,
          session: randomBytes(16),
          resumed: false,
          instance: randomBytes(8),
          heartbeatMs: Limits.heartbeatMs,
          requestsInFlightMax: Limits.requestsInFlightMax,
          durability: "memory",
          lost: []
        })
        return
      default: {
        if (!this.#open) {
          this.wrong ??= `message ${m.type} before a session`
          return
        }
        if (!("request" in m)) return
        if (this.#left-- <= 0) return this.#end()
        this.answers++
        const named = usual[m.type]
        const make = named === undefined || random.int(4) === 0 ? random.pick(all) : managerMessages[random.pick(named)]
        const answer = { ...make(random) } as Record<string, unknown>
        if ("request" in answer) answer["request"] = m.request
        // Those that no operation of these expects are a defect by design: the manager breaks its word with them.
        const { code, type } = answer as { readonly code?: number; readonly type: number }
        if (type === M.refused && code! >= Code.conflict && code! <= Code.durabilityMixed)
          answer["code"] = Code.unsupported
        const message = answer as unknown as ManagerMessages.ManagerMessage
        const bytes = frame((w) => {
          ManagerMessages.encode(w, message)
          if (random.int(6) === 0) ManagerMessages.encode(w, random.pick(all)(random))
        })
        this.#write(random.int(8) === 0 ? mutated(random, bytes, bytes, []).slice(0, 8_192) : bytes)
        // An answer that names another request leaves this one waiting.
        if (!("request" in answer)) this.#end()
      }
    }
  }
}

const queue = TaskQueue.make("fuzzed", { payload: Schema.Int, result: Schema.Int, checkpoint: Schema.Int })
const told = Signal.make("told", Schema.Int)
const set = SharedSet.make("fuzzed-set")
const dict = SharedDict.make("fuzzed-dict", { value: Schema.Int })
const counter = SharedCounter.make("fuzzed-counter")

const operations: ReadonlyArray<Effect.Effect<unknown, { readonly _tag: string }, Client>> = [
  queue.put(1),
  queue.putAll([1, 2, 3]),
  queue.get({ timeout: 0 }),
  Effect.flatMap(queue.lease({ max: 3, timeout: 0 }), (leases) =>
    Effect.forEach(leases, (lease) => queue.commit(lease, 1))
  ),
  queue.size,
  queue.peek(3),
  queue.stats,
  set.addAll(["a", "b", "c"]),
  set.has("a"),
  dict.get("k"),
  dict.set("k", 1),
  counter.increment(3),
  queue.signal("a0a1a2a3a4a5a6a70000000000000001", told, 1),
  queue.signal({ id: "one" }, told, 1),
  queue.find("one"),
  queue.browse(),
  queue.outcome("a0a1a2a3a4a5a6a70000000000000001", { timeout: 0 }),
  Effect.scoped(
    Effect.andThen(
      Worker.start(
        queue,
        Effect.fnUntraced(function* (task) {
          yield* task.saveCheckpoint(task.checkpoint ?? 1)
          return yield* Step.run("step", Schema.Int, Effect.succeed(1))
        }),
        { grace: 0, restart: { intensity: 0 } }
      ),
      Effect.sleep("5 millis")
    )
  )
]

/** For an answer that never comes. */
const operationMs = 50

/** One client beside one hostile manager. Throws what is wrong. */
const one = (random: Random, result: ClientResult): Promise<void> => {
  let hostile: Hostile | undefined
  const client = layerLink({
    address: "a hostile manager",
    dial: (make) =>
      // One connection each: what follows a loss is another input's business.
      Effect.suspend(() => {
        if (hostile !== undefined) return Effect.fail(new ConnectFailed({ address: "hostile", reason: "gone" }))
        hostile = new Hostile(random, make)
        return Effect.succeed(hostile.connection)
      }),
    auth: { key: "a-key-that-is-not-used-at-all-0123456789abcdef" },
    waitForManager: false,
    reconnectCapMs: 3_600_000,
    saltPassword: (_, given) => Effect.succeed(sameBytes(given, 0, given.byteLength, salt, 16) ? salted : sha256(given))
  })
  const end = (how: string): void => {
    result.ends[how] = (result.ends[how] ?? 0) + 1
  }
  const ended = (exit: Exit.Exit<unknown, { readonly _tag: string }>, what: string): void => {
    if (Exit.isSuccess(exit)) return end("done")
    const reason = exit.cause.reasons.find(Cause.isFailReason)
    if (reason === undefined) throw new Error(`${what} ended with a defect: ${Cause.pretty(exit.cause)}`)
    end(reason.error._tag)
  }
  const program = Effect.gen(function* () {
    result.opened++
    for (let i = 1 + random.int(3); i > 0; i--) {
      const operation = random.int(operations.length)
      const exit = yield* Effect.exit(Effect.timeoutOption(operations[operation]!, operationMs))
      ended(exit, `operation ${operation}`)
    }
  })
  return Effect.runPromiseExit(
    program.pipe(Effect.provide(Layer.fresh(client)), Effect.provide(Logger.layer([])))
  ).then((exit) => {
    if (Exit.isFailure(exit)) {
      const reason = exit.cause.reasons.find(Cause.isFailReason)
      if (reason === undefined) throw new Error(Cause.pretty(exit.cause))
      if (!known.has(reason.error._tag)) throw new Error(`the login failed with ${reason.error._tag}`)
      end(`login: ${reason.error._tag}`)
    }
    result.answers += hostile?.answers ?? 0
    if (hostile?.wrong !== undefined) throw new Error(hostile.wrong)
  })
}

export const runClients = async (options: {
  readonly seed: number
  readonly inputs: number
  readonly first?: number
}): Promise<ClientResult> => {
  const result: ClientResult = { inputs: 0, opened: 0, answers: 0, ends: {}, failure: undefined }
  for (let input = options.first ?? 0; result.inputs < options.inputs; input++) {
    result.inputs++
    const random = new Random(Math.imul(options.seed, 0x9e37_79b1) ^ Math.imul(input + 1, 0xc2b2_ae35))
    try {
      await one(random, result)
    } catch (error) {
      result.failure = `seed ${options.seed}, client ${input}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`
      break
    }
  }
  return result
}
