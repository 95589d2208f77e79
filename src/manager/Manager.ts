/**
 * The manager as Effect layers: a supervised service that owns the state of its namespace, and its doors.
 *
 * `layer` makes the service (with an in-process door); `layerTcp` opens it to the network. Effect is at the edges only:
 * clock, alarm, store commits, logging, shutdown. The work is in `Core`.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { type Auth, keyText, userDefault } from "../auth/Auth.ts"
import { deriveVerifier, isKey, isName, iterationsFor, keyBytes, saltBytes } from "../auth/Credentials.ts"
import { ConfigurationInvalid, type ListenFailed, StoreBroken } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import type { QueueDefinition } from "../model/Queue.ts"
import { randomBytes } from "../platform/Crypto.ts"
import { type Address, type Connection, formatAddress, type Handler, Network } from "../platform/Network.ts"
import { pair } from "../platform/Pair.ts"
import { Store } from "../store/Store.ts"
import { Core, type Counters, type Host } from "./Core.ts"
import type { Gate } from "./Peer.ts"

export interface ManagerOptions {
  /** Queues this manager defines. Its definitions win over those of clients. */
  readonly queues: ReadonlyArray<{ readonly definition: Omit<QueueDefinition, "durability"> }>
  /** @internal For a simulation that checks the engine after every round. */
  readonly inspect?: ((core: Core) => void) | undefined
}

export class Manager extends Context.Service<
  Manager,
  {
    /** A connection inside this process, already trusted. */
    readonly connect: (handler: (connection: Connection) => Handler) => Connection
    /** Takes over a connection from a listener. */
    readonly accept: (connection: Connection, gate: Gate) => Handler
    /** Closes a door: refuses new work, tells its sessions, lets what is under way be answered, then closes them. */
    readonly close: (gate: Gate) => Effect.Effect<void>
    /** Fails when the manager can no longer be trusted: its store broke, or its engine did. */
    readonly failed: Effect.Effect<never, StoreBroken>
    readonly counters: Effect.Effect<Readonly<Counters>>
  }
>()("millrace/manager/Manager") {}

/** The address a listener is really bound to: port 0 has become a port. */
export class Listening extends Context.Service<Listening, { readonly address: Address }>()(
  "millrace/manager/Listening"
) {}

export const layer = (options: ManagerOptions): Layer.Layer<Manager, never, Store> =>
  Layer.effect(
    Manager,
    Effect.gen(function* () {
      const store = yield* Store
      const clock = yield* Clock.Clock
      const scope = yield* Effect.scope
      const run = Effect.runForkWith(yield* Effect.context<never>())
      // Engine time: the wall clock at the start, and from then on only what has passed since.
      const startedAt = clock.currentTimeMillisUnsafe()
      const startedNanos = clock.monotonicTimeNanosUnsafe()
      const now = (): number => startedAt + Number((clock.monotonicTimeNanosUnsafe() - startedNanos) / 1_000_000n)

      let alarm: { readonly at: number; readonly fiber: Fiber.Fiber<void> } | undefined
      const failure = yield* Deferred.make<never, StoreBroken>()
      let stopped = false
      let seq = 0
      const disarm = (): void => {
        if (alarm !== undefined) run(Fiber.interrupt(alarm.fiber))
        alarm = undefined
      }
      const host: Host = {
        now,
        alarm: (at) => {
          if (stopped) return
          // An alarm that is early costs one empty round; a new one per round would cost a fiber each.
          if (alarm !== undefined && alarm.at <= at) return
          disarm()
          if (at === Number.POSITIVE_INFINITY) return
          const waitMs = Math.min(Math.max(0, at - now()) + 1, 3_600_000)
          const ring = Effect.sync(() => {
            alarm = undefined
            core.wake()
          })
          alarm = { at, fiber: run(Effect.andThen(Effect.sleep(waitMs), ring)) }
        },
        commit: store.keeps
          ? (records, done) =>
              // A stub: rows without content, until records have bytes.
              void run(
                Effect.andThen(
                  store.commit({
                    rows: [{ seq: ++seq, body: new Uint8Array(records.length) }],
                    dropBefore: 0,
                    durability: "fsync"
                  }),
                  Effect.sync(done)
                ).pipe(
                  Effect.catchCause((cause) =>
                    // Nothing may be promised any more: every connection ends, and what waits is indefinite.
                    Effect.sync(() => {
                      core.stop()
                      host.failed(Cause.pretty(cause))
                    })
                  )
                )
              )
          : undefined,
        durability: store.durability,
        failed: (text) => {
          run(Effect.logError("the manager is broken and has stopped", text))
          Deferred.doneUnsafe(failure, Effect.fail(new StoreBroken({ reason: text.split("\n")[0] ?? "" })))
        },
        log: (level, text, details) => {
          const log = level === "info" ? Effect.logInfo : level === "warn" ? Effect.logWarning : Effect.logError
          run(log(text).pipe(Effect.annotateLogs({ room: "manager", ...details })))
        }
      }
      const core = new Core({
        queues: options.queues.map(({ definition }) => ({ ...definition, durability: store.durability })),
        host
      })
      options.inspect?.(core)
      yield* Effect.forkIn(
        Effect.forever(
          Effect.andThen(
            Effect.sleep("1 second"),
            Effect.sync(() => core.sweep())
          )
        ),
        scope
      )
      const idle = Effect.gen(function* () {
        while (!core.idle) yield* Effect.sleep("2 millis")
      })
      const close = (gate: Gate): Effect.Effect<void> =>
        Effect.sync(() => core.drain(gate)).pipe(
          Effect.andThen(Effect.timeoutOption(idle, "2 seconds")),
          Effect.andThen(Effect.sync(() => core.close(gate)))
        )
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          stopped = true
          disarm()
          core.stop()
        })
      )
      return Manager.of({
        connect: (handler) => pair((connection) => core.accept(connection, undefined), handler)[1],
        accept: (connection, gate) => core.accept(connection, gate),
        close,
        failed: Deferred.await(failure),
        counters: Effect.sync(() => ({ ...core.counters }))
      })
    })
  )

