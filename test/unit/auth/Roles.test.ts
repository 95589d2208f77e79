import { assert, describe, it } from "@effect/vitest"
import { printable } from "../../../src/auth/Credentials.ts"
import {
  decodeGrants,
  type Grant,
  isPattern,
  ObjectBit,
  objectActions,
  objectPermissions,
  patternFits,
  permitsEverything,
  QueueBit,
  queueActions,
  queuePermissions,
  type Role,
  roles,
  rolesForObject,
  rolesForQueue
} from "../../../src/auth/Roles.ts"
import * as Limits from "../../../src/Limits.ts"

const named = <A extends string>(mask: number, bits: Readonly<Record<A, number>>): ReadonlyArray<string> =>
  Object.entries<number>(bits).flatMap(([action, bit]) => ((mask & bit) === 0 ? [] : [action]))

const onQueue = (role: Role): ReadonlyArray<string> => named(queuePermissions([{ role, queues: ["q"] }], "q"), QueueBit)
const onObject = (role: Role): ReadonlyArray<string> =>
  named(objectPermissions([{ role, objects: ["o"] }], "o"), ObjectBit)

describe("the table of roles", () => {
  it("says what each role may do, and nothing else", () => {
    assert.sameMembers(
      [...onQueue("producer")],
      ["open", "declare", "put", "outcomes", "join", "child", "signal", "find"]
    )
    assert.sameMembers([...onQueue("worker")], ["open", "declare", "lease", "child", "signal", "find"])
    assert.sameMembers([...onQueue("observer")], ["open", "stats", "explain", "browse", "repeats", "find"])
    assert.sameMembers([...onQueue("admin")], [...queueActions])
    for (const role of ["producer", "worker", "admin"] as const) {
      assert.sameMembers([...onObject(role)], [...objectActions])
    }
    assert.deepStrictEqual(onObject("observer"), [])
  })

  it("names for each action the roles that have it, and its bits are those of one integer", () => {
    for (const action of queueActions) {
      assert.sameMembers([...rolesForQueue(action)], [...roles.filter((role) => onQueue(role).includes(action))])
    }
    for (const action of objectActions) {
      assert.sameMembers([...rolesForObject(action)], [...roles.filter((role) => onObject(role).includes(action))])
    }
    assert.isBelow(queueActions.length, 31)
    assert.strictEqual(new Set(Object.values(QueueBit)).size, queueActions.length)
  })

  it("a name outside the patterns has no permission, whatever the role", () => {
    for (const role of roles) {
      assert.strictEqual(queuePermissions([{ role, queues: ["images*"], objects: ["*"] }], "pages"), 0)
      assert.strictEqual(objectPermissions([{ role, queues: ["*"], objects: ["seen"] }], "seen2"), 0)
      assert.strictEqual(queuePermissions([{ role }], "pages"), 0)
    }
    assert.strictEqual(queuePermissions([], "pages"), 0)
  })

  it("grants add up", () => {
    const grants: ReadonlyArray<Grant> = [
      { role: "worker", queues: ["pages"] },
      { role: "producer", queues: ["images*"] },
      { role: "observer", queues: ["*"] }
    ]
    const actions = (name: string) => named(queuePermissions(grants, name), QueueBit)
    assert.includeMembers([...actions("pages")], ["lease", "stats"])
    assert.notInclude(actions("pages"), "put")
    assert.includeMembers([...actions("images-2")], ["put", "child", "stats"])
    assert.notInclude(actions("images-2"), "lease")
    assert.sameMembers([...actions("other")], [...onQueue("observer")])
  })

  it("only an admin of every queue and object is not looked at any more", () => {
    assert.isTrue(permitsEverything(undefined))
    assert.isTrue(
      permitsEverything([
        { role: "observer", queues: ["a"] },
        { role: "admin", queues: ["a", "*"], objects: ["*"] }
      ])
    )
    assert.isFalse(permitsEverything([]))
    assert.isFalse(permitsEverything([{ role: "admin", queues: ["*"] }]))
    assert.isFalse(permitsEverything([{ role: "admin", queues: ["*"], objects: ["a*"] }]))
    assert.isFalse(permitsEverything([{ role: "worker", queues: ["*"], objects: ["*"] }]))
    assert.isFalse(
      permitsEverything([
        { role: "admin", queues: ["*"] },
        { role: "admin", objects: ["*"] }
      ])
    )
  })
})

