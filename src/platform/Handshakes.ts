/** Connections of one listener that are in their TLS handshake: counted, in all and from one address. */
import * as Limits from "../Limits.ts"
import { addressOf, isLoopback } from "./Network.ts"

export class Handshakes {
  readonly #peers = new Set<string>()
  readonly #addresses = new Map<string, number>()

  /** Why there is no place for one more; undefined: it has one. */
  begin(peer: string): string | undefined {
    const address = addressOf(peer)
    const there = this.#addresses.get(address) ?? 0
    if (this.#peers.size >= Limits.connectionsUnauthenticatedMax) return "too many connections in the handshake"
    const most = isLoopback(address)
      ? Limits.connectionsUnauthenticatedLoopbackMax
      : Limits.connectionsUnauthenticatedPerAddressMax
    if (there >= most) return "too many connections in the handshake from this address"
    this.#peers.add(peer)
    this.#addresses.set(address, there + 1)
    return undefined
  }

  /** It has come through, or has gone; the first time counts. */
  end(peer: string): void {
    if (!this.#peers.delete(peer)) return
    const address = addressOf(peer)
    const there = this.#addresses.get(address) ?? 0
    if (there > 1) this.#addresses.set(address, there - 1)
    else this.#addresses.delete(address)
  }
}
