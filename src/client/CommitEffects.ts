/**
 * What happens with a commit, and only with it: child tasks, set additions, increments and dict writes, collected.
 *
 * A worker's `task` and a commit by hand fill one each. Everything is checked and bounded while it is collected, so that
 * the commit itself is refused only for what the manager alone can know.
 */
import * as Effect from "effect/Effect"
import * as Errors from "../Errors.ts"
import * as Limits from "../Limits.ts"
import type { CommitEffects as WireEffects } from "../wire/ClientMessages.ts"
import { optionsBytes } from "../wire/Vocabulary.ts"
import type { ClientShape, OpenableQueue, OpenQueue } from "./Client.ts"
import {
  type CounterHandle,
  counterFault,
  type DictHandle,
  dictKeyFault,
  dictValue,
  type ObjectError,
  openObject,
  type SetHandle,
  setKey
} from "./SharedObject.ts"
import type { PutOptions, TaskQueue } from "./TaskQueue.ts"
import { traceOf } from "./Trace.ts"

type ChildOptions = Omit<PutOptions, "timeout">

/** Why something cannot be collected. Nothing was sent but the opening of what it names. */
export type CollectError = ObjectError | Errors.PayloadInvalid | Errors.PayloadTooLarge | Errors.DurabilityMixed

/** The verbs that join a commit; each takes effect exactly once if the commit is done, and never if it is not. */
export interface Collecting {
  /** Puts a child task. */
  readonly put: <Q, R, E, C>(
    queue: TaskQueue<Q, R, E, C>,
    payload: Q,
    options?: ChildOptions
  ) => Effect.Effect<void, CollectError>
  /** Adds the key to the set, and puts the child only if the key was new: this is what follows every link once. */
  readonly putIfNew: <Q, R, E, C>(
    set: SetHandle,
    key: string,
    queue: TaskQueue<Q, R, E, C>,
    payload: Q,
    options?: ChildOptions
  ) => Effect.Effect<void, CollectError>
  readonly addToSet: (set: SetHandle, key: string) => Effect.Effect<void, CollectError>
  /** Default 1. */
  readonly increment: (counter: CounterHandle, by?: number) => Effect.Effect<void, CollectError>
  /** With `version` (0: absent), the whole commit is refused if the entry has another by then. */
  readonly set: <V>(
    dict: DictHandle<V>,
    key: string,
    value: V,
    options?: { readonly version?: number | undefined }
  ) => Effect.Effect<void, CollectError>
  readonly delete: <V>(
    dict: DictHandle<V>,
    key: string,
    options?: { readonly version?: number | undefined }
  ) => Effect.Effect<void, CollectError>
}

export class Collected implements Collecting {
  readonly #client: ClientShape
  readonly #puts: Array<WireEffects["puts"][number]> = []
  readonly #sets: Array<WireEffects["sets"][number]> = []
  readonly #counts: Array<WireEffects["counts"][number]> = []
  readonly #writes: Array<WireEffects["writes"][number]> = []
  #bytes = 0

  constructor(client: ClientShape) {
    this.#client = client
  }

  /** About how many bytes they take in a frame. */
  get bytes(): number {
    return this.#bytes
  }

