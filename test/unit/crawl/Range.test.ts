import { assert, describe, it } from "@effect/vitest"
import * as Range from "../../../src/crawl/Range.ts"
import * as Limits from "../../../src/Limits.ts"

describe("the validator of a response", () => {
  const at = (ms: number): string => new Date(Date.UTC(2026, 0, 1) + ms).toUTCString()
  const young = Limits.lastModifiedStrongMs
  const cases: ReadonlyArray<readonly [Record<string, string>, Range.Validator | undefined]> = [
    [{ etag: '"a"' }, { etag: '"a"' }],
    [{ etag: '""' }, { etag: '""' }],
    [{ etag: '"a"', "last-modified": at(0), date: at(young) }, { etag: '"a"' }],
    [{ etag: 'W/"a"' }, undefined],
    [{ etag: 'w/"a"' }, undefined],
    [{ etag: "a" }, undefined],
    [{ etag: '"a", "b"' }, undefined],
    [{ etag: '"a b"' }, undefined],
    [{ etag: '"\u00e9"' }, undefined],
    [{ etag: `"${"a".repeat(Limits.validatorCharsMax)}"` }, undefined],
    [{ etag: 'W/"a"', "last-modified": at(0), date: at(young) }, undefined],
    [{ "last-modified": at(0), date: at(young) }, { lastModified: at(0) }],
    [{ "last-modified": at(0), date: at(young - 1_000) }, undefined],
    [{ "last-modified": at(young), date: at(0) }, undefined],
    [{ "last-modified": at(0) }, undefined],
    [{ "last-modified": "0", date: at(0) }, undefined],
    [{ "last-modified": at(0), date: "now" }, undefined],
    [{}, undefined]
  ]
  it("is strong, or is none", () => {
    for (const [headers, expected] of cases) {
      assert.deepStrictEqual(Range.validatorOf(headers), expected, JSON.stringify(headers))
    }
  })
})

describe("Content-Range", () => {
  it("is read when it is right in itself", () => {
    const right: ReadonlyArray<readonly [string, number, number, number | undefined]> = [
      ["bytes 0-0/1", 0, 0, 1],
      ["bytes 5-9/10", 5, 9, 10],
      ["BYTES 5-9/*", 5, 9, undefined],
      [" bytes 5-9/200 ", 5, 9, 200]
    ]
    for (const [text, first, last, total] of right) {
      assert.deepStrictEqual(Range.parseContentRange(text), { first, last, total })
    }
    const wrong = [
      "",
      "bytes */10",
      "bytes 5-4/10",
      "bytes 5-10/10",
      "bytes 5-9",
      "bytes -5/10",
      "bytes=5-9/10",
      "5-9/10"
    ]
    wrong.push("bytes 5-9/1e3", "bytes 05.0-9/10", "bytes 5-9/10, bytes 0-1/10", `bytes 1-2/${"9".repeat(16)}`)
    for (const text of [undefined, ...wrong]) assert.isUndefined(Range.parseContentRange(text), text)
  })
})

describe("an answer to a request for the rest", () => {
  const url = "http://a.test/file?signed=1"
  const checkpoint: Range.Checkpoint = {
    ...{ url, source: "http://a.test/file", part: "0".repeat(16), bytes: 40, sha256: "0".repeat(64), total: 100 },
    etag: '"a"'
  }
  const { etag: _, ...untagged } = checkpoint
  const byDate: Range.Checkpoint = { ...untagged, lastModified: "Thu, 01 Jan 2026 00:00:00 GMT" }
  const verdict = (status: number, headers: Record<string, string>, held = checkpoint, from = url) =>
    Range.judge({ status, headers, url: from }, held)._tag
  const part = { "content-range": "bytes 40-99/100", etag: '"a"' }

  it("is gone on with when it is the rest of the same version", () => {
    assert.deepStrictEqual(Range.judge({ status: 206, headers: part, url }, checkpoint), {
      ...{ _tag: "Append", total: 100, bytes: 60 }
    })
    assert.strictEqual(verdict(206, { ...part, "content-range": "bytes 40-99/*" }), "Append")
    assert.strictEqual(verdict(206, part, checkpoint, "http://a.test/file?signed=2"), "Append")
    const { "content-range": range } = part
    assert.strictEqual(verdict(206, { "content-range": range }, byDate), "Append")
    assert.strictEqual(
      verdict(206, { "content-range": range, "last-modified": byDate.lastModified! }, byDate),
      "Append"
    )
  })

  it("is refused when it is not, and all other answers are those to a request for the whole", () => {
    const { total: _, ...sizeless } = checkpoint
    assert.strictEqual(verdict(206, { ...part, "content-range": "bytes 40-99/*" }, sizeless), "Again")
    assert.strictEqual(verdict(206, { ...part, etag: 'W/"a"' }), "Again")
    assert.strictEqual(verdict(206, { ...part, "content-encoding": "gzip" }), "Again")
    assert.strictEqual(verdict(206, part, checkpoint, "http://b.test/file"), "Again")
    assert.strictEqual(verdict(206, part, byDate), "Again")
    const other = { "content-range": part["content-range"], "last-modified": "Fri, 02 Jan 2026 00:00:00 GMT" }
    assert.strictEqual(verdict(206, other, byDate), "Again")
    for (const status of [200, 203, 304, 404, 503]) assert.strictEqual(verdict(status, part), "Whole")
  })

  it("is the end when it is 416 of the size that is held, and says of which version", () => {
    const end = { "content-range": "bytes */40", etag: '"a"' }
    assert.strictEqual(verdict(416, end), "Complete")
    assert.strictEqual(verdict(416, { ...end, "content-range": "bytes */41" }), "Again")
    assert.strictEqual(verdict(416, { ...end, etag: '"b"' }), "Again")
    assert.strictEqual(verdict(416, { etag: '"a"' }), "Again")
    assert.strictEqual(verdict(416, { "content-range": "bytes */40" }, byDate), "Again")
    const dated = { "content-range": "bytes */40", "last-modified": byDate.lastModified! }
    assert.strictEqual(verdict(416, dated, byDate), "Complete")
  })
})
