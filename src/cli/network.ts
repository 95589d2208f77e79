/** How a manager listens beyond this machine: its certificate, given or made, and the join string that names it. */

import * as Clock from "effect/Clock"
import * as Console from "effect/Console"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { fingerprintOf, makeCertificate } from "../auth/Certificate.ts"
import { decodeJoin, encodeJoin } from "../auth/Join.ts"
import { ConfigurationInvalid } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import { makeSigningKey, randomBytes } from "../platform/Crypto.ts"
import { type Address, formatAddress, type ServerTls } from "../platform/Network.ts"
import { createPrivateFile } from "../platform/PrivateFile.ts"
import { hostname, outsideAddress } from "../platform/Process.ts"
import * as Options from "./options.ts"

export const flags = {
  network: Flag.Boolean("network").pipe(
    Flag.withDescription("Listen for other machines, with TLS, and print the join string for programs there"),
    Flag.withDefault(false)
  ),
  advertise: Flag.String("advertise").pipe(
    Flag.withDescription("HOST or HOST:PORT by which other machines reach this one (default: its first address)"),
    Flag.optional
  ),
  tlsCert: Flag.String("tls-cert").pipe(
    Flag.withDescription("Certificate for TLS, PEM (default with --network: made once, and kept with the data)"),
    Flag.optional
  ),
  tlsKey: Flag.String("tls-key").pipe(Flag.withDescription("Its private key, PEM, mode 0600"), Flag.optional),
  tlsCa: Flag.String("tls-ca").pipe(
    Flag.withDescription("Ask every client for a certificate from these authorities, PEM"),
    Flag.optional
  ),
  insecureNetwork: Flag.Boolean("insecure-network").pipe(
    Flag.withDescription("Listen beyond this machine without TLS: only on a network that you trust"),
    Flag.withDefault(false)
  )
}

export interface NetworkOptions {
  readonly host: Option.Option<string>
  readonly network: boolean
  readonly advertise: Option.Option<string>
  readonly tlsCert: Option.Option<string>
  readonly tlsKey: Option.Option<string>
  readonly tlsCa: Option.Option<string>
  readonly insecureNetwork: boolean
}

/** What a manager listens with, and the name for it elsewhere; undefined: it is for this machine. */
export interface Listener {
  readonly host: string
  readonly insecureNetwork: boolean
  readonly tls: ServerTls | undefined
  readonly advertised: Place | undefined
}

interface Place {
  readonly host: string
  /** Undefined: the port that is listened on. */
  readonly port: number | undefined
}

export const thisMachine: Listener = {
  host: "127.0.0.1",
  insecureNetwork: false,
  tls: undefined,
  advertised: undefined
}

const everywhere = new Set(["0.0.0.0", "::"])
/** In the folder of the data. */
export const certificateFile = "manager.pem"

/** What to listen on and with which certificate. `folder`: where the one that is made is kept; undefined: nowhere. */
export const listening = (options: NetworkOptions, folder: string | undefined) =>
  Effect.flatMap(checked(options), (prepare) => prepare(folder))

/** Looks at the flags and the files that they name, before anything is made; then makes what is missing. */
export const checked = Effect.fnUntraced(function* (options: NetworkOptions) {
  const { insecureNetwork, network } = options
  const host = Option.getOrElse(options.host, () => (network ? "0.0.0.0" : "127.0.0.1"))
  if (network && insecureNetwork) {
    const remedy = "use one of the two: --network listens with TLS"
    return yield* new ConfigurationInvalid({ field: "--insecure-network", value: "given beside --network", remedy })
  }
  const given = yield* Options.certificate(options)
  const { advertise, tlsCa } = options
  if (given === undefined && !network) {
    for (const [flag, value] of [
      ["--tls-ca", tlsCa],
      ["--advertise", advertise]
    ] as const) {
      if (Option.isNone(value)) continue
      const remedy = "add --network, or --tls-cert and --tls-key"
      return yield* new ConfigurationInvalid({ field: flag, value: value.value, remedy })
    }
    return (_: string | undefined): Effect.Effect<Listener, ConfigurationInvalid> =>
      Effect.succeed({ ...thisMachine, host, insecureNetwork })
  }
  const place = Option.getOrElse(advertise, () => (everywhere.has(host) ? (outsideAddress() ?? hostname()) : host))
  const advertised = placeOf(place)
  if (advertised === undefined) {
    const remedy = "name a host by which others reach this machine, HOST or HOST:PORT: --advertise crawler.example.org"
    return yield* new ConfigurationInvalid({ field: "--advertise", value: JSON.stringify(place), remedy })
  }
  const clientAuthorities = Option.isSome(tlsCa) ? yield* Options.pemFile("--tls-ca", tlsCa.value) : undefined
  return (folder: string | undefined): Effect.Effect<Listener, ConfigurationInvalid> =>
    Effect.map(given === undefined ? ownCertificate(advertised.host, folder) : Effect.succeed(given), (made) => ({
      ...{ host, insecureNetwork, advertised },
      tls: { ...made, clientAuthorities }
    }))
})

/** A host, and a port where another one is reached from outside. Undefined: none that a join string can name. */
const placeOf = (text: string): Place | undefined => {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(text) ?? []
  // An IPv6 address may stand alone.
  const host = bracketed ?? plain ?? text
  const place = { host, port: port === undefined ? undefined : Number(port) }
  const sample = encodeJoin({ user: "default", host, port: place.port ?? 1, fingerprint: "0".repeat(64) })
  return decodeJoin(sample)._tag === "Decoded" ? place : undefined
}

/** The certificate that was made at the first start, or a new one. */
const ownCertificate = Effect.fnUntraced(function* (host: string, folder: string | undefined) {
  const now = yield* Clock.currentTimeMillis
  const { certificate, privateKey } = makeCertificate({
    key: makeSigningKey(),
    hosts: [host, hostname(), "localhost", "127.0.0.1"],
    serial: randomBytes(16),
    now
  })
  if (folder === undefined) {
    yield* Effect.logWarning("nothing is kept: the certificate, and so the join string, is another one at every start")
    return { certificate, privateKey }
  }
  const path = `${folder}/${certificateFile}`
  const kept = createPrivateFile(folder, certificateFile, `${certificate}${privateKey}`, Limits.pemBytesMax)
  if (kept._tag === "Refused") {
    return yield* new ConfigurationInvalid({ field: path, value: kept.value, remedy: kept.remedy })
  }
  return { certificate: kept.text, privateKey: kept.text }
})

/** Prints the join string: of `serve`, the one line on standard output. */
export const announce = Effect.fnUntraced(function* (
  { advertised, tls }: Listener,
  address: Address,
  user: string,
  print: (line: string) => Effect.Effect<void> = Console.log
) {
  const fingerprint = tls === undefined ? undefined : fingerprintOf(tls.certificate)
  if (advertised === undefined || fingerprint === undefined || address._tag === "Unix") return
  yield* Effect.logInfo(`TLS 1.3 on ${formatAddress(address)}; programs elsewhere need the line below and the key`)
  yield* print(encodeJoin({ user, host: advertised.host, port: advertised.port ?? address.port, fingerprint }))
})

/** For a program on this machine. */
export const joinHere = (tls: ServerTls | undefined, address: Address, user: string): string | undefined => {
  const fingerprint = tls === undefined ? undefined : fingerprintOf(tls.certificate)
  if (fingerprint === undefined || address._tag === "Unix") return undefined
  return encodeJoin({ user, host: reachable(address.host), port: address.port, fingerprint })
}

/** Where a listener is reached from this machine: one that listens everywhere, on the loopback. */
export const reachable = (host: string): string => (host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host)
