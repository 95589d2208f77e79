/**
 * The crawler of `src/crawl`: manager and the crawl's master in this process, and its worker too (`MILLRACE_BENCH_WORKER=here`)
 * or in one of its own. A fresh crawl id for each crawl: what was seen in one is new in the next.
 */
import { tmpdir } from "node:os"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Crawl from "../../src/crawl/Crawl.ts"
import * as Master from "../../src/crawl/Master.ts"
import * as Manager from "../../src/Manager.ts"
import { required, serve } from "../harness/role.ts"
import { storeOfEnvironment } from "../millrace/store.ts"
import { type CrawlPass, measured } from "./pass.ts"

const concurrency = Number(required("MILLRACE_BENCH_CONCURRENCY"))
const worker =
  required("MILLRACE_BENCH_WORKER") === "here"
    ? Crawl.layerWorker({
        directory: tmpdir(),
        host: "bench",
        pageConcurrency: concurrency,
        hostConcurrency: concurrency
      })
    : Layer.empty
const manager = Manager.layer({ queues: [Crawl.Pages, Crawl.Images] })
const live = Layer.mergeAll(worker, Manager.layerTcp({ port: 0, auth: { key: required("MILLRACE_BENCH_KEY") } })).pipe(
  Layer.provideMerge(manager),
  Layer.provide([storeOfEnvironment(), NodeServices.layer])
)
const runtime = ManagedRuntime.make(live)

const port = Effect.gen(function* () {
  const { address } = yield* Manager.Listening
  return address._tag === "Tcp" ? address.port : yield* Effect.die(new Error("not a TCP address"))
})

let crawls = 0
const crawl = Effect.fnUntraced(function* ({ url }: CrawlPass) {
  const visited: Array<string> = []
  const onRecord = (record: Master.Record): Effect.Effect<void> =>
    Effect.sync(() => {
      if (record.status !== "done") throw new Error(`${record.url}: ${record.reasons?.join("; ") ?? record.status}`)
      visited.push(record.url)
    })
  yield* Master.crawl({ url, crawl: `bench-${crawls++}`, onRecord })
  return visited
})

serve(
  {
    port: () => runtime.runPromise(port),
    crawl: (pass: CrawlPass) => measured(() => runtime.runPromise(crawl(pass)))
  },
  () => runtime.dispose()
)
