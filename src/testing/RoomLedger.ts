/**
 * An independent account of what waits in each queue: how many tasks and bytes, which of them must go first where there is
 * no room, and until when each may wait. Part of `Ledger`, which tells it what became of every task.
 *
 * A client's put enters within the capacity, or makes room by ending the oldest of the lowest urgency; children, repeats
 * and redrives always enter. A task whose time to live is over is leased no more and ends at once, and never before.
 */
import type { Policy } from "../model/Policy.ts"
import { overflows } from "../model/Policy.ts"
import { Reason } from "../model/Task.ts"
import type { LedgerTask, Violated } from "./Ledger.ts"

interface Room {
  readonly waiting: Set<LedgerTask>
  bytes: number
  /** A client's put has entered, and what it left is not looked at yet. */
  entered: boolean
}

export class RoomLedger {
  readonly #rooms = new Map<number, Room>()
  /** Waiting tasks with a time to live. */
  readonly #mortal = new Set<LedgerTask>()
  readonly #policies: ReadonlyArray<Policy>
  readonly #say: Violated

  constructor(policies: ReadonlyArray<Policy>, say: Violated) {
    this.#policies = policies
    this.#say = say
  }

  clear(): void {
    this.#rooms.clear()
    this.#mortal.clear()
  }

  /** A task is about to be put; `byClient`: not as a child, a repeat or a redrive. */
  put({ payload, queue, task }: LedgerTask, byClient: boolean): void {
    const policy = this.#policies[queue]
    if (policy === undefined || !byClient) return
    const room = this.#room(queue)
    room.entered = true
    if (policy.overflow === overflows.dropOldest) return
    if (!fits(policy, room.waiting.size + 1, room.bytes + payload.byteLength)) {
      this.#say(
        "capacity",
        `task ${task} entered queue ${queue} beside ${room.waiting.size} tasks, ${room.bytes} bytes`
      )
    }
  }

  waits(task: LedgerTask): void {
    const room = this.#room(task.queue)
    if (room.waiting.has(task)) return
    room.waiting.add(task)
    room.bytes += task.payload.byteLength
    if (task.ttlMs !== undefined) this.#mortal.add(task)
  }

  /** It is leased, or over. */
  leaves(task: LedgerTask): void {
    const room = this.#room(task.queue)
    if (room.waiting.delete(task)) room.bytes -= task.payload.byteLength
    this.#mortal.delete(task)
  }

  leased(task: LedgerTask, now: number): void {
    if (overdue(task, now)) this.#say("ttl", `task ${task.task} was leased after its time to live`)
  }

  /** A task ends as dead, for this reason; undefined: for none. Nothing ends silently. */
  died(task: LedgerTask, reason: number | undefined, byClient: boolean, now: number): void {
    if (reason === undefined) return this.#say("S6", `task ${task.task} is dead without a reason`)
    if (reason === Reason.expired) {
      if (!overdue(task, now)) this.#say("ttl", `task ${task.task} expired before its time to live was over`)
    } else if (reason === Reason.dropped) this.#dropped(task, byClient)
    else if (task.state !== "leased") this.#say("S6", `task ${task.task} died while ${task.state}, reason ${reason}`)
  }

  #dropped(task: LedgerTask, byClient: boolean): void {
    const policy = this.#policies[task.queue]
    if (policy === undefined) return
    const room = this.#room(task.queue)
    const say = (text: string): void => this.#say("capacity", `task ${task.task} was dropped ${text}`)
    if (policy.overflow !== overflows.dropOldest) say("from a queue that waits for room")
    if (!byClient || fits(policy, room.waiting.size, room.bytes)) say("while there was room")
    for (const other of room.waiting) {
      if (other.priority > task.priority || (other.priority === task.priority && other.task < task.task)) {
        return say(`before task ${other.task}`)
      }
    }
  }

  /** What was asked of the engine is done: where the oldest are dropped, what waits fits. */
  settled(): void {
    for (const [queue, room] of this.#rooms) {
      if (!room.entered) continue
      room.entered = false
      const policy = this.#policies[queue]
      if (policy?.overflow !== overflows.dropOldest || fits(policy, room.waiting.size, room.bytes)) continue
      this.#say("capacity", `queue ${queue} has ${room.waiting.size} tasks, ${room.bytes} bytes, and dropped none`)
    }
  }

  /** After the clock has been looked at nothing waits beyond its time. */
  ticked(now: number): void {
    for (const task of this.#mortal) {
      if (overdue(task, now)) this.#say("ttl", `task ${task.task} is ${task.state} after its time to live`)
    }
  }

  #room(queue: number): Room {
    let room = this.#rooms.get(queue)
    if (room === undefined) {
      room = { waiting: new Set(), bytes: 0, entered: false }
      this.#rooms.set(queue, room)
    }
    return room
  }
}

const fits = ({ capacity, capacityBytes }: Policy, tasks: number, bytes: number): boolean =>
  tasks <= capacity && (capacityBytes === 0 || bytes <= capacityBytes)

const overdue = ({ putAt, ttlMs }: LedgerTask, now: number): boolean => ttlMs !== undefined && putAt + ttlMs <= now
