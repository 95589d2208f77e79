/**
 * A log of rows in one SQLite file, synchronous: what `Sqlite.ts` calls directly and what a store's thread runs.
 *
 * Keeps: one connection, exclusively locked; all of a batch in one transaction; the mark outside the file never ahead of
 * what is synced; a reserve of real bytes for the transactions that a full disk must not stop. After the first failure
 * that leaves open what is on disk, everything is refused: only the next opening can tell.
 */
import * as Limits from "../Limits.ts"
import * as Folder from "../platform/DataFolder.ts"
import {
  crc32,
  type Database,
  failureOf,
  primary,
  primaryOf,
  type SqliteFailure,
  type Statement
} from "../platform/Sqlite.ts"
import { type Batch, batchFault, type Row } from "./Batch.ts"
import { type Fault, Refused, remedies } from "./Fault.ts"
import { encodeSlot, type Mark, slotBytes } from "./Mark.ts"
import { files, type Migration, migrations, openLog, schemaVersion, writeState } from "./SqliteOpen.ts"

export interface LogOptions {
  readonly directory: string
  readonly durability: "fsync" | "buffered"
  readonly ballastBytes: number
  readonly lowWaterBytes: number
  readonly acceptLoss: boolean
  /** For tests of the mechanism: another layout's history. */
  readonly version?: number | undefined
  readonly migrations?: ReadonlyArray<Migration> | undefined
}

/** What `low` needs to know of the file. */
export interface Reserve {
  /** The ballast lies on the disk. */
  readonly ballast: boolean
  /** Free inside the file: room for new rows that the file system does not know of. */
  readonly spareBytes: number
}

export interface Page {
  readonly rows: ReadonlyArray<Row>
  /** Where the next page begins; 0: this was the last. */
  readonly next: number
}

export type Reading<A> =
  | { readonly value: A; readonly fault: undefined }
  | { readonly value: undefined; readonly fault: Fault }

/** Pages that a transaction touches besides those of its rows, and the frame header of each. */
const overheadPages = 4

export class SqliteLog {
  readonly instance: Uint8Array
  readonly epoch: number
  readonly sqliteVersion: string
  readonly #options: LogOptions
  readonly #database: Database
  readonly #insert: Statement
  readonly #select: Statement
  readonly #scan: Statement
  readonly #drop: Statement
  readonly #begin: Statement
  readonly #commit: Statement
  readonly #mark: Folder.SlotFile
  /** Every row's checksum begins with the instance: a row of another store is no row of this one. */
  readonly #seed: number
  readonly #number = new Float64Array(1)
  readonly #numberBytes = new Uint8Array(this.#number.buffer)
  #turn: number
  #first: number
  #last: number
  /** Transactions since the last sync. */
  #unsynced = false
  #walBytes = 0
  #synchronous: "full" | "normal"
  #broken: Fault | undefined
  #closed = false
  #ballast = false
  #spareBytes = 0

