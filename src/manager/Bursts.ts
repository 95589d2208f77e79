/**
 * What peers cause is logged once a burst: the first of its kind from one source at once, the others as a count. A source
 * is an address or a credential; what a reason quotes, and its numbers, do not make another kind.
 *
 * Bounded: when too many sources do something at a time, the rest share one entry a text.
 */
import * as Limits from "../Limits.ts"

interface Burst {
  readonly text: string
  readonly source: string
  sinceAt: number
  more: number
}

export class Bursts {
  readonly #bursts = new Map<string, Burst>()
  readonly #log: (text: string, details: Readonly<Record<string, unknown>>) => void

  /** `log` is told the details of the first, and of the others how many they are. */
  constructor(log: (text: string, details: Readonly<Record<string, unknown>>) => void) {
    this.#log = log
  }

  add(text: string, source: string, details: Readonly<Record<string, unknown>>, now: number): void {
    const reason = String(details["reason"] ?? "").replace(/".*"|\d+/gs, "")
    const own = `${text} ${reason} ${source}`
    const isOther = this.#bursts.size >= Limits.logBurstsMax && !this.#bursts.has(own)
    const key = isOther ? text : own
    const burst = this.#bursts.get(key)
    if (burst !== undefined) {
      burst.more++
      return
    }
    this.#bursts.set(key, { text, source: isOther ? "others" : source, sinceAt: now, more: 0 })
    this.#log(text, details)
  }

  /** Tells of what came since; a burst that went on keeps its entry, one that stopped is over. */
  sweep(now: number): void {
    for (const [key, burst] of this.#bursts) {
      if (now - burst.sinceAt < Limits.logBurstMs) continue
      if (burst.more === 0) this.#bursts.delete(key)
      else this.#log(`${burst.text}, again and again`, { from: burst.source, times: burst.more })
      burst.more = 0
      burst.sinceAt = now
    }
  }
}
