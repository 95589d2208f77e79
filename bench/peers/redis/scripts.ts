/**
 * A queue with leases in Redis, as scripts of the server. `ready` is a list of ids, `tasks` a hash of payloads, `leases` a
 * sorted set of ids by the time their lease ends, `results` a list.
 */
import type { Redis } from "./client.ts"

const keys = ["ready", "tasks", "leases", "results", "next"]

/** ARGV: payloads. Answers the first id. */
const put = `
local last = redis.call('INCRBY', KEYS[5], #ARGV)
local first = last - #ARGV
local fields, ids = {}, {}
for i = 1, #ARGV do
  local id = first + i
  ids[i] = id
  fields[2 * i - 1] = id
  fields[2 * i] = ARGV[i]
end
redis.call('HSET', KEYS[2], unpack(fields))
redis.call('RPUSH', KEYS[1], unpack(ids))
return first + 1
`

/** ARGV: how many at most, milliseconds. Answers id, payload, id, payload ... */
const lease = `
local ids = redis.call('LPOP', KEYS[1], ARGV[1])
if not ids then return {} end
local payloads = redis.call('HMGET', KEYS[2], unpack(ids))
local now = redis.call('TIME')
local ends = now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2]
local scores, answer = {}, {}
for i = 1, #ids do
  scores[2 * i - 1] = ends
  scores[2 * i] = ids[i]
  answer[2 * i - 1] = ids[i]
  answer[2 * i] = payloads[i]
end
redis.call('ZADD', KEYS[3], unpack(scores))
return answer
`

/** ARGV: id, result, id, result ... Answers how many of the leases were still held; only their results are kept. */
const ack = `
local ids = {}
for i = 1, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
local results = {}
if redis.call('ZREM', KEYS[3], unpack(ids)) == #ids then
  for i = 2, #ARGV, 2 do results[#results + 1] = ARGV[i] end
  redis.call('HDEL', KEYS[2], unpack(ids))
else
  -- Some were lost: each by itself. What is no longer in the hash has been done.
  for i = 1, #ARGV, 2 do
    if redis.call('HDEL', KEYS[2], ARGV[i]) == 1 then
      results[#results + 1] = ARGV[i + 1]
      redis.call('LREM', KEYS[1], 1, ARGV[i])
    end
  end
end
if #results > 0 then redis.call('RPUSH', KEYS[4], unpack(results)) end
return #results
`

/** Leases that have ended wait again. */
const sweep = `
local now = redis.call('TIME')
local ids = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now[1] * 1000, 'LIMIT', 0, 256)
if #ids == 0 then return 0 end
redis.call('ZREM', KEYS[3], unpack(ids))
redis.call('RPUSH', KEYS[1], unpack(ids))
return #ids
`

const sources = { put, lease, ack, sweep } as const

export type Scripts = { readonly [Name in keyof typeof sources]: string }

/** Their hashes, by which they are called afterwards. */
export const loadScripts = async (redis: Redis): Promise<Scripts> => {
  const entries = await Promise.all(
    Object.entries(sources).map(
      async ([name, text]) => [name, String(await redis.send("SCRIPT", "LOAD", text))] as const
    )
  )
  return Object.fromEntries(entries) as Scripts
}

export const call = (redis: Redis, hash: string, args: ReadonlyArray<string | number>) =>
  redis.send("EVALSHA", hash, keys.length, ...keys, ...args)
