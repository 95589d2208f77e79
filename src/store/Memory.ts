/** The store that keeps nothing: answers mean "in memory", and a manager that stops has forgotten. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { randomBytes } from "../platform/Crypto.ts"
import { Store, type StoreShape } from "./Store.ts"

/** Each one has an identity of its own: a random instance, and an epoch that an earlier life hardly had. */
const open: Effect.Effect<StoreShape> = Effect.sync(() => {
  const seed = randomBytes(3)
  return Store.of({
    durability: "memory",
    keeps: false,
    identity: { instance: randomBytes(8), epoch: 1 + ((seed[0]! << 12) | (seed[1]! << 4) | (seed[2]! >> 4)) },
    low: () => false,
    load: Stream.empty,
    commit: () => Effect.void,
    read: () => Effect.succeed([]),
    reopen: open
  })
})

export const layer: Layer.Layer<Store> = Layer.effect(Store, open)
