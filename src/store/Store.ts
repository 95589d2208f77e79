/**
 * The port to durable storage: a log of opaque rows, written in batches, all of a batch or nothing.
 *
 * The manager persists, then promises: no reply and no delivery of a round leaves before `commit` has returned. What a
 * row means is the manager's business; a store keeps bytes, numbers without a gap, and who owns the namespace. Replay of
 * all rows in order gives the state back. Space comes back when the manager writes again what still lives of the oldest
 * rows and raises `dropBefore`.
 *
 * One contract suite (`test/contract/store.ts`) says what every store has to do.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { StoreBroken, StoreDamaged, StoreFull, StoreOpenError } from "../Errors.ts"
import type { Durability } from "../model/Policy.ts"
import type { Batch, Row } from "./Batch.ts"

export type { Batch, Row } from "./Batch.ts"

export interface Identity {
  /** 8 random bytes made once per log: the upper half of every task id. */
  readonly instance: Uint8Array
  /** Rises by one with every opening, and is stored before anybody sees it. */
  readonly epoch: number
}

export interface StoreShape {
  /** The best an answer to a mutation can mean. Shown wherever a queue is shown. */
  readonly durability: Durability
  /** Whether anything outlives the process. False: `commit` is never called and nothing is loaded. */
  readonly keeps: boolean
  readonly identity: Identity
  /** Whether there is no room for new work. Cheap; asked before puts are stepped. True until space is back. */
  readonly low: () => boolean
  /**
   * All rows that were committed and not dropped, in order, a page at a time. Run it before the first commit.
   *
   * Fails with `StoreDamaged` at the first row that is missing or is not what was written.
   */
  readonly load: Stream.Stream<Row, StoreBroken | StoreDamaged>
  /**
   * All or nothing. Calls are carried out in the order in which they were made.
   *
   * `StoreFull` is definite: nothing was applied, the log is as before, and the same batch may be tried again when there
   * is room (the reserve for it has been used up by then). Any other failure is indefinite and ends the manager; the
   * store refuses everything after it. A batch that breaks the order of numbers is such a failure.
   */
  readonly commit: (batch: Batch) => Effect.Effect<void, StoreFull | StoreBroken>
  /** The rows with these numbers, in the order asked for. One that is gone or damaged is left out. */
  readonly read: (seqs: ReadonlyArray<number>) => Effect.Effect<ReadonlyArray<Row>, StoreBroken>
  /** Gives this one up, broken or not, and opens the same log again, with the next epoch, until the scope closes. */
  readonly reopen: Effect.Effect<StoreShape, StoreOpenError, Scope.Scope>
}

export class Store extends Context.Service<Store, StoreShape>()("millrace/store/Store") {}
