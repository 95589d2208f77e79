/**
 * Runs a client that is not ours, as a script of the shell, and says what it used. CPU time is that of all processes that
 * this one has waited for, by the kernel's own account (Linux); memory is looked at every 20 ms: the sum of what each
 * process of the script has had at most.
 */
import { spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { monotonicMs, serve } from "../harness/role.ts"
import { clientCore } from "./cores.ts"
import type { Pass } from "./system.ts"

const read = (path: string): string => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return ""
  }
}

/** Linux counts a hundred of them a second in /proc, whatever its own clock does. */
const ticksPerSecond = 100

const childrenCpuSeconds = (): number => {
  // the name, in parentheses, may have spaces
  const fields = read("/proc/self/stat").replace(/^.*\)/s, "").trim().split(" ")
  return (Number(fields[13]) + Number(fields[14])) / ticksPerSecond
}

const descendants = (pid: number): ReadonlyArray<number> =>
  read(`/proc/${pid}/task/${pid}/children`)
    .split(" ")
    .filter((text) => text !== "")
    .flatMap((text) => [Number(text), ...descendants(Number(text))])

const peakBytes = (pid: number): number =>
  Number(/^VmHWM:\s+(\d+) kB/m.exec(read(`/proc/${pid}/status`))?.[1] ?? 0) * 1_024

const pass = (script: string): Promise<Pass> =>
  new Promise((resolve, reject) => {
    const cpuBefore = childrenCpuSeconds()
    const beganMs = monotonicMs()
    const [command, ...args] = [...clientCore, "/bin/sh", "-e", script]
    const shell = spawn(command!, args, { stdio: ["ignore", 2, 2] })
    let rssBytes = 0
    const timer = setInterval(() => {
      const sum = descendants(shell.pid ?? 0).reduce((bytes, pid) => bytes + peakBytes(pid), 0)
      rssBytes = Math.max(rssBytes, sum)
    }, 20)
    shell.once("error", reject)
    shell.once("exit", (code, signal) => {
      const seconds = (monotonicMs() - beganMs) / 1_000
      clearInterval(timer)
      if (code !== 0) return reject(new Error(`it ended with ${signal ?? `code ${code}`}`))
      resolve({ seconds, cpuSeconds: childrenCpuSeconds() - cpuBefore, rssBytes })
    })
  })

serve({ pass }, async () => {})
