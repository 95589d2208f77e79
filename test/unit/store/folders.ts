/** Logs in folders for tests: opened directly, read whole, and compared. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Batch, Row } from "../../../src/store/Batch.ts"
import { type Fault, Refused } from "../../../src/store/Fault.ts"
import { type LogOptions, SqliteLog } from "../../../src/store/SqliteLog.ts"
import { Random } from "../random.ts"

const made: Array<string> = []

export const folder = (): string => {
  const path = mkdtempSync(join(tmpdir(), "millrace-log-"))
  made.push(path)
  return join(path, "data")
}

export const removeFolders = (): void => {
  for (const path of made.splice(0)) rmSync(path, { recursive: true, force: true })
}

export const open = (directory: string, options: Partial<LogOptions> = {}): SqliteLog =>
  new SqliteLog({ directory, durability: "fsync", ballastBytes: 0, lowWaterBytes: 0, acceptLoss: false, ...options })

/** Why the folder is refused. Throws when it is not. */
export const refusal = (directory: string, options: Partial<LogOptions> = {}): Fault => {
  let log: SqliteLog
  try {
    log = open(directory, options)
  } catch (error) {
    if (error instanceof Refused) return error.fault
    throw error
  }
  log.close()
  throw new Error("it was opened")
}

export const rowOf = (seq: number): Row => {
  const random = new Random(seq)
  return { seq, body: random.bytes(random.chance(15) ? 9_000 + random.int(9_000) : 20 + random.int(900)) }
}

export const batchOf = (first: number, count: number, dropBefore = 0): Batch => ({
  rows: Array.from({ length: count }, (_, i) => rowOf(first + i)),
  dropBefore,
  durability: "fsync"
})

/** All rows, or the fault that the load ends with. */
export const loadAll = (log: SqliteLog): ReadonlyArray<Row> | Fault => {
  const rows: Array<Row> = []
  for (let from = 0; ; ) {
    const { fault, value } = log.page(from)
    if (fault !== undefined) return fault
    rows.push(...value.rows)
    if (value.next === 0) return rows
    from = value.next
  }
}

export const isWhole = (rows: ReadonlyArray<Row>, first: number, last: number): boolean =>
  rows.length === last - first + 1 &&
  rows.every((row, i) => row.seq === first + i && Buffer.compare(row.body, rowOf(row.seq).body) === 0)
