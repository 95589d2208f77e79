/**
 * Work `connections`: what a session costs its manager, over real sockets.
 *
 * `memory`: what 10,000 idle sessions hold, each after a login, one open of a queue and some heartbeats; what is left of
 * them after their goodbye; and what one costs whose connection was cut, until it resumes or is forgotten. `hold`: all of
 * them for a minute, with heartbeats, beside a master and a worker, whose figures are taken with and without them. `logins`:
 * full logins per second of the manager's CPU time. `memory` and `logins` without TLS and with it.
 *
 * Checked: no session is lost, and each heartbeat is answered; an idle session takes at most 20 KiB, a second of the
 * manager's CPU time is at least 300 logins.
 */
import { execFileSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import { loadavg } from "node:os"
import { setTimeout as sleep } from "node:timers/promises"
import { type Child, type ProfileTo, type StartOptions, withChildren } from "./harness/children.ts"
import { hottestTables } from "./harness/profile.ts"
import { type Measurement, percentile, progress, spread } from "./harness/report.ts"
import type { Work, WorkOptions, WorkReport } from "./harness/work.ts"
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

const sessionsDefault = 10_000
const loginsDefault = 5_000
/** Of sessions or logins. */
const countMax = 16_000
const holdSeconds = 60

const parts = ["memory", "hold", "logins"] as const

/** A runtime raises its own limit to this one; the manager needs a descriptor for each session. */
const descriptorsMax = (): number =>
  Number(execFileSync("/bin/sh", ["-c", "ulimit -Hn"], { encoding: "utf8" })) || 1_048_576

const within = (wanted: number, descriptors: number): number => {
  if (wanted > countMax) throw new Error(`--tasks takes at most ${countMax} sessions here`)
  if (wanted + descriptorsSpare <= descriptors) return wanted
  const fit = descriptors - descriptorsSpare
  progress(
    `connections: ${wanted} sessions lowered to ${fit}: a process may have ${descriptors} descriptors (ulimit -Hn)`
  )
  return fit
}

/** One run of this work: its sizes, and what it has seen. */
class Seen {
  readonly sessions: number
  readonly logins: number
  readonly descriptors = descriptorsMax()
  readonly runs: number
  readonly profile: ProfileTo | undefined
  readonly figures = new Map<string, { readonly unit: Measurement["unit"]; readonly values: Array<number> }>()
  readonly wrong: Array<string> = []
  readonly notes: Array<string> = []

  constructor({ profile, runs, tasks }: WorkOptions) {
    this.sessions = within(tasks ?? sessionsDefault, this.descriptors)
    this.logins = within(tasks ?? loginsDefault, this.descriptors)
    this.runs = runs
    this.profile = profile
  }

  take(variant: string, unit: Measurement["unit"], value: number): void {
    const known = this.figures.get(variant)
    if (known === undefined) this.figures.set(variant, { unit, values: [value] })
    else known.values.push(value)
  }
}

const role = (name: string): URL => new URL(`./millrace/${name}.ts`, import.meta.url)

type Start = (options: StartOptions) => Child

/** A manager and the environment of who connects to it. */
const startManager = async (start: Start, secure: boolean, profile?: ProfileTo) => {
  const key = { MILLRACE_BENCH_KEY: randomBytes(32).toString("base64url") }
  const manager = start({
    name: "manager",
    script: role("manager"),
    env: { ...key, ...(secure ? { MILLRACE_BENCH_TLS: "own" } : {}) },
    profile
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
  readonly #wrong: Array<string>
  /** Lost in all that was there before. */
  #lost = 0

  constructor({ descriptors, wrong }: Seen, start: Start, env: Readonly<Record<string, string>>, size: number) {
    this.#wrong = wrong
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
      this.#wrong.push(`${look.lost - this.#lost} sessions were lost, ${look.open} of ${open} are there (${look.why})`)
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

const measureMemory = (seen: Seen, secure: boolean, run: number): Promise<void> =>
  withChildren(async (start) => {
    const { runs, sessions } = seen
    const prefix = secure ? "tls-" : ""
    const { env, manager } = await startManager(start, secure)
    const crowd = new Crowd(seen, start, env, sessions)
    await crowd.connect(Math.min(warmUpLogins, sessions), true)
    await crowd.end("goodbye")
    const empty = await memoryOf(manager)
    const record = (variant: string, before: MemoryUse, after: MemoryUse): void => {
      const { heap, rss } = each(before, after, sessions)
      seen.take(`${prefix}${variant}-rss`, "bytes/session", rss)
      seen.take(`${prefix}${variant}-heap`, "bytes/session", heap)
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

const measureHold = (seen: Seen, run: number): Promise<void> =>
  withChildren(async (start) => {
    const { runs, sessions } = seen
    const { env, manager } = await startManager(start, false)
    const worker = start({ name: "worker-1", script: role("worker"), env })
    const master = start({ name: "master", script: role("master"), env })
    const crowd = new Crowd(seen, start, env, sessions)
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
      seen.take(`${label}-single`, "tasks/s", median)
      seen.take(`${label}-put-p50`, "ms", p50)
      seen.take(`${label}-put-p99`, "ms", p99)
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
      seen.wrong.push(`${unanswered} heartbeats have no answer; the least that a session has is ${after.answeredLeast}`)
    }
    seen.take("heartbeat-p99", "ms", after.heartbeatP99)
    seen.notes.push(
      `connections hold run ${run} of ${runs}: ${after.open} of ${sessions} sessions for ${holdSeconds} s, ${after.lost} lost, ${said} heartbeats, p99 ${after.heartbeatP99.toFixed(1)} ms; with nothing else to do the manager takes ${(cpuShare * 100).toFixed(1)} % of a core; load ${loadavg()[0]!.toFixed(1)}`
    )
    await crowd.end("goodbye")
  })

const measureLogins = async (seen: Seen, secure: boolean, run: number): Promise<void> => {
  const { logins, runs } = seen
  const prefix = secure ? "tls-" : ""
  const profile = seen.profile && { ...seen.profile, name: `${seen.profile.name}-${prefix}logins-${run}` }
  await withChildren(async (start) => {
    const managerProfile = profile && { ...profile, name: `${profile.name}-manager` }
    const { env, manager } = await startManager(start, secure, managerProfile)
    const crowd = new Crowd(seen, start, env, logins)
    await crowd.connect(Math.min(warmUpLogins, logins), false)
    await crowd.end("goodbye")
    const from = await manager.usage()
    const seconds = await crowd.connect(logins, false)
    const to = await manager.usage()
    await crowd.check(logins)
    await crowd.end("goodbye")
    const cpu = logins / (to.cpuSeconds - from.cpuSeconds)
    seen.take(`${prefix}logins-cpu`, "logins/s", cpu)
    seen.take(`${prefix}logins-wall`, "logins/s", logins / seconds)
    progress(
      `connections logins ${secure ? "TLS " : ""}run ${run} of ${runs}: ${Math.round(cpu)} a second of the manager's CPU time, ${Math.round(logins / seconds)} a second, load ${loadavg()[0]!.toFixed(1)}`
    )
  })
  seen.notes.push(...hottestTables(profile, ["manager"]))
}

export const connections: Work = {
  name: "connections",
  variants: parts,
  onlyByName: true,
  runs: 2,
  profiled: true,
  run: async (options): Promise<WorkReport> => {
    const seen = new Seen(options)
    // Only a manager that does nothing but logins says where its time goes.
    const variant = options.profile === undefined ? options.variant : "logins"
    const wanted = (part: (typeof parts)[number]): boolean => part === (variant ?? part)
    for (let run = 1; run <= options.runs; run++) {
      for (const secure of [false, true]) {
        if (wanted("logins")) await measureLogins(seen, secure, run)
        if (wanted("memory")) await measureMemory(seen, secure, run)
      }
      if (wanted("hold")) await measureHold(seen, run)
    }
    const measurements = [...seen.figures].map(
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
    const failures = seen.wrong.map((text) => `connections: ${text}`)
    for (const { median, variant } of measurements) {
      if (/^idle-(rss|heap)$/.test(variant) && median > sessionBytesMax) {
        failures.push(`connections ${variant}: ${median} bytes a session, more than ${sessionBytesMax}`)
      }
      if (variant.endsWith("logins-cpu") && median < loginsPerCpuSecondMin && options.profile === undefined) {
        failures.push(
          `connections ${variant}: ${median} logins a second of CPU time, fewer than ${loginsPerCpuSecondMin}`
        )
      }
    }
    const { descriptors, logins, notes, sessions } = seen
    notes.push(
      `connections: ${sessions} sessions, held for ${holdSeconds} s; ${logins} logins, ${loginsInFlight} at a time; ${descriptors} descriptors a process`
    )
    return { measurements, notes, failures }
  }
}
