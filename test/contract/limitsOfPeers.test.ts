/** Limits of what peers may have, hold or let wait: at each of them, one below and one above. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Limits, Manager } from "millrace"
import type { Gate, PeerSession } from "../../src/manager/Peer.ts"
import { Code } from "../../src/model/Refusal.ts"
import { readPrivateFile } from "../../src/platform/PrivateFile.ts"
import type * as ClientMessages from "../../src/wire/ClientMessages.ts"
import { ClientType as C, ManagerType as M } from "../../src/wire/Vocabulary.ts"
import { coreLab, lab, Pipe, settled, until } from "./lab.ts"
import { inProcess, overTcp } from "./layers.ts"
import { Raw } from "./raw.ts"

type Message = ClientMessages.ClientMessage

const connect = Effect.flatMap(Manager.Listening, ({ address }) =>
  Effect.acquireRelease(
    Effect.sync(() => new Raw(address._tag === "Tcp" ? address.port : 0)),
    (raw) => Effect.sync(() => raw.socket.destroy())
  )
)

const open = (request: number, name: string): ClientMessages.Open => {
  return { type: C.open, request, name, fingerprint: new Uint8Array(), schema: "", accepts: [], policy: [] }
}

const put = (request: number, queue: number, count: number, size: number): Message => {
  const payloads = Array.from({ length: count }, () => new Uint8Array(size))
  return { type: C.put, request, queue, atomic: false, waitMs: 0, payloads, options: undefined }
}

const equalBytes = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0

const stats = (request: number): Message => ({ type: C.stats, request, queue: undefined })

/** A request that waits until the connection ends. */
const waiting = (request: number, queue: number): Message => {
  return { type: C.lease, request, queue, count: 1, waitMs: undefined, get: true }
}

const subscribe = (request: number, queue: number, credit: number): Message => {
  return { type: C.subscribe, request, queue, credit, prefetch: 0 }
}

