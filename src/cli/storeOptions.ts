/** Where the manager of a command keeps its queues, and how sure an answer is. */
import * as Flag from "effect/cli/Flag"
import type * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { ConfigurationInvalid, type StoreOpenError } from "../Errors.ts"
import * as Store from "../Store.ts"

export const memory = Flag.Boolean("memory").pipe(
  Flag.withDescription("Keep everything in memory: a manager that stops has forgotten"),
  Flag.withDefault(false)
)

export const durability = Flag.Literals("durability", ["fsync", "buffered"]).pipe(
  Flag.withDescription("What an answer means: fsync, on disk (default); buffered, handed to the operating system"),
  Flag.optional
)

export interface StoreOptions {
  readonly data: Option.Option<string>
  readonly memory: boolean
  readonly durability: Option.Option<"fsync" | "buffered">
}

/** Why these flags do not go together, if so. */
export const fault = ({ data, durability, memory }: StoreOptions): ConfigurationInvalid | undefined => {
  if (!memory) return undefined
  const other = Option.isSome(data) ? "--data" : Option.isSome(durability) ? "--durability" : undefined
  if (other === undefined) return undefined
  return new ConfigurationInvalid({ field: "--memory", value: `given beside ${other}`, remedy: "use one of the two" })
}

/** `directory` undefined: memory. */
export const layer = (
  directory: string | undefined,
  durability: "fsync" | "buffered" | undefined,
  acceptLoss = false
): Layer.Layer<Store.Store, StoreOpenError> =>
  directory === undefined ? Store.layerMemory : Store.layerSqlite({ directory, durability, acceptLoss })

/** For banners. */
export const words = (level: string, directory: string | undefined): string =>
  directory === undefined ? `durability: ${level}` : `durability: ${level}, data in ${directory}`
