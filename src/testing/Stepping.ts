/**
 * Requests about steps, waits and signals as simulated programs make them: messages of the wire, with errors of the
 * client.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { Client, type ClientShape, type Refusal, requestErrorOf, unexpected } from "../client/Client.ts"
import { taskIdOf, taskNumberOf } from "../client/TaskId.ts"
import type { Lease } from "../client/TaskQueue.ts"
import * as Errors from "../Errors.ts"
import { Standing } from "../model/Life.ts"
import { Code } from "../model/Refusal.ts"
import type * as ClientMessages from "../wire/ClientMessages.ts"
import { ClientType as C, type Delivery, ManagerType as M } from "../wire/Vocabulary.ts"
import type { Recorded } from "./History.ts"
import type { Item, SimQueue } from "./Plan.ts"

type StepError =
  | Errors.RequestError
  | Errors.LeaseLost
  | Errors.AlreadyEnded
  | Errors.TaskNotFound
  | Errors.Empty
  | Errors.Closed

/** A lease with the steps and the signals that it was delivered with. */
export interface SteppedLease extends Lease<Item, number> {
  readonly entries: ReadonlyArray<Recorded>
}

const errorOf = (refusal: Refusal, queue: string, taskId: string): StepError => {
  switch (refusal.refused.code) {
    case Code.empty:
      return new Errors.Empty({ queue })
    case Code.closed:
      return new Errors.Closed({ queue })
    case Code.alreadyEnded:
      return new Errors.AlreadyEnded({ taskId })
    case Code.taskNotFound:
      return new Errors.TaskNotFound({ taskId })
    default:
      return requestErrorOf(refusal)
  }
}

const ask = (
  queue: SimQueue,
  taskId: string,
  make: (request: number, client: ClientShape, queue: number) => ClientMessages.Request
) =>
  Effect.gen(function* () {
    const client = yield* Client
    const { id } = yield* client.open(queue)
    return yield* Effect.catchTag(
      client.ask((request) => make(request, client, id)),
      "Refusal",
      (refusal) => Effect.fail(errorOf(refusal, queue.name, taskId))
    )
  })

/** One item about a lease: done, or refused with a code of its own. */
const askItem = (
  queue: SimQueue,
  { handle, taskId }: Lease<Item, number>,
  make: (request: number) => ClientMessages.Request
): Effect.Effect<void, StepError, Client> =>
  Effect.gen(function* () {
    const client = yield* Client
    // Numbers begin anew in each life of a manager.
    if (!taskId.startsWith(client.link.session?.prefix ?? "")) return yield* new Errors.LeaseLost({ taskId })
    const answer = yield* ask(queue, taskId, make)
    if (answer.type === M.done) return
    if (answer.type !== M.items) return yield* Effect.fail(unexpected(answer))
    const [code] = answer.codes
    if (code === Code.limitExceeded) return yield* new Errors.LimitExceeded({ limit: "entries", value: 0, max: 0 })
    client.leases.end(handle.task)
    return yield* code === Code.alreadyEnded ? new Errors.AlreadyEnded({ taskId }) : new Errors.LeaseLost({ taskId })
  })

export const lease = (
  queue: SimQueue,
  count: number,
  waitMs: number
): Effect.Effect<ReadonlyArray<SteppedLease>, StepError, Client> =>
  Effect.gen(function* () {
    const client = yield* Client
    const { policy } = yield* client.open(queue)
    const answer = yield* ask(queue, "", (request, _, id) => {
      return { type: C.lease, request, queue: id, count, waitMs, get: false }
    })
    if (answer.type !== M.leased) return yield* Effect.fail(unexpected(answer))
    const prefix = client.link.session?.prefix ?? ""
    const now = yield* Clock.currentTimeMillis
    return answer.items.map((item) => {
      client.leases.add(item.task, item.fence, now, policy.leaseMs)
      const value = queue.payload.decode(item.payload)
      if (Exit.isFailure(value)) throw new Error("a payload does not decode")
      return leaseOf(queue, taskIdOf(prefix, item.task), value.value, item)
    })
  })

export const leaseOf = (queue: SimQueue, taskId: string, payload: Item, item: Delivery): SteppedLease => {
  const { attempt, checkpoint, fence, key, task } = item
  const saved = checkpoint === undefined ? undefined : queue.checkpointCodec.decode(checkpoint)
  return {
    taskId,
    payload,
    attempt,
    key,
    checkpoint: saved !== undefined && Exit.isSuccess(saved) ? saved.value : undefined,
    leaseMs: queue.definition.policy.leaseMs,
    handle: { task, fence },
    entries: recordedOf(item)
  }
}

export const recordedOf = ({ entries }: Delivery): ReadonlyArray<Recorded> =>
  (entries ?? []).map(([name, value]) => [name, Number(utf8.decode(value))] as const)

export const step = (queue: SimQueue, lease: SteppedLease, name: string, value: number) => {
  const { fence, task } = lease.handle
  const items = [{ task, fence, name, value: bytesOf(value) }]
  return askItem(queue, lease, (request) => ({ type: C.step, request, items }))
}

export const suspend = (queue: SimQueue, lease: SteppedLease, forMs: number | undefined, seen: number) => {
  const { fence, task } = lease.handle
  const end = Effect.map(Client, (client) => client.leases.end(task))
  return Effect.tap(
    askItem(queue, lease, (request) => ({ type: C.suspend, request, items: [{ task, fence, forMs, seen }] })),
    () => end
  )
}

/** To a task by its number, or to whoever has a dedupe id. */
export const signal = (
  queue: SimQueue,
  to: { readonly taskId: string } | { readonly id: string },
  name: string,
  value: number
): Effect.Effect<void, StepError, Client> =>
  Effect.gen(function* () {
    const client = yield* Client
    const taskId = "taskId" in to ? to.taskId : ""
    const task = taskNumberOf(client.link.session?.prefix, taskId)
    // Of another life of the manager: nobody knows it.
    if ("taskId" in to && task === undefined) return yield* new Errors.TaskNotFound({ taskId })
    const about = "id" in to ? { id: to.id, task: undefined } : { id: undefined, task }
    const answer = yield* ask(queue, taskId, (request, _, id) => {
      return { type: C.signal, request, queue: id, ...about, name, value: bytesOf(value) }
    })
    if (answer.type !== M.done) return yield* Effect.fail(unexpected(answer))
  })

/** Where the task with this dedupe id stands; undefined: nobody has it. */
export const find = (queue: SimQueue, id: string) =>
  Effect.gen(function* () {
    const client = yield* Client
    const answer = yield* ask(queue, "", (request, _, of) => ({ type: C.find, request, queue: of, id }))
    if (answer.type !== M.found) return yield* Effect.fail(unexpected(answer))
    if (answer.task === undefined) return undefined
    const gone = answer.standing === Standing.gone
    return { taskId: taskIdOf(client.link.session?.prefix ?? "", answer.task), gone }
  })

const bytesOf = (value: number): Uint8Array => new TextEncoder().encode(String(value))
const utf8 = new TextDecoder()
