/**
 * What people and programs do to a queue besides working on it: pause, cancel, purge, redrive.
 *
 * Commands over the engine's own steps (`Inside`), so that every list, count and timer has one owner. Each looks at a
 * bounded number of tasks; what goes on longer is asked for again, from the place that the answer names.
 */
import * as Limits from "../Limits.ts"
import { browse, type Filter, fits, type Look, type Page } from "./Browse.ts"
import type { Out } from "./Engine.ts"
import { Standing, standingOf, standingOfOutcome } from "./Life.ts"
import type { Queue } from "./Queue.ts"
import { Code, refusal } from "./Refusal.ts"
import type { Session } from "./Session.ts"
import { Outcome, Task } from "./Task.ts"
import type { TaskTable } from "./TaskTable.ts"

/** What the engine lends. */
export interface Inside {
  readonly out: Out
  readonly tasks: TaskTable
  /** The queue of that number; refuses the request otherwise. */
  readonly queue: (session: Session, request: number, queueId: number) => Queue | undefined
  /** The task if the session holds it under this fence, else the code to answer. */
  readonly held: (session: Session, n: number, fence: number) => Task | number
  /** The number that the next task gets. */
  readonly nextTask: () => number
  /** Takes in a task made with that number; it always enters. */
  readonly take: (task: Task, now: number) => void
  /** Takes a living task out of the list that its state puts it in. */
  readonly unlist: (task: Task) => void
  /** Gives a task that is in no list its outcome. */
  readonly end: (task: Task, outcome: Outcome, body: Uint8Array | undefined, now: number) => void
  /** Removes a task that is in no list, without an outcome. */
  readonly vanish: (task: Task, now: number) => void
  /** Gives a leased task back, uncounted, until that time. */
  readonly suspend: (task: Task, at: number, now: number) => void
  /** Ends the wait of a delayed task. */
  readonly wake: (task: Task, now: number) => void
  /** The queue is to be looked at when the round ends. */
  readonly touch: (queue: Queue) => void
}

export class Operations {
  readonly #inside: Inside

  constructor(inside: Inside) {
    this.#inside = inside
  }

  /** Where a task of this queue stands. */
  standing(queue: Queue, n: number): Standing {
    const { tasks } = this.#inside
    const owner = tasks.owner(n)
    if (owner instanceof Task) return owner.queue === queue ? standingOf(owner) : Standing.gone
    return owner === queue ? standingOfOutcome(queue.log.outcome(tasks.cursor(n))) : Standing.gone
  }

  browse(queue: Queue, look: Look): Page {
    return browse(this.#inside.tasks, queue, look)
  }

  /** A paused queue takes puts and hands out nothing; what is leased goes on. */
  pause(session: Session, request: number, queueId: number, paused: boolean): void {
    const { out } = this.#inside
    const queue = this.#inside.queue(session, request, queueId)
    if (queue === undefined) return
    if (queue.paused !== paused) {
      queue.paused = paused
      out.queueChanged(queue)
      this.#inside.touch(queue)
    }
    out.done(session, request)
  }

  /** Cancels what has not ended, leased or not, and answers for each where it stood before. */
  cancel(session: Session, request: number, queueId: number, numbers: ReadonlyArray<number>, now: number): void {
    const { out, tasks } = this.#inside
    const queue = this.#inside.queue(session, request, queueId)
    if (queue === undefined) return
    const standings: Array<Standing> = []
    for (const n of numbers) {
      standings.push(this.standing(queue, n))
      const task = tasks.owner(n)
      if (!(task instanceof Task) || task.queue !== queue) continue
      const { holder } = task
      this.#inside.unlist(task)
      this.#inside.end(task, Outcome.cancelled, task.payload, now)
      if (holder !== undefined) out.cancelling(holder, n)
    }
    out.standings(session, request, standings)
  }

  /**
   * Removes waiting tasks that fit, without an outcome. Looks at those put after task `after` and up to task `upTo`
   * (undefined: the last one so far), so that a purge in parts ends however much is put meanwhile.
   */
  purge(
    session: Session,
    request: number,
    queueId: number,
    filter: Filter,
    after: number,
    upTo: number | undefined,
    now: number
  ): void {
    const queue = this.#inside.queue(session, request, queueId)
    if (queue === undefined) return
    const end = upTo ?? this.#inside.nextTask() - 1
    const { last, tasks } = this.#inside.tasks.after(queue, after, Limits.sweepTasksMax)
    let count = 0
    for (const task of tasks) {
      if (task.n > end) break
      if (standingOf(task) === Standing.leased || !fits(task, filter)) continue
      this.#inside.unlist(task)
      this.#inside.vanish(task, now)
      queue.purged++
      count++
      this.#inside.out.changed("purged", task)
    }
    this.#inside.out.purged(session, request, count, last === undefined || last >= end ? undefined : last, end)
  }

  /**
   * Puts dead letters again, each as a new task that knows its `origin` and has its checkpoint, steps and signals: those
   * named, or those that fit among the ones that died after place `after` and up to place `upTo` (undefined: the last one
   * so far).
   *
   * They always enter, whatever the capacity. A dedupe id stays with the task that died.
   */
  redrive(
    session: Session,
    request: number,
    queueId: number,
    numbers: ReadonlyArray<number> | undefined,
    filter: Filter,
    after: number,
    upTo: number | undefined,
    now: number
  ): void {
    const { out } = this.#inside
    const queue = this.#inside.queue(session, request, queueId)
    if (queue === undefined) return
    if (queue.closed === "immediate") {
      return out.refused(session, request, refusal(Code.closed, queue.definition.name))
    }
    const pairs: Array<number> = []
    const end = upTo ?? queue.log.next
    if (numbers !== undefined) {
      for (const n of numbers) pairs.push(n, this.#again(queue, n, now))
      return out.redriven(session, request, pairs, undefined, end)
    }
    const letters = queue.deadLetters.after(after, Limits.sweepTasksMax)
    let place = after
    for (const { cursor, task } of letters) {
      if (cursor + 1 > end) return out.redriven(session, request, pairs, undefined, end)
      if (pairs.length === 2 * Limits.redriveTasksMax) return out.redriven(session, request, pairs, place, end)
      place = cursor + 1
      if (fits(task, filter)) pairs.push(task.n, this.#again(queue, task.n, now))
    }
    const next = letters.length < Limits.sweepTasksMax ? undefined : place
    out.redriven(session, request, pairs, next, end)
  }

  /** The number of the new task; 0 if there is no such dead letter. */
  #again(queue: Queue, n: number, now: number): number {
    const letter = queue.deadLetters.get(n)
    // One whose payload the store has lost stays where it is.
    if (letter?.task.payload === undefined) return 0
    const { checkpoint, entries, options, payload } = letter.task
    // It is due at once, and its time to live begins anew.
    const again = options === undefined ? undefined : { ...options, id: undefined, delayMs: undefined }
    const task = new Task(this.#inside.nextTask(), queue, payload, again, now)
    task.origin = n
    task.checkpoint = checkpoint
    if (entries !== undefined) for (const [name, value] of entries) task.addEntry(name, value)
    queue.deadLetters.remove(n)
    queue.redriven++
    this.#inside.take(task, now)
    this.#inside.out.changed("redriven", letter.task)
    return task.n
  }
}
