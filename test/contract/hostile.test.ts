import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { Client, Limits, Manager, Store, TaskQueue } from "millrace"
import { Code } from "../../src/model/Refusal.ts"
import { randomBytes } from "../../src/platform/Crypto.ts"
import * as ClientMessages from "../../src/wire/ClientMessages.ts"
import { frame } from "../../src/wire/Frames.ts"
import { ClientType as C, ManagerType as M } from "../../src/wire/Vocabulary.ts"
import { auth, overTcp } from "./layers.ts"
import { eventually } from "./queue.ts"
import { hello, Raw } from "./raw.ts"

const connect = Effect.flatMap(Manager.Listening, ({ address }) =>
  Effect.acquireRelease(
    Effect.sync(() => new Raw(address._tag === "Tcp" ? address.port : 0)),
    (raw) => Effect.sync(() => raw.socket.destroy())
  )
)

const hostile = (run: (raw: Raw) => Promise<void>) => Effect.flatMap(connect, (raw) => Effect.promise(() => run(raw)))

const q = TaskQueue.make("neighbour", { payload: Schema.Int, result: Schema.Int })
const texts = TaskQueue.make("texts", { payload: Schema.String })

const open = (name: string): ClientMessages.Open => ({
  type: C.open,
  request: 1,
  name,
  fingerprint: new Uint8Array(),
  schema: "",
  accepts: [],
  policy: undefined
})

const work = Effect.gen(function* () {
  yield* q.put(1)
  const [lease] = yield* q.lease()
  yield* q.commit(lease!, 1)
})

