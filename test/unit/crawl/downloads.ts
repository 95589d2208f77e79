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