export interface ListenOptions {
  /** Default `127.0.0.1`. A wider bind is refused unless `insecureNetwork` is said. */
  readonly host?: string | undefined
  /** Default 8001; 0 takes any free port, see `Listening`. */
  readonly port?: number | undefined
  /** A Unix socket instead of host and port. */
  readonly path?: string | undefined
  /** The credentials that may log in. */
  readonly auth: Auth | ReadonlyArray<Auth>
  /**
   * Listens beyond this machine without TLS: whoever can read the network can read the tasks, and guess a weak key
   * offline. TLS with a join string comes in a later version.
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
      if (wide && options.insecureNetwork !== true) {
        return yield* new ConfigurationInvalid({
          field: "host",
          value: formatAddress(wanted),
          remedy:
            "a manager without TLS is only for this machine; bind 127.0.0.1, or say insecureNetwork (--insecure-network) on a network that you trust"
        })
      }
      if (wanted._tag === "Tcp" && !(wanted.port >= 0 && wanted.port <= 65_535)) {
        return yield* new ConfigurationInvalid({
          field: "port",
          value: String(wanted.port),
          remedy: "use 1 to 65535, or 0 for a free one"
        })
      }
      const gate = yield* makeGate(Array.isArray(options.auth) ? options.auth : [options.auth as Auth])
      const address = yield* network.listen(wanted, (connection) => manager.accept(connection, gate))
      if (wide) {
        yield* Effect.logWarning(
          `${formatAddress(address)} is open to the network without TLS (insecureNetwork): tasks travel in clear text.`
        )
      }
      yield* Effect.addFinalizer(() => manager.close(gate))
      return Listening.of({ address })
    })
  )

const makeGate = Effect.fnUntraced(function* (auths: ReadonlyArray<Auth>) {
  const verifiers = new Map<string, Effect.Success<ReturnType<typeof verifierOf>>>()
  for (const auth of auths) {
    const verifier = yield* verifierOf(auth)
    verifiers.set(verifier.name, verifier)
  }
  const gate: Gate = {
    verifier: (name) => verifiers.get(name),
    iterations: [...new Set(Array.from(verifiers.values(), (verifier) => verifier.iterations))],
    mockSecret: randomBytes(32)
  }
  return gate
})

const verifierOf = Effect.fnUntraced(function* (auth: Auth) {
  const name = auth.user ?? userDefault
  if (!isName(name)) {
    return yield* new ConfigurationInvalid({
      field: "auth.user",
      value: JSON.stringify(name),
      remedy: "use 1 to 200 characters of A-Z a-z 0-9 . _ : -"
    })
  }
  const key = keyBytes(keyText(auth))
  if (!isKey(key)) {
    return yield* new ConfigurationInvalid({
      field: "auth.key",
      value: `${key.byteLength} bytes long`,
      remedy: `use 1 to ${Limits.authkeyBytesMax} bytes`
    })
  }
  return yield* Effect.promise(() => deriveVerifier(name, key, randomBytes(saltBytes), iterationsFor(key)))
})
