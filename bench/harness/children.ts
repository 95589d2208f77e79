/**
 * The processes of a work. Each role is a program of its own, told what to do over Node's IPC channel.
 *
 * A child that ends before it is told to fails everything that waits for it; a parent that ends takes its children with
 * it (they end when the channel closes). What a child prints goes to standard error.
 */
import { type ChildProcess, spawn } from "node:child_process"
import process from "node:process"

/** Seconds of CPU and bytes of memory of one process so far. */
export interface Usage {
  readonly cpuSeconds: number
  readonly rssBytes: number
}

export interface Call {
  readonly id: number
  readonly command: string
  readonly argument: unknown
}
export type Reply = { readonly id: number; readonly value: unknown } | { readonly id: number; readonly error: string }

export interface ProfileTo {
  readonly directory: string
  /** File name without its ending. */
  readonly name: string
}

export interface StartOptions {
  readonly name: string
  readonly script: URL
  readonly env?: Readonly<Record<string, string>>
  readonly profile?: ProfileTo | undefined
  /** Another runtime than this one, which cannot write a profile. Its messages are JSON: V8's format is Node's own. */
  readonly runtime?: string | undefined
  /** What the program is started with, such as `taskset -c 1`: it must become the program, as `exec` does. */
  readonly through?: ReadonlyArray<string> | undefined
}

export class Child {
  readonly name: string
  /** Resolves when the process has ended without being told to. */
  readonly died: Promise<Error>
  readonly #process: ChildProcess
  readonly #waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>()
  readonly #exited: Promise<void>
  #nextId = 1
  #stopping = false
  #dead: Error | undefined = undefined

  constructor({ env, name, profile, runtime, script, through = [] }: StartOptions) {
    this.name = name
    const flags =
      profile === undefined
        ? []
        : ["--cpu-prof", "--cpu-prof-dir", profile.directory, "--cpu-prof-name", `${profile.name}.cpuprofile`]
    const [command, ...args] = [...through, runtime ?? process.execPath, ...flags, script.pathname]
    this.#process = spawn(command!, args, {
      env: { ...process.env, ...env },
      stdio: ["ignore", 2, 2, "ipc"],
      serialization: runtime === undefined ? "advanced" : "json"
    })
    this.#process.on("message", (reply: Reply) => {
      const waiting = this.#waiting.get(reply.id)
      this.#waiting.delete(reply.id)
      if ("error" in reply) waiting?.reject(new Error(`${name}: ${reply.error}`))
      else waiting?.resolve(reply.value)
    })
    let exited = (): void => {}
    let died = (_error: Error): void => {}
    this.#exited = new Promise((resolve) => {
      exited = resolve
    })
    this.died = new Promise((resolve) => {
      died = resolve
    })
    const ended = (why: string): void => {
      const error = new Error(`${name} ${why}${this.#stopping ? "" : " before its work was done"}`)
      this.#dead = error
      for (const { reject } of this.#waiting.values()) reject(error)
      this.#waiting.clear()
      if (!this.#stopping) died(error)
      exited()
    }
    this.#process.once("error", (error) => ended(`did not start: ${error.message}`))
    this.#process.once("exit", (code, signal) => ended(`ended with ${signal ?? `code ${code}`}`))
  }

  /** Asks the child and waits for its answer; fails if it ends or takes longer than `timeoutMs`. */
  call<A>(command: string, argument?: unknown, timeoutMs = 60_000): Promise<A> {
    if (this.#dead !== undefined) return Promise.reject(this.#dead)
    return new Promise<A>((resolve, reject) => {
      const id = this.#nextId++
      const timer = setTimeout(() => {
        this.#waiting.delete(id)
        reject(new Error(`${this.name} did not answer "${command}" within ${timeoutMs} ms`))
      }, timeoutMs)
      const settle =
        <B>(then: (value: B) => void) =>
        (value: B): void => {
          clearTimeout(timer)
          then(value)
        }
      this.#waiting.set(id, { resolve: settle((value) => resolve(value as A)), reject: settle(reject) })
      const call: Call = { id, command, argument }
      this.#process.send(call, (error) => {
        if (error !== null) this.#waiting.get(id)?.reject(error)
      })
    })
  }

  /** Ends the child: politely, then after five seconds for good. */
  async stop(): Promise<void> {
    this.#stopping = true
    if (this.#process.connected) this.#process.disconnect()
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), 5_000)
    await this.#exited
    clearTimeout(timer)
  }

  /** Ends the child at once, as a crash would. */
  async kill(): Promise<void> {
    this.#stopping = true
    this.#process.kill("SIGKILL")
    await this.#exited
  }

  usage(): Promise<Usage> {
    return this.call<Usage>("usage")
  }
}

/**
 * Runs `use` with a group of children and ends them in reverse order, whatever happens. One that dies fails the group, and
 * so does the first interrupt from the terminal.
 */
export const withChildren = <A>(use: (start: (options: StartOptions) => Child) => Promise<A>): Promise<A> => {
  const children: Array<Child> = []
  let interrupt = (): void => {}
  let over = false
  return new Promise<A>((resolve, reject) => {
    interrupt = () => reject(new Error("interrupted"))
    process.once("SIGINT", interrupt)
    const start = (options: StartOptions): Child => {
      if (over) throw new Error("the group has ended")
      const child = new Child(options)
      children.push(child)
      void child.died.then(reject)
      return child
    }
    use(start).then(resolve, reject)
  }).finally(async () => {
    over = true
    for (const child of children.reverse()) await child.stop()
    process.off("SIGINT", interrupt)
  })
}
