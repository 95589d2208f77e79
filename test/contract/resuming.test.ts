/** A session has one connection, the newest, and each of its requests one effect, however often it is said. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Manager, Store } from "millrace"
import { Code } from "../../src/model/Refusal.ts"
import { layerMemoryLog, MemoryDisk } from "../../src/testing/MemoryLog.ts"
import type * as ClientMessages from "../../src/wire/ClientMessages.ts"
import type * as ManagerMessages from "../../src/wire/ManagerMessages.ts"
import { ClientType as C, ManagerType as M } from "../../src/wire/Vocabulary.ts"
import { auth } from "./layers.ts"
import { Raw } from "./raw.ts"

type Message = ClientMessages.ClientMessage

const connect = Effect.flatMap(Manager.Listening, ({ address }) =>
  Effect.acquireRelease(
    Effect.sync(() => new Raw(address._tag === "Tcp" ? address.port : 0)),
    (raw) => Effect.sync(() => raw.socket.destroy())
  )
)

const open = (name: string): Message => {
  return { type: C.open, request: 1, name, fingerprint: new Uint8Array(), schema: "", accepts: [], policy: [] }
}

const put = (request: number, queue: number, count: number, label?: string): Message => {
  const payloads = Array.from({ length: count }, (_, i) => Uint8Array.of(i))
  const options = label === undefined ? undefined : payloads.map(() => ({ labels: [label] }))
  return { type: C.put, request, queue, atomic: false, waitMs: 0, payloads, options }
}

const lease = (request: number, queue: number, count: number): Message => {
  return { type: C.lease, request, queue, count, waitMs: 0, get: false }
}

const commit = (request: number, { items }: ManagerMessages.Leased): Message => {
  const [tasks, fences] = [items.map(({ task }) => task), items.map(({ fence }) => fence)]
  return { type: C.commit, request, tasks, fences, results: items.map(() => Uint8Array.of(1)), effects: undefined }
}

const stats = (request: number, queue: number): Message => ({ type: C.stats, request, queue })

const countsOf = async (raw: Raw, queue: number): Promise<ReadonlyArray<number>> => {
  raw.say(stats(9_999, queue))
  const { done, leased, puts, ready } = (await raw.next(M.stats)).queues[0]!
  return [puts, ready, leased, done]
}

const stores: ReadonlyArray<readonly [where: string, store: () => Layer.Layer<Store.Store, unknown>]> = [
  ["in memory", () => Store.layerMemory],
  ["in a store", () => layerMemoryLog(new MemoryDisk())]
]

for (const [where, store] of stores) {
  const listening = () =>
    Manager.layerTcp({ port: 0, auth }).pipe(
      Layer.provide(Manager.layer({ queues: [] })),
      Layer.provide(store()),
      Layer.fresh
    )

  describe(`a session whose answers are kept ${where}`, () => {
    it.live(
      "belongs to the newest of two connections that resume it at once; the older is told, nothing is done twice",
      () =>
        Effect.gen(function* () {
          const first = yield* connect
          const { queue, session } = yield* Effect.promise(async () => {
            const { session } = await first.login()
            first.say(open("contested"))
            return { session, queue: (await first.next(M.opened)).queue }
          })
          let holder = first
          const rounds = 21
          let answeredTwice = 0
          for (let round = 1; round <= rounds; round++) {
            const both = [yield* connect, yield* connect] as const
            yield* Effect.promise(async () => {
              await Promise.all(both.map((raw) => raw.prove()))
              for (const [i, raw] of both.entries()) {
                // Together; or when the first may have begun; or when it has had its answers.
                if (i === 1 && round % 3 === 1) await new Promise((resolve) => setImmediate(resolve))
                if (i === 1 && round % 3 === 2) await both[0].until(() => both[0].heard.length === 3, "its answers")
                // Said in one go, without a look at what comes back.
                raw.say({ type: C.sessionOpen, session, held: [] })
                raw.say(put(100 * round, queue, 3), put(100 * round + 1, queue, 2, "with options"))
              }
              await holder.refused(Code.replaced)
              await Promise.race(both.map((raw) => raw.until(() => raw.closed, "the end of the older one")))
              const old = both.find((raw) => raw.closed)!
              const winner = both.find((raw) => raw !== old)!
              assert.match(await old.refused(Code.replaced), /took over/)
              assert.isTrue((await winner.next(M.sessionOpened)).resumed)
              const plain = await winner.next(M.putDone)
              assert.deepStrictEqual([plain.request, plain.count], [100 * round, 3])
              const items = await winner.next(M.putItems)
              assert.strictEqual(items.request, 100 * round + 1)
              // What the older one was told before it was replaced is the same.
              for (const said of old.heard) {
                if (said.type === M.putDone) assert.deepStrictEqual(said, plain)
                else if (said.type === M.putItems) assert.deepStrictEqual(said, items)
                else assert.strictEqual(said.type, M.sessionOpened)
              }
              if (old.heard.length > 1) answeredTwice++
              assert.deepStrictEqual(await countsOf(winner, queue), [5 * round, 5 * round, 0, 0])
              assert.isFalse(winner.closed)
              holder = winner
            })
          }
          // Both kinds of contest took place: before the older one was served, and after.
          assert.isAtLeast(answeredTwice, rounds / 3)
          assert.isBelow(answeredTwice, rounds)
        }).pipe(Effect.scoped, Effect.provide(listening()))
    )

    it.live("is not listened to on the connection that was replaced", () =>
      Effect.gen(function* () {
        const [old, next] = [yield* connect, yield* connect]
        yield* Effect.promise(async () => {
          const { session } = await old.login()
          old.say(open("replaced"))
          const { queue } = await old.next(M.opened)
          await next.login(undefined, session)
          old.say(put(2, queue, 7), { type: C.goodbye })
          await old.refused(Code.replaced)
          assert.deepStrictEqual(await countsOf(next, queue), [0, 0, 0, 0])
          next.say(put(2, queue, 1))
          assert.strictEqual((await next.next(M.putDone)).count, 1)
        })
      }).pipe(Effect.scoped, Effect.provide(listening()))
    )

    it.live("gives the first answer again to every request that is said again, and does nothing a second time", () =>
      Effect.gen(function* () {
        const raw = yield* connect
        const said = yield* Effect.promise(async () => {
          const { session } = await raw.login()
          raw.say(open("again"))
          const { queue } = await raw.next(M.opened)
          raw.say(put(10, queue, 5))
          const puts = await raw.next(M.putDone)
          raw.say(put(11, queue, 1, "with options"))
          const withOptions = await raw.next(M.putItems)
          raw.say(lease(12, queue, 4))
          const leased = await raw.next(M.leased)
          const half = { ...leased, items: leased.items.slice(0, 2) }
          raw.say(commit(13, half))
          const committed = await raw.next(M.done)
          // Again on the same connection: these leases are over.
          raw.say(commit(14, half))
          const late = await raw.next(M.items)
          assert.deepStrictEqual(late.codes, [Code.alreadyEnded, Code.alreadyEnded])
          return { session, queue, puts, withOptions, leased, half, committed, late }
        })
        const { committed, half, late, leased, puts, queue, session, withOptions } = said
        const held = leased.items.slice(2).flatMap(({ fence, task }) => [task, fence])
        for (let times = 0; times < 3; times++) {
          const again = yield* connect
          yield* Effect.promise(async () => {
            const { lost, resumed } = await again.login(undefined, session, held)
            assert.deepStrictEqual([resumed, lost], [true, []])
            again.say(put(10, queue, 5), put(11, queue, 1, "with options"), lease(12, queue, 4))
            assert.deepStrictEqual(await again.next(M.putDone), puts)
            assert.deepStrictEqual(await again.next(M.putItems), withOptions)
            // Of the leases, those that it still has.
            assert.deepStrictEqual(await again.next(M.leased), { ...leased, items: leased.items.slice(2) })
            again.say(commit(13, half), commit(14, half))
            assert.deepStrictEqual(await again.next(M.done), committed)
            assert.deepStrictEqual(await again.next(M.items), late)
            // The same number with other things in it is the same request.
            again.say(put(10, queue, 100))
            assert.deepStrictEqual(await again.next(M.putDone), puts)
            assert.deepStrictEqual(await countsOf(again, queue), [6, 2, 2, 2])
            assert.strictEqual(again.heard.length, 0)
          })
        }
        const last = yield* connect
        yield* Effect.promise(async () => {
          await last.login(undefined, session, held)
          // Acknowledged, so it is forgotten: the number is free again.
          last.say({ type: C.answered, ranges: [10, 10] }, put(10, queue, 1))
          const anew = await last.next(M.putDone)
          assert.deepStrictEqual([anew.request, anew.count], [10, 1])
          assert.notStrictEqual(anew.first, puts.first)
          assert.deepStrictEqual(await countsOf(last, queue), [7, 3, 2, 2])
        })
      }).pipe(Effect.scoped, Effect.provide(listening()))
    )

    it.live(
      "is not touched by another session that says its numbers, its leases or its token without the right (M7, M22)",
      () =>
        Effect.gen(function* () {
          const [mine, other, thief] = [yield* connect, yield* connect, yield* connect]
          yield* Effect.promise(async () => {
            const { session } = await mine.login()
            mine.say(open("apart"))
            const { queue } = await mine.next(M.opened)
            mine.say(put(10, queue, 2))
            const puts = await mine.next(M.putDone)
            mine.say(lease(11, queue, 2))
            const leased = await mine.next(M.leased)
            mine.say({ type: C.lease, request: 12, queue, count: 1, waitMs: undefined, get: false })
            await other.login()
            other.say(
              // Numbers of the first session: acknowledged, abandoned, and said again with its leases.
              { type: C.answered, ranges: [0, Number.MAX_SAFE_INTEGER] },
              { type: C.abandon, request: 12 },
              commit(13, leased),
              { type: C.release, request: 14, held: leased.items.flatMap(({ fence, task }) => [task, fence]) }
            )
            const [committed, released] = [await other.next(M.items), await other.next(M.items)]
            assert.deepStrictEqual(committed.codes, [Code.leaseLost, Code.leaseLost])
            assert.deepStrictEqual(released.codes, [Code.leaseLost, Code.leaseLost])
            // A number is the session's own: what another one did under it is not its answer.
            other.say(lease(11, queue, 1))
            assert.strictEqual((await other.next(M.refused)).code, Code.empty)
            assert.deepStrictEqual(await countsOf(mine, queue), [2, 0, 2, 0])
            assert.isUndefined(
              mine.heard.find(({ type }) => type === M.refused),
              "nobody else abandons its wait"
            )
            const token = session.slice()
            token[15]! ^= 1
            assert.isFalse((await thief.login(undefined, token)).resumed)
            mine.say(put(10, queue, 2))
            assert.deepStrictEqual(await mine.next(M.putDone), puts)
            assert.isFalse(mine.closed)
            other.say(put(10, queue, 1))
            assert.strictEqual((await other.next(M.putDone)).count, 1)
            // The one that waits has it.
            const [got] = (await mine.next(M.leased)).items
            assert.isAbove(got!.task, puts.first + 1)
          })
        }).pipe(Effect.scoped, Effect.provide(listening()))
    )
  })
}
