import { assert, describe, it } from "@effect/vitest"
import * as Srcset from "../../../src/crawl/Srcset.ts"

const urls = (text: string) => Srcset.parse(text).map(({ url }) => url)

const table: ReadonlyArray<readonly [string, ReadonlyArray<string>]> = [
  ["a.jpg, b.jpg 2x", ["a.jpg", "b.jpg"]],
  ["a.jpg,b.jpg 2x", ["a.jpg,b.jpg"]],
  ["/w_100,h_50/a.jpg 1x, /w_200,h_90/a.jpg 2x", ["/w_100,h_50/a.jpg", "/w_200,h_90/a.jpg"]],
  [" , ,,a.jpg", ["a.jpg"]],
  [",,,", []],
  ["", []],
  ["   ", []],
  ["a 1x 1x (, b 1x, ), c", ["c"]],
  ["a, b (", ["a"]],
  ["a 1x (, b", []],
  ["a 1w 1h", ["a"]],
  ["a 1h 1w", ["a"]],
  ["a 1h", []],
  ["a 0x", ["a"]],
  ["a 1e0x", ["a"]],
  ["a .5x", ["a"]],
  ["a 0w", []],
  ["a 1.0w", []],
  ["a +1w", []],
  ["a -1x", []],
  ["a 1.x", []],
  ["a 1w 1x", []],
  ["a foo", []],
  ["a 100w, b 100w", ["a", "b"]],
  ["a 1x 2x, b", ["b"]],
  ["a 1w 2w, b", ["b"]],
  ["a 1x 1h, b", ["b"]],
  ["a,, b", ["a", "b"]],
  ["\ta\n1x\r,\fb\t2x ", ["a", "b"]],
  ["a Infinityx", []],
  ["a 0x10x", []],
  ["a 1X", []],
  ["a x", []],
  ["a w", []],
  ["a (1x)", []],
  ["a 1x) , b", ["b"]],
  ["data:image/png;base64,AAAA 1x, b 2x", ["data:image/png;base64,AAAA", "b"]]
]

describe("Srcset", () => {
  it.each(table.map(([text, expected]) => ({ text, expected })))("parses $text", ({ expected, text }) => {
    assert.deepStrictEqual(urls(text), expected)
  })

  it("gives the descriptors as numbers", () => {
    assert.deepStrictEqual(Srcset.parse("a, b 1.5x, c 320w 200h"), [
      { url: "a" },
      { url: "b", density: 1.5 },
      { url: "c", width: 320, height: 200 }
    ])
  })

  it("reads a very long attribute in one pass", () => {
    assert.strictEqual(Srcset.parse("a ".repeat(200_000)).length, 0)
    assert.strictEqual(Srcset.parse("a 1x,".repeat(200_000)).length, 200_000)
    assert.strictEqual(Srcset.parse(`a ${"(".repeat(200_000)}`).length, 0)
    assert.strictEqual(Srcset.parse(`a${",".repeat(200_000)}b 1x`).length, 1)
    const startedAt = performance.now()
    assert.deepStrictEqual(Srcset.parse(`a${",".repeat(200_000)}b,,`), [{ url: `a${",".repeat(200_000)}b` }])
    // 4 s for half of it, where each comma of the run was looked at from each.
    assert.isBelow(performance.now() - startedAt, 1_000)
  })
})
