/**
 * What must hold of an engine between rounds, checked from the outside and without mercy for cost.
 *
 * Tests and the simulator call `check` after every step; the manager never does. Each violation is a sentence that names
 * the queue, task or session; none means that the engine's lists, counts, timers and logs agree with each other.
 */
import * as Limits from "../Limits.ts"
import type { Engine } from "./Engine.ts"
import { checkLanes } from "./LaneInvariants.ts"
import { Standing, standingOf } from "./Life.ts"
import type { Queue } from "./Queue.ts"
import type { Waiter } from "./Session.ts"
import { State, Task } from "./Task.ts"

/** Assumes: `dispatch` has run since the last command. Ensures: nothing is changed. */
export const check = (engine: Engine): ReadonlyArray<string> => {
  const found: Array<string> = []
  const say = (holds: boolean, text: () => string): void => {
    if (!holds) found.push(text())
  }
  for (const queue of engine.queues) {
    conservation(queue, say)
    readyTasks(engine, queue, say)
    leasedTasks(engine, queue, say)
    livingTasks(engine, queue, say)
    deadLetters(queue, say)
    dedupeIds(engine, queue, say)
    outcomeLog(engine, queue, say)
    streams(engine, queue, say)
    nobodyStuck(queue, say)
  }
  sharedObjects(engine, say)
  timers(engine, say)
  repeats(engine, say)
  bytes(engine, say)
  sessions(engine, say)
  return found
}

type Say = (holds: boolean, text: () => string) => void

const nameOf = (queue: Queue): string => `queue "${queue.definition.name}"`

const conservation = (queue: Queue, say: Say): void => {
  const { acknowledged, cancelled, dead, delayed, done, leased, purged, puts, ready } = queue
  const parts = { ready: ready.size, delayed, leased, done, dead, cancelled, acknowledged, purged }
  const sum = Object.values(parts).reduce((a, b) => a + b, 0)
  say(puts === sum, () => `${nameOf(queue)}: ${puts} puts are not the sum of ${JSON.stringify(parts)}`)
  for (const [name, count] of Object.entries(parts)) {
    say(count >= 0, () => `${nameOf(queue)}: ${name} is ${count}`)
  }
}

const living = (engine: Engine, queue: Queue, task: Task, state: State, say: Say): void => {
  say(task.state === state, () => `task ${task.n}: state ${task.state} in a list of state ${state}`)
  say(task.queue === queue, () => `task ${task.n} is in a list of ${nameOf(queue)} and belongs to another`)
  say(engine.tasks.owner(task.n) === task, () => `task ${task.n} is in a list and not in the table`)
  say(task.attempt >= 0 && task.attempt <= task.leases, () => `task ${task.n}: attempt ${task.attempt}`)
  say(task.releases < Limits.releasesMax, () => `task ${task.n} lives after ${task.releases} releases`)
  say(task.lossesWhileStarted < Limits.lossesWhileStartedMax, () => `task ${task.n} lives after its last loss`)
  say((task.holder !== undefined) === (state === State.leased), () => `task ${task.n}: holder in state ${state}`)
  say((task.due !== undefined) === (state === State.delayed), () => `task ${task.n}: due timer in state ${state}`)
}

const readyTasks = (engine: Engine, queue: Queue, say: Say): void => {
  const { ready } = queue
  checkLanes(
    ready,
    (holds, text) => say(holds, () => `${nameOf(queue)}: ${text()}`),
    (task) => living(engine, queue, task, State.ready, say)
  )
  const running = new Map<string | undefined, number>()
  let guard = queue.leased
  for (let task = queue.leaseHead; task !== undefined && guard-- > 0; task = task.next) {
    running.set(task.options?.key, (running.get(task.options?.key) ?? 0) + 1)
  }
  const { lanes, plain } = ready.inside()
  for (const lane of [plain, ...lanes.values()]) {
    const count = running.get(lane.key) ?? 0
    running.delete(lane.key)
    say(count === lane.running, () => `${nameOf(queue)}: lane "${lane.key}" counts ${lane.running} leases of ${count}`)
  }
  for (const [key, count] of running) say(false, () => `${nameOf(queue)}: ${count} leases of unknown lane "${key}"`)
  const { laneTimer } = queue
  const watched = laneTimer === undefined ? Number.POSITIVE_INFINITY : laneTimer.at
  say(watched <= ready.nextOpenAt, () => `${nameOf(queue)}: no timer watches the next lane to open`)
}

