import { assert, describe, it } from "@effect/vitest"
import {
  type Account,
  type Cause,
  check,
  type Decision,
  type EndCall,
  type Evidence,
  History,
  type LaneDecision,
  Ledger,
  type LedgerTask,
  type ObjectDecision,
  type OutcomeRead,
  type PutCall,
  type RepeatCall,
  type RepeatDecision,
  type SaveCall,
  type SharedCall,
  type SignalCall,
  type StepCall
} from "millrace/testing"

const policy = {
  leaseMs: 1_000,
  maxAttempts: 2,
  laneConcurrency: 2,
  laneRatePerMinute: 60,
  laneBurst: 2,
  laneGapMs: 10,
  capacity: 3,
  capacityBytes: 4,
  overflow: 0
}

/** A ledger that is fed by hand, and what it says. */
const ledgerOf = (): { readonly ledger: Ledger; readonly said: Array<string> } => {
  const said: Array<string> = []
  const ledger = new Ledger((invariant, text) => said.push(`${invariant}: ${text}`))
  ledger.policies[0] = policy as never
  return { ledger, said }
}

const decision = (change: Decision["change"], more: Partial<Decision> = {}): Decision => ({
  change,
  task: 1,
  queue: 0,
  now: 0,
  attempt: 0,
  fence: 0,
  holder: 0,
  priority: 128,
  dueAt: 0,
  outcome: -1,
  cursor: -1,
  delayMs: 0,
  payload: new Uint8Array(),
  id: undefined,
  key: undefined,
  origin: 0,
  checkpoint: undefined,
  entries: [],
  ttlMs: undefined,
  reason: undefined,
  ...more
})

const put = decision("put")
const leased = decision("leased", { attempt: 1, fence: 1, holder: 5 })
const by = (_tag: "commit" | "release" | "fail", fence = 1, session = 5): Cause => ({ _tag, session, held: [1, fence] })
const done = decision("ended", { outcome: 0, cursor: 0, now: 10 })
const tick: Cause = { _tag: "tick" }

/** A task of lane "k" that is put and leased, and perhaps committed at once. */
const inLane = (task: number, now: number, end = false): ReadonlyArray<Step> => [
  because({ _tag: "other" }),
  decision("put", { task, now, key: "k" }),
  { ...leased, task, now, fence: task },
  ...(end ? [because({ _tag: "commit", session: 5, held: [task, task] }), { ...done, task, now }] : [])
]

const one = new Uint8Array([1])
const two = new Uint8Array([2])

const stepping: Cause = { _tag: "step", session: 5, held: [1, 1] }
const signal: Cause = { _tag: "signal" }
const entry = (...entries: Decision["entries"]): Decision => decision("entry", { entries })
const suspending = (forMs: number | undefined, seen: number): Cause => {
  return { _tag: "suspend", session: 5, held: [1, 1], items: [{ task: 1, fence: 1, forMs, seen }] }
}
const suspended = (dueAt: number, more: Partial<Decision> = {}): Decision => decision("suspended", { dueAt, ...more })

type Step = Decision | { readonly because: Cause } | ((ledger: Ledger) => void)

const because = (cause: Cause): Step => ({ because: cause })

const play = (steps: ReadonlyArray<Step>): ReadonlyArray<string> => {
  const { ledger, said } = ledgerOf()
  for (const step of steps) {
    if (typeof step === "function") step(ledger)
    else if ("because" in step) ledger.cause = step.because
    else ledger.decided(step)
  }
  return said
}

