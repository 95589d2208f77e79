import { assert, describe, it } from "@effect/vitest"
import * as Limits from "../../../src/Limits.ts"
import { Engine } from "../../../src/model/Engine.ts"
import { check } from "../../../src/model/Invariants.ts"
import type { Policy } from "../../../src/model/Policy.ts"
import { Session } from "../../../src/model/Session.ts"
import { entryBytesOf, Reason, State, Task, type TaskOptions } from "../../../src/model/Task.ts"
import { Collected, definition } from "./collected.ts"
import { Disk } from "./disk.ts"

const utf8 = new TextEncoder()
const fenceBase = 2 ** 32

interface Held {
  readonly n: number
  readonly fence: number
}

/** An engine with one queue and its log; every command is a round of its own. */
class Bench {
  readonly out = new Collected()
  readonly disk = new Disk(1)
  readonly engine: Engine
  readonly session: Session
  readonly stored: boolean
  now = 1_000_000
  #request = 0

  constructor(policy: Partial<Policy> = {}, durability: "fsync" | "memory" = "fsync") {
    this.stored = durability !== "memory"
    this.out.disk = this.disk
    this.disk.recorder.journal.begin(this.now)
    this.engine = new Engine({ epoch: 1, seed: 1, out: this.out, keepTexts: false })
    this.engine.declare({ ...definition("q", policy), durability })
    this.engine.declare({ ...definition("other", policy), durability })
    this.session = this.engine.connect((id) => new Session(id))
  }

  get queue() {
    return this.engine.queues[0]!
  }

  /** One request in one round; returns the answer as text. */
  ask(run: (request: number) => void): string {
    const request = ++this.#request
    this.disk.recorder.journal.begin(this.now)
    run(request)
    this.settle()
    const answer = this.out.answers.get(request)
    if (answer === undefined) return "open"
    switch (answer._tag) {
      case "Refused":
        return answer.why
      case "Items":
      case "Put":
        return answer.items.join()
      case "Leased":
        return answer.tasks.join(" ")
      case "Outcome":
        return answer.text
      default:
        return answer._tag
    }
  }

  /** Ends the round: nothing is broken, and the log rebuilds what there is, also when all of it was cleaned. */
  settle(): void {
    this.engine.dispatch(this.now)
    assert.deepStrictEqual(check(this.engine), [])
    assert.deepStrictEqual(this.out.faults, [])
    this.disk.store()
    if (this.stored) this.disk.verify(this.engine, this.now)
  }

  cleanAll(): void {
    this.disk.clean(this.engine, this.disk.rows.length, this.now)
    this.disk.verify(this.engine, this.now)
  }

  after(ms: number): void {
    this.now += ms
    this.disk.recorder.journal.begin(this.now)
    this.engine.tick(this.now)
    this.settle()
  }

  put(options?: TaskOptions, queue = 0): number {
    const answer = this.ask((request) =>
      this.engine.put(this.session, request, queue, false, 0, [utf8.encode("p")], options && [options], this.now)
    )
    return Number.parseInt(answer, 10)
  }

  /** As `n/leases/attempt,name=value`. */
  leaseText(): string {
    return this.ask((request) => this.engine.lease(this.session, request, 0, 1, 0, false, this.now))
  }

  lease(): Held {
    const [n, leases] = this.leaseText().split(/[/,]/).map(Number)
    return { n: n!, fence: fenceBase + leases! }
  }

  step({ fence, n }: Held, name: string, value: number | Uint8Array, session = this.session): string {
    const bytes = typeof value === "number" ? Uint8Array.of(value) : value
    const items = [{ task: n, fence, name, value: bytes }]
    return this.ask((request) => this.engine.progress.step(session, request, items))
  }

  suspend({ fence, n }: Held, forMs: number | undefined, seen: number): string {
    const items = [{ task: n, fence, forMs, seen }]
    return this.ask((request) => this.engine.progress.suspend(this.session, request, items, this.now))
  }

