/**
 * Real processes for tests: started, watched, waited for with a bound, and killed in the end by their pids.
 *
 * Every file of this folder that starts one calls `stopAll` in `afterAll`, which also ends what a failed test left.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import * as net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Client from "../../src/Client.ts"

export const root = fileURLToPath(new URL("../..", import.meta.url))
export const main = join(root, "src/cli/main.ts")
export const fixture = (name: string): string => join(root, "test/process/fixtures", name)

/** The key that programs started here get. It looks generated: what people type costs 600,000 iterations a login. */
export const key = "for-tests-only-0123456789-abcdefghijklmnopqrst"

/** Halves the start of a program: what one has compiled the next one takes from here. */
const compileCache = join(root, "node_modules/.cache/millrace-tests")

export interface Ended {
  readonly code: number | null
  readonly signal: string | null
  readonly stdout: string
  readonly stderr: string
}

export interface StartOptions {
  readonly cwd?: string | undefined
  /** Added to an environment without any variable of millrace or npm. `undefined` takes the key away. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined
}

export class Program {
  readonly child: ChildProcess
  readonly pid: number
  stdout = ""
  stderr = ""
  readonly #ended: Promise<Ended>
  readonly #watchers = new Set<() => void>()
  #over = false

  constructor(child: ChildProcess) {
    this.child = child
    this.pid = child.pid ?? -1
    child.stdout?.setEncoding("utf8").on("data", (text: string) => this.#heard(() => (this.stdout += text)))
    child.stderr?.setEncoding("utf8").on("data", (text: string) => this.#heard(() => (this.stderr += text)))
    this.#ended = new Promise((resolve) => {
      const done = (code: number | null, signal: string | null): void => {
        this.#over = true
        running.delete(this)
        for (const watcher of [...this.#watchers]) watcher()
        resolve({ code, signal, stdout: this.stdout, stderr: this.stderr })
      }
      child.once("error", (error) => {
        this.stderr += String(error)
        done(null, null)
      })
      // `close` comes when all output is here; a grandchild that outlives its parent holds it back, so not for ever.
      child.once("exit", (code, signal) => {
        const timer = setTimeout(() => done(code, signal), 500)
        child.once("close", () => {
          clearTimeout(timer)
          done(code, signal)
        })
      })
    })
  }

  #heard(add: () => void): void {
    add()
    for (const watcher of [...this.#watchers]) watcher()
  }

  kill(signal: NodeJS.Signals): void {
    if (!this.#over) this.child.kill(signal)
  }

  /** How it ended. Fails after `ms`. */
  async ended(ms = 20_000): Promise<Ended> {
    const timer = new AbortController()
    const late = sleep(ms, undefined, { signal: timer.signal }).then(
      () => undefined,
      () => undefined
    )
    const ended = await Promise.race([this.#ended, late])
    timer.abort()
    if (ended === undefined) throw new Error(`process ${this.pid} runs for more than ${ms} ms\n${this.#said()}`)
    return ended
  }

  /** Waits until it has said this, or fails when it ends before, or after `ms`. */
  said(pattern: RegExp, ms = 20_000): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const over = (settle: () => void): void => {
        clearTimeout(timer)
        this.#watchers.delete(look)
        settle()
      }
      const look = (): void => {
        const found = pattern.exec(`${this.stdout}\n${this.stderr}`)
        if (found !== null) over(() => resolve(found))
        else if (this.#over) over(() => reject(new Error(`it ended and never said ${pattern}\n${this.#said()}`)))
      }
      const timer = setTimeout(
        () => over(() => reject(new Error(`it did not say ${pattern} within ${ms} ms\n${this.#said()}`))),
        ms
      )
      this.#watchers.add(look)
      look()
    })
  }

  #said(): string {
    return `--- stdout\n${this.stdout.slice(-2_000)}\n--- stderr\n${this.stderr.slice(-2_000)}`
  }
}

const running = new Set<Program>()
const folders = new Set<string>()

export const start = (script: string, args: ReadonlyArray<string>, options?: StartOptions): Program =>
  startCommand(process.execPath, [script, ...args], options)

export const startCommand = (command: string, args: ReadonlyArray<string>, options: StartOptions = {}): Program => {
  const env: NodeJS.ProcessEnv = {}
  for (const [name, value] of Object.entries(process.env)) {
    if (!/^(MILLRACE|npm_|INIT_CWD|NODE_OPTIONS|VITEST|FORCE_COLOR)/.test(name)) env[name] = value
  }
  const program = new Program(
    spawn(command, args, {
      cwd: options.cwd ?? tmpdir(),
      env: { ...env, NO_COLOR: "1", NODE_COMPILE_CACHE: compileCache, MILLRACE_AUTHKEY: key, ...options.env },
      stdio: ["ignore", "pipe", "pipe"]
    })
  )
  running.add(program)
  return program
}

