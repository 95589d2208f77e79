/**
 * A worker process that is first a bare loop (it is delivered tasks, and commits a fixed result for each, as fast as the
 * messages allow: nothing is decoded, no handler, no fiber), then a `Worker` with a typed handler (payload decoded, one fiber
 * a task, result encoded). What counts is the CPU time of this process a task. Every task is committed once.
 */
import process from "node:process"
import * as Effect from "effect/Effect"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Client from "../../src/Client.ts"
import type { ClientShape } from "../../src/client/Client.ts"
import * as Worker from "../../src/Worker.ts"
import { ClientType as C, ManagerType as M } from "../../src/wire/Vocabulary.ts"
import { serve } from "../harness/role.ts"
import { client } from "./connect.ts"
import { Urls, urlOf, workerOptions } from "./queue.ts"

export interface OverheadOptions {
  readonly kind: "bare" | "typed"
  readonly tasks: number
}

const runtime = ManagedRuntime.make(client)

const cpuUs = (): number => {
  const { system, user } = process.cpuUsage()
  return user + system
}

/** Commits whatever is delivered until `count` are done. */
const bare = (client: ClientShape, queue: number, count: number): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const { link } = client
    const result = Uint8Array.from([1, ...new TextEncoder().encode(JSON.stringify({ url: urlOf(0, 0), ok: true }))])
    const credit = workerOptions.concurrency + workerOptions.prefetch
    let done = 0
    const subscribe = { type: C.subscribe, request: link.nextRequest, queue, credit, prefetch: 0 } as const
    link.ask(subscribe, (answer) => {
      if (answer instanceof Error || answer.type !== M.streaming) throw new Error("not subscribed")
      const { stream } = answer
      link.receive(stream, {
        deliver: (items) => {
          const held = items.map(({ task }) => task)
          const fences = items.map(({ fence }) => fence)
          const results = items.map(() => result)
          const commit = { type: C.commit, request: link.nextRequest, tasks: held, fences, results } as const
          link.ask({ ...commit, effects: undefined }, (committed) => {
            if (committed instanceof Error || committed.type !== M.done) throw new Error("not committed")
            done += items.length
            if (done < count) return
            link.ask({ type: C.unsubscribe, request: link.nextRequest, stream }, () => resume(Effect.void))
          })
          link.tell({ type: C.credit, stream, credit: items.length })
        }
      })
    })
  })

const until = <E, R>(holds: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  Effect.flatMap(holds, (done) => (done ? Effect.void : Effect.andThen(Effect.sleep("5 millis"), until(holds))))

const typed = (count: number) =>
  Effect.scoped(
    Effect.gen(function* () {
      const before = (yield* Urls.stats).done
      yield* Worker.start(Urls, ({ payload }) => Effect.succeed({ url: payload.url, ok: true }), workerOptions)
      yield* until(Effect.map(Urls.stats, ({ done }) => done - before >= count))
    })
  )

let passes = 0
let putsSoFar = 0

/** Microseconds of CPU a task, of one pass. */
const measure = ({ kind, tasks }: OverheadOptions): Promise<number> =>
  runtime.runPromise(
    Effect.gen(function* () {
      const { id } = yield* (yield* Client.Client).open(Urls)
      yield* Urls.pause()
      const number = passes++
      for (let from = 0; from < tasks; from += 4_096) {
        const count = Math.min(4_096, tasks - from)
        yield* Urls.putAll(Array.from({ length: count }, (_, i) => ({ url: urlOf(number, from + i) })))
      }
      putsSoFar += tasks
      const before = cpuUs()
      yield* Urls.resume()
      yield* kind === "bare" ? bare(yield* Client.Client, id, tasks) : typed(tasks)
      const us = (cpuUs() - before) / tasks
      const { done, puts } = yield* Urls.stats
      if (done !== puts || done !== putsSoFar) {
        throw new Error(`${puts} puts and ${done} commits of ${putsSoFar} tasks`)
      }
      return us
    })
  )

serve({ ready: () => runtime.runPromise(Effect.void), measure }, () => runtime.dispose())
