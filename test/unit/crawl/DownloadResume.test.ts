import * as nodeFs from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { systemError } from "effect/PlatformError"
import * as Download from "../../../src/crawl/Download.ts"
import * as Fetch from "../../../src/crawl/Fetch.ts"
import { attempt, fileSystemWith, Keeper, Live, sha256, temporaryDirectory, temporaryFiles } from "./downloads.ts"
import * as Server from "./faultServer.ts"

const size = 1_000_000
const cut = 600_000
const bytes = Server.deterministic(size)
const changed = Server.deterministic(size, 2)
const etag = '"v1"'
const monthAgo = new Date(Date.now() - 30 * 24 * 3_600_000).toUTCString()
const file: Server.ServedFile = { bytes, etag }

/** An attempt that breaks off after `cut` bytes, and what it left. */
const brokenOff = Effect.fnUntraced(function* (served: Server.ServedFile = file, at = cut) {
  const directory = yield* temporaryDirectory
  const keeper = new Keeper()
  const server = yield* Server.faultServer(served)
  server.fault = Server.cutAt(at)
  const error = yield* Effect.flip(attempt(server.origin, directory, keeper))
  assert.deepStrictEqual([error.cause, Fetch.retryable(error)], ["reset", true])
  assert.isFalse(nodeFs.existsSync(`${directory}/file.bin`))
  server.fault = Server.honest
  server.requests.length = 0
  // what of the last bytes the runtime has thrown away with the connection is not ours to say
  const held = keeper.checkpoint?.bytes ?? 0
  return { directory, keeper, server, held }
})

/** The file is the right one, and nothing else is left. */
const assertDone = (directory: string, result: Download.DownloadedFile, expected = bytes): void => {
  assert.deepStrictEqual([result.bytes, result.sha256], [expected.length, sha256(expected)])
  assert.strictEqual(sha256(nodeFs.readFileSync(`${directory}/file.bin`)), sha256(expected))
  assert.deepStrictEqual(nodeFs.readdirSync(directory), ["file.bin"])
}

const partPath = (directory: string): string => {
  const [name, ...others] = temporaryFiles(directory)
  assert.deepStrictEqual(others, [])
  return `${directory}/${name}`
}

const replaceByFolder = (path: string): void => {
  nodeFs.rmSync(path)
  nodeFs.mkdirSync(path)
}

