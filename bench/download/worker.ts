/** A worker whose tasks download a file each, as the guide shows it: with checkpoint and progress. */
import process from "node:process"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import { Download, Fetch } from "../../src/crawl/index.ts"
import * as Worker from "../../src/Worker.ts"
import { serve } from "../harness/role.ts"
import { client } from "../millrace/connect.ts"
import { Files } from "./queue.ts"

const concurrency = 16

const live = Worker.layer(
  Files,
  Effect.fnUntraced(function* (task) {
    const { path, sync, url } = task.payload
    const { bytes, sha256 } = yield* Effect.orDie(
      Download.file({
        ...{ url, path, sync, id: task.id, attempt: task.attempt, checkpoint: task.checkpoint },
        saveCheckpoint: (checkpoint) => Effect.orDie(task.saveCheckpoint(checkpoint)),
        progress: (part) => task.progress(part)
      })
    )
    return { bytes, sha256 }
  }),
  { concurrency, prefetch: 256 }
).pipe(
  Layer.provide([client, Layer.mergeAll(Fetch.layerWith({ connectionsPerOrigin: concurrency }), NodeServices.layer)])
)

const runtime = ManagedRuntime.make(live)

serve(
  {
    ready: () => runtime.runPromise(Effect.void),
    peakRss: () => process.resourceUsage().maxRSS * 1_024
  },
  () => runtime.dispose()
)
