/**
 * What a client needs to know of a shared object to use it: its kind and its name; of a dict also how values become bytes.
 *
 * The handles of `actor/` are such things; here is what queues, workers and handles share: opening, asking, errors.
 */
import * as Effect from "effect/Effect"
import * as Errors from "../Errors.ts"
import * as Limits from "../Limits.ts"
import { ObjectKind } from "../model/Objects.ts"
import { Code } from "../model/Refusal.ts"
import type { Answer } from "../wire/ManagerMessages.ts"
import type { ObjectRequest } from "../wire/ObjectMessages.ts"
import { ClientType as C, ManagerType as M } from "../wire/Vocabulary.ts"
import { type ClientShape, type Refusal, requestErrorOf, unexpected } from "./Client.ts"
import { type Codec, CodecFault } from "./Codec.ts"

export interface SetHandle {
  readonly kind: "set"
  readonly name: string
}
export interface CounterHandle {
  readonly kind: "counter"
  readonly name: string
}
export interface DictHandle<V> {
  readonly kind: "dict"
  readonly name: string
  readonly value: Codec<V>
}
export type ObjectHandle = SetHandle | CounterHandle | DictHandle<never>

/** What any request about a shared object may fail with. */
export type ObjectError = Errors.RequestError | Errors.ObjectNotFound | Errors.ObjectKindMismatch

/** What a shared object is told no with, besides `ObjectError`. */
export type WriteError = ObjectError | Errors.Conflict | Errors.CounterOverflow | Errors.DurabilityMixed

type Handle = { readonly kind: "set" | "counter" | "dict"; readonly name: string }

/** Numbers of objects by kind and name, per client; void when its session begins anew. */
const opened = new WeakMap<ClientShape, { generation: number; readonly ids: Map<string, number> }>()

const idsOf = (client: ClientShape): Map<string, number> => {
  let known = opened.get(client)
  if (known === undefined) {
    known = { generation: client.link.generation, ids: new Map() }
    opened.set(client, known)
  }
  if (known.generation !== client.link.generation) {
    known.generation = client.link.generation
    known.ids.clear()
  }
  return known.ids
}

/** The number of the object in this session; the first use makes it. */
export const openObject = (client: ClientShape, handle: Handle): Effect.Effect<number, ObjectError> =>
  Effect.suspend(() => {
    const known = idsOf(client).get(`${handle.kind} ${handle.name}`)
    return known === undefined ? Effect.map(openNow(client, handle), ({ id }) => id) : Effect.succeed(known)
  })

/** Asks for the object anew: its number, and how many keys it has. */
export const openNow = (
  client: ClientShape,
  { kind, name }: Handle
): Effect.Effect<{ readonly id: number; readonly size: number; readonly durability: string }, ObjectError> =>
  client
    .ask((request) => ({ type: C.openObject, request, name, kind: ObjectKind[kind], create: true }))
    .pipe(
      Effect.catchTag("Refusal", (refusal) => Effect.fail(objectErrorOf(refusal))),
      Effect.flatMap((answer) => {
        if (answer.type !== M.objectOpened) return Effect.fail(unexpected(answer))
        idsOf(client).set(`${kind} ${name}`, answer.object)
        return Effect.succeed({ id: answer.object, size: answer.size, durability: answer.durability })
      })
    )

/** Opens the object, asks, and hands an answer of this type over. */
export const askObject = <T extends Answer["type"], A>(
  client: ClientShape,
  handle: Handle,
  make: (request: number, object: number) => ObjectRequest,
  type: T,
  answered: (answer: Extract<Answer, { readonly type: T }>) => A
): Effect.Effect<A, WriteError> =>
  Effect.flatMap(openObject(client, handle), (object) => client.ask((request) => make(request, object))).pipe(
    Effect.catchTag("Refusal", (refusal) => Effect.fail(writeErrorOf(refusal))),
    Effect.flatMap((answer) =>
      answer.type === type
        ? Effect.succeed(answered(answer as Extract<Answer, { readonly type: T }>))
        : Effect.fail(unexpected(answer))
    )
  )

const kindNames = Object.fromEntries(Object.entries(ObjectKind).map(([name, kind]) => [kind, name]))

export const objectErrorOf = (refusal: Refusal): ObjectError => {
  const { code, limit, subject } = refusal.refused
  const [object = "", kind = ""] = subject.split("\n")
  if (code === Code.objectNotFound) return new Errors.ObjectNotFound({ object })
  if (code !== Code.objectKindMismatch) return requestErrorOf(refusal)
  return new Errors.ObjectKindMismatch({ object, kind, wanted: kindNames[limit] ?? String(limit) })
}

export const writeErrorOf = (refusal: Refusal): WriteError => {
  const { code, subject, value } = refusal.refused
  const at = subject.indexOf("\n")
  switch (code) {
    case Code.conflict:
      return new Errors.Conflict({
        object: at < 0 ? subject : subject.slice(0, at),
        key: at < 0 ? "" : subject.slice(at + 1),
        current: value
      })
    case Code.counterOverflow:
      return new Errors.CounterOverflow({ object: subject })
    case Code.durabilityMixed:
      return new Errors.DurabilityMixed({ name: subject })
    default:
      return objectErrorOf(refusal)
  }
}

const utf8 = new TextEncoder()

/** The key of a set as bytes, or why it cannot be one. */
export const setKey = (key: string): Uint8Array | Errors.LimitExceeded => {
  const bytes = utf8.encode(key)
  if (bytes.byteLength <= Limits.setKeyBytesMax) return bytes
  return new Errors.LimitExceeded({ limit: "setKeyBytesMax", value: bytes.byteLength, max: Limits.setKeyBytesMax })
}

export const dictKeyFault = (key: string): Errors.LimitExceeded | undefined => {
  const { byteLength } = utf8.encode(key)
  if (byteLength <= Limits.dictKeyBytesMax) return undefined
  return new Errors.LimitExceeded({ limit: "dictKeyBytesMax", value: byteLength, max: Limits.dictKeyBytesMax })
}

export const dictValue = <V>(
  dict: DictHandle<V>,
  value: V
): Uint8Array | Errors.PayloadInvalid | Errors.LimitExceeded => {
  const bytes = dict.value.encode(value)
  if (bytes instanceof CodecFault) {
    return new Errors.PayloadInvalid({ queue: dict.name, what: "value", path: bytes.path, reason: bytes.reason })
  }
  if (bytes.byteLength <= Limits.dictValueBytesMax) return bytes
  return new Errors.LimitExceeded({
    limit: "dictValueBytesMax",
    value: bytes.byteLength,
    max: Limits.dictValueBytesMax
  })
}

/** A whole number within the safe range, or the error that says it is not. */
export const counterFault = (value: number): Errors.LimitExceeded | undefined =>
  Number.isSafeInteger(value)
    ? undefined
    : new Errors.LimitExceeded({ limit: "counter value", value, max: Number.MAX_SAFE_INTEGER })
