/**
 * Tasks that come again: a schedule on a queue that puts its payload, one occurrence at a time.
 *
 *     due -> put, runs (no timer) -> ended -> waits for the next due time, or puts at once if that has passed
 *
 * Whatever was missed meanwhile, while an occurrence ran or while the manager was down, collapses into one. `every` is
 * measured in engine time; only a cron schedule looks at the wall clock, which comes in as its distance from engine time
 * (`wall`). An occurrence is no client put: capacity does not hold it back, and there is at most one per repeat.
 *
 * Invariant: a repeat has either a living task or a timer, never both and never neither.
 */
import * as Limits from "../Limits.ts"
import type { Queue } from "./Queue.ts"
import { Code, type Refusal, refusal } from "./Refusal.ts"
import type { TaskOptions } from "./Task.ts"
import type { Timer, Timers } from "./Timers.ts"

export interface RepeatDefinition {
  /** Names it within its queue. */
  readonly id: string
  /** Exactly one of `everyMs` and `cron`. */
  readonly everyMs: number | undefined
  readonly cron: string | undefined
  /** IANA name of the zone in which the cron expression is read. */
  readonly zone: string
  readonly payload: Uint8Array
  /** Of each occurrence; without a dedupe id and without a delay. */
  readonly options: TaskOptions | undefined
}

/** What a store must keep of a repeat to go on with it. Numbers and bytes only. */
export interface RepeatState {
  readonly definition: RepeatDefinition
  /** When the next occurrence is due: engine time for `every`, wall time for cron. */
  readonly nextAt: number
  /** cron: the wall time from which `nextAt` was computed. */
  readonly cronAfter: number
  /** The task of the occurrence that has not ended; 0: none. */
  readonly task: number
  /** Engine time of the last occurrence's put; 0: none yet. */
  readonly lastAt: number
  readonly occurrences: number
}

export class Repeat implements RepeatState {
  readonly queue: Queue
  definition: RepeatDefinition
  nextAt = 0
  cronAfter = 0
  task = 0
  lastAt = 0
  occurrences = 0
  timer: Timer | undefined = undefined
  /** The row of the log that holds it; 0: in no log. */
  home = 0

  constructor(queue: Queue, definition: RepeatDefinition) {
    this.queue = queue
    this.definition = definition
  }
}

/** Why a cron expression has no next occurrence. */
export interface CronFault {
  readonly field: "cron" | "zone"
  readonly remedy: string
}

/** The first instant after `afterMs`, both in wall time, at which the expression holds in the zone. */
export type NextCron = (cron: string, zone: string, afterMs: number) => number | CronFault

export interface RepeatPort {
  readonly timers: Timers
  readonly nextCron: NextCron
  /** The number of the new task; 0 when the queue takes no more in its life. */
  readonly put: (queue: Queue, payload: Uint8Array, options: TaskOptions | undefined, now: number) => number
  readonly changed: (repeat: Repeat, removed: boolean) => void
}

export class Repeats {
  readonly #port: RepeatPort
  readonly #queues = new Map<Queue, Map<string, Repeat>>()
  /** By the task of the occurrence under way. */
  readonly running = new Map<number, Repeat>()
  #size = 0
  /** Wall time minus engine time. */
  #offset = 0

  constructor(port: RepeatPort) {
    this.#port = port
  }

