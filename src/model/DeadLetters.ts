/**
 * The dead letters of one queue: tasks that will not be retried, kept with what happened, bounded by count and bytes.
 *
 * In the order in which they died. The oldest leave when there are too many; their outcome stays in the log as long as any
 * other. A redrive takes a letter out.
 */
import * as Limits from "../Limits.ts"
import { Roster } from "./Roster.ts"
import { progressBytesOf, type Task } from "./Task.ts"

/** A task that will not be retried, kept with what happened. */
export interface DeadLetter {
  readonly task: Task
  readonly diedAt: number
  /** Of its outcome; its place among the letters. */
  readonly cursor: number
}

export class DeadLetters {
  bytes = 0
  readonly #byTask = new Map<number, DeadLetter>()
  readonly #inOrder = new Roster<DeadLetter>()

  get size(): number {
    return this.#byTask.size
  }

  get(n: number): DeadLetter | undefined {
    return this.#byTask.get(n)
  }

  /** Assumes: `cursor` is larger than that of every letter before. */
  add(task: Task, cursor: number, diedAt: number): void {
    const letter: DeadLetter = { task, diedAt, cursor }
    this.#byTask.set(task.n, letter)
    // A cursor may be 0, a place is not.
    this.#inOrder.add(cursor + 1, letter)
    this.bytes += bytesOf(task)
    for (const [oldest] of this.#byTask) {
      if (this.size <= Limits.deadLettersKeptMax && this.bytes <= Limits.deadLettersKeptBytes) break
      this.remove(oldest)
    }
  }

  remove(n: number): void {
    const letter = this.#byTask.get(n)
    if (letter === undefined) return
    this.#byTask.delete(n)
    this.#inOrder.remove(letter.cursor + 1)
    this.bytes -= bytesOf(letter.task)
  }

  /** Letters whose place (cursor + 1) is above `place`, in the order in which they died, at most `max`. */
  after(place: number, max: number): ReadonlyArray<DeadLetter> {
    return this.#inOrder.after(place, max)
  }

  /** The letters as they are, oldest first, for `Invariants`. */
  all(): ReadonlyArray<DeadLetter> {
    return [...this.#byTask.values()]
  }
}

const bytesOf = (task: Task): number => task.payloadBytes + progressBytesOf(task)
