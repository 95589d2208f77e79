/** beanstalkd, which has no batches: `batch256` writes 256 commands at once. */
import { execFileSync } from "node:child_process"
import { mkdirSync } from "node:fs"
import { findProgram, type System, startProgram, startRoles } from "../system.ts"

export const beanstalkd: System = {
  name: "beanstalkd",
  variants: ["batch256", "single"],
  durabilities: ["memory", "fsync"],
  missing: () => (findProgram("beanstalkd") === undefined ? "beanstalkd is not installed" : undefined),
  version: () => execFileSync(findProgram("beanstalkd")!, ["-v"], { encoding: "utf8" }).trim(),
  warmUp: 2_560,
  start: async (context) => {
    mkdirSync(context.folder, { recursive: true })
    const log = context.durability === "fsync" ? ["-b", context.folder, "-f", "0"] : []
    const { port } = await startProgram(context, "beanstalkd server", {
      command: findProgram("beanstalkd")!,
      args: ["-l", "127.0.0.1", "-p", "{port}", ...log]
    })
    const master = await startRoles(context, "beanstalkd", port)
    return { pass: (options) => master.call<number>("pass", options, 120_000) }
  }
}
