import { assert, describe, it } from "@effect/vitest"
import {
  type DecodedVerifier,
  decodeBase64,
  decodeVerifier,
  deriveVerifier,
  encodeVerifier,
  generateKey,
  isIterations,
  isKey,
  isName,
  iterationsFor,
  keyBytes,
  mockVerifier,
  saltBytes,
  type Verifier
} from "../../../src/auth/Credentials.ts"

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64")
const filled = (size: number, value: number): Uint8Array => new Uint8Array(size).fill(value)
const counting = (size: number): Uint8Array => Uint8Array.from({ length: size }, (_, index) => index * 37 + 11)

const readable = (verifier: Verifier) => ({
  ...verifier,
  salt: hex(verifier.salt),
  storedKey: hex(verifier.storedKey),
  serverKey: hex(verifier.serverKey)
})

const reasonOf = (decoded: DecodedVerifier): string => (decoded._tag === "Refused" ? decoded.reason : "Decoded")

describe("names and keys", () => {
  it("a name has 1 to 200 plain characters", () => {
    for (const name of ["a", "crawler-1", "A.b_c:d-9", "__proto__", "x".repeat(199), "x".repeat(200)]) {
      assert.isTrue(isName(name), name)
    }
    for (const name of ["", "x".repeat(201), "a b", "a,b", "a=b", "ä", "a\n", "\na", "a/b", "a\u0000", "ａ"]) {
      assert.isFalse(isName(name), JSON.stringify(name))
    }
  })

  it("a key has 1 to 1,024 bytes", () => {
    assert.deepStrictEqual(
      [0, 1, 1_023, 1_024, 1_025].map((size) => isKey(filled(size, 65))),
      [false, true, true, true, false]
    )
  })

  it("two spellings of the same characters are the same key", () => {
    assert.strictEqual(hex(keyBytes("e\u0301\uff21")), hex(keyBytes("\u00e9A")))
    assert.strictEqual(hex(keyBytes("pencil")), "70656e63696c")
    assert.notStrictEqual(hex(keyBytes("Pencil")), hex(keyBytes("pencil")))
  })

  it("a generated key is the base64url text of its 32 random bytes", () => {
    const key = generateKey(filled(32, 255))
    assert.strictEqual(key, "__________________________________________8")
    assert.strictEqual(hex(Buffer.from(generateKey(counting(32)), "base64url")), hex(counting(32)))
    assert.throws(() => generateKey(filled(31, 1)), RangeError)
  })

  it("a generated key needs few iterations, what people type needs many", () => {
    const generated = generateKey(counting(32))
    assert.strictEqual(generated.length, 43)
    const expected: ReadonlyArray<readonly [string, number]> = [
      [generated, 4_096],
      [generated + "x", 4_096],
      [hexKey, 4_096],
      [generated.slice(0, 42), 600_000],
      [generated.slice(0, 42) + "+", 600_000],
      [generated + " ", 600_000],
      ["password-".repeat(6), 600_000],
      ["a".repeat(64), 600_000],
      ["pencil", 600_000],
      ["", 600_000]
    ]
    for (const [key, iterations] of expected) assert.strictEqual(iterationsFor(keyBytes(key)), iterations, key)
  })

  it("iterations are whole numbers from 4,096 to 1,000,000", () => {
    assert.deepStrictEqual(
      [4_095, 4_096, 4_097, 999_999, 1_000_000, 1_000_001, 4_096.5, Number.NaN, Number.POSITIVE_INFINITY].map(
        isIterations
      ),
      [false, true, true, true, true, false, false, false, false]
    )
  })
})

const hexKey = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

