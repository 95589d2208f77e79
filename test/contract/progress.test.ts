/**
 * Progress, checkpoints, steps, suspensions and signals as they travel: raw messages to a real manager, in this process
 * and over TCP, and over a restart of the manager on each store that keeps anything.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { Limits, Manager, Store } from "millrace"
import type { Core } from "../../src/manager/Core.ts"
import type { Gate } from "../../src/manager/Peer.ts"
import { Standing } from "../../src/model/Life.ts"
import { Code } from "../../src/model/Refusal.ts"
import { layerMemoryLog, MemoryDisk } from "../../src/testing/MemoryLog.ts"
import type * as ClientMessages from "../../src/wire/ClientMessages.ts"
import type * as ManagerMessages from "../../src/wire/ManagerMessages.ts"
import {
  type Browsed,
  ClientType as C,
  ControlKind,
  type Delivery,
  type Entry,
  ManagerType as M
} from "../../src/wire/Vocabulary.ts"
import { auth } from "./layers.ts"
import { Inside, type Peer, Raw } from "./raw.ts"

const folders: Array<string> = []
afterAll(() => {
  for (const made of folders) rmSync(made, { recursive: true, force: true })
})
const sqlite = (): Layer.Layer<Store.Store, unknown> => {
  const made = mkdtempSync(join(tmpdir(), "millrace-progress-"))
  folders.push(made)
  return Store.layerSqlite({ directory: join(made, "data"), ballastBytes: 65_536, lowWaterBytes: 0, thread: false })
}

// ---- one life of a manager, and its peers

interface Opened {
  readonly peer: Peer
  readonly session: ManagerMessages.SessionOpened
}

interface Life {
  readonly open: (session?: Uint8Array, held?: ReadonlyArray<number>) => Promise<Opened>
}

type Way = "in process" | "over TCP"

const portOf = Effect.map(Manager.Listening, ({ address }) => (address._tag === "Tcp" ? address.port : 0))

const life = <A>(way: Way, store: Layer.Layer<Store.Store, unknown>, use: (life: Life) => Promise<A>) => {
  const manager = Manager.layer({ queues: [] }).pipe(Layer.provide(store))
  const peers: Array<Peer> = []
  const run = Effect.gen(function* () {
    const { connect } = yield* Manager.Manager
    const port = yield* portOf
    const open: Life["open"] = async (session, held) => {
      if (way === "over TCP") {
        const raw = new Raw(port)
        peers.push(raw)
        return { peer: raw, session: await raw.login(auth, session, held) }
      }
      const inside = new Inside(connect)
      peers.push(inside)
      return { peer: inside, session: await inside.login(session, held) }
    }
    return yield* Effect.promise(() => use({ open }))
  })
  const closed = Effect.ensuring(
    run,
    Effect.sync(() => {
      for (const peer of peers) peer.destroy()
    })
  )
  const listening = Manager.layerTcp({ port: 0, auth }).pipe(Layer.provideMerge(manager))
  return closed.pipe(Effect.provide(Layer.fresh(listening)), Effect.provide(Logger.layer([])), Effect.orDie)
}

/** One life on a store that keeps nothing. */
const alone = (way: Way, use: (life: Life) => Promise<void>) => life(way, Store.layerMemory, use)

// ---- what peers say

const bytes = (n: number): Uint8Array => Uint8Array.of(1, 0x30 + n)
const no = { key: undefined, label: undefined, id: undefined, priorityMin: undefined, priorityMax: undefined }

type Answer = ManagerMessages.Answer

const is = <T extends Answer["type"]>(answer: Answer, type: T): Extract<Answer, { readonly type: T }> => {
  assert.strictEqual(answer.type, type, JSON.stringify(answer))
  return answer as Extract<Answer, { readonly type: T }>
}

/** Durability 1: in memory, whatever the store. */
const inMemory = [1_000, 0, 30_000, 5, 0, 100, 0, 0, 1_048_576, 99, 9_999, 99, 9_999, 0, 0, 0, 0, 0, 0, 1]

const openQueue = async (peer: Peer, name: string, policy: ReadonlyArray<number> = []): Promise<number> => {
  const one = { name, fingerprint: new Uint8Array(), schema: "", accepts: [], policy }
  return is(await peer.ask((request) => ({ type: C.open, request, ...one })), M.opened).queue
}

