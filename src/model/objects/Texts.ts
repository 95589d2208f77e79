/**
 * The keys of a set whose manager keeps nothing on disk: a log in memory, read by the same places as the log of a store.
 *
 * Keys are appended to chunks and never moved while they live. A chunk of which little lives is cleaned: its owner appends
 * what lives anew, and the chunk goes. So memory is bounded by about four times the bytes of the keys, and by one chunk.
 */

const chunkBytesMin = 1_024
const chunkBytesMax = 65_536
/** Bytes before each key: its length. */
const headBytes = 2

interface Chunk {
  readonly bytes: Uint8Array
  used: number
  live: number
}

export class Texts {
  /** Bytes of living keys. */
  bytes = 0
  /** The place of the key that was appended last. */
  row = 0
  offset = 0
  readonly #chunks = new Map<number, Chunk>()
  #last: Chunk = { bytes: new Uint8Array(), used: 0, live: 0 }

  /** Bytes that are taken, living keys or not. */
  get bytesHeld(): number {
    let held = 0
    for (const { bytes } of this.#chunks.values()) held += bytes.byteLength
    return held
  }

  /** Assumes: at most 65,535 bytes less two. `row` and `offset` say where it is. */
  append(key: Uint8Array): void {
    const size = headBytes + key.byteLength
    if (this.#last.used + size > this.#last.bytes.byteLength) {
      const wanted = Math.max(chunkBytesMin, size, 2 * this.#last.bytes.byteLength)
      this.#last = { bytes: new Uint8Array(Math.max(size, Math.min(chunkBytesMax, wanted))), used: 0, live: 0 }
      this.#chunks.set(++this.row, this.#last)
    }
    const { bytes, used } = this.#last
    bytes[used] = key.byteLength >>> 8
    bytes[used + 1] = key.byteLength
    bytes.set(key, used + headBytes)
    this.offset = used
    this.#last.used += size
    this.#last.live += key.byteLength
    this.bytes += key.byteLength
  }

  /** A view of the key at this place; undefined where there is none. */
  read(row: number, offset: number): Uint8Array | undefined {
    const chunk = this.#chunks.get(row)
    return chunk === undefined || offset >= chunk.used ? undefined : keyAt(chunk.bytes, offset)
  }

  /** The key at this place lives no longer. Ensures: true when little of its chunk lives, and `clean` should run. */
  drop(row: number, offset: number): boolean {
    const chunk = this.#chunks.get(row)
    if (chunk === undefined) return false
    const { byteLength } = keyAt(chunk.bytes, offset)
    chunk.live -= byteLength
    this.bytes -= byteLength
    return chunk !== this.#last && chunk.live * 4 < chunk.bytes.byteLength
  }

  /** Drops a chunk. `keep` is called for every key in it, and appends those that live. */
  clean(row: number, keep: (key: Uint8Array, offset: number) => void): void {
    const chunk = this.#chunks.get(row)
    if (chunk === undefined || chunk === this.#last) return
    this.#chunks.delete(row)
    this.bytes -= chunk.live
    for (let at = 0; at < chunk.used; ) {
      const key = keyAt(chunk.bytes, at)
      keep(key, at)
      at += headBytes + key.byteLength
    }
  }
}

const keyAt = (bytes: Uint8Array, at: number): Uint8Array => {
  const size = (bytes[at]! << 8) | bytes[at + 1]!
  return bytes.subarray(at + headBytes, at + headBytes + size)
}
