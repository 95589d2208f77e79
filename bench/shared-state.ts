/**
 * Work `shared-state`: shared objects over loopback TCP. A manager process and this one, memory store, with login: keys of 80
 * bytes added a second (new, and again), batched and one by one, and increments of a counter.
 *
 * Every answer is checked. What 10,000,000 keys cost in memory: `shared-set-memory`.
 */
import { randomBytes } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Client from "../src/Client.ts"
import * as SharedCounter from "../src/SharedCounter.ts"
import * as SharedSet from "../src/SharedSet.ts"
import { type Child, withChildren } from "./harness/children.ts"
import { type Measurement, progress, spread } from "./harness/report.ts"
import { monotonicMs } from "./harness/role.ts"
import type { Work } from "./harness/work.ts"

const keysDefault = 1_000_000
const keysShort = 200_000
const singlesMost = 100_000
const singlesShort = 20_000

interface Rates {
  readonly "add-all-new": number
  readonly "add-all-known": number
  readonly add: number
  readonly increment: number
}
const variants: ReadonlyArray<keyof Rates> = ["add-all-new", "add-all-known", "add", "increment"]

const url = (n: number): string => `https://www.example.com/a/section/of/pages/with/a/long/path/${n}`.padEnd(80, "x")

const timed = <A, E, R>(count: number, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const from = monotonicMs()
    const value = yield* effect
    return { value, perSecond: Math.round((count * 1_000) / (monotonicMs() - from)) }
  })

const program = Effect.fnUntraced(function* (keys: number, singles: number) {
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
  const rates: Rates = {
    "add-all-new": fresh.perSecond,
    "add-all-known": again.perSecond,
    add: one.perSecond,
    increment: counted.perSecond
  }
  return rates
})

/** A manager of its own: the set is empty again. */
const measure = (keys: number, singles: number): Promise<Rates> =>
  withChildren(async (start) => {
    const key = randomBytes(32).toString("base64url")
    const manager: Child = start({
      name: "manager",
      script: new URL("./millrace/manager.ts", import.meta.url),
      env: { MILLRACE_BENCH_KEY: key }
    })
    const port = await manager.call<number>("port")
    const rates = await Effect.runPromise(
      Effect.provide(program(keys, singles), Client.layerTcp({ port, auth: { key } }))
    )
    const { cpuSeconds, rssBytes } = await manager.usage()
    progress(`shared-state: manager ${cpuSeconds.toFixed(1)} s of CPU, ${Math.round(rssBytes / 2 ** 20)} MiB`)
    return rates
  })

export const sharedState: Work = {
  name: "shared-state",
  variants,
  runs: 3,
  shortRuns: 1,
  run: async ({ runs, short, tasks, variant: only }) => {
    const keys = tasks ?? (short ? keysShort : keysDefault)
    const singles = Math.min(short ? singlesShort : singlesMost, keys)
    const all: Array<Rates> = []
    for (let run = 1; run <= runs; run++) all.push(await measure(keys, singles))
    const measurements = variants
      .filter((variant) => variant === (only ?? variant))
      .map(
        (variant): Measurement => ({
          work: "shared-state",
          variant,
          durability: "memory",
          workers: 0,
          system: "millrace",
          ...spread(
            all.map((rates) => rates[variant]),
            0
          ),
          unit: "ops/s",
          runs
        })
      )
    const notes = [
      `shared-state: ${keys} keys of 80 bytes, 4,096 a call and 8 calls in flight; ${singles} single calls, 256 in flight`
    ]
    return { measurements, notes }
  }
}
