/** The flags that several commands share, and how a key is found. */

import * as Flag from "effect/cli/Flag"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { type Auth, userDefault } from "../auth/Auth.ts"
import { generateKey, printable } from "../auth/Credentials.ts"
import { type AddressInput, type Place, parseAddress, placesOf, userOf } from "../client/Addresses.ts"
import { ConfigurationInvalid } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import { randomBytes } from "../platform/Crypto.ts"
import { readPrivateFile } from "../platform/PrivateFile.ts"
import { environment, readableByOthers } from "../platform/Process.ts"

const host = Flag.String("host").pipe(Flag.withDescription("Address of the manager (default 127.0.0.1)"), Flag.optional)

const port = Flag.Int("port").pipe(Flag.withDescription("Port of the manager (default 8001)"), Flag.optional)

const address = Flag.String("address").pipe(
  Flag.withDescription(
    "HOST:PORT, [IPv6]:PORT, a socket's path or a join string; repeat it for others, tried in order"
  ),
  Flag.atLeast(0)
)

const userWords = "Name of the credential (default: default)"
export const user = Flag.String("user").pipe(Flag.withDescription(userWords), Flag.withDefault("default"))

const authkeyFile = Flag.String("authkey-file").pipe(
  Flag.withDescription("File with the shared key (serve and crawl make it when it is not there)"),
  Flag.optional
)
const authkeyEnv = Flag.String("authkey-env").pipe(
  Flag.withDescription("Variable of the environment with the shared key (default MILLRACE_AUTHKEY)"),
  Flag.optional
)
const authkey = Flag.String("authkey").pipe(
  Flag.withDescription("The shared key itself; other users of this machine can see it"),
  Flag.optional
)

/** Where the key comes from. */
export const key = { authkeyFile, authkeyEnv, authkey }

const join = Flag.String("join").pipe(
  Flag.withDescription("The line that a manager on a network prints, instead of --host, --port and --user"),
  Flag.optional
)
const tls = Flag.Boolean("tls").pipe(
  Flag.withDescription("Connect with TLS 1.3; the certificate of the manager comes from a known authority"),
  Flag.withDefault(false)
)
const tlsCa = Flag.String("tls-ca").pipe(
  Flag.withDescription("Connect with TLS 1.3; the certificate comes from an authority in this file, PEM"),
  Flag.optional
)
const tlsCert = Flag.String("tls-cert").pipe(
  Flag.withDescription("Certificate of this program, PEM, for a manager that asks for one"),
  Flag.optional
)
const tlsKey = Flag.String("tls-key").pipe(Flag.withDescription("Its private key, PEM, mode 0600"), Flag.optional)

/** Where the manager is, and with which key. */
export const connection = {
  ...{ host, port, address, user: Flag.optional(Flag.String("user").pipe(Flag.withDescription(userWords))), ...key },
  ...{ join, tls, tlsCa, tlsCert, tlsKey }
}

export const json = Flag.Boolean("json").pipe(Flag.withDescription("Print JSON for machines"), Flag.withDefault(false))

/** The duration that a flag was given as text. */
export const duration = (flag: string, text: string): Effect.Effect<Duration.Duration, ConfigurationInvalid> => {
  const parsed = Duration.fromInput(text as Duration.Input)
  if (Option.isSome(parsed)) return Effect.succeed(parsed.value)
  const remedy = 'use a number and a unit, such as "5 minutes"'
  return Effect.fail(new ConfigurationInvalid({ field: flag, value: JSON.stringify(text), remedy }))
}

export interface KeyOptions {
  readonly authkeyFile: Option.Option<string>
  readonly authkeyEnv: Option.Option<string>
  readonly authkey: Option.Option<string>
}

export interface ConnectionOptions extends KeyOptions {
  readonly host: Option.Option<string>
  readonly port: Option.Option<number>
  readonly address: ReadonlyArray<string>
  readonly user: Option.Option<string>
  readonly join: Option.Option<string>
  readonly tls: boolean
  readonly tlsCa: Option.Option<string>
  readonly tlsCert: Option.Option<string>
  readonly tlsKey: Option.Option<string>
}

