/**
 * `millrace browse`, `dead`, `redrive`, `cancel`, `purge`, `pause` and `resume`: operating the queues of a running manager.
 *
 * Each is one call of `TaskQueue` and prints what it says: a line a task for people, or, with `--json`, for machines.
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Prompt from "effect/cli/Prompt"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { ConfigurationInvalid, TaskNotFound } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import { stdinIsTerminal } from "../platform/Process.ts"
import type * as TaskQueue from "../TaskQueue.ts"
import * as Options from "./options.ts"
import * as Output from "./output.ts"
import { define, queue, withClient } from "./queue.ts"

const text = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.optional)
const priority = (name: string, description: string) =>
  Flag.Int(name).pipe(Flag.withDescription(description), Flag.optional)

/** Which tasks are meant; all of what is given must fit. */
const filter = {
  key: text("key", "Only tasks of this lane"),
  label: text("label", "Only tasks with this label"),
  id: text("id", "Only the task with this dedupe id"),
  priorityMin: priority("priority-min", "Only tasks of this priority number or above"),
  priorityMax: priority("priority-max", "Only tasks of this priority number or below")
}

interface FilterFlags {
  readonly key: Option.Option<string>
  readonly label: Option.Option<string>
  readonly id: Option.Option<string>
  readonly priorityMin: Option.Option<number>
  readonly priorityMax: Option.Option<number>
}

const filterOf = (flags: FilterFlags): TaskQueue.Filter => ({
  key: Option.getOrUndefined(flags.key),
  label: Option.getOrUndefined(flags.label),
  id: Option.getOrUndefined(flags.id),
  priorityMin: Option.getOrUndefined(flags.priorityMin),
  priorityMax: Option.getOrUndefined(flags.priorityMax)
})

const isEmpty = (wanted: TaskQueue.Filter): boolean => Object.values(wanted).every((value) => value === undefined)

const filterIsValid = Effect.fnUntraced(function* (flags: FilterFlags) {
  yield* Options.inRange(
    "--priority-min",
    Option.getOrElse(flags.priorityMin, () => 0),
    0,
    255
  )
  yield* Options.inRange(
    "--priority-max",
    Option.getOrElse(flags.priorityMax, () => 0),
    0,
    255
  )
})

const instant = (ms: number): string => new Date(ms).toISOString()

const line = (task: TaskQueue.BrowsedTask<unknown>): string => {
  const at = { delayed: "due", leased: "until", dead: "died" }[task.state as string]
  const details = [
    `attempt ${task.attempt}`,
    `priority ${task.priority}`,
    at === undefined ? "" : `${at} ${instant(task.atMs)}`,
    task.holder === undefined ? "" : `session ${task.holder}`,
    task.key === undefined ? "" : `key ${Output.visible(task.key)}`,
    task.id === undefined ? "" : `id ${Output.visible(task.id)}`,
    task.labels.length === 0 ? "" : `labels ${task.labels.map(Output.visible).join(", ")}`,
    task.origin === undefined ? "" : `redriven from ${task.origin}`
  ]
  const payload = task.payload === undefined ? "" : `  ${JSON.stringify(task.payload)}`
  return `${task.taskId}  ${task.state.padEnd(7)}  ${details.filter((part) => part !== "").join(", ")}${payload}`
}

const show = (task: TaskQueue.BrowsedTask<unknown>, json: boolean): Effect.Effect<void> =>
  json
    ? Output.log(JSON.stringify(task))
    : Effect.forEach(
        [line(task), ...task.reasons.map((reason) => `    ${Output.visible(reason)}`)],
        (text) => Output.log(text),
        {
          discard: true
        }
      )

const withoutPayloads = Flag.Boolean("without-payloads").pipe(
  Flag.withDescription("Do not show payloads"),
  Flag.withDefault(false)
)

const limit = (initial: number) =>
  Flag.Int("limit").pipe(Flag.withDescription(`Tasks to show (default ${initial})`), Flag.withDefault(initial))

export const browse = Command.make(
  "browse",
  {
    ...Options.connection,
    queue,
    ...filter,
    state: Flag.Literals("state", ["ready", "delayed", "leased", "dead"]).pipe(
      Flag.withDescription("Only tasks in this state (default: all that have not ended)"),
      Flag.optional
    ),
    limit: limit(100),
    cursor: Flag.Int("cursor").pipe(Flag.withDescription("Go on where an earlier page stopped"), Flag.withDefault(0)),
    withoutPayloads,
    json: Options.json
  },
  Effect.fn(function* (options) {
    yield* filterIsValid(options)
    yield* Options.inRange("--limit", options.limit, 1, Limits.pageItemsMax)
    yield* Options.inRange("--cursor", options.cursor, 0)
    const source = yield* define(options.queue, false)
    const state = Option.getOrUndefined(options.state)
    const wanted = { ...filterOf(options), state, limit: options.limit, payloads: !options.withoutPayloads }
    // A page without anything that fits is no answer for a person.
    const look = Effect.fnUntraced(function* () {
      for (let cursor = options.cursor; ; ) {
        const page = yield* source.browse({ ...wanted, cursor })
        if (page.tasks.length > 0 || page.cursor === undefined) return page
        cursor = page.cursor
      }
    })
    const page = yield* withClient(options, look())
    for (const task of page.tasks) yield* show(task, options.json)
    if (page.cursor === undefined) return
    if (options.json) yield* Output.log(JSON.stringify({ cursor: page.cursor }))
    else yield* Output.error(`there may be more: --cursor ${page.cursor}`)
  })
).pipe(Command.withDescription("Show the tasks of a queue, left where they are"))

