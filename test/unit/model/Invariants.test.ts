import { assert, describe, it } from "@effect/vitest"
import { Engine, type Out } from "../../../src/model/Engine.ts"
import { check } from "../../../src/model/Invariants.ts"
import { LaneChange } from "../../../src/model/Lanes.ts"
import { Overflow } from "../../../src/model/Overflow.ts"
import { defaults } from "../../../src/model/Policy.ts"
import type { DedupeId } from "../../../src/model/Queue.ts"
import { Session, Waiter } from "../../../src/model/Session.ts"
import { State, Task } from "../../../src/model/Task.ts"

const silent: Out = {
  changed: () => {},
  queueChanged: () => {},
  putProgress: () => {},
  repeatChanged: () => {},
  repeats: () => {},
  laneChanged: () => {},
  refused: () => {},
  done: () => {},
  putDone: () => {},
  putItems: () => {},
  leased: () => {},
  items: () => {},
  deliver: () => {},
  outcomes: (_stream, _from, count) => count,
  outcomesGap: () => {},
  outcome: () => {},
  standings: () => {},
  counted: () => {},
  redriven: () => {},
  cancelling: () => {},
  objectMade: () => {},
  setAdded: () => {},
  setRemoved: () => {},
  counterChanged: () => {},
  dictChanged: () => {},
  objectOpened: () => {},
  bits: () => {},
  purged: () => {},
  dictEntries: () => {},
  dictWritten: () => {},
  setPage: () => {},
  dictPage: () => {}
}

const bytes = new Uint8Array(1)
const dedupeId = (id: string, n = 1): DedupeId => ({ id, n, until: 9, home: 0 })

/** Two ready, two returned, two delayed, two leased, one ended task; a wait of each kind; a stream of each kind. */
const scene = () => {
  const engine = new Engine({ epoch: 1, seed: 1, out: silent })
  const policy = { ...defaults, capacity: 7, outcomesKept: 3, dedupeKept: 3 }
  const base = { name: "q", fingerprint: bytes, schema: "", accepts: [], policy, durability: "memory" } as const
  const queue = engine.declare(base)
  const idle = engine.declare({ ...base, name: "idle" })
  const timed = engine.declare({ ...base, name: "timed" })
  const session = engine.connect((id) => new Session(id))
  engine.put(session, 1, 0, false, undefined, [bytes, bytes, bytes, bytes, bytes], undefined, 0)
  engine.lease(session, 2, 0, 5, 0, false, 0)
  const held = (n: number): ReadonlyArray<number> => [n, 2 ** 32 + 1]
  engine.commit(session, 3, [1], [2 ** 32 + 1], [bytes], undefined, 1)
  engine.release(session, 4, [...held(2), ...held(3)], 2)
  engine.renew(session, 5, held(4), 3)
  engine.put(session, 6, 0, false, undefined, [bytes, bytes], [{ id: "a", ttlMs: 9_000 }, { id: "b" }], 3)
  engine.put(session, 7, 0, false, undefined, [bytes, bytes], [{ delayMs: 50 }, { delayMs: 40 }], 4)
  engine.lease(session, 8, 1, 1, 5_000, false, 5)
  engine.put(session, 9, 0, true, 5_000, [bytes, bytes], undefined, 5)
  engine.join(session, 10, 0, undefined, 5)
  engine.outcome(session, 11, 0, 4, 7_000, 5)
  engine.objects.open(session, 12, "set", 0, true, "memory")
  engine.objects.open(session, 13, "dict", 1, true, "memory")
  engine.objects.open(session, 14, "counter", 2, true, "memory")
  engine.objects.setKeys(session, 15, 0, 0, [bytes])
  engine.objects.dictWrite(session, 16, 1, [{ key: "k", value: bytes, expected: undefined }])
  const leases = engine.subscribe(session, idle, 3)
  const outcomes = engine.follow(session, queue, 0, 9)
  // One repeat whose occurrence waits, and one that waits for its time.
  const repeat = { everyMs: 1_000, cron: undefined, zone: "UTC", payload: bytes, options: undefined }
  engine.repeat(session, 12, 2, { ...repeat, id: "running" }, -1_000)
  engine.repeat(session, 13, 2, { ...repeat, id: "waiting" }, 5)
  engine.tick(5)
  engine.dispatch(5)
  const [running, waiting] = engine.repeats.of(timed)
  const living = (n: number): Task => {
    const owner = engine.tasks.owner(n)
    assert.instanceOf(owner, Task)
    return owner
  }
  return { engine, queue, idle, session, leases, outcomes, living, running: running!, waiting: waiting! }
}
type Scene = ReturnType<typeof scene>

