/**
 * A whole crawl from one command: a manager in this process, worker processes beside it, the master's watch, a report.
 *
 * Workers are supervised: one that dies is started again, a few times; what it held comes back to the others when its
 * lease is over. When none is left the crawl fails. A worker that refuses to start (its folder, its key) is not tried
 * again: it has said why.
 */
import * as Clock from "effect/Clock"
import * as Console from "effect/Console"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import type { Auth } from "../auth/Auth.ts"
import { keyText, userDefault } from "../auth/Auth.ts"
import { generateKey } from "../auth/Credentials.ts"
import * as Crawl from "../crawl/Crawl.ts"
import { sweep } from "../crawl/Download.ts"
import * as Master from "../crawl/Master.ts"
import { ConfigurationInvalid } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import * as Manager from "../Manager.ts"
import { randomBytes } from "../platform/Crypto.ts"
import type { Address, ServerTls } from "../platform/Network.ts"
import { type Child, spawnScript } from "../platform/Process.ts"
import { Hurry } from "../worker/Worker.ts"
import * as CrawlData from "./crawlData.ts"
import * as Network from "./network.ts"
import { inRange, keyVariable, portOf } from "./options.ts"
import * as Stores from "./storeOptions.ts"
import { writableFolder } from "./work.ts"

export interface RunCrawlOptions {
  readonly url: string
  readonly out: string
  readonly workers: number
  readonly maxPages?: number | undefined
  readonly depth?: number | undefined
  readonly hostConcurrency: number
  readonly leaseMs?: number | undefined
  /** How the manager listens, for workers on other machines. Default: on the loopback of this one. */
  readonly listen?: Network.NetworkOptions | undefined
  /** Default: a free port. */
  readonly port?: number | undefined
  readonly auth?: Auth | undefined
  /** Folder of the crawl's own data. Default `.millrace` in the out folder. */
  readonly data?: string | undefined
  /** Keeps the crawl in memory: it cannot go on after it was stopped. */
  readonly memory?: boolean | undefined
  readonly durability?: "fsync" | "buffered" | undefined
  /** Drops an unfinished crawl found in the data folder. */
  readonly restart?: boolean | undefined
  /** The command-line program that workers are started with. */
  readonly script: string
  readonly onProgress: (progress: Master.Progress) => Effect.Effect<void>
}

export interface CrawlReport extends Master.Summary {
  readonly seconds: number
  readonly workers: number
  /** Why the last page that failed did. */
  readonly pageFailed: string | undefined
}

const restartsMax = 3
/** Beside the files of the crawl. */
export const dataFolderDefault = ".millrace"

/** How a worker of this machine reaches the crawl's manager. */
const workerFlags = (address: Address, tls: ServerTls | undefined, user: string): ReadonlyArray<string> => {
  if (address._tag === "Unix") return []
  const join = Network.joinHere(tls, address, user)
  if (join !== undefined) return ["--join", join]
  return ["--host", Network.reachable(address.host), "--port", String(address.port)]
}

export const runCrawl = Effect.fnUntraced(function* (options: RunCrawlOptions) {
  const { depth, leaseMs, maxPages, port, url, workers } = options
  if (Crawl.seedOf({ url }) === undefined) return yield* Master.urlInvalid(url)
  yield* inRange("--workers", workers, 1, 256)
  if (maxPages !== undefined) yield* inRange("--max-pages", maxPages, 1)
  if (depth !== undefined) yield* inRange("--depth", depth, 0)
  if (leaseMs !== undefined) yield* inRange("--lease", leaseMs / 1_000, 1, Limits.leaseMsMax / 1_000)
  yield* inRange("--host-concurrency", options.hostConcurrency, 1, Limits.concurrencyMax)
  yield* portOf(port ?? 0)
  const directory = yield* writableFolder(options.out)
  const path = yield* Path.Path
  const dataFolder =
    options.memory === true ? undefined : path.resolve(options.data ?? path.join(directory, dataFolderDefault))
  const prepare = options.listen === undefined ? undefined : yield* Network.checked(options.listen)
  const wanted = { url, depth: depth ?? Crawl.depthDefault }
  const data =
    dataFolder === undefined
      ? undefined
      : yield* CrawlData.open({ directory: dataFolder, restart: options.restart ?? false, ...wanted })
  const resumed = data?.resumed ?? false
  const crawlOf = data?.crawl ?? { id: CrawlData.crawlId(), ...wanted, state: "running" as const }
  if (resumed) {
    yield* Effect.logInfo(`going on with the unfinished crawl of ${url} (data in ${dataFolder})`)
    if (depth !== undefined && depth !== crawlOf.depth) {
      yield* Effect.logWarning(`it began with --depth ${crawlOf.depth} and keeps it; start over with --restart`)
    }
  }
  const auth: Auth = options.auth ?? { key: generateKey(randomBytes(Limits.authkeyGeneratedBytes)) }
  const at = prepare === undefined ? Network.thisMachine : yield* prepare(dataFolder)
  const { Images, Pages } = Crawl.queues({ maxPages, leaseMs })
  const live = Manager.layerTcp({ ...at, port: port ?? 0, auth }).pipe(
    Layer.provideMerge(Manager.layer({ queues: [Pages, Images] })),
    Layer.provide(Stores.layer(dataFolder, options.durability))
  )
  const crawl = Effect.gen(function* () {
    const clock = yield* Clock.Clock
    const startedAt = clock.monotonicTimeNanosUnsafe()
    const { address } = yield* Manager.Listening
    yield* Network.announce(at, address, auth.user ?? userDefault, Console.error)
    const args = [
      "work",
      ...workerFlags(address, at.tls, auth.user ?? userDefault),
      ...["--out", directory],
      ...["--host-concurrency", String(options.hostConcurrency), "--with-parent"]
    ]
    const start = Effect.sync(() =>
      spawnScript(options.script, auth.user === undefined ? args : [...args, "--user", auth.user], {
        [keyVariable]: keyText(auth)
      })
    )
    const noneLeft = yield* superviseWorkers(start, workers, directory)
    const before = resumed ? yield* readReport(directory) : nothingReported
    const report = yield* openReport(directory, before)
    let pageFailed: string | undefined
    const onRecord = (record: Master.Record): Effect.Effect<void> => {
      if (record.kind === "page" && record.status === "failed") pageFailed = record.reasons?.at(-1)
      return report(record)
    }
    const summary = yield* Effect.raceFirst(
      Master.crawl({
        ...{ url, depth: crawlOf.depth, crawl: crawlOf.id, onRecord },
        onProgress: options.onProgress,
        resume: resumed ? before.summary : undefined
      }),
      Effect.flatMap(Deferred.await(noneLeft), Effect.fail)
    )
    const seconds = Number((clock.monotonicTimeNanosUnsafe() - startedAt) / 1_000_000n) / 1_000
    const result: CrawlReport = { ...summary, seconds, workers, pageFailed }
    return result
  })
  const result = yield* crawl.pipe(Effect.scoped, Effect.provide(live))
  // The manager has let go of the folder: what it kept of a crawl that is over is no use to the next one.
  if (dataFolder !== undefined) yield* Effect.orDie(CrawlData.end(dataFolder, crawlOf))
  return result
})

