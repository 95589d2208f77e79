/** A PostgreSQL of its own for one system, in a temporary folder; its settings are listed in the README. */
import { execFileSync } from "node:child_process"
import { accessSync, chmodSync, chownSync, constants, mkdirSync, readdirSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import process from "node:process"
import { setTimeout as sleep } from "node:timers/promises"
import type { User } from "../../harness/program.ts"
import { type Context, findProgram, startProgram } from "../system.ts"

/** Where Debian keeps the programs of each version, which are on nobody's path. */
const debianFolder = "/usr/lib/postgresql"
const programs = ["initdb", "postgres"] as const
type Programs = Readonly<Record<(typeof programs)[number], string>>

/** Both of one version: the newest of Debian's, or those on the path. */
const findPrograms = (): Programs | undefined => {
  const inFolder = (folder: string): Programs | undefined => {
    try {
      const files = programs.map((name) => join(folder, name))
      for (const file of files) accessSync(file, constants.X_OK)
      return { initdb: files[0]!, postgres: files[1]! }
    } catch {
      return undefined
    }
  }
  try {
    const versions = readdirSync(debianFolder).sort((a, b) => Number(b) - Number(a))
    const found = versions.map((version) => inFolder(join(debianFolder, version, "bin"))).find((p) => p !== undefined)
    if (found !== undefined) return found
  } catch {
    // Not Debian's.
  }
  const [initdb, postgres] = programs.map(findProgram)
  return initdb === undefined || postgres === undefined ? undefined : { initdb, postgres }
}

const isRoot = (): boolean => process.getuid?.() === 0

/** PostgreSQL refuses to run as root: its own account, or the one with no rights. */
const findUser = (): User | undefined => {
  const accounts = readFileSync("/etc/passwd", "utf8")
  for (const name of ["postgres", "nobody"]) {
    const found = new RegExp(`^${name}:[^:]*:(\\d+):(\\d+):`, "m").exec(accounts)
    if (found !== null) return { uid: Number(found[1]), gid: Number(found[2]) }
  }
  return undefined
}

export const postgresMissing = (): string | undefined => {
  if (findPrograms() === undefined) return "postgresql is not installed"
  return isRoot() && findUser() === undefined
    ? "postgresql does not run as root, and there is no other user"
    : undefined
}

export const postgresVersion = (): string =>
  /([\d.]+)/.exec(execFileSync(findPrograms()!.postgres, ["--version"], { encoding: "utf8" }))?.[1] ?? "unknown"

const settings = (durability: string): Readonly<Record<string, string>> => ({
  listen_addresses: "127.0.0.1",
  unix_socket_directories: "",
  max_connections: "200",
  shared_buffers: "256MB",
  // No checkpoint for want of room during a run.
  max_wal_size: "4GB",
  checkpoint_timeout: "15min",
  // No replica: the log carries only what a restart needs.
  wal_level: "minimal",
  max_wal_senders: "0",
  fsync: "on",
  synchronous_commit: durability === "fsync" ? "on" : "off",
  autovacuum: "on",
  // Estimates of a queue's length are wrong most of the time, and a wrong one compiles for longer than the query takes.
  jit: "off"
})

/** Longer than a machine needs that is busy with other things. */
const readyWithinMs = 30_000

/** Whether it takes connections, as its own tools tell: it listens before that. */
const isReady = (data: string): boolean => {
  try {
    return readFileSync(join(data, "postmaster.pid"), "utf8").split("\n")[7]?.trim() === "ready"
  } catch {
    return false
  }
}

export const startPostgres = async (context: Context, name: string): Promise<number> => {
  const { initdb, postgres } = findPrograms()!
  const user = isRoot() ? findUser() : undefined
  mkdirSync(context.folder, { recursive: true })
  const data = join(context.folder, "postgres")
  mkdirSync(data)
  if (user !== undefined) {
    chownSync(data, user.uid, user.gid)
    // The user has to get through to it.
    for (const folder of [context.folder, dirname(context.folder)]) chmodSync(folder, 0o711)
  }
  const init = ["--pgdata", data, "--username", "bench", "--auth", "trust", "--encoding", "UTF8", "--no-locale"]
  execFileSync(initdb, [...init, "--no-sync"], { ...user, cwd: data, stdio: ["ignore", "ignore", "pipe"] })
  const { port } = await startProgram(context, `${name} server`, {
    command: postgres,
    args: [
      ...["-D", data, "-p", "{port}"],
      ...Object.entries(settings(context.durability)).flatMap(([key, value]) => ["-c", `${key}=${value}`])
    ],
    user,
    // At once, without a checkpoint: the folder goes, too.
    stopSignal: "SIGQUIT"
  })
  for (const deadline = Date.now() + readyWithinMs; !isReady(data); await sleep(20)) {
    if (Date.now() > deadline) throw new Error(`${name}: postgres does not get ready`)
  }
  return port
}
