import { assert, describe, it } from "@effect/vitest"
import * as Limits from "../../../src/Limits.ts"
import { Engine } from "../../../src/model/Engine.ts"
import {
  explainQueue,
  explainTask,
  queueExplanationOf,
  type TaskExplanation,
  taskExplanationOf
} from "../../../src/model/Explain.ts"
import type { Policy } from "../../../src/model/Policy.ts"
import { Session } from "../../../src/model/Session.ts"
import { nextDues, type QueueStats, statsOf } from "../../../src/model/Stats.ts"
import type { Task, TaskOptions } from "../../../src/model/Task.ts"
import { Random } from "../random.ts"
import { Collected, definition } from "./collected.ts"

class World {
  readonly engine = new Engine({ epoch: 1, seed: 1, out: new Collected() })
  readonly session = this.engine.connect((id) => new Session(id))
  now = 1_000_000
  #request = 1

  constructor(policy: Partial<Policy> = {}) {
    this.engine.declare(definition("q", policy))
    this.engine.declare(definition("other", policy))
  }

  get queue() {
    return this.engine.queues[0]!
  }

  get stats(): QueueStats {
    return statsOf(this.engine, [this.queue], this.now)[0]!
  }

  put(bytes: number, options?: TaskOptions, queue = 0): number {
    const request = this.#request++
    const payload = [new Uint8Array(bytes)]
    this.engine.put(
      this.session,
      request,
      queue,
      false,
      0,
      payload,
      options === undefined ? undefined : [options],
      this.now
    )
    this.round()
    return this.queue.puts + this.engine.queues[1]!.puts
  }

