/**
 * A proxy on real loopback sockets that does to a connection what networks do: it is late, it stalls, it breaks at a byte,
 * it falls silent in one direction or in both, it hands over one byte at a time, it is slow.
 *
 * Each direction of each connection has its own toxic. A toxic that breaks a connection hits those that are open when it
 * is planted; one that only slows them is for later ones too, until `heal`. What had an effect is counted once per plant.
 * Bytes are read no faster than they are passed on, so a reader that does not read is felt by the writer.
 */
import * as net from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import type { SeededRandom } from "../../src/testing/Random.ts"

/** `up`: from the client to the manager. `down`: from the manager to the client. */
export type Direction = "up" | "down"

export type Toxic =
  /** Each read is passed on this much later, and up to `jitterMs` more. */
  | { readonly kind: "latency"; readonly ms: number; readonly jitterMs: number }
  /** Each read is passed on this much later, and reads go on meanwhile: a long line, not a narrow one. */
  | { readonly kind: "delay"; readonly ms: number }
  /** From the next byte on nothing passes for this long; then all of it does. */
  | { readonly kind: "stall"; readonly ms: number }
  /** Passes so many bytes, then resets both ends. */
  | { readonly kind: "reset"; readonly after: number }
  /** Passes so many bytes, then ends both ends in order. */
  | { readonly kind: "end"; readonly after: number }
  /** Swallows all of this direction; the other one goes on. */
  | { readonly kind: "block" }
  /** Swallows all of both directions, and no end hears of the other's end: the peer has vanished without a word. */
  | { readonly kind: "half-open" }
  /** One byte a write. */
  | { readonly kind: "slice" }
  | { readonly kind: "bandwidth"; readonly bytesPerSecond: number }

const lasting = new Set<Toxic["kind"]>(["latency", "delay", "slice", "bandwidth"])

interface Plant {
  readonly toxic: Toxic
  readonly random: SeededRandom
  readonly fired: () => void
}

/** Bytes on a line of kind `delay`; above it the sender is not read. */
const delayBytesMax = 4 * 1_024 * 1_024

/** One direction of one connection. */
class Pipe {
  plant: Plant | undefined
  #tail: Promise<void> = Promise.resolve()
  #onTheLine = 0
  readonly #link: Link
  readonly #from: net.Socket
  readonly #to: net.Socket

  constructor(link: Link, from: net.Socket, to: net.Socket, plant: Plant | undefined) {
    this.#link = link
    this.#from = from
    this.#to = to
    this.plant = plant
    from.on("data", (chunk: Buffer) => {
      if (this.plant?.toxic.kind === "delay") return this.#delay(chunk, this.plant.toxic.ms, this.plant.fired)
      from.pause()
      this.#after(async () => {
        await this.#pass(chunk)
        from.resume()
      })
    })
    // The end comes after what was written before it.
    from.on("end", () => this.#after(async () => void (link.silent || to.end())))
    from.on("error", () => {})
    from.on("close", (withError) => {
      if (withError) link.break(from)
      else this.#after(async () => link.break(from))
    })
  }

  #after(step: () => Promise<void>): void {
    this.#tail = this.#tail.then(step, step)
  }

  #delay(chunk: Buffer, ms: number, fired: () => void): void {
    const due = performance.now() + ms
    this.#onTheLine += chunk.byteLength
    if (this.#onTheLine > delayBytesMax) this.#from.pause()
    this.#after(async () => {
      fired()
      // A timer counts whole milliseconds: less than half of one is not waited for, or the waits would add up.
      const left = due - performance.now()
      if (left >= 0.5) await sleep(left)
      if (!this.#link.silent && !this.#link.broken) await this.#write(chunk)
      this.#onTheLine -= chunk.byteLength
      this.#from.resume()
    })
  }

  async #pass(chunk: Buffer): Promise<void> {
    if (this.#link.silent || this.#link.broken) return
    const { plant } = this
    if (plant === undefined) return this.#write(chunk)
    const { fired, toxic } = plant
    switch (toxic.kind) {
      case "latency":
        fired()
        await sleep(toxic.ms + plant.random.next() * toxic.jitterMs)
        return this.#write(chunk)
      case "stall":
        fired()
        this.plant = undefined
        await sleep(toxic.ms)
        return this.#write(chunk)
      case "reset":
      case "end": {
        if (chunk.byteLength < toxic.after) {
          this.plant = { ...plant, toxic: { ...toxic, after: toxic.after - chunk.byteLength } }
          return this.#write(chunk)
        }
        fired()
        await this.#write(chunk.subarray(0, toxic.after))
        if (toxic.kind === "reset") return this.#link.reset()
        this.#link.silent = true
        this.#from.end()
        this.#to.end()
        return
      }
      case "block":
        return fired()
      case "half-open":
        fired()
        this.#link.silent = true
        return
      case "slice": {
        fired()
        for (let i = 0; i < chunk.byteLength && !this.#link.broken; i++) {
          await this.#write(chunk.subarray(i, i + 1))
          await new Promise((resolve) => setImmediate(resolve))
        }
        return
      }
      case "bandwidth": {
        const most = Math.max(1, Math.floor(toxic.bytesPerSecond / 50))
        for (let i = 0; i < chunk.byteLength && !this.#link.broken; i += most) {
          const part = chunk.subarray(i, i + most)
          if (part.byteLength * 1_000 >= toxic.bytesPerSecond) fired()
          await sleep((part.byteLength * 1_000) / toxic.bytesPerSecond)
          await this.#write(part)
        }
      }
    }
  }

  #write(bytes: Buffer): Promise<void> {
    return new Promise((resolve) => {
      if (bytes.byteLength === 0 || this.#to.destroyed || this.#to.writableEnded) return resolve()
      if (this.#to.write(bytes)) return resolve()
      const done = (): void => {
        this.#to.off("drain", done)
        this.#to.off("close", done)
        resolve()
      }
      this.#to.once("drain", done)
      this.#to.once("close", done)
    })
  }
}

