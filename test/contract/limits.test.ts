/** Limits of what one message may say: one less and the limit itself are taken, one more is refused as documented. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Limits, Manager } from "millrace"
import { defaults, toNumbers } from "../../src/model/Policy.ts"
import { Code } from "../../src/model/Refusal.ts"
import { Reason } from "../../src/model/Task.ts"
import * as ClientMessages from "../../src/wire/ClientMessages.ts"
import { frame } from "../../src/wire/Frames.ts"
import type * as ManagerMessages from "../../src/wire/ManagerMessages.ts"
import { ClientType as C, ManagerType as M, type TaskOptions } from "../../src/wire/Vocabulary.ts"
import { overTcp } from "./layers.ts"
import { hello, Raw } from "./raw.ts"

type Message = ClientMessages.ClientMessage

/** What a row may name: a fresh request number, and numbers of what is there. */
interface At {
  readonly request: number
  readonly queue: number
  /** A queue that takes payloads up to the ceiling. */
  readonly large: number
}

interface Row {
  readonly limit: keyof typeof Limits
  readonly what: string
  readonly say: (value: number, at: At) => Message
  /** What answers the limit; undefined: the message has no answer. */
  readonly answer: number | undefined
  /** How more is refused. Default: a breach, which closes the connection. */
  readonly code?: number
}

let names = 0
const text = (size: number): string => "x".repeat(size)
const of = <A>(count: number, item: A): ReadonlyArray<A> => new Array<A>(count).fill(item)
const empty = new Uint8Array()
const pairs = (count: number): ReadonlyArray<number> => of(2 * count, 1)

const open = (request: number, change: Partial<ClientMessages.Open> = {}): ClientMessages.Open => {
  const base = { fingerprint: empty, schema: "", accepts: [], policy: [] } as const
  return { type: C.open, request, name: `limits-${++names}`, ...base, ...change }
}

const put = (
  { queue, request }: Pick<At, "queue" | "request">,
  payloads: ReadonlyArray<Uint8Array>,
  options?: TaskOptions
): Message => {
  return {
    type: C.put,
    request,
    queue,
    atomic: false,
    waitMs: 0,
    payloads,
    options: options && of(payloads.length, options)
  }
}

const item =
  (options: (value: number) => TaskOptions): Row["say"] =>
  (value, at) =>
    put(at, [empty], options(value))

/** A commit of a lease that nobody has: it is read as a whole before it is found to be lost. */
const effects =
  (what: (count: number) => Partial<NonNullable<NonNullable<ClientMessages.Commit["effects"]>[number]>>): Row["say"] =>
  (count, { request }) => ({
    type: C.commit,
    request,
    tasks: [1],
    fences: [1],
    results: [empty],
    effects: [{ puts: [], sets: [], counts: [], writes: [], ...what(count) }]
  })

const filter = { key: undefined, label: undefined, id: undefined, priorityMin: undefined, priorityMax: undefined }

