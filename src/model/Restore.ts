/**
 * Rebuilds an engine from the rows of its log: rows in order through `row`, then `finish`.
 *
 * While rows are read nothing is linked: tasks lie in the task table with their state as data. `finish` links them into
 * ready lists, timers and lease lists, gives every lease a full new term, and drops what the bounds no longer allow.
 * A cleaned log names queues and sessions before it defines them: their records have moved to its end.
 * Payloads and outcome bodies stay in the log and are read when they are needed.
 *
 * Ensures: the engine's durable state equals that of the engine that wrote the rows.
 */
import { Malformed } from "../wire/Bytes.ts"
import type { DeadLetter } from "./DeadLetters.ts"
import { type Engine, fenceBase } from "./Engine.ts"
import type { Row } from "./Journal.ts"
import { type Durability, defaults, durabilityOf } from "./Policy.ts"
import type { DedupeId, Queue, QueueDefinition } from "./Queue.ts"
import {
  closedStates,
  type EndedRecord,
  Kind,
  type LaneRecord,
  type OutcomeRecord,
  type QueueRecord,
  type Record,
  type RepeatRecord,
  readRow,
  type TaskRecord,
  type Visitor
} from "./Records.ts"
import { forgetAnswers, type PutProgress, type PutStatus, Remembered, type Session } from "./Session.ts"
import { Outcome, Reason, State, Task, type TaskOptions } from "./Task.ts"

export interface RestoreOptions {
  readonly session: (id: number, token: Uint8Array, principal: string) => Session
  /** The answer that was given, from how it travels. */
  readonly answer: (message: Uint8Array) => unknown
  /** The manager's own definition of a queue, which wins over the one in the log. */
  readonly definition: (name: string) => QueueDefinition | undefined
  /** The best level that the store gives in this life. */
  readonly durability: Durability
}

/** A session as far as the rows have told. */
class RestoredSession {
  token: Uint8Array | undefined = undefined
  principal = ""
  home = 0
  readonly answers = new Map<number, Remembered>()
  readonly partial = new Map<number, PutProgress>()
}

/** Stands for a queue that is named before it is defined. */
const undefinedYet: QueueDefinition = {
  name: "",
  fingerprint: new Uint8Array(),
  schema: "",
  accepts: [],
  policy: defaults,
  durability: "fsync"
}

export class Restorer implements Visitor {
  /** The time of the last round. */
  lastNow = 0
  lastSeq = 0
  /** The first row there is; 0: none. */
  firstSeq = 0
  namespaceHome = 0
  /** Filled by `finish`. */
  readonly sessions: Array<Session> = []
  readonly #sessions = new Map<number, RestoredSession>()
  /** The session of each leased task. */
  readonly #holders = new Map<number, number>()
  /** Dedupe ids of tasks that ended: when. */
  readonly #idsEnded = new Map<DedupeId, number>()
  readonly #engine: Engine
  readonly #options: RestoreOptions
  #nextTask = 1
  #nextSession = 1
  #seq = 0
  #epoch = 0
  #now = 0
  /** Rows with the names of shared objects. */
  readonly objectHomes = new Map<number, number>()
  /** Rows with checkpoints that are in no full record. */
  readonly checkpointHomes = new Map<Task, number>()
  /** Dead letters by their task. */
  readonly #letters = new Map<number, DeadLetter>()
  readonly #fences = new Map<number, number>()
  readonly #lanes = new Map<string, { readonly record: LaneRecord; readonly home: number }>()
  /** Rows with the settings of lanes. Filled by `finish`. */
  readonly laneHomes = new Map<Queue, Map<string, number>>()
  readonly #repeats = new Map<string, { readonly record: RepeatRecord; readonly home: number }>()

  constructor(engine: Engine, options: RestoreOptions) {
    this.#engine = engine
    this.#options = options
  }

  /** Applies one row. Throws `Malformed` for a row that this version did not write. */
  apply(row: Row): void {
    if (this.lastSeq > 0 && row.seq !== this.lastSeq + 1) {
      throw new Malformed(`row ${row.seq} follows row ${this.lastSeq}`)
    }
    readRow(row, this)
    this.lastSeq = row.seq
    if (this.firstSeq === 0) this.firstSeq = row.seq
  }

  row = (seq: number, epoch: number, now: number): void => {
    this.#seq = seq
    this.#epoch = epoch
    this.#now = now
    this.lastNow = Math.max(this.lastNow, now)
  }

