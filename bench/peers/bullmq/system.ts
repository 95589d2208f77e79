/** BullMQ on a Redis of its own. */
import { variants } from "../../harness/variants.ts"
import { missingPackages, packageVersion } from "../packages.ts"
import { redisMissing, redisVersion, startRedis } from "../redis/system.ts"
import { type System, startRoles } from "../system.ts"

const packages = ["bullmq", "ioredis"]

export const bullmq: System = {
  name: "bullmq",
  variants: Object.keys(variants),
  durabilities: ["memory", "buffered", "fsync"],
  missing: () => missingPackages(packages) ?? redisMissing(),
  version: () =>
    `bullmq ${packageVersion("bullmq")} with ioredis ${packageVersion("ioredis")} on redis ${redisVersion()}`,
  warmUp: 5_120,
  start: async (context) => {
    const master = await startRoles(context, "bullmq", await startRedis(context, "bullmq"))
    return { pass: (options) => master.call<number>("pass", options, 120_000) }
  }
}
