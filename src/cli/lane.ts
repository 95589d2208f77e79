/** `millrace lane`: what one key of a queue may do, changed while the queue runs. */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { ConfigurationInvalid } from "../Errors.ts"
import * as Options from "./options.ts"
import * as Output from "./output.ts"
import { define, queue, withClient } from "./queue.ts"

export const lane = Command.make(
  "lane",
  {
    ...Options.connection,
    queue,
    key: Argument.String("key").pipe(Argument.withDescription("The key that the tasks of the lane share")),
    concurrency: Flag.Int("concurrency").pipe(Flag.withDescription("Leases at once; 0: no limit"), Flag.optional),
    rate: Flag.Finite("rate").pipe(Flag.withDescription("Leases a second; 0: no limit"), Flag.optional),
    burst: Flag.Int("burst").pipe(Flag.withDescription("Leases that a rested lane may take at once"), Flag.optional),
    gap: Flag.String("gap").pipe(
      Flag.withDescription('Time between two leases, such as "500 millis" or "2 seconds"'),
      Flag.optional
    ),
    weight: Flag.Int("weight").pipe(Flag.withDescription("Tasks it takes when its turn comes"), Flag.optional),
    slowDown: Flag.String("slow-down").pipe(
      Flag.withDescription('Lease nothing for so long, such as "10 minutes"'),
      Flag.optional
    ),
    pause: Flag.Boolean("pause").pipe(Flag.withDescription("Lease nothing until --resume"), Flag.withDefault(false)),
    resume: Flag.Boolean("resume").pipe(Flag.withDescription("End a pause"), Flag.withDefault(false)),
    clear: Flag.Boolean("clear").pipe(
      Flag.withDescription("End all of these: the lane is as the queue's policy says"),
      Flag.withDefault(false)
    ),
    json: Options.json
  },
  Effect.fn(function* (options) {
    const source = yield* define(options.queue, false)
    const handle = source.lane(options.key)
    const { burst, concurrency, rate, weight } = options
    const gap = Option.isSome(options.gap) ? yield* Options.duration("--gap", options.gap.value) : undefined
    const slowDown = Option.isSome(options.slowDown)
      ? yield* Options.duration("--slow-down", options.slowDown.value)
      : undefined
    const limited = [burst, concurrency, rate, weight, options.gap].some((given) => Option.isSome<unknown>(given))
    const limits = {
      burst: Option.getOrUndefined(burst),
      concurrency: Option.getOrUndefined(concurrency),
      ratePerSecond: Option.getOrUndefined(rate),
      weight: Option.getOrUndefined(weight),
      gap
    }
    const own = `now has limits of its own: ${words(options)}; the rest is as the queue's policy says`
    const [asked, ...more] = [
      ...(options.pause ? [{ change: handle.pause, said: "is paused" }] : []),
      ...(options.resume ? [{ change: handle.resume, said: "is resumed" }] : []),
      ...(options.clear ? [{ change: handle.clear, said: "is as the queue's policy says" }] : []),
      ...(slowDown === undefined
        ? []
        : [{ change: handle.slowDown(slowDown), said: `leases nothing for ${Duration.format(slowDown)}` }]),
      ...(limited ? [{ change: handle.limit(limits), said: own }] : [])
    ]
    if (asked === undefined || more.length > 0) {
      return yield* new ConfigurationInvalid({
        field: "the change",
        value: asked === undefined ? "missing" : "more than one",
        remedy:
          "give limits (--concurrency, --rate, --burst, --gap, --weight), --slow-down, --pause, --resume or --clear"
      })
    }
    const { change, said } = asked
    yield* withClient(options, change)
    const { key } = options
    yield* Output.log(
      options.json
        ? JSON.stringify({ queue: options.queue, lane: key, said, ...(limited ? { limits: inMillis(limits) } : {}) })
        : `lane "${Output.visible(key)}" of queue "${options.queue}" ${said}`
    )
  })
).pipe(
  Command.withDescription(
    "Limit, slow down or pause the tasks of one key; it holds over restarts. Limits replace earlier ones as a whole"
  )
)

const words = (options: Readonly<Record<string, unknown>>): string =>
  ["concurrency", "rate", "burst", "gap", "weight"]
    .flatMap((name) => {
      const given = options[name] as Option.Option<string | number>
      return Option.isSome(given) ? `${name} ${given.value}` : []
    })
    .join(", ")

const inMillis = ({ gap, ...limits }: { readonly gap: Duration.Duration | undefined }): object => ({
  ...limits,
  gapMs: gap === undefined ? undefined : Duration.toMillis(gap)
})
