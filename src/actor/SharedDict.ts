/**
 * String keys to typed values at the manager, shared by all its clients. Every write has a version, for compare-and-set.
 *
 * Values are bytes to the manager and checked against the Schema here. What a handler writes through `task.set` joins its
 * commit; what it writes here happens at once.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { Client, type ClientShape } from "../client/Client.ts"
import { type Codec, make as makeCodec, type Plain } from "../client/Codec.ts"
import { askObject, dictKeyFault, dictValue, type ObjectError, openNow } from "../client/SharedObject.ts"
import { type Conflict, DecodeFailed, type PayloadInvalid } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import type { DictChange } from "../wire/ObjectMessages.ts"
import { ClientType as C, ManagerType as M } from "../wire/Vocabulary.ts"
import { checkName } from "./name.ts"

export interface Entry<V> {
  readonly value: V
  /** The write that made it; rises over the whole dict and is never given twice. */
  readonly version: number
}

export class SharedDict<V> {
  readonly kind = "dict"
  readonly name: string
  readonly value: Codec<V>

  constructor(name: string, options: { readonly value: Plain<V> }) {
    this.name = checkName(name)
    this.value = makeCodec(options.value)
  }

  /** The value of a key, or undefined. */
  get(key: string): Effect.Effect<V | undefined, ObjectError | DecodeFailed, Client> {
    return Effect.map(this.entry(key), (entry) => entry?.value)
  }

  /** The value of a key with its version, or undefined. */
  entry(key: string): Effect.Effect<Entry<V> | undefined, ObjectError | DecodeFailed, Client> {
    return Effect.flatMap(Client, (client): Effect.Effect<Entry<V> | undefined, ObjectError | DecodeFailed> => {
      const fault = dictKeyFault(key)
      if (fault !== undefined) return Effect.fail(fault)
      return askObject(
        client,
        this,
        (request, object) => ({ type: C.dictGet, request, object, keys: [key] }),
        M.entries,
        ({ items }) => items[0]
      ).pipe(
        Effect.catchTag(neverOfReads, (error) => Effect.die(error)),
        Effect.flatMap((item) => (item === undefined ? Effect.succeed(undefined) : this.#entry(item)))
      )
    })
  }

  /** Writes the key, whatever it had. Returns the new version. */
  set(key: string, value: V): Effect.Effect<number, ObjectError | PayloadInvalid, Client> {
    return this.#unconditionally(key, value)
  }

  /** Writes the key if it is absent. True if it was. */
  setIfAbsent(key: string, value: V): Effect.Effect<boolean, ObjectError | PayloadInvalid, Client> {
    return this.compareAndSet(key, 0, value).pipe(
      Effect.as(true),
      Effect.catchTag("Conflict", () => Effect.succeed(false))
    )
  }

  /** Writes the key if its entry has this version (0: if it is absent); otherwise `Conflict` with the current one. */
  compareAndSet(
    key: string,
    version: number,
    value: V
  ): Effect.Effect<number, ObjectError | PayloadInvalid | Conflict, Client> {
    return Effect.suspend((): Effect.Effect<number, ObjectError | PayloadInvalid | Conflict, Client> => {
      const bytes = dictValue(this, value)
      return bytes instanceof Error ? Effect.fail(bytes) : this.#write({ key, value: bytes, expected: version })
    })
  }

  /** True if it was there. */
  delete(key: string): Effect.Effect<boolean, ObjectError, Client> {
    return Effect.map(this.#write({ key, value: undefined, expected: undefined }), (version) => version > 0).pipe(
      Effect.catchTag("Conflict", (error) => Effect.die(error))
    )
  }

  /** Deletes the key if its entry has this version; otherwise `Conflict` with the current one (0: absent). */
  compareAndDelete(key: string, version: number): Effect.Effect<void, ObjectError | Conflict, Client> {
    return Effect.asVoid(this.#write({ key, value: undefined, expected: version }))
  }

  get size(): Effect.Effect<number, ObjectError, Client> {
    return Effect.flatMap(Client, (client) => Effect.map(openNow(client, this), ({ size }) => size))
  }

  /**
   * All entries, page by page, in the order in which their keys came. A key that is there all the time is listed exactly
   * once, with a value that it had meanwhile; one that comes or goes may be listed or not.
   */
  get entries(): Stream.Stream<readonly [key: string, entry: Entry<V>], ObjectError | DecodeFailed, Client> {
    return Stream.paginate(undefined as Uint8Array | undefined, (after) =>
      Effect.flatMap(Client, (client) => this.#page(client, after))
    )
  }

  #page = Effect.fnUntraced({ self: this }, function* (client: ClientShape, after: Uint8Array | undefined) {
    const page = yield* askObject(
      client,
      this,
      (request, object) => ({ type: C.listObject, request, object, after, count: Limits.pageItemsMax }),
      M.pairs,
      (answer) => answer
    ).pipe(Effect.catchTag(neverOfReads, (error) => Effect.die(error)))
    const entries: Array<readonly [string, Entry<V>]> = []
    for (const item of page.items) entries.push([item.key, yield* this.#entry(item)])
    const next = page.next === undefined ? Option.none<Uint8Array | undefined>() : Option.some(page.next)
    return [entries, next] as const
  })

  #entry({
    value,
    version
  }: {
    readonly value: Uint8Array
    readonly version: number
  }): Effect.Effect<Entry<V>, DecodeFailed> {
    const decoded = this.value.decode(value)
    if (Exit.isSuccess(decoded)) return Effect.succeed({ value: decoded.value, version })
    const reason = "it does not fit the Schema of this handle"
    return Effect.fail(new DecodeFailed({ queue: this.name, what: "value", reason }))
  }

  #unconditionally(key: string, value: V): Effect.Effect<number, ObjectError | PayloadInvalid, Client> {
    return Effect.suspend((): Effect.Effect<number, ObjectError | PayloadInvalid, Client> => {
      const bytes = dictValue(this, value)
      if (bytes instanceof Error) return Effect.fail(bytes)
      return this.#write({ key, value: bytes, expected: undefined }).pipe(
        Effect.catchTag("Conflict", (error) => Effect.die(error))
      )
    })
  }

  #write(change: DictChange): Effect.Effect<number, ObjectError | Conflict, Client> {
    return Effect.flatMap(Client, (client): Effect.Effect<number, ObjectError | Conflict> => {
      const fault = dictKeyFault(change.key)
      if (fault !== undefined) return Effect.fail(fault)
      return askObject(
        client,
        this,
        (request, object) => ({ type: C.dictWrite, request, object, writes: [change] }),
        M.written,
        ({ versions }) => versions[0] ?? 0
      ).pipe(Effect.catchTag(["CounterOverflow", "DurabilityMixed"], (error) => Effect.die(error)))
    })
  }
}

/** Reading has no condition: the manager does not answer with these. */
const neverOfReads = ["Conflict", "CounterOverflow", "DurabilityMixed"] as const

/** A dict by its name: 1 to 200 characters of A-Z a-z 0-9 . _ : - (throws `DefinitionInvalid` for another). */
export const make = <V>(name: string, options: { readonly value: Plain<V> }): SharedDict<V> =>
  new SharedDict(name, options)
