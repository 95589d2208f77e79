#!/usr/bin/env node
/**
 * The `millrace` program. Exit codes: 0 done, 1 a human error or a failure (one line that says what and how to mend it),
 * 2 wrong usage, 130 interrupted. Everything but results goes to standard error; stack traces only with `--debug`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Cause from "effect/Cause"
import * as CliError from "effect/cli/CliError"
import * as Command from "effect/cli/Command"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import { onStopAgain, scriptPath } from "../platform/Process.ts"
import { Hurry } from "../worker/Worker.ts"
import { makeCrawl } from "./crawl.ts"
import { explain } from "./explain.ts"
import { key } from "./key.ts"
import { lane } from "./lane.ts"
import { browse, cancel, dead, pause, purge, redrive, resume } from "./operate.ts"
import { visible, visibleLine, visibleLines } from "./output.ts"
import { get, put } from "./queue.ts"
import { repeat } from "./repeat.ts"
import { serve } from "./serve.ts"
import { stats } from "./stats.ts"
import { work } from "./work.ts"

const version = "0.1.0"
const given = process.argv.slice(2)
const end = given.includes("--") ? given.indexOf("--") : given.length
const debug = given.slice(0, end).includes("--debug")
/** The parser lets a switch swallow a `1` or `true` that follows: `put q --create 1` would lose its payload. */
const switches: ReadonlySet<string> = new Set([
  "--create",
  "--json",
  "--insecure-network",
  "--network",
  "--tls",
  "--with-parent",
  "--watch",
  "--remove",
  "--yes",
  "--all",
  "--without-payloads",
  "--memory",
  "--restart",
  "--accept-loss",
  "--pause",
  "--resume",
  "--clear"
])
const args = given
  .filter((arg, i) => arg !== "--debug" || i > end)
  .map((arg, i, all) => (switches.has(arg) && !all.slice(0, i).includes("--") ? `${arg}=true` : arg))

const operate = [browse, dead, redrive, cancel, purge, pause, resume] as const

const millrace = Command.make("millrace").pipe(
  Command.withDescription("Distributed queues and a distributed crawler"),
  Command.withSubcommands([
    serve,
    work,
    makeCrawl(scriptPath(import.meta.url)),
    put,
    get,
    stats,
    explain,
    lane,
    repeat,
    ...operate,
    key
  ])
)

/** One line a message, on standard error. */
const logger = Logger.make(({ date, fiber, logLevel, message }) => {
  const text = Array.isArray(message) ? message.map(String).join(" ") : String(message)
  const details = Object.entries(fiber.getRef(References.CurrentLogAnnotations))
    .filter(([name]) => name !== "room")
    .map(([name, value]) => `${name}: ${visible(String(value))}`)
  const line = details.length === 0 ? text : `${text} (${details.join(", ")})`
  // Whoever breaks a line does not begin one that looks like ours.
  const shown = visibleLines(line).replaceAll("\n", "\n    ")
  process.stderr.write(`${date.toISOString().slice(11, 19)} ${logLevel.toUpperCase().padEnd(5)} ${shown}\n`)
})

const explanationOf = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  if (debug) return visibleLines(Cause.pretty(cause))
  const text = visibleLine(error instanceof Error ? error.message || error.name : String(error))
  return cause.reasons.some(Cause.isDieReason) ? `internal error: ${text} (run again with --debug for the trace)` : text
}

const isUsage = (error: unknown): boolean => CliError.isCliError(error)

/** Whoever asks twice to stop does not want to wait. */
const hurry = Deferred.makeUnsafe<void>()
onStopAgain(() => Deferred.doneUnsafe(hurry, Effect.void))

const program = Command.runWith(millrace, { version })(args).pipe(
  Effect.provideService(Hurry, Deferred.await(hurry)),
  Effect.tapCause((cause) =>
    Effect.sync(() => {
      // Usage errors have been shown with the help; an interruption is no error.
      if (isUsage(Cause.squash(cause)) || Cause.hasInterruptsOnly(cause)) return
      process.stderr.write(`millrace: ${explanationOf(cause)}\n`)
    })
  ),
  Effect.provide(Layer.mergeAll(NodeServices.layer, Logger.layer([logger])))
)

// Whoever read the output has gone (`millrace get ... | head -1`): end in order, as on Ctrl-C, and without a trace.
process.stdout.on("error", () => void process.emit("SIGINT"))
process.stderr.on("error", () => {})

/** Services, and a watch, that are asked to stop have done what they should: 0. A crawl cut short has not: 130. */
const service = args[0] === "serve" || args[0] === "work" || (args[0] === "stats" && args.includes("--watch=true"))

NodeRuntime.runMain(program, {
  disableErrorReporting: true,
  teardown: (exit, onExit) => {
    if (Exit.isSuccess(exit)) return onExit(0)
    if (Cause.hasInterruptsOnly(exit.cause)) return onExit(service ? 0 : 130)
    const error = Cause.squash(exit.cause)
    if (!CliError.isCliError(error)) return onExit(1)
    onExit(error._tag === "ShowHelp" && error.errors.length === 0 ? 0 : 2)
  }
})
