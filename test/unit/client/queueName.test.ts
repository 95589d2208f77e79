import { assert, describe, it } from "@effect/vitest"
import { queueNameOf } from "../../../src/client/QueueName.ts"
import { isName } from "../../../src/wire/pieces.ts"

const long = "n".repeat(200)

describe("a text as the name of a queue", () => {
  it("is itself where it may be", () => {
    for (const text of ["a", "A.b_c:d-e", long, "effect", "effects:x"]) assert.strictEqual(queueNameOf(text), text)
  })

  it("is readable where it may not", () => {
    assert.strictEqual(queueNameOf("DurableQueue/mail"), "effect:DurableQueue:002fmail")
  })

  it("is a name, and another one for every text", () => {
    const pieces = [
      "",
      "a",
      "/",
      ":",
      "effect:",
      ":002f",
      "002f",
      "é",
      "e\u0301",
      "\ud83d\ude00",
      "\ud83d",
      "\ude00",
      long
    ]
    const texts = new Set(pieces)
    for (const a of pieces) for (const b of pieces) for (const c of pieces) texts.add(a + b + c)
    for (const text of [...texts]) texts.add(queueNameOf(text))
    const names = new Map<string, string>()
    for (const text of texts) {
      const name = queueNameOf(text)
      assert.match(name, isName)
      assert.strictEqual(names.get(name) ?? text, text)
      names.set(name, text)
    }
    assert.isAtLeast(texts.size, 1_500)
  })
})
