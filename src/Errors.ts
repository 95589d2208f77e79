/**
 * The closed list of errors that Millrace's public operations fail with.
 *
 * Each error carries data rather than prose and states three facts: who is at fault, how far the trouble reaches
 * (`request`: answered, work goes on; `connection`: that connection ends; `process`: the program cannot go on), and its
 * outcome (`definite`: certainly not done; `indefinite`: perhaps done). The facts live in one table, `facts`, that the
 * compiler keeps complete. A broken invariant is a defect, never a member of this list.
 */
import * as Schema from "effect/Schema"

/** The manager has no queue of that name (or number) and may not make it. Nothing was changed. */
export class QueueNotFound extends Schema.TaggedError<QueueNotFound>()("QueueNotFound", { queue: Schema.String }) {
  override get message(): string {
    return `The manager has no queue "${this.queue}". Open it with a full definition first, or list it in Manager.layer({ queues }).`
  }
}

/** Client and manager define the queue with different Schemas. Nothing was changed. */
export class SchemaMismatch extends Schema.TaggedError<SchemaMismatch>()("SchemaMismatch", {
  queue: Schema.String,
  difference: Schema.String
}) {
  override get message(): string {
    return `Queue "${this.queue}" has other Schemas at the manager: ${this.difference}. Run the same definition on both sides, or list the older fingerprint in "accepts".`
  }
}

/** A definition or an option is out of range. Nothing was changed. */
export class DefinitionInvalid extends Schema.TaggedError<DefinitionInvalid>()("DefinitionInvalid", {
  queue: Schema.String,
  field: Schema.String,
  value: Schema.String,
  remedy: Schema.String
}) {
  override get message(): string {
    return `Queue "${this.queue}": ${this.field} is ${this.value}; ${this.remedy}.`
  }
}

/** A value does not fit its Schema; `path` says where. It was not sent. */
export class PayloadInvalid extends Schema.TaggedError<PayloadInvalid>()("PayloadInvalid", {
  queue: Schema.String,
  what: Schema.Literals(["payload", "result", "error", "checkpoint", "value", "signal"]),
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `The ${this.what} for ${this.what === "value" ? "dict" : "queue"} "${this.queue}" does not fit its Schema at ${this.path}: ${this.reason}`
  }
}

/** Bytes that came from the manager do not decode with the queue's Schema. */
export class DecodeFailed extends Schema.TaggedError<DecodeFailed>()("DecodeFailed", {
  queue: Schema.String,
  what: Schema.Literals(["payload", "result", "error", "checkpoint", "value"]),
  reason: Schema.String
}) {
  override get message(): string {
    return `A ${this.what} of ${this.what === "value" ? "dict" : "queue"} "${this.queue}" does not decode: ${this.reason}`
  }
}

/** An encoded payload, result or checkpoint is larger than the queue takes. Nothing was changed. */
export class PayloadTooLarge extends Schema.TaggedError<PayloadTooLarge>()("PayloadTooLarge", {
  queue: Schema.String,
  bytes: Schema.Int,
  limitBytes: Schema.Int
}) {
  override get message(): string {
    return `Queue "${this.queue}" takes at most ${this.limitBytes} bytes, this one has ${this.bytes}. Raise policy.payloadBytesMax (up to 16 MiB) or store the data elsewhere and put a reference.`
  }
}

/** The queue is full and the call does not wait (any longer). `accepted` of its items, from the front, were put. */
export class Full extends Schema.TaggedError<Full>()("Full", {
  queue: Schema.String,
  capacity: Schema.Int,
  /** If the queue bounds the payload bytes of what waits, too. */
  capacityBytes: Schema.optionalKey(Schema.Int),
  accepted: Schema.Int
}) {
  override get message(): string {
    const bytes = this.capacityBytes === undefined ? "" : ` tasks, ${this.capacityBytes} bytes`
    return `Queue "${this.queue}" is full (capacity ${this.capacity}${bytes}); ${this.accepted} items were accepted.`
  }
}

