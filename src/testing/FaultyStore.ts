/**
 * A store that fails on purpose, around any other: the n-th commit is full, breaks before or after it was applied, or
 * stalls; the n-th read misses a row.
 *
 * Counts from 1, over the life of one plan, so a plan can outlive a manager that it stopped. `fired` says what really
 * happened: a fault that never fired has tested nothing.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { StoreBroken, StoreFull } from "../Errors.ts"
import { Store, type StoreShape } from "../store/Store.ts"

export type CommitFault =
  /** `StoreFull`; nothing was applied, and the next attempt is a commit of its own. */
  | "full"
  /** `StoreBroken`; nothing was applied. */
  | "brokenNotApplied"
  /** `StoreBroken`; all of it was applied. */
  | "brokenApplied"
  /** Applied, and answered `stallMs` later. */
  | "stall"

export interface FaultPlan {
  /** What happens to the n-th commit. */
  readonly commit: (n: number) => CommitFault | undefined
  /** Whether the n-th read misses its last row. Default: never. */
  readonly missRead?: ((n: number) => boolean) | undefined
  /** Default 1,000. */
  readonly stallMs?: number | undefined
}

export class Faults {
  readonly plan: FaultPlan
  commits = 0
  reads = 0
  readonly fired: Record<CommitFault | "missRead", number> = {
    full: 0,
    brokenNotApplied: 0,
    brokenApplied: 0,
    stall: 0,
    missRead: 0
  }

  constructor(plan: FaultPlan) {
    this.plan = plan
  }
}

/** Wraps the store below it. After a `StoreBroken` everything is refused until it is opened again. */
export const layerFaulty = (faults: Faults): Layer.Layer<Store, never, Store> =>
  Layer.effect(
    Store,
    Effect.map(Store, (store) => Store.of(wrap(store, faults)))
  )

const wrap = (store: StoreShape, faults: Faults): StoreShape => {
  const stallMs = faults.plan.stallMs ?? 1_000
  let broken: StoreBroken | undefined
  const breakDown = Effect.suspend(() => {
    broken = new StoreBroken({ reason: "a planned fault" })
    return broken
  })
  const hurt: Record<CommitFault, (commit: ReturnType<typeof store.commit>) => ReturnType<typeof store.commit>> = {
    full: () => Effect.fail(new StoreFull({ neededBytes: 1 })),
    brokenNotApplied: () => breakDown,
    brokenApplied: (commit) => Effect.andThen(commit, breakDown),
    stall: (commit) => Effect.andThen(commit, Effect.sleep(stallMs))
  }
  return {
    ...store,
    commit: (batch) =>
      Effect.suspend(() => {
        if (broken !== undefined) return broken
        const commit = store.commit(batch)
        const fault = faults.plan.commit(++faults.commits)
        if (fault === undefined) return commit
        faults.fired[fault]++
        return hurt[fault](commit)
      }),
    read: (seqs) =>
      Effect.suspend(() => {
        if (broken !== undefined) return broken
        if (faults.plan.missRead?.(++faults.reads) !== true) return store.read(seqs)
        faults.fired.missRead++
        return store.read(seqs.slice(0, -1))
      }),
    reopen: Effect.map(store.reopen, (again) => wrap(again, faults))
  }
}
