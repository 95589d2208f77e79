/** `millrace crawl URL`: a manager, workers and a report, in one command. */
import * as Clock from "effect/Clock"
import * as Console from "effect/Console"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Progress } from "../crawl/Master.ts"
import { ConfigurationInvalid } from "../Errors.ts"
import { environment, stdoutIsTerminal, terminalColumns, writeOut } from "../platform/Process.ts"
import * as Network from "./network.ts"
import * as Options from "./options.ts"
import { bar, line, size, table } from "./progress.ts"
import { type CrawlReport, runCrawl } from "./runCrawl.ts"
import * as Stores from "./storeOptions.ts"
import { hostConcurrency } from "./work.ts"

const optionalInt = (name: string, description: string) =>
  Flag.Int(name).pipe(Flag.withDescription(description), Flag.optional)

/** Its own workers, on this machine, have no certificate to show. */
const { tlsCa: _, ...networkFlags } = Network.flags

export const makeCrawl = (script: string) =>
  Command.make(
    "crawl",
    {
      url: Argument.String("url").pipe(Argument.withDescription("The first page; its host is the scope of the crawl")),
      out: Flag.String("out").pipe(
        Flag.withDescription("Folder for images and report.jsonl (default downloads)"),
        Flag.withDefault("downloads")
      ),
      workers: Flag.Int("workers").pipe(Flag.withDescription("Worker processes (default 2)"), Flag.withDefault(2)),
      maxPages: optionalInt("max-pages", "Pages to fetch at most (default 10000)"),
      depth: optionalInt("depth", "Links from the first page to follow at most (default 20)"),
      hostConcurrency,
      leaseSeconds: optionalInt("lease", "Seconds after which the tasks of a dead worker return (default 10)"),
      host: Flag.String("host").pipe(
        Flag.withDescription("Address the manager listens on (default 127.0.0.1; with --network 0.0.0.0)"),
        Flag.optional
      ),
      port: Flag.Int("port").pipe(
        Flag.withDescription("Port the manager listens on (default: a free one)"),
        Flag.withDefault(0)
      ),
      data: Flag.String("data").pipe(
        Flag.withDescription("Folder that keeps the crawl until it has ended (default .millrace in the out folder)"),
        Flag.optional
      ),
      durability: Stores.durability,
      memory: Stores.memory,
      restart: Flag.Boolean("restart").pipe(
        Flag.withDescription("Start over where an unfinished crawl would go on"),
        Flag.withDefault(false)
      ),
      user: Options.user,
      ...Options.key,
      ...networkFlags,
      json: Options.json
    },
    Effect.fn(function* (options) {
      const wrong = Stores.fault(options)
      if (wrong !== undefined) return yield* wrong
      const flags = [options.authkey, options.authkeyFile, options.authkeyEnv]
      const named = flags.some(Option.isSome) || environment(Options.keyVariable) !== undefined
      const auth = named ? yield* Options.readAuth(options, { generate: true }) : undefined
      if (options.network && !named) {
        const remedy =
          "workers elsewhere need a key that they can have: give --authkey-file FILE (made when it is not there)"
        return yield* new ConfigurationInvalid({ field: "--network", value: "given without a key", remedy })
      }
      const { hostConcurrency, json, memory, out, port, restart, url, workers } = options
      const show = yield* progressTo({ json })
      const report = yield* runCrawl({
        ...{
          url,
          out,
          workers,
          hostConcurrency,
          listen: { ...options, tlsCa: Option.none() },
          port,
          auth,
          script,
          memory,
          restart
        },
        data: Option.getOrUndefined(options.data),
        durability: Option.getOrUndefined(options.durability),
        maxPages: Option.getOrElse(options.maxPages, () => 10_000),
        depth: Option.getOrUndefined(options.depth),
        leaseMs: Option.getOrUndefined(Option.map(options.leaseSeconds, (seconds) => seconds * 1_000)),
        onProgress: show.update
      }).pipe(
        Effect.onInterrupt(() => Effect.andThen(show.end, Effect.logWarning(interrupted(out, memory)))),
        Effect.ensuring(show.end)
      )
      yield* json ? Console.log(jsonLine(report)) : Console.log(summaryTable(report, out))
      if (report.pages === 0) {
        return yield* new ConfigurationInvalid({
          field: "URL",
          value: JSON.stringify(url),
          remedy: `no page could be read there (${report.pageFailed ?? "no reason given"}); check the address, and that the server runs`
        })
      }
    })
  ).pipe(
    Command.withDescription("Crawl a site's images with a manager and worker processes, all started here"),
    Command.withExamples([
      { command: "millrace crawl http://127.0.0.1:8080/ --out downloads --workers 2", description: "Two workers" }
    ])
  )

/** `out` is named as it was given. */
const interrupted = (out: string, memory: boolean): string =>
  `interrupted; what is done is in ${out}${memory ? "" : "; the same command goes on with the rest"}`

/** The summary for machines: one line. */
export const jsonLine = ({
  brokenPages,
  bytes,
  downloaded,
  failed,
  images,
  leftOut,
  pages,
  seconds,
  workers
}: CrawlReport): string =>
  JSON.stringify({ pages, images, downloaded, failed, bytes, seconds, workers, brokenPages, leftOut })

export const summaryTable = (report: CrawlReport, out: string): string =>
  table([
    ["pages", String(report.pages)],
    ["broken links", String(report.brokenPages)],
    ["images found", String(report.images)],
    ["downloaded", String(report.downloaded)],
    ["failed", String(report.failed)],
    ["bytes", size(report.bytes)],
    ["seconds", report.seconds.toFixed(2)],
    ["workers", String(report.workers)],
    ...(report.leftOut > 0 ? [["left out by --max-pages", String(report.leftOut)] as const] : [])
  ]) + `\n  files and report.jsonl in ${out}`

/** Where progress goes: a bar on a terminal, a line every two seconds elsewhere; standard error when JSON is wanted. */
export const progressTo = Effect.fnUntraced(function* ({ json }: { readonly json: boolean }) {
  const clock = yield* Clock.Clock
  const terminal = !json && stdoutIsTerminal()
  let last: Progress | undefined
  let saidAt = 0
  const update = (progress: Progress): Effect.Effect<void> =>
    Effect.suspend(() => {
      last = progress
      if (terminal) return Effect.sync(() => writeOut(bar(progress, terminalColumns())))
      const now = clock.currentTimeMillisUnsafe()
      if (now - saidAt < 2_000) return Effect.void
      saidAt = now
      return json ? Console.error(line(progress)) : Console.log(line(progress))
    })
  const end = Effect.sync(() => {
    if (terminal && last !== undefined) writeOut("\n")
    last = undefined
  })
  return { update, end }
})
