/**
 * Writes what the engine decides into the rows of the round. The twin of `Records`: same kinds, same order of fields.
 *
 * It also notes where each thing's full record lies (its *home*), so that payloads can be read back and the cleaner can
 * tell a live record from a dead one. Of queues whose level is `memory` nothing is written.
 */
import * as Limits from "../Limits.ts"
import type { Writer } from "../wire/Bytes.ts"
import type { DeadLetter } from "./DeadLetters.ts"
import type { Change } from "./Engine.ts"
import { Journal, type Row } from "./Journal.ts"
import { ObjectKind, type SharedObject } from "./Objects.ts"
import type { Counter } from "./objects/Counter.ts"
import type { Dict, DictEntry } from "./objects/Dict.ts"
import type { Place, SharedSet } from "./objects/SharedSet.ts"
import * as Policy from "./Policy.ts"
import { Level, type Queue } from "./Queue.ts"
import { closedStates, durabilities, Kind, writeList, writeOptions, writeReasons } from "./Records.ts"
import type { Repeat } from "./Repeat.ts"
import type { PutProgress, Session } from "./Session.ts"
import { Outcome, State, type Task, type TaskOptions } from "./Task.ts"

export class Recorder {
  readonly journal: Journal
  /** The highest level that this round owes to what it wrote. */
  level: Level = Level.memory
  /** The row with the numbers of the namespace. */
  namespaceHome = 0
  /** Rows with the settings of lanes: as many as there are settings. */
  readonly laneHomes = new Map<Queue, Map<string, number>>()
  /** Rows with the names of shared objects. */
  readonly objectHomes = new Map<number, number>()
  readonly #checkpoints = new WeakMap<Task, number>()
  /** Numbers of tasks below this one are not given again after a restart. */
  #reserved = 0
  /** Acknowledgements of answers: nothing is owed to them, so they wait for a round that writes anyway. */
  #seen: Array<{ readonly session: Session; readonly ranges: ReadonlyArray<number> }> = []

  constructor(nextSeq: number, epoch: number) {
    this.journal = new Journal(nextSeq, epoch)
  }

  /** The rows of the round. */
  take(): ReadonlyArray<Row> {
    if (!this.journal.empty) this.#writeSeen()
    this.level = Level.memory
    return this.journal.take()
  }

