/** `millrace serve`: a manager, until SIGINT or SIGTERM. */

import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Manager from "../Manager.ts"
import { formatAddress } from "../platform/Network.ts"
import * as Store from "../Store.ts"
import * as Options from "./options.ts"

export const insecureNetwork = Flag.Boolean("insecure-network").pipe(
  Flag.withDescription("Listen beyond this machine without TLS: only on a network that you trust"),
  Flag.withDefault(false)
)

export const serve = Command.make(
  "serve",
  {
    host: Flag.String("host").pipe(
      Flag.withDescription("Address to listen on (default 127.0.0.1)"),
      Flag.withDefault("127.0.0.1")
    ),
    port: Flag.Int("port").pipe(
      Flag.withDescription("Port to listen on (default 8001); 0 takes a free one"),
      Flag.withDefault(8001)
    ),
    user: Options.user,
    ...Options.key,
    insecureNetwork
  },
  Effect.fn(function* (options) {
    yield* Options.portOf(options.port)
    const auth = yield* Options.readAuth(options, { generate: true })
    const serving = Effect.gen(function* () {
      const { address } = yield* Manager.Listening
      yield* Effect.logInfo(`manager listening on ${formatAddress(address)}, durability: memory`)
      const manager = yield* Manager.Manager
      return yield* manager.failed
    })
    const { host, insecureNetwork, port } = options
    const live = Manager.layerTcp({ host, port, auth, insecureNetwork }).pipe(
      Layer.provideMerge(Manager.layer({ queues: [] })),
      Layer.provide(Store.layerMemory)
    )
    yield* Effect.provide(serving, live)
  })
).pipe(
  Command.withDescription("Run a manager: it holds the queues that masters and workers connect to"),
  Command.withExamples([
    {
      command: "millrace serve --authkey-file millrace.key",
      description: "On this machine, with a key made at the first start"
    }
  ])
)
