import { assert, describe, it } from "@effect/vitest"
import * as Limits from "../../../src/Limits.ts"
import { Core } from "../../../src/manager/Core.ts"
import type { Gate } from "../../../src/manager/Peer.ts"
import { defaults } from "../../../src/model/Policy.ts"
import { Repeat } from "../../../src/model/Repeat.ts"
import type { Connection } from "../../../src/platform/Network.ts"
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

describe("a manager that was stopped while it had a round to do", () => {
  it("reads what came meanwhile before it looks whose lease is over", async () => {
    let now = 100_000
    const base = { alarm: () => {}, log: () => {}, failed: (text: string) => assert.fail(text) } as const
    const host = { ...base, store: undefined, now: () => now, durability: "memory" } as const
    const queue = { name: "q", fingerprint: new Uint8Array(32), schema: "", accepts: [], policy: defaults } as const
    const core = new Core({ queues: [{ ...queue, durability: "memory" }], host })
    const [, client] = pair(
      (connection) => core.accept(connection, undefined),
      () => ({ onData: () => {}, onDrain: () => {}, onClose: () => {} })
    )
    const say = async (message: Client.ClientMessage): Promise<void> => {
      client.write(frame((w) => Client.encode(w, message)))
      for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve))
    }
    const put = { queue: 0, atomic: false, waitMs: 0, payloads: [new Uint8Array([1])], options: undefined } as const
    const hello = { magic: "millrace", versionMin: 1, versionMax: 1, capabilities: 0, frameBytesMax: 1_024 }
    await say({ type: C.hello, ...hello, role: "", namespace: "default", agent: "test" })
    await say({ type: C.sessionOpen, session: undefined, held: [] })
    await say({ type: C.put, request: 1, ...put })
    await say({ type: C.lease, request: 2, queue: 0, count: 1, waitMs: 0, get: false })
    const [q] = core.engine.queues
    const held = [q!.leaseHead!.n, core.engine.fence(q!.leaseHead!)]
    // The round is due; the renewal, sent in time, is read after it.
    core.wake()
    now += 60_000
    await say({ type: C.heartbeat, sequence: 1, held })
    assert.deepStrictEqual([q!.leased, q!.leaseHead?.at], [1, now + defaults.leaseMs])
    // Without one the lease is over: later, not never.
    core.wake()
    now += 60_000
    await say({ type: C.heartbeat, sequence: 2, held: [] })
    assert.deepStrictEqual([q!.leased, q!.ready.size], [0, 1])
  })
})

describe("a manager whose disk is slow", () => {
  it("gives the leases of a connection that was lost meanwhile their grace, though they were over", async () => {
    let now = 100_000
    let held: (() => void) | undefined
    let holds = false
    const store = {
      low: () => false,
      read: (_: unknown, done: (rows: []) => void) => done([]),
      commit: (_: unknown, done: () => void) => {
        if (holds) held = done
        else setImmediate(done)
      }
    }
    const base = { alarm: () => {}, log: () => {}, failed: (text: string) => assert.fail(text) } as const
    const host = { ...base, store, now: () => now, wall: () => now, durability: "fsync" } as const
    const queue = { name: "q", fingerprint: new Uint8Array(32), schema: "", accepts: [], policy: defaults } as const
    const core = new Core({
      queues: [{ ...queue, durability: "fsync" }],
      host,
      identity: { instance: new Uint8Array(8), epoch: 1 }
    })
    core.start()
    const [, client] = pair(
      (connection) => core.accept(connection, undefined),
      () => ({ onData: () => {}, onDrain: () => {}, onClose: () => {} })
    )
    const turns = async (): Promise<void> => {
      for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve))
    }
    const say = async (message: Client.ClientMessage): Promise<void> => {
      client.write(frame((w) => Client.encode(w, message)))
      await turns()
    }
    const put = { queue: 0, atomic: false, waitMs: 0, payloads: [new Uint8Array([1])], options: undefined } as const
    const hello = { magic: "millrace", versionMin: 1, versionMax: 1, capabilities: 0, frameBytesMax: 1_024 }
    await say({ type: C.hello, ...hello, role: "", namespace: "default", agent: "test" })
    await say({ type: C.sessionOpen, session: undefined, held: [] })
    await say({ type: C.put, request: 1, ...put })
    await say({ type: C.lease, request: 2, queue: 0, count: 1, waitMs: 0, get: false })
    const [q] = core.engine.queues
    assert.strictEqual(q!.leaseHead?.at, 130_000)
    now = 105_000
    holds = true
    await say({ type: C.put, request: 3, ...put })
    now = 120_000
    client.destroy()
    await turns()
    now = 132_000
    holds = false
    held!()
    await turns()
    assert.deepStrictEqual([q!.leased, q!.ready.size], [1, 1])
    assert.isAtLeast(q!.leaseHead!.at, 150_000)
  })
})

