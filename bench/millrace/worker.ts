/** A worker process with a trivial typed handler on each queue. `ready` answers when it has subscribed. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Worker from "../../src/Worker.ts"
import { monotonicMs, serve } from "../harness/role.ts"
import { client } from "./connect.ts"
import { Pages, Probes, Urls, workerOptions } from "./queue.ts"

const live = Layer.mergeAll(
  Worker.layer(Urls, ({ payload }) => Effect.succeed({ url: payload.url, ok: true }), workerOptions),
  Worker.layer(Pages, ({ payload }) => Effect.succeed({ url: payload.url, ok: true }), workerOptions),
  Worker.layer(
    Probes,
    ({ payload }) => Effect.sync(() => ({ url: payload.url, startedAtMs: monotonicMs() })),
    workerOptions
  )
).pipe(Layer.provide(client))

const runtime = ManagedRuntime.make(live)

serve({ ready: () => runtime.runPromise(Effect.void) }, () => runtime.dispose())
