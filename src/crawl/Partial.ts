/**
 * The temporary file of one attempt at a download, in the folder where the finished file goes.
 *
 * Its name is what is downloaded, as a hash, and a random part that is new for each attempt and stands in the checkpoint.
 * So whoever has the folder and the checkpoint finds it. An attempt never writes into the file of an earlier one: it copies
 * the bytes that the checkpoint vouches for, and hashes them on the way. For the earlier one may only have been taken
 * for dead (a machine that slept), and what it still writes must not get into a file that is published.
 *
 * Invariant: only its own attempt writes to a temporary file, and the hash is of what was written. When the scope closes,
 * it is gone, renamed, or kept on purpose.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { Hex } from "effect/encoding"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import type * as Scope from "effect/Scope"
import * as Limits from "../Limits.ts"
import * as Crypto from "../platform/Crypto.ts"
import type { FetchError } from "./FetchError.ts"
import type { Checkpoint } from "./Range.ts"

export const temporaryPrefix = ".tmp-"

export type Fail = (cause: FetchError["cause"], detail: string) => FetchError

export interface Partial {
  readonly path: string
  readonly part: string
  readonly file: FileSystem.File
  hash: Crypto.Sha256Stream
  /** Whether the finished file and its name must be on the disk. */
  readonly durable: boolean
  /** Bytes in the file. */
  bytes: number
  /** Whether it outlives the scope. */
  keep: boolean
  /** Whether it has its final name. */
  published: boolean
}

const encoder = new TextEncoder()

/** Names all attempts at one thing: the final name, if it is known before, and the task or the URL. */
export const keyOf = (name: string, id: string): string =>
  Hex.encode(Crypto.sha256(encoder.encode(`${name}\n${id}`))).slice(0, 16)

const pathOf = (path: Path.Path, directory: string, key: string, part: string): string =>
  path.join(directory, temporaryPrefix + key + part)

export const diskError =
  (fail: Fail) =>
  <A, R>(effect: Effect.Effect<A, PlatformError.PlatformError, R>): Effect.Effect<A, FetchError, R> =>
    Effect.mapError(effect, (error) => fail("disk", `${error.reason._tag} ${error.message}`))

const isMissing = (error: PlatformError.PlatformError): boolean => error.reason._tag === "NotFound"

/**
 * A new, empty file. The folder is looked at only when the file cannot be made: two calls of the file system less for each
 * file but the first.
 */
export const create = Effect.fnUntraced(function* (
  directory: string,
  key: string,
  durable: boolean,
  fail: Fail
): Effect.fn.Return<Partial, FetchError, FileSystem.FileSystem | Path.Path | Scope.Scope> {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const part = Hex.encode(Crypto.randomBytes(8))
  const temporary = pathOf(path, directory, key, part)
  const state = { keep: false, published: false }
  // registered first, so that it runs after the file is closed; the name is random, so it can only remove our own file
  yield* Effect.addFinalizer(() =>
    state.keep || state.published ? Effect.void : Effect.ignore(fs.remove(temporary, { force: true }))
  )
  const open = fs.open(temporary, { flag: "wx" })
  const openInNewFolder = Effect.gen(function* () {
    yield* fs.makeDirectory(directory, { recursive: true })
    if (durable) yield* syncDirectory(path.dirname(directory))
    return yield* open
  })
  const file = yield* diskError(fail)(Effect.catchIf(open, isMissing, () => openInNewFolder))
  return Object.assign(state, { path: temporary, part, file, durable, hash: Crypto.sha256Stream(), bytes: 0 })
})

/** Adds bytes. Uninterruptible: a write left behind could land in the next file that gets this descriptor. */
export const write = (partial: Partial, bytes: Uint8Array, fail: Fail): Effect.Effect<void, FetchError> =>
  Effect.uninterruptible(
    Effect.suspend(() => {
      partial.hash.update(bytes)
      return Effect.map(diskError(fail)(partial.file.writeAll(bytes)), () => {
        partial.bytes += bytes.length
      })
    })
  )

/** All that was written is on the disk. */
export const sync = (partial: Partial, fail: Fail): Effect.Effect<void, FetchError> =>
  Effect.uninterruptible(diskError(fail)(partial.file.sync))

/** Whether the file of a checkpoint is here, and not shorter than it should be. */
export const isHere = Effect.fnUntraced(function* (directory: string, key: string, checkpoint: Checkpoint) {
  const fs = yield* FileSystem.FileSystem
  const found = yield* Effect.option(fs.stat(pathOf(yield* Path.Path, directory, key, checkpoint.part)))
  return Option.isSome(found) && found.value.type === "File" && Number(found.value.size) >= checkpoint.bytes
})

/**
 * Takes over the bytes of a checkpoint from the file of an earlier attempt; what that file has beyond them is left. False,
 * and nothing taken over, when they are not the bytes that were hashed then.
 */