describe("the ledger", () => {
  it("says nothing of good histories", () => {
    assert.deepStrictEqual(play([put, leased, because(by("commit")), done]), [])
    const back = decision("ready", { now: 1_000, attempt: 0 })
    assert.deepStrictEqual(
      play([put, leased, because(tick), back, { ...leased, fence: 2, now: 1_000 }, because(by("commit", 2)), done]),
      []
    )
    assert.deepStrictEqual(
      play([
        put,
        leased,
        because(stepping),
        entry(["a", one]),
        because(suspending(100, 1)),
        suspended(100),
        because(signal),
        entry(["a", one], ["!s", two]),
        decision("ready", { now: 10 }),
        { ...leased, fence: 2, now: 20 },
        because(tick),
        decision("ready", { now: 1_020 })
      ]),
      []
    )
    const delayed = decision("delayed", { attempt: 1, now: 5, dueAt: 50 })
    const due = decision("ready", { attempt: 1, now: 50 })
    assert.deepStrictEqual(play([put, leased, because(by("fail")), delayed, because(tick), due]), [])
  })

  const bad: ReadonlyArray<readonly [invariant: string, name: string, steps: ReadonlyArray<Step>]> = [
    ["S2", "a task that nobody put", [leased]],
    ["S5", "a number that is used twice", [put, put]],
    ["S7", "a lease after the end", [put, leased, because(by("commit")), done, { ...leased, fence: 2, attempt: 2 }]],
    ["S8", "a second outcome", [put, leased, because(by("commit")), done, done]],
    ["S8", "a redrive of what is no dead letter", [put, decision("redriven")]],
    ["S6", "a purge of what is leased", [put, leased, decision("purged")]],
    ["S9", "a fence that does not rise", [put, leased, because(by("release")), decision("ready"), leased]],
    ["S9", "a commit under another fence", [put, leased, because(by("commit", 7)), done]],
    ["S9", "a commit by another session", [put, leased, because(by("commit", 1, 6)), done]],
    ["S9", "a commit of what is not leased", [put, because(by("commit")), done]],
    [
      "S9",
      "a checkpoint under another fence",
      [
        put,
        leased,
        because({ _tag: "checkpoint", session: 5, held: [1, 7] }),
        decision("checkpoint", { checkpoint: one })
      ]
    ],
    ["S9", "a step under another fence", [put, leased, because({ ...stepping, held: [1, 7] }), entry(["a", one])]],
    ["S9", "a step of what is not leased", [put, because(stepping), entry(["a", one])]],
    ["S9", "a step by nobody", [put, leased, because(signal), entry(["a", one])]],
    ["S19", "a signal by nobody", [put, leased, because(stepping), entry(["!s", one])]],
    ["S7", "a signal after the end", [put, leased, because(by("commit")), done, because(signal), entry(["!s", one])]],
    [
      "S19",
      "a step that is recorded over another",
      [put, leased, because(stepping), entry(["a", one]), entry(["a", one], ["a", two])]
    ],
    [
      "S19",
      "a step that is recorded in place of another",
      [put, leased, because(stepping), entry(["a", one]), entry(["b", two])]
    ],
    [
      "S19",
      "a step whose value changes when the next is recorded",
      [put, leased, because(stepping), entry(["a", one]), entry(["a", two], ["b", two])]
    ],
    [
      "S19",
      "a redrive without its steps",
      [
        put,
        leased,
        because(stepping),
        entry(["a", one]),
        because(by("fail")),
        { ...done, outcome: 2 },
        decision("put", { task: 2, origin: 1 })
      ]
    ],
    ["S19", "a put with steps of nobody", [decision("put", { entries: [["a", one]] })]],
    ["S11", "a wait that counts", [put, leased, because(suspending(100, 0)), suspended(100, { attempt: 1 })]],
    ["S9", "a wait that nobody asked for", [put, leased, because(by("release")), suspended(100)]],
    ["S13", "a wait that is short", [put, leased, because(suspending(100, 0)), suspended(99)]],
    ["S13", "a wait for a signal that ends by itself", [put, leased, because(suspending(undefined, 0)), suspended(99)]],
    [
      "S13",
      "a wait that ends early without a signal",
      [put, leased, because(suspending(100, 0)), suspended(100), because(tick), decision("ready", { now: 99 })]
    ],
    [
      "S19",
      "a wait for a signal that came before",
      [
        put,
        leased,
        because(signal),
        entry(["!s", one]),
        because(suspending(undefined, 0)),
        suspended(Number.MAX_SAFE_INTEGER)
      ]
    ],
    [
      "S1",
      "a redrive without its checkpoint",
      [
        put,
        leased,
        because({ _tag: "checkpoint", session: 5, held: [1, 1] }),
        decision("checkpoint", { checkpoint: one }),
        because({ _tag: "fail", session: 5, held: [1, 1] }),
        { ...done, outcome: 2 },
        decision("put", { task: 2, origin: 1 })
      ]
    ],
    ["S10", "two leases at a time", [put, leased, { ...leased, fence: 2, attempt: 2 }]],
    [
      "S10",
      "a commit after the term",
      [put, leased, (ledger) => ledger.expired(1_000), because(by("commit")), { ...done, now: 1_001 }]
    ],
    ["S10", "an end that is early", [put, leased, because(tick), decision("ready", { now: 999 })]],
    ["S10", "a lease beyond its term", [put, leased, (ledger) => ledger.expired(1_000)]],
    ["S10", "a renewal without a lease", [put, (ledger) => ledger.renewed(5, [1, 1], () => false, 0, true)]],
    ["S10", "a renewal that is refused", [put, leased, (ledger) => ledger.renewed(5, [1, 1], () => true, 0, true)]],
    ["S11", "an attempt that is not counted", [put, { ...leased, attempt: 0 }]],
    ["S11", "an attempt too many", [put, { ...leased, attempt: 3 }]],
    ["S11", "a release that counts", [put, leased, because(by("release")), decision("ready", { attempt: 1 })]],
    [
      "S11",
      "a loss after the start that does not count",
      [put, leased, (ledger) => ledger.started(5, [1, 1]), because(tick), decision("ready", { now: 1_000 })]
    ],
    ["S12", "one that was put later goes first", [put, decision("put", { task: 2 }), { ...leased, task: 2 }]],
    [
      "S12",
      "a less urgent one goes first",
      [{ ...put, priority: 1 }, decision("put", { task: 2 }), { ...leased, task: 2 }]
    ],
    [
      "S12",
      "a release loses its place",
      [
        put,
        leased,
        decision("put", { task: 2 }),
        because(by("release")),
        decision("ready"),
        { ...leased, task: 2, fence: 2 }
      ]
    ],
    ["S13", "a delay that is short", [decision("put", { delayMs: 100, dueAt: 99 })]],
    [
      "S13",
      "due too early",
      [decision("put", { delayMs: 100, dueAt: 100 }), because(tick), decision("ready", { now: 99 })]
    ],
    ["S13", "a lease of what is delayed", [decision("put", { delayMs: 100, dueAt: 100 }), leased]],
    ["S22", "a lane with a lease too many", [...inLane(1, 0), ...inLane(2, 20), ...inLane(3, 2_000)]],
    ["S22", "a gap that is too short", [...inLane(1, 0), ...inLane(2, 9)]],
    ["S22", "a rate above the limit", [...inLane(1, 0, true), ...inLane(2, 10, true), ...inLane(3, 500, true)]],
    [
      "S14",
      "a lease request that is given others",
      [put, leased, (ledger) => ledger.granted(5, 9, [1]), (ledger) => ledger.granted(5, 9, [2])]
    ]
  ]
  for (const [invariant, name, steps] of bad) {
    it(`${invariant}: ${name}`, () => {
      const said = play(steps)
      assert.isAbove(said.length, 0)
      assert.isTrue(said.at(-1)!.startsWith(invariant), said.join("; "))
    })
  }

  const made: ObjectDecision = { what: "made", object: 0, by: undefined, kind: "counter", name: "c" }
  const madeDict: ObjectDecision = { ...made, kind: "dict", name: "d" }
  const by1 = { request: "5 1", run: 1 }
  const counted: ObjectDecision = { what: "counted", object: 0, by: by1, value: 1 }
  const key = { object: 0, by: by1, key: "k", fingerprint: new Uint32Array(4) }
  const added: ObjectDecision = { what: "added", ...key }
  const written: ObjectDecision = { what: "written", object: 0, by: by1, key: "k", value: new Uint8Array(), version: 1 }
  const badObjects: ReadonlyArray<readonly [invariant: string, name: string, steps: ReadonlyArray<ObjectDecision>]> = [
    ["S4", "a request that counts twice", [made, counted, { ...counted, by: { request: "5 1", run: 2 }, value: 2 }]],
    ["S21", "an object that is made twice", [made, made]],
    ["S21", "a counter that is no counter", [madeDict, counted]],
    ["S21", "a key that is added twice", [{ ...made, kind: "set", name: "s" }, added, added]],
    ["S21", "a version that was given before", [madeDict, written, written]],
    ["S21", "a deletion of what is not there", [madeDict, { ...written, value: undefined }]]
  ]
  for (const [invariant, name, steps] of badObjects) {
    it(`${invariant}: ${name}`, () => {
      const { ledger, said } = ledgerOf()
      for (const step of steps.slice(0, -1)) ledger.changed(step)
      assert.deepStrictEqual(said, [])
      ledger.changed(steps.at(-1)!)
      assert.isTrue(said.at(-1)?.startsWith(invariant), said.join("; "))
    })
  }

  const repeatMade: RepeatDecision = {
    what: "repeat",
    queue: 0,
    id: "r",
    now: 0,
    everyMs: 100,
    nextAt: 100,
    task: 0,
    occurrences: 0,
    removed: false
  }
  const occurs = (task: number, now: number, more: Partial<RepeatDecision> = {}): RepeatDecision => {
    return { ...repeatMade, task, now, nextAt: now + 100, occurrences: task, ...more }
  }
  const first = [decision("put", { task: 1, now: 100 }), occurs(1, 100)]
  const badRepeats: ReadonlyArray<readonly [name: string, steps: ReadonlyArray<Decision | RepeatDecision>]> = [
    ["an occurrence that is early", [repeatMade, decision("put", { now: 99 }), occurs(1, 99)]],
    ["an occurrence beside another", [repeatMade, ...first, decision("put", { task: 2, now: 200 }), occurs(2, 200)]],
    ["an occurrence that is not put", [repeatMade, occurs(1, 100)]],
    ["an occurrence that is not counted", [repeatMade, first[0]!, occurs(1, 100, { occurrences: 0 })]],
    ["a schedule that shifts", [repeatMade, first[0]!, occurs(1, 100, { nextAt: 199 })]],
    ["a schedule that shifts between", [repeatMade, { ...repeatMade, nextAt: 101 }]],
    ["a repeat of nobody", [first[0]!, occurs(1, 100)]],
    ["a removal of what is not there", [{ ...repeatMade, removed: true }]]
  ]
  for (const [name, steps] of badRepeats) {
    it(`repeat: ${name}`, () => {
      const { ledger, said } = ledgerOf()
      for (const [i, step] of steps.entries()) {
        assert.deepStrictEqual(said, [], `step ${i}`)
        if ("what" in step) ledger.changed(step)
        else ledger.decided(step)
      }
      assert.isAbove(said.length, 0)
    })
  }

  it("repeat: one that is overdue, and one that is lost by a restart", () => {
    const { ledger, said } = ledgerOf()
    ledger.changed(repeatMade)
    ledger.ticked(99)
    assert.deepStrictEqual(said, [])
    ledger.ticked(100)
    ledger.repeats.restored({ repeats: { all: () => [] } } as never)
    assert.strictEqual(said.length, 2)
  })

  const lane = (change: LaneDecision["change"], more: Partial<LaneDecision> = {}) => {
    const none = { limits: undefined, forMs: undefined }
    return (ledger: Ledger) => ledger.changed({ what: "lane", queue: 0, key: "k", now: 0, change, ...none, ...more })
  }
  const badLanes: ReadonlyArray<readonly [name: string, steps: ReadonlyArray<Step>]> = [
    ["a lease of a lane that is paused", [lane("pause"), ...inLane(1, 0)]],
    ["a lease of a lane that is slowed down", [lane("slowDown", { forMs: 100 }), ...inLane(1, 99)]],
    [
      "a shorter slow-down that ends a longer one",
      [lane("slowDown", { forMs: 100 }), lane("slowDown"), ...inLane(1, 9)]
    ],
    [
      "a lease above the lane's own limit",
      [lane("limit", { limits: { concurrency: 1 } }), ...inLane(1, 0), ...inLane(2, 50)]
    ],
    [
      "a gap of the lane's own",
      [lane("limit", { limits: { gapMs: 50 } }), ...inLane(1, 0, true), ...inLane(2, 49, true)]
    ],
    [
      "a lease above the policy's limit, once its own is cleared",
      [lane("limit", { limits: { gapMs: 0 } }), lane("clear"), ...inLane(1, 0), ...inLane(2, 9)]
    ],
    [
      "a lease above a rate that was changed meanwhile",
      [
        ...inLane(1, 0, true),
        ...inLane(2, 20, true),
        lane("limit", { limits: { burst: 9 }, now: 30 }),
        ...inLane(3, 40, true)
      ]
    ]
  ]
  for (const [name, steps] of badLanes) {
    it(`S22: ${name}`, () => {
      const said = play(steps)
      assert.isTrue(said.length > 0 && said.every((text) => text.startsWith("S22")), said.join("; "))
    })
  }

  it("S22: a lane that was resumed, cleared or has rested is left alone", () => {
    assert.deepStrictEqual(play([lane("pause"), lane("resume"), ...inLane(1, 0)]), [])
    assert.deepStrictEqual(play([lane("slowDown", { forMs: 100 }), lane("clear"), ...inLane(1, 0)]), [])
    assert.deepStrictEqual(play([lane("slowDown", { forMs: 100 }), ...inLane(1, 100)]), [])
  })

  it("S16: a life that loads another setting of a lane is found", () => {
    const { ledger, said } = ledgerOf()
    lane("slowDown", { forMs: 100 })(ledger)
    const engineWith = (slowedUntil: number, now: number) =>
      ({ queues: [{ ready: { setting: () => ({ paused: false, slowedUntil }), inside: () => ({ now }) } }] }) as never
    ledger.lanes.restored(engineWith(100, 50))
    ledger.lanes.restored(engineWith(0, 100))
    assert.deepStrictEqual(said, [])
    ledger.lanes.restored(engineWith(0, 50))
    assert.strictEqual(said.length, 1)
  })

  const enters = (n: number, bytes = 0, more: Partial<Decision> = {}): ReadonlyArray<Step> => [
    because({ _tag: "put" }),
    decision("put", { task: n, payload: new Uint8Array(bytes), ...more })
  ]
  const dies = (n: number, more: Partial<Decision>): Decision => decision("ended", { task: n, outcome: 2, ...more })
  const dropsOldest = (ledger: Ledger): void => void Reflect.set(ledger.policies, 0, { ...policy, overflow: 1 })
  const four = [1, 2, 3, 4].flatMap((n) => enters(n))
  const settled = (ledger: Ledger): void => ledger.room.settled()
  const badRoom: ReadonlyArray<readonly [invariant: string, name: string, steps: ReadonlyArray<Step>]> = [
    ["capacity", "a put beside too many tasks", four],
    ["capacity", "a put beside too many bytes", [...enters(1, 3), ...enters(2, 2)]],
    ["capacity", "a queue that does not drop what it must", [dropsOldest, ...four, settled]],
    ["capacity", "a task that is dropped in place of an older one", [dropsOldest, ...four, dies(2, { reason: 6 })]],
    [
      "capacity",
      "a task that is dropped in place of a less urgent one",
      [dropsOldest, ...four.slice(0, -2), ...enters(4, 0, { priority: 200 }), dies(1, { reason: 6 })]
    ],
    ["capacity", "a task that is dropped where there is room", [dropsOldest, ...enters(1), dies(1, { reason: 6 })]],
    ["capacity", "a task that is dropped where puts wait", [...enters(1), dies(1, { reason: 6 })]],
    [
      "ttl",
      "a task that expires early",
      [...enters(1, 0, { ttlMs: 9 }), because(tick), dies(1, { reason: 5, now: 8 })]
    ],
    ["ttl", "a task that waits too long", [...enters(1, 0, { ttlMs: 9 }), (ledger) => ledger.ticked(9)]],
    ["ttl", "a lease of what has expired", [...enters(1, 0, { ttlMs: 9 }), { ...leased, now: 9 }]],
    [
      "S6",
      "a task that is called damaged on a sound disk",
      [put, leased, because({ _tag: "damaged" }), dies(1, { reason: 10 })]
    ],
    ["S6", "a death without a reason", [...enters(1), dies(1, {})]],
    ["S6", "a death of what waits, for another reason", [...enters(1), dies(1, { reason: 0 })]]
  ]
  for (const [invariant, name, steps] of badRoom) {
    it(`${invariant}: ${name}`, () => {
      const said = play(steps)
      assert.isTrue(said.length > 0 && said.every((text) => text.startsWith(invariant)), said.join("; "))
    })
  }

  it("capacity: what is not put by clients always enters, and what is dropped in its turn may go", () => {
    const child = because({ _tag: "commit", session: 5, held: [] })
    assert.deepStrictEqual(play([...four.slice(0, -2), child, decision("put", { task: 4 })]), [])
    assert.deepStrictEqual(play([dropsOldest, ...four, dies(1, { reason: 6 }), settled]), [])
  })

  it("S16: a life that loads another object is found", () => {
    const { ledger, said } = ledgerOf()
    ledger.changed(made)
    ledger.changed(counted)
    ledger.objects.restored({ all: [{ kind: "counter", name: "c", value: 1 }] } as never)
    assert.deepStrictEqual(said, [])
    ledger.objects.restored({ all: [{ kind: "counter", name: "c", value: 2 }] } as never)
    assert.isTrue(said[0]?.startsWith("S16"))
  })

  it("goes back to what was stored, without judging it again, and keeps its order", () => {
    const { ledger, said } = ledgerOf()
    ledger.decided(put)
    const stored = ledger.decisions
    ledger.decided(leased)
    ledger.revert(stored)
    assert.strictEqual(ledger.tasks.get(1)?.state, "ready")
    ledger.decided(leased)
    assert.deepStrictEqual(said, [])
    ledger.decided(put)
    assert.strictEqual(said.length, 1)
  })

  it("S16: a life that loads something else is found", () => {
    const { ledger, said } = ledgerOf()
    ledger.decided(put)
    const nothing = {
      tasks: { owner: () => undefined },
      unfinished: 0,
      fence: () => 0,
      objects: { all: [] },
      repeats: { all: () => [] }
    }
    ledger.restored(nothing as never)
    assert.isTrue(said.some((text) => text.startsWith("S16")))
  })
})

