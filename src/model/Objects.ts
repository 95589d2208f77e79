/**
 * The shared objects of one namespace: sets, dicts and counters, by name and by number.
 *
 * The engine owns one and lets commits change objects through it: `fault` says why the effects of a commit cannot be, and
 * only when none of them has a fault does `apply` make them real. Every durable change is one call of `ObjectsOut` that
 * carries what a store must keep; the `restore` methods take the same, in the order of the log.
 *
 * Invariant: a refused request or commit has changed nothing.
 */
import * as Limits from "../Limits.ts"
import { Counter } from "./objects/Counter.ts"
import { Dict, type DictEntry } from "./objects/Dict.ts"
import type { Page } from "./objects/FingerprintTable.ts"
import { type Place, SharedSet } from "./objects/SharedSet.ts"
import { SipHash } from "./objects/SipHash.ts"
import { Texts } from "./objects/Texts.ts"
import type { Durability } from "./Policy.ts"
import { Code, type Refusal, refusal } from "./Refusal.ts"
import type { Session } from "./Session.ts"

export type SharedObject = SharedSet | Dict | Counter

/** The kinds of shared objects; the numbers are the protocol's. */
export const ObjectKind = { set: 0, dict: 1, counter: 2 } as const
export type ObjectKind = (typeof ObjectKind)[keyof typeof ObjectKind]

/** What is asked of the keys of a set; the numbers are the protocol's. */
export const SetAction = { add: 0, has: 1, remove: 2 } as const
export type SetAction = (typeof SetAction)[keyof typeof SetAction]

export interface SetAddition {
  readonly object: number
  readonly key: Uint8Array
}
export interface Increment {
  readonly object: number
  readonly by: number
}
/** `value` undefined deletes; `expected` is the version that must be there before (0: none), undefined any. */
export interface DictChange {
  readonly key: string
  readonly value: Uint8Array | undefined
  readonly expected: number | undefined
}
export interface DictWrite extends DictChange {
  readonly object: number
}
export interface ObjectEffects {
  readonly sets: ReadonlyArray<SetAddition>
  readonly counts: ReadonlyArray<Increment>
  readonly writes: ReadonlyArray<DictWrite>
}

export interface ObjectsOut {
  // Durable changes. What is passed is to be read at once, not kept.
  readonly objectMade: (object: SharedObject) => void
  /** The receiver says in `place` where it has put the key. Called before the set has the entry. */
  readonly setAdded: (set: SharedSet, fingerprint: Uint32Array, key: Uint8Array, place: Place) => void
  readonly setRemoved: (set: SharedSet, fingerprint: Uint32Array) => void
  readonly counterChanged: (counter: Counter) => void
  /** `entry` undefined: the key was deleted, by the write of this version. */
  readonly dictChanged: (dict: Dict, key: string, entry: DictEntry | undefined, version: number) => void
  // Answers.
  readonly refused: (session: Session, request: number, why: Refusal) => void
  readonly objectOpened: (session: Session, request: number, object: SharedObject) => void
  /** A bit per key, the first in the lowest bit of the first byte: whether it was new (add) or there (has, remove). */
  readonly bits: (session: Session, request: number, count: number, bits: Uint8Array) => void
  /** `done` false: a compare-and-set found `value` instead. */
  readonly counted: (session: Session, request: number, done: boolean, value: number) => void
  /** One per key from the front; fewer than asked for when more would not fit an answer. */
  readonly dictEntries: (session: Session, request: number, entries: ReadonlyArray<DictEntry | undefined>) => void
  /** The version of each write; 0 for a deletion of what was not there. */
  readonly dictWritten: (session: Session, request: number, versions: ReadonlyArray<number>) => void
  readonly setPage: (session: Session, request: number, set: SharedSet, page: Page) => void
  readonly dictPage: (session: Session, request: number, entries: ReadonlyArray<DictEntry>, more: boolean) => void
}

