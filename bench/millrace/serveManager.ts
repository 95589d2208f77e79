/** A manager as a role: a store as the environment says, loopback TCP, any free port. `port` answers when it listens. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Manager from "../../src/Manager.ts"
import { type Commands, required, serve } from "../harness/role.ts"
import { memoryUse } from "./memoryUse.ts"
import { residentBytesOfEnvironment, storeOfEnvironment } from "./store.ts"

const manager = Manager.layer({ queues: [], residentBytesMax: residentBytesOfEnvironment() })
const live = Manager.layerTcp({ port: 0, auth: { key: required("MILLRACE_BENCH_KEY") } }).pipe(
  Layer.provideMerge(manager),
  Layer.provide(storeOfEnvironment())
)

const port = Effect.gen(function* () {
  const { address } = yield* Manager.Listening
  return address._tag === "Tcp" ? address.port : yield* Effect.die(new Error("not a TCP address"))
})

const counters = Effect.gen(function* () {
  const { counters } = yield* Manager.Manager
  return yield* counters
})

export const serveManager = (commands: Commands): void => {
  const runtime = ManagedRuntime.make(live)
  const own: Commands = {
    port: () => runtime.runPromise(port),
    counters: () => runtime.runPromise(counters),
    memory: memoryUse
  }
  serve({ ...own, ...commands }, () => runtime.dispose())
}
