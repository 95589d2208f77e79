/** The worker of `src/crawl` in a process of its own. `ready` answers when it has subscribed. */
import { tmpdir } from "node:os"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Crawl from "../../src/crawl/Crawl.ts"
import { required, serve } from "../harness/role.ts"
import { client } from "../millrace/connect.ts"
import { peakRssBytes } from "./pass.ts"

const concurrency = Number(required("MILLRACE_BENCH_CONCURRENCY"))
const live = Crawl.layerWorker({
  directory: tmpdir(),
  host: "bench",
  pageConcurrency: concurrency,
  hostConcurrency: concurrency
}).pipe(Layer.provide([client, NodeServices.layer]))
const runtime = ManagedRuntime.make(live)

serve({ ready: () => runtime.runPromise(Effect.void), peak: () => peakRssBytes() }, () => runtime.dispose())
