/** The queues of the chaos runs: jobs that take a while, and a child for each that succeeds. */
import * as Schema from "effect/Schema"
import * as TaskQueue from "../../../src/TaskQueue.ts"

/** Longer than any restart takes, back-off of the clients included: a worker that lives keeps what it holds. */
export const leaseMs = Number(process.env["CHAOS_LEASE_MS"] ?? 10_000)

const policy = { lease: leaseMs, maxAttempts: 1_000, backoff: { base: 10, cap: 10 } } as const

export const Jobs = TaskQueue.make("jobs", {
  payload: Schema.Struct({ n: Schema.Int, ms: Schema.Int }),
  result: Schema.Struct({ n: Schema.Int, pid: Schema.Int }),
  policy
})

/** One for each job that was committed, without a dedupe id: only the commit keeps it from coming twice. */
export const Children = TaskQueue.make("children", {
  payload: Schema.Struct({ n: Schema.Int }),
  result: Schema.Struct({ n: Schema.Int }),
  policy
})

export const auth = { key: process.env["MILLRACE_AUTHKEY"] ?? "" }

/** Nanoseconds of a clock that all processes of this machine share. */
export const now = (): string => String(process.hrtime.bigint())