describe("the limit of", () => {
  it.layer(overTcp, { excludeTestServices: true })((it) => {
    it.effect("requests in flight refuses what is above it, and the connection goes on", () =>
      Effect.gen(function* () {
        const raw = yield* connect
        const max = Limits.requestsInFlightMax
        yield* Effect.promise(async () => {
          const opened = await raw.login()
          assert.strictEqual(opened.requestsInFlightMax, max)
          raw.say(open(1, "in-flight"))
          const { queue } = await raw.next(M.opened)
          for (let i = 1; i < max; i++) raw.say(waiting(1_000 + i, queue))
          // The last place: taken, answered and free again; then taken for good.
          raw.say(stats(2))
          await raw.next(M.stats)
          raw.say(waiting(2_000, queue), waiting(2_001, queue))
          const refused = await raw.next(M.refused)
          assert.deepStrictEqual(
            [refused.request, refused.code, refused.subject, refused.value, refused.limit],
            [2_001, Code.limitExceeded, "requestsInFlightMax", max + 1, max]
          )
          assert.strictEqual(raw.heard.length, 0)
          raw.say({ type: C.abandon, request: 2_000 })
          assert.strictEqual((await raw.next(M.refused)).request, 2_000)
          raw.say(stats(3))
          await raw.next(M.stats)
          assert.isFalse(raw.closed)
        })
      })
    )

    it.effect("subscriptions of a session refuses one more, of either kind, until one ends", () =>
      Effect.gen(function* () {
        const raw = yield* connect
        const max = Limits.subscriptionsPerSessionMax
        yield* Effect.promise(async () => {
          await raw.login()
          raw.say(open(1, "streams"))
          const { queue } = await raw.next(M.opened)
          const follow: Message = { type: C.follow, request: 300, queue, cursor: 0, credit: 1 }
          for (let i = 1; i <= max - 1; i++) {
            raw.say(subscribe(1_000 + i, queue, 1))
            await raw.next(M.streaming)
          }
          raw.say(follow)
          const { stream } = await raw.next(M.streaming)
          for (const message of [subscribe(2_000, queue, 1), { ...follow, request: 301 }]) {
            raw.say(message)
            const { code, limit, subject, value } = await raw.next(M.refused)
            assert.deepStrictEqual(
              [code, subject, value, limit],
              [Code.limitExceeded, "subscriptionsPerSessionMax", max + 1, max]
            )
          }
          raw.say({ type: C.unsubscribe, request: 302, stream })
          await raw.next(M.done)
          raw.say(subscribe(2_001, queue, 1))
          await raw.next(M.streaming)
        })
      })
    )

    it.effect("answers that are not acknowledged ends the connection, and the session resumes", () =>
      Effect.gen(function* () {
        const raw = yield* connect
        const max = Limits.answersRememberedMax
        yield* Effect.promise(async () => {
          const { session } = await raw.login()
          raw.say(open(1, "remembered"))
          const { queue } = await raw.next(M.opened)
          const puts = (from: number, count: number): ReadonlyArray<Message> =>
            Array.from({ length: count }, (_, i) => put(from + i, queue, 1, 0))
          raw.say(...puts(1_000, max - 1), stats(2))
          await raw.next(M.stats)
          raw.say(...puts(50_000, 1), stats(3))
          await raw.next(M.stats)
          // Room for two: two are taken, and the third is one too many.
          raw.say({ type: C.answered, ranges: [1_000, 1_001] }, ...puts(60_000, 2), stats(4))
          await raw.next(M.stats)
          raw.heard.splice(0)
          raw.say(...puts(70_000, 1), stats(5))
          assert.match(await raw.refused(Code.limitExceeded), /8193 answers .* at most 8192/)
          assert.isUndefined(raw.heard.find(({ type }) => type === M.stats))
          return session
        }).pipe(
          Effect.flatMap((session) =>
            Effect.flatMap(connect, (again) =>
              Effect.promise(async () => {
                assert.isTrue((await again.login(undefined, session)).resumed)
                again.say({ type: C.answered, ranges: [1_000, 60_000] }, open(80_000, "remembered"))
                const { queue } = await again.next(M.opened)
                again.say(put(70_000, queue, 1, 0), put(80_001, queue, 1, 0))
                const [first, second] = [await again.next(M.putDone), await again.next(M.putDone)]
                // The one that was one too many has been done, once.
                assert.deepStrictEqual([first.request, second.request], [70_000, 80_001])
                assert.deepStrictEqual([second.first - first.first, first.count], [1, 1])
              })
            )
          )
        )
      })
    )
  })

  it.live("bytes of a key is for managers, as it is for those who log in", () =>
    Effect.gen(function* () {
      const listener = (size: number) =>
        Manager.layerTcp({ port: 0, auth: { key: "k".repeat(size) } }).pipe(Layer.provide(inProcess), Layer.fresh)
      for (const size of [Limits.authkeyBytesMax - 1, Limits.authkeyBytesMax]) {
        yield* Effect.gen(function* () {
          const raw = yield* connect
          yield* Effect.promise(() => raw.login({ key: "k".repeat(size) }))
        }).pipe(Effect.scoped, Effect.provide(listener(size)))
      }
      const failed = yield* Effect.flip(Effect.scoped(Layer.build(listener(Limits.authkeyBytesMax + 1))))
      assert.match(failed.message, /1025 bytes long: use 1 to 1024 bytes/)
    })
  )

  for (const [what, max] of [
    ["a file of credentials", Limits.credentialsFileBytesMax],
    ["a file with a certificate or its key", Limits.pemBytesMax]
  ] as const) {
    it(`bytes of ${what}`, () => {
      const folder = mkdtempSync(join(tmpdir(), "millrace-limits-"))
      try {
        const read = (size: number): string => {
          const file = join(folder, `${size}`)
          writeFileSync(file, "x".repeat(size))
          chmodSync(file, 0o600)
          const found = readPrivateFile(file, max)
          return found._tag === "Read" ? `${found.text.length}` : found.remedy
        }
        assert.deepStrictEqual([max - 1, max, max + 1].map(read), [`${max - 1}`, `${max}`, `use at most ${max}`])
      } finally {
        rmSync(folder, { recursive: true })
      }
    })
  }
})

