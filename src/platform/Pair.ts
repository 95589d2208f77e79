/** Two ends of a byte stream inside one process: what one writes the other hears, in order, one turn later. */
import type { Connection, Handler } from "./Network.ts"
import { soon } from "./Schedule.ts"

class End implements Connection {
  readonly peer = "in-process"
  other: End | undefined = undefined
  handler: Handler | undefined = undefined
  #inbox: Array<Uint8Array> = []
  #inboxBytes = 0
  #scheduled = false
  #paused = false
  #ending = false
  #closed = false

  write = (bytes: Uint8Array): void => {
    if (!this.#closed) this.other?.receive(bytes)
  }
  pendingBytes = (): number => this.other?.inboxBytes ?? 0
  pause = (): void => {
    this.#paused = true
  }
  resume = (): void => {
    this.#paused = false
    this.#schedule()
  }
  close = (): void => this.destroy()
  destroy = (): void => {
    if (this.#closed) return
    this.#closed = true
    const { other } = this
    if (other !== undefined) other.end()
    soon(() => this.handler?.onClose("closed"))
  }

  get inboxBytes(): number {
    return this.#inboxBytes
  }

  receive(bytes: Uint8Array): void {
    this.#inbox.push(bytes)
    this.#inboxBytes += bytes.byteLength
    this.#schedule()
  }

  end(): void {
    this.#ending = true
    this.#schedule()
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    soon(() => {
      this.#scheduled = false
      this.#run()
    })
  }

  #run(): void {
    while (this.#inbox.length > 0 && !this.#paused && !this.#closed) {
      const chunk = this.#inbox.shift()!
      this.#inboxBytes -= chunk.byteLength
      this.handler?.onData(chunk)
    }
    if (this.#inbox.length === 0 && !this.#closed) {
      if (this.#ending) {
        this.#closed = true
        this.handler?.onClose("closed by the other end")
      } else this.other?.handler?.onDrain()
    }
  }
}

/** Makes both ends; each side's handler is made with its own connection. */
export const pair = (
  left: (c: Connection) => Handler,
  right: (c: Connection) => Handler
): readonly [Connection, Connection] => {
  const a = new End()
  const b = new End()
  a.other = b
  b.other = a
  a.handler = left(a)
  b.handler = right(b)
  return [a, b]
}
