/**
 * What failed logins cost the next ones: a growing delay per address and per name (reliability reference, 3.2).
 *
 *     attempt -> now | later, in turn | refused: too many wait already
 *
 * After `loginFailuresFree` failures the attempts of an address, or under a name, are answered one at a time, further and
 * further apart: many connections guess no faster than one. The turns of a name are for addresses that have failed
 * themselves: a stranger elsewhere does not hold up who knows the key. Who has logged in from an address under a name
 * before, and has not failed as often since, does not wait for what others do there. An unknown name is counted like a
 * known one.
 */
import * as Limits from "../Limits.ts"

interface Failures {
  count: number
  lastAt: number
  /** When the next attempt may be answered. */
  nextAt: number
}

export class Logins {
  readonly #failures = new Map<string, Failures>()
  /** Who has logged in: failures since then. */
  readonly #known = new Map<string, number>()

  /** Whether an attempt is answered at once, whatever others wait for. */
  isFree(address: string, name: string, now: number): boolean {
    return this.#slow(address, name, now).length === 0
  }

  /** When an attempt may be answered; undefined: not at all, too many of its kind wait already. */
  answerAt(address: string, name: string, now: number): number | undefined {
    const slow = this.#slow(address, name, now)
    const at = slow.reduce((latest, { nextAt }) => Math.max(latest, nextAt), now)
    if (at - now > Limits.loginDelayMsMax) return undefined
    for (const failures of slow) failures.nextAt = at + delayOf(failures.count)
    return at
  }

  /** Whose turns an attempt has to wait for: its address's, and, once it has failed from there, its name's. */
  #slow(address: string, name: string, now: number): ReadonlyArray<Failures> {
    if ((this.#known.get(pairOf(address, name)) ?? Limits.loginFailuresFree) < Limits.loginFailuresFree) return []
    const here = this.#find(`address ${address}`, now)
    if (here === undefined) return []
    const named = this.#find(`name ${name}`, now)
    return [here, named].filter(
      (failures): failures is Failures => failures !== undefined && failures.count >= Limits.loginFailuresFree
    )
  }

  failed(address: string, name: string, now: number): void {
    const pair = pairOf(address, name)
    const known = this.#known.get(pair)
    if (known !== undefined) this.#known.set(pair, known + 1)
    for (const key of [`address ${address}`, `name ${name}`]) {
      const failures = this.#find(key, now) ?? { count: 0, lastAt: now, nextAt: now }
      failures.count++
      failures.lastAt = now
      if (failures.count === Limits.loginFailuresFree) failures.nextAt = now + delayOf(failures.count)
      put(this.#failures, key, failures)
    }
  }

  accepted(address: string, name: string): void {
    put(this.#known, pairOf(address, name), 0)
  }

  #find(key: string, now: number): Failures | undefined {
    const failures = this.#failures.get(key)
    if (failures === undefined || now - failures.lastAt < Limits.loginFailuresForgottenMs) return failures
    this.#failures.delete(key)
    return undefined
  }
}

const pairOf = (address: string, name: string): string => `${address} ${name}`

const delayOf = (failures: number): number =>
  Math.min(Limits.loginDelayMsMax, Limits.loginDelayBaseMs * 2 ** Math.min(16, failures - Limits.loginFailuresFree))

/** Keeps the newest; the one that was not touched for longest makes room. */
const put = <A>(map: Map<string, A>, key: string, value: A): void => {
  map.delete(key)
  map.set(key, value)
  if (map.size <= Limits.loginRecordsMax) return
  const [oldest] = map.keys()
  map.delete(oldest!)
}
