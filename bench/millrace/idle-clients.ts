/**
 * Thousands of sessions in one process: peers that speak the protocol over a socket and nothing else, so that a client costs
 * the machine little and what is measured is the manager. The salted key is worked out once, as a client that comes back does.
 *
 * `connect` answers when that many more are logged in; `look` says what has become of them.
 */
import * as net from "node:net"
import process from "node:process"
import * as tls from "node:tls"
import { keyBytes, saltPassword } from "../../src/auth/Credentials.ts"
import * as Scram from "../../src/auth/Scram.ts"
import { policyOf } from "../../src/client/Definition.ts"
import * as Limits from "../../src/Limits.ts"
import { toNumbers } from "../../src/model/Policy.ts"
import { randomBytes, sha256 } from "../../src/platform/Crypto.ts"
import { certificateFault, channelBinding, clientOptions } from "../../src/platform/Tls.ts"
import { concat, Reader } from "../../src/wire/Bytes.ts"
import * as Client from "../../src/wire/ClientMessages.ts"
import { FrameReader, frame } from "../../src/wire/Frames.ts"
import * as Manager from "../../src/wire/ManagerMessages.ts"
import { ClientType as C, ManagerType as M, magic, versionsSpoken } from "../../src/wire/Vocabulary.ts"
import { monotonicMs, required, serve } from "../harness/role.ts"

const host = "127.0.0.1"
const port = Number(required("MILLRACE_BENCH_PORT"))
const key = keyBytes(required("MILLRACE_BENCH_KEY"))
/** Of the manager's certificate; undefined: no TLS. */
const fingerprint = process.env["MILLRACE_BENCH_FINGERPRINT"]

export interface ConnectOptions {
  readonly count: number
  /** Logins under way at a time. */
  readonly inFlight: number
  /** Whether each opens a queue, once, before it idles. */
  readonly open: boolean
}

/** Of all sessions so far. */
export interface Look {
  readonly open: number
  /** Ended by the other side, or by the network. */
  readonly lost: number
  readonly why: string
  readonly heartbeats: number
  readonly answered: number
  /** The fewest that one of the open sessions has had answered. */
  readonly answeredLeast: number
  /** Milliseconds from a heartbeat to its answer, since the last look. */
  readonly heartbeatP99: number
}

const peers: Array<Peer> = []
const quiet = new Set<Peer>()
let lost = 0
let why = ""
let heartbeats = 0
let answered = 0
let answerMs: Array<number> = []

const salted = new Map<string, Promise<Uint8Array>>()
const saltedKey = (salt: Uint8Array, iterations: number): Promise<Uint8Array> => {
  const of = `${Buffer.from(salt).toString("base64")}:${iterations}`
  const known = salted.get(of) ?? saltPassword(key, salt, iterations)
  salted.set(of, known)
  return known
}

const hello: Client.Hello = {
  type: C.hello,
  magic,
  versionMin: versionsSpoken.min,
  versionMax: versionsSpoken.max,
  capabilities: 0,
  frameBytesMax: Limits.frameBytesMax,
  role: "",
  namespace: "default",
  agent: "millrace-bench"
}
const openQueue: Client.Open = {
  type: C.open,
  request: 1,
  name: "bench.idle",
  fingerprint: sha256(new Uint8Array()),
  schema: "",
  accepts: [],
  policy: toNumbers(policyOf("bench.idle", {}))
}

class Peer {
  closed = false
  heartbeats = 0
  answered = 0
  saidAt = monotonicMs()
  #ending = false
  #helloBody: Uint8Array | undefined
  #first: ReturnType<typeof Scram.clientFirst> | undefined
  #final: ReturnType<typeof Scram.clientFinal>["state"] | undefined
  readonly #opens: boolean
  readonly #reader = new FrameReader(Limits.frameBytesMax)
  readonly #socket: net.Socket
  readonly #done: (error?: Error) => void

