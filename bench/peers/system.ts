/** What a system must be able to do to be measured beside Millrace. */
import { accessSync, constants } from "node:fs"
import { delimiter, join } from "node:path"
import process from "node:process"
import { fileURLToPath } from "node:url"
import type { Child, StartOptions } from "../harness/children.ts"
import type { PeerPass } from "../harness/exactly-once.ts"
import type { ProbeOptions, ProbeTimes } from "../harness/probes.ts"
import type { ProgramOptions } from "../harness/program.ts"
import type { Durability } from "../harness/report.ts"
import type { Variant } from "../harness/variants.ts"

export interface Crew {
  /** Seconds from the first put to the last result of one pass, all of them checked. */
  readonly pass: (options: PeerPass) => Promise<number>
  /** Probes of work `latency`, one at a time. */
  readonly probes?: (options: ProbeOptions) => Promise<ProbeTimes>
}

export interface System {
  readonly name: string
  readonly variants: ReadonlyArray<string>
  readonly durabilities: ReadonlyArray<Durability>
  /** Why it cannot run here, or undefined. */
  readonly missing: () => string | undefined
  /** Of the server and the client, for the output. */
  readonly version: () => string
  /** Tasks of the warm-up, whose speed says how many a run has. */
  readonly warmUp: number
  /** Whether work `latency` can be done on it. */
  readonly probes?: boolean
  readonly start: (context: Context) => Promise<Crew>
}

export interface Context {
  readonly start: (options: StartOptions) => Child
  readonly folder: string
  readonly durability: Durability
  readonly settings: Variant
  /** Whether handlers say when they began. */
  readonly probes?: boolean
  /** The port that clients dial instead of the server's: another one where the variant adds to the round trip. */
  readonly through: (port: number) => Promise<number>
}

/** What `setup.sh` unpacks because the system's own is too old. */
const unpacked = fileURLToPath(new URL("../programs/usr/sbin", import.meta.url))

const paths = (): ReadonlyArray<string> => [
  unpacked,
  ...(process.env["PATH"] ?? "").split(delimiter),
  "/usr/local/sbin",
  "/usr/sbin",
  "/sbin"
]

/** The file of a program, or undefined. */
export const findProgram = (name: string): string | undefined =>
  paths()
    .map((folder) => join(folder, name))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK)
        return true
      } catch {
        return false
      }
    })

/** Starts a program that is not Node; answers the child that hosts it, and its port. */
export const startProgram = async (
  { start }: Pick<Context, "start">,
  name: string,
  options: ProgramOptions
): Promise<{ readonly host: Child; readonly port: number }> => {
  const host = start({ name, script: new URL("../harness/program.ts", import.meta.url) })
  return { host, port: await host.call<number>("start", options) }
}

/** Starts the roles of a system: `master.ts` and `worker.ts` in its folder, on Node unless it needs another runtime. */
export const startRoles = async (
  { durability, probes, settings, start, through }: Context,
  system: string,
  port: number,
  runtime?: string
): Promise<Child> => {
  const env = {
    BENCH_PORT: String(await through(port)),
    BENCH_DURABILITY: durability,
    BENCH_CONCURRENCY: String(settings.concurrency),
    BENCH_PAYLOAD_BYTES: String(settings.payloadBytes ?? 80),
    BENCH_PROBES: probes === true ? "yes" : "no"
  }
  const role = (file: string, name: string): Child =>
    start({ name: `${system} ${name}`, script: new URL(`./${system}/${file}.ts`, import.meta.url), env, runtime })
  const crew = Array.from({ length: settings.workers }, (_, i) => role("worker", `worker-${i + 1}`))
  const master = role("master", "master")
  await Promise.all([master, ...crew].map((child) => child.call("ready")))
  return master
}

/** What a master written for Node does. */
export const crewOf = (master: Child): Crew => ({
  pass: (options) => master.call<number>("pass", options, 120_000),
  probes: (options) => master.call<ProbeTimes>("probes", options, 120_000)
})
