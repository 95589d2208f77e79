/** The store that keeps nothing: answers mean "in memory", and a manager that stops has forgotten. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { Store } from "./Store.ts"

export const layer: Layer.Layer<Store> = Layer.succeed(
  Store,
  Store.of({ durability: "memory", keeps: false, load: Stream.empty, commit: () => Effect.void })
)
