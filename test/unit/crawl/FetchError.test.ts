import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { Cause, FetchError, fromUndici, retryAfter, retryable } from "../../../src/crawl/FetchError.ts"
import * as Limits from "../../../src/Limits.ts"

const error = (cause: Cause, status?: number) =>
  new FetchError({ url: "http://a.test/", cause, detail: "x", ...(status === undefined ? {} : { status }) })

describe("FetchError", () => {
  it("retries what may get better, and nothing else", () => {
    const retried = Cause.literals.filter((cause) => retryable(error(cause)))
    assert.deepStrictEqual(retried, ["dns", "connect", "headers", "idle", "slow", "reset", "disk", "digest"])
    const statuses = [200, 301, 400, 401, 403, 404, 408, 410, 425, 429, 500, 501, 502, 503, 504, 505, 522, 524]
    assert.deepStrictEqual(
      statuses.filter((status) => retryable(error("status", status))),
      [408, 425, 429, 500, 502, 503, 504, 522, 524]
    )
    assert.isFalse(retryable(error("size", 503)))
  })

  it("travels as JSON", () => {
    const codec = Schema.fromJsonString(Schema.toCodecJson(FetchError))
    const sent = new FetchError({ url: "u", cause: "status", detail: "d", status: 503, retryAfterMs: 1_000 })
    const text = Schema.encodeUnknownSync(codec)(sent)
    const received = Schema.decodeUnknownSync(codec)(text)
    assert.instanceOf(received, FetchError)
    assert.deepStrictEqual({ ...received }, { ...sent })
    assert.strictEqual(received.message, "status: d (u)")
  })

  it("maps failures by code, through the causes", () => {
    const coded = (code: string, options?: ErrorOptions) => Object.assign(new Error("m", options), { code })
    const cause = (failure: unknown) => fromUndici("u", failure).cause
    assert.strictEqual(cause(coded("ENOTFOUND")), "dns")
    assert.strictEqual(cause(coded("EAI_AGAIN")), "dns")
    assert.strictEqual(cause(coded("ECONNREFUSED")), "connect")
    assert.strictEqual(cause(coded("UND_ERR_CONNECT_TIMEOUT")), "connect")
    assert.strictEqual(cause(coded("DEPTH_ZERO_SELF_SIGNED_CERT")), "tls")
    assert.strictEqual(cause(coded("UND_ERR_HEADERS_TIMEOUT")), "headers")
    assert.strictEqual(cause(coded("UND_ERR_BODY_TIMEOUT")), "idle")
    assert.strictEqual(cause(coded("UND_ERR_SOCKET")), "reset")
    assert.strictEqual(cause(coded("ECONNRESET")), "reset")
    assert.strictEqual(cause(coded("HPE_INVALID_CONSTANT")), "decode")
    assert.strictEqual(cause(new Error("outer", { cause: coded("ENOTFOUND") })), "dns")
    assert.strictEqual(cause(new Error("?")), "reset")
    assert.strictEqual(cause("?"), "reset")
  })
})

describe("retryAfter", () => {
  const now = Date.UTC(2026, 10, 6, 8, 49, 37)

  it.each([
    { value: "1", expected: 1_000 },
    { value: " 120 ", expected: 120_000 },
    { value: "0.5", expected: 500 },
    { value: "0", expected: undefined },
    { value: "-1", expected: undefined },
    { value: "", expected: undefined },
    { value: "soon", expected: undefined },
    { value: "1e9", expected: undefined },
    { value: "999999999999", expected: Limits.retryAfterMsMax },
    { value: "Fri, 06 Nov 2026 08:50:37 GMT", expected: 60_000 },
    { value: "Friday, 06-Nov-26 08:50:37 GMT", expected: 60_000 },
    { value: "Fri Nov  6 08:50:37 2026", expected: 60_000 },
    { value: "Sunday, 06-Nov-94 08:49:37 GMT", expected: undefined },
    { value: "Fri, 06 Nov 2026 08:49:37 GMT", expected: undefined },
    { value: "Fri, 06 Nov 2027 08:49:37 GMT", expected: Limits.retryAfterMsMax },
    { value: "Fri, 06 Foo 2027 08:49:37 GMT", expected: undefined }
  ])("reads $value", ({ expected, value }) => {
    assert.strictEqual(retryAfter(value, now), expected)
  })

  it("has no hint where there is no header", () => {
    assert.isUndefined(retryAfter(undefined, now))
  })
})
