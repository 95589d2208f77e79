/** A whole number that only moves within the safe range: -(2^53-1) to 2^53-1. */
import type { Durability } from "../Policy.ts"

export class Counter {
  readonly kind = "counter"
  readonly id: number
  name: string
  durability: Durability
  value = 0
  /** Rises with every change, so that the log's cleaner can tell the newest record. */
  version = 0
  /** What a commit under check would leave; valid under the mark of that check. */
  mark = 0
  pending = 0

  constructor(id: number, name: string, durability: Durability) {
    this.id = id
    this.name = name
    this.durability = durability
  }

  /** Assumes: the sum is safe. */
  add(by: number): number {
    if (by !== 0) this.set(this.value + by)
    return this.value
  }

  set(value: number): void {
    this.value = value
    this.version++
  }
}
