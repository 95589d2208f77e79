/**
 * The subset of MessagePack that the protocol uses, written and read in place: nil, bool, unsigned integers to 2^53-1,
 * str, bin and array. No maps, no floats, no extensions: nothing that could carry a prototype, a class or a surprise.
 *
 * The reader is schema-directed: its caller asks for what the grammar says comes next, and anything else is `Malformed`.
 * So depth and sizes are bounded by the grammar, no value tree is built, and a `bin` is a view of the frame, not a copy.
 * (Format: the MessagePack specification of 2013-2017, families nil to array.)
 */
import * as Limits from "../Limits.ts"

/** Thrown by the reader, caught where frames are taken in. Final: the connection is not read any further. */
export class Malformed extends Error {
  override readonly name = "Malformed"
}

const malformed = (reason: string): never => {
  throw new Malformed(reason)
}

const encoder = new TextEncoder()
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
const two32 = 2 ** 32

/** Bytes that belong between what a writer has written, and were not copied into it. */
export interface Passed {
  /** Position in the writer before which they come. */
  readonly at: number
  readonly bytes: Uint8Array
}

/** From this size on a `bin` is passed on as it is, where the writer may: its copies cost more than a write of its own. */
const passedBytesMin = 16 * 1_024

export class Writer {
  bytes: Uint8Array
  position = 0
  /** Undefined: everything is copied. */
  readonly passed: Array<Passed> | undefined
  /** Of all that is passed. */
  passedBytes = 0

  /** With `pass` large byte strings are kept as they are, in `passed`; they must not be changed afterwards. */
  constructor(capacity = 1_024, pass = false) {
    this.bytes = new Uint8Array(capacity)
    this.passed = pass ? [] : undefined
  }

  /** Makes room for `size` more bytes. */
  reserve(size: number): void {
    const needed = this.position + size
    if (needed <= this.bytes.byteLength) return
    const grown = new Uint8Array(Math.max(needed, this.bytes.byteLength * 2))
    grown.set(this.bytes.subarray(0, this.position))
    this.bytes = grown
  }

  nil(): void {
    this.reserve(1)
    this.bytes[this.position++] = 0xc0
  }

  bool(value: boolean): void {
    this.reserve(1)
    this.bytes[this.position++] = value ? 0xc3 : 0xc2
  }

  uint(value: number): void {
    this.reserve(9)
    const { bytes } = this
    let at = this.position
    if (value < 0x80) bytes[at++] = value
    else if (value < 0x100) {
      bytes[at++] = 0xcc
      bytes[at++] = value
    } else if (value < 0x1_0000) {
      bytes[at++] = 0xcd
      bytes[at++] = value >>> 8
      bytes[at++] = value
    } else if (value < two32) {
      bytes[at++] = 0xce
      at = put32(bytes, at, value)
    } else {
      bytes[at++] = 0xcf
      at = put32(bytes, at, Math.floor(value / two32))
      at = put32(bytes, at, value >>> 0)
    }
    this.position = at
  }

  uintOrNil(value: number | undefined): void {
    if (value === undefined) this.nil()
    else this.uint(value)
  }

  array(length: number): void {
    this.reserve(5)
    if (length < 16) this.bytes[this.position++] = 0x90 | length
    else if (length < 0x1_0000) {
      this.bytes[this.position++] = 0xdc
      this.bytes[this.position++] = length >>> 8
      this.bytes[this.position++] = length
    } else {
      this.bytes[this.position++] = 0xdd
      this.position = put32(this.bytes, this.position, length)
    }
  }

  /** An array whose length is not known yet; `closeArray` writes it at the returned position. */
  openArray(): number {
    this.reserve(5)
    const at = this.position
    this.bytes[at] = 0xdd
    this.position += 5
    return at
  }

  closeArray(at: number, length: number): void {
    put32(this.bytes, at + 1, length)
  }

  bin(value: Uint8Array): void {
    const size = value.byteLength
    const pass = size >= passedBytesMin && this.passed !== undefined
    this.reserve(pass ? 5 : 5 + size)
    const { bytes } = this
    let at = this.position
    if (size < 0x100) {
      bytes[at++] = 0xc4
      bytes[at++] = size
    } else if (size < 0x1_0000) {
      bytes[at++] = 0xc5
      bytes[at++] = size >>> 8
      bytes[at++] = size
    } else {
      bytes[at++] = 0xc6
      at = put32(bytes, at, size)
    }
    if (pass) {
      this.passed!.push({ at, bytes: value })
      this.passedBytes += size
      this.position = at
      return
    }
    bytes.set(value, at)
    this.position = at + size
  }

