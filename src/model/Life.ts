/**
 * The life of a task as a table: where it may stand, and which steps are legal.
 *
 * The engine keeps a task's state spread over lists and links; this is what those must amount to. Tests and `Invariants`
 * hold every step of every task against the table; browsing, cancelling and puts of a known id answer with its words.
 */
import { Outcome, State, type Task } from "./Task.ts"

/** Where a task stands; the numbers are the protocol's. `gone` is unknown here: never put, taken, purged, or forgotten. */
export const Standing = {
  gone: 0,
  ready: 1,
  delayed: 2,
  leased: 3,
  success: 4,
  failure: 5,
  dead: 6,
  cancelled: 7
} as const
export type Standing = (typeof Standing)[keyof typeof Standing]

export type Life =
  | { readonly _tag: "New" }
  | { readonly _tag: "Ready" }
  | { readonly _tag: "Delayed"; readonly dueAt: number }
  | { readonly _tag: "Leased"; readonly until: number; readonly attempt: number }
  | { readonly _tag: "Done" }
  | { readonly _tag: "Failed" }
  | { readonly _tag: "Dead" }
  | { readonly _tag: "Cancelled" }
  /** Taken for good by a `get`: no outcome. */
  | { readonly _tag: "Taken" }
  /** Removed by command: no outcome. */
  | { readonly _tag: "Purged" }

type Tag = Life["_tag"]

/** Every legal step. What is not here never happens. */
export const steps: Readonly<Record<Tag, ReadonlyArray<Tag>>> = {
  New: ["Ready", "Delayed"],
  Ready: ["Leased", "Dead", "Cancelled", "Purged"],
  Delayed: ["Ready", "Dead", "Cancelled", "Purged"],
  // Back to Ready: released or lost. To Delayed: failed, backing off; or its handler waits.
  Leased: ["Ready", "Delayed", "Done", "Failed", "Dead", "Cancelled", "Taken"],
  Done: [],
  Failed: [],
  Dead: [],
  Cancelled: [],
  Taken: [],
  Purged: []
}

export const legal = (from: Tag, to: Tag): boolean => steps[from].includes(to)

/** Ends that leave an outcome in the log, by its kind. */
export const ended: Readonly<Record<Outcome, Tag>> = {
  [Outcome.success]: "Done",
  [Outcome.failure]: "Failed",
  [Outcome.dead]: "Dead",
  [Outcome.cancelled]: "Cancelled"
}

/** Assumes: the task lives. */
export const lifeOf = (task: Task): Life => {
  switch (task.state) {
    case State.ready:
      return { _tag: "Ready" }
    case State.delayed:
      return { _tag: "Delayed", dueAt: task.at }
    case State.leased:
      return { _tag: "Leased", until: task.at, attempt: task.attempt }
    case State.ended:
      throw new Error(`task ${task.n} has ended: its outcome says how`)
  }
}

/** Assumes: the task lives. */
export const standingOf = (task: Task): Standing =>
  task.state === State.ready ? Standing.ready : task.state === State.delayed ? Standing.delayed : Standing.leased

export const standingOfOutcome = (outcome: Outcome): Standing => (outcome + Standing.success) as Standing
