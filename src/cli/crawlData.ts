/**
 * The data folder of a crawl: its store, and `crawl.json`, which says whose it is and whether the crawl is over.
 *
 * The folder lives as long as its crawl is unfinished. A crawl that was stopped, by whatever, finds it and goes on; one
 * that ended leaves none, so the next one starts anew. `crawl.json` is there before the store and goes after it: a store
 * without it belongs to a manager, and is not touched.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import { generateKey } from "../auth/Credentials.ts"
import { ConfigurationInvalid } from "../Errors.ts"
import { randomBytes } from "../platform/Crypto.ts"
import * as Store from "../Store.ts"
import { certificateFile } from "./network.ts"

const CrawlFile = Schema.Struct({
  id: Schema.String,
  url: Schema.String,
  depth: Schema.Int,
  state: Schema.Literals(["running", "ended"])
})
export type CrawlFile = typeof CrawlFile.Type

const codec = Schema.fromJsonString(CrawlFile)

export interface CrawlData {
  readonly crawl: CrawlFile
  /** The crawl began earlier, and goes on. */
  readonly resumed: boolean
}

export interface CrawlDataOptions {
  readonly directory: string
  readonly url: string
  readonly depth: number
  /** Drops an unfinished crawl. */
  readonly restart: boolean
}

/** A name that no other crawl has. */
export const crawlId = (): string => generateKey(randomBytes(32)).slice(0, 12)

const fault = (directory: string, remedy: string) =>
  new ConfigurationInvalid({ field: "--data", value: directory, remedy })

/** Finds the crawl to go on with, or begins one. */
export const open = Effect.fnUntraced(function* ({ depth, directory, restart, url }: CrawlDataOptions) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = path.join(directory, "crawl.json")
  const unusable = () => fault(directory, "the folder cannot be used; choose another, or mend its permissions")
  const exists = (name: string) => Effect.mapError(fs.exists(path.join(directory, name)), unusable)
  const found = (yield* exists("crawl.json")) ? yield* read(directory, file) : undefined
  if (found === undefined && (yield* exists("millrace.db"))) {
    return yield* fault(directory, "it holds the data of a manager, not of a crawl; name another folder")
  }
  if (found !== undefined && found.state === "running" && !restart) {
    if (found.url === url) {
      const data: CrawlData = { crawl: found, resumed: true }
      return data
    }
    const remedy = `it holds the unfinished crawl of ${found.url}; crawl that to its end, name another folder, or drop it with --restart`
    return yield* fault(directory, remedy)
  }
  if (found?.state === "running") {
    // Refused while another process has it.
    yield* Effect.scoped(Layer.build(Layer.fresh(Store.layerSqlite({ directory, acceptLoss: true }))))
  }
  if (found !== undefined) yield* remove(directory)
  const data: CrawlData = { crawl: { id: crawlId(), url, depth, state: "running" }, resumed: false }
  yield* Effect.mapError(fs.makeDirectory(directory, { recursive: true, mode: 0o700 }), unusable)
  yield* Effect.mapError(write(directory, data.crawl), unusable)
  return data
})

/** The crawl is over and reported: nothing is left to go on with. */
export const end = Effect.fnUntraced(function* (directory: string, crawl: CrawlFile) {
  // First said, then done: whoever comes in between finishes the removal.
  yield* write(directory, { ...crawl, state: "ended" })
  yield* remove(directory)
})

const read = Effect.fnUntraced(function* (directory: string, file: string) {
  const fs = yield* FileSystem.FileSystem
  return yield* fs.readFileString(file).pipe(
    Effect.flatMap(Schema.decodeEffect(codec)),
    Effect.mapError(() => fault(directory, "its crawl.json is not one of this program; name another folder"))
  )
})

const write = Effect.fnUntraced(function* (directory: string, crawl: CrawlFile) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const temporary = path.join(directory, "crawl.json.new")
  yield* fs.writeFileString(temporary, `${JSON.stringify(crawl)}\n`, { mode: 0o600 })
  yield* fs.rename(temporary, path.join(directory, "crawl.json"))
})

/** Removes the store and its crawl file, and the folder if nothing else is in it. */
const remove = Effect.fnUntraced(
  function* (directory: string) {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    for (const name of yield* fs.readDirectory(directory)) {
      if (name.startsWith("millrace.") || name === certificateFile)
        yield* fs.remove(path.join(directory, name), { force: true })
    }
    yield* fs.remove(path.join(directory, "crawl.json"), { force: true })
    if ((yield* fs.readDirectory(directory)).length === 0) yield* fs.remove(directory, { recursive: true })
  },
  Effect.catch((error) => Effect.logWarning(`what the crawl kept could not be removed: ${error.message}`))
)
