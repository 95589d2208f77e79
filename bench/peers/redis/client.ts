/**
 * A small client of Redis: one connection, commands of one turn of the event loop leave in one write, answers come in
 * order. Replies are strings, numbers, arrays or null, as in RESP2.
 */
import { connect, type Socket } from "node:net"

export type Reply = string | number | null | ReadonlyArray<Reply>

interface Waiting {
  readonly resolve: (reply: Reply) => void
  readonly reject: (error: Error) => void
}

class ReplyError extends Error {}

export class Redis {
  readonly #socket: Socket
  readonly #waiting: Array<Waiting> = []
  #head = 0
  #out: Array<string> = []
  #input: Buffer = Buffer.alloc(0)
  /** Up to where the next reply is known to have arrived, and how many values of it are missing. */
  #scanned = 0
  #missing = 1
  #at = 0

  constructor(port: number) {
    this.#socket = connect({ port, host: "127.0.0.1", noDelay: true })
    this.#socket.on("data", (data: Buffer) => this.#read(data))
    this.#socket.on("error", (error) => this.#fail(error))
    this.#socket.on("close", () => this.#fail(new Error("the connection to Redis ended")))
  }

  send(...args: ReadonlyArray<string | number>): Promise<Reply> {
    let text = `*${args.length}\r\n`
    for (const arg of args) {
      const value = String(arg)
      text += `$${Buffer.byteLength(value)}\r\n${value}\r\n`
    }
    if (this.#out.length === 0) setImmediate(() => this.#flush())
    this.#out.push(text)
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }))
  }

  close(): void {
    this.#socket.removeAllListeners("close")
    this.#socket.destroy()
  }

  #flush(): void {
    this.#socket.write(this.#out.join(""))
    this.#out = []
  }

  #fail(error: Error): void {
    for (const { reject } of this.#waiting.splice(0)) reject(error)
    this.#head = 0
  }

  #read(data: Buffer): void {
    this.#input = this.#input.length === 0 ? data : Buffer.concat([this.#input, data])
    this.#at = 0
    while (this.#scan()) {
      const reply = this.#parse()
      const waiting = this.#waiting[this.#head++]
      if (reply instanceof ReplyError) waiting?.reject(reply)
      else waiting?.resolve(reply)
    }
    this.#input = this.#input.subarray(this.#at)
    this.#scanned -= this.#at
    if (this.#head > 1_024) {
      this.#waiting.splice(0, this.#head)
      this.#head = 0
    }
  }

  /** Whether all of the next reply is here. Goes on where it stopped: a long reply is looked through once. */
  #scan(): boolean {
    while (this.#missing > 0) {
      const end = this.#input.indexOf("\r\n", this.#scanned, "latin1")
      if (end < 0) return false
      const kind = this.#input[this.#scanned]
      const length = Math.max(0, Number(this.#input.toString("latin1", this.#scanned + 1, end)))
      const next = end + 2 + (kind === 0x24 && this.#input[this.#scanned + 1] !== 0x2d ? length + 2 : 0)
      if (next > this.#input.length) return false
      this.#scanned = next
      this.#missing += kind === 0x2a ? length - 1 : -1
    }
    this.#missing = 1
    return true
  }

  #parse(): Reply | ReplyError {
    const end = this.#input.indexOf("\r\n", this.#at, "latin1")
    const kind = this.#input[this.#at]
    const line = this.#input.toString("latin1", this.#at + 1, end)
    this.#at = end + 2
    switch (kind) {
      case 0x2b: // +
        return line
      case 0x2d: // -
        return new ReplyError(line)
      case 0x3a: // :
        return Number(line)
      case 0x24: {
        // $
        const length = Number(line)
        if (length < 0) return null
        const from = this.#at
        this.#at = from + length + 2
        return this.#input.toString("utf8", from, from + length)
      }
      case 0x2a: {
        // *
        const length = Number(line)
        if (length < 0) return null
        const items: Array<Reply> = []
        for (let i = 0; i < length; i++) {
          const item = this.#parse()
          if (item instanceof ReplyError) return item
          items.push(item)
        }
        return items
      }
      default:
        return new ReplyError(`an answer of unknown kind ${kind}`)
    }
  }
}
