import * as nodeFs from "node:fs"
import * as zlib from "node:zlib"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Fetch from "../../../src/crawl/Fetch.ts"
import * as Limits from "../../../src/Limits.ts"
import { attempt, Keeper, Live, sha256, temporaryDirectory, temporaryFiles } from "./downloads.ts"
import * as Server from "./faultServer.ts"

const size = 1_000_000
const bytes = Server.deterministic(size)
const file: Server.ServedFile = { bytes, etag: '"v1"' }

const prepared = Effect.fnUntraced(function* (fault: Server.Fault, served: Server.ServedFile = file) {
  const directory = yield* temporaryDirectory
  const server = yield* Server.faultServer(served)
  server.fault = fault
  return { directory, server, keeper: new Keeper() }
})

describe("the limits of a download", () => {
  it.live("take a file of the largest size and refuse one byte more, announced or not", () =>
    Effect.gen(function* () {
      for (const chunked of [false, true]) {
        const { directory, keeper, server } = yield* prepared(Server.honest, { ...file, chunked })
        const fits = yield* attempt(server.origin, directory, keeper, { bytesMax: size })
        assert.strictEqual(fits.sha256, sha256(bytes))
        nodeFs.rmSync(fits.path)
        const options = { bytesMax: size - 1, checkpoint: undefined }
        const error = yield* Effect.flip(attempt(server.origin, directory, keeper, options))
        assert.deepStrictEqual([error.cause, Fetch.retryable(error)], ["size", false])
        assert.deepStrictEqual(nodeFs.readdirSync(directory), [])
      }
    }).pipe(Effect.provide(Live))
  )

  it.live("count the bytes of earlier attempts", () =>
    Effect.gen(function* () {
      const { directory, keeper, server } = yield* prepared(Server.cutAt(600_000), { ...file, chunked: true })
      yield* Effect.flip(attempt(server.origin, directory, keeper))
      assert.isDefined(keeper.checkpoint)
      server.fault = Server.honest
      const error = yield* Effect.flip(attempt(server.origin, directory, keeper, { bytesMax: size - 1 }))
      assert.strictEqual(server.requests.at(-1)!.status, 206)
      assert.strictEqual(error.cause, "size")
      assert.deepStrictEqual(nodeFs.readdirSync(directory), [])
    }).pipe(Effect.provide(Live))
  )

  it.live("end a body of no end", () =>
    Effect.gen(function* () {
      const { directory, keeper, server } = yield* prepared(Server.endless)
      const error = yield* Effect.flip(attempt(server.origin, directory, keeper, { bytesMax: 20_000_000 }))
      assert.strictEqual(error.cause, "size")
      assert.deepStrictEqual(nodeFs.readdirSync(directory), [])
    }).pipe(Effect.provide(Live))
  )

  it.live("give up a server that is slow, and what came is there for the next attempt", () =>
    Effect.gen(function* () {
      let enough = false
      const { directory, keeper, server } = yield* prepared(Server.drips(1_000, 10, () => enough))
      const speed = { bytesPerSecondMin: 10_000_000, speedWindowMs: 200 }
      const error = yield* Effect.flip(attempt(server.origin, directory, keeper, speed))
      assert.deepStrictEqual([error.cause, Fetch.retryable(error)], ["slow", true])
      const held = keeper.checkpoint!.bytes
      assert.isAbove(held, 0)
      enough = true
      const result = yield* attempt(server.origin, directory, keeper)
      assert.strictEqual(result.sha256, sha256(bytes))
      assert.strictEqual(server.requests.at(-1)!.range, `bytes=${held}-`)
    }).pipe(Effect.provide(Live))
  )

  it.live("leave a server in peace that is slower than one could wish but fast enough", () =>
    Effect.gen(function* () {
      const { directory, keeper, server } = yield* prepared(Server.drips(50_000, 20))
      const speed = { bytesPerSecondMin: 1_000, speedWindowMs: 50 }
      assert.strictEqual((yield* attempt(server.origin, directory, keeper, speed)).bytes, size)
    }).pipe(Effect.provide(Live))
  )

  it.live("do not take a slow disk or a slow manager here for a slow server there", () =>
    Effect.gen(function* () {
      const { directory, keeper, server } = yield* prepared(Server.honest)
      const result = yield* attempt(server.origin, directory, keeper, {
        saveCheckpoint: (checkpoint) => Effect.delay(keeper.saveCheckpoint(checkpoint), "400 millis"),
        ...{ bytesPerSecondMin: 2_000_000, speedWindowMs: 300 }
      })
      assert.isAtLeast(keeper.saves, 2)
      assert.strictEqual(result.sha256, sha256(bytes))
    }).pipe(Effect.provide(Live))
  )

  it.live("give up a server that says nothing more, and what came is there for the next attempt", () =>
    Effect.gen(function* () {
      const { directory, keeper, server } = yield* prepared(Server.silentAt(600_000))
      const error = yield* Effect.flip(attempt(server.origin, directory, keeper))
      assert.deepStrictEqual([error.cause, Fetch.retryable(error)], ["idle", true])
      const held = keeper.checkpoint!.bytes
      assert.isAbove(held, 300_000)
      assert.strictEqual(temporaryFiles(directory).length, 1)
      server.fault = Server.honest
      assert.strictEqual((yield* attempt(server.origin, directory, keeper)).sha256, sha256(bytes))
      assert.strictEqual(server.requests.at(-1)!.sent, size - held)
    }).pipe(Effect.provide(Layer.mergeAll(Fetch.layerWith({ bodyIdleMs: 500 }), NodeServices.layer)))
  )
})

