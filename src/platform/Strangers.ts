/** Connections that have not proven who they are: counted, in all and from one source, and bounded. */
import * as Limits from "../Limits.ts"
import { isOfThisMachine } from "./Network.ts"

export class Strangers {
  #size = 0
  readonly #sources = new Map<string, number>()

  /** Counts one more from `source`, or says why there is no place for it. */
  enter(source: string): string | undefined {
    const there = this.#sources.get(source) ?? 0
    if (this.#size >= Limits.connectionsUnauthenticatedMax) return "too many connections in the handshake"
    const most = isOfThisMachine(source)
      ? Limits.connectionsUnauthenticatedLoopbackMax
      : Limits.connectionsUnauthenticatedPerAddressMax
    if (there >= most) return "too many connections in the handshake from this address"
    this.#size++
    this.#sources.set(source, there + 1)
    return undefined
  }

  /** One that entered is known now, or has gone. */
  leave(source: string): void {
    const there = this.#sources.get(source) ?? 0
    this.#size--
    if (there > 1) this.#sources.set(source, there - 1)
    else this.#sources.delete(source)
  }
}