export interface ObjectsOptions {
  /** 16 secret random bytes, made once per namespace: fingerprints rest on them. */
  readonly key: Uint8Array
  /** Whether keys of sets are kept in memory, for want of a store that has them. */
  readonly keepTexts: boolean
  readonly out: ObjectsOut
}

export class Objects {
  readonly all: Array<SharedObject> = []
  /** Which set additions of the effects applied last were new. */
  readonly added: Array<boolean> = []
  readonly #byName = new Map<string, SharedObject>()
  #hash: SipHash
  /** The secret that fingerprints rest on. */
  key: Uint8Array
  readonly #keepTexts: boolean
  readonly #out: ObjectsOut
  readonly #place: Place = { row: 0, offset: 0 }
  #mark = 0

  constructor(options: ObjectsOptions) {
    this.key = options.key
    this.#hash = new SipHash(options.key)
    this.#keepTexts = options.keepTexts
    this.#out = options.out
  }

  find(name: string): SharedObject | undefined {
    return this.#byName.get(name)
  }

  // ---- requests

  /** The object of that name, made if `create` and it is not there. */
  open(
    session: Session,
    request: number,
    name: string,
    kind: ObjectKind,
    create: boolean,
    durability: Durability
  ): void {
    const known = this.#byName.get(name)
    if (known !== undefined) {
      if (ObjectKind[known.kind] === kind) return this.#out.objectOpened(session, request, known)
      const why = refusal(Code.objectKindMismatch, `${name}\n${known.kind}`, ObjectKind[known.kind], kind)
      return this.#out.refused(session, request, why)
    }
    if (!create) return this.#out.refused(session, request, refusal(Code.objectNotFound, name))
    if (this.all.length >= Limits.objectsMax) {
      return this.#out.refused(session, request, over("objectsMax", this.all.length + 1, Limits.objectsMax))
    }
    const object = this.#make(this.all.length, name, kind, durability)
    this.#out.objectMade(object)
    this.#out.objectOpened(session, request, object)
  }