const corruptions: ReadonlyArray<readonly [name: string, corrupt: (scene: Scene) => void, said: RegExp]> = [
  [
    "a counter beside the integers",
    ({ engine }) => void Object.assign(engine.objects.all[2]!, { value: 0.5 }),
    /value is/
  ],
  [
    "bytes of a dict that are not there",
    ({ engine }) => void Object.assign(engine.objects.all[1]!, { bytes: 9 }),
    /bytes 9/
  ],
  ["an object in another's place", ({ engine }) => void engine.objects.all.reverse(), /is not where it is looked for/],
  [
    "a set that counts wrong",
    ({ engine }) => {
      const set = engine.objects.all[0]!
      if (set.kind === "set") set.table.size++
    },
    /size 2, 1 entries/
  ],
  ["a put that is nowhere", ({ queue }) => void queue.puts++, /are not the sum of/],
  [
    "a negative count",
    ({ queue }) => {
      queue.done -= 9
      queue.dead += 9
    },
    /done is -8/
  ],
  ["a wrong ready size", ({ queue }) => void queue.ready.size++, /ready\.size is 5/],
  [
    "a ready list not linked back",
    ({ living }) => {
      living(7).prev = undefined
    },
    /not linked back/
  ],
  [
    "a ready list that is a ring",
    ({ living }) => {
      living(7).next = living(6)
    },
    /not linked back/
  ],
  [
    "a ready list that lost its end",
    ({ living }) => {
      living(6).next = undefined
    },
    /does not end at its tail/
  ],
  [
    "a ready place out of order",
    ({ living }) => {
      living(6).place = 99
    },
    /out of order/
  ],
  [
    "a returned place out of order",
    ({ living }) => {
      living(2).place = 99
    },
    /heap of returned tasks/
  ],
  [
    "a wrong state",
    ({ living }) => {
      living(6).state = State.leased
    },
    /state 2 in a list of state 0/
  ],
  [
    "a ready task with a holder",
    ({ living, session }) => {
      living(6).holder = session
    },
    /holder in state 0/
  ],
  ["a list of another queue", ({ idle, living }) => void Reflect.set(living(6), "queue", idle), /belongs to another/],
  ["a task missing in the table", ({ engine }) => engine.tasks.remove(6), /not in the table/],
  [
    "an attempt without a lease",
    ({ living }) => {
      living(6).attempt = 1
    },
    /attempt 1/
  ],
  [
    "a task that was released too often",
    ({ living }) => {
      living(6).releases = 1_000
    },
    /after 1000 releases/
  ],
  [
    "a task that was lost too often",
    ({ living }) => {
      living(4).lossesWhileStarted = 3
    },
    /its last loss/
  ],
  [
    "a lease list not linked back",
    ({ living }) => {
      living(4).prev = undefined
    },
    /not linked back/
  ],
  [
    "a lease list that lost its end",
    ({ queue }) => {
      queue.leaseTail = undefined
    },
    /does not end at its tail/
  ],
  [
    "leases out of order",
    ({ living }) => {
      living(4).at = 1
    },
    /ends before an earlier one/
  ],
  [
    "a lease held by nobody",
    ({ living }) => {
      living(4).holder = undefined
    },
    /leased by nobody/
  ],
  [
    "a wrong leased count",
    ({ queue }) => {
      queue.leased++
      queue.puts++
    },
    /leased is 3/
  ],
  [
    "no timer for leases",
    ({ queue }) => {
      queue.leaseTimer = undefined
    },
    /no timer watches/
  ],
  ["a session that counts wrong", ({ session }) => void session.leased++, /session 1: leased is 3/],
  ["a session that is gone", ({ engine, session }) => void engine.sessions.delete(session), /leased by nobody/],
  [
    "an id that points nowhere",
    ({ queue }) => void queue.ids.set("x", dedupeId("x", 1_000)),
    /no living or retained task/
  ],
  ["an id retained and living", ({ queue }) => void queue.idsEnded.push(dedupeId("a")), /living or retained/],
  ["an unknown retained id", ({ queue }) => void queue.idsEnded.push(dedupeId("z")), /is not known/],
  ["an id retained twice", ({ queue }) => void queue.idsEnded.push(dedupeId("z"), dedupeId("z")), /retained twice/],
  [
    "too many retained ids",
    ({ queue }) => void "cdef".split("").map((id) => queue.idsEnded.push(dedupeId(id))),
    /4 ids are retained/
  ],
  ["a log ahead of the counts", ({ queue }) => void queue.log.next++, /2 outcomes of 1/],
  [
    "a log of negative size",
    ({ queue }) => {
      queue.log.bytes = -1
    },
    /the log has -1 bytes/
  ],
  [
    "a log that keeps too much",
    ({ queue }) => void Reflect.set(queue.policy, "outcomesKept", 0),
    /1 outcomes are kept/
  ],
  ["an outcome the table forgot", ({ engine }) => engine.tasks.remove(1), /does not lead to the outcome/],
  ["a stream its session forgot", ({ leases, session }) => void session.leaseStreams.delete(leases.id), /lease stream/],
  ["a stream its queue forgot", ({ idle }) => void idle.leaseStreams.pop(), /unknown to its queue/],
  ["an outcome stream its queue forgot", ({ queue }) => void queue.outcomeStreams.pop(), /unknown to its queue/],
  [
    "an outcome stream its session forgot",
    ({ outcomes, session }) => void session.outcomeStreams.delete(outcomes.id),
    /unknown to its session/
  ],
  [
    "negative credit",
    ({ leases }) => {
      leases.credit = -1
    },
    /credit -1/
  ],
  [
    "a cursor ahead of the log",
    ({ outcomes }) => {
      outcomes.cursor = 5
    },
    /ahead of its log/
  ],
  [
    "a lease request beside a ready task",
    ({ queue, session }) => {
      const waiter = new Waiter("lease", session, 99, queue, 1, false, undefined)
      queue.leaseWaiters.push(waiter)
      session.waiting.add(waiter)
    },
    /a lease request waits beside a ready task/
  ],
  [
    "a hungry stream beside a ready task",
    ({ engine, queue, session }) => void engine.subscribe(session, queue, 1),
    /has credit beside a ready task/
  ],
  [
    "a lane that counts its leases wrong",
    ({ queue }) => {
      queue.ready.inside().plain.running = 7
    },
    /counts 7 leases of 2/
  ],
  [
    "a lane that stands where it must not",
    ({ queue }) => {
      queue.ready.inside().plain.paused = true
    },
    /the lane without a key stands at 1, must at 0/
  ],
  [
    "a ring that is not looked for",
    ({ queue }) => void Reflect.set(queue.ready.inside().rings, 128, undefined),
    /the ring of priority 128 is not where/
  ],
  [
    "a lane that nobody wakes",
    ({ engine, queue }) => {
      queue.ready.slowDown("k", 99)
      queue.ready.push(new Task(99, queue, bytes, { key: "k" }, 0))
      engine.timers.remove(engine.timers.entries()[0]!)
    },
    /no timer watches the next lane to open/
  ],
  ["a put beside room", ({ queue }) => void Reflect.set(queue.policy, "capacity", 99), /waits beside room/],
  [
    "a join of an empty queue",
    ({ idle, session }) => {
      const waiter = new Waiter("join", session, 99, idle, 0, false, undefined)
      idle.joinWaiters.push(waiter)
      session.waiting.add(waiter)
    },
    /a join waits for an empty queue/
  ],
  [
    "a take of a closed empty queue",
    ({ idle }) => {
      idle.closed = "drain"
    },
    /closed and done/
  ],
  [
    "a timer in a wrong slot",
    ({ engine }) => {
      engine.timers.entries()[1]!.slot = 7
    },
    /believes it is in 7/
  ],
  [
    "a timer heap out of order",
    ({ engine }) => void Reflect.set(engine.timers.entries()[0]!, "at", 1e15),
    /timer heap is out of order/
  ],
  [
    "a timer of an ended task",
    ({ living }) => {
      living(6).state = State.ended
    },
    /a timer of ended task 6/
  ],
  [
    "a delayed task without its timer",
    ({ living }) => {
      living(8).due = undefined
    },
    /not its due timer/
  ],
  [
    "a wrong delayed count",
    ({ queue }) => {
      queue.delayed++
      queue.puts++
    },
    /delayed is 3/
  ],
  [
    "a timer of a wait that is over",
    ({ session }) => {
      for (const waiter of session.waiting) waiter.timer = undefined
    },
    /a timer of a wait that is over/
  ],
  [
    "a wait that is over and listed",
    ({ idle }) => {
      idle.leaseWaiters[0]!.ended = true
    },
    /that is over/
  ],
  ["a wait its session forgot", ({ session }) => session.waiting.clear(), /unknown to its session/],
  ["a wait its queue forgot", ({ queue }) => void queue.joinWaiters.pop(), /its join is in no queue/],
  [
    "a wait for a task that is gone",
    ({ queue }) => void queue.outcomeWaiters.set(1, queue.outcomeWaiters.get(4)!),
    /task 1 is gone and waited for/
  ],
  [
    "a stray timer",
    ({ queue }) => {
      queue.evictTimer = queue.leaseTimer
    },
    /a stray eviction timer/
  ],
  [
    "an occurrence that is gone",
    ({ running }) => {
      running.task = 1_000
    },
    /its task 1000 is gone/
  ],
  ["an occurrence that nobody will miss", ({ engine }) => engine.repeats.running.clear(), /will not be missed/],
  [
    "a repeat that waits for nothing",
    ({ waiting }) => {
      waiting.timer = undefined
    },
    /repeat "waiting" of .*: timer none beside task 0/
  ],
  [
    "a repeat whose timer is out of the heap",
    ({ engine, waiting }) => engine.timers.remove(waiting.timer!),
    /never ring/
  ],
  [
    "a repeat on a closed queue",
    ({ running }) => {
      running.queue.closed = "drain"
    },
    /the queue is closed/
  ],
  ["bytes of tasks that are not there", ({ queue }) => void queue.livingBytes++, /waitingBytes is \d+, not/],
  ["bytes of leases that are not there", ({ queue }) => void queue.leasedBytes--, /leasedBytes is \d+, not/],
  ["a living task the table forgot", ({ engine }) => engine.tasks.remove(6), /are listed as living of/],
  ["bytes of living tasks that nobody has", ({ queue }) => void queue.livingBytes++, /livingBytes is 9/],
  ["bytes of leased tasks that nobody has", ({ queue }) => void queue.leasedBytes--, /leasedBytes is 1/],
  [
    "a dead letter that lives",
    ({ living, queue }) => queue.deadLetters.add(living(6), 5, 9),
    /task 6 is a dead letter and lives/
  ],
  [
    "bytes of dead letters that nobody has",
    ({ queue }) => void queue.deadLetters.bytes++,
    /dead letters count 1 bytes/
  ],
  ["more redriven than dead", ({ queue }) => void queue.redriven++, /1 redriven of 0/],
  [
    "a close that stopped half-way",
    ({ queue }) => {
      queue.sweptTo = 3
    },
    /what waits will not be cancelled/
  ],
  [
    "a put that waits where the oldest would go",
    ({ queue }) => void Reflect.set(queue, "overflow", new Overflow()),
    /waits beside room/
  ],
  ["a timer out of the heap", ({ engine, queue }) => engine.timers.remove(queue.leaseTimer!), /never ring/]
]

