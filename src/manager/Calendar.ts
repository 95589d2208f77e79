/**
 * Reads cron expressions for the engine, which knows no calendar.
 *
 * Effect's `Cron` decides what an expression means: five fields, or six with seconds first; where day of month and day
 * of week are both restricted, either will do. A local time that daylight saving skips occurs right after the gap, one
 * that comes twice occurs the first time.
 */
import * as Cron from "effect/Cron"
import type { NextCron } from "../model/Repeat.ts"

export const nextCron: NextCron = (cron, zone, afterMs) => {
  const parsed = Cron.parse(cron, zone)
  if (parsed._tag === "Failure") {
    if (parsed.failure.message.includes("time zone")) {
      return { field: "zone", remedy: "use the IANA name of a time zone, such as Europe/Berlin or UTC" }
    }
    const remedy = "use five fields: minute hour day-of-month month day-of-week"
    return { field: "cron", remedy: `${remedy} (${parsed.failure.message})` }
  }
  try {
    return Cron.next(parsed.success, afterMs).getTime()
  } catch {
    return { field: "cron", remedy: "it never occurs; name a date that exists" }
  }
}
