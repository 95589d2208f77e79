/**
 * SQLite as Node, Deno and Bun bundle it (`node:sqlite`): the only file that names it.
 *
 * The module is taken when the first database is opened, so that a program without one neither pays for it nor prints
 * the warning that it is experimental; with one, that single warning is left out.
 */
import process from "node:process"
import type * as sqlite from "node:sqlite"
import * as zlib from "node:zlib"

export type Database = sqlite.DatabaseSync
export type Statement = sqlite.StatementSync

let loaded: typeof sqlite | undefined

const load = (): typeof sqlite => {
  if (loaded !== undefined) return loaded
  const emit = process.emitWarning
  process.emitWarning = ((warning: string | Error, ...rest: ReadonlyArray<never>) => {
    if (!String(warning).includes("SQLite is an experimental feature")) emit.call(process, warning, ...rest)
  }) as typeof process.emitWarning
  try {
    const found = process.getBuiltinModule("node:sqlite") as typeof sqlite | undefined
    if (found === undefined) throw new Error("this runtime has no node:sqlite")
    loaded = found
    return found
  } finally {
    process.emitWarning = emit
  }
}

/** Why this runtime cannot open a database, if it cannot. */
export const unavailable = (): string | undefined => {
  try {
    load()
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

export const openDatabase = (file: string, options: { readonly readOnly: boolean }): Database => {
  const { DatabaseSync } = load()
  return new DatabaseSync(file, { readOnly: options.readOnly })
}

/** What SQLite said: its extended code (0 when the failure was not SQLite's) and its words. */
export interface SqliteFailure {
  readonly code: number
  readonly text: string
}

export const primary = {
  busy: 5,
  locked: 6,
  readOnly: 8,
  io: 10,
  corrupt: 11,
  full: 13,
  cantOpen: 14,
  notADatabase: 26
}

/** The kind of a failure, without its details. */
export const primaryOf = (failure: SqliteFailure): number => failure.code & 0xff

export const failureOf = (error: unknown): SqliteFailure => {
  if (typeof error !== "object" || error === null) return { code: 0, text: String(error) }
  const { errcode, errno } = error as { readonly errcode?: unknown; readonly errno?: unknown }
  const code = typeof errcode === "number" ? errcode : typeof errno === "number" && errno > 0 ? errno : 0
  return { code, text: error instanceof Error ? error.message : String(error) }
}

/** CRC-32 (the one of gzip), continued from `seed`. */
export const crc32: (bytes: Uint8Array, seed?: number) => number = (bytes, seed = 0) => zlib.crc32(bytes, seed)
