/**
 * The network port inside a `World`: streams between simulated processes, with everything that a real network does to
 * them. Bytes arrive late, in pieces of any size, several writes at once; connections are refused, hang, break at any
 * byte, fall silent in one direction or in both, and outlive one of their ends.
 *
 * What is written first fills the window (the buffers of the two systems); only what is beyond it is `pendingBytes`.
 */
import * as Effect from "effect/Effect"
import { ConnectFailed, ListenFailed } from "../Errors.ts"
import { type Address, type Connection, formatAddress, type Handler, type Network } from "../platform/Network.ts"
import type { FaultCounts } from "./FaultCounts.ts"
import type { SeededRandom } from "./Random.ts"
import { ms, type Process, type World } from "./World.ts"

/** Probabilities are per dial or per connection; a healthy network has them all at zero. */
export interface NetworkFaults {
  /** One way, drawn once per connection between these two. */
  latencyUs: readonly [min: number, max: number]
  /** Added to each arrival: from 0 to this. */
  jitterUs: number
  refused: number
  /** A dial that nobody answers until it times out. */
  unanswered: number
  /** A connection that breaks when a drawn number of bytes has passed, within `breakWithinBytes`. */
  breaks: number
  breakWithinBytes: number
  /** A connection that cuts writes into pieces, and one that cuts small writes into single bytes. */
  cut: number
  singleBytes: number
  /** A connection that hands over everything that waits at once. */
  coalesced: number
  /** A connection with a small window: the writer soon has bytes pending. */
  narrow: number
  /** What is still under way when its writer destroys the connection, or dies, is lost. */
  lostAtEnd: number
}

export const healthy: NetworkFaults = {
  latencyUs: [100, 400],
  jitterUs: 50,
  refused: 0,
  unanswered: 0,
  breaks: 0,
  breakWithinBytes: 0,
  cut: 0,
  singleBytes: 0,
  coalesced: 0,
  narrow: 0,
  lostAtEnd: 0
}

export const networkFaultKinds = [
  "dial refused",
  "dial unanswered",
  "connection broken at a byte",
  "connection reset",
  "write cut",
  "write in single bytes",
  "writes coalesced",
  "window full",
  "bytes lost at the end",
  "stalled",
  "blocked one way",
  "half-open",
  "session on two connections"
]

interface Listener {
  readonly process: Process
  readonly accept: (connection: Connection) => Handler
}

/** What is under way in one direction. `undefined` bytes: the end of the stream. */
interface Piece {
  readonly bytes: Uint8Array | undefined
  readonly at: number
}

export class SimNetwork {
  faults: NetworkFaults
  readonly world: World
  readonly counts: FaultCounts
  /** Connections of which at least one end is open, oldest first. */
  readonly links = new Set<Link>()
  readonly #listeners = new Map<string, Listener>()
  readonly #random: SeededRandom
  #nextLink = 1

  constructor(world: World, faults: NetworkFaults, counts: FaultCounts) {
    this.world = world
    this.faults = faults
    this.counts = counts
    this.#random = world.random.fork()
  }

  /** The port as one process sees it. */
  portOf(process: Process): Network["Service"] {
    return {
      listen: (address, accept) =>
        Effect.acquireRelease(
          Effect.suspend(() => {
            const at = formatAddress(address)
            if (this.#listeners.get(at)?.process.alive === true) {
              return Effect.fail(new ListenFailed({ address: at, reason: "the address is in use" }))
            }
            this.#listeners.set(at, { process, accept })
            return Effect.succeed(address)
          }),
          () => Effect.sync(() => this.#listeners.delete(formatAddress(address)))
        ),
      dial: (address, timeoutMs, handler) => this.#dial(process, address, timeoutMs, handler)
    }
  }

  /** The operating system ends the connections of a process that died. `silent`: its machine is gone, nobody is told. */
  died(process: Process, silent: boolean): void {
    for (const link of [...this.links]) {
      const end = link.left.process === process ? link.left : link.right.process === process ? link.right : undefined
      if (end === undefined || end.closed) continue
      if (silent) {
        if (!end.other.closed) this.counts.fired("half-open")
        link.vanish(end)
      } else end.abandon()
    }
  }

  /** Ends all that is silent or stalled, as a healing network would; hung dials find out by themselves. */
  heal(): void {
    this.faults = healthy
    for (const link of this.links) link.heal()
  }

  #dial(
    process: Process,
    address: Address,
    timeoutMs: number,
    handler: (connection: Connection) => Handler
  ): Effect.Effect<Connection, ConnectFailed> {
    return Effect.callback((resume) => {
      const { counts, faults, world } = this
      const random = this.#random
      const at = formatAddress(address)
      const fail = (reason: string): void => resume(Effect.fail(new ConnectFailed({ address: at, reason })))
      const latency = random.between(...faults.latencyUs)
      let over = false
      let link: Link | undefined
      if (random.chance(faults.unanswered)) {
        const timer = process.after(timeoutMs * ms, "dial", () => {
          counts.fired("dial unanswered")
          fail(`no answer within ${timeoutMs} ms`)
        })
        return Effect.sync(timer.cancel)
      }
      const refused = random.chance(faults.refused)
      world.schedule(world.outside, world.now + latency, "syn", () => {
        if (over || !process.alive) return
        const listener = this.#listeners.get(at)
        if (refused || listener === undefined || !listener.process.alive) {
          if (refused) counts.fired("dial refused")
          process.after(latency, "dial", () => {
            if (!over) fail("connection refused")
          })
          return
        }
        const made = new Link(this, this.#nextLink++, process, listener.process, latency, random.fork())
        link = made
        this.links.add(made)
        world.trace("connect", made.id, process.name, listener.process.name)
        const older = [...this.links].some(
          ({ left, right }) => left.process === process && !right.closed && right !== made.right
        )
        if (older) counts.fired("session on two connections")
        world.schedule(listener.process, world.now, "accept", () => {
          made.right.attach(listener.accept(made.right))
        })
        process.after(latency, "dial", () => {
          if (over) return made.left.destroy()
          made.left.attach(handler(made.left))
          resume(Effect.succeed(made.left))
        })
      })
      return Effect.sync(() => {
        over = true
        link?.left.destroy()
      })
    })
  }
}

/** One connection: two ends, and what is under way between them. */
export class Link {
  readonly network: SimNetwork
  readonly id: number
  readonly left: End
  readonly right: End
  readonly latencyUs: number
  readonly random: SeededRandom

