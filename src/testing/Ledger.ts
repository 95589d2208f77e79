/**
 * The manager's own transitions, followed by an independent account of every task: who holds it under which fence until
 * when, and what may happen to it next. Judges S7 and S9 to S13 in the order in which the manager decided.
 *
 * It listens in two places: at what the engine is asked (`Asked`), to know when a lease must and must not end, and at
 * what the engine decides (`Decision`). `attach` hooks it to a core; unit tests feed it bad histories by hand.
 */
import * as Limits from "../Limits.ts"
import type { Core } from "../manager/Core.ts"
import type { Change, Engine } from "../model/Engine.ts"
import * as Invariants from "../model/Invariants.ts"
import { LaneChange } from "../model/Lanes.ts"
import type { Policy } from "../model/Policy.ts"
import type { SuspendItem } from "../model/Progress.ts"
import type { Session } from "../model/Session.ts"
import { Outcome, Task } from "../model/Task.ts"
import { type LaneDecision, LaneLedger } from "./LaneLedger.ts"
import { type Asker, equal, type ObjectDecision, ObjectLedger } from "./ObjectLedger.ts"
import { type RepeatDecision, RepeatLedger } from "./RepeatLedger.ts"
import { RoomLedger } from "./RoomLedger.ts"

export type Violated = (invariant: string, text: string) => void

/** A change of one task, as the engine reports it. Times are the engine's milliseconds. */
export interface Decision {
  readonly change: Change
  readonly task: number
  readonly queue: number
  readonly now: number
  readonly attempt: number
  readonly fence: number
  readonly holder: number
  readonly priority: number
  /** put, delayed, suspended: when it may be leased; 0 for at once. */
  readonly dueAt: number
  /** ended: the outcome, and its place in the log of the queue. */
  readonly outcome: number
  readonly cursor: number
  readonly delayMs: number
  readonly payload: Uint8Array
  readonly id: string | undefined
  /** The lane. */
  readonly key: string | undefined
  /** put: the dead letter that was put again; 0: none. */
  readonly origin: number
  /** put, checkpoint: what it has of an earlier attempt from now on. */
  readonly checkpoint: Uint8Array | undefined
  /** put, entry: its steps and signals from now on, in their order. */
  readonly entries: ReadonlyArray<Entry>
  /** How long it may wait. */
  readonly ttlMs: number | undefined
  /** ended: why its last attempt, or the task itself, came to nothing. */
  readonly reason: number | undefined
}

/** What the engine was asked: what may end a lease, or lengthen it. */
export type Cause =
  | { readonly _tag: "tick" | "dispatch" | "put" | "damaged" | "signal" | "other" }
  | {
      readonly _tag: "commit" | "release" | "fail" | "acknowledge" | "checkpoint" | "step"
      readonly session: number
      /** task, fence, task, fence, ... */
      readonly held: ReadonlyArray<number>
    }
  | {
      readonly _tag: "suspend"
      readonly session: number
      readonly held: ReadonlyArray<number>
      readonly items: ReadonlyArray<SuspendItem>
    }
  | { readonly _tag: "resume" | "goodbye" | "close"; readonly session: number; readonly held: ReadonlyArray<number> }

type Other = LaneDecision | ObjectDecision | RepeatDecision

export type Entry = readonly [name: string, value: Uint8Array]

export interface LedgerTask {
  readonly task: number
  readonly queue: number
  readonly priority: number
  readonly payload: Uint8Array
  readonly id: string | undefined
  readonly key: string | undefined
  readonly putAt: number
  readonly ttlMs: number | undefined
  checkpoint: Uint8Array | undefined
  entries: ReadonlyArray<Entry>
  /** Delayed, and a signal ends that. */
  suspended: boolean
  state: "ready" | "delayed" | "leased" | "ended" | "acknowledged" | "purged"
  /** Put again, as another task. */
  redriven: boolean
  attempt: number
  fence: number
  holder: number
  deadline: number
  dueAt: number
  started: boolean
  /** Never failed or delayed: its place is where it was put, also after a release or a lost lease. */
  fresh: boolean
  leases: number
  endedAt: number
  /** dead: why. */
  reason: number | undefined
  outcome: number
  cursor: number
}