// ---- the history

const task = (more: Partial<LedgerTask> = {}): LedgerTask => ({
  task: 1,
  queue: 0,
  priority: 128,
  payload: new Uint8Array(),
  id: undefined,
  key: undefined,
  putAt: 0,
  ttlMs: undefined,
  checkpoint: undefined,
  entries: [],
  suspended: false,
  state: "ended",
  redriven: false,
  attempt: 1,
  fence: 1,
  holder: 0,
  deadline: 0,
  dueAt: 0,
  started: false,
  fresh: true,
  leases: 1,
  endedAt: 5,
  reason: undefined,
  outcome: 0,
  cursor: 0,
  ...more
})

const account = (more: Partial<Account> = {}): Account => ({
  task: task(),
  taskId: "t1",
  queue: "q",
  u: 1,
  payload: "p1",
  ...more
})

const call = { client: "c", queue: "q", startedAt: 0, endedAt: 1, error: undefined } as const

const putCall = (more: Partial<PutCall> = {}): PutCall => ({
  ...call,
  verdict: "ok",
  op: "put",
  items: [{ u: 1, payload: "p1", id: undefined, priority: 128, delayMs: 0, ttlMs: undefined, key: undefined }],
  atomic: true,
  receipts: [{ taskId: "t1", duplicate: false }],
  accepted: 1,
  ...more
})

