/**
 * Frees the oldest rows of a log: what still lives in them is written again at its end, then they may go.
 *
 * A record lives if it is the home of what it describes: the task that is not over, the outcome that is still kept, the
 * id that is still remembered. Everything else in the row is history. (Rosenblum and Ousterhout, "The Design and
 * Implementation of a Log-Structured File System", 1992.)
 */
import type { Engine } from "./Engine.ts"
import type { Row } from "./Journal.ts"
import type { Queue } from "./Queue.ts"
import type { Recorder } from "./Recorder.ts"
import { Kind, type Record, readRow, type Span } from "./Records.ts"
import type { Session } from "./Session.ts"
import { Task } from "./Task.ts"

export interface CleanerHost {
  readonly session: (id: number) => Session | undefined
  /** Writes a remembered answer again. */
  readonly answer: (session: Session, request: number) => void
}

/** Writes again what lives in `row`. Returns how many records lived. Throws `Malformed` for a row that does not read. */
export const clean = (row: Row, engine: Engine, recorder: Recorder, host: CleanerHost): number => {
  const { seq } = row
  const bytesOf = ({ at, size }: Span): Uint8Array => row.body.subarray(at, at + size)
  let lived = 0

  const ofTask = (queueId: number, n: number, id: string | undefined, payload: Span): void => {
    const queue = engine.queues[queueId]
    if (queue === undefined) return
    const owner = engine.tasks.owner(n)
    if (owner instanceof Task) {
      if (owner.home !== seq) return
      recorder.task(owner, bytesOf(payload), engine.fence(owner))
      lived++
      return
    }
    const letter = queue.deadLetters.get(n)
    if (letter !== undefined && letter.task.home === seq) {
      recorder.task(letter.task, bytesOf(payload), 0, letter)
      lived++
    }
    if (owner === queue) {
      const cursor = engine.tasks.cursor(n)
      if (queue.log.bodyHome(cursor) === seq && queue.log.bodyAt(cursor) === payload.at) {
        recorder.outcome(queue, cursor, bytesOf(payload))
        lived++
      }
    }
    if (id !== undefined) ofId(queue, id, n)
  }

  const ofId = (queue: Queue, id: string, n: number): void => {
    const entry = queue.ids.get(id)
    if (entry === undefined || entry.n !== n || entry.until === Number.POSITIVE_INFINITY || entry.home !== seq) return
    recorder.dedupe(queue, id, n, entry.until)
    entry.home = recorder.journal.seq
    lived++
  }

  const ofOutcome = (queue: Queue | undefined, n: number, cursor: number, body: Span | undefined): void => {
    if (queue === undefined || cursor < queue.log.first || cursor >= queue.log.next) return
    if (engine.tasks.owner(n) !== queue || queue.log.home(cursor) !== seq) return
    const at = queue.log.bodyAt(cursor)
    recorder.outcome(queue, cursor, bytesOf(body ?? { at, size: queue.log.bodyBytes(cursor) }))
    lived++
  }

  const record = (record: Record): void => {
    switch (record.kind) {
      case Kind.namespace:
        if (recorder.namespaceHome !== seq) return
        recorder.namespace(engine.numbers.task, engine.numbers.session, engine.objects.key)
        lived++
        return
      case Kind.queue: {
        const queue = engine.queues[record.id]
        if (queue?.home !== seq) return
        recorder.queue(queue)
        lived++
        return
      }
      case Kind.put:
      case Kind.putWith:
      case Kind.task:
        return ofTask(record.queue, record.n, record.options?.id, record.payload)
      case Kind.ended: {
        const owner = engine.tasks.owner(record.n)
        if (owner === undefined || owner instanceof Task) return
        return ofOutcome(owner, record.n, record.cursor, record.body)
      }
      case Kind.outcome:
        return ofOutcome(engine.queues[record.queue], record.n, record.cursor, record.body)
      case Kind.dedupe: {
        const queue = engine.queues[record.queue]
        if (queue !== undefined) ofId(queue, record.id, record.n)
        return
      }
      case Kind.session: {
        const session = host.session(record.id)
        if (session?.home !== seq) return
        recorder.writeSession(session)
        lived++
        return
      }
      case Kind.answer: {
        const session = host.session(record.session)
        const answer = session?.answers.get(record.request)
        if (session === undefined || answer?.home !== seq) return
        host.answer(session, record.request)
        lived++
        return
      }
      case Kind.lane: {
        const queue = engine.queues[record.queue]
        if (queue === undefined || recorder.laneHomes.get(queue)?.get(record.key) !== seq) return
        recorder.lane(queue, record.key)
        lived++
        return
      }
      case Kind.object: {
        const object = engine.objects.all[record.id]
        if (object === undefined || recorder.objectHomes.get(record.id) !== seq) return
        recorder.object(object)
        lived++
        return
      }
      case Kind.setAdded: {
        const set = engine.objects.all[record.id]
        const { at, fingerprint, id, key } = record
        if (set?.kind !== "set" || !engine.objects.setEntryLives(id, fingerprint, seq, at)) return
        const place = { row: 0, offset: 0 }
        recorder.setAdded(set, fingerprint, bytesOf(key), place)
        engine.objects.setEntryMoved(id, fingerprint, place.row, place.offset)
        lived++
        return
      }
      case Kind.counter: {
        const counter = engine.objects.all[record.id]
        if (counter?.kind !== "counter" || !engine.objects.counterLives(record.id, record.version)) return
        recorder.counter(counter)
        lived++
        return
      }
      case Kind.dictEntry: {
        const dict = engine.objects.all[record.id]
        const { id, key, version } = record
        if (dict?.kind !== "dict" || !engine.objects.dictEntryLives(id, key, version)) return
        recorder.dict(dict, key, dict.get(key), version)
        lived++
        return
      }
      case Kind.dictDeleted: {
        const dict = engine.objects.all[record.id]
        const { id, key, version } = record
        if (dict?.kind !== "dict" || !engine.objects.dictDeletionLives(id, version)) return
        recorder.dict(dict, key, undefined, version)
        lived++
        return
      }
      case Kind.checkpoint: {
        const owner = engine.tasks.owner(record.n)
        if (!(owner instanceof Task) || recorder.checkpointHome(owner) !== seq) return
        recorder.checkpoint(owner)
        lived++
        return
      }
      case Kind.repeat: {
        const queue = engine.queues[record.queue]
        const repeat = queue === undefined ? undefined : engine.repeats.find(queue, record.state.definition.id)
        if (repeat?.home !== seq) return
        recorder.repeat(repeat, false)
        lived++
        return
      }
      case Kind.putProgress: {
        const session = host.session(record.session)
        const progress = session?.progress(record.request)
        if (session === undefined || progress?.home !== seq) return
        recorder.putProgress(session, record.request, progress)
        lived++
        return
      }
    }
  }
  readRow(row, { row: () => {}, record })
  return lived
}
