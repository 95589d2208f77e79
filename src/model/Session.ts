/**
 * A session as the engine sees it: who holds leases, who waits, who is delivered to.
 *
 * The engine knows nothing of connections. Without one a session waits for nothing and has no streams, and its leases run
 * out; the manager says when (`detach`, `resume`, `goodbye`).
 */
import type { CommitEffects } from "./Engine.ts"
import type { Standing } from "./Life.ts"
import type { Queue } from "./Queue.ts"
import type { Refusal } from "./Refusal.ts"
import type { TaskOptions } from "./Task.ts"
import type { Timer } from "./Timers.ts"

/** An answer to a mutation, kept until the client has said that it has it: asked again, it is given again. */
export class Remembered {
  /** The row of the log that holds it; 0: none. */
  home = 0
  readonly answer: unknown

  constructor(answer: unknown) {
    this.answer = answer
  }
}

const noToken = new Uint8Array()

export class Session {
  /** Set while the peer does not take what was written to it: nothing more is delivered. */
  congested = false
  /** The row of the log that holds it; 0: nothing durable mentions it yet. */
  home = 0
  readonly id: number
  /** What resumes it, and who may. */
  readonly token: Uint8Array
  readonly principal: string
  readonly answers = new Map<number, Remembered>()
  /** Puts of an earlier life of the manager that had entered in part; undefined: it has had none. */
  partial: Map<number, PutProgress> | undefined = undefined
  readonly leaseStreams = new Map<number, LeaseStream>()
  readonly outcomeStreams = new Map<number, OutcomeStream>()
  /** Requests that wait inside the engine; ended with the connection. */
  readonly waiting = new Set<Waiter>()
  leased = 0
  /** Why a commit of this session may not bring this about; undefined: it may bring about anything. */
  forbids: ((effects: CommitEffects) => Refusal | undefined) | undefined = undefined

  constructor(id: number, token: Uint8Array = noToken, principal = "") {
    this.id = id
    this.token = token
    this.principal = principal
  }

  /** How far a put that waits for room, now or before a restart, has entered. */
  progress(request: number): PutProgress | undefined {
    const before = this.partial?.get(request)
    if (before !== undefined) return before
    for (const { put, request: waiting } of this.waiting) if (waiting === request) return put
    return undefined
  }

  /** The client has these answers: from, to, from, to, ..., both included. */
  seen(ranges: ReadonlyArray<number>): void {
    forgetAnswers(this.answers, ranges)
  }
}

export const forgetAnswers = (answers: Map<number, Remembered>, ranges: ReadonlyArray<number>): void => {
  for (let i = 0; i + 1 < ranges.length; i += 2) {
    const from = ranges[i]!
    const to = ranges[i + 1]!
    // Whoever says the widest range there is must not make us count through it.
    if (to - from < 2 * answers.size) for (let n = from; n <= to; n++) answers.delete(n)
    else for (const n of answers.keys()) if (n >= from && n <= to) answers.delete(n)
  }
}

export interface PutProgress {
  /** The row of the log that holds it; 0: none. */
  home: number
  readonly tasks: ReadonlyArray<number>
  readonly statuses: ReadonlyArray<PutStatus>
}

/** Tasks pushed to a session as long as it has credit. */
export class LeaseStream {
  readonly id: number
  readonly session: Session
  readonly queue: Queue
  credit: number
  /** The part of the credit that is no free handler: tasks of lanes with limits are not delivered on it. */
  prefetch: number

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
  home: number
  /** The queue's name. */
  readonly queue: string
  readonly payloads: ReadonlyArray<Uint8Array>
  readonly options: ReadonlyArray<TaskOptions | undefined> | undefined
  readonly atomic: boolean
  /** Filled from the front: the number of each task that entered, and whether it was there before. */
  readonly tasks: Array<number>
  readonly statuses: Array<PutStatus>
  /** Where the first stood when a duplicate arrived, by position in the batch; undefined while there was none. */
  firsts: Array<Standing> | undefined
}

/** What became of one item of a put; the numbers are the protocol's. */
export const PutStatus = { accepted: 0, duplicate: 1, full: 2, spent: 3 } as const
export type PutStatus = (typeof PutStatus)[keyof typeof PutStatus]
