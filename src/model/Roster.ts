/**
 * Items in the order of a number that only rises, to be walked from any number on: the dead letters of a queue by the
 * cursor of their outcome.
 *
 * A walk that stops and goes on later sees every item that was there all the time exactly once, whatever came and went
 * between: it remembers a number, not a position. Adding is O(1), finding and removing O(log n), and O(1) where items
 * leave in their order. Pages that have become mostly holes are packed, so memory follows what lives.
 */
const pageSize = 512

class Page<A> {
  keys: Array<number> = []
  items: Array<A | undefined> = []
  used = 0
}

export class Roster<A> {
  size = 0
  /** Rising, none empty. */
  readonly #pages: Array<Page<A>> = []
  #last = 0
  /** Where the last item was found: the next one is mostly beside it. */
  #hintPage: Page<A> | undefined = undefined
  #hint = 0

  /** Assumes: `key` is larger than every key added before. */
  add(key: number, item: A): void {
    if (key <= this.#last) throw new Error(`${key} comes after ${this.#last}: a roster only grows at its end`)
    this.#last = key
    let page = this.#pages[this.#pages.length - 1]
    if (page === undefined || page.keys.length >= pageSize) {
      page = new Page()
      this.#pages.push(page)
    }
    page.keys.push(key)
    page.items.push(item)
    page.used++
    this.size++
  }

  get(key: number): A | undefined {
    const page = this.#pages[this.#pageOf(key)]
    if (page === undefined) return undefined
    const at = position(page.keys, key)
    return page.keys[at] === key ? page.items[at] : undefined
  }

  remove(key: number): void {
    const hinted = this.#hintPage
    if (hinted !== undefined && hinted.keys[this.#hint] === key) return this.#take(hinted, this.#hint)
    const page = this.#pages[this.#pageOf(key)]
    if (page === undefined) return
    const at = position(page.keys, key)
    if (page.keys[at] === key) this.#take(page, at)
  }

  /** The items whose keys are above `key`, in order, at most `max` of them. */
  after(key: number, max: number): Array<A> {
    const found: Array<A> = []
    const from = this.#pageOf(key)
    for (let p = Math.max(0, from); p < this.#pages.length && found.length < max; p++) {
      const { items, keys } = this.#pages[p]!
      for (let i = p === from ? position(keys, key + 1) : 0; i < keys.length && found.length < max; i++) {
        const item = items[i]
        if (item !== undefined) found.push(item)
      }
    }
    return found
  }

  #take(page: Page<A>, at: number): void {
    if (page.items[at] === undefined) return
    page.items[at] = undefined
    page.used--
    this.size--
    this.#hintPage = page
    this.#hint = at + 1
    if (page.used === 0) {
      this.#pages.splice(this.#pages.indexOf(page), 1)
      this.#hintPage = undefined
    } else if (page.keys.length === pageSize && page.used * 4 <= pageSize) this.#pack(page)
  }

  #pack(page: Page<A>): void {
    page.keys = page.keys.filter((_, i) => page.items[i] !== undefined)
    page.items = page.items.filter((item) => item !== undefined)
    this.#hintPage = undefined
  }

  /** The last page that begins at or before `key`; -1 if all begin after it. */
  #pageOf(key: number): number {
    let low = 0
    let high = this.#pages.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#pages[middle]!.keys[0]! <= key) low = middle + 1
      else high = middle
    }
    return low - 1
  }
}

/** The first position whose key is not below `key`. */
const position = (keys: ReadonlyArray<number>, key: number): number => {
  let low = 0
  let high = keys.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (keys[middle]! < key) low = middle + 1
    else high = middle
  }
  return low
}