  binOrNil(value: Uint8Array | undefined): void {
    if (value === undefined) this.nil()
    else this.bin(value)
  }

  str(value: string): void {
    // UTF-8 takes at most three bytes per UTF-16 unit; the width of the length is chosen by that bound.
    const bound = value.length * 3
    this.reserve(5 + bound)
    const wide = bound < 32 ? 1 : bound < 0x100 ? 2 : bound < 0x1_0000 ? 3 : 5
    const start = this.position + wide
    const size = encoder.encodeInto(value, this.bytes.subarray(start)).written
    const { bytes } = this
    const at = this.position
    if (wide === 1) bytes[at] = 0xa0 | size
    else if (wide === 2) {
      bytes[at] = 0xd9
      bytes[at + 1] = size
    } else if (wide === 3) {
      bytes[at] = 0xda
      bytes[at + 1] = size >>> 8
      bytes[at + 2] = size
    } else {
      bytes[at] = 0xdb
      put32(bytes, at + 1, size)
    }
    this.position = start + size
  }

  strOrNil(value: string | undefined): void {
    if (value === undefined) this.nil()
    else this.str(value)
  }
}

/** A frame larger than this is not held by what was read from it, unless that is half of it. */
const sharedFrameBytesMax = 64 * 1_024

/**
 * Pieces of larger buffers for what is short: a byte array of its own costs 0.3 us, a piece of one 0.02 us. A buffer
 * lives as long as one of its pieces.
 */
export class Slab {
  #bytes: Uint8Array
  #at = 0
  readonly size: number

  constructor(size: number) {
    this.size = size
    this.#bytes = new Uint8Array(size)
  }

  /** A piece to fill. Assumes: `size` is at most the slab's. */
  take(size: number): Uint8Array {
    if (this.#at + size > this.size) {
      this.#bytes = new Uint8Array(this.size)
      this.#at = 0
    }
    this.#at += size
    return this.#bytes.subarray(this.#at - size, this.#at)
  }
}

const copies = new Slab(64 * 1_024)

const copyOf = (bytes: Uint8Array): Uint8Array => {
  if (bytes.byteLength > 4_096) return bytes.slice()
  const copy = copies.take(bytes.byteLength)
  copy.set(bytes)
  return copy
}

