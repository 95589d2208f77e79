/**
 * One HTTP request as a scoped effect: headers as a value, the body as a stream.
 *
 * It follows redirects itself, hop by hop, because every hop is a new URL for scope and rules. It never retries, never
 * decompresses (it asks for `identity`, unless its reader says otherwise), never judges a status, and puts no bound on a body: the readers of bodies
 * (`Page`, `Download`) count their own bytes.
 *
 * Invariant: when the scope closes, nothing of the request is left: a body that was not read to its end is destroyed,
 * a request in flight is aborted.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Limits from "../Limits.ts"
import * as Undici from "../platform/Undici.ts"
import { FetchError, fromUndici, retryAfter } from "./FetchError.ts"
import * as Url from "./Url.ts"

export { FetchError, retryAfter, retryable } from "./FetchError.ts"

/** Time for the connection to one address, TLS included. */
export const connectMs = 10_000
/** Connections to one origin. */
export const connectionsPerOriginDefault = 8
export const userAgentDefault = "millrace/0.1 (crawler)"

export interface OpenOptions {
  /** The `Accept` header. */
  readonly accept?: string | undefined
  /** The page that named the URL; sent as `Referer` without fragment and credentials. */
  readonly referer?: string | undefined
  /** Redirects followed, at most `redirectsMax`. */
  readonly maxRedirects?: number | undefined
  /** Asked for the URL and for every redirect target; `false` ends the fetch with cause `scope`. */
  readonly allow?: ((url: URL) => boolean) | undefined
  /** Content encodings that the reader can undo. Default: `identity`. */
  readonly acceptEncoding?: string | undefined
  /** Asks for the bytes from here on, if the file is still the one that the validator (`If-Range`) names. */
  readonly range?: { readonly from: number; readonly ifRange: string } | undefined
}

export interface FetchResponse {
  readonly status: number
  /** Names in lower case; repeated headers are joined by a comma. */
  readonly headers: Readonly<Record<string, string>>
  /** The final URL. */
  readonly url: string
  /** URLs that redirected, in order. */
  readonly redirects: ReadonlyArray<string>
  /** Can be read once, within the scope of the request. */
  readonly body: Stream.Stream<Uint8Array, FetchError>
  /** The same body, for a reader with a loop of its own: one of the two can be read. Its errors are undici's. */
  readonly chunks: AsyncIterable<Uint8Array>
}

export interface FetchOptions {
  readonly userAgent?: string | undefined
  readonly connectionsPerOrigin?: number | undefined
  readonly headersMs?: number | undefined
  readonly bodyIdleMs?: number | undefined
}

export class Fetch extends Context.Service<
  Fetch,
  {
    readonly open: (
      url: string,
      options?: OpenOptions | undefined
    ) => Effect.Effect<FetchResponse, FetchError, Scope.Scope>
  }
>()("millrace/crawl/Fetch") {}

const redirectStatus: ReadonlySet<number> = new Set([301, 302, 303, 307, 308])

const ignore = (): void => {}

/** Bytes of a redirect's own body that are read to keep its connection; a longer one costs the connection. */
const redirectBodyBytesMax = 16 * 1_024

