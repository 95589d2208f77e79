/**
 * A session as the engine sees it: who holds leases, who waits, who is delivered to.
 *
 * The engine knows nothing of connections. Without one a session waits for nothing and has no streams, and its leases run
 * out; the manager says when (`detach`, `resume`, `goodbye`).
 */
import type { Queue } from "./Queue.ts"
import type { TaskOptions } from "./Task.ts"
import type { Timer } from "./Timers.ts"

export class Session {
  /** Set while the peer does not take what was written to it: nothing more is delivered. */
  congested = false
  readonly id: number
  readonly leaseStreams = new Map<number, LeaseStream>()
  readonly outcomeStreams = new Map<number, OutcomeStream>()
  /** Requests that wait inside the engine; ended with the connection. */
  readonly waiting = new Set<Waiter>()
  leased = 0

  constructor(id: number) {
    this.id = id
  }
}

/** Tasks pushed to a session as long as it has credit. */
export class LeaseStream {
  readonly id: number
  readonly session: Session
  readonly queue: Queue
  credit: number
  /** The part of the credit that is no free handler: tasks of lanes with limits are not delivered on it. */
  readonly prefetch: number

  constructor(id: number, session: Session, queue: Queue, credit: number, prefetch: number) {
    this.id = id
    this.session = session
    this.queue = queue
    this.credit = credit
    this.prefetch = prefetch
  }
}

/** Outcomes pushed to a session from a cursor on. */
export class OutcomeStream {
  readonly id: number
  readonly session: Session
  readonly queue: Queue
  cursor: number
  credit: number

  constructor(id: number, session: Session, queue: Queue, cursor: number, credit: number) {
    this.id = id
    this.session = session
    this.queue = queue
    this.cursor = cursor
    this.credit = credit
  }
}

/** A request that could not be answered at once. Exactly one of: answered, timed out, dropped with its session. */
export class Waiter {
  ended = false
  timer: Timer | undefined = undefined
  readonly kind: "put" | "lease" | "join" | "outcome"
  readonly session: Session
  readonly request: number
  readonly queue: Queue
  /** lease: tasks wanted. outcome: the task's number. */
  readonly count: number
  /** lease: whether the answer is a `get`. */
  readonly get: boolean
  /** put: the batch, and how much of it has entered. */
  readonly put: PutBatch | undefined

  constructor(
    kind: Waiter["kind"],
    session: Session,
    request: number,
    queue: Queue,
    count: number,
    get: boolean,
    put: PutBatch | undefined
  ) {
    this.kind = kind
    this.session = session
    this.request = request
    this.queue = queue
    this.count = count
    this.get = get
    this.put = put
  }
}

export interface PutBatch {
  readonly payloads: ReadonlyArray<Uint8Array>
  readonly options: ReadonlyArray<TaskOptions | undefined> | undefined
  readonly atomic: boolean
  /** Filled from the front: the number of each task that entered, and whether it was there before. */
  readonly tasks: Array<number>
  readonly statuses: Array<PutStatus>
}

/** What became of one item of a put; the numbers are the protocol's. */
export const PutStatus = { accepted: 0, duplicate: 1, full: 2, spent: 3 } as const
export type PutStatus = (typeof PutStatus)[keyof typeof PutStatus]