export class Ledger {
  readonly tasks = new Map<number, LedgerTask>()
  readonly policies: Array<Policy> = []
  cause: Cause = { _tag: "other" }
  /** Leases after the first of a task: permitted duplicates. */
  duplicates = 0
  rounds = 0
  /** Whether the disk has damaged anything. */
  damage = (): boolean => false
  /** Requests that may change shared objects, as often as the engine was asked, over all lives. */
  runs = 0
  /** Which life of the manager is heard: the last one. */
  life = 0
  #violated: Violated
  /** The shared objects. */
  readonly objects = new ObjectLedger((invariant, text) => this.#say(invariant, text))
  readonly repeats = new RepeatLedger(this.tasks, over, (invariant, text) => this.#say(invariant, text))
  readonly lanes = new LaneLedger(this.policies, (invariant, text) => this.#say(invariant, text))
  readonly room = new RoomLedger(this.policies, (invariant, text) => this.#say(invariant, text))
  readonly #log: Array<Decision | Other> = []
  #lastNow = 0
  /** When leases were ended last. */
  #expiredAt = 0
  readonly #leasedBy = new Map<number, Set<LedgerTask>>()
  readonly #ready = new Map<number, Set<LedgerTask>>()
  readonly #leases = new Set<LedgerTask>()
  /** Task and fence of what each lease request was given. */
  readonly #grants = new Map<string, ReadonlyArray<readonly [task: number, fence: number]>>()
  #lastTask = 0

  constructor(violated: Violated) {
    this.#violated = violated
  }

  // ---- what the engine decided

  decided(d: Decision): void {
    this.#log.push(d)
    this.#lastNow = d.now
    this.#judge(d)
  }

  /** About something else than a task. */
  changed(d: Other): void {
    this.#log.push(d)
    this.#judgeOther(d)
  }

  #judgeOther(d: Other): void {
    if (d.what === "repeat") this.repeats.judge(d)
    else if (d.what === "lane") this.lanes.judge(d)
    else this.objects.judge(d)
  }

  /** How much was decided so far: what a commit holds, and `revert` goes back to. */
  get decisions(): number {
    return this.#log.length
  }

  /** The manager begins another life, and of what the last one decided so much was stored. */
  revert(decisions: number): void {
    this.#log.length = decisions
    for (const map of [this.tasks, this.#leasedBy, this.#ready]) map.clear()
    this.#leases.clear()
    this.objects.clear()
    this.repeats.clear()
    this.lanes.clear()
    this.room.clear()
    this.#lastTask = 0
    this.#lastNow = 0
    this.life++
    const { duplicates } = this
    const violated = this.#violated
    // Judged already.
    this.#violated = () => {}
    for (const d of this.#log) {
      if ("what" in d) this.#judgeOther(d)
      else {
        this.#lastNow = d.now
        this.#judge(d)
      }
    }
    this.#violated = violated
    this.duplicates = duplicates
  }

  /** S16, S10: what a life has loaded is what the one before it had stored, and every lease has a term before it. */
  restored(engine: Engine): void {
    let living = 0
    this.objects.restored(engine.objects)
    this.repeats.restored(engine)
    this.lanes.restored(engine)
    for (const task of this.tasks.values()) {
      const owner = engine.tasks.owner(task.task)
      if (over(task)) {
        if (owner instanceof Task) this.#say("S16", `task ${task.task} had ended and lives again`)
        continue
      }
      living++
      if (!(owner instanceof Task)) {
        this.#say("S16", `task ${task.task} was ${task.state} and is gone`)
        continue
      }
      const state = stateNames[owner.state]
      if (state !== task.state) this.#say("S16", `task ${task.task} was ${task.state} and is ${state}`)
      if (owner.attempt !== task.attempt) {
        this.#say("S16", `task ${task.task} was in attempt ${task.attempt} and is in ${owner.attempt}`)
      }
      if (owner.priority !== task.priority || owner.queue.id !== task.queue) {
        this.#say("S16", `task ${task.task} has another priority, or is on another queue`)
      }
      if (!same(owner.checkpoint, task.checkpoint)) this.#say("S16", `task ${task.task} has another checkpoint`)
      if (!sameEntries([...(owner.entries ?? [])], task.entries)) this.#say("S19", `task ${task.task} has other steps`)
      if (owner.suspended !== task.suspended) this.#say("S16", `task ${task.task} was suspended: ${task.suspended}`)
      if (state === "delayed" && owner.at !== task.dueAt) {
        this.#say("S16", `task ${task.task} was due at ${task.dueAt} and is at ${owner.at}`)
      }
      if (state !== "leased" || task.state !== "leased") continue
      if (engine.fence(owner) !== task.fence || owner.holder?.id !== task.holder) {
        this.#say("S16", `task ${task.task} is leased to another, or under another fence`)
      }
      const term = this.policies[task.queue]?.leaseMs ?? 0
      if (owner.at < this.#lastNow + term) this.#say("S10", `task ${task.task}: a restart shortened its lease`)
      task.deadline = owner.at
      task.started = owner.started
    }
    if (engine.unfinished !== living) this.#say("S16", `${living} tasks lived, and ${engine.unfinished} were loaded`)
  }

  #judge(d: Decision): void {
    const known = this.tasks.get(d.task)
    if (d.change === "put") return this.#put(d, known)
    if (known === undefined) return this.#say("S2", `task ${d.task} was ${d.change} and never put`)
    if (d.change === "checkpoint") {
      this.#mayEnd(d, known, ["checkpoint"])
      known.checkpoint = d.checkpoint
      return
    }
    if (d.change === "entry") return this.#recorded(d, known)
    if (d.change === "redriven") {
      const dead = known.state === "ended" && (known.outcome === Outcome.dead || known.outcome === Outcome.failure)
      if (!dead || known.redriven) this.#say("S8", `task ${d.task} was redriven and is no dead letter`)
      known.redriven = true
      return
    }
    if (over(known)) {
      const invariant = d.change === "ended" ? "S8" : "S7"
      return this.#say(invariant, `task ${d.task} was ${d.change} after it had ended`)
    }
    switch (d.change) {
      case "leased":
        return this.#leased(d, known)
      case "ready":
        return this.#madeReady(d, known)
      case "delayed":
        return this.#delayed(d, known)
      case "suspended":
        return this.#suspended(d, known)
      case "ended":
        return this.#ended(d, known)
      case "purged":
        if (known.state === "leased") this.#say("S6", `task ${d.task} was purged while it was leased`)
        known.endedAt = d.now
        return this.#move(known, "purged")
      case "acknowledged":
        this.#mayEnd(d, known, ["acknowledge"])
        known.endedAt = d.now
        return this.#move(known, "acknowledged")
    }
  }

  #put(d: Decision, known: LedgerTask | undefined): void {
    if (known !== undefined || d.task <= this.#lastTask) {
      this.#say("S5", `task ${d.task} was put when the last number was ${this.#lastTask}`)
    }
    this.#lastTask = Math.max(this.#lastTask, d.task)
    if (d.delayMs > 0 && d.dueAt < d.now + d.delayMs) this.#say("S13", `task ${d.task} is delayed too little`)
    if (!sameEntries(d.entries, this.tasks.get(d.origin)?.entries ?? [])) {
      this.#say("S19", `task ${d.task} has other steps than task ${d.origin}, which it comes from`)
    }
    if (!same(d.checkpoint, this.tasks.get(d.origin)?.checkpoint)) {
      this.#say("S1", `task ${d.task} has another checkpoint than task ${d.origin}, which it comes from`)
    }
    const task: LedgerTask = {
      task: d.task,
      queue: d.queue,
      priority: d.priority,
      payload: d.payload,
      id: d.id,
      key: d.key,
      putAt: d.now,
      ttlMs: d.ttlMs,
      checkpoint: d.checkpoint,
      entries: d.entries,
      suspended: false,
      state: "ended",
      redriven: false,
      attempt: 0,
      fence: 0,
      holder: 0,
      deadline: 0,
      dueAt: d.dueAt,
      started: false,
      fresh: d.dueAt === 0,
      leases: 0,
      endedAt: 0,
      reason: undefined,
      outcome: -1,
      cursor: -1
    }
    this.room.put(task, this.#byClient)
    this.tasks.set(d.task, task)
    this.#move(task, d.dueAt === 0 ? "ready" : "delayed")
  }

  /** A client's put, at once or as soon as there is room. */
  get #byClient(): boolean {
    return this.cause._tag === "put" || this.cause._tag === "dispatch"
  }

  #leased(d: Decision, task: LedgerTask): void {
    if (task.state === "leased") this.#say("S10", `task ${d.task} is leased to two at a time`)
    else if (task.state !== "ready") this.#say("S13", `task ${d.task} was leased while it was ${task.state}`)
    if (d.fence <= task.fence) this.#say("S9", `task ${d.task}: fence ${d.fence} after fence ${task.fence}`)
    if (d.attempt !== task.attempt + 1) {
      this.#say("S11", `task ${d.task}: attempt ${d.attempt} is counted after attempt ${task.attempt}`)
    }
    const policy = this.policies[task.queue]
    if (policy !== undefined && d.attempt > policy.maxAttempts) {
      this.#say("S11", `task ${d.task}: attempt ${d.attempt} of ${policy.maxAttempts}`)
    }
    this.#inOrder(task)
    this.#inLane(d, task)
    this.room.leased(task, d.now)
    if (task.leases++ > 0) this.duplicates++
    task.attempt = d.attempt
    task.fence = d.fence
    task.holder = d.holder
    task.started = false
    task.deadline = d.now + (policy?.leaseMs ?? 0)
    this.#move(task, "leased")
  }

  /** S22. */
  #inLane(d: Decision, task: LedgerTask): void {
    if (task.key === undefined) return
    let running = 0
    for (const other of this.#leases) if (other.queue === task.queue && other.key === task.key) running++
    this.lanes.granted(task.queue, task.key, d.task, running, d.now)
  }

  /** S12: no fresh task that was put earlier, and no more urgent one, is left waiting. */
  #inOrder(task: LedgerTask): void {
    for (const other of this.#ready.get(task.queue) ?? []) {
      if (other === task) continue
      // Lanes take turns; and what is urgent in a lane that is full waits for it.
      if (other.key !== task.key) continue
      const urgent = other.priority < task.priority
      const earlier = other.priority === task.priority && other.fresh && task.fresh && other.task < task.task
      if (urgent || earlier) {
        return this.#say("S12", `task ${task.task} was leased while task ${other.task} waited before it`)
      }
    }
  }

  #madeReady(d: Decision, task: LedgerTask): void {
    if (task.state === "delayed") {
      const signalled = task.suspended && this.cause._tag === "signal"
      if (d.now < task.dueAt && !signalled) this.#say("S13", `task ${d.task} is due ${task.dueAt - d.now} ms early`)
    } else if (task.state === "leased") {
      const uncounted = this.#lostOrReleased(d, task)
      const expected = task.attempt - (uncounted ? 1 : 0)
      if (d.attempt !== expected)
        this.#say("S11", `task ${d.task} came back with attempt ${d.attempt}, not ${expected}`)
    } else this.#say("S6", `task ${d.task} became ready out of ${task.state}`)
    task.attempt = d.attempt
    task.suspended = false
    this.#move(task, "ready")
  }

  /** Whether the attempt is given back. */
  #lostOrReleased(d: Decision, task: LedgerTask): boolean {
    const { cause } = this
    if (cause._tag === "tick") {
      if (task.deadline > d.now) this.#say("S10", `the lease of task ${d.task} ended ${task.deadline - d.now} ms early`)
      return !task.started
    }
    this.#mayEnd(d, task, ["release", "resume", "goodbye"])
    return true
  }

