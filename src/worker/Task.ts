/**
 * A task as its handler sees it, and the ways out of a handler besides its result and its typed errors.
 *
 * What a handler adds with `task.put`, `task.putIfNew`, `task.addToSet`, `task.increment`, `task.set` and `task.delete`
 * joins the commit: it happens together with the result, or not at all. What it puts with `queue.put` happens at once.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { CollectError, Collecting } from "../client/CommitEffects.ts"
import { ConnectFailed, ConnectionLost, Draining, type PayloadInvalid, type PayloadTooLarge } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import type { StepError } from "./Step.ts"

export interface Task<P, C = unknown> extends Collecting {
  readonly id: string
  readonly payload: P
  /** Counts from 1. */
  readonly attempt: number
  /** The lane. */
  readonly key: string | undefined
  /** W3C traceparent of whoever put the task. */
  readonly trace: string | undefined
  /** What an earlier attempt has saved; undefined if none did, or if it does not decode. */
  readonly checkpoint: C | undefined
  /** When this attempt is interrupted, in milliseconds since 1970 by the worker's clock; undefined: never. */
  readonly deadline: number | undefined
  /** How far this attempt has come, from 0 to 1: for whoever looks at the queue. Rides on the next heartbeat. */
  progress(fraction: number): Effect.Effect<void>
  /**
   * Saves the progress of the task for its next attempt. The last one counts: it rides on the next heartbeat, within 5
   * seconds or a third of the lease, and goes before the report of an attempt that fails or is released. A commit needs
   * none. At most 1 MiB.
   */
  saveCheckpoint(checkpoint: C): Effect.Effect<void, PayloadInvalid | PayloadTooLarge>
  /**
   * Nothing more of this task's lane is leased for `duration`, counted from when this attempt is committed or has
   * failed: what a server's `Retry-After` asks for. Not reported if the task is released. Without a key it does nothing.
   */
  readonly slowDown: (duration: Duration.Input) => Effect.Effect<void>
}

/**
 * What `task.put` and its like may fail with. A handler may let it pass: a lost connection gives the task back, the others are
 * mistakes of the program and fail the attempt as a defect does.
 */
export type PutChildError = CollectError | StepError

/** Ends a task as dead, at once; with an error of the queue's Schema the outcome is a failure with that error. */
export class Kill extends Schema.TaggedError<Kill>()("millrace/Kill", {
  reason: Schema.String,
  error: Schema.optionalKey(Schema.Unknown)
}) {}
/** Ends an attempt as failed; the next comes after this time instead of the policy's back-off. */
export class RetryAfter extends Schema.TaggedError<RetryAfter>()("millrace/RetryAfter", {
  ms: Schema.Int,
  reason: Schema.String,
  /** Whether the whole lane waits as long. */
  lane: Schema.optionalKey(Schema.Boolean),
  error: Schema.optionalKey(Schema.Unknown)
}) {}
/** @internal The attempt has taken too long. */
export class AttemptTimedOut extends Schema.TaggedError<AttemptTimedOut>()("millrace/AttemptTimedOut", {
  ms: Schema.Number
}) {
  override get message(): string {
    return `the attempt was interrupted after its time-out of ${this.ms} ms`
  }
}
/** Gives the task back, uncounted. */
export class Release extends Schema.TaggedError<Release>()("millrace/Release", {}) {}

export type Control = Kill | RetryAfter | Release

/** Poison: no other attempt will do better. `error` is the typed error that readers of the outcome get. */
export const kill = (reason: string, error?: unknown): Effect.Effect<never, Kill> =>
  Effect.fail(error === undefined ? new Kill({ reason }) : new Kill({ reason, error }))

/**
 * Fails this attempt; the next one comes after `duration`. After the last attempt the outcome is as for `kill`. With
 * `lane: true` nothing else of the task's lane is leased before that either.
 */
export const retryAfter = (
  duration: Duration.Input,
  reason = "retry later",
  error?: unknown,
  options: { readonly lane?: boolean | undefined } = {}
): Effect.Effect<never, RetryAfter> => {
  const fields = { ms: boundedMs(duration), reason, lane: options.lane === true }
  return Effect.fail(error === undefined ? new RetryAfter(fields) : new RetryAfter({ ...fields, error }))
}

/** @internal Lost contact is not failure: the task did nothing wrong. */
export const isLostContact = (error: unknown): boolean =>
  error instanceof ConnectionLost || error instanceof ConnectFailed || error instanceof Draining

/** @internal Of whatever a handler has failed with: an object may be without a text, or throw for it. */
export const textOf = (error: unknown): string => {
  try {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  } catch {
    return "an error that cannot be shown as text"
  }
}

/** @internal Whole milliseconds that the protocol can carry. */
export const boundedMs = (duration: Duration.Input): number =>
  Math.min(Limits.delayMsMax, Math.max(0, Math.ceil(Duration.toMillis(duration))))

/** Gives the task back as if it had never been leased. */
export const release: Effect.Effect<never, Release> = Effect.fail(new Release())
