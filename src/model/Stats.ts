/**
 * The counts of a queue, read without scanning it: counters, heads of lists, sums of at most 60 numbers.
 *
 * The one search is for the next delayed task of a queue among the deadlines of all: in the order of the heap, at most
 * `statsTimersMax` of them. A queue whose next one lies behind those is shown with 0, as if it had none.
 */
import * as Limits from "../Limits.ts"
import type { Engine } from "./Engine.ts"
import { laneViewOf } from "./Explain.ts"
import { Heap } from "./Heap.ts"
import type { Queue } from "./Queue.ts"
import { RateKind } from "./Rates.ts"
import type { Timer, Timers } from "./Timers.ts"

/** A lane among those with most to do: its key, tasks that wait and that are leased, ms until its limit lets one go. */
export type LaneCount = readonly [key: string, waiting: number, leased: number, blockedMs: number]

/** In the order in which they travel. 0 stands for none, where there is none. */
export interface QueueStats {
  readonly name: string
  readonly durability: string
  readonly closed: string
  readonly capacity: number
  readonly ready: number
  readonly delayed: number
  readonly leased: number
  readonly done: number
  readonly dead: number
  readonly cancelled: number
  readonly acknowledged: number
  readonly puts: number
  readonly duplicates: number
  readonly refused: number
  readonly oldestReadyMs: number
  readonly outcomesFirst: number
  readonly outcomesNext: number
  readonly workers: number
  readonly paused: boolean
  readonly nextDueMs: number
  readonly nextLeaseEndMs: number
  readonly waitingBytes: number
  readonly outcomeBytes: number
  readonly deadLetterBytes: number
  readonly deadLetters: number
  readonly waitingPuts: number
  readonly waitingTakers: number
  readonly readers: number
  readonly repeats: number
  readonly puts1s: number
  readonly puts10s: number
  readonly puts60s: number
  readonly leases1s: number
  readonly leases10s: number
  readonly leases60s: number
  readonly commits1s: number
  readonly commits10s: number
  readonly commits60s: number
  readonly failures1s: number
  readonly failures10s: number
  readonly failures60s: number
  readonly lanes: ReadonlyArray<LaneCount>
  readonly purged: number
  readonly dropped: number
  readonly redriven: number
  readonly capacityBytes: number
}

export const statsOf = (engine: Engine, queues: ReadonlyArray<Queue>, now: number): ReadonlyArray<QueueStats> => {
  const dues = nextDues(engine.timers, queues)
  return queues.map((queue) => countsOf(engine, queue, dues.get(queue), now))
}

const countsOf = (engine: Engine, queue: Queue, due: number | undefined, now: number): QueueStats => {
  const { rates } = queue
  const oldest = queue.ready.first(now)
  const { puts, leases, commits, failures } = RateKind
  return {
    name: queue.definition.name,
    durability: queue.definition.durability,
    closed: queue.closed,
    capacity: queue.policy.capacity,
    ready: queue.ready.size,
    delayed: queue.delayed,
    leased: queue.leased,
    done: queue.done,
    dead: queue.dead,
    cancelled: queue.cancelled,
    acknowledged: queue.acknowledged,
    puts: queue.puts,
    duplicates: queue.duplicates,
    refused: queue.refused,
    oldestReadyMs: oldest === undefined ? 0 : Math.max(0, now - oldest.putAt),
    outcomesFirst: queue.log.first,
    outcomesNext: queue.log.next,
    workers: queue.leaseStreams.length,
    paused: queue.paused,
    nextDueMs: due === undefined ? 0 : Math.max(0, due - now),
    nextLeaseEndMs: queue.leaseHead === undefined ? 0 : Math.max(0, queue.leaseHead.at - now),
    waitingBytes: queue.waitingBytes,
    outcomeBytes: queue.log.bytes,
    deadLetterBytes: queue.deadLetters.bytes,
    deadLetters: queue.deadLetters.size,
    waitingPuts: queue.putWaiters.length,
    waitingTakers: queue.leaseWaiters.length,
    readers: queue.outcomeStreams.length,
    repeats: engine.repeats.count(queue),
    puts1s: rates.count(puts, 1, now),
    puts10s: rates.count(puts, 10, now),
    puts60s: rates.count(puts, 60, now),
    leases1s: rates.count(leases, 1, now),
    leases10s: rates.count(leases, 10, now),
    leases60s: rates.count(leases, 60, now),
    commits1s: rates.count(commits, 1, now),
    commits10s: rates.count(commits, 10, now),
    commits60s: rates.count(commits, 60, now),
    failures1s: rates.count(failures, 1, now),
    failures10s: rates.count(failures, 10, now),
    failures60s: rates.count(failures, 60, now),
    lanes: laneViewOf(queue).topLanes(Limits.topLanesMax, now),
    purged: queue.purged,
    dropped: queue.dropped,
    redriven: queue.redriven,
    capacityBytes: queue.policy.capacityBytes
  }
}

/** When the next delayed task of each of these queues is due: the first deadlines of the heap, in their order. */
export const nextDues = (
  timers: Timers,
  queues: ReadonlyArray<Queue>,
  max: number = Limits.statsTimersMax
): ReadonlyMap<Queue, number> => {
  const wanted = new Set(queues.filter(({ delayed }) => delayed > 0))
  const found = new Map<Queue, number>()
  const heap = timers.entries()
  const frontier = new Heap<Timer>((a, b) => a.at < b.at)
  if (heap.length > 0) frontier.push(heap[0]!)
  for (let looked = 0; looked < max && found.size < wanted.size; looked++) {
    const timer = frontier.pop()
    if (timer === undefined) break
    const { subject } = timer
    if (subject._tag === "Due" && wanted.has(subject.task.queue) && !found.has(subject.task.queue)) {
      found.set(subject.task.queue, timer.at)
    }
    for (let child = 2 * timer.slot + 1; child <= 2 * timer.slot + 2; child++) {
      const next = heap[child]
      if (next !== undefined) frontier.push(next)
    }
  }
  return found
}
