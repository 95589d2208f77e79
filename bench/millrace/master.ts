/**
 * The master process: puts tasks, reads their outcomes, and checks that each has arrived exactly once.
 *
 * `crawlDispatch` runs one pass and answers its seconds. The checks of a pass: every outcome is a success with the URL of
 * a task of this pass that has had none yet; afterwards every task id that a put returned is the id that came with its
 * URL; the manager counts as many successes as puts and nothing left over; and nothing more comes.
 */
import { setTimeout as sleep } from "node:timers/promises"
import * as Effect from "effect/Effect"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Stream from "effect/Stream"
import type { Client } from "../../src/Client.ts"
import type * as TaskQueue from "../../src/TaskQueue.ts"
import { monotonicMs, serve, usage } from "../harness/role.ts"
import { type Task, tasksOf } from "../harness/urls.ts"
import type { Variant } from "../harness/variants.ts"
import { client } from "./connect.ts"
import { Backlog, Empty, indexOf, Pages, Probes, Urls, urlOf } from "./queue.ts"

/** `batch`: tasks of one `putAll`; 1: one `put` per task. */
export interface PassOptions extends Pick<Variant, "batch" | "inFlight" | "payloadBytes"> {
  readonly tasks: number
}

/** Of the time between the first put and the last outcome; making the tasks and checking the ids is not in it. */
export interface PassResult {
  readonly seconds: number
  readonly cpuSeconds: number
}

interface Result {
  readonly url: string
  readonly ok: boolean
}

const runtime = ManagedRuntime.make(client)

/** Outcomes may be this late before a pass counts as stuck. */
const stuckMs = 20_000

class Pass {
  readonly #urls: ReadonlyArray<string>
  readonly #seen: Uint8Array
  /** The id that came with each URL, lower half; all share the upper half. */
  readonly #ids: Float64Array
  #prefix: string | undefined = undefined
  #left: number
  #fault: string | undefined = undefined
  #done: () => void = () => {}
  readonly ended: Promise<void>

  constructor(urls: ReadonlyArray<string>) {
    this.#urls = urls
    this.#seen = new Uint8Array(urls.length)
    this.#ids = new Float64Array(urls.length)
    this.#left = urls.length
    this.ended = new Promise((resolve) => {
      this.#done = resolve
    })
  }

  get left(): number {
    return this.#left
  }