  signal(to: number | string, name = "!go", value = 1, queue = 0): string {
    return this.ask((request) =>
      this.engine.progress.signal(this.session, request, queue, to, name, Uint8Array.of(value), this.now)
    )
  }

  commit({ fence, n }: Held): string {
    return this.ask((request) =>
      this.engine.commit(this.session, request, [n], [fence], [new Uint8Array()], undefined, this.now, false)
    )
  }

  fail({ fence, n }: Held, reason: Reason = Reason.failed): string {
    const failure = { reason, error: undefined, text: "", retryAfterMs: 500, slowDownMs: undefined }
    return this.ask((request) => this.engine.fail(this.session, request, [n], [fence], [failure], this.now))
  }

  release({ fence, n }: Held): string {
    return this.ask((request) => this.engine.release(this.session, request, [n, fence], this.now))
  }

  close(mode: "drain" | "immediate"): void {
    this.ask((request) => this.engine.close(this.session, request, 0, mode, this.now))
  }

  outcome(n: number): string {
    return this.ask((request) => this.engine.outcome(this.session, request, 0, n, 0, this.now))
  }

  task(n: number): Task {
    const owner = this.engine.tasks.owner(n)
    assert.instanceOf(owner, Task)
    return owner
  }

  entries(n: number): ReadonlyArray<string> {
    return [...(this.task(n).entries ?? [])].map(([name, value]) => `${name}=${value.join("")}`)
  }
}

/** A task that is leased. */
const leased = (policy?: Partial<Policy>, options?: TaskOptions): { readonly bench: Bench; readonly held: Held } => {
  const bench = new Bench(policy)
  bench.put(options)
  return { bench, held: bench.lease() }
}

