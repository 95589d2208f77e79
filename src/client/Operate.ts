/**
 * Operating a queue from a program: the typed side of cancel, pause, purge, browse, redrive and checkpoint.
 *
 * Functions over an open queue that `TaskQueue` gives its own types. What one message does in part is asked for again from
 * where it stopped, so a call ends when all is done, and each message stays small.
 */
import * as Effect from "effect/Effect"
import * as Errors from "../Errors.ts"
import * as Limits from "../Limits.ts"
import { Standing as Standings } from "../model/Life.ts"
import { Code } from "../model/Refusal.ts"
import type * as ClientMessages from "../wire/ClientMessages.ts"
import type * as Wire from "../wire/Vocabulary.ts"
import { ClientType as C, ManagerType as M } from "../wire/Vocabulary.ts"
import { type ClientShape, type OpenQueue, requestErrorOf, unexpected } from "./Client.ts"
import { taskIdOf, taskNumberOf } from "./TaskId.ts"

/** Where a task stands; `gone`: unknown here, taken by a `get`, purged, or its outcome is no longer kept. */
export type Standing = keyof typeof Standings

const words: ReadonlyArray<Standing> = Object.keys(Standings) as ReadonlyArray<Standing>

/** A number that this client does not know is a state of a later version. */
export const standingOf = (standing: number | undefined): Standing => words[standing ?? 0] ?? "gone"

/** Which tasks are meant; what is not given fits every task. */
export interface Filter {
  /** Lane, whole. */
  readonly key?: string | undefined
  /** One of the task's labels, whole. */
  readonly label?: string | undefined
  /** Dedupe id, whole. */
  readonly id?: string | undefined
  readonly priorityMin?: number | undefined
  readonly priorityMax?: number | undefined
}

/** What a cancel did to one task. */
export interface Cancellation {
  readonly taskId: string
  /** Whether it was cancelled by this call. */
  readonly cancelled: boolean
  /** Where it stood before: waiting or leased, or how it had ended, or `gone`. */
  readonly was: Standing
}

/** A dead letter that was put again, as `to`; undefined: there is no such dead letter (any more). */
export interface Redriven {
  readonly from: string
  readonly to: string | undefined
}

export interface BrowseOptions extends Filter {
  /** Default: every task that has not ended. */
  readonly state?: "ready" | "delayed" | "leased" | "dead" | undefined
  /** Where an earlier page stopped. */
  readonly cursor?: number | undefined
  /** Tasks of the page, at most 1,000 (the default is 100). */
  readonly limit?: number | undefined
  /** Whether payloads are shown. Default true. */
  readonly payloads?: boolean | undefined
}

/** A task as it stands. Instants are milliseconds by the manager's clock. */
export interface BrowsedTask<P> {
  readonly taskId: string
  readonly state: Standing
  readonly attempt: number
  readonly priority: number
  readonly putAtMs: number
  /** Delayed: due at. Leased: lease ends at. Dead: died at. Ready: 0. */
  readonly atMs: number
  /** Leased: number of the session that has it. */
  readonly holder: number | undefined
  /** The dead letter that was put again as this task. */
  readonly origin: string | undefined
  /** Undefined if it was not asked for, or does not decode. */
  readonly payload: P | undefined
  readonly id: string | undefined
  readonly key: string | undefined
  readonly labels: ReadonlyArray<string>
  /** What happened to its attempts, oldest first. */
  readonly reasons: ReadonlyArray<string>
  readonly checkpointBytes: number
  /** Leased: how far its handler has come, as it has said; from 0 to 1. */
  readonly progress: number | undefined
  /** Steps and signals that are recorded. */
  readonly entries: number
  /** Delayed because its handler waits: a signal ends that. */
  readonly suspended: boolean
}

/** `cursor` undefined: that was all. A page may be empty and still have a cursor. */
export interface Page<P> {
  readonly tasks: ReadonlyArray<BrowsedTask<P>>
  readonly cursor: number | undefined
}

type Ask<M extends number> = Effect.Effect<
  Extract<Effect.Success<ReturnType<ClientShape["ask"]>>, { readonly type: M }>,
  Errors.RequestError | Errors.Closed
>

