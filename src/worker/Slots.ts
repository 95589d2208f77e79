/**
 * The handlers that one worker runs at a time, shared by its queues.
 *
 * A free slot goes to the queue that has work and the fewest handlers for its weight (Demers, Keshav and Shenker's fair
 * queueing, 1989, with handlers for bytes). What the others do not use, one queue may use alone.
 */

/** A queue of a worker. */
export interface Member {
  readonly weight: number
  /** Handlers that run now. */
  readonly active: number
  /** Whether a task is there that could be started. */
  readonly waiting: boolean
  /** Starts one. Assumes: `waiting`. */
  readonly startNext: () => void
}

export class Slots {
  readonly total: number
  readonly #members: Array<Member> = []
  #filling = false

  constructor(total: number) {
    this.total = total
  }

  add(member: Member): void {
    this.#members.push(member)
  }

  remove(member: Member): void {
    const at = this.#members.indexOf(member)
    if (at >= 0) this.#members.splice(at, 1)
  }

  get free(): number {
    let free = this.total
    for (const member of this.#members) free -= member.active
    return free
  }

  /** Starts what can be started. */
  fill(): void {
    // A handler that ends at once comes back here; one loop runs them all without growing the stack.
    if (this.#filling) return
    this.#filling = true
    try {
      const [only] = this.#members
      if (this.#members.length === 1) while (only!.waiting && only!.active < this.total) only!.startNext()
      else for (let next = this.#next(); next !== undefined && this.free > 0; next = this.#next()) next.startNext()
    } finally {
      this.#filling = false
    }
  }

  #next(): Member | undefined {
    let best: Member | undefined
    for (const member of this.#members) {
      if (!member.waiting) continue
      if (best === undefined || member.active * best.weight < best.active * member.weight) best = member
    }
    return best
  }
}
