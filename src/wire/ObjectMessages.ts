/**
 * Messages about shared objects (sets, dicts, counters), both directions, and the effects of a commit on them.
 *
 * `ClientMessages` and `ManagerMessages` hand types from 0x60 on to these. A signed number travels as an array of two: whether it
 * is negative, and its size; the protocol has unsigned integers only.
 */
import * as Limits from "../Limits.ts"
import { Malformed, type Reader, type Writer } from "./Bytes.ts"
import { head, isName, list, uintList, uints } from "./pieces.ts"
import { ClientType as C, ManagerType as M } from "./Vocabulary.ts"

// ---- from client to manager

export interface OpenObject {
  readonly type: typeof C.openObject
  readonly request: number
  readonly name: string
  /** 0 set, 1 dict, 2 counter. */
  readonly kind: number
  /** Whether it is made if it is not there. */
  readonly create: boolean
}
export interface SetKeys {
  readonly type: typeof C.setKeys
  readonly request: number
  readonly object: number
  /** 0 add, 1 has, 2 remove. */
  readonly action: number
  readonly keys: ReadonlyArray<Uint8Array>
}
export interface Count {
  readonly type: typeof C.count
  readonly request: number
  readonly object: number
  readonly by: number
}
export interface CountSet {
  readonly type: typeof C.countSet
  readonly request: number
  readonly object: number
  readonly expected: number | undefined
  readonly value: number
}
export interface DictGet {
  readonly type: typeof C.dictGet
  readonly request: number
  readonly object: number
  readonly keys: ReadonlyArray<string>
}
/** `value` undefined deletes; `expected` is the version that must be there before, 0 for none. */
export interface DictChange {
  readonly key: string
  readonly value: Uint8Array | undefined
  readonly expected: number | undefined
}
export interface DictWrite {
  readonly type: typeof C.dictWrite
  readonly request: number
  readonly object: number
  readonly writes: ReadonlyArray<DictChange>
}
export interface ListObject {
  readonly type: typeof C.listObject
  readonly request: number
  readonly object: number
  readonly after: Uint8Array | undefined
  readonly count: number
}
export type ObjectRequest = OpenObject | SetKeys | Count | CountSet | DictGet | DictWrite | ListObject

// ---- from manager to client

export interface ObjectOpened {
  readonly type: typeof M.objectOpened
  readonly request: number
  readonly object: number
  readonly durability: string
  /** Keys of a set or a dict. */
  readonly size: number
}
/** A bit per key, the first in the lowest bit of the first byte. */
export interface Bits {
  readonly type: typeof M.bits
  readonly request: number
  readonly count: number
  readonly bits: Uint8Array
}
export interface Counted {
  readonly type: typeof M.counter
  readonly request: number
  readonly done: boolean
  readonly value: number
}
export interface Entry {
  readonly version: number
  readonly value: Uint8Array
}
export interface Entries {
  readonly type: typeof M.entries
  readonly request: number
  readonly items: ReadonlyArray<Entry | undefined>
}
export interface Written {
  readonly type: typeof M.written
  readonly request: number
  readonly versions: ReadonlyArray<number>
}
export interface Keys {
  readonly type: typeof M.keys
  readonly request: number
  readonly keys: ReadonlyArray<Uint8Array>
  readonly next: Uint8Array | undefined
}
export interface Pair extends Entry {
  readonly key: string
}
export interface Pairs {
  readonly type: typeof M.pairs
  readonly request: number
  readonly items: ReadonlyArray<Pair>
  readonly next: Uint8Array | undefined
}
export type ObjectAnswer = ObjectOpened | Bits | Counted | Entries | Written | Keys | Pairs

// ---- effects of a commit

export interface SetAddition {
  readonly object: number
  readonly key: Uint8Array
}
export interface Increment {
  readonly object: number
  readonly by: number
}
export interface DictEffect extends DictChange {
  readonly object: number
}
export interface ObjectEffects {
  readonly sets: ReadonlyArray<SetAddition>
  readonly counts: ReadonlyArray<Increment>
  readonly writes: ReadonlyArray<DictEffect>
}

export const encodeEffects = (w: Writer, { counts, sets, writes }: ObjectEffects): void => {
  w.array(sets.length)
  for (const { key, object } of sets) {
    w.array(2)
    w.uint(object)
    w.bin(key)
  }
  w.array(counts.length)
  for (const { by, object } of counts) {
    w.array(2)
    w.uint(object)
    signed(w, by)
  }
  w.array(writes.length)
  for (const { expected, key, object, value } of writes) {
    w.array(4)
    w.uint(object)
    w.str(key)
    w.binOrNil(value)
    w.uintOrNil(expected)
  }
}

