/** Any text as the name of a queue, for names that other programs chose: two texts never become one name. */
import * as Limits from "../Limits.ts"
import { sha256 } from "../platform/Crypto.ts"
import { toHex } from "../wire/Bytes.ts"
import { isName } from "../wire/pieces.ts"

const mark = "effect:"

/**
 * A text that is a name stays as it is. Of any other, and of one that begins like what this makes, each character outside
 * A-Z a-z 0-9 . _ - becomes `:` and its four hexadecimal digits, behind `effect:`; what is too long for that is hashed,
 * behind `effect::`.
 */
export const queueNameOf = (text: string): string => {
  if (isName.test(text) && !text.startsWith(mark)) return text
  const escaped = mark + text.replaceAll(/[^A-Za-z0-9._-]/g, (unit) => `:${digitsOf(unit)}`)
  return escaped.length <= Limits.nameCharsMax ? escaped : `${mark}:${digestOf(text)}`
}

/** SHA-256 of a text, in hex: lone surrogates included. */
export const digestOf = (text: string): string => toHex(sha256(unitsOf(text)))

/** Of one UTF-16 unit: as UTF-8 all lone surrogates would be the same. */
const digitsOf = (unit: string): string => unit.charCodeAt(0).toString(16).padStart(4, "0")

const unitsOf = (text: string): Uint8Array => {
  const bytes = new Uint8Array(2 * text.length)
  for (let i = 0; i < text.length; i++) new DataView(bytes.buffer).setUint16(2 * i, text.charCodeAt(i))
  return bytes
}
