import { assert, describe, it } from "@effect/vitest"
import { decodeJoin, encodeJoin, type Join } from "../../../src/auth/Join.ts"

const fingerprint = "0123456789abcdef".repeat(4)
const join: Join = { user: "worker-1", host: "crawler.example.org", port: 8001, fingerprint }

describe("a join string", () => {
  it("says all but the secret, in one line", () => {
    assert.strictEqual(encodeJoin(join), `millrace://worker-1@crawler.example.org:8001/?sha256=${fingerprint}`)
  })

  it("comes back as it was, for names, IPv4 and IPv6 addresses", () => {
    for (const host of ["crawler.example.org", "10.0.0.7", "::1", "2001:db8::7"]) {
      assert.deepStrictEqual(decodeJoin(encodeJoin({ ...join, host })), { _tag: "Decoded", join: { ...join, host } })
    }
    const padded = decodeJoin(`  ${encodeJoin(join).replace("abc", "ABC")}\n`)
    assert.deepStrictEqual(padded, { _tag: "Decoded", join })
  })

  it("that is cut, edited or something else is refused with what to do", () => {
    const whole = encodeJoin(join)
    const cases = [
      "",
      "millrace://",
      "https://example.org",
      whole.slice(0, -1),
      `${whole}0`,
      `${whole}&x=1`,
      whole.replace("8001", "0"),
      whole.replace("8001", "65536"),
      whole.replace(":8001", ""),
      whole.replace("worker-1", "a b"),
      whole.replace("worker-1", "a/b"),
      whole.replace("worker-1@", ""),
      whole.replace("crawler.example.org", "[::1"),
      whole.replace("crawler.example.org", "a b"),
      whole.replace("millrace:", "MILLRACE:"),
      whole.replace("sha256", "sha1"),
      whole.replace("0123", "012x"),
      "x".repeat(10_000)
    ]
    for (const text of cases) {
      const decoded = decodeJoin(text)
      assert.strictEqual(decoded._tag, "Refused", text)
      assert.include(decoded._tag === "Refused" ? decoded.remedy : "", "millrace serve --network")
    }
  })
})
