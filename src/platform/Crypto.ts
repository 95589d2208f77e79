/**
 * The cryptographic primitives of the runtime: deterministic functions, plus one source of random bytes.
 *
 * Node, Deno and Bun all ship `node:crypto`; this file is the only one that names it. PBKDF2 is asynchronous because it
 * is slow on purpose and must not stop the event loop.
 */
import * as crypto from "node:crypto"

export const sha256 = (data: Uint8Array): Uint8Array => crypto.createHash("sha256").update(data).digest()

export const hmacSha256 = (key: Uint8Array, data: Uint8Array): Uint8Array =>
  crypto.createHmac("sha256", key).update(data).digest()

export const pbkdf2Sha256 = (password: Uint8Array, salt: Uint8Array, iterations: number): Promise<Uint8Array> =>
  new Promise((resolve, reject) =>
    crypto.pbkdf2(password, salt, iterations, 32, "sha256", (error, key) =>
      error === null ? resolve(key) : reject(error)
    )
  )

/** Constant time for equal lengths; a difference in length is no secret. */
export const timingSafeEqual = (a: Uint8Array, b: Uint8Array): boolean =>
  a.byteLength === b.byteLength && crypto.timingSafeEqual(a, b)

let source: (size: number) => Uint8Array = crypto.randomBytes

export const randomBytes = (size: number): Uint8Array => source(size)

/** Replaces the source of random bytes, for a simulation; returns what puts the old one back. */
export const useRandomBytes = (replacement: (size: number) => Uint8Array): (() => void) => {
  const before = source
  source = replacement
  return () => {
    source = before
  }
}

/** An incremental SHA-256, for files that are hashed while they stream. `soFar` may be asked at any time; `hex` ends it. */
export interface Sha256Stream {
  readonly update: (data: Uint8Array) => void
  readonly soFar: () => string
  readonly hex: () => string
}

export const sha256Stream = (): Sha256Stream => {
  const hash = crypto.createHash("sha256")
  let whole: string | undefined
  const hex = (): string => {
    whole ??= hash.digest("hex")
    return whole
  }
  return {
    update: (data) => void hash.update(data),
    // a copy costs as much as the hash of a small file
    soFar: () => whole ?? hash.copy().digest("hex"),
    hex
  }
}

/** A new key that signs: ECDSA over P-256 with SHA-256, which every TLS 1.3 implementation has (RFC 8446, 9.1). */
export interface SigningKey {
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
  /** PKCS#8, PEM. */
  readonly privateKey: string
  /** The signature, DER. */
  readonly sign: (data: Uint8Array) => Uint8Array
}

export const makeSigningKey = (): SigningKey => {
  const { privateKey, publicKey } = crypto.generateKeyPairSync("ec", { namedCurve: "prime256v1" })
  return {
    publicKey: publicKey.export({ type: "spki", format: "der" }),
    privateKey: privateKey.export({ type: "pkcs8", format: "pem" }) as string,
    sign: (data) => crypto.sign("sha256", data, privateKey)
  }
}
