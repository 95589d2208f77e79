/** Redis with scripts written by hand for this work. */
import { execFileSync } from "node:child_process"
import { mkdirSync } from "node:fs"
import { variants } from "../../harness/variants.ts"
import { type Context, findProgram, type System, startProgram, startRoles } from "../system.ts"

/** A Redis of its own for one system; its settings are listed in the README. */
export const startRedis = async (context: Context, name: string): Promise<number> => {
  mkdirSync(context.folder, { recursive: true })
  const sync = context.durability === "fsync" ? "always" : "everysec"
  const append = context.durability === "memory" ? [] : ["--appendonly", "yes", "--appendfsync", sync]
  const { port } = await startProgram(context, `${name} server`, {
    command: findProgram("redis-server")!,
    args: [
      ...["--port", "{port}", "--bind", "127.0.0.1", "--dir", context.folder, "--save", "", "--loglevel", "warning"],
      ...["--daemonize", "no", "--auto-aof-rewrite-percentage", "0", ...append]
    ]
  })
  return port
}

export const redisMissing = (): string | undefined =>
  findProgram("redis-server") === undefined ? "redis-server is not installed" : undefined

export const redisVersion = (): string =>
  /v=([\d.]+)/.exec(execFileSync(findProgram("redis-server")!, ["--version"], { encoding: "utf8" }))?.[1] ?? "unknown"

export const redisScripts: System = {
  name: "redis-scripts",
  variants: Object.keys(variants),
  durabilities: ["memory", "buffered", "fsync"],
  missing: redisMissing,
  version: () => `redis ${redisVersion()}`,
  warmUp: 50_000,
  start: async (context) => {
    const master = await startRoles(context, "redis", await startRedis(context, "redis-scripts"))
    return { pass: (options) => master.call<number>("pass", options, 120_000) }
  }
}