  #delayed(d: Decision, task: LedgerTask): void {
    this.#mayEnd(d, task, ["fail"])
    if (d.attempt !== task.attempt) this.#say("S11", `task ${d.task} failed attempt ${task.attempt}, not ${d.attempt}`)
    task.dueAt = d.dueAt
    task.fresh = false
    this.#move(task, "delayed")
  }

  /** A handler that waits: by its holder, its attempt is given back; and at once due with an entry that it does not know. */
  #suspended(d: Decision, task: LedgerTask): void {
    this.#mayEnd(d, task, ["suspend"])
    if (d.attempt !== task.attempt - 1)
      this.#say("S11", `task ${d.task} waits, and attempt ${task.attempt} was counted`)
    const { cause } = this
    const items = cause._tag === "suspend" ? cause.items : []
    const asked = items.find(({ fence, task: n }) => n === d.task && fence === task.fence)
    if (asked !== undefined) {
      const news = task.entries.length > asked.seen
      if (news && d.dueAt > d.now) this.#say("S19", `task ${d.task} waits for an entry that it has`)
      if (!news && d.dueAt < d.now + (asked.forMs ?? Limits.delayMsMax))
        this.#say("S13", `task ${d.task} waits too little`)
    }
    task.attempt = d.attempt
    task.dueAt = d.dueAt
    task.suspended = true
    this.#move(task, "delayed")
  }

  /** S19: one more entry, behind those that there were; a step by its holder, a signal by anyone. */
  #recorded(d: Decision, task: LedgerTask): void {
    const [name] = d.entries.at(-1) ?? [""]
    if (!name.startsWith("!")) this.#mayEnd(d, task, ["step"])
    else if (this.cause._tag !== "signal") this.#say("S19", `task ${d.task} has a signal of nobody`)
    if (over(task)) this.#say("S7", `task ${d.task} was ${d.change} after it had ended`)
    if (task.entries.some(([known]) => known === name)) this.#say("S19", `task ${d.task}: "${name}" was recorded twice`)
    if (!sameEntries(d.entries.slice(0, -1), task.entries)) this.#say("S19", `task ${d.task} has lost steps`)
    task.entries = d.entries
  }

  #ended(d: Decision, task: LedgerTask): void {
    const { cause } = this
    if (d.outcome === Outcome.success) this.#mayEnd(d, task, ["commit"])
    else if (d.outcome === Outcome.cancelled && cause._tag === "other") {
      // By command: whoever holds it is told.
    } else if (task.state === "leased" && cause._tag === "damaged") {
      if (!this.damage()) this.#say("S6", `task ${d.task} is called damaged, and nothing was`)
    } else if (task.state === "leased" && cause._tag === "tick") {
      if (task.deadline > d.now) this.#say("S10", `the lease of task ${d.task} ended ${task.deadline - d.now} ms early`)
    } else if (task.state === "leased") this.#mayEnd(d, task, ["fail", "release", "suspend", "resume", "goodbye"])
    if (d.outcome === Outcome.dead) this.room.died(task, d.reason, this.#byClient, d.now)
    task.reason = d.reason
    task.outcome = d.outcome
    task.cursor = d.cursor
    task.endedAt = d.now
    this.#move(task, "ended")
  }

  /** S9, S10: a lease is ended by its holder, under its fence, before its end; or with its session. */
  #mayEnd(d: Decision, task: LedgerTask, by: ReadonlyArray<Cause["_tag"]>): void {
    const { cause } = this
    if (task.state !== "leased")
      return this.#say("S9", `task ${d.task} was ${d.change} by ${cause._tag} while ${task.state}`)
    if (!by.includes(cause._tag)) return this.#say("S9", `task ${d.task} was ${d.change} by ${cause._tag}`)
    if (!("session" in cause)) return
    if (cause.session !== task.holder) {
      return this.#say(
        "S9",
        `session ${cause.session} ended the lease that session ${task.holder} has of task ${d.task}`
      )
    }
    if (cause._tag === "resume" || cause._tag === "goodbye" || cause._tag === "close") return
    for (let i = 0; i < cause.held.length; i += 2) {
      if (cause.held[i] === d.task && cause.held[i + 1] === task.fence) {
        // What arrived while the manager waited for its disk comes before the end of the lease.
        if (task.deadline > this.#expiredAt) return
        return this.#say(
          "S10",
          `task ${d.task}: ${cause._tag} was accepted ${d.now - task.deadline} ms after its lease`
        )
      }
    }
    this.#say("S9", `task ${d.task}: ${cause._tag} was accepted under another fence than ${task.fence}`)
  }

  // ---- what the engine was asked

  started(session: number, held: ReadonlyArray<number>): void {
    for (const task of this.#holding(session, held)) task.started = true
  }

  /** A renewal, and what the engine says is lost; `strict`: item by item, not by the numbers of the tasks. */
  renewed(
    session: number,
    held: ReadonlyArray<number>,
    lost: (i: number) => boolean,
    now: number,
    strict: boolean
  ): void {
    for (let i = 0; i < held.length; i += 2) {
      const task = this.tasks.get(held[i]!)
      const holds =
        task !== undefined && task.state === "leased" && task.holder === session && task.fence === held[i + 1]
      // Leased to the same session again: it has a lease, and this was not it.
      const again = task?.state === "leased" && task.holder === session && !holds
      if (!lost(i) && !holds && !(again && !strict)) {
        this.#say("S10", `task ${held[i]}: a renewal of session ${session} was accepted without a lease`)
      } else if (lost(i) && holds) {
        this.#say("S10", `task ${held[i]}: a renewal by its holder was refused`)
      }
      if (holds && !lost(i)) task.deadline = now + (this.policies[task.queue]?.leaseMs ?? 0)
    }
  }

  /** S14: a lease request has these tasks, and whoever asks again gets the same as long as they are leased to it. */
  granted(session: number, request: number, tasks: ReadonlyArray<number>): void {
    this.answeredOtherwise(session, request)
    this.#grants.set(
      `${session} ${request}`,
      tasks.map((n) => [n, this.tasks.get(n)?.fence ?? 0])
    )
  }

  /** S14: whoever asks again is not refused what it has. */
  answeredOtherwise(session: number, request: number): void {
    for (const [n, fence] of this.#grants.get(`${session} ${request}`) ?? []) {
      const task = this.tasks.get(n)
      if (task?.state === "leased" && task.holder === session && task.fence === fence) {
        this.#say("S14", `request ${request} of session ${session} has task ${n}, and got another answer`)
      }
    }
  }

  /** The connection of a session is gone: its leases last for one more term. */
  detached(session: number, now: number): void {
    for (const task of this.#leasedBy.get(session) ?? []) {
      task.deadline = now + (this.policies[task.queue]?.leaseMs ?? 0)
    }
  }

  /** S10, L2: when a round has looked at the clock, no lease is past its end. */
  expired(now: number): void {
    this.#expiredAt = now
    for (const { deadline, task } of this.#leases) {
      if (deadline <= now) this.#say("S10", `task ${task} is leased ${now - deadline} ms beyond its term`)
    }
  }

  /** L2: when a round has looked at the clock, nothing that waits is past its time. */
  ticked(now: number): void {
    this.repeats.ticked(now)
    this.room.ticked(now)
  }

  /** Tasks of one queue by state, for S15. */
  count(queue: number): Readonly<Record<LedgerTask["state"], number>> {
    const counts = { ready: 0, delayed: 0, leased: 0, ended: 0, acknowledged: 0, purged: 0 }
    for (const task of this.tasks.values()) if (task.queue === queue) counts[task.state]++
    return counts
  }

  *#holding(session: number, held: ReadonlyArray<number>): Iterable<LedgerTask> {
    for (let i = 0; i < held.length; i += 2) {
      const task = this.tasks.get(held[i]!)
      if (task?.state === "leased" && task.holder === session && task.fence === held[i + 1]) yield task
    }
  }

  #move(task: LedgerTask, state: LedgerTask["state"]): void {
    if (task.state === "ready") this.#ready.get(task.queue)?.delete(task)
    if (task.state === "leased") {
      this.#leases.delete(task)
      this.#leasedBy.get(task.holder)?.delete(task)
      if (state !== "leased") task.holder = 0
    }
    task.state = state
    if (state === "ready" || state === "delayed") this.room.waits(task)
    else this.room.leaves(task)
    if (state === "ready") into(this.#ready, task.queue, task)
    if (state === "leased") {
      this.#leases.add(task)
      into(this.#leasedBy, task.holder, task)
    }
  }

  #say(invariant: string, text: string): void {
    this.#violated(invariant, text)
  }
}