  of(queue: Queue): ReadonlyArray<Repeat> {
    return [...(this.#queues.get(queue)?.values() ?? [])]
  }

  find(queue: Queue, id: string): Repeat | undefined {
    return this.#queues.get(queue)?.get(id)
  }

  count(queue: Queue): number {
    return this.#queues.get(queue)?.size ?? 0
  }

  all(): ReadonlyArray<Repeat> {
    return [...this.#queues.values()].flatMap((repeats) => [...repeats.values()])
  }

  /**
   * Makes the repeat, or changes it. The same schedule again keeps its next due time, so that a program may say its
   * repeats at every start; another one counts from now. An occurrence under way is left alone.
   */
  set(queue: Queue, definition: RepeatDefinition, now: number): Repeat | Refusal {
    const why = this.#fault(queue, definition)
    if (why !== undefined) return why
    const known = this.#queues.get(queue)?.get(definition.id)
    if (known !== undefined && sameSchedule(known.definition, definition)) {
      known.definition = definition
      this.#port.changed(known, false)
      return known
    }
    const repeat = known ?? new Repeat(queue, definition)
    const nextAt = this.#next(definition, now)
    if (typeof nextAt !== "number") {
      const value = nextAt.field === "cron" ? definition.cron : definition.zone
      return invalid(queue, nextAt.field, nextAt.remedy, JSON.stringify(value))
    }
    repeat.definition = definition
    repeat.nextAt = nextAt
    repeat.cronAfter = now + this.#offset
    if (known === undefined) this.#add(repeat)
    this.#arm(repeat)
    this.#port.changed(repeat, false)
    return repeat
  }

  /** Its occurrence under way, if any, goes on. Returns what was removed. */
  remove(queue: Queue, id: string): Repeat | undefined {
    const repeat = this.#queues.get(queue)?.get(id)
    if (repeat !== undefined) this.#drop(repeat)
    return repeat
  }

  /** A queue that is closed never opens again: nothing will be put on it any more. */
  closed(queue: Queue): void {
    for (const repeat of this.of(queue)) this.#drop(repeat)
  }

  /** Takes up a repeat where a store has kept it. `lives` says whether a task has not ended. */
  restore(queue: Queue, state: RepeatState, lives: (task: number) => boolean, now: number): Repeat {
    const repeat = new Repeat(queue, state.definition)
    repeat.nextAt = state.nextAt
    repeat.cronAfter = state.cronAfter
    repeat.lastAt = state.lastAt
    repeat.occurrences = state.occurrences
    repeat.task = state.task !== 0 && lives(state.task) ? state.task : 0
    this.#add(repeat)
    if (repeat.task !== 0) this.running.set(repeat.task, repeat)
    this.#afterSetBack(repeat, now)
    this.#arm(repeat)
    return repeat
  }

  /**
   * How far wall time is ahead of engine time. Told now and then; steps of the wall clock move the timers of cron
   * schedules. Set back by up to three hours it repeats nothing: the next occurrence stays what it was. Set back by more
   * it was wrong before, and the next occurrence is computed anew. Set forward, what was passed over collapses into one.
   */
  wall(offset: number, now: number): void {
    if (Math.abs(offset - this.#offset) < Limits.wallStepMsMin) return
    this.#offset = offset
    for (const repeat of this.all()) {
      if (repeat.definition.cron === undefined) continue
      if (this.#afterSetBack(repeat, now)) this.#port.changed(repeat, false)
      this.#arm(repeat)
    }
  }

  /** The timer of a repeat has rung. */
  due(repeat: Repeat, now: number): void {
    repeat.timer = undefined
    const { definition, queue } = repeat
    if (definition.everyMs === undefined) {
      const next = this.#next(definition, now)
      // It held before, and will not again.
      if (typeof next !== "number") return this.#drop(repeat)
      repeat.nextAt = next
      repeat.cronAfter = now + this.#offset
    } else {
      const missed = Math.floor((now - repeat.nextAt) / definition.everyMs)
      repeat.nextAt += (missed + 1) * definition.everyMs
    }
    const task = this.#port.put(queue, definition.payload, definition.options, now)
    if (task === 0) return this.#drop(repeat)
    repeat.task = task
    repeat.lastAt = now
    repeat.occurrences++
    this.running.set(task, repeat)
    this.#port.changed(repeat, false)
  }

  /** A task is over; if it was an occurrence, the next one may come. */
  ended(task: number): void {
    const repeat = this.running.get(task)
    if (repeat === undefined) return
    this.running.delete(task)
    repeat.task = 0
    this.#arm(repeat)
    this.#port.changed(repeat, false)
  }

  #add(repeat: Repeat): void {
    let repeats = this.#queues.get(repeat.queue)
    if (repeats === undefined) {
      repeats = new Map()
      this.#queues.set(repeat.queue, repeats)
    }
    repeats.set(repeat.definition.id, repeat)
    this.#size++
  }

  #drop(repeat: Repeat): void {
    const repeats = this.#queues.get(repeat.queue)
    if (repeats === undefined || !repeats.delete(repeat.definition.id)) return
    if (repeats.size === 0) this.#queues.delete(repeat.queue)
    this.#size--
    if (repeat.timer !== undefined) this.#port.timers.remove(repeat.timer)
    repeat.timer = undefined
    if (repeat.task !== 0) this.running.delete(repeat.task)
    this.#port.changed(repeat, true)
  }

  #arm(repeat: Repeat): void {
    if (repeat.timer !== undefined) this.#port.timers.remove(repeat.timer)
    repeat.timer = undefined
    if (repeat.task !== 0) return
    const at = repeat.definition.cron === undefined ? repeat.nextAt : repeat.nextAt - this.#offset
    repeat.timer = this.#port.timers.add(at, { _tag: "Repeat", repeat })
  }

  #next({ cron, everyMs, zone }: RepeatDefinition, now: number): number | CronFault {
    if (everyMs !== undefined) return now + everyMs
    return this.#port.nextCron(cron!, zone, now + this.#offset)
  }

  /** Whether the next occurrence had to be computed anew: a clock that was far ahead would hold it back for years. */
  #afterSetBack(repeat: Repeat, now: number): boolean {
    const { definition } = repeat
    if (definition.cron === undefined || repeat.cronAfter - (now + this.#offset) <= Limits.wallSetBackMsMax)
      return false
    const next = this.#next(definition, now)
    if (typeof next !== "number") return false
    repeat.nextAt = next
    repeat.cronAfter = now + this.#offset
    return true
  }

  #fault(queue: Queue, definition: RepeatDefinition): Refusal | undefined {
    const { cron, everyMs, id, payload } = definition
    const { name } = queue.definition
    if (queue.closed !== "open") return refusal(Code.closed, name)
    if (payload.byteLength > queue.policy.payloadBytesMax) {
      return refusal(Code.payloadTooLarge, name, payload.byteLength, queue.policy.payloadBytesMax)
    }
    if ((cron === undefined) === (everyMs === undefined)) {
      return invalid(queue, "schedule", "give either every or cron", cron === undefined ? "missing" : "every and cron")
    }
    if (everyMs !== undefined && (everyMs < Limits.repeatEveryMsMin || everyMs > Limits.delayMsMax)) {
      const remedy = `use ${Limits.repeatEveryMsMin} to ${Limits.delayMsMax} milliseconds`
      return invalid(queue, "every", remedy, `${everyMs} ms`)
    }
    const repeats = this.#queues.get(queue)
    const fresh = repeats?.has(id) !== true
    if (fresh && this.count(queue) >= Limits.repeatsPerQueueMax) {
      const max = Limits.repeatsPerQueueMax
      return refusal(Code.limitExceeded, "repeatsPerQueueMax", this.count(queue) + 1, max)
    }
    if (fresh && this.#size >= Limits.repeatsMax) {
      return refusal(Code.limitExceeded, "repeatsMax", this.#size + 1, Limits.repeatsMax)
    }
    let bytes = payload.byteLength
    for (const [other, repeat] of repeats ?? []) if (other !== id) bytes += repeat.definition.payload.byteLength
    // A single one may be as large as the queue allows; several must fit one answer.
    if (bytes > payload.byteLength && bytes > Limits.repeatBytesPerQueueMax) {
      return refusal(Code.limitExceeded, "repeatBytesPerQueueMax", bytes, Limits.repeatBytesPerQueueMax)
    }
    return undefined
  }
}

const sameSchedule = (a: RepeatDefinition, b: RepeatDefinition): boolean =>
  a.everyMs === b.everyMs && a.cron === b.cron && a.zone === b.zone

/** Lines: queue, field, remedy, and the value as text. */
const invalid = (queue: Queue, field: string, remedy: string, value: string): Refusal =>
  refusal(Code.definitionInvalid, `${queue.definition.name}\n${field}\n${remedy}\n${value}`)
