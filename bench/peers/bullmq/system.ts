/** BullMQ on a Redis of its own. */
import { existsSync, readFileSync } from "node:fs"
import { redisMissing, redisVersion, startRedis } from "../redis/system.ts"
import { type System, startRoles } from "../system.ts"

const packageFile = (name: string): URL => new URL(`../../node_modules/${name}/package.json`, import.meta.url)

const versionOf = (name: string): string =>
  (JSON.parse(readFileSync(packageFile(name), "utf8")) as { readonly version: string }).version

export const bullmq: System = {
  name: "bullmq",
  variants: ["batch256", "single"],
  durabilities: ["memory", "buffered", "fsync"],
  missing: () => {
    const absent = ["bullmq", "ioredis"].filter((name) => !existsSync(packageFile(name)))
    return absent.length > 0 ? `${absent.join(" and ")} not in bench/node_modules` : redisMissing()
  },
  version: () => `bullmq ${versionOf("bullmq")} with ioredis ${versionOf("ioredis")}, redis ${redisVersion()}`,
  warmUp: 5_120,
  start: async (context) => {
    const master = await startRoles(context, "bullmq", await startRedis(context, "bullmq"))
    return { pass: (options) => master.call<number>("pass", options, 120_000) }
  }
}
