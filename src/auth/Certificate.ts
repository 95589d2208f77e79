/**
 * The certificate that a manager makes for itself (X.509 v3, RFC 5280; DER, X.690), and the fingerprint that clients know
 * it by.
 *
 * It is signed by its own key: nobody vouches for it, and nobody needs to. A client that was given the fingerprint takes
 * this certificate and no other, so its dates and names are for people and for other tools.
 */
import { Base64, Hex } from "effect/encoding"
import { type SigningKey, sha256 } from "../platform/Crypto.ts"

/** A fingerprint as text: 64 hexadecimal digits. */
export const isFingerprint = (text: string): boolean => /^[0-9a-fA-F]{64}$/.test(text)

// ---- DER

const tag = {
  boolean: 0x01,
  integer: 0x02,
  bits: 0x03,
  bytes: 0x04,
  oid: 0x06,
  utf8: 0x0c,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31
}
/** Context-specific: `[n]`, constructed or not. */
const context = (n: number, constructed: boolean): number => 0x80 + n + (constructed ? 0x20 : 0)

const lengthOf = (size: number): ReadonlyArray<number> =>
  size < 0x80 ? [size] : size < 0x100 ? [0x81, size] : [0x82, size >> 8, size & 0xff]

const der = (type: number, ...contents: ReadonlyArray<Uint8Array | ReadonlyArray<number>>): Uint8Array => {
  const content = contents.flatMap((part) => [...part])
  return Uint8Array.from([type, ...lengthOf(content.length), ...content])
}

const text = (type: number, value: string): Uint8Array => der(type, new TextEncoder().encode(value))

// Each number is short: seven bits a byte, the last without the high bit.
const commonNameType = der(tag.oid, [0x55, 0x04, 0x03])
const ecdsaWithSha256 = der(tag.sequence, der(tag.oid, [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]))
const subjectAltName = der(tag.oid, [0x55, 0x1d, 0x11])
const basicConstraints = der(tag.oid, [0x55, 0x1d, 0x13])
const extendedKeyUsage = der(tag.oid, [0x55, 0x1d, 0x25])
const serverAuth = der(tag.oid, [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01])
const clientAuth = der(tag.oid, [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02])

const dayMs = 86_400_000

const time = (ms: number): Uint8Array =>
  text(tag.generalizedTime, `${new Date(ms).toISOString().replace(/[-:T]/g, "").slice(0, 14)}Z`)

/** The bytes of an IPv4 address; IPv6 ones are left to the fingerprint. */
const ipv4 = (host: string): ReadonlyArray<number> | undefined => {
  const parts = host.split(".")
  return parts.length === 4 && parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256)
    ? parts.map(Number)
    : undefined
}

const nameOf = (host: string): Uint8Array => {
  const address = ipv4(host)
  return address === undefined ? text(context(2, false), host) : der(context(7, false), address)
}

const dnsName = /^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/

export interface Certificate {
  /** PEM. */
  readonly certificate: string
  /** PEM; a secret. */
  readonly privateKey: string
}

/** For these hosts (names and IPv4 addresses; others are left out). `serial`: 16 random bytes. `now`: wall time in ms. */
export const makeCertificate = (options: {
  readonly key: SigningKey
  readonly hosts: ReadonlyArray<string>
  readonly serial: Uint8Array
  readonly now: number
}): Certificate => {
  const name = der(tag.sequence, der(tag.set, der(tag.sequence, commonNameType, text(tag.utf8, "millrace manager"))))
  const hosts = [...new Set(options.hosts)].filter((host) => dnsName.test(host))
  const extension = (type: Uint8Array, value: Uint8Array): Uint8Array => der(tag.sequence, type, der(tag.bytes, value))
  const body = der(
    tag.sequence,
    der(context(0, true), der(tag.integer, [2])),
    // Positive, and no leading zero: RFC 5280, 4.1.2.2.
    der(tag.integer, [0x40 | (options.serial[0]! & 0x3f), ...options.serial.subarray(1)]),
    ecdsaWithSha256,
    name,
    der(tag.sequence, time(options.now - dayMs), time(options.now + 3_650 * dayMs)),
    name,
    options.key.publicKey,
    der(
      context(3, true),
      der(
        tag.sequence,
        extension(basicConstraints, der(tag.sequence, der(tag.boolean, [0xff]))),
        extension(extendedKeyUsage, der(tag.sequence, serverAuth, clientAuth)),
        extension(subjectAltName, der(tag.sequence, ...hosts.map(nameOf)))
      )
    )
  )
  const signature = options.key.sign(body)
  const whole = der(tag.sequence, body, ecdsaWithSha256, der(tag.bits, [0], signature))
  const lines = Base64.encode(whole).replace(/.{64}/g, "$&\n").trimEnd()
  return {
    certificate: `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`,
    privateKey: options.key.privateKey
  }
}

/** SHA-256 of the first certificate in a PEM text; undefined: there is none. */
export const fingerprintOf = (pem: string): string | undefined => {
  const [, body = ""] = /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----/.exec(pem) ?? []
  const decoded = Base64.decode(body.replace(/\s/g, ""))
  return decoded._tag === "Success" && decoded.success.byteLength > 0 ? Hex.encode(sha256(decoded.success)) : undefined
}