describe("a download that was broken off", () => {
  it.live("goes on where it was, with Range, If-Range and no encoding", () =>
    Effect.gen(function* () {
      const { directory, held, keeper, server } = yield* brokenOff()
      assert.isAtLeast(held, cut / 2)
      assert.isAtLeast(keeper.saves, 2)
      const result = yield* attempt(server.origin, directory, keeper)
      assertDone(directory, result)
      assert.deepStrictEqual(server.requests, [
        {
          path: "/file",
          range: `bytes=${held}-`,
          ifRange: etag,
          acceptEncoding: "identity",
          status: 206,
          sent: size - held
        }
      ])
      assert.strictEqual(result.contentType, "application/octet-stream")
    }).pipe(Effect.provide(Live))
  )

  it.live("goes on by a Last-Modified that is older than its Date by enough", () =>
    Effect.gen(function* () {
      const { directory, held, keeper, server } = yield* brokenOff({ bytes, lastModified: monthAgo })
      assertDone(directory, yield* attempt(server.origin, directory, keeper))
      assert.deepStrictEqual(
        server.requests.map(({ ifRange, sent }) => [ifRange, sent]),
        [[monthAgo, size - held]]
      )
    }).pipe(Effect.provide(Live))
  )

  const now = new Date().toUTCString()
  const unproven: Readonly<Record<string, Server.ServedFile>> = {
    "no validator": { bytes },
    "a weak ETag": { bytes, etag: 'W/"v1"' },
    "an ETag without quotes": { bytes, etag: "v1" },
    "a weak ETag beside an old Last-Modified": { bytes, etag: 'W/"v1"', lastModified: monthAgo },
    "a Last-Modified of this moment": { bytes, lastModified: now },
    "a Last-Modified without a Date": { bytes, lastModified: monthAgo, date: false },
    "a Last-Modified that is no date": { bytes, lastModified: "yesterday" }
  }
  for (const [name, served] of Object.entries(unproven)) {
    it.live(`begins again, and has kept nothing, where the server gives ${name}`, () =>
      Effect.gen(function* () {
        const { directory, keeper, server } = yield* brokenOff(served)
        assert.isUndefined(keeper.checkpoint)
        assert.deepStrictEqual(nodeFs.readdirSync(directory), [])
        assertDone(directory, yield* attempt(server.origin, directory, keeper))
        assert.isUndefined(server.requests[0]!.range)
      }).pipe(Effect.provide(Live))
    )
  }

  /** How the server is when the second attempt comes, and how many requests that costs. All must end with a right file. */
  const answers: ReadonlyArray<
    readonly [name: string, requests: number, fault: Server.Fault, served?: Server.ServedFile]
  > = [
    ["gives 200 instead of 206", 1, Server.ignoresRange],
    ["has another version by now", 1, Server.honest, { bytes: changed, etag: '"v2"' }],
    ["has a shorter version by now", 1, Server.honest, { bytes: bytes.subarray(0, 1_000), etag: '"v2"' }],
    ["gives a part of another version", 2, Server.ignoresIfRange, { bytes: changed, etag: '"v2"' }],
    ["gives a part of a version now weak", 2, Server.ignoresIfRange, { bytes: changed, etag: 'W/"v1"' }],
    ["gives a part of no named version", 2, Server.hidesVersion, { bytes: changed, etag: '"v2"' }],
    ["gives a part from further on", 2, Server.shiftedPart(1)],
    ["gives a part from further back", 2, Server.shiftedPart(-1)],
    ["names another total", 2, Server.contentRange((from, total) => `bytes ${from}-${total - 1}/${total + 1}`)],
    ["names a part beyond the total", 2, Server.contentRange((from, total) => `bytes ${from}-${total}/${total}`)],
    ["counts in another unit", 2, Server.contentRange((from, total) => `lines ${from}-${total - 1}/${total}`)],
    ["gives nonsense as Content-Range", 2, Server.contentRange(() => "bytes */*")],
    ["gives no Content-Range", 2, Server.noContentRange],
    ["gives a multipart answer", 2, Server.multipart],
    ["gives a part of another length than its range", 2, Server.partOfOtherLength],
    ["gives 416", 2, Server.unsatisfiable],
    ["gives 416 of a file that is shorter now", 2, Server.unsatisfiable, { bytes: changed.subarray(0, 9), etag }],
    ["gives gzip to everybody, and parts of it", 2, Server.gzipAlways]
  ]
  for (const [name, requests, fault, served = file] of answers) {
    it.live(`begins again when the server ${name}`, () =>
      Effect.gen(function* () {
        const { directory, held, keeper, server } = yield* brokenOff()
        server.fault = fault
        server.file = served
        const result = yield* attempt(server.origin, directory, keeper)
        assertDone(directory, result, served.bytes)
        assert.deepStrictEqual(
          server.requests.map(({ range }) => range),
          [`bytes=${held}-`, undefined].slice(0, requests)
        )
      }).pipe(Effect.provide(Live))
    )
  }

  it.live("begins again when a redirect leads to another place, and goes on when only the query is another", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const server = yield* Server.faultServer(file)
      for (const [first, second, range] of [
        ["/a?key=1", "/a?key=2", true],
        ["/a", "/b", false]
      ] as const) {
        const keeper = new Keeper()
        server.fault = Server.redirects("/file", () => first, Server.cutAt(cut))
        yield* Effect.flip(attempt(server.origin, directory, keeper))
        server.fault = Server.redirects("/file", () => second)
        server.requests.length = 0
        assertDone(directory, yield* attempt(server.origin, directory, keeper))
        assert.strictEqual(server.requests.at(-1)!.range !== undefined, range, second)
        // the way is checked at every hop of a resumption too
        keeper.checkpoint = undefined
        server.fault = Server.redirects("/file", () => first, Server.cutAt(cut))
        yield* Effect.flip(attempt(server.origin, directory, keeper))
        const outside = attempt(server.origin, directory, keeper, { allow: (url) => url.pathname === "/file" })
        assert.strictEqual((yield* Effect.flip(outside)).cause, "scope")
        assert.deepStrictEqual(temporaryFiles(directory), [])
      }
    }).pipe(Effect.provide(Live))
  )

  it.live("takes a part that is shorter than asked, and gets the rest with the next attempt", () =>
    Effect.gen(function* () {
      const { directory, held, keeper, server } = yield* brokenOff()
      server.fault = Server.shortPart(100_000)
      assert.strictEqual((yield* Effect.flip(attempt(server.origin, directory, keeper))).cause, "reset")
      assert.strictEqual(keeper.checkpoint?.bytes, held + 100_000)
      server.fault = Server.honest
      assertDone(directory, yield* attempt(server.origin, directory, keeper))
      assert.strictEqual(server.requests.at(-1)!.sent, size - held - 100_000)
    }).pipe(Effect.provide(Live))
  )

  it.live("is broken off time and again, and never asks for what is saved", () =>
    Effect.gen(function* () {
      const { directory, keeper, server } = yield* brokenOff(file, 300_000)
      for (let at = 400_000; at < size; at += 100_000) {
        const saved = keeper.checkpoint!.bytes
        server.fault = Server.cutAt(at)
        yield* Effect.flip(attempt(server.origin, directory, keeper))
        assert.strictEqual(server.requests.at(-1)!.range, `bytes=${saved}-`)
        assert.isAtLeast(keeper.checkpoint!.bytes, saved)
        assert.strictEqual(temporaryFiles(directory).length, 1)
      }
      const saved = keeper.checkpoint!.bytes
      server.fault = Server.honest
      assertDone(directory, yield* attempt(server.origin, directory, keeper))
      assert.strictEqual(server.requests.at(-1)!.sent, size - saved)
    }).pipe(Effect.provide(Live))
  )

  it.live("asks for no byte when all are held: 416 of this size and version is the end", () =>
    Effect.gen(function* () {
      const cases: ReadonlyArray<readonly [Server.Fault, ReadonlyArray<number>]> = [
        [Server.honest, [416]],
        [Server.unsatisfiableOfNoVersion, [416, 200]]
      ]
      for (const [fault, statuses] of cases) {
        // the last byte came, and then not the end of the body
        const { directory, keeper, server } = yield* brokenOff({ ...file, chunked: true })
        assert.isUndefined(keeper.checkpoint!.total)
        nodeFs.writeFileSync(partPath(directory), bytes)
        keeper.checkpoint = { ...keeper.checkpoint!, bytes: size, sha256: sha256(bytes) }
        server.fault = fault
        assertDone(directory, yield* attempt(server.origin, directory, keeper))
        assert.deepStrictEqual(
          server.requests.map(({ status }) => status),
          statuses
        )
      }
    }).pipe(Effect.provide(Live))
  )

  it.live("lets the server prove the version of a file that is all there, by its last byte", () =>
    Effect.gen(function* () {
      for (const served of [file, { bytes: changed, etag: '"v2"' }]) {
        const { directory, keeper, server } = yield* brokenOff()
        nodeFs.writeFileSync(partPath(directory), bytes)
        keeper.checkpoint = { ...keeper.checkpoint!, bytes: size, sha256: sha256(bytes) }
        server.file = served
        assertDone(directory, yield* attempt(server.origin, directory, keeper), served.bytes)
        assert.deepStrictEqual(
          server.requests.map(({ range, sent }) => [range, sent]),
          [[`bytes=${size - 1}-`, served === file ? 1 : size]]
        )
      }
    }).pipe(Effect.provide(Live))
  )
})

