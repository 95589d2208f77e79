/**
 * `node bench/worker-overhead.ts [--tasks N] [--runs N] [--json]`: what a typed handler costs a worker above a bare loop.
 *
 * A manager in a process of its own; this process is first a bare loop (it is delivered tasks, and commits a fixed result for
 * each, as fast as the messages allow: nothing is decoded, no handler, no fiber), then a `Worker` with a typed handler (payload
 * decoded, one fiber a task, result encoded). They take turns; what counts is the CPU time of this process per task. Every task
 * is committed once, or it ends with exit code 1.
 */
import { randomBytes } from "node:crypto"
import process from "node:process"
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as Client from "../src/Client.ts"
import type { ClientShape } from "../src/client/Client.ts"
import * as Worker from "../src/Worker.ts"
import { ClientType as C, ManagerType as M } from "../src/wire/Vocabulary.ts"
import { withChildren } from "./harness/children.ts"
import { machine } from "./harness/report.ts"
import { Urls, urlOf, workerOptions } from "./millrace/queue.ts"

const { values } = parseArgs({
  options: { tasks: { type: "string" }, runs: { type: "string" }, json: { type: "boolean", default: false } }
})
const tasks = Number(values.tasks ?? 200_000)
const runs = Number(values.runs ?? 5)
if (!Number.isSafeInteger(tasks) || tasks < 1_000 || !Number.isSafeInteger(runs) || runs < 1) {
  console.error("--tasks takes a whole number from 1000 on, --runs one from 1 on")
  process.exit(2)
}
const budgetUs = 3

const key = randomBytes(32).toString("base64url")

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

const median = (values: ReadonlyArray<number>): number => [...values].sort((a, b) => a - b)[values.length >> 1]!

const measure = Effect.gen(function* () {
  const client = yield* Client.Client
  const { id } = yield* client.open(Urls)
  const us: Record<"bare" | "typed", Array<number>> = { bare: [], typed: [] }
  let pass = 0
  for (let run = 0; run <= runs; run++) {
    for (const kind of ["bare", "typed"] as const) {
      yield* Urls.pause()
      const number = pass++
      for (let from = 0; from < tasks; from += 4_096) {
        const count = Math.min(4_096, tasks - from)
        yield* Urls.putAll(Array.from({ length: count }, (_, i) => ({ url: urlOf(number, from + i) })))
      }
      const before = cpuUs()
      yield* Urls.resume()
      yield* kind === "bare" ? bare(client, id, tasks) : typed(tasks)
      // The first of each warms up.
      if (run > 0) us[kind].push((cpuUs() - before) / tasks)
      process.stderr.write(`run ${run} ${kind}: ${((cpuUs() - before) / tasks).toFixed(3)} us a task\n`)
    }
  }
  const { done, puts } = yield* Urls.stats
  if (done !== puts || done !== tasks * pass) {
    throw new Error(`${puts} puts and ${done} commits of ${tasks * pass} tasks`)
  }
  return us
})

const main = withChildren(async (start) => {
  const env = { MILLRACE_BENCH_KEY: key, MILLRACE_BENCH_DURABILITY: "memory" }
  const manager = await start({ name: "manager", script: new URL("./millrace/manager.ts", import.meta.url), env })
  const port = await manager.call<number>("port")
  const measured = await Effect.runPromise(
    Effect.provide(measure, Client.layerTcp({ port, auth: { key } })) as Effect.Effect<
      Effect.Success<typeof measure>,
      unknown
    >
  )
  const overhead = median(measured.typed) - median(measured.bare)
  const range = (list: ReadonlyArray<number>): string =>
    `${median(list).toFixed(2)} us (${Math.min(...list).toFixed(2)}-${Math.max(...list).toFixed(2)})`
  if (values.json) {
    const { bare, typed } = measured
    const line = { work: "worker-overhead", unit: "us/task", bare: median(bare), typed: median(typed), overhead, runs }
    console.log(JSON.stringify(line))
  } else {
    console.log(`bare loop      ${range(measured.bare)} of CPU a task`)
    console.log(`typed handler  ${range(measured.typed)} of CPU a task`)
    console.log(`overhead       ${overhead.toFixed(2)} us, at most ${budgetUs}`)
    console.log(`${runs} runs of ${tasks} tasks\n${machine()}`)
  }
  return overhead
})

process.exit((await main) <= budgetUs ? 0 : 1)
