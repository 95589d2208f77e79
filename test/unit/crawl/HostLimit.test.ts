import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as HostLimit from "../../../src/crawl/HostLimit.ts"

describe("HostLimit", () => {
  it.effect("runs at most N effects of one host, and hosts do not wait for each other", () =>
    Effect.gen(function* () {
      const limit = HostLimit.make(2)
      const running = new Map<string, number>()
      let most = 0
      let together = 0
      const work = (host: string) =>
        Effect.gen(function* () {
          running.set(host, (running.get(host) ?? 0) + 1)
          most = Math.max(most, running.get(host)!)
          together = Math.max(
            together,
            [...running.values()].reduce((a, b) => a + b)
          )
          yield* Effect.yieldNow
          running.set(host, running.get(host)! - 1)
        })
      yield* Effect.forEach(
        Array.from({ length: 60 }, (_, i) => `host${i % 3}`),
        (host) => limit.withPermit(host)(work(host)),
        { concurrency: "unbounded", discard: true }
      )
      assert.deepStrictEqual([most, together], [2, 6])
    })
  )

  it.effect("forgets a host when nothing runs or waits, after success, failure and interruption", () =>
    Effect.gen(function* () {
      const limit = yield* HostLimit.HostLimit
      const started = yield* Deferred.make<void>()
      const holder = yield* Effect.forkChild(
        limit.withPermit("a")(Effect.andThen(Deferred.succeed(started, undefined), Effect.never))
      )
      yield* Deferred.await(started)
      const waiter = yield* Effect.forkChild(limit.withPermit("a")(Effect.void), { startImmediately: true })
      assert.strictEqual(yield* limit.hosts, 1)
      yield* Fiber.interrupt(waiter)
      assert.strictEqual(yield* limit.hosts, 1)
      const next = yield* Effect.forkChild(limit.withPermit("a")(Effect.succeed("next")), { startImmediately: true })
      yield* Fiber.interrupt(holder)
      assert.strictEqual(yield* Fiber.join(next), "next")
      assert.strictEqual(yield* Effect.flip(limit.withPermit("b")(Effect.fail("no"))), "no")
      assert.strictEqual(yield* limit.hosts, 0)
    }).pipe(Effect.provide(HostLimit.layer(1)))
  )
})