const leasedTasks = (engine: Engine, queue: Queue, say: Say): void => {
  let count = 0
  let before: Task | undefined
  for (let task = queue.leaseHead; task !== undefined && count <= queue.leased; task = task.next) {
    const { at, holder, n } = task
    const previous = before
    count++
    living(engine, queue, task, State.leased, say)
    say(task.prev === previous, () => `task ${n}: the lease list is not linked back`)
    say(previous === undefined || previous.at <= at, () => `task ${n}: its lease ends before an earlier one`)
    say(holder !== undefined && engine.sessions.has(holder), () => `task ${n}: leased by nobody`)
    before = task
  }
  const last = before
  const listed = count
  say(queue.leaseTail === last, () => `${nameOf(queue)}: the lease list does not end at its tail`)
  say(listed === queue.leased, () => `${nameOf(queue)}: leased is ${queue.leased}, ${listed} are listed`)
  const { leaseHead, leaseTimer } = queue
  say(
    leaseHead === undefined || (leaseTimer !== undefined && leaseTimer.at <= leaseHead.at),
    () => `${nameOf(queue)}: no timer watches the next lease to expire`
  )
}

/** The table has every living task once, in put order, and the bytes are theirs. */
const livingTasks = (engine: Engine, queue: Queue, say: Say): void => {
  const { leasedBytes, livingBytes, unfinished } = queue
  const tasks: Array<Task> = []
  for (let after: number | undefined = 0; after !== undefined; ) {
    const walked = engine.tasks.after(queue, after, 100)
    tasks.push(...walked.tasks)
    after = walked.last
  }
  const counts = { ready: 0, delayed: 0, leased: 0 }
  let bytes = 0
  let leased = 0
  for (const [i, task] of tasks.entries()) {
    const { n, payloadBytes, state } = task
    say(i === 0 || tasks[i - 1]!.n < n, () => `task ${n} is out of put order`)
    say(engine.tasks.owner(n) === task && state !== State.ended, () => `task ${n} is listed as living and does not`)
    if (state === State.ended) continue
    const standing = standingOf(task)
    if (standing === Standing.ready) counts.ready++
    else if (standing === Standing.delayed) counts.delayed++
    else counts.leased++
    bytes += payloadBytes
    if (standing === Standing.leased) leased += payloadBytes
  }
  const expected = { ready: queue.ready.size, delayed: queue.delayed, leased: queue.leased }
  const [found, wanted] = [JSON.stringify(counts), JSON.stringify(expected)]
  say(
    tasks.length === unfinished && found === wanted,
    () => `${nameOf(queue)}: ${found} are listed as living of ${wanted}`
  )
  say(bytes === livingBytes, () => `${nameOf(queue)}: livingBytes is ${livingBytes}, living tasks have ${bytes}`)
  say(leased === leasedBytes, () => `${nameOf(queue)}: leasedBytes is ${leasedBytes}, leased tasks have ${leased}`)
}

const deadLetters = (queue: Queue, say: Say): void => {
  const letters = queue.deadLetters.all()
  const bytes = letters.reduce((sum, { task }) => sum + task.payloadBytes + (task.checkpoint?.byteLength ?? 0), 0)
  say(bytes === queue.deadLetters.bytes, () => `${nameOf(queue)}: dead letters count ${queue.deadLetters.bytes} bytes`)
  const listed = queue.deadLetters.after(0, letters.length + 1)
  const same = listed.length === letters.length && letters.every((letter, i) => listed[i] === letter)
  say(
    same,
    () => `${nameOf(queue)}: ${listed.length} of ${letters.length} dead letters are in the order of their deaths`
  )
  for (const { cursor, task } of letters) {
    say(task.state === State.ended, () => `task ${task.n} is a dead letter and lives`)
    const { log } = queue
    const right = cursor < log.first || (cursor < log.next && log.task(cursor) === task.n)
    say(right, () => `task ${task.n}: its dead letter leads to another outcome`)
  }
  say(
    queue.deadLetters.size + queue.redriven <= queue.dead,
    () => `${nameOf(queue)}: ${queue.deadLetters.size} dead letters and ${queue.redriven} redriven of ${queue.dead}`
  )
}