const rows: ReadonlyArray<Row> = [
  {
    limit: "nameCharsMax",
    what: "a queue's name",
    say: (value, { request }) => open(request, { name: text(value) }),
    answer: M.opened
  },
  {
    limit: "nameCharsMax",
    what: "an object's name",
    say: (value, { request }) => ({ type: C.openObject, request, name: text(value), kind: 0, create: true }),
    answer: M.objectOpened
  },
  { limit: "taskIdBytesMax", what: "a dedupe id", say: item((size) => ({ id: text(size) })), answer: M.putItems },
  { limit: "taskKeyBytesMax", what: "a lane key", say: item((size) => ({ key: text(size) })), answer: M.putItems },
  {
    limit: "taskKeyBytesMax",
    what: "the lane of a change",
    say: (size, { queue, request }) => {
      return { type: C.lane, request, queue, key: text(size), change: 0, limits: undefined, forMs: undefined }
    },
    answer: M.done
  },
  {
    limit: "taskKeyBytesMax",
    what: "the key of a filter",
    say: (size, { queue, request }) => {
      return { type: C.purge, request, queue, filter: { ...filter, key: text(size) }, after: 0, upTo: undefined }
    },
    answer: M.counted
  },
  {
    limit: "labelsPerTaskMax",
    what: "labels of a task",
    say: item((count) => ({ labels: of(count, "l") })),
    answer: M.putItems
  },
  { limit: "labelBytesMax", what: "a label", say: item((size) => ({ labels: [text(size)] })), answer: M.putItems },
  { limit: "traceBytesMax", what: "a trace context", say: item((size) => ({ trace: text(size) })), answer: M.putItems },
  {
    limit: "schemaTextBytesMax",
    what: "a schema text",
    say: (size, { request }) => open(request, { schema: text(size) }),
    answer: M.opened
  },
  {
    limit: "acceptedFingerprintsMax",
    what: "older fingerprints",
    say: (count, { request }) => open(request, { accepts: of(count, new Uint8Array(32)) }),
    answer: M.opened
  },
  {
    limit: "payloadBytesMax",
    what: "a payload, by default",
    say: (size, at) => put(at, [new Uint8Array(size)]),
    answer: M.putDone,
    code: Code.payloadTooLarge
  },
  {
    limit: "payloadBytesMax",
    what: "a result",
    say: (size, { request }) => {
      const results = [new Uint8Array(size)]
      return { type: C.commit, request, tasks: [1], fences: [1], results, effects: undefined }
    },
    answer: M.items
  },
  {
    limit: "payloadBytesMax",
    what: "an error",
    say: (size, { request }) => {
      const failure = { reason: 1, error: new Uint8Array(size), text: "", retryAfterMs: undefined }
      return { type: C.fail, request, tasks: [1], fences: [1], failures: [failure] }
    },
    answer: M.items
  },
  {
    limit: "payloadBytesMax",
    what: "a checkpoint",
    say: (size, { request }) => {
      return { type: C.checkpoint, request, tasks: [1], fences: [1], values: [new Uint8Array(size)] }
    },
    answer: M.items
  },
  {
    limit: "payloadBytesCeiling",
    what: "a payload of a queue that takes the largest",
    say: (size, { large, request }) => put({ queue: large, request }, [new Uint8Array(size)]),
    answer: M.putDone
  },
  {
    limit: "payloadBytesCeiling",
    what: "a policy's payload limit",
    say: (payloadBytesMax, { request }) => open(request, { policy: toNumbers({ ...defaults, payloadBytesMax }) }),
    answer: M.opened,
    code: Code.definitionInvalid
  },
  { limit: "batchItemsMax", what: "items of a put", say: (count, at) => put(at, of(count, empty)), answer: M.putDone },
  {
    limit: "batchItemsMax",
    what: "items of a commit",
    say: (count, { request }) => {
      const results = of(count, empty)
      return { type: C.commit, request, tasks: of(count, 1), fences: of(count, 1), results, effects: undefined }
    },
    answer: M.items
  },
  {
    limit: "batchItemsMax",
    what: "items of a fail",
    say: (count, { request }) => {
      const failures = of(count, { reason: 1, error: undefined, text: "", retryAfterMs: undefined })
      return { type: C.fail, request, tasks: of(count, 1), fences: of(count, 1), failures }
    },
    answer: M.items
  },
  {
    limit: "batchItemsMax",
    what: "checkpoints",
    say: (count, { request }) => {
      return { type: C.checkpoint, request, tasks: of(count, 1), fences: of(count, 1), values: of(count, empty) }
    },
    answer: M.items
  },
  {
    limit: "batchItemsMax",
    what: "tasks of a lease",
    say: (count, { queue, request }) => ({ type: C.lease, request, queue, count, waitMs: 0, get: false }),
    answer: M.refused
  },
  {
    limit: "batchItemsMax",
    what: "tasks of a cancel",
    say: (count, { queue, request }) => ({ type: C.cancel, request, queue, tasks: of(count, 1) }),
    answer: M.standings
  },
  {
    limit: "batchItemsMax",
    what: "keys of a set",
    say: (count, { request }) => ({ type: C.setKeys, request, object: 0, action: 0, keys: of(count, empty) }),
    answer: M.bits
  },
  {
    limit: "batchItemsMax",
    what: "keys read of a dict",
    say: (count, { request }) => ({ type: C.dictGet, request, object: 1, keys: of(count, "k") }),
    answer: M.entries
  },
  {
    limit: "batchItemsMax",
    what: "writes of a dict",
    say: (count, { request }) => {
      return {
        type: C.dictWrite,
        request,
        object: 1,
        writes: of(count, { key: "k", value: empty, expected: undefined })
      }
    },
    answer: M.written
  },
  {
    limit: "commitEffectsMax",
    what: "children of a commit",
    say: effects((count) => ({ puts: of(count, { queue: 0, payload: empty, options: undefined }) })),
    answer: M.items
  },
  {
    limit: "commitEffectsMax",
    what: "set additions of a commit",
    say: effects((count) => ({ sets: of(count, { object: 0, key: empty }) })),
    answer: M.items
  },
  {
    limit: "commitEffectsMax",
    what: "increments of a commit",
    say: effects((count) => ({ counts: of(count, { object: 0, by: 1 }) })),
    answer: M.items
  },
  {
    limit: "commitEffectsMax",
    what: "dict writes of a commit",
    say: effects((count) => ({ writes: of(count, { object: 0, key: "k", value: empty, expected: undefined }) })),
    answer: M.items
  },
  {
    limit: "creditMax",
    what: "credit of a subscription",
    say: (credit, { queue, request }) => ({ type: C.subscribe, request, queue, credit, prefetch: 0 }),
    answer: M.streaming
  },
  {
    limit: "creditMax",
    what: "prefetch of a subscription",
    say: (prefetch, { queue, request }) => ({ type: C.subscribe, request, queue, credit: 1, prefetch }),
    answer: M.streaming
  },
  {
    limit: "creditMax",
    what: "credit of a reader of outcomes",
    say: (credit, { queue, request }) => ({ type: C.follow, request, queue, cursor: 0, credit }),
    answer: M.streaming
  },
  {
    limit: "creditMax",
    what: "more credit",
    say: (credit) => ({ type: C.credit, stream: 0, credit }),
    answer: undefined
  },
  {
    limit: "creditMax",
    what: "leases of a heartbeat",
    say: (count) => ({ type: C.heartbeat, sequence: 1, held: pairs(count) }),
    answer: M.heartbeat
  },
  {
    limit: "creditMax",
    what: "leases that have begun",
    say: (count) => ({ type: C.started, held: pairs(count) }),
    answer: undefined
  },
  {
    limit: "creditMax",
    what: "leases that are acknowledged",
    say: (count) => ({ type: C.acknowledge, held: pairs(count) }),
    answer: undefined
  },
  {
    limit: "creditMax",
    what: "leases that are renewed",
    say: (count, { request }) => ({ type: C.renew, request, held: pairs(count) }),
    answer: M.items
  },
  {
    limit: "creditMax",
    what: "leases that are released",
    say: (count, { request }) => ({ type: C.release, request, held: pairs(count) }),
    answer: M.items
  },
  {
    limit: "pageItemsMax",
    what: "tasks of a peek",
    say: (count, { queue, request }) => ({ type: C.peek, request, queue, count }),
    answer: M.peeked
  },
  {
    limit: "pageItemsMax",
    what: "tasks of a browse",
    say: (limit, { queue, request }) => {
      return { type: C.browse, request, queue, state: undefined, filter, after: 0, limit, payloads: false }
    },
    answer: M.browsed
  },
  {
    limit: "pageItemsMax",
    what: "entries of a listing",
    say: (count, { request }) => ({ type: C.listObject, request, object: 0, after: undefined, count }),
    answer: M.keys
  },
  {
    limit: "redriveTasksMax",
    what: "tasks of a redrive",
    say: (count, { queue, request }) => {
      return { type: C.redrive, request, queue, tasks: of(count, 1), filter, after: 0, upTo: undefined }
    },
    answer: M.redriven
  },
  {
    limit: "answerRangesMax",
    what: "ranges of answers",
    say: (count) => ({ type: C.answered, ranges: pairs(count) }),
    answer: undefined
  }
]

