/**
 * The deadlines of a namespace: a binary heap whose entries know their slot, so that a wait that ended takes its entry
 * with it. Nothing stale stays behind, however long the time-outs that clients choose.
 */
import type { Queue } from "./Queue.ts"
import type { Repeat } from "./Repeat.ts"
import type { Waiter } from "./Session.ts"
import type { Task } from "./Task.ts"

export type TimerSubject =
  | { readonly _tag: "Due"; readonly task: Task }
  | { readonly _tag: "Expiry"; readonly task: Task }
  | { readonly _tag: "Wait"; readonly waiter: Waiter }
  | { readonly _tag: "Leases"; readonly queue: Queue }
  | { readonly _tag: "Outcomes"; readonly queue: Queue }
  | { readonly _tag: "Repeat"; readonly repeat: Repeat }
  | { readonly _tag: "Sweep"; readonly queue: Queue }
  | { readonly _tag: "Lanes"; readonly queue: Queue }

export class Timer {
  slot = -1
  readonly at: number
  readonly subject: TimerSubject

  constructor(at: number, subject: TimerSubject) {
    this.at = at
    this.subject = subject
  }
}

export class Timers {
  readonly #heap: Array<Timer> = []

  get size(): number {
    return this.#heap.length
  }

  /** The next deadline, or `Infinity`. */
  get next(): number {
    return this.#heap.length === 0 ? Number.POSITIVE_INFINITY : this.#heap[0]!.at
  }

  add(at: number, subject: TimerSubject): Timer {
    const timer = new Timer(at, subject)
    this.#heap.push(timer)
    this.#up(timer, this.#heap.length - 1)
    return timer
  }

  remove(timer: Timer): void {
    const slot = timer.slot
    if (slot < 0) return
    timer.slot = -1
    const last = this.#heap.pop()!
    if (last !== timer) {
      this.#down(last, slot)
      this.#up(last, last.slot)
    }
  }

  /** The next entry that is due at `now`, taken out. */
  take(now: number): Timer | undefined {
    const first = this.#heap[0]
    if (first === undefined || first.at > now) return undefined
    this.remove(first)
    return first
  }

  entries(): ReadonlyArray<Timer> {
    return this.#heap
  }

  #up(timer: Timer, slot: number): void {
    const heap = this.#heap
    while (slot > 0) {
      const parent = (slot - 1) >> 1
      if (heap[parent]!.at <= timer.at) break
      heap[slot] = heap[parent]!
      heap[slot]!.slot = slot
      slot = parent
    }
    heap[slot] = timer
    timer.slot = slot
  }

  #down(timer: Timer, slot: number): void {
    const heap = this.#heap
    for (;;) {
      let child = slot * 2 + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && heap[child + 1]!.at < heap[child]!.at) child++
      if (heap[child]!.at >= timer.at) break
      heap[slot] = heap[child]!
      heap[slot]!.slot = slot
      slot = child
    }
    heap[slot] = timer
    timer.slot = slot
  }
}
