/**
 * `node bench/connections.ts [--json]`: what a session costs its manager, over real sockets.
 *
 *     node bench/connections.ts [--only memory|hold|logins] [--sessions 10000] [--hold 60] [--logins 5000] [--runs 2]
 *                               [--json] [--profile NAME]
 *
 * `memory`: what 10,000 idle sessions hold, each after a login, one open of a queue and some heartbeats; what is left of
 * them after their goodbye; and what one costs whose connection was cut, until it resumes or is forgotten. `hold`: all of
 * them for a minute, with heartbeats, beside a master and a worker, whose figures are taken with and without them. `logins`:
 * full logins per second of the manager's CPU time. `memory` and `logins` without TLS and with it.
 *
 * Checked: no session is lost, and each heartbeat is answered. Ends with exit code 1 if it is not so, or if an idle session
 * takes over 20 KiB, or a second of the manager's CPU time is under 300 logins.
 */
import { execFileSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import { mkdirSync } from "node:fs"
import { loadavg } from "node:os"
import { join } from "node:path"
import process from "node:process"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { type Child, type StartOptions, withChildren } from "./harness/children.ts"
import { hottestTable } from "./harness/profile.ts"
import { jsonLine, type Measurement, machine, percentile, progress, spread, table } from "./harness/report.ts"
import type { Look } from "./millrace/idle-clients.ts"
import type { PassResult } from "./millrace/master.ts"
import type { MemoryUse } from "./millrace/memoryUse.ts"

const sessionBytesMax = 20 * 1_024
const loginsPerCpuSecondMin = 300
/** Sessions of one process of clients. */
const sessionsPerProcess = 5_000
/** Descriptors of a process beside those of its sessions. */
const descriptorsSpare = 200
const loginsInFlight = 32
const warmUpLogins = 500
const waitMs = 300_000
const tasksOfPass = 60_000
const answerSamples = 2_000

const parts = ["memory", "hold", "logins"] as const
const { values } = parseArgs({
  options: {
    only: { type: "string" },
    sessions: { type: "string", default: "10000" },
    hold: { type: "string", default: "60" },
    logins: { type: "string", default: "5000" },
    runs: { type: "string", default: "2" },
    json: { type: "boolean", default: false },
    profile: { type: "string" }
  }
})

const whole = (flag: "sessions" | "hold" | "logins" | "runs", max: number): number => {
  const value = Number(values[flag])
  if (Number.isSafeInteger(value) && value >= 1 && value <= max) return value
  console.error(`--${flag} takes a whole number from 1 to ${max}, not "${values[flag]}"`)
  process.exit(2)
}

/** A runtime raises its own limit to this one; the manager needs a descriptor for each session. */
const descriptors = Number(execFileSync("/bin/sh", ["-c", "ulimit -Hn"], { encoding: "utf8" })) || 1_048_576
const within = (wanted: number, flag: string): number => {
  if (wanted + descriptorsSpare <= descriptors) return wanted
  const fit = descriptors - descriptorsSpare
  progress(
    `connections: --${flag} ${wanted} lowered to ${fit}: a process may have ${descriptors} descriptors (ulimit -Hn)`
  )
  return fit
}
const sessions = within(whole("sessions", 16_000), "sessions")
const logins = within(whole("logins", 16_000), "logins")
const holdSeconds = whole("hold", 86_400)
const runs = whole("runs", 100)
const { json, only, profile } = values
if (only !== undefined && !parts.some((part) => part === only)) {
  console.error(`--only takes one of ${parts.join(", ")}, not "${only}"`)
  process.exit(2)
}
const directory = fileURLToPath(new URL("./profiles", import.meta.url))
if (profile !== undefined) mkdirSync(directory, { recursive: true })
const people = (text: string): void => (json ? progress(text) : void process.stdout.write(`${text}\n`))

const figures = new Map<string, { readonly unit: Measurement["unit"]; readonly values: Array<number> }>()
const take = (variant: string, unit: Measurement["unit"], value: number): void => {
  const known = figures.get(variant)
  if (known === undefined) figures.set(variant, { unit, values: [value] })
  else known.values.push(value)
}
const wrong: Array<string> = []

const role = (name: string): URL => new URL(`./millrace/${name}.ts`, import.meta.url)

type Start = (options: StartOptions) => Child

/** A manager and the environment of who connects to it. */
const startManager = async (start: Start, secure: boolean, profileName?: string) => {
  const key = { MILLRACE_BENCH_KEY: randomBytes(32).toString("base64url") }
  const manager = start({
    name: "manager",
    script: role("manager"),
    env: { ...key, ...(secure ? { MILLRACE_BENCH_TLS: "own" } : {}) },
    profile: profileName === undefined ? undefined : { directory, name: profileName }
  })
  const port = await manager.call<number>("port")
  const fingerprint = await manager.call<string | undefined>("fingerprint")
  const env = {
    ...key,
    MILLRACE_BENCH_PORT: `${port}`,
    ...(fingerprint === undefined ? {} : { MILLRACE_BENCH_FINGERPRINT: fingerprint })
  }
  return { manager, env }
}

/** Sessions in as many processes as they need. */
class Crowd {
  readonly #processes: ReadonlyArray<Child>
  /** Lost in all that was there before. */
  #lost = 0

  constructor(start: Start, env: Readonly<Record<string, string>>, size: number) {
    const count = Math.ceil(size / Math.min(sessionsPerProcess, descriptors - descriptorsSpare))
    this.#processes = Array.from({ length: count }, (_, i) =>
      start({ name: `clients-${i + 1}`, script: role("idle-clients"), env })
    )
  }

  /** Seconds from the first until all are in. */
  async connect(count: number, open: boolean): Promise<number> {
    const { length } = this.#processes
    const times = await this.#all<number>("connect", (i) => ({
      count: Math.floor(count / length) + (i < count % length ? 1 : 0),
      inFlight: loginsInFlight / length,
      open
    }))
    return Math.max(...times)
  }

  async look(): Promise<Look> {
    const looks = await this.#all<Look>("look")
    const sum = (of: (look: Look) => number): number => looks.reduce((total, look) => total + of(look), 0)
    return {
      open: sum(({ open }) => open),
      lost: sum(({ lost }) => lost),
      why: looks.map(({ why }) => why).find((why) => why !== "") ?? "",
      heartbeats: sum(({ heartbeats }) => heartbeats),
      answered: sum(({ answered }) => answered),
      answeredLeast: Math.min(...looks.map(({ answeredLeast }) => answeredLeast)),
      heartbeatP99: Math.max(...looks.map(({ heartbeatP99 }) => heartbeatP99))
    }
  }

  /** Until each has had so many heartbeats answered. */
  async settled(heartbeats: number): Promise<void> {
    for (let waited = 0; (await this.look()).answeredLeast < heartbeats; waited += 500) {
      if (waited >= 60_000) throw new Error("heartbeats are not answered")
      await sleep(500)
    }
  }

  /** Fails the run if a session was lost since the last check. */
  async check(open: number): Promise<Look> {
    const look = await this.look()
    if (look.lost > this.#lost || look.open !== open) {
      wrong.push(`${look.lost - this.#lost} sessions were lost, ${look.open} of ${open} are there (${look.why})`)
    }
    this.#lost = look.lost
    return look
  }

  async end(how: "goodbye" | "cut"): Promise<void> {
    await this.#all(how)
  }

  #all<A>(command: string, argument: (i: number) => unknown = () => undefined): Promise<Array<A>> {
    return Promise.all(this.#processes.map((child, i) => child.call<A>(command, argument(i), waitMs)))
  }
}