const dedupeIds = (engine: Engine, queue: Queue, say: Say): void => {
  const retained = new Set<string>()
  for (const { id } of queue.idsEnded.slice(queue.idsEndedFrom)) {
    say(!retained.has(id), () => `${nameOf(queue)}: id "${id}" is retained twice`)
    say(queue.ids.has(id), () => `${nameOf(queue)}: retained id "${id}" is not known`)
    retained.add(id)
  }
  say(retained.size <= queue.policy.dedupeKept, () => `${nameOf(queue)}: ${retained.size} ids are retained`)
  for (const [id, { n }] of queue.ids) {
    const owner = engine.tasks.owner(n)
    const lives = owner instanceof Task && owner.queue === queue && owner.options?.id === id
    say(lives !== retained.has(id), () => `${nameOf(queue)}: id "${id}" points at no living or retained task`)
  }
}

const outcomeLog = (engine: Engine, queue: Queue, say: Say): void => {
  const { cancelled, dead, done, log, policy } = queue
  const kept = log.next - log.first
  say(kept >= 0 && kept <= policy.outcomesKept, () => `${nameOf(queue)}: ${kept} outcomes are kept`)
  say(log.bytes >= 0 && log.bytes <= Limits.outcomesKeptBytes, () => `${nameOf(queue)}: the log has ${log.bytes} bytes`)
  say(
    log.next === done + dead + cancelled,
    () => `${nameOf(queue)}: ${log.next} outcomes of ${done + dead + cancelled}`
  )
  say(
    queue.deadLetters.size <= Limits.deadLettersKeptMax,
    () => `${nameOf(queue)}: ${queue.deadLetters.size} dead letters`
  )
  for (let cursor = log.first; cursor < log.next; cursor++) {
    const n = log.task(cursor)
    const found = engine.tasks.owner(n) === queue && engine.tasks.cursor(n) === cursor
    say(found, () => `${nameOf(queue)}: the table does not lead to the outcome of task ${n}`)
  }
}

const streams = (engine: Engine, queue: Queue, say: Say): void => {
  for (const stream of queue.leaseStreams) {
    const known = stream.session.leaseStreams.get(stream.id) === stream && engine.sessions.has(stream.session)
    say(known, () => `lease stream ${stream.id} is unknown to its session`)
    say(stream.credit >= 0 && stream.credit <= Limits.creditMax, () => `stream ${stream.id}: credit ${stream.credit}`)
  }
  for (const stream of queue.outcomeStreams) {
    const known = stream.session.outcomeStreams.get(stream.id) === stream && engine.sessions.has(stream.session)
    say(known, () => `outcome stream ${stream.id} is unknown to its session`)
    say(stream.cursor <= queue.log.next, () => `outcome stream ${stream.id} is ahead of its log`)
    say(stream.credit >= 0 && stream.credit <= Limits.creditMax, () => `stream ${stream.id}: credit ${stream.credit}`)
  }
}

const sharedObjects = (engine: Engine, say: Say): void => {
  for (const [i, object] of engine.objects.all.entries()) {
    const name = `${object.kind} "${object.name}"`
    say(object.id === i && engine.objects.find(object.name) === object, () => `${name} is not where it is looked for`)
    if (object.kind === "counter") {
      say(Number.isSafeInteger(object.value), () => `${name}: its value is ${object.value}`)
      continue
    }
    for (const fault of object.kind === "set" ? object.table.faults() : object.faults())
      say(false, () => `${name}: ${fault}`)
    if (object.kind === "dict") {
      say(object.size <= Limits.dictKeysMax, () => `${name}: ${object.size} keys`)
      say(object.bytes <= Limits.dictBytesMax, () => `${name}: ${object.bytes} bytes`)
    } else say(object.size <= Limits.setEntriesMax, () => `${name}: ${object.size} keys`)
  }
}

