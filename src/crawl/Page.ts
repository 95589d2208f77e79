/**
 * One page of a crawl: fetched, decoded and read for its links and images in one pass.
 *
 * One attempt. The page is never held as a whole: bytes are counted, decoded and given to the extractor as they come.
 * It decides nothing about scope, order or repetition; `allow` is the only door through which rules come in.
 *
 * Invariant: a page over `pageBytesMax` is an error and never a shorter page; the same bytes give the same result
 * however they arrive.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Limits from "../Limits.ts"
import * as Charset from "./Charset.ts"
import * as Extract from "./Extract.ts"
import * as Fetch from "./Fetch.ts"
import { fromUndici } from "./FetchError.ts"
import * as ImageType from "./ImageType.ts"

export interface Page extends Extract.Extracted {
  readonly url: string
  readonly finalUrl: string
  readonly redirects: ReadonlyArray<string>
  readonly status: number
  /** Bytes of the HTML. */
  readonly bytes: number
  readonly charset: Charset.Charset
}

export interface PageOptions {
  readonly referer?: string | undefined
  readonly allow?: ((url: URL) => boolean) | undefined
  /** At most `pageBytesMax`. */
  readonly bytesMax?: number | undefined
}

const accept = "text/html,application/xhtml+xml;q=0.9"
const pageTypes: ReadonlySet<string> = new Set(["text/html", "application/xhtml+xml"])

const fetchScoped = Effect.fnUntraced(function* (url: string, options: PageOptions) {
  const { open } = yield* Fetch.Fetch
  const response = yield* open(url, { accept, referer: options.referer, allow: options.allow })
  const refused = yield* Fetch.statusError(response)
  if (refused !== undefined) return yield* refused
  const fail = (cause: Fetch.FetchError["cause"], detail: string) =>
    new Fetch.FetchError({ url: response.url, cause, detail, status: response.status })

  const contentType = response.headers["content-type"]
  const mime = ImageType.mimeType(contentType)
  if (!pageTypes.has(mime)) return yield* fail("type", `not a page but ${mime === "" ? "of no type" : mime}`)
  const encoding = response.headers["content-encoding"] || "identity"
  if (encoding !== "identity") return yield* fail("decode", `encoded as ${encoding}, which was not asked for`)
  const bytesMax = Math.min(options.bytesMax ?? Limits.pageBytesMax, Limits.pageBytesMax)
  const tooLarge = () => fail("size", `a page of more than ${bytesMax} bytes`)
  if ((Fetch.contentLength(response) ?? 0) > bytesMax) return yield* tooLarge()

  const reader = makeReader(contentType, new URL(response.url))
  // A plain loop: an effect per chunk costs more than reading a small page.
  yield* Effect.tryPromise({
    try: async () => {
      for await (const chunk of response.chunks) if (reader.write(chunk) > bytesMax) throw tooLarge()
    },
    catch: (error) => (error instanceof Fetch.FetchError ? error : fromUndici(response.url, error))
  })
  const { bytes, charset, extracted } = reader.end()
  const { redirects, status, url: finalUrl } = response
  const page: Page = { url, finalUrl, redirects, status, bytes, charset, ...extracted }
  return page
})

/** Gets a page and reads its links. Fails for every status but success, and for everything that is not HTML. */
export const fetchPage = (url: string, options: PageOptions = {}): Effect.Effect<Page, Fetch.FetchError, Fetch.Fetch> =>
  fetchScoped(url, options).pipe(
    Effect.scoped,
    Effect.timeoutOrElse({
      duration: Duration.millis(Limits.pageMs),
      orElse: () =>
        Effect.fail(new Fetch.FetchError({ url, cause: "slow", detail: `not done after ${Limits.pageMs} ms` }))
    })
  )

/** Bytes in, links out. The first bytes wait until the encoding is known; `write` answers with the bytes so far. */
const makeReader = (contentType: string | undefined, pageUrl: URL) => {
  const extractor = Extract.make(pageUrl)
  const head = new Uint8Array(Charset.prescanBytes)
  let charset: Charset.Charset | undefined
  let decoder: InstanceType<typeof TextDecoder> | undefined
  let bytes = 0

  const begin = () => {
    const first = head.subarray(0, Math.min(bytes, head.length))
    charset = Charset.detect(first, contentType)
    decoder = new TextDecoder(charset.label)
    extractor.write(decoder.decode(first, { stream: true }))
    return decoder
  }
  const write = (chunk: Uint8Array): number => {
    if (decoder !== undefined) {
      bytes += chunk.length
      extractor.write(decoder.decode(chunk, { stream: true }))
      return bytes
    }
    const part = chunk.subarray(0, head.length - bytes)
    head.set(part, bytes)
    bytes += part.length
    if (bytes < head.length) return bytes
    begin()
    return write(chunk.subarray(part.length))
  }
  const end = () => {
    const last = decoder ?? begin()
    extractor.write(last.decode())
    return { bytes, charset: charset!, extracted: extractor.end() }
  }
  return { write, end }
}