  /** Adds, looks up or removes keys, each by itself; the answer has a bit per key. */
  setKeys(session: Session, request: number, id: number, action: SetAction, keys: ReadonlyArray<Uint8Array>): void {
    const set = this.#object(session, request, id, "set")
    if (set === undefined) return
    const bits = new Uint8Array((keys.length + 7) >>> 3)
    if (action === SetAction.add) {
      this.#mark++
      for (const key of keys) {
        const why = this.#additionFault(set, key)
        if (why !== undefined) return this.#out.refused(session, request, why)
      }
    }
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i]!
      const yes =
        action === SetAction.add
          ? this.#add(set, key)
          : action === SetAction.has
            ? set.has(key)
            : this.#remove(set, set.fingerprint(key))
      if (yes) bits[i >>> 3]! |= 1 << (i & 7)
    }
    this.#out.bits(session, request, keys.length, bits)
  }

  /** Adds to a counter and answers with what it is then. */
  count(session: Session, request: number, id: number, by: number): void {
    const counter = this.#object(session, request, id, "counter")
    if (counter === undefined) return
    this.#mark++
    const why = this.#incrementFault(counter, by)
    if (why !== undefined) return this.#out.refused(session, request, why)
    this.#increment(counter, by)
    this.#out.counted(session, request, true, counter.value)
  }

  /** Sets a counter, if it is `expected` (undefined: in any case). */
  countSet(session: Session, request: number, id: number, expected: number | undefined, value: number): void {
    const counter = this.#object(session, request, id, "counter")
    if (counter === undefined) return
    const done = expected === undefined || expected === counter.value
    if (done && counter.value !== value) {
      counter.set(value)
      this.#out.counterChanged(counter)
    }
    this.#out.counted(session, request, done, counter.value)
  }

  dictGet(session: Session, request: number, id: number, keys: ReadonlyArray<string>): void {
    const dict = this.#object(session, request, id, "dict")
    if (dict === undefined) return
    const entries: Array<DictEntry | undefined> = []
    let bytes = 0
    for (const key of keys) {
      const entry = dict.get(key)
      bytes += entry?.value.byteLength ?? 0
      if (entries.length > 0 && bytes > Limits.batchBytesMax) break
      entries.push(entry)
    }
    this.#out.dictEntries(session, request, entries)
  }

  /** Writes and deletes keys of one dict, all or none. Versions are compared with what was there before the first. */
  dictWrite(session: Session, request: number, id: number, writes: ReadonlyArray<DictChange>): void {
    const dict = this.#object(session, request, id, "dict")
    if (dict === undefined) return
    this.#mark++
    for (const write of writes) {
      const why = this.#writeFault(dict, write)
      if (why !== undefined) return this.#out.refused(session, request, why)
    }
    const versions = writes.map((write) => this.#write(dict, write))
    this.#out.dictWritten(session, request, versions)
  }

  /** A page of a set or a dict. `after` is what the page before ended with, as the protocol has it. */
  list(session: Session, request: number, id: number, after: Uint8Array | undefined, count: number): void {
    const object = this.all[id]
    if (object === undefined || object.kind === "counter") {
      this.#object(session, request, id, "set")
      return
    }
    if (object.kind === "set") return this.#out.setPage(session, request, object, object.page(wordsOf(after), count))
    const entries = object.page(numberOf(after), count)
    const more = entries.length > 0 && object.page(entries.at(-1)!.born, 1).length > 0
    this.#out.dictPage(session, request, entries, more)
  }

  // ---- commits

  /** Before the first `fault` of what is done or refused as one. */
  beginCheck(): void {
    this.#mark++
  }

  /** Why these effects cannot be, after those checked since `beginCheck`. */
  fault(effects: ObjectEffects): Refusal | undefined {
    for (const { key, object } of effects.sets) {
      const set = this.all[object]
      const why = set?.kind === "set" ? this.#additionFault(set, key) : this.#wrong(object, "set")
      if (why !== undefined) return why
    }
    for (const { by, object } of effects.counts) {
      const counter = this.all[object]
      const why = counter?.kind === "counter" ? this.#incrementFault(counter, by) : this.#wrong(object, "counter")
      if (why !== undefined) return why
    }
    for (const write of effects.writes) {
      const dict = this.all[write.object]
      const why = dict?.kind === "dict" ? this.#writeFault(dict, write) : this.#wrong(write.object, "dict")
      if (why !== undefined) return why
    }
    return undefined
  }

  /** Assumes: `fault` found nothing, and nothing has happened since. Ensures: `added` tells which additions were new. */
  apply(effects: ObjectEffects): void {
    const { added } = this
    added.length = 0
    for (const { key, object } of effects.sets) added.push(this.#add(this.all[object] as SharedSet, key))
    for (const { by, object } of effects.counts) this.#increment(this.all[object] as Counter, by)
    for (const write of effects.writes) this.#write(this.all[write.object] as Dict, write)
  }

  // ---- the log

  /** The secret of the namespace, as the log has it. */
  restoreKey(key: Uint8Array): void {
    this.key = key
    this.#hash = new SipHash(key)
    for (const object of this.all) if (object?.kind === "set") object.rekey(this.#hash)
  }

  restoreObject(id: number, name: string, kind: ObjectKind, durability: Durability): void {
    const object = this.#restoring(id, kind)
    object.name = name
    object.durability = durability
    this.#byName.set(name, object)
  }

  /** A cleaned log names objects before it defines them: their records have moved to its end. */
  #restoring(id: number, kind: ObjectKind): SharedObject {
    const known = this.all[id]
    if (known !== undefined) return known
    const made = this.#make(id, "", kind, "fsync")
    this.#byName.delete("")
    return made
  }

  /** An addition, or the same entry appended anew by the cleaner: then only its place changes. */
  restoreSetEntry(id: number, fingerprint: Uint32Array, row: number, offset: number): void {
    const { table } = this.#restoring(id, ObjectKind.set) as SharedSet
    if (!table.add(fingerprint, row, offset)) table.move(fingerprint, row, offset)
  }

  restoreSetRemoval(id: number, fingerprint: Uint32Array): void {
    const { table } = this.#restoring(id, ObjectKind.set) as SharedSet
    table.delete(fingerprint)
  }

  restoreCounter(id: number, value: number, version: number): void {
    const counter = this.#restoring(id, ObjectKind.counter) as Counter
    counter.value = value
    counter.version = version
  }

  restoreDictEntry(id: number, key: string, value: Uint8Array, version: number, born: number): void {
    const dict = this.#restoring(id, ObjectKind.dict) as Dict
    dict.restore(key, value, version, born)
  }

  restoreDictDeletion(id: number, key: string, version: number): void {
    const dict = this.#restoring(id, ObjectKind.dict) as Dict
    dict.restoreDeletion(key, version)
    dict.version = Math.max(dict.version, version)
  }

  /** Whether the addition recorded at this place is the living one: then the cleaner appends it anew. */
  setEntryLives(id: number, fingerprint: Uint32Array, row: number, offset: number): boolean {
    const { table } = this.all[id] as SharedSet
    return table.find(fingerprint) && table.row === row && table.offset === offset
  }

  /** The cleaner has appended an entry anew. */
  setEntryMoved(id: number, fingerprint: Uint32Array, row: number, offset: number): void {
    const { table } = this.all[id] as SharedSet
    table.move(fingerprint, row, offset)
  }

  counterLives(id: number, version: number): boolean {
    return (this.all[id] as Counter).version === version
  }

  dictEntryLives(id: number, key: string, version: number): boolean {
    return (this.all[id] as Dict).get(key)?.version === version
  }

  /** The record of a deletion is worth keeping while it alone says which version was given last. */
  dictDeletionLives(id: number, version: number): boolean {
    return (this.all[id] as Dict).version === version
  }

  // ---- inside

  #make(id: number, name: string, kind: ObjectKind, durability: Durability): SharedObject {
    const object =
      kind === ObjectKind.set
        ? new SharedSet(id, name, durability, this.#hash, this.#keepTexts ? new Texts() : undefined)
        : kind === ObjectKind.dict
          ? new Dict(id, name, durability)
          : new Counter(id, name, durability)
    this.all[id] = object
    this.#byName.set(name, object)
    return object
  }

  #object<K extends SharedObject["kind"]>(
    session: Session,
    request: number,
    id: number,
    kind: K
  ): Extract<SharedObject, { readonly kind: K }> | undefined {
    const object = this.all[id]
    if (object?.kind === kind) return object as Extract<SharedObject, { readonly kind: K }>
    this.#out.refused(session, request, this.#wrong(id, kind))
    return undefined
  }

  #wrong(id: number, kind: SharedObject["kind"]): Refusal {
    const object = this.all[id]
    if (object === undefined) return refusal(Code.objectNotFound, `#${id}`, id)
    return refusal(Code.objectKindMismatch, `${object.name}\n${object.kind}`, ObjectKind[object.kind], ObjectKind[kind])
  }

  /** Near its bounds a set asks whether the key is there already: that one needs no room. */
  #additionFault(set: SharedSet, key: Uint8Array): Refusal | undefined {
    if (key.byteLength > Limits.setKeyBytesMax) {
      return over("setKeyBytesMax", key.byteLength, Limits.setKeyBytesMax)
    }
    if (set.mark !== this.#mark) {
      set.mark = this.#mark
      set.pending = set.size
      set.pendingBytes = set.texts?.bytes ?? 0
    }
    set.pending++
    if (set.texts !== undefined) set.pendingBytes += key.byteLength
    const fits = set.pending <= Limits.setEntriesMax && set.pendingBytes <= Limits.setTextBytesMax
    if (fits) return undefined
    if (set.has(key)) {
      set.pending--
      if (set.texts !== undefined) set.pendingBytes -= key.byteLength
      return undefined
    }
    return set.pending > Limits.setEntriesMax
      ? over("setEntriesMax", set.pending, Limits.setEntriesMax)
      : over("setTextBytesMax", set.pendingBytes, Limits.setTextBytesMax)
  }

  #add(set: SharedSet, key: Uint8Array): boolean {
    const fingerprint = set.fingerprint(key)
    if (set.table.has(fingerprint)) return false
    this.#out.setAdded(set, fingerprint, key, this.#place)
    set.insert(fingerprint, key, this.#place)
    return true
  }

  #remove(set: SharedSet, fingerprint: Uint32Array): boolean {
    if (!set.table.has(fingerprint)) return false
    this.#out.setRemoved(set, fingerprint)
    return set.remove(fingerprint)
  }

  #incrementFault(counter: Counter, by: number): Refusal | undefined {
    if (counter.mark !== this.#mark) {
      counter.mark = this.#mark
      counter.pending = counter.value
    }
    const sum = counter.pending + by
    if (!Number.isSafeInteger(sum)) return refusal(Code.counterOverflow, counter.name)
    counter.pending = sum
    return undefined
  }

  #increment(counter: Counter, by: number): void {
    if (by === 0) return
    counter.add(by)
    this.#out.counterChanged(counter)
  }

  #writeFault(dict: Dict, { expected, key, value }: DictChange): Refusal | undefined {
    const entry = dict.get(key)
    const version = entry?.version ?? 0
    if (expected !== undefined && expected !== version) {
      return refusal(Code.conflict, `${dict.name}\n${key}`, version, expected)
    }
    if (value === undefined) return undefined
    if (value.byteLength > Limits.dictValueBytesMax) {
      return over("dictValueBytesMax", value.byteLength, Limits.dictValueBytesMax)
    }
    if (dict.mark !== this.#mark) {
      dict.mark = this.#mark
      dict.pending = dict.size
      dict.pendingBytes = dict.bytes
    }
    // Room that other writes of the same commit would give back is not counted.
    if (entry === undefined) dict.pending++
    dict.pendingBytes += dict.growth(key, value)
    if (dict.pending > Limits.dictKeysMax) return over("dictKeysMax", dict.pending, Limits.dictKeysMax)
    if (dict.pendingBytes > Limits.dictBytesMax) return over("dictBytesMax", dict.pendingBytes, Limits.dictBytesMax)
    return undefined
  }

  #write(dict: Dict, { key, value }: DictChange): number {
    if (value === undefined) {
      if (!dict.delete(key)) return 0
      this.#out.dictChanged(dict, key, undefined, dict.version)
      return dict.version
    }
    // A copy: it may live for years, and must not hold the frame that it came with.
    const entry = dict.set(key, value.slice())
    this.#out.dictChanged(dict, key, entry, entry.version)
    return entry.version
  }
}

