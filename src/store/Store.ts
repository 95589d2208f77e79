/**
 * The port to durable storage: all records of a round or none, and success means durable at the store's level.
 *
 * The manager persists, then promises: no reply and no delivery of a round leaves before `commit` has returned. A store
 * that keeps nothing (`keeps: false`) is never called with records; the manager then collects none.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type { StoreBroken, StoreFull } from "../Errors.ts"
import type { Durability } from "../model/Policy.ts"
import type { QueueDefinition } from "../model/Queue.ts"
import type { AttemptReason, TaskOptions } from "../model/Task.ts"

/** What a round has decided, in order. */
export type StoreRecord =
  | { readonly _tag: "Queue"; readonly id: number; readonly definition: QueueDefinition; readonly closed: string }
  | {
      readonly _tag: "Put"
      readonly task: number
      readonly queue: number
      readonly payload: Uint8Array
      readonly options: TaskOptions | undefined
      readonly dueAt: number
    }
  | { readonly _tag: "Leased"; readonly task: number; readonly leases: number; readonly attempt: number }
  | {
      readonly _tag: "Ready" | "Delayed"
      readonly task: number
      readonly attempt: number
      readonly dueAt: number
      readonly reasons: ReadonlyArray<AttemptReason>
    }
  | {
      readonly _tag: "Ended"
      readonly task: number
      readonly cursor: number
      readonly outcome: number
      readonly body: Uint8Array | undefined
      readonly reasons: ReadonlyArray<AttemptReason>
    }
  | { readonly _tag: "Acknowledged"; readonly task: number }

export class Store extends Context.Service<
  Store,
  {
    /** What an answer to a mutation means. Shown wherever a queue is shown. */
    readonly durability: Durability
    /** Whether anything outlives the process. */
    readonly keeps: boolean
    /** All that was committed, oldest first. */
    readonly load: Stream.Stream<StoreRecord, StoreBroken>
    /** All records or none. A failure other than `StoreFull` is indefinite and ends the manager. */
    readonly commit: (round: ReadonlyArray<StoreRecord>) => Effect.Effect<void, StoreFull | StoreBroken>
  }
>()("millrace/store/Store") {}
