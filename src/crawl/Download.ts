/**
 * Files from URLs: any file to a path (`file`), and an image to a file named by its content (`download`).
 *
 * Both are one attempt that can be resumed: give them `checkpoint`, `saveCheckpoint` and `progress` of a task, or of
 * whatever else keeps a checkpoint, and let the queue retry them. `Transfer` says how.
 *
 * Invariant: what stands at a final path is complete, and is on the disk together with its name before the download
 * succeeds (with `sync: false`: it is handed to the operating system). Of an attempt that fails for good no temporary file
 * is left. One that may be gone on with leaves its file for the next attempt; `discard` removes it when there will be none,
 * `sweep` when nobody came for long.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Limits from "../Limits.ts"
import type * as Fetch from "./Fetch.ts"
import * as ImageType from "./ImageType.ts"
import * as Partial from "./Partial.ts"
import { type Job, type Received, type TransferOptions, transfer } from "./Transfer.ts"
import * as Url from "./Url.ts"

export { sweep, temporaryPrefix } from "./Partial.ts"
export { Checkpoint } from "./Range.ts"

interface Downloaded {
  readonly url: string
  readonly finalUrl: string
  readonly bytes: number
  readonly sha256: string
  /** The host of `url`: the lane it belongs to. */
  readonly host: string
}

export interface Download extends Downloaded {
  /** Relative to the directory, with `/` on every platform. */
  readonly file: string
  /** By the bytes where they tell, else as the server said. */
  readonly contentType: string
}

export interface DownloadOptions extends TransferOptions {
  readonly directory: string
  /** At most `imageBytesMax`. */
  readonly bytesMax?: number | undefined
}

type Services = Fetch.Fetch | FileSystem.FileSystem | Path.Path

const downloadedOf = ({ url }: TransferOptions, { bytes, finalUrl, sha256 }: Received): Downloaded => ({
  ...{ url, finalUrl, bytes, sha256 },
  host: Url.host(Url.parse(url)!)
})

const within = (wanted: number | undefined, max: number): number => Math.min(wanted ?? max, max)

const acceptImages = "image/avif,image/webp,image/*;q=0.9,*/*;q=0.5"

/**
 * Downloads one image to `ab/cd/<sha256>.<ext>`. Two downloads of the same content, at the same time or not, end in one
 * file.
 */
export const download = (options: DownloadOptions): Effect.Effect<Download, Fetch.FetchError, Services> => {
  const { directory } = options
  const job: Job<Download> = {
    directory,
    name: "",
    accept: acceptImages,
    bytesMax: within(options.bytesMax, Limits.imageBytesMax),
    headBytes: ImageType.headBytes,
    refuse: (head, contentType, bytes) =>
      ImageType.classify(head, contentType) === undefined
        ? `no image: ${ImageType.mimeType(contentType) || "of no type"}, ${bytes} bytes`
        : undefined,
    publish: Effect.fnUntraced(function* (partial, received, fail) {
      const { contentType, extension } = ImageType.classify(received.head, received.contentType)!
      const { sha256 } = received
      const file = `${sha256.slice(0, 2)}/${sha256.slice(2, 4)}/${sha256}.${extension}`
      const path = yield* Path.Path
      yield* publishContent(partial, path.join(directory, ...file.split("/")), fail)
      return { ...downloadedOf(options, received), file, contentType }
    })
  }
  return transfer(options, job)
}

/** A file of this name has this content; one of another size is none. */
const publishContent = Effect.fnUntraced(function* (partial: Partial.Partial, target: string, fail: Partial.Fail) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const existing = yield* Effect.option(fs.stat(target))
  if (Option.isNone(existing) || existing.value.size !== BigInt(partial.bytes)) {
    return yield* Partial.publish(partial, target, fail)
  }
  // whoever put it there may not have come to this line yet
  if (partial.durable) yield* Partial.diskError(fail)(Partial.syncDirectory(path.dirname(target)))
})

export interface DownloadedFile extends Downloaded {
  readonly path: string
  /** As the server said, in lower case, without parameters; empty: it said nothing. */
  readonly contentType: string
}

export interface FileOptions extends TransferOptions {
  /** The final path. A file that has it is replaced, in one step. */
  readonly path: string
  readonly accept?: string | undefined
  /** At most `fileBytesMax`. */
  readonly bytesMax?: number | undefined
}

/** Downloads one file, of whatever type, to a path. */
export const file = Effect.fnUntraced(function* (
  options: FileOptions
): Effect.fn.Return<DownloadedFile, Fetch.FetchError, Services> {
  const path = yield* Path.Path
  const target = path.resolve(options.path)
  const job: Job<DownloadedFile> = {
    directory: path.dirname(target),
    name: path.basename(target),
    accept: options.accept ?? "*/*",
    bytesMax: within(options.bytesMax, Limits.fileBytesMax),
    headBytes: 0,
    refuse: () => undefined,
    publish: (partial, received, fail) =>
      Effect.as(Partial.publish(partial, target, fail), {
        ...downloadedOf(options, received),
        path: target,
        contentType: ImageType.mimeType(received.contentType)
      })
  }
  return yield* transfer(options, job)
})

/**
 * Removes what attempts at a download have left, when there will be no other: those of an `id`, or of a URL. The
 * directory is the one of the final file; `name` is its name where it was known before (`file`).
 */
export const discard = (options: {
  readonly directory: string
  readonly name?: string | undefined
  readonly id: string
}): Effect.Effect<void, never, FileSystem.FileSystem | Path.Path> =>
  Partial.discardAll(options.directory, Partial.keyOf(options.name ?? "", options.id))
