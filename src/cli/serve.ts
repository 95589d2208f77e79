/** `millrace serve`: a manager, until SIGINT or SIGTERM. */

import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import { type Credential, userDefault } from "../auth/Auth.ts"
import { encodeVerifier } from "../auth/Credentials.ts"
import { ConfigurationInvalid } from "../Errors.ts"
import * as Manager from "../Manager.ts"
import { formatAddress } from "../platform/Network.ts"
import * as Credentials from "./credentials.ts"
import * as Network from "./network.ts"
import * as Options from "./options.ts"
import * as Stores from "./storeOptions.ts"

/**
 * Who may log in. Beside a file of credentials the key that may do everything is there only if a flag names it: a variable
 * that happens to be set must not open what the file closes.
 */
const admitted = Effect.fnUntraced(function* (
  options: Options.KeyOptions & { readonly user: string; readonly credentials: Option.Option<string> }
) {
  const { authkey, authkeyEnv, authkeyFile, credentials: file } = options
  if (Option.isNone(file)) return [yield* Options.readAuth(options, { generate: true })]
  const admitted: Array<Credential> = (yield* Credentials.read(file.value)).map(({ grants, verifier }) => {
    return { user: verifier.name, verifier: encodeVerifier(verifier), roles: grants }
  })
  if ([authkey, authkeyEnv, authkeyFile].some(Option.isSome)) {
    admitted.push(yield* Options.readAuth(options, { generate: true }))
  }
  if (admitted.length > 0) return admitted
  return yield* new ConfigurationInvalid({
    field: "--credentials",
    value: `${file.value}, which has none`,
    remedy: `add one: millrace key new NAME --role admin --queues '*' --objects '*' --file ${file.value}`
  })
})

export const serve = Command.make(
  "serve",
  {
    host: Flag.String("host").pipe(
      Flag.withDescription("Address to listen on (default 127.0.0.1; with --network 0.0.0.0)"),
      Flag.optional
    ),
    port: Flag.Int("port").pipe(
      Flag.withDescription("Port to listen on (default 8001); 0 takes a free one"),
      Flag.withDefault(8001)
    ),
    data: Flag.String("data").pipe(
      Flag.withDescription("Folder that keeps the queues; one manager a folder (default millrace-data)"),
      Flag.optional
    ),
    durability: Stores.durability,
    memory: Stores.memory,
    acceptLoss: Flag.Boolean("accept-loss").pipe(
      Flag.withDescription("Open data that lacks what was committed: a backup put back, or a loss that is final"),
      Flag.withDefault(false)
    ),
    user: Options.user,
    ...Options.key,
    credentials: Flag.String("credentials").pipe(
      Flag.withDescription("File of credentials with roles, as millrace key new makes it; mode 0600"),
      Flag.optional
    ),
    ...Network.flags
  },
  Effect.fn(function* (options) {
    yield* Options.portOf(options.port)
    const wrong = Stores.fault(options)
    if (wrong !== undefined) return yield* wrong
    const path = yield* Path.Path
    const folder = Option.getOrElse(options.data, () => "millrace-data")
    const directory = options.memory ? undefined : path.resolve(folder)
    const auth = yield* admitted(options)
    const at = yield* Network.listening(options, directory)
    const serving = Effect.gen(function* () {
      const { address } = yield* Manager.Listening
      const manager = yield* Manager.Manager
      const kept = Stores.words(manager.durability, directory)
      yield* Effect.logInfo(`manager listening on ${formatAddress(address)}, ${kept}`)
      yield* Network.announce(at, address, auth[0]?.user ?? userDefault)
      return yield* manager.failed
    })
    const { acceptLoss, durability, port } = options
    const { host, insecureNetwork, tls } = at
    const live = Manager.layerTcp({ host, port, auth, insecureNetwork, tls }).pipe(
      Layer.provideMerge(Manager.layer({ queues: [] })),
      Layer.provide(Stores.layer(directory, Option.getOrUndefined(durability), acceptLoss))
    )
    yield* Effect.provide(serving, live)
  })
).pipe(
  Command.withDescription("Run a manager: it holds the queues that masters and workers connect to"),
  Command.withExamples([
    {
      command: "millrace serve --authkey-file millrace.key",
      description: "On this machine, with a key made at the first start; queues are kept in ./millrace-data"
    },
    { command: "millrace serve --memory --authkey-file millrace.key", description: "Nothing is kept" },
    {
      command: "millrace serve --network --authkey-file millrace.key",
      description: "For programs on other machines: prints the join string that they need"
    },
    {
      command: "millrace serve --credentials credentials --authkey-file admin.key",
      description: "Programs with roles, and a key that may do everything"
    }
  ])
)