describe("steps", () => {
  it("the first of a name stays, and later attempts get them all in the order of recording", () => {
    const { bench, held } = leased()
    assert.strictEqual(bench.step(held, "b", 1), "Done")
    assert.strictEqual(bench.step(held, "a", 2), "Done")
    assert.strictEqual(bench.step(held, "b", 3), "Done")
    assert.strictEqual(bench.release(held), "Done")
    assert.strictEqual(bench.leaseText(), "1/2/1,b=1,a=2")
  })

  it("of two of a name in one request the first stays", () => {
    const { bench, held } = leased()
    const items = [1, 2].map((value) => ({ task: held.n, fence: held.fence, name: "a", value: Uint8Array.of(value) }))
    bench.ask((request) => bench.engine.progress.step(bench.session, request, items))
    assert.deepStrictEqual(bench.entries(1), ["a=1"])
  })

  it("under an old fence, by another session and after the end, nothing is recorded", () => {
    const { bench, held } = leased()
    const other = bench.engine.connect((id) => new Session(id))
    assert.strictEqual(bench.step(held, "a", 1, other), "leaseLost")
    bench.release(held)
    assert.strictEqual(bench.step(held, "a", 1), "leaseLost")
    const again = bench.lease()
    assert.strictEqual(bench.step(held, "a", 1), "leaseLost")
    assert.deepStrictEqual(bench.entries(1), [])
    bench.commit(again)
    assert.strictEqual(bench.step(again, "a", 1), "alreadyEnded")
    assert.strictEqual(bench.step({ n: 77, fence: fenceBase + 1 }, "a", 1), "leaseLost")
  })

  it("of a request with a lost lease the others are recorded", () => {
    const { bench, held } = leased()
    bench.put()
    const other = bench.lease()
    bench.release(held)
    const items = [held, other].map(({ fence, n }) => ({ task: n, fence, name: "a", value: Uint8Array.of(n) }))
    const answer = bench.ask((request) => bench.engine.progress.step(bench.session, request, items))
    assert.strictEqual(answer, "leaseLost,ok")
    assert.deepStrictEqual([bench.entries(1), bench.entries(2)], [[], ["a=2"]])
  })

  it("are as many as the bound says, signals among them; one that is there is accepted still", () => {
    const { bench, held } = leased()
    const items = Array.from({ length: Limits.entriesPerTaskMax - 2 }, (_, i) => {
      return { task: held.n, fence: held.fence, name: `s${i}`, value: Uint8Array.of(1) }
    })
    assert.strictEqual(
      bench.ask((request) => bench.engine.progress.step(bench.session, request, items)),
      "Done"
    )
    assert.strictEqual(bench.signal(1), "Done")
    assert.strictEqual(bench.task(1).entries!.size, Limits.entriesPerTaskMax - 1)
    assert.strictEqual(bench.step(held, "last", 1), "Done")
    assert.strictEqual(bench.step(held, "over", 1), "limitExceeded")
    assert.strictEqual(bench.signal(1, "!over"), "limitExceeded")
    assert.strictEqual(bench.step(held, "s0", 2), "Done")
    assert.strictEqual(bench.signal(1), "Done")
    assert.strictEqual(bench.task(1).entries!.size, Limits.entriesPerTaskMax)
    assert.strictEqual(bench.suspend(held, undefined, Limits.entriesPerTaskMax), "Done")
    assert.strictEqual(bench.signal(1, "!over"), "limitExceeded")
    assert.isTrue(bench.task(1).suspended)
  })

  for (const [over, answer] of [
    [-1, "Done"],
    [0, "Done"],
    [1, "limitExceeded"]
  ] as const) {
    it(`are as large together as the bound says: ${over} bytes beyond`, () => {
      const { bench, held } = leased()
      bench.step(held, "first", 1)
      const left = Limits.entryBytesPerTaskMax - entryBytesOf("first", Uint8Array.of(1))
      const value = new Uint8Array(left - entryBytesOf("ä", new Uint8Array()) + over)
      assert.strictEqual(bench.step(held, "ä", value), answer)
      assert.strictEqual(bench.task(1).entryBytes, answer === "Done" ? Limits.entryBytesPerTaskMax + over : 16 + 8)
      bench.release(held)
      assert.strictEqual(bench.signal(1, "!a"), answer === "limitExceeded" ? "Done" : "limitExceeded")
    })
  }

  it("count in the bytes of their queue until the task is over, and then in those of the dead letters", () => {
    const { bench, held } = leased()
    bench.step(held, "a", 1)
    const bytes = entryBytesOf("a", Uint8Array.of(1))
    assert.strictEqual(bench.queue.progressBytes, bytes)
    bench.fail(held, Reason.killed)
    assert.strictEqual(bench.queue.progressBytes, 0)
    assert.strictEqual(bench.queue.deadLetters.bytes, bytes + 1)
  })
})