const commit = (more: Partial<EndCall> = {}): EndCall => ({
  ...call,
  verdict: "ok",
  op: "commit",
  taskId: "t1",
  fence: 1,
  result: 77,
  ...more
})

const read = (more: Partial<OutcomeRead> = {}): OutcomeRead => ({
  client: "c",
  queue: "q",
  at: 9,
  taskId: "t1",
  outcome: "Success",
  result: 77,
  attempts: 1,
  reader: 1,
  ...more
})

const stats = { puts: 1, ready: 0, delayed: 0, leased: 0, done: 1, dead: 0, cancelled: 0, acknowledged: 0, purged: 0 }

interface Case {
  readonly accounts?: ReadonlyArray<Account>
  readonly puts?: ReadonlyArray<PutCall>
  readonly ends?: ReadonlyArray<EndCall>
  readonly outcomes?: ReadonlyArray<OutcomeRead>
  readonly deliveries?: History["deliveries"]
  readonly children?: History["children"]
  readonly stats?: Evidence["stats"]
  readonly objects?: Evidence["objects"]
  readonly shared?: ReadonlyArray<SharedCall>
  readonly saves?: ReadonlyArray<SaveCall>
  readonly steps?: ReadonlyArray<StepCall>
  readonly signals?: ReadonlyArray<SignalCall>
  readonly repeats?: ReadonlyArray<RepeatCall>
  /** Repeats of the queue in the end. */
  readonly listed?: ReadonlyArray<string>
}

