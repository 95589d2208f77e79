import { describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { Client, Manager, TaskQueue } from "millrace"
import { SeededRandom } from "../../src/testing/Random.ts"
import { Proxy } from "../proxy/Proxy.ts"
import { auth, listening } from "./layers.ts"
import { eventually } from "./queue.ts"

describe("a client whose connection is cut", () => {
  it.live("resumes its session, and the lease that it took by hand is still its own", () =>
    Effect.gen(function* () {
      const { address } = yield* Manager.Listening
      const to = address._tag === "Tcp" ? address.port : 0
      const between = yield* Effect.acquireRelease(
        Effect.promise(() => new Proxy(to, new SeededRandom(1)).listen()),
        (proxy) => Effect.sync(() => proxy.close())
      )
      const q = TaskQueue.make("by-hand", { payload: Schema.Int, result: Schema.Int })
      yield* Effect.gen(function* () {
        yield* q.put(1)
        const [lease] = yield* q.lease()
        between.cut()
        yield* eventually(
          Effect.map(Effect.result(q.stats), ({ _tag }) => _tag === "Success"),
          "the client is connected again"
        )
        yield* q.commit(lease!, 1)
      }).pipe(Effect.provide(Client.layerTcp({ port: between.port, auth })))
    }).pipe(Effect.scoped, Effect.provide(Layer.fresh(listening)))
  )
})