describe("a length that lies", () => {
  it.live("and promises more than comes is a body that was cut: the next attempt goes on", () =>
    Effect.gen(function* () {
      const { directory, keeper, server } = yield* prepared(Server.liesAboutLength(1))
      const error = yield* Effect.flip(attempt(server.origin, directory, keeper))
      assert.deepStrictEqual([error.cause, Fetch.retryable(error)], ["reset", true])
      assert.isFalse(nodeFs.existsSync(`${directory}/file.bin`))
      server.fault = Server.honest
      // its total was a lie too, so the file is another one: from the start
      const result = yield* attempt(server.origin, directory, keeper)
      assert.strictEqual(result.sha256, sha256(bytes))
    }).pipe(Effect.provide(Live))
  )

  it.live("and promises less cuts the file where nobody can see it, but for the hash", () =>
    Effect.gen(function* () {
      const { directory, keeper, server } = yield* prepared(Server.liesAboutLength(-1))
      const error = yield* Effect.flip(attempt(server.origin, directory, keeper, { sha256: sha256(bytes) }))
      assert.isTrue(Fetch.retryable(error))
      assert.isFalse(nodeFs.existsSync(`${directory}/file.bin`))
    }).pipe(Effect.provide(Live))
  )

  it.live("of a part that has no end is found when the file is full, and what was held stays good", () =>
    Effect.gen(function* () {
      const { directory, keeper, server } = yield* prepared(Server.cutAt(600_000))
      yield* Effect.flip(attempt(server.origin, directory, keeper))
      server.fault = Server.endlessPart
      const error = yield* Effect.flip(attempt(server.origin, directory, keeper))
      assert.deepStrictEqual([error.cause, Fetch.retryable(error)], ["reset", true])
      assert.isAtMost(nodeFs.statSync(`${directory}/${temporaryFiles(directory)[0]}`).size, size)
      server.fault = Server.honest
      assert.strictEqual((yield* attempt(server.origin, directory, keeper)).sha256, sha256(bytes))
      assert.isDefined(server.requests.at(-1)!.range)
    }).pipe(Effect.provide(Live))
  )
})

