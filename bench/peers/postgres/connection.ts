/** How a role reaches its PostgreSQL. */
import { required } from "../../harness/role.ts"

export const connectionString = (): string => `postgres://bench@127.0.0.1:${required("BENCH_PORT")}/postgres`
