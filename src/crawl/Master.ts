/**
 * The master of a crawl: puts the first page, watches outcomes, and knows when all is done.
 *
 * A crawl is done when both queues are: pages first, for only pages make tasks. Then every outcome is read to its end, so
 * that the summary and the records are complete.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { Client } from "../client/Client.ts"
import type { Outcome, PutError } from "../client/TaskQueue.ts"
import {
  ConfigurationInvalid,
  type DecodeFailed,
  type OutcomesGap,
  type RequestError,
  type TimedOut
} from "../Errors.ts"
import { Images, Pages, type Seed, seedId, seedOf } from "./Crawl.ts"

/** One line of a report: what became of one URL. */
export const Record = Schema.Struct({
  kind: Schema.Literals(["page", "image"]),
  url: Schema.String,
  status: Schema.Literals(["done", "failed", "cancelled"]),
  attempts: Schema.Int,
  file: Schema.optionalKey(Schema.String),
  bytes: Schema.optionalKey(Schema.Int),
  sha256: Schema.optionalKey(Schema.String),
  contentType: Schema.optionalKey(Schema.String),
  host: Schema.optionalKey(Schema.String),
  reasons: Schema.optionalKey(Schema.Array(Schema.String))
})
export type Record = typeof Record.Type

export interface Summary {
  /** Pages that were fetched and read. */
  readonly pages: number
  /** Pages that could not be had: broken links. */
  readonly brokenPages: number
  /** Image URLs found. */
  readonly images: number
  readonly downloaded: number
  /** Images that are dead. */
  readonly failed: number
  /** Bytes of the downloaded images. */
  readonly bytes: number
  /** Pages that the page budget left out. */
  readonly leftOut: number
}

export interface Progress extends Summary {
  /** Tasks that are not done yet. */
  readonly waiting: number
}

export interface CrawlOptions extends Seed {
  /**
   * Goes on with a crawl that was stopped, given what was recorded of it: the queues are its own and hold no other. Its
   * first page is put again only if it never was.
   */
  readonly resume?: Summary | undefined
  readonly onRecord?: ((record: Record) => Effect.Effect<void>) | undefined
  /** Called about four times a second. */
  readonly onProgress?: ((progress: Progress) => Effect.Effect<void>) | undefined
}

export type CrawlError = PutError | RequestError | ConfigurationInvalid | DecodeFailed | OutcomesGap | TimedOut

/** The summary of a crawl that has not begun. */
export const none: Summary = { pages: 0, brokenPages: 0, images: 0, downloaded: 0, failed: 0, bytes: 0, leftOut: 0 }

/** Adds one line of a report to its summary. */
export const count = (summary: { -readonly [K in keyof Summary]: number }, record: Record): void => {
  const done = record.status === "done"
  if (record.kind === "page") {
    if (done) summary.pages++
    else summary.brokenPages++
    return
  }
  summary.images++
  if (done) {
    summary.downloaded++
    summary.bytes += record.bytes ?? 0
  } else summary.failed++
}

/** The error of a URL that no crawl can begin at. */
export const urlInvalid = (url: string): ConfigurationInvalid =>
  new ConfigurationInvalid({
    field: "URL",
    value: JSON.stringify(url),
    remedy: "use an absolute http or https address, such as http://127.0.0.1:8080/"
  })

/** Crawls to the end. Interruption leaves the queues as they are. */
export const crawl = Effect.fnUntraced(function* (
  options: CrawlOptions
): Effect.fn.Return<Summary, CrawlError, Client> {
  const seed = seedOf(options)
  if (seed === undefined) return yield* urlInvalid(options.url)
  const { resume } = options
  const counts = { ...(resume ?? none), leftOut: 0 }
  const onRecord = options.onRecord ?? (() => Effect.void)
  // Before anything is put: readers start here, and what the queues did earlier is not this crawl's.
  const [pagesNow, imagesNow] = [yield* Pages.stats, yield* Images.stats]
  // Every task that ends is one outcome: cursors count both. What is resumed began with the queues.
  const pagesBefore = resume === undefined ? pagesNow.outcomesNext : 0
  const imagesBefore = resume === undefined ? imagesNow.outcomesNext : 0
  const refusedBefore = resume === undefined ? pagesNow.refused : 0
  // Counted when it is recorded, not before: the crawl ends with the last count, and what is under way then is interrupted.
  const take = (record: Record): Effect.Effect<void> =>
    Effect.andThen(
      onRecord(record),
      Effect.sync(() => count(counts, record))
    )
  const readPages = Pages.outcomesFrom(pagesBefore + counts.pages + counts.brokenPages).pipe(
    Stream.runForEach((outcome) => take(pageRecord(outcome)))
  )
  const readImages = Images.outcomesFrom(imagesBefore + counts.images).pipe(
    Stream.runForEach((outcome) => take(imageRecord(outcome)))
  )
  const progress = Effect.gen(function* () {
    const [pages, images] = [yield* Pages.stats, yield* Images.stats]
    const open = (queue: typeof pages): number => queue.ready + queue.delayed + queue.leased
    counts.leftOut = pages.refused - refusedBefore
    if (options.onProgress !== undefined) yield* options.onProgress({ ...counts, waiting: open(pages) + open(images) })
    return (
      counts.pages + counts.brokenPages === pages.outcomesNext - pagesBefore &&
      counts.images === images.outcomesNext - imagesBefore
    )
  })
  const work = Effect.gen(function* () {
    if (resume === undefined || pagesNow.puts === 0) yield* Pages.put(seed, { id: seedId(seed) })
    yield* Pages.join()
    yield* Images.join()
    // The last outcomes may still be on their way.
    while (!(yield* progress)) yield* Effect.sleep("5 millis")
  })
  const ticker = Effect.forever(Effect.andThen(Effect.sleep("250 millis"), progress))
  yield* Effect.raceFirst(work, Effect.all([readPages, readImages, ticker], { concurrency: 3, discard: true }))
  const summary: Summary = { ...counts }
  return summary
})

type PageOutcome = Stream.Success<typeof Pages.outcomes>
type ImageOutcome = Stream.Success<typeof Images.outcomes>

const pageRecord = (outcome: PageOutcome): Record =>
  outcome._tag === "Success"
    ? {
        kind: "page",
        url: outcome.result.url,
        status: "done",
        attempts: outcome.attempts,
        bytes: outcome.result.bytes
      }
    : notDone("page", outcome)

const imageRecord = (outcome: ImageOutcome): Record =>
  outcome._tag === "Success"
    ? { kind: "image", status: "done", attempts: outcome.attempts, ...outcome.result }
    : notDone("image", outcome)

const notDone = (
  kind: Record["kind"],
  outcome: Exclude<Outcome<unknown, { readonly url: string }, { readonly url: string }>, { readonly _tag: "Success" }>
): Record => {
  const { attempts } = outcome
  switch (outcome._tag) {
    case "Failure":
      return { kind, url: outcome.error.url, status: "failed", attempts, reasons: outcome.reasons }
    case "Dead":
      return { kind, url: outcome.payload?.url ?? "?", status: "failed", attempts, reasons: outcome.reasons }
    case "Cancelled":
      return { kind, url: outcome.payload?.url ?? "?", status: "cancelled", attempts }
  }
}
