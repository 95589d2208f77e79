/** Task ids as programs see them, and the receipt that carries one. */
import type { Standing } from "./Operate.ts"

/** 128 bits in hex: which life of which manager, and which task of it. */
export const taskIdOf = (prefix: string, n: number): string => prefix + n.toString(16).padStart(16, "0")

const taskIdPattern = /^[0-9a-f]{32}$/

/** The number of a task of this life of the manager; undefined for any other id. */
export const taskNumberOf = (prefix: string | undefined, taskId: string): number | undefined => {
  if (prefix === undefined || !taskIdPattern.test(taskId) || !taskId.startsWith(prefix)) return undefined
  const n = Number.parseInt(taskId.slice(16), 16)
  return Number.isSafeInteger(n) ? n : undefined
}

/** What a put has brought about. */
export class Receipt {
  /** True when the dedupe id was taken: `taskId` is the task that was there first. */
  readonly duplicate: boolean
  readonly #prefix: string
  readonly #n: number
  readonly #standing: Standing | undefined

  /** `standing`: of the task that was there first; undefined if this put made the task. */
  constructor(prefix: string, n: number, standing: Standing | undefined) {
    this.#prefix = prefix
    this.#n = n
    this.duplicate = standing !== undefined
    this.#standing = standing
  }

  /** Of a duplicate: the task that was there first, and where it stood (`gone`: taken by a `get`, purged, forgotten). */
  get first(): { readonly taskId: string; readonly state: Standing } | undefined {
    return this.#standing === undefined ? undefined : { taskId: this.taskId, state: this.#standing }
  }

  get taskId(): string {
    return taskIdOf(this.#prefix, this.#n)
  }
}
