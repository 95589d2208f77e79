/** `millrace work`: a worker program: the crawler's, or a module of one's own. */

import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import { generateKey } from "../auth/Credentials.ts"
import * as Client from "../Client.ts"
import * as Crawl from "../crawl/Crawl.ts"
import { sweep } from "../crawl/Download.ts"
import { ConfigurationInvalid } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import { randomBytes } from "../platform/Crypto.ts"
import { hostname, onStdinClosed } from "../platform/Process.ts"
import * as Options from "./options.ts"

export const hostConcurrency = Flag.Int("host-concurrency").pipe(
  Flag.withDescription("Requests of one worker to one host at a time (default 4)"),
  Flag.withDefault(4)
)

export const work = Command.make(
  "work",
  {
    ...Options.connection,
    module: Flag.String("module").pipe(
      Flag.withDescription("A module whose default export is a worker layer (default: the crawler's workers)"),
      Flag.optional
    ),
    out: Flag.String("out").pipe(
      Flag.withDescription("Folder for the crawler's files (default downloads)"),
      Flag.withDefault("downloads")
    ),
    pageConcurrency: Flag.Int("page-concurrency").pipe(
      Flag.withDescription("Pages at a time (default 4)"),
      Flag.withDefault(4)
    ),
    imageConcurrency: Flag.Int("image-concurrency").pipe(
      Flag.withDescription("Images at a time (default 8)"),
      Flag.withDefault(8)
    ),
    hostConcurrency,
    withParent: Flag.Boolean("with-parent").pipe(Flag.withHidden, Flag.withDefault(false))
  },
  Effect.fn(function* (options) {
    const to = yield* Options.connect(options)
    const worker = Option.isSome(options.module) ? yield* loadWorker(options.module.value) : yield* crawlWorker(options)
    // The workers of a crawl are told of by the crawl.
    const announce = options.withParent
      ? Effect.void
      : Effect.flatMap(Client.Client, ({ link }) => Effect.logInfo(`working for the manager at ${link.address}`))
    const live = Layer.effectDiscard(announce).pipe(
      Layer.provide(worker),
      Layer.provide(Client.layerTcp({ ...to, waitForManager: true }))
    )
    const parentGone = options.withParent ? yield* untilParentIsGone : Effect.never
    yield* Effect.raceFirst(Layer.launch(live), parentGone)
  })
).pipe(
  Command.withDescription("Run a worker: it leases tasks, does them and commits their results until it is stopped"),
  Command.withExamples([
    { command: "millrace work --authkey-file millrace.key --out downloads", description: "A worker for crawls" },
    { command: "millrace work --module ./my-worker.ts", description: "A worker of one's own" }
  ])
)

export interface CrawlWorkerOptions {
  readonly out: string
  readonly pageConcurrency: number
  readonly imageConcurrency: number
  readonly hostConcurrency: number
}

const crawlWorker = Effect.fnUntraced(function* (options: CrawlWorkerOptions) {
  for (const field of ["pageConcurrency", "imageConcurrency", "hostConcurrency"] as const) {
    const flag = `--${field.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
    yield* Options.inRange(flag, options[field], 1, Limits.concurrencyMax)
  }
  const directory = yield* writableFolder(options.out)
  yield* Effect.ignore(sweep(directory))
  return Crawl.layerWorker({ ...options, directory, host: hostname() })
})

/** The folder, made if need be, and proven writable: better now than once per image. */
export const writableFolder = Effect.fnUntraced(function* (out: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const directory = path.resolve(out)
  const probe = path.join(directory, `.tmp-probe-${generateKey(randomBytes(32)).slice(0, 12)}`)
  yield* fs.makeDirectory(directory, { recursive: true }).pipe(
    Effect.andThen(fs.writeFileString(probe, "")),
    Effect.andThen(fs.remove(probe)),
    Effect.mapError(
      () =>
        new ConfigurationInvalid({
          field: "--out",
          value: directory,
          remedy: "the folder cannot be written to; choose another, or mend its permissions"
        })
    )
  )
  return directory
})

const loadWorker = Effect.fnUntraced(function* (file: string) {
  const path = yield* Path.Path
  const url = yield* Effect.orDie(path.toFileUrl(path.resolve(file)))
  const invalid = (remedy: string) => new ConfigurationInvalid({ field: "--module", value: file, remedy })
  const module: unknown = yield* Effect.tryPromise({
    try: () => import(url.href),
    catch: (error) => invalid(`it does not load (${String(error)})`)
  })
  const layer = typeof module === "object" && module !== null && "default" in module ? module.default : undefined
  if (!Layer.isLayer(layer))
    return yield* invalid("its default export must be a layer, such as Worker.layer(queue, handler)")
  return layer as ReturnType<typeof Crawl.layerWorker>
})

const untilParentIsGone = Effect.gen(function* () {
  const gone = yield* Deferred.make<void>()
  onStdinClosed(() => Deferred.doneUnsafe(gone, Effect.void))
  return Deferred.await(gone)
})
