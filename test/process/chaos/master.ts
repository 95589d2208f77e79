/**
 * A master that puts without pause and prints what it was told: receipts and outcomes, one a line. Arguments: port, seed.
 *
 * On SIGUSR2 it puts no more, waits until the queues are done, prints their counts and ends. A put that certainly did not
 * happen is tried again; one that perhaps did is not, and is printed as such.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as Client from "../../../src/Client.ts"
import { facts } from "../../../src/Errors.ts"
import type { TaskQueue } from "../../../src/TaskQueue.ts"
import { Random } from "../../unit/random.ts"
import { auth, Children, Jobs, now } from "./queues.ts"

const [port = "", seed = "1"] = process.argv.slice(2)
const random = new Random(Number(seed))
const print = (...words: ReadonlyArray<string | number>): void => void process.stdout.write(`${words.join(" ")}\n`)

let stopping = false
process.on("SIGUSR2", () => {
  stopping = true
})

let next = 1
const producer = Effect.gen(function* () {
  while (!stopping) {
    const n = next++
    // Most take no time, some outlast a restart of the manager.
    const ms = random.chance(5) ? 500 + random.int(2_500) : random.int(6)
    const from = now()
    for (;;) {
      const put = yield* Effect.result(Jobs.put({ n, ms }))
      if (put._tag === "Success") {
        print("ack", n, put.success.taskId, from, now())
        break
      }
      const error = put.failure
      if (facts[error._tag].outcome === "indefinite") {
        print("perhaps", n, error._tag)
        break
      }
      if (error._tag !== "ConnectFailed" && error._tag !== "Draining") throw error
      if (stopping) break
      yield* Effect.sleep("20 millis")
    }
    yield* Effect.sleep(20 + random.int(100))
  }
})

const again = <A, E>(effect: Effect.Effect<A, E, Client.Client>): Effect.Effect<A, never, Client.Client> =>
  Effect.catch(effect, () => Effect.andThen(Effect.sleep("50 millis"), again(effect)))

/** Outcomes from the first, each once: a reader that lost its manager goes on where it was. */
const read = <P, R extends { readonly n: number }>(queue: TaskQueue<P, R, never>, word: string) => {
  let seen = 0
  const follow: Effect.Effect<void, never, Client.Client> = Effect.suspend(() =>
    queue.outcomesFrom(seen).pipe(
      Stream.runForEach((outcome) =>
        Effect.sync(() => {
          seen++
          print(word, outcome._tag, outcome.taskId, outcome._tag === "Success" ? outcome.result.n : 0, now())
        })
      ),
      Effect.catch(() => Effect.andThen(Effect.sleep("50 millis"), follow))
    )
  )
  return { follow, seen: () => seen }
}

const program = Effect.gen(function* () {
  const jobs = read(Jobs, "outcome")
  const children = read(Children, "child")
  yield* Effect.forkChild(jobs.follow)
  yield* Effect.forkChild(children.follow)
  yield* Effect.all(
    Array.from({ length: 12 }, () => producer),
    { concurrency: "unbounded" }
  )
  print("stopped", next - 1)
  yield* again(Jobs.join())
  yield* again(Children.join())
  for (const [queue, reader] of [
    [Jobs, jobs],
    [Children, children]
  ] as const) {
    const stats = yield* again(queue.stats)
    while (reader.seen() < stats.outcomesNext) yield* Effect.sleep("10 millis")
    const { cancelled, dead, done, puts } = stats
    print("counts", queue.name, puts, done, dead, cancelled, stats.ready + stats.delayed + stats.leased)
  }
})

await Effect.runPromise(
  program.pipe(
    Effect.provide(
      Client.layerTcp({ port: Number(port), auth, waitForManager: true, reconnectCap: "250 millis" }).pipe(Layer.orDie)
    ),
    Effect.scoped
  )
)
process.exit(0)
