/**
 * One image from a URL to a file named by its content: `ab/cd/<sha256>.<ext>`.
 *
 * One attempt, from the first byte: retries are the queue's job, and there is no resuming. The bytes stream through a
 * temporary file in the target directory; they are counted, hashed and judged on the way and are never in memory as a
 * whole.
 *
 * Invariant: what stands at a final path is complete, is what its name says, and is on the disk together with its name
 * before `download` succeeds. After a failure or an interruption the temporary file is gone; after a crash `sweep`
 * removes it.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Limits from "../Limits.ts"
import * as Crypto from "../platform/Crypto.ts"
import * as Fetch from "./Fetch.ts"
import * as ImageType from "./ImageType.ts"
import * as Url from "./Url.ts"

export interface Download {
  readonly url: string
  readonly finalUrl: string
  /** Relative to the directory, with `/` on every platform. */
  readonly file: string
  readonly bytes: number
  readonly sha256: string
  /** By the bytes where they tell, else as the server said. */
  readonly contentType: string
  /** The host of `url`: the lane it belongs to. */
  readonly host: string
}

export interface DownloadOptions {
  readonly url: string
  readonly directory: string
  readonly referer?: string | undefined
  readonly allow?: ((url: URL) => boolean) | undefined
  /** At most `imageBytesMax`. */
  readonly bytesMax?: number | undefined
}

export const temporaryPrefix = ".tmp-"
/** Age at which `sweep` takes a temporary file for left behind. */
export const temporaryMsMax = 60 * 60_000
/** A body that stays below this speed over a whole window is given up as `slow`. */
export const bytesPerSecondMin = 1_024
const speedWindowMs = 30_000

const accept = "image/avif,image/webp,image/*;q=0.9,*/*;q=0.5"

type Fail = (cause: Fetch.FetchError["cause"], detail: string) => Fetch.FetchError

const downloadScoped = Effect.fnUntraced(function* (options: DownloadOptions) {
  const { open } = yield* Fetch.Fetch
  const { allow, directory, referer, url } = options
  const response = yield* open(url, { accept, referer, allow })
  const refused = yield* Fetch.statusError(response)
  if (refused !== undefined) return yield* refused
  const fail: Fail = (cause, detail) =>
    new Fetch.FetchError({ url: response.url, cause, detail, status: response.status })

  const encoding = response.headers["content-encoding"] || "identity"
  if (encoding !== "identity") return yield* fail("decode", `encoded as ${encoding}, which was not asked for`)
  const bytesMax = Math.min(options.bytesMax ?? Limits.imageBytesMax, Limits.imageBytesMax)
  const promised = Fetch.contentLength(response)
  if (promised !== undefined && promised > bytesMax) {
    return yield* fail("size", `${promised} bytes promised, ${bytesMax} allowed`)
  }

  const temporary = yield* openTemporary(directory, fail)
  const received = yield* receive(response, temporary.file, bytesMax, fail)
  if (promised !== undefined && promised !== received.bytes) {
    return yield* fail("reset", `${promised} bytes promised, ${received.bytes} received`)
  }
  const { bytes, sha256, type } = received
  const file = `${sha256.slice(0, 2)}/${sha256.slice(2, 4)}/${sha256}.${type.extension}`
  yield* publish(temporary, directory, file, bytes, fail)
  const result: Download = {
    url,
    finalUrl: response.url,
    file,
    bytes,
    sha256,
    contentType: type.contentType,
    host: Url.host(Url.parse(url)!)
  }
  return result
})

/** Downloads one image. Two downloads of the same content, at the same time or not, end in one file. */
export const download = (
  options: DownloadOptions
): Effect.Effect<Download, Fetch.FetchError, Fetch.Fetch | FileSystem.FileSystem | Path.Path> =>
  Effect.scoped(downloadScoped(options))

const diskError =
  (fail: Fail) =>
  <A, R>(effect: Effect.Effect<A, PlatformError.PlatformError, R>): Effect.Effect<A, Fetch.FetchError, R> =>
    Effect.mapError(effect, (error) => fail("disk", `${error.reason._tag} ${error.message}`))

interface Temporary {
  readonly path: string
  readonly file: FileSystem.File
}

/** A new file of a random name; when the scope closes it is closed, and removed unless it was renamed. */
const openTemporary = Effect.fnUntraced(function* (
  directory: string,
  fail: Fail
): Effect.fn.Return<Temporary, Fetch.FetchError, FileSystem.FileSystem | Path.Path | Scope.Scope> {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const name =
    temporaryPrefix + Array.from(Crypto.randomBytes(16), (byte) => byte.toString(16).padStart(2, "0")).join("")
  const temporary = path.join(directory, name)
  yield* diskError(fail)(fs.makeDirectory(directory, { recursive: true }))
  // registered first, so that it runs after the file is closed; the name is random, so it can only remove our own file
  yield* Effect.addFinalizer(() => Effect.ignore(fs.remove(temporary, { force: true })))
  const file = yield* diskError(fail)(fs.open(temporary, { flag: "wx" }))
  return { path: temporary, file }
})

