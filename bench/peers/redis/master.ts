/** The master on Redis with scripts: puts by script, results by a blocking pop of up to 1,024 on a connection of its own. */
import { ExactlyOnce, type PeerPass } from "../../harness/exactly-once.ts"
import { required, serve } from "../../harness/role.ts"
import { Redis, type Reply } from "./client.ts"
import { call, loadScripts } from "./scripts.ts"

const port = Number(required("BENCH_PORT"))
const redis = new Redis(port)
const results = new Redis(port)
const loaded = loadScripts(redis)
const check = new ExactlyOnce()
let stopped = false

const read = async (): Promise<void> => {
  while (!stopped) {
    const popped = (await results.send("BLMPOP", 1, 1, "results", "LEFT", "COUNT", 1_024)) as
      | readonly [string, ReadonlyArray<string>]
      | null
    for (const text of popped?.[1] ?? []) check.take(JSON.parse(text) as { url: string; ok: boolean })
  }
}

const ready = async (): Promise<void> => {
  await loaded
  read().catch((error: unknown) => {
    if (!stopped) check.fail(String(error))
  })
}

const pass = async (options: PeerPass): Promise<number> => {
  const { put } = await loaded
  const { seconds } = await check.run(
    options,
    async (tasks, from, to) => {
      await call(
        redis,
        put,
        tasks.slice(from, to).map((task) => JSON.stringify(task))
      )
    },
    async () => {
      const counts = await Promise.all([
        redis.send("LLEN", "ready"),
        redis.send("HLEN", "tasks"),
        redis.send("ZCARD", "leases"),
        redis.send("LLEN", "results")
      ])
      return counts.reduce<number>((sum, count: Reply) => sum + Number(count), 0)
    }
  )
  return seconds
}

serve({ ready, pass }, async () => {
  stopped = true
  redis.close()
  results.close()
})