export const decodeEffects = (r: Reader): ObjectEffects => ({
  sets: items(r, 2, Limits.commitEffectsMax, "a set addition", () => ({
    object: r.uint(),
    key: r.bin(Limits.setKeyBytesMax)
  })),
  counts: items(r, 2, Limits.commitEffectsMax, "an increment", () => ({ object: r.uint(), by: signedOf(r) })),
  writes: items(r, 4, Limits.commitEffectsMax, "a dict write", () => ({ object: r.uint(), ...dictChange(r) }))
})

// ---- encoding

export const encodeRequest = (w: Writer, m: ObjectRequest): void => {
  switch (m.type) {
    case C.openObject:
      head(w, 5, m.type)
      w.uint(m.request)
      w.str(m.name)
      w.uint(m.kind)
      return w.bool(m.create)
    case C.setKeys:
      head(w, 5, m.type)
      w.uint(m.request)
      w.uint(m.object)
      w.uint(m.action)
      w.array(m.keys.length)
      for (const key of m.keys) w.bin(key)
      return
    case C.count:
      head(w, 4, m.type)
      w.uint(m.request)
      w.uint(m.object)
      return signed(w, m.by)
    case C.countSet:
      head(w, 5, m.type)
      w.uint(m.request)
      w.uint(m.object)
      if (m.expected === undefined) w.nil()
      else signed(w, m.expected)
      return signed(w, m.value)
    case C.dictGet:
      head(w, 4, m.type)
      w.uint(m.request)
      w.uint(m.object)
      w.array(m.keys.length)
      for (const key of m.keys) w.str(key)
      return
    case C.dictWrite:
      head(w, 4, m.type)
      w.uint(m.request)
      w.uint(m.object)
      w.array(m.writes.length)
      for (const { expected, key, value } of m.writes) {
        w.array(3)
        w.str(key)
        w.binOrNil(value)
        w.uintOrNil(expected)
      }
      return
    case C.listObject:
      head(w, 5, m.type)
      w.uint(m.request)
      w.uint(m.object)
      w.binOrNil(m.after)
      return w.uint(m.count)
  }
}

export const encodeAnswer = (w: Writer, m: ObjectAnswer): void => {
  switch (m.type) {
    case M.objectOpened:
      head(w, 5, m.type)
      w.uint(m.request)
      w.uint(m.object)
      w.str(m.durability)
      return w.uint(m.size)
    case M.bits:
      head(w, 4, m.type)
      w.uint(m.request)
      w.uint(m.count)
      return w.bin(m.bits)
    case M.counter:
      head(w, 4, m.type)
      w.uint(m.request)
      w.bool(m.done)
      return signed(w, m.value)
    case M.entries:
      head(w, 3, m.type)
      w.uint(m.request)
      w.array(m.items.length)
      for (const item of m.items) {
        if (item === undefined) w.nil()
        else {
          w.array(2)
          w.uint(item.version)
          w.bin(item.value)
        }
      }
      return
    case M.written:
      head(w, 3, m.type)
      w.uint(m.request)
      return uints(w, m.versions)
    case M.keys:
      head(w, 4, m.type)
      w.uint(m.request)
      w.array(m.keys.length)
      for (const key of m.keys) w.bin(key)
      return w.binOrNil(m.next)
    case M.pairs:
      head(w, 4, m.type)
      w.uint(m.request)
      w.array(m.items.length)
      for (const { key, value, version } of m.items) {
        w.array(3)
        w.str(key)
        w.uint(version)
        w.bin(value)
      }
      return w.binOrNil(m.next)
  }
}

// ---- decoding

/** Elements of each message, its type included. */
export const requestSizes: Readonly<Record<number, number>> = {
  [C.openObject]: 5,
  [C.setKeys]: 5,
  [C.count]: 4,
  [C.countSet]: 5,
  [C.dictGet]: 4,
  [C.dictWrite]: 4,
  [C.listObject]: 5
}

export const answerSizes: Readonly<Record<number, number>> = {
  [M.objectOpened]: 5,
  [M.bits]: 4,
  [M.counter]: 4,
  [M.entries]: 3,
  [M.written]: 3,
  [M.keys]: 4,
  [M.pairs]: 4
}

