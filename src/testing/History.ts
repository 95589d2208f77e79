/**
 * What a schedule looked like from the outside: every call with its beginning, its end and how it ended, every delivery,
 * every outcome that was read. The checkers judge this and nothing else of the clients.
 *
 * Times are microseconds of the world. A payload is known by its number `u`, which is put at most once.
 */
import { facts } from "../Errors.ts"

/** `ok`: done. `definite`: certainly not. `indefinite`: perhaps. `open`: its caller died, or waits still. */
export type Verdict = "ok" | "definite" | "indefinite" | "open"

export interface Call {
  readonly client: string
  readonly queue: string
  readonly startedAt: number
  endedAt: number
  verdict: Verdict
  /** The error's tag, when there is one. */
  error: string | undefined
}

export interface PutItem {
  readonly u: number
  /** The payload as text: what is delivered must be the same. */
  readonly payload: string
  readonly id: string | undefined
  readonly priority: number
  readonly delayMs: number
  readonly ttlMs: number | undefined
  readonly key: string | undefined
}

export interface PutCall extends Call {
  readonly op: "put"
  readonly items: ReadonlyArray<PutItem>
  readonly atomic: boolean
  /** What was put: all of it (`ok`), or so many from the front (`Full`). */
  receipts: ReadonlyArray<{ readonly taskId: string; readonly duplicate: boolean }>
  /** Items from the front that a failed call has put all the same. */
  accepted: number
}

/** A child that joins a commit. */
export interface ChildPut {
  readonly queue: string
  readonly item: PutItem
  /** What is committed, with the result that it has in the end. */
  readonly run: Pick<Delivery, "at" | "taskId" | "result">
  /** Only if the commit adds this key to the set, and the key is new. */
  readonly ifNew?: { readonly set: string; readonly key: string } | undefined
}

/** Ends, or renews, a lease taken by hand. */
export interface EndCall extends Call {
  readonly op: "commit" | "release" | "fail" | "kill" | "renew" | "suspend"
  readonly taskId: string
  readonly fence: number
  /** The result of a commit: a number that no other commit has. */
  readonly result: number | undefined
}

/** Saves progress with a lease: a number that no other save has. */
export interface SaveCall extends Call {
  readonly op: "checkpoint"
  readonly taskId: string
  readonly fence: number
  readonly u: number
  readonly value: number
}

/** The name of a step or a signal, and its value: a number that no other has. */
export type Recorded = readonly [name: string, value: number]

/** Records a step with a lease. */
export interface StepCall extends Call {
  readonly op: "step"
  readonly taskId: string
  readonly fence: number
  readonly u: number
  readonly name: string
  readonly value: number
}

/** Signals a task, by its number or by its dedupe id. */
export interface SignalCall extends Call {
  readonly op: "signal"
  readonly taskId: string | undefined
  readonly id: string | undefined
  readonly name: string
  readonly value: number
}

/** Makes, changes or removes a repeat. */
export interface RepeatCall extends Call {
  readonly op: "repeat" | "removeRepeat"
  readonly id: string
  /** The payload of its occurrences: many tasks may have it. */
  readonly item: Pick<PutItem, "u" | "payload"> | undefined
}

export type OtherCall = Call & {
  readonly op:
    | "get"
    | "lease"
    | "outcome"
    | "join"
    | "close"
    | "stats"
    | "peek"
    | "cancel"
    | "pause"
    | "resume"
    | "purge"
    | "redrive"
    | "lane"
    | "find"
}

/** A request about a shared object, by hand; `queue` is its name. */
export interface SharedCall extends Call {
  readonly op: "add" | "has" | "remove" | "count" | "once" | "write" | "writeIf" | "delete" | "read"
  readonly key: string
  /** once, write, writeIf: a number that no other write has. count: what is added. read: what was read. */
  value: number | undefined
  /** writeIf: the version that it rests on. */
  readonly expected: number | undefined
  /** What was answered: new or there (sets, once, delete), the sum of a counter, the version of an entry (0: absent). */
  answer: boolean | number | undefined
}

export interface Delivery {
  readonly how: "worker" | "lease" | "get"
  readonly client: string
  readonly queue: string
  readonly at: number
  /** Undefined for a `get`, which does not tell. */
  readonly taskId: string | undefined
  readonly fence: number | undefined
  readonly attempt: number | undefined
  readonly u: number
  readonly payload: string
  /** What an earlier attempt saved; workers are not told. */
  readonly checkpoint: number | undefined
  /** What earlier attempts recorded, and when this lease was asked for; undefined where it is not told. */
  readonly entries?: ReadonlyArray<Recorded> | undefined
  readonly askedAt?: number | undefined
  /** What the handler wants to commit; undefined while it runs, and if it ends otherwise. */
  result: number | undefined
}

export interface OutcomeRead {
  readonly client: string
  readonly queue: string
  readonly at: number
  readonly taskId: string
  readonly outcome: "Success" | "Failure" | "Dead" | "Cancelled"
  readonly result: number | undefined
  readonly attempts: number
  /** One reader sees each outcome once, in the order of the log; undefined for a single question. */
  readonly reader: number | undefined
}

export class History {
  readonly puts: Array<PutCall> = []
  readonly children: Array<ChildPut> = []
  readonly ends: Array<EndCall> = []
  readonly others: Array<OtherCall> = []
  readonly shared: Array<SharedCall> = []
  readonly saves: Array<SaveCall> = []
  readonly steps: Array<StepCall> = []
  readonly signals: Array<SignalCall> = []
  readonly repeats: Array<RepeatCall> = []
  /** The repeats of each queue, as they were listed before the last of them were removed, and when that was asked for. */
  readonly repeatsListed = new Map<string, { readonly askedAt: number; readonly ids: ReadonlyArray<string> }>()
  readonly deliveries: Array<Delivery> = []
  readonly outcomes: Array<OutcomeRead> = []
  /** When power was lost last with work that was not synced: what was answered before may be gone. */
  lostAt = Number.NEGATIVE_INFINITY

  get calls(): number {
    const { ends, others, puts, repeats, saves, shared, signals, steps } = this
    return [ends, others, puts, repeats, saves, shared, signals, steps].reduce((sum, { length }) => sum + length, 0)
  }
}

/** How certain an error leaves its caller. What is in no table is a defect of the product. */
export const verdictOf = (error: unknown): { readonly verdict: Verdict; readonly tag: string } => {
  const tag =
    typeof error === "object" && error !== null && "_tag" in error && typeof error._tag === "string" ? error._tag : ""
  const known = tag in facts ? facts[tag as keyof typeof facts] : undefined
  return { verdict: known?.outcome ?? "indefinite", tag: tag === "" ? String(error) : tag }
}