/** What the flags of a client say, for `Client.layerTcp`. */
export const connect = Effect.fnUntraced(function* (options: ConnectionOptions) {
  const at = yield* whereabouts(options)
  const user = Option.getOrElse(options.user, () => at.user ?? userDefault)
  const auth = yield* readAuth({ ...options, user }, { generate: false })
  const own = yield* certificate(options)
  const authorities = Option.isSome(options.tlsCa) ? yield* pemFile("--tls-ca", options.tlsCa.value) : undefined
  const secure = options.tls || authorities !== undefined || own !== undefined
  return { addresses: at.addresses, auth, tls: secure ? { ...own, authorities } : undefined }
})

/** Where the flags say that managers are, and the credential that their join strings name. */
const whereabouts = Effect.fnUntraced(function* ({ address, host, join, port, user }: ConnectionOptions) {
  const refused = (field: string, value: string, remedy: string) => new ConfigurationInvalid({ field, value, remedy })
  if (Option.isSome(port)) yield* portTo(port.value)
  if (address.length === 0) {
    const [flag, input]: readonly [string, AddressInput] = Option.isSome(join)
      ? ["--join", { join: join.value }]
      : ["--host", { host: Option.getOrElse(host, () => "127.0.0.1"), port: Option.getOrUndefined(port) }]
    const places = placesOf({ addresses: [input] })
    if (places instanceof ConfigurationInvalid) return yield* refused(flag, places.value, places.remedy)
    return { addresses: [input], user: userOf(places)?.user }
  }
  for (const [flag, value] of Object.entries({ host, port, join })) {
    if (Option.isSome<unknown>(value))
      return yield* refused("--address", `given beside --${flag}`, "use one of the two")
  }
  if (address.length > Limits.addressesMax) {
    return yield* refused("--address", `given ${address.length} times`, `give at most ${Limits.addressesMax}`)
  }
  const addresses: Array<AddressInput> = []
  const all: Array<Place> = []
  for (const text of address) {
    const value = `"${printable(text)}"`
    const input = parseAddress(text)
    if (input === undefined) return yield* refused("--address", value, addressRemedy)
    const places = placesOf({ addresses: [input] })
    if (places instanceof ConfigurationInvalid) {
      return yield* refused("--address", "join" in input ? places.value : value, places.remedy)
    }
    addresses.push(input)
    all.push(...places)
  }
  const named = userOf(all)
  if (named === undefined && Option.isNone(user)) {
    return yield* refused("--address", "given join strings of several credentials", "say which one with --user")
  }
  return { addresses, user: named?.user }
})

const addressRemedy = "use HOST:PORT, [IPv6]:PORT, the path of a socket with a slash, or a join string"

/** The text of a file that is no secret. */
export const pemFile = Effect.fnUntraced(function* (flag: string, file: string) {
  const fs = yield* FileSystem.FileSystem
  return yield* fs.readFileString(file).pipe(
    Effect.mapError(() => {
      return new ConfigurationInvalid({ field: flag, value: file, remedy: "the file cannot be read; check the path" })
    })
  )
})

/** A certificate and its key, which come together. */
export const certificate = Effect.fnUntraced(function* (options: {
  readonly tlsCert: Option.Option<string>
  readonly tlsKey: Option.Option<string>
}) {
  const { tlsCert, tlsKey } = options
  if (Option.isNone(tlsCert) && Option.isNone(tlsKey)) return undefined
  if (Option.isNone(tlsCert) || Option.isNone(tlsKey)) {
    const [field, other] = Option.isNone(tlsKey) ? ["--tls-cert", "--tls-key"] : ["--tls-key", "--tls-cert"]
    return yield* new ConfigurationInvalid({ field, value: "given alone", remedy: `give ${other} as well` })
  }
  const text = yield* pemFile("--tls-cert", tlsCert.value)
  const key = readPrivateFile(tlsKey.value, Limits.pemBytesMax)
  if (key._tag === "Refused") {
    const value = `${tlsKey.value}, which is ${key.value}`
    return yield* new ConfigurationInvalid({ field: "--tls-key", value, remedy: key.remedy })
  }
  return { certificate: text, privateKey: key.text }
})