describe("an encoded body", () => {
  const text = Buffer.from("it goes on and on, ".repeat(20_000))
  const half = text.length / 2
  const parts = [zlib.gzipSync(text.subarray(0, half)), zlib.gzipSync(text.subarray(half))]
  const decodable: ReadonlyArray<readonly [name: string, encoding: string, body: Uint8Array]> = [
    ["gzip", "gzip", zlib.gzipSync(text)],
    ["gzip by its old name, in capitals", "X-GZIP", zlib.gzipSync(text)],
    ["gzip in two members", "gzip", Buffer.concat(parts)],
    ["deflate", "deflate", zlib.deflateSync(text)],
    ["deflate without its header", "deflate", zlib.deflateRawSync(text)],
    ["brotli", "br", zlib.brotliCompressSync(text)],
    ["identity", "identity", text]
  ]
  for (const [name, encoding, body] of decodable) {
    it.live(`is decoded though nobody asked for it, and not resumed: ${name}`, () =>
      Effect.gen(function* () {
        const { directory, keeper, server } = yield* prepared(Server.encoded(encoding, body))
        const options = { checkpointEveryBytes: 1, checkpointEveryMs: 0 }
        const result = yield* attempt(server.origin, directory, keeper, options)
        assert.strictEqual(result.sha256, sha256(text))
        assert.deepStrictEqual(nodeFs.readFileSync(result.path), text)
        assert.deepStrictEqual(nodeFs.readdirSync(directory), ["file.bin"])
        if (encoding !== "identity") assert.strictEqual(keeper.saves, 0)
        assert.strictEqual(server.requests[0]!.acceptEncoding, "identity")
      }).pipe(Effect.provide(Live))
    )
  }

  const zeros = (size: number, compress: (body: Uint8Array) => Uint8Array) => compress(new Uint8Array(size))
  const ratioBomb = Limits.decodeRatioFreeBytes * 8
  const undecodable: ReadonlyArray<readonly [string, string, Uint8Array, cause: Fetch.FetchError["cause"]]> = [
    ["is cut", "gzip", zlib.gzipSync(text).subarray(0, -100), "reset"],
    ["is brotli, and cut", "br", zlib.brotliCompressSync(text).subarray(0, -5), "reset"],
    ["is no gzip", "gzip", text, "decode"],
    ["is no brotli", "br", text, "decode"],
    ["is of an encoding that nobody knows", "lzma", text, "decode"],
    ["is encoded twice", "gzip, gzip", zlib.gzipSync(zlib.gzipSync(text)), "decode"],
    ["names an encoding of every object", "constructor", text, "decode"],
    ["becomes far more than it was", "gzip", zeros(ratioBomb, zlib.gzipSync), "ratio"],
    ["becomes far more than it was, as brotli", "br", zeros(ratioBomb, zlib.brotliCompressSync), "ratio"]
  ]
  for (const [name, encoding, body, cause] of undecodable) {
    it.live(`is an error, and leaves nothing, when it ${name}`, () =>
      Effect.gen(function* () {
        const { directory, keeper, server } = yield* prepared(Server.encoded(encoding, body))
        assert.strictEqual((yield* Effect.flip(attempt(server.origin, directory, keeper))).cause, cause)
        assert.deepStrictEqual(nodeFs.readdirSync(directory), [])
      }).pipe(Effect.provide(Live))
    )
  }

  it.live("is held to the size of what it becomes, at the ratio that is allowed", () =>
    Effect.gen(function* () {
      const body = zlib.gzipSync(text)
      const { directory, keeper, server } = yield* prepared(Server.encoded("gzip", body))
      const error = yield* Effect.flip(attempt(server.origin, directory, keeper, { bytesMax: text.length - 1 }))
      assert.strictEqual(error.cause, "size")
      assert.strictEqual(
        (yield* attempt(server.origin, directory, keeper, { bytesMax: text.length })).bytes,
        text.length
      )
      // more bytes than are allowed that become next to nothing
      const hollow = Buffer.concat(Array.from({ length: 100 }, () => zlib.gzipSync("")))
      server.fault = Server.encoded("gzip", hollow)
      const bytesMax = hollow.length - 1
      assert.strictEqual((yield* Effect.flip(attempt(server.origin, directory, keeper, { bytesMax }))).cause, "size")
      // more than a hundredfold, but not more than is free
      server.fault = Server.encoded("gzip", zeros(Limits.decodeRatioFreeBytes, zlib.gzipSync))
      assert.strictEqual((yield* attempt(server.origin, directory, keeper)).bytes, Limits.decodeRatioFreeBytes)
    }).pipe(Effect.provide(Live))
  )

  it.live("is asked for by whoever wants it", () =>
    Effect.gen(function* () {
      const { directory, keeper, server } = yield* prepared(Server.gzipAlways)
      const result = yield* attempt(server.origin, directory, keeper, { compressed: true })
      assert.strictEqual(server.requests[0]!.acceptEncoding, "gzip, deflate, br")
      assert.strictEqual(result.sha256, sha256(bytes))
    }).pipe(Effect.provide(Live))
  )
})
