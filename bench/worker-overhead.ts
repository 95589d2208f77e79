/**
 * Work `worker-overhead`: what a typed handler costs a worker above a bare loop, in microseconds of its CPU time a task. The
 * two take turns in one process (`millrace/overhead-worker.ts`); the manager has its own.
 */
import { randomBytes } from "node:crypto"
import { loadavg } from "node:os"
import { type Child, type ProfileTo, type StartOptions, withChildren } from "./harness/children.ts"
import { hottestTables } from "./harness/profile.ts"
import { type Measurement, progress, spread } from "./harness/report.ts"
import type { Work } from "./harness/work.ts"
import type { OverheadOptions } from "./millrace/overhead-worker.ts"

const tasksDefault = 200_000
const tasksShort = 60_000
const budgetUs = 3
const kinds = ["bare", "typed"] as const
const roles = ["manager", "worker"] as const

type Pass = (kind: OverheadOptions["kind"], tasks: number) => Promise<number>

/** Answers what takes one pass: microseconds a task. */
export const startOverhead = async (
  start: (options: StartOptions) => Child,
  profile: ProfileTo | undefined
): Promise<Pass> => {
  const key = { MILLRACE_BENCH_KEY: randomBytes(32).toString("base64url") }
  const profileOf = (name: string): ProfileTo | undefined =>
    profile && { directory: profile.directory, name: `${profile.name}-${name}` }
  const script = (name: string): URL => new URL(`./millrace/${name}.ts`, import.meta.url)
  const manager = start({ name: "manager", script: script("manager"), env: key, profile: profileOf("manager") })
  const env = { ...key, MILLRACE_BENCH_PORT: String(await manager.call<number>("port")) }
  const worker = start({ name: "worker", script: script("overhead-worker"), env, profile: profileOf("worker") })
  await worker.call("ready")
  return (kind, tasks) => worker.call<number>("measure", { kind, tasks } satisfies OverheadOptions)
}

export const workerOverhead: Work = {
  name: "worker-overhead",
  variants: [...kinds, "overhead"],
  shortRuns: 3,
  profiled: true,
  run: async (options) => {
    const tasks = options.tasks ?? (options.short ? tasksShort : tasksDefault)
    const us: Record<(typeof kinds)[number], Array<number>> = { bare: [], typed: [] }
    await withChildren(async (start) => {
      const pass = await startOverhead(start, options.profile)
      for (let run = 0; run <= options.runs; run++) {
        for (const kind of kinds) {
          const each = await pass(kind, tasks)
          const label = run === 0 ? "warm-up" : `run ${run} of ${options.runs}`
          progress(`worker-overhead ${label} ${kind}: ${each.toFixed(3)} us a task, load ${loadavg()[0]!.toFixed(1)}`)
          if (run > 0) us[kind].push(each)
        }
      }
    })
    const values = { ...us, overhead: us.typed.map((typed, i) => typed - us.bare[i]!) }
    const figures = Object.entries(values).map(
      ([variant, all]): Measurement => ({
        work: "worker-overhead",
        variant,
        durability: "memory",
        workers: 1,
        system: "millrace",
        ...spread(all, 2),
        unit: "us/task",
        runs: options.runs
      })
    )
    const overhead = figures.find(({ variant }) => variant === "overhead")!.median
    const over = overhead > budgetUs && options.profile === undefined
    return {
      measurements: figures.filter(({ variant }) => variant === (options.variant ?? variant)),
      notes: [
        `worker-overhead: CPU of a worker for ${tasks} tasks a run; a typed handler may take ${budgetUs} us more than the bare loop`,
        ...hottestTables(options.profile, roles)
      ],
      failures: over ? [`worker-overhead: ${overhead} us a task, more than ${budgetUs}`] : []
    }
  }
}
