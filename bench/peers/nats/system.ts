/** NATS JetStream. Debian's server syncs its files every two minutes and cannot be told to do so before it answers. */
import { execFileSync } from "node:child_process"
import { mkdirSync } from "node:fs"
import { variants } from "../../harness/variants.ts"
import { missingPackages, packageVersion } from "../packages.ts"
import { findProgram, type System, startProgram, startRoles } from "../system.ts"

const packages = ["@nats-io/transport-node", "@nats-io/jetstream"]

export const natsJetStream: System = {
  name: "nats-jetstream",
  variants: Object.keys(variants),
  durabilities: ["memory", "buffered"],
  missing: () =>
    missingPackages(packages) ??
    (findProgram("nats-server") === undefined ? "nats-server is not installed" : undefined),
  version: () =>
    `${execFileSync(findProgram("nats-server")!, ["--version"], { encoding: "utf8" }).trim().replace(": v", " ")} with client ${packageVersion("@nats-io/jetstream")}`,
  warmUp: 10_240,
  start: async (context) => {
    mkdirSync(context.folder, { recursive: true })
    const { port } = await startProgram(context, "nats-jetstream server", {
      command: findProgram("nats-server")!,
      args: ["-a", "127.0.0.1", "-p", "{port}", "-js", "-sd", context.folder]
    })
    const master = await startRoles(context, "nats", port)
    return { pass: (options) => master.call<number>("pass", options, 120_000) }
  }
}
