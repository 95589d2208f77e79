/**
 * One queue of a namespace: its tasks by state, its readers and waiters, its counts.
 *
 * Pure bookkeeping that the engine drives; nothing here decides. Leased tasks hang in a list ordered by deadline:
 * every lease of a queue has the same term, so a lease or a renewal goes to the end and the next to expire is first.
 */
import * as Limits from "../Limits.ts"
import { DeadLetters } from "./DeadLetters.ts"
import { ofPolicy } from "./LaneLimits.ts"
import { Lanes } from "./Lanes.ts"
import { OutcomeLog } from "./OutcomeLog.ts"
import { Overflow } from "./Overflow.ts"
import { type Durability, overflows, type Policy } from "./Policy.ts"
import { Rates } from "./Rates.ts"
import type { LeaseStream, OutcomeStream, Waiter } from "./Session.ts"
import { progressBytesOf, State, type Task } from "./Task.ts"
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
  ready: Lanes
  readonly log: OutcomeLog
  /** Living tasks by dedupe id, and ended ones until their retention is over. */
  readonly ids = new Map<string, DedupeId>()
  /** Ended dedupe ids, oldest first. */
  readonly idsEnded: Array<DedupeId> = []
  idsEndedFrom = 0
  readonly deadLetters = new DeadLetters()
  /** Of a `dropOldest` queue: what makes room. */
  overflow: Overflow | undefined
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
  /** Takes puts and hands out nothing. */
  paused = false
  /** Closed at once: where the cancelling of what waited has come to; undefined when nothing is left to cancel. */
  sweptTo: number | undefined = undefined
  sweepTimer: Timer | undefined = undefined
  delayed = 0
  leased = 0
  /** Payload bytes of living tasks, and of the leased ones among them. */
  livingBytes = 0
  leasedBytes = 0
  /** Bytes of checkpoints, steps and signals of living tasks. */
  progressBytes = 0
  puts = 0
  duplicates = 0
  done = 0
  dead = 0
  cancelled = 0
  acknowledged = 0
  /** Removed by command; dead because there was no room; dead letters that were put again. */
  purged = 0
  dropped = 0
  redriven = 0
  refused = 0
  dedupeDropped = 0
  readonly rates = new Rates()

  constructor(id: number, definition: QueueDefinition) {
    this.id = id
    this.definition = definition
    this.policy = definition.policy
    this.level = Level[definition.durability]
    this.ready = new Lanes(ofPolicy(definition.policy))
    this.log = new OutcomeLog(this.policy.outcomesKept, Limits.outcomesKeptBytes, this.policy.outcomesKeptMs)
    this.overflow = this.policy.overflow === overflows.dropOldest ? new Overflow() : undefined
  }

  /** Whether tasks may be handed out at all. */
  get gives(): boolean {
    return !this.paused && this.closed !== "immediate"
  }

  /** What `capacityBytes` counts. */
  get waitingBytes(): number {
    return this.livingBytes - this.leasedBytes
  }

  /** Whether so many more tasks, of so many bytes together, fit into what capacity allows to wait. */
  hasRoom(tasks: number, bytes: number): boolean {
    const { capacity, capacityBytes } = this.policy
    if (tasks === 0) return true
    return this.waiting + tasks <= capacity && (capacityBytes === 0 || this.waitingBytes + bytes <= capacityBytes)
  }

  /** Whether more waits than capacity allows. */
  get overfull(): boolean {
    const { capacity, capacityBytes } = this.policy
    return this.waiting > capacity || (capacityBytes > 0 && this.waitingBytes > capacityBytes)
  }

  /** Largest payload of a client's put: one that could never wait here is too large. */
  get putBytesMax(): number {
    const { capacityBytes, payloadBytesMax } = this.policy
    return capacityBytes === 0 ? payloadBytesMax : Math.min(payloadBytesMax, capacityBytes)
  }

  /** A task begins to live here. */
  enter(task: Task): void {
    this.livingBytes += task.payloadBytes
    this.progressBytes += progressBytesOf(task)
    this.overflow?.add(task)
  }

  /** A task is over, or gone. Assumes: it is in no list of waiting or leased tasks. */
  leave(task: Task): void {
    this.livingBytes -= task.payloadBytes
    this.progressBytes -= progressBytesOf(task)
    this.overflow?.ended(task)
  }

  /** Another definition of the same queue: of the manager's own program, which wins over the one in the log. */
  define(definition: QueueDefinition): void {
    this.definition = definition
    this.policy = definition.policy
    this.level = Level[definition.durability]
    // Restoring: nothing is linked yet.
    if (this.ready.size === 0) this.ready = new Lanes(ofPolicy(this.policy))
    this.overflow = this.policy.overflow === overflows.dropOldest ? new Overflow() : undefined
    this.log.bound(this.policy.outcomesKept, Limits.outcomesKeptBytes, this.policy.outcomesKeptMs)
  }

  /** Lifetime counts in the order in which the log keeps them, and the next cursor of the outcomes. */
  get counters(): ReadonlyArray<number> {
    const { acknowledged, cancelled, dead, dedupeDropped, done, duplicates, puts, refused } = this
    const { dropped, purged, redriven } = this
    const ended = [done, dead, cancelled, acknowledged]
    return [puts, ...ended, duplicates, refused, dedupeDropped, this.log.next, purged, dropped, redriven]
  }

  restoreCounters(counters: ReadonlyArray<number>): void {
    const [puts = 0, done = 0, dead = 0, cancelled = 0, acknowledged = 0, duplicates = 0, refused = 0] = counters
    Object.assign(this, { puts, done, dead, cancelled, acknowledged, duplicates, refused })
    this.dedupeDropped = counters[7] ?? 0
    this.log.next = Math.max(this.log.next, counters[8] ?? 0)
    this.purged = counters[9] ?? 0
    this.dropped = counters[10] ?? 0
    this.redriven = counters[11] ?? 0
  }

  /** What capacity counts. */
  get waiting(): number {
    return this.ready.size + this.delayed
  }

  /** Bytes that the log needs for what lives here, about: bodies and a record each. */
  get storedBytes(): number {
    const records = this.unfinished + this.deadLetters.size + this.ids.size + (this.log.next - this.log.first)
    return this.livingBytes + this.progressBytes + this.deadLetters.bytes + this.log.bytes + 48 * records
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