export const adopt = Effect.fnUntraced(function* (
  partial: Partial,
  directory: string,
  key: string,
  checkpoint: Checkpoint,
  fail: Fail
) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const disk = diskError(fail)
  const opened = yield* Effect.option(fs.open(pathOf(path, directory, key, checkpoint.part), { flag: "r" }))
  if (Option.isSome(opened)) {
    const buffer = new Uint8Array(Math.min(Limits.adoptBytes, checkpoint.bytes))
    while (partial.bytes < checkpoint.bytes) {
      const room = buffer.subarray(0, Math.min(buffer.length, checkpoint.bytes - partial.bytes))
      // uninterruptible: it reads into our buffer by a descriptor that is closed when we are interrupted
      const read = yield* Effect.uninterruptible(disk(opened.value.read(room)))
      if (read === 0) break
      yield* write(partial, room.subarray(0, read), fail)
    }
    if (partial.bytes === checkpoint.bytes && partial.hash.soFar() === checkpoint.sha256) return true
    yield* Effect.uninterruptible(disk(partial.file.truncate(0)))
    partial.bytes = 0
    partial.hash = Crypto.sha256Stream()
  }
  return false
}, Effect.scoped)

/** Reads the beginning back; answers how many bytes there were. */
export const readHead = Effect.fnUntraced(function* (partial: Partial, into: Uint8Array, fail: Fail) {
  const fs = yield* FileSystem.FileSystem
  const file = yield* diskError(fail)(fs.open(partial.path, { flag: "r" }))
  let size = 0
  while (size < into.length) {
    const read = yield* Effect.uninterruptible(diskError(fail)(file.read(into.subarray(size))))
    if (read === 0) break
    size += read
  }
  return size
}, Effect.scoped)

/** Removes the file of an earlier attempt. */
export const discardPart = Effect.fnUntraced(function* (directory: string, key: string, part: string) {
  const fs = yield* FileSystem.FileSystem
  yield* Effect.ignore(fs.remove(pathOf(yield* Path.Path, directory, key, part), { force: true }))
})

/** Removes the files of all attempts at one thing. */
export const discardAll = Effect.fnUntraced(function* (directory: string, key: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  for (const name of yield* Effect.orElseSucceed(fs.readDirectory(directory), () => [])) {
    if (!name.startsWith(temporaryPrefix + key)) continue
    yield* Effect.ignore(fs.remove(path.join(directory, name), { force: true }))
  }
})

/**
 * Gives a finished file its name, over one that had it. Ensures: content and name are on the disk, where the file is
 * durable.
 */
export const publish = Effect.fnUntraced(function* (partial: Partial, target: string, fail: Fail) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const disk = diskError(fail)
  const folder = path.dirname(target)
  const { durable } = partial
  if (durable) yield* sync(partial, fail)
  const rename = fs.rename(partial.path, target)
  const renameToNewFolder = Effect.gen(function* () {
    yield* fs.makeDirectory(folder, { recursive: true })
    yield* rename
    if (!durable) return
    yield* syncDirectory(path.dirname(folder))
    yield* syncDirectory(path.dirname(partial.path))
  })
  yield* disk(Effect.catchIf(rename, isMissing, () => renameToNewFolder))
  partial.published = true
  if (durable) yield* disk(syncDirectory(folder))
})

/** One sync of a folder, and the one that comes after it. */
interface FolderSync {
  readonly done: Deferred.Deferred<void, PlatformError.PlatformError>
  next: FolderSync | undefined
}

/** The sync under way of each folder. */
const syncing = new WeakMap<FileSystem.FileSystem, Map<string, FolderSync>>()

/**
 * Makes the names in a folder durable. Whoever comes while it is synced waits for the next sync, together with all who come
 * until that begins: of files that are finished at the same time, many share one commit of the file system.
 *
 * A platform that cannot open a directory (Windows) makes names durable by itself.
 */
export const syncDirectory = (
  directory: string
): Effect.Effect<void, PlatformError.PlatformError, FileSystem.FileSystem> =>
  // uninterruptible: others wait for it
  Effect.uninterruptible(
    Effect.flatMap(FileSystem.FileSystem, (fs) => {
      const folders = syncing.get(fs) ?? new Map<string, FolderSync>()
      syncing.set(fs, folders)
      const now = folders.get(directory)
      const own: FolderSync = { done: Deferred.makeUnsafe(), next: undefined }
      if (now === undefined) return leadSync(fs, folders, directory, own)
      if (now.next !== undefined) return Deferred.await(now.next.done)
      now.next = own
      const lead = leadSync(fs, folders, directory, own)
      return Effect.andThen(Effect.exit(Deferred.await(now.done)), lead)
    })
  )

const leadSync = (fs: FileSystem.FileSystem, folders: Map<string, FolderSync>, directory: string, own: FolderSync) =>
  Effect.suspend(() => {
    folders.set(directory, own)
    const sync = Effect.scoped(
      Effect.flatMap(Effect.option(fs.open(directory, { flag: "r" })), (opened) =>
        Option.isSome(opened) ? opened.value.sync : Effect.void
      )
    )
    return Effect.onExit(sync, (exit) =>
      Effect.sync(() => {
        // one who waits has it in hand; until then it stands here for those who come
        if (own.next === undefined) folders.delete(directory)
        Deferred.doneUnsafe(own.done, exit)
      })
    )
  })

/**
 * Removes temporary files that a killed process left in a directory, those that were not written for `olderThanMs`.
 * Answers how many. A directory that is not there has none.
 */
export const sweep = Effect.fnUntraced(function* (
  directory: string,
  olderThanMs: number = Limits.temporaryMsMax
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
