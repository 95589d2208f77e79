/**
 * Kills real processes under load and checks what they promised.
 *
 * A master puts and reads outcomes, two workers run handlers, a manager over SQLite is killed with SIGKILL again and
 * again: at random moments (`millrace serve`), and at the boundaries of a commit (a manager of public layers that kills
 * itself). Workers are killed too. In the end everything is left alone, the queues run empty, and the files and lines of
 * all processes are compared (`check.ts`).
 */
import { appendFileSync, existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { Random } from "../../unit/random.ts"
import { freePort, main, type Program, root, start, temporaryFolder } from "../support.ts"
import { check, type Death, type Findings } from "./check.ts"

export interface ChaosOptions {
  /** Kills of the manager at random moments. */
  readonly kills: number
  /** Kills at each of the three boundaries. */
  readonly boundaryKills: number
  /** A worker is killed before every n-th kill of the manager; 0: never. */
  readonly workerEvery: number
  readonly seed: number
  /** Answers leave so many ms before their transaction: the bug that must be found. */
  readonly plantedEarlyMs?: number | undefined
  readonly progress?: ((line: string) => void) | undefined
}

export interface ChaosReport extends Findings {
  readonly seed: number
  readonly kills: Readonly<Record<"random" | "before" | "after" | "answer" | "worker", number>>
  /** From a kill of the manager to the first receipt of a put that began after it. */
  readonly longestRecoveryMs: number
  readonly seconds: number
}

const script = (name: string): string => join(root, "test/process/chaos", name)
const millis = (): number => Number(process.hrtime.bigint() / 1_000_000n)

export const runChaos = async (options: ChaosOptions): Promise<ChaosReport> => {
  const startedAt = millis()
  const random = new Random(options.seed)
  const folder = temporaryFolder()
  const data = join(folder, "data")
  const deliveries = join(folder, "deliveries")
  appendFileSync(deliveries, "")
  const port = String(await freePort())
  const planted = options.plantedEarlyMs

  const serve = async (plan: string): Promise<Program> => {
    const program =
      plan === ""
        ? start(main, ["serve", "--port", port, "--data", data])
        : start(script("manager.ts"), [data, port, plan])
    await program.said(/listening on \S+:\d+/, 60_000)
    return program
  }
  const work = (): Program => start(script("worker.ts"), [port, deliveries])
  const randomPlan = planted === undefined ? "" : `early:${planted}`

  const plans = [
    ...Array.from({ length: options.kills }, () => randomPlan),
    ...["before", "after", "answer"].flatMap((mode) =>
      Array.from({ length: options.boundaryKills }, () => `${mode}:${2 + random.int(60)}`)
    )
  ]
  // Fisher-Yates: the kinds of kills follow each other in every order.
  for (let i = plans.length - 1; i > 0; i--) {
    const j = random.int(i + 1)
    const plan = plans[i]!
    plans[i] = plans[j]!
    plans[j] = plan
  }

  const kills = { random: 0, before: 0, after: 0, answer: 0, worker: 0 }
  const deaths: Array<Death> = []
  const managerDeaths: Array<bigint> = []
  let longestRecoveryMs = 0
  let downSince: number | undefined
  let manager = await serve(plans[0] ?? randomPlan)
  let workers = [work(), work()]
  const master = start(script("master.ts"), [port, String(options.seed)])
  /** Waits for the receipt of a put that began after `at`. False: the manager has died before. */
  const receiptSince = async (at: bigint): Promise<boolean> => {
    let seen = master.stdout.length
    let dead = false
    void manager.ended(600_000).then(() => {
      dead = true
    })
    for (const end = millis() + 120_000; millis() < end; await sleep(5)) {
      const whole = master.stdout.lastIndexOf("\n") + 1
      for (const line of master.stdout.slice(seen, whole).split("\n")) {
        const [kind, , , from] = line.split(" ")
        if (kind === "ack" && from !== undefined && BigInt(from) > at) return true
      }
      seen = Math.max(seen, whole)
      if (dead) return false
    }
    throw new Error(`no receipt within 120 s\n${master.stderr}\n${manager.stderr}`)
  }
  await receiptSince(process.hrtime.bigint())

  for (const [i, plan] of plans.entries()) {
    const mode = plan.startsWith("early") || plan === "" ? "random" : (plan.split(":")[0] as "before")
    if (options.workerEvery > 0 && i % options.workerEvery === options.workerEvery - 1) {
      const [victim, other] = random.chance(50) ? [workers[0]!, workers[1]!] : [workers[1]!, workers[0]!]
      victim.kill("SIGKILL")
      await victim.ended()
      deaths.push({ pid: victim.pid, at: process.hrtime.bigint() })
      kills.worker++
      workers = [other, work()]
    }
    if (mode === "random") {
      await sleep(random.int(400))
      manager.kill("SIGKILL")
    }
    const { signal, stderr } = await manager.ended(120_000)
    if (signal !== "SIGKILL") throw new Error(`the manager ended by itself (${plan})\n${stderr}`)
    const at = process.hrtime.bigint()
    managerDeaths.push(at)
    kills[mode]++
    downSince ??= millis()
    manager = await serve(plans[i + 1] ?? randomPlan)
    if (await receiptSince(at)) {
      longestRecoveryMs = Math.max(longestRecoveryMs, millis() - downSince)
      downSince = undefined
    }
    if (i % 10 === 9 || i === plans.length - 1) {
      options.progress?.(`${i + 1} of ${plans.length} kills, ${kills.worker} of workers, ${millis() - startedAt} ms`)
    }
  }

  // Safety is over; now it has to come to rest.
  master.kill("SIGUSR2")
  const ended = await master.ended(180_000)
  if (ended.code !== 0) throw new Error(`the master failed\n${ended.stderr}\n${manager.stderr}`)
  for (const worker of workers) worker.kill("SIGTERM")
  for (const worker of workers) await worker.ended(30_000)
  manager.kill("SIGTERM")
  await manager.ended(30_000)
  const findings = check({
    said: ended.stdout,
    deliveries: existsSync(deliveries) ? readFileSync(deliveries, "utf8") : "",
    deaths,
    managerDeaths
  })
  const seconds = Math.round((millis() - startedAt) / 100) / 10
  return { ...findings, seed: options.seed, kills, longestRecoveryMs, seconds }
}

export const reportLine = (report: ChaosReport): string => {
  const { kills } = report
  const managers = kills.random + kills.before + kills.after + kills.answer
  return [
    `${managers} kills of the manager (${kills.random} at random, ${kills.before} before a transaction, ${kills.after} after it, ${kills.answer} after its answers) and ${kills.worker} of workers`,
    `${report.acknowledged} puts acknowledged, ${report.perhaps} indefinite, ${report.heldOver} answered over a restart`,
    `${report.deliveries} deliveries, ${report.redeliveries} permitted redeliveries, ${report.outlasted} handlers outlasted the manager's death and committed`,
    `${report.outcomes} outcomes, ${report.children} children; longest recovery ${report.longestRecoveryMs} ms; ${report.seconds} s; seed ${report.seed}`,
    report.violations.length === 0 ? "0 violations" : `${report.violations.length} VIOLATIONS`
  ].join("\n")
}
