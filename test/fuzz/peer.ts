/**
 * A peer that says whatever it is told to, in one piece or cut, over a pair of ends in this process or a real socket, and
 * learns from what it hears: numbers of queues, tasks with their fences, streams, its session.
 */
import * as net from "node:net"
import { keyBytes, saltPassword } from "../../src/auth/Credentials.ts"
import * as Scram from "../../src/auth/Scram.ts"
import * as Limits from "../../src/Limits.ts"
import { randomBytes, sha256 } from "../../src/platform/Crypto.ts"
import type { Connection, Handler } from "../../src/platform/Network.ts"
import { concat, Reader } from "../../src/wire/Bytes.ts"
import * as ClientMessages from "../../src/wire/ClientMessages.ts"
import { FrameReader, frame } from "../../src/wire/Frames.ts"
import * as ManagerMessages from "../../src/wire/ManagerMessages.ts"
import { ClientType as C, type Delivery, ManagerType as M } from "../../src/wire/Vocabulary.ts"
import { hello } from "./targets.ts"

/** What the peers of one sequence have heard between them: a fence of one is said by another as well. */
export class Known {
  readonly queues: Array<number> = []
  readonly objects: Array<number> = []
  readonly streams: Array<number> = []
  /** Task, fence, task, fence, ... */
  readonly leases: Array<number> = []
  readonly tasks: Array<number> = []
  readonly sessions: Array<Uint8Array> = []
  /** The neighbour's queue: whoever leases from it may, so a peer that is about to name it, by whatever cut, ends. */
  readonly forbidden: number
  frames = 0
  answers = 0
  closings = 0
  sessionsOpened = 0
  sessionsResumed = 0

  constructor(forbidden: number) {
    this.forbidden = forbidden
  }
}

export type Dial =
  | { readonly connect: (handler: (connection: Connection) => Handler) => Connection }
  | { readonly port: number; readonly key: string }

/** Whether a manager that takes this body is asked for anything of that queue. */
const mentions = (body: Uint8Array, queue: number): boolean => {
  const r = new Reader(body)
  try {
    while (!r.done) {
      const m = ClientMessages.decode(r)
      if ("queue" in m && m.queue === queue) return true
      if (m.type !== C.commit || m.effects === undefined) continue
      if (m.effects.some((effects) => effects?.puts.some((put) => put.queue === queue))) return true
    }
  } catch {
    // What comes before the first malformed byte has been looked at.
  }
  return false
}

/** PBKDF2 once per salt, as a client does. */
const salted = new Map<string, Promise<Uint8Array>>()

export class FuzzPeer {
  closed = false
  /** What went wrong with what the manager said. */
  fault: string | undefined = undefined
  request = 0
  /** Task, fence, ...: what it has been given itself. */
  readonly leases: Array<number> = []
  #said: Uint8Array
  #scram: Scram.ClientStateOf<"FirstSent"> | undefined
  readonly #known: Known
  readonly #write: (bytes: Uint8Array) => void
  readonly #destroy: () => void
  readonly #reader = new FrameReader(Limits.frameBytesMax)
  /** Reads what is said as a manager does. */
  readonly #own = new FrameReader(Limits.frameBytesMax)
  readonly #key: string | undefined
  /** What is said when the login is over. */
  #first: Uint8Array | undefined

