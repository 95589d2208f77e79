/** Lanes by the time at which something becomes of them: a binary heap whose lanes know their slot. Ties: by key. */
import type { Lane } from "./Lane.ts"

const before = (a: Lane, b: Lane): boolean => a.at < b.at || (a.at === b.at && a.key! < b.key!)

export class LaneHeap {
  /** The earliest time in the heap, or `Infinity`. */
  next = Number.POSITIVE_INFINITY
  readonly #heap: Array<Lane> = []

  get size(): number {
    return this.#heap.length
  }

  peek(): Lane | undefined {
    return this.#heap[0]
  }

  /** Assumes: the lane is in no heap. */
  add(lane: Lane, at: number): void {
    lane.at = at
    this.#heap.push(lane)
    this.#up(lane, this.#heap.length - 1)
    this.next = this.#heap[0]!.at
  }

  remove(lane: Lane): void {
    const { slot } = lane
    const last = this.#heap.pop()!
    if (last !== lane) {
      this.#down(last, slot)
      this.#up(last, last.slot)
    }
    this.next = this.#heap.length === 0 ? Number.POSITIVE_INFINITY : this.#heap[0]!.at
  }

  entries(): ReadonlyArray<Lane> {
    return this.#heap
  }

  #up(lane: Lane, from: number): void {
    const heap = this.#heap
    let slot = from
    while (slot > 0) {
      const parent = (slot - 1) >> 1
      if (!before(lane, heap[parent]!)) break
      heap[slot] = heap[parent]!
      heap[slot]!.slot = slot
      slot = parent
    }
    heap[slot] = lane
    lane.slot = slot
  }

  #down(lane: Lane, from: number): void {
    const heap = this.#heap
    let slot = from
    for (;;) {
      let child = slot * 2 + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++
      if (!before(heap[child]!, lane)) break
      heap[slot] = heap[child]!
      heap[slot]!.slot = slot
      slot = child
    }
    heap[slot] = lane
    lane.slot = slot
  }
}
