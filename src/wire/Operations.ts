/**
 * The messages of operating a queue: cancel, pause, purge, browse, redrive, checkpoint, and their answers.
 *
 * Apart from `ClientMessages` and `ManagerMessages`, which hand over to here, because they belong together: a filter and a
 * place to go on at travel in several of them.
 */
import * as Limits from "../Limits.ts"
import { Malformed, type Reader, type Writer } from "./Bytes.ts"
import { head, list, uintList, uints } from "./pieces.ts"
import {
  type Browsed as BrowsedItem,
  ClientType as C,
  type Filter,
  ManagerType as M,
  type Reason
} from "./Vocabulary.ts"

export interface Cancel {
  readonly type: typeof C.cancel
  readonly request: number
  readonly queue: number
  readonly tasks: ReadonlyArray<number>
}
export interface Pause {
  readonly type: typeof C.pause
  readonly request: number
  readonly queue: number
  readonly paused: boolean
}
export interface Purge {
  readonly type: typeof C.purge
  readonly request: number
  readonly queue: number
  readonly filter: Filter
  readonly after: number
  /** Undefined: the last task so far. */
  readonly upTo: number | undefined
}
export interface Browse {
  readonly type: typeof C.browse
  readonly request: number
  readonly queue: number
  /** A standing; undefined: every living task. */
  readonly state: number | undefined
  readonly filter: Filter
  readonly after: number
  readonly limit: number
  readonly payloads: boolean
}
export interface Redrive {
  readonly type: typeof C.redrive
  readonly request: number
  readonly queue: number
  /** These; undefined: those that fit the filter. */
  readonly tasks: ReadonlyArray<number> | undefined
  readonly filter: Filter
  readonly after: number
  readonly upTo: number | undefined
}
export interface Checkpoint {
  readonly type: typeof C.checkpoint
  readonly request: number
  readonly tasks: ReadonlyArray<number>
  readonly fences: ReadonlyArray<number>
  readonly values: ReadonlyArray<Uint8Array>
}

export interface Counted {
  readonly type: typeof M.counted
  readonly request: number
  readonly count: number
  /** Where to go on; undefined: done. */
  readonly next: number | undefined
  readonly upTo: number
}
export interface Browsed {
  readonly type: typeof M.browsed
  readonly request: number
  readonly items: ReadonlyArray<BrowsedItem>
  readonly next: number | undefined
}
export interface Redriven {
  readonly type: typeof M.redriven
  readonly request: number
  /** Dead letter, new task, dead letter, new task, ... */
  readonly tasks: ReadonlyArray<number>
  readonly next: number | undefined
  readonly upTo: number
}
export interface Standings {
  readonly type: typeof M.standings
  readonly request: number
  readonly standings: ReadonlyArray<number>
}

export type Request = Cancel | Pause | Purge | Browse | Redrive | Checkpoint
export type Answer = Counted | Browsed | Redriven | Standings

/** Elements of each message, its type included. */
export const requestSizes: Readonly<Record<number, number>> = {
  [C.cancel]: 4,
  [C.pause]: 4,
  [C.purge]: 6,
  [C.browse]: 8,
  [C.redrive]: 7,
  [C.checkpoint]: 3
}
export const answerSizes: Readonly<Record<number, number>> = {
  [M.counted]: 5,
  [M.browsed]: 4,
  [M.redriven]: 5,
  [M.standings]: 3
}

export const encodeRequest = (w: Writer, m: Request): void => {
  head(w, requestSizes[m.type]!, m.type)
  w.uint(m.request)
  if (m.type === C.checkpoint) {
    w.array(m.tasks.length)
    for (let i = 0; i < m.tasks.length; i++) {
      w.array(3)
      w.uint(m.tasks[i]!)
      w.uint(m.fences[i]!)
      w.bin(m.values[i]!)
    }
    return
  }
  w.uint(m.queue)
  switch (m.type) {
    case C.cancel:
      return uints(w, m.tasks)
    case C.pause:
      return w.bool(m.paused)
    case C.purge:
      encodeFilter(w, m.filter)
      w.uint(m.after)
      return w.uintOrNil(m.upTo)
    case C.browse:
      w.uintOrNil(m.state)
      encodeFilter(w, m.filter)
      w.uint(m.after)
      w.uint(m.limit)
      return w.bool(m.payloads)
    case C.redrive:
      if (m.tasks === undefined) w.nil()
      else uints(w, m.tasks)
      encodeFilter(w, m.filter)
      w.uint(m.after)
      return w.uintOrNil(m.upTo)
  }
}

/** Assumes: `type` is one of `requestSizes`, and has been read. */
export const decodeRequest = (r: Reader, type: number): Request => {
  switch (type) {
    case C.cancel:
      return { type, request: r.uint(), queue: r.uint(), tasks: uintList(r, Limits.batchItemsMax) }
    case C.pause:
      return { type, request: r.uint(), queue: r.uint(), paused: r.bool() }
    case C.purge:
      return {
        type,
        request: r.uint(),
        queue: r.uint(),
        filter: decodeFilter(r),
        after: r.uint(),
        upTo: r.uintOrNil()
      }
    case C.browse:
      return {
        type,
        request: r.uint(),
        queue: r.uint(),
        state: r.uintOrNil(15),
        filter: decodeFilter(r),
        after: r.uint(),
        limit: r.uint(Limits.pageItemsMax),
        payloads: r.bool()
      }
    case C.redrive:
      return {
        type,
        request: r.uint(),
        queue: r.uint(),
        tasks: r.nil() ? undefined : uintList(r, Limits.redriveTasksMax),
        filter: decodeFilter(r),
        after: r.uint(),
        upTo: r.uintOrNil()
      }
    case C.checkpoint: {
      const request = r.uint()
      const tasks: Array<number> = []
      const fences: Array<number> = []
      const values = list(r, Limits.batchItemsMax, () => {
        const length = r.array(32)
        if (length < 3) throw new Malformed("a checkpoint has a task, a fence and a value")
        tasks.push(r.uint())
        fences.push(r.uint())
        const value = r.bin(Limits.payloadBytesMax)
        r.skip(length - 3)
        return value
      })
      return { type, request, tasks, fences, values }
    }
    default:
      throw new Malformed(`unknown message type ${type}`)
  }
}

