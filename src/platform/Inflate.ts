/**
 * Undoing the content encodings of HTTP while they stream, on Node, Deno and Bun.
 *
 * No limits here: zlib's own do not hold for streams, so whoever reads counts what goes in and what comes out. Members of
 * a gzip file that follow one another are all read.
 */
import { pipeline, Readable, type Transform } from "node:stream"
import * as zlib from "node:zlib"

export type Encoding = "gzip" | "deflate" | "br"

const encodings: Readonly<Record<string, Encoding>> = { gzip: "gzip", "x-gzip": "gzip", deflate: "deflate", br: "br" }

/** The encoding of a `Content-Encoding` value, if it is one that can be undone here. */
export const encodingOf = (name: string): Encoding | undefined =>
  Object.hasOwn(encodings, name) ? encodings[name] : undefined

/** `deflate` is zlib's format by the standard, and the bare one by custom: the first two bytes tell (RFC 1950, 2.2). */
const isZlib = (head: Uint8Array): boolean =>
  head.length >= 2 && (head[0]! & 0x0f) === 8 && ((head[0]! << 8) | head[1]!) % 31 === 0

const decoderOf = (encoding: Encoding, head: Uint8Array): Transform => {
  if (encoding === "gzip") return zlib.createGunzip()
  if (encoding === "br") return zlib.createBrotliDecompress()
  return isZlib(head) ? zlib.createInflate() : zlib.createInflateRaw()
}

const join = (parts: ReadonlyArray<Uint8Array>): Uint8Array => (parts.length === 1 ? parts[0]! : Buffer.concat(parts))

/** The decoded bytes, as they are asked for. Its errors are those of the source, and zlib's by their codes. */
export const inflate = async function* (
  encoding: Encoding,
  source: AsyncIterable<Uint8Array>
): AsyncGenerator<Uint8Array> {
  const iterator = source[Symbol.asyncIterator]()
  const first: Array<Uint8Array> = []
  for (let bytes = 0; bytes < 2; ) {
    const next = await iterator.next()
    if (next.done === true) break
    first.push(next.value)
    bytes += next.value.length
  }
  // an empty body is an empty file, whatever it says it is encoded with
  if (first.length === 0) return
  const head = join(first)
  const whole = async function* (): AsyncGenerator<Uint8Array> {
    yield head
    for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) yield next.value
  }
  const decoder = decoderOf(encoding, head)
  // errors of either side come out of the iteration
  pipeline(Readable.from(whole(), { objectMode: false }), decoder, () => {})
  yield* decoder as AsyncIterable<Uint8Array>
}
