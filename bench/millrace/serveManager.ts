/** A manager as a role: memory store, loopback TCP, any free port. `port` answers when it listens. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Manager from "../../src/Manager.ts"
import * as Store from "../../src/Store.ts"
import { type Commands, required, serve } from "../harness/role.ts"

const live = Manager.layerTcp({ port: 0, auth: { key: required("MILLRACE_BENCH_KEY") } }).pipe(
  Layer.provide(Manager.layer({ queues: [] })),
  Layer.provide(Store.layerMemory)
)

const port = Effect.gen(function* () {
  const { address } = yield* Manager.Listening
  return address._tag === "Tcp" ? address.port : yield* Effect.die(new Error("not a TCP address"))
})

export const serveManager = (commands: Commands): void => {
  const runtime = ManagedRuntime.make(live)
  serve({ port: () => runtime.runPromise(port), ...commands }, () => runtime.dispose())
}
