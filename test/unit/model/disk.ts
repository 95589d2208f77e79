/** A log in an array: what a recorder writes, restored into another engine and compared. */
import assert from "node:assert/strict"
import { clean } from "../../../src/model/Cleaner.ts"
import { Engine, type Out } from "../../../src/model/Engine.ts"
import { check } from "../../../src/model/Invariants.ts"
import type { Row } from "../../../src/model/Journal.ts"
import type { Queue } from "../../../src/model/Queue.ts"
import { Recorder } from "../../../src/model/Recorder.ts"
import { Restorer } from "../../../src/model/Restore.ts"
import { Session } from "../../../src/model/Session.ts"
import { State, type Task } from "../../../src/model/Task.ts"
import { Reader } from "../../../src/wire/Bytes.ts"

const placeOf = (row: number, offset: number): number => row * 2 ** 24 + offset

const nothing = (): void => {}
const silent: Out = new Proxy({} as Out, { get: () => nothing })

export class Disk {
  rows: Array<Row> = []
  readonly recorder: Recorder
  cleaned = 0
  #lived = 0

  constructor(epoch: number) {
    this.recorder = new Recorder(1, epoch)
  }

  /** Keys of sets that were added, by place: those of a round that is not stored yet are in no row. */
  readonly keys = new Map<number, Uint8Array>()

  added(row: number, offset: number, key: Uint8Array): void {
    this.keys.set(placeOf(row, offset), key)
  }

  /** The key of a set entry. */
  keyAt(row: number, offset: number): Uint8Array {
    const place = placeOf(row, offset)
    const added = this.keys.get(place)
    if (added !== undefined) return added
    const reader = new Reader(this.rows.find(({ seq }) => seq === row)!.body)
    reader.position = offset
    const key = reader.bin(100)
    this.keys.set(place, key)
    return key
  }

  /** Ends the round: its rows are on the disk. */
  store(): void {
    this.rows.push(...this.recorder.take())
  }

  /** Frees the oldest `count` rows in a round of its own. */
  clean(engine: Engine, count: number, now: number): void {
    this.recorder.journal.begin(now)
    for (const row of this.rows.splice(0, Math.min(count, this.rows.length))) {
      const session = (id: number): Session | undefined => [...engine.sessions].find((session) => session.id === id)
      this.#lived += clean(row, engine, this.recorder, { session, answer: nothing })
      this.cleaned++
    }
    this.store()
  }

  /** What the log says, as another engine. */
  restored(now: number): Engine {
    const engine = new Engine({
      epoch: 2,
      seed: 1,
      out: silent,
      keepTexts: false,
      nextCron: (_cron, _zone, after) => after + 60_000
    })
    const restorer = new Restorer(engine, {
      session: (id, token, principal) => new Session(id, token, principal),
      answer: nothing,
      definition: () => undefined,
      durability: "fsync"
    })
    for (const row of this.rows) restorer.apply(row)
    restorer.finish(now)
    return engine
  }

  /** Fails unless the log rebuilds the engine. */
  verify(engine: Engine, now: number): void {
    const restored = this.restored(now)
    const [found, expected] = [dump(restored, now), dump(engine, now)]
    if (!same(found, expected)) {
      assert.deepStrictEqual(found, expected)
      throw new Error("the log rebuilds another engine, and no difference is seen")
    }
    restored.dispatch(now)
    assert.deepStrictEqual(check(restored), [])
    for (const session of engine.sessions) {
      const other = [...restored.sessions].find(({ id }) => id === session.id)
      assert.strictEqual(other?.leased ?? 0, session.leased, `leases of session ${session.id}`)
    }
  }
}

/** Whether two dumps say the same: arrays, bytes, plain objects and plain values. */
const same = (a: unknown, b: unknown): boolean => {
  if (a === b) return true
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false
  if (Array.isArray(a) || a instanceof Uint8Array) {
    const [left, right] = [a as ArrayLike<unknown>, b as ArrayLike<unknown>]
    if (left.length !== right.length || a.constructor !== b.constructor) return false
    for (let i = 0; i < left.length; i++) if (!same(left[i], right[i])) return false
    return true
  }
  const [left, right] = [a as Record<string, unknown>, b as Record<string, unknown>]
  let keys = 0
  for (const key in left) {
    if (!(key in right) || !same(left[key], right[key])) return false
    keys++
  }
  for (const _ in right) keys--
  return keys === 0
}

