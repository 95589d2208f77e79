/** A binary heap over an array. `before(a, b)` says whether `a` must come out first; ties come out in any order. */
export class Heap<A> {
  readonly #items: Array<A> = []
  readonly #before: (a: A, b: A) => boolean

  constructor(before: (a: A, b: A) => boolean) {
    this.#before = before
  }

  get size(): number {
    return this.#items.length
  }

  peek(): A | undefined {
    return this.#items[0]
  }

  push(item: A): void {
    const items = this.#items
    items.push(item)
    this.#up(items.length - 1)
  }

  pop(): A | undefined {
    const items = this.#items
    const first = items[0]
    const last = items.pop()
    if (items.length > 0 && last !== undefined) {
      items[0] = last
      this.#down(0)
    }
    return first
  }

  /** O(n): for the rare removal from the middle. */
  remove(item: A): boolean {
    const items = this.#items
    const at = items.indexOf(item)
    if (at < 0) return false
    const last = items.pop()
    if (at < items.length && last !== undefined) {
      items[at] = last
      this.#down(at)
      this.#up(at)
    }
    return true
  }

  toArray(): Array<A> {
    return this.#items.slice()
  }

  /** As they lie in the heap, for `Invariants`. */
  entries(): ReadonlyArray<A> {
    return this.#items
  }

  #up(at: number): void {
    const items = this.#items
    const item = items[at]!
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (!this.#before(item, items[parent]!)) break
      items[at] = items[parent]!
      at = parent
    }
    items[at] = item
  }

  #down(at: number): void {
    const items = this.#items
    const item = items[at]!
    for (;;) {
      let child = at * 2 + 1
      if (child >= items.length) break
      if (child + 1 < items.length && this.#before(items[child + 1]!, items[child]!)) child++
      if (!this.#before(items[child]!, item)) break
      items[at] = items[child]!
      at = child
    }
    items[at] = item
  }
}
