import { X509Certificate } from "node:crypto"
import { assert, describe, it } from "@effect/vitest"
import { fingerprintOf, isFingerprint, makeCertificate } from "../../../src/auth/Certificate.ts"
import { makeSigningKey } from "../../../src/platform/Crypto.ts"

const now = Date.UTC(2026, 10, 28, 12)
const make = (hosts: ReadonlyArray<string>, serial = new Uint8Array(16).fill(0xff)) =>
  makeCertificate({ key: makeSigningKey(), hosts, serial, now })

describe("a certificate that a manager makes", () => {
  it("is read by others, signed by its own key, and names its hosts", () => {
    const { certificate, privateKey } = make(["crawler-1.example.org", "10.1.2.3", "localhost"])
    const read = new X509Certificate(certificate)
    assert.isTrue(read.verify(read.publicKey))
    assert.strictEqual(read.subject, "CN=millrace manager")
    assert.strictEqual(read.issuer, read.subject)
    assert.strictEqual(read.subjectAltName, "DNS:crawler-1.example.org, IP Address:10.1.2.3, DNS:localhost")
    assert.strictEqual(read.checkHost("crawler-1.example.org"), "crawler-1.example.org")
    assert.strictEqual(read.checkIP("10.1.2.3"), "10.1.2.3")
    assert.strictEqual(read.checkHost("another.example.org"), undefined)
    assert.isTrue(read.ca)
    assert.match(privateKey, /^-----BEGIN PRIVATE KEY-----\n/)
  })

  it("holds from the day before for ten years, whatever this machine's clock says of the other's", () => {
    const read = new X509Certificate(make(["localhost"]).certificate)
    assert.strictEqual(new Date(read.validFrom).getTime(), now - 86_400_000)
    assert.strictEqual(new Date(read.validTo).getTime(), now + 3_650 * 86_400_000)
  })

  it("has a positive serial number of its shortest form, whatever the random bytes are", () => {
    for (const byte of [0x00, 0x01, 0x7f, 0x80, 0xff]) {
      const { serialNumber } = new X509Certificate(make(["a"], new Uint8Array(16).fill(byte)).certificate)
      assert.strictEqual(serialNumber.length, 32, serialNumber)
      assert.isBelow(Number.parseInt(serialNumber.slice(0, 2), 16), 0x80)
    }
  })

  it("leaves out what is no host, and a long list of hosts is whole", () => {
    const hosts = Array.from({ length: 200 }, (_, i) => `host-${i}.example.org`)
    const read = new X509Certificate(make(["a b", "", "-x", "x\0y", "fe80::1", ...hosts, ...hosts]).certificate)
    assert.strictEqual(read.subjectAltName, hosts.map((host) => `DNS:${host}`).join(", "))
  })

  it("is known by the fingerprint that other tools compute", () => {
    const { certificate, privateKey } = make(["localhost"])
    const expected = new X509Certificate(certificate).fingerprint256.replaceAll(":", "").toLowerCase()
    assert.strictEqual(fingerprintOf(certificate), expected)
    assert.strictEqual(fingerprintOf(`${certificate}${privateKey}`), expected)
    assert.isTrue(isFingerprint(expected))
    assert.isFalse(isFingerprint(expected.slice(1)))
    for (const text of ["", "no PEM", privateKey, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"]) {
      assert.isUndefined(fingerprintOf(text))
    }
  })
})