const same = (a: Uint8Array | undefined, b: Uint8Array | undefined): boolean =>
  a === b || (a !== undefined && b !== undefined && equal(a, b))

const stateNames = ["ready", "delayed", "leased", "ended"] as const

const over = ({ state }: LedgerTask): boolean => state === "ended" || state === "acknowledged" || state === "purged"

const into = (map: Map<number, Set<LedgerTask>>, key: number, task: LedgerTask): void => {
  const set = map.get(key)
  if (set === undefined) map.set(key, new Set([task]))
  else set.add(task)
}

/** Hooks a ledger, and the invariants of the model, to a living core. `stepped` hears of each round. */
export const attach = (core: Core, ledger: Ledger, violated: Violated, checkEvery: () => boolean): void => {
  const { engine } = core
  const life = ledger.life
  /** A life that has ended may still say something; nothing of it is stored. */
  const heard = (): boolean => ledger.life === life
  let now = 0
  let overdue = 0
  let ended = false
  const because = <A>(cause: Cause, at: number, run: () => A): A => {
    const outer = ledger.cause
    ledger.cause = cause
    now = at
    try {
      return run()
    } finally {
      ledger.cause = outer
    }
  }
  let asker: Asker | undefined
  /** What changes of the shared objects meanwhile was asked for by this request. */
  const asked = (session: Session, request: number, run: () => void): void => {
    asker = { request: `${session.id} ${request}`, run: ledger.runs++ }
    run()
    asker = undefined
  }
  const pairs = (tasks: ReadonlyArray<number>, fences: ReadonlyArray<number>): ReadonlyArray<number> =>
    tasks.flatMap((task, i) => [task, fences[i]!])
  const on = engine as { -readonly [K in keyof Engine]: Engine[K] }
  const inner = bound(engine)
  const { changed } = core
  core.changed = (change, task) => {
    if (!heard()) return changed(change, task)
    const cursor = task.queue.log.next - 1
    for (const queue of engine.queues) ledger.policies[queue.id] ??= queue.policy
    ledger.decided({
      change,
      task: task.n,
      queue: task.queue.id,
      now,
      attempt: task.attempt,
      fence: engine.fence(task),
      holder: task.holder?.id ?? 0,
      priority: task.priority,
      dueAt:
        change === "delayed" || change === "suspended" || (change === "put" && task.due !== undefined) ? task.at : 0,
      outcome: change === "ended" ? task.queue.log.outcome(cursor) : -1,
      cursor,
      delayMs: task.options?.delayMs ?? 0,
      payload: change === "put" ? (task.payload ?? nothing) : nothing,
      id: task.options?.id,
      key: task.options?.key,
      origin: change === "put" ? task.origin : 0,
      checkpoint: change === "put" || change === "checkpoint" ? task.checkpoint : undefined,
      entries: change === "put" || change === "entry" ? [...(task.entries ?? [])] : [],
      ttlMs: task.options?.ttlMs,
      reason: change === "ended" ? task.reasons?.at(-1)?.reason : undefined
    })
    const { _tag } = ledger.cause
    if (_tag === "commit" || _tag === "fail") slowed(task)
    changed(change, task)
  }
  /** What the commit, or the failure, that is under way asks for the lanes of its tasks. */
  let slow: Slow | undefined
  const slowed = ({ n, options, queue }: Task): void => {
    // One report may name a task under two fences: the older is refused.
    const fence = ledger.tasks.get(n)?.fence
    const forMs = slow?.slowDowns?.[slow.tasks.findIndex((other, i) => other === n && slow?.fences[i] === fence)]
    const key = options?.key
    if (forMs === undefined || key === undefined) return
    ledger.changed({ what: "lane", queue: queue.id, key, now, change: "slowDown", limits: undefined, forMs })
  }
  const { laneChanged } = core
  let lane: LaneDecision | undefined
  on.damaged = (...args) => because({ _tag: "damaged" }, args[1], () => inner.damaged(...args))
  on.lane = (...args) => {
    const [, , queue, key, change, limits, forMs, at] = args
    lane = { what: "lane", queue, key, now: at, change: laneChanges[change]!, limits, forMs }
    because({ _tag: "other" }, at, () => inner.lane(...args))
    lane = undefined
  }
  core.laneChanged = (queue, key) => {
    if (heard() && lane !== undefined) ledger.changed(lane)
    laneChanged(queue, key)
  }
  const { repeatChanged } = core
  core.repeatChanged = (repeat, removed) => {
    const { definition, nextAt, occurrences, queue, task } = repeat
    const { everyMs, id } = definition
    const is = { queue: queue.id, id, everyMs: everyMs ?? 0, nextAt, task, occurrences }
    if (heard()) ledger.changed({ what: "repeat", ...is, now, removed })
    repeatChanged(repeat, removed)
  }
  // Every argument is handed on, also those that this does not know: it must change nothing.
  on.due = (...args) => {
    const [at] = args
    because({ _tag: "tick" }, at, () => inner.due(...args))
    if (heard()) ledger.ticked(at)
  }
  on.expire = (...args) => {
    const [at] = args
    because({ _tag: "tick" }, at, () => inner.expire(...args))
    if (heard()) ledger.expired(at)
    ended = true
  }
  on.dispatch = (...args) => {
    because({ _tag: "dispatch" }, args[0], () => inner.dispatch(...args))
    if (!heard()) return
    ledger.room.settled()
    ledger.rounds++
    if (!ended) violated("S10", "a round went by without a look at the leases that are over")
    ended = false
    // A round that leaves a deadline in the past asks for the next round: once is work, ten times is a loop.
    overdue = engine.nextDeadline <= args[0] ? overdue + 1 : 0
    if (overdue === 10) violated("L4", `the deadline ${engine.nextDeadline} is over and stays: rounds without end`)
    if (checkEvery()) for (const text of Invariants.check(engine)) violated("model", text)
  }
  on.put = (...args) => {
    because({ _tag: "put" }, args[7], () => inner.put(...args))
    if (heard()) ledger.room.settled()
  }
  on.lease = (...args) => {
    if (heard()) ledger.answeredOtherwise(args[0].id, args[1])
    because({ _tag: "other" }, args[6], () => inner.lease(...args))
  }
  on.repeat = (...args) => because({ _tag: "other" }, args[4], () => inner.repeat(...args))
  on.close = (...args) => because({ _tag: "other" }, args[4], () => inner.close(...args))
  on.started = (...args) => {
    if (heard()) ledger.started(args[0].id, args[1])
    inner.started(...args)
  }
  on.heartbeat = (...args) => {
    const [session, held, at, cancelled] = args
    const lost = inner.heartbeat(...args)
    const set = new Set([...lost, ...(cancelled ?? [])])
    if (heard()) ledger.renewed(session.id, held, (i) => set.has(held[i]!), at, false)
    return lost
  }
  const start = core.start.bind(core)
  core.start = () => {
    start()
    ledger.restored(engine)
  }
  let codes: ReadonlyArray<number> | undefined
  const { items } = core
  core.items = (...args) => {
    codes = args[2]
    items(...args)
  }
  const { leased, refused } = core
  core.refused = (...args) => {
    if (heard()) ledger.answeredOtherwise(args[0].id, args[1])
    refused(...args)
  }
  core.leased = (...args) => {
    const [session, request, tasks] = args
    if (heard()) {
      ledger.granted(
        session.id,
        request,
        tasks.map(({ n }) => n)
      )
    }
    leased(...args)
  }
  on.renew = (...args) => {
    const [session, , held, at] = args
    codes = undefined
    inner.renew(...args)
    const said = codes as ReadonlyArray<number> | undefined
    if (heard()) ledger.renewed(session.id, held, (i) => (said?.[i / 2] ?? 0) !== 0, at, true)
  }
  on.detach = (...args) => {
    inner.detach(...args)
    if (heard()) ledger.detached(args[0].id, args[1])
  }
  const ending = (_tag: "resume" | "goodbye", session: Session, held: ReadonlyArray<number>): Cause => ({
    _tag,
    session: session.id,
    held
  })
  on.resume = (...args) => {
    const [session, held, at] = args
    return because(ending("resume", session, held), at, () => inner.resume(...args))
  }
  on.goodbye = (...args) => because(ending("goodbye", args[0], []), args[1], () => inner.goodbye(...args))
  on.commit = (...args) => {
    const [session, request, tasks, fences, , , at, , slowDowns] = args
    slow = { tasks, fences, slowDowns }
    const cause: Cause = { _tag: "commit", session: session.id, held: pairs(tasks, fences) }
    because(cause, at, () => asked(session, request, () => inner.commit(...args)))
  }
  const { count, countSet, dictWrite, setKeys } = engine.objects
  const objects = engine.objects as { -readonly [K in keyof typeof engine.objects]: (typeof engine.objects)[K] }
  objects.count = (...args) => asked(args[0], args[1], () => count.apply(objects, args))
  objects.countSet = (...args) => asked(args[0], args[1], () => countSet.apply(objects, args))
  objects.dictWrite = (...args) => asked(args[0], args[1], () => dictWrite.apply(objects, args))
  objects.setKeys = (...args) => asked(args[0], args[1], () => setKeys.apply(objects, args))
  attachObjects(core, (d) => {
    if (heard()) ledger.changed({ ...d, by: asker })
  })
  on.release = (...args) => {
    const [session, , held, at] = args
    because({ _tag: "release", session: session.id, held }, at, () => inner.release(...args))
  }
  on.fail = (...args) => {
    const [session, , tasks, fences, failures, at] = args
    slow = { tasks, fences, slowDowns: failures.map(({ slowDownMs }) => slowDownMs) }
    because({ _tag: "fail", session: session.id, held: pairs(tasks, fences) }, at, () => inner.fail(...args))
  }
  const { progress } = engine
  const { checkpoint, report, signal, step, suspend } = progress
  const heldOf = (items: ReadonlyArray<{ readonly task: number; readonly fence: number }>): ReadonlyArray<number> =>
    items.flatMap(({ fence, task }) => [task, fence])
  progress.checkpoint = (...args) => {
    const [session, , tasks, fences] = args
    const cause: Cause = { _tag: "checkpoint", session: session.id, held: pairs(tasks, fences) }
    because(cause, now, () => checkpoint.apply(progress, args))
  }
  progress.report = (...args) => {
    const [session, reports] = args
    because({ _tag: "checkpoint", session: session.id, held: heldOf(reports) }, now, () => report.apply(progress, args))
  }
  progress.step = (...args) => {
    const [session, , items] = args
    because({ _tag: "step", session: session.id, held: heldOf(items) }, now, () => step.apply(progress, args))
  }
  progress.suspend = (...args) => {
    const [session, , items, at] = args
    const cause: Cause = { _tag: "suspend", session: session.id, held: heldOf(items), items }
    because(cause, at, () => suspend.apply(progress, args))
  }
  progress.signal = (...args) => because({ _tag: "signal" }, args[6], () => signal.apply(progress, args))
  on.acknowledge = (...args) => {
    const [session, held, at] = args
    because({ _tag: "acknowledge", session: session.id, held }, at, () => inner.acknowledge(...args))
  }
}

