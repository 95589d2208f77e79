import { assert, describe, it } from "@effect/vitest"
import * as Limits from "../../../src/Limits.ts"
import { Handshakes } from "../../../src/platform/Handshakes.ts"

describe("connections in their TLS handshake", () => {
  for (const [address, max] of [
    ["192.0.2.2", Limits.connectionsUnauthenticatedPerAddressMax],
    ["127.0.0.1", Limits.connectionsUnauthenticatedLoopbackMax]
  ] as const) {
    it(`have ${max} places for ${address}; one that ends makes room for one, and only once`, () => {
      const handshakes = new Handshakes()
      for (let i = 0; i < max; i++) assert.isUndefined(handshakes.begin(`${address}:${i}`))
      assert.match(handshakes.begin(`${address}:${max}`) ?? "taken", /too many connections/)
      handshakes.end(`${address}:0`)
      handshakes.end(`${address}:0`)
      handshakes.end(`${address}:${max}`)
      assert.isUndefined(handshakes.begin(`${address}:${max + 1}`))
      assert.match(handshakes.begin(`${address}:${max + 2}`) ?? "taken", /too many connections/)
    })
  }

  it("have places for others beside an address that took all of its own, up to those in all", () => {
    const handshakes = new Handshakes()
    for (let i = 0; i < 1_000; i++) handshakes.begin(`192.0.2.2:${i}`)
    assert.isUndefined(handshakes.begin("192.0.2.3:1"))
    const free = Limits.connectionsUnauthenticatedMax - Limits.connectionsUnauthenticatedPerAddressMax - 1
    for (let i = 0; i < free; i++) assert.isUndefined(handshakes.begin(`10.0.${i >> 8}.${i & 255}:1`))
    assert.strictEqual(handshakes.begin("192.0.2.4:1"), "too many connections in the handshake")
  })
})
