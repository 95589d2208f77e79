/**
 * Work `shared-state`: shared objects over loopback TCP. A manager process and this one, memory store, with login: keys of 80
 * bytes added to a set a second (new, and again), batched and one by one, increments of a counter, and values written to a
 * dict.
 *
 * Every answer is checked. What 10,000,000 keys cost in memory: `shared-set-memory`.
 */
import { randomBytes } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Client from "../src/Client.ts"
import * as SharedCounter from "../src/SharedCounter.ts"
import * as SharedDict from "../src/SharedDict.ts"
import * as SharedSet from "../src/SharedSet.ts"
import { type Child, withChildren } from "./harness/children.ts"
import { type Measurement, progress, spread } from "./harness/report.ts"
import { monotonicMs } from "./harness/role.ts"
import type { Work } from "./harness/work.ts"

export const keysDefault = 1_000_000
const keysShort = 200_000
export const singlesMost = 100_000
const singlesShort = 20_000

/** Operations a second; what a system has not is not there. */
export interface Rates {
  readonly "add-all-new"?: number
  readonly "add-all-known"?: number
  readonly add?: number
  readonly increment?: number
  readonly set?: number
}
export const variants = ["add-all-new", "add-all-known", "add", "increment", "set"] as const

export const url = (n: number): string =>
  `https://www.example.com/a/section/of/pages/with/a/long/path/${n}`.padEnd(80, "x")

const timed = <A, E, R>(count: number, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const from = monotonicMs()
    const value = yield* effect
    return { value, perSecond: Math.round((count * 1_000) / (monotonicMs() - from)) }
  })

/** 256 fibers, each with one call under way: `forEach` with a bound on its concurrency makes a fiber for each call. */
const singly = <E, R>(count: number, one: (i: number) => Effect.Effect<void, E, R>): Effect.Effect<void, E, R> => {
  let next = 0
  const loop = Effect.whileLoop({ while: () => next < count, body: () => one(next++), step: () => {} })
  return Effect.all(
    Array.from({ length: 256 }, () => loop),
    { concurrency: "unbounded", discard: true }
  )
}

const program = Effect.fnUntraced(function* (keys: number, singles: number) {
  const seen = SharedSet.make("seen")
  const pages = SharedCounter.make("pages")
  const titles = SharedDict.make("titles", { value: Schema.String })
  const batches = Array.from({ length: Math.ceil(keys / 4_096) }, (_, i) =>
    Array.from({ length: Math.min(4_096, keys - i * 4_096) }, (_, j) => url(i * 4_096 + j))
  )
  const addAll = Effect.map(
    Effect.forEach(batches, (batch) => seen.addAll(batch), { concurrency: 8 }),
    (answers) => answers.flat().filter((isNew) => isNew).length
  )
  const fresh = yield* timed(keys, addAll)
  const again = yield* timed(keys, addAll)
  let news = 0
  const add = (i: number) =>
    Effect.map(seen.add(url(keys + i)), (isNew) => {
      if (isNew) news++
    })
  const one = yield* timed(singles, singly(singles, add))
  const counted = yield* timed(
    singles,
    singly(singles, () => Effect.asVoid(pages.increment()))
  )
  const written = yield* timed(
    singles,
    singly(singles, (i) => Effect.asVoid(titles.set(url(i), url(i))))
  )
  if ((yield* titles.get(url(singles - 1))) !== url(singles - 1)) throw new Error("a value was lost")
  const size = yield* seen.size
  const total = yield* pages.value
  const right = fresh.value === keys && again.value === 0 && news === singles
  if (!right || size !== keys + singles || total !== singles) throw new Error("an answer was wrong")
  const rates: Rates = {
    "add-all-new": fresh.perSecond,
    "add-all-known": again.perSecond,
    add: one.perSecond,
    increment: counted.perSecond,
    set: written.perSecond
  }
  return rates
})

/** A manager of its own: the set is empty again. */
export const measure = (keys: number, singles: number): Promise<Rates> =>
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
            all.map((rates) => rates[variant]!),
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