describe("a suspended task", () => {
  it("has its attempt back and no release counted, however often, and keeps its place", () => {
    const { bench } = leased({ maxAttempts: 1 })
    bench.put()
    bench.release({ n: 1, fence: fenceBase + 1 })
    for (let i = 0; i < Limits.releasesMax + 5; i++) {
      const text = bench.leaseText()
      assert.strictEqual(text, `1/${i + 2}/1`)
      bench.suspend({ n: 1, fence: fenceBase + i + 2 }, 100, 0)
      bench.after(100)
    }
    assert.strictEqual(bench.task(1).releases, 1)
    assert.strictEqual(bench.task(1).reasons, undefined)
  })

  it("is due when its time has passed, and not before", () => {
    const { bench, held } = leased()
    assert.strictEqual(bench.suspend(held, 300, 0), "Done")
    assert.strictEqual(bench.queue.leased, 0)
    bench.after(299)
    assert.strictEqual(bench.leaseText(), "empty")
    bench.after(1)
    assert.isFalse(bench.task(1).suspended)
    assert.strictEqual(bench.leaseText(), "1/2/1")
  })

  it("without a time waits as long as any delay", () => {
    const { bench, held } = leased()
    bench.suspend(held, undefined, 0)
    bench.after(Limits.delayMsMax - 1)
    assert.isTrue(bench.task(1).suspended)
    bench.after(1)
    assert.strictEqual(bench.leaseText(), "1/2/1")
  })

  it("is ready with a signal", () => {
    const { bench, held } = leased()
    bench.step(held, "a", 1)
    bench.suspend(held, undefined, 1)
    assert.strictEqual(bench.leaseText(), "empty")
    bench.put()
    assert.strictEqual(bench.signal(1, "!go", 2), "Done")
    assert.strictEqual(bench.leaseText(), "1/2/1,a=1,!go=2")
  })

  it("is handed to who waits for a task as soon as the signal comes", () => {
    const { bench, held } = leased()
    bench.suspend(held, undefined, 0)
    bench.ask((request) => bench.engine.lease(bench.session, request, 0, 1, undefined, false, bench.now))
    bench.signal(1)
    assert.strictEqual(bench.task(1).state, State.leased)
  })

  it("does not wait when a signal came that its worker does not know", () => {
    const { bench, held } = leased()
    bench.step(held, "a", 1)
    bench.signal(1)
    bench.suspend(held, undefined, 1)
    bench.after(0)
    assert.strictEqual(bench.leaseText(), "1/2/1,a=1,!go=1")
    bench.suspend({ n: 1, fence: fenceBase + 2 }, undefined, 2)
    bench.after(0)
    assert.strictEqual(bench.leaseText(), "empty")
  })

  it("is not woken by a step that is refused, nor by a signal to another", () => {
    const { bench, held } = leased()
    bench.put()
    bench.suspend(held, undefined, 0)
    assert.strictEqual(bench.step(held, "a", 1), "leaseLost")
    assert.strictEqual(bench.signal(2), "Done")
    assert.isTrue(bench.task(1).suspended)
  })

  it("under an old fence is not suspended", () => {
    const { bench, held } = leased()
    bench.release(held)
    assert.strictEqual(bench.suspend(held, 100, 0), "leaseLost")
    const again = bench.lease()
    assert.strictEqual(bench.suspend(held, 100, 0), "leaseLost")
    bench.commit(again)
    assert.strictEqual(bench.suspend(again, 100, 0), "alreadyEnded")
  })

  it("gives its lane and its lease free", () => {
    const { bench, held } = leased({ laneConcurrency: 1 }, { key: "k" })
    bench.put({ key: "k" })
    assert.strictEqual(bench.leaseText(), "empty")
    bench.suspend(held, undefined, 0)
    assert.strictEqual(bench.session.leased, 0)
    assert.strictEqual(bench.leaseText(), "2/1/1")
  })

  it("dies when its time to live is over, and is then suspended no more", () => {
    const { bench, held } = leased({}, { ttlMs: 1_000 })
    bench.step(held, "a", 1)
    bench.suspend(held, undefined, 1)
    bench.after(1_000)
    assert.strictEqual(bench.outcome(1), `1 dead after 0 (${Reason.expired})`)
    assert.strictEqual(bench.signal(1), "alreadyEnded")
    assert.isFalse(bench.queue.deadLetters.get(1)!.task.suspended)
    bench.cleanAll()
  })

  it("whose time to live was over before it is suspended dies", () => {
    const { bench, held } = leased({ leaseMs: 5_000 }, { ttlMs: 1_000 })
    bench.after(1_000)
    assert.strictEqual(bench.suspend(held, 100, 0), "Done")
    assert.strictEqual(bench.outcome(1), `1 dead after 0 (${Reason.expired})`)
  })

  it("is cancelled by an immediate close, before it and after", () => {
    const { bench, held } = leased()
    bench.put()
    const other = bench.lease()
    bench.suspend(held, undefined, 0)
    bench.close("immediate")
    assert.strictEqual(bench.outcome(1), "1 cancelled after 0 ()")
    assert.strictEqual(bench.suspend(other, undefined, 0), "Done")
    assert.strictEqual(bench.outcome(2), "2 cancelled after 0 ()")
  })

  it("keeps a queue that drains from being over", () => {
    const { bench, held } = leased()
    bench.suspend(held, undefined, 0)
    bench.close("drain")
    assert.strictEqual(bench.leaseText(), "empty")
    bench.signal(1)
    bench.commit(bench.lease())
    assert.strictEqual(bench.leaseText(), "closed")
  })

  it("is cancelled, and purged", () => {
    const { bench, held } = leased()
    bench.put()
    const other = bench.lease()
    bench.suspend(held, undefined, 0)
    bench.suspend(other, 100, 0)
    const { operations } = bench.engine
    assert.strictEqual(
      bench.ask((request) => operations.cancel(bench.session, request, 0, [1], bench.now)),
      "delayed"
    )
    assert.strictEqual(bench.outcome(1), "1 cancelled after 0 ()")
    bench.ask((request) => operations.purge(bench.session, request, 0, {}, 0, undefined, bench.now))
    assert.strictEqual(bench.queue.purged, 1)
    assert.strictEqual(bench.signal(1), "alreadyEnded")
    assert.strictEqual(bench.signal(2), "taskNotFound")
    bench.after(1_000)
    assert.strictEqual(bench.engine.nextDeadline > bench.now + 1_000, true)
  })
})