describe("the temporary file", () => {
  it.live("is not there in another folder: a clean start, without a Range", () =>
    Effect.gen(function* () {
      const { directory, keeper, server } = yield* brokenOff()
      const other = yield* temporaryDirectory
      assertDone(other, yield* attempt(server.origin, other, keeper))
      assert.deepStrictEqual(
        server.requests.map(({ range }) => range),
        [undefined]
      )
      assert.strictEqual(temporaryFiles(directory).length, 1)
    }).pipe(Effect.provide(Live))
  )

  /** Whether a part is asked for, and whether the bytes that the file has are taken. */
  const damage: ReadonlyArray<
    readonly [name: string, change: (path: string, held: number) => void, asked: boolean, taken: boolean]
  > = [
    ["has more than was saved: that is left", (path) => nodeFs.appendFileSync(path, changed), true, true],
    ["has less than was saved: a clean start", (path, held) => nodeFs.truncateSync(path, held - 1), false, false],
    ["has other bytes than were saved: a clean start", (path) => nodeFs.writeFileSync(path, changed), true, false],
    ["is a folder now: a clean start", replaceByFolder, false, false]
  ]
  for (const [name, change, asked, taken] of damage) {
    it.live(name, () =>
      Effect.gen(function* () {
        const { directory, held, keeper, server } = yield* brokenOff()
        const path = partPath(directory)
        change(path, held)
        const result = yield* attempt(server.origin, directory, keeper)
        if (nodeFs.existsSync(path)) nodeFs.rmdirSync(path)
        assertDone(directory, result)
        assert.deepStrictEqual(
          server.requests.map(({ range }) => range),
          [...(asked ? [`bytes=${held}-`] : []), ...(taken ? [] : [undefined])]
        )
      }).pipe(Effect.provide(Live))
    )
  }

  it.live("of an attempt that is not dead after all takes no part in the file that is published", () =>
    Effect.gen(function* () {
      const { directory, keeper, server } = yield* brokenOff()
      const ghost = nodeFs.openSync(partPath(directory), "r+")
      const haunt = () => nodeFs.writeSync(ghost, changed, 0, size, 0)
      let haunted = false
      server.fault = Server.drips(20_000, 5, () => haunted)
      const result = yield* attempt(server.origin, directory, keeper, {
        saveCheckpoint: (checkpoint) =>
          Effect.sync(() => {
            keeper.checkpoint = checkpoint
            haunt()
            haunted = true
          })
      })
      haunt()
      nodeFs.closeSync(ghost)
      assert.isTrue(haunted)
      assertDone(directory, result)
    }).pipe(Effect.provide(Live))
  )

  it.live("is synced before the checkpoint that counts on it, and before it gets its name", () =>
    Effect.gen(function* () {
      const events: Array<string> = []
      let written = 0
      const spied = fileSystemWith({
        rename: () => events.push("rename"),
        sync: (sync) =>
          Effect.suspend(() => {
            const upTo = written
            return Effect.tap(sync, () => Effect.sync(() => events.push(`sync ${upTo}`)))
          }),
        writeAll: (write, buffer) => Effect.tap(write, () => Effect.sync(() => (written += buffer.length)))
      })
      const saves: Array<number> = []
      yield* Effect.gen(function* () {
        const directory = yield* temporaryDirectory
        const server = yield* Server.faultServer(file)
        server.fault = Server.drips(50_000, 10, () => saves.length > 2)
        yield* attempt(server.origin, directory, new Keeper(), {
          saveCheckpoint: ({ bytes }) =>
            Effect.sync(() => {
              saves.push(bytes)
              events.push(`save ${bytes}`)
            }),
          checkpointEveryBytes: 1
        })
      }).pipe(Effect.provide(spied))
      assert.isAbove(saves.length, 1)
      let synced = 0
      for (const event of events) {
        const [what, upTo] = event.split(" ")
        if (what === "sync") synced = Math.max(synced, Number(upTo))
        if (what === "save") assert.isAtMost(Number(upTo), synced)
        if (what === "rename") assert.strictEqual(synced, size)
      }
      assert.strictEqual(events.at(-1), "rename")
    }).pipe(Effect.provide(Fetch.layer))
  )

  it.live("outlives a disk that is full, with what was saved before", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const keeper = new Keeper()
      const server = yield* Server.faultServer(file)
      server.fault = Server.drips(20_000, 10, () => keeper.saves > 0)
      let after = 0
      let savesThen = 0
      const full = fileSystemWith({
        writeAll: (write) =>
          Effect.suspend(() => {
            if (keeper.saves === 0 || ++after < 2) return write
            savesThen = keeper.saves
            return Effect.fail(systemError({ _tag: "Unknown", module: "FileSystem", method: "writeAll" }))
          })
      })
      const options = { checkpointEveryBytes: size, checkpointEveryMs: 300 }
      const error = yield* Effect.flip(attempt(server.origin, directory, keeper, options).pipe(Effect.provide(full)))
      assert.deepStrictEqual([error.cause, Fetch.retryable(error)], ["disk", true])
      assert.strictEqual(keeper.saves, savesThen)
      const held = keeper.checkpoint!.bytes
      assert.isAtLeast(nodeFs.statSync(partPath(directory)).size, held)
      assertDone(directory, yield* attempt(server.origin, directory, keeper))
      assert.strictEqual(server.requests.at(-1)!.range, `bytes=${held}-`)
    }).pipe(Effect.provide(Live))
  )

  it.live("is kept by an interruption, which saves what came", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const keeper = new Keeper()
      const server = yield* Server.faultServer(file)
      server.fault = Server.silentAt(cut)
      const fiber = yield* Effect.forkChild(attempt(server.origin, directory, keeper))
      const had = () => temporaryFiles(directory).some((name) => nodeFs.statSync(`${directory}/${name}`).size > 400_000)
      while (!had()) yield* Effect.sleep("5 millis")
      const { size: there } = nodeFs.statSync(partPath(directory))
      yield* Fiber.interrupt(fiber)
      assert.isAtLeast(keeper.checkpoint!.bytes, there)
      server.fault = Server.honest
      assertDone(directory, yield* attempt(server.origin, directory, keeper))
      assert.isAtMost(server.requests.at(-1)!.sent, size - there)
    }).pipe(Effect.provide(Live))
  )

  it.live("is not kept without somebody who keeps the checkpoint", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const server = yield* Server.faultServer(file)
      server.fault = Server.cutAt(cut)
      yield* Effect.flip(attempt(server.origin, directory, new Keeper(), { saveCheckpoint: undefined }))
      assert.deepStrictEqual(nodeFs.readdirSync(directory), [])
    }).pipe(Effect.provide(Live))
  )

  it.live("waits while the server is busy, and goes when the server has the file no more", () =>
    Effect.gen(function* () {
      const { directory, held, keeper, server } = yield* brokenOff()
      server.fault = Server.status(503)
      assert.strictEqual((yield* Effect.flip(attempt(server.origin, directory, keeper))).status, 503)
      assert.strictEqual(temporaryFiles(directory).length, 1)
      server.fault = Server.cutAt(held + 100_000)
      yield* Effect.flip(attempt(server.origin, directory, keeper))
      assert.strictEqual(server.requests.at(-1)!.status, 206)
      assert.strictEqual(temporaryFiles(directory).length, 1)
      server.fault = Server.status(404)
      assert.strictEqual((yield* Effect.flip(attempt(server.origin, directory, keeper))).status, 404)
      assert.deepStrictEqual(nodeFs.readdirSync(directory), [])
    }).pipe(Effect.provide(Live))
  )

  it.live("of whichever attempt goes with the last one of its task, and no other task's does", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const server = yield* Server.faultServer(file)
      const broken = (id: string) =>
        Effect.gen(function* () {
          const keeper = new Keeper()
          server.fault = Server.cutAt(cut)
          yield* Effect.flip(attempt(server.origin, directory, keeper, { id }))
          server.fault = Server.honest
          return keeper
        })
      // two attempts of one task whose checkpoints were lost
      yield* broken("task-1")
      yield* broken("task-1")
      const other = yield* broken("task-2")
      assert.strictEqual(temporaryFiles(directory).length, 3)
      yield* attempt(server.origin, directory, new Keeper(), { id: "task-1", attempt: 3 })
      assert.strictEqual(temporaryFiles(directory).length, 1)
      yield* broken("task-3")
      yield* Download.discard({ directory, name: "file.bin", id: "task-3" })
      const held = other.checkpoint!.bytes
      assertDone(directory, yield* attempt(server.origin, directory, other, { id: "task-2" }))
      assert.strictEqual(server.requests.at(-1)!.sent, size - held)
    }).pipe(Effect.provide(Live))
  )

  it.live("of a stranger's checkpoint is not looked for", () =>
    Effect.gen(function* () {
      const { directory, keeper, server } = yield* brokenOff()
      const good = keeper.checkpoint!
      const secret = `${directory}/secret`
      nodeFs.writeFileSync(secret, bytes.subarray(0, cut))
      const bad: ReadonlyArray<unknown> = [
        { ...good, part: `0/../secret` },
        { ...good, part: good.part.toUpperCase() + "x" },
        { ...good, url: `${server.origin}/other` },
        { ...good, bytes: 0 },
        { ...good, bytes: -1 },
        { ...good, bytes: 0.5 },
        { ...good, bytes: size + 1 },
        { ...good, total: good.bytes - 1 },
        { ...good, sha256: "" },
        { ...good, etag: '"v1"\r\nx-evil: 1' },
        { ...good, etag: 'W/"v1"' },
        { ...good, etag: undefined },
        null,
        "checkpoint"
      ]
      for (const checkpoint of bad) {
        const options = { checkpoint: checkpoint as Download.Checkpoint, saveCheckpoint: undefined }
        const result = yield* attempt(server.origin, directory, keeper, options)
        assert.strictEqual(result.sha256, sha256(bytes))
        assert.isUndefined(server.requests.at(-1)!.range, JSON.stringify(checkpoint))
      }
      assert.isTrue(nodeFs.existsSync(secret))
    }).pipe(Effect.provide(Live))
  )
})

