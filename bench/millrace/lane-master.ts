/** The master of the work `lanes`: fills queues, waits until they are done, and leases by hand. */
import * as Effect from "effect/Effect"
import * as ManagedRuntime from "effect/ManagedRuntime"
import { monotonicMs, serve } from "../harness/role.ts"
import { client } from "./connect.ts"
import { Empty, Full, Pages, siteOf } from "./lane-queue.ts"

export interface Fill {
  readonly sites: number
  readonly pagesPerSite: number
}

const runtime = ManagedRuntime.make(client)

const batch = 4_096

const put = Effect.fnUntraced(function* (queue: typeof Pages, { pagesPerSite, sites }: Fill) {
  const all = sites * pagesPerSite
  for (let from = 0; from < all; from += batch) {
    const items = Array.from({ length: Math.min(batch, all - from) }, (_, i) => ({
      site: siteOf((from + i) % sites),
      page: Math.floor((from + i) / sites)
    }))
    yield* queue.putAll(items)
  }
})

let done = 0

/** Puts page after page of all sites and waits until the workers have done them all, each once. */
const crawl = (fill: Fill): Promise<void> =>
  runtime.runPromise(
    Effect.gen(function* () {
      yield* put(Pages, fill)
      yield* Pages.join()
      done += fill.sites * fill.pagesPerSite
      const stats = yield* Pages.stats
      if (stats.done !== done || stats.puts !== done) {
        throw new Error(`the manager counts ${stats.puts} puts and ${stats.done} done; ${done} were put`)
      }
    })
  )

const fill = (what: Fill): Promise<void> => runtime.runPromise(put(Full, what))

/** Milliseconds of `samples` leases by hand, one at a time; each is committed, which is not timed. */
const leases = ({ full, samples }: { readonly full: boolean; readonly samples: number }): Promise<Float64Array> =>
  runtime.runPromise(
    Effect.gen(function* () {
      const queue = full ? Full : Empty
      const times = new Float64Array(samples)
      for (let i = 0; i < samples; i++) {
        if (!full) yield* queue.put({ site: siteOf(i % 10), page: i })
        const from = monotonicMs()
        const [lease] = yield* queue.lease({ timeout: 0 })
        times[i] = monotonicMs() - from
        if (lease === undefined) throw new Error("nothing was leased")
        yield* queue.commit(lease, undefined)
      }
      return times
    })
  )

serve({ ready: () => runtime.runPromise(Effect.void), crawl, fill, leases }, () => runtime.dispose())
