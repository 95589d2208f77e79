/**
 * What must hold of an engine between rounds, checked from the outside and without mercy for cost.
 *
 * Tests and the simulator call `check` after every step; the manager never does. Each violation is a sentence that names
 * the queue, task or session; none means that the engine's lists, counts, timers and logs agree with each other.
 */
import * as Limits from "../Limits.ts"
import type { Engine } from "./Engine.ts"
import type { Lane } from "./Lane.ts"
import { checkLanes } from "./LaneInvariants.ts"
import { Standing, standingOf } from "./Life.ts"
import type { Queue } from "./Queue.ts"
import type { Waiter } from "./Session.ts"
import { entryBytesOf, progressBytesOf, State, Task } from "./Task.ts"
import type { Timer } from "./Timers.ts"

/** Assumes: `dispatch` has run since the last command. Ensures: nothing is changed. */
export const check = (engine: Engine): ReadonlyArray<string> => {
  const found: Array<string> = []
  const say: Say = (text) => void found.push(text)
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

type Say = (text: string) => void

const nameOf = (queue: Queue): string => `queue "${queue.definition.name}"`

const conservation = (queue: Queue, say: Say): void => {
  const { acknowledged, cancelled, dead, delayed, done, leased, purged, puts, ready } = queue
  const parts = () => ({ ready: ready.size, delayed, leased, done, dead, cancelled, acknowledged, purged })
  const sum = ready.size + delayed + leased + done + dead + cancelled + acknowledged + purged
  if (puts !== sum) say(`${nameOf(queue)}: ${puts} puts are not the sum of ${JSON.stringify(parts())}`)
  if (Math.min(ready.size, delayed, leased, done, dead, cancelled, acknowledged, purged) >= 0) return
  for (const [name, count] of Object.entries(parts())) {
    if (!(count >= 0)) say(`${nameOf(queue)}: ${name} is ${count}`)
  }
}

const living = (engine: Engine, queue: Queue, task: Task, state: State, say: Say): void => {
  if (task.state !== state) say(`task ${task.n}: state ${task.state} in a list of state ${state}`)
  if (task.queue !== queue) say(`task ${task.n} is in a list of ${nameOf(queue)} and belongs to another`)
  if (engine.tasks.owner(task.n) !== task) say(`task ${task.n} is in a list and not in the table`)
  if (!(task.attempt >= 0 && task.attempt <= task.leases)) say(`task ${task.n}: attempt ${task.attempt}`)
  if (task.releases >= Limits.releasesMax) say(`task ${task.n} lives after ${task.releases} releases`)
  if (task.lossesWhileStarted >= Limits.lossesWhileStartedMax) say(`task ${task.n} lives after its last loss`)
  if ((task.holder !== undefined) !== (state === State.leased)) say(`task ${task.n}: holder in state ${state}`)
  if ((task.due !== undefined) !== (state === State.delayed)) say(`task ${task.n}: due timer in state ${state}`)
}

const readyTasks = (engine: Engine, queue: Queue, say: Say): void => {
  const { ready } = queue
  checkLanes(
    ready,
    (text) => say(`${nameOf(queue)}: ${text}`),
    (task) => living(engine, queue, task, State.ready, say)
  )
  const running = new Map<string | undefined, number>()
  let guard = queue.leased
  for (let task = queue.leaseHead; task !== undefined && guard-- > 0; task = task.next) {
    running.set(task.options?.key, (running.get(task.options?.key) ?? 0) + 1)
  }
  const runs = (lane: Lane): void => {
    const count = running.get(lane.key) ?? 0
    running.delete(lane.key)
    if (count !== lane.running) say(`${nameOf(queue)}: lane "${lane.key}" counts ${lane.running} leases of ${count}`)
  }
  const { lanes, plain } = ready.inside()
  runs(plain)
  for (const lane of lanes.values()) runs(lane)
  for (const [key, count] of running) say(`${nameOf(queue)}: ${count} leases of unknown lane "${key}"`)
  const { laneTimer } = queue
  const watched = laneTimer === undefined ? Number.POSITIVE_INFINITY : laneTimer.at
  if (watched > ready.nextOpenAt) say(`${nameOf(queue)}: no timer watches the next lane to open`)
}

const leasedTasks = (engine: Engine, queue: Queue, say: Say): void => {
  let count = 0
  let before: Task | undefined
  for (let task = queue.leaseHead; task !== undefined && count <= queue.leased; task = task.next) {
    const { at, holder, n } = task
    count++
    living(engine, queue, task, State.leased, say)
    if (task.prev !== before) say(`task ${n}: the lease list is not linked back`)
    if (before !== undefined && !(before.at <= at)) say(`task ${n}: its lease ends before an earlier one`)
    if (holder === undefined || !engine.sessions.has(holder)) say(`task ${n}: leased by nobody`)
    before = task
  }
  if (queue.leaseTail !== before) say(`${nameOf(queue)}: the lease list does not end at its tail`)
  if (count !== queue.leased) say(`${nameOf(queue)}: leased is ${queue.leased}, ${count} are listed`)
  const { leaseHead, leaseTimer } = queue
  if (leaseHead !== undefined && !(leaseTimer !== undefined && leaseTimer.at <= leaseHead.at)) {
    say(`${nameOf(queue)}: no timer watches the next lease to expire`)
  }
}

/** The table has every living task once, in put order, and the bytes are theirs. */
const livingTasks = (engine: Engine, queue: Queue, say: Say): void => {
  const { leasedBytes, livingBytes, unfinished } = queue
  let [ready, delayed, held, bytes, leased, progress, count, before] = [0, 0, 0, 0, 0, 0, 0, 0]
  for (let after: number | undefined = 0; after !== undefined; ) {
    const walked = engine.tasks.after(queue, after, 100)
    for (const task of walked.tasks) {
      const { n, payloadBytes, state } = task
      if (!(before < n)) say(`task ${n} is out of put order`)
      before = n
      count++
      if (engine.tasks.owner(n) !== task || state === State.ended) say(`task ${n} is listed as living and does not`)
      if (state === State.ended) continue
      const standing = standingOf(task)
      if (standing === Standing.ready) ready++
      else if (standing === Standing.delayed) delayed++
      else {
        held++
        leased += payloadBytes
      }
      bytes += payloadBytes
      progress += progressBytesOf(task)
      let entryBytes = 0
      for (const [name, value] of task.entries ?? []) entryBytes += entryBytesOf(name, value)
      if (entryBytes !== task.entryBytes) say(`task ${n} counts ${task.entryBytes} bytes of entries, not ${entryBytes}`)
      if (task.suspended && state !== State.delayed) say(`task ${n} is suspended and not delayed`)
    }
    after = walked.last
  }
  if (count !== unfinished || ready !== queue.ready.size || delayed !== queue.delayed || held !== queue.leased) {
    const wanted = JSON.stringify({ ready: queue.ready.size, delayed: queue.delayed, leased: queue.leased })
    const found = JSON.stringify({ ready, delayed, leased: held })
    say(`${nameOf(queue)}: ${found} are listed as living of ${wanted}`)
  }
  if (bytes !== livingBytes) say(`${nameOf(queue)}: livingBytes is ${livingBytes}, living tasks have ${bytes}`)
  if (progress !== queue.progressBytes)
    say(`${nameOf(queue)}: progressBytes is ${queue.progressBytes}, not ${progress}`)
  if (leased !== leasedBytes) say(`${nameOf(queue)}: leasedBytes is ${leasedBytes}, leased tasks have ${leased}`)
}

const deadLetters = (queue: Queue, say: Say): void => {
  const letters = queue.deadLetters.all()
  let bytes = 0
  for (const { task } of letters) bytes += task.payloadBytes + progressBytesOf(task)
  if (bytes !== queue.deadLetters.bytes) say(`${nameOf(queue)}: dead letters count ${queue.deadLetters.bytes} bytes`)
  const listed = queue.deadLetters.after(0, letters.length + 1)
  if (listed.length !== letters.length || !letters.every((letter, i) => listed[i] === letter)) {
    say(`${nameOf(queue)}: ${listed.length} of ${letters.length} dead letters are in the order of their deaths`)
  }
  for (const { cursor, task } of letters) {
    if (task.state !== State.ended) say(`task ${task.n} is a dead letter and lives`)
    const { log } = queue
    const right = cursor < log.first || (cursor < log.next && log.task(cursor) === task.n)
    if (!right) say(`task ${task.n}: its dead letter leads to another outcome`)
  }
  if (queue.deadLetters.size + queue.redriven > queue.dead)
    say(`${nameOf(queue)}: ${queue.deadLetters.size} dead letters and ${queue.redriven} redriven of ${queue.dead}`)
}

const dedupeIds = (engine: Engine, queue: Queue, say: Say): void => {
  const retained = new Set<string>()
  for (let i = queue.idsEndedFrom; i < queue.idsEnded.length; i++) {
    const { id } = queue.idsEnded[i]!
    if (retained.has(id)) say(`${nameOf(queue)}: id "${id}" is retained twice`)
    if (!queue.ids.has(id)) say(`${nameOf(queue)}: retained id "${id}" is not known`)
    retained.add(id)
  }
  if (retained.size > queue.policy.dedupeKept) say(`${nameOf(queue)}: ${retained.size} ids are retained`)
  for (const [id, { n }] of queue.ids) {
    const owner = engine.tasks.owner(n)
    const lives = owner instanceof Task && owner.queue === queue && owner.options?.id === id
    if (lives === retained.has(id)) say(`${nameOf(queue)}: id "${id}" points at no living or retained task`)
  }
}

const outcomeLog = (engine: Engine, queue: Queue, say: Say): void => {
  const { cancelled, dead, done, log, policy } = queue
  const kept = log.next - log.first
  if (!(kept >= 0 && kept <= policy.outcomesKept)) say(`${nameOf(queue)}: ${kept} outcomes are kept`)
  if (!(log.bytes >= 0 && log.bytes <= Limits.outcomesKeptBytes))
    say(`${nameOf(queue)}: the log has ${log.bytes} bytes`)
  if (log.next !== done + dead + cancelled) say(`${nameOf(queue)}: ${log.next} outcomes of ${done + dead + cancelled}`)
  if (queue.deadLetters.size > Limits.deadLettersKeptMax)
    say(`${nameOf(queue)}: ${queue.deadLetters.size} dead letters`)
  for (let cursor = log.first; cursor < log.next; cursor++) {
    const n = log.task(cursor)
    const found = engine.tasks.owner(n) === queue && engine.tasks.cursor(n) === cursor
    if (!found) say(`${nameOf(queue)}: the table does not lead to the outcome of task ${n}`)
  }
}

const streams = (engine: Engine, queue: Queue, say: Say): void => {
  for (const stream of queue.leaseStreams) {
    const known = stream.session.leaseStreams.get(stream.id) === stream && engine.sessions.has(stream.session)
    if (!known) say(`lease stream ${stream.id} is unknown to its session`)
    if (!(stream.credit >= 0 && stream.credit <= Limits.creditMax)) say(`stream ${stream.id}: credit ${stream.credit}`)
  }
  for (const stream of queue.outcomeStreams) {
    const known = stream.session.outcomeStreams.get(stream.id) === stream && engine.sessions.has(stream.session)
    if (!known) say(`outcome stream ${stream.id} is unknown to its session`)
    if (stream.cursor > queue.log.next) say(`outcome stream ${stream.id} is ahead of its log`)
    if (!(stream.credit >= 0 && stream.credit <= Limits.creditMax)) say(`stream ${stream.id}: credit ${stream.credit}`)
  }
}

const sharedObjects = (engine: Engine, say: Say): void => {
  for (const [i, object] of engine.objects.all.entries()) {
    const name = `${object.kind} "${object.name}"`
    if (!(object.id === i && engine.objects.find(object.name) === object)) say(`${name} is not where it is looked for`)
    if (object.kind === "counter") {
      if (!Number.isSafeInteger(object.value)) say(`${name}: its value is ${object.value}`)
      continue
    }
    for (const fault of object.kind === "set" ? object.table.faults() : object.faults()) say(`${name}: ${fault}`)
    if (object.kind === "dict") {
      if (object.size > Limits.dictKeysMax) say(`${name}: ${object.size} keys`)
      if (object.bytes > Limits.dictBytesMax) say(`${name}: ${object.bytes} bytes`)
    } else if (object.size > Limits.setEntriesMax) say(`${name}: ${object.size} keys`)
  }
}

/** A wish and what would grant it do not both wait. */
const nobodyStuck = (queue: Queue, say: Say): void => {
  if (queue.ready.leasable > 0 && queue.gives) {
    if (queue.leaseWaiters.length > 0) say(`${nameOf(queue)}: a lease request waits beside a ready task`)
    const limited = queue.ready.nextIsLimited
    const hungry = queue.leaseStreams.find(
      ({ credit, prefetch, session }) => credit > (limited ? prefetch : 0) && !session.congested
    )
    if (hungry !== undefined) say(`${nameOf(queue)}: stream ${hungry.id} has credit beside a ready task`)
  }
  const first = queue.putWaiters[0]?.put
  if (first !== undefined) {
    const room = queue.policy.capacity - queue.waiting
    const wanted = first.atomic ? first.payloads : first.payloads.slice(first.tasks.length, first.tasks.length + 1)
    const bytes = wanted.reduce((sum, payload) => sum + payload.byteLength, 0)
    const stuck = queue.hasRoom(wanted.length, bytes) || queue.overflow !== undefined
    if (stuck) say(`${nameOf(queue)}: a put of ${wanted.length} waits beside room for ${room}`)
  }
  if (queue.joinWaiters.length > 0 && queue.unfinished === 0) say(`${nameOf(queue)}: a join waits for an empty queue`)
  const more = queue.closed === "open" || (queue.closed === "drain" && queue.unfinished > 0)
  if (!more && queue.leaseWaiters.length > 0) {
    say(`${nameOf(queue)}: a lease request waits for a queue that is closed and done`)
  }
}

const timers = (engine: Engine, say: Say): void => {
  const heap = engine.timers.entries()
  const delayed = new Map<Queue, number>()
  for (let i = 0; i < heap.length; i++) {
    const timer = heap[i]!
    const { at, slot, subject } = timer
    if (slot !== i) say(`a ${subject._tag} timer in slot ${i} believes it is in ${slot}`)
    const parent = i === 0 ? undefined : heap[(i - 1) >> 1]
    if (!(parent === undefined || parent.at <= at)) say(`the timer heap is out of order at slot ${i}`)
    switch (subject._tag) {
      case "Due": {
        const { task } = subject
        delayed.set(task.queue, (delayed.get(task.queue) ?? 0) + 1)
        if (!(task.due === timer && task.at === at)) say(`task ${task.n}: not its due timer`)
        living(engine, task.queue, task, State.delayed, say)
        break
      }
      case "Expiry": {
        const { task } = subject
        if (!(task.expiry === timer && task.state !== State.ended)) say(`a timer of ended task ${task.n}`)
        break
      }
      case "Wait":
        if (!(subject.waiter.timer === timer && !subject.waiter.ended)) say("a timer of a wait that is over")
        break
      case "Leases":
        if (subject.queue.leaseTimer !== timer) say(`${nameOf(subject.queue)}: a stray lease timer`)
        break
      case "Outcomes":
        if (subject.queue.evictTimer !== timer) say(`${nameOf(subject.queue)}: a stray eviction timer`)
        break
      case "Repeat":
        if (subject.repeat.timer !== timer) say(`a stray timer of repeat "${subject.repeat.definition.id}"`)
        break
      case "Sweep":
        if (subject.queue.sweepTimer !== timer) say(`${nameOf(subject.queue)}: a stray sweep timer`)
        break
      case "Lanes":
        if (subject.queue.laneTimer !== timer) say(`${nameOf(subject.queue)}: a stray lane timer`)
    }
  }
  for (const queue of engine.queues) {
    const count = delayed.get(queue) ?? 0
    if (count !== queue.delayed) say(`${nameOf(queue)}: delayed is ${queue.delayed}, ${count} have a timer`)
    if ((queue.sweptTo !== undefined) !== (queue.sweepTimer !== undefined))
      say(`${nameOf(queue)}: what waits will not be cancelled`)
    const rings = (timer: Timer | undefined): boolean => timer === undefined || heap[timer.slot] === timer
    if (!rings(queue.leaseTimer) || !rings(queue.evictTimer) || !rings(queue.sweepTimer) || !rings(queue.laneTimer)) {
      say(`${nameOf(queue)}: a timer that will never ring`)
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
    if ((timer === undefined) !== (task !== 0)) say(`${name}: timer ${timer?.at ?? "none"} beside task ${task}`)
    if (!(timer === undefined || heap[timer.slot] === timer)) say(`${name}: a timer that will never ring`)
    if (queue.closed !== "open") say(`${name}: the queue is closed`)
    if (task === 0) continue
    running++
    const owner = engine.tasks.owner(task)
    if (!(owner instanceof Task && owner.queue === queue)) say(`${name}: its task ${task} is gone`)
    if (engine.repeats.running.get(task) !== repeat) say(`${name}: its task ${task} will not be missed`)
  }
  if (running !== engine.repeats.running.size) {
    say(`${engine.repeats.running.size} occurrences run, ${running} are known`)
  }
  if (all.length > Limits.repeatsMax) say(`${all.length} repeats`)
  for (const queue of engine.queues) {
    if (engine.repeats.count(queue) > Limits.repeatsPerQueueMax) say(`${nameOf(queue)}: too many repeats`)
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
    const rest = waiting.get(queue) ?? 0
    if (queue.leasedBytes !== leased) say(`${nameOf(queue)}: leasedBytes is ${queue.leasedBytes}, not ${leased}`)
    if (queue.waitingBytes !== rest) say(`${nameOf(queue)}: waitingBytes is ${queue.waitingBytes}, not ${rest}`)
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
    const look = (waiter: Waiter): void => {
      queued.add(waiter)
      if (!(waiter.queue === queue && !waiter.ended)) say(`${nameOf(queue)}: keeps a ${waiter.kind} that is over`)
      if (!waiter.session.waiting.has(waiter)) say(`${nameOf(queue)}: a ${waiter.kind} unknown to its session`)
      if (!engine.sessions.has(waiter.session)) say(`${nameOf(queue)}: a ${waiter.kind} of a session that is over`)
    }
    for (const waiter of queue.putWaiters) look(waiter)
    for (const waiter of queue.leaseWaiters) look(waiter)
    for (const waiter of queue.joinWaiters) look(waiter)
    for (const [n, waiting] of queue.outcomeWaiters) {
      for (const waiter of waiting) look(waiter)
      const owner = engine.tasks.owner(n)
      if (waiting.length <= 0) say(`${nameOf(queue)}: an empty list of waits for task ${n}`)
      if (!(owner instanceof Task && owner.queue === queue)) say(`${nameOf(queue)}: task ${n} is gone and waited for`)
    }
  }
  for (const session of engine.sessions) {
    const count = leased.get(session) ?? 0
    if (count !== session.leased) say(`session ${session.id}: leased is ${session.leased}, it holds ${count}`)
    for (const waiter of session.waiting) {
      if (!queued.has(waiter)) say(`session ${session.id}: its ${waiter.kind} is in no queue`)
    }
    for (const stream of session.leaseStreams.values()) {
      if (!stream.queue.leaseStreams.includes(stream)) say(`lease stream ${stream.id} is unknown to its queue`)
    }
    for (const stream of session.outcomeStreams.values()) {
      if (!stream.queue.outcomeStreams.includes(stream)) say(`outcome stream ${stream.id} is unknown to its queue`)
    }
  }
}