describe("a signal", () => {
  it("is recorded for whatever lives, and ends no other wait than that of a handler", () => {
    const bench = new Bench({ backoffBaseMs: 500 })
    bench.put({ delayMs: 1_000 })
    assert.strictEqual(bench.signal(1), "Done")
    assert.strictEqual(bench.leaseText(), "empty")
    bench.put()
    assert.strictEqual(bench.signal(2), "Done")
    const held = bench.lease()
    assert.strictEqual(bench.signal(2, "!more", 5), "Done")
    bench.fail(held)
    assert.strictEqual(bench.signal(2, "!last", 6), "Done")
    assert.strictEqual(bench.leaseText(), "empty")
    bench.after(500)
    assert.strictEqual(bench.leaseText(), "2/2/2,!go=1,!more=5,!last=6")
  })

  it("the first of a name stays", () => {
    const bench = new Bench()
    bench.put()
    bench.signal(1, "!go", 1)
    assert.strictEqual(bench.signal(1, "!go", 2), "Done")
    assert.deepStrictEqual(bench.entries(1), ["!go=1"])
  })

  it("to a task that has ended, to none, or to another queue's is refused", () => {
    const { bench, held } = leased()
    bench.put(undefined, 1)
    bench.commit(held)
    assert.strictEqual(bench.signal(1), "alreadyEnded")
    assert.strictEqual(bench.signal(77), "taskNotFound")
    assert.strictEqual(bench.signal(2), "taskNotFound")
    assert.strictEqual(bench.signal(1, "!go", 1, 1), "taskNotFound")
    assert.strictEqual(bench.signal(2, "!go", 1, 7), "queueNotFound")
    assert.deepStrictEqual(bench.entries(2), [])
  })

  it("finds its task by its dedupe id, as long as that is remembered", () => {
    const bench = new Bench({ dedupeKeptMs: 1_000 })
    bench.put({ id: "a" })
    const { progress } = bench.engine
    assert.strictEqual(bench.signal("a", "!go", 3), "Done")
    assert.strictEqual(bench.signal("b"), "taskNotFound")
    assert.strictEqual(bench.signal("a", "!go", 3, 1), "taskNotFound")
    assert.strictEqual(progress.find(bench.queue, "a", bench.now), 1)
    bench.commit(bench.lease())
    assert.strictEqual(progress.find(bench.queue, "a", bench.now), 1)
    assert.strictEqual(bench.signal("a"), "alreadyEnded")
    bench.after(999)
    assert.strictEqual(progress.find(bench.queue, "a", bench.now), 1)
    bench.after(1)
    assert.strictEqual(progress.find(bench.queue, "a", bench.now), undefined)
    assert.strictEqual(bench.signal("a"), "taskNotFound")
    assert.strictEqual(bench.put({ id: "a" }), 2)
    assert.strictEqual(bench.signal("a", "!new", 4), "Done")
    assert.deepStrictEqual(bench.entries(2), ["!new=4"])
  })
})

