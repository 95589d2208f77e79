/**
 * The queue of design §8, written naively: arrays of tasks, searched and sorted for every question.
 *
 * Whose turn it is among open lanes of one priority is left to the engine, and to the lanes' own test: here each grant is
 * one that may be, the first of an open lane that no more urgent one goes before.
 *
 * No heaps, no links, no counters. It answers what the engine answers, so that both can be driven side by side.
 */
import * as Limits from "../../../src/Limits.ts"

export type Answer =
  | { readonly _tag: "Done" }
  | { readonly _tag: "Refused"; readonly why: string }
  | { readonly _tag: "Put"; readonly items: ReadonlyArray<string> }
  | { readonly _tag: "Leased"; readonly tasks: ReadonlyArray<string> }
  | { readonly _tag: "Items"; readonly items: ReadonlyArray<string> }
  | { readonly _tag: "Outcome"; readonly text: string }
  | { readonly _tag: "Repeats"; readonly repeats: ReadonlyArray<string> }
  | { readonly _tag: "Counted"; readonly count: number }
  | { readonly _tag: "Redriven"; readonly pairs: ReadonlyArray<number> }
  | { readonly _tag: "Object"; readonly text: string }

export interface Item {
  readonly bytes: number
  readonly id?: string
  readonly priority?: number
  readonly delayMs?: number
  readonly ttlMs?: number
  readonly key?: string
  readonly labels?: ReadonlyArray<string>
}

export interface Wanted {
  readonly key?: string | undefined
  readonly label?: string | undefined
  readonly id?: string | undefined
  readonly priorityMin?: number | undefined
  readonly priorityMax?: number | undefined
}

/** Writes to shared objects: set 0, dict 1, counter 2, and counter 3, which alone is stored. */
export interface RefEffects {
  readonly puts: ReadonlyArray<{ readonly queue: number; readonly item: Item; readonly ifNew?: number }>
  readonly sets: ReadonlyArray<{ readonly object: number; readonly key: number }>
  readonly counts: ReadonlyArray<{ readonly object: number; readonly by: number }>
  readonly writes: ReadonlyArray<RefWrite & { readonly object: number }>
}
export interface RefWrite {
  readonly key: string
  readonly value: number | undefined
  readonly expected: number | undefined
}

export interface QueuePolicy {
  readonly capacity: number
  readonly tasksMax: number
  readonly leaseMs: number
  readonly maxAttempts: number
  readonly backoffBaseMs: number
  readonly backoffFactor: number
  readonly backoffCapMs: number
  readonly payloadBytesMax: number
  readonly outcomesKept: number
  readonly outcomesKeptMs: number
  readonly dedupeKept: number
  readonly dedupeKeptMs: number
  readonly capacityBytes: number
  readonly overflow: number
  readonly laneConcurrency: number
  readonly laneRatePerMinute: number
  readonly laneBurst: number
  readonly laneGapMs: number
}

export type RefState =
  | "ready"
  | "delayed"
  | "leased"
  | "success"
  | "failure"
  | "dead"
  | "cancelled"
  | "acknowledged"
  | "purged"

export interface RefTask {
  readonly n: number
  readonly queue: number
  readonly item: Item
  readonly expiresAt: number
  state: RefState
  place: number
  attempt: number
  leases: number
  losses: number
  started: boolean
  holder: number
  /** Rises with every lease and renewal: those of one deadline end in this order. */
  renewed: number
  at: number
  reasons: Array<number>
  /** Bytes of its checkpoint. */
  checkpoint: number | undefined
  /** Steps and signals, in the order of recording. */
  entries: Array<RefEntry>
  suspended: boolean
  progress: number | undefined
  /** Whether its dead letter was put again. */
  redriven: boolean
}

export interface RefEntry {
  readonly name: string
  readonly value: number
}

interface Wait {
  readonly kind: "put" | "lease" | "join" | "outcome"
  readonly session: number
  readonly request: number
  readonly until: number
  readonly count: number
  readonly items: ReadonlyArray<Item>
  readonly atomic: boolean
  readonly entered: Array<string>
}

interface Stream {
  readonly id: number
  readonly session: number
  credit: number
  cursor: number
}

interface RefRepeat {
  readonly id: string
  every: number
  bytes: number
  next: number
  task: number
  occurrences: number
}

interface RefLane {
  readonly key: string
  /** When it was granted something, ever. */
  readonly grants: Array<number>
  paused: boolean
  slowedUntil: number
}

interface RefQueue {
  lanes: Array<RefLane>
  readonly id: number
  /** Its tasks that are ready, delayed or leased, in put order. */
  living: Array<RefTask>
  repeats: Array<RefRepeat>
  readonly policy: QueuePolicy
  closed: "open" | "drain" | "immediate"
  paused: boolean
  dropped: number
  waits: Array<Wait>
  leaseStreams: Array<Stream>
  outcomeStreams: Array<Stream>
  /** All outcomes ever; those before `kept` are forgotten. */
  readonly log: Array<{ readonly task: RefTask; readonly at: number }>
  kept: number
  /** Dedupe ids of ended tasks, oldest first. */
  retired: Array<{ readonly id: string; readonly n: number; readonly at: number }>
  duplicates: number
  refused: number
}

/** The engine's choice of stream for a task, to be checked and followed. */
export interface Grant {
  readonly stream: number
  readonly text: string
}

export class Mismatch extends Error {}

/** Of two ends in one millisecond the engine's own order decides what follows: the run is over, and nothing is wrong. */
export class Ambiguous extends Error {}

/** All queues are stored; counter 3 is not. */
const mixed = ({ counts }: RefEffects): boolean => counts.some(({ object }) => object === 3)

const none: Readonly<Record<RefState, number>> = {
  ready: 0,
  delayed: 0,
  leased: 0,
  success: 0,
  failure: 0,
  dead: 0,
  cancelled: 0,
  acknowledged: 0,
  purged: 0
}

const reasons = { leaseLost: 3, quarantined: 4, expired: 5, dropped: 6 }

export class Reference {
  /** All tasks ever: task n has index n - 1. */
  readonly tasks: Array<RefTask> = []
  readonly queues: Array<RefQueue>
  readonly congested = new Set<number>()
  answers = new Map<number, Answer>()
  /**
   * What the engine has granted, queue by queue and in its order: whose turn it was among lanes is its own. Each grant is
   * held against what may be granted, and taken out.
   */
  chosen: ReadonlyMap<number, Array<number>> = new Map()
  readonly kinds = ["set", "dict", "counter", "counter"]
  readonly set = new Set<number>()
  readonly dict = new Map<string, { readonly value: number; readonly version: number }>()
  dictVersion = 0
  readonly counters = [0, 0, 0, 0]
  #nextTask = 1
  #renewals = 0

