/**
 * A queue service inside a larger Effect app: an HTTP endpoint that resizes nothing but shows the shape.
 *
 * The manager, a worker and the web server are layers of one program. The same queue definition would serve workers on
 * other machines: add `Manager.layerTcp` here and run `Worker.layer` over `Client.layerTcp` there; nothing else changes.
 *
 * Run it with `node examples/embedded.ts`; it asks itself once and exits. With `--serve` it stays.
 */
import { createServer } from "node:http"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Layer, Schema } from "effect"
import { HttpClient, HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import { Manager, Store, TaskQueue, Worker } from "../src/index.ts"

class TooLong extends Schema.TaggedError<TooLong>()("TooLong", { length: Schema.Int }) {}

const Shout = TaskQueue.make("shout", {
  payload: Schema.Struct({ text: Schema.String }),
  result: Schema.String,
  error: TooLong,
  policy: { capacity: 1_000, maxAttempts: 1 }
})

const ShoutWorker = Worker.layer(
  Shout,
  Effect.fnUntraced(function* ({ payload }) {
    if (payload.text.length > 40) return yield* new TooLong({ length: payload.text.length })
    return `${payload.text.toUpperCase()}!`
  }),
  { concurrency: 4 }
)

const Routes = HttpRouter.add(
  "GET",
  "/shout/:text",
  Effect.gen(function* () {
    const { text } = yield* HttpRouter.schemaPathParams(Schema.Struct({ text: Schema.String }))
    return yield* Shout.putWait({ text }).pipe(
      Effect.flatMap((result) => HttpServerResponse.json({ result })),
      Effect.catchTag("TooLong", (error) => HttpServerResponse.json({ error }, { status: 422 }))
    )
  })
)

const QueueLive = ShoutWorker.pipe(
  Layer.provideMerge(Manager.layer({ queues: [Shout] })),
  Layer.provide(Store.layerMemory)
)

const AppLive = HttpRouter.serve(Routes, { disableListenLog: true, disableLogger: true }).pipe(
  Layer.provideMerge(QueueLive),
  Layer.provideMerge(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 }))
)

const askItself = Effect.gen(function* () {
  const { address } = yield* HttpServer.HttpServer
  const base = `http://127.0.0.1:${"port" in address ? address.port : 0}`
  const client = yield* HttpClient.HttpClient
  yield* Console.log(`serving ${base}/shout/hello`)
  if (process.argv.includes("--serve")) return yield* Effect.never
  for (const text of ["hello", "x".repeat(60)]) {
    const response = yield* client.get(`${base}/shout/${text}`)
    yield* Console.log(response.status, yield* response.text)
  }
})

askItself.pipe(Effect.provide([AppLive, NodeHttpClient.layerNodeHttp]), NodeRuntime.runMain)