/**
 * A `putAll` of several messages failed after some were answered: the first `accepted` items are on the queue. `rest` says
 * of the others: `definite`, none of them was put; `indefinite`, some may have been. `reason` is what the failed message met.
 */
export class PutIncomplete extends Schema.TaggedError<PutIncomplete>()("PutIncomplete", {
  queue: Schema.String,
  accepted: Schema.Int,
  rest: Schema.Literals(["definite", "indefinite"]),
  reason: Schema.String
}) {
  override get message(): string {
    const rest = this.rest === "definite" ? "none of the others was" : "of the others some may have been"
    return `Of a batch the first ${this.accepted} items were put on queue "${this.queue}", ${rest}: ${this.reason}`
  }
}

/** Nothing is there to take and the call does not wait (any longer). */
export class Empty extends Schema.TaggedError<Empty>()("Empty", { queue: Schema.String }) {
  override get message(): string {
    return `Queue "${this.queue}" is empty.`
  }
}

/**
 * The queue takes no more puts (closed, or its `tasksMax` is used up), or has nothing left to give. Of a `putAll` that
 * was under way, `accepted` items, from the front, were put; none when it is not there.
 */
export class Closed extends Schema.TaggedError<Closed>()("Closed", {
  queue: Schema.String,
  accepted: Schema.optionalKey(Schema.Int)
}) {
  override get message(): string {
    return `Queue "${this.queue}" is closed.`
  }
}

/** The lease moved on before this call arrived: it expired, or another holds the task. The task was not touched. */
export class LeaseLost extends Schema.TaggedError<LeaseLost>()("LeaseLost", { taskId: Schema.String }) {
  override get message(): string {
    return `The lease of task ${this.taskId} is lost; what was done under it is not counted.`
  }
}

/** The task has its one outcome already. Nothing was changed. */
export class AlreadyEnded extends Schema.TaggedError<AlreadyEnded>()("AlreadyEnded", { taskId: Schema.String }) {
  override get message(): string {
    return `Task ${this.taskId} has ended already.`
  }
}

/** No such task here: never put, taken by a `get`, purged, or its outcome is no longer kept. */
export class TaskNotFound extends Schema.TaggedError<TaskNotFound>()("TaskNotFound", { taskId: Schema.String }) {
  override get message(): string {
    return `The manager knows no task ${this.taskId}: never put here, taken by a get, purged, or its outcome is no longer kept.`
  }
}

/** The task will not be retried; `reasons` has what happened to its attempts. */
export class TaskDead extends Schema.TaggedError<TaskDead>()("TaskDead", {
  taskId: Schema.String,
  attempts: Schema.Int,
  reasons: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `Task ${this.taskId} is dead after ${this.attempts} attempts: ${this.reasons.at(-1) ?? "no reason given"}`
  }
}

/** The task was cancelled before it ended by itself. */
export class TaskCancelled extends Schema.TaggedError<TaskCancelled>()("TaskCancelled", { taskId: Schema.String }) {
  override get message(): string {
    return `Task ${this.taskId} was cancelled.`
  }
}

/**
 * What is recorded of a task does not fit the steps of the handler that runs it now. Nothing was recorded; the attempt fails
 * unless the handler knows better.
 */
export class StepChanged extends Schema.TaggedError<StepChanged>()("StepChanged", {
  step: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `Step "${this.step}": ${this.reason}. The handler has changed since the task began: deploy the one that it began with, or accept its version with Step.version.`
  }
}

/** A step cannot be recorded: its name, its value or their number. Nothing was recorded. */
export class StepInvalid extends Schema.TaggedError<StepInvalid>()("StepInvalid", {
  step: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `Step "${this.step}": ${this.reason}.`
  }
}

/** The reader of outcomes was too slow: those before `oldest` are no longer kept. */
export class OutcomesGap extends Schema.TaggedError<OutcomesGap>()("OutcomesGap", {
  queue: Schema.String,
  cursor: Schema.Int,
  oldest: Schema.Int
}) {
  override get message(): string {
    return `Outcomes ${this.cursor} to ${this.oldest - 1} of queue "${this.queue}" are no longer kept. Raise policy.outcomes or read faster.`
  }
}