/** Refuses a number out of range, in the words of the flag. */
export const inRange = (
  flag: string,
  value: number,
  min: number,
  max?: number
): Effect.Effect<void, ConfigurationInvalid> =>
  value >= min && value <= (max ?? Number.MAX_SAFE_INTEGER)
    ? Effect.void
    : Effect.fail(
        new ConfigurationInvalid({
          field: flag,
          value: String(value),
          remedy: max === undefined ? `use ${min} or more` : `use ${min} to ${max}`
        })
      )

/** A port to connect to. */
export const portTo = (port: number) => inRange("--port", port, 1, 65_535)
/** A port to listen on; 0 is a free one. */
export const portOf = (port: number) => inRange("--port", port, 0, 65_535)

export const keyVariable = "MILLRACE_AUTHKEY"

/** The credential that the flags name. `generate`: a key file that is not there is made. */
export const readAuth = Effect.fnUntraced(function* (
  options: KeyOptions & { readonly user: string },
  mode: { readonly generate: boolean }
) {
  const text = yield* readKey(options, mode)
  const auth: Auth = { user: options.user, key: Redacted.make(text) }
  return auth
})

const readKey = Effect.fnUntraced(function* (options: KeyOptions, mode: { readonly generate: boolean }) {
  if (Option.isSome(options.authkey)) {
    yield* Effect.logWarning(
      "--authkey is visible to every user of this machine; prefer --authkey-file or --authkey-env"
    )
    return yield* nonEmpty("--authkey", options.authkey.value)
  }
  if (Option.isSome(options.authkeyFile)) return yield* readKeyFile(options.authkeyFile.value, mode.generate)
  const variable = Option.getOrElse(options.authkeyEnv, () => keyVariable)
  const found = environment(variable)
  if (found !== undefined) return yield* nonEmpty(variable, found)
  return yield* new ConfigurationInvalid({
    field: "the key",
    value: "missing",
    remedy: `give --authkey-file FILE (millrace serve makes the file), or set ${variable}`
  })
})

const readKeyFile = Effect.fnUntraced(function* (file: string, generate: boolean) {
  const fs = yield* FileSystem.FileSystem
  const unreadable = (reason: string) =>
    new ConfigurationInvalid({ field: "--authkey-file", value: file, remedy: reason })
  if (generate && !(yield* Effect.orElseSucceed(fs.exists(file), () => false))) {
    const key = generateKey(randomBytes(Limits.authkeyGeneratedBytes))
    yield* fs
      .writeFileString(file, `${key}\n`, { flag: "wx", mode: 0o600 })
      .pipe(Effect.mapError(() => unreadable("the file cannot be made; name one in a folder you may write to")))
    yield* Effect.logInfo(`made a new key in ${file}`)
    return key
  }
  const text = yield* fs
    .readFileString(file)
    .pipe(Effect.mapError(() => unreadable("the file cannot be read; check the path, or let millrace serve make it")))
  const stat = yield* Effect.option(fs.stat(file))
  if (Option.isSome(stat) && readableByOthers(stat.value.mode) === true) {
    yield* Effect.logWarning(`${file} can be read by other users; run: chmod 600 ${file}`)
  }
  return yield* nonEmpty(file, text.trim())
})

const nonEmpty = (source: string, text: string): Effect.Effect<string, ConfigurationInvalid> =>
  text.length > 0
    ? Effect.succeed(text)
    : Effect.fail(
        new ConfigurationInvalid({ field: "the key", value: `empty in ${source}`, remedy: "put a key there" })
      )
