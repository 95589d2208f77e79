/**
 * Opening the database file of a log: looked at first, without changing a byte; then taken, set up and checked.
 *
 *     folder -> mark -> (new file | look read-only) -> take the lock -> settings read back -> migrate -> epoch
 *
 * The look is a read-only connection because any other would, when it closes, copy the write-ahead log into the database
 * and delete it: a refusal would destroy what a repair needs.
 */
import * as Limits from "../Limits.ts"
import { randomBytes } from "../platform/Crypto.ts"
import * as Folder from "../platform/DataFolder.ts"
import {
  crc32,
  type Database,
  failureOf,
  openDatabase,
  primary,
  primaryOf,
  type SqliteFailure
} from "../platform/Sqlite.ts"
import { type Fault, Refused, remedies } from "./Fault.ts"
import { decodeMark, type Mark, markBytes } from "./Mark.ts"

export const files = {
  database: "millrace.db",
  mark: "millrace.mark",
  ballast: "millrace.ballast",
  lock: "millrace.lock"
} as const

/** "Mllr": what `file` and SQLite's own tools show of a Millrace database. */
export const applicationId = 0x4d_6c_6c_72

/** How version `from` becomes `from + 1`. */
export interface Migration {
  readonly from: number
  readonly run: (database: Database) => void
}

/** What version 1 began with has no past. To change the layout: raise the version, add how the last one becomes it. */
export const schemaVersion = 1
export const migrations: ReadonlyArray<Migration> = []

const schema = `
  create table log (seq integer primary key, crc integer not null, body blob not null);
  create table meta (key text primary key, value blob not null, crc integer not null) without rowid;
`

export interface Opening {
  readonly directory: string
  readonly durability: "fsync" | "buffered"
  readonly acceptLoss: boolean
  readonly migrations: ReadonlyArray<Migration>
  readonly version: number
}

export interface Opened {
  readonly database: Database
  /** As the file has it: the epoch is the last opening's. */
  readonly state: Mark
  readonly turn: number
  readonly sqliteVersion: string
}

// ---- what the files know of themselves

const readMark = (directory: string): { readonly mark: Mark; readonly turn: number } | undefined => {
  const bytes = Folder.readSmallFile(Folder.joinPath(directory, files.mark), markBytes)
  return bytes === undefined ? undefined : decodeMark(bytes, crc32)
}

const stateBytes = 32

export const encodeState = (state: Mark): Uint8Array => {
  const bytes = new Uint8Array(stateBytes)
  const view = new DataView(bytes.buffer)
  bytes.set(state.instance)
  view.setFloat64(8, state.epoch)
  view.setFloat64(16, state.first)
  view.setFloat64(24, state.last)
  return bytes
}

const readState = (database: Database, file: string): Mark => {
  const row = database.prepare("select value, crc from meta where key = 'state'").get()
  const value = row?.["value"]
  if (!(value instanceof Uint8Array) || value.byteLength !== stateBytes || crc32(value) !== row?.["crc"]) {
    throw damaged(file, "its own description (table meta) is missing or changed", remedies.restore)
  }
  const view = new DataView(value.buffer, value.byteOffset, stateBytes)
  const last = Number(database.prepare("select max(seq) as last from log").get()?.["last"] ?? 0)
  return {
    instance: value.slice(0, 8),
    epoch: view.getFloat64(8),
    first: view.getFloat64(16),
    // Written only with a drop: until the next one the rows themselves say it.
    last: Math.max(view.getFloat64(24), last)
  }
}

export const writeState = (database: Database, state: Mark): void => {
  const value = encodeState(state)
  database.prepare("insert or replace into meta values ('state', ?, ?)").run(value, crc32(value))
}

const number = (database: Database, pragma: string): number =>
  Number(Object.values(database.prepare(`pragma ${pragma}`).get() ?? {})[0] ?? Number.NaN)

const text = (database: Database, pragma: string): string =>
  String(Object.values(database.prepare(`pragma ${pragma}`).get() ?? {})[0] ?? "")