const connect = Effect.flatMap(Manager.Listening, ({ address }) =>
  Effect.acquireRelease(
    Effect.sync(() => new Raw(address._tag === "Tcp" ? address.port : 0)),
    (raw) => Effect.sync(() => raw.socket.destroy())
  )
)

const stats = (request: number): Message => ({ type: C.stats, request, queue: undefined })

/** What was heard before the answer to a request that is said behind it. */
const beforeStats = async (raw: Raw, request: number): Promise<ReadonlyArray<ManagerMessages.ManagerMessage>> => {
  raw.say(stats(request))
  await raw.next(M.stats)
  return raw.heard.splice(0)
}

/** The same message with one more element that brings its body to `size` bytes. Assumes: fewer than 15 elements. */
const grown = (message: Message, size: number): Uint8Array => {
  const body = frame((w) => ClientMessages.encode(w, message)).subarray(4)
  const bytes = Buffer.alloc(4 + size)
  bytes.writeUInt32BE(size)
  bytes.set(body, 4)
  bytes[4]! += 1
  bytes[4 + body.byteLength] = 0xc6
  bytes.writeUInt32BE(size - body.byteLength - 5, 5 + body.byteLength)
  return bytes
}

describe("the limit of", () => {
  it.layer(overTcp, { excludeTestServices: true })((it) => {
    for (const row of rows) {
      const { answer, code = Code.protocol, limit, say, what } = row
      it.effect(`${what} (${limit})`, () =>
        Effect.gen(function* () {
          const max = Limits[limit]
          const raw = yield* connect
          yield* Effect.promise(async () => {
            await raw.login()
            const policy = toNumbers({ ...defaults, payloadBytesMax: Limits.payloadBytesCeiling })
            raw.say(open(1), open(2, { policy }))
            const [{ queue }, { queue: large }] = [await raw.next(M.opened), await raw.next(M.opened)]
            raw.say({ type: C.openObject, request: 3, name: "set", kind: 0, create: true })
            raw.say({ type: C.openObject, request: 4, name: "dict", kind: 1, create: true })
            await raw.next(M.objectOpened)
            await raw.next(M.objectOpened)
            for (const value of [max - 1, max]) {
              raw.say(say(value, { request: value + 100, queue, large }))
              const heard = await beforeStats(raw, 5)
              assert.deepStrictEqual(
                heard.map(({ type }) => type),
                answer === undefined ? [] : [answer]
              )
              const [refused] = heard
              // Nothing waits in the queue, and the commits are of no lease: that is all that may be wrong with them.
              if (refused?.type === M.refused) assert.strictEqual(refused.code, Code.empty)
            }
            raw.say(say(max + 1, { request: max + 101, queue, large }))
            if (code === Code.protocol) {
              assert.match(await raw.refused(code), new RegExp(`\\b(${max}|${2 * max})\\b`))
              assert.deepStrictEqual(raw.heard, [])
            } else {
              const [refused, ...others] = await beforeStats(raw, 5)
              assert.deepStrictEqual(others, [])
              assert.strictEqual(refused?.type === M.refused && refused.code, code)
            }
          })
        })
      )
    }

    it.effect("a frame before login is in bytes of its body", () =>
      Effect.gen(function* () {
        for (const size of [Limits.preAuthFrameBytesMax - 1, Limits.preAuthFrameBytesMax]) {
          const raw = yield* connect
          raw.write(grown(hello, size))
          yield* Effect.promise(() => raw.next(M.hello))
        }
        const raw = yield* connect
        raw.write(grown(hello, Limits.preAuthFrameBytesMax + 1))
        assert.match(yield* Effect.promise(() => raw.refused(Code.protocol)), /1025 bytes, at most 1024/)
        assert.strictEqual(raw.heard.length, 0)
      })
    )

    it.effect("a frame after login is in bytes of its body", () =>
      Effect.gen(function* () {
        const raw = yield* connect
        yield* Effect.promise(async () => {
          await raw.login()
          for (const size of [Limits.frameBytesMax - 1, Limits.frameBytesMax]) {
            raw.write(grown(stats(size), size))
            assert.strictEqual((await raw.next(M.stats)).request, size)
          }
          // Refused by its length: the body is not waited for.
          raw.write(grown(stats(1), Limits.frameBytesMax + 1).subarray(0, 5))
          assert.match(await raw.refused(Code.protocol), /20971521 bytes, at most 20971520/)
        })
      })
    )

    it.effect(
      "frames before login is above the four that a login has: none is taken out of turn, and none beside them",
      () =>
        Effect.gen(function* () {
          const first: Message = { type: C.authFirst, mechanism: "SCRAM-SHA-256", message: "n,,n=default,r=abc" }
          const final: Message = { type: C.authFinal, message: "c=biws,r=abc,p=abc" }
          const sessionOpen: Message = { type: C.sessionOpen, session: undefined, held: [] }
          const login = [hello, first, final, sessionOpen]
          assert.isBelow(login.length, Limits.preAuthFramesMax)
          for (let said = 0; said < 2; said++) {
            for (const wrong of [...login, stats(1)]) {
              if (wrong === login[said]) continue
              const raw = yield* connect
              for (const message of login.slice(0, said)) raw.say(message)
              raw.say(wrong)
              yield* Effect.promise(() => raw.refused(Code.protocol))
            }
          }
          // The session's own frame, twice, and a login after the login.
          for (const message of login) {
            const raw = yield* connect
            yield* Effect.promise(() => raw.login())
            raw.say(message)
            yield* Effect.promise(() => raw.refused(Code.protocol))
          }
        })
    )

    it.effect("messages of a frame is for each frame", () =>
      Effect.gen(function* () {
        const raw = yield* connect
        const messages = (count: number): ReadonlyArray<Message> => [
          ...of(count - 1, { type: C.credit, stream: 0, credit: 0 } as const),
          stats(count)
        ]
        yield* Effect.promise(async () => {
          await raw.login()
          for (const count of [Limits.messagesPerFrameMax - 1, Limits.messagesPerFrameMax]) {
            raw.say(...messages(count))
            assert.strictEqual((await raw.next(M.stats)).request, count)
          }
          raw.say(...messages(Limits.messagesPerFrameMax + 1))
          assert.match(await raw.refused(Code.protocol), /too many messages/)
          assert.strictEqual(raw.heard.length, 0)
        })
      })
    )

    it.effect("nesting is for what a newer peer adds", () =>
      Effect.gen(function* () {
        const raw = yield* connect
        const nested = (depth: number): Uint8Array => {
          const body = frame((w) => ClientMessages.encode(w, stats(depth))).subarray(4)
          return Uint8Array.of(
            0,
            0,
            0,
            body.byteLength + depth + 1,
            body[0]! + 1,
            ...body.subarray(1),
            ...of(depth, 0x91),
            0xc0
          )
        }
        yield* Effect.promise(async () => {
          await raw.login()
          for (const depth of [Limits.nestingDepthMax - 1, Limits.nestingDepthMax]) {
            raw.write(nested(depth))
            assert.strictEqual((await raw.next(M.stats)).request, depth)
          }
          raw.write(nested(Limits.nestingDepthMax + 1))
          assert.match(await raw.refused(Code.protocol), /too deep/)
        })
      })
    )

    it.effect("a name is for namespaces, agents and credentials, too", () =>
      Effect.gen(function* () {
        const max = Limits.nameCharsMax
        const namespaces: Array<string> = []
        for (const size of [max - 1, max, max + 1]) {
          const raw = yield* connect
          raw.say({ ...hello, namespace: text(size) })
          namespaces.push(yield* Effect.promise(() => raw.refused(Code.protocol)))
        }
        // There is no such namespace; the one that is too long is not looked for.
        assert.match(namespaces[0]!, /no namespace/)
        assert.match(namespaces[1]!, /no namespace/)
        assert.match(namespaces[2]!, /201 bytes, at most 200/)
        for (const size of [max - 1, max]) {
          const raw = yield* connect
          raw.say({ ...hello, agent: text(size), role: text(size) })
          yield* Effect.promise(() => raw.next(M.hello))
          raw.say({ type: C.authFirst, mechanism: "SCRAM-SHA-256", message: `n,,n=${text(size)},r=abc` })
          yield* Effect.promise(() => raw.next(M.authChallenge))
        }
        for (const change of [{ agent: text(max + 1) }, { role: text(max + 1) }]) {
          const raw = yield* connect
          raw.say({ ...hello, ...change })
          assert.match(yield* Effect.promise(() => raw.refused(Code.protocol)), /201 bytes, at most 200/)
        }
        const raw = yield* connect
        raw.say(hello)
        yield* Effect.promise(() => raw.next(M.hello))
        raw.say({ type: C.authFirst, mechanism: "SCRAM-SHA-256", message: `n,,n=${text(max + 1)},r=abc` })
        // As whatever is wrong with a login.
        yield* Effect.promise(() => raw.refused(Code.authentication))
      })
    )

    it.effect("leases is for what a session says that it holds, too", () =>
      Effect.gen(function* () {
        for (const count of [Limits.creditMax - 1, Limits.creditMax]) {
          const raw = yield* connect
          const { lost } = yield* Effect.promise(() => raw.login(undefined, undefined, pairs(count)))
          assert.strictEqual(lost.length, count)
        }
        const raw = yield* connect
        const login = raw.login(undefined, undefined, pairs(Limits.creditMax + 1))
        login.catch(() => {})
        assert.match(yield* Effect.promise(() => raw.refused(Code.protocol)), /131074 elements, at most 131072/)
      })
    )

    it.effect("credit is for its sum: what is above it is cut", () =>
      Effect.gen(function* () {
        const raw = yield* connect
        yield* Effect.promise(async () => {
          await raw.login()
          raw.say(open(1))
          const { queue } = await raw.next(M.opened)
          raw.say({ type: C.subscribe, request: 2, queue, credit: Limits.creditMax - 1, prefetch: 0 })
          const { stream } = await raw.next(M.streaming)
          raw.say({ type: C.credit, stream, credit: 3 })
          for (let left = Limits.creditMax + 5, request = 10; left > 0; left -= Limits.batchItemsMax) {
            raw.say(put({ queue, request: request++ }, of(Math.min(left, Limits.batchItemsMax), empty)))
          }
          const delivered = (): number =>
            raw.heard.reduce((sum, m) => sum + (m.type === M.deliver ? m.items.length : 0), 0)
          await raw.until(() => delivered() >= Limits.creditMax, "as many tasks as there was credit")
          raw.say(stats(5))
          await raw.next(M.stats)
          assert.strictEqual(delivered(), Limits.creditMax)
          raw.heard.splice(0)
          raw.say({ type: C.credit, stream, credit: 1 })
          await raw.next(M.deliver)
        })
      })
    )

    it.effect("bytes of a batch is for what one lease answers with", () =>
      Effect.gen(function* () {
        const raw = yield* connect
        const mib = Limits.payloadBytesMax
        assert.strictEqual(Limits.batchBytesMax, 4 * mib)
        yield* Effect.promise(async () => {
          await raw.login()
          for (const [last, leased] of [
            [[mib - 2, 1], 5],
            [[mib - 1, 1], 5],
            [[mib - 1, 2], 4]
          ] as const) {
            raw.say(open(1 + names * 10))
            const { queue } = await raw.next(M.opened)
            const at = { queue, request: 2 + names * 10 }
            raw.say(
              put(
                at,
                [...of(3, mib), ...last].map((size) => new Uint8Array(size))
              )
            )
            await raw.next(M.putDone)
            raw.say({ type: C.lease, request: 3 + names * 10, queue, count: 10, waitMs: 0, get: true })
            assert.strictEqual((await raw.next(M.leased)).items.length, leased)
            raw.say({ type: C.peek, request: 4 + names * 10, queue, count: 10 })
            assert.strictEqual((await raw.next(M.peeked)).items.length, 5 - leased)
          }
        })
      })
    )

    it.effect("tasks that one purge or browse looks at is a place to go on from", () =>
      Effect.gen(function* () {
        const raw = yield* connect
        assert.strictEqual(Limits.browseTasksMax, Limits.sweepTasksMax)
        yield* Effect.promise(async () => {
          await raw.login()
          for (const count of [Limits.sweepTasksMax - 1, Limits.sweepTasksMax, Limits.sweepTasksMax + 1]) {
            const more = count > Limits.sweepTasksMax
            raw.say(open(count * 10))
            const { queue } = await raw.next(M.opened)
            for (let left = count - 1, request = 1; left > 0; left -= Limits.batchItemsMax) {
              raw.say(put({ queue, request: count * 10 + request++ }, of(Math.min(left, Limits.batchItemsMax), empty)))
            }
            raw.say(put({ queue, request: count * 10 + 6 }, [empty], { labels: ["last"] }))
            await raw.next(M.putItems)
            const browse = { queue, state: undefined, filter: { ...filter, label: "last" }, limit: 5, payloads: false }
            raw.say({ type: C.browse, request: count * 10 + 7, after: 0, ...browse })
            const page = await raw.next(M.browsed)
            assert.strictEqual(page.items.length, more ? 0 : 1)
            if (more) {
              raw.say({ type: C.browse, request: count * 10 + 8, after: page.next!, ...browse })
              assert.strictEqual((await raw.next(M.browsed)).items.length, 1)
            }
            raw.say({ type: C.purge, request: count * 10 + 9, queue, filter, after: 0, upTo: undefined })
            const purged = await raw.next(M.counted)
            assert.strictEqual(purged.count, Math.min(count, Limits.sweepTasksMax))
            if (more) assert.isDefined(purged.next)
          }
        })
      })
    )

    it.effect("tasks of one redrive is for all that fit, too", () =>
      Effect.gen(function* () {
        const raw = yield* connect
        yield* Effect.promise(async () => {
          await raw.login()
          for (const count of [Limits.redriveTasksMax - 1, Limits.redriveTasksMax, Limits.redriveTasksMax + 1]) {
            const request = count * 10
            raw.say(open(request))
            const { queue } = await raw.next(M.opened)
            raw.say(put({ queue, request: request + 1 }, of(count, empty)))
            raw.say({ type: C.lease, request: request + 2, queue, count, waitMs: 0, get: false })
            const { items } = await raw.next(M.leased)
            const failures = of(count, { reason: Reason.killed, error: undefined, text: "", retryAfterMs: undefined })
            const [tasks, fences] = [items.map(({ task }) => task), items.map(({ fence }) => fence)]
            raw.say({ type: C.fail, request: request + 3, tasks, fences, failures })
            raw.say({
              type: C.redrive,
              request: request + 4,
              queue,
              tasks: undefined,
              filter,
              after: 0,
              upTo: undefined
            })
            const redriven = await raw.next(M.redriven)
            assert.strictEqual(redriven.tasks.length / 2, Math.min(count, Limits.redriveTasksMax))
            if (count > Limits.redriveTasksMax) assert.isDefined(redriven.next)
          }
        })
      })
    )
  })
})
