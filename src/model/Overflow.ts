/**
 * Which waiting task goes first when a `dropOldest` queue has no room: the oldest of the lowest urgency.
 *
 * A heap that is swept lazily: tasks are added whenever they begin to wait and looked at when one must go. What is leased
 * or ended by then leaves the heap; a leased one that comes back is added again. At most one entry per living task.
 */
import { Heap } from "./Heap.ts"
import { State, type Task } from "./Task.ts"

const before = (a: Task, b: Task): boolean => a.priority > b.priority || (a.priority === b.priority && a.n < b.n)

export class Overflow {
  #heap = new Heap<Task>(before)
  readonly #listed = new Set<Task>()

  /** The task waits from now on. */
  add(task: Task): void {
    if (this.#listed.has(task)) return
    this.#listed.add(task)
    this.#heap.push(task)
  }

  /** The task is over. Its entry leaves when it is met, or when entries of the dead are the most. */
  ended(task: Task): void {
    if (!this.#listed.delete(task) || this.#heap.size < 2 * this.#listed.size + 64) return
    this.#heap = new Heap(before)
    for (const living of this.#listed) this.#heap.push(living)
  }

  /** The one that goes next, still listed; undefined if nothing waits. */
  next(): Task | undefined {
    for (let task = this.#heap.peek(); task !== undefined; task = this.#heap.peek()) {
      if (task.state === State.ready || task.state === State.delayed) return task
      this.#heap.pop()
      this.#listed.delete(task)
    }
    return undefined
  }
}
