/**
 * What the prototype speaks: frames of many messages. A frame is its length (u32) and messages; a message is its type (u8),
 * a number (u32), the length of its bytes (u32) and those. Little-endian.
 *
 * The calibration of `--check` speaks it too: a change here moves its baseline.
 */
import type { Socket } from "node:net"

export const Type = {
  /** A task. The last one of a call has the call's number and is answered with `taken`. */
  put: 1,
  putLast: 2,
  taken: 3,
  /** That many more tasks may be sent to this worker. */
  credit: 4,
  /** A task for a worker; its number comes back with the result. */
  task: 5,
  commit: 6,
  /** That many more results may be sent to this master. */
  resultCredit: 7,
  result: 8,
  /** How many tasks and results the manager holds: asked, and answered in the number. */
  held: 9
} as const

const headBytes = 9
/** A frame that is longer than this ends; a reader gets it in few chunks. */
const frameBytes = 32_768
const bufferBytes = 262_144

/** Messages of one turn of the event loop, which leave in one write. */
export class Outbox {
  readonly #socket: Socket
  #buffer = Buffer.allocUnsafeSlow(bufferBytes)
  /** Where what was not written begins, where its last frame begins, and where it ends. */
  #from = 0
  #frame = 0
  #at = 4

  constructor(socket: Socket) {
    this.#socket = socket
  }

  number(type: number, number: number): void {
    this.#room(0)
    this.#head(type, number, 0)
  }

  bytes(type: number, number: number, bytes: Uint8Array): void {
    const { length } = bytes
    this.#room(length)
    this.#buffer.set(bytes, this.#at + headBytes)
    this.#head(type, number, length)
  }

  text(type: number, number: number, text: string): void {
    this.#room(3 * text.length)
    this.#head(type, number, this.#buffer.write(text, this.#at + headBytes))
  }

  flush(): void {
    if (this.#at === this.#from + 4) return
    if (this.#at > this.#frame + 4) this.#endFrame()
    this.#socket.write(this.#buffer.subarray(this.#from, this.#frame))
    this.#from = this.#frame
    this.#at = this.#frame + 4
  }

  #head(type: number, number: number, length: number): void {
    const buffer = this.#buffer
    const at = this.#at
    buffer[at] = type
    buffer.writeUInt32LE(number, at + 1)
    buffer.writeUInt32LE(length, at + 5)
    this.#at = at + headBytes + length
    if (this.#at - this.#frame > frameBytes) this.#endFrame()
  }

  #endFrame(): void {
    this.#buffer.writeUInt32LE(this.#at - this.#frame - 4, this.#frame)
    this.#frame = this.#at
    this.#at += 4
  }

  #room(length: number): void {
    const unwritten = this.#at - this.#from
    const needed = unwritten + headBytes + length + 4
    if (this.#from + needed <= this.#buffer.length) return
    // What was written belongs to the socket until it has left.
    const next = Buffer.allocUnsafeSlow(Math.max(bufferBytes, 2 * needed))
    this.#buffer.copy(next, 0, this.#from, this.#at)
    this.#frame -= this.#from
    this.#at = unwritten
    this.#from = 0
    this.#buffer = next
  }
}

/** Calls `receive` for each message and `end` after those of a chunk. */
export const readFrames = (
  socket: Socket,
  receive: (type: number, number: number, input: Buffer, from: number, to: number) => void,
  end: () => void
): void => {
  let rest: Buffer | undefined
  socket.on("data", (chunk: Buffer) => {
    const input = rest === undefined ? chunk : Buffer.concat([rest, chunk])
    let at = 0
    while (at + 4 <= input.length) {
      const frameEnd = at + 4 + input.readUInt32LE(at)
      if (frameEnd > input.length) break
      at += 4
      while (at < frameEnd) {
        const from = at + headBytes
        const to = from + input.readUInt32LE(at + 5)
        receive(input[at]!, input.readUInt32LE(at + 1), input, from, to)
        at = to
      }
    }
    rest = at < input.length ? input.subarray(at) : undefined
    end()
  })
}