  lease(queue = 0): Task {
    const [task] = this.engine.queues[queue]!.ready.peek(1, this.now)
    this.engine.lease(this.session, this.#request++, queue, 1, 0, false, this.now)
    return task!
  }

  commit(task: Task, result = 0): void {
    const fence = this.engine.fence(task)
    this.engine.commit(this.session, this.#request++, [task.n], [fence], [new Uint8Array(result)], undefined, this.now)
    this.round()
  }

  fail(task: Task, reason: 0 | 1 = 0): void {
    const failure = { reason, error: undefined, text: "no luck", retryAfterMs: undefined }
    this.engine.fail(this.session, this.#request++, [task.n], [this.engine.fence(task)], [failure], this.now)
    this.round()
  }

  round(): void {
    this.engine.tick(this.now)
    this.engine.dispatch(this.now)
  }

  pass(ms: number): void {
    const end = this.now + ms
    while (this.now < end) {
      this.now = Math.min(end, Math.max(this.now + 1, this.engine.nextDeadline))
      this.round()
    }
  }

  explain(n: number): TaskExplanation {
    const explanation = taskExplanationOf(explainTask(this.engine, this.queue, n, this.now, () => "w1"))
    assert.isDefined(explanation)
    return explanation!
  }

  get limits(): ReadonlyArray<string> {
    const due = nextDues(this.engine.timers, [this.queue]).get(this.queue)
    return queueExplanationOf(explainQueue(this.queue, due, this.now)).blockers.map(({ _tag }) => _tag)
  }

  get text(): string {
    const due = nextDues(this.engine.timers, [this.queue]).get(this.queue)
    return queueExplanationOf(explainQueue(this.queue, due, this.now)).text
  }
}

describe("the counts of a queue", () => {
  it("have bytes by where they are, ages, and times to the next event", () => {
    const world = new World({ leaseMs: 10_000 })
    assert.deepInclude(world.stats, { oldestReadyMs: 0, nextDueMs: 0, nextLeaseEndMs: 0, waitingBytes: 0, lanes: [] })
    world.put(100)
    world.put(50, { delayMs: 7_000 })
    world.put(20)
    world.pass(1_500)
    assert.deepInclude(world.stats, { ready: 2, delayed: 1, waitingBytes: 170, oldestReadyMs: 1_500, nextDueMs: 5_500 })
    const first = world.lease()
    assert.deepInclude(world.stats, { leased: 1, waitingBytes: 70, nextLeaseEndMs: 10_000 })
    world.commit(first, 9)
    assert.deepInclude(world.stats, { waitingBytes: 70, outcomeBytes: 9, deadLetters: 0, nextLeaseEndMs: 0 })
    world.fail(world.lease(), 1)
    const reasons = 3 * "no luck".length
    assert.deepInclude(world.stats, {
      waitingBytes: 50,
      outcomeBytes: 29 + reasons,
      deadLetters: 1,
      deadLetterBytes: 20,
      ready: 0,
      oldestReadyMs: 0
    })
  })

  it("have what happened in the last 1, 10 and 60 whole seconds", () => {
    const world = new World({ leaseMs: 60_000, maxAttempts: 10, backoffBaseMs: 0 })
    for (let i = 0; i < 6; i++) world.put(1)
    world.commit(world.lease())
    world.fail(world.lease())
    const got = world.lease()
    world.engine.acknowledge(world.session, [got.n, world.engine.fence(got)], world.now)
    assert.deepInclude(world.stats, { puts1s: 0, puts60s: 0 })
    world.pass(1_000)
    const rates = { leases1s: 3, commits1s: 2, failures1s: 1, puts1s: 6, puts10s: 6, puts60s: 6 }
    assert.deepInclude(world.stats, rates)
    world.pass(5_000)
    assert.deepInclude(world.stats, { puts1s: 0, puts10s: 6, commits10s: 2, leases60s: 3 })
    world.pass(10_000)
    assert.deepInclude(world.stats, { puts10s: 0, failures10s: 0, failures60s: 1 })
    world.pass(60_000)
    assert.deepInclude(world.stats, { puts60s: 0, leases60s: 0, commits60s: 0, failures60s: 0 })
  })

  it("count an attempt that is lost while it ran as a failure, and one that had not begun as nothing", () => {
    const world = new World({ leaseMs: 5_000 })
    world.put(1)
    world.put(1)
    const [lost] = [world.lease(), world.lease()]
    world.engine.started(world.session, [lost.n, world.engine.fence(lost)])
    world.pass(7_000)
    assert.deepInclude(world.stats, { failures10s: 1, leases10s: 2, ready: 2 })
  })

  it("find the next delayed task of each queue as a search through all would, up to a bound", () => {
    const r = new Random(3)
    for (let run = 0; run < 50; run++) {
      const world = new World()
      const expected = new Map<number, number>()
      for (let i = r.int(60); i > 0; i--) {
        const queue = r.int(2)
        const delayMs = r.pick([0, 1 + r.int(5_000)])
        world.put(1, { delayMs, ttlMs: r.chance(50) ? 1 + r.int(9_999) : undefined }, queue)
        if (delayMs > 0) expected.set(queue, Math.min(expected.get(queue) ?? Number.POSITIVE_INFINITY, delayMs))
      }
      const dues = nextDues(world.engine.timers, world.engine.queues)
      for (const queue of world.engine.queues) {
        const at = dues.get(queue)
        assert.strictEqual(at === undefined ? undefined : at - world.now, expected.get(queue.id))
      }
    }
    const world = new World()
    for (let i = 1; i <= Limits.statsTimersMax; i++) world.put(1, { ttlMs: i + 1 })
    world.put(1, { delayMs: 60_000 })
    assert.strictEqual(world.stats.nextDueMs, 0)
    assert.strictEqual(nextDues(world.engine.timers, [world.queue], Limits.statsTimersMax + 1).size, 1)
  })
})

describe("why a task does not run", () => {
  it("is told in every state of its life", () => {
    const world = new World({ leaseMs: 10_000, maxAttempts: 2, backoffBaseMs: 4_000 })
    world.put(1)
    const waits = world.explain(1)
    assert.deepInclude(waits, { _tag: "Ready", ahead: 0, ready: 1, putAtMs: world.now })
    assert.deepStrictEqual(waits._tag === "Ready" ? waits.blockers.map(({ _tag }) => _tag) : [], ["NoWorker"])
    assert.strictEqual(waits.text, "ready, next in line: no worker is there and nobody waits to take")
    const task = world.lease()
    const leased = { _tag: "Leased", holder: "w1", attempt: 1, started: false, untilMs: world.now + 10_000 } as const
    assert.deepInclude(world.explain(1), leased)
    world.engine.started(world.session, [1, world.engine.fence(task)])
    assert.deepInclude(world.explain(1), { _tag: "Leased", started: true })
    world.fail(task)
    const backOff = { why: "back-off", attempts: 1, untilMs: world.now + 4_000, lastReason: "no luck" } as const
    assert.deepInclude(world.explain(1), { _tag: "Delayed", ...backOff })
    assert.match(world.explain(1).text, /^delayed until .*Z \(back-off\) after 1 of 2 attempts, last: no luck$/)
    world.pass(4_000)
    world.fail(world.lease())
    const ended = { outcome: "dead", attempts: 2, endedAtMs: world.now, lastReason: "no luck" } as const
    assert.deepInclude(world.explain(1), { _tag: "Ended", ...ended })
    world.put(1, { delayMs: 5_000 })
    assert.deepInclude(world.explain(2), { _tag: "Delayed", why: "delay", attempts: 0, untilMs: world.now + 5_000 })
    assert.deepInclude(world.explain(77), { _tag: "NotFound" })
    world.put(1, undefined, 1)
    assert.deepInclude(world.explain(3), { _tag: "NotFound" }, "a task of another queue")
  })

  it("counts what is ahead of it, up to a bound", () => {
    const world = new World()
    for (let i = 0; i < Limits.explainAheadMax + 5; i++) world.put(1)
    const first = world.put(1, { priority: 0 })
    const ahead = (n: number): unknown => {
      const explanation = world.explain(n)
      return explanation._tag === "Ready" ? explanation.ahead : undefined
    }
    assert.deepStrictEqual([ahead(first), ahead(1), ahead(3)], [0, 1, 3])
    assert.strictEqual(ahead(Limits.explainAheadMax + 5), Limits.explainAheadMax)
    assert.match(world.explain(Limits.explainAheadMax + 5).text, /behind at least 1000 of 1006 ready tasks/)
  })
})

describe("what limits a queue", () => {
  it("is no worker, no work, workers that are busy or do not read, or its capacity", () => {
    const world = new World({ capacity: 3 })
    assert.deepStrictEqual(world.limits, ["Empty", "NoWorker"])
    const stream = world.engine.subscribe(world.session, world.queue, 1)
    world.round()
    assert.deepStrictEqual(world.limits, ["Empty"])
    world.put(1)
    assert.deepStrictEqual(world.limits, ["Empty", "NoCredit"])
    world.put(1)
    assert.deepStrictEqual(world.limits, ["NoCredit"])
    assert.match(world.text, /^1 worker is busy \(1 task leased\)/)
    world.engine.congested(world.session, true)
    assert.deepStrictEqual(world.limits, ["Congested"])
    world.engine.congested(world.session, false)
    world.put(1)
    world.put(1)
    world.put(1)
    assert.deepStrictEqual(world.limits, ["NoCredit", "Full"])
    world.engine.credit(world.session, stream.id, 100)
    world.round()
    assert.deepStrictEqual(world.limits, ["Empty"])
  })

  it("is a delay, a pause, a close, or readers of outcomes that do not read", () => {
    const world = new World()
    world.put(1, { delayMs: 9_000 })
    assert.deepStrictEqual(world.limits, ["OnlyDelayed", "NoWorker"])
    assert.match(world.text, /^nothing is ready; 1 task is delayed, the next until /)
    world.pass(9_000)
    world.engine.subscribe(world.session, world.queue, 0)
    world.queue.paused = true
    assert.deepStrictEqual(world.limits, ["Paused", "NoCredit"])
    world.queue.paused = false
    const reader = world.engine.connect((id) => new Session(id))
    world.engine.follow(reader, world.queue, 0, 10)
    world.engine.congested(reader, true)
    world.commit(world.lease())
    assert.include(world.limits, "SlowReaders")
    world.engine.close(world.session, 1_000, 0, "drain", world.now)
    assert.deepStrictEqual(world.limits, ["Empty", "NoCredit", "Closed", "SlowReaders"])
  })

  it("is nothing when workers with credit wait beside a task for the next round, and unknown facts are shown", () => {
    const world = new World()
    world.put(1)
    world.engine.subscribe(world.session, world.queue, 1)
    assert.deepStrictEqual(world.limits, [])
    assert.strictEqual(world.text, "nothing holds it back")
    const odd = queueExplanationOf([{ kind: 99, subject: "later", at: 0, value: 0, limit: 0 }])
    assert.deepStrictEqual(odd.blockers, [{ _tag: "Other", kind: 99, text: "reason 99: later" }])
  })
})
