/**
 * The manager as Effect layers: a supervised service that owns the state of its namespace, and its doors.
 *
 * `layer` makes the service (with an in-process door); `layerTcp` opens it to the network. Effect is at the edges only:
 * supervision, logging, shutdown. One life of it is in `Life`, the work in `Core`.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { type Credential, keyText, userDefault } from "../auth/Auth.ts"
import {
  decodeVerifier,
  deriveVerifier,
  isKey,
  isName,
  iterationsFor,
  keyBytes,
  printable,
  saltBytes,
  type Verifier
} from "../auth/Credentials.ts"
import { decodeGrants, type Grant } from "../auth/Roles.ts"
import { ConfigurationInvalid, type ListenFailed, StoreBroken, type StoreDamaged } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import type { Durability } from "../model/Policy.ts"
import type { QueueDefinition } from "../model/Queue.ts"
import { randomBytes } from "../platform/Crypto.ts"
import {
  type Address,
  type Connection,
  formatAddress,
  type Handler,
  Network,
  type ServerTls
} from "../platform/Network.ts"
import { pair } from "../platform/Pair.ts"
import { serverFault } from "../platform/Tls.ts"
import { Store } from "../store/Store.ts"
import type { Versions } from "../wire/Vocabulary.ts"
import type { Core, Counters } from "./Core.ts"
import * as Life from "./Life.ts"
import type { Gate } from "./Peer.ts"

export interface ManagerOptions {
  /** Queues this manager defines. Its definitions win over those of clients. */
  readonly queues: ReadonlyArray<{ readonly definition: Omit<QueueDefinition, "durability"> }>
  /** Bytes of payloads and outcome bodies kept in memory when the store keeps them too. Default 256 MiB. */
  readonly residentBytesMax?: number | undefined
  /** @internal For a simulation that checks the engine after every round: each life's core, before its first row. */
  readonly inspect?: ((core: Core) => void) | undefined
  /** @internal For tests of peers that speak other versions. */
  readonly versions?: Versions | undefined
}

export class Manager extends Context.Service<
  Manager,
  {
    /** A connection inside this process, already trusted. */
    readonly connect: (handler: (connection: Connection) => Handler) => Connection
    /** Takes over a connection from a listener. */
    readonly accept: (connection: Connection, gate: Gate) => Handler
    /** Is told of a connection that did not get through its TLS handshake. */
    readonly failedHandshake: (peer: string, reason: string) => void
    /** Closes a door: refuses new work, tells its sessions, lets what is under way be answered, then closes them. */
    readonly close: (gate: Gate) => Effect.Effect<void>
    /** Fails when the manager has given up: its store broke, or its engine did, and starting again did not help. */
    readonly failed: Effect.Effect<never, StoreBroken>
    readonly counters: Effect.Effect<Readonly<Counters>>
    /** The best that an answer means here; a queue may ask for less. */
    readonly durability: Durability
  }
>()("millrace/manager/Manager") {}

/** The address a listener is really bound to: port 0 has become a port. */
export class Listening extends Context.Service<Listening, { readonly address: Address }>()(
  "millrace/manager/Listening"
) {}

/**
 * A manager, supervised: what fails is started again from its store after a wait; after `Limits.managerRestartsMax`
 * failures in a row `failed` says why it gave up. A manager that keeps nothing has nothing to start from, and gives up.
 */
