/** The loops that say how fast this machine is now, without a line of Millrace. */
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import type { Child, StartOptions } from "../harness/children.ts"
import type { EchoOptions, EchoRate } from "./echo-client.ts"

/** Each a speed: so many a second; of `echo-cpu`, a second of CPU time. */
export interface Speeds {
  readonly "echo-batched": number
  readonly "echo-cpu": number
  readonly "echo-single": number
  readonly "echo-round-trips": number
  /** Of 256 KiB: what a round of batched puts writes; of 16 KiB: one of single puts, which waits for the disk. */
  readonly "sqlite-256k": number
  readonly "sqlite-16k": number
}
export type Calibration = keyof Speeds

/** As many processes as the work has: what else runs takes as much from the one as from the other. */
const pairs = 2
const loopMs = 500
const commitMs = 500
const samples = 2_000

/** Answers the function that takes all of them once. */
export const startCalibration = async (
  start: (options: StartOptions) => Child,
  folder: string
): Promise<() => Promise<Speeds>> => {
  const script = (name: string): URL => new URL(`./${name}.ts`, import.meta.url)
  mkdirSync(folder, { recursive: true })
  const pair = async (): Promise<Child> => {
    const server = start({ name: "echo server", script: script("echo-server") })
    const port = await server.call<number>("port")
    return start({ name: "echo client", script: script("echo-client"), env: { BENCH_PORT: String(port) } })
  }
  const echoes = await Promise.all(Array.from({ length: pairs }, pair))
  const env = { BENCH_FILE: join(folder, "calibration.db") }
  const commits = start({ name: "commits", script: script("commits"), env })
  await Promise.all([...echoes, commits].map((child) => child.call("ready")))
  const rates = async (options: EchoOptions): Promise<EchoRate> => {
    const all = await Promise.all(echoes.map((echo) => echo.call<EchoRate>("rate", options)))
    return {
      perSecond: all.reduce((sum, { perSecond }) => sum + perSecond, 0),
      perCpuSecond: all.reduce((sum, { perCpuSecond }) => sum + perCpuSecond, 0) / all.length
    }
  }
  return async () => {
    const batched = await rates({ batch: 256, inFlight: 2_048, ms: loopMs })
    const single = await rates({ batch: 1, inFlight: 256, ms: loopMs })
    return {
      "echo-batched": batched.perSecond,
      "echo-cpu": batched.perCpuSecond,
      "echo-single": single.perSecond,
      "echo-round-trips": 1_000 / (await echoes[0]!.call<number>("roundTrip", { samples })),
      "sqlite-256k": await commits.call<number>("rate", { bytes: 262_144, ms: commitMs }),
      "sqlite-16k": await commits.call<number>("rate", { bytes: 16_384, ms: commitMs })
    }
  }
}
