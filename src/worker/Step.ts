/**
 * Steps of a handler: pieces that are recorded when they end, and not run again by a later attempt, on whatever machine.
 *
 * A handler runs from its top in every attempt. What it does outside of steps it does again; a step that is recorded gives
 * its recorded value. So steps have names, unique within the handler and the same in every attempt, and what decides which
 * steps are run must itself come from the payload or from steps. A handler that waits in `sleep` or `waitFor`, and runs no
 * step beside, is taken off its worker: it goes on from its top when the wait is over.
 *
 * Kept with the task until it ends: at most 1,024 steps and signals, 2 MiB together.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { type Codec, CodecFault, make as makeCodec, type Plain } from "../client/Codec.ts"
import type { Signal } from "../client/Signal.ts"
import { type RequestError, StepChanged, StepInvalid, TimedOut } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import { CurrentTask, isStep, type Steps } from "./Steps.ts"

export type { CurrentTask } from "./Steps.ts"

/** What recording may fail with. A lost connection gives the task back; the others are mistakes of the program. */
export type StepError = RequestError | StepChanged | StepInvalid

export interface RunOptions<E, E2, R2> {
  /** Tried again by this schedule, within this attempt, before it counts as failed. Default: not. */
  readonly retry?: Schedule.Schedule<unknown, E, E2, R2> | undefined
  /** The failures of the step: with it a failure is recorded too, and fails every later attempt the same way. */
  readonly error?: Plain<E> | undefined
}

/**
 * Runs `effect` and records its value, or gives the value that an earlier attempt has recorded. A failure is recorded only
 * with `options.error`; without, a later attempt runs the step again. Recording is durable when this returns.
 */
export const run = <A, E, R, E2 = never, R2 = never>(
  name: string,
  schema: Plain<A>,
  effect: Effect.Effect<A, E, R>,
  options: RunOptions<E, E2, R2> = {}
): Effect.Effect<A, E | E2 | StepError, R | R2 | CurrentTask> =>
  Effect.flatMap(CurrentTask, ({ steps }): Effect.Effect<A, E | E2 | StepError, R | R2> => {
    const fault = reach(steps, name)
    if (fault !== undefined) return Effect.fail(fault)
    const success = codecOf(schema)
    const failure = options.error === undefined ? undefined : codecOf(options.error)
    const known = steps.entries.get(name)
    if (known !== undefined) return replay(name, known, success, failure)
    const { retry } = options
    const tried = retry === undefined ? effect : Effect.retry(effect, retry)
    return steps.active(
      Effect.matchEffect(tried, {
        onSuccess: (value) => Effect.as(record(steps, name, succeeded, success, value), value),
        onFailure: (error): Effect.Effect<never, E | E2 | StepError> =>
          failure === undefined
            ? Effect.fail(error)
            : Effect.andThen(record(steps, name, failed, failure, error as E), Effect.fail(error))
      })
    )
  })

/**
 * Waits, and holds no worker while it does. What is left of the wait is the same in every attempt: it ends `duration` after
 * the first attempt came here, by the clocks of the workers. Under a second it waits where it is.
 */
export const sleep = (name: string, duration: Duration.Input): Effect.Effect<void, StepError, CurrentTask> =>
  Effect.flatMap(CurrentTask, ({ steps }) =>
    Effect.gen(function* () {
      const fault = reach(steps, name)
      if (fault !== undefined) return yield* fault
      yield* until(steps, yield* dueOf(steps, name, duration))
    })
  )

/**
 * Waits until somebody has told the signal, and holds no worker while it does. With a time-out it fails with `TimedOut` when
 * that has passed first; which of the two was first is the same in every attempt. Waits with a time-out have names, unique in
 * the handler as those of steps are: by default the signal's.
 */
export function waitFor<A>(signal: Signal<A>): Effect.Effect<A, StepError, CurrentTask>
export function waitFor<A>(
  signal: Signal<A>,
  options: { readonly timeout: Duration.Input; readonly name?: string | undefined }
): Effect.Effect<A, StepError | TimedOut, CurrentTask>
export function waitFor<A>(
  signal: Signal<A>,
  { name: given, timeout }: { readonly timeout?: Duration.Input; readonly name?: string | undefined } = {}
): Effect.Effect<A, StepError | TimedOut, CurrentTask> {
  return Effect.flatMap(CurrentTask, ({ steps }) =>
    Effect.gen(function* () {
      const wait = given ?? signal.name
      const [due, over] = [`$wait ${wait}`, `$over ${wait}`]
      if (timeout !== undefined) {
        const fault = reach(steps, due, true)
        if (fault !== undefined) return yield* new StepInvalid({ ...fault, step: wait })
        steps.reached.add(over)
      }
      for (const [name, value] of steps.entries) {
        // With a time-out only: an earlier wait for the same signal may have had one.
        if (name === over && timeout !== undefined)
          return yield* new TimedOut({ operation: `waiting for signal "${signal.name}"` })
        if (name === signal.entry) return yield* decoded(signal.name, signal.codec, value)
      }
      if (timeout === undefined) return yield* steps.wait(undefined)
      const dueAt = yield* dueOf(steps, due, timeout)
      if ((yield* Clock.currentTimeMillis) < dueAt) return yield* steps.wait(dueAt)
      yield* steps.active(steps.record(over, new Uint8Array()))
      // A signal may have come just before: the next attempt sees which was first.
      return yield* steps.wait(0)
    })
  )
}

/**
 * Names the version of the handler's steps; to be called before them. A task keeps the version that it began with, and this
 * returns it. Another version than `version` fails with `StepChanged`, unless it is one of `accepts`: then the handler does
 * as that version did, and recorded steps that it does not come to are no fault.
 */