export const layer = (options: ManagerOptions): Layer.Layer<Manager, StoreBroken | StoreDamaged, Store> =>
  Layer.effect(
    Manager,
    Effect.gen(function* () {
      const first = yield* Store
      const scope = yield* Effect.scope
      const failure = yield* Deferred.make<never, StoreBroken>()
      const lifeOptions = {
        queues: options.queues.map(({ definition }) => definition),
        residentBytesMax: options.residentBytesMax,
        inspect: options.inspect,
        versions: options.versions
      }
      let lifeScope = yield* Scope.fork(scope)
      let life = yield* Life.start(first, lifeOptions).pipe(Scope.provide(lifeScope))
      const draining = new Set<Gate>()

      const supervise = Effect.gen(function* () {
        let store = first
        let failures = 0
        for (;;) {
          const from = yield* Clock.currentTimeMillis
          let why = yield* life.failed
          yield* Scope.close(lifeScope, Exit.void)
          if ((yield* Clock.currentTimeMillis) - from >= Limits.managerHealthyMs) failures = 0
          for (;;) {
            failures++
            if (!store.keeps || failures >= Limits.managerRestartsMax) {
              yield* Effect.logFatal(`the manager gives up after ${failures} failures in a row`, why.message)
              return yield* Deferred.fail(failure, why)
            }
            const waitMs = Math.min(Limits.managerRestartCapMs, Limits.managerRestartBaseMs * 2 ** (failures - 1))
            yield* Effect.logWarning(`the manager starts again from its store in ${waitMs} ms`)
            yield* Effect.sleep(waitMs)
            lifeScope = yield* Scope.fork(scope)
            const again = yield* Effect.result(
              Effect.gen(function* () {
                store = yield* store.reopen
                return yield* Life.start(store, lifeOptions)
              }).pipe(Scope.provide(lifeScope))
            )
            if (again._tag === "Success") {
              life = again.success
              for (const gate of draining) life.core.drain(gate)
              break
            }
            why = new StoreBroken({ reason: again.failure.message })
            yield* Scope.close(lifeScope, Exit.void)
          }
        }
      })
      yield* Effect.forkIn(supervise, scope)
      yield* Effect.forkIn(
        Effect.forever(
          Effect.andThen(
            Effect.sleep(Limits.silenceLookMs),
            Effect.sync(() => life.core.sweep())
          )
        ),
        scope
      )
      const idle = Effect.gen(function* () {
        while (!life.core.idle) yield* Effect.sleep("2 millis")
      })
      const close = (gate: Gate): Effect.Effect<void> =>
        Effect.sync(() => {
          draining.add(gate)
          life.core.drain(gate)
        }).pipe(
          Effect.andThen(Effect.timeoutOption(idle, "2 seconds")),
          Effect.andThen(
            Effect.sync(() => {
              life.core.close(gate)
              draining.delete(gate)
            })
          )
        )
      return Manager.of({
        connect: (handler) => pair((connection) => life.core.accept(connection, undefined), handler)[1],
        accept: (connection, gate) => life.core.accept(connection, gate),
        failedHandshake: (peer, reason) => life.core.failedHandshake(peer, reason),
        close,
        failed: Deferred.await(failure),
        counters: Effect.sync(() => ({ ...life.core.counters })),
        durability: first.durability
      })
    })
  )

export interface ListenOptions {
  /** Default `127.0.0.1`. A wider bind is refused without `tls`, unless `insecureNetwork` is said. */
  readonly host?: string | undefined
  /** Default 8001; 0 takes any free port, see `Listening`. */
  readonly port?: number | undefined
  /** A Unix socket instead of host and port. */
  readonly path?: string | undefined
  /** The credentials that may log in, each with its roles; one without roles may do everything. */
  readonly auth: Credential | ReadonlyArray<Credential>
  /** TLS 1.3 with this certificate; PEM. Without it only programs on this machine are served. */
  readonly tls?: ServerTls | undefined
  /**
   * Listens beyond this machine without TLS: whoever can read the network can read the tasks, and guess a weak key
   * offline. Warned about at every start.
   */
  readonly insecureNetwork?: boolean | undefined
}

export const portDefault = 8001

const loopbacks = new Set(["127.0.0.1", "::1", "localhost"])

