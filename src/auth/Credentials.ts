/**
 * Names, keys and verifiers: what a manager keeps about its peers.
 *
 * A manager keeps verifiers only (RFC 5802: salt, iterations, StoredKey, ServerKey), never a key. From a verifier one can
 * check a login and prove to be the manager; one cannot log in. It is still a secret: weak keys can be guessed from it.
 *
 * Names are `[A-Za-z0-9._:-]{1,200}`, so they need no SASLprep and no escapes. Keys are bytes. A key that is text is used
 * as the UTF-8 bytes of its NFKC form (`keyBytes`); unlike SASLprep this refuses no code point, and for printable ASCII
 * the two are the same. Pure: random bytes come in as arguments, and PBKDF2 is the only thing that takes time.
 */
import { Base64, Base64Url } from "effect/encoding"
import {
  authkeyBytesMax,
  authkeyGeneratedBytes,
  nameCharsMax,
  scramIterationsGenerated,
  scramIterationsMax,
  scramIterationsMin,
  scramIterationsPassword
} from "../Limits.ts"
import { hmacSha256, pbkdf2Sha256, sha256 } from "../platform/Crypto.ts"

export interface Verifier {
  readonly name: string
  readonly salt: Uint8Array
  readonly iterations: number
  readonly storedKey: Uint8Array
  readonly serverKey: Uint8Array
}

export type DecodedVerifier =
  | { readonly _tag: "Decoded"; readonly verifier: Verifier }
  | { readonly _tag: "Refused"; readonly reason: "InvalidName" | "MalformedVerifier" | "IterationsOutOfBounds" }

/** Bytes of a salt: the least a verifier may have, the most, and what new and mock verifiers have. */
export const saltBytesMin = 8
export const saltBytesMax = 64
export const saltBytes = 16

const digestBytes = 32
const utf8 = new TextEncoder()

/** Strict: each byte string has one text. Line breaks, stray bits and missing padding are refused. */
export const decodeBase64 = (text: string): Uint8Array | undefined => {
  const decoded = Base64.decode(text)
  return decoded._tag === "Success" && Base64.encode(decoded.success) === text ? decoded.success : undefined
}

// ---- names and keys

const namePattern = new RegExp(`^[A-Za-z0-9._:-]{1,${nameCharsMax}}$`)

export const isName = (text: string): boolean => namePattern.test(text)

const printableCharsMax = 100

