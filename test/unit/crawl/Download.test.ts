import * as crypto from "node:crypto"
import * as nodeFs from "node:fs"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import { download, sweep, temporaryPrefix } from "../../../src/crawl/Download.ts"
import * as Fetch from "../../../src/crawl/Fetch.ts"
import * as Limits from "../../../src/Limits.ts"
import { pixel, serve } from "./server.ts"

const Live = Layer.mergeAll(Fetch.layer, NodeServices.layer)
const sha256 = (bytes: Uint8Array) => crypto.createHash("sha256").update(bytes).digest("hex")

/** Every file below a directory, by its path from there. */
const filesIn = (directory: string): ReadonlyArray<string> =>
  nodeFs
    .readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => `${entry.parentPath}/${entry.name}`.slice(directory.length + 1))
    .sort()

const temporaryDirectory = Effect.flatMap(FileSystem.FileSystem, (fs) => fs.makeTempDirectoryScoped())

const png = { "content-type": "image/png" }

describe("download", () => {
  it.live("stores an image under its hash, whatever the URL is called", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const large = Buffer.concat([pixel, Buffer.alloc(3_000_000, 7)])
      const { origin } = yield* serve((request, response) => {
        if (request.url === "/go") response.writeHead(302, { location: "/large" }).end()
        else if (request.url === "/large") response.writeHead(200, { "content-type": "text/plain" }).end(large)
        else if (request.url === "/svg") response.writeHead(200, { "content-type": "image/svg+xml" }).end("<svg></svg>")
        else response.writeHead(200, { "content-type": "image/tiff; x=y" }).end("II*\0")
      })
      const hash = sha256(large)
      const file = `${hash.slice(0, 2)}/${hash.slice(2, 4)}/${hash}.png`
      assert.deepStrictEqual(yield* download({ url: `${origin}/go`, directory, referer: `${origin}/` }), {
        url: `${origin}/go`,
        finalUrl: `${origin}/large`,
        file,
        bytes: large.length,
        sha256: hash,
        contentType: "image/png",
        host: new URL(origin).host
      })
      assert.deepStrictEqual(nodeFs.readFileSync(`${directory}/${file}`), large)
      assert.match((yield* download({ url: `${origin}/svg`, directory })).file, /\.svg$/)
      assert.match((yield* download({ url: `${origin}/tiff`, directory })).file, /\.tiff$/)
      assert.strictEqual(filesIn(directory).length, 3)
    }).pipe(Effect.provide(Live))
  )

  it.live("ends two downloads of one content in one file", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const { origin } = yield* serve((_, response) => response.writeHead(200, png).end(pixel))
      const results = yield* Effect.forEach(
        Array.from({ length: 8 }, (_, i) => `${origin}/${i}`),
        (url) => download({ url, directory }),
        { concurrency: 4 }
      )
      assert.deepStrictEqual(filesIn(directory), [results[0]!.file])
      assert.strictEqual(new Set(results.map(({ file }) => file)).size, 1)
      const { ino } = nodeFs.statSync(`${directory}/${results[0]!.file}`)
      yield* download({ url: `${origin}/again`, directory })
      assert.strictEqual(nodeFs.statSync(`${directory}/${results[0]!.file}`).ino, ino)
      // a file of the right name and the wrong size is none
      nodeFs.truncateSync(`${directory}/${results[0]!.file}`, 3)
      yield* download({ url: `${origin}/again`, directory })
      assert.deepStrictEqual(nodeFs.readFileSync(`${directory}/${results[0]!.file}`), Buffer.from(pixel))
    }).pipe(Effect.provide(Live))
  )

  it.live("leaves nothing behind when it fails", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const { origin } = yield* serve((request, response) => {
        switch (request.url) {
          case "/html":
            return response.writeHead(200, png).end("<!doctype html><title>Sorry</title>")
          case "/long-html":
            return response.writeHead(200, png).end(`<html>${"sorry ".repeat(100_000)}`)
          case "/text":
            return response.writeHead(200, { "content-type": "text/plain" }).end("no image")
          case "/empty":
            return response.writeHead(200, png).end()
          case "/partial":
            return response.writeHead(206, png).end(pixel)
          case "/gzip":
            return response.writeHead(200, { ...png, "content-encoding": "gzip" }).end(pixel)
          case "/busy":
            return response.writeHead(429, { "retry-after": "7" }).end()
          case "/cut":
            response.writeHead(200, { ...png, "content-length": pixel.length + 1 }).write(pixel)
            return void setTimeout(() => response.destroy(), 20)
          case "/chunked-cut":
            response.writeHead(200, png).write(pixel)
            return void setTimeout(() => response.destroy(), 20)
          default:
            return response.writeHead(404).end()
        }
      })
      const error = (path: string) => Effect.flip(download({ url: origin + path, directory }))
      for (const path of ["/html", "/long-html", "/text", "/empty"]) {
        const { cause } = yield* error(path)
        assert.strictEqual(cause, "type", path)
      }
      assert.strictEqual((yield* error("/partial")).status, 206)
      assert.strictEqual((yield* error("/gzip")).cause, "decode")
      assert.strictEqual((yield* error("/busy")).retryAfterMs, 7_000)
      assert.strictEqual((yield* error("/missing")).status, 404)
      assert.strictEqual((yield* error("/cut")).cause, "reset")
      assert.strictEqual((yield* error("/chunked-cut")).cause, "reset")
      assert.deepStrictEqual(filesIn(directory), [])
    }).pipe(Effect.provide(Live))
  )

  it.live("takes an image of the largest size and refuses one byte more, announced or not", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const { origin } = yield* serve((request, response) => {
        const [, size, how] = request.url!.split("/")
        if (how === "promised") return response.writeHead(200, { ...png, "content-length": size! }).write(pixel)
        const body = Buffer.alloc(Number(size))
        body.set(pixel)
        if (how === "announced") return response.writeHead(200, { ...png, "content-length": body.length }).end(body)
        return response.writeHead(200, png).write(body, () => response.end())
      })
      const bytesMax = 100_000
      const get = (path: string) => download({ url: origin + path, directory, bytesMax })
      for (const how of ["announced", "silent"]) {
        assert.strictEqual((yield* get(`/${bytesMax}/${how}`)).bytes, bytesMax)
        assert.strictEqual((yield* Effect.flip(get(`/${bytesMax + 1}/${how}`))).cause, "size")
      }
      const huge = download({ url: `${origin}/${Limits.imageBytesMax + 1}/promised`, directory })
      assert.strictEqual((yield* Effect.flip(huge)).cause, "size")
      assert.strictEqual(filesIn(directory).length, 1)
    }).pipe(Effect.provide(Live))
  )

  it.live("leaves nothing behind when it is interrupted", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const closed = yield* Deferred.make<void>()
      const { origin } = yield* serve((_, response) => {
        response.on("close", () => Deferred.doneUnsafe(closed, Effect.void))
        response.writeHead(200, png).write(pixel)
      })
      const fiber = yield* Effect.forkChild(download({ url: origin, directory }))
      while (filesIn(directory).length === 0) yield* Effect.sleep("5 millis")
      assert.match(filesIn(directory)[0]!, /^\.tmp-[0-9a-f]{32}$/)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(filesIn(directory), [])
      yield* Deferred.await(closed)
    }).pipe(Effect.provide(Live))
  )

  it.live("calls trouble of the disk by its name", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const { origin } = yield* serve((_, response) => response.writeHead(200, png).end(pixel))
      nodeFs.writeFileSync(`${directory}/file`, "")
      const below = yield* Effect.flip(download({ url: origin, directory: `${directory}/file` }))
      assert.deepStrictEqual([below.cause, Fetch.retryable(below)], ["disk", true])
      // the folder of the hash is a file: the rename fails, and the temporary file is gone as well
      nodeFs.writeFileSync(`${directory}/${sha256(pixel).slice(0, 2)}`, "")
      assert.strictEqual((yield* Effect.flip(download({ url: origin, directory }))).cause, "disk")
      assert.deepStrictEqual(filesIn(directory), [sha256(pixel).slice(0, 2), "file"].sort())
    }).pipe(Effect.provide(Live))
  )
})

describe("sweep", () => {
  it.live("removes temporary files that are old, and nothing else", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const write = (name: string, ageMs: number) => {
        nodeFs.writeFileSync(`${directory}/${name}`, "")
        const at = new Date(Date.now() - ageMs)
        nodeFs.utimesSync(`${directory}/${name}`, at, at)
      }
      write(`${temporaryPrefix}old`, 100_000)
      write(`${temporaryPrefix}new`, 0)
      write("image.png", 100_000)
      nodeFs.mkdirSync(`${directory}/${temporaryPrefix}directory`)
      assert.strictEqual(yield* sweep(directory, 50_000), 1)
      assert.deepStrictEqual(filesIn(directory), [`${temporaryPrefix}new`, "image.png"])
      assert.strictEqual(yield* sweep(directory, 0), 1)
      assert.strictEqual(yield* sweep(`${directory}/missing`), 0)
    }).pipe(Effect.provide(NodeServices.layer))
  )
})
