/**
 * Looking at the tasks of a queue page by page: by state and filter, from a cursor on, a bounded number a time.
 *
 * Living tasks come in put order, dead letters in the order in which they died. A cursor is a place in that order: a task
 * that is there all along is shown exactly once, whatever comes and goes between two pages. A page may be empty and still
 * have a cursor, when nothing among the tasks that it looked at fits.
 */
import * as Limits from "../Limits.ts"
import { Standing, standingOf } from "./Life.ts"
import type { Queue } from "./Queue.ts"
import type { Task } from "./Task.ts"
import type { TaskTable, Walked } from "./TaskTable.ts"

/** Which tasks are meant; what is not given fits every task. */
export interface Filter {
  /** Lane, whole. */
  readonly key?: string | undefined
  /** One of the task's labels, whole. */
  readonly label?: string | undefined
  /** Dedupe id, whole. */
  readonly id?: string | undefined
  readonly priorityMin?: number | undefined
  readonly priorityMax?: number | undefined
}

export const fits = ({ options, priority }: Task, filter: Filter): boolean =>
  (filter.key === undefined || options?.key === filter.key) &&
  (filter.id === undefined || options?.id === filter.id) &&
  (filter.label === undefined || options?.labels?.includes(filter.label) === true) &&
  priority >= (filter.priorityMin ?? 0) &&
  priority <= (filter.priorityMax ?? 255)

export interface Page {
  readonly tasks: ReadonlyArray<Task>
  /** Of dead letters: when each died. */
  readonly diedAt: ReadonlyArray<number> | undefined
  /** Where to go on; undefined: that was all. */
  readonly next: number | undefined
}

/** What a page is made of: `state` undefined is every living task. */
export interface Look {
  readonly state: Standing | undefined
  readonly filter: Filter
  /** Place after which to begin; 0 is the beginning. */
  readonly after: number
  readonly limit: number
  /** Whether the payloads are shown. A page ends where what it shows would not fit one message. */
  readonly payloads: boolean
}

/** Ensures: at most `browseTasksMax` tasks are looked at, at most `limit` shown, and nothing is changed. */
export const browse = (table: TaskTable, queue: Queue, look: Look): Page => {
  const dead = look.state === Standing.dead
  const letters = dead ? walkLetters(queue, look.after) : undefined
  const walked = letters ?? table.after(queue, look.after, Limits.browseTasksMax)
  const looked = walked.tasks
  const tasks: Array<Task> = []
  const diedAt: Array<number> = []
  let bytes = 0
  for (let i = 0; i < looked.length; i++) {
    const task = looked[i]!
    if (!dead && look.state !== undefined && standingOf(task) !== look.state) continue
    if (!fits(task, look.filter)) continue
    bytes += shownBytes(task, look.payloads)
    if (tasks.length >= look.limit || (tasks.length > 0 && bytes > Limits.batchBytesMax)) {
      const next = i === 0 ? look.after : (letters?.places[i - 1] ?? looked[i - 1]!.n)
      return { tasks, diedAt: dead ? diedAt : undefined, next }
    }
    tasks.push(task)
    if (letters !== undefined) diedAt.push(letters.diedAt[i]!)
  }
  return { tasks, diedAt: dead ? diedAt : undefined, next: walked.last }
}

interface WalkedLetters extends Walked {
  readonly places: ReadonlyArray<number>
  readonly diedAt: ReadonlyArray<number>
}

const walkLetters = (queue: Queue, after: number): WalkedLetters => {
  const letters = queue.deadLetters.after(after, Limits.browseTasksMax)
  const places = letters.map(({ cursor }) => cursor + 1)
  return {
    tasks: letters.map(({ task }) => task),
    places,
    diedAt: letters.map(({ diedAt }) => diedAt),
    last: letters.length === Limits.browseTasksMax ? places[places.length - 1] : undefined
  }
}

/** At most so many bytes does a task take in a page. */
const shownBytes = ({ options, payloadBytes, reasons }: Task, payloads: boolean): number => {
  let characters = (options?.id?.length ?? 0) + (options?.key?.length ?? 0)
  for (const label of options?.labels ?? []) characters += label.length
  for (const { text } of reasons ?? []) characters += text.length
  return 3 * characters + (payloads ? payloadBytes : 0)
}
