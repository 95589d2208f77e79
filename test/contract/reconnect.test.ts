import * as net from "node:net"
import { describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { Client, Manager, TaskQueue } from "millrace"
import { auth, listening } from "./layers.ts"
import { eventually } from "./queue.ts"

/** Passes bytes on until it is told to cut every connection. */
const proxy = (to: number) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly port: number; readonly cut: () => void; readonly close: () => void }>((resume) => {
      const open = new Set<net.Socket>()
      const server = net.createServer((near) => {
        const far = net.connect({ host: "127.0.0.1", port: to })
        for (const [a, b] of [
          [near, far],
          [far, near]
        ] as const) {
          open.add(a)
          a.on("data", (chunk) => void b.write(chunk))
          a.on("error", () => {})
          a.on("close", () => {
            open.delete(a)
            b.destroy()
          })
        }
      })
      const cut = (): void => {
        for (const socket of open) socket.destroy()
      }
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        const port = typeof address === "object" && address !== null ? address.port : 0
        resume(Effect.succeed({ port, cut, close: () => void server.close(cut) }))
      })
    }),
    ({ close, cut }) =>
      Effect.sync(() => {
        cut()
        close()
      })
  )

describe("a client whose connection is cut", () => {
  it.live("resumes its session, and the lease that it took by hand is still its own", () =>
    Effect.gen(function* () {
      const { address } = yield* Manager.Listening
      const between = yield* proxy(address._tag === "Tcp" ? address.port : 0)
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
