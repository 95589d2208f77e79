/**
 * `npm run model -- --seeds N [--from K] [--json]`: the engine beside the naive reference, for many seeds, on two cores.
 *
 * Ends with counts: seeds, operations by kind, rebuilds from the log. A seed that fails is printed with its operations,
 * the others go on, and the run ends with code 1; so it does for a kind of operation that never happened.
 */
import { isMainThread, parentPort, Worker } from "node:worker_threads"
import { opsPerSeed } from "../test/unit/model/run.ts"
import { type Counts, kinds, runSeeds } from "../test/unit/model/seeds.ts"
import { flagsOf, whole } from "./flags.ts"

/** Seeds that a worker is given at once. */
const chunk = 100
const workersMax = 2
/** After so many seeds have failed, no more are begun. */
const failuresMax = 10

interface Share {
  readonly from: number
  readonly seeds: number
}
interface Done {
  readonly seeds: number
  readonly counts: Counts
  readonly failures: ReadonlyArray<string>
}

const work = (): void => {
  parentPort!.on("message", ({ from, seeds }: Share) => {
    const counts: Counts = {}
    const failures: Array<string> = []
    for (let seed = from; seed < from + seeds; seed++) {
      try {
        runSeeds(seed, 1, counts)
      } catch (error) {
        failures.push(error instanceof Error ? error.message : String(error))
      }
    }
    parentPort!.postMessage({ seeds, counts, failures } satisfies Done)
  })
}

const run = async (from: number, seeds: number, json: boolean): Promise<boolean> => {
  const startedAt = performance.now()
  const counts: Counts = {}
  const failures: Array<string> = []
  let given = 0
  let done = 0
  let told = startedAt
  const share = (): Share | undefined => {
    const count = Math.min(chunk, seeds - given)
    if (count === 0 || failures.length >= failuresMax) return undefined
    given += count
    return { from: from + given - count, seeds: count }
  }
  const add = (result: Done): void => {
    done += result.seeds
    for (const failure of result.failures) {
      failures.push(failure)
      console.error(`FAILED ${failure}`)
    }
    for (const [kind, count] of Object.entries(result.counts)) counts[kind] = (counts[kind] ?? 0) + count
    if (performance.now() - told < 3_000) return
    told = performance.now()
    const rate = Math.round(done / ((told - startedAt) / 1_000))
    console.error(`${done} of ${seeds} seeds, ${rate} a second`)
  }
  const oneWorker = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const worker = new Worker(new URL(import.meta.url))
      const next = (): void => {
        const more = share()
        if (more === undefined) void worker.terminate().then(() => resolve(), reject)
        else worker.postMessage(more)
      }
      worker.on("message", (result: Done) => {
        add(result)
        next()
      })
      worker.on("error", reject)
      next()
    })
  await Promise.all(Array.from({ length: Math.min(workersMax, Math.ceil(seeds / chunk)) }, oneWorker))
  // A handful of seeds is not expected to meet everything.
  const missing = done < 1_000 ? [] : kinds.filter((kind) => counts[kind] === undefined)
  const summary = {
    seeds: done,
    operations: done * opsPerSeed,
    restores: counts["restored"] ?? 0,
    counts,
    failed: failures.length,
    missing,
    seconds: Math.round((performance.now() - startedAt) / 100) / 10
  }
  console.log(json ? JSON.stringify(summary) : JSON.stringify(summary, undefined, 2))
  if (missing.length > 0) console.error(`never happened: ${missing.join(", ")}`)
  return failures.length === 0 && missing.length === 0
}

const main = async (): Promise<void> => {
  const { from, json, seeds } = flagsOf({
    seeds: { type: "string", default: "10000" },
    from: { type: "string", default: "1" },
    json: { type: "boolean", default: false }
  })
  const passed = await run(whole("from", from, 0), whole("seeds", seeds, 1), json)
  process.exitCode = passed ? 0 : 1
}

if (isMainThread) await main()
else work()
