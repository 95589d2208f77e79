/**
 * The simulated machine room: one clock, one queue of events, and processes that can die.
 *
 *     timers, network deliveries, turns, store completions --> (time, sequence) --> run, one at a time, synchronously
 *
 * Nothing in it waits for the real event loop, so a whole schedule is one synchronous loop, and the same seed gives the
 * same events in the same order. Every event belongs to a process; what runs inside it belongs to that process too, and
 * when the process dies its events are dropped: no finalizer runs, as under `kill -9`.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Random from "effect/Random"
import * as Scheduler from "effect/Scheduler"
import { useRandomBytes } from "../platform/Crypto.ts"
import { useTurns } from "../platform/Schedule.ts"
import { SeededRandom } from "./Random.ts"
import { TraceHash } from "./TraceHash.ts"

/** Microseconds in a millisecond: the clock of the simulation counts microseconds. */
export const ms = 1_000

/** Wall clock of every process when a schedule begins: 2026-01-01. */
const wallStartMs = 1_767_225_600_000

/** About ten times what the longest schedule has. */
const eventsMax = 500_000

export interface Cancel {
  readonly cancel: () => void
}

class Entry implements Cancel {
  at: number
  readonly sequence: number
  readonly process: Process
  readonly kind: string
  run: (() => void) | undefined
  /** Its time has come, and its process was paused. */
  deferred = false

  constructor(at: number, sequence: number, process: Process, kind: string, run: () => void) {
    this.at = at
    this.sequence = sequence
    this.process = process
    this.kind = kind
    this.run = run
  }

  cancel = (): void => {
    this.run = undefined
  }
}

const before = (a: Entry, b: Entry): boolean => a.at < b.at || (a.at === b.at && a.sequence < b.sequence)

/** One simulated operating-system process. */
export class Process {
  readonly name: string
  readonly world: World
  readonly random: SeededRandom
  readonly context: Context.Context<never>
  alive = true
  /** Runs nothing until then: a stopped or starved process. */
  pausedUntil = 0
  /** Added to the wall clock; the monotonic clock knows nothing of it. */
  wallOffsetMs = 0
  /** Factor on every sleep: a runtime whose timers are late. */
  timersLate = 1
  #lastTurn = 0

  constructor(name: string, world: World, random: SeededRandom) {
    this.name = name
    this.world = world
    this.random = random
    this.context = contextOf(this)
  }

