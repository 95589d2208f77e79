/**
 * The one error of fetching, downloading and storing, and what follows from it.
 *
 * A failure is named by its cause, so that a report can count causes and a queue can decide on a retry. Failures of
 * undici are mapped here, once, by code and never by message. The queue owns the retries: nothing in this room tries
 * again by itself.
 *
 * Invariant: the list of causes is closed, and `retryable` decides every one of them.
 */
import * as Schema from "effect/Schema"
import * as Limits from "../Limits.ts"

export const Cause = Schema.Literals([
  ...(["dns", "connect", "tls", "headers", "idle", "slow", "size", "ratio", "status"] as const),
  ...(["decode", "scope", "redirect", "reset", "type", "disk", "digest"] as const)
])
export type Cause = typeof Cause.Type

/** One attempt to fetch a URL has failed; nothing of it is left at a final path. */
export class FetchError extends Schema.TaggedError<FetchError>()("FetchError", {
  url: Schema.String,
  cause: Cause,
  detail: Schema.String,
  /** The status, where an answer came. */
  status: Schema.optionalKey(Schema.Int),
  /** How long the server asks to wait, at most `retryAfterMsMax`. Absent: it gave no hint. */
  retryAfterMs: Schema.optionalKey(Schema.Int)
}) {
  override get message(): string {
    return `${this.cause}: ${this.detail} (${this.url})`
  }
}

const retryableStatus: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504, 522, 524])

const retryableCause: Readonly<Record<Cause, boolean>> = {
  // the network, or the server's load: another attempt may well succeed. A name that does not resolve looks the same
  // as a resolver that is down.
  dns: true,
  connect: true,
  headers: true,
  idle: true,
  slow: true,
  reset: true,
  // our own trouble: another worker, or the same one later, may have room
  disk: true,
  // the file may have been replaced while it was read; nothing of it is kept, so the next attempt begins at its start
  digest: true,
  // the answer will be the same
  tls: false,
  size: false,
  ratio: false,
  status: false,
  decode: false,
  scope: false,
  redirect: false,
  type: false
}

/** Whether a later attempt may succeed. Never for 404, 410, a wrong type or a body that is too large. */
export const retryable = (error: FetchError): boolean =>
  error.cause === "status"
    ? error.status !== undefined && retryableStatus.has(error.status)
    : retryableCause[error.cause]

const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
// the three forms of an HTTP date: IMF-fixdate and RFC 850 by one pattern, asctime by the other
const httpDate = /^[A-Z][a-z]+, (\d\d)[ -]([A-Z][a-z]{2})[ -](\d{4}|\d\d) (\d\d):(\d\d):(\d\d) GMT$/
const asctime = /^[A-Z][a-z]{2} ([A-Z][a-z]{2}) ([ \d]\d) (\d\d):(\d\d):(\d\d) (\d{4})$/

/** Milliseconds since 1970 of an HTTP date in any of its three forms. */
export const parseHttpDate = (value: string, nowMs: number): number | undefined => {
  const a = httpDate.exec(value)
  const b = asctime.exec(value)
  const fields = a !== null ? a.slice(1) : b !== null ? [b[2], b[1], b[6], b[3], b[4], b[5]] : undefined
  if (fields === undefined) return undefined
  const [day, month, yearText, hour, minute, second] = fields
  if (!months.includes(month!)) return undefined
  let year = Number(yearText)
  if (yearText!.length === 2) {
    // RFC 9110: two digits that lie more than 50 years ahead are of the past century
    const now = new Date(nowMs).getUTCFullYear()
    year += Math.floor(now / 100) * 100
    if (year > now + 50) year -= 100
  }
  return Date.UTC(year, months.indexOf(month!), Number(day), Number(hour), Number(minute), Number(second))
}

/**
 * Milliseconds a `Retry-After` asks for: seconds or an HTTP date, at most `retryAfterMsMax`. Zero, a date that has
 * passed and nonsense are no hint: `undefined`.
 */
export const retryAfter = (value: string | undefined, nowMs: number): number | undefined => {
  if (value === undefined) return undefined
  const trimmed = value.trim()
  const date = parseHttpDate(trimmed, nowMs)
  const ms = /^\d+(?:\.\d+)?$/.test(trimmed) ? Number(trimmed) * 1_000 : date === undefined ? 0 : date - nowMs
  return ms > 0 ? Math.min(Math.ceil(ms), Limits.retryAfterMsMax) : undefined
}

const connectCodes: ReadonlySet<string> = new Set([
  ...["ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "ENETDOWN", "EHOSTDOWN", "EADDRNOTAVAIL", "ETIMEDOUT", "EACCES"],
  ...["UND_ERR_CONNECT_TIMEOUT", "EMFILE", "ENFILE", "ConnectionRefused", "FailedToOpenSocket"]
])
const tlsCode = /^(?:ERR_TLS_|ERR_SSL_|CERT_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|HOSTNAME_MISMATCH|INVALID_CA|EPROTO)/

const causeOfCode = (code: string): Cause | undefined => {
  if (code === "ENOTFOUND" || code.startsWith("EAI_") || code === "ENODATA") return "dns"
  if (connectCodes.has(code)) return "connect"
  if (tlsCode.test(code)) return "tls"
  if (code === "UND_ERR_HEADERS_TIMEOUT") return "headers"
  if (code === "UND_ERR_BODY_TIMEOUT") return "idle"
  if (code === "UND_ERR_HEADERS_OVERFLOW" || code === "HPE_HEADER_OVERFLOW") return "size"
  // a compressed body that ends too early was cut; whatever else zlib does not like comes again
  if (code === "Z_BUF_ERROR") return "reset"
  if (code.startsWith("HPE_") || code.startsWith("Z_") || code.startsWith("ERR_BROTLI")) return "decode"
  if (code.startsWith("ERR__ERROR_FORMAT")) return "decode"
  if (code.startsWith("UND_ERR_") || code === "ECONNRESET" || code === "EPIPE" || code === "ECONNABORTED") {
    return "reset"
  }
  return undefined
}

/** The code of a failure. undici's parser has no code for an answer that is not HTTP at all, only a class. */
const codeOf = (error: unknown): string => {
  if (!(error instanceof Error)) return ""
  if ("code" in error && typeof error.code === "string") return error.code
  return error.name === "HTTPParserError" ? "HPE_INVALID" : ""
}

/** Maps a failure of undici. What no code tells is `reset`: the exchange broke off. */
export const fromUndici = (url: string, error: unknown): FetchError => {
  // undici wraps some failures (of the connector, of several addresses), so the causes are asked as well
  for (let at: unknown = error, i = 0; at instanceof Error && i < 4; at = at.cause, i++) {
    const cause = causeOfCode(codeOf(at))
    if (cause !== undefined) return new FetchError({ url, cause, detail: `${codeOf(at)} ${at.message}`.trim() })
  }
  const detail = error instanceof Error ? error.message : String(error)
  return new FetchError({ url, cause: "reset", detail })
}
