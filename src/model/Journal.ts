/**
 * The rows that a round adds to the log of its namespace, while they are written.
 *
 * Records are packed one after the other; a row is closed near `Limits.rowBytesTarget`, so that a payload can be read
 * back by row and offset without reading megabytes around it. A record never spans rows. Every row begins with the
 * format's version, the epoch and the time of its round: what happened in a row happened then.
 */
import * as Limits from "../Limits.ts"
import { Writer } from "../wire/Bytes.ts"

/** A row of the log: opaque to the store. */
export interface Row {
  /** 1, 2, 3 ... for the whole life of the log. */
  readonly seq: number
  /** Not to be changed once it is handed over. */
  readonly body: Uint8Array
}

/** The version of the records' format, first in every row. */
export const formatVersion = 1

export class Journal {
  /** The number of the row that is written now, or that the next record will open. */
  seq: number
  /** Bytes handed out by `take` so far. */
  bytes = 0
  readonly #writer = new Writer(Limits.rowBytesTarget + 16_384)
  #rows: Array<Row> = []
  #open = false
  #now = 0

  readonly #epoch: number

  constructor(nextSeq: number, epoch: number) {
    this.seq = nextSeq
    this.#epoch = epoch
  }

  /** The round that begins: rows opened from here on carry this time. */
  begin(now: number): void {
    // What was written between two rounds has its own time: a task of this round would seem older after a restart.
    if (this.#open && now !== this.#now) this.#close()
    this.#now = now
  }

  get empty(): boolean {
    return !this.#open && this.#rows.length === 0
  }

  /** Where to write the next record. */
  record(): Writer {
    const writer = this.#writer
    if (this.#open && writer.position >= Limits.rowBytesTarget) this.#close()
    if (!this.#open) {
      this.#open = true
      writer.position = 0
      writer.uint(formatVersion)
      writer.uint(this.#epoch)
      writer.uint(this.#now)
    }
    return writer
  }

  /** The rows since the last call. They are the caller's. */
  take(): ReadonlyArray<Row> {
    if (this.#open) this.#close()
    const rows = this.#rows
    this.#rows = []
    return rows
  }

  #close(): void {
    const body = this.#writer.bytes.slice(0, this.#writer.position)
    this.bytes += body.byteLength
    this.#rows.push({ seq: this.seq++, body })
    this.#open = false
  }
}