/** After a pause, for what was closed goes a turn of the loop later. */
const memoryOf = async (manager: Child): Promise<MemoryUse> => {
  await sleep(1_500)
  return manager.call<MemoryUse>("memory")
}

const each = (before: MemoryUse, after: MemoryUse, count: number) => ({
  rss: (after.rssBytes - before.rssBytes) / count,
  heap: (after.heapBytes + after.externalBytes - before.heapBytes - before.externalBytes) / count
})

const measureMemory = (secure: boolean, run: number): Promise<void> =>
  withChildren(async (start) => {
    const prefix = secure ? "tls-" : ""
    const { env, manager } = await startManager(start, secure)
    const crowd = new Crowd(start, env, sessions)
    await crowd.connect(Math.min(warmUpLogins, sessions), true)
    await crowd.end("goodbye")
    const empty = await memoryOf(manager)
    const record = (variant: string, before: MemoryUse, after: MemoryUse): void => {
      const { heap, rss } = each(before, after, sessions)
      take(`${prefix}${variant}-rss`, "bytes/session", rss)
      take(`${prefix}${variant}-heap`, "bytes/session", heap)
      progress(
        `connections memory ${secure ? "TLS " : ""}run ${run} of ${runs}: ${variant}: ${Math.round(rss)} bytes of RSS and ${Math.round(heap)} of heap and buffers a session, load ${loadavg()[0]!.toFixed(1)}`
      )
    }
    const fill = async (): Promise<MemoryUse> => {
      await crowd.connect(sessions, true)
      await crowd.settled(2)
      const full = await memoryOf(manager)
      await crowd.check(sessions)
      return full
    }
    record("idle", empty, await fill())
    await crowd.end("goodbye")
    const left = await memoryOf(manager)
    record("goodbye", empty, left)
    record("idle-again", left, await fill())
    await crowd.end("goodbye")
    const leftAgain = await memoryOf(manager)
    record("goodbye-again", left, leftAgain)
    await fill()
    await crowd.end("cut")
    record("cut", leftAgain, await memoryOf(manager))
  })

