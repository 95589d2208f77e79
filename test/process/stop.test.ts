/**
 * Programs that are stopped for a while and go on (SIGSTOP, SIGCONT; a laptop that slept, a host under pressure), and one
 * whose event loop is blocked.
 *
 * `MILLRACE_STOPS` sets how often each is stopped: once for 3 s by default, else for 1 to 60 s each time.
 */
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import { afterAll } from "vitest"
import * as Client from "../../src/Client.ts"
import * as Errors from "../../src/Errors.ts"
import * as Limits from "../../src/Limits.ts"
import { SeededRandom } from "../../src/testing/Random.ts"
import { Brief, Patient } from "./fixtures/stopQueue.ts"
import { fixture, key, type Program, serve, start, stopAll, temporaryFolder } from "./support.ts"

afterAll(stopAll)

const stops = Number(process.env["MILLRACE_STOPS"] ?? 1)
const random = new SeededRandom(Number(process.env["MILLRACE_SEED"] ?? 1))
const stopsMs = Array.from({ length: stops }, () => (stops === 1 ? 3_000 : 1_000 * random.between(1, 60)))

const asClient = <A, E>(port: number, effect: Effect.Effect<A, E, Client.Client>): Promise<A> =>
  Effect.runPromise(
    effect.pipe(
      Effect.provide(Client.layerTcp({ port, auth: { key }, reconnectCap: "1 second" })),
      Effect.timeout("3 minutes"),
      Effect.scoped
    )
  )

const worker = (port: number): Program => start(fixture("stopWorker.ts"), [String(port)])

const job = (n: number, ms = 0, blockMs = 0) => ({ n, ms, blockMs })

describe.concurrent("a worker", () => {
  const blockMs = stops === 1 ? 2_500 : 60_000
  // So long that the manager gave it up: then it hears of its lost lease when it is back, before it can report.
  const told =
    blockMs < Limits.heartbeatDeadMs
      ? /1 reports came too late or were refused \(codes 7\)/
      : /the connection to \S+ was lost[\s\S]*connected to the manager at \S+ again/
  it(`blocked for ${blockMs} ms, past its lease, is fenced and told so, and goes on with new work`, async () => {
    const { port } = await serve()
    const { stderr, stdout } = await asClient(
      port,
      Effect.gen(function* () {
        const first = yield* Brief.put(job(1, 200, blockMs))
        const program = worker(port)
        const outcome = yield* Brief.outcome(first.taskId)
        assert.deepStrictEqual([outcome._tag, outcome.attempts], ["Success", 2])
        assert.strictEqual(yield* Brief.putWait(job(2)), 2)
        const { done, puts } = yield* Brief.stats
        assert.deepStrictEqual([done, puts], [2, 2])
        yield* Effect.promise(() => program.said(told))
        return program
      })
    )
    assert.match(stderr + stdout, told)
    assert.match(stdout, /end 1 1\n[\s\S]*start 1 2\nend 1 2\n/)
  }, 180_000)

  for (const ms of stopsMs) {
    it(`stopped for ${ms} ms loses its task to another, drops it when it goes on, and takes new work`, async () => {
      const { port } = await serve()
      await asClient(
        port,
        Effect.gen(function* () {
          // Longer than the stop: it is still at it when it goes on.
          const { taskId } = yield* Brief.put(job(1, ms + 4_000))
          const stopped = worker(port)
          yield* Effect.promise(() => stopped.said(/start 1 1/))
          // It has told the manager so, too: the attempt counts.
          yield* Effect.sleep("200 millis")
          stopped.kill("SIGSTOP")
          const other = worker(port)
          yield* Effect.promise(() => other.said(/start 1 2/, 30_000))
          yield* Effect.sleep(Math.max(0, ms - 2_000))
          stopped.kill("SIGCONT")
          yield* Effect.promise(() => stopped.said(/interrupted 1 1/))
          const outcome = yield* Brief.outcome(taskId)
          assert.deepStrictEqual([outcome._tag, outcome.attempts], ["Success", 2])
          assert.notMatch(stopped.stdout, /end 1/)
          other.kill("SIGKILL")
          yield* Effect.promise(() => other.ended())
          assert.strictEqual(yield* Brief.putWait(job(2)), 2)
          assert.match(stopped.stdout, /end 2/)
        })
      )
    }, 240_000)
  }
})

