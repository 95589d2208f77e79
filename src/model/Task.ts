/**
 * One task as the engine holds it, and the words for what may become of it.
 *
 * A task is mutable and owned by exactly one engine. `prev` and `next` link it into the one list that its state puts
 * it in: the ready list of its lane and priority, or the lease list of its queue. Legal moves:
 *
 *     put -> ready | delayed        delayed -> ready | dead | cancelled     ready -> leased | dead | cancelled
 *     leased -> done | dead | ready (released, lost) | delayed (failed, backing off) | cancelled
 *
 * `done`, `dead` and `cancelled` are final: the record leaves the engine, its outcome stays in the log. `Life.ts` has the
 * whole table.
 */
import type { Queue } from "./Queue.ts"
import type { Session } from "./Session.ts"
import type { Timer } from "./Timers.ts"

export const State = { ready: 0, delayed: 1, leased: 2, ended: 3 } as const
export type State = (typeof State)[keyof typeof State]

/** What became of a task; the numbers are the protocol's. */
export const Outcome = { success: 0, failure: 1, dead: 2, cancelled: 3 } as const
export type Outcome = (typeof Outcome)[keyof typeof Outcome]

/** Why an attempt, or the task itself, ended badly; the numbers are the protocol's. */
export const Reason = {
  failed: 0,
  killed: 1,
  defect: 2,
  leaseLost: 3,
  quarantined: 4,
  expired: 5,
  dropped: 6,
  releasedTooOften: 7,
  timeout: 8,
  undecodable: 9,
  damaged: 10
} as const
export type Reason = (typeof Reason)[keyof typeof Reason]

export interface AttemptReason {
  readonly attempt: number
  readonly reason: Reason
  readonly text: string
}

/** What a producer may say about a task besides its payload. */
export interface TaskOptions {
  /** Dedupe id: at most one task per id while that task lives and for the retention after it. */
  readonly id?: string | undefined
  /** 0..255, lower first. */
  readonly priority?: number | undefined
  readonly delayMs?: number | undefined
  readonly ttlMs?: number | undefined
  /** Lane. */
  readonly key?: string | undefined
  readonly labels?: ReadonlyArray<string> | undefined
  /** W3C traceparent. */
  readonly trace?: string | undefined
}

export const priorityDefault = 128

/** What a step or a signal counts for in `entryBytesPerTaskMax`: at least what it takes on the wire. */
export const entryBytesOf = (name: string, value: Uint8Array): number => 3 * name.length + value.byteLength + 8

/** Bytes of its checkpoint, its steps and its signals. */
export const progressBytesOf = ({ checkpoint, entryBytes }: Task): number => (checkpoint?.byteLength ?? 0) + entryBytes

/** What most tasks never have: an object of its own costs them one field instead of six. */
class Rare {
  releases = 0
  due: Timer | undefined = undefined
  expiry: Timer | undefined = undefined
  reasons: Array<AttemptReason> | undefined = undefined
  checkpoint: Uint8Array | undefined = undefined
  origin = 0
  entries: Map<string, Uint8Array> | undefined = undefined
  entryBytes = 0
  suspended = false
  progress: number | undefined = undefined
}

/** Where the small numbers of a task lie in its `#bits`. 28 bits: an integer that V8 keeps in the field itself. */
const stateMask = 0b11
const startedBit = 1 << 2
const expiredBit = 1 << 3
const lossesShift = 4
const lossesMask = 0b11
const priorityShift = 6
const priorityMask = 0xff
const attemptShift = 14
const attemptMask = 0x3fff

/**
 * A waiting task is what a manager has most of: packed like this it takes 144 bytes and its eight in the table, where a
 * field for everything took 232 (V8 gives every field eight, and a header of 24).
 */
export class Task {
  prev: Task | undefined = undefined
  next: Task | undefined = undefined
  #bits: number
  #rare: Rare | undefined = undefined
  /** Leases ever granted; with the epoch it makes the fence. */
  leases = 0
  /** Delayed: due at. Leased: lease ends at. */
  at = 0
  holder: Session | undefined = undefined
  /** The dense number of the task: its identity inside the namespace, and its first place in the order. */
  readonly n: number
  readonly queue: Queue
  /** Undefined: only in the log, at `home` and `homeAt`. */
  payload: Uint8Array | undefined
  readonly payloadBytes: number
  /** The row of the log with the task's full record, and where in it the payload begins; 0: in no log. */
  home = 0
  homeAt = 0
  readonly options: TaskOptions | undefined
  /** Put order within its priority; a task that backed off gets a new place, a released one keeps its own. */
  place: number
  readonly putAt: number

