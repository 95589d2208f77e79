/** The manager process: memory store, loopback TCP, any free port. `port` answers when it listens. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Manager from "../../src/Manager.ts"
import * as Store from "../../src/Store.ts"
import { required, serve } from "../harness/role.ts"

const live = Manager.layerTcp({ port: 0, auth: { key: required("MILLRACE_BENCH_KEY") } }).pipe(
  Layer.provide(Manager.layer({ queues: [] })),
  Layer.provide(Store.layerMemory)
)

const runtime = ManagedRuntime.make(live)

const port = Effect.gen(function* () {
  const { address } = yield* Manager.Listening
  return address._tag === "Tcp" ? address.port : yield* Effect.die(new Error("not a TCP address"))
})

serve({ port: () => runtime.runPromise(port) }, () => runtime.dispose())