describe("a deadline is over when its time is up, not a millisecond before:", () => {
  it.live("the handshake's", () =>
    Effect.gen(function* () {
      const { clock, connect, core } = yield* lab()
      const [silent, late] = [yield* connect, yield* connect]
      yield* Effect.promise(async () => {
        const other = new Pipe(core)
        await until(() => core.counters.connections === 3, "all are accepted")
        clock.now += Limits.handshakeMs - 1
        core.sweep()
        await late.login()
        assert.isFalse(silent.closed || other.closed)
        clock.now += 1
        core.sweep()
        assert.match(await silent.refused(Code.handshakeTimeout), /5000 ms/)
        assert.isTrue(other.closed)
        // Who is in has all the time there is.
        clock.now += 1
        core.sweep()
        late.say(stats(1))
        await late.next(M.stats)
      })
    }).pipe(Effect.scoped)
  )

  it.live("that of a peer of which nothing is heard", () =>
    Effect.gen(function* () {
      const { clock, connect, core } = yield* lab()
      const [silent, heard] = [yield* connect, yield* connect]
      yield* Effect.promise(async () => {
        await silent.login()
        await heard.login()
        const look = async (): Promise<void> => {
          clock.now += Limits.silenceLookMs
          heard.say(stats(1))
          await heard.next(M.stats)
          core.sweep()
        }
        // The first look sees that it was heard; what it says before the last one counts as much as a request.
        for (let silence = -1_000; silence < Limits.heartbeatDeadMs - 1_000; silence += Limits.silenceLookMs)
          await look()
        assert.isFalse(silent.closed)
        silent.write(Uint8Array.of(0))
        await new Promise((resolve) => setTimeout(resolve, 50))
        for (let silence = -1_000; silence < Limits.heartbeatDeadMs - 1_000; silence += Limits.silenceLookMs)
          await look()
        assert.isFalse(silent.closed)
        await look()
        assert.match(await silent.refused(Code.protocol), /nothing was heard for 9000 ms/)
        await look()
        assert.isFalse(heard.closed)
      })
    }).pipe(Effect.scoped)
  )

  it.live("that of a session without a connection", () =>
    Effect.gen(function* () {
      const { clock, connect, core } = yield* lab()
      const resumes = Effect.fnUntraced(function* (idleMs: number) {
        const [first, other] = [yield* connect, yield* connect]
        return yield* Effect.promise(async () => {
          const { session } = await first.login()
          await other.login()
          first.socket.destroy()
          const mine = [...core.engine.sessions].find(({ token }) => equalBytes(token, session)) as PeerSession
          await until(() => mine.peer === undefined, "the manager has seen it go")
          clock.now += idleMs
          core.sweep()
          // One that has a connection is not counted as idle, however long it says little.
          other.say(stats(1))
          await other.next(M.stats)
          return session
        }).pipe(
          Effect.flatMap((session) =>
            Effect.flatMap(connect, (again) => Effect.promise(() => again.login(undefined, session)))
          ),
          Effect.map(({ resumed }) => resumed)
        )
      })
      assert.isTrue(yield* resumes(Limits.sessionIdleMs - 1))
      assert.isFalse(yield* resumes(Limits.sessionIdleMs))
    }).pipe(Effect.scoped)
  )

  it("that of a peer that does not take the last word, nor the answers before its goodbye", async () => {
    for (const last of ["fault", "goodbye"] as const) {
      const { clock, core } = coreLab()
      const pipe = new Pipe(core)
      pipe.open()
      await settled()
      pipe.pending = 1
      if (last === "fault") pipe.handler.onData(new Uint8Array(4))
      else pipe.say({ type: C.goodbye })
      await settled()
      assert.deepStrictEqual([pipe.closed, pipe.destroyed], [true, false], last)
      clock.now += Limits.closeMs - 1
      core.sweep()
      assert.isFalse(pipe.destroyed, last)
      clock.now += 1
      core.sweep()
      assert.isTrue(pipe.destroyed, last)
    }
  })
})

describe("sessions", () => {
  it("that all hold leases are as many as the limit, and one more is refused until one of them ends", async () => {
    const { core } = coreLab()
    const max = Limits.sessionsMax
    const putter = new Pipe(core)
    putter.open()
    putter.say(open(1, "held"))
    await settled()
    for (let left = max; left > 0; left -= Limits.batchItemsMax) {
      putter.say(put(left, 0, Math.min(left, Limits.batchItemsMax), 0))
      await settled()
    }
    const holder = (): Pipe => {
      const pipe = new Pipe(core)
      pipe.open()
      return pipe
    }
    const holders: Array<Pipe> = []
    for (let i = 1; i < max; i++) {
      const pipe = holder()
      holders.push(pipe)
      pipe.say({ type: C.lease, request: 1, queue: 0, count: 1, waitMs: 0, get: false })
      if (i % 500 > 0 && i < max - 1) continue
      await settled()
      // There are fewer places for connections. The last one stays.
      for (const gone of holders.splice(0, i < max - 1 ? 500 : 0)) gone.handler.onClose("gone")
      await settled()
    }
    const last = holders.at(-1)!
    assert.deepStrictEqual([core.engine.sessions.size, core.engine.queues[0]!.leased], [max, max - 1])
    const refused = holder()
    const [closing] = refused.take(M.closing)
    assert.deepStrictEqual([closing?.code, closing?.text], [Code.tooManyConnections, "too many sessions"])
    assert.isTrue(refused.closed)
    assert.isFalse(last.closed)
    last.say({ type: C.goodbye })
    await settled()
    assert.isFalse(holder().closed)
    assert.isTrue(holder().closed)
  })
})

