/**
 * The client as a service: one link to one manager, and the queues opened on it.
 *
 * What a program does with queues is in `TaskQueue`; this holds what all queues share: asking, opening, task ids, and
 * turning refusals of the protocol into the errors of `Errors.ts`.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Auth } from "../auth/Auth.ts"
import type { Join } from "../auth/Join.ts"
import * as Errors from "../Errors.ts"
import * as Limits from "../Limits.ts"
import * as Policy from "../model/Policy.ts"
import { Code } from "../model/Refusal.ts"
import { type ClientTls, formatAddress, Network } from "../platform/Network.ts"
import type * as ClientMessages from "../wire/ClientMessages.ts"
import type * as ManagerMessages from "../wire/ManagerMessages.ts"
import { ClientType as C, ManagerType as M, type QueueStats } from "../wire/Vocabulary.ts"
import { type AddressInput, type Place, placesOf, userOf } from "./Addresses.ts"
import { type Door, Link, type LoginError as LinkError, type LinkOptions, type Resident, type Settle } from "./Link.ts"

/** What a client needs to know of a queue to open it. */
export interface OpenableQueue {
  /** Whether opening it may make it. */
  readonly create: boolean
  readonly definition: {
    readonly name: string
    readonly fingerprint: Uint8Array
    readonly schema: string
    readonly accepts: ReadonlyArray<Uint8Array>
    readonly policy: Policy.Policy
  }
}

/** A queue as the manager has it: its number in this session, and its policy, which wins over ours. */
export interface OpenQueue {
  readonly id: number
  readonly policy: Policy.Policy
  readonly durability: string
  /** Where a reader of outcomes starts by default: what the log held when this client first opened the queue. */
  readonly outcomesFrom: number
}

export class Client extends Context.Service<Client, ClientShape>()("millrace/client/Client") {}

export interface ClientShape {
  readonly link: Link
  readonly leases: HandLeases
  readonly gets: Gets
  /** Opens the queue, once per session. */
  readonly open: (queue: OpenableQueue) => Effect.Effect<OpenQueue, Errors.RequestError>
  /** The same without waiting, if the queue is open already. */
  readonly opened: (queue: OpenableQueue) => OpenQueue | undefined
  /** Asks and waits. Interruption abandons the answer. */
  readonly ask: (
    make: (request: number) => ClientMessages.Request
  ) => Effect.Effect<Exclude<ManagerMessages.Answer, ManagerMessages.Refused>, Errors.RequestError | Refusal>
}

/** An answer that says no; operations turn it into their errors with `failureOf`. */
export class Refusal {
  readonly _tag = "Refusal"
  readonly refused: ManagerMessages.Refused
  constructor(refused: ManagerMessages.Refused) {
    this.refused = refused
  }
}

export const make = (link: Link): ClientShape => {
  // By definition, not by name: another definition of the same name must face the manager's comparison of its own.
  let queues = new WeakMap<OpenableQueue["definition"], OpenQueue>()
  let generation = link.generation
  const fresh = (): void => {
    // A new session may be with another life of the manager: numbers and cursors of the old one mean nothing there.
    if (link.generation !== generation) queues = new WeakMap()
    generation = link.generation
  }
  const ask: ClientShape["ask"] = (make) =>
    Effect.callback((resume) => {
      const message = make(link.nextRequest)
      const settle: Settle = (answer) => {
        if (answer instanceof Error) resume(Effect.fail(answer))
        else if (answer.type === M.refused) resume(Effect.fail(new Refusal(answer)))
        else resume(Effect.succeed(answer))
      }
      // A stream belongs to its connection: whoever follows it opens another one.
      link.ask(
        message,
        settle,
        message.type !== C.follow && message.type !== C.subscribe && message.type !== C.unsubscribe
      )
      return Effect.sync(() => link.abandon(message.request))
    })
  const opened: ClientShape["opened"] = (queue) => {
    fresh()
    return queues.get(queue.definition)
  }
  const open: ClientShape["open"] = (queue) =>
    Effect.suspend(() => {
      const known = opened(queue)
      if (known !== undefined) return Effect.succeed(known)
      const { definition } = queue
      return ask((request) => ({
        type: C.open,
        request,
        name: definition.name,
        fingerprint: definition.fingerprint,
        schema: definition.schema.slice(0, Limits.schemaTextBytesMax / 4),
        accepts: definition.accepts,
        policy: queue.create ? Policy.toNumbers(definition.policy) : undefined
      })).pipe(
        Effect.catchTag("Refusal", (refusal) => Effect.fail(requestErrorOf(refusal))),
        Effect.flatMap((answer) => {
          if (answer.type !== M.opened) return Effect.fail(unexpected(answer))
          const other = opened(queue)
          const open: OpenQueue = other ?? {
            id: answer.queue,
            policy: Policy.fromNumbers(answer.policy),
            durability: answer.durability,
            outcomesFrom: answer.outcomesNext
          }
          queues.set(definition, open)
          return Effect.succeed(open)
        })
      )
    })
  const leases = new HandLeases()
  const gets = new Gets(link)
  link.residents.add(leases).add(gets)
  return { link, leases, gets, open, opened, ask }
}