export const version = (
  version: number,
  options: { readonly accepts?: ReadonlyArray<number> | undefined } = {}
): Effect.Effect<number, StepError, CurrentTask> =>
  Effect.flatMap(CurrentTask, ({ steps }) =>
    Effect.gen(function* () {
      const fault = reach(steps, versionName, true)
      if (fault !== undefined) return yield* fault
      const known = steps.entries.get(versionName)
      if (known === undefined && steps.entries.size > 0 && [...steps.entries.keys()].some(isStep)) {
        // It began before versions were counted.
        return yield* accept(steps, 0, version, options.accepts)
      }
      if (known === undefined) {
        yield* steps.active(record(steps, versionName, succeeded, numbers, version))
        return version
      }
      return yield* accept(
        steps,
        yield* replay<number, never>(versionName, known, numbers, undefined),
        version,
        options.accepts
      )
    })
  )

// ---- inside

const succeeded = 0
const failed = 1
const versionName = "$version"
const shortMs = 1_000

const numbers = makeCodec(Schema.Number)

const codecs = new WeakMap<object, Codec<unknown>>()

/** Built once per Schema. */
const codecOf = <A>(schema: Plain<A>): Codec<A> => {
  const known = codecs.get(schema) as Codec<A> | undefined
  const codec = known ?? makeCodec(schema)
  if (known === undefined) codecs.set(schema, codec as Codec<unknown>)
  return codec
}

/** Why the handler cannot come to this step. */
const reach = (steps: Steps, name: string, own = false): StepInvalid | undefined => {
  if (name.length === 0 || name.length > Limits.stepNameCharsMax + (own ? 8 : 0)) {
    return new StepInvalid({ step: name.slice(0, 40), reason: `a name has 1 to ${Limits.stepNameCharsMax} characters` })
  }
  if (!own && (name[0] === "!" || name[0] === "$")) {
    return new StepInvalid({ step: name, reason: `a name does not begin with ${name[0]}` })
  }
  if (steps.reached.has(name))
    return new StepInvalid({ step: name, reason: "the handler has another step of that name" })
  steps.reached.add(name)
  return undefined
}

const record = <A>(
  steps: Steps,
  name: string,
  flag: number,
  codec: Codec<A>,
  value: A
): Effect.Effect<void, StepError> => {
  const bytes = codec.encode(value)
  if (bytes instanceof CodecFault) {
    const reason = `its value does not fit its Schema at ${bytes.path}: ${bytes.reason}`
    return Effect.fail(new StepInvalid({ step: name, reason }))
  }
  if (bytes.byteLength >= Limits.payloadBytesMax) {
    const reason = `its value has ${bytes.byteLength} bytes, at most ${Limits.payloadBytesMax - 1} are recorded`
    return Effect.fail(new StepInvalid({ step: name, reason }))
  }
  const entry = new Uint8Array(1 + bytes.byteLength)
  entry[0] = flag
  entry.set(bytes, 1)
  return steps.record(name, entry)
}

const replay = <A, E>(
  name: string,
  entry: Uint8Array,
  success: Codec<A>,
  failure: Codec<E> | undefined
): Effect.Effect<A, E | StepChanged> => {
  if (entry[0] === succeeded) return decoded(name, success, entry.subarray(1))
  if (failure === undefined)
    return Effect.fail(new StepChanged({ step: name, reason: "it has failed, and has no error" }))
  return Effect.flatMap(decoded(name, failure, entry.subarray(1)), (error) => Effect.fail(error))
}

const decoded = <A>(name: string, codec: Codec<A>, bytes: Uint8Array): Effect.Effect<A, StepChanged> => {
  const value = codec.decode(bytes)
  if (Exit.isSuccess(value)) return Effect.succeed(value.value)
  return Effect.fail(new StepChanged({ step: name, reason: "what is recorded does not fit its Schema" }))
}

/** @internal The value that is recorded under a name of our own; the first attempt records `value`. */
export const replayed = <A>(steps: Steps, name: string, codec: Codec<A>, value: A): Effect.Effect<A, StepError> =>
  Effect.suspend((): Effect.Effect<A, StepError> => {
    steps.reached.add(name)
    const known = steps.entries.get(name)
    if (known !== undefined) return replay<A, never>(name, known, codec, undefined)
    return Effect.as(steps.active(record(steps, name, succeeded, codec, value)), value)
  })

/** When a wait that began with the first attempt is over. */
const dueOf = Effect.fnUntraced(function* (steps: Steps, name: string, duration: Duration.Input) {
  const dueAt = Math.ceil((yield* Clock.currentTimeMillis) + Math.max(0, Duration.toMillis(duration)))
  return yield* replayed(steps, name, numbers, dueAt)
})

const until = Effect.fnUntraced(function* (steps: Steps, dueAt: number) {
  const left = dueAt - (yield* Clock.currentTimeMillis)
  if (left >= shortMs) return yield* steps.wait(dueAt)
  // Another wait may be longer: what follows this one would wait as long.
  if (left > 0) yield* steps.active(Effect.sleep(left))
})

const accept = (
  steps: Steps,
  known: number,
  version: number,
  accepts: ReadonlyArray<number> | undefined
): Effect.Effect<number, StepChanged> => {
  if (known === version) return Effect.succeed(known)
  if (accepts?.includes(known) !== true) {
    const reason = `the task began with version ${known}, this handler is version ${version}`
    return Effect.fail(new StepChanged({ step: versionName, reason }))
  }
  steps.accepted = true
  return Effect.succeed(known)
}
