/**
 * A set of keys, exact by their 128-bit keyed fingerprints: the fingerprint is the identity of a key.
 *
 * The keys themselves are not in memory. Each entry knows the place of its key in the log of the store; a manager that
 * keeps nothing on disk has `texts`, a log in memory, instead.
 */
import type { Durability } from "../Policy.ts"
import { FingerprintTable, type Page } from "./FingerprintTable.ts"
import type { SipHash } from "./SipHash.ts"
import type { Texts } from "./Texts.ts"

/** A place in the log: row number and offset within the row's body. Filled in by whoever writes the log. */
export interface Place {
  row: number
  offset: number
}

export class SharedSet {
  readonly kind = "set"
  readonly id: number
  name: string
  durability: Durability
  readonly table = new FingerprintTable()
  readonly texts: Texts | undefined
  /** What a commit under check would add; valid under the mark of that check. */
  mark = 0
  pending = 0
  pendingBytes = 0
  #hash: SipHash

  constructor(id: number, name: string, durability: Durability, hash: SipHash, texts: Texts | undefined) {
    this.id = id
    this.name = name
    this.durability = durability
    this.#hash = hash
    this.texts = texts
  }

  rekey(hash: SipHash): void {
    this.#hash = hash
  }

  get size(): number {
    return this.table.size
  }

  /** The fingerprint of a key, until the next one is asked for. */
  fingerprint(key: Uint8Array): Uint32Array {
    this.#hash.of(key)
    return this.#hash.words
  }

  has(key: Uint8Array): boolean {
    return this.table.has(this.fingerprint(key))
  }

  /** Assumes: not in the set. `place` is where the log has the key; without a log it is kept in `texts`. */
  insert(fingerprint: Uint32Array, key: Uint8Array, place: Place): void {
    const { texts } = this
    texts?.append(key)
    this.table.add(fingerprint, texts?.row ?? place.row, texts?.offset ?? place.offset)
  }

  /** Whether it was there. */
  remove(fingerprint: Uint32Array): boolean {
    const { table, texts } = this
    if (texts === undefined) return table.delete(fingerprint)
    if (!table.find(fingerprint)) return false
    const { offset, row } = table
    table.delete(fingerprint)
    if (texts.drop(row, offset)) this.#clean(row)
    return true
  }

  /** Up to `count` entries after the fingerprint `after`; see `FingerprintTable.page` for what a listing guarantees. */
  page(after: Uint32Array | undefined, count: number): Page {
    return this.table.page(after, count)
  }

  #clean(row: number): void {
    const texts = this.texts!
    texts.clean(row, (key, offset) => {
      const fingerprint = this.fingerprint(key)
      if (!this.table.find(fingerprint) || this.table.row !== row || this.table.offset !== offset) return
      texts.append(key)
      this.table.move(fingerprint, texts.row, texts.offset)
    })
  }
}
