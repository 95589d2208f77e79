/** Repeats as programs see them: the schedule they write, and what the manager says of one. */
import * as Duration from "effect/Duration"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Errors from "../Errors.ts"
import * as Limits from "../Limits.ts"
import type * as Wire from "../wire/Vocabulary.ts"
import type { Codec } from "./Codec.ts"
import { taskIdOf } from "./TaskId.ts"

/**
 * When a repeat puts its payload: in even intervals of 1 s to 366 days, the first one interval from now, or when a cron
 * expression holds (five fields, or six with seconds first) in a time zone by its IANA name (default UTC).
 */
export type Schedule =
  | { readonly every: Duration.Input }
  | { readonly cron: string; readonly zone?: string | undefined }

/** Of each occurrence. There is no dedupe id and no delay: the schedule says when. */
export interface RepeatOptions {
  /** 0..255, lower first. Default 128. */
  readonly priority?: number | undefined
  /** How long an occurrence may wait before it is dead. */
  readonly ttl?: Duration.Input | undefined
  readonly key?: string | undefined
  readonly labels?: ReadonlyArray<string> | undefined
}

/** A repeat as the manager has it. Instants are ms since 1970 by the manager's clock. */
export interface Repeat<P> {
  readonly id: string
  readonly schedule: { readonly everyMs: number } | { readonly cron: string; readonly zone: string }
  /** Undefined if it does not decode. */
  readonly payload: P | undefined
  /** When the next occurrence is due; if one is under way then, it comes when that one has ended. */
  readonly nextAtMs: number
  /** The occurrence under way: waiting, delayed or leased. */
  readonly taskId: string | undefined
  readonly lastAtMs: number | undefined
  readonly occurrences: number
}

export interface WireSchedule {
  readonly everyMs: number | undefined
  readonly cron: string | undefined
  readonly zone: string
}

const utf8 = new TextEncoder()

/** What travels of a schedule, or what is wrong with it or with the id before it is sent. */
export const scheduleOf = (
  queue: string,
  id: string,
  schedule: Schedule
): WireSchedule | Errors.DefinitionInvalid | Errors.LimitExceeded => {
  const over = (limit: string, text: string, max: number): Errors.LimitExceeded | undefined => {
    const value = utf8.encode(text).byteLength
    return value <= max ? undefined : new Errors.LimitExceeded({ limit, value, max })
  }
  const badId = over("repeatIdBytesMax", id, Limits.repeatIdBytesMax)
  if (badId !== undefined) return badId
  if ("cron" in schedule) {
    const { cron, zone = "UTC" } = schedule
    const bad = over("cronBytesMax", cron, Limits.cronBytesMax) ?? over("zoneBytesMax", zone, Limits.zoneBytesMax)
    return bad ?? { everyMs: undefined, cron, zone }
  }
  const every = Duration.fromInput(schedule.every)
  const everyMs = Option.isSome(every) ? Math.ceil(Duration.toMillis(every.value)) : Number.NaN
  if (Number.isSafeInteger(everyMs) && everyMs >= 0) return { everyMs, cron: undefined, zone: "UTC" }
  const remedy = 'use a duration of 1 second to 366 days, such as "5 minutes"'
  return new Errors.DefinitionInvalid({ queue, field: "every", value: String(schedule.every), remedy })
}

export const repeatOf = <P>(prefix: string, payload: Codec<P>, item: Wire.Repeat): Repeat<P> => {
  const decoded = payload.decode(item.payload)
  return {
    id: item.id,
    schedule: item.cron === undefined ? { everyMs: item.everyMs ?? 0 } : { cron: item.cron, zone: item.zone },
    payload: Exit.isSuccess(decoded) ? decoded.value : undefined,
    nextAtMs: item.nextAtMs,
    taskId: item.task === undefined ? undefined : taskIdOf(prefix, item.task),
    lastAtMs: item.lastAtMs,
    occurrences: item.occurrences
  }
}
