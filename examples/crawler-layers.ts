/**
 * A crawler composed from layers: the crawler's own queues, a worker of one's own beside its workers, and a master, in
 * one process. Swap `Manager.layer` for `Client.layerTcp` and the same program works for a manager elsewhere.
 *
 * Run it with `node examples/crawler-layers.ts [URL]`; without a URL it serves itself the sample site.
 */
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Console, Effect, Layer, Schema, Stream } from "effect"
import { Crawl, Master } from "../src/crawl/index.ts"
import { Manager, Store, TaskQueue, Worker } from "../src/index.ts"
import { startSite } from "./sample-site/site.ts"

// One more step behind every image that was stored: here it only weighs it.
const Weighed = TaskQueue.make("weighed", {
  payload: Schema.Struct({ file: Schema.String, bytes: Schema.Int }),
  result: Schema.Literals(["light", "heavy"])
})

const WeighWorker = Worker.layer(Weighed, (task) => Effect.succeed(task.payload.bytes > 16_384 ? "heavy" : "light"), {
  concurrency: 4
})

const { Images, Pages } = Crawl.queues({ maxPages: 100 })
const ManagerLive = Manager.layer({ queues: [Pages, Images, Weighed] }).pipe(Layer.provide(Store.layerMemory))

const directory = join(tmpdir(), "millrace-crawler-layers")
const WorkersLive = Layer.mergeAll(WeighWorker, Crawl.layerWorker({ directory, host: "here" }))

const site = Effect.acquireRelease(
  Effect.promise(() => startSite({ port: 0 })),
  (site) => Effect.promise(() => site.close())
)

const program = Effect.gen(function* () {
  const url = process.argv[2] ?? (yield* site).url
  // Every stored image goes on to the next queue.
  const passOn = Crawl.Images.outcomes.pipe(
    Stream.filter((outcome) => outcome._tag === "Success"),
    Stream.runForEach(({ result: { bytes, file } }) => Weighed.put({ file, bytes }, { id: file }))
  )
  yield* Effect.forkChild(passOn)
  const summary = yield* Master.crawl({ url, depth: 20 })
  yield* Weighed.outcomes.pipe(Stream.take(summary.downloaded), Stream.runDrain)
  const heavy = yield* Weighed.stats
  yield* Console.log(`${summary.pages} pages, ${summary.downloaded} images in ${directory}, ${heavy.done} weighed`)
})

program.pipe(
  Effect.scoped,
  Effect.provide(WorkersLive.pipe(Layer.provideMerge(ManagerLive), Layer.provideMerge(NodeServices.layer))),
  NodeRuntime.runMain
)
