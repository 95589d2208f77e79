/** pg-boss on a PostgreSQL of its own. */
import { variants } from "../../harness/variants.ts"
import { missingPackages, packageVersion } from "../packages.ts"
import { postgresMissing, postgresVersion, startPostgres } from "../postgres/server.ts"
import { type System, startRoles } from "../system.ts"

export const pgBoss: System = {
  name: "pg-boss",
  variants: Object.keys(variants),
  durabilities: ["buffered", "fsync"],
  // No probes: what is fetched by a loop waits for it (api.ts).
  missing: () => missingPackages(["pg-boss"]) ?? postgresMissing(),
  version: () => `pg-boss ${packageVersion("pg-boss")} on postgres ${postgresVersion()}`,
  warmUp: 2_560,
  start: async (context) => {
    const master = await startRoles(context, "pg-boss", await startPostgres(context, "pg-boss"))
    return { pass: (options) => master.call<number>("pass", options, 120_000) }
  }
}
