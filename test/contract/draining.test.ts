/** A manager that closes one of its doors: what was asked before is answered, new work is refused, and everybody is told. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Client, Manager, Store, TaskQueue } from "millrace"
import { Code } from "../../src/model/Refusal.ts"
import type * as ClientMessages from "../../src/wire/ClientMessages.ts"
import { ClientType as C, ControlKind, ManagerType as M } from "../../src/wire/Vocabulary.ts"
import { auth } from "./layers.ts"
import { eventually } from "./queue.ts"
import { Raw } from "./raw.ts"

const Letters = TaskQueue.make("letters", { payload: Schema.Int, result: Schema.Int })

/** A store whose commits wait while it is held. */
const slowStore = Effect.gen(function* () {
  const memory = yield* Store.Store.pipe(Effect.provide(Store.layerMemory))
  const waiting: Array<() => void> = []
  const hold = { on: false, waiting: 0 }
  const release = (): void => {
    hold.on = false
    for (const go of waiting.splice(0)) go()
  }
  yield* Effect.addFinalizer(() => Effect.sync(release))
  const commit = () =>
    Effect.callback<void>((resume) => {
      if (!hold.on) return resume(Effect.void)
      hold.waiting++
      waiting.push(() => resume(Effect.void))
    })
  const layer = Layer.succeed(Store.Store, Store.Store.of({ ...memory, durability: "fsync", keeps: true, commit }))
  return { layer, hold, release }
})

const door = Effect.gen(function* () {
  const context = yield* Layer.build(Layer.fresh(Manager.layerTcp({ port: 0, auth })))
  const { address } = yield* Effect.provide(Manager.Listening, context)
  return address._tag === "Tcp" ? address.port : 0
})

const put = (request: number, queue: number): ClientMessages.Put => ({
  ...{ type: C.put, request, queue, atomic: true, waitMs: 0, options: undefined },
  payloads: [Uint8Array.of(1)]
})

const open: ClientMessages.Open = {
  ...{ type: C.open, request: 1, name: "letters", accepts: [], policy: undefined, schema: "" },
  fingerprint: new Uint8Array()
}

describe("a manager that closes a door", () => {
  it.live(
    "answers what was asked before, refuses new work there with Draining, says so, and serves its other doors",
    () =>
      Effect.gen(function* () {
        const { hold, layer, release } = yield* slowStore
        const context = yield* Layer.build(Manager.layer({ queues: [] }).pipe(Layer.provide(layer)))
        yield* Effect.gen(function* () {
          const manager = yield* Manager.Manager
          const scope = yield* Scope.fork(yield* Effect.scope)
          const port = yield* Scope.provide(door, scope)
          const other = yield* Effect.provide(
            Client.Client,
            yield* Layer.build(Layer.fresh(Client.layerTcp({ port: yield* door, auth })))
          )
          const client = yield* Layer.build(Layer.fresh(Client.layerTcp({ port, auth })))
          yield* Effect.provide(Letters.put(1), client)
          const raw = new Raw(port)
          yield* Effect.promise(() => raw.login())
          raw.say(open)
          const { queue } = yield* Effect.promise(() => raw.next(M.opened))
          raw.say({ type: C.lease, request: 2, queue, count: 1, waitMs: 0, get: false })
          const [task] = (yield* Effect.promise(() => raw.next(M.leased))).items

          // One put is on its way to the disk when the door begins to close; the rest comes after that.
          hold.on = true
          raw.say(put(3, queue))
          yield* eventually(
            Effect.sync(() => hold.waiting === 1),
            "the put reaches the store"
          )
          const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
          const { frames } = yield* manager.counters
          raw.say(put(4, queue))
          raw.say({ type: C.lease, request: 5, queue, count: 1, waitMs: undefined, get: false })
          raw.say({ type: C.subscribe, request: 6, queue, credit: 1, prefetch: 0 })
          raw.say({ type: C.stats, request: 7, queue })
          const result = Uint8Array.of(1)
          raw.say({
            ...{ type: C.commit, request: 8, tasks: [task!.task], fences: [task!.fence], results: [result] },
            effects: undefined
          })
          const typed = yield* Effect.forkChild(Effect.flip(Effect.provide(Letters.put(2), client)))
          yield* eventually(
            Effect.map(manager.counters, (counters) => counters.frames >= frames + 6),
            "all of it has arrived"
          )
          const late = new Raw(port)
          assert.strictEqual(yield* Effect.promise(() => late.refused(Code.draining)), "the manager is stopping")
          assert.lengthOf(raw.heard, 0)
          release()

          const words = yield* Effect.promise(async () => {
            await raw.until(() => raw.closed, "the end of the connection")
            return raw.heard
          })
          const about = (request: number) => words.find((word) => "request" in word && word.request === request)
          assert.strictEqual(about(3)?.type, M.putDone)
          for (const request of [4, 5, 6]) {
            const word = about(request)
            assert.strictEqual(word?.type === M.refused && word.code, Code.draining, `request ${request}`)
          }
          assert.strictEqual(about(7)?.type, M.stats)
          assert.strictEqual(about(8)?.type, M.done)
          const told = words.filter((word) => word.type === M.control)
          assert.deepStrictEqual(
            told.map(({ kind }) => kind),
            [ControlKind.draining]
          )
          const last = words.at(-1)
          assert.strictEqual(last?.type === M.closing && last.code, Code.draining)
          assert.strictEqual((yield* Fiber.join(typed))._tag, "Draining")
          yield* Fiber.join(closing)

          // The other door never noticed.
          const { done, puts, ready } = yield* Effect.provideService(Letters.stats, Client.Client, other)
          assert.deepStrictEqual([puts, done, ready], [2, 1, 1])
          yield* Effect.provideService(Letters.put(3), Client.Client, other)
          assert.strictEqual(other.link.generation, 1)
        }).pipe(Effect.provide(context))
      }).pipe(Effect.scoped, Effect.provide(Logger.layer([])))
  )
})