const measureHold = (run: number): Promise<void> =>
  withChildren(async (start) => {
    const { env, manager } = await startManager(start, false)
    const worker = start({ name: "worker-1", script: role("worker"), env })
    const master = start({ name: "master", script: role("master"), env })
    const crowd = new Crowd(start, env, sessions)
    await Promise.all([worker.call("ready"), master.call("ready")])
    const pass = async (): Promise<number> => {
      const options = { tasks: tasksOfPass, batch: 1, inFlight: 256 }
      const { seconds } = await master.call<PassResult>("crawlDispatch", options)
      return tasksOfPass / seconds
    }
    const answers = async (): Promise<Float64Array> =>
      master.call<Float64Array>("answers", { samples: answerSamples, pauseMs: 1 })
    const report = (label: string, rates: ReadonlyArray<number>, times: ReadonlyArray<Float64Array>): void => {
      const { median } = spread(rates, 0)
      const all = Float64Array.from(times.flatMap((some) => [...some]))
      const [p50, p99] = [percentile(all, 0.5), percentile(all, 0.99)]
      take(`${label}-single`, "tasks/s", median)
      take(`${label}-put-p50`, "ms", p50)
      take(`${label}-put-p99`, "ms", p99)
      progress(
        `connections hold run ${run} of ${runs}: ${label}: ${Math.round(median)} tasks/s (single puts), put to answer p50 ${p50.toFixed(3)} ms, p99 ${p99.toFixed(3)} ms, load ${loadavg()[0]!.toFixed(1)}`
      )
    }
    await pass()
    await answers()
    report("alone", [await pass(), await pass(), await pass()], [await answers(), await answers()])

    await crowd.connect(sessions, true)
    const until = Date.now() + holdSeconds * 1_000
    const before = await crowd.look()
    const rates = [await pass(), await pass(), await pass()]
    const times = [await answers(), await answers()]
    // So much for the pair; the rest of the time the manager has only heartbeats to answer.
    const cpuFrom = (await manager.usage()).cpuSeconds
    const quietFrom = Date.now()
    await sleep(Math.max(5_000, until - Date.now()))
    const cpuShare = ((await manager.usage()).cpuSeconds - cpuFrom) / ((Date.now() - quietFrom) / 1_000)
    report("beside", rates, times)
    const after = await crowd.check(sessions)
    const said = after.heartbeats - before.heartbeats
    const unanswered = after.heartbeats - after.answered
    // What was said in the last moment may be on its way.
    if (unanswered > sessions / 20 || after.answeredLeast < Math.floor(holdSeconds / 5) - 2) {
      wrong.push(`${unanswered} heartbeats have no answer; the least that a session has is ${after.answeredLeast}`)
    }
    take("heartbeat-p99", "ms", after.heartbeatP99)
    people(
      `hold run ${run} of ${runs}: ${after.open} of ${sessions} sessions for ${holdSeconds} s, ${after.lost} lost, ${said} heartbeats, p99 ${after.heartbeatP99.toFixed(1)} ms; with nothing else to do the manager takes ${(cpuShare * 100).toFixed(1)} % of a core; load ${loadavg()[0]!.toFixed(1)}`
    )
    await crowd.end("goodbye")
  })

