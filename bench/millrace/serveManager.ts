/**
 * A manager as a role: a store as the environment says, loopback TCP, any free port. `port` answers when it listens. With
 * `MILLRACE_BENCH_TLS=own` it has TLS with a certificate of its own, whose `fingerprint` it tells.
 */
import process from "node:process"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import { fingerprintOf, makeCertificate } from "../../src/auth/Certificate.ts"
import * as Manager from "../../src/Manager.ts"
import { makeSigningKey, randomBytes } from "../../src/platform/Crypto.ts"
import { type Commands, required, serve } from "../harness/role.ts"
import { memoryUse } from "./memoryUse.ts"
import { residentBytesOfEnvironment, storeOfEnvironment } from "./store.ts"

const tls =
  process.env["MILLRACE_BENCH_TLS"] === "own"
    ? makeCertificate({ key: makeSigningKey(), hosts: ["127.0.0.1"], serial: randomBytes(16), now: Date.now() })
    : undefined

const manager = Manager.layer({ queues: [], residentBytesMax: residentBytesOfEnvironment() })
const live = Manager.layerTcp({ port: 0, auth: { key: required("MILLRACE_BENCH_KEY") }, tls }).pipe(
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
    fingerprint: () => (tls === undefined ? undefined : fingerprintOf(tls.certificate)),
    memory: memoryUse
  }
  serve({ ...own, ...commands }, () => runtime.dispose())
}
