/**
 * The child's side of `children.ts`: answers commands until the parent lets go, then ends what the role has started.
 */
import { readFileSync } from "node:fs"
import process from "node:process"
import type { Call, Reply, Usage } from "./children.ts"

export type Commands = Readonly<Record<string, (argument: never) => unknown>>

/** What this process has used so far. */
export const usage = (): Usage => {
  const { system, user } = process.cpuUsage()
  return { cpuSeconds: (user + system) / 1e6, rssBytes: process.memoryUsage.rss() }
}

/** Milliseconds that this process could have run, and another one did: Linux' `/proc/self/schedstat`, 0 elsewhere. */
export const kept = (): number => {
  try {
    return Number(readFileSync("/proc/self/schedstat", "latin1").split(" ")[1]) / 1e6
  } catch {
    return 0
  }
}

/** Milliseconds on the machine's own clock, which all its processes share. */
export const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6

/** `stop` is called once, when the parent lets go; the process ends when it has. */
export const serve = (commands: Commands, stop: () => Promise<void>): void => {
  const all: Commands = { usage, kept, ...commands }
  process.on("message", async (call: Call) => {
    let reply: Reply
    try {
      const command = all[call.command]
      if (command === undefined) throw new Error(`unknown command "${call.command}"`)
      reply = { id: call.id, value: await command(call.argument as never) }
    } catch (error) {
      reply = { id: call.id, error: error instanceof Error ? error.message : String(error) }
    }
    if (process.connected) process.send?.(reply)
  })
  process.once("disconnect", () => {
    stop().then(
      () => process.exit(0),
      () => process.exit(1)
    )
  })
  // The group gets the terminal's interrupt too; the parent ends us in order.
  process.on("SIGINT", () => {})
}

/** A variable that the parent sets: keys travel in the environment, never in the argument list. */
export const required = (name: string): string => {
  const value = process.env[name]
  if (value === undefined || value === "")
    throw new Error(`${name} is not set; this program is started by bench/main.ts`)
  return value
}
