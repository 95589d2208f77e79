/**
 * Kills workers at every boundary of every step and at random moments, and compares what they wrote down with what was
 * promised: a step that was recorded never runs again, and every result is that of an uninterrupted run.
 */
import { appendFileSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as Client from "../../../src/Client.ts"
import * as Manager from "../../../src/Manager.ts"
import * as Store from "../../../src/Store.ts"
import { Random } from "../../unit/random.ts"
import { type Ended, key, type Program, root, start, temporaryFolder } from "../support.ts"
import { names, places, Steps, valueOf } from "./queue.ts"

export interface StepRun {
  readonly violations: ReadonlyArray<string>
  readonly kills: Readonly<Record<(typeof places)[number] | "random", number>>
  readonly tasks: number
  /** Steps that were cut before they were recorded, and ran again. */
  readonly repeated: number
  readonly replayed: number
  readonly interrupted: number
}

const workersAtATime = 2

/** `kills` in all; the first ones at boundaries, in turn. */
export const runSteps = async (options: { readonly kills: number; readonly seed: number }): Promise<StepRun> => {
  const random = new Random(options.seed)
  const folder = temporaryFolder()
  const journal = join(folder, "journal")
  appendFileSync(journal, "")
  const boundaries = places.flatMap((place) => names.map((_, step) => `${place}:${step}`))
  const plans = Array.from({ length: options.kills }, (_, i) => (i < boundaries.length ? boundaries[i]! : ""))
  const kills = { before: 0, within: 0, done: 0, recorded: 0, random: 0 }
  const violations: Array<string> = []
  const auth = { key }
  const listening = Manager.layerTcp({ port: 0, auth }).pipe(
    Layer.provideMerge(Manager.layer({ queues: [Steps] })),
    Layer.provide(Store.layerSqlite({ directory: join(folder, "data") }))
  )
  const results = new Map<number, { readonly values: ReadonlyArray<number>; readonly nonces: ReadonlyArray<string> }>()
  let tasks = 0

  const lines = (): ReadonlyArray<ReadonlyArray<string>> =>
    readFileSync(journal, "utf8")
      .trim()
      .split("\n")
      .map((line) => line.split(" "))

  /** Whether a kill now could take a task away for the third time. */
  const risky = (): boolean => {
    const latest = new Map<string, ReadonlyArray<string>>()
    for (const [kind, n, ...rest] of lines()) {
      if (kind === "start") latest.set(n!, rest)
      else if (kind === "end") latest.delete(n!)
    }
    return [...latest.values()].some(([attempt]) => Number(attempt) >= 2)
  }

  const master = (port: number) =>
    Effect.gen(function* () {
      const putSome = Effect.suspend(() => {
        const items = Array.from({ length: 20 }, () => ({ n: tasks++, sleepMs: random.chance(10) ? 1_100 : 0 }))
        return Steps.putAll(items)
      })
      yield* putSome
      const reader = yield* Effect.forkChild(
        Stream.runForEach(Steps.outcomes, (outcome) =>
          Effect.sync(() => {
            if (outcome._tag !== "Success") {
              violations.push(`task ${outcome.taskId} ended as ${JSON.stringify(outcome)}`)
              return
            }
            const { n } = outcome.result
            if (results.has(n)) violations.push(`task ${n} has two outcomes`)
            results.set(n, outcome.result)
          })
        )
      )
      const work = (plan: string): Program =>
        start(join(root, "test/process/steps/worker.ts"), [String(port), journal, plan])
      const crew: Array<{
        readonly program: Program
        readonly plan: string
        readonly over: Promise<Ended>
        killed: boolean
      }> = []
      let next = 0
      while (next < plans.length || crew.length > 0) {
        while (crew.length < workersAtATime && next < plans.length) {
          const plan = plans[next++]!
          const program = work(plan)
          crew.push({ program, plan, over: program.ended(120_000), killed: false })
        }
        const { waiting } = yield* Effect.map(Steps.stats, ({ delayed, ready }) => ({ waiting: ready + delayed }))
        if (waiting < 20) yield* putSome
        const worker = crew[0]!
        const { over, plan, program } = worker
        if (plan === "" && !worker.killed) {
          worker.killed = true
          yield* Effect.promise(() => sleep(500 + random.int(500)))
          for (let i = 0; i < 100 && risky(); i++) yield* Effect.promise(() => sleep(10))
          program.child.kill("SIGKILL")
          kills.random++
        }
        const ended = yield* Effect.promise(() => Promise.race([over, sleep(100)]))
        if (ended === undefined) continue
        crew.shift()
        if (ended.signal !== "SIGKILL")
          violations.push(`a worker ended with ${ended.code} ${ended.signal}: ${ended.stderr}`)
        const [place] = plan.split(":") as [(typeof places)[number]]
        if (plan !== "") kills[place]++
      }
      const last = work("")
      yield* Steps.join()
      for (let i = 0; i < 500 && results.size < tasks; i++) yield* Effect.promise(() => sleep(10))
      last.child.kill("SIGTERM")
      yield* Effect.promise(() => last.ended())
      reader.interruptUnsafe()
    })

  await Effect.runPromise(
    Effect.flatMap(Manager.Listening, ({ address }) => {
      const port = address._tag === "Tcp" ? address.port : 0
      return Effect.provide(Effect.scoped(master(port)), Client.layerTcp({ port, auth }))
    }).pipe(Effect.provide(listening))
  )
  return { ...judge(lines(), results, tasks, violations), kills, tasks, violations }
}

/** Looks through what the workers wrote down; adds to `violations`. */
export const judge = (
  lines: ReadonlyArray<ReadonlyArray<string>>,
  results: ReadonlyMap<number, { readonly values: ReadonlyArray<number>; readonly nonces: ReadonlyArray<string> }>,
  tasks: number,
  violations: Array<string>
): Pick<StepRun, "repeated" | "replayed" | "interrupted"> => {
  const recorded = new Map<string, string>()
  const ran = new Map<string, number>()
  const starts = new Map<string, number>()
  let replayed = 0
  for (const [kind, n, a, b] of lines) {
    const step = `task ${n}, step ${a}`
    if (kind === "start") starts.set(n!, (starts.get(n!) ?? 0) + 1)
    else if (kind === "run") {
      ran.set(step, (ran.get(step) ?? 0) + 1)
      if (recorded.has(step)) violations.push(`${step} ran again after it was recorded`)
    } else if (kind === "recorded") {
      const before = recorded.get(step)
      if (before !== undefined) replayed++
      if (before !== undefined && before !== b) violations.push(`${step} was ${before} and is ${b}`)
      recorded.set(step, b!)
    }
  }
  for (let n = 0; n < tasks; n++) {
    const result = results.get(n)
    if (result === undefined) {
      violations.push(`task ${n} has no outcome`)
      continue
    }
    names.forEach((_, step) => {
      if (result.values[step] !== valueOf(n, step)) violations.push(`task ${n}, step ${step}: ${result.values[step]}`)
      const nonce = recorded.get(`task ${n}, step ${step}`)
      if (nonce !== undefined && result.nonces[step] !== nonce) {
        violations.push(`task ${n}, step ${step} is ${result.nonces[step]} in the result and was recorded as ${nonce}`)
      }
    })
  }
  const repeated = [...ran.values()].filter((count) => count > 1).length
  const interrupted = [...starts.values()].filter((count) => count > 1).length
  return { repeated, replayed, interrupted }
}

export const reportLine = ({ interrupted, kills, repeated, replayed, tasks, violations }: StepRun): string =>
  `steps: ${tasks} tasks, kills ${Object.entries(kills)
    .map(([place, count]) => `${count} ${place}`)
    .join(", ")}; ${interrupted} tasks ` +
  `interrupted, ${replayed} recorded steps given again, ${repeated} unrecorded ones run again, ${violations.length} violations`
