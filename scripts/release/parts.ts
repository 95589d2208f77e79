/**
 * What a release must pass, on one revision, beside `npm test` itself (reliability reference, section 10).
 *
 * A part is one or more programs that end by themselves; two run at a time where a part has more. Its count is the full
 * one; a run may scale it down.
 */
import { fileURLToPath } from "node:url"
import { plants } from "../../test/sim/planted/plants.ts"

export interface Program {
  readonly args: ReadonlyArray<string>
  readonly env?: Readonly<Record<string, string>>
  /** How it must end. Default: with code 0. */
  readonly expected?: (code: number | null, stdout: string, stderr: string) => boolean
}

export interface Part {
  readonly name: string
  readonly unit: string
  /** Undefined: it has no count, and is never scaled. */
  readonly count: number | undefined
  /** The least that says anything. */
  readonly least: number
  /** The variable by which the tests of every commit take this count. */
  readonly variable: string | undefined
  /** `from` is the first of the fresh seeds. */
  readonly programs: (count: number, from: number) => ReadonlyArray<Program>
}

const file = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url))
const script = (name: string, ...args: ReadonlyArray<string>): Program => ({ args: [file(`scripts/${name}`), ...args] })
const tests = (path: string, env: Readonly<Record<string, string>>): Program => ({
  args: [file("node_modules/vitest/vitest.mjs"), "run", path],
  env
})

/** A planted bug is found when one seed fails, and it was there to be found. */
const found: NonNullable<Program["expected"]> = (code, stdout, stderr) => {
  try {
    const { failed } = JSON.parse(stdout) as { readonly failed: ReadonlyArray<number> }
    return code === 1 && failed.length === 1 && !stderr.includes("was not planted")
  } catch {
    return false
  }
}

export const parts: ReadonlyArray<Part> = [
  {
    name: "commit",
    unit: "npm test",
    count: undefined,
    least: 1,
    variable: undefined,
    programs: () => [script("test.ts")]
  },
  {
    name: "model",
    unit: "seeds",
    count: 1_000_000,
    least: 100,
    variable: "MILLRACE_SEEDS",
    programs: (count) => [script("model.ts", "--seeds", `${count}`, "--json")]
  },
  {
    name: "lanes",
    unit: "seeds",
    count: 30_000,
    least: 100,
    variable: "MILLRACE_SEEDS",
    programs: (count) => [tests("test/unit/model/Lanes.test.ts", { MILLRACE_SEEDS: `${count}` })]
  },
  {
    name: "simulation",
    unit: "schedules",
    count: 200_000,
    least: 2,
    variable: undefined,
    programs: (count) => {
      const half = Math.ceil(count / 2)
      return [
        script("sim.ts", "--seeds", `${half}`, "--json"),
        script("sim.ts", "--seeds", `${count - half}`, "--from", `${half + 1}`, "--json")
      ]
    }
  },
  {
    name: "planted",
    unit: "planted bugs with fresh seeds",
    count: plants.length,
    least: 1,
    variable: "MILLRACE_PLANTED",
    programs: (count, from) =>
      plants.slice(0, count).map(({ name, rare }) => {
        const seeds = rare === true ? "20000" : "2000"
        const { args } = script("sim.ts", "--seeds", seeds, "--from", `${from}`, "--first", "--json")
        const env = { MILLRACE_PLANTED: name }
        return { args: ["--import", file("test/sim/planted/hook.ts"), ...args], env, expected: found }
      })
  },
  {
    name: "chaos",
    unit: "kills",
    count: 1_000,
    least: 12,
    variable: "MILLRACE_CHAOS_KILLS",
    programs: (count, from) => [script("chaos.ts", "--kills", `${count}`, "--seed", `${from}`, "--json")]
  },
  {
    name: "fuzz",
    unit: "inputs to the decoders",
    count: 100_000_000,
    least: 80_000,
    variable: undefined,
    programs: (count, from) => [script("fuzz.ts", "--inputs", `${count}`, "--seed", `${from}`, "--json")]
  },
  {
    name: "live-sequences",
    unit: "sequences of commands on a live manager",
    count: 100_000,
    least: 200,
    variable: undefined,
    programs: (count, from) => [script("fuzz.ts", "--sequences", `${count}`, "--seed", `${from}`, "--json")]
  },
  {
    name: "at-rest",
    unit: "images of damaged files",
    count: 100_000,
    least: 240,
    variable: "MILLRACE_IMAGES",
    programs: (count, from) => [
      tests("test/unit/store/AtRest.test.ts", { MILLRACE_IMAGES: `${count}`, MILLRACE_SEED: `${from}` })
    ]
  },
  {
    name: "network",
    unit: "rounds of every operation under every fault of the proxy",
    count: 100,
    least: 1,
    variable: "MILLRACE_PROXY_ROUNDS",
    programs: (count, from) => [
      tests("test/contract/proxy.test.ts", { MILLRACE_PROXY_ROUNDS: `${count}`, MILLRACE_SEED: `${from}` })
    ]
  },
  {
    name: "login-times",
    unit: "logins each of a known and of an unknown name, compared by their times",
    count: 10_000,
    least: 1_000,
    variable: undefined,
    programs: (count) => [script("logins.ts", "--samples", `${count}`, "--json")]
  },
  {
    name: "stops",
    unit: "stops of a manager and of a worker for 1 to 60 s",
    count: 20,
    least: 2,
    variable: "MILLRACE_STOPS",
    programs: (count, from) => [
      tests("test/process/stop.test.ts", { MILLRACE_STOPS: `${count}`, MILLRACE_SEED: `${from}` })
    ]
  },
  {
    name: "step-kills",
    unit: "kills of workers between their steps",
    count: 500,
    least: 40,
    variable: "MILLRACE_STEP_KILLS",
    programs: (count, from) => [
      tests("test/process/steps.test.ts", { MILLRACE_STEP_KILLS: `${count}`, MILLRACE_SEED: `${from}` })
    ]
  },
  {
    name: "store-kills",
    unit: "kills of a store's process",
    count: 400,
    least: 10,
    variable: "MILLRACE_KILLS",
    programs: (count) => [tests("test/process/store.test.ts", { MILLRACE_KILLS: `${count}` })]
  }
]

export const scaled = ({ count, least }: Part, scale: number): number =>
  count === undefined ? 1 : Math.min(count, Math.max(least, Math.round(count * scale)))
