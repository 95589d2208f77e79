/**
 * The master's side of a pass of `crawl-dispatch` on a peer: clock and check. Every result is one of a task of this pass
 * that has had none yet; what comes after the pass fails the next.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { monotonicMs, usage } from "./role.ts"
import { indexOf, urlOf } from "./urls.ts"

export interface PeerPass {
  readonly tasks: number
  /** Tasks of one call; 1: a call for each task. */
  readonly batch: number
  /** Calls under way at a time. */
  readonly inFlight: number
}

export interface PeerPassResult {
  readonly seconds: number
  readonly cpuSeconds: number
}

/** Puts the tasks `from` up to `to`; resolves when the system has answered for all of them. */
export type Put = (urls: ReadonlyArray<string>, from: number, to: number) => Promise<void>

/** Results may be this late before a pass counts as stuck. */
const stuckMs = 20_000

export class ExactlyOnce {
  #passes = 0
  #urls: ReadonlyArray<string> = []
  #seen = new Uint8Array(0)
  #left = 0
  #fault: string | undefined = undefined
  #done: () => void = () => {}

  /** A result as the system brought it. */
  readonly take = (result: { readonly url: string; readonly ok: boolean }): void => {
    const i = indexOf(result.url)
    if (this.#urls[i] !== result.url || !result.ok) return this.fail(`a result for ${result.url}, which was not put`)
    if (this.#seen[i] !== 0) return this.fail(`two results for ${result.url}`)
    this.#seen[i] = 1
    if (--this.#left === 0) this.#done()
  }

  readonly fail = (fault: string): void => {
    this.#fault ??= fault
    this.#done()
  }

  /** `rest` counts what the system still holds of the pass. */
  async run({ batch, inFlight, tasks }: PeerPass, put: Put, rest: () => Promise<number>): Promise<PeerPassResult> {
    const number = this.#passes++
    const urls = Array.from({ length: tasks }, (_, i) => urlOf(number, i))
    if (this.#fault !== undefined) throw new Error(this.#fault)
    this.#urls = urls
    this.#seen = new Uint8Array(tasks)
    this.#left = tasks
    const ended = new Promise<void>((resolve) => {
      this.#done = resolve
    })
    let left = tasks
    const watch = setInterval(() => {
      if (this.#left === left) this.fail(`no result for ${stuckMs} ms, ${left} are missing`)
      left = this.#left
    }, stuckMs)
    let next = 0
    const putter = async (): Promise<void> => {
      while (next < tasks) {
        const from = next
        next += batch
        await put(urls, from, Math.min(from + batch, tasks))
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
