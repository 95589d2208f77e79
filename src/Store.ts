/** The port to durable storage, and its layers. */
import type * as Layer from "effect/Layer"
import type { StoreOpenError } from "./Errors.ts"
import * as Memory from "./store/Memory.ts"
import * as Sqlite from "./store/Sqlite.ts"
import type { Store } from "./store/Store.ts"

export type { SqliteOptions } from "./store/Sqlite.ts"
export * from "./store/Store.ts"

/** Keeps everything in memory: answers mean "in memory", and a manager that stops has forgotten. */
export const layerMemory: Layer.Layer<Store> = Memory.layer

/**
 * Keeps everything in a folder, in one SQLite file: answers mean "on disk" (`fsync`, the default) or "handed to the
 * operating system" (`buffered`). One manager a folder; a damaged, newer, foreign or incomplete file is refused.
 */
export const layerSqlite: (options: Sqlite.SqliteOptions) => Layer.Layer<Store, StoreOpenError> = Sqlite.layer
