/**
 * What a command-line program needs of its process, on Node, Deno and Bun: its own command line to start children with,
 * their ends, the machine's name, and the end of the parent.
 */
import { type ChildProcess, spawn } from "node:child_process"
import * as os from "node:os"
import process from "node:process"
import { fileURLToPath } from "node:url"

/** The file of a module, to start it as a program. */
export const scriptPath = (moduleUrl: string): string => fileURLToPath(moduleUrl)

export const hostname = (): string => os.hostname()

/** The first IPv4 address by which other machines may reach this one; undefined: it has none. */
export const outsideAddress = (): string | undefined =>
  Object.values(os.networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find(({ family, internal }) => family === "IPv4" && !internal)?.address

/** A variable of the environment; undefined when unset or empty. */
export const environment = (name: string): string | undefined => process.env[name] || undefined

export const stdoutIsTerminal = (): boolean => process.stdout.isTTY === true

/** Whether there is someone who can be asked. */
export const stdinIsTerminal = (): boolean => process.stdin.isTTY === true
export const writeOut = (text: string): void => void process.stdout.write(text)
export const terminalColumns = (): number => process.stdout.columns || 80

/** Whether a file on this machine may be read by others than its owner. Undefined where modes mean nothing. */
export const readableByOthers = (mode: number): boolean | undefined =>
  process.platform === "win32" ? undefined : (mode & 0o077) !== 0

/**
 * Calls `again` when SIGINT or SIGTERM comes for the second time; the third ends the process at once, with 130. Each kind is
 * counted for itself: a child that is told to stop by its parent, and by the terminal too, was told once.
 */
export const onStopAgain = (again: () => void): void => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    let count = 0
    process.on(signal, () => {
      if (++count === 2) again()
      else if (count > 2) process.exit(130)
    })
  }
}

/** A child of this program. */
export interface Child {
  readonly pid: number
  readonly exited: Promise<{ readonly code: number | null; readonly signal: string | null }>
  readonly kill: (signal: "SIGTERM" | "SIGKILL") => void
}

/** Calls `closed` when standard input ends: for a child whose parent holds the other end of it. */
export const onStdinClosed = (closed: () => void): void => {
  process.stdin.on("end", closed)
  process.stdin.on("close", closed)
  process.stdin.on("error", closed)
  process.stdin.resume()
}

/**
 * Starts `script` on the runtime that this program runs on. What it prints goes to our standard error; its standard input
 * closes when this process ends, however it ends.
 */
export const spawnScript = (
  script: string,
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>>
): Child => {
  const runtime = "Deno" in globalThis ? ["run", "--quiet", "-A"] : []
  const child: ChildProcess = spawn(process.execPath, [...runtime, script, ...args], {
    env: { ...process.env, ...env },
    stdio: ["pipe", process.stderr, process.stderr]
  })
  child.stdin?.on("error", () => {})
  const exited = new Promise<{ code: number | null; signal: string | null }>((resolve) => {
    child.once("exit", (code, signal) => resolve({ code, signal }))
    child.once("error", () => resolve({ code: 1, signal: null }))
  })
  return { pid: child.pid ?? -1, exited, kill: (signal) => void child.kill(signal) }
}