// ---- refusals

const damaged = (file: string, finding: string, remedy: string): Refused =>
  new Refused({ kind: "damaged", file, finding, remedy })

const lockedBy = (directory: string): Fault => ({
  kind: "locked",
  directory,
  holder: Folder.readHolder(Folder.joinPath(directory, files.lock)),
  remedy: "stop it, or name another directory; one folder belongs to one manager"
})

const broken = (file: string, { code, text }: SqliteFailure): Fault => ({
  kind: "broken",
  reason: `${file} cannot be opened: ${text}`,
  code,
  remedy: remedies.restart
})

/** SQLITE_IOERR_SHMSIZE */
const shmSize = 4_874

/** Turns whatever an opening threw into a fault. */
const faultOf = (error: unknown, directory: string): Fault => {
  if (error instanceof Refused) return error.fault
  const file = Folder.joinPath(directory, files.database)
  const failure = failureOf(error)
  switch (primaryOf(failure)) {
    case primary.busy:
    case primary.locked:
      return lockedBy(directory)
    case primary.corrupt:
    case primary.notADatabase:
      return {
        kind: "damaged",
        file,
        finding: `${failure.text} (SQLite code ${failure.code})`,
        remedy: remedies.restore
      }
    case primary.full:
      return { kind: "full", neededBytes: Limits.storeWalBytes }
    case primary.io:
      // No room for the reader's index: the disk is full, and SQLite has another word for it.
      if (failure.code === shmSize) return { kind: "full", neededBytes: Limits.storeWalBytes }
      return broken(file, failure)
    case 0: {
      const code = Folder.systemCode(error)
      if (code === "ENOSPC") return { kind: "full", neededBytes: Limits.storeWalBytes }
      if (/^(EACCES|EPERM|EROFS|ENOTDIR|ENAMETOOLONG|ELOOP)$/.test(code)) {
        const remedy = "name a folder that this user may write"
        return { kind: "misconfigured", field: "directory", value: `${directory} (${code})`, remedy }
      }
      return broken(file, failure)
    }
    default:
      return broken(file, failure)
  }
}

/** Throws what the mark says of a file that does not come up to it, and when there is none to say so. */
const compare = (directory: string, state: Mark, mark: Mark | undefined): void => {
  const file = Folder.joinPath(directory, files.database)
  if (mark === undefined) {
    // Made, and never opened to its end.
    if (state.epoch === 0 && state.last === 0) return
    const markFile = Folder.joinPath(directory, files.mark)
    const found = Folder.exists(markFile) ? "not readable" : "missing"
    const finding = `it is ${found}, and without it nobody can say that ${files.database} is the newest`
    throw damaged(markFile, finding, remedies.vanished)
  }
  const vanished = (finding: string): Refused => damaged(file, finding, remedies.vanished)
  if (!mark.instance.every((byte, i) => byte === state.instance[i])) {
    throw vanished(`it is another store's than ${files.mark} beside it`)
  }
  if (state.last < mark.last) {
    throw vanished(
      `transactions have vanished: it ends with row ${state.last}, ${files.mark} knows of row ${mark.last}; an old copy was put back, or the end of ${files.database}-wal is lost`
    )
  }
  if (state.epoch < mark.epoch || state.first < mark.first) {
    throw vanished(
      `transactions have vanished: its opening ${state.epoch} and first row ${state.first} are older than ${mark.epoch} and ${mark.first} in ${files.mark}`
    )
  }
}

// ---- the steps

