/**
 * The words of protocol version 1: message types, and the pieces that several messages share.
 *
 * Types below 0x40 go from client to manager, types from 0x40 to 0x5f from manager to client (0x5f is
 * kept for `Moved{namespace, addresses, epoch}`). 0x60-0x6f are about shared objects: up to 0x67 from client to manager,
 * from 0x68 on from manager to client. 0x70-0x7f for actors, from 0x80 on for streams. `docs/protocol.md` is the contract; a message may
 * grow at its end, and a reader passes over elements that it does not know.
 */
export const magic = "millrace"

/** The protocol versions that one side speaks. */
export interface Versions {
  readonly min: number
  readonly max: number
}

export const versionsSpoken: Versions = { min: 1, max: 1 }

/** As in a refusal: `1-1`. */
export const versionsText = ({ max, min }: Versions): string => `${min}-${max}`

export const ClientType = {
  hello: 0x01,
  authFirst: 0x02,
  authFinal: 0x03,
  sessionOpen: 0x04,
  heartbeat: 0x05,
  goodbye: 0x06,
  open: 0x10,
  put: 0x11,
  lease: 0x12,
  subscribe: 0x13,
  credit: 0x14,
  unsubscribe: 0x15,
  commit: 0x16,
  release: 0x17,
  fail: 0x18,
  started: 0x19,
  acknowledge: 0x1a,
  renew: 0x1b,
  peek: 0x1c,
  stats: 0x1d,
  join: 0x1e,
  close: 0x1f,
  outcome: 0x20,
  follow: 0x21,
  abandon: 0x22,
  cancel: 0x23,
  pause: 0x24,
  purge: 0x25,
  browse: 0x26,
  redrive: 0x27,
  checkpoint: 0x28,
  step: 0x29,
  suspend: 0x2a,
  signal: 0x2b,
  explain: 0x2c,
  repeat: 0x2d,
  repeats: 0x2e,
  removeRepeat: 0x2f,
  lane: 0x30,
  find: 0x31,
  answered: 0x34,
  openObject: 0x60,
  setKeys: 0x61,
  count: 0x62,
  countSet: 0x63,
  dictGet: 0x64,
  dictWrite: 0x65,
  listObject: 0x66
} as const

export const ManagerType = {
  hello: 0x40,
  authChallenge: 0x41,
  authOk: 0x42,
  sessionOpened: 0x43,
  heartbeat: 0x44,
  control: 0x45,
  closing: 0x46,
  done: 0x47,
  refused: 0x48,
  opened: 0x49,
  putDone: 0x4a,
  putItems: 0x4b,
  leased: 0x4c,
  streaming: 0x4d,
  items: 0x4e,
  peeked: 0x4f,
  stats: 0x50,
  outcome: 0x51,
  deliver: 0x52,
  outcomes: 0x53,
  gap: 0x54,
  counted: 0x55,
  browsed: 0x56,
  redriven: 0x57,
  standings: 0x58,
  explained: 0x59,
  repeats: 0x5a,
  found: 0x5b,
  objectOpened: 0x68,
  bits: 0x69,
  counter: 0x6a,
  entries: 0x6b,
  written: 0x6c,
  keys: 0x6d,
  pairs: 0x6e
} as const

/**
 * Answers that a manager remembers until the client has acknowledged them with `answered`, and gives again when the
 * request comes again: those of requests that change something.
 */
export const isRemembered = (type: number): boolean =>
  type === ManagerType.done ||
  type === ManagerType.putDone ||
  type === ManagerType.putItems ||
  type === ManagerType.leased ||
  type === ManagerType.items ||
  type === ManagerType.counted ||
  type === ManagerType.redriven ||
  type === ManagerType.standings ||
  type === ManagerType.repeats ||
  type === ManagerType.objectOpened ||
  type === ManagerType.bits ||
  type === ManagerType.counter ||
  type === ManagerType.written

/** What a producer may say about a task; the same shape as the engine's. */
export interface TaskOptions {
  readonly id?: string | undefined
  readonly priority?: number | undefined
  readonly delayMs?: number | undefined
  readonly ttlMs?: number | undefined
  readonly key?: string | undefined
  readonly labels?: ReadonlyArray<string> | undefined
  readonly trace?: string | undefined
}

/** At most so many bytes do these options take in a frame. */
export const optionsBytes = (options: TaskOptions | undefined): number => {
  if (options === undefined) return 0
  const { id, key, labels, trace } = options
  const characters = (id?.length ?? 0) + (key?.length ?? 0) + (trace?.length ?? 0)
  return 64 + 3 * (labels?.reduce((sum, label) => sum + label.length + 4, characters) ?? characters)
}

/** What may be done to a lane; the same numbers as the engine's. */
export const LaneChange = { limit: 0, clear: 1, pause: 2, resume: 3, slowDown: 4 } as const
export type LaneChange = (typeof LaneChange)[keyof typeof LaneChange]

