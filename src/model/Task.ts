/**
 * One task as the engine holds it, and the words for what may become of it.
 *
 * A task is mutable and owned by exactly one engine. `prev` and `next` link it into the one list that its state puts
 * it in: the ready list of its lane and priority, or the lease list of its queue. Legal moves:
 *
 *     put -> ready | delayed        delayed -> ready | dead | cancelled     ready -> leased | dead | cancelled
 *     leased -> done | dead | ready (released, lost) | delayed (failed, backing off) | cancelled
 *
 * `done`, `dead` and `cancelled` are final: the record leaves the engine, its outcome stays in the log. `Life.ts` has the
 * whole table.
 */
import type { Queue } from "./Queue.ts"
import type { Session } from "./Session.ts"
import type { Timer } from "./Timers.ts"

export const State = { ready: 0, delayed: 1, leased: 2, ended: 3 } as const
export type State = (typeof State)[keyof typeof State]

/** What became of a task; the numbers are the protocol's. */
export const Outcome = { success: 0, failure: 1, dead: 2, cancelled: 3 } as const
export type Outcome = (typeof Outcome)[keyof typeof Outcome]

/** Why an attempt, or the task itself, ended badly; the numbers are the protocol's. */
export const Reason = {
  failed: 0,
  killed: 1,
  defect: 2,
  leaseLost: 3,
  quarantined: 4,
  expired: 5,
  dropped: 6,
  releasedTooOften: 7,
  timeout: 8,
  undecodable: 9,
  damaged: 10
} as const
export type Reason = (typeof Reason)[keyof typeof Reason]

export interface AttemptReason {
  readonly attempt: number
  readonly reason: Reason
  readonly text: string
}

/** What a producer may say about a task besides its payload. */
export interface TaskOptions {
  /** Dedupe id: at most one task per id while that task lives and for the retention after it. */
  readonly id?: string | undefined
  /** 0..255, lower first. */
  readonly priority?: number | undefined
  readonly delayMs?: number | undefined
  readonly ttlMs?: number | undefined
  /** Lane. */
  readonly key?: string | undefined
  readonly labels?: ReadonlyArray<string> | undefined
  /** W3C traceparent. */
  readonly trace?: string | undefined
}

export const priorityDefault = 128

export class Task {
  state: State = State.ready
  prev: Task | undefined = undefined
  next: Task | undefined = undefined
  /** Leases granted and not given back. */
  attempt = 0
  /** Leases ever granted; with the epoch it makes the fence. */
  leases = 0
  releases = 0
  lossesWhileStarted = 0
  /** Delayed: due at. Leased: lease ends at. */
  at = 0
  started = false
  holder: Session | undefined = undefined
  /** The entry that makes a delayed task ready, and the one that ends its time to live. */
  due: Timer | undefined = undefined
  expiry: Timer | undefined = undefined
  /** Its time to live is over: it may end, and not come back. */
  expired = false
  reasons: Array<AttemptReason> | undefined = undefined
  checkpoint: Uint8Array | undefined = undefined
  /** Number of the dead letter that was put again as this task; 0: none. */
  origin = 0
  /** The dense number of the task: its identity inside the namespace, and its first place in the order. */
  readonly n: number
  readonly queue: Queue
  /** Undefined: only in the log, at `home` and `homeAt`. */
  payload: Uint8Array | undefined
  readonly payloadBytes: number
  /** The row of the log with the task's full record, and where in it the payload begins; 0: in no log. */
  home = 0
  homeAt = 0
  readonly options: TaskOptions | undefined
  readonly priority: number
  /** Put order within its priority; a task that backed off gets a new place, a released one keeps its own. */
  place: number
  readonly putAt: number

  constructor(
    n: number,
    queue: Queue,
    payload: Uint8Array | undefined,
    options: TaskOptions | undefined,
    now: number,
    payloadBytes = payload?.byteLength ?? 0
  ) {
    this.n = n
    this.queue = queue
    this.payload = payload
    this.payloadBytes = payloadBytes
    this.options = options
    this.priority = options?.priority ?? priorityDefault
    this.place = n
    this.putAt = now
  }
}
