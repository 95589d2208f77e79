/**
 * Probes: one task at a time, each due at a time fixed beforehand, whatever became of the one before.
 *
 * A probe counts from when it was due, not from when the one before let it go: a stall is met by all probes that were due
 * in it, and the time in which this process was itself late is in the figure. Counting from the call would measure one of
 * them and omit the rest: Gil Tene's "coordinated omission" ("How NOT to Measure Latency", Strange Loop 2015; the rule of
 * his wrk2 and HdrHistogram).
 */
import { setTimeout as sleep } from "node:timers/promises"
import { SeededRandom } from "../../src/testing/Random.ts"
import { holdsNothing } from "./exactly-once.ts"
import { percentile } from "./report.ts"
import { monotonicMs } from "./role.ts"
import { type Task, urlOf } from "./urls.ts"

export interface ProbeOptions {
  readonly samples: number
  /** One is due in the first half of each such time, at random: what happens at regular times is met as often as it is there. */
  readonly everyMs: number
}

/** Milliseconds from when a probe was due. */
export interface ProbeTimes {
  /** To the first line of its handler. */
  readonly start: Float64Array
  /** To its outcome in this process. */
  readonly outcome: Float64Array
  /** To the call of put: what this process, or the probe before, was late. */
  readonly late: Float64Array
  readonly fromMs: number
  readonly untilMs: number
}

/** Before it is known what one takes. */
export const warmUp: ProbeOptions = { samples: 200, everyMs: 10 }

/** The time between two probes, fixed by those of the warm-up: four times what one takes, so that they meet one another seldom. */
export const everyMsAfter = ({ late, outcome }: ProbeTimes): number => {
  const taken = percentile(
    outcome.map((ms, i) => ms - late[i]!),
    0.5
  )
  return Math.min(40, Math.max(4, Math.ceil(4 * taken)))
}

const cell = new Int32Array(new SharedArrayBuffer(4))

/** A timer of Node is a millisecond late or more: it waits for the most, a sleep for the rest, a loop for the end. */
const until = async (due: number): Promise<void> => {
  const left = due - monotonicMs()
  if (left > 2.5) await sleep(Math.floor(left - 1.5))
  const rest = due - monotonicMs() - 0.1
  if (rest > 0) Atomics.wait(cell, 0, 0, rest)
  while (monotonicMs() < due);
}

/** A result of a probe: its handler began at this time of the machine's own clock. */
export interface Began {
  readonly url: string
  readonly startedAtMs: number
}

/** An outcome may be this late before the probes count as stuck. */
const stuckMs = 20_000

/** The master's side: every outcome is that of the one probe that is out, and comes once. */
export class Probing {
  #runs = 0
  #url: string | undefined = undefined
  #took: ((began: Began | Error) => void) | undefined = undefined
  #fault: string | undefined = undefined

  /** A result as the system brought it. */
  readonly take = (began: Began): void => {
    if (began.url !== this.#url) return this.fail(`a result for ${began.url}, which no probe waits for`)
    this.#url = undefined
    this.#took?.(began)
  }

  readonly fail = (fault: string): void => {
    this.#fault ??= fault
    this.#took?.(new Error(fault))
  }

  /** `rest` counts what the system still holds of the probes. */
  async run(
    { everyMs, samples }: ProbeOptions,
    put: (task: Task) => Promise<unknown>,
    rest: () => Promise<number>
  ): Promise<ProbeTimes> {
    const number = this.#runs++
    const urls = Array.from({ length: samples }, (_, i) => urlOf(number, i))
    const random = new SeededRandom(samples)
    const start = new Float64Array(samples)
    const outcome = new Float64Array(samples)
    const late = new Float64Array(samples)
    let url = ""
    let out = 0
    const watch = setInterval(() => {
      if (url === urls[out]) this.fail(`no result for ${stuckMs} ms of ${url}`)
      url = urls[out]!
    }, stuckMs)
    try {
      const fromMs = monotonicMs()
      for (; out < samples; out++) {
        const due = fromMs + everyMs * (out + 1 + random.next() / 2)
        await until(due)
        if (this.#fault !== undefined) throw new Error(this.#fault)
        const came = new Promise<number>((resolve, reject) => {
          this.#took = (began) => {
            outcome[out] = monotonicMs() - due
            if (began instanceof Error) reject(began)
            else resolve(began.startedAtMs)
          }
        })
        this.#url = urls[out]!
        late[out] = monotonicMs() - due
        put({ url: urls[out]! }).catch((error: unknown) => this.fail(`a put failed: ${String(error)}`))
        start[out] = (await came) - due
        if (!(start[out]! > late[out]! && start[out]! < outcome[out]!)) {
          throw new Error(
            `a handler began ${start[out]} ms after its probe was due, which ended after ${outcome[out]} ms`
          )
        }
      }
      const untilMs = monotonicMs()
      // What comes once too often comes now.
      await sleep(50)
      if (this.#fault !== undefined) throw new Error(this.#fault)
      await holdsNothing(rest)
      return { start, outcome, late, fromMs, untilMs }
    } finally {
      clearInterval(watch)
    }
  }
}
