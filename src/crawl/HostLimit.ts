/**
 * At most N effects per host at a time, in this process.
 *
 * Lanes of the manager are what keeps a crawl polite; this is the floor under a single process, for crawls without
 * lanes and for redirects that lead to another host. It knows no delay, no rate and no other process.
 *
 * Invariant: a host is remembered exactly as long as something runs or waits for it, so memory is bounded by the
 * concurrency and not by the number of hosts seen.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Semaphore from "effect/Semaphore"

/** Concurrent requests to one host, by default. */
export const perHostDefault = 2

export class HostLimit extends Context.Service<
  HostLimit,
  {
    /** Runs the effect when the host has a free place; first come, first served. Interruption gives the place up. */
    readonly withPermit: (host: string) => <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
    /** Hosts for which something runs or waits. */
    readonly hosts: Effect.Effect<number>
  }
>()("millrace/crawl/HostLimit") {}

interface Host {
  readonly semaphore: Semaphore.Semaphore
  users: number
}

export const make = (perHost: number = perHostDefault): HostLimit["Service"] => {
  const hosts = new Map<string, Host>()
  const enter = (name: string): Host => {
    let host = hosts.get(name)
    if (host === undefined) {
      host = { semaphore: Semaphore.makeUnsafe(perHost), users: 0 }
      hosts.set(name, host)
    }
    host.users++
    return host
  }
  const leave = (name: string, host: Host): void => {
    if (--host.users === 0) hosts.delete(name)
  }
  return HostLimit.of({
    withPermit: (name) => (effect) =>
      Effect.acquireUseRelease(
        Effect.sync(() => enter(name)),
        (host) => Semaphore.withPermit(host.semaphore, effect),
        (host) => Effect.sync(() => leave(name, host))
      ),
    hosts: Effect.sync(() => hosts.size)
  })
}

export const layer = (perHost: number = perHostDefault): Layer.Layer<HostLimit> =>
  Layer.sync(HostLimit, () => make(perHost))