  /** Opens the folder's log, or makes one. Throws `Refused`. */
  constructor(options: LogOptions) {
    this.#options = options
    const { database, sqliteVersion, state, turn } = openLog({
      directory: options.directory,
      durability: options.durability,
      acceptLoss: options.acceptLoss,
      version: options.version ?? schemaVersion,
      migrations: options.migrations ?? migrations
    })
    this.#database = database
    let mark: Folder.SlotFile | undefined
    try {
      this.sqliteVersion = sqliteVersion
      this.instance = state.instance
      this.#seed = crc32(state.instance)
      this.epoch = state.epoch + 1
      this.#first = state.first
      this.#last = state.last
      this.#turn = turn
      this.#synchronous = options.durability === "fsync" ? "full" : "normal"
      this.#insert = database.prepare("insert into log values (?, ?, ?)")
      this.#select = database.prepare("select crc, body from log where seq = ?")
      this.#scan = database.prepare("select seq, crc, body from log where seq >= ? order by seq")
      this.#drop = database.prepare("delete from log where seq < ?")
      this.#begin = database.prepare("begin immediate")
      this.#commit = database.prepare("commit")
      Folder.writeHolder(this.#path(files.lock))
      mark = Folder.openSlots(this.#path(files.mark))
      this.#mark = mark
      // Before the epoch: without a mark only a file that was never opened is believed.
      this.#writeMark(state)
      this.#mark.sync()
      this.#ballast = Folder.isFilled(this.#path(files.ballast), options.ballastBytes)
      this.#open()
      this.#tendBallast()
      this.#countSpare()
      Folder.syncFolder(options.directory)
    } catch (error) {
      mark?.close()
      database.close()
      throw error instanceof Refused ? error : new Refused(this.#faultOf(failureOf(error), "opening"))
    }
  }

  /** Whoever looks sees the new epoch on disk: fences of this opening must not come again. */
  #open(): void {
    const write = (): void => {
      this.#database.exec("pragma synchronous = full; begin immediate")
      writeState(this.#database, this.#state())
      this.#database.exec("commit")
      // Also takes over what an earlier life left in the write-ahead log: written and synced anew.
      this.#database.prepare("pragma wal_checkpoint(truncate)").all()
      this.#database.exec(`pragma synchronous = ${this.#synchronous}`)
    }
    try {
      write()
    } catch (error) {
      if (primaryOf(failureOf(error)) !== primary.full) throw error
      this.#rollback()
      this.#dropBallast()
      write()
    }
    this.#writeMark(this.#state())
    this.#mark.sync()
  }

  get reserve(): Reserve {
    return { ballast: this.#ballast, spareBytes: this.#spareBytes }
  }

  /** The last row's number. */
  get last(): number {
    return this.#last
  }

  // ---- writing

  /**
   * All of the batch, durable at its level, or nothing.
   *
   * When the disk is full the ballast is removed, the write-ahead log is copied into the database, and the same
   * transaction is tried once more. Full again is the fault `full`: SQLite has taken the whole transaction back, the log
   * is as before, and the batch may be tried again. Everything else is `broken`, for ever.
   */
  commit(batch: Batch): Fault | undefined {
    if (this.#broken !== undefined) return this.#broken
    const wrong = batchFault(batch, this.#last) ?? rowFault(batch)
    if (wrong !== undefined) return this.#break({ kind: "broken", reason: wrong, code: 0, remedy: remedies.restart })
    const synced = batch.durability === "fsync"
    if (batch.rows.length === 0 && batch.dropBefore <= this.#first) {
      if (synced && this.#unsynced) this.#checkpoint("passive")
      return this.#broken
    }
    if (this.#exceedsDisk(bytesOf(batch))) return { kind: "full", neededBytes: bytesOf(batch) }
    let failure = this.#transact(batch, synced)
    if (failure !== undefined && primaryOf(failure) === primary.full) {
      this.#dropBallast()
      this.#checkpoint("truncate")
      if (this.#broken !== undefined) return this.#broken
      failure = this.#transact(batch, synced)
      if (failure !== undefined && primaryOf(failure) === primary.full) {
        return { kind: "full", neededBytes: bytesOf(batch) }
      }
    }
    if (failure !== undefined) return this.#break(this.#faultOf(failure, "writing"))
    this.#last += batch.rows.length
    this.#first = Math.max(this.#first, batch.dropBefore)
    this.#walBytes += bytesOf(batch) + overheadPages * Limits.storePageBytes
    this.#unsynced = !synced
    if (synced) this.#writeMark(this.#state())
    return undefined
  }

  /** What a commit leaves to be done once its answer is out: the write-ahead log is kept short. */
  settle(): void {
    if (this.#broken === undefined && this.#walBytes >= Limits.storeWalBytes) this.#checkpoint("passive")
  }

  /** Looks after what can wait; to be called every `storeTendMs`. */
  tend(): Fault | undefined {
    if (this.#broken !== undefined || this.#closed) return this.#broken
    if (this.#unsynced || this.#walBytes >= Limits.storeWalBytes) this.#checkpoint("passive")
    this.#tendBallast()
    this.#countSpare()
    const free = Folder.freeBytes(this.#options.directory)
    const tight = !this.#ballast || free < this.#options.lowWaterBytes
    if (this.#broken === undefined && this.#spareBytes > (tight ? 0 : Limits.storeSpareBytesMax)) this.#shrink()
    return this.#broken
  }

  #transact(batch: Batch, synced: boolean): SqliteFailure | undefined {
    try {
      const synchronous = synced ? "full" : "normal"
      if (synchronous !== this.#synchronous) {
        this.#database.exec(`pragma synchronous = ${synchronous}`)
        this.#synchronous = synchronous
      }
      this.#begin.run()
      for (const { body, seq } of batch.rows) this.#insert.run(seq, this.#checksum(seq, body), body)
      if (batch.dropBefore > this.#first) {
        this.#drop.run(batch.dropBefore)
        writeState(this.#database, {
          ...this.#state(),
          first: batch.dropBefore,
          last: this.#last + batch.rows.length
        })
      }
      this.#commit.run()
      if (batch.dropBefore > this.#first) this.#countSpare()
      return undefined
    } catch (error) {
      this.#rollback()
      return failureOf(error)
    }
  }

  #rollback(): void {
    try {
      this.#database.exec("rollback")
    } catch {
      // SQLite has done so itself, or the next transaction will fail for what is wrong here.
    }
  }

  #checkpoint(mode: "passive" | "truncate"): void {
    try {
      const done = this.#database.prepare(`pragma wal_checkpoint(${mode})`).get()
      if (done?.["log"] !== done?.["checkpointed"]) return
      // A checkpoint syncs the write-ahead log first, at every level.
      this.#unsynced = false
      this.#walBytes = 0
      this.#writeMark(this.#state())
    } catch (error) {
      const failure = failureOf(error)
      if (primaryOf(failure) !== primary.full) this.#break(this.#faultOf(failure, "copying the write-ahead log"))
      // The database cannot grow. What was committed is safe where it is; new work stops until there is room.
      else this.#dropBallast()
    }
  }

  #state(): Mark {
    return { instance: this.instance, epoch: this.epoch, first: this.#first, last: this.#last }
  }

  #writeMark(mark: Mark): void {
    this.#turn++
    try {
      this.#mark.write(encodeSlot(mark, this.#turn, crc32), (this.#turn % 2) * slotBytes)
    } catch {
      // It stays behind: the next opening will notice less, and refuse nothing that is there.
    }
  }

  // ---- space

  #exceedsDisk(bytes: number): boolean {
    if (bytes < Limits.storeLoadPageBytes) return false
    const { ballastBytes, directory } = this.#options
    // Written twice, to the write-ahead log and to the database, before the first copy's room is free again.
    return 2 * bytes > Folder.freeBytes(directory) + this.#spareBytes + (this.#ballast ? ballastBytes : 0)
  }

  #dropBallast(): void {
    Folder.remove(this.#path(files.ballast))
    this.#ballast = false
  }

  #tendBallast(): void {
    const { ballastBytes, directory, lowWaterBytes } = this.#options
    if (this.#ballast || Folder.freeBytes(directory) < ballastBytes + lowWaterBytes) return
    this.#ballast = Folder.fillFile(this.#path(files.ballast), ballastBytes)
  }

  #countSpare(): void {
    try {
      const count = this.#database.prepare("pragma freelist_count").get()?.["freelist_count"]
      this.#spareBytes = Number(count ?? 0) * Limits.storePageBytes
    } catch {
      // An estimate: the next transaction will say what is wrong.
    }
  }

  /** Gives free space inside the file back to the file system. */
  #shrink(): void {
    try {
      this.#database.exec(`pragma incremental_vacuum(${Limits.storeShrinkBytes / Limits.storePageBytes})`)
    } catch (error) {
      const failure = failureOf(error)
      this.#rollback()
      if (primaryOf(failure) !== primary.full) this.#break(this.#faultOf(failure, "giving space back"))
      return
    }
    this.#checkpoint("truncate")
    this.#countSpare()
  }

  // ---- reading

  /** The rows from `from` on that fit into a page; at least one. Faults at the first that is missing or changed. */
  page(from: number): Reading<Page> {
    if (this.#broken !== undefined) return { value: undefined, fault: this.#broken }
    const rows: Array<Row> = []
    let expected = Math.max(from, this.#first)
    let bytes = 0
    try {
      for (const row of this.#scan.iterate(expected)) {
        const seq = row["seq"] as number
        if (seq !== expected) return { value: undefined, fault: this.#damaged(`row ${expected} is missing`) }
        const body = row["body"] as Uint8Array
        if (this.#checksum(seq, body) !== row["crc"]) {
          return { value: undefined, fault: this.#damaged(`row ${seq} is not what was written (its checksum differs)`) }
        }
        rows.push({ seq, body })
        expected++
        bytes += body.byteLength
        if (bytes >= Limits.storeLoadPageBytes)
          return { value: { rows, next: seq === this.#last ? 0 : expected }, fault: undefined }
      }
    } catch (error) {
      const failure = failureOf(error)
      return primaryOf(failure) === primary.corrupt
        ? { value: undefined, fault: this.#damaged(`row ${expected} cannot be read (SQLite code ${failure.code})`) }
        : { value: undefined, fault: this.#break(this.#faultOf(failure, "reading")) }
    }
    if (expected <= this.#last) return { value: undefined, fault: this.#damaged(`row ${expected} is missing`) }
    return { value: { rows, next: 0 }, fault: undefined }
  }

  read(seqs: ReadonlyArray<number>): Reading<ReadonlyArray<Row>> {
    if (this.#broken !== undefined) return { value: undefined, fault: this.#broken }
    const rows: Array<Row> = []
    for (const seq of seqs) {
      try {
        const row = this.#select.get(seq)
        const body = row?.["body"]
        if (body instanceof Uint8Array && this.#checksum(seq, body) === row?.["crc"]) rows.push({ seq, body })
      } catch (error) {
        const failure = failureOf(error)
        if (primaryOf(failure) !== primary.corrupt)
          return { value: undefined, fault: this.#break(this.#faultOf(failure, "reading")) }
      }
    }
    return { value: rows, fault: undefined }
  }

  #checksum(seq: number, body: Uint8Array): number {
    this.#number[0] = seq
    return crc32(body, crc32(this.#numberBytes, this.#seed))
  }

  // ---- the end

  /** Copies the write-ahead log into the database, syncs, and lets go of the folder. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    if (this.#broken === undefined) this.#checkpoint("truncate")
    try {
      if (this.#broken === undefined) this.#mark.sync()
      this.#mark.close()
    } catch {
      // The mark stays behind.
    }
    this.#broken ??= { kind: "broken", reason: "it is closed", code: 0, remedy: remedies.restart }
    // While the lock is still ours: afterwards the file may be the next one's.
    Folder.remove(this.#path(files.lock))
    try {
      this.#database.close()
    } catch {
      // The write-ahead log stays where it is, for the next opening.
    }
  }

  #path(name: string): string {
    return Folder.joinPath(this.#options.directory, name)
  }

  #damaged(finding: string): Fault {
    return { kind: "damaged", file: this.#path(files.database), finding, remedy: remedies.restore }
  }

  #faultOf({ code, text }: SqliteFailure, doing: string): Fault {
    if (code !== 0 && (code & 0xff) === primary.full) return { kind: "full", neededBytes: Limits.storeWalBytes }
    const reason = `${doing} ${this.#path(files.database)} failed: ${text}`
    return { kind: "broken", reason, code, remedy: remedies.restart }
  }

  #break(fault: Fault): Fault {
    this.#broken ??= fault
    return this.#broken
  }
}

const bytesOf = (batch: Batch): number => {
  let bytes = 0
  for (const { body } of batch.rows) bytes += body.byteLength + 64
  return bytes
}

const rowFault = (batch: Batch): string | undefined => {
  for (const { body, seq } of batch.rows) {
    if (body.byteLength > Limits.storeRowBytesMax) return `row ${seq} has ${body.byteLength} bytes`
  }
  return undefined
}
