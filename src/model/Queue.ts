/**
 * One queue of a namespace: its tasks by state, its readers and waiters, its counts.
 *
 * Pure bookkeeping that the engine drives; nothing here decides. Leased tasks hang in a list ordered by deadline:
 * every lease of a queue has the same term, so a lease or a renewal goes to the end and the next to expire is first.
 */
import * as Limits from "../Limits.ts"
import { OutcomeLog } from "./OutcomeLog.ts"
import type { Durability, Policy } from "./Policy.ts"
import { Rates } from "./Rates.ts"
import { Ready } from "./Ready.ts"
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

/** A dedupe id: of a living task, or of one that has ended and is remembered until `until`. */
export interface DedupeId {
  readonly id: string
  readonly n: number
  until: number
  /** The row of the log that holds it once its task has ended. */
  home: number
}

/** How much a round must do for a queue: nothing, hand over to the operating system, sync. */
export const Level = { memory: 0, buffered: 1, fsync: 2 } as const
export type Level = (typeof Level)[keyof typeof Level]

export class Queue {
  readonly id: number
  level: Level
  /** The row of the log with its full record; 0: in no log. */
  home = 0
  definition: QueueDefinition
  policy: Policy
  readonly ready = new Ready()
  readonly log: OutcomeLog
  /** Living tasks by dedupe id, and ended ones until their retention is over. */
  readonly ids = new Map<string, DedupeId>()
  /** Ended dedupe ids, oldest first. */
  readonly idsEnded: Array<DedupeId> = []
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
  /** Nothing is handed out while it is set. */
  paused = false
  readonly rates = new Rates()
  /** Payload bytes of the tasks that have not ended, and of those among them that are leased. */
  livingBytes = 0
  leasedBytes = 0

  constructor(id: number, definition: QueueDefinition) {
    this.id = id
    this.definition = definition
    this.policy = definition.policy
    this.level = Level[definition.durability]
    this.log = new OutcomeLog(this.policy.outcomesKept, Limits.outcomesKeptBytes, this.policy.outcomesKeptMs)
  }

  /** Another definition of the same queue: of the manager's own program, which wins over the one in the log. */
  define(definition: QueueDefinition): void {
    this.definition = definition
    this.policy = definition.policy
    this.level = Level[definition.durability]
    this.log.bound(this.policy.outcomesKept, Limits.outcomesKeptBytes, this.policy.outcomesKeptMs)
  }

  /** Lifetime counts in the order in which the log keeps them, and the next cursor of the outcomes. */
  get counters(): ReadonlyArray<number> {
    const { acknowledged, cancelled, dead, dedupeDropped, done, duplicates, puts, refused } = this
    return [puts, done, dead, cancelled, acknowledged, duplicates, refused, dedupeDropped, this.log.next]
  }

  restoreCounters(counters: ReadonlyArray<number>): void {
    const [puts = 0, done = 0, dead = 0, cancelled = 0, acknowledged = 0, duplicates = 0, refused = 0] = counters
    Object.assign(this, { puts, done, dead, cancelled, acknowledged, duplicates, refused })
    this.dedupeDropped = counters[7] ?? 0
    this.log.next = Math.max(this.log.next, counters[8] ?? 0)
  }

  /** What capacity counts. */
  get waiting(): number {
    return this.ready.size + this.delayed
  }

  /** Bytes that the log needs for what lives here, about: bodies and a record each. */
  get storedBytes(): number {
    const records = this.unfinished + this.deadLetters.size + this.ids.size + (this.log.next - this.log.first)
    return this.livingBytes + this.deadLetterBytes + this.log.bytes + 48 * records
  }

  /** Payload bytes of ready and delayed tasks. */
  get waitingBytes(): number {
    return this.livingBytes - this.leasedBytes
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
    this.leasedBytes += task.payloadBytes
  }

  leaseRemove(task: Task): void {
    if (task.prev === undefined) this.leaseHead = task.next
    else task.prev.next = task.next
    if (task.next === undefined) this.leaseTail = task.prev
    else task.next.prev = task.prev
    task.prev = undefined
    task.next = undefined
    this.leased--
    this.leasedBytes -= task.payloadBytes
  }
}
