/** beanstalkd, which has no batches: `batch256` writes 256 commands at once. */
import { execFileSync } from "node:child_process"
import { mkdirSync } from "node:fs"
import { variants } from "../../harness/variants.ts"
import { findProgram, type System, startProgram, startRoles } from "../system.ts"

export const beanstalkd: System = {
  name: "beanstalkd",
  variants: Object.keys(variants),
  durabilities: ["memory", "buffered", "fsync"],
  missing: () => (findProgram("beanstalkd") === undefined ? "beanstalkd is not installed" : undefined),
  version: () => execFileSync(findProgram("beanstalkd")!, ["-v"], { encoding: "utf8" }).trim(),
  warmUp: 2_560,
  start: async (context) => {
    mkdirSync(context.folder, { recursive: true })
    const syncMs = context.durability === "fsync" ? "0" : "1000"
    const log = context.durability === "memory" ? [] : ["-b", context.folder, "-f", syncMs]
    const { port } = await startProgram(context, "beanstalkd server", {
      command: findProgram("beanstalkd")!,
      args: ["-l", "127.0.0.1", "-p", "{port}", "-z", "131072", ...log]
    })
    const master = await startRoles(context, "beanstalkd", port)
    return { pass: (options) => master.call<number>("pass", options, 120_000) }
  }
}
