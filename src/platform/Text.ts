/**
 * Short texts as UTF-8, by the buffer that Node, Deno and Bun share: a third of what `TextEncoder` and `TextDecoder` cost
 * for a hundred bytes, which is most of what a short payload costs a client.
 */
import { Buffer } from "node:buffer"

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** The bytes of `view` from `from` on as text. Throws `TypeError` when they are not UTF-8. */
export const decodeUtf8 = (view: Uint8Array, from: number): string => {
  const text = slice.call(view, from, view.byteLength)
  // The buffer puts U+FFFD where it finds no UTF-8; there may have been one.
  return text.includes("\ufffd") ? decoder.decode(view.subarray(from)) : text
}

type Slice = (this: Uint8Array, from: number, to: number) => string

/** What `toString` calls, on any view: a frame is not always a `Buffer`. */
const native: unknown = Reflect.get(Buffer.prototype, "utf8Slice")

const takesViews = (candidate: unknown): candidate is Slice => {
  try {
    return typeof candidate === "function" && candidate.call(new Uint8Array([0, 0x61, 0xc3, 0xa9]), 1, 4) === "a\u00e9"
  } catch {
    return false
  }
}

const slice: Slice = takesViews(native)
  ? native
  : function (from, to) {
      return Buffer.from(this.buffer, this.byteOffset + from, to - from).toString("utf8")
    }

/** A byte and the text behind it, in bytes of their own. A lone surrogate becomes U+FFFD. */
export const encodeUtf8 = (first: number, text: string): Uint8Array => {
  const bytes = Buffer.allocUnsafeSlow(1 + Buffer.byteLength(text, "utf8"))
  bytes[0] = first
  bytes.write(text, 1, "utf8")
  return bytes
}

/** Texts in pieces of larger buffers; a buffer lives as long as one of its pieces. */
export class TextSlab {
  readonly #size: number
  #buffer: Buffer
  #bytes: Uint8Array
  #at: number

  /** `size` in bytes. */
  constructor(size: number) {
    this.#size = size
    this.#buffer = Buffer.alloc(0)
    this.#bytes = this.#buffer
    this.#at = size
  }

  /** A byte and the text behind it. A lone surrogate becomes U+FFFD. Assumes: a third of the slab holds the text. */
  encode(first: number, text: string): Uint8Array {
    const room = 1 + 3 * text.length
    if (this.#at + room > this.#size) {
      this.#buffer = Buffer.allocUnsafeSlow(this.#size)
      // Pieces of a plain view cost less than those of a `Buffer`.
      this.#bytes = new Uint8Array(this.#buffer.buffer, this.#buffer.byteOffset, this.#size)
      this.#at = 0
    }
    const from = this.#at
    this.#bytes[from] = first
    this.#at = from + 1 + this.#buffer.write(text, from + 1, "utf8")
    return this.#bytes.subarray(from, this.#at)
  }
}
