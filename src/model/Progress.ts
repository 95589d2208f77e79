/**
 * The durable progress of a task: its checkpoint, its steps and the signals sent to it, and attempts that only wait.
 *
 * Steps and signals are entries of one list per task, in the order in which they were recorded; an entry never changes.
 * A suspended task is a delayed one that a signal makes ready: it holds no worker and no lease, and its attempt is given
 * back. Commands over the engine's own steps (`Inside`).
 */
import * as Limits from "../Limits.ts"
import type { Inside } from "./Operations.ts"
import type { Queue } from "./Queue.ts"
import { Code, refusal } from "./Refusal.ts"
import type { Session } from "./Session.ts"
import { entryBytesOf, State, Task } from "./Task.ts"

/** What a heartbeat says of a leased task; what is absent stays as it was. */
export interface Report {
  readonly task: number
  readonly fence: number
  /** Of 10,000. */
  readonly progress: number | undefined
  readonly checkpoint: Uint8Array | undefined
}

export interface StepItem {
  readonly task: number
  readonly fence: number
  readonly name: string
  readonly value: Uint8Array
}

export interface SuspendItem {
  readonly task: number
  readonly fence: number
  /** Undefined: only a signal ends it. */
  readonly forMs: number | undefined
  /** Entries that the worker knows of. */
  readonly seen: number
}

export class Progress {
  readonly #inside: Inside

  constructor(inside: Inside) {
    this.#inside = inside
  }

  /** What rides on a heartbeat. An old fence changes nothing: the answer to the heartbeat says what is lost. */
  report(session: Session, reports: ReadonlyArray<Report>): void {
    for (const { checkpoint, fence, progress, task: n } of reports) {
      const task = this.#inside.held(session, n, fence)
      if (typeof task === "number") continue
      if (progress !== undefined) task.progress = progress
      if (checkpoint !== undefined) this.#save(task, checkpoint)
    }
  }

  /** Keeps the last durable progress of leased tasks for their next attempts. An old fence changes nothing. */
  checkpoint(
    session: Session,
    request: number,
    numbers: ReadonlyArray<number>,
    fences: ReadonlyArray<number>,
    values: ReadonlyArray<Uint8Array>
  ): void {
    const codes = numbers.map((n, i) => {
      const task = this.#inside.held(session, n, fences[i]!)
      if (typeof task === "number") return task
      const value = values[i]!
      if (value.byteLength > Limits.payloadBytesMax) return Code.payloadTooLarge
      this.#save(task, value)
      return 0
    })
    this.#answer(session, request, codes)
  }

  /** Records steps of leased tasks. One that is recorded stays as it is. */
  step(session: Session, request: number, items: ReadonlyArray<StepItem>): void {
    const codes = items.map(({ fence, name, task: n, value }) => {
      const task = this.#inside.held(session, n, fence)
      return typeof task === "number" ? task : this.#record(task, name, value)
    })
    this.#answer(session, request, codes)
  }

  /** Gives leased tasks back, uncounted, until a time has passed or an entry has come that their worker does not know. */
  suspend(session: Session, request: number, items: ReadonlyArray<SuspendItem>, now: number): void {
    const codes = items.map(({ fence, forMs, seen, task: n }) => {
      const task = this.#inside.held(session, n, fence)
      if (typeof task === "number") return task
      const news = (task.entries?.size ?? 0) > seen
      this.#inside.suspend(
        task,
        now + (news ? 0 : Math.max(Limits.suspendMsMin, Math.min(forMs ?? Limits.delayMsMax, Limits.delayMsMax))),
        now
      )
      return 0
    })
    this.#answer(session, request, codes)
  }

  /** Records a signal of a living task, and wakes it if it is suspended. One that is recorded stays as it is. */
  signal(
    session: Session,
    request: number,
    queueId: number,
    numberOrId: number | string,
    name: string,
    value: Uint8Array,
    now: number
  ): void {
    const { out, tasks } = this.#inside
    const queue = this.#inside.queue(session, request, queueId)
    if (queue === undefined) return
    const n = typeof numberOrId === "number" ? numberOrId : (this.find(queue, numberOrId, now) ?? 0)
    const owner = tasks.owner(n)
    if (owner === queue) return out.refused(session, request, refusal(Code.alreadyEnded, queue.definition.name, n))
    if (!(owner instanceof Task) || owner.queue !== queue) {
      return out.refused(session, request, refusal(Code.taskNotFound, queue.definition.name, n))
    }
    const code = this.#record(owner, name, value)
    if (code !== 0) {
      const why = refusal(code, "entryBytesPerTaskMax", owner.entryBytes, Limits.entryBytesPerTaskMax)
      return out.refused(session, request, why)
    }
    if (owner.suspended && owner.state === State.delayed) this.#inside.wake(owner, now)
    out.done(session, request)
  }

  /** The task that has this dedupe id, living or ended; undefined: none that is remembered. */
  find(queue: Queue, id: string, now: number): number | undefined {
    const entry = queue.ids.get(id)
    // Those that are too old are forgotten at the next put.
    return entry !== undefined && entry.until > now ? entry.n : undefined
  }

  #save(task: Task, value: Uint8Array): void {
    task.queue.progressBytes += value.byteLength - (task.checkpoint?.byteLength ?? 0)
    task.checkpoint = value
    this.#inside.out.changed("checkpoint", task)
  }

  #record(task: Task, name: string, value: Uint8Array): 0 | Code {
    const { entries } = task
    if (entries?.has(name) === true) return 0
    const bytes = entryBytesOf(name, value)
    if ((entries?.size ?? 0) >= Limits.entriesPerTaskMax) return Code.limitExceeded
    if (task.entryBytes + bytes > Limits.entryBytesPerTaskMax) return Code.limitExceeded
    task.addEntry(name, value)
    task.queue.progressBytes += bytes
    this.#inside.out.changed("entry", task)
    return 0
  }

  #answer(session: Session, request: number, codes: ReadonlyArray<number>): void {
    if (codes.every((code) => code === 0)) this.#inside.out.done(session, request)
    else this.#inside.out.items(session, request, codes)
  }
}
