import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Client, Manager, Store } from "millrace"

export const auth = { key: "a-secret-of-the-contract-tests-0123456789ab" }

export const inProcess = Manager.layer({ queues: [] }).pipe(Layer.provide(Store.layerMemory))

/** A manager on a free port of this machine. */
export const listening = Manager.layerTcp({ port: 0, auth }).pipe(Layer.provide(inProcess))

/** Another client of the manager that listens. */
export const connected = Layer.unwrap(
  Effect.map(Manager.Listening, ({ address }) =>
    Client.layerTcp({ port: address._tag === "Tcp" ? address.port : 0, auth })
  )
)

export const overTcp = connected.pipe(Layer.provideMerge(listening))
