/** Shared state in Redis: what `shared-state` does, by its own commands on one connection with pipelining. */

import { monotonicMs, required, serve } from "../../harness/role.ts"
import type { Rates } from "../../shared-state.ts"
import { url } from "../../shared-state.ts"
import { Redis } from "./client.ts"

const redis = new Redis(Number(required("BENCH_PORT")))
const batch = 4_096

const timed = async (count: number, work: () => Promise<void>): Promise<number> => {
  const from = monotonicMs()
  await work()
  return Math.round((count * 1_000) / (monotonicMs() - from))
}

/** So many calls under way at a time. */
const each = async (count: number, inFlight: number, one: (i: number) => Promise<void>): Promise<void> => {
  let next = 0
  const loop = async (): Promise<void> => {
    while (next < count) await one(next++)
  }
  await Promise.all(Array.from({ length: inFlight }, loop))
}

const expect = (what: string, got: unknown, wanted: unknown): void => {
  if (got !== wanted) throw new Error(`${what} answered ${String(got)}, not ${String(wanted)}`)
}

const run = async ({ keys, singles }: { keys: number; singles: number }): Promise<Rates> => {
  await redis.send("FLUSHALL")
  const batches = Array.from({ length: Math.ceil(keys / batch) }, (_, i) =>
    Array.from({ length: Math.min(batch, keys - i * batch) }, (_, j) => url(i * batch + j))
  )
  const addAll = (isNew: boolean) => () =>
    each(batches.length, 8, async (i) => {
      const members = batches[i]!
      expect("SADD", await redis.send("SADD", "seen", ...members), isNew ? members.length : 0)
    })
  const rates: Rates = {
    "add-all-new": await timed(keys, addAll(true)),
    "add-all-known": await timed(keys, addAll(false)),
    add: await timed(singles, () =>
      each(singles, 256, async (i) => expect("SADD", await redis.send("SADD", "seen", url(keys + i)), 1))
    ),
    increment: await timed(singles, () => each(singles, 256, async () => void (await redis.send("INCR", "pages")))),
    set: await timed(singles, () =>
      each(singles, 256, async (i) =>
        expect("HSET", await redis.send("HSET", "titles", url(i), JSON.stringify(url(i))), 1)
      )
    )
  }
  expect("SCARD", await redis.send("SCARD", "seen"), keys + singles)
  expect("GET", await redis.send("GET", "pages"), String(singles))
  expect("HLEN", await redis.send("HLEN", "titles"), singles)
  return rates
}

serve({ run }, async () => redis.close())
