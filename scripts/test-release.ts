/**
 * `npm run test:release -- [--scale F] [--only NAME[,NAME]] [--from SEED] [--json]`: all that a release must pass, on one
 * revision, part by part (`scripts/release/parts.ts`). `--scale 0.01` runs a hundredth of every count, to try it.
 *
 * Says what each part did, and ends with `N passed, M failed`. Fresh seeds are drawn from the time and printed; `--from`
 * gives them again. A revision or a working tree that changed meanwhile is a failure.
 */
import { spawn, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { fileURLToPath } from "node:url"
import { stripVTControlCharacters } from "node:util"
import { flagsOf, refuse, whole } from "./flags.ts"
import { type Part, type Program, parts, scaled } from "./release/parts.ts"

const root = fileURLToPath(new URL("..", import.meta.url))
const atOnce = 2
const outputMax = 50_000_000

interface Ended {
  readonly ok: boolean
  readonly stdout: string
  readonly stderr: string
}

interface Result {
  readonly name: string
  readonly count: number
  readonly unit: string
  readonly passed: number
  readonly failed: number
  readonly seconds: number
  /** What its programs printed of themselves. */
  readonly counts: ReadonlyArray<unknown>
}

const run = ({ args, env, expected }: Program): Promise<Ended> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, args, {
      cwd: root,
      // Counts come from the parts alone: what the caller's shell has would shrink them unnoticed.
      env: {
        ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("MILLRACE_"))),
        ...env
      },
      stdio: ["ignore", "pipe", "pipe"]
    })
    const texts = { stdout: "", stderr: "" }
    for (const name of ["stdout", "stderr"] as const) {
      child[name].setEncoding("utf8").on("data", (text: string) => {
        texts[name] = (texts[name] + text).slice(-outputMax)
        if (name === "stderr" && expected === undefined) process.stderr.write(text)
      })
    }
    child.on("error", (error) => resolve({ ok: false, stdout: "", stderr: String(error) }))
    child.on("close", (code) => {
      const ok = expected === undefined ? code === 0 : expected(code, texts.stdout, texts.stderr)
      resolve({ ok, ...texts })
    })
  })

/** The counts that a program printed: one line of JSON, or the lines of its tests that have numbers in them. */
const countsOf = (stdout: string): unknown => {
  const lines = stripVTControlCharacters(stdout).trimEnd().split("\n")
  const last = lines.at(-1) ?? ""
  if (last.startsWith("{")) {
    try {
      return JSON.parse(last)
    } catch {
      return last
    }
  }
  return lines.filter((line) => /^[\w ]+: .*\d|^\d+ /.test(line)).map((line) => line.slice(0, 2_000))
}

const runPart = async (part: Part, scale: number, from: number, place: string): Promise<Result> => {
  const count = scaled(part, scale)
  const what = part.count === undefined ? part.unit : `${count} ${part.unit}`
  console.error(`${place} ${part.name}: ${what}`)
  const startedAt = performance.now()
  const programs = part.programs(count, from)
  const counts: Array<unknown> = []
  let [passed, failed, next] = [0, 0, 0]
  const some = async (): Promise<void> => {
    while (next < programs.length) {
      const program = programs[next++]!
      const { ok, stderr, stdout } = await run(program)
      const tests = /^(\d+) passed, (\d+) failed$/m.exec(stdout)
      passed += tests === null ? Number(ok) : Number(tests[1])
      failed += tests === null ? Number(!ok) : Math.max(Number(tests[2]), Number(!ok))
      counts.push(countsOf(stdout))
      if (programs.length > atOnce) console.error(`  ${passed + failed} of ${programs.length}, ${failed} failed`)
      if (ok) continue
      const env = Object.entries(program.env ?? {}).map(([name, value]) => `${name}='${value}' `)
      console.error(`FAILED ${env.join("")}node ${program.args.join(" ")}`)
      console.error((stdout + stderr).split("\n").slice(-200).join("\n"))
    }
  }
  await Promise.all(Array.from({ length: atOnce }, some))
  const seconds = Math.round((performance.now() - startedAt) / 100) / 10
  console.error(`${failed === 0 ? "ok    " : "FAILED"} ${part.name}: ${what} (${seconds} s)`)
  return { name: part.name, count, unit: part.unit, passed, failed, seconds, counts }
}

const git = (...args: ReadonlyArray<string>): string =>
  spawnSync("git", args, { cwd: root, encoding: "utf8" }).stdout?.trim() ?? ""

/** What is tested: a commit, and a digest of what the working tree has beside it. */
const revision = (): { readonly name: string; readonly clean: boolean } => {
  const head = git("rev-parse", "HEAD")
  const status = git("status", "--porcelain")
  if (head === "") return { name: "unknown", clean: false }
  if (status === "") return { name: head, clean: true }
  const digest = createHash("sha256").update(status).update(git("diff", "HEAD")).digest("hex").slice(0, 12)
  return { name: `${head} with local changes ${digest}`, clean: false }
}

const main = async (): Promise<void> => {
  const flags = flagsOf({
    scale: { type: "string", default: "1" },
    only: { type: "string" },
    from: { type: "string" },
    json: { type: "boolean", default: false }
  })
  const scale = Number(flags.scale)
  if (!(scale > 0 && scale <= 1)) refuse(`--scale is ${flags.scale}; use a number above 0, up to 1`)
  const names = flags.only?.split(",") ?? parts.map(({ name }) => name)
  for (const name of names) {
    if (parts.some((part) => part.name === name)) continue
    refuse(`--only names ${name || "nothing"}; the parts are ${parts.map((part) => part.name).join(", ")}`)
  }
  // Far from the seeds of every day.
  const drawn = 1_000_000 + (Math.floor(Date.now() / 1_000) % 1_000_000_000)
  const from = flags.from === undefined ? drawn : whole("from", flags.from, 1)
  const wanted = parts.filter(({ name }) => names.includes(name))
  const before = revision()
  console.error(`revision ${before.name}, fresh seeds from ${from}`)
  const results: Array<Result> = []
  for (const [i, part] of wanted.entries()) {
    results.push(await runPart(part, scale, from, `[${i + 1}/${wanted.length}]`))
  }
  const after = revision()
  const moved = after.name !== before.name
  if (moved) console.error(`FAILED the revision was ${before.name} and is ${after.name}`)
  const passed = results.reduce((sum, result) => sum + result.passed, 0)
  const failed = results.reduce((sum, result) => sum + result.failed, moved ? 1 : 0)
  const limits = [
    ...(before.clean ? [] : [`not a commit as it was made: ${before.name}`]),
    ...(scale < 1 ? [`scaled to ${scale} of the full counts`] : []),
    ...(wanted.length < parts.length ? [`${wanted.length} of ${parts.length} parts`] : [])
  ]
  if (flags.json)
    console.log(JSON.stringify({ revision: before.name, from, scale, parts: results, limits, passed, failed }))
  else {
    for (const { count, counts, failed, name, seconds, unit } of results) {
      console.log(`${failed === 0 ? "ok    " : "FAILED"} ${name}: ${count} ${unit}, ${seconds} s`)
      for (const line of counts.flat()) console.log(`       ${typeof line === "string" ? line : JSON.stringify(line)}`)
    }
    console.log(`revision ${before.name}, fresh seeds from ${from}`)
    if (limits.length > 0) console.log(`NOT A RELEASE RUN: ${limits.join("; ")}`)
    console.log(`${passed} passed, ${failed} failed`)
  }
  process.exitCode = failed === 0 ? 0 : 1
}

await main()