describe("a hostile peer", () => {
  it.layer(overTcp, { excludeTestServices: true })((it) => {
    it.effect("before login: garbage, wrong magic, large frames and commands are answered once and closed (M8)", () =>
      Effect.gen(function* () {
        const cases: ReadonlyArray<readonly [string, Uint8Array]> = [
          ["garbage", randomBytes(64).fill(0xff, 0, 4)],
          ["an HTTP request", Buffer.from("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")],
          ["an empty frame", new Uint8Array(4)],
          ["a frame over the limit", Uint8Array.of(0, 0, 4, 1)],
          ["a frame that is no message", Uint8Array.of(0, 0, 0, 1, 0xc1)],
          ["a wrong magic", frame((w) => ClientMessages.encode(w, { ...hello, magic: "mill" }))],
          ["another namespace", frame((w) => ClientMessages.encode(w, { ...hello, namespace: "other" }))],
          ["a command", frame((w) => ClientMessages.encode(w, { type: C.stats, request: 1, queue: undefined }))],
          ["a session", frame((w) => ClientMessages.encode(w, { type: C.sessionOpen, session: undefined, held: [] }))],
          ["goodbye", frame((w) => ClientMessages.encode(w, { type: C.goodbye }))]
        ]
        for (const [, bytes] of cases) {
          yield* hostile(async (raw) => {
            raw.write(bytes)
            await raw.refused(Code.protocol)
            assert.strictEqual(raw.heard.length, 0)
          })
        }
        yield* work
      })
    )

    it.effect("a frame of the limit before login is read, one byte more is not (M10)", () =>
      hostile(async (raw) => {
        const body = frame((w) => ClientMessages.encode(w, hello)).subarray(4)
        // Trailing elements of a newer peer, up to the limit.
        const filler = Limits.preAuthFrameBytesMax - body.byteLength - 3
        const bytes = Buffer.concat([
          Uint8Array.of(0x90 | 10),
          body.subarray(1),
          Uint8Array.of(0xc5, filler >> 8, filler & 255),
          new Uint8Array(filler)
        ])
        assert.strictEqual(bytes.byteLength, Limits.preAuthFrameBytesMax)
        raw.write(Buffer.concat([Uint8Array.of(0, 0, 4, 0), bytes]))
        await raw.next(M.hello)
        raw.write(Uint8Array.of(0, 0, 4, 1))
        assert.match(await raw.refused(Code.protocol), /1025 bytes, at most 1024/)
      })
    )

    it.effect("a second hello, or two messages in one handshake frame, are refused", () =>
      Effect.gen(function* () {
        yield* hostile(async (raw) => {
          raw.say(hello)
          raw.say(hello)
          await raw.refused(Code.protocol)
        })
        yield* hostile(async (raw) => {
          raw.say(hello, { type: C.authFirst, mechanism: "SCRAM-SHA-256", message: "n,,n=a,r=b" })
          await raw.refused(Code.protocol)
        })
      })
    )

    it.effect("a version that the manager does not speak is refused with its own", () =>
      hostile(async (raw) => {
        raw.say({ ...hello, versionMin: 2, versionMax: 9 })
        assert.match(await raw.refused(Code.version), /1-1/)
      })
    )

    it.effect("a newer peer that also speaks version 1 is welcome", () =>
      hostile(async (raw) => {
        raw.say({ ...hello, versionMin: 0, versionMax: 9 })
        assert.strictEqual((await raw.next(M.hello)).version, 1)
      })
    )

    it.effect("a silent connection is closed when the time for the handshake is over", () =>
      hostile(async (raw) => {
        await raw.refused(Code.handshakeTimeout)
      })
    )

    it.effect("a wrong key, and an unknown user, fail typed and alike", () =>
      Effect.gen(function* () {
        const { address } = yield* Manager.Listening
        const port = address._tag === "Tcp" ? address.port : 0
        const reasons: Array<string> = []
        for (const wrong of [{ key: `${auth.key}x` }, { key: auth.key, user: "nobody" }]) {
          const client = Client.layerTcp({ port, auth: wrong })
          const result = yield* Effect.result(Effect.scoped(Layer.build(Layer.fresh(client))))
          assert.strictEqual(result._tag === "Failure" && result.failure._tag, "AuthenticationFailed")
          if (result._tag === "Failure" && result.failure._tag === "AuthenticationFailed") {
            reasons.push(result.failure.reason)
          }
        }
        assert.strictEqual(new Set(reasons).size, 1)
      })
    )

    it.effect("after login: a malformed or unknown message ends that session only (M9)", () =>
      Effect.gen(function* () {
        const bad: ReadonlyArray<Uint8Array> = [
          Uint8Array.of(0, 0, 0, 1, 0xc1),
          Uint8Array.of(0, 0, 0, 2, 0x91, 0x7e),
          Uint8Array.of(0, 0, 0, 2, 0x91, 0x47),
          Uint8Array.of(0, 0, 0, 0),
          Uint8Array.of(0xff, 0xff, 0xff, 0xff),
          frame((w) => ClientMessages.encode(w, hello)),
          frame((w) => {
            for (let i = 0; i <= Limits.messagesPerFrameMax; i++) {
              ClientMessages.encode(w, { type: C.credit, stream: 0, credit: 0 })
            }
          })
        ]
        for (const bytes of bad) {
          yield* work
          const raw = yield* connect
          yield* Effect.promise(() => raw.login())
          raw.write(bytes)
          yield* work
          yield* Effect.promise(() => raw.refused(Code.protocol))
          yield* work
        }
      })
    )

    it.effect("more requests in flight than allowed get a typed refusal, and the connection goes on", () =>
      Effect.gen(function* () {
        yield* work
        yield* hostile(async (raw) => {
          await raw.login()
          raw.say(open("neighbour"))
          const { queue } = await raw.next(M.opened)
          const lease = (request: number): ClientMessages.Lease => {
            return { type: C.lease, request, queue, count: 1, waitMs: undefined, get: true }
          }
          raw.say(...Array.from({ length: Limits.requestsInFlightMax }, (_, i) => lease(100 + i)))
          raw.say(lease(1_000), lease(1_001))
          for (const request of [1_000, 1_001]) {
            const refused = await raw.next(M.refused)
            assert.deepStrictEqual([refused.request, refused.code, refused.limit], [request, Code.limitExceeded, 256])
          }
          assert.isFalse(raw.closed)
        })
      })
    )

    it.effect("numbers of queues, streams and tasks that do not exist are refused, and nothing else", () =>
      hostile(async (raw) => {
        await raw.login()
        const queue = 4_000_000_000
        const held = [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, 0, 0]
        raw.say(
          {
            type: C.put,
            request: 1,
            queue,
            atomic: true,
            waitMs: 0,
            payloads: [new Uint8Array(1)],
            options: undefined
          },
          { type: C.lease, request: 2, queue, count: 1, waitMs: 0, get: true },
          { type: C.subscribe, request: 3, queue, credit: 1, prefetch: 0 },
          { type: C.follow, request: 4, queue, cursor: 0, credit: 1 },
          { type: C.peek, request: 5, queue, count: 1 },
          { type: C.stats, request: 6, queue },
          { type: C.join, request: 7, queue, waitMs: 0 },
          { type: C.close, request: 8, queue, immediate: true },
          { type: C.outcome, request: 9, queue, task: 1, waitMs: 0 },
          { type: C.credit, stream: 77, credit: 1 },
          { type: C.started, held },
          { type: C.acknowledge, held },
          { type: C.release, request: 10, held },
          { type: C.renew, request: 11, held },
          { type: C.commit, request: 12, tasks: [0], fences: [0], results: [new Uint8Array()], effects: undefined },
          { type: C.unsubscribe, request: 13, stream: 77 }
        )
        await raw.until(() => raw.heard.length >= 13, "13 answers")
        const refused = raw.heard.filter((message) => message.type === M.refused)
        assert.strictEqual(refused.length, 9)
        assert.isTrue(refused.every(({ code }) => code === Code.queueNotFound))
        assert.isFalse(raw.closed)
      })
    )

    it.effect("a reader that never reads is not written to without bound", () =>
      Effect.gen(function* () {
        yield* texts.put("x".repeat(1_000_000))
        const raw = yield* connect
        yield* Effect.promise(() => raw.login())
        raw.say(open("texts"))
        const { queue } = yield* Effect.promise(() => raw.next(M.opened))
        raw.socket.pause()
        const before = process.memoryUsage().arrayBuffers
        let most = 0
        for (let i = 0; i < 40; i++) {
          raw.say(
            ...Array.from({ length: 10 }, (_, at): ClientMessages.Peek => {
              return { type: C.peek, request: 10 * i + at, queue, count: 1 }
            })
          )
          yield* Effect.sleep("2 millis")
          most = Math.max(most, process.memoryUsage().arrayBuffers - before)
        }
        yield* work
        // 400 MB were asked for.
        assert.isBelow(most, 200 * 1_048_576)
      })
    )

    it.effect("a frame of a few kilobytes does not make the manager write hundreds of megabytes", () =>
      Effect.gen(function* () {
        yield* texts.put("x".repeat(1_000_000))
        const raw = yield* connect
        yield* Effect.promise(() => raw.login())
        raw.say(open("texts"))
        const { queue } = yield* Effect.promise(() => raw.next(M.opened))
        raw.socket.pause()
        const before = process.memoryUsage().arrayBuffers
        raw.say(
          ...Array.from({ length: 300 }, (_, request): ClientMessages.Peek => {
            return { type: C.peek, request, queue, count: 1 }
          })
        )
        yield* work
        yield* work
        // A writer that doubles to 128 MiB leaves as much behind, collected or not; one that took it all leaves 512.
        assert.isBelow(process.memoryUsage().arrayBuffers - before, 300 * 1_048_576)
      })
    )
  })
})

