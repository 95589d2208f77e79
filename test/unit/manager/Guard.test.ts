import { assert, describe, it } from "@effect/vitest"
import { deriveVerifier, keyBytes, saltPassword } from "../../../src/auth/Credentials.ts"
import type { Grant } from "../../../src/auth/Roles.ts"
import * as Scram from "../../../src/auth/Scram.ts"
import * as Limits from "../../../src/Limits.ts"
import { Core } from "../../../src/manager/Core.ts"
import { sha256 } from "../../../src/platform/Crypto.ts"
import { pair } from "../../../src/platform/Pair.ts"
import { Reader } from "../../../src/wire/Bytes.ts"
import * as Client from "../../../src/wire/ClientMessages.ts"
import { FrameReader, frame } from "../../../src/wire/Frames.ts"
import * as Manager from "../../../src/wire/ManagerMessages.ts"
import { ClientType as C, ManagerType as M } from "../../../src/wire/Vocabulary.ts"

const key = keyBytes("a key of the unit tests")
const zeros = new Uint8Array(16)
const grants: ReadonlyArray<Grant> = [{ role: "worker", queues: ["mine"] }]

/** A peer that has logged in as `w` and waits for each answer. */
const login = async (core: Core) => {
  const verifier = await deriveVerifier("w", key, zeros, Limits.scramIterationsMin)
  const gate = { verifier: () => verifier, grants: () => grants, iterations: [], mockSecret: zeros }
  const heard: Array<readonly [Uint8Array, Manager.ManagerMessage]> = []
  let wake = (): void => {}
  const reader = new FrameReader(Limits.frameBytesMax)
  const [, connection] = pair(
    (peer) => core.accept(peer, gate),
    () => ({
      onData: (chunk) => {
        reader.push(chunk, (body) => {
          const messages = new Reader(body)
          while (!messages.done) heard.push([body, Manager.decode(messages)])
        })
        wake()
      },
      onDrain: () => {},
      onClose: () => {}
    })
  )
  const say = (message: Client.ClientMessage): Uint8Array => {
    const bytes = frame((w) => Client.encode(w, message))
    connection.write(bytes)
    return bytes.subarray(4)
  }
  const next = async (): Promise<readonly [Uint8Array, Manager.ManagerMessage]> => {
    while (heard.length === 0) await new Promise<void>((resolve) => (wake = resolve))
    return heard.shift()!
  }
  const about = { capabilities: 0, frameBytesMax: 1_024, role: "", namespace: "default", agent: "test" }
  const mine = say({ type: C.hello, magic: "millrace", versionMin: 1, versionMax: 1, ...about })
  const helloHash = sha256(Buffer.concat([mine, (await next())[0]]))
  const first = Scram.clientFirst({ name: "w", nonce: new Uint8Array(18), helloHash })
  say({ type: C.authFirst, mechanism: "SCRAM-SHA-256", message: first.message })
  const [, challenge] = await next()
  assert(challenge.type === M.authChallenge)
  const step = Scram.clientChallenge(first.state, challenge.message)
  assert(step._tag === "Derive")
  const final = Scram.clientFinal(step.state, await saltPassword(key, step.salt, step.iterations))
  say({ type: C.authFinal, message: final.message })
  assert.strictEqual((await next())[1].type, M.authOk)
  say({ type: C.sessionOpen, session: undefined, held: [] })
  assert.strictEqual((await next())[1].type, M.sessionOpened)
  let request = 0
  return async (name: string): Promise<void> => {
    const definition = { fingerprint: new Uint8Array(), schema: "", accepts: [], policy: undefined }
    say({ type: C.open, request: ++request, name, ...definition })
    assert.strictEqual((await next())[1].type, M.refused)
  }
}

describe("refusals for want of a role", () => {
  it("are logged once a burst; what came after is counted and logged when the burst is over, once", async () => {
    let now = 1_000_000
    const logged: Array<readonly [string, Readonly<Record<string, unknown>>]> = []
    const log = (_: string, text: string, details: Readonly<Record<string, unknown>>): void => {
      if (text.startsWith("not permitted")) logged.push([text, details])
    }
    const host = {
      now: () => now,
      alarm: () => {},
      store: undefined,
      durability: "memory",
      failed: () => {},
      log
    } as const
    const core = new Core({ queues: [], host })
    const open = await login(core)
    for (let i = 0; i < 5; i++) await open("other")
    const first = ["not permitted", { peer: "in-process", credential: "w", action: 'open of queue "other"' }] as const
    assert.deepStrictEqual(logged.splice(0), [first])
    now += Limits.logBurstMs - 1
    core.sweep()
    assert.deepStrictEqual(logged, [])
    now += 1
    core.sweep()
    core.sweep()
    assert.deepStrictEqual(logged.splice(0), [["not permitted, again and again", { from: "w", times: 4 }]])
    now += Limits.logBurstMs
    core.sweep()
    await open("other")
    assert.deepStrictEqual(logged.splice(0), [first])
    assert.strictEqual(core.counters.notPermitted, 6)
  })
})
