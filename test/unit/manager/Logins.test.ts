import { assert, describe, it } from "@effect/vitest"
import * as Limits from "../../../src/Limits.ts"
import { Bursts } from "../../../src/manager/Bursts.ts"
import { Logins } from "../../../src/manager/Logins.ts"
import { isOfThisMachine, sourceOf } from "../../../src/platform/Network.ts"

describe("an address", () => {
  it("is the peer without its port; an IPv6 one is its network", () => {
    const cases: ReadonlyArray<readonly [string, string]> = [
      ["10.0.0.1:4711", "10.0.0.1"],
      ["::ffff:10.0.0.1:4711", "10.0.0.1"],
      ["::1:4711", "::1"],
      ["2001:db8:1:2:3:4:5:6:4711", "2001:db8:1:2::/64"],
      ["2001:DB8:1:2::9:4711", "2001:db8:1:2::/64"],
      ["2001:db8::9:4711", "2001:db8:0:0::/64"],
      ["fe80::1%eth0:4711", "fe80:0:0:0::/64"],
      ["unix:0", "unix"],
      ["in-process", "in-process"]
    ]
    for (const [peer, address] of cases) assert.strictEqual(sourceOf(peer), address, peer)
  })

  it("of this machine is told from others", () => {
    for (const address of ["127.0.0.1", "127.9.9.9", "::1", "unix", "in-process"])
      assert.isTrue(isOfThisMachine(address), address)
    for (const address of ["10.0.0.1", "128.0.0.1", "2001:db8:0:0::/64"])
      assert.isFalse(isOfThisMachine(address), address)
  })
})

describe("failed logins", () => {
  const fail = (logins: Logins, times: number, address = "a", name = "n", now = 0): void => {
    for (let i = 0; i < times; i++) logins.failed(address, name, now)
  }

  it("cost nothing below the limit, at it and above it more and more, up to the longest delay", () => {
    for (const [failures, wait] of [
      [0, 0],
      [Limits.loginFailuresFree - 1, 0],
      [Limits.loginFailuresFree, 250]
    ] as const) {
      const logins = new Logins()
      fail(logins, failures)
      assert.strictEqual(logins.answerAt("a", "n", 0), wait)
    }
    const logins = new Logins()
    fail(logins, Limits.loginFailuresFree)
    const waits: Array<number> = []
    for (let now = 0; waits.length < 8; ) {
      const at = logins.answerAt("a", "n", now)!
      waits.push(at - now)
      now = at
      fail(logins, 1, "a", "n", now)
    }
    assert.deepStrictEqual(waits, [250, 250, 500, 1_000, 2_000, 3_000, 3_000, 3_000])
  })

  it("are slow in turn: a thousand at once are answered one by one, and most not at all", () => {
    const logins = new Logins()
    fail(logins, 10)
    const answers = Array.from({ length: 1_000 }, () => logins.answerAt("a", "n", 10_000))
    assert.deepStrictEqual(
      answers.filter((at) => at !== undefined),
      [10_000, 13_000]
    )
  })

  it("slow down the address under any name, and the name from addresses that have failed, and nobody else", () => {
    const logins = new Logins()
    fail(logins, 3, "a", "n")
    assert.strictEqual(logins.answerAt("a", "other", 0), 250)
    assert.strictEqual(logins.answerAt("b", "n", 0), 0)
    fail(logins, 1, "b", "x")
    assert.strictEqual(logins.answerAt("b", "n", 0), 500 - 250)
    assert.strictEqual(logins.answerAt("b", "other", 0), 0)
    for (let i = 0; i < 300; i++) assert.strictEqual(logins.answerAt(`fresh ${i}`, "n", 0), 0)
  })

  it("of others do not hold up who has logged in from there before, until it fails as often itself", () => {
    const logins = new Logins()
    logins.accepted("a", "n")
    fail(logins, 50, "a", "m")
    fail(logins, 50, "b", "n")
    assert.strictEqual(logins.answerAt("a", "n", 0), 0)
    fail(logins, 2)
    assert.strictEqual(logins.answerAt("a", "n", 0), 0)
    fail(logins, 1)
    assert.isAbove(logins.answerAt("a", "n", 0) ?? Number.POSITIVE_INFINITY, 0)
  })

  it("are forgotten after a while without another", () => {
    const logins = new Logins()
    fail(logins, 10)
    assert.isAbove(logins.answerAt("a", "n", Limits.loginFailuresForgottenMs - 1) ?? 0, 0)
    assert.strictEqual(logins.answerAt("a", "n", Limits.loginFailuresForgottenMs), Limits.loginFailuresForgottenMs)
    assert.strictEqual(logins.answerAt("a", "n", Limits.loginFailuresForgottenMs), Limits.loginFailuresForgottenMs)
  })

  it("are remembered of a bounded number of addresses; those that fail on stay", () => {
    const logins = new Logins()
    fail(logins, 3, "attacker", "n")
    for (let i = 0; i < 3 * Limits.loginRecordsMax; i++) {
      fail(logins, 1, `address ${i}`, `name ${i}`)
      if (i % 1_000 === 0) fail(logins, 1, "attacker", "n")
    }
    assert.isUndefined([logins.answerAt("attacker", "n", 0), logins.answerAt("attacker", "n", 0)][1])
    assert.strictEqual(logins.answerAt("address 1", "other", 0), 0)
  })
})

describe("what strangers cause", () => {
  it("is logged once, then as a count, and is over when it stops", () => {
    const lines: Array<string> = []
    const bursts = new Bursts((text, details) =>
      lines.push(`${text} ${details["peer"] ?? `${details["from"]} ${details["times"]}`}`)
    )
    for (let i = 0; i < 500; i++) bursts.add("login refused", "a", { peer: `a:${i}`, reason: `try ${i}` }, i)
    bursts.add("login refused", "b", { peer: "b:1", reason: "r" }, 500)
    bursts.sweep(Limits.logBurstMs - 1)
    assert.deepStrictEqual(lines.splice(0), ["login refused a:0", "login refused b:1"])
    bursts.sweep(Limits.logBurstMs + 500)
    assert.deepStrictEqual(lines.splice(0), ["login refused, again and again a 499"])
    bursts.add("login refused", "a", { peer: "a:900", reason: "try 900" }, Limits.logBurstMs + 600)
    bursts.add("login refused", "b", { peer: "b:2", reason: "r" }, Limits.logBurstMs + 600)
    assert.deepStrictEqual(lines.splice(0), ["login refused b:2"])
    bursts.sweep(2 * Limits.logBurstMs + 500)
    assert.deepStrictEqual(lines.splice(0), ["login refused, again and again a 1"])
    bursts.sweep(3 * Limits.logBurstMs + 700)
    bursts.sweep(4 * Limits.logBurstMs + 700)
    bursts.add("login refused", "a", { peer: "a:1000", reason: "try 1000" }, 5 * Limits.logBurstMs)
    assert.deepStrictEqual(lines, ["login refused a:1000"])
  })

  it("is bounded: too many addresses at a time share one line", () => {
    let lines = 0
    const bursts = new Bursts(() => lines++)
    for (let i = 0; i < 3 * Limits.logBurstsMax; i++)
      bursts.add("login refused", `address ${i}`, { peer: "p", reason: "r" }, 0)
    assert.strictEqual(lines, Limits.logBurstsMax + 1)
  })
})
