/**
 * Shared objects over loopback TCP: `node bench/shared-state.ts [keys]`. A manager process and this one, memory store, with
 * login. Prints one JSON line: keys of 80 bytes added per second (new, and again), batched and one by one, and increments.
 *
 * Every answer is checked. What 10,000,000 keys cost in memory: `bench/shared-set-memory.ts`.
 */
import process from "node:process"
import * as Effect from "effect/Effect"
import * as Client from "../src/Client.ts"
import * as SharedCounter from "../src/SharedCounter.ts"
import * as SharedSet from "../src/SharedSet.ts"
import { type Child, withChildren } from "./harness/children.ts"
import { monotonicMs } from "./harness/role.ts"

const keys = Number(process.argv[2] ?? 1_000_000)
const singles = Math.min(100_000, keys)
const key = crypto.randomUUID()

const url = (n: number): string => `https://www.example.com/a/section/of/pages/with/a/long/path/${n}`.padEnd(80, "x")

const timed = <A, E, R>(count: number, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const from = monotonicMs()
    const value = yield* effect
    return { value, perSecond: Math.round((count * 1_000) / (monotonicMs() - from)) }
  })

const program = Effect.gen(function* () {
  const seen = SharedSet.make("seen")
  const pages = SharedCounter.make("pages")
  const batches = Array.from({ length: Math.ceil(keys / 4_096) }, (_, i) =>
    Array.from({ length: Math.min(4_096, keys - i * 4_096) }, (_, j) => url(i * 4_096 + j))
  )
  const addAll = Effect.map(
    Effect.forEach(batches, (batch) => seen.addAll(batch), { concurrency: 8 }),
    (answers) => answers.flat().filter((isNew) => isNew).length
  )
  const fresh = yield* timed(keys, addAll)
  const again = yield* timed(keys, addAll)
  const one = yield* timed(
    singles,
    Effect.forEach(
      Array.from({ length: singles }, (_, i) => url(keys + i)),
      (text) => seen.add(text),
      {
        concurrency: 256
      }
    )
  )
  const counted = yield* timed(
    singles,
    Effect.forEach(Array.from({ length: singles }), () => pages.increment(), { concurrency: 256 })
  )
  const size = yield* seen.size
  const total = yield* pages.value
  const right = fresh.value === keys && again.value === 0 && one.value.every((isNew) => isNew)
  if (!right || size !== keys + singles || total !== singles) throw new Error("an answer was wrong")
  return {
    keys,
    addAllNewPerSecond: fresh.perSecond,
    addAllKnownPerSecond: again.perSecond,
    addPerSecond: one.perSecond,
    incrementPerSecond: counted.perSecond
  }
})

await withChildren(async (start) => {
  const manager: Child = start({
    name: "manager",
    script: new URL("./millrace/manager.ts", import.meta.url),
    env: { MILLRACE_BENCH_KEY: key }
  })
  const port = await manager.call<number>("port")
  const figures = await Effect.runPromise(Effect.provide(program, Client.layerTcp({ port, auth: { key } })))
  const { cpuSeconds, rssBytes } = await manager.call<{ cpuSeconds: number; rssBytes: number }>("usage")
  console.log(
    JSON.stringify({ ...figures, managerCpuSeconds: cpuSeconds, managerRssMiB: Math.round(rssBytes / 1_048_576) })
  )
})