  get effects(): WireEffects | undefined {
    return this.#count === 0
      ? undefined
      : { puts: this.#puts, sets: this.#sets, counts: this.#counts, writes: this.#writes }
  }

  put: Collecting["put"] = (queue, payload, options) =>
    this.#open(queue, (opened, trace): Effect.Effect<void, CollectError> => {
      const bytes = queue.encodePayload(opened, payload)
      if (bytes instanceof Error) return Effect.fail(bytes)
      const wire = queue.wireOptions(payload, options, trace)
      const fault = queue.optionsFault(wire) ?? this.#room(1, bytes.byteLength + optionsBytes(wire))
      if (fault !== undefined) return Effect.fail(fault)
      this.#puts.push({ queue: opened.id, payload: bytes, options: wire })
      return Effect.void
    })

  putIfNew: Collecting["putIfNew"] = (set, key, queue, payload, options) =>
    Effect.flatMap(openObject(this.#client, set), (object) =>
      this.#open(queue, (opened, trace): Effect.Effect<void, CollectError> => {
        const bytes = queue.encodePayload(opened, payload)
        if (bytes instanceof Error) return Effect.fail(bytes)
        const keyBytes = setKey(key)
        if (keyBytes instanceof Error) return Effect.fail(keyBytes)
        const wire = queue.wireOptions(payload, options, trace)
        const size = bytes.byteLength + keyBytes.byteLength + optionsBytes(wire)
        const fault = queue.optionsFault(wire) ?? this.#room(2, size)
        if (fault !== undefined) return Effect.fail(fault)
        this.#puts.push({ queue: opened.id, payload: bytes, options: wire, ifNew: this.#sets.length })
        this.#sets.push({ object, key: keyBytes })
        return Effect.void
      })
    )

  /** The queue as it is open, and the trace that a child put here belongs to. */
  #open(
    queue: OpenableQueue,
    use: (opened: OpenQueue, trace: string | undefined) => Effect.Effect<void, CollectError>
  ): Effect.Effect<void, CollectError> {
    return Effect.withFiber((fiber) =>
      Effect.flatMap(this.#client.open(queue), (opened) => use(opened, traceOf(fiber)))
    )
  }

  addToSet: Collecting["addToSet"] = (set, key) =>
    Effect.flatMap(openObject(this.#client, set), (object): Effect.Effect<void, CollectError> => {
      const bytes = setKey(key)
      if (bytes instanceof Error) return Effect.fail(bytes)
      const fault = this.#room(1, bytes.byteLength)
      if (fault !== undefined) return Effect.fail(fault)
      this.#sets.push({ object, key: bytes })
      return Effect.void
    })

  increment: Collecting["increment"] = (counter, by = 1) =>
    Effect.flatMap(openObject(this.#client, counter), (object): Effect.Effect<void, CollectError> => {
      const fault = counterFault(by) ?? this.#room(1, 0)
      if (fault !== undefined) return Effect.fail(fault)
      this.#counts.push({ object, by })
      return Effect.void
    })

  set: Collecting["set"] = (dict, key, value, options) =>
    Effect.flatMap(openObject(this.#client, dict), (object): Effect.Effect<void, CollectError> => {
      const bytes = dictValue(dict, value)
      if (bytes instanceof Error) return Effect.fail(bytes)
      const fault = dictKeyFault(key) ?? this.#room(1, bytes.byteLength + 3 * key.length)
      if (fault !== undefined) return Effect.fail(fault)
      this.#writes.push({ object, key, value: bytes, expected: options?.version })
      return Effect.void
    })

  delete: Collecting["delete"] = (dict, key, options) =>
    Effect.flatMap(openObject(this.#client, dict), (object): Effect.Effect<void, CollectError> => {
      const fault = dictKeyFault(key) ?? this.#room(1, 3 * key.length)
      if (fault !== undefined) return Effect.fail(fault)
      this.#writes.push({ object, key, value: undefined, expected: options?.version })
      return Effect.void
    })

  get #count(): number {
    return this.#puts.length + this.#sets.length + this.#counts.length + this.#writes.length
  }

  #room(more: number, bytes: number): Errors.LimitExceeded | undefined {
    const count = this.#count + more
    const size = this.#bytes + bytes + 32 * more
    if (count > Limits.commitEffectsMax) {
      return new Errors.LimitExceeded({ limit: "commitEffectsMax", value: count, max: Limits.commitEffectsMax })
    }
    if (size > Limits.batchBytesMax) {
      return new Errors.LimitExceeded({ limit: "batchBytesMax", value: size, max: Limits.batchBytesMax })
    }
    this.#bytes = size
    return undefined
  }
}