export const dead = Command.make(
  "dead",
  { ...Options.connection, queue, ...filter, limit: limit(100), withoutPayloads, json: Options.json },
  Effect.fn(function* (options) {
    yield* filterIsValid(options)
    yield* Options.inRange("--limit", options.limit, 1)
    const source = yield* define(options.queue, false)
    const letters = source.deadLetters({ ...filterOf(options), payloads: !options.withoutPayloads })
    yield* withClient(
      options,
      letters.pipe(
        Stream.take(options.limit),
        Stream.runForEach((task) => show(task, options.json))
      )
    )
  })
).pipe(Command.withDescription("Show the dead letters of a queue, with the reasons of their attempts"))

const taskIds = Argument.String("task").pipe(Argument.withDescription("Id of a task"), Argument.variadic({ min: 0 }))

export const redrive = Command.make(
  "redrive",
  {
    ...Options.connection,
    queue,
    taskIds,
    ...filter,
    all: Flag.Boolean("all").pipe(Flag.withDescription("All dead letters of the queue"), Flag.withDefault(false)),
    json: Options.json
  },
  Effect.fn(function* (options) {
    yield* filterIsValid(options)
    const wanted = filterOf(options)
    const ways = [options.taskIds.length > 0, !isEmpty(wanted), options.all].filter((way) => way)
    if (ways.length !== 1) {
      return yield* new ConfigurationInvalid({
        field: "what to redrive",
        value: ways.length === 0 ? "missing" : "given twice",
        remedy: "give task ids, or filters such as --label, or --all"
      })
    }
    const source = yield* define(options.queue, false)
    const named = options.taskIds.length > 0 ? { taskIds: options.taskIds } : wanted
    const done = yield* withClient(options, source.redrive(named))
    for (const one of done) {
      if (options.json) yield* Output.log(JSON.stringify({ from: one.from, to: one.to ?? null }))
      else yield* Output.log(`${one.from}  ${one.to === undefined ? "is no dead letter" : `put again as ${one.to}`}`)
    }
    if (!options.json && options.taskIds.length === 0) yield* Output.error(`${done.length} redriven`)
    const missing = done.find(({ to }) => to === undefined)
    if (missing !== undefined) return yield* new TaskNotFound({ taskId: missing.from })
  })
).pipe(Command.withDescription("Put dead letters again, as new tasks"))

export const cancel = Command.make(
  "cancel",
  {
    ...Options.connection,
    queue,
    taskIds: Argument.String("task").pipe(Argument.withDescription("Id of a task"), Argument.variadic({ min: 1 })),
    json: Options.json
  },
  Effect.fn(function* (options) {
    const source = yield* define(options.queue, false)
    const done = yield* withClient(options, source.cancelAll(options.taskIds))
    for (const one of done) {
      const { cancelled, taskId, was } = one
      const what = cancelled ? `cancelled (it was ${was})` : was === "gone" ? "not found" : `had ended already: ${was}`
      yield* Output.log(options.json ? JSON.stringify(one) : `${taskId}  ${what}`)
    }
    const missing = done.find(({ was }) => was === "gone")
    if (missing !== undefined) return yield* new TaskNotFound({ taskId: missing.taskId })
  })
).pipe(Command.withDescription("Cancel tasks, waiting or running"))

/** Asks, where there is someone to ask. */
const confirm = Effect.fnUntraced(function* (question: string) {
  if (stdinIsTerminal()) return yield* Prompt.run(Prompt.Confirm({ message: question }))
  return yield* new ConfigurationInvalid({
    field: "--yes",
    value: "missing",
    remedy: "give it to remove tasks for good where nobody can be asked"
  })
})

export const purge = Command.make(
  "purge",
  {
    ...Options.connection,
    queue,
    ...filter,
    yes: Flag.Boolean("yes").pipe(Flag.withDescription("Do not ask"), Flag.withDefault(false)),
    json: Options.json
  },
  Effect.fn(function* (options) {
    yield* filterIsValid(options)
    const wanted = filterOf(options)
    const source = yield* define(options.queue, false)
    const which = isEmpty(wanted) ? "all waiting tasks" : "the waiting tasks that fit"
    if (!options.yes && !(yield* confirm(`Remove ${which} of queue "${options.queue}" for good?`))) return
    const purged = yield* withClient(options, source.purge(wanted))
    yield* Output.log(options.json ? JSON.stringify({ queue: options.queue, purged }) : `${purged} purged`)
  })
).pipe(Command.withDescription("Remove the waiting tasks of a queue for good"))

const pausing = (name: "pause" | "resume", description: string) =>
  Command.make(
    name,
    { ...Options.connection, queue, json: Options.json },
    Effect.fn(function* (options) {
      const source = yield* define(options.queue, false)
      const paused = name === "pause"
      yield* withClient(options, paused ? source.pause() : source.resume())
      const said = paused ? "paused" : "resumed"
      yield* Output.log(
        options.json ? JSON.stringify({ queue: options.queue, paused }) : `queue "${options.queue}" is ${said}`
      )
    })
  ).pipe(Command.withDescription(description))

export const pause = pausing("pause", "Stop a queue from handing out tasks; what is running goes on")
export const resume = pausing("resume", "End a pause")