  namespace(nextTask: number, nextSession: number, objectsKey: Uint8Array): void {
    const w = this.#record(Kind.namespace)
    w.uint(Math.max(nextTask, this.#reserved))
    w.uint(nextSession)
    w.bin(objectsKey)
    this.namespaceHome = this.journal.seq
  }

  /**
   * Tasks of memory queues leave no record, and their numbers must not come again in the next life: a receipt would name
   * another task. So numbers are reserved, many at a time.
   */
  unreserved(task: Task): boolean {
    return task.queue.level === Level.memory && task.n >= this.#reserved
  }

  reserve(nextTask: number, nextSession: number, objectsKey: Uint8Array): void {
    this.#reserved = nextTask + Limits.taskNumbersReserved
    this.namespace(this.#reserved, nextSession, objectsKey)
    this.#owe(Level.buffered)
  }

  queue(queue: Queue): void {
    const { definition } = queue
    // A memory queue is known again after a restart, empty.
    const w = this.#record(Kind.queue)
    w.uint(queue.id)
    w.str(definition.name)
    w.bin(definition.fingerprint)
    w.str(definition.schema)
    writeList(w, definition.accepts, (fingerprint) => w.bin(fingerprint))
    writeList(w, Policy.toNumbers(definition.policy), (number) => w.uint(number))
    w.uint(durabilities.indexOf(definition.durability))
    w.uint(closedStates.indexOf(queue.closed))
    w.bool(queue.paused)
    writeList(w, queue.level === Level.memory ? [] : queue.counters, (number) => w.uint(number))
    // A new one is synced at every level: sessions keep its number, and it must not be given to another after a loss.
    this.#owe(queue.home === 0 ? Level.fsync : (Math.max(Level.buffered, queue.level) as Level))
    queue.home = this.journal.seq
  }

  /** What happened to a task, as the engine says it. */
  changed(change: Change, task: Task): void {
    switch (change) {
      case "put":
        return this.put(task)
      case "leased":
        return this.leased(task)
      case "ready":
      case "delayed":
        return this.returned(task)
      case "ended": {
        const outcome = task.queue.log.outcome(task.queue.log.next - 1)
        return this.ended(task, outcome === Outcome.dead || outcome === Outcome.cancelled)
      }
      case "acknowledged":
        return this.#gone(Kind.acknowledged, task)
      case "purged":
        return this.#gone(Kind.purged, task)
      case "redriven":
        return this.#gone(Kind.redriven, task)
      case "suspended":
        return this.#suspended(task)
      case "checkpoint":
        return this.checkpoint(task)
      case "entry":
        return this.#lastEntry(task)
    }
  }

  put(task: Task): void {
    const { queue, options, payload } = task
    if (queue.level === Level.memory) return
    const plain = options === undefined && task.state === State.ready && task.origin === 0
    const w = this.#record(plain ? Kind.put : Kind.putWith)
    w.uint(task.n)
    w.uint(queue.id)
    if (!plain) {
      w.uint(task.state === State.delayed ? task.at : 0)
      w.uint(task.origin)
      w.binOrNil(task.checkpoint)
      this.#optionsOrNil(w, options)
    }
    w.bin(payload!)
    this.#owe(queue.level)
    this.#settle(task, w)
    this.#entries(task)
  }

  /** All there is to know of a living task, with its fence if it is leased, or of a dead letter. */
  task(task: Task, payload: Uint8Array, fence: number, letter?: DeadLetter): void {
    const diedAt = letter?.diedAt ?? 0
    const w = this.#record(Kind.task)
    w.uint(task.n)
    w.uint(task.queue.id)
    w.uint(letter !== undefined ? State.ended : task.state)
    w.uint(task.putAt)
    w.uint(letter !== undefined ? diedAt : task.state === State.delayed ? task.at : 0)
    w.uint(letter?.cursor ?? task.place)
    w.uint(task.origin)
    w.uint(task.attempt)
    w.uint(task.leases)
    w.uint(task.releases)
    w.uint(task.lossesWhileStarted)
    w.bool(task.expired)
    const leased = letter === undefined && task.state === State.leased
    w.uint(leased ? (task.holder?.id ?? 0) : 0)
    w.uint(leased ? fence : 0)
    writeReasons(w, task.reasons)
    w.binOrNil(task.checkpoint)
    this.#optionsOrNil(w, task.options)
    w.bin(payload)
    this.#checkpoints.delete(task)
    this.#owe(task.queue.level)
    this.#settle(task, w)
    if (task.suspended) this.#suspended(task)
    this.#entries(task)
  }

  leased(task: Task): void {
    if (task.queue.level === Level.memory) return
    this.session(task.holder!)
    const w = this.#record(Kind.leased)
    w.uint(task.n)
    w.uint(task.holder!.id)
    this.#owe(task.queue.level)
  }

  /** Ready or delayed again. */
  returned(task: Task): void {
    if (task.queue.level === Level.memory) return
    const w = this.#record(Kind.returned)
    w.uint(task.n)
    w.uint(task.state)
    w.uint(task.state === State.delayed ? task.at : 0)
    w.uint(task.place)
    w.uint(task.attempt)
    w.uint(task.releases)
    w.uint(task.lossesWhileStarted)
    writeReasons(w, task.reasons)
    this.#owe(task.queue.level)
  }

  /** Assumes: the outcome is the last one of the queue's log. `ofPayload`: its body is the task's payload. */
  ended(task: Task, ofPayload: boolean): void {
    const { queue } = task
    if (queue.level === Level.memory) return
    const cursor = queue.log.next - 1
    const w = this.#record(Kind.ended)
    w.uint(task.n)
    w.uint(queue.id)
    w.uint(cursor)
    w.uint(queue.log.outcome(cursor))
    w.uint(task.attempt)
    writeReasons(w, task.reasons)
    if (ofPayload) {
      w.nil()
      queue.log.place(cursor, this.journal.seq, task.home, task.homeAt)
    } else {
      const body = queue.log.body(cursor) ?? noBytes
      w.bin(body)
      queue.log.place(cursor, this.journal.seq, this.journal.seq, w.position - body.byteLength)
    }
    this.#owe(queue.level)
  }

  /** All there is to know of an outcome. */
  outcome(queue: Queue, cursor: number, body: Uint8Array): void {
    const { log } = queue
    const w = this.#record(Kind.outcome)
    w.uint(log.task(cursor))
    w.uint(queue.id)
    w.uint(cursor)
    w.uint(log.outcome(cursor))
    w.uint(log.attempts(cursor))
    w.uint(log.endedAt(cursor))
    writeReasons(w, log.reasons(cursor))
    w.bin(body)
    log.place(cursor, this.journal.seq, this.journal.seq, w.position - body.byteLength)
    this.#owe(queue.level)
  }

  checkpoint(task: Task): void {
    if (task.queue.level === Level.memory) return
    const w = this.#record(Kind.checkpoint)
    w.uint(task.n)
    w.bin(task.checkpoint ?? noBytes)
    this.#checkpoints.set(task, this.journal.seq)
    this.#owe(task.queue.level)
  }

  #suspended(task: Task): void {
    if (task.queue.level === Level.memory) return
    const w = this.#record(Kind.suspended)
    w.uint(task.n)
    w.uint(task.at)
    w.uint(task.attempt)
    this.#owe(task.queue.level)
  }

  /**
   * All entries of a task, behind its full record. The cleaner meets that one first, whatever entries came later: so those
   * need no home of their own.
   */
  #entries({ entries, n }: Task): void {
    if (entries === undefined) return
    const w = this.#record(Kind.entries)
    w.uint(n)
    writeList(w, [...entries], ([name, value]) => {
      w.str(name)
      w.bin(value)
    })
  }