const add = (answer: boolean): Partial<SharedCall> => ({ op: "add", answer })
const click = (value: number, answer: number): Partial<SharedCall> => ({ op: "count", value, answer })
const onceOf = (value: number, answer: boolean): Partial<SharedCall> => ({ op: "once", value, answer })
const note = (value: number, answer: number): Partial<SharedCall> => ({ op: "write", value, answer })
const cas = (expected: number): Partial<SharedCall> => ({ op: "writeIf", expected })

/** One request after the other, on one key of one object. */
const requests = (queue: string, ...calls: ReadonlyArray<Partial<SharedCall>>): ReadonlyArray<SharedCall> =>
  calls.map((more, i) => ({
    client: "c",
    queue,
    startedAt: 10 * i,
    endedAt: 10 * i + 5,
    verdict: "ok",
    error: undefined,
    op: "read",
    key: "k",
    value: undefined,
    expected: undefined,
    answer: undefined,
    ...more
  }))

const setOf = (name: string, ...keys: ReadonlyArray<string>): Evidence["objects"] =>
  new Map([[name, { kind: "set", keys }]])
const counterOf = (value: number): Evidence["objects"] => new Map([["clicks", { kind: "counter", value }]])
const dictOf = (name: string, value: number, version: number): Evidence["objects"] =>
  new Map([[name, { kind: "dict", entries: new Map(version === 0 ? [] : [["k", { value, version }]]) }]])

