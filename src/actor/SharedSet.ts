/**
 * A set of strings at the manager, shared by all its clients: what has been seen, exactly.
 *
 * A handle holds no state; each operation asks the `Client` in its environment. The first use of a name makes the set.
 * What a handler adds through `task.addToSet` or `task.putIfNew` joins its commit; what it adds here happens at once.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { Client, type ClientShape } from "../client/Client.ts"
import { askObject, type ObjectError, openNow, setKey, type WriteError } from "../client/SharedObject.ts"
import type { LimitExceeded } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import { SetAction } from "../model/Objects.ts"
import { ClientType as C, ManagerType as M } from "../wire/Vocabulary.ts"
import { checkName } from "./name.ts"

const decoder = new TextDecoder()

export class SharedSet {
  readonly kind = "set"
  readonly name: string

  constructor(name: string) {
    this.name = checkName(name)
  }

  /** Adds a key of at most 4,096 bytes. True if it was new. */
  add(key: string): Effect.Effect<boolean, ObjectError, Client> {
    return Effect.map(this.addAll([key]), ([isNew]) => isNew === true)
  }

  /**
   * Adds keys, in batches of up to 4,096 keys or 4 MiB. One answer per key, in order: whether it was new; a key that comes
   * twice is new once. Each batch is done or refused as one; a failure may leave earlier batches done.
   */
  addAll(keys: Iterable<string>): Effect.Effect<ReadonlyArray<boolean>, ObjectError, Client> {
    return this.#all(SetAction.add, keys)
  }

  has(key: string): Effect.Effect<boolean, ObjectError, Client> {
    return Effect.map(this.hasAll([key]), ([there]) => there === true)
  }

  hasAll(keys: Iterable<string>): Effect.Effect<ReadonlyArray<boolean>, ObjectError, Client> {
    return this.#all(SetAction.has, keys)
  }

  /** True if it was there. */
  remove(key: string): Effect.Effect<boolean, ObjectError, Client> {
    return Effect.map(this.removeAll([key]), ([there]) => there === true)
  }

  removeAll(keys: Iterable<string>): Effect.Effect<ReadonlyArray<boolean>, ObjectError, Client> {
    return this.#all(SetAction.remove, keys)
  }

  get size(): Effect.Effect<number, ObjectError, Client> {
    return Effect.flatMap(Client, (client) => Effect.map(openNow(client, this), ({ size }) => size))
  }

  /**
   * All keys, page by page, in no order of meaning. A key that is there all the time is listed exactly once; one that comes
   * or goes meanwhile may be listed or not.
   */
  get keys(): Stream.Stream<string, ObjectError, Client> {
    return Stream.paginate(undefined as Uint8Array | undefined, (after) =>
      Effect.flatMap(Client, (client) =>
        askObject(
          client,
          this,
          (request, object) => ({ type: C.listObject, request, object, after, count: Limits.pageItemsMax }),
          M.keys,
          ({ keys, next }) =>
            [
              keys.map((key) => decoder.decode(key)),
              next === undefined ? Option.none<Uint8Array | undefined>() : Option.some(next)
            ] as const
        ).pipe(Effect.catchTag(neverOfSets, (error) => Effect.die(error)))
      )
    )
  }

  #all(action: SetAction, keys: Iterable<string>): Effect.Effect<ReadonlyArray<boolean>, ObjectError, Client> {
    return Effect.flatMap(Client, (client) =>
      this.#batches(client, action, keys).pipe(Effect.catchTag(neverOfSets, (error) => Effect.die(error)))
    )
  }

  #batches = Effect.fnUntraced(
    { self: this },
    function* (
      client: ClientShape,
      action: SetAction,
      keys: Iterable<string>
    ): Effect.fn.Return<ReadonlyArray<boolean>, WriteError | LimitExceeded> {
      const encoded: Array<Uint8Array> = []
      for (const key of keys) {
        const bytes = setKey(key)
        if (bytes instanceof Error) return yield* bytes
        encoded.push(bytes)
      }
      const answers: Array<boolean> = []
      for (let from = 0; from < encoded.length; ) {
        let upTo = from
        for (let bytes = 0; upTo < encoded.length && upTo - from < Limits.batchItemsMax; upTo++) {
          bytes += encoded[upTo]!.byteLength
          if (upTo > from && bytes > Limits.batchBytesMax) break
        }
        const batch = encoded.slice(from, upTo)
        const bits = yield* askObject(
          client,
          this,
          (request, object) => ({ type: C.setKeys, request, object, action, keys: batch }),
          M.bits,
          ({ bits }) => bits
        )
        for (let i = 0; i < batch.length; i++) answers.push(((bits[i >>> 3] ?? 0) & (1 << (i & 7))) !== 0)
        from = upTo
      }
      return answers
    }
  )
}

/** A set has no versions, no sums and no commit of its own: the manager does not answer with these. */
const neverOfSets = ["Conflict", "CounterOverflow", "DurabilityMixed"] as const

/** A set by its name: 1 to 200 characters of A-Z a-z 0-9 . _ : - (throws `DefinitionInvalid` for another). */
export const make = (name: string): SharedSet => new SharedSet(name)