/** Makes a complete database under another name and gives it its own at once: half of one is never seen. */
const create = (directory: string, file: string, version: number): void => {
  const unfinished = `${file}.new-${Array.from(randomBytes(6), (byte) => byte.toString(16).padStart(2, "0")).join("")}`
  try {
    Folder.createFile(unfinished)
    const database = openDatabase(unfinished, { readOnly: false })
    try {
      // Incremental, so that space can go back to the file system when a long queue has drained; it costs nothing.
      database.exec(`pragma page_size = ${Limits.storePageBytes}; pragma auto_vacuum = incremental`)
      database.exec("pragma locking_mode = exclusive; pragma journal_mode = wal; pragma synchronous = full; begin")
      database.exec(schema)
      writeState(database, { instance: randomBytes(8), epoch: 0, first: 1, last: 0 })
      database.exec(`pragma application_id = ${applicationId}; pragma user_version = ${version}; commit`)
      database.exec("pragma wal_checkpoint(truncate)")
    } finally {
      database.close()
    }
    Folder.publishFile(unfinished, file)
    Folder.syncFolder(directory)
  } finally {
    Folder.remove(unfinished)
    Folder.remove(`${unfinished}-wal`)
  }
}

/** Throws unless this is a database of ours that this program can read. Returns its version. */
const identify = (database: Database, file: string, opening: Opening): number => {
  const id = number(database, "application_id")
  if (id !== applicationId) {
    throw damaged(
      file,
      `it is no store of Millrace (application id ${id}, expected ${applicationId})`,
      remedies.restore
    )
  }
  const version = number(database, "user_version")
  if (version > opening.version) {
    throw new Refused({ kind: "tooNew", file, found: version, known: opening.version })
  }
  for (let from = version; from < opening.version; from++) {
    if (opening.migrations.some((migration) => migration.from === from)) continue
    throw damaged(file, `its schema version ${version} was never in use`, remedies.restore)
  }
  return version
}

/** Looks at a file that is there and changes nothing. Throws what speaks against opening it. */
const look = (file: string, opening: Opening): void => {
  // Even a reader makes these; a log it made is empty.
  const made = [`${file}-shm`, `${file}-wal`].filter((name) => !Folder.exists(name))
  const database = openDatabase(file, { readOnly: true })
  try {
    const version = identify(database, file, opening)
    const journal = text(database, "journal_mode")
    if (journal !== "wal") throw damaged(file, `its journal mode is ${journal}, expected wal`, remedies.restore)
    const finding = text(database, "quick_check(1)")
    if (finding !== "ok") throw damaged(file, finding.replaceAll("\n", "; "), remedies.restore)
    if (version !== opening.version) return
    const state = readState(database, file)
    if (!opening.acceptLoss) compare(opening.directory, state, readMark(opening.directory)?.mark)
  } finally {
    database.close()
    for (const name of made) if (name.endsWith("-shm") || Folder.fileBytes(name) === 0) Folder.remove(name)
  }
}

/** Sets what the promises rest on, and reads it back. */
const settle = (database: Database, opening: Opening): void => {
  const synchronous = opening.durability === "fsync" ? 2 : 1
  const walPages = Limits.storeWalBytes / Limits.storePageBytes
  const settings: ReadonlyArray<readonly [name: string, value: string | number, found: string]> = [
    ["locking_mode", "exclusive", "exclusive"],
    ["journal_mode", "wal", "wal"],
    ["synchronous", synchronous, String(synchronous)],
    // Where a plain sync stops at the drive's cache (macOS), the sync that does not.
    ["fullfsync", 1, "1"],
    ["checkpoint_fullfsync", 1, "1"],
    // Checkpoints are ours to make: the mark has to know of them. This bound is for a log that we failed to empty.
    ["wal_autocheckpoint", walPages * 4, String(walPages * 4)],
    ["journal_size_limit", Limits.storeWalBytes, String(Limits.storeWalBytes)],
    ["cache_size", -16_384, "-16384"],
    ["trusted_schema", 0, "0"],
    ["cell_size_check", 1, "1"],
    ["secure_delete", 0, "0"],
    ["mmap_size", 0, "0"]
  ]
  for (const [name, value, expected] of settings) {
    database.exec(`pragma ${name} = ${value}`)
    const found = text(database, name)
    // A build without memory mapping has no such setting, which is as good.
    if (found !== expected && !(name === "mmap_size" && found === "")) {
      throw new Refused({
        kind: "broken",
        reason: `SQLite's ${name} is ${found} where ${expected} was set`,
        code: 0,
        remedy: "use another runtime: this one's SQLite does not do what the store needs"
      })
    }
  }
}

