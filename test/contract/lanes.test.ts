import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Schema from "effect/Schema"
import { Errors, Task, TaskQueue, Worker } from "millrace"
import { overTcp } from "./layers.ts"
import { eventually } from "./queue.ts"

let names = 0
const queueOf = (lane: TaskQueue.PolicyOptions["lane"], maxAttempts = 5) =>
  TaskQueue.make(`lanes-${++names}`, {
    payload: Schema.Struct({ site: Schema.String, page: Schema.Int }),
    result: Schema.Int,
    key: ({ site }) => site,
    policy: { maxAttempts, lane }
  })

const pages = (site: string, count: number) => Array.from({ length: count }, (_, page) => ({ site, page }))

describe("lanes over TCP", () => {
  it.layer(overTcp, { excludeTestServices: true })((it) => {
    it.effect("a lane has at most its concurrency of handlers, over all workers, and delays no other", () =>
      Effect.gen(function* () {
        const q = queueOf({ concurrency: 2 })
        const running = new Map<string, number>()
        let most = 0
        let mostAtOnce = 0
        const handler = Effect.fnUntraced(function* ({
          payload: { page, site }
        }: Task.Task<{ site: string; page: number }>) {
          running.set(site, (running.get(site) ?? 0) + 1)
          most = Math.max(most, running.get(site)!)
          mostAtOnce = Math.max(
            mostAtOnce,
            [...running.values()].reduce((a, b) => a + b, 0)
          )
          yield* Effect.sleep("3 millis")
          running.set(site, running.get(site)! - 1)
          return page
        })
        yield* Worker.start(q, handler, { concurrency: 8 })
        yield* Worker.start(q, handler, { concurrency: 8 })
        yield* q.putAll([...pages("a", 30), ...pages("b", 30), ...pages("c", 30)])
        yield* q.join()
        assert.strictEqual((yield* q.stats).done, 90)
        assert.strictEqual(most, 2)
        assert.isAbove(mostAtOnce, 2)
      })
    )

    it.effect("tasks of a limited lane never wait inside a worker", () =>
      Effect.gen(function* () {
        const q = queueOf({ concurrency: 4 })
        const open = yield* Latch.make(false)
        yield* Worker.start(q, ({ payload }) => Effect.as(open.await, payload.page), { concurrency: 1, prefetch: 8 })
        yield* q.putAll(pages("a", 4))
        yield* eventually(
          Effect.map(q.stats, ({ leased }) => leased === 1),
          "one is leased"
        )
        // Another one has free handlers: the rest of the lane is there for it.
        yield* Worker.start(q, ({ payload }) => Effect.as(open.await, payload.page), { concurrency: 8 })
        yield* eventually(
          Effect.map(q.stats, ({ leased }) => leased === 4),
          "all are leased"
        )
        yield* open.open
        yield* q.join()
      })
    )

    it.effect("a lane that is paused gives nothing until it is resumed, and what is cleared is as before", () =>
      Effect.gen(function* () {
        const q = queueOf(undefined)
        yield* q.lane("a").pause
        yield* q.putAll([...pages("a", 2), ...pages("b", 1)])
        const first = yield* q.lease({ max: 10, timeout: 0 })
        assert.deepStrictEqual(
          first.map(({ payload }) => payload.site),
          ["b"]
        )
        assert.strictEqual((yield* Effect.flip(q.lease({ timeout: 0 })))._tag, "Empty")
        yield* q.lane("a").resume
        yield* q.lane("a").limit({ concurrency: 1 })
        assert.lengthOf(yield* q.lease({ max: 10, timeout: 0 }), 1)
        assert.strictEqual((yield* Effect.flip(q.lease({ timeout: 0 })))._tag, "Empty")
        yield* q.lane("a").clear
        assert.lengthOf(yield* q.lease({ max: 10, timeout: 0 }), 1)
      })
    )

    it.effect("a lease request waits for a lane to open by itself", () =>
      Effect.gen(function* () {
        const q = queueOf({ gap: "30 millis" })
        yield* q.putAll(pages("a", 3))
        for (const page of [0, 1, 2]) {
          const [lease] = yield* q.lease()
          assert.strictEqual(lease?.payload.page, page)
        }
      })
    )

    it.effect("a handler slows its lane down, and a retry that asks for it does; other lanes go on", () =>
      Effect.gen(function* () {
        const q = queueOf({ concurrency: 1 })
        const done: Array<string> = []
        yield* Worker.start(
          q,
          Effect.fnUntraced(function* (task) {
            const { page, site } = task.payload
            done.push(`${site}${page}`)
            if (site === "a") yield* task.slowDown("1 hour")
            if (site === "b" && page === 0) return yield* Task.retryAfter("1 hour", "busy", undefined, { lane: true })
            return page
          }),
          { concurrency: 4 }
        )
        yield* q.putAll([...pages("a", 2), ...pages("b", 2), ...pages("c", 2)])
        yield* eventually(
          Effect.map(q.stats, ({ done, delayed }) => done === 3 && delayed === 1),
          "the lanes wait"
        )
        assert.sameMembers(done, ["a0", "b0", "c0", "c1"])
        // What was slowed down can be let go.
        yield* q.lane("a").clear
        yield* q.lane("b").clear
        yield* eventually(
          Effect.map(q.stats, ({ done }) => done === 5),
          "the lanes go on"
        )
        assert.sameMembers(done, ["a0", "b0", "c0", "c1", "a1", "b1"])
      })
    )

    it.effect("limits that cannot be are refused before anything is sent", () =>
      Effect.gen(function* () {
        const q = queueOf(undefined)
        const lane = q.lane("a")
        const faults = [
          lane.limit({ concurrency: -1 }),
          lane.limit({ weight: 0 }),
          lane.limit({ weight: 1_001 }),
          lane.limit({ ratePerSecond: 1_000_001 }),
          lane.limit({ gap: "25 hours" }),
          lane.slowDown("367 days"),
          q.lane("x".repeat(1_025)).pause
        ]
        for (const fault of faults) assert.instanceOf(yield* Effect.flip(fault), Errors.LimitExceeded)
        assert.throws(() => queueOf({ gap: "25 hours" }), /laneGapMs/)
        yield* lane.limit({ ratePerSecond: 0.5, burst: 3, weight: 1_000, gap: "24 hours" })
      })
    )
  })
})
