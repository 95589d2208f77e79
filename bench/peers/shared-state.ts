/**
 * `--peers`: work `shared-state` on Millrace, Redis and Python's managers, in turns, in memory. Each run begins with nothing
 * in the server.
 */
import { fileURLToPath } from "node:url"
import { withChildren } from "../harness/children.ts"
import { withFolder } from "../harness/folder.ts"
import { type Measurement, progress, spread, table } from "../harness/report.ts"
import { variants as passes } from "../harness/variants.ts"
import type { Work, WorkReport } from "../harness/work.ts"
import { keysDefault, measure, type Rates, singlesMost, variants } from "../shared-state.ts"
import { redisMissing, startRedis } from "./redis/system.ts"
import { type Context, findProgram, startProgram } from "./system.ts"

type Run = (keys: number, singles: number) => Promise<Rates>

interface Shared {
  readonly name: string
  readonly missing: () => string | undefined
  readonly start: (context: Context) => Promise<Run>
  /** Its name among all systems. */
  readonly of: string
  /** It is slow enough for less. */
  readonly singlesMost?: number
}

const redis: Shared = {
  name: "redis",
  of: "redis-scripts",
  missing: redisMissing,
  start: async (context) => {
    const port = await startRedis(context, "redis")
    const script = new URL("./redis/shared.ts", import.meta.url)
    const client = context.start({ name: "redis client", script, env: { BENCH_PORT: String(port) } })
    return (keys, singles) => client.call<Rates>("run", { keys, singles }, 120_000)
  }
}

const python: Shared = {
  name: "python-managers",
  of: "python-managers",
  missing: () => (findProgram("python3") === undefined ? "python3 is not installed" : undefined),
  singlesMost: 20_000,
  start: async (context) => {
    const program = fileURLToPath(new URL("./python/shared.py", import.meta.url))
    const { host } = await startProgram(context, "python-managers", {
      command: findProgram("python3")!,
      args: ["-u", program],
      env: { PYTHONDONTWRITEBYTECODE: "1" },
      lines: true
    })
    return (_, singles) => host.call<Rates>("ask", { singles }, 120_000)
  }
}

const head = ["variant", "system", "median", "min", "max", "unit", "runs", "millrace/system"]

export const sharedStatePeers: Work = {
  name: "shared-state",
  variants,
  runs: 5,
  run: async ({ runs, systems, tasks, variant: only }): Promise<WorkReport> => {
    const keys = tasks ?? keysDefault
    const singles = Math.min(singlesMost, keys)
    const notes: Array<string> = []
    const taken = new Map<string, Array<Rates>>([["millrace", []]])
    await withFolder((folder) =>
      withChildren(async (start) => {
        const entries: Array<{ readonly name: string; readonly run: Run }> = [{ name: "millrace", run: measure }]
        for (const { missing, name, of, singlesMost = singles, start: begin } of [redis, python]) {
          if (systems !== undefined && !systems.includes(of)) continue
          const why = missing()
          if (why !== undefined) {
            notes.push(`skipped: ${name}: ${why} (bench/setup.sh)`)
            continue
          }
          const through = async (port: number) => port
          const run = await begin({ start, folder, durability: "memory", settings: passes["single"]!, through })
          entries.push({ name, run: (keys, singles) => run(keys, Math.min(singles, singlesMost)) })
          taken.set(name, [])
        }
        // Round 0 is the warm-up.
        for (let round = 0; round <= runs; round++) {
          for (let i = 0; i < entries.length; i++) {
            const { name, run } = entries[(i + round) % entries.length]!
            const rates = await run(keys, singles)
            progress(
              `shared-state ${round === 0 ? "warm-up" : `round ${round} of ${runs}`} ${name}: ${JSON.stringify(rates)}`
            )
            if (round > 0) taken.get(name)!.push(rates)
          }
        }
      })
    )
    const measurements: Array<Measurement> = []
    const own = taken.get("millrace")!
    for (const variant of variants.filter((name) => name === (only ?? name))) {
      for (const [system, all] of taken) {
        const rates = all.flatMap((one) => one[variant] ?? [])
        if (rates.length < runs) continue
        const ratio = spread(
          rates.map((rate, i) => own[i]![variant]! / rate),
          2
        ).median
        const figures = { ...spread(rates, 0), unit: "ops/s" as const, runs, ratio }
        measurements.push({ work: "shared-state", variant, durability: "memory", workers: 0, system, ...figures })
      }
    }
    const rows = measurements.map((m) => [m.variant, m.system, m.median, m.min, m.max, m.unit, m.runs, m.ratio!])
    notes.push(
      `shared-state, memory: ${keys} keys of 80 bytes, 4,096 a call and 8 calls under way; ${singles} single calls, 256 under way (Python: 4 threads)\n${table(head, rows)}`
    )
    return { measurements, notes }
  }
}