  constructor(opens: boolean, done: (error?: Error) => void) {
    this.#opens = opens
    this.#done = done
    const socket = socketOf()
    this.#socket = socket
    socket.once(fingerprint === undefined ? "connect" : "secureConnect", () => {
      const fault =
        socket instanceof tls.TLSSocket && fingerprint !== undefined
          ? certificateFault(socket, { fingerprint })
          : undefined
      if (fault === undefined) this.#helloBody = this.#say(hello)
      else socket.destroy(new Error(fault))
    })
    socket.on("data", (chunk: Buffer) => {
      this.#reader.push(chunk, (body) => this.#frame(body))
      if (this.#reader.fault !== undefined) socket.destroy(new Error(this.#reader.fault))
    })
    socket.on("error", (error) => {
      if (!this.#ending) why = String(error)
    })
    socket.on("close", () => {
      this.closed = true
      if (!this.#ending) lost++
      this.#done(new Error(`a session ended: ${why}`))
    })
  }

  heartbeat(): void {
    this.saidAt = monotonicMs()
    heartbeats++
    this.#say({ type: C.heartbeat, sequence: ++this.heartbeats, held: [] })
  }

  goodbye(): void {
    this.#ending = true
    this.#say({ type: C.goodbye })
  }

  /** As a program that is killed, or a network that is cut: no word. */
  cut(): void {
    this.#ending = true
    if (this.#socket instanceof tls.TLSSocket) this.#socket.destroy()
    else this.#socket.resetAndDestroy()
  }

  #say(message: Client.ClientMessage): Uint8Array {
    const bytes = frame((w) => Client.encode(w, message))
    this.#socket.write(bytes)
    return bytes.subarray(4)
  }

  #frame(body: Uint8Array): void {
    const reader = new Reader(body)
    while (!reader.done) this.#message(Manager.decode(reader), body)
  }

  #message(message: Manager.ManagerMessage, body: Uint8Array): void {
    switch (message.type) {
      case M.hello: {
        const choice = Scram.chooseMechanism(message.mechanisms, channelBinding(this.#socket))!
        this.#first = Scram.clientFirst({
          name: "default",
          nonce: randomBytes(Limits.scramNonceBytesMin),
          helloHash: sha256(concat([this.#helloBody!, body])),
          gs2: choice.gs2
        })
        return void this.#say({ type: C.authFirst, mechanism: choice.mechanism, message: this.#first.message })
      }
      case M.authChallenge: {
        const step = Scram.clientChallenge(this.#first!.state, message.message)
        if (step._tag === "Refused") return void this.#socket.destroy(new Error(step.reason))
        return void saltedKey(step.salt, step.iterations).then((password) => {
          const final = Scram.clientFinal(step.state, password)
          this.#final = final.state
          this.#say({ type: C.authFinal, message: final.message })
        })
      }
      case M.authOk: {
        const verdict = Scram.clientVerify(this.#final!, message.message)
        if (verdict._tag === "Refused") return void this.#socket.destroy(new Error(verdict.reason))
        this.#helloBody = this.#first = this.#final = undefined
        return void this.#say({ type: C.sessionOpen, session: undefined, held: [] })
      }
      case M.sessionOpened:
        return this.#opens ? void this.#say(openQueue) : this.#done()
      case M.opened:
        return this.#done()
      case M.heartbeat:
        // Number 0 answers nothing: the manager says that it is there.
        if (message.sequence === 0) return
        if (message.sequence !== ++this.answered) {
          return void this.#socket.destroy(new Error("a heartbeat was answered out of turn"))
        }
        answered++
        answerMs.push(monotonicMs() - this.saidAt)
        return
      case M.closing:
        why = `closed by the manager: ${message.text}`
        return
      default:
        return void this.#socket.destroy(new Error(`unexpected message ${message.type}`))
    }
  }
}

const socketOf = (): net.Socket => {
  const at = { host, port, noDelay: true }
  return fingerprint === undefined ? net.connect(at) : tls.connect({ ...at, ...clientOptions({ fingerprint }, host) })
}

/** Seconds until all of them were in. */
const connect = ({ count, inFlight, open }: ConnectOptions): Promise<number> =>
  new Promise((resolve, reject) => {
    const from = monotonicMs()
    let begun = 0
    let done = 0
    const next = (): void => {
      begun++
      let waits = true
      const peer = new Peer(open, (error) => {
        if (!waits) return
        waits = false
        if (error !== undefined) return reject(error)
        peers.push(peer)
        quiet.add(peer)
        if (++done === count) resolve((monotonicMs() - from) / 1_000)
        else if (begun < count) next()
      })
    }
    for (let i = Math.min(count, inFlight); i > 0; i--) next()
  })

/** All are told to end; answers when all sockets are closed. */
const end = async (how: (peer: Peer) => void): Promise<void> => {
  const ending = peers.splice(0)
  quiet.clear()
  for (const peer of ending) if (!peer.closed) how(peer)
  const deadline = monotonicMs() + 30_000
  while (ending.some(({ closed }) => !closed)) {
    if (monotonicMs() > deadline) throw new Error("sessions that were ended are still there")
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

const look = (): Look => {
  const open = peers.filter(({ closed }) => !closed)
  const times = Float64Array.from(answerMs).sort()
  answerMs = []
  return {
    open: open.length,
    lost,
    why,
    heartbeats,
    answered,
    answeredLeast: open.reduce((least, peer) => Math.min(least, peer.answered), Number.POSITIVE_INFINITY),
    heartbeatP99: times[Math.ceil(times.length * 0.99) - 1] ?? 0
  }
}

// One timer for all; the one that has said nothing for longest comes first.
const timer = setInterval(() => {
  const now = monotonicMs()
  for (const peer of quiet) {
    if (now - peer.saidAt < Limits.heartbeatMs) break
    quiet.delete(peer)
    if (peer.closed) continue
    peer.heartbeat()
    quiet.add(peer)
  }
}, 25)

serve(
  {
    ready: () => undefined,
    connect,
    look,
    goodbye: () => end((peer) => peer.goodbye()),
    cut: () => end((peer) => peer.cut())
  },
  async () => clearInterval(timer)
)
