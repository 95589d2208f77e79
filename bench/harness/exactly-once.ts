/**
 * The master's side of a pass of `crawl-dispatch` on a peer: clock and check. Every result is one of a task of this pass
 * that has had none yet; what comes after the pass fails the next.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { monotonicMs, usage } from "./role.ts"
import { indexOf, type Task, tasksOf } from "./urls.ts"
import type { Variant } from "./variants.ts"

export interface PeerPass extends Pick<Variant, "batch" | "inFlight" | "payloadBytes"> {
  readonly tasks: number
}

export interface PeerPassResult {
  readonly seconds: number
  readonly cpuSeconds: number
}

/** Puts the tasks `from` up to `to`; resolves when the system has answered for all of them. */
export type Put = (tasks: ReadonlyArray<Task>, from: number, to: number) => Promise<void>

/** Results may be this late before a pass counts as stuck. */
const stuckMs = 20_000

export class ExactlyOnce {
  #passes = 0
  #tasks: ReadonlyArray<Task> = []
  #seen = new Uint8Array(0)
  #left = 0
  #fault: string | undefined = undefined
  #done: () => void = () => {}

  /** A result as the system brought it. */
  readonly take = (result: { readonly url: string; readonly ok: boolean }): void => {
    const i = indexOf(result.url)
    if (this.#tasks[i]?.url !== result.url || !result.ok)
      return this.fail(`a result for ${result.url}, which was not put`)
    if (this.#seen[i] !== 0) return this.fail(`two results for ${result.url}`)
    this.#seen[i] = 1
    if (--this.#left === 0) this.#done()
  }

  readonly fail = (fault: string): void => {
    this.#fault ??= fault
    this.#done()
  }

  /** `rest` counts what the system still holds of the pass. */
  async run(
    { batch, inFlight, payloadBytes, tasks: count }: PeerPass,
    put: Put,
    rest: () => Promise<number>
  ): Promise<PeerPassResult> {
    const number = this.#passes++
    const tasks = tasksOf(number, count, payloadBytes)
    if (this.#fault !== undefined) throw new Error(this.#fault)
    this.#tasks = tasks
    this.#seen = new Uint8Array(count)
    this.#left = count
    const ended = new Promise<void>((resolve) => {
      this.#done = resolve
    })
    let left = count
    const watch = setInterval(() => {
      if (this.#left === left) this.fail(`no result for ${stuckMs} ms, ${left} are missing`)
      left = this.#left
    }, stuckMs)
    let next = 0
    const putter = async (): Promise<void> => {
      while (next < count) {
        const from = next
        next += batch
        await put(tasks, from, Math.min(from + batch, count))
      }
    }
    try {
      const cpuFrom = usage().cpuSeconds
      const from = monotonicMs()
      const putting = Promise.all(Array.from({ length: inFlight }, putter)).catch((error: unknown) =>
        this.fail(`a put failed: ${String(error)}`)
      )
      await ended
      const seconds = (monotonicMs() - from) / 1_000
      const cpuSeconds = usage().cpuSeconds - cpuFrom
      await Promise.race([putting, sleep(5_000, undefined, { ref: false })])
      // What comes once too often comes now.
      await sleep(50)
      if (this.#fault !== undefined) throw new Error(this.#fault)
      // Acknowledgements of the last results may be on their way.
      const until = monotonicMs() + 5_000
      let more = await rest()
      while (more !== 0 && monotonicMs() < until) {
        await sleep(20)
        more = await rest()
      }
      if (more !== 0) throw new Error(`the system holds ${more} tasks after the pass`)
      return { seconds, cpuSeconds }
    } finally {
      clearInterval(watch)
    }
  }
}
