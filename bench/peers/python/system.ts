/** Python's `multiprocessing.managers`: queues shared by a server process. */
import { execFileSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import { fileURLToPath } from "node:url"
import { variants } from "../../harness/variants.ts"
import { findProgram, type System, startProgram } from "../system.ts"

const program = fileURLToPath(new URL("./queues.py", import.meta.url))

export const pythonManagers: System = {
  name: "python-managers",
  variants: Object.keys(variants),
  durabilities: ["memory"],
  missing: () => (findProgram("python3") === undefined ? "python3 is not installed" : undefined),
  version: () => execFileSync(findProgram("python3")!, ["--version"], { encoding: "utf8" }).trim().toLowerCase(),
  warmUp: 10_240,
  start: async (context) => {
    const env = { BENCH_KEY: randomBytes(32).toString("base64url"), PYTHONDONTWRITEBYTECODE: "1" }
    const command = findProgram("python3")!
    const { port } = await startProgram(context, "python-managers server", {
      command,
      args: ["-u", program, "server", "{port}"],
      env
    })
    const clientPort = await context.through(port)
    const role = (name: string, lines: boolean) =>
      startProgram(context, `python-managers ${name}`, {
        command,
        args: ["-u", program, name, String(clientPort)],
        env,
        lines
      })
    for (let i = 0; i < context.settings.workers; i++) await role("worker", false)
    const { host } = await role("master", true)
    return { pass: async (options) => (await host.call<{ seconds: number }>("ask", options, 120_000)).seconds }
  }
}
