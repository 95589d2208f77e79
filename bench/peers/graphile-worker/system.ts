/** graphile-worker on a PostgreSQL of its own. */
import { variants } from "../../harness/variants.ts"
import { missingPackages, packageVersion } from "../packages.ts"
import { postgresMissing, postgresVersion, startPostgres } from "../postgres/server.ts"
import { crewOf, type System, startRoles } from "../system.ts"

export const graphileWorker: System = {
  name: "graphile-worker",
  variants: Object.keys(variants),
  durabilities: ["buffered", "fsync"],
  probes: true,
  missing: () => missingPackages(["graphile-worker"]) ?? postgresMissing(),
  version: () => `graphile-worker ${packageVersion("graphile-worker")} on postgres ${postgresVersion()}`,
  warmUp: 2_560,
  start: async (context) => {
    const master = await startRoles(context, "graphile-worker", await startPostgres(context, "graphile-worker"))
    return crewOf(master)
  }
}
