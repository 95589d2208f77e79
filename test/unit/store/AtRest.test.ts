/**
 * Files that changed while nobody had them open: bits flipped, bytes cut, files missing, swapped or put back.
 *
 * Never an undetected loss: either every committed row is there as it was written, or the opening or the load refuses
 * and names the file. `MILLRACE_IMAGES` sets the number of images (default 240), `MILLRACE_SEED` the first seed.
 */
import { execFileSync } from "node:child_process"
import { cpSync, existsSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, assert, describe, it } from "@effect/vitest"
import type { Fault } from "../../../src/store/Fault.ts"
import { Random } from "../random.ts"
import { batchOf, folder, isWhole, loadAll, open, removeFolders } from "./folders.ts"

afterAll(removeFolders)

const images = Number(process.env["MILLRACE_IMAGES"] ?? 240)
const firstSeed = Number(process.env["MILLRACE_SEED"] ?? 1)

/** The files of a manager that was killed: copied, by another process, while it has them open. */
const snapshot = (directory: string): string => {
  const copy = folder()
  execFileSync("cp", ["-a", directory, copy])
  return copy
}

const [first, last] = [12, 92]

/** A log whose rows are partly in the database and partly in the write-ahead log, and an older state of it. */
const build = (): { readonly killed: string; readonly older: string; readonly stopped: string } => {
  const directory = folder()
  const before = open(directory)
  before.commit(batchOf(1, 10))
  before.commit(batchOf(11, 30, 6))
  before.close()
  const log = open(directory)
  for (let seq = 41; seq <= 60; seq += 5) log.commit(batchOf(seq, 5))
  const older = snapshot(directory)
  log.tend()
  for (let seq = 61; seq <= 90; seq += 3) log.commit(batchOf(seq, 3, seq === 70 ? first : 0))
  log.commit(batchOf(91, 2, first))
  const killed = snapshot(directory)
  log.close()
  return { killed, older, stopped: snapshot(directory) }
}

const stranger = (): string => {
  const directory = folder()
  const log = open(directory)
  for (let seq = 1; seq <= 90; seq += 3) log.commit(batchOf(seq, 3))
  const killed = snapshot(directory)
  log.close()
  return killed
}

const database = (at: string): string => join(at, "millrace.db")
const wal = (at: string): string => join(at, "millrace.db-wal")
const mark = (at: string): string => join(at, "millrace.mark")

const flip = (file: string, from: number, to: number, random: Random): void => {
  const bytes = readFileSync(file)
  const at = from + random.int(Math.min(to, bytes.byteLength) - from)
  bytes[at]! ^= 1 << random.int(8)
  writeFileSync(file, bytes)
}

const blank = (file: string, random: Random): void => {
  const bytes = readFileSync(file)
  const at = random.int(Math.ceil(bytes.byteLength / 512)) * 512
  bytes.fill(random.pick([0, 255]), at, at + 512)
  writeFileSync(file, bytes)
}

/** The database and its log of another folder, in the place of what is there. */
const replaceBoth = (at: string, from: string): void => {
  cpSync(database(from), database(at))
  cpSync(wal(from), wal(at))
}

const cut = (file: string, random: Random): void => truncateSync(file, random.int(statSync(file).size))