export const make = Effect.fnUntraced(function* (options: FetchOptions = {}) {
  const headersTimeout = options.headersMs ?? Limits.headersMs
  const bodyTimeout = options.bodyIdleMs ?? Limits.bodyIdleMs
  const agent = yield* Effect.acquireRelease(
    Effect.sync(
      () =>
        new Undici.Agent({
          allowH2: false,
          pipelining: 1,
          connections: options.connectionsPerOrigin ?? connectionsPerOriginDefault,
          headersTimeout,
          bodyTimeout,
          connect: { timeout: connectMs }
        })
    ),
    (agent) => Effect.promise(() => agent.destroy())
  )
  const userAgent = options.userAgent ?? userAgentDefault

  const request = (url: URL, headers: Record<string, string>, signal: Undici.Abort) =>
    Effect.tryPromise({
      try: () =>
        Undici.request(url, { dispatcher: agent, method: "GET", headers, signal, headersTimeout, bodyTimeout }),
      catch: (error) => fromUndici(url.href, error)
    })

  const follow = Effect.fnUntraced(function* (first: URL, open: OpenOptions, signal: Undici.Abort) {
    const headers: Record<string, string> = {
      "user-agent": userAgent,
      "accept-encoding": open.acceptEncoding ?? "identity",
      accept: open.accept ?? "*/*"
    }
    if (open.range !== undefined) {
      headers["range"] = `bytes=${open.range.from}-`
      headers["if-range"] = open.range.ifRange
    }
    const referer = open.referer === undefined ? undefined : Url.parse(open.referer)
    if (referer !== undefined) headers["referer"] = Url.withoutFragment(referer)
    const hopsMax = Math.min(open.maxRedirects ?? Limits.redirectsMax, Limits.redirectsMax)
    const redirects: Array<string> = []
    const visited = new Set<string>()
    let url = first
    while (true) {
      if (open.allow?.(url) === false) {
        return yield* new FetchError({ url: url.href, cause: "scope", detail: "the URL is outside of the crawl" })
      }
      const response = yield* request(url, headers, signal)
      // a destroyed body reports that as an event, which without a listener would end the process
      response.body.on("error", ignore)
      const location = headerOf(response.headers["location"])
      if (!redirectStatus.has(response.statusCode) || location === undefined) {
        const answer: FetchResponse = {
          status: response.statusCode,
          headers: flatten(response.headers),
          url: Url.withoutFragment(url),
          redirects,
          get body() {
            return streamOf(response.body, url.href)
          },
          chunks: response.body
        }
        return answer
      }
      // not awaited: a redirect that drips its body must not hold up the next hop, and the abort ends it
      signal.once("abort", () => response.body.destroy())
      response.body.dump({ limit: redirectBodyBytesMax }).catch(ignore)
      visited.add(Url.key(url))
      const refuse = (detail: string) =>
        new FetchError({ url: first.href, cause: "redirect", detail, status: response.statusCode })
      const next = Url.parse(location, url)
      if (next === undefined) return yield* refuse(`to what is no http URL: ${location.slice(0, 200)}`)
      if (visited.has(Url.key(next))) return yield* refuse(`in a loop at ${next.href}`)
      if (redirects.length >= hopsMax) return yield* refuse(`more than ${hopsMax} times`)
      redirects.push(Url.withoutFragment(url))
      url = next
    }
  })

  const open: Fetch["Service"]["open"] = Effect.fnUntraced(function* (text, options = {}) {
    const url = Url.parse(text)
    if (url === undefined) {
      const detail = "not an http or https URL of at most " + Limits.urlCharsMax + " characters"
      return yield* new FetchError({ url: text.slice(0, Limits.urlCharsMax), cause: "scope", detail })
    }
    const abort = new Undici.Abort()
    const end = Effect.sync(() => abort.fire())
    yield* Effect.addFinalizer(() => end)
    return yield* follow(url, options, abort).pipe(
      // the scope may live much longer than an attempt that failed or was interrupted
      Effect.onExit((exit) => (Exit.isFailure(exit) ? end : Effect.void))
    )
  })

  return Fetch.of({ open })
})

export const layerWith = (options: FetchOptions): Layer.Layer<Fetch> => Layer.effect(Fetch, make(options))
export const layer: Layer.Layer<Fetch> = layerWith({})

/** A partial answer (206) that nobody asked for is no success. */
export const isSuccess = ({ status }: FetchResponse): boolean => status >= 200 && status < 300 && status !== 206

/** The error of a response that is no success, with the server's wish about a retry; `undefined` for success. */
export const statusError = (response: FetchResponse): Effect.Effect<FetchError | undefined> =>
  isSuccess(response)
    ? Effect.succeed(undefined)
    : Effect.map(Clock.currentTimeMillis, (nowMs) => {
        const retryAfterMs = retryAfter(response.headers["retry-after"], nowMs)
        const { status, url } = response
        const detail = `the server answered ${status}`
        return retryAfterMs === undefined
          ? new FetchError({ url, cause: "status", status, detail })
          : new FetchError({ url, cause: "status", status, detail, retryAfterMs })
      })

/** The length a response promises for its body. */
export const contentLength = (response: FetchResponse): number | undefined => {
  const value = response.headers["content-length"]
  return value !== undefined && /^\d{1,15}$/.test(value) ? Number(value) : undefined
}

const headerOf = (value: string | ReadonlyArray<string> | undefined): string | undefined =>
  typeof value === "string" ? value : value?.[0]

const flatten = (
  headers: Readonly<Record<string, string | ReadonlyArray<string> | undefined>>
): Record<string, string> => {
  const flat: Record<string, string> = Object.create(null)
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) flat[name] = typeof value === "string" ? value : value.join(", ")
  }
  return flat
}

/**
 * Pulls chunk by chunk, so a slow reader slows the server. The iterator is never `return`ed: that would wait for the
 * chunk under way; the scope of the request destroys the body instead.
 */
const streamOf = (body: AsyncIterable<Uint8Array>, url: string): Stream.Stream<Uint8Array, FetchError> =>
  Stream.fromPull(
    Effect.sync(() => {
      const iterator = body[Symbol.asyncIterator]()
      const next = Effect.tryPromise({ try: () => iterator.next(), catch: (error) => fromUndici(url, error) })
      return Effect.flatMap(next, (result) =>
        result.done === true ? Cause.done() : Effect.succeed([result.value] as const)
      )
    })
  )