describe.concurrent("a manager", () => {
  it("told to end ends in order, and clients and workers go on by themselves when it is back", async () => {
    const data = join(temporaryFolder(), "data")
    const { port, program } = await serve(["--data", data])
    await asClient(
      port,
      Effect.gen(function* () {
        const { taskId } = yield* Patient.put(job(1, 2_000))
        const hands = worker(port)
        yield* Effect.promise(() => hands.said(/start 1 1/))
        const patient = yield* Effect.forkChild(Patient.outcome(taskId))
        program.kill("SIGTERM")
        const late = yield* Effect.forkChild(Effect.result(Patient.put(job(2), { id: "two" })))
        const ended = yield* Effect.promise(() => program.ended())
        assert.strictEqual(ended.code, 0, ended.stderr)
        assert.strictEqual((yield* Effect.flip(Patient.put(job(3))))._tag, "ConnectFailed")
        yield* Effect.promise(() => serve(["--data", data, "--port", String(port)]))
        const outcome = yield* Fiber.join(patient)
        assert.deepStrictEqual([outcome._tag, outcome.attempts], ["Success", 1])
        // Refused, not there, just in time, or asked again by itself: never in doubt.
        const put = yield* Fiber.join(late)
        if (put._tag === "Failure") assert.strictEqual(Errors.facts[put.failure._tag].outcome, "definite")
        const again = yield* Effect.retry(Patient.put(job(2), { id: "two" }), Schedule.spaced("100 millis"))
        assert.strictEqual(again.duplicate, put._tag === "Success")
        assert.strictEqual((yield* Patient.outcome(again.taskId))._tag, "Success")
        const { done, puts } = yield* Patient.stats
        assert.deepStrictEqual([done, puts], [2, 2])
      })
    )
  }, 60_000)

  for (const ms of stopsMs) {
    it(`stopped for ${ms} ms takes no lease away from those who were there, and answers what was asked`, async () => {
      const { port, program } = await serve(["--data", join(temporaryFolder(), "data")])
      await asClient(
        port,
        Effect.gen(function* () {
          // The term of its lease ends while the manager is stopped; it is renewed in time, as far as the worker can tell.
          const brief = yield* Brief.put(job(1, ms + 2_000))
          const patient = yield* Patient.put(job(2, ms + 2_000))
          const hands = worker(port)
          yield* Effect.promise(() => hands.said(/start 1 1/))
          yield* Effect.promise(() => hands.said(/start 2 1/))
          program.kill("SIGSTOP")
          const asked = yield* Effect.forkChild(Effect.result(Patient.put(job(3), { id: "three" })))
          yield* Effect.sleep(ms)
          program.kill("SIGCONT")
          // Nothing is asked before it is connected again.
          const kept = yield* Effect.retry(Patient.outcome(patient.taskId), Schedule.spaced("100 millis"))
          assert.deepStrictEqual([kept._tag, kept.attempts], ["Success", 1])
          const told = yield* Fiber.join(asked)
          const again = yield* Patient.put(job(3), { id: "three" })
          if (told._tag === "Success") assert.strictEqual(again.taskId, told.success.taskId)
          else assert.strictEqual(Errors.facts[told.failure._tag].outcome, "indefinite")
          const third = yield* Patient.outcome(again.taskId)
          assert.strictEqual(third._tag, "Success")
          const outcome = yield* Brief.outcome(brief.taskId)
          assert.strictEqual(outcome._tag, "Success")
          // Short enough that no connection was given up: its renewals were read before its term was looked at.
          if (ms < 8_000) assert.strictEqual(outcome.attempts, 1)
          yield* Patient.join()
          assert.strictEqual((yield* Patient.stats).done, 2)
        })
      )
    }, 300_000)
  }
})
