/** What is laid around every handler of a worker: its time-outs, and a schedule that says when a failure is tried again. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { make as makeCodec } from "../client/Codec.ts"
import { replayed } from "./Step.ts"
import { beganOf, CurrentTask } from "./Steps.ts"
import { AttemptTimedOut, boundedMs, isLostContact, Kill, Release, RetryAfter, textOf } from "./Task.ts"

export interface AroundOptions {
  readonly timeoutMs: number | undefined
  readonly overallMs: number | undefined
  readonly retry: Schedule.Schedule<unknown, never> | undefined
}

type Around = <A, E, R>(handled: Effect.Effect<A, E, R>, attempt: number) => Effect.Effect<A, E, R>

/** Made once per worker: without any of them a handler is as it was, and costs nothing more. */
export const around = ({ overallMs, retry, timeoutMs }: AroundOptions): Around => {
  if (overallMs === undefined && retry === undefined && timeoutMs === undefined) return (handled) => handled
  // What is added to the errors and the needs of a handler is the worker's own, which knows them.
  return <A, E, R>(handled: Effect.Effect<A, E, R>, attempt: number) => {
    let laid: Effect.Effect<A, unknown, R | CurrentTask> = handled
    // Innermost: a time-out is no failure of the handler's own.
    if (retry !== undefined) laid = scheduled(laid, attempt, retry)
    if (timeoutMs !== undefined) {
      const orElse = () => Effect.fail(new AttemptTimedOut({ ms: timeoutMs }))
      laid = Effect.timeoutOrElse(laid, { duration: timeoutMs, orElse })
    }
    return (overallMs === undefined ? laid : withinOverall(laid, overallMs)) as Effect.Effect<A, E, R>
  }
}

const numbers = makeCodec(Schema.Number)

const withinOverall = <A, E, R>(handled: Effect.Effect<A, E, R>, overallMs: number) =>
  Effect.flatMap(CurrentTask, ({ steps }) =>
    Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const since = yield* replayed(steps, beganOf(steps), numbers, now)
      const over = new Kill({ reason: `the task was given up after its time-out of ${overallMs} ms over all attempts` })
      const left = since + overallMs - now
      if (left <= 0) return yield* over
      return yield* Effect.timeoutOrElse(handled, { duration: left, orElse: () => Effect.fail(over) })
    })
  )

/** The step of the schedule that belongs to this attempt; each attempt may be on another machine, so it begins anew. */
const scheduled = <A, E, R>(
  handled: Effect.Effect<A, E, R>,
  attempt: number,
  retry: Schedule.Schedule<unknown, never>
) =>
  Effect.catch(handled, (error): Effect.Effect<A, E | Kill | RetryAfter> => {
    const isControl = error instanceof Kill || error instanceof RetryAfter || error instanceof Release
    if (isControl || isLostContact(error)) return Effect.fail(error)
    return Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const step = yield* Schedule.toStep(retry)
      const reason = textOf(error)
      let delay = Duration.zero
      for (let i = 0; i < attempt; i++) {
        const next = yield* Pull.catchDone(
          Effect.map(step(now, error as never), ([, duration]) => duration),
          () => Effect.undefined
        )
        if (next === undefined) return yield* new Kill({ reason: `${reason} (its schedule is over)`, error })
        delay = next
      }
      return yield* new RetryAfter({ ms: boundedMs(delay), reason, error })
    })
  })
