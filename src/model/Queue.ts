/**
 * One queue of a namespace: its tasks by state, its readers and waiters, its counts.
 *
 * Pure bookkeeping that the engine drives; nothing here decides. Leased tasks hang in a list ordered by deadline:
 * every lease of a queue has the same term, so a lease or a renewal goes to the end and the next to expire is first.
 */
import * as Limits from "../Limits.ts"
import { DeadLetters } from "./DeadLetters.ts"
import { OutcomeLog } from "./OutcomeLog.ts"
import { Overflow } from "./Overflow.ts"
import { type Durability, overflows, type Policy } from "./Policy.ts"
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

export class Queue {
  readonly id: number
  readonly definition: QueueDefinition
  readonly policy: Policy
  readonly ready = new Ready()
  readonly log: OutcomeLog
  /** Living tasks by dedupe id, and ended ones until their retention is over. */
  readonly ids = new Map<string, number>()
  /** Ended dedupe ids, oldest first. */
  readonly idsEnded: Array<{ readonly id: string; readonly until: number }> = []
  idsEndedFrom = 0
  readonly deadLetters = new DeadLetters()
  /** Of a `dropOldest` queue: what makes room. */
  readonly overflow: Overflow | undefined
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

  constructor(id: number, definition: QueueDefinition) {
    this.id = id
    this.definition = definition
    this.policy = definition.policy
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
    this.livingBytes += task.payload.byteLength
    this.overflow?.add(task)
  }

  /** A task is over, or gone. Assumes: it is in no list of waiting or leased tasks. */
  leave(task: Task): void {
    this.livingBytes -= task.payload.byteLength
    this.overflow?.ended(task)
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
    this.leasedBytes += task.payload.byteLength
  }

  leaseRemove(task: Task): void {
    if (task.prev === undefined) this.leaseHead = task.next
    else task.prev.next = task.next
    if (task.next === undefined) this.leaseTail = task.prev
    else task.next.prev = task.prev
    task.prev = undefined
    task.next = undefined
    this.leased--
    this.leasedBytes -= task.payload.byteLength
  }
}
