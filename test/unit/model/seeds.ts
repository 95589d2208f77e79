/** Many seeds of the model test, for the tests of every commit and for `scripts/model.ts`. */
import { opsPerSeed, Run, type RunOptions } from "./run.ts"

export type Counts = Record<string, number>

/** What must have happened in a run of more than a few hundred seeds. */
export const kinds: ReadonlyArray<string> = [
  ..."put lease subscribe follow credit unsubscribe commit fail release renew started heartbeat acknowledge".split(" "),
  ..."outcome join congested close detach resume goodbye repeat removeRepeat repeats".split(" "),
  ..."definitionInvalid Repeats occurrence restored pauseLane resumeLane slowDownLane".split(" "),
  ..."pause cancel purge redrive checkpoint browse Counted Redriven".split(" "),
  ..."step suspend signal find report suspended woken".split(" "),
  ..."commitTogether".split(" "),
  ..."setKeys count countSet dictGet dictWrite list Object".split(" "),
  ..."conflict counterOverflow objectNotFound objectKindMismatch durabilityMixed leaseLost alreadyEnded".split(" "),
  ..."Done Put Leased Items Outcome queueNotFound closed payloadTooLarge full empty timedOut taskNotFound".split(" ")
]

/** Runs these seeds; the first that fails throws, with its operations. */
export const runSeeds = (from: number, seeds: number, counts: Counts, options: RunOptions = {}): void => {
  for (let seed = from; seed < from + seeds; seed++) {
    const run = new Run(seed, options)
    try {
      run.go(opsPerSeed)
    } catch {
      throw explained(seed, options)
    }
    for (const [kind, count] of run.counts) counts[kind] = (counts[kind] ?? 0) + count
  }
}

/** Runs a seed that failed once more, now with its operations as text. */
const explained = (seed: number, options: RunOptions): Error => {
  let run: Run | undefined
  try {
    run = new Run(seed, { ...options, logs: true })
    run.go(opsPerSeed)
  } catch (error) {
    const ops = run?.ops ?? []
    return new Error(`seed ${seed}: ${String(error)}\n${ops.join("\n")}`, { cause: error })
  }
  return new Error(`seed ${seed} failed once and not again`)
}
