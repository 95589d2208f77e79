/** NATS JetStream. `sync_interval` is two minutes by default; with `always` the server syncs before it answers. */
import { execFileSync } from "node:child_process"
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { variants } from "../../harness/variants.ts"
import { missingPackages, packageVersion } from "../packages.ts"
import { crewOf, findProgram, type System, startProgram, startRoles } from "../system.ts"

const packages = ["@nats-io/transport-node", "@nats-io/jetstream"]

const serverVersion = (program: string): string =>
  execFileSync(program, ["--version"], { encoding: "utf8" }).replace("nats-server: v", "").trim()

/** The first with fast batches; atomic ones came with 2.12, `sync_interval: always` with 2.10. */
const oldest = "2.14"

const missingServer = (): string | undefined => {
  const program = findProgram("nats-server")
  if (program === undefined) return "nats-server is not installed"
  const version = serverVersion(program)
  const [major, minor] = version.split(".").map(Number)
  const [oldestMajor, oldestMinor] = oldest.split(".").map(Number)
  const old = major! < oldestMajor! || (major === oldestMajor && minor! < oldestMinor!)
  return old ? `nats-server ${version} is too old, ${oldest} or later is needed` : undefined
}

export const natsJetStream: System = {
  name: "nats-jetstream",
  variants: Object.keys(variants),
  durabilities: ["memory", "buffered", "fsync"],
  probes: true,
  missing: () => missingPackages(packages) ?? missingServer(),
  version: () =>
    `nats-server ${serverVersion(findProgram("nats-server")!)} with client ${packageVersion("@nats-io/jetstream")}`,
  warmUp: 10_240,
  start: async (context) => {
    mkdirSync(context.folder, { recursive: true })
    const config = join(context.folder, "nats.conf")
    const sync = context.durability === "fsync" ? "always" : "2m"
    writeFileSync(config, `jetstream { store_dir: "${context.folder}", sync_interval: ${sync} }\n`)
    const { port } = await startProgram(context, "nats-jetstream server", {
      command: findProgram("nats-server")!,
      args: ["-a", "127.0.0.1", "-p", "{port}", "-c", config]
    })
    const master = await startRoles(context, "nats", port)
    return crewOf(master)
  }
}