const save = (value: number, verdict: SaveCall["verdict"] = "ok"): SaveCall => ({
  ...call,
  verdict,
  op: "checkpoint",
  taskId: "t1",
  fence: 0,
  u: 1,
  value
})

/** Of fence 0, at time 0. */
const step = (name: string, value: number, more: Partial<StepCall> = {}): StepCall => {
  return { ...call, verdict: "ok", op: "step", taskId: "t1", fence: 0, u: 1, name, value, ...more }
}
const signalled = (value: number, more: Partial<SignalCall> = {}): SignalCall => {
  return { ...call, verdict: "ok", op: "signal", taskId: "t1", id: undefined, name: "!s", value, ...more }
}

const repeat: RepeatCall = { ...call, verdict: "ok", op: "repeat", id: "r", item: { u: 9, payload: "p9" } }

const oneChild = new Map([["links.q", { kind: "set", keys: ["k"] }]]) as Evidence["objects"]

const judge = (one: Case): ReadonlyArray<string> => {
  const history = new History()
  history.puts.push(...(one.puts ?? [putCall()]))
  history.ends.push(...(one.ends ?? [commit()]))
  history.outcomes.push(...(one.outcomes ?? [read()]))
  history.deliveries.push(...(one.deliveries ?? []))
  history.children.push(...(one.children ?? []))
  history.shared.push(...(one.shared ?? []))
  history.saves.push(...(one.saves ?? []))
  history.steps.push(...(one.steps ?? []))
  history.signals.push(...(one.signals ?? []))
  history.repeats.push(...(one.repeats ?? []))
  if (one.listed !== undefined) history.repeatsListed.set("q", { askedAt: 100, ids: one.listed })
  const said: Array<string> = []
  const queues = new Map([["q", { dedupeKept: 1_000_000, dedupeKeptMs: 100 }]])
  const accounts = one.accounts ?? [account()]
  const evidence = {
    history,
    accounts,
    queues,
    stats: one.stats ?? new Map([["q", stats]]),
    objects: one.objects ?? new Map()
  }
  check(evidence, (invariant) => said.push(invariant))
  return said
}

const delivery = {
  how: "lease",
  client: "c",
  queue: "q",
  at: 3,
  taskId: "t1",
  fence: 1,
  attempt: 1,
  u: 1,
  payload: "p1",
  checkpoint: undefined,
  result: undefined
} as const

/** Asked for at time 3. */
const withEntries = (...entries: NonNullable<(typeof History.prototype.deliveries)[number]["entries"]>) => {
  return { ...delivery, entries, askedAt: 3 }
}

const child = {
  queue: "q",
  item: { ...putCall().items[0]!, u: 2, payload: "p2" },
  run: { ...delivery, how: "worker", result: 77 }
} as const