/** Hears what the engine decides about shared objects. */
const attachObjects = (core: Core, hear: (d: Heard) => void): void => {
  const { counterChanged, dictChanged, objectMade, setAdded, setRemoved } = core
  core.objectMade = (object) => {
    hear({ what: "made", object: object.id, kind: object.kind, name: object.name })
    objectMade(object)
  }
  core.setAdded = (...args) => {
    const [set, fingerprint] = args
    hear({ what: "added", object: set.id, key: fingerprint.join(), fingerprint: fingerprint.slice() })
    setAdded(...args)
  }
  core.setRemoved = (set, fingerprint) => {
    hear({ what: "removed", object: set.id, key: fingerprint.join(), fingerprint: fingerprint.slice() })
    setRemoved(set, fingerprint)
  }
  core.counterChanged = (counter) => {
    hear({ what: "counted", object: counter.id, value: counter.value })
    counterChanged(counter)
  }
  core.dictChanged = (dict, key, entry, version) => {
    hear({ what: "written", object: dict.id, key, value: entry?.value, version })
    dictChanged(dict, key, entry, version)
  }
}

type Without<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never
type Heard = Without<ObjectDecision, "by">

interface Slow {
  readonly tasks: ReadonlyArray<number>
  readonly fences: ReadonlyArray<number>
  readonly slowDowns: ReadonlyArray<number | undefined> | undefined
}

const laneChanges = Object.keys(LaneChange) as ReadonlyArray<LaneDecision["change"]>

const nothing = new Uint8Array()

const sameEntries = (a: ReadonlyArray<Entry>, b: ReadonlyArray<Entry>): boolean =>
  a.length === b.length && a.every(([name, value], i) => name === b[i]![0] && same(value, b[i]![1]))

/** The engine's own methods, as they are before they are hooked. */
const bound = (engine: Engine): Pick<Engine, (typeof hooked)[number]> =>
  Object.fromEntries(hooked.map((name) => [name, (engine[name] as () => unknown).bind(engine)])) as never

const hooked = [
  "due",
  "expire",
  "dispatch",
  "put",
  "lease",
  "close",
  "repeat",
  "lane",
  "damaged",
  "started",
  "heartbeat",
  "renew",
  "detach",
  "resume",
  "goodbye",
  "commit",
  "release",
  "fail",
  "acknowledge"
] as const
