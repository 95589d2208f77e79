/**
 * The body of one response, read in blocks: counted, decoded, and held to its limits.
 *
 * A plain loop without an effect per chunk. Its own counters say how many bytes came over the wire and how many they
 * became; limits of zlib or undici do not hold for streams. Speed is judged by the time that was spent waiting for the
 * server: a slow disk here is not a slow server there.
 *
 * Invariant: a block ends with what came before its error, so that nothing received is lost to a resumption.
 */
import type * as Clock from "effect/Clock"
import * as Limits from "../Limits.ts"
import * as Inflate from "../platform/Inflate.ts"
import * as Fetch from "./Fetch.ts"
import { fromUndici } from "./FetchError.ts"
import type { Fail } from "./Partial.ts"

export interface Block {
  /** Valid until the next block is asked for. */
  readonly bytes: Uint8Array
  readonly end: "more" | "end" | Fetch.FetchError
}

export interface BodyOptions {
  /** On the wire and decoded. */
  readonly bytesMax: number
  readonly encoding: Inflate.Encoding | undefined
  /** Bytes on the wire, if they were promised: undici sees to it that they come. */
  readonly promised: number | undefined
  readonly bytesPerSecondMin: number
  readonly speedWindowMs: number
}

/** Milliseconds that no change of the wall clock moves. */
export const monotonicMs = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000

/** The longest chunk of a connection: room beyond a block for the one that fills it. */
const chunkBytes = 64 * 1_024

export class Body {
  readonly #options: BodyOptions
  readonly #clock: Clock.Clock
  readonly #fail: Fail
  readonly #url: string
  readonly #chunks: AsyncIterator<Uint8Array>
  /** Of this body alone: made when a second chunk must follow the first. */
  #block: Uint8Array | undefined
  #wireBytes = 0
  #bytes = 0
  #windowBytes = 0
  #windowMs = 0

  constructor(response: Fetch.FetchResponse, options: BodyOptions, clock: Clock.Clock, fail: Fail) {
    this.#options = options
    this.#clock = clock
    this.#fail = fail
    this.#url = response.url
    const wire = this.#wire(response.chunks[Symbol.asyncIterator]())
    this.#chunks = options.encoding === undefined ? wire : Inflate.inflate(options.encoding, wire)
  }

  /** Bytes as they came, before any decoding. */
  get wireBytes(): number {
    return this.#wireBytes
  }

  /**
   * The next bytes: at least `enough` and not much more, or what there is at `untilMs` (by `monotonicMs`; looked at when
   * bytes come), or what there is before the end. Never rejects.
   */
  async next(enough: number, untilMs: number): Promise<Block> {
    const goal = Math.min(enough, Limits.blockBytes)
    let size = 0
    // the first chunk is not copied: a small file is one chunk, and needs no block of its own. With a block of 72 KiB or
    // more for each, a fifth of the time of 10,000 small downloads went into the collection of garbage, now a tenth.
    let only: Uint8Array | undefined
    const block = (end: Block["end"]): Block => ({ bytes: only ?? this.#blockOf(0).subarray(0, size), end })
    try {
      while (size < goal) {
        const next = await this.#chunks.next()
        if (next.done === true) return block("end")
        const chunk = next.value
        this.#bytes += chunk.length
        const fault = this.#tooMuch()
        if (fault !== undefined) return block(fault)
        if (size === 0) only = chunk
        else {
          const into = this.#blockOf(size + chunk.length)
          if (only !== undefined) into.set(only)
          only = undefined
          into.set(chunk, size)
        }
        size += chunk.length
        if (monotonicMs(this.#clock) >= untilMs) break
      }
      return block("more")
    } catch (error) {
      return block(error instanceof Fetch.FetchError ? error : fromUndici(this.#url, error))
    }
  }

  /** The block, with room for so many bytes; it keeps those that it has. */
  #blockOf(bytes: number): Uint8Array {
    const before = this.#block
    if (before !== undefined && before.length >= bytes) return before
    const usual = Math.min(Limits.blockBytes + chunkBytes, this.#options.promised ?? Number.POSITIVE_INFINITY)
    const room = bytes === 0 ? 0 : Math.max(bytes, usual)
    this.#block = new Uint8Array(room)
    if (before !== undefined) this.#block.set(before)
    return this.#block
  }

  /** What bytes have become by decoding; as they come they are counted below. */
  #tooMuch(): Fetch.FetchError | undefined {
    const { bytesMax, encoding } = this.#options
    if (encoding === undefined) return undefined
    if (this.#bytes > bytesMax) return this.#fail("size", `more than ${bytesMax} bytes`)
    const fair = Math.max(Limits.decodeRatioFreeBytes, this.#wireBytes * Limits.decodeRatioMax)
    return this.#bytes > fair ? this.#fail("ratio", `${this.#wireBytes} bytes became more than ${fair}`) : undefined
  }

  /** The iterator below is never `return`ed: that would wait for a chunk; the scope of the request destroys the body. */
  async *#wire(chunks: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array, undefined> {
    const { bytesMax, bytesPerSecondMin, speedWindowMs } = this.#options
    while (true) {
      const beganMs = monotonicMs(this.#clock)
      const next = await chunks.next()
      if (next.done === true) return undefined
      this.#windowMs += monotonicMs(this.#clock) - beganMs
      this.#wireBytes += next.value.length
      this.#windowBytes += next.value.length
      if (this.#wireBytes > bytesMax) throw this.#fail("size", `more than ${bytesMax} bytes`)
      if (this.#windowMs >= speedWindowMs) {
        const bytesPerSecond = Math.floor((this.#windowBytes * 1_000) / this.#windowMs)
        if (bytesPerSecond < bytesPerSecondMin) throw this.#fail("slow", `${bytesPerSecond} bytes a second`)
        this.#windowMs = 0
        this.#windowBytes = 0
      }
      yield next.value
    }
  }
}
