/** `millrace repeat`: tasks that come again; sets one, removes one, or lists them. */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { ConfigurationInvalid } from "../Errors.ts"
import type * as TaskQueue from "../TaskQueue.ts"
import * as Options from "./options.ts"
import * as Output from "./output.ts"
import { define, parsePayload, queue, withClient } from "./queue.ts"

export const repeat = Command.make(
  "repeat",
  {
    ...Options.connection,
    queue,
    id: Argument.String("id").pipe(
      Argument.withDescription("Names the repeat; without it the repeats are listed"),
      Argument.optional
    ),
    payload: Argument.String("payload").pipe(
      Argument.withDescription("The payload of each occurrence as JSON"),
      Argument.optional
    ),
    every: Flag.String("every").pipe(Flag.withDescription('Interval, such as "5 minutes"'), Flag.optional),
    cron: Flag.String("cron").pipe(
      Flag.withDescription('Cron expression, such as "0 3 * * *": minute hour day month weekday'),
      Flag.optional
    ),
    zone: Flag.String("zone").pipe(
      Flag.withDescription("Time zone of the cron expression by its IANA name (default UTC)"),
      Flag.withDefault("UTC")
    ),
    remove: Flag.Boolean("remove").pipe(Flag.withDescription("Remove this repeat"), Flag.withDefault(false)),
    create: Flag.Boolean("create").pipe(
      Flag.withDescription("Make the queue if the manager does not have it"),
      Flag.withDefault(false)
    ),
    json: Options.json
  },
  Effect.fn(function* (options) {
    const target = yield* define(options.queue, options.create)
    const print = (repeat: TaskQueue.Repeat<unknown>) =>
      Output.log(options.json ? JSON.stringify(repeat) : lineOf(repeat))
    const id = Option.getOrUndefined(options.id)
    if (id === undefined) {
      const repeats = yield* withClient(options, target.repeats)
      if (repeats.length === 0 && !options.json) return yield* Output.log("no repeats")
      return yield* Effect.forEach(repeats, print, { discard: true })
    }
    if (options.remove) {
      if (yield* withClient(options, target.removeRepeat(id))) return
      return yield* new ConfigurationInvalid({
        field: "id",
        value: JSON.stringify(id),
        remedy: `queue "${options.queue}" has no such repeat; see millrace repeat ${options.queue}`
      })
    }
    const schedule = yield* scheduleOf(options)
    const text = yield* Effect.fromOption(options.payload).pipe(
      Effect.mapError(
        () => new ConfigurationInvalid({ field: "payload", value: "missing", remedy: "give one as JSON after the id" })
      )
    )
    const payload = yield* parsePayload(text)
    yield* print(yield* withClient(options, target.repeat(id, schedule, payload)))
  })
).pipe(Command.withDescription("Put a payload again and again: set, list or remove the repeats of a queue"))

const scheduleOf = (options: {
  readonly every: Option.Option<string>
  readonly cron: Option.Option<string>
  readonly zone: string
}): Effect.Effect<TaskQueue.Schedule, ConfigurationInvalid> => {
  const { cron, every, zone } = options
  const invalid = (field: string, value: string, remedy: string) =>
    Effect.fail(new ConfigurationInvalid({ field, value, remedy }))
  if (Option.isSome(cron) === Option.isSome(every)) {
    const both = Option.isSome(cron)
    return invalid("the schedule", both ? "--every and --cron" : "missing", "give either --every or --cron")
  }
  if (Option.isSome(cron)) return Effect.succeed({ cron: cron.value, zone })
  const text = Option.getOrElse(every, () => "")
  return Effect.map(Options.duration("--every", text), (every) => ({ every }))
}

const instant = (ms: number): string => new Date(ms).toISOString()

const lineOf = ({
  id,
  lastAtMs,
  nextAtMs,
  occurrences,
  payload,
  schedule,
  taskId
}: TaskQueue.Repeat<unknown>): string => {
  const when =
    "cron" in schedule
      ? `${schedule.cron} (${schedule.zone})`
      : `every ${Duration.format(Duration.millis(schedule.everyMs))}`
  const last = lastAtMs === undefined ? "" : `, last ${instant(lastAtMs)}`
  const under = taskId === undefined ? "" : `, under way: ${taskId}`
  return `${Output.visible(id)}  ${Output.visible(when)}  next ${instant(nextAtMs)}${under}  ${occurrences} so far${last}  ${JSON.stringify(payload)}`
}
