/** Fills, drains and samples the queue of `stock-queue.ts`, on the manager whose port each command names. */
import * as Effect from "effect/Effect"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Client from "../../src/Client.ts"
import { monotonicMs, required, serve } from "../harness/role.ts"
import { Empty, indexOf, Stock, textOf } from "./stock-queue.ts"

interface Managers {
  readonly port: number
}

const runtimes = new Map<number, ManagedRuntime.ManagedRuntime<Client.Client, Client.LoginError>>()

const on = <A, E>(port: number, effect: Effect.Effect<A, E, Client.Client>): Promise<A> => {
  let runtime = runtimes.get(port)
  if (runtime === undefined) {
    runtime = ManagedRuntime.make(Client.layerTcp({ port, auth: { key: required("MILLRACE_BENCH_KEY") } }))
    runtimes.set(port, runtime)
  }
  return runtime.runPromise(effect)
}

const leave = async ({ port }: Managers): Promise<void> => {
  const runtime = runtimes.get(port)
  runtimes.delete(port)
  await runtime?.dispose()
}

const callItems = 4_096
const callsInFlight = 8

/** Puts `tasks` tasks, from number `from` on; answers the seconds. */
const fill = async ({ from, port, tasks }: Managers & { from: number; tasks: number }): Promise<number> => {
  const startedAt = monotonicMs()
  let next = from
  const end = from + tasks
  const call = Effect.suspend(() => {
    const at = next
    next = Math.min(end, at + callItems)
    return Stock.putAll(Array.from({ length: next - at }, (_, i) => ({ text: textOf(at + i) })))
  })
  const putter = Effect.whileLoop({ while: () => next < end, body: () => call, step: () => {} })
  const putters = Array.from({ length: callsInFlight }, () => putter)
  await on(port, Effect.all(putters, { concurrency: "unbounded", discard: true }))
  return (monotonicMs() - startedAt) / 1_000
}

/** Connects and leases one task: the time at which the answer was there. The lease is given back. */
const firstLease = ({ port }: Managers): Promise<number> =>
  on(
    port,
    Effect.gen(function* () {
      const [lease] = yield* Stock.lease({ timeout: "60 seconds" })
      const at = monotonicMs()
      if (lease === undefined || lease.payload.text !== textOf(0)) throw new Error("not the first task")
      yield* Stock.release(lease)
      return at
    })
  )

/** Leases and commits `tasks` tasks in their order, `callsInFlight` calls at a time; answers the seconds. */
const drain = async ({ from, port, tasks }: Managers & { from: number; tasks: number }): Promise<number> => {
  const startedAt = monotonicMs()
  const seen = new Uint8Array(tasks)
  let left = tasks
  const one = Effect.gen(function* () {
    const leases = yield* Stock.lease({ max: Math.min(1_000, left), timeout: "10 seconds" })
    left -= leases.length
    for (const { payload } of leases) {
      const at = indexOf(payload.text) - from
      if (textOf(at + from) !== payload.text || seen[at] !== 0) throw new Error(`task ${payload.text} came wrongly`)
      seen[at] = 1
    }
    yield* Effect.all(
      leases.map((lease) => Stock.commit(lease, undefined)),
      { concurrency: "unbounded", discard: true }
    )
  })
  const drainer = Effect.whileLoop({ while: () => left > 0, body: () => one, step: () => {} })
  await on(port, Effect.all([drainer, drainer], { concurrency: "unbounded", discard: true }))
  return (monotonicMs() - startedAt) / 1_000
}

export interface LeaseTimes {
  readonly empty: Float64Array
  readonly stock: Float64Array
}

/** Put, lease (timed), commit, in turns on both queues: what waits stays as much. */
const leaseTimes = async ({ port, samples }: Managers & { samples: number }): Promise<LeaseTimes> => {
  const times: LeaseTimes = { empty: new Float64Array(samples), stock: new Float64Array(samples) }
  const one = (queue: typeof Stock, into: Float64Array, i: number): Effect.Effect<void, unknown, Client.Client> =>
    Effect.gen(function* () {
      yield* queue.put({ text: textOf(i) })
      const from = monotonicMs()
      const [lease] = yield* queue.lease({ timeout: "10 seconds" })
      into[i] = monotonicMs() - from
      yield* queue.commit(lease!, undefined)
    })
  let next = 0
  const sample = Effect.suspend(() => {
    const i = next++
    return Effect.andThen(one(Empty, times.empty, i), one(Stock, times.stock, i))
  })
  await on(port, Effect.whileLoop({ while: () => next < samples, body: () => sample, step: () => {} }))
  return times
}

const size = ({ port }: Managers): Promise<number> => on(port, Stock.size)

serve({ ready: () => true, leave, fill, firstLease, drain, leaseTimes, size }, async () => {
  for (const runtime of runtimes.values()) await runtime.dispose()
})