/** The wait was over before the answer came. Nothing was changed. */
export class TimedOut extends Schema.TaggedError<TimedOut>()("TimedOut", { operation: Schema.String }) {
  override get message(): string {
    return `${this.operation}: the wait is over.`
  }
}

/** A bound of `Limits` is reached. Nothing was changed. */
export class LimitExceeded extends Schema.TaggedError<LimitExceeded>()("LimitExceeded", {
  limit: Schema.String,
  value: Schema.Number,
  max: Schema.Number,
  /** Where the value is below it, or would have to be whole. */
  min: Schema.optionalKey(Schema.Number)
}) {
  override get message(): string {
    return this.min === undefined
      ? `${this.limit} is ${this.value}, at most ${this.max} is allowed.`
      : `${this.limit} is ${this.value}, whole numbers from ${this.min} to ${this.max} are allowed.`
  }
}

/** The manager has no shared object of that name (or number) and was not asked to make it. Nothing was changed. */
export class ObjectNotFound extends Schema.TaggedError<ObjectNotFound>()("ObjectNotFound", { object: Schema.String }) {
  override get message(): string {
    return `The manager has no shared object "${this.object}".`
  }
}

/** The name belongs to a shared object of another kind. Nothing was changed. */
export class ObjectKindMismatch extends Schema.TaggedError<ObjectKindMismatch>()("ObjectKindMismatch", {
  object: Schema.String,
  kind: Schema.String,
  wanted: Schema.String
}) {
  override get message(): string {
    return `"${this.object}" is a ${this.kind}, not a ${this.wanted}. Use another name.`
  }
}

/**
 * A compare-and-set met something else: `current` is the version (of a dict's key, 0 for absent) or the value (of a
 * counter) that is there. Nothing was changed.
 */
export class Conflict extends Schema.TaggedError<Conflict>()("Conflict", {
  object: Schema.String,
  key: Schema.String,
  current: Schema.Int
}) {
  override get message(): string {
    const what = this.key === "" ? `"${this.object}"` : `key "${this.key}" of "${this.object}"`
    return `Another write to ${what} came first; it is at ${this.current} now. Read it and try again.`
  }
}

/** The sum would be no integer within -(2^53-1) to 2^53-1. Nothing was changed. */
export class CounterOverflow extends Schema.TaggedError<CounterOverflow>()("CounterOverflow", {
  object: Schema.String
}) {
  override get message(): string {
    return `Counter "${this.object}" would leave the range of safe integers.`
  }
}

/** One commit would span what is only in memory and what is stored, and could not be all or nothing. Nothing was changed. */
export class DurabilityMixed extends Schema.TaggedError<DurabilityMixed>()("DurabilityMixed", {
  /** What differs from the task's own queue. */
  name: Schema.String,
  /** The task's own queue, where it is known. */
  queue: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    const own = this.queue === undefined ? "the task's own queue" : `queue "${this.queue}"`
    return `A commit of ${own} cannot take in "${this.name}": one is kept in memory, the other in the store. Give both the same durability (policy.durability of a queue), or write to it outside the commit (queue.put).`
  }
}

/** The credential may not do this. Nothing was changed. */
export class NotPermitted extends Schema.TaggedError<NotPermitted>()("NotPermitted", { action: Schema.String }) {
  override get message(): string {
    return `Not permitted: ${this.action}.`
  }
}

/** The peer's protocol version does not have this yet. Nothing was changed. */
export class Unsupported extends Schema.TaggedError<Unsupported>()("Unsupported", { feature: Schema.String }) {
  override get message(): string {
    return `The manager does not support ${this.feature}.`
  }
}

/** The manager is stopping and takes no new work. Nothing was changed. */
export class Draining extends Schema.TaggedError<Draining>()("Draining", {}) {
  override get message(): string {
    return "The manager is draining; try again when it is back."
  }
}

/** No connection could be made. Nothing was sent. */
export class ConnectFailed extends Schema.TaggedError<ConnectFailed>()("ConnectFailed", {
  address: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `No manager answers at ${this.address} (${this.reason}). Is it running (millrace serve)? Check host, port and whether it wants TLS.`
  }
}