/** A wish and what would grant it do not both wait. */
const nobodyStuck = (queue: Queue, say: Say): void => {
  if (queue.ready.leasable > 0 && queue.gives) {
    say(queue.leaseWaiters.length === 0, () => `${nameOf(queue)}: a lease request waits beside a ready task`)
    const limited = queue.ready.nextIsLimited
    const hungry = queue.leaseStreams.find(
      ({ credit, prefetch, session }) => credit > (limited ? prefetch : 0) && !session.congested
    )
    say(hungry === undefined, () => `${nameOf(queue)}: stream ${hungry?.id} has credit beside a ready task`)
  }
  const first = queue.putWaiters[0]?.put
  if (first !== undefined) {
    const room = queue.policy.capacity - queue.waiting
    const wanted = first.atomic ? first.payloads : first.payloads.slice(first.tasks.length, first.tasks.length + 1)
    const bytes = wanted.reduce((sum, payload) => sum + payload.byteLength, 0)
    const stuck = queue.hasRoom(wanted.length, bytes) || queue.overflow !== undefined
    say(!stuck, () => `${nameOf(queue)}: a put of ${wanted.length} waits beside room for ${room}`)
  }
  say(queue.joinWaiters.length === 0 || queue.unfinished > 0, () => `${nameOf(queue)}: a join waits for an empty queue`)
  say(
    queue.closed === "open" || (queue.closed === "drain" && queue.unfinished > 0) || queue.leaseWaiters.length === 0,
    () => `${nameOf(queue)}: a lease request waits for a queue that is closed and done`
  )
}

const timers = (engine: Engine, say: Say): void => {
  const heap = engine.timers.entries()
  const delayed = new Map<Queue, number>()
  for (const [i, timer] of heap.entries()) {
    const { at, slot, subject } = timer
    say(slot === i, () => `a ${subject._tag} timer in slot ${i} believes it is in ${slot}`)
    const parent = i === 0 ? undefined : heap[(i - 1) >> 1]
    say(parent === undefined || parent.at <= at, () => `the timer heap is out of order at slot ${i}`)
    switch (subject._tag) {
      case "Due": {
        const { task } = subject
        delayed.set(task.queue, (delayed.get(task.queue) ?? 0) + 1)
        say(task.due === timer && task.at === at, () => `task ${task.n}: not its due timer`)
        living(engine, task.queue, task, State.delayed, say)
        break
      }
      case "Expiry": {
        const { task } = subject
        say(task.expiry === timer && task.state !== State.ended, () => `a timer of ended task ${task.n}`)
        break
      }
      case "Wait":
        say(subject.waiter.timer === timer && !subject.waiter.ended, () => "a timer of a wait that is over")
        break
      case "Leases":
        say(subject.queue.leaseTimer === timer, () => `${nameOf(subject.queue)}: a stray lease timer`)
        break
      case "Outcomes":
        say(subject.queue.evictTimer === timer, () => `${nameOf(subject.queue)}: a stray eviction timer`)
        break
      case "Repeat":
        say(subject.repeat.timer === timer, () => `a stray timer of repeat "${subject.repeat.definition.id}"`)
        break
      case "Sweep":
        say(subject.queue.sweepTimer === timer, () => `${nameOf(subject.queue)}: a stray sweep timer`)
        break
      case "Lanes":
        say(subject.queue.laneTimer === timer, () => `${nameOf(subject.queue)}: a stray lane timer`)
    }
  }
  for (const queue of engine.queues) {
    const count = delayed.get(queue) ?? 0
    say(count === queue.delayed, () => `${nameOf(queue)}: delayed is ${queue.delayed}, ${count} have a timer`)
    say(
      (queue.sweptTo !== undefined) === (queue.sweepTimer !== undefined),
      () => `${nameOf(queue)}: what waits will not be cancelled`
    )
    for (const timer of [queue.leaseTimer, queue.evictTimer, queue.sweepTimer, queue.laneTimer]) {
      say(timer === undefined || heap[timer.slot] === timer, () => `${nameOf(queue)}: a timer that will never ring`)
    }
  }
}