export class Reader {
  readonly bytes: Uint8Array
  position = 0

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }

  get done(): boolean {
    return this.position >= this.bytes.byteLength
  }

  /** Takes a nil if one comes next. */
  nil(): boolean {
    if (this.bytes[this.position] !== 0xc0) return false
    this.position++
    return true
  }

  bool(): boolean {
    const byte = this.#byte()
    if (byte === 0xc3) return true
    if (byte === 0xc2) return false
    return malformed("expected a boolean")
  }

  uint(max: number = Number.MAX_SAFE_INTEGER): number {
    const byte = this.#byte()
    let value: number
    if (byte < 0x80) value = byte
    else if (byte === 0xcc) value = this.#uint(1)
    else if (byte === 0xcd) value = this.#uint(2)
    else if (byte === 0xce) value = this.#uint(4)
    else if (byte === 0xcf) {
      const high = this.#uint(4)
      if (high >= 0x20_0000) return malformed("an integer above 2^53-1")
      value = high * two32 + this.#uint(4)
    } else return malformed("expected an unsigned integer")
    return value <= max ? value : malformed(`the integer ${value} is above ${max}`)
  }

  uintOrNil(max: number = Number.MAX_SAFE_INTEGER): number | undefined {
    return this.nil() ? undefined : this.uint(max)
  }

  /** The length of an array; each element takes a byte at least, so a lying length is refused at once. */
  array(max: number): number {
    const byte = this.#byte()
    let length: number
    if (byte >= 0x90 && byte <= 0x9f) length = byte & 0x0f
    else if (byte === 0xdc) length = this.#uint(2)
    else if (byte === 0xdd) length = this.#uint(4)
    else return malformed("expected an array")
    if (length > max) return malformed(`an array of ${length} elements, at most ${max} are allowed`)
    if (length > this.bytes.byteLength - this.position) return malformed("an array longer than its frame")
    return length
  }

  /** Whether a binary string (and not an array) comes next. */
  get atBin(): boolean {
    const byte = this.bytes[this.position]
    return byte !== undefined && byte >= 0xc4 && byte <= 0xc6
  }

  /**
   * A view of the frame, which lives as long as the view; what is little of a large frame is a copy, so that one task that
   * waits for a day does not hold the 20 MiB that it came with.
   */
  bin(max: number): Uint8Array {
    const byte = this.#byte()
    const width = byte === 0xc4 ? 1 : byte === 0xc5 ? 2 : byte === 0xc6 ? 4 : malformed("expected a binary string")
    const start = this.#span(this.#uint(width), max)
    const view = this.bytes.subarray(start, this.position)
    const frame = this.bytes.byteLength
    return frame > sharedFrameBytesMax && frame > 2 * view.byteLength ? copyOf(view) : view
  }

  binOrNil(max: number): Uint8Array | undefined {
    return this.nil() ? undefined : this.bin(max)
  }

  /** Passes over a binary string and returns its size: its bytes end at `position`. */
  binSize(max: number): number {
    const byte = this.#byte()
    const width = byte === 0xc4 ? 1 : byte === 0xc5 ? 2 : byte === 0xc6 ? 4 : malformed("expected a binary string")
    const size = this.#uint(width)
    this.#span(size, max)
    return size
  }

  /** `max` in bytes. */
  str(max: number): string {
    const byte = this.#byte()
    let size: number
    if (byte >= 0xa0 && byte <= 0xbf) size = byte & 0x1f
    else if (byte === 0xd9) size = this.#uint(1)
    else if (byte === 0xda) size = this.#uint(2)
    else if (byte === 0xdb) size = this.#uint(4)
    else return malformed("expected a string")
    const start = this.#span(size, max)
    try {
      return decoder.decode(this.bytes.subarray(start, this.position))
    } catch {
      return malformed("a string that is not UTF-8")
    }
  }

  strOrNil(max: number): string | undefined {
    return this.nil() ? undefined : this.str(max)
  }

  /** Passes over `count` values: elements that a newer peer added to a message. */
  skip(count: number, depth = 0): void {
    if (depth > Limits.nestingDepthMax) malformed("values nested too deep")
    for (let i = 0; i < count; i++) {
      const byte = this.bytes[this.position]
      if (byte === undefined) malformed("a message cut short")
      else if (byte < 0x80 || (byte >= 0xcc && byte <= 0xcf)) this.uint()
      else if (byte === 0xc0 || byte === 0xc2 || byte === 0xc3) this.position++
      else if (byte >= 0xc4 && byte <= 0xc6) this.bin(Limits.frameBytesMax)
      else if ((byte >= 0x90 && byte <= 0x9f) || byte === 0xdc || byte === 0xdd) {
        this.skip(this.array(Limits.frameBytesMax), depth + 1)
      } else this.str(Limits.frameBytesMax)
    }
  }

  #byte(): number {
    const byte = this.bytes[this.position]
    if (byte === undefined) return malformed("a message cut short")
    this.position++
    return byte
  }

  #uint(width: number): number {
    const { bytes } = this
    if (bytes.byteLength - this.position < width) return malformed("a message cut short")
    let value = 0
    for (let i = 0; i < width; i++) value = value * 256 + bytes[this.position++]!
    return value
  }

  #span(size: number, max: number): number {
    if (size > max) malformed(`a string of ${size} bytes, at most ${max} are allowed`)
    if (size > this.bytes.byteLength - this.position) malformed("a string longer than its frame")
    const start = this.position
    this.position += size
    return start
  }
}

const put32 = (bytes: Uint8Array, at: number, value: number): number => {
  bytes[at] = value >>> 24
  bytes[at + 1] = value >>> 16
  bytes[at + 2] = value >>> 8
  bytes[at + 3] = value
  return at + 4
}

export const toHex = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")

/** Assumes: pairs of hex digits. */
export const fromHex = (text: string): Uint8Array =>
  Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))

export const concat = (parts: ReadonlyArray<Uint8Array>): Uint8Array => {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.byteLength, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.byteLength
  }
  return whole
}