  constructor(policies: ReadonlyArray<QueuePolicy>) {
    this.queues = policies.map((policy, id) => ({
      id,
      lanes: [],
      living: [],
      repeats: [],
      policy,
      closed: "open",
      paused: false,
      dropped: 0,
      waits: [],
      leaseStreams: [],
      outcomeStreams: [],
      log: [],
      kept: 0,
      retired: [],
      duplicates: 0,
      refused: 0
    }))
  }

  // ---- what can be asked

  task(n: number): RefTask | undefined {
    return this.tasks[n - 1]
  }

  of(queue: number, ...states: ReadonlyArray<RefState>): Array<RefTask> {
    return this.queues[queue]!.living.filter((task) => states.includes(task.state))
  }

  ready(queue: number): Array<RefTask> {
    return this.of(queue, "ready").sort((a, b) => priorityOf(a) - priorityOf(b) || a.place - b.place || a.n - b.n)
  }

  /** The ready tasks whose lanes are open. */
  open(queueId: number, now: number): Array<RefTask> {
    return this.ready(queueId).filter(({ item }) => this.#isOpen(this.queues[queueId]!, item.key, now))
  }

  /** What may be granted next: the first tasks of those open lanes that have one of the lowest priority number. */
  next(queueId: number, now: number): Array<RefTask> {
    const queue = this.queues[queueId]!
    const seen = new Set<string | undefined>()
    const found: Array<RefTask> = []
    for (const task of this.ready(queueId)) {
      if (found.length > 0 && priorityOf(task) > priorityOf(found[0]!)) break
      const { key } = task.item
      if (seen.has(key)) continue
      seen.add(key)
      if (this.#isOpen(queue, key, now)) found.push(task)
    }
    return found
  }

  #isOpen(queue: RefQueue, key: string | undefined, now: number): boolean {
    if (key === undefined) return true
    const lane = this.#lane(queue, key)
    return !this.#blocked(queue, lane) && this.#opensAt(queue, lane) <= now
  }

  #lane(queue: RefQueue, key: string): RefLane {
    const known = queue.lanes.find((lane) => lane.key === key)
    if (known !== undefined) return known
    const lane: RefLane = { key, grants: [], paused: false, slowedUntil: 0 }
    queue.lanes.push(lane)
    return lane
  }