  constructor(
    n: number,
    queue: Queue,
    payload: Uint8Array | undefined,
    options: TaskOptions | undefined,
    now: number,
    payloadBytes = payload?.byteLength ?? 0
  ) {
    this.n = n
    this.queue = queue
    this.payload = payload
    this.payloadBytes = payloadBytes
    this.options = options
    this.#bits = (options?.priority ?? priorityDefault) << priorityShift
    this.place = n
    this.putAt = now
  }

  get state(): State {
    return (this.#bits & stateMask) as State
  }
  set state(state: State) {
    this.#bits = (this.#bits & ~stateMask) | state
  }

  get priority(): number {
    return (this.#bits >> priorityShift) & priorityMask
  }

  get started(): boolean {
    return (this.#bits & startedBit) !== 0
  }
  set started(started: boolean) {
    this.#bits = started ? this.#bits | startedBit : this.#bits & ~startedBit
  }

  /** Its time to live is over: it may end, and not come back. */
  get expired(): boolean {
    return (this.#bits & expiredBit) !== 0
  }
  set expired(expired: boolean) {
    this.#bits = expired ? this.#bits | expiredBit : this.#bits & ~expiredBit
  }

  /** Leases granted and not given back: at most `attemptsMax`. */
  get attempt(): number {
    return (this.#bits >> attemptShift) & attemptMask
  }
  set attempt(attempt: number) {
    const kept = Math.min(attempt, attemptMask)
    this.#bits = (this.#bits & ~(attemptMask << attemptShift)) | (kept << attemptShift)
  }

  /** At most `lossesWhileStartedMax`: with the last one the task is over. */
  get lossesWhileStarted(): number {
    return (this.#bits >> lossesShift) & lossesMask
  }
  set lossesWhileStarted(losses: number) {
    const kept = Math.min(losses, lossesMask)
    this.#bits = (this.#bits & ~(lossesMask << lossesShift)) | (kept << lossesShift)
  }

  get releases(): number {
    return this.#rare === undefined ? 0 : this.#rare.releases
  }
  set releases(releases: number) {
    if (this.#rare !== undefined || releases !== 0) this.#unusual().releases = releases
  }

  /** The entry that makes a delayed task ready, and the one that ends its time to live. */
  get due(): Timer | undefined {
    return this.#rare?.due
  }
  set due(due: Timer | undefined) {
    if (this.#rare !== undefined || due !== undefined) this.#unusual().due = due
  }
  get expiry(): Timer | undefined {
    return this.#rare?.expiry
  }
  set expiry(expiry: Timer | undefined) {
    if (this.#rare !== undefined || expiry !== undefined) this.#unusual().expiry = expiry
  }

  get reasons(): Array<AttemptReason> | undefined {
    return this.#rare?.reasons
  }
  set reasons(reasons: Array<AttemptReason> | undefined) {
    if (this.#rare !== undefined || reasons !== undefined) this.#unusual().reasons = reasons
  }

  /** Steps and signals, in the order in which they were recorded; see `addEntry`. */
  get entries(): ReadonlyMap<string, Uint8Array> | undefined {
    return this.#rare?.entries
  }
  /** Bytes of their names and values. */
  get entryBytes(): number {
    return this.#rare === undefined ? 0 : this.#rare.entryBytes
  }
  addEntry(name: string, value: Uint8Array): void {
    const rare = this.#unusual()
    rare.entries ??= new Map()
    rare.entries.set(name, value)
    rare.entryBytes += entryBytesOf(name, value)
  }

  /** Delayed because its handler waits: a signal ends that. */
  get suspended(): boolean {
    return this.#rare?.suspended === true
  }
  set suspended(suspended: boolean) {
    if (this.#rare !== undefined || suspended) this.#unusual().suspended = suspended
  }

  /** Of 10,000, as its attempt has said; not durable. */
  get progress(): number | undefined {
    return this.#rare?.progress
  }
  set progress(progress: number | undefined) {
    if (this.#rare !== undefined || progress !== undefined) this.#unusual().progress = progress
  }

  get checkpoint(): Uint8Array | undefined {
    return this.#rare?.checkpoint
  }
  set checkpoint(checkpoint: Uint8Array | undefined) {
    if (this.#rare !== undefined || checkpoint !== undefined) this.#unusual().checkpoint = checkpoint
  }

  /** Number of the dead letter that was put again as this task; 0: none. */
  get origin(): number {
    return this.#rare === undefined ? 0 : this.#rare.origin
  }
  set origin(origin: number) {
    if (this.#rare !== undefined || origin !== 0) this.#unusual().origin = origin
  }

  #unusual(): Rare {
    this.#rare ??= new Rare()
    return this.#rare
  }
}
