/**
 * Why a task is not running, and what limits a queue: answers as data, and the same in words.
 *
 * Everything is read from what the engine holds at that moment and nothing is changed. Work is bounded: of a long queue
 * only the first `explainAheadMax` ready tasks are looked at for a task's position.
 */
import * as Limits from "../Limits.ts"
import type { Engine } from "./Engine.ts"
import type { LaneState } from "./Lanes.ts"
import type { Queue } from "./Queue.ts"
import type { LaneCount } from "./Stats.ts"
import { type Outcome, State, Task } from "./Task.ts"

/** What an explanation is made of; the numbers are the protocol's. From 16 on: what holds work back. */
export const FactKind = {
  notFound: 0,
  ended: 1,
  leased: 2,
  delayed: 3,
  ready: 4,
  paused: 16,
  closed: 17,
  lane: 18,
  noWorker: 19,
  noCredit: 20,
  congested: 21,
  empty: 22,
  onlyDelayed: 23,
  full: 24,
  slowReaders: 25,
  nothing: 26
} as const
export type FactKind = (typeof FactKind)[keyof typeof FactKind]

/** One fact: its kind decides what the fields mean (`docs/protocol.md`, "Facts"). */
export interface Fact {
  readonly kind: number
  readonly subject: string
  /** An instant in ms; 0: none. */
  readonly at: number
  readonly value: number
  readonly limit: number
}

/** Why the lane of a task lets it wait. */
export interface LaneBlock {
  readonly key: string
  /** `concurrency`, `rate`, `gap` or `paused`. */
  readonly limit: string
  /** When the lane opens, if time opens it; 0: it depends on others. */
  readonly until: number
}

/** What the lanes of a queue can say about themselves without a scan. */
export interface LaneView {
  /** Why this ready task's lane lets it wait; undefined: it does not. */
  readonly why: (task: Task, now: number) => LaneBlock | undefined
  /** Lanes that let their tasks wait, and when the first of them opens (0: unknown). */
  readonly blocked: (now: number) => { readonly lanes: number; readonly until: number }
  /** The `count` lanes with most to do. */
  readonly topLanes: (count: number, now: number) => ReadonlyArray<LaneCount>
}

const blockOf = (key: string, state: LaneState): LaneBlock | undefined => {
  switch (state._tag) {
    case "Open":
      return undefined
    case "Paused":
      return { key, limit: "paused", until: 0 }
    case "Concurrency":
      return { key, limit: "concurrency", until: 0 }
    default:
      return { key, limit: state._tag.toLowerCase(), until: state.until }
  }
}

/** The lanes of a queue. */
export const laneViewOf = ({ ready }: Queue): LaneView => ({
  why: (task, now) => blockOf(task.options?.key ?? "", ready.why(task, now)),
  blocked: (now) => {
    if (ready.size === 0 || ready.open(now)) return { lanes: 0, until: 0 }
    const until = ready.nextOpenAt
    return { lanes: Math.max(1, ready.lanes), until: until === Number.POSITIVE_INFINITY ? 0 : until }
  },
  topLanes: (count, now) =>
    ready.topLanes(count, now).flatMap(({ key, running, state, waiting }): ReadonlyArray<LaneCount> => {
      if (key === undefined) return []
      const until = blockOf(key, state)?.until ?? 0
      return [[key, waiting, running, Math.max(0, until - now)]]
    })
})

const fact = (kind: FactKind, subject = "", at = 0, value = 0, limit = 0): Fact => ({ kind, subject, at, value, limit })