/** A manager with connections of no network: each says whether it was closed, and how much was written to it. */
const manager = () => {
  const lines: Array<string> = []
  const base = { now: () => 1_000, alarm: () => {}, store: undefined, durability: "memory", failed: () => {} } as const
  const log = (_: string, text: string, details: object): void => void lines.push(`${text} ${JSON.stringify(details)}`)
  const core = new Core({ queues: [], host: { ...base, log } })
  const connect = (peer: string, gate: Gate | undefined) => {
    const end = { closed: false, written: 0 }
    const close = (): void => {
      end.closed = true
    }
    const connection: Connection = {
      peer,
      write: (bytes) => {
        end.written += bytes.byteLength
      },
      pendingBytes: () => 0,
      pause: () => {},
      resume: () => {},
      close,
      destroy: close
    }
    return { end, handler: core.accept(connection, gate) }
  }
  return { core, connect, lines }
}

const hello = frame((w) =>
  Client.encode(w, {
    ...{ type: C.hello, magic: "millrace", versionMin: 1, versionMax: 1, capabilities: 0, frameBytesMax: 1_024 },
    ...{ role: "", namespace: "default", agent: "test" }
  })
)
const sessionOpen = (session: Uint8Array | undefined) =>
  frame((w) => Client.encode(w, { type: C.sessionOpen, session, held: [] }))

const settled = async (): Promise<void> => {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve))
}

describe("a manager's places", () => {
  const joined = (connect: ReturnType<typeof manager>["connect"], i: number, session?: Uint8Array) => {
    const made = connect(`10.0.0.1:${i}`, undefined)
    made.handler.onData(hello)
    made.handler.onData(sessionOpen(session))
    return made
  }

  it(`are for ${Limits.connectionsMax} connections, and one that goes makes room for one`, async () => {
    const { connect, core } = manager()
    const first = joined(connect, 0)
    for (let i = 1; i < Limits.connectionsMax; i++) assert.isFalse(joined(connect, i).end.closed)
    assert.isTrue(joined(connect, -1).end.closed)
    assert.strictEqual(core.counters.refused, 1)
    first.handler.onClose("gone")
    await settled()
    assert.isFalse(joined(connect, -2).end.closed)
    assert.isTrue(joined(connect, -3).end.closed)
  })

  it(`are for ${Limits.sessionsMax} sessions; of those that nobody is connected to, the oldest makes room`, async () => {
    const { connect, core } = manager()
    const kept = joined(connect, 0)
    for (let i = 1; i < Limits.sessionsMax; i++) {
      joined(connect, i).handler.onClose("gone")
      if (i % 1_000 === 0) await settled()
    }
    await settled()
    const [own, first, second, third, fourth] = [...core.engine.sessions]
    // It was connected again: from then on it is the one that was left alone last.
    joined(connect, 1, first!.token).handler.onClose("gone")
    await settled()
    for (let i = 0; i < 2; i++) assert.isFalse(joined(connect, -1 - i).end.closed)
    const { sessions } = core.engine
    assert.deepStrictEqual(
      [own, first, second, third, fourth].map((session) => sessions.has(session!)),
      [true, true, false, false, true]
    )
    assert.strictEqual(sessions.size, Limits.sessionsMax)
    // One with a connection is not counted among them, and is not ended.
    joined(connect, 2, fourth!.token)
    assert.isFalse(joined(connect, -3).end.closed)
    assert.isTrue(sessions.has(fourth!))
    assert.isFalse(kept.end.closed, "a session with a connection stays")
    assert.strictEqual(core.counters.sessions, Limits.sessionsMax + 3)
  })
})

describe("a door before the login", () => {
  const gate: Gate = {
    verifier: () => undefined,
    grants: () => undefined,
    iterations: [],
    mockSecret: new Uint8Array(32)
  }
  const world = () => {
    const { connect, core, lines } = manager()
    return { core, lines, connect: (address: string, i: number) => connect(`${address}:${i}`, gate) }
  }

  for (const [address, max] of [
    ["10.0.0.1", Limits.connectionsUnauthenticatedPerAddressMax],
    ["2001:db8::9", Limits.connectionsUnauthenticatedPerAddressMax],
    ["127.0.0.1", Limits.connectionsUnauthenticatedLoopbackMax]
  ] as const) {
    it(`takes ${max} strangers from ${address} at a time, and no more`, () => {
      const { connect, core, lines } = world()
      const taken = Array.from({ length: max }, (_, i) => connect(address, i))
      assert.isTrue(taken.every(({ end }) => !end.closed))
      const tooMany = Array.from({ length: 10 }, (_, i) => connect(address, max + i))
      assert.isTrue(tooMany.every(({ end }) => end.closed && end.written > 0))
      assert.strictEqual(core.counters.refused, 10)
      assert.strictEqual(lines.length, 1, "ten of one burst are one line")
      // Others are not held up by it, as far as the places of all go round.
      const elsewhere = max < Limits.connectionsUnauthenticatedMax
      assert.strictEqual(connect("10.9.9.9", 1).end.closed, !elsewhere)
      // One that goes makes room for one.
      taken[0]!.handler.onClose("gone")
      assert.isFalse(connect(address, 2 * max).end.closed)
      assert.isTrue(connect(address, 2 * max + 1).end.closed)
    })
  }

  it("takes no more strangers than its places, wherever they are from", () => {
    const { connect } = world()
    const max = Limits.connectionsUnauthenticatedMax
    for (let i = 0; i < max; i++) assert.isFalse(connect(`10.0.${i >> 8}.${i & 255}`, i).end.closed)
    assert.isTrue(connect("10.9.9.9", 1).end.closed)
  })
})
