/**
 * The port to the network: byte streams with callbacks, so that a manager with ten thousand of them runs no fiber each.
 *
 * Everything above bytes (frames, sessions, retries) is built on this. Tests replace it; `Node.ts` implements it with
 * `node:net`, which Deno and Bun provide as well; `pair` makes two ends that meet inside one process.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ConnectFailed, ListenFailed } from "../Errors.ts"

export type Address =
  | { readonly _tag: "Tcp"; readonly host: string; readonly port: number }
  | { readonly _tag: "Unix"; readonly path: string }

export const formatAddress = (address: Address): string =>
  address._tag === "Unix"
    ? address.path
    : address.host.includes(":")
      ? `[${address.host}]:${address.port}`
      : `${address.host}:${address.port}`

/** Where a peer (`address:port`) is: its address, of IPv6 the first 64 bits, which one network has (RFC 4291, 2.5.4). */
export const sourceOf = (peer: string): string => {
  const port = peer.lastIndexOf(":")
  const address = (port < 0 ? peer : peer.slice(0, port)).toLowerCase()
  if (!address.includes(":")) return address
  const mapped = address.slice(address.lastIndexOf(":") + 1)
  if (mapped.includes(".")) return mapped
  const [head = "", tail] = address.split("%")[0]!.split("::")
  const groups = head === "" ? [] : head.split(":")
  if (tail !== undefined) {
    const last = tail === "" ? [] : tail.split(":")
    while (groups.length + last.length < 8) groups.push("0")
    groups.push(...last)
  }
  const first = groups.slice(0, 4).map((group) => Number.parseInt(group, 16).toString(16))
  return first.every((group) => group === "0") ? address : `${first.join(":")}::/64`
}

export const isOfThisMachine = (source: string): boolean =>
  source.startsWith("127.") || source === "::1" || source === "unix" || source === "in-process"

/** What the owner of a connection wants to hear. Never called after `onClose`. */
export interface Handler {
  /** The chunk is the receiver's: the network does not reuse it. */
  readonly onData: (chunk: Uint8Array) => void
  /** What was written has been taken, after `pendingBytes` had been above zero. */
  readonly onDrain: () => void
  readonly onClose: (reason: string) => void
}

export interface Connection {
  readonly peer: string
  /**
   * What both ends of a TLS 1.3 connection export and nobody between them can (`tls-exporter`, RFC 9266: 32 bytes).
   * Undefined: no TLS, or a runtime that does not export it.
   */
  readonly channelBinding?: Uint8Array | undefined
  /** Hands over the bytes; they must not be changed afterwards. */
  readonly write: (bytes: Uint8Array) => void
  /** Hands over bytes that are the caller's again once `done` is called, which is never if they may still be looked at. */
  readonly lend?: ((bytes: Uint8Array, done: () => void) => void) | undefined
  /** What is written between these two leaves together. */
  readonly cork?: (() => void) | undefined
  readonly uncork?: (() => void) | undefined
  /** Written and not yet taken by the system. */
  readonly pendingBytes: () => number
  readonly pause: () => void
  readonly resume: () => void
  /** Sends what is written, then ends. */
  readonly close: () => void
  /** Ends at once. */
  readonly destroy: () => void
}

/** TLS 1.3 of a listener. All texts are PEM. */
export interface ServerTls {
  readonly certificate: string
  readonly privateKey: string
  /** Whom the certificates of clients come from, each of which must then have one. Default: none are asked for. */
  readonly clientAuthorities?: string | undefined
}

/** TLS 1.3 of a client. All texts are PEM. */
export interface ClientTls {
  /** Whom the manager's certificate comes from. Default: the authorities that the runtime knows. */
  readonly authorities?: string | undefined
  /** SHA-256 of the manager's certificate (64 hexadecimal digits): that one is taken and no other, whoever signed it. */
  readonly fingerprint?: string | undefined
  /** This client's own certificate and key, for a manager that asks for one. */
  readonly certificate?: string | undefined
  readonly privateKey?: string | undefined
}

export class Network extends Context.Service<
  Network,
  {
    /**
     * Listens until the scope closes. Returns the address really bound (port 0 becomes a port). With `tls` a connection
     * is accepted when its TLS handshake is done; `failed` hears of those that do not get so far.
     */
    readonly listen: (
      address: Address,
      accept: (connection: Connection) => Handler,
      tls?: ServerTls,
      failed?: (peer: string, reason: string) => void
    ) => Effect.Effect<Address, ListenFailed, Scope.Scope>
    /** Connects within `timeoutMs`, TLS included. The handler hears nothing before this has succeeded. */
    readonly dial: (
      address: Address,
      timeoutMs: number,
      handler: (connection: Connection) => Handler,
      tls?: ClientTls
    ) => Effect.Effect<Connection, ConnectFailed>
  }
>()("millrace/platform/Network") {}