/** The manager did not accept the credential, or is not the one that knows it. Nothing else was sent. */
export class AuthenticationFailed extends Schema.TaggedError<AuthenticationFailed>()("AuthenticationFailed", {
  address: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `Authentication with ${this.address} failed (${this.reason}). Check that both sides use the same key and user.`
  }
}

/** The two programs speak no common protocol version. */
export class VersionUnsupported extends Schema.TaggedError<VersionUnsupported>()("VersionUnsupported", {
  ours: Schema.String,
  theirs: Schema.String
}) {
  override get message(): string {
    return `No common protocol version: this side speaks ${this.ours}, the other ${this.theirs}. Update the older one.`
  }
}

/** The other side broke the protocol; the connection was closed. Calls in flight may have been done. */
export class ProtocolViolated extends Schema.TaggedError<ProtocolViolated>()("ProtocolViolated", {
  reason: Schema.String
}) {
  override get message(): string {
    return `The protocol was violated: ${this.reason}.`
  }
}

/** The connection broke while the call was in flight: it may or may not have been done. */
export class ConnectionLost extends Schema.TaggedError<ConnectionLost>()("ConnectionLost", {
  address: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `The connection to ${this.address} was lost (${this.reason}) while the call was under way: it may or may not have been done.`
  }
}

/** The address could not be opened for listening. */
export class ListenFailed extends Schema.TaggedError<ListenFailed>()("ListenFailed", {
  address: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `Cannot listen on ${this.address}: ${this.reason}.`
  }
}

/** The configuration asks for something unsafe or impossible; `remedy` says what to do instead. */
export class ConfigurationInvalid extends Schema.TaggedError<ConfigurationInvalid>()("ConfigurationInvalid", {
  field: Schema.String,
  value: Schema.String,
  remedy: Schema.String
}) {
  override get message(): string {
    return `${this.field} is ${this.value}: ${this.remedy}.`
  }
}

/** The store could not write or read. The manager stops; what was in flight may have been stored. */
export class StoreBroken extends Schema.TaggedError<StoreBroken>()("StoreBroken", {
  reason: Schema.String,
  /** SQLite's extended result code; absent when the failure was not SQLite's. */
  code: Schema.optionalKey(Schema.Int),
  remedy: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    const code = this.code === undefined ? "" : ` (SQLite code ${this.code})`
    return `The store is broken: ${this.reason}${code}.${this.remedy === undefined ? "" : ` Remedy: ${this.remedy}.`}`
  }
}

/** A file of the store is not what was written, or not the newest. It was not changed. */
export class StoreDamaged extends Schema.TaggedError<StoreDamaged>()("StoreDamaged", {
  file: Schema.String,
  finding: Schema.String,
  remedy: Schema.String
}) {
  override get message(): string {
    return `${this.file} is damaged: ${this.finding}. Nothing was changed. Remedy: ${this.remedy}.`
  }
}

/** Another manager has the folder. Nothing was changed. */
export class StoreLocked extends Schema.TaggedError<StoreLocked>()("StoreLocked", {
  directory: Schema.String,
  holder: Schema.String,
  remedy: Schema.String
}) {
  override get message(): string {
    return `${this.directory} is in use by ${this.holder}. Remedy: ${this.remedy}.`
  }
}

/** A newer program wrote the file. Nothing was changed. */
export class StoreTooNew extends Schema.TaggedError<StoreTooNew>()("StoreTooNew", {
  file: Schema.String,
  found: Schema.Int,
  known: Schema.Int
}) {
  override get message(): string {
    return `${this.file} has schema version ${this.found}, this program knows up to ${this.known}. Run the program that wrote it, or a newer one.`
  }
}

/** The store has no room for new work. Nothing was written. */
export class StoreFull extends Schema.TaggedError<StoreFull>()("StoreFull", { neededBytes: Schema.Int }) {
  override get message(): string {
    return `The store is full: ${this.neededBytes} bytes are needed.`
  }
}