  /** Until something happens. */
  #blocked({ living, policy }: RefQueue, { key, paused }: RefLane): boolean {
    const { laneConcurrency } = policy
    if (paused || laneConcurrency === 0) return paused
    return living.filter(({ item, state }) => state === "leased" && item.key === key).length >= laneConcurrency
  }

  /** When time lets the lane be granted something: all its grants are gone through again. */
  #opensAt({ policy }: RefQueue, { grants, slowedUntil }: RefLane): number {
    const { laneBurst, laneGapMs, laneRatePerMinute } = policy
    let at = slowedUntil
    if (laneGapMs > 0 && grants.length > 0) at = Math.max(at, grants.at(-1)! + laneGapMs)
    if (laneRatePerMinute === 0 || grants.length === 0) return at
    // A bucket counts in 60,000ths of a task: at r a minute, r of them flow in per millisecond.
    const full = Math.max(1, laneBurst) * 60_000
    let level = full
    let since = grants[0]!
    for (const grant of grants) {
      level = Math.min(full, level + (grant - since) * laneRatePerMinute) - 60_000
      since = grant
    }
    return level >= 60_000 ? at : Math.max(at, since + Math.ceil((60_000 - level) / laneRatePerMinute))
  }

  /** How many tasks stand where, queue by queue. */
  counts(): ReadonlyArray<Readonly<Record<RefState, number>>> {
    const counts = this.queues.map(() => ({ ...none }))
    for (const { queue, state } of this.tasks) counts[queue]![state]++
    return counts
  }

  leases(session: number): Array<RefTask> {
    const held: Array<RefTask> = []
    for (const { living } of this.queues) {
      for (const task of living) if (task.state === "leased" && task.holder === session) held.push(task)
    }
    return held.sort((a, b) => a.n - b.n)
  }

  nextDeadline(now: number): number {
    let next = Number.POSITIVE_INFINITY
    for (const queue of this.queues) {
      for (const { key } of queue.living.filter(({ state }) => state === "ready").map(({ item }) => item)) {
        if (key === undefined) continue
        const lane = this.#lane(queue, key)
        const at = this.#opensAt(queue, lane)
        if (at > now && at < next && !this.#blocked(queue, lane)) next = at
      }
      for (const { at, expiresAt, state } of queue.living) {
        if (state !== "leased" && expiresAt < next) next = expiresAt
        if (state !== "ready" && at < next) next = at
      }
      for (const { until } of queue.waits) if (until < next) next = until
      for (const repeat of queue.repeats) if (!this.#runs(repeat)) next = Math.min(next, repeat.next)
      if (queue.kept < queue.log.length) next = Math.min(next, queue.log[queue.kept]!.at + queue.policy.outcomesKeptMs)
    }
    return next
  }

  // ---- commands

  put(
    session: number,
    request: number,
    queueId: number,
    atomic: boolean,
    waitMs: number | undefined,
    items: ReadonlyArray<Item>,
    now: number
  ): void {
    const queue = this.queues[queueId]
    if (queue === undefined) return this.#refuse(request, "queueNotFound")
    if (queue.closed !== "open") return this.#refuse(request, "closed")
    const { capacity, capacityBytes, payloadBytesMax } = queue.policy
    const bytesMax = capacityBytes > 0 ? Math.min(payloadBytesMax, capacityBytes) : payloadBytesMax
    if (items.some(({ bytes }) => bytes > bytesMax)) return this.#refuse(request, "payloadTooLarge")
    const fresh = items.filter(({ id }) => this.#known(queue, id, now) === undefined)
    const tooMany = fresh.length > capacity || (capacityBytes > 0 && bytesOf(fresh) > capacityBytes)
    if (atomic && tooMany) return this.#refuse(request, "full")
    const wait: Wait = {
      kind: "put",
      session,
      request,
      until: waitMs === undefined ? Number.POSITIVE_INFINITY : now + waitMs,
      count: 0,
      items,
      atomic,
      entered: []
    }
    // Who waits for room goes first; who does not wait takes what room there is.
    const first = !queue.waits.some(({ kind }) => kind === "put")
    if (waitMs === 0 || first) this.#enter(queue, wait, now)
    // A batch above the capacity may never fit once its ids are forgotten: it does not wait.
    const noWait = waitMs === 0 || (atomic && items.length > queue.policy.capacity)
    if (noWait || wait.entered.length === items.length) return this.#answerPut(queue, wait)
    queue.waits.push(wait)
  }

  lease(
    session: number,
    request: number,
    queueId: number,
    count: number,
    waitMs: number | undefined,
    now: number
  ): void {
    const queue = this.queues[queueId]
    if (queue === undefined) return this.#refuse(request, "queueNotFound")
    const first = !queue.waits.some(({ kind }) => kind === "lease")
    const gives = !queue.paused && queue.closed !== "immediate"
    if (gives && this.next(queueId, now).length > 0 && (waitMs === 0 || first)) {
      return this.#hand(queue, session, request, count, now)
    }
    if (queue.closed === "immediate") return this.#refuse(request, "closed")
    if (queue.closed !== "open" && queue.living.length === 0) {
      return this.#refuse(request, "closed")
    }
    if (waitMs === 0) return this.#refuse(request, "empty")
    this.#wait(queue, "lease", session, request, waitMs, count, now)
  }

  commit(
    session: number,
    request: number,
    items: ReadonlyArray<{ readonly n: number; readonly fence: number; readonly effects: RefEffects }>,
    together: boolean,
    now: number
  ): void {
    if (together) {
      // Sums over all items; every other condition looks at what was there before the first.
      const sums = [...this.counters]
      const tasks: Array<RefTask> = []
      for (const { effects, fence, n } of items) {
        const task = this.#held(session, n, fence)
        if (typeof task === "string") return this.#refuse(request, task)
        if (tasks.includes(task)) return this.#refuse(request, "alreadyEnded")
        const why = this.#fault(effects, sums)
        if (why !== undefined) return this.#refuse(request, why)
        tasks.push(task)
      }
      if (items.some(({ effects }) => mixed(effects))) return this.#refuse(request, "durabilityMixed")
      for (const [i, { effects }] of items.entries()) this.#bring(tasks[i]!, effects, now)
      return this.#answer(request, { _tag: "Done" })
    }
    const codes = items.map(({ effects, fence, n }) => {
      const task = this.#held(session, n, fence)
      if (typeof task === "string") return task
      const why = this.#fault(effects, [...this.counters]) ?? (mixed(effects) ? "durabilityMixed" : undefined)
      if (why !== undefined) return why
      this.#bring(task, effects, now)
      return "ok"
    })
    this.#answerItems(request, codes)
  }

  #fault({ counts, puts, sets, writes }: RefEffects, sums: Array<number>): string | undefined {
    for (const { item, queue } of puts) {
      const other = this.queues[queue]
      if (other === undefined) return "queueNotFound"
      if (item.bytes > other.policy.payloadBytesMax) return "payloadTooLarge"
    }
    for (const { object } of sets) if (this.#wrong(object, "set")) return this.#wrong(object, "set")
    for (const { by, object } of counts) {
      if (this.#wrong(object, "counter")) return this.#wrong(object, "counter")
      sums[object] = sums[object]! + by
      if (!Number.isSafeInteger(sums[object])) return "counterOverflow"
    }
    for (const { expected, key, object } of writes) {
      if (this.#wrong(object, "dict")) return this.#wrong(object, "dict")
      if (expected !== undefined && expected !== (this.dict.get(key)?.version ?? 0)) return "conflict"
    }
    return undefined
  }

  #bring(task: RefTask, { counts, puts, sets, writes }: RefEffects, now: number): void {
    const isNew = sets.map(({ key }) => this.#add(key))
    for (const { by, object } of counts) this.counters[object]! += by
    for (const write of writes) this.#write(write)
    // Children always enter, whatever the capacity and whether the queue is closed.
    for (const { ifNew, item, queue } of puts) {
      if (ifNew === undefined || isNew[ifNew]) this.#accept(this.queues[queue]!, item, now)
    }
    this.#end(task, "success", now)
  }

  #wrong(object: number, kind: string): string | undefined {
    const is = this.kinds[object]
    return is === undefined ? "objectNotFound" : is === kind ? undefined : "objectKindMismatch"
  }

  #add(key: number): boolean {
    const isNew = !this.set.has(key)
    this.set.add(key)
    return isNew
  }

  #write({ key, value }: RefWrite): number {
    if (value === undefined) return this.dict.delete(key) ? ++this.dictVersion : 0
    this.dict.set(key, { value, version: ++this.dictVersion })
    return this.dictVersion
  }

  // ---- shared objects

  setKeys(request: number, object: number, action: number, keys: ReadonlyArray<number>): void {
    const wrong = this.#wrong(object, "set")
    if (wrong !== undefined) return this.#refuse(request, wrong)
    const bits = keys.map((key) =>
      (action === 0 ? this.#add(key) : action === 1 ? this.set.has(key) : this.set.delete(key)) ? 1 : 0
    )
    this.#answer(request, { _tag: "Object", text: `bits ${bits.join("")}` })
  }

  count(request: number, object: number, by: number): void {
    const why = this.#fault({ puts: [], sets: [], counts: [{ object, by }], writes: [] }, [...this.counters])
    if (why !== undefined) return this.#refuse(request, why)
    this.counters[object]! += by
    this.#answer(request, { _tag: "Object", text: `counted true ${this.counters[object]}` })
  }

  countSet(request: number, object: number, expected: number | undefined, value: number): void {
    const wrong = this.#wrong(object, "counter")
    if (wrong !== undefined) return this.#refuse(request, wrong)
    const done = expected === undefined || expected === this.counters[object]
    if (done) this.counters[object] = value
    this.#answer(request, { _tag: "Object", text: `counted ${done} ${this.counters[object]}` })
  }

  dictGet(request: number, object: number, keys: ReadonlyArray<string>): void {
    const wrong = this.#wrong(object, "dict")
    if (wrong !== undefined) return this.#refuse(request, wrong)
    const entries = keys.map((key) => this.dict.get(key))
    const text = entries.map((entry) => (entry ? `${entry.value}@${entry.version}` : "-")).join()
    this.#answer(request, { _tag: "Object", text: `entries ${text}` })
  }

  dictWrite(request: number, object: number, writes: ReadonlyArray<RefWrite>): void {
    const wrong = this.#wrong(object, "dict")
    if (wrong !== undefined) return this.#refuse(request, wrong)
    const effects = { puts: [], sets: [], counts: [], writes: writes.map((write) => ({ ...write, object })) }
    const why = this.#fault(effects, [])
    if (why !== undefined) return this.#refuse(request, why)
    const versions = writes.map((write) => this.#write(write))
    this.#answer(request, { _tag: "Object", text: `written ${versions.join()}` })
  }

  list(request: number, object: number): void {
    const kind = this.kinds[object]
    if (kind === "set") {
      const keys = [...this.set].map(String).sort().join()
      return this.#answer(request, { _tag: "Object", text: `keys ${keys}` })
    }
    if (kind === "dict") return this.#answer(request, { _tag: "Object", text: `pairs ${[...this.dict.keys()].join()}` })
    this.#refuse(request, kind === undefined ? "objectNotFound" : "objectKindMismatch")
  }

  release(session: number, request: number, held: ReadonlyArray<readonly [number, number]>, now: number): void {
    const codes = held.map(([n, fence]) => {
      const task = this.#held(session, n, fence)
      if (typeof task === "string") return task
      this.#giveBack(task, now)
      return "ok"
    })
    this.#answerItems(request, codes)
  }

  fail(
    session: number,
    request: number,
    items: ReadonlyArray<{
      readonly n: number
      readonly fence: number
      readonly reason: number
      readonly final: boolean
      readonly typed: boolean
      readonly retryAfterMs: number | undefined
      readonly slowDownMs: number | undefined
    }>,
    now: number
  ): void {
    const codes = items.map(({ fence, final, n, reason, retryAfterMs, slowDownMs, typed }) => {
      const task = this.#held(session, n, fence)
      if (typeof task === "string") return task
      const { policy } = this.queues[task.queue]!
      task.reasons.push(reason)
      if (slowDownMs !== undefined) this.#slowDown(this.queues[task.queue]!, task.item.key, now + slowDownMs)
      if (final || task.attempt >= policy.maxAttempts) {
        this.#end(task, typed ? "failure" : "dead", now)
        return "ok"
      }
      const grown = policy.backoffBaseMs * policy.backoffFactor ** (task.attempt - 1)
      const wait = retryAfterMs ?? Math.min(policy.backoffCapMs, Math.round(grown))
      if (task.expiresAt <= now) return this.#expire(task, now)
      if (this.queues[task.queue]!.closed === "immediate") {
        this.#end(task, "cancelled", now)
        return "ok"
      }
      task.state = "delayed"
      task.at = now + wait
      // A back-off does not keep the task's place: it goes behind all that was put before.
      task.place = this.#nextTask
      return "ok"
    })
    this.#answerItems(request, codes)
  }

  renew(session: number, request: number, held: ReadonlyArray<readonly [number, number]>, now: number): void {
    const codes = held.map(([n, fence]) => {
      const task = this.#held(session, n, fence)
      if (typeof task === "string") return task
      this.#extend(task, now)
      return "ok"
    })
    this.#answerItems(request, codes)
  }

  started(session: number, held: ReadonlyArray<readonly [number, number]>): void {
    for (const [n, fence] of held) {
      const task = this.#held(session, n, fence)
      if (typeof task !== "string") task.started = true
    }
  }

  heartbeat(session: number, held: ReadonlyArray<readonly [number, number]>, now: number): ReadonlyArray<number> {
    return held.flatMap(([n, fence]) => {
      const task = this.#held(session, n, fence)
      // Lost, and leased to the same session again: it has a lease of that number.
      if (typeof task === "string") return this.leases(session).some((leased) => leased.n === n) ? [] : [n]
      this.#extend(task, now)
      return []
    })
  }

  acknowledge(session: number, held: ReadonlyArray<readonly [number, number]>, now: number): void {
    for (const [n, fence] of held) {
      const task = this.#held(session, n, fence)
      if (typeof task === "string") continue
      this.#over(task, "acknowledged")
      this.#retire(task, now)
      // It will have no outcome: who waits for one learns that.
      this.#answerWaits(task, () => ({ _tag: "Refused", why: "taskNotFound" }))
    }
  }

  outcome(session: number, request: number, queueId: number, n: number, waitMs: number | undefined, now: number): void {
    const queue = this.queues[queueId]
    if (queue === undefined) return this.#refuse(request, "queueNotFound")
    const at = queue.log.findIndex(({ task }) => task.n === n)
    if (at >= queue.kept) return this.#answer(request, this.#outcomeOf(queue.log[at]!.task))
    const task = queue.living.find((task) => task.n === n)
    if (task === undefined) return this.#refuse(request, "taskNotFound")
    if (waitMs === 0) return this.#refuse(request, "timedOut")
    this.#wait(queue, "outcome", session, request, waitMs, n, now)
  }

  join(session: number, request: number, queueId: number, waitMs: number | undefined, now: number): void {
    const queue = this.queues[queueId]
    if (queue === undefined) return this.#refuse(request, "queueNotFound")
    if (queue.living.length === 0) return this.#answer(request, { _tag: "Done" })
    if (waitMs === 0) return this.#refuse(request, "timedOut")
    this.#wait(queue, "join", session, request, waitMs, 0, now)
  }

  close(request: number, queueId: number, mode: "drain" | "immediate", now: number): void {
    const queue = this.queues[queueId]
    if (queue === undefined) return this.#refuse(request, "queueNotFound")
    if (queue.closed !== "immediate") queue.closed = mode
    queue.repeats = []
    if (mode === "immediate") {
      for (const task of this.of(queueId, "ready", "delayed")) this.#end(task, "cancelled", now)
      for (const wait of queue.waits.filter(({ kind }) => kind === "lease")) {
        this.#unwait(queue, wait)
        this.#refuse(wait.request, "closed")
      }
    }
    for (const wait of queue.waits.filter(({ kind }) => kind === "put")) {
      this.#unwait(queue, wait)
      this.#answerPut(queue, wait)
    }
    this.#answer(request, { _tag: "Done" })
  }

  repeat(request: number, queueId: number, id: string, every: number, bytes: number, now: number): void {
    const queue = this.queues[queueId]
    if (queue === undefined) return this.#refuse(request, "queueNotFound")
    if (queue.closed !== "open") return this.#refuse(request, "closed")
    if (bytes > queue.policy.payloadBytesMax) return this.#refuse(request, "payloadTooLarge")
    if (every < 1_000) return this.#refuse(request, "definitionInvalid")
    let repeat = queue.repeats.find((known) => known.id === id)
    if (repeat === undefined) {
      repeat = { id, every: 0, bytes, next: 0, task: 0, occurrences: 0 }
      queue.repeats.push(repeat)
    }
    if (repeat.every !== every) repeat.next = now + every
    repeat.every = every
    repeat.bytes = bytes
    this.#answer(request, { _tag: "Repeats", repeats: [this.#repeatText(repeat)] })
  }

  removeRepeat(request: number, queueId: number, id: string): void {
    const queue = this.queues[queueId]
    if (queue === undefined) return this.#refuse(request, "queueNotFound")
    const removed = queue.repeats.filter((repeat) => repeat.id === id)
    queue.repeats = queue.repeats.filter((repeat) => repeat.id !== id)
    this.#answer(request, { _tag: "Repeats", repeats: removed.map((repeat) => this.#repeatText(repeat)) })
  }

  repeats(request: number, queueId: number): void {
    const queue = this.queues[queueId]
    if (queue === undefined) return this.#refuse(request, "queueNotFound")
    this.#answer(request, { _tag: "Repeats", repeats: queue.repeats.map((repeat) => this.#repeatText(repeat)) })
  }

  /** Whether its occurrence has not ended. */
  #runs(repeat: RefRepeat): boolean {
    const state = this.task(repeat.task)?.state
    return state === "ready" || state === "delayed" || state === "leased"
  }

  #repeatText(repeat: RefRepeat): string {
    const task = this.#runs(repeat) ? repeat.task : 0
    return `${repeat.id} every ${repeat.every} next ${repeat.next} task ${task} after ${repeat.occurrences}`
  }

  pause(request: number, queueId: number, paused: boolean): void {
    const queue = this.queues[queueId]
    if (queue === undefined) return this.#refuse(request, "queueNotFound")
    queue.paused = paused
    this.#answer(request, { _tag: "Done" })
  }

  lane(
    request: number,
    queueId: number,
    key: string,
    change: "pause" | "resume" | "slowDown",
    forMs: number,
    now: number
  ): void {
    const queue = this.queues[queueId]
    if (queue === undefined) return this.#refuse(request, "queueNotFound")
    if (change === "slowDown") this.#slowDown(queue, key, now + forMs)
    else this.#lane(queue, key).paused = change === "pause"
    this.#answer(request, { _tag: "Done" })
  }

  #slowDown(queue: RefQueue, key: string | undefined, until: number): void {
    if (key === undefined) return
    const lane = this.#lane(queue, key)
    lane.slowedUntil = Math.max(lane.slowedUntil, until)
  }

  /** Returns whose handlers must stop. */
  cancel(request: number, queueId: number, numbers: ReadonlyArray<number>, now: number): ReadonlyArray<string> {
    const queue = this.queues[queueId]
    if (queue === undefined) {
      this.#refuse(request, "queueNotFound")
      return []
    }
    const stops: Array<string> = []
    const items = numbers.map((n) => {
      const standing = this.#standing(queue, n)
      const task = queue.living.find((task) => task.n === n)
      if (task === undefined) return standing
      if (task.state === "leased") stops.push(`${task.holder}:${n}`)
      this.#end(task, "cancelled", now)
      return standing
    })
    this.#answer(request, { _tag: "Items", items })
    return stops
  }

  purge(request: number, queueId: number, wanted: Wanted, now: number): void {
    const queue = this.queues[queueId]
    if (queue === undefined) return this.#refuse(request, "queueNotFound")
    const tasks = this.of(queueId, "ready", "delayed").filter((task) => isWanted(task, wanted))
    for (const task of tasks) {
      this.#over(task, "purged")
      this.#retire(task, now)
      this.#answerWaits(task, () => ({ _tag: "Refused", why: "taskNotFound" }))
    }
    this.#answer(request, { _tag: "Counted", count: tasks.length })
  }

  letters(queueId: number): ReadonlyArray<RefTask> {
    return this.queues[queueId]!.log.map(({ task }) => task).filter(
      (task) => (task.state === "dead" || task.state === "failure") && !task.redriven
    )
  }

  /** Redrives these, or with `order` all that are wanted, in this order: who died in one millisecond has no order here. */
  redrive(
    request: number,
    queueId: number,
    numbers: ReadonlyArray<number> | undefined,
    wanted: Wanted,
    order: ReadonlyArray<number>,
    now: number
  ): void {
    const queue = this.queues[queueId]
    if (queue === undefined) return this.#refuse(request, "queueNotFound")
    if (queue.closed === "immediate") return this.#refuse(request, "closed")
    if (numbers === undefined) {
      const all = this.letters(queueId).filter((task) => isWanted(task, wanted))
      const missing = all.filter(({ n }) => !order.includes(n)).map(({ n }) => n)
      if (missing.length > 0 || order.length !== all.length) throw new Mismatch(`redriven ${order}, not ${missing}`)
    }
    const pairs = (numbers ?? order).flatMap((n) => {
      const letter = this.letters(queueId).find((task) => task.n === n)
      if (letter === undefined) return [n, 0]
      letter.redriven = true
      const { delayMs: _, id: __, ...item } = letter.item
      const task = this.#make(queue, item, now)
      task.checkpoint = letter.checkpoint
      task.entries = [...letter.entries]
      return [n, task.n]
    })
    this.#answer(request, { _tag: "Redriven", pairs })
  }

  checkpoint(
    session: number,
    request: number,
    items: ReadonlyArray<{ readonly n: number; readonly fence: number; readonly bytes: number }>
  ): void {
    const codes = items.map(({ bytes, fence, n }) => {
      const task = this.#held(session, n, fence)
      if (typeof task === "string") return task
      task.checkpoint = bytes
      return "ok"
    })
    this.#answerItems(request, codes)
  }

  step(
    session: number,
    request: number,
    items: ReadonlyArray<RefEntry & { readonly n: number; readonly fence: number }>
  ): void {
    const codes = items.map(({ fence, n, name, value }) => {
      const task = this.#held(session, n, fence)
      if (typeof task === "string") return task
      this.#record(task, name, value)
      return "ok"
    })
    this.#answerItems(request, codes)
  }

  suspend(
    session: number,
    request: number,
    items: ReadonlyArray<{
      readonly n: number
      readonly fence: number
      readonly forMs: number | undefined
      readonly seen: number
    }>,
    now: number
  ): void {
    const codes = items.map(({ fence, forMs, n, seen }) => {
      const task = this.#held(session, n, fence)
      if (typeof task === "string") return task
      task.attempt--
      if (task.expiresAt <= now) return this.#expire(task, now)
      if (this.queues[task.queue]!.closed === "immediate") {
        this.#end(task, "cancelled", now)
        return "ok"
      }
      task.state = "delayed"
      task.suspended = true
      task.losses = 0
      task.at = task.entries.length > seen ? now : now + Math.max(Limits.suspendMsMin, forMs ?? Limits.delayMsMax)
      return "ok"
    })
    this.#answerItems(request, codes)
  }

  signal(request: number, queueId: number, about: number | string, name: string, value: number, now: number): void {
    const queue = this.queues[queueId]
    if (queue === undefined) return this.#refuse(request, "queueNotFound")
    const n = typeof about === "number" ? about : (this.#known(queue, about, now) ?? 0)
    const task = queue.living.find((task) => task.n === n)
    if (task === undefined) {
      const ended = this.#standing(queue, n) !== "gone"
      return this.#refuse(request, ended ? "alreadyEnded" : "taskNotFound")
    }
    this.#record(task, name, value)
    if (task.suspended) this.#backToReady(task, now)
    this.#answer(request, { _tag: "Done" })
  }

  /** The task of this dedupe id, and where it stands. */
  find(queueId: number, id: string, now: number): string {
    const queue = this.queues[queueId]!
    const n = this.#known(queue, id, now)
    return n === undefined ? "nobody" : `${n} ${this.#standing(queue, n)}`
  }

  report(
    session: number,
    items: ReadonlyArray<{
      readonly n: number
      readonly fence: number
      readonly progress: number | undefined
      readonly checkpoint: number | undefined
    }>
  ): void {
    for (const { checkpoint, fence, n, progress } of items) {
      const task = this.#held(session, n, fence)
      if (typeof task === "string") continue
      task.progress = progress ?? task.progress
      task.checkpoint = checkpoint ?? task.checkpoint
    }
  }

  /** The first one of a name stays. */
  #record(task: RefTask, name: string, value: number): void {
    if (task.entries.every((entry) => entry.name !== name)) task.entries.push({ name, value })
  }

  /** Living tasks in put order, or dead letters, that are wanted. */
  browse(queueId: number, state: RefState | undefined, wanted: Wanted): ReadonlyArray<number> {
    const tasks =
      state === "dead"
        ? this.letters(queueId)
        : this.queues[queueId]!.living.filter((task) => state === undefined || task.state === state)
    return tasks.filter((task) => isWanted(task, wanted)).map(({ n }) => n)
  }

  #standing(queue: RefQueue, n: number): string {
    const task = this.task(n)
    if (task === undefined || task.queue !== queue.id || task.state === "acknowledged" || task.state === "purged")
      return "gone"
    if (task.state === "ready" || task.state === "delayed" || task.state === "leased") return task.state
    return queue.log.findIndex((entry) => entry.task === task) >= queue.kept ? task.state : "gone"
  }

  subscribe(session: number, queueId: number, id: number, credit: number): void {
    this.queues[queueId]!.leaseStreams.push({ id, session, credit, cursor: 0 })
  }

  follow(session: number, queueId: number, id: number, cursor: number, credit: number): void {
    this.queues[queueId]!.outcomeStreams.push({ id, session, credit, cursor })
  }

  credit(session: number, id: number, credit: number): void {
    for (const queue of this.queues) {
      for (const stream of [...queue.leaseStreams, ...queue.outcomeStreams]) {
        if (stream.id === id && stream.session === session) stream.credit += credit
      }
    }
  }

  unsubscribe(session: number, id: number): void {
    const others = (stream: Stream): boolean => stream.id !== id || stream.session !== session
    for (const queue of this.queues) {
      queue.leaseStreams = queue.leaseStreams.filter(others)
      queue.outcomeStreams = queue.outcomeStreams.filter(others)
    }
  }

  detach(session: number, now: number): void {
    // A put that waits for room goes on waiting: its answer will be remembered.
    this.#silence(session, ({ kind }) => kind === "put")
    // Grace: one lease from the loss of the connection, queue by queue in the order of the deadlines.
    for (const task of this.leases(session).sort(byDeadline)) this.#extend(task, now)
  }

  resume(session: number, held: ReadonlyArray<readonly [number, number]>, now: number): ReadonlyArray<number> {
    this.congested.delete(session)
    const lost = [...this.heartbeat(session, held, now)]
    for (const task of this.leases(session).sort(byQueueAndDeadline)) {
      const named = held.filter(([n]) => n === task.n)
      if (named.some(([, fence]) => fence === task.leases)) continue
      if (named.length > 0) lost.push(task.n)
      this.#giveBack(task, now)
    }
    return lost
  }

  goodbye(session: number, now: number): void {
    this.#silence(session)
    for (const task of this.leases(session).sort(byQueueAndDeadline)) this.#giveBack(task, now)
    this.congested.delete(session)
  }

  // ---- time

  /** Assumes: called at every deadline. `occurrences` is the order in which the engine put those of this moment. */
  tick(now: number, occurrences: ReadonlyArray<string>): void {
    for (const queue of this.queues) this.#refuseTies(queue, now)
    for (const task of this.#due(now).sort(byDeadline)) {
      if (task.state === "leased" && task.at <= now) this.#lose(task, now)
    }
    for (const task of this.#due(now).sort((a, b) => a.n - b.n)) {
      if (task.state === "delayed" && task.at <= now) {
        task.state = "ready"
        task.suspended = false
      }
      if ((task.state === "ready" || task.state === "delayed") && task.expiresAt <= now) this.#expire(task, now)
    }
    for (const queue of this.queues) {
      for (const wait of queue.waits.some(({ until }) => until <= now) ? [...queue.waits] : []) {
        if (wait.until > now) continue
        this.#unwait(queue, wait)
        if (wait.kind === "put") this.#answerPut(queue, wait)
        else this.#refuse(wait.request, wait.kind === "lease" ? "empty" : "timedOut")
      }
    }
    this.#repeat(now, occurrences)
  }

  /** Leases end in their order. An expiry beside another end has none, nor has an end beside the time-out of who waits for it. */
  #refuseTies({ living, waits }: RefQueue, now: number): void {
    const lost = living.filter(({ at, state }) => state === "leased" && at <= now)
    const expired = living.filter(({ expiresAt, state }) => state !== "leased" && expiresAt <= now)
    const ends = [...lost, ...expired]
    const waited = waits.some(({ count, kind, until }) => {
      return kind === "outcome" && until <= now && ends.some(({ n }) => n === count)
    })
    if (waited || (expired.length > 0 && ends.length > 1)) throw new Ambiguous(`at ${now}`)
  }

  /** Living tasks for which a time has come. */
  #due(now: number): Array<RefTask> {
    return this.queues.flatMap(({ living }) => living.filter(({ at, expiresAt }) => at <= now || expiresAt <= now))
  }

  /** One occurrence for each repeat that is due and whose last one has ended; the missed ones are passed over. */
  #repeat(now: number, occurrences: ReadonlyArray<string>): void {
    const due = this.queues.flatMap((queue) =>
      queue.repeats
        .filter((repeat) => repeat.next <= now && !this.#runs(repeat))
        .map((repeat) => ({ name: `${queue.id}/${repeat.id}`, queue, repeat }))
    )
    // One that a queue spent by the others did not take comes after them.
    const place = (name: string): number => (occurrences.includes(name) ? occurrences.indexOf(name) : due.length)
    due.sort((a, b) => place(a.name) - place(b.name))
    const put: Array<string> = []
    for (const { name, queue, repeat } of due) {
      while (repeat.next <= now) repeat.next += repeat.every
      const accepted = this.#accept(queue, { bytes: repeat.bytes }, now)
      if (accepted === "0 spent") queue.repeats = queue.repeats.filter((other) => other !== repeat)
      else {
        repeat.task = this.#nextTask - 1
        repeat.occurrences++
        put.push(name)
      }
    }
    if (put.join() !== occurrences.join()) throw new Mismatch(`occurrences ${occurrences.join()}, not ${put.join()}`)
  }

  /**
   * `granted` is how the engine spread tasks over streams; what was granted, and in which order, is decided here.
   * `admitting` are the queues whose waiting puts the engine let in, in its order: it gives the tasks their numbers.
   */
  dispatch(
    now: number,
    granted: ReadonlyMap<number, ReadonlyArray<Grant>>,
    admitting: ReadonlyArray<number>
  ): ReadonlyMap<number, string> {
    const published = new Map<number, string>()
    const order = new Set([...admitting.map((id) => this.queues[id]!), ...this.queues])
    for (const queue of order) {
      const grants = [...(granted.get(queue.id) ?? [])]
      for (let changed = true; changed; ) {
        const admitted = this.#admit(queue, now)
        changed = this.#serve(queue, grants, now) || admitted
      }
      if (grants.length > 0) throw new Mismatch(`queue ${queue.id}: ${grants.length} deliveries too many`)
      for (const stream of [...queue.outcomeStreams]) {
        if (stream.credit === 0 || this.congested.has(stream.session) || stream.cursor >= queue.log.length) continue
        if (stream.cursor < queue.kept) {
          published.set(stream.id, `gap ${queue.kept}`)
          this.unsubscribe(stream.session, stream.id)
          continue
        }
        const count = Math.min(stream.credit, queue.log.length - stream.cursor)
        published.set(stream.id, `${stream.cursor}+${count}`)
        stream.cursor += count
        stream.credit -= count
      }
      this.#forget(queue, now)
      if (queue.living.length > 0) continue
      for (const wait of [...queue.waits]) {
        if (wait.kind === "join") {
          this.#unwait(queue, wait)
          this.#answer(wait.request, { _tag: "Done" })
        } else if (wait.kind === "lease" && queue.closed !== "open") {
          this.#unwait(queue, wait)
          this.#refuse(wait.request, "closed")
        }
      }
    }
    for (const [id, more] of this.chosen) {
      if (more.length > 0) throw new Mismatch(`queue ${id}: ${more.join()} should not have been granted`)
    }
    return published
  }

  // ---- inside

  #admit(queue: RefQueue, now: number): boolean {
    let any = false
    for (;;) {
      const wait = queue.waits.find(({ kind }) => kind === "put")
      if (wait === undefined) return any
      const before = wait.entered.length
      this.#enter(queue, wait, now)
      if (wait.entered.length > before) any = true
      if (wait.entered.length < wait.items.length) return any
      this.#unwait(queue, wait)
      this.#answerPut(queue, wait)
    }
  }

  #serve(queue: RefQueue, grants: Array<Grant>, now: number): boolean {
    let any = false
    if (queue.paused || queue.closed === "immediate") return false
    for (;;) {
      const wait = queue.waits.find(({ kind }) => kind === "lease")
      const open = queue.leaseStreams.filter(({ credit, session }) => credit > 0 && !this.congested.has(session))
      if (wait === undefined && open.length === 0) return any
      const next = this.next(queue.id, now)
      if (next.length === 0) return any
      any = true
      if (wait !== undefined) {
        this.#unwait(queue, wait)
        this.#hand(queue, wait.session, wait.request, wait.count, now)
        continue
      }
      const grant = grants.shift()
      if (grant === undefined) throw new Mismatch(`queue ${queue.id}: task ${next[0]!.n} should have been delivered`)
      const stream = open.find(({ id }) => id === grant.stream)
      if (stream === undefined) throw new Mismatch(`stream ${grant.stream} has no credit or takes nothing`)
      stream.credit--
      const text = this.#grant(this.#chosenOf(queue, next), stream.session, now)
      if (text !== grant.text) throw new Mismatch(`delivered ${grant.text}, expected ${text}`)
    }
  }

  #chosenOf(queue: RefQueue, next: ReadonlyArray<RefTask>): RefTask {
    const n = this.chosen.get(queue.id)?.shift()
    const task = next.find((task) => task.n === n)
    if (task !== undefined) return task
    throw new Mismatch(`queue ${queue.id}: granted ${n}, not one of ${next.map((task) => task.n).join()}`)
  }

  #grant(task: RefTask, session: number, now: number): string {
    task.state = "leased"
    task.attempt++
    task.leases++
    task.started = false
    task.progress = undefined
    task.holder = session
    const { key } = task.item
    if (key !== undefined) this.#lane(this.queues[task.queue]!, key).grants.push(now)
    this.#extend(task, now)
    const entries = task.entries.map(({ name, value }) => `,${name}=${value}`).join("")
    const checkpoint = task.checkpoint === undefined ? "" : `/${task.checkpoint}`
    return `${task.n}/${task.leases}/${task.attempt}${checkpoint}${entries}`
  }

  #hand(queue: RefQueue, session: number, request: number, count: number, now: number): void {
    const tasks: Array<string> = []
    while (tasks.length < count) {
      const next = this.next(queue.id, now)
      if (next.length === 0) break
      tasks.push(this.#grant(this.#chosenOf(queue, next), session, now))
    }
    this.#answer(request, { _tag: "Leased", tasks })
  }

  #extend(task: RefTask, now: number): void {
    task.at = now + this.queues[task.queue]!.policy.leaseMs
    task.renewed = ++this.#renewals
  }

  #giveBack(task: RefTask, now: number): void {
    task.attempt--
    this.#backToReady(task, now)
  }

  #backToReady(task: RefTask, now: number): void {
    task.suspended = false
    if (task.expiresAt <= now) this.#expire(task, now)
    else if (this.queues[task.queue]!.closed === "immediate") this.#end(task, "cancelled", now)
    else task.state = "ready"
  }

  #lose(task: RefTask, now: number): void {
    const { policy } = this.queues[task.queue]!
    if (!task.started) return this.#giveBack(task, now)
    task.reasons.push(reasons.leaseLost)
    if (++task.losses === 3) {
      task.reasons.push(reasons.quarantined)
      return void this.#end(task, "dead", now)
    }
    if (task.attempt >= policy.maxAttempts) return void this.#end(task, "dead", now)
    this.#backToReady(task, now)
  }

  #expire(task: RefTask, now: number): string {
    task.reasons.push(reasons.expired)
    this.#end(task, "dead", now)
    return "ok"
  }

  #end(task: RefTask, state: "success" | "failure" | "dead" | "cancelled", now: number): void {
    const queue = this.queues[task.queue]!
    this.#over(task, state)
    queue.log.push({ task, at: now })
    this.#retire(task, now)
    this.#answerWaits(task, () => this.#outcomeOf(task))
  }

  /** The task lives no more. */
  #over(task: RefTask, state: RefState): void {
    task.state = state
    task.suspended = false
    const { living } = this.queues[task.queue]!
    living.splice(living.indexOf(task), 1)
  }

  #answerWaits(task: RefTask, answer: () => Answer): void {
    const queue = this.queues[task.queue]!
    for (const wait of queue.waits.filter(({ count, kind }) => kind === "outcome" && count === task.n)) {
      this.#unwait(queue, wait)
      this.#answer(wait.request, answer())
    }
  }

  #outcomeOf(task: RefTask): Answer {
    return { _tag: "Outcome", text: `${task.n} ${task.state} after ${task.attempt} (${task.reasons.join(",")})` }
  }

  /** A dedupe id lives with its task and is kept after it, for a time and up to a number. */
  #retire(task: RefTask, now: number): void {
    const queue = this.queues[task.queue]!
    const { id } = task.item
    if (id === undefined) return
    queue.retired.push({ id, n: task.n, at: now })
    queue.retired = queue.retired.slice(-queue.policy.dedupeKept || queue.retired.length)
  }

  #known(queue: RefQueue, id: string | undefined, now: number): number | undefined {
    if (id === undefined) return undefined
    const alive = queue.living.find(({ item }) => item.id === id)
    return alive?.n ?? queue.retired.findLast((old) => old.id === id && old.at + queue.policy.dedupeKeptMs > now)?.n
  }

  #accept(queue: RefQueue, item: Item, now: number): string {
    const known = this.#known(queue, item.id, now)
    if (known !== undefined) {
      queue.duplicates++
      return `${known} duplicate ${this.#standing(queue, known)}`
    }
    if (this.#spent(queue, 1)) {
      queue.refused++
      return "0 spent"
    }
    return `${this.#make(queue, item, now).n} accepted`
  }

  #make(queue: RefQueue, item: Item, now: number): RefTask {
    const delayMs = item.delayMs ?? 0
    const task: RefTask = {
      n: this.#nextTask++,
      queue: queue.id,
      item,
      expiresAt: item.ttlMs === undefined ? Number.POSITIVE_INFINITY : now + item.ttlMs,
      state: delayMs > 0 ? "delayed" : "ready",
      place: this.#nextTask - 1,
      attempt: 0,
      leases: 0,
      losses: 0,
      started: false,
      holder: 0,
      renewed: 0,
      at: now + delayMs,
      reasons: [],
      checkpoint: undefined,
      entries: [],
      suspended: false,
      progress: undefined,
      redriven: false
    }
    this.tasks.push(task)
    queue.living.push(task)
    // Only children come to a queue that is closed; where what waits is cancelled, so are they.
    if (queue.closed === "immediate") this.#end(task, "cancelled", now)
    return task
  }

  #spent(queue: RefQueue, more: number): boolean {
    const puts = this.tasks.filter((task) => task.queue === queue.id).length
    return queue.policy.tasksMax > 0 && puts + more > queue.policy.tasksMax
  }

  #enter(queue: RefQueue, wait: Wait, now: number): void {
    const { capacity, capacityBytes, overflow } = queue.policy
    const fits = (more: ReadonlyArray<Item>): boolean => {
      const waiting = this.of(queue.id, "ready", "delayed").map(({ item }) => item)
      const all = [...waiting, ...more]
      return more.length === 0 || (all.length <= capacity && (capacityBytes === 0 || bytesOf(all) <= capacityBytes))
    }
    const drops = overflow === 1
    if (wait.atomic) {
      const items = wait.items.filter(({ id }) => this.#known(queue, id, now) === undefined)
      const fresh = items.length
      if (!drops && !fits(items)) return
      if (fresh > 0 && this.#spent(queue, fresh)) {
        queue.refused += wait.items.length
        return void wait.entered.push(...wait.items.map(() => "0 spent"))
      }
    }
    for (const item of wait.items.slice(wait.entered.length)) {
      if (!drops && !fits([item]) && this.#known(queue, item.id, now) === undefined) return
      wait.entered.push(this.#accept(queue, item, now))
      if (drops && wait.entered.at(-1)!.endsWith("accepted")) this.#drop(queue, now)
    }
  }

  /** The oldest of the least urgent go until what waits is within its bounds. */
  #drop(queue: RefQueue, now: number): void {
    const { capacity, capacityBytes } = queue.policy
    for (;;) {
      const waiting = this.of(queue.id, "ready", "delayed")
      const bytes = bytesOf(waiting.map(({ item }) => item))
      if (waiting.length <= capacity && (capacityBytes === 0 || bytes <= capacityBytes)) return
      const task = waiting.sort((a, b) => priorityOf(b) - priorityOf(a) || a.n - b.n)[0]!
      queue.dropped++
      task.reasons.push(reasons.dropped)
      this.#end(task, "dead", now)
    }
  }

  #answerPut(queue: RefQueue, { entered, items, request }: Wait): void {
    if (entered.length === 0 && items.length > 0)
      return this.#refuse(request, queue.closed === "open" ? "full" : "closed")
    const rest = items.slice(entered.length).map(() => (queue.closed === "open" ? "0 full" : "0 spent"))
    this.#answer(request, { _tag: "Put", items: [...entered, ...rest] })
  }

  #answerItems(request: number, items: ReadonlyArray<string>): void {
    this.#answer(request, items.every((code) => code === "ok") ? { _tag: "Done" } : { _tag: "Items", items })
  }

  #held(session: number, n: number, fence: number): RefTask | string {
    const task = this.task(n)
    if (task === undefined || task.state === "acknowledged" || task.state === "purged") return "leaseLost"
    if (task.state === "leased") return task.holder === session && task.leases === fence ? task : "leaseLost"
    if (task.state === "ready" || task.state === "delayed") return "leaseLost"
    const queue = this.queues[task.queue]!
    return queue.log.findIndex((entry) => entry.task === task) >= queue.kept ? "alreadyEnded" : "leaseLost"
  }

  #forget(queue: RefQueue, now: number): void {
    const { outcomesKept, outcomesKeptMs } = queue.policy
    while (queue.kept < queue.log.length) {
      const old = queue.log[queue.kept]!.at + outcomesKeptMs <= now
      if (!old && queue.log.length - queue.kept <= outcomesKept) return
      queue.kept++
    }
  }

  #silence(session: number, kept: (wait: Wait) => boolean = () => false): void {
    for (const queue of this.queues) {
      queue.waits = queue.waits.filter((wait) => wait.session !== session || kept(wait))
      queue.leaseStreams = queue.leaseStreams.filter((stream) => stream.session !== session)
      queue.outcomeStreams = queue.outcomeStreams.filter((stream) => stream.session !== session)
    }
  }

  #wait(
    queue: RefQueue,
    kind: Wait["kind"],
    session: number,
    request: number,
    waitMs: number | undefined,
    count: number,
    now: number
  ): void {
    const until = waitMs === undefined ? Number.POSITIVE_INFINITY : now + waitMs
    queue.waits.push({ kind, session, request, until, count, items: [], atomic: false, entered: [] })
  }

  #unwait(queue: RefQueue, wait: Wait): void {
    queue.waits = queue.waits.filter((other) => other !== wait)
  }

  #refuse(request: number, why: string): void {
    this.#answer(request, { _tag: "Refused", why })
  }

  #answer(request: number, answer: Answer): void {
    if (this.answers.has(request)) throw new Mismatch(`request ${request} is answered twice`)
    this.answers.set(request, answer)
  }
}

const bytesOf = (items: ReadonlyArray<Item>): number => items.reduce((sum, { bytes }) => sum + bytes, 0)
const isWanted = (task: RefTask, { id, key, label, priorityMax = 255, priorityMin = 0 }: Wanted): boolean =>
  (id === undefined || task.item.id === id) &&
  (key === undefined || task.item.key === key) &&
  (label === undefined || (task.item.labels ?? []).includes(label)) &&
  priorityOf(task) >= priorityMin &&
  priorityOf(task) <= priorityMax
const priorityOf = (task: RefTask): number => task.item.priority ?? 128
const byDeadline = (a: RefTask, b: RefTask): number => a.at - b.at || a.renewed - b.renewed
const byQueueAndDeadline = (a: RefTask, b: RefTask): number => a.queue - b.queue || byDeadline(a, b)