/** First what the task is, then, if it is ready, what holds it back. `holderOf` names who holds a lease. */
export const explainTask = (
  engine: Engine,
  queue: Queue,
  n: number,
  now: number,
  holderOf: (task: Task) => string
): ReadonlyArray<Fact> => {
  const owner = engine.tasks.owner(n)
  if (owner === queue) {
    const { log } = queue
    const cursor = engine.tasks.cursor(n)
    const last = log.reasons(cursor)?.at(-1)?.text ?? ""
    return [fact(FactKind.ended, last, log.endedAt(cursor), log.outcome(cursor), log.attempts(cursor))]
  }
  if (!(owner instanceof Task) || owner.queue !== queue) return [fact(FactKind.notFound)]
  switch (owner.state) {
    case State.leased:
      return [fact(FactKind.leased, holderOf(owner), owner.at, owner.attempt, owner.started ? 1 : 0)]
    case State.delayed: {
      // A delay of the put has no attempt behind it; a back-off has, and the reason of the last one.
      const last = owner.reasons?.at(-1)?.text ?? ""
      return [fact(FactKind.delayed, last, owner.at, owner.attempt, queue.policy.maxAttempts)]
    }
    default: {
      const at = queue.ready.peek(Limits.explainAheadMax, now).indexOf(owner)
      const ahead = at < 0 ? Limits.explainAheadMax : at
      const facts = [fact(FactKind.ready, "", owner.putAt, ahead, queue.ready.size)]
      const block = laneViewOf(queue).why(owner, now)
      if (block !== undefined) facts.push(fact(FactKind.lane, `${block.key}\n${block.limit}`, block.until, 1))
      facts.push(...takers(queue))
      return facts
    }
  }
}

/** What holds the queue back, the most telling first; `nothing` if nothing does. */
export const explainQueue = (queue: Queue, nextDue: number | undefined, now: number): ReadonlyArray<Fact> => {
  const facts: Array<Fact> = []
  if (queue.ready.size > 0) {
    const blocked = laneViewOf(queue).blocked(now)
    if (blocked.lanes > 0) facts.push(fact(FactKind.lane, "", blocked.until, blocked.lanes))
  } else if (queue.delayed > 0) facts.push(fact(FactKind.onlyDelayed, "", nextDue ?? 0, queue.delayed))
  else facts.push(fact(FactKind.empty, "", 0, queue.leased))
  facts.push(...takers(queue))
  if (queue.closed !== "open") facts.push(fact(FactKind.closed, queue.closed, 0, queue.unfinished))
  if (queue.waiting >= queue.policy.capacity || queue.putWaiters.length > 0) {
    facts.push(fact(FactKind.full, "", 0, queue.putWaiters.length, queue.policy.capacity))
  }
  let slow = 0
  let behind = 0
  for (const { cursor, session } of queue.outcomeStreams) {
    if (!session.congested) continue
    slow++
    behind = Math.max(behind, queue.log.next - cursor)
  }
  if (slow > 0) facts.push(fact(FactKind.slowReaders, "", 0, slow, behind))
  return facts.length === 0 ? [fact(FactKind.nothing)] : facts
}

/** What the takers of the queue lack. */
const takers = (queue: Queue): ReadonlyArray<Fact> => {
  const facts: Array<Fact> = []
  if (queue.paused) facts.push(fact(FactKind.paused))
  const workers = queue.leaseStreams.length
  if (workers === 0 && queue.leaseWaiters.length === 0) facts.push(fact(FactKind.noWorker))
  if (workers === 0) return facts
  let congested = 0
  let hungry = 0
  for (const { credit, session } of queue.leaseStreams) {
    if (session.congested) congested++
    else if (credit > 0) hungry++
  }
  if (congested > 0) facts.push(fact(FactKind.congested, "", 0, congested, workers))
  if (hungry === 0 && congested < workers && queue.leaseWaiters.length === 0) {
    facts.push(fact(FactKind.noCredit, "", 0, workers, queue.leased))
  }
  return facts
}

