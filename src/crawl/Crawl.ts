/**
 * A crawl of pages and their images, as two queues, a worker for each, and a master that watches.
 *
 * A page task fetches HTML and puts its links and images as children with its own commit; a child's dedupe id is its
 * normalised URL, so that a URL becomes one task however often and wherever it is found. An image task downloads one file.
 * What a worker needs to know of the crawl (scope, depth) travels in the payload: any worker program serves any crawl.
 *
 * Invariant: a page that was committed has put all its children; one that was not has put none.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import { Client } from "../client/Client.ts"
import * as TaskQueue from "../client/TaskQueue.ts"
import type { RequestError } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import * as Task from "../worker/Task.ts"
import * as Worker from "../worker/Worker.ts"
import { Checkpoint, download } from "./Download.ts"
import * as Fetch from "./Fetch.ts"
import { Given, give } from "./Given.ts"
import * as HostLimit from "./HostLimit.ts"
import { fetchPage } from "./Page.ts"
import * as Url from "./Url.ts"

const PageTask = Schema.Struct({
  url: Schema.String,
  referer: Schema.optionalKey(Schema.String),
  /** Links from the first page. */
  depth: Schema.Int,
  depthMax: Schema.Int,
  /** Hosts whose pages belong to the crawl. */
  hosts: Schema.Array(Schema.String),
  /** The crawl: a URL is one task in each. */
  crawl: Schema.String
})

const PageResult = Schema.Struct({
  url: Schema.String,
  finalUrl: Schema.String,
  status: Schema.Int,
  bytes: Schema.Int,
  links: Schema.Int,
  images: Schema.Int,
  /** Links and images over the cap of one page. */
  dropped: Schema.Int
})

const ImageTask = Schema.Struct({ url: Schema.String, page: Schema.String })

export const ImageResult = Schema.Struct({
  url: Schema.String,
  /** Below the worker's folder: `ab/cd/<sha256>.<ext>`. */
  file: Schema.String,
  bytes: Schema.Int,
  sha256: Schema.String,
  contentType: Schema.String,
  /** The machine whose folder has the file. */
  host: Schema.String
})

export interface QueueOptions {
  /** Page tasks in all; links found after that many are left out, and counted. Default: no bound. */
  readonly maxPages?: number | undefined
  /** Term of a lease; what a killed worker held comes back after it. Default 10 s. */
  readonly leaseMs?: number | undefined
  /** Default 3. */
  readonly maxAttempts?: number | undefined
}

const policyOf = (options: QueueOptions): TaskQueue.PolicyOptions => ({
  lease: options.leaseMs ?? 10_000,
  maxAttempts: options.maxAttempts ?? 3,
  backoff: { base: 500, factor: 2, cap: "30 seconds", jitter: 0.5 },
  // A crawl may rest for long, and a URL that it has seen stays seen.
  outcomes: { age: Limits.delayMsMax },
  dedupe: { age: Limits.delayMsMax }
})

const makePages = (options: QueueOptions) =>
  TaskQueue.make("pages", {
    payload: PageTask,
    result: PageResult,
    error: Fetch.FetchError,
    key: ({ url }) => hostOf(url),
    policy: { ...policyOf(options), tasksMax: options.maxPages }
  })

const makeImages = (options: QueueOptions) =>
  TaskQueue.make("images", {
    payload: ImageTask,
    result: ImageResult,
    error: Fetch.FetchError,
    checkpoint: Checkpoint,
    key: ({ url }) => hostOf(url),
    policy: policyOf(options)
  })

/** The two queues of a crawl; a manager that is to keep a page budget gets its own. */
export const queues = (options: QueueOptions = {}) => ({ Pages: makePages(options), Images: makeImages(options) })

export const { Images, Pages } = queues()

/** The dedupe id of a URL within a crawl, by the URL's key. */
const idOf = (crawl: string, key: string): string => `${crawl} ${key}`

const hostOf = (url: string): string => Url.parse(url)?.host ?? ""

// ---- workers

export interface CrawlWorkerOptions {
  /** Where files go. */
  readonly directory: string
  /** Name of this machine in reports. */
  readonly host: string
  /** Pages at a time. Default 4. */
  readonly pageConcurrency?: number | undefined
  /** Images at a time. Default 8. */
  readonly imageConcurrency?: number | undefined
  /** Requests of this worker to one host at a time. Default 4. */
  readonly hostConcurrency?: number | undefined
  readonly userAgent?: string | undefined
}

class Settings extends Context.Service<
  Settings,
  { readonly directory: string; readonly host: string; readonly given: Given }
>()("millrace/crawl/Settings") {}

/** What a failed fetch means for its task: another attempt, one after the time the server asks for, or the end. */
const failedFetch = (error: Fetch.FetchError): Effect.Effect<never, Fetch.FetchError | Task.Control> => {
  if (!Fetch.retryable(error)) return Task.kill(error.message, error)
  return error.retryAfterMs === undefined
    ? Effect.fail(error)
    : Task.retryAfter(error.retryAfterMs, error.message, error)
}