/** Puts tasks with these dedupe ids. */
const put = async (peer: Peer, queue: number, ...ids: ReadonlyArray<string>): Promise<ReadonlyArray<number>> => {
  const many = { payloads: ids.map(() => bytes(0)), options: ids.map((id) => ({ id })) }
  return is(
    await peer.ask((request) => ({ type: C.put, request, queue, atomic: true, waitMs: 0, ...many })),
    M.putItems
  ).tasks
}

const leaseAll =
  (count: number, queue: number, waitMs = 0) =>
  (request: number): ClientMessages.Lease => ({ type: C.lease, request, queue, count, waitMs, get: false })

const lease = async (peer: Peer, queue: number, waitMs = 0): Promise<Delivery> =>
  is(await peer.ask(leaseAll(1, queue, waitMs)), M.leased).items[0]!

type Lease = Pick<Delivery, "task" | "fence">

const step = (peer: Peer, { fence, task }: Lease, name: string, value: Uint8Array): Promise<Answer> =>
  peer.ask((request) => ({ type: C.step, request, items: [{ task, fence, name, value }] }))

const suspend = (peer: Peer, { fence, task }: Lease, forMs: number | undefined, seen = 0): Promise<Answer> =>
  peer.ask((request) => ({ type: C.suspend, request, items: [{ task, fence, forMs, seen }] }))

const signal = (peer: Peer, queue: number, to: number | string, name: string, value = bytes(9)): Promise<Answer> =>
  peer.ask((request) => {
    const [task, id] = typeof to === "number" ? [to, undefined] : [undefined, to]
    return { type: C.signal, request, queue, task, id, name, value }
  })

const find = async (peer: Peer, queue: number, id: string): Promise<readonly [number | undefined, number]> => {
  const found = is(await peer.ask((request) => ({ type: C.find, request, queue, id })), M.found)
  return [found.task, found.standing]
}

const release = (peer: Peer, { fence, task }: Lease): Promise<Answer> =>
  peer.ask((request) => ({ type: C.release, request, held: [task, fence] }))

const commit = (peer: Peer, { fence, task }: Lease): Promise<Answer> =>
  peer.ask((request) => {
    return { type: C.commit, request, tasks: [task], fences: [fence], results: [bytes(1)], effects: undefined }
  })

const fail = (peer: Peer, { fence, task }: Lease, reason: number, retryAfterMs?: number): Promise<Answer> =>
  peer.ask((request) => {
    const failures = [{ reason, error: undefined, text: "", retryAfterMs }]
    return { type: C.fail, request, tasks: [task], fences: [fence], failures }
  })

interface Said {
  readonly progress?: number
  readonly checkpoint?: Uint8Array
}

/** For what comes to be by itself. */
const soonMs = 20_000

let sequences = 0

/** Says a heartbeat that holds this lease, with these reports of it, and has the answer. */
const beat = async (peer: Peer, { fence, task }: Lease, ...said: ReadonlyArray<Said>) => {
  const sequence = ++sequences
  const reports = said.map(({ checkpoint, progress }) => ({ task, fence, progress, checkpoint }))
  peer.say({ type: C.heartbeat, sequence, held: [task, fence], reports })
  const found = () => peer.heard.find((m) => m.type === M.heartbeat && m.sequence === sequence)
  await peer.until(() => found() !== undefined, `the answer to heartbeat ${sequence}`)
  return found() as ManagerMessages.Heartbeat
}

const browse = async (peer: Peer, queue: number, task: number, state?: number | undefined): Promise<Browsed> => {
  const page = { state, filter: no, after: 0, limit: 1_000, payloads: false }
  const { items } = is(await peer.ask((request) => ({ type: C.browse, request, queue, ...page })), M.browsed)
  const found = items.find((item) => item.task === task)
  assert.isDefined(found, `task ${task} is shown`)
  return found!
}

const codes = (answer: Answer): ReadonlyArray<number> => (answer.type === M.done ? [0] : is(answer, M.items).codes)

const refused = (answer: Answer): number => is(answer, M.refused).code

const entriesOf = ({ entries }: Delivery): ReadonlyArray<Entry> => entries ?? []