/**
 * Acknowledgements of `get` that the manager may not have heard: said again when the session resumes, so that what a
 * program took for good is not handed to it twice. A heartbeat's answer proves all that was said before it.
 */
export class Gets implements Resident {
  readonly #link: Link
  #unproven: Array<{ readonly task: number; readonly fence: number; readonly sequence: number }> = []

  constructor(link: Link) {
    this.#link = link
  }

  acknowledge(task: number, fence: number): void {
    this.#unproven.push({ task, fence, sequence: this.#link.nextHeartbeat })
    this.#link.tell({ type: C.acknowledge, held: [task, fence] })
    // Bounded: a program that takes fast has them proven often.
    if (this.#unproven.length % 1_024 === 0) this.#link.heartbeat()
  }

  heard(sequence: number): void {
    this.#unproven = this.#unproven.filter((get) => get.sequence > sequence)
  }

  kept(into: Array<number>): void {
    for (const { fence, task } of this.#unproven) into.push(task, fence)
  }

  up(resumed: boolean): void {
    if (!resumed) this.#unproven = []
    else if (this.#unproven.length > 0) {
      this.#link.tell({ type: C.acknowledge, held: this.#unproven.flatMap(({ fence, task }) => [task, fence]) })
    }
  }
}

/**
 * Leases taken by hand, so that a session that resumes can name them. A lease that its owner forgot leaves when its term
 * is over: the list is bounded by what can be leased in one term.
 */
export class HandLeases implements Resident {
  readonly #leases = new Map<number, { readonly fence: number; readonly until: number }>()

  add(task: number, fence: number, now: number, leaseMs: number): void {
    // In the order in which they were taken, or renewed: the first ones are the oldest.
    this.#leases.delete(task)
    this.#leases.set(task, { fence, until: now + leaseMs })
    for (const [old, { until }] of this.#leases) {
      if (until > now) break
      this.#leases.delete(old)
    }
  }

  end(task: number): void {
    this.#leases.delete(task)
  }

  kept(into: Array<number>): void {
    for (const [task, { fence }] of this.#leases) into.push(task, fence)
  }

  lost(tasks: ReadonlySet<number>): void {
    for (const task of tasks) this.#leases.delete(task)
  }

  up(resumed: boolean): void {
    if (!resumed) this.#leases.clear()
  }
}

export const unexpected = (answer: ManagerMessages.Answer): Errors.ProtocolViolated =>
  new Errors.ProtocolViolated({ reason: `the manager answered with message ${answer.type}` })

/** Counts of every queue. */
export const allStats = (client: ClientShape): Effect.Effect<ReadonlyArray<QueueStats>, Errors.RequestError> =>
  client
    .ask((request) => ({ type: C.stats, request, queue: undefined }))
    .pipe(
      Effect.catchTag("Refusal", (refusal) => Effect.fail(requestErrorOf(refusal))),
      Effect.flatMap((answer) =>
        answer.type === M.stats ? Effect.succeed(answer.queues) : Effect.fail(unexpected(answer))
      )
    )

/** The errors that any request may end with. A refusal that the operation should have handled is a broken protocol. */
export const requestErrorOf = ({ refused }: Refusal): Errors.RequestError => {
  const { code, limit, subject, value } = refused
  switch (code) {
    case Code.queueNotFound:
      return new Errors.QueueNotFound({ queue: subject })
    case Code.schemaMismatch: {
      const [queue = "", ...difference] = subject.split("\n")
      return new Errors.SchemaMismatch({ queue, difference: difference.join(" ") })
    }
    case Code.definitionInvalid: {
      const [queue = "", field = "", remedy = "", text = String(value)] = subject.split("\n")
      return new Errors.DefinitionInvalid({ queue, field, value: text, remedy })
    }
    case Code.limitExceeded:
      return new Errors.LimitExceeded({ limit: subject, value, max: limit })
    case Code.notPermitted:
      return new Errors.NotPermitted({ action: subject })
    case Code.unsupported:
      return new Errors.Unsupported({ feature: subject })
    case Code.draining:
      return new Errors.Draining()
    case Code.storeFull:
      return new Errors.StoreFull({ neededBytes: value })
    default:
      return new Errors.ProtocolViolated({ reason: `the manager refused with code ${code} (${subject})` })
  }
}

// ---- layers

export interface ConnectOptions {
  /** Default `127.0.0.1`. */
  readonly host?: string | undefined
  /** Default 8001. */
  readonly port?: number | undefined
  /** A Unix socket instead of host and port. */
  readonly path?: string | undefined
  /**
   * Several managers, or several ways to one, instead of host, port, path and join: at most 16, tried in order. The one
   * that let this client in is remembered and tried first. A session is with one manager: at another one it begins anew.
   */
  readonly addresses?: ReadonlyArray<AddressInput> | undefined
  readonly auth: Auth
  /**
   * The line that a manager on a network prints: host, port, name of the credential and the fingerprint of its
   * certificate, instead of host, port and path. A `user` in `auth` wins over its name.
   */
  readonly join?: string | undefined
  /** TLS 1.3. `true`: the manager's certificate comes from an authority that the runtime knows. Default: without `join`, none. */
  readonly tls?: boolean | ClientTls | undefined
  /**
   * Whether the login must be bound to its TLS connection (SCRAM-SHA-256-PLUS, RFC 9266). Default false: it is bound where
   * both runtimes can (Node and Bun; not Deno).
   */
  readonly channelBinding?: "required" | undefined
  /**
   * Whether a manager that does not answer yet is waited for. Default false: the layer fails with `ConnectFailed`. After
   * the first login the client always reconnects by itself.
   */
  readonly waitForManager?: boolean | undefined
  /**
   * Longest pause between two attempts to connect; pauses double from 100 ms up to it, with full jitter. Default 5 s, at
   * least 10 ms, at most an hour: shorter finds a manager that came back sooner, and asks more of it when many clients do.
   */
  readonly reconnectCap?: Duration.Input | undefined
}

export const layerLink = (options: LinkOptions): Layer.Layer<Client, LinkError> =>
  Layer.effect(
    Client,
    Effect.gen(function* () {
      const link = new Link(options)
      yield* link.run
      return Client.of(make(link))
    })
  )

/** A join string names the certificate; what else is said about TLS is added to that. */
const tlsOf = ({ tls }: ConnectOptions, join: Join | undefined): ClientTls | undefined => {
  const own = typeof tls === "object" ? tls : tls === true ? {} : undefined
  return join === undefined ? own : { ...own, fingerprint: join.fingerprint }
}

/** Why there is no client: its options make no sense, or its first login failed. */
export type LoginError = LinkError | Errors.ConfigurationInvalid

/** What these options make of a link, or what is wrong with them. */
const linkOptionsOf = (
  options: ConnectOptions,
  network: Network["Service"]
): LinkOptions | Errors.ConfigurationInvalid => {
  const places = placesOf(options)
  if (places instanceof Errors.ConfigurationInvalid) return places
  const named = userOf(places)
  if (named === undefined && options.auth.user === undefined) {
    const remedy = "say which one this program has (auth.user)"
    return new Errors.ConfigurationInvalid({ field: "addresses", value: "join strings of several credentials", remedy })
  }
  const capMs = options.reconnectCap === undefined ? undefined : Duration.toMillis(options.reconnectCap)
  if (capMs !== undefined && !(capMs >= Limits.reconnectCapMsMin && capMs <= Limits.reconnectCapMsMax)) {
    const remedy = "use 10 ms to an hour"
    return new Errors.ConfigurationInvalid({ field: "reconnectCap", value: `${capMs} ms`, remedy })
  }
  const doorOf = ({ address, join }: Place): Door => ({
    address: formatAddress(address),
    dial: (handler) => network.dial(address, Limits.dialMs, handler, tlsOf(options, join))
  })
  const [first, ...others] = places
  return {
    ...doorOf(first),
    others: others.map(doorOf),
    auth: { ...named, ...options.auth },
    bound: options.channelBinding === "required",
    waitForManager: options.waitForManager ?? false,
    reconnectCapMs: capMs
  }
}

/**
 * A client of a manager on this or another machine. Fails when the options make no sense or the first login fails;
 * reconnects from then on.
 */
export const layerTcp = (options: ConnectOptions): Layer.Layer<Client, LoginError, Network> =>
  Layer.unwrap(
    Effect.map(Network, (network): Layer.Layer<Client, LoginError> => {
      const linkOptions = linkOptionsOf(options, network)
      if (linkOptions instanceof Errors.ConfigurationInvalid) return Layer.effect(Client, Effect.fail(linkOptions))
      return layerLink(linkOptions)
    })
  )

export type { Resident }