  constructor(
    network: SimNetwork,
    id: number,
    dialer: Process,
    listener: Process,
    latencyUs: number,
    random: SeededRandom
  ) {
    this.network = network
    this.id = id
    this.latencyUs = latencyUs
    this.random = random
    this.left = new End(this, dialer, "l")
    this.right = new End(this, listener, "r")
    this.left.other = this.right
    this.right.other = this.left
  }

  /** Both ends hear of a broken connection; what is under way is lost. */
  reset(first: End, reason = "reset by the peer"): void {
    if (this.left.closed && this.right.closed) return
    const { world } = this.network
    first.process.after(0, "reset", () => first.closedBy(reason))
    const { other } = first
    other.process.after(world.random.between(0, this.latencyUs), "reset", () => other.closedBy(reason))
    // What is written until an end hears of it, for it is paused perhaps, gets nowhere: a stream has no hole.
    for (const end of [this.left, this.right]) {
      end.dropInbox()
      end.silent = true
    }
  }

  /** No byte passes before that time. */
  stall(until: number, ends: ReadonlyArray<End>): void {
    for (const end of ends) end.blockUntil(until)
  }

  /** `end` is no more, and nobody is told. */
  vanish(end: End): void {
    end.closed = true
    end.silent = true
    end.other.silent = true
    this.check()
  }

  /** Both ends live and hear nothing of each other any more. */
  cut(): void {
    this.left.silent = true
    this.right.silent = true
  }

  heal(): void {
    for (const end of [this.left, this.right]) {
      end.blockUntil(0)
      // A path that comes back brings the news that the other end is gone, or the retransmitted bytes.
      if (end.silent && !end.closed) end.process.after(this.latencyUs, "reset", () => end.closedBy("timed out"))
    }
  }

  check(): void {
    if (this.left.closed && this.right.closed) this.network.links.delete(this)
  }
}

export class End implements Connection {
  readonly peer: string
  readonly process: Process
  readonly link: Link
  other!: End
  closed = false
  /** Nothing arrives here any more, and nothing that is written here gets anywhere. */
  silent = false
  #handler: Handler | undefined = undefined
  /** Pieces on their way to this end, by time of arrival. */
  #inbox: Array<Piece> = []
  #inboxBytes = 0
  #lastArrival = 0
  #received = 0
  #blockedUntil = 0
  #paused = false
  #wasPending = false
  #closing = false
  readonly #breakAt: number
  readonly #cut: "whole" | "pieces" | "bytes"
  readonly #coalesced: boolean
  readonly #window: number

  constructor(link: Link, process: Process, side: string) {
    const { network, random } = link
    const { faults } = network
    this.link = link
    this.process = process
    this.peer = `sim:${link.id}${side}`
    this.#breakAt = random.chance(faults.breaks) ? random.int(faults.breakWithinBytes) : Number.POSITIVE_INFINITY
    this.#cut = random.chance(faults.singleBytes) ? "bytes" : random.chance(faults.cut) ? "pieces" : "whole"
    this.#coalesced = random.chance(faults.coalesced)
    this.#window = random.chance(faults.narrow) ? random.between(64, 4_096) : 256 * 1_024
  }

  attach(handler: Handler): void {
    this.#handler = handler
    // It may have ended before its owner knew of it.
    if (this.closed) this.process.after(0, "close", () => handler.onClose("closed by the peer"))
  }

  // ---- the connection as its owner sees it

