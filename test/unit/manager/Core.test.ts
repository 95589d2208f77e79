import { assert, describe, it } from "@effect/vitest"
import { Core } from "../../../src/manager/Core.ts"
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