const handlePage = Effect.fnUntraced(function* (task: Task.Task<typeof PageTask.Type>) {
  const { crawl, depth, depthMax, hosts, referer, url } = task.payload
  const limit = yield* HostLimit.HostLimit
  const settings = yield* Settings
  const scope: Url.Scope = { hosts }
  const given = settings.given.of([crawl, ...hosts].join(" "))
  const self = Url.parse(url)
  if (self !== undefined && Url.inScope(self, scope)) give(given, Url.key(self))
  const options = { referer, allow: (hop: URL) => Url.inScope(hop, scope) }
  const page = yield* fetchPage(url, options).pipe(
    limit.withPermit(self?.host ?? ""),
    Effect.catchTag("FetchError", failedFetch)
  )
  let links = 0
  if (depth < depthMax) {
    const more = { referer: page.finalUrl, depth: depth + 1, depthMax, hosts, crawl }
    for (const link of page.links) {
      // As it stands it may be a key: then it is its own.
      if (given.has(link)) {
        links++
        continue
      }
      const target = Url.parse(link)
      if (target === undefined || !Url.inScope(target, scope)) continue
      links++
      const key = Url.key(target)
      if (given.has(key)) continue
      const id = idOf(crawl, key)
      yield* task.put(Pages, { url: Url.withoutFragment(target), ...more }, { id, key: target.host })
    }
  }
  for (const image of page.images) {
    const target = Url.parse(image)
    if (target === undefined) continue
    const child = { url: Url.withoutFragment(target), page: page.finalUrl }
    yield* task.put(Images, child, { id: idOf(crawl, Url.key(target)), key: target.host })
  }
  const { bytes, dropped, finalUrl, images, status } = page
  return { url, finalUrl, status, bytes, links, images: images.length, dropped }
})

const handleImage = Effect.fnUntraced(function* (task: Task.Task<typeof ImageTask.Type, Checkpoint>) {
  const { page, url } = task.payload
  const { directory, host } = yield* Settings
  const limit = yield* HostLimit.HostLimit
  const { bytes, contentType, file, sha256 } = yield* download({
    url,
    directory,
    referer: page,
    id: task.id,
    attempt: task.attempt,
    checkpoint: task.checkpoint,
    // Its Schema is the queue's own, and it is small.
    saveCheckpoint: (checkpoint) => Effect.orDie(task.saveCheckpoint(checkpoint)),
    progress: (part) => task.progress(part)
  }).pipe(limit.withPermit(hostOf(url)), Effect.catchTag("FetchError", failedFetch))
  return { url, file, bytes, sha256, contentType, host }
})

const settingsOf = ({ directory, host }: CrawlWorkerOptions): Layer.Layer<Settings, never, Client> =>
  Layer.effect(
    Settings,
    Effect.gen(function* () {
      const { link } = yield* Client
      const given = new Given()
      const resident = { up: () => given.clear() }
      yield* Effect.acquireRelease(
        Effect.sync(() => link.residents.add(resident)),
        () => Effect.sync(() => link.residents.delete(resident))
      )
      return Settings.of({ directory, host, given })
    })
  )

/** Workers for pages and images in one program, sharing their connections and their limit per host. */
export const layerWorker = (
  options: CrawlWorkerOptions
): Layer.Layer<never, RequestError, Client | FileSystem.FileSystem | Path.Path> => {
  const pages = Worker.layer(Pages, handlePage, { concurrency: options.pageConcurrency ?? 4, prefetch: 0 })
  const images = Worker.layer(Images, handleImage, { concurrency: options.imageConcurrency ?? 8, prefetch: 0 })
  const hostConcurrency = options.hostConcurrency ?? 4
  return Layer.mergeAll(pages, images).pipe(
    Layer.provide([
      HostLimit.layer(hostConcurrency),
      Fetch.layerWith({ userAgent: options.userAgent, connectionsPerOrigin: hostConcurrency }),
      settingsOf(options)
    ])
  )
}

// ---- master

export const depthDefault = 20

export interface Seed {
  readonly url: string
  /** Links from the first page that are followed. Default 20. */
  readonly depth?: number | undefined
  /** Tells this crawl from others on the same queues. Default: empty. */
  readonly crawl?: string | undefined
}

/** The first page task of a crawl, or why the URL is none. */
export const seedOf = (seed: Seed): typeof PageTask.Type | undefined => {
  const url = Url.parse(seed.url)
  if (url === undefined) return undefined
  return {
    url: Url.withoutFragment(url),
    depth: 0,
    depthMax: seed.depth ?? depthDefault,
    hosts: [...(Url.scopeOf(url).hosts ?? [url.host])],
    crawl: seed.crawl ?? ""
  }
}

/** The dedupe id of a seed. */
export const seedId = (seed: typeof PageTask.Type): string => {
  const url = Url.parse(seed.url)
  return url === undefined ? seed.url : idOf(seed.crawl, Url.key(url))
}
