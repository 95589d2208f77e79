import { assert, describe, it } from "@effect/vitest"
import { visible, visibleLine, visibleLines } from "../../../src/cli/output.ts"
import { blockerOf, FactKind } from "../../../src/model/Explain.ts"

const readable = "a ~ é ß Ω 中文 日本 한국어 ✓ 🦊 e\u0301"

describe("text on a terminal", () => {
  it("has controls, directions, what is invisible and what is no character as escapes, and nothing else (M17)", () => {
    assert.strictEqual(visible(readable), readable)
    const cases: ReadonlyArray<readonly [string, string]> = [
      ["\u001b[31m", "\\u001b[31m"],
      ["\u009b31m", "\\u009b31m"],
      ["\r\n\t\b\0\u007f", "\\u000d\\u000a\\u0009\\u0008\\u0000\\u007f"],
      ["\u202e\u2066\u2069\u200f\u061c", "\\u202e\\u2066\\u2069\\u200f\\u061c"],
      ["\u200b\u2060\ufeff\u00ad", "\\u200b\\u2060\\ufeff\\u00ad"],
      ["\u2028\u2029", "\\u2028\\u2029"],
      ["\ud800 \udfff", "\\ud800 \\udfff"],
      ["\u{e0041}", "\\udb40\\udc41"]
    ]
    for (const [text, shown] of cases) assert.strictEqual(visible(text), shown)
    for (let code = 0; code < 0xa0; code++) {
      const shown = visible(String.fromCharCode(code))
      assert.match(shown, /^[ -~]+$/)
      assert.strictEqual(shown.length === 1, code >= 0x20 && code < 0x7f)
    }
  })

  it("in JSON means what it meant", () => {
    const value = { "\u202ekey": [`${readable}\u001b\u009b\u2028\u{e0041}`] }
    assert.deepStrictEqual(JSON.parse(visible(JSON.stringify(value))), value)
  })

  it("has the line breaks that are ours, or none", () => {
    assert.strictEqual(visibleLines("a\nb\r\u2028c"), "a\nb\\u000d\\u2028c")
    assert.strictEqual(visibleLine("a\n  b \r\n c"), "a b c")
  })
})

describe("the explanation of a lane", () => {
  it("tells a key with line breaks from the name of its limit", () => {
    const fact = { kind: FactKind.lane, subject: "a\nb\nrate", at: 0, value: 1, limit: 0 }
    const blocker = blockerOf(fact)
    assert(blocker._tag === "LaneLimit")
    assert.deepStrictEqual([blocker.key, blocker.limit], ["a\nb", "rate"])
  })
})