describe("what is kept for a peer that does not read", () => {
  const world = async () => {
    const { core } = coreLab()
    const pipe = new Pipe(core)
    pipe.open()
    pipe.say(open(1, "q"))
    await settled()
    return { core, pipe }
  }

  it("may be as much as the limit; with one byte more the peer is dropped at once", async () => {
    const { core, pipe } = await world()
    for (const pending of [Limits.outboundBytesMax - 1, Limits.outboundBytesMax]) {
      pipe.pending = pending
      pipe.say(stats(1))
      await settled()
      assert.strictEqual(pipe.take(M.stats).length, 1)
      assert.isFalse(pipe.closed)
    }
    pipe.pending++
    pipe.say(stats(1))
    await settled()
    const [closing] = pipe.take(M.closing)
    assert.strictEqual(closing?.code, Code.limitExceeded)
    assert.match(closing?.text ?? "", /67108865 bytes wait to be read, at most 67108864/)
    assert.deepStrictEqual([pipe.closed, pipe.destroyed], [true, true])
    assert.strictEqual(core.engine.sessions.size, 1)
  })

  it("is added to by deliveries up to the pause, and again when the peer has read", async () => {
    const { pipe } = await world()
    pipe.say(subscribe(2, 0, 100))
    await settled()
    let request = 10
    const delivered = async (pending: number): Promise<number> => {
      pipe.pending = pending
      // What is pending is looked at after a write: the first lets the manager see it, the second shows what it does.
      pipe.say(stats(1))
      await settled()
      pipe.take(M.deliver)
      pipe.say(put(request++, 0, 1, 0))
      await settled()
      return pipe.take(M.deliver).length
    }
    assert.strictEqual(await delivered(Limits.outboundBytesPause - 1), 1)
    assert.strictEqual(await delivered(Limits.outboundBytesPause), 1)
    assert.strictEqual(await delivered(Limits.outboundBytesPause + 1), 0)
    assert.isFalse(pipe.closed)
    pipe.pending = Limits.outboundBytesPause + 1
    pipe.handler.onDrain()
    await settled()
    assert.strictEqual(pipe.take(M.deliver).length, 0)
    pipe.pending = Limits.outboundBytesPause
    pipe.handler.onDrain()
    await settled()
    assert.strictEqual(pipe.take(M.deliver).length, 1)
  })

  for (const stored of [false, true]) {
    const where = stored ? "only in the store" : "in memory"
    it.live(
      `is bounded where payloads are ${where}: a peer that asks and never reads is dropped, others go on (M12)`,
      () =>
        Effect.gen(function* () {
          const { accepted, connect } = yield* lab({ stored })
          const [greedy, other] = [yield* connect, yield* connect]
          yield* Effect.promise(async () => {
            await other.login()
            other.say(open(1, "large"))
            const { queue } = await other.next(M.opened)
            for (let i = 0; i < 4; i++) other.say(put(10 + i, queue, 1, Limits.payloadBytesMax))
            for (let i = 0; i < 4; i++) await other.next(M.putDone)
            await greedy.login()
            greedy.socket.pause()
            const peeks = Array.from({ length: Limits.requestsInFlightMax }, (_, i): Message => {
              return { type: C.peek, request: 1_000 + i, queue, count: 4 }
            })
            // A gigabyte of answers, asked for at once.
            greedy.say(...peeks)
            const seen = accepted[0]!
            await until(() => seen.dropped, "the greedy one is dropped")
            assert.isAtMost(seen.mostPending, Limits.outboundBytesMax + Limits.batchBytesMax + 65_536)
            other.say(stats(3))
            await other.until(
              () => other.heard.some((m) => m.type === M.stats && m.request === 3),
              "the other's answer"
            )
            assert.isFalse(other.closed)
          })
        }).pipe(Effect.scoped)
    )
  }

  it.live(
    "a subscriber that never reads is dropped, its leases go back, and a neighbour does all of the work (M12)",
    () =>
      Effect.gen(function* () {
        const { accepted, clock, connect, core } = yield* lab()
        const [deaf, neighbour] = [yield* connect, yield* connect]
        yield* Effect.promise(async () => {
          const [count, size] = [900, 100_000]
          const { session } = await deaf.login()
          deaf.say(open(1, "deaf"))
          const { queue } = await deaf.next(M.opened)
          deaf.say(subscribe(2, queue, Limits.creditMax))
          await deaf.next(M.streaming)
          deaf.socket.pause()
          await neighbour.login()
          for (let i = 0; i < count / 30; i++) {
            neighbour.say(put(100 + i, queue, 30, size))
            await neighbour.next(M.putDone)
          }
          const q = core.engine.queues[queue]!
          // Some 90 MB were to be delivered: what the system did not take for it waits up to the pause, and no more is written.
          assert.isAbove(q.leased, 0)
          assert.isBelow(q.leased, count)
          const seen = accepted[0]!
          assert.isAbove(seen.mostPending, Limits.outboundBytesPause)
          assert.isAtMost(seen.mostPending, 2 * Limits.outboundBytesPause + 2 * size)
          const held = q.leased
          let looks = 0
          const look = async (): Promise<void> => {
            clock.now += Limits.silenceLookMs
            looks++
            neighbour.say({ type: C.heartbeat, sequence: 1, held: [] })
            await neighbour.next(M.heartbeat)
            core.sweep()
            await settled()
          }
          while (!seen.dropped && looks < 30) await look()
          // It was silent until it was dropped, and it did not take the last word either.
          assert.isAtMost(looks * Limits.silenceLookMs, Limits.heartbeatDeadMs + Limits.closeMs + Limits.silenceLookMs)
          assert.strictEqual(q.leased, held, "a lost connection has its grace")
          while (q.leased > 0 && looks < 60) await look()
          assert.strictEqual(q.leased, 0)
          const tasks = new Set<number>()
          for (let request = 1_000; tasks.size < count; request++) {
            neighbour.say({ type: C.lease, request, queue, count: 100, waitMs: 0, get: false })
            const { items } = await neighbour.next(M.leased)
            for (const { task } of items) tasks.add(task)
            const [done, fences] = [items.map(({ task }) => task), items.map(({ fence }) => fence)]
            const results = items.map(() => new Uint8Array(1))
            neighbour.say({
              type: C.commit,
              request: request + 50_000,
              tasks: done,
              fences,
              results,
              effects: undefined
            })
            await neighbour.next(M.done)
          }
          assert.deepStrictEqual([q.ready.size, q.leased, q.done], [0, 0, count])
          assert.isDefined(session)
        })
      }).pipe(Effect.scoped)
  )
})

