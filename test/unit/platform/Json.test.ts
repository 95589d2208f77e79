import { assert, describe, it } from "@effect/vitest"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Codec from "../../../src/client/Codec.ts"
import { parseJson } from "../../../src/platform/Json.ts"

const one = ['"', "\\", "\b", "\f", "\n", "\r", "\t", "\u0000", "\u001f", "/"]
const escapes = [...one, 'a"', "a\\", "a\n", 'é"', "\\u", '\\"', "ab\t", "ab\\"]

describe("parseJson", () => {
  it("reads every key with an escape, whatever was parsed before", () => {
    for (const before of escapes) {
      for (const key of escapes) {
        for (const shape of [{}, { h: 1 }, { h: 1, deep: [{ x: "\\" }] }]) {
          parseJson(JSON.stringify({ ...shape, [before]: 0 }))
          JSON.parse(JSON.stringify({ ...shape, [before]: 0 }))
          const value = { ...shape, [key]: 1, [`${key}${key}`]: 2 }
          assert.deepStrictEqual(parseJson(JSON.stringify(value)), value)
        }
      }
    }
    assert.deepStrictEqual(parseJson('{"\\u000A" : 1, "a": {"\\/":2}}'), { "\n": 1, a: { "/": 2 } })
  })

  it("leaves texts, marks and __proto__ as they are", () => {
    const values = [
      '{"__proto__":{"\\n":1},"~0~":2,"\\t":{"__proto__":3}}',
      JSON.stringify({ 'say "\n': '"\\n":', text: '{"\\u0000":1}', "~0~~1~": ["\\", '"'] }),
      '["\\"","\\\\",{"\\"\\n":"\\n"}]'
    ]
    for (const text of values) assert.strictEqual(JSON.stringify(parseJson(text)), JSON.stringify(JSON.parse(text)))
    assert.strictEqual(Object.getPrototypeOf(parseJson('{"__proto__":{"\\n":1}}')), Object.prototype)
    for (const text of ['{"\\n":', '"\\"\\"'.repeat(1_000), "\\"]) assert.throws(() => parseJson(text), SyntaxError)
  })

  it("keeps the keys of a payload", () => {
    const codec = Codec.make(Schema.Record(Schema.String, Schema.Int))
    for (const key of escapes) {
      codec.decode(codec.encode({ "\\": 1 }) as Uint8Array)
      const value = { [key]: 1 }
      assert.deepStrictEqual(codec.decode(codec.encode(value) as Uint8Array), Exit.succeed(value))
    }
  })
})