/** Opens the manager to the network until the scope closes; then drains and closes its connections. */
export const layerTcp = (
  options: ListenOptions
): Layer.Layer<Listening, ListenFailed | ConfigurationInvalid, Manager | Network> =>
  Layer.effect(
    Listening,
    Effect.gen(function* () {
      const manager = yield* Manager
      const network = yield* Network
      const wanted: Address =
        options.path === undefined
          ? { _tag: "Tcp", host: options.host ?? "127.0.0.1", port: options.port ?? portDefault }
          : { _tag: "Unix", path: options.path }
      const wide = wanted._tag === "Tcp" && !loopbacks.has(wanted.host)
      const plain = wide && options.tls === undefined
      if (plain && options.insecureNetwork !== true) {
        return yield* new ConfigurationInvalid({
          field: "host",
          value: formatAddress(wanted),
          remedy:
            "a manager without TLS is only for this machine: bind 127.0.0.1, or give it a certificate (--network makes one), or say insecureNetwork (--insecure-network) on a network that you trust"
        })
      }
      if (options.tls !== undefined) {
        const fault = wanted._tag === "Unix" ? "a Unix socket has no TLS" : serverFault(options.tls)
        if (fault !== undefined) {
          return yield* new ConfigurationInvalid({
            field: "tls",
            value: printable(fault),
            remedy: "give a certificate and its private key, both PEM, on a TCP port"
          })
        }
      }
      if (wanted._tag === "Tcp" && !(wanted.port >= 0 && wanted.port <= 65_535)) {
        return yield* new ConfigurationInvalid({
          field: "port",
          value: String(wanted.port),
          remedy: "use 1 to 65535, or 0 for a free one"
        })
      }
      const gate = yield* makeGate(Array.isArray(options.auth) ? options.auth : [options.auth as Credential])
      const address = yield* network.listen(
        wanted,
        (connection) => manager.accept(connection, gate),
        options.tls,
        manager.failedHandshake
      )
      if (plain) {
        yield* Effect.logWarning(
          `${formatAddress(address)} is open to the network without TLS (insecureNetwork): tasks travel in clear text.`
        )
      }
      yield* Effect.addFinalizer(() => manager.close(gate))
      return Listening.of({ address })
    })
  )

interface Admission {
  readonly verifier: Verifier
  readonly grants: ReadonlyArray<Grant> | undefined
}

const makeGate = Effect.fnUntraced(function* (credentials: ReadonlyArray<Credential>) {
  if (credentials.length === 0) {
    const remedy = "give at least one: without any nobody could log in"
    return yield* new ConfigurationInvalid({ field: "auth", value: "no credentials", remedy })
  }
  if (credentials.length > Limits.credentialsMax) {
    return yield* new ConfigurationInvalid({
      field: "auth",
      value: `${credentials.length} credentials`,
      remedy: `use at most ${Limits.credentialsMax}; programs that may do the same can share one`
    })
  }
  const admissions = new Map<string, Admission>()
  for (const credential of credentials) {
    const verifier = yield* verifierOf(credential)
    if (admissions.has(verifier.name)) {
      return yield* new ConfigurationInvalid({
        field: "auth.user",
        value: `"${verifier.name}" twice`,
        remedy: "give each credential a name of its own"
      })
    }
    admissions.set(verifier.name, { verifier, grants: yield* grantsOf(verifier.name, credential) })
  }
  const gate: Gate = {
    verifier: (name) => admissions.get(name)?.verifier,
    grants: (name) => admissions.get(name)?.grants,
    iterations: [...new Set(Array.from(admissions.values(), ({ verifier }) => verifier.iterations))],
    mockSecret: randomBytes(32)
  }
  return gate
})

const grantsOf = (
  name: string,
  { roles }: Credential
): Effect.Effect<ReadonlyArray<Grant> | undefined, ConfigurationInvalid> => {
  if (roles === undefined) return Effect.succeed(undefined)
  const decoded = decodeGrants(roles)
  if (decoded._tag === "Decoded") return Effect.succeed(decoded.grants)
  const { field, remedy, value } = decoded.fault
  return Effect.fail(new ConfigurationInvalid({ field: `auth.${field} of credential "${name}"`, value, remedy }))
}

const verifierOf = Effect.fnUntraced(function* (credential: Credential) {
  const name = credential.user ?? userDefault
  if (!isName(name)) {
    return yield* new ConfigurationInvalid({
      field: "auth.user",
      value: `"${printable(name)}"`,
      remedy: "use 1 to 200 characters of A-Z a-z 0-9 . _ : -"
    })
  }
  if (!("key" in credential)) {
    const decoded = decodeVerifier(name, credential.verifier)
    if (decoded._tag === "Decoded") return decoded.verifier
    return yield* new ConfigurationInvalid({
      field: `auth.verifier of credential "${name}"`,
      value: decoded.reason,
      remedy: "use what millrace key verifier prints"
    })
  }
  const key = keyBytes(keyText(credential))
  if (!isKey(key)) {
    return yield* new ConfigurationInvalid({
      field: "auth.key",
      value: `${key.byteLength} bytes long`,
      remedy: `use 1 to ${Limits.authkeyBytesMax} bytes`
    })
  }
  return yield* Effect.promise(() => deriveVerifier(name, key, randomBytes(saltBytes), iterationsFor(key)))
})
