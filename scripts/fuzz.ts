/**
 * `npm run fuzz -- [--minutes N] [--inputs N] [--sequences N] [--seed S] [--only NAME] [--json]`: more of the fuzzing that
 * `npm test` has a smoke of, on two cores, with fresh seeds.
 *
 * Kept inputs and the canary come first. Without counts it runs for the minutes; with counts until they are reached (and
 * no longer than the minutes, if both are given): `--inputs` over all targets, each with the same share of the time,
 * `--sequences` on live managers. Ends with counts, the longest time of an input and how memory grew; with code 1 when
 * an input failed, a worker hung, or memory grew in the second half. `--only` takes a target's name, `clients` or `live`.
 */
import { isMainThread, parentPort, Worker } from "node:worker_threads"
import { type ClientResult, runClients } from "../test/fuzz/client.ts"
import { type LiveResult, newLiveResult, runLive, worldSequences } from "../test/fuzz/live.ts"
import { canary } from "../test/fuzz/planted.ts"
import { replay, targets } from "../test/fuzz/registry.ts"
import { batchInputs, type Failure, newResult, type Result, runTarget } from "../test/fuzz/target.ts"
import { flagsOf, refuse, whole } from "./flags.ts"

const workersMax = 2
const live = "live"
const clients = "clients"
/** Clients that a worker is given at once. */
const shareClients = 200
/** Batches that a worker is given at once. */
const shareBatches = 10
/** Every so many worlds, one over real sockets. */
const socketsEvery = 10
/** A worker that has not come back after so long hangs. */
const hangMs = 120_000
const sampleMs = 5_000
const toldMs = 10_000
const mib = 1_048_576
/** By which memory may grow in the second half of a run, along the line through its samples. */
const rssGrowthBytesMax = 192 * mib
/** Fewer samples in a half say nothing. */
const samplesMin = 6
const minutesDefault = 1

interface Share {
  readonly name: string
  readonly seed: number
  /** The first batch, or the world. */
  readonly first: number
  readonly count: number
}
type Done =
  | { readonly name: string; readonly ms: number; readonly result: Result }
  | { readonly name: typeof live; readonly ms: number; readonly live: LiveResult }
  | { readonly name: typeof clients; readonly ms: number; readonly clients: ClientResult }

const work = (): void => {
  parentPort!.on("message", async ({ count, first, name, seed }: Share) => {
    const from = performance.now()
    const ms = (): number => performance.now() - from
    if (name === live) {
      const tcp = first % socketsEvery === socketsEvery - 1
      const done = await runLive({ seed, sequences: count, tcp }, { first })
      parentPort!.postMessage({ name: live, ms: ms(), live: done } satisfies Done)
      return
    }
    if (name === clients) {
      const done = await runClients({ seed, inputs: count, first })
      parentPort!.postMessage({ name: clients, ms: ms(), clients: done } satisfies Done)
      return
    }
    const result = runTarget(targets.find((target) => target.name === name)!, seed, count, { first })
    parentPort!.postMessage({ name, ms: ms(), result } satisfies Done)
  })
}

interface Options {
  readonly seed: number
  readonly minutes: number | undefined
  readonly inputs: number | undefined
  readonly sequences: number | undefined
  readonly only: string | undefined
  readonly json: boolean
}

/** What the line through the second half of the samples grows by; undefined: too few. */
const growthOf = (samples: ReadonlyArray<number>): number | undefined => {
  const half = samples.slice(Math.floor(samples.length / 2))
  const n = half.length
  if (n < samplesMin) return undefined
  const meanX = (n - 1) / 2
  const meanY = half.reduce((sum, y) => sum + y, 0) / n
  let xy = 0
  let xx = 0
  for (const [x, y] of half.entries()) {
    xy += (x - meanX) * (y - meanY)
    xx += (x - meanX) ** 2
  }
  return (xy / xx) * (n - 1)
}

