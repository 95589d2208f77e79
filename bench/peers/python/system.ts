/**
 * Python's `multiprocessing.managers`: queues shared by a server process. Once as its documentation shows it, `queue.Queue`
 * with a call for each task, whatever the variant; once with calls for many tasks that this bench adds to the class.
 */
import { execFileSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import { fileURLToPath } from "node:url"
import { variants } from "../../harness/variants.ts"
import { findProgram, type System, startProgram } from "../system.ts"

const program = fileURLToPath(new URL("./queues.py", import.meta.url))

const system = (name: string, calls: "one" | "many"): System => ({
  name,
  variants: Object.keys(variants),
  durabilities: ["memory"],
  missing: () => (findProgram("python3") === undefined ? "python3 is not installed" : undefined),
  version: () => execFileSync(findProgram("python3")!, ["--version"], { encoding: "utf8" }).trim().toLowerCase(),
  warmUp: calls === "one" ? 2_560 : 10_240,
  start: async (context) => {
    const concurrency = String(context.settings.concurrency)
    const env = {
      BENCH_CALLS: calls,
      BENCH_CONCURRENCY: concurrency,
      BENCH_KEY: randomBytes(32).toString("base64url"),
      PYTHONDONTWRITEBYTECODE: "1"
    }
    const command = findProgram("python3")!
    const { port } = await startProgram(context, `${name} server`, {
      command,
      args: ["-u", program, "server", "{port}"],
      env
    })
    const clientPort = await context.through(port)
    const role = (part: string, lines: boolean) =>
      startProgram(context, `${name} ${part}`, {
        command,
        args: ["-u", program, part, String(clientPort)],
        env,
        lines
      })
    for (let i = 0; i < context.settings.workers; i++) await role("worker", false)
    const { host } = await role("master", true)
    return { pass: async (options) => (await host.call<{ seconds: number }>("ask", options, 120_000)).seconds }
  }
})

export const pythonManagers = system("python-managers", "one")
export const pythonManagersBatched = system("python-managers-batched", "many")
