import { assert, describe, it } from "@effect/vitest"
import { Core } from "../../../src/manager/Core.ts"
import { defaults } from "../../../src/model/Policy.ts"
import { Repeat } from "../../../src/model/Repeat.ts"
import { pair } from "../../../src/platform/Pair.ts"
import * as Client from "../../../src/wire/ClientMessages.ts"
import { frame } from "../../../src/wire/Frames.ts"
import { ClientType as C } from "../../../src/wire/Vocabulary.ts"

describe("a manager whose engine breaks an invariant", () => {
  it("stops, says why and closes its connections, instead of ending the process or going on", async () => {
    let said = ""
    const host = { now: () => 1_000, alarm: () => {}, store: undefined, durability: "memory", log: () => {} } as const
    const failed = (text: string): void => {
      said = text
    }
    const core = new Core({ queues: [], host: { ...host, failed } })
    core.engine.dispatch = () => {
      throw new RangeError("planted")
    }
    const closed = new Promise<string>((resolve) => {
      const [, client] = pair(
        (connection) => core.accept(connection, undefined),
        () => ({ onData: () => {}, onDrain: () => {}, onClose: resolve })
      )
      const hello = { magic: "millrace", versionMin: 1, versionMax: 1, capabilities: 0, frameBytesMax: 1_024 }
      const about = { role: "", namespace: "default", agent: "test" }
      client.write(frame((w) => Client.encode(w, { type: C.hello, ...hello, ...about })))
      client.write(frame((w) => Client.encode(w, { type: C.sessionOpen, session: undefined, held: [] })))
    })
    await closed
    assert.include(said, "planted")
  })
})

describe("a manager whose wall clock is moved", () => {
  it("notices at its next look, and puts what a cron schedule has passed over once", () => {
    let now = Date.parse("2026-01-01T00:00:00Z")
    let wall = now
    const alarms: Array<number> = []
    const base = { store: undefined, durability: "memory", log: () => {}, failed: () => {} } as const
    const host = { ...base, now: () => now, wall: () => wall, alarm: (at: number) => void alarms.push(at) }
    const queue = { name: "q", fingerprint: new Uint8Array(32), schema: "", accepts: [], policy: defaults } as const
    const core = new Core({ queues: [{ ...queue, durability: "memory" }], host })
    const [q] = core.engine.queues
    const about = { id: "r", everyMs: undefined, cron: "0 3 * * *", zone: "UTC", options: undefined }
    const repeat = core.engine.repeats.set(q!, { ...about, payload: new Uint8Array(1) }, now)
    assert.instanceOf(repeat, Repeat)
    now += 1_000
    wall += 1_000
    core.sweep()
    assert.strictEqual(core.engine.nextDeadline, now - 1_000 + 3 * 3_600_000)
    wall += 2 * 24 * 3_600_000
    core.sweep()
    assert.isAtMost(core.engine.nextDeadline, now)
    core.engine.tick(now)
    core.engine.dispatch(now)
    assert.deepStrictEqual([q!.puts, q!.ready.size], [1, 1])
  })
})
