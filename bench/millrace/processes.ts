/** The four processes of a work on Millrace: manager, master and workers. */
import { randomBytes } from "node:crypto"
import { join } from "node:path"
import type { Child, ProfileTo, StartOptions } from "../harness/children.ts"
import type { Durability } from "../harness/report.ts"

export interface Processes {
  readonly manager: Child
  readonly master: Child
  readonly workers: ReadonlyArray<Child>
  /** A second master, if the crew has one. */
  readonly generator: Child | undefined
}

const script = (role: string): URL => new URL(`./${role}.ts`, import.meta.url)

/** What the manager promises, and the folder of its data. `memory` needs none. */
export const storeEnvironment = (durability: Durability, folder: string): Readonly<Record<string, string>> => ({
  MILLRACE_BENCH_DURABILITY: durability,
  MILLRACE_BENCH_DATA: join(folder, "data")
})

export interface Crew {
  /** Keys of the queues of `backlog`; 10,000 if nothing is said. */
  readonly lanes?: number
  /** Handlers at a time in a worker; 64 if nothing is said. */
  readonly concurrency?: number
  /** The port that master and workers dial instead of the manager's. */
  readonly through?: (port: number) => Promise<number>
  /** A second master, which makes the load. */
  readonly generator?: boolean
}

export const startProcesses = async (
  start: (options: StartOptions) => Child,
  workers: number,
  profile: ProfileTo | undefined,
  /** Put before the names of the role programs. */
  prefix = "",
  /** Of the manager: see `store.ts`. */
  managerEnv: Readonly<Record<string, string>> = {},
  crew: Crew = {}
): Promise<Processes> => {
  const key = { MILLRACE_BENCH_KEY: randomBytes(32).toString("base64url") }
  const profileOf = (name: string): ProfileTo | undefined =>
    profile && { directory: profile.directory, name: `${profile.name}-${name}` }
  const launch = (role: string, name: string, env: Readonly<Record<string, string>>): Child =>
    start({ name, script: script(prefix + role), env, profile: profileOf(name) })
  const manager = launch("manager", "manager", { ...key, ...managerEnv })
  const { concurrency = 64, lanes = 10_000, through = async (port: number) => port } = crew
  const port = await through(await manager.call<number>("port"))
  const env = {
    ...key,
    MILLRACE_BENCH_PORT: String(port),
    MILLRACE_BENCH_CONCURRENCY: String(concurrency),
    MILLRACE_BENCH_LANES: String(lanes)
  }
  const started = Array.from({ length: workers }, (_, i) => launch("worker", `worker-${i + 1}`, env))
  const master = launch("master", "master", env)
  const generator = crew.generator === true ? launch("master", "generator", env) : undefined
  const others = generator === undefined ? started : [...started, generator]
  await Promise.all([master, ...others].map((child) => child.call("ready")))
  return { manager, master, workers: started, generator }
}

/** The profiled roles worth showing; a second worker looks like the first. */
export const shownRoles = ["manager", "worker-1", "master"] as const
