/** The manager: the supervised service that owns queues, inside this process and open to the network. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { type Client, layerLink } from "./client/Client.ts"
import type { ConfigurationInvalid, ListenFailed, StoreBroken, StoreDamaged } from "./Errors.ts"
import * as Inner from "./manager/Manager.ts"
import * as Node from "./platform/Node.ts"
import type { Store } from "./store/Store.ts"

export type { Credential } from "./auth/Auth.ts"
export type { Grant, Role } from "./auth/Roles.ts"
export { Listening, type ListenOptions, Manager, type ManagerOptions, portDefault } from "./manager/Manager.ts"
export type { ServerTls } from "./platform/Network.ts"

/**
 * A manager in this process, and a `Client` of it: a program that only uses queues runs on this layer or on
 * `Client.layerTcp` unchanged. In process a client speaks the same protocol as over the network, without the login.
 */
export const layer = (
  options: Inner.ManagerOptions
): Layer.Layer<Inner.Manager | Client, StoreBroken | StoreDamaged, Store> => {
  const client = Layer.unwrap(
    Effect.map(Inner.Manager, (manager) =>
      layerLink({
        address: "the manager in this process",
        dial: (handler) => Effect.sync(() => manager.connect(handler)),
        auth: undefined,
        waitForManager: false,
        gone: manager.failed,
        versions: options.versions
      })
    )
  )
  return Layer.orDie(client).pipe(Layer.provideMerge(Inner.layer(options)))
}

/**
 * Opens the manager to the network. Binds 127.0.0.1 unless told otherwise; a wider bind without `tls` is refused with
 * `ConfigurationInvalid` unless `insecureNetwork` is said. Fails with `ListenFailed` when the address is taken.
 * Provides `Listening`, the address really bound.
 */
export const layerTcp = (
  options: Inner.ListenOptions
): Layer.Layer<Inner.Listening, ListenFailed | ConfigurationInvalid, Inner.Manager> =>
  Layer.provide(Inner.layerTcp(options), Node.layer)
