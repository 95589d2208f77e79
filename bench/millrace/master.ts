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
import { SeededRandom } from "../../src/testing/Random.ts"
import { type ProbeOptions, type ProbeTimes, Probing } from "../harness/probes.ts"
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
  readonly #urlAt: (index: number) => string | undefined
  readonly #seen: Uint8Array
  /** The id that came with each URL, lower half; all share the upper half. */
  readonly #ids: Float64Array
  #prefix: string | undefined = undefined
  #left: number
  #fault: string | undefined = undefined
  #done: () => void = () => {}
  readonly ended: Promise<void>

  constructor(tasks: number, urlAt: (index: number) => string | undefined) {
    this.#urlAt = urlAt
    this.#seen = new Uint8Array(tasks)
    this.#ids = new Float64Array(tasks)
    this.#left = tasks
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
    if (this.#urlAt(i) !== result.url || !result.ok) return this.fail(`a result for ${result.url}, which was not put`)
    if (this.#seen[i] !== 0) return this.fail(`two results for ${result.url}`)
    this.#seen[i] = 1
    this.#ids[i] = this.#lowerHalf(taskId)
    if (--this.#left === 0) this.#done()
  }

  fail(fault: string): void {
    this.#fault ??= fault
    this.#done()
  }

  /** No more than the first `count` were put. */
  only(count: number): void {
    this.#left -= this.#seen.length - count
    if (this.#left === 0) this.#done()
  }

  /** The lower half of the id that a put returned, if it was a new one. */
  idOf(receipt: TaskQueue.Receipt | undefined): number {
    return receipt === undefined || receipt.duplicate ? Number.NaN : this.#lowerHalf(receipt.taskId)
  }

  #lowerHalf(taskId: string): number {
    this.#prefix ??= taskId.slice(0, 16)
    if (!taskId.startsWith(this.#prefix)) this.fail(`${taskId} is an id of another manager`)
    return Number.parseInt(taskId.slice(16), 16)
  }

  /** Throws what is wrong with the pass. `receipts`: what `idOf` says of each put. */
  verify(receipts: Float64Array): void {
    if (this.#fault !== undefined) throw new Error(this.#fault)
    if (this.#left > 0) throw new Error(`${this.#left} results are missing`)
    for (const [i, put] of receipts.entries()) {
      if (this.#ids[i] !== put) throw new Error(`${this.#urlAt(i)} was put as ${put} and came back as ${this.#ids[i]}`)
    }
    const ids = this.#ids.slice(0, receipts.length).sort()
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

interface Put {
  readonly count: number
  /** `idOf` of each receipt: asked for when the clock has stopped. */
  readonly ids: () => Float64Array
}

/** One pass, checked. `put` resolves when the manager has answered for what it put. */
const onePass = async (dispatch: Dispatch, current: Pass, put: () => Promise<Put>): Promise<PassResult> => {
  if (stray !== undefined) throw new Error(`task ${stray} had another outcome after its pass`)
  const { queue } = dispatch
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
    let receipts: Put = { count: 0, ids: () => new Float64Array(0) }
    const putting = put().then(
      (got) => {
        receipts = got
        current.only(got.count)
      },
      (error: unknown) => current.fail(`a put failed: ${String(error)}`)
    )
    await current.ended
    const seconds = (monotonicMs() - from) / 1_000
    const cpuSeconds = usage().cpuSeconds - cpuFrom
    clearInterval(watch)
    await Promise.race([putting, sleep(5_000, undefined, { ref: false })])
    // What comes once too often comes now.
    await sleep(50)
    current.verify(receipts.ids())
    dispatch.puts += receipts.count
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

const crawlDispatch = (options: PassOptions): Promise<PassResult> => {
  const dispatch = options.payloadBytes === undefined ? urls : pages
  const tasks = tasksOf(passes++, options.tasks, options.payloadBytes)
  const receipts = new Array<TaskQueue.Receipt | undefined>(options.tasks).fill(undefined)
  const current = new Pass(options.tasks, (i) => tasks[i]?.url)
  return onePass(dispatch, current, async () => {
    await runtime.runPromise(putAll(dispatch.queue, tasks, options, receipts))
    return { count: options.tasks, ids: () => Float64Array.from(receipts, (receipt) => current.idOf(receipt)) }
  })
}

export interface OfferOptions {
  readonly perSecond: number
  /** Tasks at most: it ends with the command `enough`. */
  readonly most: number
}

export interface Offered {
  readonly tasks: number
  readonly fromMs: number
  /** When the last task was put. */
  readonly untilMs: number
  /** When the last outcome was there. */
  readonly endedMs: number
}

let offering = false

/** Answers when the load is there. */
const offered = async (): Promise<void> => {
  while (!offering) await sleep(5)
}

const enough = (): void => {
  offering = false
}

/**
 * An open loop: tasks are due at times of a Poisson process, one `put` each, and are put when they are due, however many
 * are under way. Looks about every millisecond, so that those due within one leave together. Checked as every pass.
 */
const offer = async ({ most, perSecond }: OfferOptions): Promise<Offered> => {
  const random = new SeededRandom(most)
  const context = await runtime.context()
  const number = passes++
  const receipts = new Float64Array(most)
  const current = new Pass(most, (i) => urlOf(number, i))
  let [fromMs, untilMs, next, under] = [0, 0, 0, 0]
  const one = (at: number): Effect.Effect<void, TaskQueue.PutError, Client> =>
    Effect.map(Urls.put({ url: urlOf(number, at) }), (receipt) => {
      receipts[at] = current.idOf(receipt)
    })
  const { seconds } = await onePass(urls, current, async () => {
    fromMs = monotonicMs()
    offering = true
    for (let due = fromMs; offering; ) {
      const now = monotonicMs()
      const from = next
      for (; due <= now && next < most; next++) due -= (Math.log(1 - random.next()) / perSecond) * 1_000
      if (next === most) throw new Error("nobody has said that it is enough")
      if (next > from) {
        under++
        const all = Array.from({ length: next - from }, (_, i) => one(from + i))
        Effect.runPromiseWith(context)(Effect.all(all, { concurrency: "unbounded", discard: true })).then(
          () => under--,
          (error: unknown) => current.fail(`a put failed: ${String(error)}`)
        )
      }
      untilMs = monotonicMs()
      await sleep(1)
    }
    while (under > 0) await sleep(1)
    return { count: next, ids: () => receipts.slice(0, next) }
  })
  return { tasks: next, fromMs, untilMs, endedMs: fromMs + seconds * 1_000 }
}

const probing = new Probing()
let following = false
let probesSoFar = 0

const follow: Effect.Effect<void, never, Client> = Probes.outcomes.pipe(
  Stream.runForEachArray((outcomes) =>
    Effect.sync(() => {
      for (const outcome of outcomes) {
        if (outcome._tag === "Success") probing.take(outcome.result)
        else probing.fail(`task ${outcome.taskId} ended as ${outcome._tag}`)
      }
    })
  ),
  Effect.catchCause((cause) => Effect.sync(() => probing.fail(`the outcomes ended: ${String(cause)}`)))
)

/** Puts probes at their times, and reads their outcomes as any master does: from the queue's stream. */
const probes = async (options: ProbeOptions): Promise<ProbeTimes> => {
  if (!following) {
    following = true
    await runtime.runPromise(Probes.size)
    runtime.runFork(follow)
  }
  const times = await probing.run(
    options,
    (task) => runtime.runPromise(Probes.put(task)),
    async () => {
      const { cancelled, dead, delayed, leased, ready } = await runtime.runPromise(Probes.stats)
      return ready + delayed + leased + dead + cancelled
    }
  )
  probesSoFar += options.samples
  const { done } = await runtime.runPromise(Probes.stats)
  if (done !== probesSoFar) throw new Error(`the manager counts ${done} probes done; ${probesSoFar} were put`)
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
  {
    ready: () => runtime.runPromise(Effect.void),
    crawlDispatch,
    offer,
    offered,
    enough,
    probes,
    answers,
    fillBacklog,
    leaseLatency
  },
  () => runtime.dispose()
)