/** What holds a task or a queue back. */
export type Blocker =
  | { readonly _tag: "Paused"; readonly text: string }
  | { readonly _tag: "Closed"; readonly mode: string; readonly unfinished: number; readonly text: string }
  | {
      readonly _tag: "LaneLimit"
      /** Undefined: of several lanes. */
      readonly key: string | undefined
      /** `concurrency`, `rate`, `gap` or `paused`; undefined: of several lanes. */
      readonly limit: string | undefined
      readonly lanes: number
      /** Undefined: no time opens it. */
      readonly untilMs: number | undefined
      readonly text: string
    }
  | { readonly _tag: "NoWorker"; readonly text: string }
  | { readonly _tag: "NoCredit"; readonly workers: number; readonly leased: number; readonly text: string }
  | { readonly _tag: "Congested"; readonly workers: number; readonly of: number; readonly text: string }
  | { readonly _tag: "Empty"; readonly leased: number; readonly text: string }
  | {
      readonly _tag: "OnlyDelayed"
      readonly delayed: number
      readonly nextDueMs: number | undefined
      readonly text: string
    }
  | { readonly _tag: "Full"; readonly capacity: number; readonly waitingPuts: number; readonly text: string }
  | { readonly _tag: "SlowReaders"; readonly readers: number; readonly behind: number; readonly text: string }
  /** A fact that this version of the client does not know. */
  | { readonly _tag: "Other"; readonly kind: number; readonly text: string }

/** Why a task is not running, or that it is. Instants are ms since 1970 by the manager's clock. */
export type TaskExplanation =
  | { readonly _tag: "NotFound"; readonly text: string }
  | {
      readonly _tag: "Ended"
      readonly outcome: "success" | "failure" | "dead" | "cancelled"
      readonly attempts: number
      readonly endedAtMs: number
      /** What happened to the last attempt that ended badly; empty if none did. */
      readonly lastReason: string
      readonly text: string
    }
  | {
      readonly _tag: "Leased"
      readonly holder: string
      readonly attempt: number
      /** Whether its handler is known to have begun. */
      readonly started: boolean
      readonly untilMs: number
      readonly text: string
    }
  | {
      readonly _tag: "Delayed"
      readonly why: "delay" | "back-off"
      readonly attempts: number
      readonly untilMs: number
      readonly lastReason: string
      readonly text: string
    }
  | {
      readonly _tag: "Ready"
      /** Ready tasks that go first, counted up to 1,000. */
      readonly ahead: number
      readonly ready: number
      readonly putAtMs: number
      /** Empty: it is handed out as soon as those ahead of it are. */
      readonly blockers: ReadonlyArray<Blocker>
      readonly text: string
    }

/** What limits the throughput of a queue. Empty: nothing does but its workers' own speed. */
export interface QueueExplanation {
  readonly blockers: ReadonlyArray<Blocker>
  readonly text: string
}

const outcomeNames = ["success", "failure", "dead", "cancelled"] as const

const instant = (ms: number): string => new Date(ms).toISOString()
const plural = (count: number, one: string, many = `${one}s`): string => `${count} ${count === 1 ? one : many}`

