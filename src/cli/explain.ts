/** `millrace explain`: why a task is not running, or what limits a queue. */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Options from "./options.ts"
import * as Output from "./output.ts"
import { define, queue, withClient } from "./queue.ts"

export const explain = Command.make(
  "explain",
  {
    ...Options.connection,
    queue,
    task: Argument.String("task").pipe(
      Argument.withDescription("Id of a task; without one: what limits the queue"),
      Argument.optional
    ),
    json: Options.json
  },
  Effect.fn(function* (options) {
    const source = yield* define(options.queue, false)
    const task = Option.getOrUndefined(options.task)
    const explanation: { readonly text: string } = yield* task === undefined
      ? withClient(options, source.explain())
      : withClient(options, source.explain(task))
    yield* Output.log(options.json ? JSON.stringify(explanation) : Output.visible(explanation.text))
  })
).pipe(Command.withDescription("Say why a task is not running, or what limits a queue"))
