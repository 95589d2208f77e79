/**
 * The store of a manager process, as its environment says: `MILLRACE_BENCH_DURABILITY` (memory, buffered or fsync),
 * `MILLRACE_BENCH_DATA` (the folder of a durable one), `MILLRACE_BENCH_THREAD` (`no`: SQLite in the manager's own thread).
 */
import process from "node:process"
import type * as Layer from "effect/Layer"
import type { StoreOpenError } from "../../src/Errors.ts"
import * as Store from "../../src/Store.ts"
import { required } from "../harness/role.ts"

export const storeOfEnvironment = (): Layer.Layer<Store.Store, StoreOpenError> => {
  const durability = process.env["MILLRACE_BENCH_DURABILITY"] ?? "memory"
  if (durability === "memory") return Store.layerMemory
  if (durability !== "buffered" && durability !== "fsync") throw new Error(`no durability "${durability}"`)
  const thread = process.env["MILLRACE_BENCH_THREAD"]
  return Store.layerSqlite({
    directory: required("MILLRACE_BENCH_DATA"),
    durability,
    ...(thread === undefined ? {} : { thread: thread !== "no" })
  })
}

/** Bytes of payloads kept in memory; undefined: the manager's default. */
export const residentBytesOfEnvironment = (): number | undefined => {
  const text = process.env["MILLRACE_BENCH_RESIDENT"]
  return text === undefined ? undefined : Number(text)
}