const migrate = (database: Database, file: string, version: number, opening: Opening): void => {
  const backup = `${file}.v${version}`
  Folder.remove(backup)
  Folder.createFile(backup)
  database.prepare("vacuum into ?").run(backup)
  database.exec("begin immediate")
  try {
    for (let from = version; from < opening.version; from++) {
      opening.migrations.find((migration) => migration.from === from)?.run(database)
    }
    database.exec(`pragma user_version = ${opening.version}; commit`)
  } catch (error) {
    database.exec("rollback")
    throw error
  }
}

/**
 * Opens the database of a folder, or makes it. Returns a connection that holds the exclusive lock.
 *
 * Throws `Refused`; a file that is refused has not been changed. On a full disk the ballast is given up: what is stored
 * must be there to be given out.
 */
export const openLog = (opening: Opening): Opened => {
  try {
    return openOnce(opening)
  } catch (error) {
    const ballast = Folder.joinPath(opening.directory, files.ballast)
    if (!(error instanceof Refused && error.fault.kind === "full" && Folder.fileBytes(ballast) > 0)) throw error
    Folder.remove(ballast)
    return openOnce(opening)
  }
}

const openOnce = (opening: Opening): Opened => {
  const { directory } = opening
  try {
    const unfit = Folder.prepareFolder(directory)
    if (unfit !== undefined) {
      const remedy = "name a folder of your own"
      throw new Refused({ kind: "misconfigured", field: "directory", value: `${directory}: ${unfit}`, remedy })
    }
    const file = Folder.joinPath(directory, files.database)
    for (const name of [...Object.values(files), `${files.database}-wal`, `${files.database}-shm`]) {
      const fault = Folder.fileFault(Folder.joinPath(directory, name))
      if (fault === undefined) continue
      throw damaged(Folder.joinPath(directory, name), fault, "remove it, or name a folder of your own")
    }
    if (Folder.exists(file)) look(file, opening)
    else {
      if (Folder.fileBytes(`${file}-wal`) > 0) {
        throw damaged(`${file}-wal`, `${files.database}, which it belongs to, is missing`, remedies.restore)
      }
      const known = opening.acceptLoss ? undefined : readMark(directory)?.mark
      if (known !== undefined) {
        throw damaged(file, `it is missing, and ${files.mark} knows of ${known.last} rows`, remedies.vanished)
      }
      create(directory, file, opening.version)
    }
    const database = openDatabase(file, { readOnly: false })
    try {
      database.exec("pragma busy_timeout = 0; pragma locking_mode = exclusive")
      // Once more, now under the lock: another manager may have been here since the look.
      const version = identify(database, file, opening)
      settle(database, opening)
      if (version < opening.version) migrate(database, file, version, opening)
      const state = readState(database, file)
      const found = readMark(directory)
      if (!opening.acceptLoss) compare(directory, state, found?.mark)
      for (const name of Folder.listFolder(directory)) {
        if (name.startsWith(`${files.database}.new-`)) Folder.remove(Folder.joinPath(directory, name))
      }
      const same = found?.mark.instance.every((byte, i) => byte === state.instance[i]) === true
      // What was accepted as lost takes its epochs along: a fence of that time must not fit again.
      const epoch = same ? Math.max(state.epoch, found.mark.epoch) : state.epoch
      return {
        database,
        state: { ...state, epoch },
        turn: found?.turn ?? 0,
        sqliteVersion: String(database.prepare("select sqlite_version() as version").get()?.["version"])
      }
    } catch (error) {
      database.close()
      throw error
    }
  } catch (error) {
    throw new Refused(faultOf(error, directory))
  }
}