/** Assumes: the type has been read. */
export const decodeRequest = (r: Reader, type: number): ObjectRequest => {
  switch (type) {
    case C.openObject:
      return { type, request: r.uint(), name: name(r), kind: r.uint(2), create: r.bool() }
    case C.setKeys:
      return {
        type,
        request: r.uint(),
        object: r.uint(),
        action: r.uint(2),
        keys: list(r, Limits.batchItemsMax, () => r.bin(Limits.setKeyBytesMax))
      }
    case C.count:
      return { type, request: r.uint(), object: r.uint(), by: signedOf(r) }
    case C.countSet:
      return {
        type,
        request: r.uint(),
        object: r.uint(),
        expected: r.nil() ? undefined : signedOf(r),
        value: signedOf(r)
      }
    case C.dictGet:
      return {
        type,
        request: r.uint(),
        object: r.uint(),
        keys: list(r, Limits.batchItemsMax, () => r.str(Limits.dictKeyBytesMax))
      }
    case C.dictWrite:
      return {
        type,
        request: r.uint(),
        object: r.uint(),
        writes: items(r, 3, Limits.batchItemsMax, "a dict write", () => dictChange(r))
      }
    case C.listObject:
      return { type, request: r.uint(), object: r.uint(), after: r.binOrNil(16), count: r.uint(Limits.pageItemsMax) }
    default:
      throw new Malformed(`unknown message type ${type}`)
  }
}

/** Assumes: the type has been read. */
export const decodeAnswer = (r: Reader, type: number): ObjectAnswer => {
  switch (type) {
    case M.objectOpened:
      return { type, request: r.uint(), object: r.uint(), durability: r.str(16), size: r.uint() }
    case M.bits: {
      const request = r.uint()
      const count = r.uint(Limits.batchItemsMax)
      const bits = r.bin(Limits.batchItemsMax / 8)
      if (bits.byteLength !== (count + 7) >>> 3) throw new Malformed(`${bits.byteLength} bytes for ${count} bits`)
      return { type, request, count, bits }
    }
    case M.counter:
      return { type, request: r.uint(), done: r.bool(), value: signedOf(r) }
    case M.entries:
      return {
        type,
        request: r.uint(),
        items: list(r, Limits.batchItemsMax, () => {
          if (r.nil()) return undefined
          const length = r.array(32)
          if (length < 2) throw new Malformed("an entry has two elements")
          const entry: Entry = { version: r.uint(), value: r.bin(Limits.dictValueBytesMax) }
          r.skip(length - 2)
          return entry
        })
      }
    case M.written:
      return { type, request: r.uint(), versions: uintList(r, Limits.batchItemsMax) }
    case M.keys:
      return {
        type,
        request: r.uint(),
        keys: list(r, Limits.pageItemsMax, () => r.bin(Limits.setKeyBytesMax)),
        next: r.binOrNil(16)
      }
    case M.pairs:
      return {
        type,
        request: r.uint(),
        items: items(r, 3, Limits.pageItemsMax, "a pair", () => ({
          key: r.str(Limits.dictKeyBytesMax),
          version: r.uint(),
          value: r.bin(Limits.dictValueBytesMax)
        })),
        next: r.binOrNil(16)
      }
    default:
      throw new Malformed(`unknown message type ${type}`)
  }
}

// ---- pieces

const name = (r: Reader): string => {
  const text = r.str(Limits.nameCharsMax)
  if (!isName.test(text)) throw new Malformed("a name has 1 to 200 characters of A-Z a-z 0-9 . _ : -")
  return text
}

const dictChange = (r: Reader): DictChange => ({
  key: r.str(Limits.dictKeyBytesMax),
  value: r.binOrNil(Limits.dictValueBytesMax),
  expected: r.uintOrNil()
})

const signed = (w: Writer, value: number): void => {
  w.array(2)
  w.bool(value < 0)
  w.uint(Math.abs(value))
}

const signedOf = (r: Reader): number => {
  const length = r.array(32)
  if (length < 2) throw new Malformed("a signed number has two elements")
  const negative = r.bool()
  const size = r.uint()
  if (negative && size === 0) throw new Malformed("a negative nothing")
  r.skip(length - 2)
  return negative ? -size : size
}

/** A list of arrays of `size` elements or more; what a newer peer added to them is passed over. */
const items = <A>(r: Reader, size: number, max: number, what: string, item: () => A): ReadonlyArray<A> =>
  list(r, max, () => {
    const length = r.array(32)
    if (length < size) throw new Malformed(`${what} has ${size} elements`)
    const value = item()
    r.skip(length - size)
    return value
  })
