/** What programs that are not Node have used, as Linux tells in `/proc` (proc_pid_stat(5)). */
import { readdirSync, readFileSync } from "node:fs"
import type { Usage } from "./children.ts"

/** `sysconf(_SC_CLK_TCK)`, 100 on every Linux that Node runs on. */
const ticksPerSecond = 100
const pageBytes = 4_096

interface Stat {
  readonly parent: number
  readonly usage: Usage
}

const statOf = (pid: string): Stat | undefined => {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1")
    // The name of the program may have spaces; it ends with the last parenthesis. The next field is the third.
    const fields = text
      .slice(text.lastIndexOf(")") + 2)
      .split(" ")
      .map(Number)
    // utime and stime, and of children that have ended and were waited for.
    const ticks = fields.slice(11, 15).reduce((sum, part) => sum + part, 0)
    return { parent: fields[1]!, usage: { cpuSeconds: ticks / ticksPerSecond, rssBytes: fields[21]! * pageBytes } }
  } catch {
    // It has ended meanwhile.
    return undefined
  }
}

/** A process and its descendants; undefined where there is no `/proc`. Memory that they share is counted for each. */
export const treeUsage = (root: number | undefined): Usage | undefined => {
  if (root === undefined) return undefined
  let pids: ReadonlyArray<string>
  try {
    pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name))
  } catch {
    return undefined
  }
  const stats = new Map(pids.map((pid) => [Number(pid), statOf(pid)] as const))
  const inTree = (pid: number): boolean => {
    for (let at = pid; at > 1; at = stats.get(at)?.parent ?? 0) if (at === root) return true
    return false
  }
  let cpuSeconds = 0
  let rssBytes = 0
  for (const [pid, stat] of stats) {
    if (stat === undefined || !inTree(pid)) continue
    cpuSeconds += stat.usage.cpuSeconds
    rssBytes += stat.usage.rssBytes
  }
  return { cpuSeconds, rssBytes }
}
