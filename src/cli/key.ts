/** `millrace key`: makes credentials with roles, and shows what a file of them has. */
import * as Console from "effect/Console"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { keyText } from "../auth/Auth.ts"
import {
  deriveVerifier,
  encodeVerifier,
  generateKey,
  isKey,
  isName,
  iterationsFor,
  keyBytes,
  printable,
  saltBytes
} from "../auth/Credentials.ts"
import { encodeCredential } from "../auth/CredentialsFile.ts"
import { decodeGrants, type Grant } from "../auth/Roles.ts"
import { ConfigurationInvalid } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import { randomBytes } from "../platform/Crypto.ts"
import * as Credentials from "./credentials.ts"
import * as Options from "./options.ts"

const names = (flag: string, what: string) =>
  Flag.String(flag).pipe(
    Flag.withDescription(`${what}: names, or prefixes with a *, with commas between them`),
    Flag.optional
  )

const listOf = (text: Option.Option<string>): ReadonlyArray<string> =>
  Option.match(text, { onNone: () => [], onSome: (value) => value.split(",").map((name) => name.trim()) })

const grantsOf = (options: {
  readonly role: string
  readonly queues: Option.Option<string>
  readonly objects: Option.Option<string>
}): Effect.Effect<ReadonlyArray<Grant>, ConfigurationInvalid> => {
  const queues = listOf(options.queues)
  const objects = listOf(options.objects)
  const wanted = listOf(Option.some(options.role))
  // Several roles at once: an observer among them has no objects, the others do.
  const several = wanted.length > 1
  const grants = wanted.map((role) => ({ role, queues, objects: several && role === "observer" ? [] : objects }))
  const decoded = decodeGrants(grants)
  if (decoded._tag === "Decoded") return Effect.succeed(decoded.grants)
  const { field, remedy, value } = decoded.fault
  const last = field.split(".")[1]
  const flag = last === undefined ? "--queues" : `--${last}`
  const missing = last === undefined ? "give --queues 'NAME*' or --objects 'NAME*', '*' for all" : remedy
  return Effect.fail(
    new ConfigurationInvalid({ field: flag, value: last === undefined ? "missing" : value, remedy: missing })
  )
}

const verifierOf = Effect.fnUntraced(function* (name: string, text: string) {
  const key = keyBytes(text)
  if (!isKey(key)) {
    const value = `${key.byteLength} bytes long`
    return yield* new ConfigurationInvalid({
      field: "the key",
      value,
      remedy: `use 1 to ${Limits.authkeyBytesMax} bytes`
    })
  }
  return yield* Effect.promise(() => deriveVerifier(name, key, randomBytes(saltBytes), iterationsFor(key)))
})

const make = Command.make(
  "new",
  {
    name: Argument.String("name").pipe(
      Argument.withDescription("Name of the credential: the --user of who has the key")
    ),
    role: Flag.String("role").pipe(
      Flag.withDescription("producer, worker, observer or admin; several with commas between them")
    ),
    queues: names("queues", "Queues that it may use"),
    objects: names("objects", "Shared objects (sets, dicts, counters) that it may use"),
    file: Flag.String("file").pipe(
      Flag.withDescription("File of credentials to add it to; without one its line is printed after the key"),
      Flag.optional
    )
  },
  Effect.fn(function* (options) {
    const { file, name } = options
    if (!isName(name)) {
      const remedy = "use 1 to 200 characters of A-Z a-z 0-9 . _ : -"
      return yield* new ConfigurationInvalid({ field: "NAME", value: `"${printable(name)}"`, remedy })
    }
    const grants = yield* grantsOf(options)
    const key = generateKey(randomBytes(Limits.authkeyGeneratedBytes))
    const credential = { verifier: yield* verifierOf(name, key), grants }
    if (Option.isSome(file)) yield* Credentials.append(file.value, credential)
    yield* Console.log(key)
    if (Option.isSome(file)) {
      yield* Effect.logInfo(
        `added "${name}" to ${file.value}; its key is above, and nowhere else. A manager that runs reads the file when it starts again`
      )
    } else yield* Console.log(encodeCredential(credential))
  })
).pipe(
  Command.withDescription("Make a credential: prints its key once, and keeps a verifier"),
  Command.withExamples([
    {
      command: "millrace key new worker-1 --role worker --queues 'images*' --file credentials > worker-1.key",
      description: "A worker of the queues whose names begin with images"
    }
  ])
)

const verifier = Command.make(
  "verifier",
  { authkeyFile: Options.key.authkeyFile, authkeyEnv: Options.key.authkeyEnv },
  Effect.fn(function* (options) {
    const auth = yield* Options.readAuth({ ...options, authkey: Option.none(), user: "default" }, { generate: false })
    yield* Console.log(encodeVerifier(yield* verifierOf("default", keyText(auth))))
  })
).pipe(Command.withDescription("Print the verifier of a key that you have, for a file of credentials"))

const list = Command.make(
  "list",
  {
    file: Flag.String("file").pipe(Flag.withDescription("File of credentials")),
    json: Options.json
  },
  Effect.fn(function* ({ file, json }) {
    for (const { grants, verifier } of yield* Credentials.read(file)) {
      const { name } = verifier
      if (json) yield* Console.log(JSON.stringify({ name, roles: grants }))
      else yield* Console.log(`${name}  ${grants.map(grantText).join("; ")}`)
    }
  })
).pipe(Command.withDescription("List who is in a file of credentials, with roles and names"))

const grantText = ({ objects = [], queues = [], role }: Grant): string =>
  [
    role,
    ...(queues.length > 0 ? [`queues ${queues.join(",")}`] : []),
    ...(objects.length > 0 ? [`objects ${objects.join(",")}`] : [])
  ].join(" ")

export const key = Command.make("key").pipe(
  Command.withDescription("Credentials with roles: make one, list those of a file"),
  Command.withSubcommands([make, verifier, list])
)