  write = (bytes: Uint8Array): void => {
    if (this.closed || this.#closing || bytes.byteLength === 0) return
    this.other.#arrives(bytes)
    if (this.pendingBytes() > 0 && !this.#wasPending) {
      this.#wasPending = true
      this.link.network.counts.fired("window full")
    }
  }

  pendingBytes = (): number => Math.max(0, this.other.#inboxBytes - this.other.#window)

  pause = (): void => {
    this.#paused = true
  }

  resume = (): void => {
    this.#paused = false
    this.#pump(0)
  }

  close = (): void => {
    if (this.closed || this.#closing) return
    this.#closing = true
    if (this.pendingBytes() === 0) this.#finish()
  }

  destroy = (): void => {
    if (this.closed) return
    this.#loseSome()
    this.#finish()
  }

  // ---- what the network does

  /** The process behind this end is no more; its system says so. */
  abandon(): void {
    this.#handler = undefined
    this.destroy()
  }

  closedBy(reason: string): void {
    if (this.closed) return
    this.closed = true
    this.dropInbox()
    this.link.check()
    this.#handler?.onClose(reason)
  }

  dropInbox(): void {
    this.#inbox = []
    this.#inboxBytes = 0
  }

  blockUntil(until: number): void {
    this.#blockedUntil = until
    this.#pump(Math.max(0, until - this.link.network.world.now))
  }

  /** Says goodbye to the other end and, a turn later, to the owner. */
  #finish(): void {
    this.closed = true
    this.dropInbox()
    if (!this.other.closed) this.other.#arrives(undefined)
    const handler = this.#handler
    if (handler !== undefined) this.process.turn(() => handler.onClose("closed"))
    this.link.check()
  }

  #loseSome(): void {
    const { network, random } = this.link
    if (this.other.#inbox.length === 0 || !random.chance(network.faults.lostAtEnd)) return
    network.counts.fired("bytes lost at the end")
    this.other.#inbox.length = random.int(this.other.#inbox.length)
    this.other.#inboxBytes = this.other.#inbox.reduce((sum, { bytes }) => sum + (bytes?.byteLength ?? 0), 0)
  }

  #arrives(bytes: Uint8Array | undefined): void {
    if (this.silent || this.closed) return
    const { latencyUs, network, random } = this.link
    const { counts, faults, world } = network
    const arrive = (piece: Uint8Array | undefined): void => {
      const at = Math.max(this.#lastArrival, world.now + latencyUs + random.int(faults.jitterUs + 1))
      this.#lastArrival = at
      this.#inbox.push({ bytes: piece, at })
      this.#inboxBytes += piece?.byteLength ?? 0
      this.#pump(at - world.now)
    }
    if (bytes === undefined || this.#cut === "whole") return arrive(bytes)
    const single = this.#cut === "bytes" && bytes.byteLength <= 200
    if (bytes.byteLength > 1) counts.fired(single ? "write in single bytes" : "write cut")
    for (let from = 0; from < bytes.byteLength; ) {
      const size = single ? 1 : random.between(1, Math.max(1, bytes.byteLength >> 1))
      arrive(bytes.slice(from, from + size))
      from += size
    }
  }

  #pump(us: number): void {
    this.process.after(us, "bytes", () => this.#deliver())
  }

  #deliver(): void {
    const { network } = this.link
    const { world } = network
    while (!this.closed && !this.silent && !this.#paused && this.#handler !== undefined) {
      if (this.#blockedUntil > world.now) return
      const piece = this.#inbox[0]
      if (piece === undefined || piece.at > world.now) return
      this.#inbox.shift()
      if (piece.bytes === undefined) return this.closedBy("closed by the peer")
      let chunk = piece.bytes
      // With `coalesced` all that is due, and what will soon be, comes at once.
      while (this.#coalesced && this.#inbox[0]?.bytes !== undefined && this.#inbox[0].at <= world.now + 200) {
        const next = this.#inbox.shift()!.bytes!
        const both = new Uint8Array(chunk.byteLength + next.byteLength)
        both.set(chunk)
        both.set(next, chunk.byteLength)
        chunk = both
        network.counts.fired("writes coalesced")
      }
      this.#inboxBytes -= chunk.byteLength
      if (this.#received + chunk.byteLength > this.#breakAt) {
        network.counts.fired("connection broken at a byte")
        const rest = chunk.slice(0, this.#breakAt - this.#received)
        this.#received = Number.NEGATIVE_INFINITY
        if (rest.byteLength > 0) this.#handler.onData(rest)
        return this.link.reset(this)
      }
      this.#received += chunk.byteLength
      world.trace("data", this.peer, chunk.byteLength)
      world.hash.bytes(chunk)
      this.#handler.onData(chunk.slice())
      this.#taken()
    }
  }

  /** Tells the writer when all that it has written is taken. */
  #taken(): void {
    const { other } = this
    if (other.#wasPending && other.pendingBytes() === 0) {
      other.#wasPending = false
      if (other.#closing) return other.process.turn(() => other.closed || other.#finish()) as unknown as void
      const handler = other.#handler
      if (handler !== undefined && !other.closed) {
        other.process.turn(() => {
          if (!other.closed) handler.onDrain()
        })
      }
    }
  }
}
