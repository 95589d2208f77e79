/**
 * The ready tasks of one queue in the order in which they are leased: lowest priority number first, then place.
 *
 * New tasks arrive in rising place, so each priority is a linked list that only grows at its end. A task that comes
 * back (released, lost) keeps its old place and waits in a small heap beside the list; `pop` takes the smaller of the
 * two. Every operation but `remove` of a returned task is O(1), or O(log returned).
 */
import { Heap } from "./Heap.ts"
import { State, type Task } from "./Task.ts"

/** A task that backed off has the place of the next put, and goes before it. */
const before = (a: Task, b: Task): boolean => a.place < b.place || (a.place === b.place && a.n < b.n)

class Bucket {
  head: Task | undefined = undefined
  tail: Task | undefined = undefined
  readonly returned = new Heap<Task>(before)
}

export class Ready {
  size = 0
  readonly #buckets: Array<Bucket | undefined> = []
  /** No bucket below this one holds a task. */
  #lowest = 256

  /** Assumes: `task.place` is larger than every place pushed before at this priority. */
  push(task: Task): void {
    const bucket = this.#bucket(task.priority)
    task.state = State.ready
    task.prev = bucket.tail
    task.next = undefined
    if (bucket.tail === undefined) bucket.head = task
    else bucket.tail.next = task
    bucket.tail = task
    this.size++
  }

  /** Takes back a task at the place it had. */
  giveBack(task: Task): void {
    task.state = State.ready
    task.prev = undefined
    task.next = undefined
    this.#bucket(task.priority).returned.push(task)
    this.size++
  }

  pop(): Task | undefined {
    while (this.#lowest < 256) {
      const bucket = this.#buckets[this.#lowest]
      if (bucket !== undefined) {
        const head = bucket.head
        const back = bucket.returned.peek()
        if (back !== undefined && (head === undefined || before(back, head))) {
          this.size--
          return bucket.returned.pop()
        }
        if (head !== undefined) {
          bucket.head = head.next
          if (bucket.head === undefined) bucket.tail = undefined
          else bucket.head.prev = undefined
          head.next = undefined
          this.size--
          return head
        }
      }
      this.#lowest++
    }
    return undefined
  }

  remove(task: Task): void {
    const bucket = this.#bucket(task.priority)
    this.size--
    if (bucket.returned.remove(task)) return
    if (task.prev === undefined) bucket.head = task.next
    else task.prev.next = task.next
    if (task.next === undefined) bucket.tail = task.prev
    else task.next.prev = task.prev
    task.prev = undefined
    task.next = undefined
  }

  /** The task that `pop` would give, left where it is. */
  first(): Task | undefined {
    for (let p = this.#lowest; p < 256; p++) {
      const bucket = this.#buckets[p]
      const back = bucket?.returned.peek()
      const head = bucket?.head
      if (back !== undefined && (head === undefined || before(back, head))) return back
      if (head !== undefined) return head
    }
    return undefined
  }

  /** The first `count` tasks in lease order, left where they are. */
  peek(count: number): Array<Task> {
    const found: Array<Task> = []
    for (let p = this.#lowest; p < 256 && found.length < count; p++) {
      const bucket = this.#buckets[p]
      if (bucket === undefined) continue
      const back = bucket.returned.toArray().sort((a, b) => (before(a, b) ? -1 : 1))
      let i = 0
      let task = bucket.head
      while (found.length < count && (task !== undefined || i < back.length)) {
        const returned = back[i]
        if (returned !== undefined && (task === undefined || before(returned, task))) {
          found.push(returned)
          i++
        } else if (task !== undefined) {
          found.push(task)
          task = task.next
        }
      }
    }
    return found
  }

  /** The lists as they are, for `Invariants`. */
  lists(): ReadonlyArray<{
    readonly priority: number
    readonly head: Task | undefined
    readonly tail: Task | undefined
    readonly returned: ReadonlyArray<Task>
  }> {
    return this.#buckets.flatMap((bucket, priority) =>
      bucket === undefined
        ? []
        : [{ priority, head: bucket.head, tail: bucket.tail, returned: bucket.returned.toArray() }]
    )
  }

  #bucket(priority: number): Bucket {
    if (priority < this.#lowest) this.#lowest = priority
    const bucket = this.#buckets[priority]
    if (bucket !== undefined) return bucket
    const made = new Bucket()
    this.#buckets[priority] = made
    return made
  }
}