/** Text of a stranger for a log or a terminal: printable ASCII, the rest as `\u` escapes, cut where it is long. */
export const printable = (text: string): string => {
  const cut = text.length > printableCharsMax ? `${text.slice(0, printableCharsMax)}...` : text
  return cut.replace(/[^ -~]|["\\]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
}

export const isKey = (key: Uint8Array): boolean => key.byteLength >= 1 && key.byteLength <= authkeyBytesMax

export const isIterations = (iterations: number): boolean =>
  Number.isInteger(iterations) && iterations >= scramIterationsMin && iterations <= scramIterationsMax

/** The bytes of a key that was given as text. Two spellings of the same characters are the same key. */
export const keyBytes = (text: string): Uint8Array => utf8.encode(text.normalize("NFKC"))

/** Assumes 32 random bytes. The answer is the key's text, 43 characters; its bytes are `keyBytes` of it. */
export const generateKey = (random: Uint8Array): string => {
  assume(random.byteLength === authkeyGeneratedBytes, "a generated key is made of 32 random bytes")
  return Base64Url.encode(random)
}

const generatedPattern = /^[A-Za-z0-9_-]{43,}$/
/** A word repeated to 43 characters has fewer; 32 random bytes, in Base64 or in hex, have more. */
const generatedDistinctMin = 11

/** Few iterations for what looks like a generated secret, many for everything that people may have typed. */
export const iterationsFor = (key: Uint8Array): number => {
  const looksGenerated =
    generatedPattern.test(String.fromCharCode(...key.subarray(0, authkeyBytesMax))) &&
    new Set(key).size >= generatedDistinctMin
  return looksGenerated ? scramIterationsGenerated : scramIterationsPassword
}

// ---- verifiers

/** What a client needs of its key to log in: costly, and the same for the same salt and iterations (so cache it). */
export const saltPassword = (key: Uint8Array, salt: Uint8Array, iterations: number): Promise<Uint8Array> =>
  pbkdf2Sha256(key, salt, iterations)

export interface Keys {
  readonly clientKey: Uint8Array
  readonly storedKey: Uint8Array
  readonly serverKey: Uint8Array
}

/** The three keys of RFC 5802, section 3. `clientKey` logs in: it never leaves the client. */
export const deriveKeys = (saltedPassword: Uint8Array): Keys => {
  const clientKey = hmacSha256(saltedPassword, utf8.encode("Client Key"))
  const serverKey = hmacSha256(saltedPassword, utf8.encode("Server Key"))
  return { clientKey, storedKey: sha256(clientKey), serverKey }
}

/** Assumes `isName`, `isKey`, `isIterations` and a salt within its bounds; anything else is a defect (rejects). */
export const deriveVerifier = async (
  name: string,
  key: Uint8Array,
  salt: Uint8Array,
  iterations: number
): Promise<Verifier> => {
  assume(isName(name), "a verifier has a valid name")
  assume(isKey(key), "a key has 1 to 1,024 bytes")
  assume(isSalt(salt), "a salt has 8 to 64 bytes")
  assume(isIterations(iterations), "iterations are within their bounds")
  const { storedKey, serverKey } = deriveKeys(await saltPassword(key, salt, iterations))
  return { name, salt, iterations, storedKey, serverKey }
}

/**
 * The verifier shown for a name that nobody has. It is the same at every login for the same `mockSecret`, which must
 * therefore be kept as long as the verifiers are (32 random bytes). Nobody has the key to it.
 *
 * Its iterations are one of `iterationsInUse`: name every count that the real verifiers have, else an iteration count
 * that no mock shows tells a stranger that the name exists.
 */
export const mockVerifier = (
  name: string,
  mockSecret: Uint8Array,
  iterationsInUse: ReadonlyArray<number> = []
): Verifier => {
  const counts = [...new Set(iterationsInUse)].sort((a, b) => a - b)
  const seed = hmacSha256(mockSecret, utf8.encode(`mock salt,${name}`))
  return {
    name,
    salt: seed.subarray(0, saltBytes),
    iterations: counts[seed[saltBytes]! % counts.length] ?? scramIterationsGenerated,
    storedKey: hmacSha256(mockSecret, utf8.encode(`mock stored key,${name}`)),
    serverKey: hmacSha256(mockSecret, utf8.encode(`mock server key,${name}`))
  }
}

// ---- text form, PostgreSQL's: SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>

export const encodeVerifier = (verifier: Verifier): string => {
  const [salt, storedKey, serverKey] = [verifier.salt, verifier.storedKey, verifier.serverKey].map(Base64.encode)
  return `SCRAM-SHA-256$${verifier.iterations}:${salt}$${storedKey}:${serverKey}`
}

const verifierPattern =
  /^SCRAM-SHA-256\$([1-9][0-9]{0,9}):([A-Za-z0-9+/=]{1,88})\$([A-Za-z0-9+/=]{44}):([A-Za-z0-9+/=]{44})$/

/** The text does not carry the name; surrounding white space is the caller's to remove. */
export const decodeVerifier = (name: string, text: string): DecodedVerifier => {
  if (!isName(name)) return { _tag: "Refused", reason: "InvalidName" }
  const [, count = "", ...encoded] = verifierPattern.exec(text) ?? []
  const [salt, storedKey, serverKey] = encoded.map(decodeBase64)
  if (salt === undefined || !isSalt(salt) || !isDigest(storedKey) || !isDigest(serverKey)) {
    return { _tag: "Refused", reason: "MalformedVerifier" }
  }
  const iterations = Number(count)
  if (!isIterations(iterations)) return { _tag: "Refused", reason: "IterationsOutOfBounds" }
  return { _tag: "Decoded", verifier: { name, salt, iterations, storedKey, serverKey } }
}

const isSalt = (salt: Uint8Array): boolean => salt.byteLength >= saltBytesMin && salt.byteLength <= saltBytesMax

const isDigest = (bytes: Uint8Array | undefined): bytes is Uint8Array => bytes?.byteLength === digestBytes

/** A broken promise of the caller is a defect, never an answer to a peer. */
export const assume = (holds: boolean, promise: string): void => {
  if (!holds) throw new RangeError(`Broken assumption: ${promise}`)
}