describe("the invariants", () => {
  it("hold for an engine that was only given commands", () => {
    assert.deepStrictEqual(check(scene().engine), [])
  })

  for (const [name, corrupt, said] of corruptions) {
    it(`see ${name}`, () => {
      const made = scene()
      corrupt(made)
      assert.match(check(made.engine).join("\n"), said)
    })
  }
})

it("a lane may have more leases than its queue allows: they were granted under limits that were cleared since", () => {
  const engine = new Engine({ epoch: 1, seed: 1, out: silent })
  const policy = { ...defaults, laneConcurrency: 1 }
  engine.declare({ name: "q", fingerprint: bytes, schema: "", accepts: [], policy, durability: "memory" })
  const session = engine.connect((id) => new Session(id))
  engine.lane(session, 1, 0, "a", LaneChange.limit, { concurrency: 2 }, undefined, 0)
  engine.put(session, 2, 0, false, undefined, [bytes, bytes], [{ key: "a" }, { key: "a" }], 0)
  engine.lease(session, 3, 0, 2, 0, false, 0)
  engine.lane(session, 4, 0, "a", LaneChange.clear, undefined, undefined, 0)
  engine.dispatch(0)
  assert.strictEqual(engine.queues[0]?.leased, 2)
  assert.deepStrictEqual(check(engine), [])
})
