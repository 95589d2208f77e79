/** What became of a task, typed. */
import { Reason } from "../model/Task.ts"
import type * as Wire from "../wire/Vocabulary.ts"

/** What became of a task. Exactly one per task. */
export type Outcome<R, E, P = unknown> =
  | { readonly _tag: "Success"; readonly taskId: string; readonly attempts: number; readonly result: R }
  | {
      readonly _tag: "Failure"
      readonly taskId: string
      readonly attempts: number
      readonly error: E
      readonly reasons: ReadonlyArray<string>
    }
  | {
      readonly _tag: "Dead"
      readonly taskId: string
      readonly attempts: number
      /** Undefined if it does not decode. */
      readonly payload: P | undefined
      readonly reasons: ReadonlyArray<string>
    }
  | { readonly _tag: "Cancelled"; readonly taskId: string; readonly attempts: number; readonly payload: P | undefined }

const reasonNames = Object.fromEntries(Object.entries(Reason).map(([name, value]) => [value, name]))

/** One line of why an attempt, or a task, ended badly. */
export const reasonText = (reason: Wire.Reason): string =>
  `attempt ${reason.attempt}: ${reasonNames[reason.reason] ?? reason.reason}: ${reason.text}`