interface Reported {
  readonly lines: ReadonlyArray<string>
  readonly summary: Master.Summary
}

const nothingReported: Reported = { lines: [], summary: Master.none }

const reportName = "report.jsonl"

/** What the report says already: the outcomes of the crawl up to where it was stopped, in their order. */
const readReport = Effect.fnUntraced(function* (directory: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const text = yield* Effect.orElseSucceed(fs.readFileString(path.join(directory, reportName)), () => "")
  const summary = { ...Master.none }
  const lines: Array<string> = []
  // What follows the last line break was cut off, and comes again.
  for (const line of text.split("\n").slice(0, -1)) {
    const record = decodeRecord(line)
    if (Option.isNone(record)) break
    Master.count(summary, record.value)
    lines.push(`${line}\n`)
  }
  // A report that knows more than the queues (a `buffered` store that lost power) is written anew.
  const [pages, images] = [yield* Crawl.Pages.stats, yield* Crawl.Images.stats]
  const fits = summary.pages + summary.brokenPages <= pages.outcomesNext && summary.images <= images.outcomesNext
  const reported: Reported = fits ? { lines, summary } : nothingReported
  return reported
})

/** One JSON object a line, written as outcomes come. */
const openReport = Effect.fnUntraced(function* (directory: string, { lines }: Reported) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = yield* fs.open(path.join(directory, reportName), { flag: "w" })
  const encoder = new TextEncoder()
  yield* file.writeAll(encoder.encode(lines.join("")))
  // Pages and images are read side by side, and a file has one position.
  const inTurn = Semaphore.makeUnsafe(1).withPermits(1)
  return (record: Master.Record): Effect.Effect<void> =>
    inTurn(Effect.orDie(file.writeAll(encoder.encode(`${JSON.stringify(record)}\n`))))
})

const decodeRecord = Schema.decodeUnknownOption(Schema.fromJsonString(Master.Record))

/** Starts the workers and keeps them running until the scope closes. The deferred ends when none can be kept. */
const superviseWorkers = Effect.fnUntraced(function* (start: Effect.Effect<Child>, workers: number, directory: string) {
  const noneLeft = yield* Deferred.make<ConfigurationInvalid>()
  const children = new Set<Child>()
  let kept = workers
  let stopping = false
  const keep = Effect.fnUntraced(function* (number: number) {
    for (let restarts = 0; ; restarts++) {
      const child = yield* start
      children.add(child)
      const { code, signal } = yield* Effect.promise(() => child.exited)
      children.delete(child)
      if (stopping) return
      const how = signal === null ? `with code ${code ?? "?"}` : `by ${signal}`
      const hopeless = signal === null && (code === 1 || code === 2)
      if (hopeless || restarts >= restartsMax) {
        yield* Effect.logError(`worker ${number} ended ${how}${hopeless ? "" : ` for the ${restarts + 1}th time`}`)
        if (--kept > 0) return
        yield* Deferred.succeed(
          noneLeft,
          new ConfigurationInvalid({ field: "workers", value: "all gone", remedy: "see what they said above" })
        )
        return
      }
      yield* Effect.logWarning(
        `worker ${number} ended ${how}; its tasks return when their leases end; starting it again`
      )
      yield* Effect.sleep(500)
      if (stopping) return
    }
  })
  for (let number = 1; number <= workers; number++) yield* Effect.forkScoped(keep(number))
  yield* Effect.addFinalizer(() =>
    Effect.gen(function* () {
      stopping = true
      const running = [...children]
      for (const child of running) child.kill("SIGTERM")
      const all = Effect.promise(() => Promise.all(running.map(({ exited }) => exited)))
      const hurry = yield* Hurry
      const hurried = yield* Effect.forkChild(
        Effect.andThen(
          hurry,
          Effect.sync(() => {
            for (const child of children) child.kill("SIGTERM")
          })
        )
      )
      const ended = yield* Effect.timeoutOption(all, Limits.graceMsDefault + 4_000)
      yield* Fiber.interrupt(hurried)
      if (ended._tag === "None") for (const child of children) child.kill("SIGKILL")
      // A worker that was killed could not tidy up; nobody writes here any more.
      yield* Effect.ignore(sweep(directory, 0))
    })
  )
  return noneLeft
})