const measureLogins = (secure: boolean, run: number): Promise<void> => {
  const prefix = secure ? "tls-" : ""
  const profileName = profile === undefined ? undefined : `${profile}-${prefix}logins-${run}`
  return withChildren(async (start) => {
    const { env, manager } = await startManager(start, secure, profileName)
    const crowd = new Crowd(start, env, logins)
    await crowd.connect(Math.min(warmUpLogins, logins), false)
    await crowd.end("goodbye")
    const from = await manager.usage()
    const seconds = await crowd.connect(logins, false)
    const to = await manager.usage()
    await crowd.check(logins)
    await crowd.end("goodbye")
    const cpu = logins / (to.cpuSeconds - from.cpuSeconds)
    take(`${prefix}logins-cpu`, "logins/s", cpu)
    take(`${prefix}logins-wall`, "logins/s", logins / seconds)
    progress(
      `connections logins ${secure ? "TLS " : ""}run ${run} of ${runs}: ${Math.round(cpu)} a second of the manager's CPU time, ${Math.round(logins / seconds)} a second, load ${loadavg()[0]!.toFixed(1)}`
    )
  }).then(() => {
    if (profileName !== undefined) people(hottestTable(profileName, join(directory, `${profileName}.cpuprofile`)))
  })
}

for (let run = 1; run <= runs; run++) {
  for (const secure of [false, true]) {
    if (only === undefined || only === "logins") await measureLogins(secure, run)
    if (only === undefined || only === "memory") await measureMemory(secure, run)
  }
  if (only === undefined || only === "hold") await measureHold(run)
}

const measurements = [...figures].map(
  ([variant, { unit, values }]): Measurement => ({
    work: "connections",
    variant,
    durability: "memory",
    workers: variant.startsWith("alone") || variant.startsWith("beside") ? 1 : 0,
    system: "millrace",
    ...spread(values, unit === "ms" ? 3 : 0),
    unit,
    runs: values.length
  })
)
for (const { median, variant } of measurements) {
  if (/^idle-(rss|heap)$/.test(variant) && median > sessionBytesMax) {
    wrong.push(`${variant}: ${median} bytes a session, more than ${sessionBytesMax}`)
  }
  if (variant.endsWith("logins-cpu") && median < loginsPerCpuSecondMin) {
    wrong.push(`${variant}: ${median} logins a second of CPU time, fewer than ${loginsPerCpuSecondMin}`)
  }
}
if (json) for (const measurement of measurements) process.stdout.write(`${jsonLine(measurement)}\n`)
const rows = measurements.map(({ max, median, min, unit, variant, runs }) => [variant, median, min, max, unit, runs])
people(`\n${table(["variant", "median", "min", "max", "unit", "runs"], rows)}\n\n${machine()}`)
people(
  `${sessions} sessions, held for ${holdSeconds} s; ${logins} logins, ${loginsInFlight} at a time; ${descriptors} descriptors a process`
)
if (profile !== undefined) people("These figures were taken under a profiler: compare them with nothing.")
for (const text of wrong) console.error(`FAILED: ${text}`)
process.exit(wrong.length === 0 ? 0 : 1)