describe("verifiers", () => {
  it("are derived as in RFC 7677 and written as PostgreSQL writes them", async () => {
    const salt = decodeBase64("W22ZaJ0SNY7soEsUEjb6gQ==")!
    const verifier = await deriveVerifier("user", keyBytes("pencil"), salt, 4_096)
    const text = encodeVerifier(verifier)
    assert.strictEqual(
      text,
      "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:" +
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )
    const decoded = decodeVerifier("user", text)
    assert.strictEqual(decoded._tag, "Decoded")
    if (decoded._tag === "Decoded") assert.deepStrictEqual(readable(decoded.verifier), readable(verifier))
  })

  it("are not derived outside the bounds", async () => {
    const attempts: ReadonlyArray<Parameters<typeof deriveVerifier>> = [
      ["a b", filled(1, 65), filled(16, 1), 4_096],
      ["a", filled(0, 65), filled(16, 1), 4_096],
      ["a", filled(1_025, 65), filled(16, 1), 4_096],
      ["a", filled(1, 65), filled(7, 1), 4_096],
      ["a", filled(1, 65), filled(65, 1), 4_096],
      ["a", filled(1, 65), filled(16, 1), 4_095],
      ["a", filled(1, 65), filled(16, 1), 1_000_001]
    ]
    for (const attempt of attempts) {
      const failure: unknown = await deriveVerifier(...attempt).then(
        () => "derived",
        (error: unknown) => error
      )
      assert.instanceOf(failure, RangeError)
    }
  })

  it("refuse a text with anything missing, added or spelt differently", () => {
    const [salt, stored, server] = [filled(16, 1), filled(32, 2), filled(32, 3)].map(base64)
    const text = (iterations: string, saltText = salt, storedText = stored, serverText = server) =>
      `SCRAM-SHA-256$${iterations}:${saltText}$${storedText}:${serverText}`
    assert.strictEqual(reasonOf(decodeVerifier("user", text("4096"))), "Decoded")
    assert.strictEqual(reasonOf(decodeVerifier("user", text("1000000"))), "Decoded")
    assert.strictEqual(reasonOf(decodeVerifier("us er", text("4096"))), "InvalidName")
    for (const iterations of ["1", "4095", "1000001", "2147483647"]) {
      assert.strictEqual(reasonOf(decodeVerifier("user", text(iterations))), "IterationsOutOfBounds", iterations)
    }
    for (const size of [8, 64]) {
      assert.strictEqual(reasonOf(decodeVerifier("user", text("4096", base64(filled(size, 1))))), "Decoded")
    }
    const malformed = [
      "",
      "pencil",
      "md5" + "0".repeat(32),
      text("0"),
      text("04096"),
      text("-4096"),
      text("4096.0"),
      text("99999999999"),
      text("4096", base64(filled(7, 1))),
      text("4096", base64(filled(65, 1))),
      text("4096", "AQEBAQEBAQEBAQEBAQEBAR=="),
      text("4096", salt, base64(filled(31, 2))),
      text("4096", salt, stored, base64(filled(33, 3))),
      text("4096", salt, stored, stored!.replace("=", "A")),
      text("4096").replace("256", "1"),
      text("4096") + "\n",
      " " + text("4096"),
      text("4096") + ":" + server
    ]
    for (const each of malformed) assert.strictEqual(reasonOf(decodeVerifier("user", each)), "MalformedVerifier", each)
  })

  it("base64 has one spelling", () => {
    assert.strictEqual(hex(decodeBase64("AQ==")!), "01")
    for (const text of ["AQ", "AQ=", "AR==", "AQ==\n", "A\nQ==", "A===", "=AQ=", "AQ==AQ==", "AQ-_", "AQ é"]) {
      assert.isUndefined(decodeBase64(text), JSON.stringify(text))
    }
  })
})

describe("mock verifiers", () => {
  const secret = filled(32, 7)

  it("are stable for a name and a secret, and differ between names and between secrets", () => {
    const first = readable(mockVerifier("ghost", secret))
    assert.deepStrictEqual(readable(mockVerifier("ghost", secret)), first)
    for (const other of [mockVerifier("ghost2", secret), mockVerifier("ghost", filled(32, 8))]) {
      assert.notStrictEqual(readable(other).salt, first.salt)
      assert.notStrictEqual(readable(other).storedKey, first.storedKey)
    }
  })

  it("look like the real ones", () => {
    const verifier = mockVerifier("ghost", secret)
    assert.strictEqual(verifier.salt.byteLength, saltBytes)
    assert.strictEqual(verifier.iterations, 4_096)
    assert.strictEqual(reasonOf(decodeVerifier("ghost", encodeVerifier(verifier))), "Decoded")
  })

  it("show every iteration count in use, always the same for one name", () => {
    const names = Array.from({ length: 64 }, (_, index) => `ghost-${index}`)
    const counts = names.map((name) => mockVerifier(name, secret, [600_000, 4_096, 600_000]).iterations)
    assert.deepStrictEqual([...new Set(counts)].sort(), [4_096, 600_000])
    assert.deepStrictEqual(
      names.map((name) => mockVerifier(name, secret, [4_096, 600_000]).iterations),
      counts
    )
  })
})
