import { describe, it } from "@effect/vitest"
import { hold } from "./schedules.ts"

describe("simulated schedules, part 2", () => {
  it("keep every invariant, and meet every kind of fault", { timeout: 300_000 }, () => hold(501, 500))
})
