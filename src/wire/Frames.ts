/**
 * Bytes to frames and back. A frame is a length (unsigned 32-bit, big-endian) and a body of that many bytes; a body is
 * one or more messages, one after the other.
 *
 * The reader keeps what has arrived and little more, whatever the pieces in which it comes: a length over the limit is
 * refused before a byte of its body is kept, and an announced length allocates 4 KiB at most. After the first fault it is
 * dead and takes no more bytes.
 */
import * as Limits from "../Limits.ts"
import { concat, Writer } from "./Bytes.ts"

/** A piece of a body smaller than this is copied: a view of each costs more than a hundred bytes. */
const gatheredBytes = 4_096

export class FrameReader {
  /** Why the reader is dead. */
  fault: string | undefined = undefined
  #limit: number
  #header = 0
  #headerBytes = 0
  /** Body bytes still missing; -1 while a header is read. */
  #missing = -1
  #parts: Array<Uint8Array> = []
  /** Small pieces one behind the other; they become a part when this is full or a large one follows. */
  #gathered: Uint8Array | undefined = undefined
  #gatheredSize = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Frames from now on may have this many bytes. */
  set limit(bytes: number) {
    this.#limit = bytes
  }

  /** Whether a frame has begun and is not complete. */
  get partial(): boolean {
    return this.#headerBytes > 0 || this.#missing >= 0
  }