describe("a hash that is asked for", () => {
  it.live("is checked before the file has its name; a wrong file costs a clean start", () =>
    Effect.gen(function* () {
      const { directory, keeper, server } = yield* brokenOff()
      nodeFs.writeFileSync(`${directory}/file.bin`, "the old one")
      const expected = sha256(changed)
      const error = yield* Effect.flip(attempt(server.origin, directory, keeper, { sha256: expected }))
      assert.deepStrictEqual([error.cause, Fetch.retryable(error)], ["digest", true])
      assert.deepStrictEqual(nodeFs.readdirSync(directory), ["file.bin"])
      assert.strictEqual(nodeFs.readFileSync(`${directory}/file.bin`, "utf8"), "the old one")
      // a server that keeps its ETag while the file is another one
      server.file = { ...file, bytes: changed }
      const result = yield* attempt(server.origin, directory, keeper, { sha256: expected.toUpperCase() })
      assertDone(directory, result, changed)
      assert.isUndefined(server.requests.at(-1)!.range)
    }).pipe(Effect.provide(Live))
  )

  it.live("finds out the version that a lying ETag hides", () =>
    Effect.gen(function* () {
      const { directory, keeper, server } = yield* brokenOff()
      server.file = { ...file, bytes: changed }
      const error = yield* Effect.flip(attempt(server.origin, directory, keeper, { sha256: sha256(changed) }))
      assert.strictEqual(error.cause, "digest")
      assert.deepStrictEqual(nodeFs.readdirSync(directory), [])
      assertDone(directory, yield* attempt(server.origin, directory, keeper, { sha256: sha256(changed) }), changed)
    }).pipe(Effect.provide(Live))
  )
})