  record = (record: Record): void => {
    const { tasks } = this.#engine
    switch (record.kind) {
      case Kind.namespace:
        this.#nextTask = Math.max(this.#nextTask, record.nextTask)
        this.#nextSession = Math.max(this.#nextSession, record.nextSession)
        this.namespaceHome = this.#seq
        this.#engine.objects.restoreKey(record.objectsKey)
        return
      case Kind.lane: {
        const name = `${record.queue} ${record.key}`
        if (record.setting === undefined) this.#lanes.delete(name)
        else this.#lanes.set(name, { record, home: this.#seq })
        return
      }
      case Kind.object:
        this.objectHomes.set(record.id, this.#seq)
        return this.#engine.objects.restoreObject(record.id, record.name, record.object, record.durability)
      case Kind.setAdded:
        return this.#engine.objects.restoreSetEntry(record.id, record.fingerprint, this.#seq, record.at)
      case Kind.setRemoved:
        return this.#engine.objects.restoreSetRemoval(record.id, record.fingerprint)
      case Kind.counter:
        return this.#engine.objects.restoreCounter(record.id, record.value, record.version)
      case Kind.dictEntry: {
        const { born, id, key, value, version } = record
        return this.#engine.objects.restoreDictEntry(id, key, value, version, born)
      }
      case Kind.dictDeleted:
        return this.#engine.objects.restoreDictDeletion(record.id, record.key, record.version)
      case Kind.queue:
        return this.#queueRecord(record)
      case Kind.put:
      case Kind.putWith: {
        const { dueAt, n, options, origin, payload } = record
        const task = this.#entered(n, record.queue, options, payload.at, payload.size)
        task.origin = origin
        task.checkpoint = record.checkpoint
        if (dueAt > 0) {
          task.state = State.delayed
          task.at = dueAt
        }
        const id = options?.id
        if (id !== undefined) task.queue.ids.set(id, { id, n, until: Number.POSITIVE_INFINITY, home: 0 })
        return
      }
      case Kind.task:
        return this.#task(record)
      case Kind.leased: {
        const task = tasks.owner(record.n)
        if (!(task instanceof Task)) return
        task.state = State.leased
        task.suspended = false
        task.attempt++
        task.leases++
        this.#holders.set(record.n, record.session)
        this.#fences.set(record.n, this.#epoch * fenceBase + task.leases)
        return
      }
      case Kind.returned: {
        const task = tasks.owner(record.n)
        if (!(task instanceof Task)) return
        task.state = record.state === State.delayed ? State.delayed : State.ready
        this.#fences.delete(record.n)
        this.#holders.delete(record.n)
        task.at = record.at
        task.place = record.place
        task.suspended = false
        task.attempt = record.attempt
        task.releases = record.releases
        task.lossesWhileStarted = record.losses
        task.reasons = record.reasons.length === 0 ? undefined : [...record.reasons]
        return
      }
      case Kind.ended:
        return this.#ended(record)
      case Kind.redriven: {
        const queue = this.#queue(record.queue)
        queue.redriven++
        this.#letters.delete(record.n)
        return
      }
      case Kind.checkpoint: {
        const task = tasks.owner(record.n)
        if (!(task instanceof Task)) return
        task.checkpoint = record.bytes
        this.checkpointHomes.set(task, this.#seq)
        return
      }
      case Kind.suspended: {
        const task = tasks.owner(record.n)
        if (!(task instanceof Task)) return
        task.state = State.delayed
        task.suspended = true
        task.at = record.at
        task.attempt = record.attempt
        task.lossesWhileStarted = 0
        this.#fences.delete(record.n)
        this.#holders.delete(record.n)
        return
      }
      case Kind.entries: {
        const owner = tasks.owner(record.n)
        const task = owner instanceof Task ? owner : this.#letters.get(record.n)?.task
        for (const [name, value] of record.entries) task?.addEntry(name, value)
        return
      }
      case Kind.acknowledged:
      case Kind.purged: {
        const queue = this.#queue(record.queue)
        if (record.kind === Kind.purged) queue.purged++
        else queue.acknowledged++
        const task = tasks.owner(record.n)
        if (!(task instanceof Task)) return
        this.#endId(task)
        this.#fences.delete(task.n)
        tasks.remove(task.n)
        return
      }
      case Kind.outcome:
        return this.#outcome(record)
      case Kind.dedupe: {
        const queue = this.#queue(record.queue)
        const known = queue.ids.get(record.id)
        if (known !== undefined && known.n !== record.n) return
        const entry = known ?? { id: record.id, n: record.n, until: record.until, home: this.#seq }
        entry.until = record.until
        entry.home = this.#seq
        this.#idsEnded.delete(entry)
        queue.ids.set(record.id, entry)
        return
      }
      case Kind.session: {
        const session = this.#session(record.id)
        session.token = record.token
        session.principal = record.principal
        session.home = this.#seq
        this.#nextSession = Math.max(this.#nextSession, record.id + 1)
        return
      }
      case Kind.sessionEnded:
        this.#sessions.delete(record.id)
        return
      case Kind.answer: {
        const session = this.#session(record.session)
        const answer = new Remembered(this.#options.answer(record.message))
        answer.home = this.#seq
        session.answers.set(record.request, answer)
        session.partial.delete(record.request)
        return
      }
      case Kind.answersSeen:
        return forgetAnswers(this.#session(record.session).answers, record.ranges)
      case Kind.repeat:
        this.#repeats.set(`${record.queue} ${record.state.definition.id}`, { record, home: this.#seq })
        return
      case Kind.repeatRemoved:
        this.#repeats.delete(`${record.queue} ${record.id}`)
        return
      case Kind.putProgress: {
        const { request, tasks } = record
        const statuses = record.statuses as ReadonlyArray<PutStatus>
        this.#session(record.session).partial.set(request, { home: this.#seq, tasks, statuses })
        return
      }
    }
  }

  /** Links everything. `now` is the engine time of the new life: not before `lastNow`. */
  finish(now: number): void {
    const engine = this.#engine
    engine.restoreNumbers(this.#nextTask, this.#nextSession)
    const sessions = new Map<number, Session>()
    for (const [id, { answers, home, partial, principal, token }] of this.#sessions) {
      if (token === undefined) continue
      const session = this.#options.session(id, token, principal)
      session.home = home
      for (const [request, answer] of answers) session.answers.set(request, answer)
      if (partial.size > 0) session.partial = partial
      engine.sessions.add(session)
      sessions.set(id, session)
      this.sessions.push(session)
    }
    for (const queue of engine.queues) {
      if (queue?.definition === undefinedYet || queue === undefined)
        throw new Malformed("a queue is named and not defined")
    }
    for (const queue of engine.queues) {
      for (const entry of queue.ids.values()) {
        const at = this.#idsEnded.get(entry)
        if (at !== undefined) entry.until = at + queue.policy.dedupeKeptMs
      }
      const ended: Array<number> = []
      queue.log.restored((n) => ended.push(n))
      for (const n of ended) engine.tasks.remove(n)
      // In the order in which they ended, whatever the order in which the cleaner wrote them again.
      const ids = [...queue.ids.values()].filter(({ until }) => until !== Number.POSITIVE_INFINITY)
      queue.idsEnded.push(...ids.sort((a, b) => a.until - b.until || a.n - b.n))
    }
    for (const { cursor, diedAt, task } of [...this.#letters.values()].sort((a, b) => a.cursor - b.cursor)) {
      task.queue.deadLetters.add(task, cursor, diedAt)
    }
    engine.tasks.sort()
    for (const queue of engine.queues) queue.ready.restart(now)
    for (const { home, record } of this.#lanes.values()) {
      const queue = this.#queue(record.queue)
      if (record.setting !== undefined) queue.ready.restore(record.key, record.setting)
      const homes = this.laneHomes.get(queue) ?? new Map<string, number>()
      this.laneHomes.set(queue, homes.set(record.key, home))
    }
    engine.tasks.forEach((task) => {
      const holder = this.#holders.get(task.n)
      if (holder !== undefined) task.holder = sessions.get(holder)
      engine.restoreTask(task, this.#fences.get(task.n), now)
    })
    const lives = (n: number): boolean => engine.tasks.owner(n) instanceof Task
    for (const { home, record } of this.#repeats.values()) {
      engine.repeats.restore(this.#queue(record.queue), record.state, lives, now).home = home
    }
    for (const queue of engine.queues) engine.restored(queue, now)
  }

  #queue(id: number): Queue {
    return this.#engine.queues[id] ?? this.#engine.restoreQueue(id, undefinedYet)
  }

  #session(id: number): RestoredSession {
    let session = this.#sessions.get(id)
    if (session === undefined) {
      session = new RestoredSession()
      this.#sessions.set(id, session)
    }
    return session
  }

  #queueRecord(record: QueueRecord): void {
    const queue = this.#queue(record.id)
    const { accepts, durability, fingerprint, name, policy, schema } = record
    const { definition, durability: best } = this.#options
    const known = definition(name) ?? { accepts, fingerprint, name, policy, schema }
    const asked = durabilityOf(known.policy, best)
    // Its tasks are in the log: were their ends no longer written, the next life would find them alive again.
    const level = asked === "memory" && durability !== "memory" ? "buffered" : asked
    this.#engine.redefine(queue, { ...known, durability: level })
    queue.closed = closedStates[record.closed]!
    queue.paused = record.paused
    queue.home = this.#seq
    if (record.counters.length > 0) queue.restoreCounters(record.counters)
  }

  put = (n: number, queue: number, at: number, size: number): void => void this.#entered(n, queue, undefined, at, size)

  #entered(n: number, queueId: number, options: TaskOptions | undefined, at: number, size: number): Task {
    const queue = this.#queue(queueId)
    const task = new Task(n, queue, undefined, options, this.#now, size)
    task.home = this.#seq
    task.homeAt = at
    this.#engine.tasks.add(n, task)
    queue.puts++
    this.#nextTask = Math.max(this.#nextTask, n + 1)
    return task
  }

  #task(record: TaskRecord): void {
    const queue = this.#queue(record.queue)
    const { tasks } = this.#engine
    const { n, options, payload } = record
    const owner = tasks.owner(n)
    const task = new Task(n, queue, undefined, options, record.putAt, payload.size)
    task.state = record.state as State
    task.at = record.at
    task.place = record.place
    task.origin = record.origin
    task.attempt = record.attempt
    task.leases = record.leases
    task.releases = record.releases
    task.lossesWhileStarted = record.losses
    task.expired = record.expired
    if (record.holder > 0) this.#holders.set(n, record.holder)
    else this.#holders.delete(n)
    task.reasons = record.reasons.length === 0 ? undefined : [...record.reasons]
    task.checkpoint = record.checkpoint
    task.home = this.#seq
    task.homeAt = payload.at
    this.#nextTask = Math.max(this.#nextTask, n + 1)
    if (record.fence > 0) this.#fences.set(n, record.fence)
    if (task.state === State.ended) {
      // A dead letter: it lives on beside its outcome.
      this.#letters.set(n, { task, diedAt: record.at, cursor: record.place })
      return
    }
    if (owner instanceof Task) this.checkpointHomes.delete(owner)
    if (owner instanceof Task) tasks.replace(n, task)
    else tasks.add(n, task)
    const id = options?.id
    if (id !== undefined) queue.ids.set(id, { id, n, until: Number.POSITIVE_INFINITY, home: 0 })
  }

  #ended(record: EndedRecord): void {
    const { tasks } = this.#engine
    const { attempts, body, cursor, n, outcome, reasons } = record
    const queue = this.#queue(record.queue)
    const owner = tasks.owner(n)
    const task = owner instanceof Task ? owner : undefined
    if (outcome === Outcome.success) queue.done++
    else if (outcome === Outcome.cancelled) queue.cancelled++
    else queue.dead++
    if (reasons.at(-1)?.reason === Reason.dropped) queue.dropped++
    // Without its task, a body that is the payload is gone; if the outcome still lives, a full record follows.
    queue.log.next = Math.max(queue.log.next, cursor + 1)
    if (body !== undefined || task !== undefined) {
      queue.log.restore(cursor, n, outcome, reasons, attempts, this.#now, body?.size ?? task!.payloadBytes)
      if (body !== undefined) queue.log.place(cursor, this.#seq, this.#seq, body.at)
      else queue.log.place(cursor, this.#seq, task!.home, task!.homeAt)
      if (owner === undefined) tasks.addEnded(n, queue, cursor)
      else tasks.end(n, queue, cursor)
    }
    this.#nextTask = Math.max(this.#nextTask, n + 1)
    if (task === undefined) return
    this.#fences.delete(n)
    this.#holders.delete(n)
    task.state = State.ended
    task.suspended = false
    task.attempt = attempts
    task.reasons = reasons.length === 0 ? undefined : [...reasons]
    if (outcome === Outcome.failure || outcome === Outcome.dead) {
      this.#letters.set(n, { task, diedAt: this.#now, cursor })
    }
    this.#endId(task)
  }

  #outcome(record: OutcomeRecord): void {
    const queue = this.#queue(record.queue)
    const { attempts, body, cursor, endedAt, n, outcome, reasons } = record
    queue.log.restore(cursor, n, outcome, reasons, attempts, endedAt, body.size)
    queue.log.place(cursor, this.#seq, this.#seq, body.at)
    const { tasks } = this.#engine
    if (tasks.owner(n) === undefined) tasks.addEnded(n, queue, cursor)
    else tasks.end(n, queue, cursor)
    this.#nextTask = Math.max(this.#nextTask, n + 1)
  }

  #endId(task: Task): void {
    const id = task.options?.id
    const entry = id === undefined ? undefined : task.queue.ids.get(id)
    if (entry === undefined || entry.n !== task.n) return
    // Until when is known with the queue's policy.
    this.#idsEnded.set(entry, this.#now)
    entry.home = task.home
  }
}
