/** `millrace stats`: the counts of the queues of a running manager, once or again and again. */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Client from "../Client.ts"
import { ConfigurationInvalid } from "../Errors.ts"
import { stdoutIsTerminal, writeOut } from "../platform/Process.ts"
import type * as TaskQueue from "../TaskQueue.ts"
import * as Options from "./options.ts"
import * as Output from "./output.ts"
import { queue, withClient } from "./queue.ts"

export const stats = Command.make(
  "stats",
  {
    ...Options.connection,
    queue: Argument.optional(queue),
    json: Options.json,
    watch: Flag.Boolean("watch").pipe(
      Flag.withDescription("Show them again every second, until Ctrl-C"),
      Flag.withDefault(false)
    )
  },
  Effect.fn(function* (options) {
    const name = Option.getOrUndefined(options.queue)
    const show = Effect.gen(function* () {
      const all = yield* Client.stats
      const wanted = name === undefined ? all : all.filter((stats) => stats.name === name)
      if (name !== undefined && wanted.length === 0) {
        const known = all.map((stats) => stats.name).join(", ") || "none"
        return yield* new ConfigurationInvalid({
          field: "queue",
          value: JSON.stringify(name),
          remedy: `the manager's queues: ${known}`
        })
      }
      if (options.json) {
        for (const one of wanted) yield* Output.log(JSON.stringify(one))
        return
      }
      const text = name === undefined ? tableOf(wanted) : `${tableOf(wanted)}\n\n${detailsOf(wanted[0]!)}`
      if (options.watch && stdoutIsTerminal()) writeOut(clearScreen)
      yield* Output.log(text)
    })
    yield* withClient(options, options.watch ? Effect.repeat(show, Schedule.spaced("1 second")) : show)
  })
).pipe(Command.withDescription("Show the counts of all queues, or of one"))

/** ANSI: to the top left, and clear what is below. */
const clearScreen = "\u001b[H\u001b[J"

/** A pause is shown before a close: it is what holds the rest back. */
const stateOf = ({ closed, paused }: TaskQueue.QueueStats): string =>
  closed === "open" ? (paused ? "paused" : "open") : paused ? `paused, ${closed}` : closed

const perSecond = (count: number, seconds: number): string => {
  const rate = count / seconds
  return rate === 0 ? "0" : rate < 10 ? rate.toFixed(1) : rate.toFixed(0)
}

const units = ["B", "KiB", "MiB", "GiB", "TiB"] as const

export const bytesText = (bytes: number): string => {
  const unit = bytes === 0 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10))
  const value = bytes / 1_024 ** unit
  return `${unit === 0 || value >= 100 ? value.toFixed(0) : value.toFixed(1)} ${units[unit]}`
}

export const ageText = (ms: number): string => {
  if (ms < 1_000) return `${ms} ms`
  const seconds = ms / 1_000
  if (seconds < 120) return `${seconds < 10 ? seconds.toFixed(1) : seconds.toFixed(0)} s`
  const minutes = seconds / 60
  if (minutes < 120) return `${minutes.toFixed(0)} min`
  const hours = minutes / 60
  return hours < 48 ? `${hours.toFixed(0)} h` : `${(hours / 24).toFixed(0)} d`
}

const textColumns = 3

const tableOf = (queues: ReadonlyArray<TaskQueue.QueueStats>): string => {
  if (queues.length === 0) return "no queues yet"
  const counts = ["ready", "delayed", "leased", "done", "dead", "cancelled", "workers"] as const
  const rows = [
    ["queue", "durability", "state", ...counts, "puts/s", "commits/s", "failures/s", "oldest", "waiting"],
    ...queues.map((one) => [
      one.name,
      one.durability,
      stateOf(one),
      ...counts.map((column) => String(one[column])),
      perSecond(one.puts10s, 10),
      perSecond(one.commits10s, 10),
      perSecond(one.failures10s, 10),
      one.ready === 0 ? "-" : ageText(one.oldestReadyMs),
      bytesText(one.waitingBytes)
    ])
  ]
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)))
  return rows
    .map((row) =>
      row.map((cell, i) => (i < textColumns ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  ")
    )
    .join("\n")
}

/** What does not fit the table. */
const detailsOf = (one: TaskQueue.QueueStats): string => {
  const rate = (what: "puts" | "leases" | "commits" | "failures"): string =>
    `${what} ${perSecond(one[`${what}1s`], 1)}, ${perSecond(one[`${what}10s`], 10)}, ${perSecond(one[`${what}60s`], 60)}`
  const next = (count: number, ms: number): string => (count === 0 || ms === 0 ? "-" : `in ${ageText(ms)}`)
  const lines: ReadonlyArray<readonly [name: string, text: string]> = [
    ["per second (last 1, 10, 60 s)", (["puts", "leases", "commits", "failures"] as const).map(rate).join("; ")],
    ["next delayed task is ready", next(one.delayed, one.nextDueMs)],
    ["next lease ends", next(one.leased, one.nextLeaseEndMs)],
    ["capacity", `${one.ready + one.delayed} of ${one.capacity}; ${one.waitingPuts} puts wait for room`],
    ["taking", `${one.workers} workers; ${one.waitingTakers} requests wait for a task`],
    [
      "outcomes kept",
      `${one.outcomesNext - one.outcomesFirst}, ${bytesText(one.outcomeBytes)}; ${one.readers} readers`
    ],
    ["dead letters kept", `${one.deadLetters}, ${bytesText(one.deadLetterBytes)}`],
    [
      "puts",
      `${one.puts} ever; ${one.duplicates} duplicates, ${one.refused} refused; ${one.acknowledged} taken by get`
    ],
    ["repeats", String(one.repeats)],
    ...one.lanes.map(([key, waiting, leased, blockedMs], i): readonly [string, string] => [
      i === 0 ? "lanes with most to do" : "",
      `${Output.visible(key)}: ${waiting} waiting, ${leased} leased${blockedMs > 0 ? `, opens in ${ageText(blockedMs)}` : ""}`
    ])
  ]
  const width = Math.max(...lines.map(([name]) => name.length))
  return lines.map(([name, text]) => `${name.padEnd(width)}  ${text}`).join("\n")
}
