/**
 * What the engine knows of a task number: the living task, or the cursor of its outcome.
 *
 * Numbers are dense and rise, so the table is pages of an array rather than a hash map; a page goes when its last
 * entry goes. Lookup costs two array reads.
 */
import type { Queue } from "./Queue.ts"
import { Task } from "./Task.ts"

const pageSize = 1_024

class Page {
  /** The living task, or the queue in whose log the outcome lies. */
  readonly owners: Array<Task | Queue | undefined> = new Array<Task | Queue | undefined>(pageSize).fill(undefined)
  readonly cursors = new Float64Array(pageSize)
  used = 0
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
    return this.#page(n)!.cursors[n % pageSize]!
  }

  add(n: number, task: Task): void {
    this.#claim(n).owners[n % pageSize] = task
  }

  #claim(n: number): Page {
    let page = this.#page(n)
    if (page === undefined) {
      page = new Page()
      this.#pages.set(Math.floor(n / pageSize), page)
      this.#lastNumber = Math.floor(n / pageSize)
      this.#last = page
    }
    page.used++
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

  /** Every living task in the order of its number. */
  forEach(visit: (task: Task) => void): void {
    for (const number of [...this.#pages.keys()].sort((a, b) => a - b)) {
      const page = this.#pages.get(number)
      if (page === undefined) continue
      for (const owner of page.owners) if (owner instanceof Task) visit(owner)
    }
  }

  end(n: number, queue: Queue, cursor: number): void {
    const page = this.#page(n)!
    page.owners[n % pageSize] = queue
    page.cursors[n % pageSize] = cursor
  }

  remove(n: number): void {
    const page = this.#page(n)
    if (page === undefined || page.owners[n % pageSize] === undefined) return
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
