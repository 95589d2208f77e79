/** The queue of the step runs: tasks of several steps, two of them at the same time, and a wait. */
import * as Schema from "effect/Schema"
import * as TaskQueue from "../../../src/TaskQueue.ts"

export const Steps = TaskQueue.make("steps", {
  payload: Schema.Struct({ n: Schema.Int, sleepMs: Schema.Int }),
  result: Schema.Struct({ n: Schema.Int, values: Schema.Array(Schema.Int), nonces: Schema.Array(Schema.String) }),
  checkpoint: Schema.Struct({ done: Schema.Int }),
  policy: { lease: "2 seconds", maxAttempts: 1_000, backoff: { base: 10, cap: 10 } }
})

export const names = ["one", "two", "three", "left", "right", "last"] as const

/** What an uninterrupted run gives. */
export const valueOf = (n: number, step: number): number => (n * 31 + step * 7) % 1_009

/** Where a worker kills itself: before a step, within it, after its value is there and before it is recorded, after. */
export const places = ["before", "within", "done", "recorded"] as const

export const auth = { key: process.env["MILLRACE_AUTHKEY"] ?? "" }
