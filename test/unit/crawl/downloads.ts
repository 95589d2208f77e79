/** What the tests of downloads share: a folder, a checkpoint that is kept as JSON, and one attempt. */
import * as crypto from "node:crypto"
import * as nodeFs from "node:fs"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Download from "../../../src/crawl/Download.ts"
import * as Fetch from "../../../src/crawl/Fetch.ts"

export const Live = Layer.mergeAll(Fetch.layer, NodeServices.layer)

export const sha256 = (bytes: Uint8Array): string => crypto.createHash("sha256").update(bytes).digest("hex")

export const temporaryDirectory = Effect.flatMap(FileSystem.FileSystem, (fs) => fs.makeTempDirectoryScoped())

export const temporaryFiles = (directory: string): ReadonlyArray<string> =>
  nodeFs.readdirSync(directory).filter((name) => name.startsWith(Download.temporaryPrefix))

/** Keeps a checkpoint as a queue would: as text that has gone through its Schema. */
export class Keeper {
  #text: string | undefined
  saves = 0

  get checkpoint(): Download.Checkpoint | undefined {
    return this.#text === undefined ? undefined : Schema.decodeUnknownSync(Download.Checkpoint)(JSON.parse(this.#text))
  }

  set checkpoint(checkpoint: Download.Checkpoint | undefined) {
    this.#text = checkpoint === undefined ? undefined : JSON.stringify(checkpoint)
  }

  readonly saveCheckpoint = (checkpoint: Download.Checkpoint): Effect.Effect<void> =>
    Effect.sync(() => {
      this.saves++
      this.checkpoint = checkpoint
    })
}

/** One attempt at `origin/file`, to `directory/file.bin`, that goes on with what the keeper has. */
export const attempt = (
  origin: string,
  directory: string,
  keeper: Keeper,
  options: Partial<Download.FileOptions> = {}
) =>
  Download.file({
    url: `${origin}/file`,
    path: `${directory}/file.bin`,
    checkpoint: keeper.checkpoint,
    saveCheckpoint: keeper.saveCheckpoint,
    checkpointEveryBytes: 64 * 1_024,
    ...options
  })

/** Node's file system, watched or broken: what is done to files that are made anew, and to names. */
export const fileSystemWith = (intercept: {
  readonly rename?: () => void
  readonly sync?: (sync: FileSystem.File["sync"]) => FileSystem.File["sync"]
  readonly writeAll?: (write: FileSystem.File["sync"], buffer: Uint8Array) => FileSystem.File["sync"]
  /** Of what is opened to be read: folders. */
  readonly syncFolder?: (sync: FileSystem.File["sync"]) => FileSystem.File["sync"]
}) =>
  Layer.effect(
    FileSystem.FileSystem,
    Effect.map(FileSystem.FileSystem, (fs) =>
      FileSystem.FileSystem.of({
        ...fs,
        open: (path, options) =>
          Effect.map(fs.open(path, options), (opened) =>
            options?.flag === "wx"
              ? interceptedFile(opened, intercept)
              : interceptedFile(opened, intercept.syncFolder === undefined ? {} : { sync: intercept.syncFolder })
          ),
        rename: (from, to) => Effect.andThen(Effect.sync(intercept.rename ?? (() => {})), fs.rename(from, to))
      })
    )
  ).pipe(Layer.provideMerge(NodeServices.layer))

const interceptedFile = (
  file: FileSystem.File,
  { sync = (effect) => effect, writeAll = (effect) => effect }: Parameters<typeof fileSystemWith>[0]
): FileSystem.File =>
  new Proxy(file, {
    get: (target, name) => {
      if (name === "sync") return sync(target.sync)
      if (name === "writeAll") return (buffer: Uint8Array) => writeAll(target.writeAll(buffer), buffer)
      const value = Reflect.get(target, name, target)
      return typeof value === "function" ? value.bind(target) : value
    }
  })
