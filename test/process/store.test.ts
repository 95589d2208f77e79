/**
 * The store on real disks and in real processes: killed at random, on a disk that fills up, and its syncs counted.
 *
 * `MILLRACE_KILLS` sets the number of kills (default 10).
 */
import { execFileSync, spawnSync } from "node:child_process"
import { existsSync, readFileSync, rmSync, statfsSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { Store } from "millrace"
import { Random } from "../unit/random.ts"
import { fixture, mountDisk, start, stopAll, temporaryFolder } from "./support.ts"

afterAll(stopAll)

const kills = Number(process.env["MILLRACE_KILLS"] ?? 10)

const withStore = <A, E>(
  options: Store.SqliteOptions,
  use: (store: Store.Store["Service"]) => Effect.Effect<A, E>
): Promise<A> =>
  Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const context = yield* Layer.build(Layer.fresh(Store.layerSqlite(options)))
        return yield* use(yield* Store.Store.pipe(Effect.provideContext(context)))
      })
    )
  )

const small = { ballastBytes: 65_536, lowWaterBytes: 0 }

describe("a store whose process is killed", () => {
  it(`has every acknowledged row after each of ${kills} kills, and its lock is gone`, async () => {
    const directory = join(temporaryFolder(), "data")
    const random = new Random(7)
    let acknowledged = 0
    let unanswered = 0
    for (let kill = 1; kill <= kills; kill++) {
      const program = start(fixture("storeWriter.ts"), [directory, kill % 2 === 0 ? "thread" : "direct"])
      await program.said(/open\n\d+\n/, 60_000)
      // The second manager is refused while the first one lives.
      if (kill === 1) {
        const failure = await Effect.runPromise(
          Effect.flip(Effect.scoped(Layer.build(Store.layerSqlite({ ...small, directory }))))
        )
        assert.strictEqual(failure._tag, "StoreLocked")
        assert.include(failure.message, `process ${program.pid} on `)
      }
      await sleep(20 + random.int(250))
      program.kill("SIGKILL")
      const { stdout } = await program.ended()
      const last = Number(stdout.trim().split("\n").at(-1))
      await withStore({ ...small, directory }, (store) =>
        Effect.gen(function* () {
          assert.strictEqual(store.identity.epoch, kill * 2)
          const rows = yield* Stream.runCollect(store.load)
          const end = rows.at(-1)!.seq
          assert.isAtLeast(end, last)
          for (let i = 0; i < rows.length; i++) {
            assert.strictEqual(rows[i]!.seq, rows[0]!.seq + i)
            assert.isTrue(rows[i]!.body.every((byte) => byte === rows[i]!.seq % 251))
          }
          acknowledged = last
          unanswered += end > last ? 1 : 0
        })
      )
    }
    console.log(`${kills} kills, ${acknowledged} rows acknowledged, 0 lost, ${unanswered} commits stored unanswered`)
  }, 300_000)
})