  /** Says hello and opens a session, with a token to take one over; then `more`. */
  constructor(
    dial: Dial,
    known: Known,
    session: Uint8Array | undefined,
    held: ReadonlyArray<number>,
    more: ReadonlyArray<ClientMessages.ClientMessage> = []
  ) {
    this.#known = known
    const handler: Handler = {
      onData: (chunk) => this.#data(chunk),
      onDrain: () => {},
      onClose: () => {
        this.closed = true
      }
    }
    const first = frame((w) => ClientMessages.encode(w, hello))
    const open = concat(
      [{ type: C.sessionOpen, session, held } as const, ...more].map((message) =>
        frame((w) => ClientMessages.encode(w, message))
      )
    )
    this.#said = first.subarray(4)
    if ("connect" in dial) {
      const connection = dial.connect(() => handler)
      this.#key = undefined
      this.#write = connection.write
      // The end that closes an in-process pair hears of it a turn later.
      this.#destroy = connection.destroy
      this.write(first)
      this.write(open)
    } else {
      const socket = net.connect({ host: "127.0.0.1", port: dial.port, noDelay: true })
      socket.on("data", handler.onData)
      socket.on("error", () => {})
      socket.on("close", () => handler.onClose("closed"))
      this.#key = dial.key
      this.#write = (bytes) => void socket.write(bytes)
      this.#destroy = () => socket.destroy()
      this.#first = open
      this.write(first)
    }
  }

  write(bytes: Uint8Array): void {
    if (this.closed) return
    let forbidden = false
    this.#own.push(bytes, (body) => {
      forbidden ||= mentions(body, this.#known.forbidden)
    })
    if (forbidden) return this.#destroy()
    this.#known.frames++
    this.#write(bytes)
  }

  say(messages: ReadonlyArray<ClientMessages.ClientMessage>): void {
    this.write(
      frame((w) => {
        for (const message of messages) ClientMessages.encode(w, message)
      })
    )
  }

  destroy(): void {
    this.#destroy()
  }

  /** Whether it is still in the login: commands would end it. */
  get busy(): boolean {
    return this.#first !== undefined && !this.closed
  }

  #data(chunk: Uint8Array): void {
    try {
      this.#reader.push(chunk, (body) => {
        const r = new Reader(body)
        while (!r.done) this.#heard(ManagerMessages.decode(r), body)
      })
      this.fault ??= this.#reader.fault
    } catch (error) {
      this.fault = `what the manager says is malformed: ${String(error)}`
    }
  }

  #heard(message: ManagerMessages.ManagerMessage, body: Uint8Array): void {
    const known = this.#known
    known.answers++
    switch (message.type) {
      case M.hello:
        if (this.#key !== undefined) {
          const helloHash = sha256(concat([this.#said, body]))
          const first = Scram.clientFirst({ name: "default", nonce: randomBytes(18), helloHash })
          this.#scram = first.state
          this.say([{ type: C.authFirst, mechanism: "SCRAM-SHA-256", message: first.message }])
        }
        return
      case M.authChallenge:
        void this.#prove(message.message)
        return
      case M.authOk:
        if (this.#first !== undefined) this.write(this.#first)
        this.#first = undefined
        return
      case M.sessionOpened:
        known.sessions.push(message.session)
        if (message.resumed) known.sessionsResumed++
        else known.sessionsOpened++
        return
      case M.closing:
        known.closings++
        return
      case M.opened:
        known.queues.push(message.queue)
        return
      case M.objectOpened:
        known.objects.push(message.object)
        return
      case M.streaming:
        known.streams.push(message.stream)
        return
      case M.putDone:
        known.tasks.push(message.first)
        return
      case M.putItems:
        known.tasks.push(...message.tasks)
        return
      case M.found:
        if (message.task !== undefined) known.tasks.push(message.task)
        return
      case M.leased:
      case M.deliver:
        for (const { fence, task } of message.items as ReadonlyArray<Delivery>) {
          known.leases.push(task, fence)
          this.leases.push(task, fence)
        }
        return
    }
  }

  async #prove(challenge: string): Promise<void> {
    const step = Scram.clientChallenge(this.#scram!, challenge)
    if (step._tag === "Refused") {
      this.fault = step.reason
      return
    }
    const id = `${step.iterations} ${Buffer.from(step.salt).toString("hex")}`
    const password = salted.get(id) ?? saltPassword(keyBytes(this.#key!), step.salt, step.iterations)
    salted.set(id, password)
    const { message } = Scram.clientFinal(step.state, await password)
    this.say([{ type: C.authFinal, message }])
  }
}
