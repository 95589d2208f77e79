/**
 * Where a client looks for its manager: one address, or several that are tried in order. The one that let it in is
 * remembered and tried first from then on.
 *
 * An address where nobody answers leads to the next one; a refusal (a wrong key, another version) is the answer.
 */
import * as Effect from "effect/Effect"
import { printable } from "../auth/Credentials.ts"
import { decodeJoin, type Join } from "../auth/Join.ts"
import { ConfigurationInvalid, ConnectFailed } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import type { Address } from "../platform/Network.ts"

/** One of the addresses of a client. The port is 8001 by default; a join string names the manager's certificate, too. */
export type AddressInput =
  | { readonly host: string; readonly port?: number | undefined }
  | { readonly path: string }
  | { readonly join: string }

interface AddressOptions {
  readonly host?: string | undefined
  readonly port?: number | undefined
  readonly path?: string | undefined
  readonly join?: string | undefined
  readonly addresses?: ReadonlyArray<AddressInput> | undefined
}

/** Where a manager may be, and what its join string says of it. */
export interface Place {
  readonly address: Address
  readonly join: Join | undefined
}

const portDefault = 8001
const portRemedy = "use a port from 1 to 65535"
const hostRemedy = "name a host, or an address without brackets"
const pathRemedy = "name the socket by a path"

/** At least one, or what is wrong with them. */
export const placesOf = (options: AddressOptions): readonly [Place, ...ReadonlyArray<Place>] | ConfigurationInvalid => {
  const { addresses, host, join, path, port } = options
  if (addresses === undefined) {
    const input = join !== undefined ? { join } : path !== undefined ? { path } : { host: host ?? "127.0.0.1", port }
    const place = placeOf(input, "")
    return place instanceof ConfigurationInvalid ? place : [place]
  }
  const refused = (value: string, remedy: string) => new ConfigurationInvalid({ field: "addresses", value, remedy })
  const beside = Object.entries({ host, port, path, join }).find(([, value]) => value !== undefined)?.[0]
  if (beside !== undefined) return refused(`given beside ${beside}`, "use one of the two")
  const places: Array<Place> = []
  for (const [i, input] of addresses.slice(0, Limits.addressesMax).entries()) {
    const place = placeOf(input, `addresses[${i}].`)
    if (place instanceof ConfigurationInvalid) return place
    places.push(place)
  }
  const [first, ...others] = places
  if (first === undefined || addresses.length > Limits.addressesMax) {
    return refused(`a list of ${addresses.length}`, `give 1 to ${Limits.addressesMax} addresses`)
  }
  return [first, ...others]
}

const placeOf = (input: AddressInput, at: string): Place | ConfigurationInvalid => {
  const refused = (field: string, value: string, remedy: string) =>
    new ConfigurationInvalid({ field: `${at}${field}`, value, remedy })
  if ("join" in input) {
    const decoded = decodeJoin(input.join)
    if (decoded._tag === "Refused") return refused("join", decoded.value, decoded.remedy)
    const { host, port } = decoded.join
    return { address: { _tag: "Tcp", host, port }, join: decoded.join }
  }
  if ("path" in input) {
    const { path } = input
    if (path === "" || path.includes("\0")) return refused("path", `"${printable(path)}"`, pathRemedy)
    return { address: { _tag: "Unix", path }, join: undefined }
  }
  const { host, port = portDefault } = input
  if (!isHost.test(host)) return refused("host", `"${printable(host)}"`, hostRemedy)
  if (!isPort(port)) return refused("port", String(port), portRemedy)
  return { address: { _tag: "Tcp", host, port }, join: undefined }
}

const isPort = (port: number): boolean => Number.isInteger(port) && port >= 1 && port <= 65_535

/** A name in any script, or an IPv4 or IPv6 address: what cannot be one is refused before anybody is asked for it. */
const isHost = /^[\p{L}\p{M}\p{N}._:%-]{1,253}$/u

/** Of a flag: `HOST:PORT`, `HOST`, `[IPv6]:PORT`, the path of a socket, or a join string. Undefined: none of these. */
export const parseAddress = (text: string): AddressInput | undefined => {
  if (text.startsWith("millrace:")) return { join: text }
  if (/^(?:\.{0,2}\/|\\\\)/.test(text)) return { path: text }
  const [, bracketed, plain, port] = /^(?:\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|([\w.-]+))(?::(\d{1,5}))?$/.exec(text) ?? []
  const host = bracketed ?? plain
  return host === undefined ? undefined : { host, port: port === undefined ? undefined : Number(port) }
}

/** The credential that join strings name for their managers: one for all. Undefined: they name several. */
export const userOf = (places: ReadonlyArray<Place>): { readonly user?: string } | undefined => {
  const users = new Set(places.flatMap(({ join }) => (join === undefined ? [] : [join.user])))
  if (users.size > 1) return undefined
  const [user] = users
  return user === undefined ? {} : { user }
}

export class Doors<D extends { readonly address: string }> {
  readonly #doors: ReadonlyArray<D>
  #first = 0

  /** Assumes that there is one. */
  constructor(doors: ReadonlyArray<D>) {
    this.#doors = doors
  }

  /** All of them, for messages. */
  get address(): string {
    return this.#doors.map(({ address }) => address).join(", ")
  }

  /** Enters by the first door that opens. Fails with `ConnectFailed` for all of them, or with another error of one. */
  enter<A, E extends { readonly _tag: string }>(
    by: (door: D) => Effect.Effect<A, E | ConnectFailed>
  ): Effect.Effect<A, E | ConnectFailed> {
    const doors = this.#doors
    const first = this.#first
    const closed: Array<ConnectFailed> = []
    const from = (i: number): Effect.Effect<A, E | ConnectFailed> => {
      const at = (first + i) % doors.length
      return by(doors[at]!).pipe(
        Effect.tap(() =>
          Effect.sync(() => {
            this.#first = at
          })
        ),
        Effect.catch((error) => {
          if (!(error instanceof ConnectFailed)) return Effect.fail(error)
          closed.push(error)
          if (i + 1 < doors.length) return from(i + 1)
          return Effect.fail(doors.length === 1 ? error : this.#allOf(closed))
        })
      )
    }
    return from(0)
  }

  #allOf(closed: ReadonlyArray<ConnectFailed>): ConnectFailed {
    const reason = closed.map(({ address, reason }) => `${address}: ${reason}`).join("; ")
    return new ConnectFailed({ address: this.address, reason })
  }
}