/** A repeat waits for its time or for its task: not for both, and not for neither. */
const repeats = (engine: Engine, say: Say): void => {
  const heap = engine.timers.entries()
  const all = engine.repeats.all()
  let running = 0
  for (const repeat of all) {
    const { queue, task, timer } = repeat
    const name = `repeat "${repeat.definition.id}" of ${nameOf(queue)}`
    say((timer === undefined) === (task !== 0), () => `${name}: timer ${timer?.at ?? "none"} beside task ${task}`)
    say(timer === undefined || heap[timer.slot] === timer, () => `${name}: a timer that will never ring`)
    say(queue.closed === "open", () => `${name}: the queue is closed`)
    if (task === 0) continue
    running++
    const owner = engine.tasks.owner(task)
    say(owner instanceof Task && owner.queue === queue, () => `${name}: its task ${task} is gone`)
    say(engine.repeats.running.get(task) === repeat, () => `${name}: its task ${task} will not be missed`)
  }
  const known = running
  say(known === engine.repeats.running.size, () => `${engine.repeats.running.size} occurrences run, ${known} are known`)
  say(all.length <= Limits.repeatsMax, () => `${all.length} repeats`)
  for (const queue of engine.queues) {
    say(engine.repeats.count(queue) <= Limits.repeatsPerQueueMax, () => `${nameOf(queue)}: too many repeats`)
  }
}

/** The sums that `stats` shows are those of the tasks. */
const bytes = (engine: Engine, say: Say): void => {
  const waiting = new Map<Queue, number>()
  const add = (task: Task): void => void waiting.set(task.queue, (waiting.get(task.queue) ?? 0) + task.payloadBytes)
  for (const { subject } of engine.timers.entries()) if (subject._tag === "Due") add(subject.task)
  engine.tasks.forEach((task) => {
    if (task.state === State.ready) add(task)
  })
  for (const queue of engine.queues) {
    let leased = 0
    let guard = queue.leased
    for (let task = queue.leaseHead; task !== undefined && guard-- > 0; task = task.next) leased += task.payloadBytes
    const held = leased
    const rest = waiting.get(queue) ?? 0
    say(queue.leasedBytes === held, () => `${nameOf(queue)}: leasedBytes is ${queue.leasedBytes}, not ${held}`)
    say(queue.waitingBytes === rest, () => `${nameOf(queue)}: waitingBytes is ${queue.waitingBytes}, not ${rest}`)
  }
}

const sessions = (engine: Engine, say: Say): void => {
  const leased = new Map<unknown, number>()
  const queued = new Set<Waiter>()
  for (const queue of engine.queues) {
    let guard = queue.leased
    for (let task = queue.leaseHead; task !== undefined && guard-- > 0; task = task.next) {
      leased.set(task.holder, (leased.get(task.holder) ?? 0) + 1)
    }
    const lists = [queue.putWaiters, queue.leaseWaiters, queue.joinWaiters, ...queue.outcomeWaiters.values()]
    for (const waiter of lists.flat()) {
      queued.add(waiter)
      say(waiter.queue === queue && !waiter.ended, () => `${nameOf(queue)}: keeps a ${waiter.kind} that is over`)
      say(waiter.session.waiting.has(waiter), () => `${nameOf(queue)}: a ${waiter.kind} unknown to its session`)
      say(engine.sessions.has(waiter.session), () => `${nameOf(queue)}: a ${waiter.kind} of a session that is over`)
    }
    for (const [n, waiting] of queue.outcomeWaiters) {
      const owner = engine.tasks.owner(n)
      say(waiting.length > 0, () => `${nameOf(queue)}: an empty list of waits for task ${n}`)
      say(owner instanceof Task && owner.queue === queue, () => `${nameOf(queue)}: task ${n} is gone and waited for`)
    }
  }
  for (const session of engine.sessions) {
    const count = leased.get(session) ?? 0
    say(count === session.leased, () => `session ${session.id}: leased is ${session.leased}, it holds ${count}`)
    for (const waiter of session.waiting) {
      say(queued.has(waiter), () => `session ${session.id}: its ${waiter.kind} is in no queue`)
    }
    for (const stream of session.leaseStreams.values()) {
      say(stream.queue.leaseStreams.includes(stream), () => `lease stream ${stream.id} is unknown to its queue`)
    }
    for (const stream of session.outcomeStreams.values()) {
      say(stream.queue.outcomeStreams.includes(stream), () => `outcome stream ${stream.id} is unknown to its queue`)
    }
  }
}
