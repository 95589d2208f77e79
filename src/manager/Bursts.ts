/**
 * What strangers cause is logged once a burst: the first of its kind from an address at once, the others as a count. What
 * a reason quotes, and its numbers, do not make another kind.
 *
 * Bounded: when too many addresses do something at a time, the rest share one entry without an address.
 */
import * as Limits from "../Limits.ts"

interface Burst {
  readonly text: string
  readonly address: string
  sinceAt: number
  more: number
}

export type Details = { readonly peer: string; readonly reason: string; readonly state?: string }

export class Bursts {
  readonly #bursts = new Map<string, Burst>()
  readonly #log: (text: string, details: Readonly<Record<string, unknown>>) => void

  /** `log` is told the details of the first, and of the others how many they are. */
  constructor(log: (text: string, details: Readonly<Record<string, unknown>>) => void) {
    this.#log = log
  }

  add(text: string, address: string, details: Details, now: number): void {
    const kind = `${text} ${details.reason.replace(/".*"|\d+/gs, "")}`
    const whose = this.#bursts.size < Limits.logBurstsMax || this.#bursts.has(`${kind} ${address}`) ? address : "others"
    const key = whose === address ? `${kind} ${whose}` : whose
    const burst = this.#bursts.get(key)
    if (burst !== undefined) {
      burst.more++
      return
    }
    this.#bursts.set(key, { text, address: whose, sinceAt: now, more: 0 })
    this.#log(text, details)
  }

  /** Tells of what came since; a burst that went on keeps its entry, one that stopped is over. */
  sweep(now: number): void {
    for (const [key, burst] of this.#bursts) {
      if (now - burst.sinceAt < Limits.logBurstMs) continue
      if (burst.more === 0) this.#bursts.delete(key)
      else this.#log(`${burst.text}, again and again`, { address: burst.address, times: burst.more })
      burst.more = 0
      burst.sinceAt = now
    }
  }
}
