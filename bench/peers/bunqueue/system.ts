/**
 * bunqueue, its server and its clients on Bun. Its SQLite has `synchronous = NORMAL` with a write-ahead log, also for jobs
 * put as `durable`: no commit is synced before it is
 * answered, so there is no `fsync`.
 */
import { existsSync, mkdirSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { variants } from "../../harness/variants.ts"
import { missingPackages, packageVersion } from "../packages.ts"
import { type System, startProgram, startRoles } from "../system.ts"

const packages = ["bun", "bunqueue"]
const modules = fileURLToPath(new URL("../../node_modules/", import.meta.url))
const bun = join(modules, ".bin", "bun")

export const bunqueue: System = {
  name: "bunqueue",
  variants: Object.keys(variants),
  durabilities: ["memory", "buffered"],
  missing: () =>
    missingPackages(packages) ?? (!existsSync(bun) ? "the program of package bun is not there" : undefined),
  version: () => `bunqueue ${packageVersion("bunqueue")} on bun ${packageVersion("bun")}`,
  warmUp: 5_120,
  start: async (context) => {
    mkdirSync(context.folder, { recursive: true })
    const store = context.durability === "memory" ? [] : ["--data-path", join(context.folder, "jobs.db")]
    const { port } = await startProgram(context, "bunqueue server", {
      command: bun,
      args: [
        ...[join(modules, "bunqueue/dist/main.js"), "start", "--host", "127.0.0.1", "--tcp-port", "{port}"],
        ...store
      ],
      env: {
        HTTP_SOCKET_PATH: join(context.folder, "http.sock"),
        LOG_LEVEL: "error",
        // By default a client may send 10,000 commands a minute.
        RATE_LIMIT_MAX_REQUESTS: "1000000000"
      }
    })
    const master = await startRoles(context, "bunqueue", port, bun)
    return { pass: (options) => master.call<number>("pass", options, 120_000) }
  }
}
