import assert from "node:assert/strict"
import type { DeadLetter } from "../../../src/model/DeadLetters.ts"
import { type CommitEffects, Engine, type Failure } from "../../../src/model/Engine.ts"
import { check } from "../../../src/model/Invariants.ts"
import { LaneChange } from "../../../src/model/Lanes.ts"
import { Standing } from "../../../src/model/Life.ts"
import type { OutcomeLog } from "../../../src/model/OutcomeLog.ts"
import type { Queue } from "../../../src/model/Queue.ts"
import { Session } from "../../../src/model/Session.ts"
import { Reason, type Task, type TaskOptions } from "../../../src/model/Task.ts"
import { Random } from "../random.ts"
import { Collected, definition, standingNames } from "./collected.ts"
import { Disk } from "./disk.ts"
import {
  Ambiguous,
  type Answer,
  type Item,
  type QueuePolicy,
  type RefEffects,
  Reference,
  type RefState,
  type RefTask,
  type RefWrite,
  type Wanted
} from "./Reference.ts"

export const opsPerSeed = 200
const fenceBase = 2 ** 32

const payload = (item: Item): Uint8Array => new Uint8Array(item.bytes)
const optionsOf = ({ bytes: _, ...options }: Item): TaskOptions | undefined =>
  Object.keys(options).length === 0 ? undefined : options

export interface RunOptions {
  /** Whether every operation is kept as a text. */
  readonly logs?: boolean
  readonly make?: (policies: ReadonlyArray<QueuePolicy>) => Reference
  /** Whether tasks record steps, wait and are signalled, and report. */
  readonly progress?: boolean
}

/**
 * One seeded run. Commands come at whole hundreds of milliseconds, and each kind of wait has its own remainder, so that
 * two deadlines of which only one may win do not fall on the same millisecond.
 */
export class Run {
  readonly #logs: boolean
  readonly #random: Random
  /** What is done about progress is drawn apart: without it a seed means what it meant before there was any. */
  readonly #progressRandom: Random | undefined
  readonly #out = new Collected()
  readonly #disk = new Disk(1)
  readonly #engine: Engine
  readonly #reference: Reference
  readonly #policies: ReadonlyArray<QueuePolicy>
  /** What keys tasks have. */
  readonly #keys: ReadonlyArray<string | undefined>
  readonly #sessions: Array<{ session: Session; attached: boolean; number: number }> = []
  readonly #expiries = new Set<number>()
  readonly ops: Array<string> = []
  readonly counts = new Map<string, number>()
  #now = 1_000_000
  #request = 1
  #sessionNumber = 1

