/** The master on Redis with scripts: puts by script, results by a blocking pop of up to 1,024 on a connection of its own. */
import type { PeerPass, Put } from "../../harness/exactly-once.ts"
import type { Result } from "../../harness/handler.ts"
import type { ProbeOptions, ProbeTimes } from "../../harness/probes.ts"
import { Results } from "../../harness/results.ts"
import { required, serve } from "../../harness/role.ts"
import { Redis, type Reply } from "./client.ts"
import { call, loadScripts } from "./scripts.ts"

const port = Number(required("BENCH_PORT"))
const redis = new Redis(port)
const results = new Redis(port)
const loaded = loadScripts(redis)
const outcomes = new Results()
let stopped = false

const read = async (): Promise<void> => {
  while (!stopped) {
    const popped = (await results.send("BLMPOP", 1, 1, "results", "LEFT", "COUNT", 1_024)) as
      | readonly [string, ReadonlyArray<string>]
      | null
    for (const text of popped?.[1] ?? []) outcomes.take(JSON.parse(text) as Result)
  }
}

const ready = async (): Promise<void> => {
  await loaded
  read().catch((error: unknown) => {
    if (!stopped) outcomes.fail(String(error))
  })
}

const put: Put = async (tasks, from, to) => {
  await call(
    redis,
    (await loaded).put,
    tasks.slice(from, to).map((task) => JSON.stringify(task))
  )
}

const rest = async (): Promise<number> => {
  const counts = await Promise.all([
    redis.send("LLEN", "ready"),
    redis.send("HLEN", "tasks"),
    redis.send("ZCARD", "leases"),
    redis.send("LLEN", "results")
  ])
  return counts.reduce<number>((sum, count: Reply) => sum + Number(count), 0)
}

const pass = async (options: PeerPass): Promise<number> => (await outcomes.check.run(options, put, rest)).seconds

const probes = (options: ProbeOptions): Promise<ProbeTimes> =>
  outcomes.probing.run(options, (task) => put([task], 0, 1), rest)

serve({ ready, pass, probes }, async () => {
  stopped = true
  redis.close()
  results.close()
})