describe("what a peer has said and the manager has not done yet", () => {
  it("may be as much as the limit; above it the peer is not read until half of it is done", async () => {
    const { core } = coreLab()
    const said = async (bytes: number): Promise<{ readonly paused: boolean; readonly pipe: Pipe }> => {
      const pipe = new Pipe(core)
      pipe.open()
      await settled()
      // Frames that are not stepped before the event loop turns, and are read through to their last byte then.
      const half = Math.floor(bytes / 2)
      for (const size of [half, bytes - half]) {
        const frame = new Uint8Array(4 + size)
        const view = new DataView(frame.buffer)
        view.setUint32(0, size)
        // [stats, request, nil, filler]
        frame.set([0x94, C.stats, 1, 0xc0, 0xc6], 4)
        view.setUint32(9, size - 9)
        pipe.handler.onData(frame)
      }
      return { paused: pipe.paused, pipe }
    }
    for (const [bytes, pauses] of [
      [Limits.inboundBytesPause - 1, false],
      [Limits.inboundBytesPause, false],
      [Limits.inboundBytesPause + 1, true]
    ] as const) {
      const { paused, pipe } = await said(bytes)
      assert.strictEqual(paused, pauses, `${bytes}`)
      await settled()
      assert.isFalse(pipe.paused)
      assert.strictEqual(pipe.take(M.stats).length, 2)
    }
  })
})

describe("strangers and those who are in", () => {
  it("have their own places: a login frees one for another stranger (M13)", async () => {
    const { core } = coreLab()
    const gate: Gate = {
      verifier: () => undefined,
      grants: () => undefined,
      iterations: [],
      mockSecret: new Uint8Array(32)
    }
    const max = Limits.connectionsUnauthenticatedPerAddressMax
    for (let i = 1; i < max; i++) assert.isFalse(new Pipe(core, gate).closed)
    const last = new Pipe(core)
    assert.isFalse(last.closed)
    const [refused] = new Pipe(core, gate).take(M.closing)
    assert.strictEqual(refused?.code, Code.tooManyConnections)
    last.open()
    await settled()
    assert.isFalse(new Pipe(core, gate).closed)
    assert.isTrue(new Pipe(core, gate).closed)
  })
})
