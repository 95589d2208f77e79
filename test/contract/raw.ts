import * as net from "node:net"
import { assert } from "@effect/vitest"
import { Limits } from "millrace"
import { keyBytes, saltPassword } from "../../src/auth/Credentials.ts"
import * as Scram from "../../src/auth/Scram.ts"
import { randomBytes, sha256 } from "../../src/platform/Crypto.ts"
import type { Connection, Handler } from "../../src/platform/Network.ts"
import { Reader } from "../../src/wire/Bytes.ts"
import * as ClientMessages from "../../src/wire/ClientMessages.ts"
import { FrameReader, frame } from "../../src/wire/Frames.ts"
import * as ManagerMessages from "../../src/wire/ManagerMessages.ts"
import { ClientType as C, ManagerType as M } from "../../src/wire/Vocabulary.ts"
import { auth } from "./layers.ts"

type Answer = ManagerMessages.Answer

/** A peer that says whatever it is told to, and remembers what it hears. */
export abstract class Peer {
  readonly heard: Array<ManagerMessages.ManagerMessage> = []
  readonly bodies: Array<Uint8Array> = []
  closed = false
  requests = 0
  readonly #reader = new FrameReader(Limits.frameBytesMax)
  readonly #waiting = new Set<() => void>()

  abstract write(bytes: Uint8Array): void
  abstract destroy(): void

  protected take(chunk: Uint8Array): void {
    this.#reader.push(chunk, (body) => {
      this.bodies.push(body)
      const messages = new Reader(body)
      while (!messages.done) this.heard.push(ManagerMessages.decode(messages))
    })
    for (const wake of this.#waiting) wake()
  }

  protected end(): void {
    this.closed = true
    for (const wake of this.#waiting) wake()
  }

  until(holds: () => boolean, what: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = (then: () => void): void => {
        clearTimeout(timer)
        this.#waiting.delete(look)
        then()
      }
      const timer = setTimeout(() => end(() => reject(new Error(`never heard: ${what}`))), 20_000)
      const look = (): void => {
        if (holds()) end(resolve)
      }
      this.#waiting.add(look)
      look()
    })
  }

  say(...messages: ReadonlyArray<ClientMessages.ClientMessage>): Uint8Array {
    const bytes = frame((w) => {
      for (const message of messages) ClientMessages.encode(w, message)
    })
    this.write(bytes)
    return bytes.subarray(4)
  }

  async next<T extends ManagerMessages.ManagerMessage["type"]>(
    type: T
  ): Promise<Extract<ManagerMessages.ManagerMessage, { readonly type: T }>> {
    const found = (): ManagerMessages.ManagerMessage | undefined => this.heard.find((message) => message.type === type)
    await this.until(() => found() !== undefined, `message ${type}`)
    const message = found()!
    this.heard.splice(this.heard.indexOf(message), 1)
    return message as Extract<ManagerMessages.ManagerMessage, { readonly type: T }>
  }

  /** Asks under the next number, and waits for the answer. */
  async ask(make: (request: number) => ClientMessages.Request): Promise<Answer> {
    const request = ++this.requests
    this.say(make(request))
    const found = (): ManagerMessages.ManagerMessage | undefined =>
      this.heard.find((m) => "request" in m && m.request === request)
    await this.until(() => found() !== undefined || this.closed, `the answer to ${request}`)
    return found() as Answer
  }

  /** The last word, then the end of the connection. */
  async refused(code: number): Promise<string> {
    const closing = await this.next(M.closing)
    assert.strictEqual(closing.code, code, closing.text)
    await this.until(() => this.closed, "the end of the connection")
    return closing.text
  }
}

/** In this process, where no login is asked for. */
export class Inside extends Peer {
  readonly #connection: Connection

  constructor(connect: (handler: (connection: Connection) => Handler) => Connection) {
    super()
    this.#connection = connect(() => ({
      onData: (chunk) => this.take(chunk),
      onDrain: () => {},
      onClose: () => this.end()
    }))
  }

  write(bytes: Uint8Array): void {
    this.#connection.write(bytes)
  }

  destroy(): void {
    this.#connection.destroy()
  }

  async login(session?: Uint8Array, held: ReadonlyArray<number> = []): Promise<ManagerMessages.SessionOpened> {
    this.say(hello)
    await this.next(M.hello)
    this.say({ type: C.sessionOpen, session, held })
    return this.next(M.sessionOpened)
  }
}

/** Over TCP. */
export class Raw extends Peer {
  readonly socket: net.Socket

  constructor(port: number) {
    super()
    this.socket = net.connect({ host: "127.0.0.1", port, noDelay: true })
    this.socket.on("data", (chunk) => this.take(chunk as Buffer))
    this.socket.on("error", () => {})
    this.socket.on("close", () => this.end())
  }

  write(bytes: Uint8Array): void {
    this.socket.write(bytes)
  }

  destroy(): void {
    this.socket.destroy()
  }

  /** Logs in and opens a session: a new one, or `session` with what is held of it. */
  async login(
    credentials: { readonly key: string; readonly user?: string } = auth,
    session?: Uint8Array,
    held: ReadonlyArray<number> = []
  ): Promise<ManagerMessages.SessionOpened> {
    await this.prove(credentials)
    this.say({ type: C.sessionOpen, session, held })
    return this.next(M.sessionOpened)
  }

  /** Logs in, up to the session. */
  async prove({ key, user = "default" }: { readonly key: string; readonly user?: string } = auth): Promise<void> {
    const mine = this.say(hello)
    await this.next(M.hello)
    const helloHash = sha256(Buffer.concat([mine, this.bodies[0]!]))
    const first = Scram.clientFirst({ name: user, nonce: randomBytes(18), helloHash })
    this.say({ type: C.authFirst, mechanism: "SCRAM-SHA-256", message: first.message })
    const step = Scram.clientChallenge(first.state, (await this.next(M.authChallenge)).message)
    if (step._tag === "Refused") throw new Error(step.reason)
    const final = Scram.clientFinal(step.state, await saltPassword(keyBytes(key), step.salt, step.iterations))
    this.say({ type: C.authFinal, message: final.message })
    await this.next(M.authOk)
  }
}

export const hello: ClientMessages.Hello = {
  type: C.hello,
  magic: "millrace",
  versionMin: 1,
  versionMax: 1,
  capabilities: 0,
  frameBytesMax: Limits.frameBytesMax,
  role: "",
  namespace: "default",
  agent: "hostile"
}
