/**
 * Work `reconnect`: a manager that is killed and starts again from its store, and 1,000 clients that come back at once, over
 * real sockets.
 *
 * Every client has a worker of its own and one task under way: after the restart each resumes its session and ends its
 * task, once. Checked: all are back within 10 s of the first moment that the manager listens, with at most two attempts
 * per client from that moment on.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { randomBytes } from "node:crypto"
import { loadavg } from "node:os"
import { join } from "node:path"
import process from "node:process"
import { fileURLToPath } from "node:url"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schema from "effect/Schema"
import { Client, layerTcp } from "../src/client/Client.ts"
import { Network } from "../src/platform/Network.ts"
import * as Node from "../src/platform/Node.ts"
import * as TaskQueue from "../src/TaskQueue.ts"
import * as Worker from "../src/Worker.ts"
import { withFolder } from "./harness/folder.ts"
import { type Measurement, progress, spread } from "./harness/report.ts"
import { monotonicMs } from "./harness/role.ts"
import type { Work } from "./harness/work.ts"

const clientsDefault = 1_000
const clientsMax = 10_000
const backMsMax = 10_000
const attemptsPerClientMax = 2

const key = randomBytes(32).toString("base64url")
const main = fileURLToPath(new URL("../src/cli/main.ts", import.meta.url))

/** `millrace serve`, once it listens. */
const serve = (folder: string, port: number): Promise<{ readonly child: ChildProcess; readonly port: number }> =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [main, "serve", "--port", `${port}`, "--data", join(folder, "data")], {
      env: { ...process.env, MILLRACE_AUTHKEY: key, NO_COLOR: "1" },
      stdio: ["ignore", "pipe", "pipe"]
    })
    let said = ""
    const heard = (text: string): void => {
      if (said.length < 100_000) said += text
      const at = /listening on \S+:(\d+)/.exec(said)
      if (at !== null) resolve({ child, port: Number(at[1]) })
    }
    child.stdout.setEncoding("utf8").on("data", heard)
    child.stderr.setEncoding("utf8").on("data", heard)
    child.once("exit", (code) => reject(new Error(`the manager ended with code ${code}\n${said}`)))
  })

const kill = (child: ChildProcess, signal: "SIGKILL" | "SIGTERM") =>
  Effect.promise(
    () =>
      new Promise<void>((resolve) => {
        if (child.exitCode !== null || child.signalCode !== null) return resolve()
        child.once("exit", () => resolve())
        child.kill(signal)
      })
  )

/** It ends with the scope. */
const served = (folder: string, port: number) =>
  Effect.acquireRelease(
    Effect.promise(() => serve(folder, port)),
    ({ child }) => kill(child, "SIGTERM")
  )

/** When each attempt to connect began, in one run. */
const attempts: Array<number> = []
const counting = Layer.effect(
  Network,
  Effect.map(Network, (network) =>
    Network.of({
      ...network,
      dial: (...args) =>
        Effect.suspend(() => {
          attempts.push(monotonicMs())
          return network.dial(...args)
        })
    })
  )
).pipe(Layer.provide(Node.layer))

const queue = TaskQueue.make("reconnect", { payload: Schema.Int, result: Schema.Int })

interface Figures {
  /** Milliseconds from the first moment that the manager listens. */
  readonly halfMs: number
  readonly allMs: number
  readonly attemptsPerClient: number
  readonly note: string
  readonly failures: ReadonlyArray<string>
}