const ask = <T extends number>(
  client: ClientShape,
  type: T,
  name: string,
  make: (request: number) => ClientMessages.Request
): Ask<T> =>
  client.ask(make).pipe(
    Effect.catchTag("Refusal", (refusal): Effect.Effect<never, Errors.RequestError | Errors.Closed> => {
      if (refusal.refused.code === Code.closed) return Effect.fail(new Errors.Closed({ queue: name }))
      return Effect.fail(requestErrorOf(refusal))
    }),
    Effect.flatMap((answer) => (answer.type === type ? Effect.succeed(answer) : Effect.fail(unexpected(answer))))
  ) as Ask<T>

/** Only a redrive may meet a closed queue. */
const neverClosed = <A>(
  effect: Effect.Effect<A, Errors.RequestError | Errors.Closed>
): Effect.Effect<A, Errors.RequestError> => Effect.catchTag(effect, "Closed", (error) => Effect.die(error))

/** Checks what the protocol bounds, so that a mistake is a typed error and not a closed connection. */
const wireFilter = (filter: Filter): Effect.Effect<Wire.Filter, Errors.LimitExceeded> => {
  const { id, key, label, priorityMax, priorityMin } = filter
  const faults = [
    over("taskKeyBytesMax", utf8Bytes(key), Limits.taskKeyBytesMax),
    over("labelBytesMax", utf8Bytes(label), Limits.labelBytesMax),
    over("taskIdBytesMax", utf8Bytes(id), Limits.taskIdBytesMax),
    over("priorityMin", priorityMin ?? 0, 255),
    over("priorityMax", priorityMax ?? 0, 255)
  ]
  const fault = faults.find((fault) => fault !== undefined)
  return fault === undefined ? Effect.succeed({ id, key, label, priorityMax, priorityMin }) : Effect.fail(fault)
}

const over = (limit: string, value: number, max: number): Errors.LimitExceeded | undefined =>
  Number.isSafeInteger(value) && value >= 0 && value <= max
    ? undefined
    : new Errors.LimitExceeded({ limit, value, max })

const utf8 = new TextEncoder()
const utf8Bytes = (text: string | undefined): number => (text === undefined ? 0 : utf8.encode(text).byteLength)

const prefixOf = (client: ClientShape): string => client.link.session?.prefix ?? ""

export const pause = (
  client: ClientShape,
  { id }: OpenQueue,
  name: string,
  paused: boolean
): Effect.Effect<void, Errors.RequestError> =>
  neverClosed(Effect.asVoid(ask(client, M.done, name, (request) => ({ type: C.pause, request, queue: id, paused }))))

export const cancel = Effect.fnUntraced(function* (
  client: ClientShape,
  { id }: OpenQueue,
  name: string,
  taskIds: ReadonlyArray<string>
): Effect.fn.Return<ReadonlyArray<Cancellation>, Errors.RequestError> {
  const done: Array<Cancellation> = []
  for (let from = 0; from < taskIds.length; from += Limits.batchItemsMax) {
    const part = taskIds.slice(from, from + Limits.batchItemsMax)
    // A task of another life of the manager is unknown to this one: number 0 never is a task.
    const tasks = part.map((taskId) => taskNumberOf(prefixOf(client), taskId) ?? 0)
    const answer = yield* neverClosed(
      ask(client, M.standings, name, (request) => ({ type: C.cancel, request, queue: id, tasks }))
    )
    part.forEach((taskId, i) => {
      const was = standingOf(answer.standings[i])
      done.push({ taskId, cancelled: was === "ready" || was === "delayed" || was === "leased", was })
    })
  }
  return done
})

export const purge = Effect.fnUntraced(function* (
  client: ClientShape,
  { id }: OpenQueue,
  name: string,
  wanted: Filter
): Effect.fn.Return<number, Errors.RequestError> {
  const filter = yield* wireFilter(wanted)
  let count = 0
  let upTo: number | undefined
  for (let after: number | undefined = 0; after !== undefined; ) {
    const from: number = after
    const end = upTo
    const answer = yield* neverClosed(
      ask(client, M.counted, name, (request) => ({ type: C.purge, request, queue: id, filter, after: from, upTo: end }))
    )
    count += answer.count
    upTo = answer.upTo
    after = answer.next
  }
  return count
})