  constructor(seed: number, options: RunOptions = {}) {
    const { logs = false, make = (policies) => new Reference(policies), progress = true } = options
    this.#logs = logs
    this.#random = new Random(seed)
    this.#progressRandom = progress ? new Random(seed + 2 ** 31) : undefined
    const r = this.#random
    this.#keys = r.pick<ReadonlyArray<string | undefined>>([
      [undefined],
      ["a"],
      [undefined, "a"],
      ["a", "b"],
      [undefined, "a", "b"],
      ["a", "b", "c"]
    ])
    const laneLimits = this.#keys.length > 1 || r.chance(50)
    this.#policies = [0, 1, 2].map(() => ({
      capacity: r.pick([2, 3, 5, 20]),
      tasksMax: r.chance(15) ? 15 + r.int(20) : 0,
      leaseMs: r.pick([1_010, 2_010]),
      maxAttempts: 1 + r.int(4),
      backoffBaseMs: r.pick([0, 120, 320]),
      backoffFactor: r.pick([1, 2, 3]),
      backoffCapMs: r.pick([220, 10_020]),
      payloadBytesMax: 8,
      outcomesKept: r.pick([0, 2, 5, 1_000]),
      outcomesKeptMs: r.pick([500, 3_000, 86_400_000]),
      dedupeKept: r.pick([0, 1, 3, 1_000]),
      dedupeKeptMs: r.pick([700, 86_400_000]),
      capacityBytes: r.pick([0, 0, 6, 20]),
      overflow: r.chance(25) ? 1 : 0,
      laneConcurrency: laneLimits ? r.pick([0, 0, 1, 2]) : 0,
      laneRatePerMinute: laneLimits ? r.pick([0, 0, 0, 70, 600, 1_700]) : 0,
      laneBurst: r.int(4),
      laneGapMs: laneLimits ? r.pick([0, 0, 0, 90, 430]) : 0
    }))
    this.#out.disk = this.#disk
    this.#disk.recorder.journal.begin(this.#now)
    this.#engine = new Engine({ epoch: 1, seed, out: this.#out, keepTexts: false })
    this.#reference = make(this.#policies)
    this.#reference.chosen = this.#out.chosen
    this.#policies.forEach(({ backoffFactor, ...policy }, i) => {
      const base = definition(`q${i}`, { ...policy, backoffFactorPercent: backoffFactor * 100 })
      this.#engine.declare({ ...base, durability: "fsync" })
    })
    for (let i = 0; i < 4; i++) this.#connect(i)
    const { session } = this.#sessions[0]!
    for (const [i, kind] of ([0, 1, 2, 2] as const).entries()) {
      this.#engine.objects.open(session, -1 - i, `o${i}`, kind, true, i === 3 ? "memory" : "fsync")
    }
    this.#out.answers.clear()
  }

  go(count: number): void {
    try {
      this.#rounds(count)
    } catch (error) {
      if (!(error instanceof Ambiguous)) throw error
      this.#engine.dispatch(this.#now)
      this.#disk.store()
      this.#count("ambiguous")
    }
    this.#disk.verify(this.#engine, this.#now)
    this.#count("restored")
  }

  #rounds(count: number): void {
    for (let i = 0; i < count; ) {
      for (let inRound = 1 + this.#random.int(4); inRound > 0 && i < count; inRound--, i++) this.#command()
      this.#settle()
      if (this.#random.chance(60)) this.#advance(100 * (1 + this.#random.int(this.#random.chance(20) ? 40 : 8)))
    }
    this.#advance(200_000)
  }

  #connect(slot: number): void {
    const session = this.#engine.connect((id) => new Session(id))
    this.#sessions[slot] = { session, attached: true, number: this.#sessionNumber++ }
  }

  /** To every deadline on the way, then to the hundred. */
  #advance(ms: number): void {
    const end = this.#now + ms
    for (;;) {
      const next = Math.min(this.#engine.nextDeadline, this.#reference.nextDeadline(this.#now))
      this.#now = Math.min(end, Math.max(next, this.#now + 1))
      this.#out.occurrences = []
      this.#disk.recorder.journal.begin(this.#now)
      this.#engine.tick(this.#now)
      this.#reference.tick(this.#now, this.#out.occurrences)
      for (const _ of this.#out.occurrences) this.#count("occurrence")
      this.#settle()
      if (this.#now === end) return
    }
  }

  /** Ends the round on the disk; now and then cleans its oldest rows, or looks whether it rebuilds the engine. */
  #store(): void {
    this.#disk.store()
    if (this.#random.chance(15)) this.#disk.clean(this.#engine, 1 + this.#random.int(4), this.#now)
    if (!this.#random.chance(4)) return
    this.#disk.verify(this.#engine, this.#now)
    this.#count("restored")
  }

  #settle(): void {
    this.#out.grants = new Map()
    this.#out.published = new Map()
    this.#out.admitting = []
    this.#engine.dispatch(this.#now)
    const published = this.#reference.dispatch(this.#now, this.#out.grants, this.#out.admitting)
    const { answers } = this.#reference
    if (!sameMaps(this.#out.published, published, (a, b) => a === b)) {
      explain("published outcomes", sorted(this.#out.published), sorted(published))
    }
    if (!sameMaps(this.#out.answers, answers, sameAnswers)) {
      explain("answers", sorted(this.#out.answers), sorted(answers))
    }
    if (this.#out.faults.length > 0) throw new Error(this.#out.faults.join("\n"))
    const broken = check(this.#engine)
    if (broken.length > 0) throw new Error(broken.join("\n"))
    this.#compareObjects()
    this.#store()
    const counts = this.#reference.counts()
    for (const queue of this.#engine.queues) this.#compareQueue(queue, counts[queue.id]!)
    for (const answer of this.#out.answers.values()) {
      this.#count(answer._tag === "Refused" ? answer.why : answer._tag)
      if (answer._tag === "Items") for (const item of answer.items) this.#count(item)
    }
    this.#out.answers.clear()
    answers.clear()
  }

  #compareObjects(): void {
    const [set, dict, ...counters] = this.#engine.objects.all
    if (set?.kind !== "set" || dict?.kind !== "dict") throw new Error("the objects are not what they were made")
    const reference = this.#reference
    const page = set.page(undefined, 1_000)
    const keys = page.rows.map((row, i) => this.#disk.keyAt(row, page.offsets[i]!)[0]!)
    const entries = dict.page(0, 1_000)
    let i = 0
    let same = keys.length === reference.set.size && keys.every((key) => reference.set.has(key))
    same &&= new Set(keys).size === keys.length
    for (const [key, { value, version }] of reference.dict) {
      const entry = entries[i++]
      same &&= entry?.key === key && entry.value[0] === value && entry.version === version
    }
    same &&= entries.length === i && dict.version === reference.dictVersion
    const values = counters.map((counter) => (counter.kind === "counter" ? counter.value : undefined))
    same &&= values.length === 2 && values.every((value, c) => value === reference.counters[2 + c])
    if (same) return
    explain(
      "shared objects",
      {
        set: keys.sort(byNumber),
        dict: entries.map(({ key, value, version }) => `${key}=${value[0]}@${version}`),
        dictVersion: dict.version,
        counters: values
      },
      {
        set: [...reference.set].sort(byNumber),
        dict: [...reference.dict].map(([key, { value, version }]) => `${key}=${value}@${version}`),
        dictVersion: reference.dictVersion,
        counters: reference.counters.slice(2)
      }
    )
  }

  #compareQueue(queue: Queue, count: Readonly<Record<RefState, number>>): void {
    const ref = this.#reference.queues[queue.id]!
    const { log } = queue
    const ready = queue.ready.peek(1_000, this.#now)
    const { tasks } = this.#engine.tasks.after(queue, 0, 1_000)
    const letters = queue.deadLetters.all()
    const same =
      queue.ready.size === count.ready &&
      sameLanes(ready, this.#reference.open(queue.id, this.#now)) &&
      sameTasks(tasks, ref.living) &&
      tasks.every((task, i) => progressText(task) === refProgressText(ref.living[i]!)) &&
      queue.delayed === count.delayed &&
      queue.leased === count.leased &&
      queue.done === count.success &&
      queue.dead === count.dead + count.failure &&
      queue.cancelled === count.cancelled &&
      queue.acknowledged === count.acknowledged &&
      queue.duplicates === ref.duplicates &&
      queue.refused === ref.refused &&
      queue.purged === count.purged &&
      queue.dropped === ref.dropped &&
      queue.paused === ref.paused &&
      queue.closed === ref.closed &&
      log.first === ref.kept &&
      log.next === ref.log.length &&
      sameLetters(letters, this.#reference.letters(queue.id)) &&
      sameOutcomes(log, ref.log)
    if (same) return
    // Within one millisecond the order of ends is the engine's own.
    const cursors = Array.from({ length: log.next - log.first }, (_, i) => log.first + i)
    explain(
      `queue ${queue.id}`,
      {
        ready: queue.ready.size,
        open: ready.map(({ n }) => n),
        delayed: queue.delayed,
        leased: queue.leased,
        done: queue.done,
        dead: queue.dead,
        cancelled: queue.cancelled,
        acknowledged: queue.acknowledged,
        duplicates: queue.duplicates,
        refused: queue.refused,
        cursors: [log.first, log.next],
        purged: queue.purged,
        dropped: queue.dropped,
        letters: letters.map(({ task }) => task.n).sort(byNumber),
        living: tasks.map(progressText),
        paused: queue.paused,
        closed: queue.closed,
        outcomes: cursors.map((cursor) => `${log.endedAt(cursor)} ${log.task(cursor)}`).sort()
      },
      {
        ready: count.ready,
        open: this.#reference.open(queue.id, this.#now).map(({ n }) => n),
        delayed: count.delayed,
        leased: count.leased,
        done: count.success,
        dead: count.dead + count.failure,
        cancelled: count.cancelled,
        acknowledged: count.acknowledged,
        duplicates: ref.duplicates,
        refused: ref.refused,
        cursors: [ref.kept, ref.log.length],
        purged: count.purged,
        dropped: ref.dropped,
        letters: this.#reference
          .letters(queue.id)
          .map(({ n }) => n)
          .sort(byNumber),
        living: ref.living.map(refProgressText),
        paused: ref.paused,
        closed: ref.closed,
        outcomes: ref.log
          .slice(ref.kept)
          .map(({ at, task }) => `${at} ${task.n}`)
          .sort()
      }
    )
  }

  #count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1)
  }

  #item(): Item {
    const r = this.#random
    const item: { -readonly [K in keyof Item]: Item[K] } = { bytes: r.chance(2) ? 9 : r.int(9) }
    const key = r.pick(this.#keys)
    if (key !== undefined) item.key = key
    if (r.chance(50)) return item
    if (r.chance(40)) item.id = `id${r.int(8)}`
    if (r.chance(40)) item.priority = r.pick([0, 1, 127, 128, 129, 255])
    if (r.chance(20)) item.labels = r.pick([["x"], ["x", "y"], []])
    if (r.chance(30)) item.delayMs = r.chance(20) ? 0 : 20 + 100 * r.int(15)
    if (r.chance(20)) {
      let ttlMs = 103 + 100 * r.int(20)
      while (this.#expiries.has(this.#now + ttlMs)) ttlMs += 100
      this.#expiries.add(this.#now + ttlMs)
      item.ttlMs = ttlMs
    }
    return item
  }

  #wait(): number | undefined {
    const r = this.#random
    return r.chance(30) ? 0 : r.chance(20) ? undefined : 2 + 100 * (1 + r.int(12))
  }

  /** Leases to speak of: mostly the session's own, sometimes another's, an old fence, or a task that is no more. */
  #held(session: number, r = this.#random): ReadonlyArray<readonly [number, number]> {
    const own = this.#reference.leases(session).filter(() => r.chance(60))
    const held: Array<readonly [number, number]> = own.map(({ leases, n }) => [n, leases])
    if (r.chance(20) && this.#reference.tasks.length > 0) {
      const any = r.pick(this.#reference.tasks)
      held.push([any.n, Math.max(0, any.leases - r.int(2))])
    }
    if (r.chance(3)) held.push([1_000_000, 1])
    return held
  }

  #wanted(): Wanted {
    const r = this.#random
    const wanted: { -readonly [K in keyof Wanted]: Wanted[K] } = {}
    if (r.chance(25)) wanted.key = r.pick(["a", "b"])
    if (r.chance(15)) wanted.label = r.pick(["x", "y"])
    if (r.chance(15)) wanted.id = `id${r.int(8)}`
    if (r.chance(20)) wanted.priorityMin = r.pick([0, 127, 128, 129])
    if (r.chance(20)) wanted.priorityMax = r.pick([0, 127, 128, 129])
    return wanted
  }

  /** Pages through the engine's tasks, and compares with a look at all of the reference's. */
  #browse(
    queue: number,
    state: "ready" | "delayed" | "leased" | "dead" | undefined,
    wanted: Wanted,
    limit: number
  ): void {
    const found: Array<number> = []
    for (let after: number | undefined = 0; after !== undefined; ) {
      const look = { state: state && Standing[state], filter: wanted, after, limit, payloads: this.#random.chance(50) }
      const page = this.#engine.operations.browse(this.#engine.queues[queue]!, look)
      assert.ok(page.tasks.length <= limit)
      found.push(...page.tasks.map(({ n }) => n))
      after = page.next
    }
    const expected = [...this.#reference.browse(queue, state, wanted)]
    if (state === "dead") {
      // Within one millisecond the order of ends is the engine's own.
      found.sort(byNumber)
      expected.sort(byNumber)
    }
    assert.deepStrictEqual(found, expected, `browse of ${state}`)
  }

  /** Commands of people: whoever sends them, attached or not, is answered. */
  #operate(
    session: Session,
    number: number,
    request: number,
    say: (name: string, ...args: ReadonlyArray<unknown>) => void
  ) {
    const r = this.#random
    const now = this.#now
    const queue = r.chance(2) ? 7 : r.int(3)
    const { operations } = this.#engine
    const some = (): ReadonlyArray<number> =>
      Array.from({ length: 1 + r.int(3) }, () =>
        r.chance(95) && this.#reference.tasks.length > 0 ? r.pick(this.#reference.tasks).n : 1_000_000
      )
    const kind = r.int(100)
    if (kind < 10) {
      const key = r.pick(this.#keys) ?? r.pick(["a", "b"])
      const change = r.pick(["pause", "resume", "resume", "slowDown", "slowDown"] as const)
      const forMs = 47 + 100 * r.int(30)
      say(`${change}Lane`, queue, key, forMs)
      this.#engine.lane(session, request, queue, key, LaneChange[change], undefined, forMs, now)
      return this.#reference.lane(request, queue, key, change, forMs, now)
    }
    if (kind < 22) {
      const paused = r.chance(30)
      say("pause", queue, paused)
      operations.pause(session, request, queue, paused)
      return this.#reference.pause(request, queue, paused)
    }
    if (kind < 35) {
      const numbers = some()
      say("cancel", queue, numbers)
      this.#out.stops = []
      operations.cancel(session, request, queue, numbers, now)
      const stops = this.#reference.cancel(request, queue, numbers, now)
      const numberOf = new Map(this.#sessions.map(({ number, session }) => [String(session.id), number]))
      const told = this.#out.stops.map((text) => text.replace(/^\d+/, (id) => String(numberOf.get(id))))
      return assert.deepStrictEqual(told, stops, "handlers to stop")
    }
    if (kind < 41) {
      const wanted = this.#wanted()
      say("purge", queue, wanted)
      operations.purge(session, request, queue, wanted, 0, undefined, now)
      return this.#reference.purge(request, queue, wanted, now)
    }
    if (kind < 60) {
      const dead = queue === 7 ? [] : this.#reference.letters(queue)
      const ends = dead.flatMap(({ item }) => (item.ttlMs === undefined ? [] : [now + item.ttlMs]))
      // A time to live begins anew: no two may end in one millisecond here, see `#item`.
      if (new Set([...ends, ...this.#expiries]).size < ends.length + this.#expiries.size) return
      for (const end of ends) this.#expiries.add(end)
      const letters = dead.map(({ n }) => n)
      const numbers = r.chance(50) ? [...some(), ...letters.slice(0, r.int(3))] : undefined
      const wanted = numbers === undefined ? this.#wanted() : {}
      say("redrive", queue, numbers, wanted)
      operations.redrive(session, request, queue, numbers, wanted, 0, undefined, now)
      const answer = this.#out.answers.get(request)
      const olds = answer?._tag === "Redriven" ? answer.pairs.filter((_, i) => i % 2 === 0) : []
      return this.#reference.redrive(request, queue, numbers, wanted, olds, now)
    }
    if (kind < 84) {
      const items = this.#held(number).map(([n, fence]) => ({ n, fence, bytes: r.int(5) }))
      say("checkpoint", items)
      this.#engine.progress.checkpoint(
        session,
        request,
        items.map(({ n }) => n),
        items.map(({ fence }) => fenceBase + fence),
        items.map(({ bytes }) => new Uint8Array(bytes))
      )
      return this.#reference.checkpoint(number, request, items)
    }
    const state = r.pick(["ready", "delayed", "leased", "dead", undefined] as const)
    const wanted = this.#wanted()
    say("browse", queue % 7, state, wanted)
    this.#browse(queue % 7, state, wanted, 1 + r.int(4))
  }

  #command(): void {
    const r = this.#random
    const slot = r.int(this.#sessions.length)
    const { attached, number, session } = this.#sessions[slot]!
    const now = this.#now
    const request = this.#request++
    const queue = r.chance(1) ? 7 : r.int(3)
    const streamable = queue === 7 ? 0 : queue
    const say = (name: string, ...args: ReadonlyArray<unknown>): void => {
      this.#count(name)
      if (this.#logs) this.ops.push(`${now} #${request} s${number} ${name} ${JSON.stringify(args)}`)
    }
    const flat = (held: ReadonlyArray<readonly [number, number]>): Array<number> =>
      held.flatMap(([n, fence]) => [n, fenceBase + fence])
    if (!attached) {
      if (r.chance(60)) {
        const held = this.#held(number)
        say("resume", held)
        this.#sessions[slot]!.attached = true
        const lost = this.#engine.resume(session, flat(held), now)
        return assert.deepStrictEqual(lost, this.#reference.resume(number, held, now), "lost at resume")
      }
      say("goodbye")
      this.#engine.goodbye(session, now)
      this.#reference.goodbye(number, now)
      return this.#connect(slot)
    }
    if (this.#progressRandom?.chance(12)) return this.#progress(this.#progressRandom, session, number, request, say)
    if (r.chance(15)) return this.#operate(session, number, request, say)
    const kind = r.int(112)
    if (kind < 30) {
      const items = Array.from({ length: 1 + r.int(r.chance(20) ? 8 : 3) }, () => this.#item())
      const plain = items.every((item) => optionsOf(item) === undefined)
      const atomic = r.chance(30)
      const waitMs = this.#wait()
      say("put", queue, atomic, waitMs, items)
      const options = plain ? undefined : items.map(optionsOf)
      this.#engine.put(session, request, queue, atomic, waitMs, items.map(payload), options, now)
      return this.#reference.put(number, request, queue, atomic, waitMs, items, now)
    }
    if (kind < 40) {
      const count = 1 + r.int(3)
      const waitMs = this.#wait()
      say("lease", queue, count, waitMs)
      this.#engine.lease(session, request, queue, count, waitMs, r.chance(50), now)
      return this.#reference.lease(number, request, queue, count, waitMs, now)
    }
    if (kind < 46) {
      const credit = r.int(4)
      say("subscribe", streamable, credit)
      const { id } = this.#engine.subscribe(session, this.#engine.queues[streamable]!, credit)
      return this.#reference.subscribe(number, streamable, id, credit)
    }
    if (kind < 49) {
      const { log } = this.#engine.queues[streamable]!
      const cursor = r.int(log.next + 1)
      const credit = r.int(6)
      say("follow", streamable, cursor, credit)
      const { id } = this.#engine.follow(session, this.#engine.queues[streamable]!, cursor, credit)
      return this.#reference.follow(number, streamable, id, cursor, credit)
    }
    const streams = [...session.leaseStreams.keys(), ...session.outcomeStreams.keys(), 99_999]
    if (kind < 55) {
      const stream = r.pick(streams)
      const credit = r.int(4)
      say("credit", stream, credit)
      this.#engine.credit(session, stream, credit)
      return this.#reference.credit(number, stream, credit)
    }
    if (kind < 57) {
      const stream = r.pick(streams)
      say("unsubscribe", stream)
      this.#engine.unsubscribe(session, stream)
      return this.#reference.unsubscribe(number, stream)
    }
    if (kind < 68) {
      const items = this.#held(number).map(([n, fence]) => ({ n, fence, effects: this.#effects() }))
      const together = r.chance(30)
      if (together && r.chance(5) && items.length > 0) items.push(items[0]!)
      say(together ? "commitTogether" : "commit", items)
      const effects = items.map(({ effects }): CommitEffects | undefined =>
        Object.values(effects).every((list) => list.length === 0)
          ? undefined
          : {
              puts: effects.puts.map(({ ifNew, item, queue }) => ({
                queue,
                payload: payload(item),
                options: optionsOf(item),
                ifNew
              })),
              sets: effects.sets.map(({ key, object }) => ({ object, key: Uint8Array.of(key) })),
              counts: effects.counts,
              writes: effects.writes.map((write) => ({ ...write, value: valueOf(write.value) }))
            }
      )
      this.#engine.commit(
        session,
        request,
        items.map(({ n }) => n),
        items.map(({ fence }) => fenceBase + fence),
        items.map(() => new Uint8Array(3)),
        effects.some((effect) => effect !== undefined) ? effects : undefined,
        now,
        together
      )
      return this.#reference.commit(number, request, items, together, now)
    }
    if (kind < 73) {
      const items = this.#held(number).map(([n, fence]) => {
        const reason = r.pick([Reason.failed, Reason.failed, Reason.defect, Reason.timeout, Reason.killed])
        const typed = r.chance(50)
        const retryAfterMs = r.chance(20) ? 20 + 100 * r.int(10) : undefined
        const slowDownMs = r.chance(25) ? 47 + 100 * r.int(30) : undefined
        return { n, fence, reason, final: reason === Reason.killed, typed, retryAfterMs, slowDownMs }
      })
      say("fail", items)
      this.#engine.fail(
        session,
        request,
        items.map(({ n }) => n),
        items.map(({ fence }) => fenceBase + fence),
        items.map(({ reason, retryAfterMs, slowDownMs, typed }): Failure => {
          return { reason, error: typed ? new Uint8Array(2) : undefined, text: "", retryAfterMs, slowDownMs }
        }),
        now
      )
      return this.#reference.fail(number, request, items, now)
    }
    const held = this.#held(number)
    if (kind < 76) {
      say("release", held)
      this.#engine.release(session, request, flat(held), now)
      return this.#reference.release(number, request, held, now)
    }
    if (kind < 79) {
      say("renew", held)
      this.#engine.renew(session, request, flat(held), now)
      return this.#reference.renew(number, request, held, now)
    }
    if (kind < 83) {
      say("started", held)
      this.#engine.started(session, flat(held))
      return this.#reference.started(number, held)
    }
    if (kind < 86) {
      say("heartbeat", held)
      const lost = this.#engine.heartbeat(session, flat(held), now)
      return assert.deepStrictEqual(lost, this.#reference.heartbeat(number, held, now), "lost at heartbeat")
    }
    if (kind < 89) {
      say("acknowledge", held)
      this.#engine.acknowledge(session, flat(held), now)
      return this.#reference.acknowledge(number, held, now)
    }
    if (kind < 93) {
      const n = r.chance(90) && this.#reference.tasks.length > 0 ? r.pick(this.#reference.tasks).n : 1_000_000
      const waitMs = this.#wait()
      const home = r.chance(90) ? (this.#reference.task(n)?.queue ?? queue) : queue
      say("outcome", home, n, waitMs)
      this.#engine.outcome(session, request, home, n, waitMs, now)
      return this.#reference.outcome(number, request, home, n, waitMs, now)
    }
    if (kind < 95) {
      const waitMs = this.#wait()
      say("join", queue, waitMs)
      this.#engine.join(session, request, queue, waitMs, now)
      return this.#reference.join(number, request, queue, waitMs, now)
    }
    if (kind < 97) {
      const congested = r.chance(50)
      say("congested", congested)
      this.#engine.congested(session, congested)
      if (congested) this.#reference.congested.add(number)
      else this.#reference.congested.delete(number)
      return
    }
    if (kind < 98 && r.chance(40)) {
      const id = r.pick(["a", "b", "c"])
      const what = r.int(10)
      if (what < 7) {
        // Whole hundreds, and sometimes below the bound.
        const everyMs = 900 + 100 * r.int(12)
        const bytes = r.chance(5) ? 9 : r.int(9)
        say("repeat", queue, id, everyMs, bytes)
        const repeat = {
          id,
          everyMs,
          cron: undefined,
          zone: "UTC",
          payload: new Uint8Array(bytes),
          options: undefined
        }
        this.#engine.repeat(session, request, queue, repeat, now)
        return this.#reference.repeat(request, queue, id, everyMs, bytes, now)
      }
      if (what < 8) {
        say("removeRepeat", queue, id)
        this.#engine.removeRepeat(session, request, queue, id)
        return this.#reference.removeRepeat(request, queue, id)
      }
      say("repeats", queue)
      this.#engine.listRepeats(session, request, queue)
      return this.#reference.repeats(request, queue)
    }
    if (kind < 98 && r.chance(30)) {
      const mode = r.pick(["drain", "immediate"] as const)
      say("close", queue, mode)
      this.#engine.close(session, request, queue, mode, now)
      return this.#reference.close(request, queue, mode, now)
    }
    if (kind < 99) {
      say("detach")
      this.#sessions[slot]!.attached = false
      this.#engine.detach(session, now)
      return this.#reference.detach(number, now)
    }
    if (kind < 100) {
      say("goodbye")
      this.#engine.goodbye(session, now)
      this.#reference.goodbye(number, now)
      return this.#connect(slot)
    }
    this.#object(session, request, say)
  }

  /** Steps, waits, signals, and what a heartbeat reports. Names are few: so the second of a name meets the first. */
  #progress(
    r: Random,
    session: Session,
    number: number,
    request: number,
    say: (name: string, ...args: ReadonlyArray<unknown>) => void
  ): void {
    const now = this.#now
    const { operations, progress } = this.#engine
    const held = this.#held(number, r).map(([n, fence]) => ({ n, fence }))
    const asked = ({ fence, n }: { readonly n: number; readonly fence: number }) => ({
      task: n,
      fence: fenceBase + fence
    })
    const bytesOf = (value: number): Uint8Array => new Uint8Array(1 + (value % 3)).fill(value)
    const kind = r.int(100)
    if (kind < 30) {
      const items = held.map((one) => ({ ...one, name: `s${r.int(4)}`, value: r.int(256) }))
      // Two of a name in one request: the first one stays.
      if (items.length > 0 && r.chance(20)) items.push({ ...items[0]!, value: r.int(256) })
      say("step", items)
      progress.step(
        session,
        request,
        items.map((item) => ({ ...asked(item), name: item.name, value: bytesOf(item.value) }))
      )
      return this.#reference.step(number, request, items)
    }
    if (kind < 55) {
      const items = held.map((one) => {
        const entries = this.#reference.task(one.n)?.entries.length ?? 0
        const seen = r.chance(70) ? entries : r.int(entries + 2)
        return { ...one, seen, forMs: r.chance(40) ? undefined : r.chance(10) ? 0 : 20 + 100 * r.int(30) }
      })
      say("suspend", items)
      progress.suspend(
        session,
        request,
        items.map((item) => ({ ...asked(item), forMs: item.forMs, seen: item.seen })),
        now
      )
      this.#reference.suspend(number, request, items, now)
      if (items.some(({ n }) => this.#reference.task(n)?.suspended)) this.#count("suspended")
      return
    }
    if (kind < 85) {
      const { tasks } = this.#reference
      const waiting = tasks.filter(({ suspended }) => suspended)
      const any = waiting.length > 0 && r.chance(60) ? r.pick(waiting) : tasks.length > 0 ? r.pick(tasks) : undefined
      const queue = r.chance(2) ? 7 : r.chance(95) ? (any?.queue ?? 0) : r.int(3)
      const id = r.chance(70) ? any?.item.id : `id${r.int(8)}`
      const about = id !== undefined && r.chance(30) ? id : r.chance(97) ? (any?.n ?? 1) : 1_000_000
      const name = `!${r.pick(["a", "b", "c"])}`
      const value = r.int(256)
      say("signal", queue, about, name, value)
      progress.signal(session, request, queue, about, name, bytesOf(value), now)
      this.#reference.signal(request, queue, about, name, value, now)
      if (waiting.some(({ suspended }) => !suspended)) this.#count("woken")
      return
    }
    if (kind < 90) {
      const queue = r.int(3)
      const id = `id${r.int(8)}`
      say("find", queue, id)
      const of = this.#engine.queues[queue]!
      const n = progress.find(of, id, now)
      const found = n === undefined ? "nobody" : `${n} ${standingNames[operations.standing(of, n)]}`
      return assert.strictEqual(found, this.#reference.find(queue, id, now), `who has ${id}`)
    }
    const items = held.map((one) => ({
      ...one,
      progress: r.chance(70) ? r.int(10_001) : undefined,
      checkpoint: r.chance(40) ? r.int(5) : undefined
    }))
    say("report", items)
    progress.report(
      session,
      items.map((item) => ({
        ...asked(item),
        progress: item.progress,
        checkpoint: item.checkpoint === undefined ? undefined : new Uint8Array(item.checkpoint)
      }))
    )
    this.#reference.report(number, items)
  }

  /** A request about a shared object, mostly of the kind that it is. */
  #object(session: Session, request: number, say: (name: string, ...args: ReadonlyArray<unknown>) => void): void {
    const r = this.#random
    const { objects } = this.#engine
    const any = r.int(6)
    const object = (right: number): number => (r.chance(95) ? right : any)
    switch (r.int(6)) {
      case 0: {
        const action = r.pick([0, 0, 1, 2] as const)
        const keys = Array.from({ length: 1 + r.int(4) }, () => r.int(20))
        const id = object(0)
        say("setKeys", id, action, keys)
        objects.setKeys(
          session,
          request,
          id,
          action,
          keys.map((key) => Uint8Array.of(key))
        )
        return this.#reference.setKeys(request, id, action, keys)
      }
      case 1: {
        const id = object(2)
        const by = this.#by()
        say("count", id, by)
        objects.count(session, request, id, by)
        return this.#reference.count(request, id, by)
      }
      case 2: {
        const id = object(2)
        const expected = r.chance(20) ? undefined : r.chance(70) ? this.#reference.counters[2]! : r.int(3)
        const value = r.int(100) - 50
        say("countSet", id, expected, value)
        objects.countSet(session, request, id, expected, value)
        return this.#reference.countSet(request, id, expected, value)
      }
      case 3: {
        const id = object(1)
        const keys = Array.from({ length: r.int(4) }, () => `k${r.int(6)}`)
        say("dictGet", id, keys)
        objects.dictGet(session, request, id, keys)
        return this.#reference.dictGet(request, id, keys)
      }
      case 4: {
        const id = object(1)
        const writes = Array.from({ length: 1 + r.int(3) }, () => this.#write())
        say("dictWrite", id, writes)
        objects.dictWrite(
          session,
          request,
          id,
          writes.map((write) => ({ ...write, value: valueOf(write.value) }))
        )
        return this.#reference.dictWrite(request, id, writes)
      }
      default: {
        const id = r.chance(90) ? r.int(2) : any
        say("list", id)
        objects.list(session, request, id, undefined, 1_000)
        return this.#reference.list(request, id)
      }
    }
  }

  #by(): number {
    const r = this.#random
    return r.chance(5) ? r.pick([Number.MAX_SAFE_INTEGER, -Number.MAX_SAFE_INTEGER]) : r.int(20) - 10
  }

  #write(): RefWrite {
    const r = this.#random
    const key = `k${r.int(6)}`
    const version = this.#reference.dict.get(key)?.version ?? 0
    const expected = r.chance(40) ? undefined : r.chance(80) ? version : r.int(version + 2)
    return { key, value: r.chance(25) ? undefined : r.int(10), expected }
  }

  /** What a commit brings about: often nothing, sometimes what cannot be. */
  #effects(): RefEffects {
    const r = this.#random
    const few = <A>(make: () => A): ReadonlyArray<A> => (r.chance(25) ? Array.from({ length: 1 + r.int(2) }, make) : [])
    const sets = few(() => ({ object: r.chance(2) ? 1 + r.int(5) : 0, key: r.int(20) }))
    const puts = few(() => {
      const put = { queue: r.chance(4) ? 9 : r.int(3), item: this.#item() }
      return sets.length > 0 && r.chance(70) ? { ...put, ifNew: r.int(sets.length) } : put
    })
    const counts = few(() => ({ object: r.chance(12) ? r.pick([0, 1, 3, 3, 5]) : 2, by: this.#by() }))
    const writes = few(() => ({ object: r.chance(2) ? r.pick([0, 2, 5]) : 1, ...this.#write() }))
    return { puts, sets, counts, writes }
  }
}

const valueOf = (value: number | undefined): Uint8Array | undefined =>
  value === undefined ? undefined : Uint8Array.of(value)

/** Fails with the difference; two that were found to differ must. */
const explain = (what: string, engine: unknown, reference: unknown): never => {
  assert.deepStrictEqual(engine, reference, what)
  throw new Error(`${what}: found to differ, and no difference is seen`)
}

const sameMaps = <A>(a: ReadonlyMap<number, A>, b: ReadonlyMap<number, A>, same: (a: A, b: A) => boolean): boolean => {
  if (a.size !== b.size) return false
  for (const [key, left] of a) {
    const right = b.get(key)
    if (right === undefined || !same(left, right)) return false
  }
  return true
}

const sameLists = <A>(a: ReadonlyArray<A>, b: ReadonlyArray<A>): boolean =>
  a.length === b.length && a.every((item, i) => item === b[i])

const sameAnswers = (a: Answer, b: Answer): boolean => {
  switch (a._tag) {
    case "Done":
      return b._tag === "Done"
    case "Refused":
      return b._tag === "Refused" && a.why === b.why
    case "Put":
    case "Items":
      return b._tag === a._tag && sameLists(a.items, b.items)
    case "Leased":
      return b._tag === "Leased" && sameLists(a.tasks, b.tasks)
    case "Outcome":
    case "Object":
      return b._tag === a._tag && a.text === b.text
    case "Repeats":
      return b._tag === "Repeats" && sameLists(a.repeats, b.repeats)
    case "Counted":
      return b._tag === "Counted" && a.count === b.count
    case "Redriven":
      return b._tag === "Redriven" && sameLists(a.pairs, b.pairs)
  }
}

const progressText = ({ checkpoint, entries, n, progress, suspended }: Task): string =>
  `${n} ${suspended} ${progress} ${checkpoint?.byteLength} ${[...(entries ?? [])].map(([name, [value]]) => `${name}=${value}`)}`
const refProgressText = ({ checkpoint, entries, n, progress, suspended }: RefTask): string =>
  `${n} ${suspended} ${progress} ${checkpoint} ${entries.map(({ name, value }) => `${name}=${value}`)}`

const sameTasks = (a: ReadonlyArray<{ readonly n: number }>, b: ReadonlyArray<{ readonly n: number }>): boolean =>
  a.length === b.length && a.every(({ n }, i) => n === b[i]!.n)

/** The same tasks, the more urgent before the less, each lane's in its order; between lanes it is the engine's own. */
const sameLanes = (found: ReadonlyArray<Task>, sorted: ReadonlyArray<RefTask>): boolean => {
  if (sameTasks(found, sorted)) return true
  const rest = [...sorted]
  for (const { n, options, priority } of found) {
    const at = rest.findIndex(({ item }) => item.key === options?.key)
    if (rest[at]?.n !== n || priority !== (rest[0]!.item.priority ?? 128)) return false
    rest.splice(at, 1)
  }
  return rest.length === 0
}

/** The same letters, whatever their order: within one millisecond it is the engine's own. */
const sameLetters = (a: ReadonlyArray<DeadLetter>, b: ReadonlyArray<RefTask>): boolean => {
  if (a.length !== b.length) return false
  const numbers = new Set<number>()
  for (const { n } of b) numbers.add(n)
  for (const { task } of a) if (!numbers.delete(task.n)) return false
  return true
}

/** Assumes: both have the same cursors. Within one millisecond the order of ends is the engine's own. */
const sameOutcomes = (
  log: OutcomeLog,
  ref: ReadonlyArray<{ readonly task: RefTask; readonly at: number }>
): boolean => {
  for (let cursor = log.first; cursor < log.next; ) {
    const { at } = ref[cursor]!
    const numbers = new Set<number>()
    let end = cursor
    for (; end < log.next && ref[end]!.at === at; end++) numbers.add(ref[end]!.task.n)
    for (; cursor < end; cursor++) if (log.endedAt(cursor) !== at || !numbers.delete(log.task(cursor))) return false
  }
  return true
}

const byNumber = (a: number, b: number): number => a - b
const sorted = <A>(map: ReadonlyMap<number, A>): ReadonlyArray<readonly [number, A]> =>
  [...map].sort(([a], [b]) => a - b)
