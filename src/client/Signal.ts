/**
 * What a task may wait for from outside: a name and the Schema of what is told.
 *
 * A handler waits with `Step.waitFor(signal)`; anyone who may use the queue tells it with `queue.signal(task, signal, value)`.
 * The first value of a name counts, whether or not the handler waits already; the others change nothing.
 */
import * as Effect from "effect/Effect"
import * as Errors from "../Errors.ts"
import * as Limits from "../Limits.ts"
import { Code } from "../model/Refusal.ts"
import { ClientType as C, ManagerType as M } from "../wire/Vocabulary.ts"
import { type ClientShape, requestErrorOf, unexpected } from "./Client.ts"
import { type Codec, CodecFault, make as makeCodec, type Plain } from "./Codec.ts"

export interface Signal<A> {
  readonly name: string
  /** @internal */
  readonly entry: string
  /** @internal */
  readonly codec: Codec<A>
}

/** Names are short texts, unique within a handler. Throws for one that is empty or has more than 200 characters. */
export const make = <A>(name: string, schema: Plain<A>): Signal<A> => {
  if (name.length === 0 || name.length > Limits.stepNameCharsMax) {
    throw new RangeError(`a signal's name has 1 to ${Limits.stepNameCharsMax} characters, not ${name.length}`)
  }
  return { name, entry: `!${name}`, codec: makeCodec(schema) }
}

/** A task by its id, or by the dedupe id that it was put under. */
export type Named = string | { readonly id: string }

export type SignalError =
  | Errors.RequestError
  | Errors.PayloadInvalid
  | Errors.PayloadTooLarge
  | Errors.TaskNotFound
  | Errors.AlreadyEnded

/** @internal `task` undefined: an id of another life of the manager. */
export const send = <A>(
  client: ClientShape,
  queue: { readonly name: string; readonly number: number },
  named: Named,
  task: number | undefined,
  signal: Signal<A>,
  value: A
): Effect.Effect<void, SignalError> => {
  const taskId = typeof named === "string" ? named : named.id
  if (typeof named === "string" && task === undefined) return Effect.fail(new Errors.TaskNotFound({ taskId }))
  const bytes = signal.codec.encode(value)
  if (bytes instanceof CodecFault) {
    const { path, reason } = bytes
    return Effect.fail(new Errors.PayloadInvalid({ queue: queue.name, what: "signal", path, reason }))
  }
  if (bytes.byteLength > Limits.payloadBytesMax) {
    const fields = { queue: queue.name, bytes: bytes.byteLength, limitBytes: Limits.payloadBytesMax }
    return Effect.fail(new Errors.PayloadTooLarge(fields))
  }
  return client
    .ask((request) => ({
      type: C.signal,
      request,
      queue: queue.number,
      task: typeof named === "string" ? task : undefined,
      id: typeof named === "string" ? undefined : named.id,
      name: signal.entry,
      value: bytes
    }))
    .pipe(
      Effect.catchTag("Refusal", (refusal): Effect.Effect<never, SignalError> => {
        const { code } = refusal.refused
        if (code === Code.taskNotFound) return Effect.fail(new Errors.TaskNotFound({ taskId }))
        if (code === Code.alreadyEnded) return Effect.fail(new Errors.AlreadyEnded({ taskId }))
        return Effect.fail(requestErrorOf(refusal))
      }),
      Effect.flatMap((answer) => (answer.type === M.done ? Effect.void : Effect.fail(unexpected(answer))))
    )
}