export const redrive = Effect.fnUntraced(function* (
  client: ClientShape,
  { id }: OpenQueue,
  name: string,
  taskIds: ReadonlyArray<string> | undefined,
  wanted: Filter
): Effect.fn.Return<ReadonlyArray<Redriven>, Errors.RequestError | Errors.Closed> {
  const filter = yield* wireFilter(wanted)
  const done: Array<Redriven> = []
  if (taskIds !== undefined) {
    for (let from = 0; from < taskIds.length; from += Limits.redriveTasksMax) {
      const part = taskIds.slice(from, from + Limits.redriveTasksMax)
      const tasks = part.map((taskId) => taskNumberOf(prefixOf(client), taskId) ?? 0)
      const answer = yield* ask(client, M.redriven, name, (request) => {
        return { type: C.redrive, request, queue: id, tasks, filter, after: 0, upTo: undefined }
      })
      part.forEach((taskId, i) => {
        const to = answer.tasks[2 * i + 1] ?? 0
        done.push({ from: taskId, to: to === 0 ? undefined : taskIdOf(prefixOf(client), to) })
      })
    }
    return done
  }
  let upTo: number | undefined
  for (let after: number | undefined = 0; after !== undefined; ) {
    const from: number = after
    const end = upTo
    const answer = yield* ask(client, M.redriven, name, (request) => {
      return { type: C.redrive, request, queue: id, tasks: undefined, filter, after: from, upTo: end }
    })
    const prefix = prefixOf(client)
    for (let i = 0; i + 1 < answer.tasks.length; i += 2) {
      done.push({ from: taskIdOf(prefix, answer.tasks[i]!), to: taskIdOf(prefix, answer.tasks[i + 1]!) })
    }
    upTo = answer.upTo
    after = answer.next
  }
  return done
})

export const browse = Effect.fnUntraced(function* <P>(
  client: ClientShape,
  { id }: OpenQueue,
  name: string,
  options: BrowseOptions,
  taskOf: (prefix: string, item: Wire.Browsed) => BrowsedTask<P>
): Effect.fn.Return<Page<P>, Errors.RequestError> {
  const { cursor = 0, limit = 100, payloads = true, state } = options
  const filter = yield* wireFilter(options)
  const fault = over("pageItemsMax", limit, Limits.pageItemsMax) ?? over("cursor", cursor, Number.MAX_SAFE_INTEGER)
  if (fault !== undefined) return yield* fault
  const answer = yield* neverClosed(
    ask(client, M.browsed, name, (request) => ({
      type: C.browse,
      request,
      queue: id,
      state: state === undefined ? undefined : Standings[state],
      filter,
      after: cursor,
      limit,
      payloads
    }))
  )
  const prefix = prefixOf(client)
  return { tasks: answer.items.map((item) => taskOf(prefix, item)), cursor: answer.next }
})

/** Assumes: the value is within `payloadBytesMax`. */
export const checkpoint = (
  client: ClientShape,
  taskId: string,
  { fence, task }: { readonly task: number; readonly fence: number },
  value: Uint8Array
): Effect.Effect<void, Errors.RequestError | Errors.LeaseLost | Errors.AlreadyEnded> => {
  type Failure = Errors.RequestError | Errors.LeaseLost | Errors.AlreadyEnded
  // Numbers begin anew in each life of a manager: a lease of an earlier one must not meet another task of this one.
  if (!taskId.startsWith(prefixOf(client))) return Effect.fail(new Errors.LeaseLost({ taskId }))
  return client
    .ask((request) => ({ type: C.checkpoint, request, tasks: [task], fences: [fence], values: [value] }))
    .pipe(
      Effect.catchTag("Refusal", (refusal) => Effect.fail(requestErrorOf(refusal))),
      Effect.flatMap((answer): Effect.Effect<void, Failure> => {
        if (answer.type === M.done) return Effect.void
        if (answer.type !== M.items) return Effect.fail(unexpected(answer))
        client.leases.end(task)
        return Effect.fail(
          answer.codes[0] === Code.alreadyEnded ? new Errors.AlreadyEnded({ taskId }) : new Errors.LeaseLost({ taskId })
        )
      })
    )
}
