/** `millrace serve` and its data folder: what it keeps, what it says, and what it refuses. */
import { copyFileSync, existsSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { assert, describe, it } from "@effect/vitest"
import { afterAll } from "vitest"
import { assertOneLine, millrace, run, serve, stopAll, temporaryFolder } from "./support.ts"

afterAll(stopAll)

const put = (port: number, ...payloads: ReadonlyArray<string>) =>
  run(["put", "jobs", ...payloads, "--create", "--port", String(port)])
const get = (port: number) => run(["get", "jobs", "--timeout", "0", "--port", String(port)])
const stats = async (port: number) =>
  JSON.parse((await run(["stats", "jobs", "--json", "--port", String(port)])).stdout)

/** A data folder with two tasks in it. */
const withTasks = async (): Promise<string> => {
  const data = join(temporaryFolder(), "data")
  const { port, program } = await serve(["--data", data])
  assert.strictEqual((await put(port, "1", "2")).code, 0)
  program.kill("SIGTERM")
  await program.ended(10_000)
  return data
}

const refused = (data: string) => run(["serve", "--port", "0", "--data", data])

describe("millrace serve", () => {
  it("keeps its queues in ./millrace-data by default, says so, and has them after a kill", async () => {
    const cwd = temporaryFolder()
    const first = millrace(["serve", "--port", "0"], { cwd })
    const [, port] = await first.said(/listening on \S+:(\d+), durability: fsync, data in \S+\/millrace-data\n/)
    assert.strictEqual((await put(Number(port), '"kept"')).code, 0)
    assert.deepInclude(await stats(Number(port)), { durability: "fsync", ready: 1 })
    first.kill("SIGKILL")
    await first.ended(10_000)
    assert.isTrue(existsSync(join(cwd, "millrace-data/millrace.db")))
    const second = await serve(["--data", "millrace-data"], { cwd })
    assert.strictEqual((await get(second.port)).stdout, '"kept"\n')
  }, 60_000)

  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    it(`closes the store in order on ${signal}: the log is in the database, the folder is free`, async () => {
      const data = join(temporaryFolder(), "data")
      const { port, program } = await serve(["--data", data])
      assert.strictEqual((await put(port, "1")).code, 0)
      assert.isTrue(existsSync(join(data, "millrace.lock")))
      program.kill(signal)
      const ended = await program.ended(10_000)
      assert.strictEqual(ended.code, 0, ended.stderr)
      assert.isFalse(existsSync(join(data, "millrace.lock")))
      const wal = join(data, "millrace.db-wal")
      assert.isTrue(!existsSync(wal) || statSync(wal).size === 0)
      assert.isTrue(readFileSync(join(data, "millrace.db")).includes("jobs"))
    }, 60_000)
  }

  it("--durability buffered and --memory are shown at the start and beside every queue", async () => {
    const data = join(temporaryFolder(), "data")
    const levels = [
      [["--data", data, "--durability", "buffered"], "buffered", `buffered, data in ${data}`],
      [["--memory"], "memory", "memory"]
    ] as const
    for (const [args, level, said] of levels) {
      const { port, program } = await serve(args)
      await put(port, "1")
      assert.strictEqual((await stats(port)).durability, level)
      assert.include(program.stderr, `, durability: ${said}\n`)
    }
    assertOneLine(
      await run(["serve", "--memory", "--data", "x"]),
      /--memory is given beside --data: use one of the two/
    )
    assertOneLine(
      await run(["serve", "--memory", "--durability", "fsync"]),
      /--memory is given beside --durability: use one of the two/
    )
  }, 60_000)

  it("refuses a folder that another manager has, and names it (M20)", async () => {
    const data = join(temporaryFolder(), "data")
    const { program } = await serve(["--data", data])
    assertOneLine(await refused(data), new RegExp(`${data} is in use by process ${program.pid} on `))
  }, 60_000)

  it("refuses a damaged file, names it and the remedy, and leaves it as it is (M26)", async () => {
    const data = await withTasks()
    const file = join(data, "millrace.db")
    const bytes = readFileSync(file)
    // A payload's neighbourhood: what SQLite itself would not notice.
    bytes[bytes.indexOf("jobs") + 1]! ^= 0x20
    writeFileSync(file, bytes)
    const said = /millrace\.db is damaged: row \d+ is not what was written.*Remedy: /
    assertOneLine(await refused(data), said)
    // Nothing was mended, and nothing thrown away.
    assertOneLine(await refused(data), said)
    assert.isTrue(readFileSync(file).includes(bytes.subarray(bytes.indexOf("obs") - 8, bytes.indexOf("obs") + 8)))
  }, 60_000)

  it("refuses a file that a newer version wrote, one of another program, and one that is no database", async () => {
    const data = await withTasks()
    const file = join(data, "millrace.db")
    copyFileSync(file, join(data, "copy"))
    const database = new DatabaseSync(file)
    database.exec("pragma user_version = 99")
    database.close()
    assertOneLine(
      await refused(data),
      /millrace\.db has schema version 99, this program knows up to \d+\. Run the program/
    )
    const foreign = temporaryFolder()
    const other = new DatabaseSync(join(foreign, "millrace.db"))
    other.exec("create table t (a)")
    other.close()
    assertOneLine(await refused(foreign), /millrace\.db /)
    const none = temporaryFolder()
    writeFileSync(join(none, "millrace.db"), "no database".repeat(1_000))
    assertOneLine(await refused(none), /millrace\.db /)
  }, 60_000)

  it("refuses a file that lacks what was committed, and opens it with --accept-loss (M26)", async () => {
    const data = await withTasks()
    const file = join(data, "millrace.db")
    const old = readFileSync(file)
    const { port, program } = await serve(["--data", data])
    await put(port, "3")
    program.kill("SIGTERM")
    await program.ended(10_000)
    writeFileSync(file, old)
    assertOneLine(await refused(data), /millrace\.db is damaged: .*Remedy: .*--accept-loss/)
    const again = await serve(["--data", data, "--accept-loss"])
    assert.strictEqual((await stats(again.port)).ready, 2)
  }, 60_000)

  it("refuses a path that is no folder", async () => {
    const file = join(temporaryFolder(), "file")
    writeFileSync(file, "")
    assertOneLine(await refused(file), /file/)
  }, 60_000)
})