/** One connection: two sockets, two pipes. */
class Link {
  /** Swallows everything, ends included. */
  silent = false
  broken = false
  readonly up: Pipe
  readonly down: Pipe
  readonly #near: net.Socket
  readonly #far: net.Socket

  constructor(near: net.Socket, far: net.Socket, up: Plant | undefined, down: Plant | undefined) {
    this.#near = near
    this.#far = far
    this.up = new Pipe(this, near, far, up)
    this.down = new Pipe(this, far, near, down)
  }

  get over(): boolean {
    return this.#near.destroyed && this.#far.destroyed
  }

  /** One end is gone: so is the other, unless it is not to hear of it. */
  break(gone: net.Socket): void {
    if (this.silent) return
    this.broken = true
    if (gone === this.#near) this.#far.destroy()
    else this.#near.destroy()
  }

  reset(): void {
    this.broken = true
    this.#near.resetAndDestroy()
    this.#far.resetAndDestroy()
  }

  destroy(): void {
    this.broken = true
    this.#near.destroy()
    this.#far.destroy()
  }
}

export class Proxy {
  /** Toxics that had an effect, by name and direction. */
  readonly fired = new Map<string, number>()
  /** Connections taken. */
  accepted = 0
  port = 0
  readonly #to: number
  readonly #random: SeededRandom
  readonly #links = new Set<Link>()
  readonly #server: net.Server
  readonly #lasting: { up: Plant | undefined; down: Plant | undefined } = { up: undefined, down: undefined }
  #next: { readonly direction: Direction; readonly plant: Plant } | undefined

  constructor(to: number, random: SeededRandom) {
    this.#to = to
    this.#random = random
    this.#server = net.createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
      this.accepted++
      const far = net.connect({ host: "127.0.0.1", port: this.#to, allowHalfOpen: true, noDelay: true })
      const next = this.#next
      this.#next = undefined
      const plantOf = (direction: Direction): Plant | undefined =>
        next?.direction === direction ? next.plant : this.#lasting[direction]
      for (const link of this.#links) if (link.over) this.#links.delete(link)
      this.#links.add(new Link(near, far, plantOf("up"), plantOf("down")))
    })
  }

  listen(): Promise<this> {
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject)
      this.#server.listen(0, "127.0.0.1", () => {
        const address = this.#server.address()
        this.port = typeof address === "object" && address !== null ? address.port : 0
        resolve(this)
      })
    })
  }

  /** Hits the connections that are open now, and later ones too if it only slows them. */
  plant(direction: Direction, toxic: Toxic): void {
    const plant = this.#plantOf(direction, toxic)
    if (lasting.has(toxic.kind)) this.#lasting[direction] = plant
    for (const link of this.#links) {
      if (direction === "up" || toxic.kind === "half-open") link.up.plant = plant
      if (direction === "down" || toxic.kind === "half-open") link.down.plant = plant
    }
  }

  /** Hits the next connection, from its first byte on. */
  plantNext(direction: Direction, toxic: Toxic): void {
    this.#next = { direction, plant: this.#plantOf(direction, toxic) }
  }

  /** Nothing is planted any more; what is broken stays so. */
  heal(): void {
    this.#lasting.up = undefined
    this.#lasting.down = undefined
    this.#next = undefined
    for (const link of this.#links) {
      link.up.plant = undefined
      link.down.plant = undefined
    }
  }

  /** Ends every connection that is open, without a word. */
  cut(): void {
    for (const link of this.#links) link.destroy()
    this.#links.clear()
  }

  /** Takes no new connection from now on. */
  refuse(): void {
    this.#server.close()
  }

  close(): void {
    this.refuse()
    this.cut()
  }

  #plantOf(direction: Direction, toxic: Toxic): Plant {
    const name = toxic.kind === "half-open" ? toxic.kind : `${toxic.kind} ${direction}`
    let said = false
    const fired = (): void => {
      if (said) return
      said = true
      this.fired.set(name, (this.fired.get(name) ?? 0) + 1)
    }
    return { toxic, random: this.#random.fork(), fired }
  }
}
