/**
 * One lane: the ready tasks of a queue that have the same key, in order, and what it was granted so far.
 *
 * Tasks lie in buckets by priority. New ones arrive in rising place, so a bucket is a linked list that only grows at its
 * end; a task that comes back (released, lost) keeps its old place and waits in a small heap beside the list. Pure
 * bookkeeping that `Lanes` drives; nothing here decides.
 */
import { Heap } from "./Heap.ts"
import type { LaneLimits, LaneOverride } from "./LaneLimits.ts"
import { State, type Task } from "./Task.ts"

/** A task that backed off has the place of the next put, and goes before it. */
const before = (a: Task, b: Task): boolean => a.place < b.place || (a.place === b.place && a.n < b.n)

/** The ready tasks of one lane and one priority. */
export class Bucket {
  priority: number
  head: Task | undefined = undefined
  tail: Task | undefined = undefined
  returned: Heap<Task> | undefined = undefined
  /** The next less urgent bucket of the lane. */
  next: Bucket | undefined

  constructor(priority: number, next: Bucket | undefined) {
    this.priority = priority
    this.next = next
  }

  get empty(): boolean {
    return this.head === undefined && (this.returned === undefined || this.returned.size === 0)
  }

  first(): Task | undefined {
    const back = this.returned?.peek()
    const head = this.head
    return back !== undefined && (head === undefined || before(back, head)) ? back : head
  }

  take(): Task {
    const head = this.head
    const back = this.returned?.peek()
    if (back !== undefined && (head === undefined || before(back, head))) {
      this.returned!.pop()
      return back
    }
    // Never empty: `Lane.take` is called of a lane with tasks, whose first bucket has one.
    this.head = head!.next
    if (this.head === undefined) this.tail = undefined
    else this.head.prev = undefined
    head!.next = undefined
    return head!
  }

  remove(task: Task): void {
    if (task.prev === undefined && this.head !== task) {
      this.returned?.remove(task)
      return
    }
    if (task.prev === undefined) this.head = task.next
    else task.prev.next = task.next
    if (task.next === undefined) this.tail = task.prev
    else task.next.prev = task.prev
    task.prev = undefined
    task.next = undefined
  }

  /** Its tasks in order, one by one, left where they are. */
  *tasks(): Generator<Task, void> {
    const back = this.returned === undefined ? [] : this.returned.toArray().sort((a, b) => (before(a, b) ? -1 : 1))
    let i = 0
    for (let task = this.head; task !== undefined; task = task.next) {
      while (i < back.length && before(back[i]!, task)) yield back[i++]!
      yield task
    }
    while (i < back.length) yield back[i++]!
  }
}

/**
 * Where a lane stands: in the ring of its priority, in the heap of those that open by themselves, in the heap of those
 * that can be forgotten by themselves, or nowhere: what changes it is an event (a lease ends, a put, a resume).
 */
export const Stand = { nowhere: 0, ring: 1, timed: 2, idle: 3 } as const
export type Stand = (typeof Stand)[keyof typeof Stand]

export class Lane {
  /** `undefined`: the lane of the tasks without a key. */
  readonly key: string | undefined
  limits: LaneLimits
  override: LaneOverride | undefined = undefined
  paused = false
  /** Nothing is granted before this time, whatever the limits say. */
  slowedUntil = 0
  /** The last grant that counts for the gap. */
  grantedAt: number
  /** What the bucket held at `levelAt`, in 60,000ths of a task. */
  level = 0
  levelAt: number
  running = 0
  /** Ready tasks. */
  size = 0
  first: Bucket | undefined = undefined

  stand: Stand = Stand.nowhere
  /** The priority in whose ring it is. */
  priority = 0
  ringPrev: Lane | undefined = undefined
  ringNext: Lane | undefined = undefined
  /** In a ring: tasks left in its turn. */
  turn = 0
  /** In a heap: its time and its slot. */
  at = 0
  slot = -1

  /** The list of lanes with about as many tasks. */
  sizeClass = 0
  sizePrev: Lane | undefined = undefined
  sizeNext: Lane | undefined = undefined

  /** A fresh lane behaves as if it had last been granted something, and emptied its bucket, at `since`. */
  constructor(key: string | undefined, limits: LaneLimits, since: number) {
    this.key = key
    this.limits = limits
    this.grantedAt = since
    this.levelAt = since
  }

  /** Assumes: `task` comes, by place and number, after all that were added before at this priority. */
  add(task: Task): void {
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
  addBack(task: Task): void {
    const bucket = this.#bucket(task.priority)
    task.state = State.ready
    task.prev = undefined
    task.next = undefined
    bucket.returned ??= new Heap<Task>(before)
    bucket.returned.push(task)
    this.size++
  }

  /** Assumes: the lane has tasks. */
  take(): Task {
    const bucket = this.first!
    const task = bucket.take()
    this.size--
    // The last bucket stays for the next task: a queue that is mostly empty would make one for every task.
    if (bucket.next !== undefined && bucket.empty) this.first = bucket.next
    return task
  }

  remove(task: Task): void {
    this.size--
    let previous: Bucket | undefined
    let bucket = this.first
    while (bucket !== undefined && bucket.priority !== task.priority) {
      previous = bucket
      bucket = bucket.next
    }
    if (bucket === undefined) return
    bucket.remove(task)
    if (!bucket.empty) return
    if (previous !== undefined) previous.next = bucket.next
    else if (bucket.next !== undefined) this.first = bucket.next
  }

  /** The bucket of that priority, among at most 256 in rising order. */
  #bucket(priority: number): Bucket {
    let bucket = this.first
    if (bucket !== undefined && bucket.priority === priority) return bucket
    if (bucket !== undefined && this.size === 0) {
      bucket.priority = priority
      return bucket
    }
    if (bucket === undefined || priority < bucket.priority) {
      this.first = new Bucket(priority, bucket)
      return this.first
    }
    while (bucket.next !== undefined && bucket.next.priority <= priority) bucket = bucket.next
    if (bucket.priority === priority) return bucket
    bucket.next = new Bucket(priority, bucket.next)
    return bucket.next
  }
}
