/**
 * What failed logins cost the next ones: a growing delay per address and per name (reliability reference, 3.2).
 *
 *     attempt -> now | later, in turn | refused: too many wait already
 *
 * After `loginFailuresFree` failures the attempts of an address, or under a name, are answered one at a time, further and
 * further apart: many connections guess no faster than one. Who has logged in from an address under a name before, and has
 * not failed since, does not wait for what others do there. An unknown name is counted like a known one.
 */
import * as Limits from "../Limits.ts"

interface Failures {
  count: number
  lastAt: number
  /** When the next attempt may be answered. */
  nextAt: number
}

/** The address of a peer (`address:port`): IPv6 by its first 64 bits, which is what one network is given (RFC 4291, 2.5.4). */
export const addressOf = (peer: string): string => {
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

export const isLoopback = (address: string): boolean =>
  address.startsWith("127.") || address === "::1" || address === "unix"

export class Logins {
  readonly #failures = new Map<string, Failures>()
  /** Who has logged in: failures since then. */
  readonly #known = new Map<string, number>()

  /** When an attempt may be answered; undefined: not at all, too many of its kind wait already. */
  answerAt(address: string, name: string, now: number): number | undefined {
    if ((this.#known.get(pairOf(address, name)) ?? Limits.loginFailuresFree) < Limits.loginFailuresFree) return now
    const slow = [`address ${address}`, `name ${name}`]
      .map((key) => this.#find(key, now))
      .filter((failures) => failures !== undefined && failures.count >= Limits.loginFailuresFree)
    const at = slow.reduce((latest, failures) => Math.max(latest, failures!.nextAt), now)
    if (at - now > Limits.loginDelayMsMax) return undefined
    for (const failures of slow) failures!.nextAt = at + delayOf(failures!.count)
    return at
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