describe("an image", () => {
  it.live("is gone on with like any file, and judged by the bytes of an earlier attempt", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const server = yield* Server.faultServer(file)
      const image = new Uint8Array(bytes)
      image.set(Buffer.from("GIF89a"))
      server.file = { bytes: image, etag }
      server.fault = Server.cutAt(cut)
      const keeper = new Keeper()
      const get = () =>
        Download.download({
          ...{ url: `${server.origin}/file`, directory, checkpoint: keeper.checkpoint },
          saveCheckpoint: keeper.saveCheckpoint
        })
      yield* Effect.flip(get())
      server.fault = Server.honest
      const held = keeper.checkpoint!.bytes
      const result = yield* get()
      assert.deepStrictEqual([result.contentType, result.sha256], ["image/gif", sha256(image)])
      assert.strictEqual(server.requests.at(-1)!.sent, size - held)
      assert.deepStrictEqual(temporaryFiles(directory), [])
    }).pipe(Effect.provide(Live))
  )
})

describe("progress", () => {
  it.live("is told while the file comes, and is 1 at the end", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const server = yield* Server.faultServer(file)
      const told: Array<number> = []
      server.fault = Server.drips(1_000, 10, () => told.length > 0)
      const progress = (part: number) => Effect.sync(() => void told.push(part))
      assertDone(directory, yield* attempt(server.origin, directory, new Keeper(), { progress }))
      assert.isAtLeast(told.length, 2)
      assert.deepStrictEqual(
        told,
        told.toSorted((a, b) => a - b)
      )
      assert.isTrue(told[0]! > 0 && told[0]! < 1)
      assert.strictEqual(told.at(-1), 1)
    }).pipe(Effect.provide(Live))
  )
})