describe("a pattern", () => {
  it("is an exact name, or a prefix and a star", () => {
    const longest = "x".repeat(Limits.nameCharsMax)
    for (const good of ["a", "a*", "*", "A-z_0.9:*", longest, `${longest.slice(1)}*`])
      assert.isTrue(isPattern(good), good)
    for (const bad of ["", "a**", "*a", "a*b", "a b", "a\n", "ä", `${longest}x`, `${longest}*`, "[a]", "a?"]) {
      assert.isFalse(isPattern(bad), bad)
    }
    const cases: ReadonlyArray<readonly [pattern: string, name: string, fits: boolean]> = [
      ["images", "images", true],
      ["images", "images2", false],
      ["images", "image", false],
      ["images*", "images", true],
      ["images*", "images.big", true],
      ["images*", "image", false],
      ["images*", "Images", false],
      ["*", "anything", true],
      ["a.c", "abc", false]
    ]
    for (const [pattern, name, fits] of cases)
      assert.strictEqual(patternFits(pattern, name), fits, `${pattern} ${name}`)
  })
})

describe("grants as people write them", () => {
  const faultOf = (input: unknown): string => {
    const decoded = decodeGrants(input)
    return decoded._tag === "Refused"
      ? `${decoded.fault.field} is ${decoded.fault.value}: ${decoded.fault.remedy}`
      : "none"
  }

  it("are copied", () => {
    const queues = ["images*"]
    const decoded = decodeGrants([{ role: "worker", queues }])
    queues.push("*")
    assert.deepStrictEqual(decoded, {
      _tag: "Decoded",
      grants: [{ role: "worker", queues: ["images*"], objects: [] }]
    })
  })

  it("are refused with the field, the value and a remedy", () => {
    const cases: ReadonlyArray<readonly [input: unknown, fault: RegExp]> = [
      [undefined, /^roles is missing: give a list/],
      ["worker", /^roles is "worker": give a list/],
      [[], /^roles is an empty list: a credential needs a role/],
      [[null], /^roles\[0\] is a null: give a role/],
      [[{ queues: ["a"] }], /^roles\[0\]\.role is missing: use producer, worker, observer, admin$/],
      [[{ role: "root", queues: ["a"] }], /^roles\[0\]\.role is "root": use producer/],
      [[{ role: ["admin"], queues: ["a"] }], /^roles\[0\]\.role is a list: use producer/],
      [[{ role: "worker", queues: "a" }], /^roles\[0\]\.queues is "a": give a list/],
      [[{ role: "worker", queues: ["a", "b*c"] }], /^roles\[0\]\.queues is "b\*c": use 1 to 200 characters/],
      [[{ role: "worker", queues: ["a", undefined] }], /^roles\[0\]\.queues is missing: use 1 to 200/],
      [[{ role: "worker", queues: ["a"], objects: [7] }], /^roles\[0\]\.objects is a number: use 1 to 200/],
      [[{ role: "worker" }], /^roles\[0\] is without a name: name what the worker may use/],
      [[{ role: "worker", queues: [] }], /^roles\[0\] is without a name/],
      [[{ role: "observer", queues: ["a"], objects: ["b"] }], /^roles\[0\]\.objects is "b": leave it out/],
      [[{ role: "worker", queues: ["a"], queue: "b" }], /^roles\[0\]\.queue is unknown: use role, queues, objects$/],
      [[{ role: "worker", queues: ["\u001b[31m\u202e\r\n"] }], /queues is "\\u001b\[31m\\u202e\\u000d\\u000a": use/]
    ]
    for (const [input, fault] of cases) assert.match(faultOf(input), fault)
    assert.match(faultOf(JSON.parse('[{"__proto__":{"role":"admin"},"queues":["*"]}]')), /__proto__ is unknown/)
  })

  it("are bounded in count", () => {
    const grant = { role: "worker", queues: ["a"] }
    for (const count of [Limits.grantsMax - 1, Limits.grantsMax]) {
      assert.strictEqual(faultOf(new Array(count).fill(grant)), "none")
    }
    assert.match(faultOf(new Array(Limits.grantsMax + 1).fill(grant)), /^roles is 17 grants: use at most 16$/)
    const queues = new Array(Limits.namePatternsMax).fill("a")
    for (const some of [queues.slice(1), queues])
      assert.strictEqual(faultOf([{ role: "worker", queues: some }]), "none")
    assert.match(
      faultOf([{ role: "worker", queues: [...queues, "b"] }]),
      /^roles\[0\]\.queues is 65 names: use at most 64/
    )
  })
})

describe("a stranger's text in a log", () => {
  it("is printable ASCII, and short", () => {
    assert.strictEqual(printable("plain text ~"), "plain text ~")
    assert.strictEqual(printable('a"b\\c'), "a\\u0022b\\u005cc")
    assert.strictEqual(
      printable("\u001b[2J\u009b\u202e</script>\r\n"),
      "\\u001b[2J\\u009b\\u202e</script>\\u000d\\u000a"
    )
    assert.strictEqual(printable("x".repeat(101)), `${"x".repeat(100)}...`)
  })
})
