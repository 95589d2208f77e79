/** `millrace put` and `millrace get`, and what all commands about a queue of a running manager share. */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Client from "../Client.ts"
import { ConfigurationInvalid, QueueNotFound } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import * as TaskQueue from "../TaskQueue.ts"
import * as Options from "./options.ts"
import * as Output from "./output.ts"

export const queue = Argument.String("queue").pipe(Argument.withDescription("Name of the queue"))

const timeout = Flag.Int("timeout").pipe(
  Flag.withDescription("Seconds to wait; 0 does not wait (default: for ever)"),
  Flag.optional
)

const timeoutOf = (seconds: Option.Option<number>): TaskQueue.Timeout =>
  Option.match(seconds, { onNone: () => "forever", onSome: (value) => Duration.seconds(value) })

const timeoutIsValid = (seconds: Option.Option<number>) =>
  Options.inRange(
    "--timeout",
    Option.getOrElse(seconds, () => 0),
    0,
    Limits.waitMsMax / 1_000
  )

/** Runs `effect` against the manager that the flags name. */
export const withClient = Effect.fnUntraced(function* <A, E>(
  options: Options.ConnectionOptions,
  effect: Effect.Effect<A, E, Client.Client>
) {
  const to = yield* Options.connect(options)
  return yield* Effect.provide(effect, Client.layerTcp(to)).pipe(
    Effect.mapError((error) => (error instanceof QueueNotFound ? notThere(error.queue) : error))
  )
})

const notThere = (name: string): ConfigurationInvalid =>
  new ConfigurationInvalid({
    field: "queue",
    value: JSON.stringify(name),
    remedy: "the manager has no such queue; see millrace stats, or make it with millrace put --create"
  })

/** A name that the protocol does not know would end the connection; say it in words instead. */
export const define = (name: string, create: boolean) =>
  Effect.try({
    try: () => TaskQueue.untyped(name, { create }),
    catch: () =>
      new ConfigurationInvalid({
        field: "queue",
        value: JSON.stringify(name),
        remedy: "use 1 to 200 characters of A-Z a-z 0-9 . _ : -"
      })
  })

export const parsePayload = (text: string): Effect.Effect<unknown, ConfigurationInvalid> =>
  Effect.try({
    try: () => JSON.parse(text) as unknown,
    catch: () =>
      new ConfigurationInvalid({ field: "payload", value: text, remedy: `write JSON; text needs quotes: '"text"'` })
  })

export const put = Command.make(
  "put",
  {
    ...Options.connection,
    queue,
    payloads: Argument.String("payload").pipe(
      Argument.withDescription("A payload as JSON"),
      Argument.variadic({ min: 1 })
    ),
    id: Flag.String("id").pipe(Flag.withDescription("Dedupe id (with one payload)"), Flag.optional),
    create: Flag.Boolean("create").pipe(
      Flag.withDescription("Make the queue if the manager does not have it"),
      Flag.withDefault(false)
    ),
    timeout,
    json: Options.json
  },
  Effect.fn(function* (options) {
    yield* timeoutIsValid(options.timeout)
    const payloads = yield* Effect.forEach(options.payloads, parsePayload)
    const target = yield* define(options.queue, options.create)
    const id = Option.getOrUndefined(options.id)
    if (id !== undefined && payloads.length > 1) {
      return yield* new ConfigurationInvalid({ field: "--id", value: id, remedy: "give one payload with an id" })
    }
    const wait = timeoutOf(options.timeout)
    const receipts = yield* withClient(
      options,
      Effect.forEach(payloads, (payload) => target.put(payload, { id, timeout: wait }))
    )
    for (const { duplicate, taskId } of receipts) {
      yield* Output.log(
        options.json ? JSON.stringify({ taskId, duplicate }) : `${taskId}${duplicate ? " (was there)" : ""}`
      )
    }
  })
).pipe(Command.withDescription("Put tasks on a queue"))

export const get = Command.make(
  "get",
  {
    ...Options.connection,
    queue,
    count: Flag.Int("count").pipe(Flag.withDescription("How many to take (default 1)"), Flag.withDefault(1)),
    timeout
  },
  Effect.fn(function* (options) {
    yield* Options.inRange("--count", options.count, 1)
    yield* timeoutIsValid(options.timeout)
    const source = yield* define(options.queue, false)
    const wait = timeoutOf(options.timeout)
    const takeOne = Effect.flatMap(source.get({ timeout: wait }), (payload) => Output.log(JSON.stringify(payload)))
    yield* withClient(options, Effect.repeat(takeOne, { times: options.count - 1 }))
  })
).pipe(Command.withDescription("Take payloads from a queue for good, one JSON value a line"))
