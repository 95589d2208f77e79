/** The client of a manager: on another machine, or on this one. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Tcp from "./client/Client.ts"
import type { RequestError } from "./Errors.ts"
import * as Node from "./platform/Node.ts"
import type { QueueStats } from "./wire/Vocabulary.ts"

export type { Auth } from "./auth/Auth.ts"
export type { AddressInput } from "./client/Addresses.ts"
export { Client, type ClientShape, type ConnectOptions, type LoginError } from "./client/Client.ts"
export type { ClientTls } from "./platform/Network.ts"

/**
 * Connects over TCP (or a Unix socket), proves the key both ways, and reconnects by itself after a loss.
 *
 * Fails with `ConfigurationInvalid` for options that make no sense, `ConnectFailed` when no manager answers (unless
 * `waitForManager`), `AuthenticationFailed` for a wrong key, `VersionUnsupported` and `ProtocolViolated` for a peer that
 * speaks something else.
 */
export const layerTcp = (options: Tcp.ConnectOptions): Layer.Layer<Tcp.Client, Tcp.LoginError> =>
  Layer.provide(Tcp.layerTcp(options), Node.layer)

/** Counts of every queue of the manager (the first 1,000), by name. */
export const stats: Effect.Effect<ReadonlyArray<QueueStats>, RequestError, Tcp.Client> = Effect.flatMap(
  Tcp.Client,
  (client) => Tcp.allStats(client)
)
