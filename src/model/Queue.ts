/**
 * One queue of a namespace: its tasks by state, its readers and waiters, its counts.
 *
 * Pure bookkeeping that the engine drives; nothing here decides. Leased tasks hang in a list ordered by deadline:
 * every lease of a queue has the same term, so a lease or a renewal goes to the end and the next to expire is first.
 */
import * as Limits from "../Limits.ts"
import { ofPolicy } from "./LaneLimits.ts"
import { Lanes } from "./Lanes.ts"
import { OutcomeLog } from "./OutcomeLog.ts"
import type { Durability, Policy } from "./Policy.ts"
import type { LeaseStream, OutcomeStream, Waiter } from "./Session.ts"
import { State, type Task } from "./Task.ts"
import type { Timer } from "./Timers.ts"

export interface QueueDefinition {
  readonly name: string
  /** SHA-256 over the Schemas; peers with another one are refused with a readable difference. */
  readonly fingerprint: Uint8Array
  /** The Schemas as text, to explain a mismatch. */
  readonly schema: string
  /** Older fingerprints that may still be opened. */
  readonly accepts: ReadonlyArray<Uint8Array>
  readonly policy: Policy
  readonly durability: Durability
}

/** A task that will not be retried, kept with what happened. */
export interface DeadLetter {
  readonly task: Task
  readonly diedAt: number
}

export class Queue {
  readonly id: number
  readonly definition: QueueDefinition
  readonly policy: Policy
  readonly ready: Lanes
  readonly log: OutcomeLog
  /** Living tasks by dedupe id, and ended ones until their retention is over. */
  readonly ids = new Map<string, number>()
  /** Ended dedupe ids, oldest first. */
  readonly idsEnded: Array<{ readonly id: string; readonly until: number }> = []
  idsEndedFrom = 0
  readonly deadLetters = new Map<number, DeadLetter>()
  deadLetterBytes = 0
  readonly leaseStreams: Array<LeaseStream> = []
  leaseTurn = 0
  readonly outcomeStreams: Array<OutcomeStream> = []
  readonly putWaiters: Array<Waiter> = []
  readonly leaseWaiters: Array<Waiter> = []
  readonly joinWaiters: Array<Waiter> = []
  readonly outcomeWaiters = new Map<number, Array<Waiter>>()
  leaseHead: Task | undefined = undefined
  leaseTail: Task | undefined = undefined
  /** The one timer that looks at the head of the lease list, and the one that looks at the oldest outcome. */
  leaseTimer: Timer | undefined = undefined
  evictTimer: Timer | undefined = undefined
  /** The one that looks at the next lane to open. */
  laneTimer: Timer | undefined = undefined
  closed: "open" | "drain" | "immediate" = "open"
  delayed = 0
  leased = 0
  puts = 0
  duplicates = 0
  done = 0
  dead = 0
  cancelled = 0
  acknowledged = 0
  refused = 0
  dedupeDropped = 0

  constructor(id: number, definition: QueueDefinition) {
    this.id = id
    this.definition = definition
    this.policy = definition.policy
    this.ready = new Lanes(ofPolicy(definition.policy))
    this.log = new OutcomeLog(this.policy.outcomesKept, Limits.outcomesKeptBytes, this.policy.outcomesKeptMs)
  }

  /** What capacity counts. */
  get waiting(): number {
    return this.ready.size + this.delayed
  }

  get unfinished(): number {
    return this.ready.size + this.delayed + this.leased
  }

  /** Assumes: `task.at` is not before the deadline of any leased task of this queue. */
  leaseAppend(task: Task): void {
    task.state = State.leased
    task.prev = this.leaseTail
    task.next = undefined
    if (this.leaseTail === undefined) this.leaseHead = task
    else this.leaseTail.next = task
    this.leaseTail = task
    this.leased++
  }

  leaseRemove(task: Task): void {
    if (task.prev === undefined) this.leaseHead = task.next
    else task.prev.next = task.next
    if (task.next === undefined) this.leaseTail = task.prev
    else task.next.prev = task.prev
    task.prev = undefined
    task.next = undefined
    this.leased--
  }
}