const measure = Effect.fnUntraced(function* (folder: string, clients: number) {
  attempts.length = 0
  const before = yield* served(folder, 0)
  const { port } = before
  const may = yield* Deferred.make<void>()
  let running = 0
  let runs = 0
  /** When each client was back for the last time, and whether with its session. */
  const back = new Map<number, number>()
  let resumed = 0
  const one = (i: number) =>
    Effect.gen(function* () {
      const { link } = yield* Client
      yield* Worker.start(
        queue,
        Effect.fnUntraced(function* (task) {
          running++
          runs++
          yield* Deferred.await(may)
          return task.payload
        }),
        { prefetch: 0 }
      )
      link.residents.add({
        down: () => void back.delete(i),
        up: (again) => {
          back.set(i, monotonicMs())
          if (again) resumed++
        }
      })
    })
  const connected = (i: number) =>
    Effect.flatMap(Layer.build(Layer.fresh(tcp(port))), (context) => Effect.provide(one(i), context))
  yield* Effect.forEach(
    Array.from({ length: clients }, (_, i) => i),
    connected,
    { concurrency: 32, discard: true }
  )
  const operator = yield* Layer.build(Layer.fresh(tcp(port)))
  yield* Effect.provide(queue.putAll(Array.from({ length: clients }, (_, i) => i)), operator)
  while (running < clients) yield* Effect.sleep("20 millis")
  // Its leases are on disk; said twice so that `started` of the last one is, too.
  yield* Effect.sleep("200 millis")

  yield* kill(before.child, "SIGKILL")
  const killedAt = monotonicMs()
  yield* served(folder, port)
  const listensAt = monotonicMs()
  const deadline = listensAt + 60_000
  while (back.size < clients && monotonicMs() < deadline) yield* Effect.sleep("5 millis")
  const times = [...back.values()].map((at) => at - listensAt).sort((a, b) => a - b)
  const lastMs = back.size === clients ? times.at(-1)! : Number.POSITIVE_INFINITY
  const tried = attempts.filter((at) => at >= listensAt).length
  const waiting = attempts.filter((at) => at >= killedAt && at < listensAt).length
  yield* Deferred.succeed(may, undefined)
  yield* Effect.provide(queue.join({ timeout: "1 minute" }), operator)
  const { dead, done } = yield* Effect.provide(queue.stats, operator)
  const ms = (n: number | undefined): string => `${Math.round(n ?? Number.NaN)} ms`
  const note = `reconnect: ${clients} clients, manager down for ${ms(listensAt - killedAt)} (SIGKILL to listening; ${waiting} attempts meanwhile)
back: ${back.size}, half within ${ms(times[times.length >> 1])}, all within ${ms(lastMs)} of listening; sessions resumed: ${resumed}
attempts from listening on: ${tried} (${(tried / clients).toFixed(2)} a client)
tasks under way over the restart: ${done} done, ${dead} dead, ${runs - clients} run again; load ${loadavg()[0]!.toFixed(1)}`
  const failures = [
    lastMs > backMsMax && `not all were back within ${backMsMax} ms`,
    tried > attemptsPerClientMax * clients && `more than ${attemptsPerClientMax} attempts a client`,
    resumed < clients && "not every session was resumed",
    (done !== clients || dead > 0 || runs !== clients) && "not every task was done, and run once"
  ].flatMap((text) => (text === false ? [] : [`reconnect: ${text}`]))
  const halfMs = times[times.length >> 1] ?? Number.POSITIVE_INFINITY
  return { halfMs, allMs: lastMs, attemptsPerClient: tried / clients, note, failures } satisfies Figures
})

const tcp = (port: number) => layerTcp({ port, auth: { key } }).pipe(Layer.provide(counting))

export const reconnect: Work = {
  name: "reconnect",
  variants: ["half", "all", "attempts"],
  onlyByName: true,
  runs: 1,
  run: async ({ runs, tasks, variant: only }) => {
    const clients = tasks ?? clientsDefault
    if (clients > clientsMax) throw new Error(`${clients} clients are more than ${clientsMax}`)
    const figures: Array<Figures> = []
    for (let run = 1; run <= runs; run++) {
      const one = await withFolder((folder) =>
        Effect.runPromise(measure(folder, clients).pipe(Effect.scoped, Effect.provide(Logger.layer([]))))
      )
      progress(`reconnect run ${run} of ${runs}: all back within ${Math.round(one.allMs)} ms`)
      figures.push(one)
    }
    const row = (variant: string, unit: Measurement["unit"], of: (figures: Figures) => number): Measurement => ({
      work: "reconnect",
      variant,
      durability: "fsync",
      workers: clients,
      system: "millrace",
      ...spread(figures.map(of), unit === "ms" ? 0 : 2),
      unit,
      runs
    })
    const measurements = [
      row("half", "ms", ({ halfMs }) => halfMs),
      row("all", "ms", ({ allMs }) => allMs),
      row("attempts", "attempts/client", ({ attemptsPerClient }) => attemptsPerClient)
    ]
    return {
      measurements: measurements.filter(({ variant }) => variant === (only ?? variant)),
      notes: figures.map(({ note }) => note),
      failures: figures.flatMap(({ failures }) => failures)
    }
  }
}