describe("the judge of histories", () => {
  it("says nothing of a good one", () => {
    assert.deepStrictEqual(judge({ deliveries: [delivery] }), [])
    const late = { startedAt: 4, endedAt: 5 }
    const perhaps = { verdict: "indefinite" } as const
    const steps = [
      step("a", 1),
      step("b", 2, perhaps),
      step("b", 3, { ...late, ...perhaps }),
      step("c", 4, { verdict: "definite" })
    ]
    const signals = [
      signalled(5),
      signalled(6, late),
      signalled(7, { name: "!i", taskId: undefined, id: "i" }),
      signalled(8, { name: "!late", ...late })
    ]
    const accounts = [account({ task: task({ id: "i" }) })]
    for (const b of [[], [["b", 2]], [["b", 3]]] as const) {
      const deliveries = [withEntries(["a", 1], ["!s", 5], ["!i", 7], ...b)]
      assert.deepStrictEqual(judge({ accounts, deliveries, signals, steps }), [])
    }
    const others = { ...withEntries(), taskId: "t2", u: 2, payload: "p2" }
    const second = account({ taskId: "t2", u: 2, payload: "p2", task: task({ task: 2 }) })
    const puts = [
      putCall(),
      putCall({
        items: [{ ...putCall().items[0]!, u: 2, payload: "p2" }],
        receipts: [{ taskId: "t2", duplicate: false }]
      })
    ]
    assert.notInclude(judge({ accounts: [account(), second], deliveries: [others], puts, steps }), "S19")
  })

  const bad: ReadonlyArray<readonly [invariant: string, name: string, one: Case]> = [
    ["S1", "an acknowledged put that is lost", { accounts: [], ends: [], outcomes: [], stats: new Map() }],
    ["S1", "a put with too few receipts", { puts: [putCall({ receipts: [] })] }],
    ["S1", "a receipt for another payload", { puts: [putCall({ receipts: [{ taskId: "t2", duplicate: false }] })] }],
    ["S2", "a task that nobody put", { puts: [], ends: [], outcomes: [] }],
    ["S2", "another payload", { accounts: [account({ payload: "p9" })] }],
    ["S2", "another queue", { accounts: [account({ queue: "r" })], stats: new Map() }],
    ["S2", "a delivery of what was never put", { deliveries: [{ ...delivery, taskId: "t9" }] }],
    ["S2", "a delivery with another payload", { deliveries: [{ ...delivery, payload: "p9" }] }],
    ["S3", "a put that certainly failed", { puts: [putCall({ verdict: "definite", error: "Full", accepted: 0 })] }],
    ["S3", "a result whose commit was refused", { ends: [commit({ verdict: "definite", error: "LeaseLost" })] }],
    ["S4", "one put, two tasks", { accounts: [account(), account({ taskId: "t2", task: task({ task: 2 }) })] }],
    ["S4", "a commit without its child", { children: [child], deliveries: [child.run] }],
    ["S5", "a duplicate of another id", { puts: [putCall({ receipts: [{ taskId: "t1", duplicate: true }] })] }],
    [
      "S5",
      "an id that lives twice",
      {
        accounts: [
          account({ task: task({ id: "a" }) }),
          account({ taskId: "t2", u: 2, task: task({ task: 2, id: "a", putAt: 104 }) })
        ]
      }
    ],
    ["S6", "a task that is left", { accounts: [account({ task: task({ state: "leased" }) })] }],
    ["S8", "two commits", { ends: [commit(), commit({ client: "d" })] }],
    ["S8", "two outcomes", { outcomes: [read(), read({ reader: undefined, result: 78 })] }],
    ["S8", "another outcome than became of it", { outcomes: [read({ outcome: "Dead", result: undefined })] }],
    ["S8", "a result that nobody committed", { ends: [], outcomes: [read()] }],
    ["S8", "an acknowledged commit that is not the outcome", { accounts: [account({ task: task({ outcome: 2 }) })] }],
    ["S8", "a reader that misses one", { outcomes: [read(), read({ taskId: "t1" })] }],
    ["S9", "a commit under another fence", { ends: [commit({ fence: 2 })] }],
    ["S14", "one lease, handed out twice", { deliveries: [delivery, delivery] }],
    [
      "S21",
      "a counter that does not count the successes",
      { objects: new Map([["successes.q", { kind: "counter", value: 2 }]]) }
    ],
    ["S4", "a set that lacks what was committed", { objects: new Map([["marked.q", { kind: "set", keys: [] }]]) }],
    [
      "S4",
      "a set with more than was committed",
      { objects: new Map([["marked.q", { kind: "set", keys: ["1", "2"] }]]) }
    ],
    ["S21", "a set that lists twice", { objects: new Map([["marked.q", { kind: "set", keys: ["1", "1"] }]]) }],
    [
      "S21",
      "a dict with another result",
      { objects: new Map([["results.q", { kind: "dict", entries: new Map([["1", { value: 78, version: 1 }]]) }]]) }
    ],
    [
      "S21",
      "a chain that was counted without a commit",
      { objects: new Map([["chain.q", { kind: "dict", entries: new Map([["n", { value: 1, version: 1 }]]) }]]) }
    ],
    ["S4", "a new key without its child", { objects: oneChild }],
    [
      "S4",
      "a key that is new to two",
      {
        accounts: [account(), account({ taskId: "t2", u: 2, payload: "p2", task: task({ task: 2 }) })],
        children: [1, 2].map((u) => ({ ...child, item: { ...child.item, u }, ifNew: { set: "links.q", key: "k" } })),
        objects: oneChild
      }
    ],
    ["S1", "an acknowledged addition is lost", { shared: requests("words", add(true)), objects: setOf("words") }],
    ["S21", "a key is new twice", { shared: requests("words", add(true), add(true)), objects: setOf("words", "k") }],
    [
      "S1",
      "a key is not found after it was added",
      { shared: requests("words", add(true), { op: "has", answer: false }), objects: setOf("words", "k") }
    ],
    [
      "S21",
      "a key is found before it was added",
      { shared: requests("words", { op: "has", answer: true }, add(true)), objects: setOf("words", "k") }
    ],
    [
      "S21",
      "a key that its one user removed is there",
      { shared: requests("owned", add(true), { op: "remove", answer: true }, add(false)), objects: setOf("owned") }
    ],
    [
      "S1",
      "a removal is lost",
      { shared: requests("owned", { op: "remove", answer: false }), objects: setOf("owned", "k") }
    ],
    ["S1", "an increment is lost", { shared: requests("clicks", click(2, 2)), objects: counterOf(0) }],
    ["S4", "an increment counts twice", { shared: requests("clicks", click(2, 2)), objects: counterOf(4) }],
    [
      "S4",
      "a refused increment counts",
      { shared: requests("clicks", { ...click(2, 2), verdict: "definite" }), objects: counterOf(2) }
    ],
    [
      "S21",
      "two increments with one sum",
      { shared: requests("clicks", click(2, 2), click(2, 2)), objects: counterOf(4) }
    ],
    ["S21", "sums that fall", { shared: requests("clicks", click(2, 4), click(2, 2)), objects: counterOf(4) }],
    [
      "S21",
      "two writers find a key absent",
      { shared: requests("onces", onceOf(1, true), onceOf(2, true)), objects: dictOf("onces", 1, 1) }
    ],
    [
      "S1",
      "what was written once is gone",
      { shared: requests("onces", onceOf(1, true)), objects: dictOf("onces", 0, 0) }
    ],
    ["S3", "a refused value is there", { shared: requests("onces", onceOf(1, false)), objects: dictOf("onces", 1, 1) }],
    [
      "S21",
      "two writes of one version",
      { shared: requests("notes", note(1, 1), note(2, 1)), objects: dictOf("notes", 2, 1) }
    ],
    [
      "S21",
      "a stale compare-and-set writes",
      {
        shared: requests("notes", note(1, 1), { ...note(2, 2), ...cas(1) }, { ...note(3, 3), ...cas(1) }),
        objects: dictOf("notes", 3, 3)
      }
    ],
    [
      "S1",
      "an older version is read",
      {
        shared: requests("notes", note(1, 1), note(2, 2), { op: "read", answer: 1, value: 1 }),
        objects: dictOf("notes", 2, 2)
      }
    ],
    ["S1", "an acknowledged write is gone", { shared: requests("notes", note(1, 1)), objects: dictOf("notes", 0, 0) }],
    [
      "S3",
      "a refused write is read",
      { shared: requests("notes", { ...note(1, 0), verdict: "definite" }), objects: dictOf("notes", 1, 1) }
    ],
    [
      "S21",
      "a write is refused for nothing",
      {
        shared: requests("notes", note(1, 1), {
          ...note(2, 1),
          ...cas(1),
          verdict: "definite",
          error: "Conflict"
        }),
        objects: dictOf("notes", 1, 1)
      }
    ],
    [
      "S21",
      "what was deleted is read",
      {
        shared: requests("notes", note(1, 1), { op: "delete", answer: true }, { answer: 1, value: 1 }),
        objects: dictOf("notes", 0, 0)
      }
    ],
    ["S1", "a checkpoint is lost", { deliveries: [delivery], saves: [save(1)] }],
    ["S1", "a checkpoint goes back", { deliveries: [{ ...delivery, checkpoint: 1 }], saves: [save(1), save(2)] }],
    ["S2", "a checkpoint of nobody", { deliveries: [{ ...delivery, checkpoint: 1 }] }],
    [
      "S3",
      "a checkpoint that was refused",
      { deliveries: [{ ...delivery, checkpoint: 1 }], saves: [save(1, "definite")] }
    ],
    ["S19", "a step is lost", { deliveries: [withEntries()], steps: [step("a", 1)] }],
    ["S19", "a step of nobody", { deliveries: [withEntries(["a", 1])] }],
    [
      "S19",
      "a step of another task",
      { deliveries: [withEntries(["a", 1])], steps: [step("a", 1, { taskId: "t2", u: 2 })] }
    ],
    ["S19", "a step of a later attempt", { deliveries: [withEntries(["a", 1])], steps: [step("a", 1, { fence: 1 })] }],
    [
      "S19",
      "a step that was refused",
      { deliveries: [withEntries(["a", 1])], steps: [step("a", 1, { verdict: "definite" })] }
    ],
    [
      "S19",
      "a step that was recorded over another",
      {
        deliveries: [withEntries(["a", 2])],
        steps: [step("a", 1), step("a", 2, { startedAt: 2, endedAt: 3 })]
      }
    ],
    [
      "S19",
      "a step that changes between two attempts",
      {
        deliveries: [withEntries(["a", 1]), { ...withEntries(["a", 2]), fence: 2 }],
        steps: [step("a", 1, { verdict: "indefinite" }), step("a", 2, { verdict: "indefinite" })]
      }
    ],
    [
      "S19",
      "a step that is lost between two attempts",
      {
        deliveries: [withEntries(["a", 1]), { ...withEntries(), fence: 2 }],
        steps: [step("a", 1, { verdict: "indefinite" })]
      }
    ],
    [
      "S19",
      "another order in another attempt",
      {
        deliveries: [withEntries(["a", 1], ["b", 2]), { ...withEntries(["b", 2], ["a", 1]), fence: 2 }],
        steps: [step("a", 1), step("b", 2)]
      }
    ],
    ["S19", "a name twice", { deliveries: [withEntries(["a", 1], ["a", 1])], steps: [step("a", 1)] }],
    [
      "S19",
      "a redrive without its steps",
      {
        accounts: [
          account({ task: task({ redriven: true, outcome: 2 }) }),
          account({ taskId: "t2", task: task({ task: 2 }) })
        ],
        deliveries: [{ ...withEntries(), taskId: "t2" }],
        steps: [step("a", 1)]
      }
    ],
    ["S19", "a signal is lost", { deliveries: [withEntries()], signals: [signalled(1)] }],
    [
      "S19",
      "a signal of another task",
      { deliveries: [withEntries(["!s", 1])], signals: [signalled(1, { taskId: "t2" })] }
    ],
    [
      "S19",
      "a signal to another id",
      { deliveries: [withEntries(["!s", 1])], signals: [signalled(1, { taskId: undefined, id: "i" })] }
    ],
    ["S9", "a step after the end of its lease", { steps: [step("a", 1, { fence: 1, startedAt: 5, endedAt: 6 })] }],
    ["S1", "a repeat is lost", { repeats: [repeat], listed: [] }],
    ["S2", "a repeat that nobody made", { listed: ["r"] }],
    [
      "S3",
      "a refused repeat puts",
      {
        accounts: [account(), account({ taskId: "t2", u: 9, payload: "p9", task: task({ task: 2 }) })],
        repeats: [{ ...repeat, verdict: "definite" }]
      }
    ],
    ["S15", "counts that do not add up", { stats: new Map([["q", { ...stats, puts: 2 }]]) }],
    ["S15", "counts that are not the ledger's", { stats: new Map([["q", { ...stats, done: 0, dead: 1 }]]) }]
  ]
  for (const [invariant, name, one] of bad) {
    it(`${invariant}: ${name}`, () => {
      const said = judge(one)
      assert.include(said, invariant)
    })
  }
})
