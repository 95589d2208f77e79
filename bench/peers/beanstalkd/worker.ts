/**
 * A worker on beanstalkd: two connections (one, if it may run one handler at a time), each with up to 256 reserved jobs or
 * 4 MiB of them. A result is put before its job is deleted; both, and the next reserves, leave together.
 */
import process from "node:process"
import { handle } from "../../harness/handler.ts"
import { required, serve } from "../../harness/role.ts"
import type { Task } from "../../harness/urls.ts"
import { Beanstalk } from "./client.ts"

const port = Number(required("BENCH_PORT"))
const most = Math.min(256, Math.floor(2 ** 22 / Number(required("BENCH_PAYLOAD_BYTES"))))
const connections = Array.from({ length: required("BENCH_CONCURRENCY") === "1" ? 1 : 2 }, () => new Beanstalk(port))
let stopped = false

const fail = (error: unknown): void => {
  if (stopped) return
  process.stderr.write(`beanstalkd worker: ${String(error)}\n`)
  process.exit(1)
}

const loop = async (connection: Beanstalk): Promise<void> => {
  while (!stopped) {
    for (const { body, id } of await connection.reserve(most)) {
      connection.put(JSON.stringify(handle(JSON.parse(body) as Task))).catch(fail)
      connection.expect("DELETED", `delete ${id}`).catch(fail)
    }
  }
}

const ready = async (): Promise<void> => {
  for (const connection of connections) {
    await connection.tubes("results", "tasks")
    loop(connection).catch(fail)
  }
}

serve({ ready }, async () => {
  stopped = true
  for (const connection of connections) connection.close()
})
