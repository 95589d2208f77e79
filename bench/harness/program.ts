/**
 * Hosts a program that is not Node: a server, or a role written in another language. As a child of the bench it ends with
 * it, and ends the program by its process id.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { writeFileSync } from "node:fs"
import { createServer, connect as dial } from "node:net"
import process from "node:process"
import { createInterface, type Interface } from "node:readline"
import { setTimeout as sleep } from "node:timers/promises"
import type { Usage } from "./children.ts"
import { listen } from "./listen.ts"
import { treeUsage } from "./procfs.ts"
import { serve } from "./role.ts"

export interface ProgramOptions {
  readonly command: string
  /** `{port}` stands for a free port of the loopback interface. */
  readonly args: ReadonlyArray<string>
  readonly env?: Readonly<Record<string, string>>
  /** Written before the program starts; `{port}` as above. */
  readonly files?: ReadonlyArray<{ readonly path: string; readonly text: string }>
  /** The program has a line protocol on its standard input and output, one answer a line. */
  readonly lines?: boolean
  /** Whom it runs as: some servers refuse to run as root. */
  readonly user?: User | undefined
  /** What ends it; SIGTERM if nothing is said. */
  readonly stopSignal?: NodeJS.Signals
}

export interface User {
  readonly uid: number
  readonly gid: number
}

const startWithinMs = 10_000

let program: ChildProcess | undefined
let ended: Promise<unknown> = Promise.resolve()
let answers: Interface | undefined
let stopping = false
let stopSignal: NodeJS.Signals = "SIGTERM"
/** The end of what the program has printed, shown if it ends by itself. */
let said = ""
const waiting: Array<(line: string) => void> = []

const freePort = async (): Promise<number> => {
  const server = createServer()
  const port = await listen(server)
  server.close()
  await once(server, "close")
  return port
}

const accepts = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = dial({ port, host: "127.0.0.1" })
    const settle = (yes: boolean) => () => {
      socket.destroy()
      resolve(yes)
    }
    socket.once("connect", settle(true)).once("error", settle(false))
  })

const launch = (options: ProgramOptions, port: number | undefined): void => {
  const { args, command, env, lines, user } = options
  stopSignal = options.stopSignal ?? stopSignal
  const made = spawn(
    command,
    args.map((arg) => arg.replaceAll("{port}", String(port))),
    {
      ...user,
      env: { ...process.env, ...env },
      stdio: lines === true ? ["pipe", "pipe", "pipe"] : ["ignore", "pipe", "pipe"]
    }
  )
  program = made
  ended = new Promise<void>((resolve) => {
    const over = (why: string) => () => {
      resolve()
      if (stopping) return
      process.stderr.write(`${said}${command} ${why}\n`)
      process.exit(1)
    }
    made.once("error", over("did not start")).once("close", over("ended before its work was done"))
  })
  const hear = (text: string): void => {
    said = (said + text).slice(-4_096)
  }
  made.stderr?.setEncoding("utf8").on("data", hear)
  if (lines !== true) made.stdout?.setEncoding("utf8").on("data", hear)
  else if (made.stdout !== null) {
    answers = createInterface({ input: made.stdout })
    answers.on("line", (line) => waiting.shift()?.(line))
  }
}

/** Starts the program; answers its port once that accepts connections, or 0 if it has none. */
const start = async (options: ProgramOptions): Promise<number> => {
  const files = options.files ?? []
  if (![...options.args, ...files.map(({ text }) => text)].some((text) => text.includes("{port}"))) {
    launch(options, undefined)
    return 0
  }
  const port = await freePort()
  for (const { path, text } of files) writeFileSync(path, text.replaceAll("{port}", String(port)))
  launch(options, port)
  for (const deadline = Date.now() + startWithinMs; !(await accepts(port)); await sleep(20)) {
    if (Date.now() > deadline) throw new Error(`${options.command} does not listen`)
  }
  return port
}

/** Sends one line of JSON, answers the one that comes back. */
const ask = (question: unknown): Promise<unknown> =>
  new Promise((resolve, reject) => {
    waiting.push((line) => {
      const answer = JSON.parse(line) as { readonly error?: string }
      if (answer.error === undefined) resolve(answer)
      else reject(new Error(answer.error))
    })
    program?.stdin?.write(`${JSON.stringify(question)}\n`)
  })

const stop = async (): Promise<void> => {
  stopping = true
  if (program?.pid === undefined) return
  program.kill(stopSignal)
  const timer = setTimeout(() => program?.kill("SIGKILL"), 3_000)
  await ended
  clearTimeout(timer)
}

/** Of the program and of what it has started; where there is no `/proc`, nothing. */
const usage = (): Usage => ({ cpuSeconds: 0, rssBytes: 0, ...treeUsage(program?.pid) })

serve({ start, ask, usage }, stop)
