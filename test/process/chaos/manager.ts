/**
 * A manager that kills itself at a boundary of a commit, or breaks its promise on purpose. Arguments: folder, port, plan.
 *
 *     before:n   when the n-th transaction is about to be written
 *     after:n    when it is written, and no answer is out
 *     answer:n   when its answers are out
 *     early:ms   never; but answers leave before their transaction is written (the planted bug)
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Manager from "../../../src/Manager.ts"
import * as Store from "../../../src/Store.ts"
import { auth } from "./queues.ts"

const [directory = "", port = "", plan = ""] = process.argv.slice(2)
const [mode = "", number = "0"] = plan.split(":")
const at = Number(number)

const die = (): void => void process.kill(process.pid, "SIGKILL")

const wrap = (store: Store.StoreShape): Store.StoreShape => {
  let commits = 0
  return {
    ...store,
    commit: (batch) =>
      Effect.suspend(() => {
        const commit = store.commit(batch)
        if (mode === "early") {
          const later = Effect.andThen(Effect.sleep(at), commit)
          return Effect.asVoid(Effect.forkDetach(later))
        }
        if (++commits !== at) return commit
        if (mode === "before") die()
        return Effect.andThen(
          commit,
          Effect.sync(() => {
            if (mode === "after") die()
            // The answers are written in the same turn of the event loop.
            else setTimeout(die, 2)
          })
        )
      })
  }
}

const store = Layer.effect(
  Store.Store,
  Effect.map(Store.Store, (inner) => Store.Store.of(wrap(inner)))
).pipe(Layer.provide(Store.layerSqlite({ directory })))

const program = Effect.gen(function* () {
  const { address } = yield* Manager.Listening
  process.stderr.write(`listening on 127.0.0.1:${address._tag === "Tcp" ? address.port : 0}\n`)
  return yield* (yield* Manager.Manager).failed
})

const fiber = Effect.runFork(
  program.pipe(
    Effect.provide(
      Manager.layerTcp({ port: Number(port), auth }).pipe(
        Layer.provideMerge(Manager.layer({ queues: [] })),
        Layer.provide(store)
      )
    )
  )
)
process.on("SIGTERM", () => void fiber.interruptUnsafe())
