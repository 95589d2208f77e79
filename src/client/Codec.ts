/**
 * Values to payload bytes and back: a codec byte, then UTF-8 JSON of the Schema's JSON form, or the raw bytes where the
 * Schema is bytes. The manager never looks inside; a store, a dashboard or another language can.
 *
 * Built once per definition: parsing a Schema costs, running a parsed one does not.
 */
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import { sha256 } from "../platform/Crypto.ts"
import { parseJson } from "../platform/Json.ts"
import { decodeUtf8, encodeUtf8, TextSlab } from "../platform/Text.ts"

/** A Schema that encodes and decodes without services. */
export type Plain<A> = Schema.Codec<A, unknown, never, never>

export const codecJson = 1
export const codecBytes = 0

/** Why a value did not encode, or bytes did not decode: `path` is where, in the value. */
export class CodecFault {
  readonly path: string
  readonly reason: string
  constructor(path: string, reason: string) {
    this.path = path
    this.reason = reason
  }
}

export interface Codec<A> {
  readonly encode: (value: A) => Uint8Array | CodecFault
  /** A function of its own, so that no value of type A is mistaken for a fault. */
  readonly decode: (bytes: Uint8Array) => Exit.Exit<A, CodecFault>
}

const encoder = new TextEncoder()
const issues = SchemaIssue.makeFormatterStandardSchemaV1()

export const make = <A>(schema: Plain<A>): Codec<A> => (isBytes(schema) ? bytesCodec() : jsonCodec(schema))

const isBytes = (schema: Schema.Top): boolean => schema.ast === Schema.Uint8Array.ast

const bytesCodec = <A>(): Codec<A> => ({
  encode: (value) => {
    if (!(value instanceof Uint8Array)) return new CodecFault("the value itself", "expected bytes (a Uint8Array)")
    const bytes = new Uint8Array(value.byteLength + 1)
    bytes.set(value, 1)
    return bytes
  },
  decode: (bytes) =>
    bytes[0] === codecBytes
      ? Exit.succeed(bytes.slice(1) as A)
      : Exit.fail(new CodecFault("the value itself", `unknown codec ${bytes[0] ?? "(no bytes)"}`))
})

const jsonCodec = <A>(schema: Plain<A>): Codec<A> => {
  const json = Schema.toCodecJson(schema)
  const encodeValue = Schema.encodeUnknownExit(json)
  const decodeValue = Schema.decodeUnknownExit(json) as (input: unknown) => Exit.Exit<A, Schema.SchemaError>
  return {
    encode: (value) => {
      const encoded = encodeValue(value)
      if (Exit.isFailure(encoded)) return faultOf(encoded.cause)
      return tagged(JSON.stringify(encoded.value) ?? "null")
    },
    decode: (bytes) => {
      if (bytes[0] !== codecJson) {
        return Exit.fail(new CodecFault("the value itself", `unknown codec ${bytes[0] ?? "(no bytes)"}`))
      }
      let parsed: unknown
      try {
        parsed = parseJson(decodeUtf8(bytes, 1))
      } catch (error) {
        return Exit.fail(new CodecFault("the value itself", `not JSON: ${String(error)}`))
      }
      const decoded = decodeValue(parsed)
      return Exit.isSuccess(decoded) ? Exit.succeed(decoded.value) : Exit.fail(faultOf(decoded.cause))
    }
  }
}

/** Short payloads share buffers; a piece lives until it is written into a frame. */
const shortMax = 4_096
const slab = new TextSlab(65_536)

/** JSON text behind its codec byte. */
const tagged = (text: string): Uint8Array => {
  if (text.length <= shortMax) return slab.encode(codecJson, text)
  return encodeUtf8(codecJson, text)
}

const faultOf = (cause: Cause.Cause<Schema.SchemaError>): CodecFault => {
  const reason = cause.reasons.find(Cause.isFailReason)
  if (reason === undefined) return new CodecFault("the value itself", Cause.pretty(cause))
  const first = issues(reason.error.issue).issues[0]
  if (first === undefined) return new CodecFault("the value itself", reason.error.message)
  const path = (first.path ?? []).map((segment) => String(typeof segment === "object" ? segment.key : segment))
  return new CodecFault(path.length === 0 ? "the value itself" : path.join("."), first.message)
}

/**
 * The Schemas as text, one fact a line, and its SHA-256. Two sides with the same text understand each other; two with
 * another are told the first line that differs.
 */
export const fingerprint = (
  schemas: Readonly<Record<string, Schema.Top>>
): { readonly text: string; readonly hash: Uint8Array } => {
  const text = Object.entries(schemas)
    .map(([name, schema]) => `${name}: ${isBytes(schema) ? "bytes" : describe(schema)}`)
    .join("\n")
  return { text, hash: sha256(encoder.encode(text)) }
}

const describe = (schema: Schema.Top): string => {
  const document = Schema.toJsonSchemaDocument(Schema.toCodecJson(schema))
  return JSON.stringify({ ...sorted(document.definitions), schema: sorted(document.schema) }, undefined, 1)
}

/** Keys in order, so that two programs print the same. */
const sorted = (value: unknown): object => sortedValue(value) as object

const sortedValue = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(sortedValue)
  if (typeof value !== "object" || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, item]) => [key, sortedValue(item)])
  )
}
