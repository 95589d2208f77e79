/**
 * String keys to opaque bytes, each with a version: the number of the write that made it, counted over the whole dict.
 *
 * A version is never given twice, not even for a key that was deleted and came back; version 0 means absent. Entries are
 * listed in the order in which their keys came to be, which neither further writes nor a restart change.
 */
import * as Limits from "../../Limits.ts"
import type { Durability } from "../Policy.ts"

export class DictEntry {
  readonly key: string
  /** The version of the write that brought the key in: its place in a listing. */
  readonly born: number
  value: Uint8Array
  version: number
  gone = false

  constructor(key: string, value: Uint8Array, version: number, born: number) {
    this.key = key
    this.value = value
    this.version = version
    this.born = born
  }
}

const noBytes = new Uint8Array()

export class Dict {
  readonly kind = "dict"
  readonly id: number
  name: string
  durability: Durability
  /** The version of the last write or deletion. */
  version = 0
  /** Bytes of values and characters of keys. */
  bytes = 0
  /** What a commit under check would add; valid under the mark of that check. */
  mark = 0
  pending = 0
  pendingBytes = 0
  readonly #entries = new Map<string, DictEntry>()
  /** By birth; entries that are gone stay until half of it is gone. */
  #order: Array<DictEntry> = []
  #gone = 0
  #sorted = true

  constructor(id: number, name: string, durability: Durability) {
    this.id = id
    this.name = name
    this.durability = durability
  }

  get size(): number {
    return this.#entries.size
  }

  get(key: string): DictEntry | undefined {
    return this.#entries.get(key)
  }

  /** What `bytes` would grow by, and not shrink, if this were written. */
  growth(key: string, value: Uint8Array | undefined): number {
    if (value === undefined) return 0
    const entry = this.#entries.get(key)
    return entry === undefined ? key.length + value.byteLength : Math.max(0, value.byteLength - entry.value.byteLength)
  }

  /** Keeps `value` itself: the caller owns it no longer. */
  set(key: string, value: Uint8Array): DictEntry {
    return this.restore(key, value, this.version + 1, this.version + 1)
  }

  /** Whether it was there. */
  delete(key: string): boolean {
    return this.restoreDeletion(key, this.version + 1)
  }

  /** What a record of the log says; `born` counts for a key that is not there. */
  restore(key: string, value: Uint8Array, version: number, born: number): DictEntry {
    this.version = Math.max(this.version, version)
    const known = this.#entries.get(key)
    if (known !== undefined) {
      this.bytes += value.byteLength - known.value.byteLength
      known.value = value
      known.version = version
      return known
    }
    const entry = new DictEntry(key, value, version, born)
    this.bytes += key.length + value.byteLength
    this.#entries.set(key, entry)
    const last = this.#order.at(-1)
    if (last !== undefined && last.born > born) this.#sorted = false
    this.#order.push(entry)
    return entry
  }

  restoreDeletion(key: string, version: number): boolean {
    const entry = this.#entries.get(key)
    if (entry === undefined) return false
    this.version = Math.max(this.version, version)
    this.#entries.delete(key)
    this.bytes -= key.length + entry.value.byteLength
    entry.gone = true
    entry.value = noBytes
    if (++this.#gone > 32 && this.#gone * 2 > this.#order.length) this.#compact()
    return true
  }

  /**
   * Up to `count` entries whose keys came after `after` (0: from the first on), of about `Limits.batchBytesMax` at most.
   *
   * Ensures: a listing page by page shows every key that was there all the time exactly once, with a value that it had
   * during the listing; a key that came or went meanwhile may be shown or not.
   */
  page(after: number, count: number): ReadonlyArray<DictEntry> {
    if (!this.#sorted) {
      // The log was cleaned: it no longer brought the keys in the order of their births.
      this.#order.sort((a, b) => a.born - b.born)
      this.#sorted = true
    }
    const order = this.#order
    let low = 0
    for (let high = order.length; low < high; ) {
      const middle = (low + high) >>> 1
      if (order[middle]!.born <= after) low = middle + 1
      else high = middle
    }
    const found: Array<DictEntry> = []
    let bytes = 0
    for (; low < order.length && found.length < count; low++) {
      const entry = order[low]!
      if (entry.gone) continue
      bytes += entry.key.length + entry.value.byteLength
      if (found.length > 0 && bytes > Limits.batchBytesMax) break
      found.push(entry)
    }
    return found
  }

  /** What is wrong with it, for `Invariants`. */
  faults(): ReadonlyArray<string> {
    const found: Array<string> = []
    let bytes = 0
    for (const [key, entry] of this.#entries) {
      bytes += key.length + entry.value.byteLength
      if (entry.gone || entry.key !== key) found.push(`key ${key} leads to another entry`)
      if (entry.version > this.version || entry.version < entry.born) found.push(`key ${key}: version ${entry.version}`)
    }
    if (bytes !== this.bytes) found.push(`bytes ${this.bytes}, its entries have ${bytes}`)
    const listed = this.#order.filter(({ gone }) => !gone)
    if (listed.length !== this.size) found.push(`${listed.length} of ${this.size} entries are listed`)
    if (this.#order.length - listed.length !== this.#gone) found.push(`${this.#gone} are counted as gone`)
    return found
  }

  #compact(): void {
    this.#order = this.#order.filter(({ gone }) => !gone)
    this.#gone = 0
  }
}
