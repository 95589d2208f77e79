/** Peers that vanish without a word are found by both ends, slow ones are not taken for vanished, and no worker stays deaf. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { Client, Limits, Manager, TaskQueue, Worker } from "millrace"
import { SeededRandom } from "../../src/testing/Random.ts"
import { ClientType as C } from "../../src/wire/Vocabulary.ts"
import { Proxy } from "../proxy/Proxy.ts"
import { auth, connected, listening } from "./layers.ts"

let names = 0
const queueOf = (policy: TaskQueue.PolicyOptions = {}) =>
  TaskQueue.make(`alive-${++names}`, { payload: Schema.String, policy: { lease: "2 minutes", ...policy } })

const through = Effect.gen(function* () {
  const { address } = yield* Manager.Listening
  const to = address._tag === "Tcp" ? address.port : 0
  const proxy = yield* Effect.acquireRelease(
    Effect.promise(() => new Proxy(to, new SeededRandom(1)).listen()),
    (proxy) => Effect.sync(() => proxy.close())
  )
  const context = yield* Layer.build(
    Layer.fresh(Client.layerTcp({ port: proxy.port, auth, reconnectCap: "50 millis" }))
  )
  return { proxy, context }
})

const manager = Layer.fresh(connected.pipe(Layer.provideMerge(listening)))

/** Looks until it holds, for at most a minute. */
const sooner = <E, R>(holds: Effect.Effect<boolean, E, R>, what: string) =>
  Effect.gen(function* () {
    for (let i = 0; i < 600; i++) {
      if (yield* holds) return
      yield* Effect.sleep("100 millis")
    }
    throw new Error(`never happened: ${what}`)
  })

describe.concurrent("a connection whose other end has vanished", () => {
  it("is found within two heartbeats", () => {
    // The last look that hears it may be right after it was heard.
    assert.isAtMost(Limits.heartbeatDeadMs + Limits.silenceLookMs, 2 * Limits.heartbeatMs)
    assert.isAbove(Limits.heartbeatDeadMs, Limits.quietMs + Limits.silenceLookMs)
    assert.isAbove(Limits.quietMs, Limits.heartbeatMs)
  })

  it.live("is found by the client, which dials again and has its answer", () =>
    Effect.gen(function* () {
      const { context, proxy } = yield* through
      const q = queueOf()
      yield* Effect.provide(q.put("a"), context)
      proxy.plant("up", { kind: "half-open" })
      yield* Effect.provide(q.put("b"), context)
      assert.strictEqual(proxy.accepted, 2)
      assert.strictEqual((yield* q.stats).puts, 2)
    }).pipe(Effect.scoped, Effect.provide(manager))
  )

  it.live("is found by the manager, which counts its streams no longer", () =>
    Effect.gen(function* () {
      const { context, proxy } = yield* through
      const q = queueOf()
      yield* Effect.provide(
        Worker.start(q, () => Effect.void),
        context
      )
      assert.strictEqual((yield* q.stats).workers, 1)
      // It cannot come back either.
      proxy.plant("up", { kind: "half-open" })
      proxy.refuse()
      yield* sooner(
        Effect.map(q.stats, ({ workers }) => workers === 0),
        "the worker is gone"
      )
    }).pipe(Effect.scoped, Effect.provide(manager))
  )

  for (const when of ["while it is not found yet", "when it is found"] as const) {
    it.live(`gets nothing for a get that waits there: what is put ${when} goes to another taker`, () =>
      Effect.gen(function* () {
        const { context, proxy } = yield* through
        // What was handed out there comes back when its term is over, as long as nobody resumes the session.
        const q = queueOf({ lease: "12 seconds" })
        yield* q.size
        const dead = yield* Effect.forkChild(Effect.result(Effect.provide(q.get(), context)))
        yield* sooner(
          Effect.map(q.stats, ({ waitingTakers }) => waitingTakers === 1),
          "the get waits"
        )
        // It cannot come back either; a heartbeat of the client that is on its way is what the fault swallows first.
        proxy.plant("up", { kind: "half-open" })
        proxy.refuse()
        const found = sooner(
          Effect.map(q.stats, ({ waitingTakers }) => waitingTakers === 0),
          "the get waits no longer"
        )
        if (when === "when it is found") yield* found
        yield* q.put("a")
        if (when === "while it is not found yet") {
          // First it went where nobody is: the get that waits the longest is served first.
          assert.strictEqual((yield* q.stats).leased, 1)
        }
        assert.strictEqual(yield* q.get({ timeout: "1 minute" }), "a")
        yield* sooner(
          Effect.map(q.stats, ({ acknowledged }) => acknowledged === 1),
          "it is taken once"
        )
        const { leased, puts, ready, waitingTakers } = yield* q.stats
        assert.deepStrictEqual([leased, puts, ready, waitingTakers], [0, 1, 0, 0])
        yield* Fiber.interrupt(dead)
      }).pipe(Effect.scoped, Effect.provide(manager))
    )
  }

  it.live("is not one that is slow: what takes longer than the deadline is done once, on the connection it has", () =>
    Effect.gen(function* () {
      const { context, proxy } = yield* through
      const q = queueOf()
      yield* Effect.provide(q.stats, context)
      const seconds = Limits.heartbeatDeadMs / 1_000 + 4
      proxy.plant("up", { kind: "bandwidth", bytesPerSecond: 20_000 })
      yield* Effect.provide(q.put("x".repeat(20_000 * seconds)), context)
      assert.strictEqual((yield* q.stats).puts, 1)
      assert.strictEqual(proxy.accepted, 1)
    }).pipe(Effect.scoped, Effect.provide(manager))
  )
})