/** The `millrace` program. */
export const millrace = (args: ReadonlyArray<string>, options?: StartOptions): Program => start(main, args, options)

/** The `millrace` program, to its end. */
export const run = (args: ReadonlyArray<string>, options?: StartOptions): Promise<Ended> =>
  millrace(args, options).ended(60_000)

export interface Serving {
  readonly program: Program
  readonly port: number
}

/** `millrace serve`, listening; in memory unless a folder is named. */
export const serve = async (args: ReadonlyArray<string> = [], options?: StartOptions): Promise<Serving> => {
  const port0 = args.includes("--port") ? [] : ["--port", "0"]
  const memory = args.includes("--data") || args.includes("--memory") ? [] : ["--memory"]
  const program = millrace(["serve", ...port0, ...memory, ...args], options)
  const [, port] = await program.said(/listening on \S+:(\d+)/)
  return { program, port: Number(port) }
}

/** Runs `effect` as a client of the manager at `port`, within ten seconds. */
export const asClient = <A, E>(port: number, effect: Effect.Effect<A, E, Client.Client>): Promise<A> =>
  Effect.runPromise(
    effect.pipe(Effect.provide(Client.layerTcp({ port, auth: { key } })), Effect.timeout("10 seconds"), Effect.scoped)
  )

export const temporaryFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), "millrace-process-"))
  folders.add(folder)
  return folder
}

/** A port that nobody listens on. */
export const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = net.createServer()
    server.once("error", reject)
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0))
    })
  })

/** The living children of a process. */
export const childrenOf = (parent: number): ReadonlyArray<number> => {
  if (!existsSync("/proc/self/stat")) {
    return execFileSync("ps", ["-A", "-o", "pid=,ppid="], { encoding: "utf8" })
      .split("\n")
      .map((line) => line.trim().split(/\s+/).map(Number))
      .filter(([, ppid]) => ppid === parent)
      .map(([pid]) => pid!)
  }
  const found: Array<number> = []
  for (const entry of readdirSync("/proc")) {
    if (!/^\d+$/.test(entry)) continue
    try {
      // pid (name, which may hold anything) state ppid ...
      const [state, ppid] = readFileSync(`/proc/${entry}/stat`, "utf8")
        .replace(/^.*\) /s, "")
        .split(" ")
      if (Number(ppid) === parent && state !== "Z") found.push(Number(entry))
    } catch {
      // It ended while we looked.
    }
  }
  return found
}

export const isAlive = (pid: number): boolean => {
  try {
    // A zombie is dead: nobody has asked for its exit code yet.
    if (existsSync("/proc/self/stat")) {
      return readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /s, "")[0] !== "Z"
    }
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

/** Waits until `condition` holds. */
export const until = async (what: string, condition: () => boolean | Promise<boolean>, ms = 15_000): Promise<void> => {
  const end = performance.now() + ms
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`not within ${ms} ms: ${what}`)
    await sleep(20)
  }
}

/** A human error: this exit code, nothing on standard output, one line that matches, and no stack trace. */
export const assertOneLine = (ended: Ended, pattern: RegExp): void => {
  assert.strictEqual(ended.code, 1, ended.stderr)
  assert.strictEqual(ended.stdout, "")
  const lines = ended.stderr.trim().split("\n")
  assert.strictEqual(lines.length, 1, ended.stderr)
  assert.match(lines[0]!, /^millrace: /)
  assert.match(lines[0]!, pattern)
  assert.notMatch(ended.stderr, /internal error|\n\s+at |\.\.$/m)
}

const mounts: Array<string> = []

/** A file system of this size, or why there is none. */
export const mountDisk = (mebibytes: number): { readonly at: string } | { readonly reason: string } => {
  if (process.platform !== "linux" || process.geteuid?.() !== 0) return { reason: "mounting needs Linux and root" }
  const at = join(temporaryFolder(), "disk")
  mkdirSync(at)
  const { status, stderr } = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${mebibytes}m`, "tmpfs", at])
  if (status !== 0) return { reason: `mount failed: ${stderr}` }
  mounts.push(at)
  return { at }
}

/** Kills what still runs and removes the folders. */
export const stopAll = async (): Promise<void> => {
  const left = [...running]
  for (const program of left) program.kill("SIGKILL")
  await Promise.all(left.map((program) => program.ended(5_000)))
  for (const mount of mounts.splice(0)) spawnSync("umount", [mount])
  for (const folder of folders) rmSync(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
  folders.clear()
}
