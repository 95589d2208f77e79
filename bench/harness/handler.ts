/** The handler of all workers written for Node: what it answers is the result. For probes it also says when it began. */
import process from "node:process"
import { monotonicMs } from "./role.ts"
import type { Task } from "./urls.ts"

export interface Result {
  readonly url: string
  readonly ok: boolean
  readonly startedAtMs?: number
}

export const handle: (task: Task) => Result =
  process.env["BENCH_PROBES"] === "yes"
    ? ({ url }) => {
        const startedAtMs = monotonicMs()
        return { url, ok: true, startedAtMs }
      }
    : ({ url }) => ({ url, ok: true })