describe.concurrent("a worker with free handlers that is brought nothing", () => {
  it.live("dials again when the manager has forgotten its stream, and works on", () =>
    Effect.gen(function* () {
      const { context, proxy } = yield* through
      const q = queueOf()
      yield* Effect.gen(function* () {
        yield* Worker.start(q, () => Effect.void, { watchdog: "1 second" })
        const { link } = yield* Client.Client
        // Behind the back of the worker.
        for (const stream of [0, 1, 2]) link.ask({ type: C.unsubscribe, request: link.nextRequest, stream }, () => {})
      }).pipe(Effect.provide(context))
      yield* sooner(
        Effect.map(q.stats, ({ workers }) => workers === 0),
        "the stream is forgotten"
      )
      yield* q.putAll(["a", "b", "c"])
      yield* q.join({ timeout: "1 minute" })
      assert.isAbove(proxy.accepted, 1)
      const { done, workers } = yield* q.stats
      assert.deepStrictEqual([done, workers], [3, 1])
    }).pipe(Effect.scoped, Effect.provide(manager))
  )

  it.live("dials again when what is brought gets lost on its side, and no task is", () =>
    Effect.gen(function* () {
      const { context, proxy } = yield* through
      const q = queueOf()
      yield* Effect.gen(function* () {
        yield* Worker.start(q, () => Effect.void, { watchdog: "1 second" })
        const { link } = yield* Client.Client
        for (const stream of [0, 1, 2]) link.forget(stream)
      }).pipe(Effect.provide(context))
      // Two take its credit, the third waits.
      yield* q.putAll(["a", "b", "c"])
      yield* q.join({ timeout: "1 minute" })
      assert.isAbove(proxy.accepted, 1)
      assert.strictEqual((yield* q.stats).done, 3)
    }).pipe(Effect.scoped, Effect.provide(manager))
  )

  it.live("stays where it is while nothing may be brought: a pause, a blocked lane, a delay, an empty queue", () =>
    Effect.gen(function* () {
      const { context, proxy } = yield* through
      const paused = queueOf()
      const blocked = queueOf()
      const delayed = queueOf()
      const empty = queueOf()
      for (const q of [paused, blocked, delayed, empty]) {
        yield* Effect.provide(
          Worker.start(q, () => Effect.void, { watchdog: "1 second" }),
          context
        )
      }
      yield* paused.pause()
      yield* paused.put("a")
      yield* blocked.lane("k").pause
      yield* blocked.put("a", { key: "k" })
      yield* delayed.put("a", { delay: "1 hour" })
      yield* Effect.sleep("3500 millis")
      assert.strictEqual(proxy.accepted, 1)
      for (const q of [paused, blocked, delayed, empty]) assert.strictEqual((yield* q.stats).done, 0)
      yield* paused.resume()
      yield* blocked.lane("k").resume
      yield* Effect.all([paused.join(), blocked.join()])
      assert.strictEqual(proxy.accepted, 1)
    }).pipe(Effect.scoped, Effect.provide(manager))
  )

  it.live("its watchdog is bounded", () =>
    Effect.gen(function* () {
      const q = queueOf()
      for (const watchdog of [Limits.watchdogMsMin - 1, Limits.watchdogMsMax + 1]) {
        const error = yield* Effect.flip(Worker.start(q, () => Effect.void, { watchdog }))
        assert.strictEqual(error._tag, "LimitExceeded")
      }
      for (const watchdog of [Limits.watchdogMsMin, Limits.watchdogMsMax]) {
        yield* Worker.start(q, () => Effect.void, { watchdog })
      }
    }).pipe(Effect.scoped, Effect.provide(manager))
  )
})