export const encodeAnswer = (w: Writer, m: Answer): void => {
  head(w, answerSizes[m.type]!, m.type)
  w.uint(m.request)
  switch (m.type) {
    case M.counted:
      w.uint(m.count)
      w.uintOrNil(m.next)
      return w.uint(m.upTo)
    case M.browsed:
      w.array(m.items.length)
      for (const item of m.items) encodeItem(w, item)
      return w.uintOrNil(m.next)
    case M.redriven:
      uints(w, m.tasks)
      w.uintOrNil(m.next)
      return w.uint(m.upTo)
    case M.standings:
      return uints(w, m.standings)
  }
}

/** Assumes: `type` is one of `answerSizes`, and has been read. */
export const decodeAnswer = (r: Reader, type: number): Answer => {
  switch (type) {
    case M.counted:
      return { type, request: r.uint(), count: r.uint(), next: r.uintOrNil(), upTo: r.uint() }
    case M.browsed:
      return {
        type,
        request: r.uint(),
        items: list(r, Limits.pageItemsMax, () => decodeItem(r)),
        next: r.uintOrNil()
      }
    case M.redriven: {
      const request = r.uint()
      const tasks = uintList(r, 2 * Limits.redriveTasksMax)
      if (tasks.length % 2 === 1) throw new Malformed("redriven tasks come in pairs of old and new")
      return { type, request, tasks, next: r.uintOrNil(), upTo: r.uint() }
    }
    case M.standings:
      return { type, request: r.uint(), standings: uintList(r, Limits.batchItemsMax) }
    default:
      throw new Malformed(`unknown message type ${type}`)
  }
}

// ---- pieces

const encodeFilter = (w: Writer, filter: Filter): void => {
  w.array(5)
  w.strOrNil(filter.key)
  w.strOrNil(filter.label)
  w.strOrNil(filter.id)
  w.uintOrNil(filter.priorityMin)
  w.uintOrNil(filter.priorityMax)
}

const decodeFilter = (r: Reader): Filter => {
  const length = r.array(32)
  if (length < 5) throw new Malformed("a filter has five elements")
  const filter: Filter = {
    key: r.strOrNil(Limits.taskKeyBytesMax),
    label: r.strOrNil(Limits.labelBytesMax),
    id: r.strOrNil(Limits.taskIdBytesMax),
    priorityMin: r.uintOrNil(255),
    priorityMax: r.uintOrNil(255)
  }
  r.skip(length - 5)
  return filter
}

const encodeItem = (w: Writer, item: BrowsedItem): void => {
  w.array(17)
  w.uint(item.task)
  w.uint(item.state)
  w.uint(item.attempt)
  w.uint(item.priority)
  w.uint(item.putAtMs)
  w.uint(item.atMs)
  w.uintOrNil(item.holder)
  w.uintOrNil(item.origin)
  w.binOrNil(item.payload)
  w.strOrNil(item.id)
  w.strOrNil(item.key)
  w.array(item.labels.length)
  for (const label of item.labels) w.str(label)
  w.array(item.reasons.length)
  for (const reason of item.reasons) {
    w.array(3)
    w.uint(reason.attempt)
    w.uint(reason.reason)
    w.str(reason.text)
  }
  w.uint(item.checkpointBytes)
  w.uintOrNil(item.progress)
  w.uint(item.entries)
  w.bool(item.suspended)
}

const decodeItem = (r: Reader): BrowsedItem => {
  const length = r.array(32)
  if (length < 17) throw new Malformed("a browsed task has seventeen elements")
  const item: BrowsedItem = {
    task: r.uint(),
    state: r.uint(15),
    attempt: r.uint(),
    priority: r.uint(255),
    putAtMs: r.uint(),
    atMs: r.uint(),
    holder: r.uintOrNil(),
    origin: r.uintOrNil(),
    payload: r.binOrNil(Limits.payloadBytesCeiling),
    id: r.strOrNil(Limits.taskIdBytesMax),
    key: r.strOrNil(Limits.taskKeyBytesMax),
    labels: list(r, Limits.labelsPerTaskMax, () => r.str(Limits.labelBytesMax)),
    reasons: list(r, Limits.reasonsKeptMax, () => {
      const size = r.array(32)
      if (size < 3) throw new Malformed("a reason has three elements")
      const reason: Reason = { attempt: r.uint(), reason: r.uint(), text: r.str(Limits.reasonBytesMax) }
      r.skip(size - 3)
      return reason
    }),
    checkpointBytes: r.uint(),
    progress: r.uintOrNil(Limits.progressWhole),
    entries: r.uint(),
    suspended: r.bool()
  }
  r.skip(length - 17)
  return item
}