  take(outcome: TaskQueue.Outcome<Result, never>): void {
    if (outcome._tag !== "Success") return this.fail(`task ${outcome.taskId} ended as ${outcome._tag}`)
    const { result, taskId } = outcome
    const i = indexOf(result.url)
    if (this.#urls[i] !== result.url || !result.ok) return this.fail(`a result for ${result.url}, which was not put`)
    if (this.#seen[i] !== 0) return this.fail(`two results for ${result.url}`)
    this.#seen[i] = 1
    this.#prefix ??= taskId.slice(0, 16)
    if (!taskId.startsWith(this.#prefix)) return this.fail(`${taskId} is an id of another manager`)
    this.#ids[i] = Number.parseInt(taskId.slice(16), 16)
    if (--this.#left === 0) this.#done()
  }

  fail(fault: string): void {
    this.#fault ??= fault
    this.#done()
  }

  /** Throws what is wrong with the pass. */
  verify(receipts: ReadonlyArray<TaskQueue.Receipt | undefined>): void {
    if (this.#fault !== undefined) throw new Error(this.#fault)
    if (this.#left > 0) throw new Error(`${this.#left} results are missing`)
    for (const [i, receipt] of receipts.entries()) {
      if (receipt === undefined) throw new Error(`${this.#urls[i]} was put without a receipt`)
      const { duplicate, taskId } = receipt
      if (duplicate) throw new Error(`${this.#urls[i]} was taken for a duplicate`)
      const came = this.#prefix + this.#ids[i]!.toString(16).padStart(16, "0")
      if (came !== taskId) throw new Error(`${this.#urls[i]} was put as ${taskId} and came back as ${came}`)
    }
    const ids = this.#ids.toSorted()
    if (ids.some((id, i) => i > 0 && id === ids[i - 1])) throw new Error("two tasks share an id")
  }
}

/** A queue of `crawl-dispatch`, and what has been put on it so far. */
interface Dispatch {
  readonly queue: typeof Urls
  reading: boolean
  puts: number
}

const urls: Dispatch = { queue: Urls, reading: false, puts: 0 }
// A pass with a size of payload has tasks with a body.
const pages: Dispatch = { queue: Pages as unknown as typeof Urls, reading: false, puts: 0 }

let pass: Pass | undefined
let passes = 0
/** A task that had an outcome between two passes. */
let stray: string | undefined

/** One reader for all passes on a queue: an outcome that comes too often, or too late, is seen by the next one at the latest. */
const read = (queue: typeof Urls): Effect.Effect<void, never, Client> =>
  queue.outcomes.pipe(
    Stream.runForEachArray((outcomes) =>
      Effect.sync(() => {
        for (const outcome of outcomes) {
          if (pass === undefined) stray ??= outcome.taskId
          else pass.take(outcome)
        }
      })
    ),
    Effect.catchCause((cause) => Effect.sync(() => pass?.fail(`the outcomes ended: ${String(cause)}`)))
  )

/** `inFlight` fibers that put until nothing is left; each holds one call. */
const putAll = (
  queue: typeof Urls,
  tasks: ReadonlyArray<Task>,
  { batch, inFlight }: PassOptions,
  receipts: Array<TaskQueue.Receipt | undefined>
): Effect.Effect<void, TaskQueue.PutError, Client> => {
  let next = 0
  const one = Effect.suspend(() => {
    const at = next++
    return Effect.map(queue.put(tasks[at]!), (receipt) => {
      receipts[at] = receipt
    })
  })
  const many = Effect.suspend(() => {
    const at = next
    next += batch
    return Effect.map(queue.putAll(tasks.slice(at, at + batch)), (got) => {
      for (let i = 0; i < got.length; i++) receipts[at + i] = got[i]
    })
  })
  const body = batch === 1 ? one : many
  const putter = Effect.whileLoop({ while: () => next < tasks.length, body: () => body, step: () => {} })
  return Effect.all(
    Array.from({ length: inFlight }, () => putter),
    { concurrency: "unbounded", discard: true }
  )
}

const crawlDispatch = async (options: PassOptions): Promise<PassResult> => {
  if (stray !== undefined) throw new Error(`task ${stray} had another outcome after its pass`)
  const number = passes++
  const dispatch = options.payloadBytes === undefined ? urls : pages
  const { queue } = dispatch
  const tasks = tasksOf(number, options.tasks, options.payloadBytes)
  const receipts = new Array<TaskQueue.Receipt | undefined>(options.tasks).fill(undefined)
  const current = new Pass(tasks.map(({ url }) => url))
  pass = current
  if (!dispatch.reading) {
    dispatch.reading = true
    // The queue is opened first: the reader starts where the log stands then.
    await runtime.runPromise(queue.size)
    runtime.runFork(read(queue))
  }
  let left = current.left
  const watch = setInterval(() => {
    if (current.left === left) current.fail(`no result for ${stuckMs} ms, ${left} are missing`)
    left = current.left
  }, stuckMs)
  try {
    const cpuFrom = usage().cpuSeconds
    const from = monotonicMs()
    const putting = runtime.runPromise(putAll(queue, tasks, options, receipts)).catch((error: unknown) => {
      current.fail(`a put failed: ${String(error)}`)
    })
    await current.ended
    const seconds = (monotonicMs() - from) / 1_000
    const cpuSeconds = usage().cpuSeconds - cpuFrom
    clearInterval(watch)
    await Promise.race([putting, sleep(5_000, undefined, { ref: false })])
    // What comes once too often comes now.
    await sleep(50)
    current.verify(receipts)
    dispatch.puts += options.tasks
    const { cancelled, dead, delayed, done, leased, puts, ready } = await runtime.runPromise(queue.stats)
    const rest = ready + delayed + leased + dead + cancelled
    if (done !== dispatch.puts || puts !== dispatch.puts || rest > 0) {
      throw new Error(`the manager counts ${puts} puts, ${done} done, ${rest} others; ${dispatch.puts} were put`)
    }
    return { seconds, cpuSeconds }
  } finally {
    clearInterval(watch)
    pass = undefined
  }
}

/** Puts one probe at a time, with a pause between: milliseconds from the call to the handler's first line. */
const latency = async ({ samples, pauseMs }: { samples: number; pauseMs: number }): Promise<Float64Array> => {
  const number = passes++
  const times = new Float64Array(samples)
  const probe = (i: number): Effect.Effect<void, unknown, Client> =>
    Effect.suspend(() => {
      const url = urlOf(number, i)
      const from = monotonicMs()
      return Effect.map(Probes.putWait({ url }), (result) => {
        if (result.url !== url) throw new Error(`the result of ${result.url} for ${url}`)
        times[i] = result.startedAtMs - from
      })
    })
  for (let i = 0; i < samples; i++) {
    await runtime.runPromise(probe(i))
    await sleep(pauseMs)
  }
  return times
}

/** Milliseconds from the call of `put` to its answer, one at a time, with a pause between. */
const answers = async ({ samples, pauseMs }: { samples: number; pauseMs: number }): Promise<Float64Array> => {
  const number = passes++
  const times = new Float64Array(samples)
  for (let i = 0; i < samples; i++) {
    const from = monotonicMs()
    await runtime.runPromise(Probes.put({ url: urlOf(number, i) }))
    times[i] = monotonicMs() - from
    await sleep(pauseMs)
  }
  return times
}

/** Milliseconds of each lease. */
export interface LeaseTimes {
  readonly empty: Float64Array
  readonly backlog: Float64Array
}

const fillBacklog = async ({ tasks }: { tasks: number }): Promise<number> => {
  const number = passes++
  const from = monotonicMs()
  const chunk = 40_000
  for (let at = 0; at < tasks; at += chunk) {
    const length = Math.min(chunk, tasks - at)
    await runtime.runPromise(Backlog.putAll(Array.from({ length }, (_, i) => ({ url: urlOf(number, at + i) }))))
  }
  return (monotonicMs() - from) / 1_000
}

/** Put, lease (timed), commit, on both queues in turns: what waits stays as much. */
const leaseLatency = async ({ samples, waiting }: { samples: number; waiting: number }): Promise<LeaseTimes> => {
  const number = passes++
  const times: LeaseTimes = { empty: new Float64Array(samples), backlog: new Float64Array(samples) }
  const one = (queue: typeof Backlog, into: Float64Array, i: number): Effect.Effect<void, unknown, Client> =>
    Effect.gen(function* () {
      yield* queue.put({ url: urlOf(number, i) })
      const from = monotonicMs()
      const [lease] = yield* queue.lease({ timeout: "10 seconds" })
      into[i] = monotonicMs() - from
      yield* queue.commit(lease!, undefined)
    })
  const sample = (i: number) => Effect.andThen(one(Empty, times.empty, i), one(Backlog, times.backlog, i))
  let next = 0
  await runtime.runPromise(
    Effect.whileLoop({ while: () => next < samples, body: () => sample(next++), step: () => {} })
  )
  const [empty, backlog] = await runtime.runPromise(Effect.all([Empty.size, Backlog.size]))
  if (empty !== 0 || backlog !== waiting) throw new Error(`${empty} and ${backlog} tasks wait, not 0 and ${waiting}`)
  return times
}

serve(
  { ready: () => runtime.runPromise(Effect.void), crawlDispatch, latency, answers, fillBacklog, leaseLatency },
  () => runtime.dispose()
)