/** Streams the body into the file: bounded, hashed, and given up as soon as the first bytes are no image. */
const receive = Effect.fnUntraced(function* (
  response: Fetch.FetchResponse,
  file: FileSystem.File,
  bytesMax: number,
  fail: Fail
) {
  const contentType = response.headers["content-type"]
  const hash = Crypto.sha256Stream()
  const head = new Uint8Array(ImageType.headBytes)
  let bytes = 0
  let type: ImageType.ImageType | undefined
  let windowAtMs = yield* Clock.currentTimeMillis
  let windowBytes = 0

  const notAnImage = () => fail("type", `no image: ${ImageType.mimeType(contentType) || "of no type"}, ${bytes} bytes`)
  const classify = () => ImageType.classify(head.subarray(0, Math.min(bytes, head.length)), contentType)

  yield* Stream.runForEach(
    response.body,
    Effect.fnUntraced(function* (chunk: Uint8Array) {
      if (bytes < head.length) head.set(chunk.subarray(0, head.length - bytes), bytes)
      bytes += chunk.length
      if (bytes > bytesMax) return yield* fail("size", `an image of more than ${bytesMax} bytes`)
      if (type === undefined && bytes >= head.length) {
        type = classify()
        if (type === undefined) return yield* notAnImage()
      }
      const nowMs = yield* Clock.currentTimeMillis
      windowBytes += chunk.length
      if (nowMs - windowAtMs >= speedWindowMs) {
        const bytesPerSecond = Math.floor((windowBytes * 1_000) / (nowMs - windowAtMs))
        if (bytesPerSecond < bytesPerSecondMin) return yield* fail("slow", `${bytesPerSecond} bytes a second`)
        windowAtMs = nowMs
        windowBytes = 0
      }
      hash.update(chunk)
      // uninterruptible: a write left behind could land in the next file that gets this descriptor
      yield* Effect.uninterruptible(diskError(fail)(file.writeAll(chunk)))
    })
  )
  type ??= classify()
  if (type === undefined) return yield* notAnImage()
  return { bytes, type, sha256: hash.hex() }
})

/** Moves a finished temporary file to its name. Ensures: content and name are on the disk. */
const publish = Effect.fnUntraced(function* (
  temporary: Temporary,
  directory: string,
  file: string,
  bytes: number,
  fail: Fail
) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const target = path.join(directory, ...file.split("/"))
  const folder = path.dirname(target)
  const parent = path.dirname(folder)
  const disk = diskError(fail)
  const existing = yield* Effect.option(fs.stat(target))
  if (Option.isNone(existing) || existing.value.size !== BigInt(bytes)) {
    const folderIsNew = !(yield* disk(fs.exists(folder)))
    yield* Effect.uninterruptible(disk(temporary.file.sync))
    yield* disk(fs.makeDirectory(folder, { recursive: true }))
    yield* disk(fs.rename(temporary.path, target))
    if (folderIsNew) {
      yield* syncDirectory(parent, fail)
      yield* syncDirectory(directory, fail)
    }
  }
  // also where the file was there already: whoever put it there may not have come to this line yet
  yield* syncDirectory(folder, fail)
})

/** A platform that cannot open a directory (Windows) makes names durable by itself. */
const syncDirectory = Effect.fnUntraced(function* (directory: string, fail: Fail) {
  const fs = yield* FileSystem.FileSystem
  const opened = yield* Effect.option(fs.open(directory, { flag: "r" }))
  if (Option.isSome(opened)) yield* Effect.uninterruptible(diskError(fail)(opened.value.sync))
}, Effect.scoped)

/**
 * Removes temporary files that a killed process left in a directory, those that were not written for `olderThanMs`.
 * Answers how many. A directory that is not there has none.
 */
export const sweep = Effect.fnUntraced(function* (
  directory: string,
  olderThanMs: number = temporaryMsMax
): Effect.fn.Return<number, PlatformError.PlatformError, FileSystem.FileSystem | Path.Path> {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  if (!(yield* fs.exists(directory))) return 0
  const nowMs = yield* Clock.currentTimeMillis
  let removed = 0
  for (const name of yield* fs.readDirectory(directory)) {
    if (!name.startsWith(temporaryPrefix)) continue
    const file = path.join(directory, name)
    // a file that is gone by now was another process's, and is in order
    const info = yield* Effect.option(fs.stat(file))
    if (Option.isNone(info) || info.value.type !== "File") continue
    const writtenMs = Option.getOrUndefined(info.value.mtime)?.getTime() ?? nowMs
    if (nowMs - writtenMs < olderThanMs) continue
    yield* fs.remove(file, { force: true })
    removed++
  }
  return removed
})