describe("a full disk", () => {
  it("stops puts, lets commits through by the ballast, refuses definitely in the end, and recovers (M24)", async (context) => {
    const disk = mountDisk(48)
    if ("reason" in disk) {
      console.log(`skipped: ${disk.reason}`)
      return context.skip()
    }
    const directory = join(disk.at, "data")
    const free = (): number => {
      const { bavail, bsize } = statfsSync(disk.at)
      return bavail * bsize
    }
    const ballast = join(directory, "millrace.ballast")
    const options = { directory, ballastBytes: 16 * 1_048_576, lowWaterBytes: 6 * 1_048_576 }
    const row = (seq: number, size = 4_000): Store.Row => ({ seq, body: new Uint8Array(size).fill(seq % 251) })
    // What an operator will delete later.
    writeFileSync(join(disk.at, "old"), new Uint8Array(14 * 1_048_576))
    const counts = { beforeLow: 0, byBallast: 0, refused: 0, after: 0 }
    await withStore(options, (store) =>
      Effect.gen(function* () {
        let seq = 0
        let dropBefore = 0
        const commit = (size: number) =>
          Effect.tap(store.commit({ rows: [row(seq + 1, size)], dropBefore, durability: "fsync" }), () =>
            Effect.sync(() => seq++)
          )
        const wait = (what: string, done: () => boolean) =>
          Effect.gen(function* () {
            for (let i = 0; i < 400 && !done(); i++) yield* Effect.sleep(20)
            assert.isTrue(done(), what)
          })

        assert.isFalse(store.low())
        while (!store.low()) {
          yield* commit(200_000)
          counts.beforeLow++
        }
        // Puts have stopped. Somebody else fills what is left, to the last byte.
        try {
          writeFileSync(join(disk.at, "filler"), new Uint8Array(free()))
        } catch {
          // So full that it says so.
        }
        assert.isBelow(free(), 65_536)
        // What is under way is still committed: by the write-ahead log, and then by the ballast.
        for (let i = 0; i < 800; i++) {
          yield* commit(4_000)
          counts.byBallast++
        }
        yield* commit(2_500_000)
        assert.isFalse(existsSync(ballast))
        assert.isTrue(store.low())
        // Until nothing is left: definite, again and again, and not a row of it.
        const full = yield* Effect.flip(
          store.commit({ rows: [row(seq + 1, 40_000_000)], dropBefore, durability: "fsync" })
        )
        assert.strictEqual(full._tag, "StoreFull")
        counts.refused++
        for (let i = 0; i < 400 && counts.refused < 5; i++) {
          yield* Effect.catchTag(commit(100_000), "StoreFull", () => Effect.sync(() => counts.refused++))
        }
        assert.strictEqual(counts.refused, 5)
        assert.isTrue(store.low())
        const rows = yield* Stream.runCollect(store.load)
        assert.strictEqual(rows.length, seq)
        // Space returns: the ballast is written again, and only then new work is taken.
        rmSync(join(disk.at, "filler"))
        rmSync(join(disk.at, "old"))
        dropBefore = seq - 9
        let waited = 0
        while (waited < 20) {
          const done = yield* Effect.match(commit(100), { onSuccess: () => true, onFailure: () => false })
          if (done) break
          waited++
        }
        yield* wait(
          "the ballast is written again",
          () => existsSync(ballast) && statSync(ballast).size === 16 * 1_048_576
        )
        yield* wait("new work is taken", () => !store.low())
        for (let i = 0; i < 20; i++) {
          yield* commit(4_000)
          counts.after++
        }
      })
    )
    await withStore(options, (store) =>
      Effect.gen(function* () {
        const rows = yield* Stream.runCollect(store.load)
        assert.strictEqual(rows.length, 10 + 1 + counts.after)
        assert.isTrue(rows.every(({ body, seq }) => body.every((byte) => byte === seq % 251)))
      })
    )
    console.log(`a disk of 48 MiB: ${JSON.stringify(counts)}`)
  }, 60_000)

  it("can be opened and given out from when it is full", async (context) => {
    const disk = mountDisk(8)
    if ("reason" in disk) {
      console.log(`skipped: ${disk.reason}`)
      return context.skip()
    }
    const directory = join(disk.at, "data")
    const options = { directory, ballastBytes: 2 * 1_048_576, lowWaterBytes: 262_144 }
    await withStore(options, (store) =>
      store.commit({ rows: [{ seq: 1, body: new Uint8Array(9) }], dropBefore: 0, durability: "fsync" })
    )
    try {
      writeFileSync(join(disk.at, "filler"), new Uint8Array(8 * 1_048_576))
    } catch {
      // So full that it says so.
    }
    await withStore(options, (store) =>
      Effect.gen(function* () {
        assert.isTrue(store.low())
        assert.strictEqual((yield* Stream.runCollect(store.load)).length, 1)
        yield* store.commit({ rows: [{ seq: 2, body: new Uint8Array(9) }], dropBefore: 2, durability: "fsync" })
      })
    )
  })
})

describe("the syncs of a store", () => {
  const strace = spawnSync("strace", ["-V"]).status === 0

  it.skipIf(!strace)(
    "are one per transaction that asks for one, whatever the store promises, and none of their own otherwise",
    () => {
      const log = new URL("../../src/store/SqliteLog.ts", import.meta.url).href
      const script = `
      const { SqliteLog } = await import(${JSON.stringify(log)})
      const { writeSync } = await import("node:fs")
      const log = new SqliteLog({ directory: process.argv[1], durability: process.argv[2], ballastBytes: 0, lowWaterBytes: 0, acceptLoss: false })
      writeSync(1, "begin")
      for (let seq = 1; seq <= 50; seq++) log.commit({ rows: [{ seq, body: new Uint8Array(500) }], dropBefore: 0, durability: process.argv[3] })
      writeSync(1, "finish")
      log.close()`
      const syncs = (level: string, batch: string): number => {
        const folder = temporaryFolder()
        const trace = join(folder, "trace")
        const program = [process.execPath, "--input-type=module", "-e", script, join(folder, "data"), level, batch]
        execFileSync("strace", ["-f", "-o", trace, "-e", "trace=fsync,fdatasync,write", ...program], {
          timeout: 60_000
        })
        const text = readFileSync(trace, "utf8")
        const between = text.slice(text.indexOf('"begin"'), text.indexOf('"finish"'))
        return between.match(/f(data)?sync\(/g)?.length ?? 0
      }
      const counts = {
        fsync: syncs("fsync", "fsync"),
        "buffered batches of an fsync store": syncs("fsync", "buffered"),
        buffered: syncs("buffered", "buffered"),
        "synced batches of a buffered store": syncs("buffered", "fsync")
      }
      console.log(`syncs of 50 transactions: ${JSON.stringify(counts)}`)
      for (const count of [counts.fsync, counts["synced batches of a buffered store"]]) {
        assert.isAtLeast(count, 50)
        assert.isAtMost(count, 55)
      }
      // SQLite syncs the header of a write-ahead log that it begins anew, whatever the level.
      assert.isAtMost(counts["buffered batches of an fsync store"], 1)
      assert.isAtMost(counts.buffered, 1)
    }
  )
})