  /** Hands every body that `chunk` completes to `onFrame`, in order; `onFrame` may lower or raise the limit. */
  push(chunk: Uint8Array, onFrame: (body: Uint8Array) => void): void {
    let at = 0
    while (this.fault === undefined && at < chunk.byteLength) {
      if (this.#missing < 0) {
        this.#header = this.#header * 256 + chunk[at++]!
        if (++this.#headerBytes < 4) continue
        if (this.#header === 0) this.fault = "an empty frame"
        else if (this.#header > this.#limit) {
          this.fault = `a frame of ${this.#header} bytes, at most ${this.#limit} are allowed`
        }
        this.#missing = this.#header
        this.#header = 0
        this.#headerBytes = 0
        continue
      }
      const end = Math.min(chunk.byteLength, at + this.#missing)
      this.#missing -= end - at
      if (this.#missing > 0 && end - at < gatheredBytes) this.#gather(chunk, at, end)
      else {
        this.#close()
        this.#parts.push(chunk.subarray(at, end))
      }
      at = end
      if (this.#missing === 0) {
        const body = this.#parts.length === 1 ? this.#parts[0]! : concat(this.#parts)
        this.#parts = []
        this.#missing = -1
        onFrame(body)
      }
    }
  }

  #gather(chunk: Uint8Array, from: number, to: number): void {
    const size = to - from
    if (this.#gathered !== undefined && this.#gatheredSize + size > this.#gathered.byteLength) this.#close()
    this.#gathered ??= new Uint8Array(Math.min(gatheredBytes, size + this.#missing))
    this.#gathered.set(chunk.subarray(from, to), this.#gatheredSize)
    this.#gatheredSize += size
  }

  #close(): void {
    if (this.#gathered === undefined) return
    this.#parts.push(this.#gathered.subarray(0, this.#gatheredSize))
    this.#gathered = undefined
    this.#gatheredSize = 0
  }
}

/**
 * Buffers that nobody writes to, the last used last: whoever has something to say takes one until its flush. So a connection
 * that idles has none, whatever it has said before, and one that is busy finds the one that it had.
 */
const spare: Array<Writer> = []
let spareBytes = 0
/** One that grew larger is not kept, nor one that would make them hold more in all. */
const keptBytesMax = 1_048_576
const spareBytesMax = 16 * 1_048_576

const takeSpare = (): Writer => {
  const writer = spare.pop()
  if (writer === undefined) return new Writer(4_096, true)
  spareBytes -= writer.bytes.byteLength
  return writer
}

const giveBack = (writer: Writer): void => {
  const bytes = writer.bytes.byteLength
  if (bytes > keptBytesMax || spareBytes + bytes > spareBytesMax) return
  writer.position = 0
  writer.passedBytes = 0
  writer.passed!.length = 0
  spareBytes += bytes
  spare.push(writer)
}

/** From here on a buffer is lent to its sink, where that gives it back; a copy of less costs less than a buffer that is away. */
const lentBytesMin = 8 * 1_024

/** Where frames go: a connection, or one that keeps them. */
export interface Sink {
  readonly write: (bytes: Uint8Array) => void
  /** Writes bytes that are the caller's again once `done` is called; never, if they may still be looked at. */
  readonly lend?: ((bytes: Uint8Array, done: () => void) => void) | undefined
  /** What is written between these two leaves together. */
  readonly cork?: (() => void) | undefined
  readonly uncork?: (() => void) | undefined
}

/** Collects messages into frames of about `frameBytesTarget`, ready for one write. */
export class FrameWriter {
  /** While something is written and not flushed. */
  #writer: Writer | undefined = undefined
  #frameAt = -1
  /** Bytes passed before the frame under way. */
  #passedBefore = 0
  #messages = 0

  get empty(): boolean {
    return this.#writer === undefined
  }

  /** Bytes written since the last flush. */
  get size(): number {
    return this.#writer === undefined ? 0 : this.#writer.position + this.#writer.passedBytes
  }

  /** Bytes of the frame under way. */
  get frameSize(): number {
    return this.#writer === undefined ? 0 : this.#sizeOf(this.#writer)
  }

  /** Where to write the next message. */
  begin(): Writer {
    let writer = this.#writer
    if (writer === undefined) {
      writer = takeSpare()
      this.#writer = writer
      this.#openFrame(writer)
    } else if (this.#sizeOf(writer) >= Limits.frameBytesTarget || this.#messages >= Limits.messagesPerFrameMax) {
      this.#closeFrame(writer)
      this.#openFrame(writer)
    }
    this.#messages++
    return writer
  }

  /**
   * All that was written since the last call, in one write, or with a write for each large byte string. The bytes are
   * the sink's.
   *
   * A grown buffer is written to again: when its sink has given it back, or at once, and then a copy of the right size is
   * handed out. A new buffer each time would be zeroed, outgrown and copied again (14 % of a manager's time), and copies
   * of many KiB call for collections of the whole heap (CPU of a master that puts payloads of 1 KiB: 9.4 us a task with
   * them, 4.9 without).
   */
  flush(sink: Sink): void {
    const writer = this.#writer
    if (writer === undefined) return
    this.#closeFrame(writer)
    this.#writer = undefined
    const lent = sink.lend !== undefined && writer.position >= lentBytesMin
    const bytes = lent ? writer.bytes.subarray(0, writer.position) : writer.bytes.slice(0, writer.position)
    const passed = writer.passed!
    // The last part, which is never empty: that it is written tells of those before it as well.
    let last = bytes
    if (passed.length > 0) {
      sink.cork?.()
      let from = 0
      for (const { at, bytes: whole } of passed) {
        if (from > 0) sink.write(last)
        sink.write(bytes.subarray(from, at))
        last = whole
        from = at
      }
      if (from < bytes.byteLength) {
        sink.write(last)
        last = bytes.subarray(from)
      }
    }
    if (lent) sink.lend(last, () => giveBack(writer))
    else sink.write(last)
    if (passed.length > 0) sink.uncork?.()
    if (!lent) giveBack(writer)
  }

  #openFrame(writer: Writer): void {
    this.#frameAt = writer.position
    this.#passedBefore = writer.passedBytes
    this.#messages = 0
    writer.reserve(4)
    writer.position += 4
  }

  #sizeOf({ passedBytes, position }: Writer): number {
    return position - this.#frameAt + passedBytes - this.#passedBefore
  }

  #closeFrame(writer: Writer): void {
    const { bytes } = writer
    const size = this.#sizeOf(writer) - 4
    new DataView(bytes.buffer, bytes.byteOffset + this.#frameAt, 4).setUint32(0, size)
  }
}

/** One frame with what `write` puts into it. */
export const frame = (write: (writer: Writer) => void): Uint8Array => {
  const frames = new FrameWriter()
  write(frames.begin())
  return flushed(frames)
}

/** What a flush writes, as one. */
export const flushed = (frames: FrameWriter): Uint8Array => {
  const parts: Array<Uint8Array> = []
  frames.flush({ write: (bytes) => void parts.push(bytes) })
  return parts.length === 1 ? parts[0]! : concat(parts)
}
