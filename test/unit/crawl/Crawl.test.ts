/** Crawls of small sites in this process: which pages are asked for, and which links are put again. */
import { tmpdir } from "node:os"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Client from "../../../src/Client.ts"
import * as Crawl from "../../../src/crawl/Crawl.ts"
import * as Master from "../../../src/crawl/Master.ts"
import * as Manager from "../../../src/Manager.ts"
import * as Store from "../../../src/Store.ts"
import { serve } from "./server.ts"

const auth = { key: "a key of more than thirty-two bytes, for tests" }

/** A site of pages by path, and how often each was asked for. */
const siteOf = Effect.fnUntraced(function* (pages: Readonly<Record<string, ReadonlyArray<string>>>) {
  const hits = new Map<string, number>()
  const { origin } = yield* serve((request, response) => {
    const path = request.url!
    hits.set(path, (hits.get(path) ?? 0) + 1)
    const links = pages[path]
    if (links === undefined) return response.writeHead(404).end()
    response.setHeader("content-type", "text/html")
    return response.end(links.map((link) => `<p><a href="${link}">to ${link}</a></p>`).join(""))
  })
  return { origin, hits }
})

const pages = {
  "/": ["/a", "/b", "/a?", "/%62"],
  "/a": ["/", "/#top", "b", "/c"],
  "/b": ["/", "/a", "/b", "/c"],
  "/c": ["/", "/a", "/b", "/%63#self", "//elsewhere.invalid/"]
}
const paths = Object.keys(pages)

const workers = Crawl.layerWorker({ directory: tmpdir(), host: "here", pageConcurrency: 1 }).pipe(
  Layer.provide(NodeServices.layer)
)
const managerOf = (port: number) =>
  Manager.layerTcp({ port, auth }).pipe(
    Layer.provideMerge(Manager.layer({ queues: [Crawl.Pages, Crawl.Images] })),
    Layer.provide(Store.layerMemory)
  )

const portOf = (context: Context.Context<Manager.Listening>): number => {
  const { address } = Context.get(context, Manager.Listening)
  return address._tag === "Tcp" ? address.port : assert.fail("not a TCP address")
}

describe("a crawl", () => {
  it.live("asks for each page once, and puts no link again to a page that the worker was given", () =>
    Effect.gen(function* () {
      const { hits, origin } = yield* siteOf(pages)
      const context = yield* Layer.build(Layer.provideMerge(workers, Layer.fresh(managerOf(0))))
      const done = new Map<string, number>()
      const onRecord = (record: Master.Record) => Effect.sync(() => done.set(record.url, record.attempts))
      const summary = yield* Effect.provide(Master.crawl({ url: `${origin}/`, onRecord }), context)
      assert.deepStrictEqual([summary.pages, summary.brokenPages], [4, 0])
      assert.deepStrictEqual([...done.keys()].sort(), paths.map((path) => origin + path).sort())
      assert.deepStrictEqual(
        paths.map((path) => hits.get(path)),
        [1, 1, 1, 1]
      )
      // One worker, one page at a time, in order: of all links to pages only those to a page that still waits come twice.
      const stats = yield* Effect.provide(Crawl.Pages.stats, context)
      assert.deepStrictEqual([stats.puts, stats.duplicates], [4, 2])
    }).pipe(Effect.scoped)
  )

  it.live("counts links to pages that the worker was given", () =>
    Effect.gen(function* () {
      const { origin } = yield* siteOf(pages)
      const context = yield* Layer.build(Layer.provideMerge(workers, Layer.fresh(managerOf(0))))
      yield* Effect.provide(Master.crawl({ url: `${origin}/` }), context)
      const found: Record<string, number> = {}
      const take = Crawl.Pages.outcomesFrom(0).pipe(
        Stream.take(4),
        Stream.runForEach((outcome) =>
          Effect.sync(() => {
            if (outcome._tag === "Success") found[new URL(outcome.result.url).pathname] = outcome.result.links
          })
        )
      )
      yield* Effect.provide(take, context)
      assert.deepStrictEqual(found, { "/": 2, "/a": 3, "/b": 4, "/c": 4 })
    }).pipe(Effect.scoped)
  )

  it.live("begins anew under another name, and on another manager under the same", () =>
    Effect.gen(function* () {
      const { hits, origin } = yield* siteOf(pages)
      const crawl = (name: string) => Master.crawl({ url: `${origin}/`, crawl: name })
      const scope = yield* Effect.scope
      const first = yield* Scope.fork(scope)
      const before = yield* Scope.provide(Layer.build(Layer.fresh(managerOf(0))), first)
      const port = portOf(before)
      // A worker that outlives its manager.
      const client = Client.layerTcp({ port, auth, reconnectCap: "20 millis" })
      yield* Layer.build(Layer.provide(workers, Layer.fresh(client)))
      assert.strictEqual((yield* Effect.provide(crawl(""), before)).pages, 4)
      assert.strictEqual((yield* Effect.provide(crawl("again"), before)).pages, 4)
      yield* Scope.close(first, Exit.void)
      const after = yield* Layer.build(Layer.fresh(managerOf(port)))
      assert.strictEqual((yield* Effect.provide(crawl(""), after)).pages, 4)
      assert.deepStrictEqual(
        paths.map((path) => hits.get(path)),
        [3, 3, 3, 3]
      )
    }).pipe(Effect.scoped)
  )
})