/** What the network, the manager's state or the credential can do to any request. */
export type RequestError =
  | QueueNotFound
  | SchemaMismatch
  | DefinitionInvalid
  | LimitExceeded
  | NotPermitted
  | Unsupported
  | Draining
  | ConnectFailed
  | AuthenticationFailed
  | VersionUnsupported
  | ProtocolViolated
  | ConnectionLost
  | StoreFull

/** Why a store does not open. All but `StoreBroken` left it as it was. */
export type StoreOpenError = ConfigurationInvalid | StoreBroken | StoreDamaged | StoreFull | StoreLocked | StoreTooNew

export type MillraceError =
  | RequestError
  | PayloadInvalid
  | DecodeFailed
  | PayloadTooLarge
  | Full
  | Empty
  | Closed
  | PutIncomplete
  | LeaseLost
  | AlreadyEnded
  | TaskNotFound
  | TaskDead
  | TaskCancelled
  | OutcomesGap
  | TimedOut
  | ObjectNotFound
  | ObjectKindMismatch
  | Conflict
  | CounterOverflow
  | DurabilityMixed
  | ListenFailed
  | ConfigurationInvalid
  | StoreBroken
  | StoreDamaged
  | StoreLocked
  | StoreTooNew

export interface Facts {
  readonly fault: "caller" | "peer" | "manager" | "network" | "operator" | "task"
  readonly severity: "request" | "connection" | "process"
  readonly outcome: "definite" | "indefinite"
}

const request = { severity: "request", outcome: "definite" } as const

export const facts = {
  QueueNotFound: { fault: "caller", ...request },
  SchemaMismatch: { fault: "caller", ...request },
  DefinitionInvalid: { fault: "caller", ...request },
  PayloadInvalid: { fault: "caller", ...request },
  DecodeFailed: { fault: "peer", ...request },
  PayloadTooLarge: { fault: "caller", ...request },
  Full: { fault: "manager", ...request },
  Empty: { fault: "manager", ...request },
  Closed: { fault: "caller", ...request },
  PutIncomplete: { fault: "manager", severity: "request", outcome: "indefinite" },
  LeaseLost: { fault: "caller", ...request },
  AlreadyEnded: { fault: "caller", ...request },
  TaskNotFound: { fault: "caller", ...request },
  TaskDead: { fault: "task", ...request },
  TaskCancelled: { fault: "task", ...request },
  OutcomesGap: { fault: "caller", ...request },
  TimedOut: { fault: "manager", ...request },
  ObjectNotFound: { fault: "caller", ...request },
  ObjectKindMismatch: { fault: "caller", ...request },
  Conflict: { fault: "caller", ...request },
  CounterOverflow: { fault: "caller", ...request },
  DurabilityMixed: { fault: "caller", ...request },
  LimitExceeded: { fault: "caller", ...request },
  NotPermitted: { fault: "caller", ...request },
  Unsupported: { fault: "caller", ...request },
  Draining: { fault: "manager", ...request },
  ConnectFailed: { fault: "network", severity: "connection", outcome: "definite" },
  AuthenticationFailed: { fault: "operator", severity: "connection", outcome: "definite" },
  VersionUnsupported: { fault: "operator", severity: "connection", outcome: "definite" },
  ProtocolViolated: { fault: "peer", severity: "connection", outcome: "indefinite" },
  ConnectionLost: { fault: "network", severity: "connection", outcome: "indefinite" },
  ListenFailed: { fault: "operator", severity: "process", outcome: "definite" },
  ConfigurationInvalid: { fault: "operator", severity: "process", outcome: "definite" },
  StoreBroken: { fault: "manager", severity: "process", outcome: "indefinite" },
  StoreDamaged: { fault: "operator", severity: "process", outcome: "definite" },
  StoreLocked: { fault: "operator", severity: "process", outcome: "definite" },
  StoreTooNew: { fault: "operator", severity: "process", outcome: "definite" },
  StoreFull: { fault: "manager", ...request }
} as const satisfies Record<MillraceError["_tag"], Facts>
