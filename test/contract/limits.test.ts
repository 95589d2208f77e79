/** Limits of what one message may say: one less and the limit itself are taken, one more is refused as documented. */
import { readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Limits, Manager } from "millrace"
import { defaults, toNumbers } from "../../src/model/Policy.ts"
import { Code } from "../../src/model/Refusal.ts"
import { Reason } from "../../src/model/Task.ts"
import * as ClientMessages from "../../src/wire/ClientMessages.ts"
import { frame } from "../../src/wire/Frames.ts"
import type * as ManagerMessages from "../../src/wire/ManagerMessages.ts"
import { ClientType as C, ManagerType as M } from "../../src/wire/Vocabulary.ts"
import { overTcp } from "./layers.ts"
import { empty, filter, type Message, of, open, pairs, put, rows, tested, text, unbounded } from "./limits.ts"
import { hello, Raw } from "./raw.ts"

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
          for (const [i, [last, leased]] of (
            [
              [[mib - 2, 1], 5],
              [[mib - 1, 1], 5],
              [[mib - 1, 2], 4]
            ] as const
          ).entries()) {
            const request = 10 * (i + 1)
            raw.say(open(request))
            const { queue } = await raw.next(M.opened)
            const at = { queue, request: request + 1 }
            raw.say(
              put(
                at,
                [...of(3, mib), ...last].map((size) => new Uint8Array(size))
              )
            )
            await raw.next(M.putDone)
            raw.say({ type: C.lease, request: request + 2, queue, count: 10, waitMs: 0, get: true })
            assert.strictEqual((await raw.next(M.leased)).items.length, leased)
            raw.say({ type: C.peek, request: request + 3, queue, count: 10 })
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

describe("the table of limits", () => {
  const read = (file: string): string => readFileSync(new URL(`../../${file}`, import.meta.url), "utf8")

  /** What the sections of `Limits.ts` export, up to the one of payloads. */
  const exported = (): ReadonlyArray<string> => {
    const [before, after] = read("src/Limits.ts").split("// ---- shared objects")
    assert.isDefined(after)
    assert.match(before!, /\/\/ ---- payloads and batches/)
    return Array.from(before!.matchAll(/^export const (\w+)/gm), ([, name]) => name!)
  }

  it("has every constant up to payloads and batches, as a bound with its tests or as none with its reason", () => {
    const names = exported()
    assert.isAbove(names.length, 60)
    const bounds = new Set([...rows.map(({ limit }) => limit), ...Object.keys(tested)])
    const others = new Set(Object.keys(unbounded))
    assert.deepStrictEqual(
      names.filter((name) => !bounds.has(name) && !others.has(name)),
      []
    )
    assert.deepStrictEqual(
      [...others].filter((name) => bounds.has(name) || !names.includes(name)),
      []
    )
    assert.deepStrictEqual(
      [...bounds].filter((name) => !(name in Limits)),
      []
    )
  })

  it("names tests that there are, in files that the runner finds", () => {
    let names = 0
    for (const [file, test] of Object.values(tested).flat()) {
      const escaped = test.replaceAll("{", "${").replace(/[.*+?^${}()|[\]\\]/g, "\\$&")
      assert.match(read(file), new RegExp(`\\bit(\\.live|\\.effect)?\\(\\s*(["\`])${escaped}\\2,`), `${file}: ${test}`)
      if (!file.endsWith(".test.ts")) assert.include(read(file.replace(".ts", ".test.ts")), "suite(")
      names++
    }
    console.log(
      `limits: ${rows.length} rows, ${names} other tests, ${Object.keys(unbounded).length} that bound no peer`
    )
  })
})
