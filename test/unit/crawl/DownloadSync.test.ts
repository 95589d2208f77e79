import * as nodeFs from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as FileSystem from "effect/FileSystem"
import { systemError } from "effect/PlatformError"
import * as Download from "../../../src/crawl/Download.ts"
import * as Fetch from "../../../src/crawl/Fetch.ts"
import { attempt, fileSystemWith, Keeper, sha256, temporaryDirectory, temporaryFiles } from "./downloads.ts"
import * as Server from "./faultServer.ts"
import { pixel, serve } from "./server.ts"

const body = Server.deterministic(10_000)

const serveBody = serve((_, response) => response.writeHead(200, { "content-type": "image/png" }).end(body))

/** A file system that notes what becomes durable, and what gets its name. */
const spy = () => {
  const events: Array<string> = []
  const note = (event: string) => (sync: FileSystem.File["sync"]) =>
    Effect.tap(sync, () => Effect.sync(() => events.push(event)))
  const rename = () => events.push("rename")
  return { events, spied: fileSystemWith({ sync: note("sync"), rename, syncFolder: note("folder") }) }
}

/** Until something is so. */
const until = (so: () => boolean) =>
  Effect.gen(function* () {
    while (!so()) yield* Effect.sleep("2 millis")
  })

describe("a download that waits for the disk", () => {
  it.live("syncs the file, gives it its name, and then syncs the folder", () => {
    const { events, spied } = spy()
    return Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const { origin } = yield* serveBody
      const { path } = yield* Download.file({ url: origin, path: `${directory}/a` })
      events.push("done")
      assert.deepStrictEqual(events, ["sync", "rename", "folder", "done"])
      assert.deepStrictEqual(nodeFs.readFileSync(path), Buffer.from(body))
    }).pipe(Effect.provide(spied), Effect.provide(Fetch.layer))
  })

  it.live("shares the sync of the folder with those that have their names when it begins, and no later ones", () => {
    let renames = 0
    /** Of each sync: the files that had their names when it began, and what lets it end. */
    const syncs: Array<{ readonly named: number; readonly end: Deferred.Deferred<void> }> = []
    const spied = fileSystemWith({
      rename: () => renames++,
      syncFolder: (sync) =>
        Effect.suspend(() => {
          const end = Deferred.makeUnsafe<void>()
          syncs.push({ named: renames, end })
          return Effect.andThen(Deferred.await(end), sync)
        })
    })
    return Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const { origin } = yield* serveBody
      const get = (i: number) => Effect.forkChild(Download.file({ url: origin, path: `${directory}/${i}` }))
      const first = yield* get(0)
      yield* until(() => syncs.length === 1)
      const others = yield* Effect.forEach([1, 2, 3, 4, 5, 6, 7], get)
      yield* until(() => renames === 8)
      assert.strictEqual(syncs.length, 1)
      yield* Deferred.succeed(syncs[0]!.end, undefined)
      yield* Fiber.join(first)
      yield* until(() => syncs.length === 2)
      assert.isTrue(others.every((fiber) => fiber.pollUnsafe() === undefined))
      assert.deepStrictEqual(
        syncs.map(({ named }) => named),
        [1, 8]
      )
      yield* Deferred.succeed(syncs[1]!.end, undefined)
      for (const fiber of others) yield* Fiber.join(fiber)
      assert.strictEqual(syncs.length, 2)
      // the next one begins anew
      const last = yield* get(8)
      yield* until(() => syncs.length === 3)
      yield* Deferred.succeed(syncs[2]!.end, undefined)
      yield* Fiber.join(last)
    }).pipe(Effect.provide(spied), Effect.provide(Fetch.layer))
  })

  it.live("fails with all that waited for a sync of the folder that failed", () => {
    let syncs = 0
    let renames = 0
    const hold = Deferred.makeUnsafe<void>()
    const broken = fileSystemWith({
      rename: () => renames++,
      syncFolder: (sync) =>
        Effect.suspend(() => {
          syncs++
          if (syncs === 1) return Effect.andThen(Deferred.await(hold), sync)
          return Effect.fail(systemError({ _tag: "Unknown", module: "FileSystem", method: "sync" }))
        })
    })
    return Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const { origin } = yield* serveBody
      const get = (i: number) =>
        Effect.forkChild(Effect.exit(Download.file({ url: origin, path: `${directory}/${i}` })))
      const first = yield* get(0)
      yield* until(() => syncs === 1)
      const others = yield* Effect.forEach([1, 2, 3], get)
      yield* until(() => renames === 4)
      yield* Deferred.succeed(hold, undefined)
      assert.strictEqual((yield* Fiber.join(first))._tag, "Success")
      for (const fiber of others) assert.strictEqual((yield* Fiber.join(fiber))._tag, "Failure")
      assert.strictEqual(syncs, 2)
      assert.deepStrictEqual(temporaryFiles(directory), [])
    }).pipe(Effect.provide(broken), Effect.provide(Fetch.layer))
  })
})

describe("a download that does not wait for the disk", () => {
  it.live("syncs nothing, and has the right file in one step", () => {
    const { events, spied } = spy()
    return Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const { origin } = yield* serve((_, response) =>
        response.writeHead(200, { "content-type": "image/png" }).end(pixel)
      )
      // folders that are not there yet are made, too
      const path = `${directory}/new/folder/file`
      const result = yield* Download.file({ url: origin, path, sync: false })
      assert.strictEqual(result.sha256, sha256(nodeFs.readFileSync(path)))
      const image = yield* Download.download({ url: origin, directory: `${directory}/images`, sync: false })
      assert.strictEqual(image.sha256, sha256(nodeFs.readFileSync(`${directory}/images/${image.file}`)))
      yield* Download.download({ url: origin, directory: `${directory}/images`, sync: false })
      assert.deepStrictEqual(
        events.filter((event) => event !== "rename"),
        []
      )
      assert.isTrue(events.includes("rename"))
      assert.deepStrictEqual(nodeFs.readdirSync(`${directory}/new/folder`), ["file"])
      assert.deepStrictEqual(temporaryFiles(`${directory}/images`), [])
    }).pipe(Effect.provide(spied), Effect.provide(Fetch.layer))
  })

  it.live("syncs what a checkpoint counts on all the same", () => {
    let syncs = 0
    const spied = fileSystemWith({ sync: (sync) => Effect.tap(sync, () => Effect.sync(() => syncs++)) })
    return Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const server = yield* Server.faultServer({ bytes: Server.deterministic(1_000_000), etag: '"v1"' })
      server.fault = Server.cutAt(600_000)
      const keeper = new Keeper()
      yield* Effect.flip(attempt(server.origin, directory, keeper, { sync: false }))
      assert.isAbove(keeper.saves, 0)
      assert.isAtLeast(syncs, keeper.saves)
      const saved = syncs
      server.fault = Server.honest
      const options = { sync: false, saveCheckpoint: undefined }
      assert.strictEqual((yield* attempt(server.origin, directory, keeper, options)).bytes, 1_000_000)
      assert.strictEqual(syncs, saved)
    }).pipe(Effect.provide(spied), Effect.provide(Fetch.layer))
  })
})
