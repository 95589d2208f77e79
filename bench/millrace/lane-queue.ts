/** The queues of the work `lanes`: one lane per site. */
import * as Schema from "effect/Schema"
import * as TaskQueue from "../../src/TaskQueue.ts"

export const gapMs = 50

const payload = Schema.Struct({ site: Schema.String, page: Schema.Int })

/** Two requests of a site are at least 50 ms apart. */
export const Pages = TaskQueue.make("bench.lanes.pages", {
  payload,
  key: ({ site }) => site,
  policy: { capacity: 2_000_000, lane: { gap: gapMs } }
})

/** One request of a site at a time; leased by hand. The other one has the same policy, and nothing that waits. */
export const Full = TaskQueue.make("bench.lanes.full", {
  payload,
  key: ({ site }) => site,
  policy: { capacity: 2_000_000, lane: { concurrency: 1 } }
})
export const Empty = TaskQueue.make("bench.lanes.empty", {
  payload,
  key: ({ site }) => site,
  policy: { capacity: 2_000_000, lane: { concurrency: 1 } }
})

export const siteOf = (index: number): string => `site-${String(index).padStart(5, "0")}.example.org`

/** Handlers at a time: as many as lanes that may open in the same millisecond. Prefetch is asked for: such lanes do not get it. */
export const workerOptions = { concurrency: 1_024, prefetch: 1_024 } as const
