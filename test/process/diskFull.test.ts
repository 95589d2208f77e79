/** `millrace serve` on a small file system that fills up under load, to the last byte, and has room again later. */
import { rmSync, statfsSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { Client, Errors, TaskQueue } from "millrace"
import { afterAll } from "vitest"
import { asClient, mountDisk, serve, stopAll, until } from "./support.ts"

afterAll(stopAll)

const Heavy = TaskQueue.make("heavy", {
  payload: Schema.Struct({ n: Schema.Int, text: Schema.String }),
  result: Schema.Int
})
const text = "x".repeat(64 * 1_024)

describe("a manager on a disk that fills up", () => {
  it("refuses puts definitely, goes on committing and telling, recovers by itself, and loses nothing (M24)", async (context) => {
    const disk = mountDisk(192)
    if ("reason" in disk) {
      console.log(`skipped: ${disk.reason}`)
      return context.skip()
    }
    const data = join(disk.at, "data")
    const [old, filler] = [join(disk.at, "old"), join(disk.at, "filler")]
    writeFileSync(old, new Uint8Array(60 * 1_048_576))
    const free = (): number => {
      const { bavail, bsize } = statfsSync(disk.at)
      return bavail * bsize
    }
    const { port, program } = await serve(["--data", data])
    let next = 1
    const accepted = new Map<number, string>()
    const put = Effect.suspend(() => {
      const n = next++
      return Effect.map(Heavy.put({ n, text }), ({ taskId }) => accepted.set(n, taskId))
    })
    let committed = 0
    const commitSome = Effect.gen(function* () {
      for (const lease of yield* Heavy.lease({ max: 8 })) {
        yield* Heavy.commit(lease, lease.payload.n)
        committed++
      }
    })
    const refusals = await asClient(
      port,
      Effect.gen(function* () {
        // Under load: puts come in, and some of them are done meanwhile.
        for (;;) {
          const puts = yield* Effect.all(
            Array.from({ length: 32 }, () => Effect.result(put)),
            { concurrency: 32 }
          )
          const errors = puts.flatMap((result) => (result._tag === "Failure" ? [result.failure] : []))
          if (errors.length > 0) return errors
          if (next % 5 === 0) yield* commitSome
        }
      })
    )
    for (const error of refusals) {
      assert.strictEqual(error._tag, "StoreFull")
      assert.strictEqual(Errors.facts[error._tag].outcome, "definite")
    }
    // Somebody else takes what is left, to the last byte.
    assert.throws(() => writeFileSync(filler, new Uint8Array(free() + 1_048_576)), /ENOSPC/)
    // As full as it gets: from here on there is what the manager has set aside for itself, and it may have taken that already.
    await asClient(
      port,
      Effect.gen(function* () {
        const before = committed
        for (let i = 0; i < 12; i++) yield* commitSome
        assert.isAtLeast(committed - before, 12)
        assert.strictEqual((yield* Effect.flip(put))._tag, "StoreFull")
        const [stats] = yield* Client.stats
        assert.deepInclude(stats, { puts: accepted.size, done: committed, ready: accepted.size - committed })
      })
    )
    // Nothing but room comes back.
    rmSync(filler)
    rmSync(old)
    await until(
      "puts are taken again",
      () =>
        asClient(
          port,
          Effect.map(Effect.result(put), ({ _tag }) => _tag === "Success")
        ),
      20_000
    )
    await sleep(50)
    program.kill("SIGKILL")
    await program.ended(10_000)
    const again = await serve(["--data", data])
    await asClient(
      again.port,
      Effect.gen(function* () {
        const stats = yield* Heavy.stats
        assert.deepInclude(stats, { puts: accepted.size, done: committed, ready: accepted.size - committed })
        const left = new Set(accepted.values())
        while ((yield* Heavy.stats).ready > 0) {
          for (const lease of yield* Heavy.lease({ max: 16 })) {
            assert.strictEqual(accepted.get(lease.payload.n), lease.taskId)
            assert.strictEqual(lease.payload.text.length, text.length)
            yield* Heavy.commit(lease, lease.payload.n)
            committed++
          }
        }
        assert.strictEqual(committed, accepted.size)
        for (const taskId of left) assert.strictEqual((yield* Heavy.outcome(taskId))._tag, "Success")
      })
    )
    console.log(`${accepted.size} puts accepted, ${refusals.length + 1} refused, ${committed} committed, 0 lost`)
  }, 120_000)
})