describe("a redrive", () => {
  it("hands steps, signals and the checkpoint on, and the new task does not wait", () => {
    const { bench, held } = leased({}, { id: "a" })
    bench.step(held, "a", 1)
    bench.signal(1, "!go", 2)
    bench.ask((request) =>
      bench.engine.progress.checkpoint(bench.session, request, [1], [held.fence], [new Uint8Array(3)])
    )
    bench.fail(held, Reason.killed)
    bench.cleanAll()
    bench.ask((request) => bench.engine.operations.redrive(bench.session, request, 0, [1], {}, 0, undefined, bench.now))
    bench.cleanAll()
    // The id stays with the one that died.
    assert.strictEqual(bench.signal("a", "!more"), "alreadyEnded")
    assert.strictEqual(bench.leaseText(), "2/1/1/3,a=1,!go=2")
    assert.strictEqual(bench.step({ n: 2, fence: fenceBase + 1 }, "b", 3), "Done")
    assert.deepStrictEqual(bench.entries(2), ["a=1", "!go=2", "b=3"])
  })
})

describe("what a heartbeat reports", () => {
  const report = (bench: Bench, { fence, n }: Held, progress: number | undefined, checkpoint?: Uint8Array) => {
    bench.disk.recorder.journal.begin(bench.now)
    bench.engine.progress.report(bench.session, [{ task: n, fence, progress, checkpoint }])
    bench.settle()
  }

  it("is kept; what it leaves out stays, and an old fence changes nothing", () => {
    const { bench, held } = leased()
    report(bench, held, 5_000, new Uint8Array(2))
    report(bench, held, undefined, new Uint8Array(3))
    assert.strictEqual(bench.task(1).progress, 5_000)
    report(bench, held, Limits.progressWhole)
    assert.strictEqual(bench.task(1).progress, Limits.progressWhole)
    assert.strictEqual(bench.task(1).checkpoint?.byteLength, 3)
    assert.strictEqual(bench.queue.progressBytes, 3)
    report(bench, { n: 1, fence: held.fence - 1 }, 1, new Uint8Array(9))
    report(bench, { n: 9, fence: held.fence }, 1, new Uint8Array(9))
    assert.strictEqual(bench.task(1).progress, Limits.progressWhole)
    assert.strictEqual(bench.task(1).checkpoint?.byteLength, 3)
  })

  it("of its progress the next attempt and the next life know nothing, of its checkpoint both do", () => {
    const { bench, held } = leased()
    report(bench, held, 5_000, new Uint8Array(2))
    const restored = bench.disk.restored(bench.now).tasks.owner(1)
    assert.instanceOf(restored, Task)
    assert.strictEqual(restored.progress, undefined)
    assert.strictEqual(restored.checkpoint?.byteLength, 2)
    bench.release(held)
    assert.strictEqual(bench.leaseText(), "1/2/1/2")
    assert.strictEqual(bench.task(1).progress, undefined)
  })
})