for (const way of ["in process", "over TCP"] as const) {
  describe(way, () => {
    describe("a heartbeat", () => {
      it.live("carries progress, which a browse shows until the attempt is over", () =>
        alone(way, async ({ open }) => {
          const { peer } = await open()
          const queue = await openQueue(peer, "q")
          const [task] = await put(peer, queue, "a")
          const first = await lease(peer, queue)
          assert.isUndefined((await browse(peer, queue, task!)).progress)
          for (const [said, seen] of [
            [[{ progress: 2_500 }], 2_500],
            [[{}], 2_500],
            [[], 2_500],
            [[{ progress: 3_000 }, { progress: 7_000 }], 7_000],
            [[{ progress: 0 }], 0],
            [[{ progress: Limits.progressWhole }], Limits.progressWhole]
          ] as const) {
            const { lost, unsaved } = await beat(peer, first, ...said)
            assert.deepStrictEqual([lost, unsaved], [[], []])
            assert.strictEqual((await browse(peer, queue, task!)).progress, seen)
          }
          await release(peer, first)
          await lease(peer, queue)
          assert.isUndefined((await browse(peer, queue, task!)).progress)
        })
      )

      it.live("carries a checkpoint to the next attempt: the last one wins, and none leaves it as it was", () =>
        alone(way, async ({ open }) => {
          const { peer } = await open()
          const queue = await openQueue(peer, "q")
          await put(peer, queue, "a")
          const first = await lease(peer, queue)
          assert.isUndefined(first.checkpoint)
          await beat(peer, first, { checkpoint: bytes(1) })
          await beat(peer, first, { checkpoint: bytes(2) }, { checkpoint: bytes(3) })
          await beat(peer, first, { progress: 10 })
          await release(peer, first)
          const second = await lease(peer, queue)
          assert.deepStrictEqual(second.checkpoint, bytes(3))
          // What the message of that name saves is the same thing.
          const one = { tasks: [second.task], fences: [second.fence], values: [bytes(4)] }
          await peer.ask((request) => ({ type: C.checkpoint, request, ...one }))
          await fail(peer, second, 0, 0)
          const third = await lease(peer, queue, soonMs)
          assert.deepStrictEqual([third.checkpoint, third.attempt], [bytes(4), 2])
        })
      )

      it.live("changes nothing under an old fence, or of another session's task", () =>
        alone(way, async ({ open }) => {
          const [{ peer }, { peer: other }] = [await open(), await open()]
          const queue = await openQueue(peer, "q")
          const [task] = await put(peer, queue, "a")
          const old = await lease(peer, queue)
          await release(peer, old)
          const current = await lease(peer, queue)
          await beat(peer, current, { progress: 1, checkpoint: bytes(1) })
          const said = { progress: 9_999, checkpoint: bytes(9) }
          await beat(peer, old, said)
          assert.deepStrictEqual((await beat(other, current, said)).lost, [current.task])
          await beat(other, { task: 999_999, fence: 1 }, said)
          const shown = await browse(peer, queue, task!)
          assert.deepStrictEqual([shown.progress, shown.checkpointBytes], [1, 2])
          await release(peer, current)
          assert.deepStrictEqual((await lease(peer, queue)).checkpoint, bytes(1))
        })
      )

      it.live("is answered with what a session may do, as when it was opened", () =>
        alone(way, async ({ open }) => {
          const { peer, session } = await open()
          const answer = await beat(peer, { task: 1, fence: 1 })
          assert.deepStrictEqual(
            [answer.heartbeatMs, answer.requestsInFlightMax, answer.draining, answer.unsaved],
            [session.heartbeatMs, session.requestsInFlightMax, false, []]
          )
        })
      )

      it.live("is answered with the tasks whose checkpoint a full disk did not take", () => {
        const disk = new MemoryDisk()
        return life(way, layerMemoryLog(disk), async ({ open }) => {
          const { peer } = await open()
          const [queue, light] = [await openQueue(peer, "q"), await openQueue(peer, "light", inMemory)]
          const [task] = await put(peer, queue, "a")
          const [easy] = await put(peer, light, "a")
          const [held, free] = [await lease(peer, queue), await lease(peer, light)]
          await beat(peer, held, { checkpoint: bytes(1) })
          disk.low = true
          assert.deepStrictEqual((await beat(peer, held, { progress: 50, checkpoint: bytes(2) })).unsaved, [task!])
          // There is nothing to say again of a lease that is lost, or of a task that is not one's own.
          for (const lost of [
            { ...held, fence: held.fence - 1 },
            { task: 999, fence: 1 }
          ]) {
            const { unsaved } = await beat(peer, lost, { checkpoint: bytes(2) })
            assert.deepStrictEqual(unsaved, [])
          }
          // What does not go to the disk is taken, progress of the same report too.
          assert.deepStrictEqual((await beat(peer, held, { progress: 60 })).unsaved, [])
          assert.deepStrictEqual((await beat(peer, free, { checkpoint: bytes(5) })).unsaved, [])
          assert.strictEqual((await browse(peer, light, easy!)).checkpointBytes, 2)
          assert.strictEqual((await browse(peer, queue, task!)).progress, 60)
          // Steps and signals are refused as one; an attempt may end in every way.
          assert.strictEqual(refused(await step(peer, held, "s", bytes(1))), Code.storeFull)
          assert.strictEqual(refused(await signal(peer, queue, "a", "!s")), Code.storeFull)
          assert.deepStrictEqual(codes(await step(peer, free, "s", bytes(1))), [0])
          assert.deepStrictEqual(codes(await suspend(peer, held, 0)), [0])
          const again = await lease(peer, queue, soonMs)
          assert.deepStrictEqual([again.checkpoint, again.entries], [bytes(1), undefined])
          disk.low = false
          assert.deepStrictEqual((await beat(peer, again, { checkpoint: bytes(2) })).unsaved, [])
          assert.strictEqual(refused(await signal(peer, queue, "b", "!s")), Code.taskNotFound)
          await release(peer, again)
          assert.deepStrictEqual((await lease(peer, queue)).checkpoint, bytes(2))
        })
      })
    })

    describe("a step", () => {
      it.live("is delivered to the next attempt, in the order of recording, and keeps its first value", () =>
        alone(way, async ({ open }) => {
          const { peer } = await open()
          const queue = await openQueue(peer, "q")
          const [task] = await put(peer, queue, "a")
          const first = await lease(peer, queue)
          assert.isUndefined(first.entries)
          const items = (["fetch", "parse", "fetch", "b"] as const).map((name, i) => {
            return { task: first.task, fence: first.fence, name, value: bytes(i) }
          })
          assert.strictEqual((await peer.ask((request) => ({ type: C.step, request, items }))).type, M.done)
          assert.deepStrictEqual(codes(await step(peer, first, "parse", bytes(9))), [0])
          assert.strictEqual((await browse(peer, queue, task!)).entries, 3)
          const steps: ReadonlyArray<Entry> = [
            ["fetch", bytes(0)],
            ["parse", bytes(1)],
            ["b", bytes(3)]
          ]
          await release(peer, first)
          const second = await lease(peer, queue)
          assert.deepStrictEqual(entriesOf(second), steps)
          await step(peer, second, "last", new Uint8Array())
          await fail(peer, second, 0, 0)
          // By a stream as well.
          const stream = { credit: 1, prefetch: 0 }
          await peer.ask((request) => ({ type: C.subscribe, request, queue, ...stream }))
          const [third] = (await peer.next(M.deliver)).items
          assert.deepStrictEqual(entriesOf(third!), [...steps, ["last", new Uint8Array()]])
          assert.strictEqual(third!.attempt, 2)
        })
      )

      it.live("stays with a dead letter, and goes to the task that it is put again as", () =>
        alone(way, async ({ open }) => {
          const { peer } = await open()
          const queue = await openQueue(peer, "q")
          const [dead] = await put(peer, queue, "a")
          const first = await lease(peer, queue)
          await step(peer, first, "fetch", bytes(1))
          await fail(peer, first, 1)
          assert.strictEqual((await browse(peer, queue, dead!, Standing.dead)).entries, 1)
          const all = { tasks: [dead!], filter: no, after: 0, upTo: undefined }
          await peer.ask((request) => ({ type: C.redrive, request, queue, ...all }))
          const again = await lease(peer, queue)
          assert.notStrictEqual(again.task, dead)
          assert.deepStrictEqual(entriesOf(again), [["fetch", bytes(1)]])
        })
      )

      it.live("is refused under a lost lease, of an ended task, and beyond what a task may have, item by item", () =>
        alone(way, async ({ open }) => {
          const { peer } = await open()
          const queue = await openQueue(peer, "q")
          await put(peer, queue, "a", "b", "c")
          const { items: leases } = is(await peer.ask(leaseAll(3, queue)), M.leased)
          const [many, large, ended] = leases as [Delivery, Delivery, Delivery]
          await commit(peer, ended)
          const item = ({ fence, task }: Lease, name: string, value = bytes(1)) => ({ task, fence, name, value })
          const record = async (...items: ReadonlyArray<ReturnType<typeof item>>) =>
            codes(await peer.ask((request) => ({ type: C.step, request, items })))
          const old = { task: large.task, fence: large.fence - 1 }
          assert.deepStrictEqual(await record(item(old, "x"), item(large, "x"), item(ended, "x")), [
            Code.leaseLost,
            0,
            Code.alreadyEnded
          ])
          const names = Array.from({ length: Limits.entriesPerTaskMax }, (_, i) => item(many, `${i}`))
          assert.deepStrictEqual(await record(...names), [0])
          assert.deepStrictEqual(await record(item(many, "one more"), item(many, "0"), item(large, "y")), [
            Code.limitExceeded,
            0,
            0
          ])
          assert.strictEqual(refused(await signal(peer, queue, many.task, "!one more")), Code.limitExceeded)
          // Two of the largest values and their names are more than all of a task's.
          const most = new Uint8Array(Limits.payloadBytesMax)
          assert.deepStrictEqual(await record(item(large, "large", most)), [0])
          assert.deepStrictEqual(await record(item(large, "larger", most)), [Code.limitExceeded])
          assert.deepStrictEqual(await record(item(large, "z")), [0])
          await release(peer, many)
          assert.strictEqual(entriesOf(await lease(peer, queue)).length, Limits.entriesPerTaskMax)
        })
      )
    })

    it.live("what tasks have recorded since does not make an answer that is given again larger than a frame", () =>
      alone(way, async ({ open }) => {
        const { peer, session } = await open()
        const queue = await openQueue(peer, "q")
        await put(peer, queue, ...Array.from({ length: 12 }, (_, i) => `${i}`))
        const { items } = is(await peer.ask(leaseAll(12, queue)), M.leased)
        const request = peer.requests
        const most = new Uint8Array(Limits.payloadBytesMax)
        for (const one of items) {
          await beat(peer, one, { checkpoint: most })
          await step(peer, one, "large", most)
        }
        const { peer: again } = await open(
          session.session,
          items.flatMap(({ fence, task }) => [task, fence])
        )
        again.requests = request - 1
        const given = is(await again.ask(leaseAll(12, queue)), M.leased)
        assert.deepStrictEqual(
          given.items.map(({ fence, task }) => [task, fence]),
          items.slice(0, given.items.length).map(({ fence, task }) => [task, fence])
        )
      })
    )

    it.live("what tasks have recorded counts for how many of them one lease hands out", () =>
      alone(way, async ({ open }) => {
        const { peer } = await open()
        const queue = await openQueue(peer, "q")
        // Together more than a frame may have.
        const ids = Array.from({ length: 12 }, (_, i) => `${i}`)
        await put(peer, queue, ...ids)
        const { items } = is(await peer.ask(leaseAll(12, queue)), M.leased)
        const most = new Uint8Array(Limits.payloadBytesMax)
        for (const one of items) {
          await beat(peer, one, { checkpoint: most })
          assert.deepStrictEqual(codes(await step(peer, one, "large", most)), [0])
          await release(peer, one)
        }
        const again: Array<Delivery> = []
        while (again.length < 12) {
          const answer = is(await peer.ask(leaseAll(12, queue)), M.leased)
          const sizes = answer.items.map(({ checkpoint, entries }) => {
            return checkpoint!.byteLength + entries!.reduce((sum, [, value]) => sum + value.byteLength, 0)
          })
          const bytes = sizes.reduce((sum, size) => sum + size, 0)
          assert.isTrue(answer.items.length === 1 || bytes <= Limits.batchBytesMax, `${bytes} bytes in one answer`)
          again.push(...answer.items)
        }
        assert.deepStrictEqual(
          again.map(({ task }) => task),
          items.map(({ task }) => task)
        )
      })
    )

    describe("a signal", () => {
      it.live("goes to a task by its number or its dedupe id, and keeps its first value", () =>
        alone(way, async ({ open }) => {
          const [{ peer }, { peer: sender }] = [await open(), await open()]
          const queue = await openQueue(peer, "q")
          const [task] = await put(peer, queue, "order 7")
          assert.deepStrictEqual(codes(await signal(sender, queue, task!, "!paid", bytes(1))), [0])
          assert.deepStrictEqual(codes(await signal(sender, queue, "order 7", "!sent", bytes(2))), [0])
          assert.deepStrictEqual(codes(await signal(sender, queue, "order 7", "!paid", bytes(3))), [0])
          assert.deepStrictEqual(entriesOf(await lease(peer, queue)), [
            ["!paid", bytes(1)],
            ["!sent", bytes(2)]
          ])
        })
      )

      it.live("to what is not there is refused: ended, unknown, another queue's, or of no queue", () =>
        alone(way, async ({ open }) => {
          const { peer } = await open()
          const [queue, other] = [await openQueue(peer, "q"), await openQueue(peer, "other")]
          const [ended, alive] = await put(peer, queue, "ended", "alive")
          const [foreign] = await put(peer, other, "foreign")
          await commit(peer, await lease(peer, queue))
          for (const [where, to, code] of [
            [queue, ended!, Code.alreadyEnded],
            [queue, "ended", Code.alreadyEnded],
            [queue, foreign!, Code.taskNotFound],
            [queue, "foreign", Code.taskNotFound],
            [queue, 0, Code.taskNotFound],
            [queue, 999_999, Code.taskNotFound],
            [queue, "nobody", Code.taskNotFound],
            [77, alive!, Code.queueNotFound]
          ] as const) {
            assert.strictEqual(refused(await signal(peer, where, to, "!paid")), code, `${where} ${to}`)
          }
          assert.strictEqual((await browse(peer, queue, alive!)).entries, 0)
          assert.strictEqual((await browse(peer, other, foreign!)).entries, 0)
        })
      )
    })

    describe("a suspended task", () => {
      it.live("holds no lease and no attempt, and a signal makes it ready", () =>
        alone(way, async ({ open }) => {
          const { peer } = await open()
          const queue = await openQueue(peer, "q")
          const [task] = await put(peer, queue, "a")
          const first = await lease(peer, queue)
          await step(peer, first, "asked", bytes(1))
          assert.deepStrictEqual(codes(await suspend(peer, first, undefined, 1)), [0])
          const waiting = await browse(peer, queue, task!)
          assert.deepStrictEqual(
            [waiting.state, waiting.suspended, waiting.attempt, waiting.holder, waiting.entries],
            [Standing.delayed, true, 0, undefined, 1]
          )
          assert.strictEqual(refused(await peer.ask(leaseAll(1, queue))), Code.empty)
          // The lease is over: neither a commit nor a heartbeat has it.
          assert.deepStrictEqual(codes(await commit(peer, first)), [Code.leaseLost])
          assert.deepStrictEqual(codes(await suspend(peer, first, 0, 1)), [Code.leaseLost])
          assert.deepStrictEqual((await beat(peer, first)).lost, [task!])
          const stream = { credit: 1, prefetch: 0 }
          await peer.ask((request) => ({ type: C.subscribe, request, queue, ...stream }))
          await signal(peer, queue, "a", "!answer", bytes(2))
          const [second] = (await peer.next(M.deliver)).items
          assert.deepStrictEqual(
            [second!.attempt, entriesOf(second!)],
            [
              1,
              [
                ["asked", bytes(1)],
                ["!answer", bytes(2)]
              ]
            ]
          )
          const awake = await browse(peer, queue, task!)
          assert.deepStrictEqual([awake.state, awake.suspended], [Standing.leased, false])
          assert.deepStrictEqual(codes(await commit(peer, second!)), [0])
        })
      )

      it.live("is ready again when its time has passed, or when there is what its worker had not seen", () =>
        alone(way, async ({ open }) => {
          const { peer } = await open()
          const queue = await openQueue(peer, "q")
          const [task] = await put(peer, queue, "a")
          const first = await lease(peer, queue)
          await suspend(peer, first, 20)
          const second = await lease(peer, queue, soonMs)
          assert.deepStrictEqual([second.task, second.attempt], [task, 1])
          // The signal came while the handler was deciding to wait.
          await signal(peer, queue, task!, "!early")
          await suspend(peer, second, undefined, 0)
          const third = await lease(peer, queue, soonMs)
          assert.deepStrictEqual(entriesOf(third), [["!early", bytes(9)]])
          await suspend(peer, third, undefined, 1)
          // A signal that is there already still ends a wait: its sender says it again because of that.
          assert.isTrue((await browse(peer, queue, task!)).suspended)
          await signal(peer, queue, task!, "!early", bytes(3))
          assert.deepStrictEqual(entriesOf(await lease(peer, queue, soonMs)), [["!early", bytes(9)]])
        })
      )

      it.live("is not what a task is that waits for another reason: a signal does not hurry that", () =>
        alone(way, async ({ open }) => {
          const { peer } = await open()
          const queue = await openQueue(peer, "q")
          const [task] = await put(peer, queue, "a")
          await fail(peer, await lease(peer, queue), 0, 3_600_000)
          assert.deepStrictEqual(codes(await signal(peer, queue, task!, "!paid")), [0])
          const shown = await browse(peer, queue, task!)
          assert.deepStrictEqual([shown.state, shown.suspended, shown.entries], [Standing.delayed, false, 1])
        })
      )

      it.live("whose time is over is a dead letter, and suspended no more", () =>
        alone(way, async ({ open }) => {
          const { peer } = await open()
          const queue = await openQueue(peer, "q")
          const mortal = { payloads: [bytes(0)], options: [{ ttlMs: 400 }] }
          await peer.ask((request) => ({ type: C.put, request, queue, atomic: true, waitMs: 0, ...mortal }))
          const first = await lease(peer, queue, soonMs)
          await step(peer, first, "fetch", bytes(1))
          await suspend(peer, first, undefined, 1)
          await peer.ask((request) => ({ type: C.join, request, queue, waitMs: soonMs }))
          const dead = await browse(peer, queue, first.task, Standing.dead)
          assert.deepStrictEqual([dead.state, dead.suspended, dead.entries], [Standing.dead, false, 1])
        })
      )

      it.live("may be cancelled like any that waits", () =>
        alone(way, async ({ open }) => {
          const { peer } = await open()
          const queue = await openQueue(peer, "q")
          const [task] = await put(peer, queue, "a")
          await suspend(peer, await lease(peer, queue), undefined)
          const cancelled = await peer.ask((request) => ({ type: C.cancel, request, queue, tasks: [task!] }))
          assert.deepStrictEqual(is(cancelled, M.standings).standings, [Standing.delayed])
          assert.strictEqual(refused(await signal(peer, queue, task!, "!late")), Code.alreadyEnded)
          assert.deepStrictEqual(await find(peer, queue, "a"), [task, Standing.cancelled])
        })
      )
    })

    it.live("find says which task has an id, and where it stands", () =>
      alone(way, async ({ open }) => {
        const { peer } = await open()
        const queue = await openQueue(peer, "q")
        const [task] = await put(peer, queue, "a")
        assert.deepStrictEqual(await find(peer, queue, "a"), [task, Standing.ready])
        const first = await lease(peer, queue)
        assert.deepStrictEqual(await find(peer, queue, "a"), [task, Standing.leased])
        await suspend(peer, first, undefined)
        assert.deepStrictEqual(await find(peer, queue, "a"), [task, Standing.delayed])
        await signal(peer, queue, "a", "!go")
        await commit(peer, await lease(peer, queue))
        assert.deepStrictEqual(await find(peer, queue, "a"), [task, Standing.success])
        for (const unknown of ["", "b", "A"]) {
          assert.deepStrictEqual(await find(peer, queue, unknown), [undefined, Standing.gone])
        }
        const nowhere = await peer.ask((request) => ({ type: C.find, request, queue: 77, id: "a" }))
        assert.strictEqual(refused(nowhere), Code.queueNotFound)
      })
    )

    const stores = { "a memory log": () => layerMemoryLog(new MemoryDisk()), sqlite }
    for (const [name, make] of Object.entries(stores)) {
      it.live(`over a restart on ${name} a task keeps its progress that is durable, and who waits still waits`, () =>
        Effect.gen(function* () {
          const store = make()
          const before = yield* life(way, store, async ({ open }) => {
            const { peer, session } = await open()
            const queue = await openQueue(peer, "q")
            const [leased, waiting, timed] = await put(peer, queue, "leased", "waiting", "timed")
            const [a, b, c] = is(await peer.ask(leaseAll(3, queue)), M.leased).items as [Delivery, Delivery, Delivery]
            await beat(peer, a, { progress: 10, checkpoint: bytes(1) })
            await beat(peer, a, { progress: 20, checkpoint: bytes(2) })
            for (const one of [a, b]) await step(peer, one, "fetch", bytes(3))
            await suspend(peer, b, undefined, 1)
            await suspend(peer, c, 20)
            await signal(peer, queue, leased!, "!paid", bytes(4))
            const lost = await step(peer, { ...a, fence: a.fence + 1 }, "x", bytes(1))
            return { leased, waiting, timed, a, token: session.session, last: peer.requests, codes: codes(lost) }
          })
          yield* life(way, store, async ({ open }) => {
            const { a, leased, timed, waiting } = before
            const { peer, session } = await open(before.token, [a.task, a.fence])
            assert.deepStrictEqual([session.resumed, session.lost], [true, []])
            // The last request once more, under its number: the answer that it had.
            peer.requests = before.last - 1
            assert.deepStrictEqual(codes(await step(peer, { ...a, fence: a.fence + 1 }, "x", bytes(1))), before.codes)
            const queue = await openQueue(peer, "q")
            const held = await browse(peer, queue, leased!)
            assert.deepStrictEqual(
              [held.state, held.progress, held.checkpointBytes, held.entries],
              [Standing.leased, undefined, 2, 2]
            )
            const still = await browse(peer, queue, waiting!)
            assert.deepStrictEqual(
              [still.state, still.suspended, still.attempt, still.entries],
              [Standing.delayed, true, 0, 1]
            )
            assert.deepStrictEqual(await find(peer, queue, "waiting"), [waiting, Standing.delayed])
            const third = await lease(peer, queue, soonMs)
            assert.deepStrictEqual([third.task, third.attempt], [timed, 1])
            await signal(peer, queue, "waiting", "!go", bytes(5))
            const second = await lease(peer, queue, soonMs)
            assert.deepStrictEqual(
              [second.task, second.attempt, entriesOf(second)],
              [
                waiting,
                1,
                [
                  ["fetch", bytes(3)],
                  ["!go", bytes(5)]
                ]
              ]
            )
            await release(peer, a)
            const first = await lease(peer, queue)
            assert.deepStrictEqual(
              [first.task, first.checkpoint, entriesOf(first)],
              [
                leased,
                bytes(2),
                [
                  ["fetch", bytes(3)],
                  ["!paid", bytes(4)]
                ]
              ]
            )
          })
        })
      )
    }
  })
}

