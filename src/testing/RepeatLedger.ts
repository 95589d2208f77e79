/**
 * An independent account of the repeats: one occurrence at a time, never early, none left out, and the same after a
 * restart. Part of `Ledger`, whose log has its decisions.
 */
import type { Engine } from "../model/Engine.ts"
import type { LedgerTask, Violated } from "./Ledger.ts"

/** A repeat as it is from now on. Times are the engine's milliseconds; the schedules are even intervals. */
export interface RepeatDecision {
  readonly what: "repeat"
  readonly queue: number
  readonly id: string
  readonly now: number
  readonly everyMs: number
  readonly nextAt: number
  /** The occurrence under way; 0: none. */
  readonly task: number
  readonly occurrences: number
  readonly removed: boolean
}

interface Known extends RepeatDecision {
  /** The last occurrence. */
  readonly last: number
}

export class RepeatLedger {
  readonly #repeats = new Map<string, Known>()
  readonly #tasks: ReadonlyMap<number, LedgerTask>
  readonly #over: (task: LedgerTask) => boolean
  readonly #say: Violated

  constructor(tasks: ReadonlyMap<number, LedgerTask>, over: (task: LedgerTask) => boolean, say: Violated) {
    this.#tasks = tasks
    this.#over = over
    this.#say = say
  }

  clear(): void {
    this.#repeats.clear()
  }

  judge(d: RepeatDecision): void {
    const name = `repeat "${d.id}" of queue ${d.queue}`
    const key = `${d.queue} ${d.id}`
    const known = this.#repeats.get(key)
    if (d.removed) {
      if (!this.#repeats.delete(key)) this.#say("repeat", `${name} was removed and not there`)
      return
    }
    const begins = d.task !== 0 && d.task !== known?.task
    if (begins) this.#begins(name, d, known)
    else if (known === undefined || known.everyMs !== d.everyMs) {
      if (d.nextAt < d.now + d.everyMs) this.#say("S13", `${name} is due ${d.now + d.everyMs - d.nextAt} ms early`)
    } else if (d.nextAt !== known.nextAt)
      this.#say("repeat", `${name} was due at ${known.nextAt}, and is at ${d.nextAt}`)
    this.#repeats.set(key, { ...d, last: begins ? d.task : (known?.last ?? 0) })
  }

  #begins(name: string, d: RepeatDecision, known: Known | undefined): void {
    if (known === undefined) return this.#say("repeat", `${name} was never made, and put task ${d.task}`)
    const before = this.#tasks.get(known.last)
    if (before !== undefined && !this.#over(before)) {
      this.#say("repeat", `${name} put task ${d.task} while task ${known.last} was ${before.state}`)
    }
    if (d.now < known.nextAt) this.#say("S13", `${name} put task ${d.task} ${known.nextAt - d.now} ms early`)
    const passed = d.nextAt - known.nextAt
    if (d.nextAt <= d.now || d.nextAt > d.now + d.everyMs || passed % d.everyMs !== 0) {
      this.#say("repeat", `${name} was due at ${known.nextAt}, is next at ${d.nextAt}, and it is ${d.now}`)
    }
    if (d.occurrences !== known.occurrences + 1) this.#say("repeat", `${name} has ${d.occurrences} occurrences`)
    if (this.#tasks.get(d.task)?.putAt !== d.now) this.#say("repeat", `${name}: task ${d.task} was not put`)
  }

  /** After the clock has been looked at nothing is due that does not run. */
  ticked(now: number): void {
    for (const { id, nextAt, queue, task } of this.#repeats.values()) {
      if (task === 0 && nextAt <= now)
        this.#say("repeat", `"${id}" of queue ${queue} is overdue for ${now - nextAt} ms`)
    }
  }

  /** S16. */
  restored(engine: Engine): void {
    const loaded = engine.repeats.all()
    if (loaded.length !== this.#repeats.size) {
      this.#say("S16", `${this.#repeats.size} repeats were stored, ${loaded.length} loaded`)
    }
    for (const { definition, nextAt, occurrences, queue, task } of loaded) {
      const known = this.#repeats.get(`${queue.id} ${definition.id}`)
      if (known?.nextAt !== nextAt || known.occurrences !== occurrences || known.task !== task) {
        this.#say("S16", `repeat "${definition.id}" of queue ${queue.id} was loaded with other numbers`)
      }
    }
  }
}