  /** Runs an effect as this process. */
  fork<A, E>(effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> {
    return this.world.within(this, () => Effect.runForkWith(this.context)(effect))
  }

  /** Runs a function in a later event of this process, `us` from now. */
  after(us: number, kind: string, run: () => void): Cancel {
    return this.world.schedule(this, this.world.now + us, kind, run)
  }

  /** One turn of the event loop, in the order of the calls. */
  turn(run: () => void): Cancel {
    this.#lastTurn = Math.max(this.#lastTurn, this.world.now + this.world.turnUs(this))
    return this.world.schedule(this, this.#lastTurn, "turn", run)
  }

  /** No event of this process runs any more. */
  kill(): void {
    this.alive = false
    this.world.trace("kill", this.name)
  }
}

export class World {
  /** Microseconds since the start of the schedule. */
  now = 0
  events = 0
  readonly random: SeededRandom
  readonly hash: TraceHash
  /** What is going on outside of every process: faults, checks. Never dies. */
  readonly outside: Process
  #current: Process
  #entered = false
  #sequence = 0
  /** So many events are more than any schedule needs: something runs without end. */
  onExcess: () => void = () => {}
  readonly #heap: Array<Entry> = []
  readonly #print: ((line: string) => void) | undefined
  /** Longest turn of an event loop in microseconds: what another process does in that time comes between. */
  turnUsMax = 20

  constructor(seed: number, print?: (line: string) => void) {
    this.random = new SeededRandom(seed)
    this.hash = new TraceHash()
    this.#print = print
    this.outside = new Process("outside", this, this.random.fork())
    this.#current = this.outside
  }

  get current(): Process {
    return this.#current
  }

  /** Milliseconds since the start of the schedule. */
  get nowMs(): number {
    return Math.floor(this.now / ms)
  }

  process(name: string): Process {
    this.trace("process", name)
    return new Process(name, this, this.random.fork())
  }

  turnUs(process: Process): number {
    return process.random.int(this.turnUsMax + 1)
  }

  within<A>(process: Process, run: () => A): A {
    const outer = this.#current
    this.#current = process
    try {
      return run()
    } finally {
      this.#current = outer
    }
  }

  /** Puts something into the trace: hashed always, printed when the trace is wanted. */
  trace(kind: string, ...details: ReadonlyArray<string | number>): void {
    this.hash.number(this.now)
    this.hash.text(kind)
    for (const detail of details) {
      if (typeof detail === "number") this.hash.number(detail)
      else this.hash.text(detail)
    }
    this.show(kind, ...details)
  }

  /** Prints when the trace is wanted, and does not hash: for what differs between two runs (stacks, fiber numbers). */
  show(kind: string, ...details: ReadonlyArray<string | number>): void {
    this.#print?.(`${(this.now / ms).toFixed(3).padStart(12)} ${kind.padEnd(10)} ${details.join(" ")}`)
  }

  /** Hears every log line of every process. */
  onLog: (process: Process, text: string) => void = () => {}

  schedule(process: Process, at: number, kind: string, run: () => void): Cancel {
    const entry = new Entry(Math.max(at, this.now), ++this.#sequence, process, kind, run)
    this.#push(entry)
    return entry
  }

  /** Ends the pause of every process. */
  unpause(): void {
    for (const entry of this.#heap.splice(0).sort((a, b) => a.sequence - b.sequence)) {
      entry.process.pausedUntil = 0
      if (entry.deferred) entry.at = this.now
      this.#push(entry)
    }
  }

  /** Everything that `play` does, and all that it starts, happens in this world: its turns, its random bytes. */
  enter<A>(play: () => A): A {
    const restoreTurns = useTurns((run) => void this.#current.turn(run))
    const restoreBytes = useRandomBytes((size) => this.#current.random.bytes(size))
    // Stacks name files and lines, and travel in the reasons of failed attempts: they would differ between two machines.
    const { stackTraceLimit } = Error
    Error.stackTraceLimit = 0
    this.#entered = true
    try {
      return play()
    } finally {
      this.#entered = false
      Error.stackTraceLimit = stackTraceLimit
      restoreTurns()
      restoreBytes()
    }
  }

  /** Runs events until `until` microseconds, or until `done`. Returns whether `done` was reached. Assumes `enter`. */
  run(until: number, done: () => boolean): boolean {
    if (!this.#entered) throw new Error("a world runs inside enter()")
    while (!done()) {
      const next = this.#heap[0]
      if (next === undefined || next.at > until) {
        this.now = Math.max(this.now, until)
        return done()
      }
      this.#pop()
      const { process, run } = next
      if (run === undefined || !process.alive) continue
      if (process.pausedUntil > next.at) {
        next.at = process.pausedUntil
        next.deferred = true
        this.#push(next)
        continue
      }
      this.now = next.at
      if (++this.events === eventsMax) this.onExcess()
      this.hash.number(next.at)
      this.hash.text(process.name)
      this.hash.text(next.kind)
      this.#current = process
      try {
        run()
      } finally {
        this.#current = this.outside
      }
    }
    return true
  }

  #push(entry: Entry): void {
    const heap = this.#heap
    let at = heap.push(entry) - 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (!before(entry, heap[parent]!)) break
      heap[at] = heap[parent]!
      at = parent
    }
    heap[at] = entry
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()!
    if (heap.length === 0) return
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++
      if (!before(heap[child]!, last)) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = last
  }
}

const contextOf = (process: Process): Context.Context<never> => {
  const { world } = process
  const random = process.random.fork()
  const wallMs = (): number => wallStartMs + Math.floor(world.now / ms) + process.wallOffsetMs
  const nanos = (): bigint => BigInt(world.now) * 1_000n
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: wallMs,
    currentTimeMillis: Effect.sync(wallMs),
    currentTimeNanosUnsafe: () => BigInt(wallMs()) * 1_000_000n,
    currentTimeNanos: Effect.sync(() => BigInt(wallMs()) * 1_000_000n),
    monotonicTimeNanosUnsafe: nanos,
    monotonicTimeNanos: Effect.sync(nanos),
    sleep: (duration) => {
      const millis = Duration.toMillis(duration)
      if (millis <= 0) return Effect.yieldNow
      if (!Number.isFinite(millis)) return Effect.never
      return Effect.callback((resume) => {
        // Late by a factor, and by five seconds at most: a long sleep is not that much later than a short one.
        const us = Math.ceil(Math.min(millis * process.timersLate, millis + 5_000) * ms)
        const timer = process.after(us, "timer", () => resume(Effect.void))
        return Effect.sync(timer.cancel)
      })
    }
  }
  const logger = Logger.make(({ message }) => {
    const text = Array.isArray(message) ? message.map(String).join(" ") : String(message)
    world.onLog(process, text)
    world.show("log", process.name, text)
  })
  return Context.empty().pipe(
    Context.add(Clock.Clock, clock),
    Context.add(Scheduler.Scheduler, new Scheduler.MixedScheduler("async", (run) => process.turn(run).cancel)),
    Context.add(Random.Random, {
      nextDoubleUnsafe: () => random.next(),
      nextIntUnsafe: () => Math.floor(random.next() * Number.MAX_SAFE_INTEGER)
    }),
    Context.add(Logger.CurrentLoggers, new Set([logger]))
  )
}