describe("persist, then promise", () => {
  it.live("no answer leaves before the store has its round, not even when the connection is at fault", () =>
    Effect.gen(function* () {
      let stored = 0
      let asked = 0
      let holding = false
      const gate: Array<() => void> = []
      const slow = Layer.succeed(
        Store.Store,
        Store.Store.of({
          ...(yield* Store.Store.pipe(Effect.provide(Store.layerMemory))),
          durability: "fsync",
          keeps: true,
          commit: () =>
            Effect.callback<void>((resume) => {
              if (!holding) return resume(Effect.void)
              asked++
              gate.push(() => {
                stored++
                resume(Effect.void)
              })
            })
        })
      )
      const let1 = (): void => {
        for (const open of gate.splice(0)) open()
      }
      yield* Effect.gen(function* () {
        const { address } = yield* Manager.Listening
        const raw = new Raw(address._tag === "Tcp" ? address.port : 0)
        yield* Effect.promise(() => raw.login())
        holding = true
        raw.say({ ...open("kept"), policy: [] })
        yield* eventually(
          Effect.sync(() => asked === 1),
          "the declaration reaches the store"
        )
        assert.strictEqual(raw.heard.length, 0)
        let1()
        const { queue } = yield* Effect.promise(() => raw.next(M.opened))
        const put = { type: C.put, request: 2, queue, atomic: true, waitMs: 0, options: undefined } as const
        raw.say({ ...put, payloads: [new Uint8Array(1)] })
        yield* eventually(
          Effect.sync(() => asked === 2),
          "the put reaches the store"
        )
        raw.write(Uint8Array.of(0, 0, 0, 0))
        yield* Effect.promise(() => raw.next(M.closing))
        assert.strictEqual(stored, 1)
        assert.isUndefined(raw.heard.find(({ type }) => type === M.putDone || type === M.putItems))
        let1()
        raw.socket.destroy()
      }).pipe(
        Effect.provide(
          Manager.layerTcp({ port: 0, auth }).pipe(
            Layer.provide(Manager.layer({ queues: [] }).pipe(Layer.provide(slow)))
          )
        ),
        Effect.ensuring(
          Effect.sync(() => {
            let1()
          })
        )
      )
    })
  )

  it.live("a time-out that falls into a commit of the store is not forgotten", () =>
    Effect.gen(function* () {
      let commits = 0
      const memory = yield* Store.Store.pipe(Effect.provide(Store.layerMemory))
      const slow = Layer.succeed(
        Store.Store,
        Store.Store.of({
          ...memory,
          durability: "fsync",
          keeps: true,
          commit: () => Effect.suspend(() => (++commits === 4 ? Effect.sleep("300 millis") : Effect.void))
        })
      )
      yield* Effect.gen(function* () {
        const empty = TaskQueue.make("empty", { payload: Schema.Int })
        const other = TaskQueue.make("other", { payload: Schema.Int })
        yield* empty.size
        yield* other.size
        const waiting = yield* Effect.forkChild(Effect.result(empty.get({ timeout: "100 millis" })))
        yield* Effect.sleep("20 millis")
        yield* Effect.forkChild(other.put(1))
        // Shorter than the heartbeat, whose round would hide it.
        for (let i = 0; i < 500 && waiting.pollUnsafe() === undefined; i++) yield* Effect.sleep("5 millis")
        assert.isDefined(waiting.pollUnsafe(), "the wait was over, and nobody was told")
      }).pipe(Effect.provide(Manager.layer({ queues: [] }).pipe(Layer.provide(slow))))
    })
  )
})
