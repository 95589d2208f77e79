import { assert, describe, it } from "@effect/vitest"
import * as Limits from "../../../src/Limits.ts"
import { Strangers } from "../../../src/platform/Strangers.ts"

describe("connections that have not proven who they are", () => {
  for (const [source, max] of [
    ["192.0.2.2", Limits.connectionsUnauthenticatedPerAddressMax],
    ["127.0.0.1", Limits.connectionsUnauthenticatedLoopbackMax]
  ] as const) {
    it(`have ${max} places for ${source}; one that leaves makes room for one`, () => {
      const strangers = new Strangers()
      for (let i = 0; i < max; i++) assert.isUndefined(strangers.enter(source))
      assert.match(strangers.enter(source) ?? "taken", /too many connections/)
      strangers.leave(source)
      assert.isUndefined(strangers.enter(source))
      assert.match(strangers.enter(source) ?? "taken", /too many connections/)
    })
  }

  it("have places for others beside a source that took all of its own, up to those in all", () => {
    const strangers = new Strangers()
    for (let i = 0; i < 1_000; i++) strangers.enter("192.0.2.2")
    const free = Limits.connectionsUnauthenticatedMax - Limits.connectionsUnauthenticatedPerAddressMax
    for (let i = 0; i < free; i++) assert.isUndefined(strangers.enter(`10.0.${i >> 8}.${i & 255}`))
    assert.strictEqual(strangers.enter("192.0.2.4"), "too many connections in the handshake")
  })
})