describe("a listener that drains", () => {
  it.live("says so in the answer to a heartbeat, and takes signals for what is there still", () =>
    Effect.gen(function* () {
      let core: Core | undefined
      const over = yield* Deferred.make<void>()
      const manager = Manager.layer({
        queues: [],
        inspect: (made) => {
          core = made
        }
      }).pipe(Layer.provide(Store.layerMemory))
      // It drains for as long as the test looks.
      const slow = Layer.effect(
        Manager.Manager,
        Effect.map(Manager.Manager, (inner) => ({
          ...inner,
          close: (gate: Gate) =>
            Effect.sync(() => core!.drain(gate)).pipe(
              Effect.andThen(Deferred.await(over)),
              Effect.andThen(inner.close(gate))
            )
        }))
      ).pipe(Layer.provide(manager))
      const opened = yield* Deferred.make<Raw>()
      const listener = Effect.gen(function* () {
        const raw = new Raw(yield* portOf)
        yield* Effect.promise(() => raw.login())
        const queue = yield* Effect.promise(() => openQueue(raw, "q"))
        assert.strictEqual(queue, 0)
        yield* Effect.promise(() => put(raw, queue, "a"))
        yield* Deferred.succeed(opened, raw)
      }).pipe(Effect.provide(Manager.layerTcp({ port: 0, auth }).pipe(Layer.provide(slow))))
      const listening = yield* Effect.forkChild(listener)
      const peer = yield* Deferred.await(opened)
      yield* Effect.promise(async () => {
        // The listener closes now; what it was given before is at the peer's disposal.
        const control = await peer.next(M.control)
        assert.strictEqual(control.kind, ControlKind.draining)
        const answer = await beat(peer, { task: 1, fence: 1 })
        assert.deepStrictEqual([answer.draining, answer.lost], [true, [1]])
        assert.deepStrictEqual(codes(await signal(peer, 0, "a", "!late")), [0])
        assert.deepStrictEqual(await find(peer, 0, "a"), [1, Standing.ready])
        assert.strictEqual(refused(await peer.ask(leaseAll(1, 0))), Code.draining)
      }).pipe(Effect.ensuring(Deferred.succeed(over, undefined)))
      yield* Effect.promise(() => peer.refused(Code.draining))
      yield* Fiber.join(listening)
    }).pipe(Effect.provide(Logger.layer([])))
  )
})
