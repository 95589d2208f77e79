/**
 * Whether a file can be gone on with, and what a server's answer to that wish means (RFC 9110, 8.8, 13.1.5, 14).
 *
 * Pure. A partial file is only ever continued from an answer that proves to be of the same version: a 206 with our offset,
 * our total and our validator. Whatever is less than that begins at the start again.
 */
import * as Schema from "effect/Schema"
import * as Limits from "../Limits.ts"
import { parseHttpDate } from "./FetchError.ts"

type Headers = Readonly<Record<string, string>>

/** Not marked as weak, and in characters that no transport changes. */
const strongEtag = /^"[\x21\x23-\x7e]*"$/

/** What a download saves: enough for another worker to prove that it goes on with the same file. */
export const Checkpoint = Schema.Struct({
  url: Schema.String.check(Schema.isMaxLength(Limits.urlCharsMax)),
  /** Where the bytes came from: the last URL, without query, for links that are signed anew on every redirect. */
  source: Schema.String.check(Schema.isMaxLength(Limits.urlCharsMax)),
  /** Names the temporary file, together with what is downloaded. */
  part: Schema.String.check(Schema.isPattern(/^[0-9a-f]{16}$/)),
  /** Bytes that are on the disk, and their hash. */
  bytes: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER })),
  sha256: Schema.String.check(Schema.isPattern(/^[0-9a-f]{64}$/)),
  /** Bytes of the whole file, where the server told. */
  total: Schema.optionalKey(Schema.Int),
  /** The validator: one of the two. */
  etag: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(Limits.validatorCharsMax))),
  lastModified: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(Limits.validatorCharsMax))),
  contentType: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(Limits.contentTypeCharsMax)))
})
export type Checkpoint = typeof Checkpoint.Type

/** What names the version of a file: exactly one of the two. */
export type Validator = { readonly etag: string } | { readonly lastModified: string }

/**
 * The strong validator of a response. An ETag that is weak rules out the date beside it. A date counts when the response
 * is so much younger that the file cannot have changed again within that second; the clocks of the two may differ.
 */
export const validatorOf = (headers: Headers): Validator | undefined => {
  const { date, etag } = headers
  if (etag !== undefined) {
    return etag.length <= Limits.validatorCharsMax && strongEtag.test(etag) ? { etag } : undefined
  }
  const lastModified = headers["last-modified"]
  if (lastModified === undefined || date === undefined) return undefined
  const modifiedMs = parseHttpDate(lastModified, 0)
  const sentMs = parseHttpDate(date, 0)
  if (modifiedMs === undefined || sentMs === undefined) return undefined
  return sentMs - modifiedMs >= Limits.lastModifiedStrongMs ? { lastModified } : undefined
}

const isCheckpoint = Schema.is(Checkpoint)

/** The value of `If-Range` for a checkpoint; undefined: it cannot be gone on with. Trusts nothing, not even the type. */
export const ifRangeOf = (checkpoint: Checkpoint | undefined, url: string): string | undefined => {
  if (!isCheckpoint(checkpoint) || checkpoint.url !== url) return undefined
  const { bytes, etag, lastModified, total } = checkpoint
  if (total !== undefined && total < bytes) return undefined
  if (etag !== undefined) return strongEtag.test(etag) ? etag : undefined
  return lastModified !== undefined && parseHttpDate(lastModified, 0) !== undefined ? lastModified : undefined
}

/** Of a file that is complete the last byte is asked for: an answer that proves that it is the same file still. */
export const offsetOf = ({ bytes, total }: Checkpoint): number => (bytes === total ? bytes - 1 : bytes)

/** `source` of a checkpoint. */
export const sourceOf = (finalUrl: string): string => {
  const { origin, pathname } = new URL(finalUrl)
  return origin + pathname
}

export interface ContentRange {
  readonly first: number
  readonly last: number
  readonly total: number | undefined
}

/** A satisfied `Content-Range` in bytes that is right in itself. */
export const parseContentRange = (value: string | undefined): ContentRange | undefined => {
  const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/i.exec(value?.trim() ?? "")
  if (match === null) return undefined
  const [first, last] = [Number(match[1]), Number(match[2])]
  const total = match[3] === "*" ? undefined : Number(match[3])
  return first <= last && (total === undefined || last < total) ? { first, last, total } : undefined
}

interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly url: string
}

export type Verdict =
  /** The bytes from the offset on follow, of a file of this size. */
  | { readonly _tag: "Append"; readonly total: number; readonly bytes: number }
  /** All bytes of the file are held. */
  | { readonly _tag: "Complete" }
  /** The whole file follows, or a status that says why nothing does. */
  | { readonly _tag: "Whole" }
  /** Nothing of this answer can be used: ask for the whole file. */
  | { readonly _tag: "Again"; readonly why: string }

const again = (why: string): Verdict => ({ _tag: "Again", why })

/** What an answer to a request for the rest of a file means. */
export const judge = ({ headers, status, url }: Answer, checkpoint: Checkpoint): Verdict => {
  if (status === 416) return judgeUnsatisfied(headers, checkpoint, url)
  if (status !== 206) return { _tag: "Whole" }
  const encoding = headers["content-encoding"] || "identity"
  if (encoding !== "identity") return again(`a part encoded as ${encoding}`)
  const range = parseContentRange(headers["content-range"])
  if (range === undefined) return again(`no usable Content-Range: ${headers["content-range"] ?? "none"}`)
  const offset = offsetOf(checkpoint)
  if (range.first !== offset) return again(`a part from ${range.first}, not from ${offset}`)
  const total = range.total ?? checkpoint.total
  if (total === undefined) return again("a part of a file of unknown size")
  if (checkpoint.total !== undefined && total !== checkpoint.total) return again(`a file of ${total} bytes now`)
  const bytes = range.last - range.first + 1
  const length = headers["content-length"]
  if (length !== undefined && length !== String(bytes)) return again(`a part of ${bytes} bytes and of ${length}`)
  return sameVersion(headers, checkpoint, url) ?? { _tag: "Append", total, bytes }
}

/** 416 is an end, and no failure, when it names exactly what is held. */
const judgeUnsatisfied = (headers: Headers, checkpoint: Checkpoint, url: string): Verdict => {
  const total = /^bytes \*\/(\d{1,15})$/i.exec(headers["content-range"]?.trim() ?? "")?.[1]
  if (total !== String(checkpoint.bytes)) return again("no such part")
  const unproven = checkpoint.etag === undefined && headers["last-modified"] === undefined
  return unproven ? again("no such part") : (sameVersion(headers, checkpoint, url) ?? { _tag: "Complete" })
}

/**
 * A 206 carries the ETag that a 200 would have (RFC 9110, 15.3.7). Its Last-Modified may be left out; one that is there
 * must be ours.
 */
const sameVersion = (headers: Headers, checkpoint: Checkpoint, url: string): Verdict | undefined => {
  const { etag, lastModified, source } = checkpoint
  if (etag !== undefined) {
    if (headers["etag"] !== etag) return again(`version ${headers["etag"] ?? "unknown"}, not ${etag}`)
  } else if (headers["etag"] !== undefined || (headers["last-modified"] ?? lastModified) !== lastModified) {
    return again(`not the version of ${lastModified}`)
  }
  return sourceOf(url) === source ? undefined : again("another source")
}
