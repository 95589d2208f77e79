/** What an opening accepts, makes and refuses, and what a refusal leaves alone. */
import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { dirname, join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { afterAll, assert, describe, it } from "@effect/vitest"
import { crc32 } from "../../../src/platform/Sqlite.ts"
import { decodeMark, encodeSlot, markBytes, slotBytes } from "../../../src/store/Mark.ts"
import { batchOf, folder, isWhole, loadAll, open, refusal, removeFolders } from "./folders.ts"

afterAll(removeFolders)

const isRoot = process.geteuid?.() === 0

/** A folder with rows 1 to 5, cleanly closed. */
const filled = (): string => {
  const directory = folder()
  const log = open(directory)
  log.commit(batchOf(1, 5))
  log.close()
  return directory
}

const file = (directory: string): string => join(directory, "millrace.db")

const edit = (directory: string, sql: string): void => {
  const database = new DatabaseSync(file(directory))
  database.exec(sql)
  database.close()
}

const contents = (directory: string): string =>
  readdirSync(directory)
    .sort()
    .map(
      (name) =>
        `${name} ${createHash("sha256")
          .update(readFileSync(join(directory, name)))
          .digest("hex")}`
    )
    .join("\n")

/** The refusal, which must have changed nothing. */
const refusedUntouched = (directory: string): ReturnType<typeof refusal> => {
  const before = contents(directory)
  const fault = refusal(directory)
  assert.strictEqual(contents(directory), before)
  return fault
}

describe("an opening", () => {
  it("makes a private folder with private files, and leaves none of its making (M20)", () => {
    const directory = folder()
    const mask = process.umask(0)
    const log = open(directory, { ballastBytes: 65_536 })
    process.umask(mask)
    log.commit(batchOf(1, 1))
    assert.strictEqual(statSync(directory).mode & 0o777, 0o700)
    assert.deepStrictEqual(readdirSync(directory).sort(), [
      "millrace.ballast",
      "millrace.db",
      "millrace.db-wal",
      "millrace.lock",
      "millrace.mark"
    ])
    for (const name of readdirSync(directory)) {
      assert.strictEqual(statSync(join(directory, name)).mode & 0o777, 0o600, name)
    }
    assert.isTrue(log.reserve.ballast)
    const ballast = statSync(join(directory, "millrace.ballast"))
    assert.isAtLeast(ballast.blocks * 512, 65_536)
    log.close()
    assert.deepStrictEqual(readdirSync(directory).sort(), ["millrace.ballast", "millrace.db", "millrace.mark"])
  })

  it("takes back what others were allowed to read", () => {
    const directory = filled()
    chmodSync(file(directory), 0o644)
    open(directory).close()
    assert.strictEqual(statSync(file(directory)).mode & 0o777, 0o600)
  })

  it("sweeps what an opening left that was killed while it made the file", () => {
    const directory = filled()
    writeFileSync(join(directory, "millrace.db.new-0011"), "half")
    open(directory).close()
    assert.isFalse(existsSync(join(directory, "millrace.db.new-0011")))
  })

  it("goes on where a making was killed before its mark", () => {
    const directory = folder()
    open(directory).close()
    // As made: never opened, no mark yet.
    edit(directory, "select 1")
    const database = new DatabaseSync(file(directory))
    const value = database.prepare("select value from meta").get()!["value"] as Uint8Array
    new DataView(value.buffer, value.byteOffset).setFloat64(8, 0)
    database.prepare("update meta set value = ?, crc = ?").run(value, crc32(value))
    database.close()
    rmSync(join(directory, "millrace.mark"))
    const log = open(directory)
    assert.strictEqual(log.epoch, 1)
    log.close()
  })

  it("names the holder of a folder that is taken, and is refused at once", () => {
    const directory = filled()
    const log = open(directory)
    for (let i = 0; i < 3; i++) {
      const fault = refusal(directory)
      assert.strictEqual(fault.kind, "locked")
      assert.match(fault.kind === "locked" ? fault.holder : "", new RegExp(`^process ${process.pid} on \\S+$`))
    }
    rmSync(join(directory, "millrace.lock"))
    const unnamed = refusal(directory)
    assert.strictEqual(unnamed.kind === "locked" ? unnamed.holder : "", "an unknown process")
    assert.isUndefined(log.commit(batchOf(6, 1)))
    log.close()
    open(directory).close()
  })

  it("refuses another application's file", () => {
    const directory = filled()
    edit(directory, "pragma application_id = 7")
    const fault = refusedUntouched(directory)
    assert.strictEqual(fault.kind, "damaged")
    assert.match(JSON.stringify(fault), /no store of Millrace \(application id 7,/)
  })

  it("refuses what is no database, and an empty file", () => {
    for (const text of ["", "x".repeat(9_000)]) {
      const directory = filled()
      writeFileSync(file(directory), text)
      assert.strictEqual(refusedUntouched(directory).kind, "damaged")
    }
  })

  it("refuses a newer schema, and an older one that never was", () => {
    const newer = filled()
    edit(newer, "pragma user_version = 9")
    assert.deepStrictEqual(refusedUntouched(newer), { kind: "tooNew", file: file(newer), found: 9, known: 1 })
    const never = filled()
    edit(never, "pragma user_version = 0")
    assert.strictEqual(refusedUntouched(never).kind, "damaged")
  })

  it("refuses what the quick check finds, by its words", () => {
    const directory = filled()
    // The header's count of free pages: nothing but the check looks at it.
    const bytes = readFileSync(file(directory))
    bytes.writeUInt32BE(5, 36)
    writeFileSync(file(directory), bytes)
    const fault = refusedUntouched(directory)
    assert.strictEqual(fault.kind, "damaged")
    assert.match(fault.kind === "damaged" ? fault.finding : "", /freelist/i)
  })

  it("refuses a missing and an unreadable mark until the loss is accepted", () => {
    for (const harm of [
      (mark: string) => rmSync(mark),
      (mark: string) => writeFileSync(mark, new Uint8Array(markBytes))
    ]) {
      const directory = filled()
      harm(join(directory, "millrace.mark"))
      const fault = refusedUntouched(directory)
      assert.match(JSON.stringify(fault), /millrace\.mark.*acceptLoss/)
      const log = open(directory, { acceptLoss: true })
      const rows = loadAll(log)
      assert.isTrue("length" in rows && isWhole(rows, 1, 5))
      log.close()
      open(directory).close()
    }
  })

  it("refuses links and files that are none", () => {
    for (const name of ["millrace.db", "millrace.mark", "millrace.ballast", "millrace.lock", "millrace.db-wal"]) {
      const directory = filled()
      const elsewhere = folder()
      mkdirSync(elsewhere)
      rmSync(join(directory, name), { force: true })
      writeFileSync(join(elsewhere, "target"), "precious")
      symlinkSync(join(elsewhere, "target"), join(directory, name))
      const fault = refusal(directory)
      assert.strictEqual(fault.kind === "damaged" ? fault.file : "", join(directory, name))
      assert.strictEqual(readFileSync(join(elsewhere, "target"), "utf8"), "precious")
    }
  })

  it("refuses a folder that is a file", () => {
    const directory = folder()
    writeFileSync(directory, "")
    assert.strictEqual(refusal(directory).kind, "misconfigured")
    assert.strictEqual(refusal(join(directory, "below")).kind, "misconfigured")
  })

  it.skipIf(!isRoot)("refuses what belongs to another user: folder, link, file (M20)", () => {
    const other = 65_534
    // A process of another user looks at a folder of `other`; root may be trusted by everybody.
    const script = `
      const { SqliteLog } = await import(${JSON.stringify(new URL("../../../src/store/SqliteLog.ts", import.meta.url).href)})
      process.setegid(1); process.seteuid(1)
      try { new SqliteLog({ directory: process.argv[1], durability: "fsync", ballastBytes: 0, lowWaterBytes: 0, acceptLoss: false }).close(); console.log("opened") }
      catch (error) { console.log(JSON.stringify(error.fault ?? String(error))) }`
    const asAnother = (directory: string): string =>
      execFileSync(process.execPath, ["--input-type=module", "-e", script, directory], { encoding: "utf8" })
    const home = dirname(folder())
    chmodSync(home, 0o777)
    const foreign = join(home, "foreign")
    mkdirSync(foreign, { mode: 0o777 })
    chmodSync(foreign, 0o777)
    chownSync(foreign, other, other)
    assert.match(asAnother(foreign), /misconfigured.*belongs to another user/)
    const own = join(home, "own")
    assert.match(asAnother(own), /^opened/)
    symlinkSync(own, join(home, "link"))
    execFileSync("chown", ["-h", `${other}:${other}`, join(home, "link")])
    assert.match(asAnother(join(home, "link")), /misconfigured.*link that belongs to another user/)
    chownSync(join(own, "millrace.mark"), other, other)
    assert.match(asAnother(own), /damaged.*millrace\.mark.*belongs to another user/)
  })
})

describe("an older schema", () => {
  const version = 3
  const migrations = [
    { from: 1, run: (database: DatabaseSync) => database.exec("alter table log add column note text") },
    { from: 2, run: (database: DatabaseSync) => database.exec("alter table log drop column note") }
  ]

  it("is migrated step by step, after a copy of the file as it was", () => {
    const directory = filled()
    const log = open(directory, { version, migrations })
    const rows = loadAll(log)
    assert.isTrue("length" in rows && isWhole(rows, 1, 5))
    assert.isUndefined(log.commit(batchOf(6, 1)))
    log.close()
    assert.strictEqual(refusal(directory).kind, "tooNew")
    const backup = new DatabaseSync(`${file(directory)}.v1`, { readOnly: true })
    assert.strictEqual(backup.prepare("select count(*) as n from log").get()!["n"], 5)
    assert.strictEqual(backup.prepare("pragma user_version").get()!["user_version"], 1)
    backup.close()
    assert.strictEqual(statSync(`${file(directory)}.v1`).mode & 0o777, 0o600)
  })

  it("stays as it was when a step fails", () => {
    const directory = filled()
    const failing = [migrations[0]!, { from: 2, run: (database: DatabaseSync) => database.exec("no such statement") }]
    assert.strictEqual(refusal(directory, { version, migrations: failing }).kind, "broken")
    const log = open(directory)
    const rows = loadAll(log)
    assert.isTrue("length" in rows && isWhole(rows, 1, 5))
    log.close()
  })
})

describe("the log", () => {
  it("gives dropped space to new rows, and returns it to the file system in the end", () => {
    const directory = folder()
    const log = open(directory, { lowWaterBytes: Number.MAX_SAFE_INTEGER })
    const body = new Uint8Array(64 * 1_024)
    let seq = 0
    let size = 0
    for (let round = 0; round < 600; round++) {
      seq++
      assert.isUndefined(
        log.commit({ rows: [{ seq, body }], dropBefore: Math.max(0, seq - 50), durability: "buffered" })
      )
      log.settle()
      if (round === 300) size = statSync(file(directory)).size
    }
    assert.isAtMost(statSync(file(directory)).size, size * 1.2)
    assert.isAtMost(statSync(`${file(directory)}-wal`).size, 5 * 1_024 * 1_024)
    log.commit({ rows: [], dropBefore: seq + 1, durability: "fsync" })
    assert.isAbove(log.reserve.spareBytes, 2_000_000)
    for (let i = 0; i < 10; i++) assert.isUndefined(log.tend())
    assert.isAtMost(statSync(file(directory)).size, 200_000)
    log.close()
  })

  it("moves the mark with what is synced and not before", () => {
    const directory = folder()
    const log = open(directory)
    const last = () => decodeMark(readFileSync(join(directory, "millrace.mark")), crc32)?.mark.last
    log.commit(batchOf(1, 2))
    assert.strictEqual(last(), 2)
    log.commit({ ...batchOf(3, 2), durability: "buffered" })
    assert.strictEqual(last(), 2)
    log.commit(batchOf(5, 1))
    assert.strictEqual(last(), 5)
    log.commit({ ...batchOf(6, 1), durability: "buffered" })
    log.tend()
    assert.strictEqual(last(), 6)
    log.commit({ ...batchOf(7, 1), durability: "buffered" })
    log.commit({ rows: [], dropBefore: 0, durability: "fsync" })
    assert.strictEqual(last(), 7)
    log.close()
  })
})

describe("a mark", () => {
  const mark = { instance: new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]), epoch: 4, first: 2, last: 2 ** 40 }

  it("is read from the newer slot, and from the other when that one is torn", () => {
    const bytes = new Uint8Array(markBytes)
    assert.isUndefined(decodeMark(bytes, crc32))
    bytes.set(encodeSlot(mark, 6, crc32), 0)
    bytes.set(encodeSlot({ ...mark, last: 9 }, 7, crc32), slotBytes)
    assert.deepEqual(decodeMark(bytes, crc32), { mark: { ...mark, last: 9 }, turn: 7 })
    bytes[slotBytes + 30]! ^= 1
    assert.deepEqual(decodeMark(bytes, crc32), { mark, turn: 6 })
    bytes[30]! ^= 1
    assert.isUndefined(decodeMark(bytes, crc32))
    assert.isUndefined(decodeMark(bytes.subarray(0, 20), crc32))
  })
})
