/**
 * `node scripts/logins.ts [--samples N] [--json]`: whether the time of the manager's work tells a name that is known from
 * one that nobody has.
 *
 * Each sample is both halves of a login with a wrong key, for either name in random order; the two samples of times are
 * compared by a Mann-Whitney test. It fails when p is at most 0.01 three times in a row: by chance once in a million runs.
 */
import { deriveVerifier, keyBytes } from "../src/auth/Credentials.ts"
import { clientChallenge, clientFinal, clientFirst, serverFinal, serverFirst } from "../src/auth/Scram.ts"
import { randomBytes } from "../src/platform/Crypto.ts"
import { flagsOf, whole } from "./flags.ts"

const flags = flagsOf({ samples: { type: "string" }, json: { type: "boolean" } })
const samples = whole("samples", flags.samples ?? "10000", 100)
const pMin = 0.01
const roundsMax = 3

const known = await deriveVerifier("crawler", keyBytes("pencil"), randomBytes(16), 4_096)
const mockSecret = randomBytes(32)
const helloHash = randomBytes(32)
const wrong = randomBytes(32)

/** Nanoseconds of the manager's work for one login under this name. */
const login = (name: string): number => {
  const first = clientFirst({ name, nonce: randomBytes(18), helloHash })
  const nonce = randomBytes(18)
  const lookup = (wanted: string) => (wanted === known.name ? known : undefined)
  const begun = process.hrtime.bigint()
  const challenged = serverFirst({ clientFirst: first.message, lookup, mockSecret, nonce, helloHash })
  const middle = process.hrtime.bigint()
  if (challenged._tag !== "Challenge") throw new Error(challenged.reason)
  const step = clientChallenge(first.state, challenged.message)
  if (step._tag !== "Derive") throw new Error(step.reason)
  const final = clientFinal(step.state, wrong)
  const again = process.hrtime.bigint()
  const verdict = serverFinal(challenged.state, final.message)
  const ended = process.hrtime.bigint()
  if (verdict._tag !== "Refused") throw new Error("a wrong key was taken")
  return Number(middle - begun + (ended - again))
}

/** Two-sided p of a Mann-Whitney test, by its normal approximation with ties; 7.1.26 of Abramowitz and Stegun. */
const mannWhitney = (a: ReadonlyArray<number>, b: ReadonlyArray<number>): number => {
  const all = [...a.map((value) => [value, 0] as const), ...b.map((value) => [value, 1] as const)]
  all.sort(([x], [y]) => x - y)
  const n = all.length
  let ranksOfA = 0
  let ties = 0
  for (let i = 0; i < n; ) {
    let j = i
    while (j < n && all[j]![0] === all[i]![0]) j++
    const rank = (i + 1 + j) / 2
    ties += (j - i) ** 3 - (j - i)
    for (; i < j; i++) if (all[i]![1] === 0) ranksOfA += rank
  }
  const u = ranksOfA - (a.length * (a.length + 1)) / 2
  const spread = Math.sqrt(((a.length * b.length) / 12) * (n + 1 - ties / (n * (n - 1))))
  const x = Math.abs(u - (a.length * b.length) / 2) / spread / Math.SQRT2
  const t = 1 / (1 + 0.3275911 * x)
  const poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
  return poly * Math.exp(-x * x)
}

const median = (values: ReadonlyArray<number>): number => values.toSorted((x, y) => x - y)[values.length >> 1]!

const round = () => {
  const times: Readonly<Record<"known" | "unknown", Array<number>>> = { known: [], unknown: [] }
  const pair = (): void => {
    const order = randomBytes(1)[0]! < 128 ? (["known", "unknown"] as const) : (["unknown", "known"] as const)
    // Names of one length, each unknown one anew.
    for (const kind of order) times[kind].push(login(kind === "known" ? "crawler" : randomName()))
  }
  for (let i = 0; i < samples; i++) pair()
  const p = mannWhitney(times.known, times.unknown)
  return { samples, p, knownNs: median(times.known), unknownNs: median(times.unknown) }
}

const randomName = (): string => Buffer.from(randomBytes(7)).toString("base64url").slice(0, 7).replaceAll(/[-_]/g, "x")

for (let i = 0; i < 2_000; i++) {
  login("crawler")
  login(randomName())
}
const rounds = [round()]
while (rounds.at(-1)!.p <= pMin && rounds.length < roundsMax) rounds.push(round())
const passed = rounds.at(-1)!.p > pMin
if (flags.json === true) console.log(JSON.stringify({ passed, rounds }))
else {
  for (const { knownNs, p, unknownNs } of rounds) {
    console.log(`${samples} logins each: median ${knownNs} ns known, ${unknownNs} ns unknown, p = ${p.toFixed(4)}`)
  }
  console.log(passed ? "no difference to be seen" : "FAILED: the time tells who is known")
}
process.exitCode = passed ? 0 : 1