describe("files at rest", () => {
  const { killed, older, stopped } = build()
  const other = stranger()

  const harms: ReadonlyArray<readonly [name: string, base: string, harm: (at: string, random: Random) => void]> = [
    ["bit flipped in the database", killed, (at, random) => flip(database(at), 0, Number.POSITIVE_INFINITY, random)],
    ["bit flipped in its first page", stopped, (at, random) => flip(database(at), 0, 512, random)],
    ["bit flipped, stopped cleanly", stopped, (at, random) => flip(database(at), 0, Number.POSITIVE_INFINITY, random)],
    ["bit flipped in the log", killed, (at, random) => flip(wal(at), 32, Number.POSITIVE_INFINITY, random)],
    ["bit flipped in the log's header", killed, (at, random) => flip(wal(at), 0, 32, random)],
    ["sector lost in the database", killed, (at, random) => blank(database(at), random)],
    ["sector lost in the log", killed, (at, random) => blank(wal(at), random)],
    ["database cut", killed, (at, random) => cut(database(at), random)],
    ["database cut, stopped cleanly", stopped, (at, random) => cut(database(at), random)],
    ["log cut", killed, (at, random) => cut(wal(at), random)],
    ["log missing", killed, (at) => rmSync(wal(at))],
    ["database missing", killed, (at) => rmSync(database(at))],
    ["log of another store", killed, (at) => cpSync(wal(other), wal(at))],
    ["log of another store, after a clean stop", stopped, (at) => cpSync(wal(other), wal(at))],
    ["database of another store", killed, (at) => cpSync(database(other), database(at))],
    ["both of another store", killed, (at) => replaceBoth(at, other)],
    ["older log", killed, (at) => cpSync(wal(older), wal(at))],
    ["older log, after a clean stop", stopped, (at) => cpSync(wal(older), wal(at))],
    ["older database", killed, (at) => cpSync(database(older), database(at))],
    ["old copy put back", killed, (at) => replaceBoth(at, older)],
    ["mark flipped", killed, (at, random) => flip(mark(at), 0, Number.POSITIVE_INFINITY, random)],
    ["mark cut", killed, (at, random) => cut(mark(at), random)]
  ]

  it("is whole when nothing was harmed, so every refusal below is the harm's", () => {
    for (const base of [killed, stopped]) {
      const at = folder()
      cpSync(base, at, { recursive: true })
      const log = open(at)
      const rows = loadAll(log)
      assert.isTrue("length" in rows && isWhole(rows, first, last))
      log.close()
    }
  })

  it(
    `never loses a committed row unnoticed, in ${images} images (M26)`,
    () => {
      const counts = new Map<string, { whole: number; refused: number; refusedLoad: number }>()
      for (let image = 0; image < images; image++) {
        const seed = firstSeed + image
        const [name, base, harm] = harms[image % harms.length]!
        const at = folder()
        cpSync(base, at, { recursive: true })
        harm(at, new Random(seed))
        const count = counts.get(name) ?? { whole: 0, refused: 0, refusedLoad: 0 }
        counts.set(name, count)
        const context = `${name}, seed ${seed}`
        const files = [database(at), wal(at), mark(at)].filter(existsSync)
        const bytes = files.map((file) => readFileSync(file))
        let found: ReturnType<typeof loadAll>
        try {
          const log = open(at)
          found = loadAll(log)
          if ("length" in found) {
            assert.isTrue(isWhole(found, first, last), `rows were lost unnoticed: ${context}`)
            assert.isAtLeast(log.epoch, 3, `an epoch comes again: ${context}`)
            assert.isUndefined(log.commit(batchOf(last + 1, 1)), context)
            count.whole++
          } else count.refusedLoad++
          log.close()
        } catch (error) {
          if (!(error instanceof Error && "fault" in error)) throw error
          found = error.fault as Fault
          count.refused++
          for (const [i, file] of files.entries()) {
            assert.strictEqual(Buffer.compare(readFileSync(file), bytes[i]!), 0, `${file} was changed: ${context}`)
          }
        }
        if (!("length" in found)) {
          assert.include(["damaged", "tooNew", "broken"], found.kind, context)
          assert.match(
            found.kind === "broken" ? found.reason : "file" in found ? found.file : "",
            /millrace\./,
            context
          )
        }
        rmSync(at, { recursive: true, force: true })
      }
      const total = { whole: 0, refused: 0, refusedLoad: 0 }
      for (const [name, { refused, refusedLoad, whole }] of counts) {
        console.log(`${name}: ${whole} whole, ${refused} refused at opening, ${refusedLoad} refused at the load`)
        total.whole += whole
        total.refused += refused
        total.refusedLoad += refusedLoad
      }
      console.log(`images: ${images} from seed ${firstSeed}: ${JSON.stringify(total)}, lost unnoticed: 0`)
      assert.isAbove(total.refused, 0)
      assert.isAbove(total.whole, 0)
    },
    600_000 + images * 50
  )

  it("would lose rows without the mark: what acceptLoss opens is shorter, and goes on from there", () => {
    for (const harm of [(at: string) => rmSync(wal(at)), (at: string) => flip(wal(at), 0, 8, new Random(1))]) {
      const at = folder()
      cpSync(killed, at, { recursive: true })
      harm(at)
      const log = open(at, { acceptLoss: true })
      const rows = loadAll(log)
      assert.isTrue("length" in rows && rows.length > 0 && rows.at(-1)!.seq < last)
      // The epochs of what is lost do not come again.
      assert.strictEqual(log.epoch, 3)
      assert.isUndefined(log.commit(batchOf(log.last + 1, 1)))
      const end = log.last
      log.close()
      const again = open(at)
      assert.strictEqual(again.last, end)
      again.close()
    }
  })
})
