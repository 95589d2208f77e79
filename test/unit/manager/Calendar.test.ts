import { assert, describe, it } from "@effect/vitest"
import { nextCron } from "../../../src/manager/Calendar.ts"

const next = (cron: string, zone: string, after: string): string => {
  const at = nextCron(cron, zone, Date.parse(after))
  return typeof at === "number" ? new Date(at).toISOString() : `${at.field}: ${at.remedy}`
}

describe("cron expressions", () => {
  it("mean the local time of their zone, in summer and in winter", () => {
    assert.strictEqual(next("0 3 * * *", "Europe/Berlin", "2026-01-10T12:00:00Z"), "2026-01-11T02:00:00.000Z")
    assert.strictEqual(next("0 3 * * *", "Europe/Berlin", "2026-07-10T12:00:00Z"), "2026-07-11T01:00:00.000Z")
    assert.strictEqual(next("0 3 * * *", "UTC", "2026-07-10T12:00:00Z"), "2026-07-11T03:00:00.000Z")
    assert.strictEqual(next("30 9 * * MON-FRI", "America/New_York", "2026-07-10T14:00:00Z"), "2026-07-13T13:30:00.000Z")
  })

  it("occur once on the day that skips their hour, right after the gap, and once on the day that has it twice", () => {
    // Berlin goes from 02:00 to 03:00 on 2026-03-29 at 01:00Z, and back from 03:00 to 02:00 on 2026-10-25 at 01:00Z.
    const following = (from: string, count: number): ReadonlyArray<string> => {
      const found: Array<string> = []
      for (let at = from; found.length < count; ) {
        at = next("30 2 * * *", "Europe/Berlin", at)
        found.push(at)
      }
      return found
    }
    assert.deepStrictEqual(following("2026-03-28T00:00:00Z", 3), [
      "2026-03-28T01:30:00.000Z",
      "2026-03-29T01:30:00.000Z",
      "2026-03-30T00:30:00.000Z"
    ])
    assert.deepStrictEqual(following("2026-10-24T12:00:00Z", 2), [
      "2026-10-25T00:30:00.000Z",
      "2026-10-26T01:30:00.000Z"
    ])
  })

  it("that cannot be are refused with the field and what to write instead", () => {
    assert.match(next("61 3 * * *", "UTC", "2026-01-01T00:00:00Z"), /^cron: use five fields.*between 0 and 59/)
    assert.match(next("often", "UTC", "2026-01-01T00:00:00Z"), /^cron: use five fields/)
    assert.match(next("", "UTC", "2026-01-01T00:00:00Z"), /^cron: use five fields/)
    assert.match(next("0 0 31 2 *", "UTC", "2026-01-01T00:00:00Z"), /^cron: it never occurs/)
    assert.match(next("0 3 * * *", "Mars/Olympus", "2026-01-01T00:00:00Z"), /^zone: use the IANA name/)
    assert.match(next("0 3 * * *", "", "2026-01-01T00:00:00Z"), /^zone: use the IANA name/)
  })
})
