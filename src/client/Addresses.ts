/**
 * Where a client looks for its manager: one address, or several that are tried in order. The one that let it in is
 * remembered and tried first from then on.
 *
 * An address where nobody answers leads to the next one; a refusal (a wrong key, another version) is the answer.
 */
import * as Effect from "effect/Effect"
import { ConnectFailed } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import { type Address, formatAddress } from "../platform/Network.ts"

/** One of the addresses of a client. The port is 8001 by default. */
export type AddressInput = { readonly host: string; readonly port?: number | undefined } | { readonly path: string }

const addressOf = (input: AddressInput): Address =>
  "path" in input ? { _tag: "Unix", path: input.path } : { _tag: "Tcp", host: input.host, port: input.port ?? 8001 }

interface AddressOptions {
  readonly host?: string | undefined
  readonly port?: number | undefined
  readonly path?: string | undefined
  readonly addresses?: ReadonlyArray<AddressInput> | undefined
}

/** At least one, or why a client may not have these. */
export const addressesOf = (
  { addresses, host, path, port }: AddressOptions,
  join: { readonly host: string; readonly port: number } | undefined
): readonly [Address, ...ReadonlyArray<Address>] | ConnectFailed => {
  const refused = (reason: string, address = "addresses") => new ConnectFailed({ address, reason })
  if (addresses !== undefined && (host ?? port ?? path ?? join) !== undefined) {
    return refused("they are given beside a host, port, path or join string: use one of these")
  }
  const tcp = { host: join?.host ?? host ?? "127.0.0.1", port: join?.port ?? port }
  const one = path === undefined || join !== undefined ? tcp : { path }
  const [first, ...others] = (addresses ?? [one]).map(addressOf)
  if (first === undefined || others.length >= Limits.addressesMax) {
    return refused(`a client has 1 to ${Limits.addressesMax} addresses, not ${addresses?.length}`)
  }
  const all = [first, ...others] as const
  const wrong = all.find((address) => address._tag === "Tcp" && !(address.port >= 1 && address.port <= 65_535))
  return wrong === undefined ? all : refused("a port is a number from 1 to 65535", formatAddress(wrong))
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
