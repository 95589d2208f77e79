/** A worker of the work `lanes`: a handler that ends at once and notes when it began. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Worker from "../../src/Worker.ts"
import { monotonicMs, serve } from "../harness/role.ts"
import { client } from "./connect.ts"
import { Pages, workerOptions } from "./lane-queue.ts"

/** Number of the site, and when the handler began. */
let starts: Array<number> = []

const live = Worker.layer(
  Pages,
  ({ payload }) => Effect.sync(() => void starts.push(Number(payload.site.slice(5, 10)), monotonicMs())),
  workerOptions
).pipe(Layer.provide(client))

const runtime = ManagedRuntime.make(live)

const takeStarts = (): Float64Array => {
  const taken = Float64Array.from(starts)
  starts = []
  return taken
}

serve({ ready: () => runtime.runPromise(Effect.void), starts: takeStarts }, () => runtime.dispose())