const taskOf = (engine: Engine, task: Task): unknown => {
  const { attempt, checkpoint, expired, lossesWhileStarted, n, options, payloadBytes, place, putAt, reasons } = task
  const { delayMs: _, ...kept } = options ?? {}
  const set = Object.fromEntries(Object.entries(kept).filter(([, value]) => value !== undefined))
  const lease = task.state === State.leased ? [task.holder?.id, engine.fence(task)] : undefined
  const progress = { checkpoint, entries: [...(task.entries ?? [])], suspended: task.suspended }
  const ended = { n, origin: task.origin, attempt, putAt, payloadBytes, set, reasons: reasons ?? [], ...progress }
  if (task.state === State.ended) return ended
  const about = { ...ended, place, lossesWhileStarted, releases: task.releases }
  const due = task.state === State.delayed ? task.at : undefined
  return {
    ...about,
    lease,
    due,
    expired,
    leases: task.leases
  }
}

/** The durable state of an engine, in an order that does not depend on how it came to be. */
export const dump = (engine: Engine, now: number): unknown => [objectsOf(engine), ...queuesOf(engine, now)]

/** Shared objects; a set by the fingerprints that it lists. */
const objectsOf = (engine: Engine): unknown =>
  engine.objects.all.map((object) => {
    const about = [object.kind, object.name, object.durability]
    if (object.durability === "memory") return about
    if (object.kind === "counter") return [...about, object.value, object.version]
    if (object.kind === "set") return [...about, object.size, [...object.page(undefined, 1_000).fingerprints].join()]
    return [
      ...about,
      object.version,
      object.page(0, 1_000).map(({ born, key, value, version }) => [key, value, version, born])
    ]
  })

/** Ready tasks in the order of their lane, and what is set of each lane. Whose turn it is among lanes is not kept. */
const lanesOf = ({ ready }: Queue, now: number): ReadonlyArray<unknown> => {
  const { lanes, plain } = ready.inside()
  const found: Array<readonly [string, ...Array<unknown>]> = []
  for (const lane of [plain, ...lanes.values()]) {
    const tasks: Array<number> = []
    for (let bucket = lane.first; bucket !== undefined; bucket = bucket.next) {
      for (const { n } of bucket.tasks()) tasks.push(n)
    }
    const slowedUntil = lane.slowedUntil > now ? lane.slowedUntil : 0
    const isSet = lane.paused || slowedUntil > 0 || lane.override !== undefined
    if (tasks.length > 0 || isSet) found.push([lane.key ?? "", tasks, lane.paused, slowedUntil, lane.override])
  }
  return found.sort(([a], [b]) => (a < b ? -1 : 1))
}

const queuesOf = (engine: Engine, now: number): ReadonlyArray<unknown> =>
  engine.queues.map((queue) => {
    const living: Array<Task> = []
    engine.tasks.forEach((task) => {
      if (task.queue === queue) living.push(task)
    })
    const { acknowledged, cancelled, closed, dead, definition, done, log, policy, puts } = queue
    const { dropped, paused, progressBytes, purged, redriven } = queue
    const outcomes: Array<unknown> = []
    for (let cursor = log.first; cursor < log.next; cursor++) {
      const about = [log.task(cursor), log.outcome(cursor), log.attempts(cursor), log.endedAt(cursor)]
      outcomes.push([cursor, ...about, log.bodyBytes(cursor), log.reasons(cursor) ?? []])
    }
    const known = [...queue.ids.values()].filter(({ until }) => until > now)
    const ended = known.filter(({ until }) => until !== Number.POSITIVE_INFINITY)
    // Which of those that ended in the same millisecond was dropped for the bound is not kept.
    const oldest = ended.length < policy.dedupeKept ? 0 : Math.min(...ended.map(({ until }) => until))
    const ids = known.flatMap(({ id, n, until }) => (until === oldest ? [] : [`${id} ${n} ${until}`])).sort()
    return {
      definition: { name: definition.name, policy, durability: definition.durability },
      counters: { puts, done, dead, cancelled, acknowledged, closed, paused, purged, dropped, redriven, progressBytes },
      living: living.map((task) => [task.state, taskOf(engine, task)]),
      lanes: lanesOf(queue, now),
      outcomes: { next: log.next, outcomes },
      ids,
      letters: queue.deadLetters.all().map(({ cursor, diedAt, task }) => [cursor, diedAt, taskOf(engine, task)]),
      repeats: engine.repeats
        .of(queue)
        .map(({ definition, nextAt, occurrences, task }) => {
          return [definition.id, definition.everyMs, definition.cron, nextAt, occurrences, task].join()
        })
        .sort()
    }
  })
