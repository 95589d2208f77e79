/** The port to durable storage, and its layers. */
import type * as Layer from "effect/Layer"
import * as Memory from "./store/Memory.ts"
import type { Store } from "./store/Store.ts"

export * from "./store/Store.ts"

/** Keeps everything in memory: answers mean "in memory", and a manager that stops has forgotten. */
export const layerMemory: Layer.Layer<Store> = Memory.layer
