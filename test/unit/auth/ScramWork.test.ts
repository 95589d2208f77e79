import { assert, describe, it } from "@effect/vitest"
import { vi } from "vitest"
import { deriveVerifier, keyBytes } from "../../../src/auth/Credentials.ts"
import { clientChallenge, clientFinal, clientFirst, serverFinal, serverFirst } from "../../../src/auth/Scram.ts"
import type * as Crypto from "../../../src/platform/Crypto.ts"

const calls = vi.hoisted((): Array<string> => [])

vi.mock("../../../src/platform/Crypto.ts", async (original) => {
  const crypto = await original<typeof Crypto>()
  const counted = <A extends ReadonlyArray<Uint8Array>, B>(name: string, run: (...args: A) => B) => {
    return (...args: A): B => {
      calls.push(`${name}(${args.map((bytes) => bytes.byteLength).join(", ")})`)
      return run(...args)
    }
  }
  return {
    ...crypto,
    sha256: counted("sha256", crypto.sha256),
    hmacSha256: counted("hmacSha256", crypto.hmacSha256),
    timingSafeEqual: counted("timingSafeEqual", crypto.timingSafeEqual)
  }
})

const filled = (size: number, value: number): Uint8Array => new Uint8Array(size).fill(value)

describe("the server's work", () => {
  it("is call for call the same for a known and an unknown name of the same length, and never a derivation (M2)", async () => {
    const known = await deriveVerifier("crawler", keyBytes("pencil"), filled(16, 9), 4_096)
    const helloHash = filled(32, 4)
    const work = (name: string) => {
      const first = clientFirst({ name, nonce: filled(18, 1), helloHash })
      calls.length = 0
      const challenged = serverFirst({
        clientFirst: first.message,
        lookup: (wanted) => (wanted === known.name ? known : undefined),
        mockSecret: filled(32, 7),
        nonce: filled(18, 2),
        helloHash
      })
      const atFirst = [...calls]
      assert.strictEqual(challenged._tag, "Challenge")
      if (challenged._tag !== "Challenge") return []
      const derive = clientChallenge(first.state, challenged.message)
      assert.strictEqual(derive._tag, "Derive")
      if (derive._tag !== "Derive") return []
      const final = clientFinal(derive.state, filled(32, 5))
      calls.length = 0
      assert.deepStrictEqual(serverFinal(challenged.state, final.message), {
        _tag: "Refused",
        reason: "InvalidCredentials"
      })
      return [...atFirst, "|", ...calls]
    }
    const member = work("crawler")
    assert.deepStrictEqual(work("unknown"), member)
    assert.deepStrictEqual(
      member.slice(member.indexOf("|") + 1).map((call) => call.split("(")[0]),
      ["hmacSha256", "hmacSha256", "sha256", "timingSafeEqual"]
    )
  })
})
