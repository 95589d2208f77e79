import { assert, describe, it } from "@effect/vitest"
import { decodeUtf8, TextSlab } from "../../../src/platform/Text.ts"

const texts = [
  "",
  "a",
  "\u00e9",
  "\u20ac",
  "\u{1f600}",
  "\ufeffbom",
  "\ufffd itself",
  `${"x".repeat(300)}\u00e9`,
  "\u0000"
]

describe("short texts as UTF-8", () => {
  it("come back as they were, behind their first byte", () => {
    const slab = new TextSlab(2_048)
    const pieces = Array.from({ length: 200 }, (_, i) => slab.encode(i, texts[i % texts.length]!))
    for (const [i, piece] of pieces.entries()) {
      const text = texts[i % texts.length]!
      assert.deepStrictEqual([...piece], [i, ...new TextEncoder().encode(text)])
      assert.strictEqual(decodeUtf8(piece, 1), text)
      // The same bytes behind others, in a view of a plain array.
      assert.strictEqual(decodeUtf8(new Uint8Array([9, 9, 9, ...piece]).subarray(1), 3), text)
    }
  })

  it("have U+FFFD where a surrogate stands alone", () => {
    assert.strictEqual(decodeUtf8(new TextSlab(64).encode(1, "a\ud800b"), 1), "a\ufffdb")
  })

  it("are refused when they are not UTF-8, with or without a U+FFFD in them", () => {
    for (const bytes of [[0xff], [0xc3], [0x61, 0x80], [0xed, 0xa0, 0x80], [0xc0, 0x80], [0xef, 0xbf, 0xbd, 0xff]]) {
      assert.throws(() => decodeUtf8(new Uint8Array([1, ...bytes]), 1), TypeError)
    }
  })
})