const run = async (options: Options): Promise<boolean> => {
  const { seed } = options
  const startedAt = performance.now()
  const failures: Array<string> = []
  const fail = (text: string): void => {
    failures.push(text)
    console.error(`FAILED ${text}`)
  }
  const failed = (failure: Failure): void =>
    fail(
      `${failure.target}: ${failure.why}\n  seed ${failure.seed}, batch ${failure.batch}\n  keep it: ${JSON.stringify({ target: failure.target, why: failure.why, input: failure.input })}`
    )

  let kept = 0
  for (const target of targets) {
    const { failure, inputs } = replay(target)
    kept += inputs
    if (failure !== undefined) fail(`${target.name}: a kept input: ${failure}`)
  }
  if (runTarget(canary, seed, canary.smoke).failure === undefined) fail("the canary passed: failures are not reported")

  // What is fuzzed, with the time and the count that each has had.
  const counted = options.inputs !== undefined || options.sequences !== undefined
  const names = [
    ...(!counted || options.inputs !== undefined ? [...targets.map(({ name }) => name), clients] : []),
    ...(!counted || options.sequences !== undefined ? [live] : [])
  ].filter((name) => options.only === undefined || name === options.only)
  const spent = new Map(names.map((name) => [name, { ms: 0, given: 0, first: 0 }]))
  const results: Record<string, Result> = {}
  const lives = newLiveResult()
  const clientCounts = { inputs: 0, opened: 0, answers: 0 }
  const until = options.minutes === undefined ? Number.POSITIVE_INFINITY : startedAt + options.minutes * 60_000

  const givenInputs = (): number => {
    let sum = 0
    for (const [name, { given }] of spent) if (name !== live && name !== clients) sum += given
    return sum
  }
  const share = (): Share | undefined => {
    if (performance.now() >= until) return undefined
    let next: string | undefined
    for (const [name, { given, ms }] of spent) {
      if (
        name === live
          ? given >= (options.sequences ?? Number.POSITIVE_INFINITY)
          : givenInputs() >= (options.inputs ?? Number.POSITIVE_INFINITY)
      )
        continue
      if (next === undefined || ms < spent.get(next)!.ms) next = name
    }
    if (next === undefined) return undefined
    const state = spent.get(next)!
    const first = state.first
    const count =
      next === live
        ? Math.min(worldSequences, (options.sequences ?? Number.POSITIVE_INFINITY) - state.given)
        : next === clients
          ? shareClients
          : shareBatches * batchInputs
    state.first += next === live ? 1 : next === clients ? shareClients : shareBatches
    state.given += count
    // Until it is back, as if it had taken as long as those before: two workers do not take the same.
    state.ms += 1
    return { name: next, seed, first, count }
  }
  const add = (done: Done): void => {
    const state = spent.get(done.name)
    if (state !== undefined) state.ms += done.ms
    if ("live" in done) {
      const { failure, longestTurnMs, ...counts } = done.live
      for (const [field, count] of Object.entries(counts)) lives[field as keyof typeof counts] += count
      lives.longestTurnMs = Math.max(lives.longestTurnMs, longestTurnMs)
      if (failure === undefined) return
      fail(`live: ${failure}`)
      spent.delete(live)
      return
    }
    if ("clients" in done) {
      clientCounts.inputs += done.clients.inputs
      clientCounts.opened += done.clients.opened
      clientCounts.answers += done.clients.answers
      if (done.clients.failure === undefined) return
      fail(`clients: ${done.clients.failure}`)
      spent.delete(clients)
      return
    }
    const { failure, frames, inputs, slowestMs } = done.result
    results[done.name] ??= newResult()
    const sum = results[done.name]!
    sum.inputs += inputs
    sum.frames += frames
    sum.slowestMs = Math.max(sum.slowestMs, slowestMs)
    if (failure === undefined) return
    failed(failure)
    // One failure of a target is enough; the others go on.
    spent.delete(done.name)
  }
  const total = (field: "inputs" | "frames"): number =>
    Object.values(results).reduce((sum, result) => sum + result[field], 0)

  const samples: Array<number> = [process.memoryUsage.rss()]
  let told = startedAt
  const sampler = setInterval(() => {
    const rss = process.memoryUsage.rss()
    samples.push(rss)
    if (performance.now() - told < toldMs) return
    told = performance.now()
    const seconds = (told - startedAt) / 1_000
    const rate = Math.round(total("inputs") / seconds)
    console.error(
      `${Math.round(seconds)} s: ${total("inputs")} inputs (${rate} a second), ${lives.sequences} live sequences, ${Math.round(rss / mib)} MiB`
    )
  }, sampleMs)

  const oneWorker = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const worker = new Worker(new URL(import.meta.url))
      let watchdog: NodeJS.Timeout | undefined
      const end = (): void => void worker.terminate().then(() => resolve(), reject)
      const next = (): void => {
        clearTimeout(watchdog)
        const more = share()
        if (more === undefined) return end()
        watchdog = setTimeout(() => {
          fail(`${more.name}: no answer for ${hangMs} ms, seed ${seed}, from batch or world ${more.first} on`)
          end()
        }, hangMs)
        worker.postMessage(more)
      }
      worker.on("message", (done: Done) => {
        add(done)
        next()
      })
      worker.on("error", (error) => {
        clearTimeout(watchdog)
        fail(`a worker ended: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`)
        resolve()
      })
      next()
    })
  await Promise.all(Array.from({ length: workersMax }, oneWorker))
  clearInterval(sampler)
  samples.push(process.memoryUsage.rss())
  const growth = growthOf(samples)
  if (growth !== undefined && growth > rssGrowthBytesMax) {
    fail(`memory grew by ${Math.round(growth / mib)} MiB in the second half, at most ${rssGrowthBytesMax / mib} may be`)
  }
  const inMib = (bytes: number): number => Math.round(bytes / mib)
  const { failure: _, ...liveCounts } = lives
  const summary = {
    seed,
    seconds: Math.round((performance.now() - startedAt) / 100) / 10,
    inputs: total("inputs"),
    frames: total("frames"),
    kept,
    targets: Object.fromEntries(
      Object.entries(results).map(([name, { frames, inputs, slowestMs }]) => {
        const perSecond = Math.round(inputs / (Math.max(1, spent.get(name)?.ms ?? 1) / 1_000))
        return [name, { inputs, frames, perSecond, slowestMs: Math.round(slowestMs * 10) / 10 }]
      })
    ),
    clients: clientCounts,
    live: { ...liveCounts, longestTurnMs: Math.round(lives.longestTurnMs * 10) / 10 },
    rssMib: {
      start: inMib(samples[0]!),
      end: inMib(samples.at(-1)!),
      most: inMib(Math.max(...samples)),
      grown: growth === undefined ? undefined : inMib(growth)
    },
    failed: failures.length
  }
  console.log(options.json ? JSON.stringify(summary) : JSON.stringify(summary, undefined, 2))
  return failures.length === 0
}

const main = async (): Promise<void> => {
  const { inputs, json, minutes, only, seed, sequences } = flagsOf({
    minutes: { type: "string" },
    inputs: { type: "string" },
    sequences: { type: "string" },
    seed: { type: "string", default: `${Date.now() % 2 ** 31}` },
    only: { type: "string" },
    json: { type: "boolean", default: false }
  })
  const known = [...targets.map(({ name }) => name), clients, live]
  if (only !== undefined && !known.includes(only)) refuse(`--only names ${only}; there are ${known.join(", ")}`)
  const optional = (name: string, text: string | undefined): number | undefined =>
    text === undefined ? undefined : whole(name, text, 1)
  const counts = { inputs: optional("inputs", inputs), sequences: optional("sequences", sequences) }
  const unbounded = counts.inputs === undefined && counts.sequences === undefined
  const passed = await run({
    seed: whole("seed", seed, 0),
    minutes: optional("minutes", minutes) ?? (unbounded ? minutesDefault : undefined),
    ...counts,
    only,
    json
  })
  process.exitCode = passed ? 0 : 1
}

if (isMainThread) await main()
else work()
