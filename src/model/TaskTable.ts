/**
 * What the engine knows of a task number: the living task, or the cursor of its outcome.
 *
 * Numbers are dense and rise, so the table is pages of an array rather than a hash map; a page goes when its last
 * entry goes. Lookup costs two array reads.
 */
import * as Limits from "../Limits.ts"
import type { Queue } from "./Queue.ts"
import { Task } from "./Task.ts"

const pageSize = 1_024

class Page {
  /** The living task, or the queue in whose log the outcome lies. */
  readonly owners: Array<Task | Queue | undefined> = new Array<Task | Queue | undefined>(pageSize).fill(undefined)
  /** Made with the first outcome: tasks that wait need none. */
  cursors: Float64Array | undefined = undefined
  used = 0
  /** Of these, living tasks: a walk passes over a page that has none. */
  living = 0
  /** The slots behind this one were never used. */
  end = 0
}

/** A part of a walk. */
export interface Walked {
  readonly tasks: ReadonlyArray<Task>
  /** The last number that was looked at; undefined: there are no more. */
  readonly last: number | undefined
}

export class TaskTable {
  readonly #pages = new Map<number, Page>()
  #lastNumber = -1
  #last: Page | undefined = undefined

  owner(n: number): Task | Queue | undefined {
    return this.#page(n)?.owners[n % pageSize]
  }

  /** Assumes: `owner(n)` is a queue. */
  cursor(n: number): number {
    return this.#page(n)!.cursors![n % pageSize]!
  }

  add(n: number, task: Task): void {
    const page = this.#claim(n)
    page.owners[n % pageSize] = task
    page.living++
  }

  #claim(n: number): Page {
    let page = this.#page(n)
    const slot = n % pageSize
    if (page === undefined) {
      page = new Page()
      this.#pages.set(Math.floor(n / pageSize), page)
      this.#lastNumber = Math.floor(n / pageSize)
      this.#last = page
    }
    page.used++
    if (slot >= page.end) page.end = slot + 1
    return page
  }

  /** Assumes: `n` is known. */
  replace(n: number, task: Task): void {
    this.#page(n)!.owners[n % pageSize] = task
  }

  /** A task that is known by its outcome alone. */
  addEnded(n: number, queue: Queue, cursor: number): void {
    this.#claim(n).owners[n % pageSize] = queue
    this.end(n, queue, cursor)
  }

  /** Puts pages that were made in any order into the order of their numbers. */
  sort(): void {
    const pages = [...this.#pages].sort(([a], [b]) => a - b)
    this.#pages.clear()
    for (const [number, page] of pages) this.#pages.set(number, page)
  }

  /**
   * Living tasks of one queue with numbers above `after`, in their order: at most `max` of them, and no more than
   * `walkSlotsMax` numbers are looked at. Who goes on at `last` sees each task that was there all the time exactly once.
   */
  after(queue: Queue, after: number, max: number): Walked {
    const tasks: Array<Task> = []
    let slots = 0
    const first = Math.floor((after + 1) / pageSize)
    // Pages are made in rising order, and a map keeps it.
    for (const [number, page] of this.#pages) {
      if (number < first || page.living === 0) continue
      if (slots >= Limits.walkSlotsMax) return { tasks, last: number * pageSize - 1 }
      slots += pageSize
      for (let i = number === first ? (after + 1) % pageSize : 0; i < page.end; i++) {
        const owner = page.owners[i]
        if (owner === undefined || !(owner instanceof Task) || owner.queue !== queue) continue
        tasks.push(owner)
        if (tasks.length === max) return { tasks, last: owner.n }
      }
    }
    return { tasks, last: undefined }
  }

  /** Every living task in the order of its number. Assumes: `sort` has run if pages came in another order. */
  forEach(visit: (task: Task) => void): void {
    for (const page of this.#pages.values()) {
      for (let i = 0; i < page.end; i++) {
        const owner = page.owners[i]
        if (owner instanceof Task) visit(owner)
      }
    }
  }

  end(n: number, queue: Queue, cursor: number): void {
    const page = this.#page(n)!
    if (page.owners[n % pageSize] instanceof Task) page.living--
    page.owners[n % pageSize] = queue
    page.cursors ??= new Float64Array(pageSize)
    page.cursors[n % pageSize] = cursor
  }

  remove(n: number): void {
    const page = this.#page(n)
    const owner = page?.owners[n % pageSize]
    if (page === undefined || owner === undefined) return
    if (owner instanceof Task) page.living--
    page.owners[n % pageSize] = undefined
    if (--page.used === 0) {
      const number = Math.floor(n / pageSize)
      this.#pages.delete(number)
      if (this.#lastNumber === number) {
        this.#lastNumber = -1
        this.#last = undefined
      }
    }
  }

  #page(n: number): Page | undefined {
    const number = Math.floor(n / pageSize)
    if (number === this.#lastNumber) return this.#last
    const page = this.#pages.get(number)
    if (page !== undefined) {
      this.#lastNumber = number
      this.#last = page
    }
    return page
  }
}