export const blockerOf = ({ at, kind, limit, subject, value }: Fact): Blocker => {
  switch (kind) {
    case FactKind.paused:
      return { _tag: "Paused", text: "the queue is paused" }
    case FactKind.closed: {
      const text = `the queue is closed (${subject}); ${plural(value, "task")} left`
      return { _tag: "Closed", mode: subject, unfinished: value, text }
    }
    case FactKind.lane: {
      // A key may have line breaks, the name of a limit has none.
      const cut = subject.lastIndexOf("\n")
      const [key, name] = [subject.slice(0, Math.max(0, cut)), subject.slice(cut + 1)]
      const until = at === 0 ? "until one of its tasks ends" : `until ${instant(at)}`
      const one = subject !== ""
      return {
        _tag: "LaneLimit",
        key: one ? key : undefined,
        limit: one ? name : undefined,
        lanes: value,
        untilMs: at === 0 ? undefined : at,
        text: one
          ? `lane "${key}" is at its limit (${name}) ${until}`
          : `${plural(value, "lane is", "lanes are")} at their limit${at === 0 ? "" : `, the first ${until}`}`
      }
    }
    case FactKind.noWorker:
      return { _tag: "NoWorker", text: "no worker is there and nobody waits to take" }
    case FactKind.noCredit: {
      const text = `${plural(value, "worker is", "workers are")} busy (${plural(limit, "task")} leased): more workers, or more concurrency`
      return { _tag: "NoCredit", workers: value, leased: limit, text }
    }
    case FactKind.congested: {
      const text = `${value} of ${plural(limit, "worker")} do not read what was sent to them`
      return { _tag: "Congested", workers: value, of: limit, text }
    }
    case FactKind.empty: {
      const text = `nothing waits${value > 0 ? `; ${plural(value, "task")} leased` : ""}: producers are the limit`
      return { _tag: "Empty", leased: value, text }
    }
    case FactKind.onlyDelayed: {
      const text = `nothing is ready; ${plural(value, "task is", "tasks are")} delayed${at === 0 ? "" : `, the next until ${instant(at)}`}`
      return { _tag: "OnlyDelayed", delayed: value, nextDueMs: at === 0 ? undefined : at, text }
    }
    case FactKind.full: {
      const text = `the queue is at its capacity (${limit})${value > 0 ? `; ${plural(value, "put")} wait for room` : ""}`
      return { _tag: "Full", capacity: limit, waitingPuts: value, text }
    }
    case FactKind.slowReaders: {
      const text = `${plural(value, "reader")} of outcomes do not read, the slowest ${limit} behind`
      return { _tag: "SlowReaders", readers: value, behind: limit, text }
    }
    default:
      return { _tag: "Other", kind, text: `reason ${kind}${subject === "" ? "" : `: ${subject}`}` }
  }
}

const blockersOf = (facts: ReadonlyArray<Fact>): ReadonlyArray<Blocker> =>
  facts.filter(({ kind }) => kind !== FactKind.nothing).map(blockerOf)

const because = (blockers: ReadonlyArray<Blocker>): string => blockers.map(({ text }) => text).join("; ")

/** Undefined: this is no explanation of a task. */
export const taskExplanationOf = (facts: ReadonlyArray<Fact>): TaskExplanation | undefined => {
  const [first, ...rest] = facts
  if (first === undefined) return undefined
  const { at, limit, subject, value } = first
  switch (first.kind) {
    case FactKind.notFound:
      return {
        _tag: "NotFound",
        text: "not found: never put on this queue, taken by a get, or its outcome is no longer kept"
      }
    case FactKind.ended: {
      const outcome = outcomeNames[value as Outcome] ?? "dead"
      const why = subject === "" ? "" : `, last: ${subject}`
      const text = `ended at ${instant(at)}: ${outcome} after ${plural(limit, "attempt")}${why}`
      return { _tag: "Ended", outcome, attempts: limit, endedAtMs: at, lastReason: subject, text }
    }
    case FactKind.leased: {
      const started = limit === 1
      const how = started ? "its handler runs" : "its handler is not known to have begun"
      const text = `leased by ${subject} until ${instant(at)}, attempt ${value}: ${how}`
      return { _tag: "Leased", holder: subject, attempt: value, started, untilMs: at, text }
    }
    case FactKind.delayed: {
      const why = value > 0 ? "back-off" : "delay"
      const after = value > 0 ? ` after ${value} of ${plural(limit, "attempt")}, last: ${subject}` : ""
      const text = `delayed until ${instant(at)} (${why})${after}`
      return { _tag: "Delayed", why, attempts: value, untilMs: at, lastReason: subject, text }
    }
    case FactKind.ready: {
      const blockers = blockersOf(rest)
      const more = value >= Limits.explainAheadMax ? "at least " : ""
      const place = value === 0 ? "next in line" : `behind ${more}${value} of ${limit} ready tasks`
      const text = `ready, ${place}${blockers.length === 0 ? "" : `: ${because(blockers)}`}`
      return { _tag: "Ready", ahead: value, ready: limit, putAtMs: at, blockers, text }
    }
    default:
      return undefined
  }
}

export const queueExplanationOf = (facts: ReadonlyArray<Fact>): QueueExplanation => {
  const blockers = blockersOf(facts)
  return { blockers, text: blockers.length === 0 ? "nothing holds it back" : because(blockers) }
}
