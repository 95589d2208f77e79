/**
 * The messages of a task's progress: what rides on a heartbeat, steps, and the ends of an attempt that only waits.
 *
 * Apart from `ClientMessages` and `ManagerMessages`, which hand over to here. A step and a signal are entries of one list,
 * in the order in which they were recorded; the name of a signal begins with `!`, that of a step does not.
 */
import * as Limits from "../Limits.ts"
import { Malformed, type Reader, type Writer } from "./Bytes.ts"
import { head, list } from "./pieces.ts"
import { ClientType as C, type Entry, ManagerType as M } from "./Vocabulary.ts"

/** What a heartbeat says of a leased task; what is absent stays as it was. The last one wins. */
export interface Report {
  readonly task: number
  readonly fence: number
  /** Of 10,000. */
  readonly progress: number | undefined
  readonly checkpoint: Uint8Array | undefined
}

/** Records entries of leased tasks. One that is there already stays as it is. */
export interface Step {
  readonly type: typeof C.step
  readonly request: number
  readonly items: ReadonlyArray<{
    readonly task: number
    readonly fence: number
    readonly name: string
    readonly value: Uint8Array
  }>
}
/** Gives leased tasks back, uncounted, until a time has passed or a signal has come. */
export interface Suspend {
  readonly type: typeof C.suspend
  readonly request: number
  readonly items: ReadonlyArray<{
    readonly task: number
    readonly fence: number
    /** Undefined: only a signal ends it. */
    readonly forMs: number | undefined
    /** Entries that the worker knows of: with more, there is nothing to wait for. */
    readonly seen: number
  }>
}
/** Records a signal of a living task, named by its number or by its dedupe id. One that is there already stays as it is. */
export interface Signal {
  readonly type: typeof C.signal
  readonly request: number
  readonly queue: number
  readonly task: number | undefined
  readonly id: string | undefined
  readonly name: string
  readonly value: Uint8Array
}
/** Which task has this dedupe id. */
export interface Find {
  readonly type: typeof C.find
  readonly request: number
  readonly queue: number
  readonly id: string
}
/** `task` undefined: nobody has the id. */
export interface Found {
  readonly type: typeof M.found
  readonly request: number
  readonly task: number | undefined
  /** A standing. */
  readonly standing: number
}

export type Request = Step | Suspend | Signal | Find
export type Answer = Found

/** Elements of each message, its type included. */
export const requestSizes: Readonly<Record<number, number>> = {
  [C.step]: 3,
  [C.suspend]: 3,
  [C.signal]: 7,
  [C.find]: 4
}
export const answerSizes: Readonly<Record<number, number>> = { [M.found]: 4 }

export const encodeReports = (w: Writer, reports: ReadonlyArray<Report>): void => {
  w.array(reports.length)
  for (const report of reports) {
    w.array(4)
    w.uint(report.task)
    w.uint(report.fence)
    w.uintOrNil(report.progress)
    w.binOrNil(report.checkpoint)
  }
}

export const decodeReports = (r: Reader): ReadonlyArray<Report> =>
  items(r, 4, () => ({
    task: r.uint(),
    fence: r.uint(),
    progress: r.uintOrNil(Limits.progressWhole),
    checkpoint: r.binOrNil(Limits.payloadBytesMax)
  }))

export const encodeRequest = (w: Writer, m: Request): void => {
  head(w, requestSizes[m.type]!, m.type)
  w.uint(m.request)
  switch (m.type) {
    case C.step:
      w.array(m.items.length)
      for (const item of m.items) {
        w.array(4)
        w.uint(item.task)
        w.uint(item.fence)
        w.str(item.name)
        w.bin(item.value)
      }
      return
    case C.suspend:
      w.array(m.items.length)
      for (const item of m.items) {
        w.array(4)
        w.uint(item.task)
        w.uint(item.fence)
        w.uintOrNil(item.forMs)
        w.uint(item.seen)
      }
      return
    case C.signal:
      w.uint(m.queue)
      w.uintOrNil(m.task)
      w.strOrNil(m.id)
      w.str(m.name)
      return w.bin(m.value)
    case C.find:
      w.uint(m.queue)
      return w.str(m.id)
  }
}

/** Assumes: `type` is one of `requestSizes`, and has been read. */
export const decodeRequest = (r: Reader, type: number): Request => {
  switch (type) {
    case C.step:
      return {
        type,
        request: r.uint(),
        items: items(r, 4, () => ({
          task: r.uint(),
          fence: r.uint(),
          name: stepName(r, false),
          value: r.bin(Limits.payloadBytesMax)
        }))
      }
    case C.suspend:
      return {
        type,
        request: r.uint(),
        items: items(r, 4, () => ({
          task: r.uint(),
          fence: r.uint(),
          forMs: r.uintOrNil(Limits.delayMsMax),
          seen: r.uint()
        }))
      }
    case C.signal: {
      const signal: Signal = {
        type,
        request: r.uint(),
        queue: r.uint(),
        task: r.uintOrNil(),
        id: r.strOrNil(Limits.taskIdBytesMax),
        name: stepName(r, true),
        value: r.bin(Limits.payloadBytesMax)
      }
      if ((signal.task === undefined) === (signal.id === undefined)) {
        throw new Malformed("a signal names its task by number or by id")
      }
      return signal
    }
    case C.find:
      return { type, request: r.uint(), queue: r.uint(), id: r.str(Limits.taskIdBytesMax) }
    default:
      throw new Malformed(`unknown message type ${type}`)
  }
}

export const encodeAnswer = (w: Writer, m: Answer): void => {
  head(w, answerSizes[m.type]!, m.type)
  w.uint(m.request)
  w.uintOrNil(m.task)
  w.uint(m.standing)
}

/** Assumes: `type` is one of `answerSizes`, and has been read. */
export const decodeAnswer = (r: Reader, type: typeof M.found): Answer => ({
  type,
  request: r.uint(),
  task: r.uintOrNil(),
  standing: r.uint(15)
})

/** In a delivery: name, value, name, value, ... */
export const encodeEntries = (w: Writer, entries: Iterable<Entry>, count: number): void => {
  w.array(2 * count)
  for (const [name, value] of entries) {
    w.str(name)
    w.bin(value)
  }
}

export const decodeEntries = (r: Reader): ReadonlyArray<Entry> => {
  const length = r.array(2 * Limits.entriesPerTaskMax)
  if (length % 2 === 1) throw new Malformed("entries come in pairs of name and value")
  const entries: Array<Entry> = []
  for (let i = 0; i < length; i += 2) entries.push([r.str(Limits.entryNameBytesMax), r.bin(Limits.payloadBytesMax)])
  return entries
}

// ---- pieces

const items = <A>(r: Reader, size: number, item: () => A): ReadonlyArray<A> =>
  list(r, Limits.batchItemsMax, () => {
    const length = r.array(32)
    if (length < size) throw new Malformed(`an item has ${size} elements`)
    const read = item()
    r.skip(length - size)
    return read
  })

const stepName = (r: Reader, signal: boolean): string => {
  const name = r.str(Limits.entryNameBytesMax)
  if (name.length === 0) throw new Malformed("a step has a name")
  if (name.startsWith("!") !== signal)
    throw new Malformed("the name of a signal begins with !, that of a step does not")
  return name
}