describe("the log", () => {
  /** One task in every state, each with a step and a signal. */
  const full = (): Bench => {
    const bench = new Bench({ backoffBaseMs: 500, leaseMs: 60_000, maxAttempts: 3 })
    const recorded = (options?: TaskOptions): Held => {
      bench.put(options)
      const held = bench.lease()
      bench.step(held, "a", held.n)
      bench.signal(held.n, "!s", held.n)
      return held
    }
    bench.fail(recorded())
    bench.suspend(recorded(), 500, 2)
    bench.suspend(recorded({ id: "three" }), undefined, 2)
    bench.suspend(recorded(), undefined, 1)
    recorded()
    bench.fail(recorded(), Reason.killed)
    bench.fail(recorded(), Reason.killed)
    bench.ask((request) => bench.engine.operations.redrive(bench.session, request, 0, [7], {}, 0, undefined, bench.now))
    bench.put({ delayMs: 700, ttlMs: 5_000 })
    bench.signal(9, "!s", 9)
    return bench
  }

  it("rebuilds steps, signals and waits in every state of a task, also when all of it was written again", () => {
    const bench = full()
    for (let i = 0; i < 3; i++) bench.cleanAll()
    assert.isAbove(bench.disk.cleaned, 0)
    // What is recorded behind a record that the cleaner wrote.
    bench.step({ n: 5, fence: fenceBase + 1 }, "b", 50)
    bench.signal(3, "!t", 30)
    assert.deepStrictEqual(bench.entries(3), ["a=3", "!s=3", "!t=30"])
    assert.deepStrictEqual(bench.entries(8), ["a=7", "!s=7"])
    bench.cleanAll()
    assert.deepStrictEqual(bench.entries(5), ["a=5", "!s=5", "b=50"])
  })

  it("may be cleaned row by row between what is recorded", () => {
    const bench = full()
    for (let i = 0; i < 60; i++) {
      bench.disk.clean(bench.engine, 1, bench.now)
      bench.disk.verify(bench.engine, bench.now)
      bench.signal(3, `!${i}`, i % 200)
      bench.step({ n: 5, fence: fenceBase + 1 }, `${i}`, i)
    }
    assert.strictEqual(bench.task(3).entries!.size, 62)
    assert.strictEqual(bench.task(5).entries!.size, 62)
  })

  it("lets another life go on: waits end by time and by signal, and the first of a name stays", () => {
    const bench = full()
    bench.cleanAll()
    const engine = bench.disk.restored(bench.now)
    const session = engine.connect((id) => new Session(id))
    const task = (n: number): Task => {
      const owner = engine.tasks.owner(n)
      assert.instanceOf(owner, Task)
      return owner
    }
    engine.dispatch(bench.now)
    assert.deepStrictEqual(
      [2, 3, 4].map((n) => task(n).suspended),
      [true, true, true]
    )
    engine.progress.signal(session, 1, 0, "three", "!s", Uint8Array.of(99), bench.now)
    engine.progress.signal(session, 2, 0, 3, "!t", Uint8Array.of(98), bench.now)
    assert.strictEqual(task(3).state, State.ready)
    assert.deepStrictEqual(
      [...task(3).entries!.values()].map(([value]) => value),
      [3, 3, 98]
    )
    engine.tick(bench.now)
    // One that did not wait for what it had is due at once, in another life too.
    assert.strictEqual(task(4).state, State.ready)
    assert.strictEqual(task(2).state, State.delayed)
    engine.tick(bench.now + 500)
    assert.strictEqual(task(2).state, State.ready)
    assert.isFalse(task(2).suspended)
    engine.dispatch(bench.now + 500)
    assert.deepStrictEqual(check(engine), [])
  })

  it("has nothing of a queue in memory, which works alike", () => {
    const bench = new Bench({}, "memory")
    bench.put()
    const held = bench.lease()
    const before = bench.disk.rows.length
    assert.strictEqual(bench.step(held, "a", 1), "Done")
    assert.strictEqual(bench.suspend(held, undefined, 1), "Done")
    assert.strictEqual(bench.signal(1, "!go", 2), "Done")
    assert.strictEqual(bench.leaseText(), "1/2/1,a=1,!go=2")
    const again = { n: 1, fence: fenceBase + 2 }
    bench.suspend(again, 100, 2)
    bench.after(100)
    bench.fail(bench.lease(), Reason.killed)
    bench.ask((request) => bench.engine.operations.redrive(bench.session, request, 0, [1], {}, 0, undefined, bench.now))
    assert.strictEqual(bench.leaseText(), "2/1/1,a=1,!go=2")
    assert.strictEqual(bench.disk.rows.length, before)
  })
})