const over = (limit: string, value: number, max: number): Refusal => refusal(Code.limitExceeded, limit, value, max)

/** A fingerprint as it travels: 16 bytes, big-endian words. Anything else begins at the first. */
const wordsOf = (cursor: Uint8Array | undefined): Uint32Array | undefined => {
  if (cursor === undefined || cursor.byteLength !== 16) return undefined
  const view = new DataView(cursor.buffer, cursor.byteOffset, 16)
  return Uint32Array.from({ length: 4 }, (_, i) => view.getUint32(4 * i))
}

/** The cursor after the last entry of a page of a set. */
export const setCursor = ({ count, fingerprints }: Page): Uint8Array => {
  const bytes = new Uint8Array(16)
  const view = new DataView(bytes.buffer)
  for (let i = 0; i < 4; i++) view.setUint32(4 * i, fingerprints[4 * (count - 1) + i]!)
  return bytes
}

const numberOf = (cursor: Uint8Array | undefined): number => {
  if (cursor === undefined || cursor.byteLength !== 8) return 0
  const view = new DataView(cursor.buffer, cursor.byteOffset, 8)
  return view.getUint32(0) * 2 ** 32 + view.getUint32(4)
}

/** The cursor after this entry of a dict. */
export const dictCursor = ({ born }: DictEntry): Uint8Array => {
  const bytes = new Uint8Array(8)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, Math.floor(born / 2 ** 32))
  view.setUint32(4, born % 2 ** 32)
  return bytes
}