  #lastEntry(task: Task): void {
    if (task.queue.level === Level.memory) return
    const w = this.#record(Kind.entries)
    w.uint(task.n)
    writeList(w, [[...task.entries!].at(-1)!], ([name, value]) => {
      w.str(name)
      w.bin(value)
    })
    this.#owe(task.queue.level)
  }

  /** The row with the checkpoint of a task, if it is not in the task's full record. */
  checkpointHome(task: Task): number | undefined {
    return this.#checkpoints.get(task)
  }

  restoreCheckpointHome(task: Task, seq: number): void {
    this.#checkpoints.set(task, seq)
  }

  /** Without an outcome, or out of the dead letters. */
  #gone(kind: number, task: Task): void {
    if (task.queue.level === Level.memory) return
    const w = this.#record(kind)
    w.uint(task.n)
    w.uint(task.queue.id)
    this.#owe(task.queue.level)
  }

  /** A dedupe id whose task has ended. */
  dedupe(queue: Queue, id: string, n: number, until: number): void {
    const w = this.#record(Kind.dedupe)
    w.uint(queue.id)
    w.str(id)
    w.uint(n)
    w.uint(until)
    this.#owe(queue.level)
  }

  repeat(repeat: Repeat, removed: boolean): void {
    const { definition, queue } = repeat
    if (queue.level === Level.memory) return
    const w = this.#record(removed ? Kind.repeatRemoved : Kind.repeat)
    w.uint(queue.id)
    w.str(definition.id)
    if (!removed) {
      w.uintOrNil(definition.everyMs)
      w.strOrNil(definition.cron)
      w.str(definition.zone)
      w.bin(definition.payload)
      this.#optionsOrNil(w, definition.options)
      w.uint(repeat.nextAt)
      w.uint(repeat.cronAfter)
      w.uint(repeat.task)
      w.uint(repeat.lastAt)
      w.uint(repeat.occurrences)
      repeat.home = this.journal.seq
    }
    this.#owe(queue.level)
  }

  /** What is kept of a lane from now on. */
  lane(queue: Queue, key: string): void {
    if (queue.level === Level.memory) return
    const setting = queue.ready.setting(key)
    const w = this.#record(Kind.lane)
    w.uint(queue.id)
    w.str(key)
    if (setting === undefined) w.nil()
    else {
      const { override } = setting
      w.bool(setting.paused)
      w.uint(setting.slowedUntil)
      if (override === undefined) w.nil()
      else {
        w.array(0)
        w.uintOrNil(override.concurrency)
        w.uintOrNil(override.ratePerMinute)
        w.uintOrNil(override.burst)
        w.uintOrNil(override.gapMs)
        w.uintOrNil(override.weight)
      }
    }
    const homes = this.laneHomes.get(queue) ?? new Map<string, number>()
    this.laneHomes.set(queue, homes)
    if (setting === undefined) homes.delete(key)
    else homes.set(key, this.journal.seq)
    this.#owe(queue.level)
  }

  object(object: SharedObject): void {
    const w = this.#record(Kind.object)
    w.uint(object.id)
    w.str(object.name)
    w.uint(ObjectKind[object.kind])
    w.uint(durabilities.indexOf(object.durability))
    // One in memory is known again after a restart, empty. A new one is synced, as a new queue is.
    const made = !this.objectHomes.has(object.id)
    this.#owe(made ? Level.fsync : (Math.max(Level.buffered, Level[object.durability]) as Level))
    this.objectHomes.set(object.id, this.journal.seq)
  }

  /** `place` learns where the key is. */
  setAdded(set: SharedSet, fingerprint: Uint32Array, key: Uint8Array, place: Place): void {
    if (set.durability === "memory") return
    const w = this.#record(Kind.setAdded)
    w.uint(set.id)
    for (let i = 0; i < 4; i++) w.uint(fingerprint[i]!)
    place.row = this.journal.seq
    place.offset = w.position
    w.bin(key)
    this.#owe(Level[set.durability])
  }

  setRemoved(set: SharedSet, fingerprint: Uint32Array): void {
    if (set.durability === "memory") return
    const w = this.#record(Kind.setRemoved)
    w.uint(set.id)
    for (let i = 0; i < 4; i++) w.uint(fingerprint[i]!)
    this.#owe(Level[set.durability])
  }

  counter(counter: Counter): void {
    if (counter.durability === "memory") return
    const w = this.#record(Kind.counter)
    w.uint(counter.id)
    w.bool(counter.value < 0)
    w.uint(Math.abs(counter.value))
    w.uint(counter.version)
    this.#owe(Level[counter.durability])
  }

  /** `entry` undefined: the key was deleted by the write of this version. */
  dict(dict: Dict, key: string, entry: DictEntry | undefined, version: number): void {
    if (dict.durability === "memory") return
    const w = this.#record(entry === undefined ? Kind.dictDeleted : Kind.dictEntry)
    w.uint(dict.id)
    w.str(key)
    w.uint(version)
    if (entry !== undefined) {
      w.uint(entry.born)
      w.bin(entry.value)
    }
    this.#owe(Level[dict.durability])
  }

  /** Once: a session is durable from the first thing on that concerns it. */
  session(session: Session): void {
    if (session.home === 0) this.writeSession(session)
  }

  writeSession(session: Session): void {
    const w = this.#record(Kind.session)
    w.uint(session.id)
    w.bin(session.token)
    w.str(session.principal)
    session.home = this.journal.seq
  }

  sessionEnded(session: Session): void {
    if (session.home === 0) return
    this.#record(Kind.sessionEnded).uint(session.id)
    this.#owe(Level.buffered)
  }

  /** `write` writes the answer as it travels. */
  answer(session: Session, request: number, write: (w: Writer) => void): void {
    this.session(session)
    const w = this.#record(Kind.answer)
    w.uint(session.id)
    w.uint(request)
    write(w)
  }

  answersSeen(session: Session, ranges: ReadonlyArray<number>): void {
    if (session.home > 0) this.#seen.push({ session, ranges })
    // Bounded: with nothing else to write for long, they are written for themselves.
    if (this.#seen.length >= 4_096) this.#writeSeen()
  }

  putProgress(session: Session, request: number, progress: PutProgress): void {
    this.session(session)
    const w = this.#record(Kind.putProgress)
    w.uint(session.id)
    w.uint(request)
    writeList(w, progress.tasks, (n) => w.uint(n))
    writeList(w, progress.statuses, (status) => w.uint(status))
    progress.home = this.journal.seq
  }

  #writeSeen(): void {
    const seen = this.#seen
    this.#seen = []
    for (const { ranges, session } of seen) {
      const w = this.#record(Kind.answersSeen)
      w.uint(session.id)
      writeList(w, ranges, (number) => w.uint(number))
    }
  }

  #record(kind: number): Writer {
    const w = this.journal.record()
    w.uint(kind)
    return w
  }

  #optionsOrNil(w: Writer, options: TaskOptions | undefined): void {
    if (options === undefined) return w.nil()
    w.array(0)
    writeOptions(w, options)
  }

  #owe(level: Level): void {
    if (level > this.level) this.level = level
  }

  /** The payload was the last field written. */
  #settle(task: Task, w: Writer): void {
    task.home = this.journal.seq
    task.homeAt = w.position - task.payloadBytes
  }
}

const noBytes = new Uint8Array()