/** Limits of one lane; what is left out is as the queue's policy says, and 0 is no bound. */
export interface LaneLimits {
  readonly concurrency?: number | undefined
  readonly ratePerMinute?: number | undefined
  readonly burst?: number | undefined
  readonly gapMs?: number | undefined
  readonly weight?: number | undefined
}

/** A step, or a signal: its name then begins with `!`. */
export type Entry = readonly [name: string, value: Uint8Array]

/** A task as a worker receives it. */
export interface Delivery {
  readonly task: number
  readonly fence: number
  readonly attempt: number
  readonly payload: Uint8Array
  readonly key: string | undefined
  readonly trace: string | undefined
  readonly checkpoint: Uint8Array | undefined
  /** Steps and signals of its earlier attempts, in the order of recording. */
  readonly entries?: ReadonlyArray<Entry> | undefined
}

export interface Reason {
  readonly attempt: number
  readonly reason: number
  readonly text: string
}

/** What an unsolicited `control` says. */
export const ControlKind = { draining: 1, cancelled: 2 } as const

/** Which tasks a browse, purge or redrive means; what is not given fits every task. */
export interface Filter {
  readonly key?: string | undefined
  readonly label?: string | undefined
  readonly id?: string | undefined
  readonly priorityMin?: number | undefined
  readonly priorityMax?: number | undefined
}

/** A task as a browse shows it. */
export interface Browsed {
  readonly task: number
  /** A standing. */
  readonly state: number
  readonly attempt: number
  readonly priority: number
  readonly putAtMs: number
  /** Delayed: due at. Leased: lease ends at. Dead: died at. Ready: 0. */
  readonly atMs: number
  /** Number of the session that has the lease. */
  readonly holder: number | undefined
  /** The dead letter that was put again as this task. */
  readonly origin: number | undefined
  readonly payload: Uint8Array | undefined
  readonly id: string | undefined
  readonly key: string | undefined
  readonly labels: ReadonlyArray<string>
  readonly reasons: ReadonlyArray<Reason>
  readonly checkpointBytes: number
  /** Of 10,000, as its attempt has said. */
  readonly progress: number | undefined
  /** Steps and signals that are recorded. */
  readonly entries: number
  /** Delayed, and a signal ends that. */
  readonly suspended: boolean
}

/** What became of a task, as it travels. */
export interface Outcome {
  readonly task: number
  readonly outcome: number
  readonly attempts: number
  readonly endedAtMs: number
  readonly body: Uint8Array | undefined
  readonly reasons: ReadonlyArray<Reason>
}

export interface QueueStats {
  readonly name: string
  readonly durability: string
  readonly closed: string
  readonly capacity: number
  readonly ready: number
  readonly delayed: number
  readonly leased: number
  readonly done: number
  readonly dead: number
  readonly cancelled: number
  readonly acknowledged: number
  readonly puts: number
  readonly duplicates: number
  readonly refused: number
  readonly oldestReadyMs: number
  readonly outcomesFirst: number
  readonly outcomesNext: number
  readonly workers: number
  readonly paused: boolean
  readonly nextDueMs: number
  readonly nextLeaseEndMs: number
  readonly waitingBytes: number
  readonly outcomeBytes: number
  readonly deadLetterBytes: number
  readonly deadLetters: number
  readonly waitingPuts: number
  readonly waitingTakers: number
  readonly readers: number
  readonly repeats: number
  readonly puts1s: number
  readonly puts10s: number
  readonly puts60s: number
  readonly leases1s: number
  readonly leases10s: number
  readonly leases60s: number
  readonly commits1s: number
  readonly commits10s: number
  readonly commits60s: number
  readonly failures1s: number
  readonly failures10s: number
  readonly failures60s: number
  readonly lanes: ReadonlyArray<LaneCount>
  readonly purged: number
  readonly dropped: number
  readonly redriven: number
  readonly capacityBytes: number
}

/** Key, tasks that wait and that are leased, ms until its limit lets one go. */
export type LaneCount = readonly [key: string, waiting: number, leased: number, blockedMs: number]

/** One fact of an explanation; its kind decides what the other fields mean. */
export interface Fact {
  readonly kind: number
  readonly subject: string
  readonly at: number
  readonly value: number
  readonly limit: number
}

/** A repeat as the manager has it. */
export interface Repeat {
  readonly id: string
  readonly everyMs: number | undefined
  readonly cron: string | undefined
  readonly zone: string
  readonly nextAtMs: number
  /** The task of the occurrence under way. */
  readonly task: number | undefined
  readonly lastAtMs: number | undefined
  readonly occurrences: number
  readonly payload: Uint8Array
  readonly options: TaskOptions | undefined
}
