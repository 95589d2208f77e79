/**
 * A task as its handler sees it, and the ways out of a handler besides its result and its typed errors.
 *
 * What a handler adds with `put` joins the commit: it happens together with the result, or not at all. What it puts with
 * `queue.put` happens at once.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { PutOptions, TaskQueue } from "../client/TaskQueue.ts"
import type { LimitExceeded, MixedDurability, PayloadInvalid, PayloadTooLarge, RequestError } from "../Errors.ts"
import * as Limits from "../Limits.ts"

export interface Task<P> {
  readonly id: string
  readonly payload: P
  /** Counts from 1. */
  readonly attempt: number
  /** The lane. */
  readonly key: string | undefined
  /** W3C traceparent of whoever put the task. */
  readonly trace: string | undefined
  /** Puts a child with this task's commit: exactly once if the task succeeds, never if it does not. */
  readonly put: <Q, R, E, C>(
    queue: TaskQueue<Q, R, E, C>,
    payload: Q,
    options?: Omit<PutOptions, "timeout">
  ) => Effect.Effect<void, PutChildError>
}

/**
 * What `task.put` may fail with. A handler may let it pass: a lost connection gives the task back, the others are
 * mistakes of the program and fail the attempt as a defect does.
 */
export type PutChildError = RequestError | PayloadInvalid | PayloadTooLarge | LimitExceeded | MixedDurability

/** Ends a task as dead, at once; with an error of the queue's Schema the outcome is a failure with that error. */
export class Kill extends Schema.TaggedError<Kill>()("millrace/Kill", {
  reason: Schema.String,
  error: Schema.optionalKey(Schema.Unknown)
}) {}
/** Ends an attempt as failed; the next comes after this time instead of the policy's back-off. */
export class RetryAfter extends Schema.TaggedError<RetryAfter>()("millrace/RetryAfter", {
  ms: Schema.Int,
  reason: Schema.String,
  error: Schema.optionalKey(Schema.Unknown)
}) {}
/** Gives the task back, uncounted. */
export class Release extends Schema.TaggedError<Release>()("millrace/Release", {}) {}

export type Control = Kill | RetryAfter | Release

/** Poison: no other attempt will do better. `error` is the typed error that readers of the outcome get. */
export const kill = (reason: string, error?: unknown): Effect.Effect<never, Kill> =>
  Effect.fail(error === undefined ? new Kill({ reason }) : new Kill({ reason, error }))

/** Fails this attempt; the next one comes after `duration`. After the last attempt the outcome is as for `kill`. */
export const retryAfter = (
  duration: Duration.Input,
  reason = "retry later",
  error?: unknown
): Effect.Effect<never, RetryAfter> => {
  const ms = Math.min(Limits.delayMsMax, Math.max(0, Math.ceil(Duration.toMillis(duration))))
  return Effect.fail(error === undefined ? new RetryAfter({ ms, reason }) : new RetryAfter({ ms, reason, error }))
}

/** Gives the task back as if it had never been leased. */
export const release: Effect.Effect<never, Release> = Effect.fail(new Release())
