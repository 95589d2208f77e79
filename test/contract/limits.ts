/**
 * The table of limits: what one message may say, as rows that `limits.test.ts` says over a socket, and for every other
 * limit the test that takes it to its edge.
 */
import type { Limits } from "millrace"
import { defaults, toNumbers } from "../../src/model/Policy.ts"
import { Code } from "../../src/model/Refusal.ts"
import type * as ClientMessages from "../../src/wire/ClientMessages.ts"
import { ClientType as C, ManagerType as M, type TaskOptions } from "../../src/wire/Vocabulary.ts"

export type Message = ClientMessages.ClientMessage

/** What a row may name: a fresh request number, and numbers of what is there. */
export interface At {
  readonly request: number
  readonly queue: number
  /** A queue that takes payloads up to the ceiling. */
  readonly large: number
}

export interface Row {
  readonly limit: keyof typeof Limits
  readonly what: string
  readonly say: (value: number, at: At) => Message
  /** What answers the limit; undefined: the message has no answer. */
  readonly answer: number | undefined
  /** How more is refused. Default: a breach, which closes the connection. */
  readonly code?: number
}

let names = 0

/** A name of its own for each queue. */
const nameOf = (): string => `limits-${++names}`
export const text = (size: number): string => "x".repeat(size)
export const of = <A>(count: number, item: A): ReadonlyArray<A> => new Array<A>(count).fill(item)
export const empty = new Uint8Array()
export const pairs = (count: number): ReadonlyArray<number> => of(2 * count, 1)

export const open = (request: number, change: Partial<ClientMessages.Open> = {}): ClientMessages.Open => {
  const base = { fingerprint: empty, schema: "", accepts: [], policy: [] } as const
  return { type: C.open, request, name: nameOf(), ...base, ...change }
}

export const put = (
  { queue, request }: Pick<At, "queue" | "request">,
  payloads: ReadonlyArray<Uint8Array>,
  options?: TaskOptions
): Message => {
  return {
    type: C.put,
    request,
    queue,
    atomic: false,
    waitMs: 0,
    payloads,
    options: options && of(payloads.length, options)
  }
}

const item =
  (options: (value: number) => TaskOptions): Row["say"] =>
  (value, at) =>
    put(at, [empty], options(value))

/** A commit of a lease that nobody has: it is read as a whole before it is found to be lost. */
const effects =
  (what: (count: number) => Partial<NonNullable<NonNullable<ClientMessages.Commit["effects"]>[number]>>): Row["say"] =>
  (count, { request }) => ({
    type: C.commit,
    request,
    tasks: [1],
    fences: [1],
    results: [empty],
    effects: [{ puts: [], sets: [], counts: [], writes: [], ...what(count) }]
  })

export const filter = {
  key: undefined,
  label: undefined,
  id: undefined,
  priorityMin: undefined,
  priorityMax: undefined
}

export const rows: ReadonlyArray<Row> = [
  {
    limit: "nameCharsMax",
    what: "a queue's name",
    say: (value, { request }) => open(request, { name: text(value) }),
    answer: M.opened
  },
  {
    limit: "nameCharsMax",
    what: "an object's name",
    say: (value, { request }) => ({ type: C.openObject, request, name: text(value), kind: 0, create: true }),
    answer: M.objectOpened
  },
  { limit: "taskIdBytesMax", what: "a dedupe id", say: item((size) => ({ id: text(size) })), answer: M.putItems },
  { limit: "taskKeyBytesMax", what: "a lane key", say: item((size) => ({ key: text(size) })), answer: M.putItems },
  {
    limit: "taskKeyBytesMax",
    what: "the lane of a change",
    say: (size, { queue, request }) => {
      return { type: C.lane, request, queue, key: text(size), change: 0, limits: undefined, forMs: undefined }
    },
    answer: M.done
  },
  {
    limit: "taskKeyBytesMax",
    what: "the key of a filter",
    say: (size, { queue, request }) => {
      return { type: C.purge, request, queue, filter: { ...filter, key: text(size) }, after: 0, upTo: undefined }
    },
    answer: M.counted
  },
  {
    limit: "labelsPerTaskMax",
    what: "labels of a task",
    say: item((count) => ({ labels: of(count, "l") })),
    answer: M.putItems
  },
  { limit: "labelBytesMax", what: "a label", say: item((size) => ({ labels: [text(size)] })), answer: M.putItems },
  { limit: "traceBytesMax", what: "a trace context", say: item((size) => ({ trace: text(size) })), answer: M.putItems },
  {
    limit: "schemaTextBytesMax",
    what: "a schema text",
    say: (size, { request }) => open(request, { schema: text(size) }),
    answer: M.opened
  },
  {
    limit: "acceptedFingerprintsMax",
    what: "older fingerprints",
    say: (count, { request }) => open(request, { accepts: of(count, new Uint8Array(32)) }),
    answer: M.opened
  },
  {
    limit: "payloadBytesMax",
    what: "a payload, by default",
    say: (size, at) => put(at, [new Uint8Array(size)]),
    answer: M.putDone,
    code: Code.payloadTooLarge
  },
  {
    limit: "payloadBytesMax",
    what: "a result",
    say: (size, { request }) => {
      const results = [new Uint8Array(size)]
      return { type: C.commit, request, tasks: [1], fences: [1], results, effects: undefined }
    },
    answer: M.items
  },
  {
    limit: "payloadBytesMax",
    what: "an error",
    say: (size, { request }) => {
      const failure = { reason: 1, error: new Uint8Array(size), text: "", retryAfterMs: undefined }
      return { type: C.fail, request, tasks: [1], fences: [1], failures: [failure] }
    },
    answer: M.items
  },
  {
    limit: "payloadBytesMax",
    what: "a checkpoint",
    say: (size, { request }) => {
      return { type: C.checkpoint, request, tasks: [1], fences: [1], values: [new Uint8Array(size)] }
    },
    answer: M.items
  },
  {
    limit: "payloadBytesCeiling",
    what: "a payload of a queue that takes the largest",
    say: (size, { large, request }) => put({ queue: large, request }, [new Uint8Array(size)]),
    answer: M.putDone
  },
  {
    limit: "payloadBytesCeiling",
    what: "a policy's payload limit",
    say: (payloadBytesMax, { request }) => open(request, { policy: toNumbers({ ...defaults, payloadBytesMax }) }),
    answer: M.opened,
    code: Code.definitionInvalid
  },
  { limit: "batchItemsMax", what: "items of a put", say: (count, at) => put(at, of(count, empty)), answer: M.putDone },
  {
    limit: "batchItemsMax",
    what: "items of a commit",
    say: (count, { request }) => {
      const results = of(count, empty)
      return { type: C.commit, request, tasks: of(count, 1), fences: of(count, 1), results, effects: undefined }
    },
    answer: M.items
  },
  {
    limit: "batchItemsMax",
    what: "items of a fail",
    say: (count, { request }) => {
      const failures = of(count, { reason: 1, error: undefined, text: "", retryAfterMs: undefined })
      return { type: C.fail, request, tasks: of(count, 1), fences: of(count, 1), failures }
    },
    answer: M.items
  },
  {
    limit: "batchItemsMax",
    what: "checkpoints",
    say: (count, { request }) => {
      return { type: C.checkpoint, request, tasks: of(count, 1), fences: of(count, 1), values: of(count, empty) }
    },
    answer: M.items
  },
  {
    limit: "batchItemsMax",
    what: "tasks of a lease",
    say: (count, { queue, request }) => ({ type: C.lease, request, queue, count, waitMs: 0, get: false }),
    answer: M.refused
  },
  {
    limit: "batchItemsMax",
    what: "tasks of a cancel",
    say: (count, { queue, request }) => ({ type: C.cancel, request, queue, tasks: of(count, 1) }),
    answer: M.standings
  },
  {
    limit: "batchItemsMax",
    what: "keys of a set",
    say: (count, { request }) => ({ type: C.setKeys, request, object: 0, action: 0, keys: of(count, empty) }),
    answer: M.bits
  },
  {
    limit: "batchItemsMax",
    what: "keys read of a dict",
    say: (count, { request }) => ({ type: C.dictGet, request, object: 1, keys: of(count, "k") }),
    answer: M.entries
  },
  {
    limit: "batchItemsMax",
    what: "writes of a dict",
    say: (count, { request }) => {
      return {
        type: C.dictWrite,
        request,
        object: 1,
        writes: of(count, { key: "k", value: empty, expected: undefined })
      }
    },
    answer: M.written
  },
  {
    limit: "commitEffectsMax",
    what: "children of a commit",
    say: effects((count) => ({ puts: of(count, { queue: 0, payload: empty, options: undefined }) })),
    answer: M.items
  },
  {
    limit: "commitEffectsMax",
    what: "set additions of a commit",
    say: effects((count) => ({ sets: of(count, { object: 0, key: empty }) })),
    answer: M.items
  },
  {
    limit: "commitEffectsMax",
    what: "increments of a commit",
    say: effects((count) => ({ counts: of(count, { object: 0, by: 1 }) })),
    answer: M.items
  },
  {
    limit: "commitEffectsMax",
    what: "dict writes of a commit",
    say: effects((count) => ({ writes: of(count, { object: 0, key: "k", value: empty, expected: undefined }) })),
    answer: M.items
  },
  {
    limit: "creditMax",
    what: "credit of a subscription",
    say: (credit, { queue, request }) => ({ type: C.subscribe, request, queue, credit, prefetch: 0 }),
    answer: M.streaming
  },
  {
    limit: "creditMax",
    what: "prefetch of a subscription",
    say: (prefetch, { queue, request }) => ({ type: C.subscribe, request, queue, credit: 1, prefetch }),
    answer: M.streaming
  },
  {
    limit: "creditMax",
    what: "credit of a reader of outcomes",
    say: (credit, { queue, request }) => ({ type: C.follow, request, queue, cursor: 0, credit }),
    answer: M.streaming
  },
  {
    limit: "creditMax",
    what: "more credit",
    say: (credit) => ({ type: C.credit, stream: 0, credit }),
    answer: undefined
  },
  {
    limit: "creditMax",
    what: "leases of a heartbeat",
    say: (count) => ({ type: C.heartbeat, sequence: 1, held: pairs(count) }),
    answer: M.heartbeat
  },
  {
    limit: "creditMax",
    what: "leases that have begun",
    say: (count) => ({ type: C.started, held: pairs(count) }),
    answer: undefined
  },
  {
    limit: "creditMax",
    what: "leases that are acknowledged",
    say: (count) => ({ type: C.acknowledge, held: pairs(count) }),
    answer: undefined
  },
  {
    limit: "creditMax",
    what: "leases that are renewed",
    say: (count, { request }) => ({ type: C.renew, request, held: pairs(count) }),
    answer: M.items
  },
  {
    limit: "creditMax",
    what: "leases that are released",
    say: (count, { request }) => ({ type: C.release, request, held: pairs(count) }),
    answer: M.items
  },
  {
    limit: "pageItemsMax",
    what: "tasks of a peek",
    say: (count, { queue, request }) => ({ type: C.peek, request, queue, count }),
    answer: M.peeked
  },
  {
    limit: "pageItemsMax",
    what: "tasks of a browse",
    say: (limit, { queue, request }) => {
      return { type: C.browse, request, queue, state: undefined, filter, after: 0, limit, payloads: false }
    },
    answer: M.browsed
  },
  {
    limit: "pageItemsMax",
    what: "entries of a listing",
    say: (count, { request }) => ({ type: C.listObject, request, object: 0, after: undefined, count }),
    answer: M.keys
  },
  {
    limit: "redriveTasksMax",
    what: "tasks of a redrive",
    say: (count, { queue, request }) => {
      return { type: C.redrive, request, queue, tasks: of(count, 1), filter, after: 0, upTo: undefined }
    },
    answer: M.redriven
  },
  {
    limit: "answerRangesMax",
    what: "ranges of answers",
    say: (count) => ({ type: C.answered, ranges: pairs(count) }),
    answer: undefined
  }
]

export type Limit = keyof typeof Limits

const here = "test/contract/limits.test.ts"
const peers = "test/contract/limitsOfPeers.test.ts"
const progressMessages = "test/unit/wire/ProgressMessages.test.ts"
const progressModel = "test/unit/model/Progress.test.ts"
const core = "test/unit/manager/Core.test.ts"
const logins = "test/unit/manager/Logins.test.ts"
const answers = "test/unit/client/Answers.test.ts"
const scram = "test/unit/auth/Scram.test.ts"
const structures = "test/unit/model/Structures.test.ts"
const strangers = "takes {max} strangers from {address} at a time, and no more"

/** Where a limit is taken to its edge besides `rows`: a file, and what its source calls the test, without dollars. */
export const tested: { readonly [K in Limit]?: ReadonlyArray<readonly [file: string, test: string]> } = {
  preAuthFrameBytesMax: [[here, "a frame before login is in bytes of its body"]],
  preAuthFramesMax: [
    // What a manager takes are four, each in its turn, so that it never gets to count; a client does count.
    [here, "frames before login is above the four that a login has: none is taken out of turn, and none beside them"],
    [answers, "is cut when it says more than a login has, or more at once, while the client works for it"],
    [answers, "is heard out within both"]
  ],
  unprovenFrameBytesMax: [
    [answers, "is cut when it says more than a login has, or more at once, while the client works for it"],
    [answers, "is heard out within both"]
  ],
  frameBytesMax: [
    [here, "a frame after login is in bytes of its body"],
    ["test/unit/wire/Frames.test.ts", "takes a body of the limit and refuses one more, before any of it"]
  ],
  messagesPerFrameMax: [
    [here, "messages of a frame is for each frame"],
    ["test/unit/wire/Frames.test.ts", "never puts more messages into a frame than a reader takes"]
  ],
  nestingDepthMax: [
    [here, "nesting is for what a newer peer adds"],
    ["test/unit/wire/Bytes.test.ts", "passes over values nested 32 deep and not 33"]
  ],
  handshakeMs: [
    [peers, "the handshake's"],
    ["test/contract/hostile.test.ts", "a silent connection is closed when the time for the handshake is over"]
  ],
  scramIterationsMin: [[scram, "asks for no derivation outside the bounds (M5)"]],
  scramIterationsMax: [[scram, "asks for no derivation outside the bounds (M5)"]],
  scramMessageCharsMax: [
    [scram, "refuses a message above 900 characters"],
    [scram, "refuses a message above 900 characters, and one that would need a longer answer"]
  ],
  authkeyBytesMax: [[peers, "bytes of a key is for managers, as it is for those who log in"]],
  credentialsMax: [["test/unit/auth/CredentialsFile.test.ts", "has bounds: characters of a line, credentials"]],
  credentialsLineBytesMax: [
    ["test/unit/auth/CredentialsFile.test.ts", "has bounds: characters of a line, credentials"]
  ],
  credentialsFileBytesMax: [[peers, "bytes of {what}"]],
  pemBytesMax: [[peers, "bytes of {what}"]],
  grantsMax: [["test/unit/auth/Roles.test.ts", "are bounded in count"]],
  namePatternsMax: [["test/unit/auth/Roles.test.ts", "are bounded in count"]],
  connectionsMax: [[core, "are for {Limits.connectionsMax} connections, and one that goes makes room for one"]],
  connectionsUnauthenticatedMax: [
    [core, "takes no more strangers than its places, wherever they are from"],
    [peers, "have their own places: a login frees one for another stranger (M13)"]
  ],
  connectionsUnauthenticatedPerAddressMax: [[core, strangers]],
  connectionsUnauthenticatedLoopbackMax: [[core, strangers]],
  loginFailuresFree: [
    [logins, "cost nothing below the limit, at it and above it more and more, up to the longest delay"]
  ],
  loginDelayBaseMs: [
    [logins, "cost nothing below the limit, at it and above it more and more, up to the longest delay"]
  ],
  loginDelayMsMax: [
    [logins, "cost nothing below the limit, at it and above it more and more, up to the longest delay"]
  ],
  loginFailuresForgottenMs: [[logins, "are forgotten after a while without another"]],
  loginRecordsMax: [[logins, "are remembered of a bounded number of addresses; those that fail on stay"]],
  logBurstsMax: [[logins, "is bounded: too many addresses at a time share one line"]],
  heartbeatDeadMs: [
    [peers, "that of a peer of which nothing is heard"],
    ["test/contract/liveness.test.ts", "is found by the manager, which counts its streams no longer"]
  ],
  requestsInFlightMax: [
    [peers, "requests in flight refuses what is above it, and the connection goes on"],
    [
      "test/contract/hostile.test.ts",
      "more requests in flight than allowed get a typed refusal, and the connection goes on"
    ]
  ],
  outboundBytesMax: [
    [peers, "may be as much as the limit; with one byte more the peer is dropped at once"],
    [peers, "is bounded where payloads are {where}: a peer that asks and never reads is dropped, others go on (M12)"]
  ],
  outboundBytesPause: [
    [peers, "is added to by deliveries up to the pause, and again when the peer has read"],
    [peers, "a subscriber that never reads is dropped, its leases go back, and a neighbour does all of the work (M12)"]
  ],
  inboundBytesPause: [[peers, "may be as much as the limit; above it the peer is not read until half of it is done"]],
  subscriptionsPerSessionMax: [[peers, "subscriptions of a session refuses one more, of either kind, until one ends"]],
  creditMax: [
    [here, "credit is for its sum: what is above it is cut"],
    [here, "leases is for what a session says that it holds, too"]
  ],
  sessionIdleMs: [[peers, "that of a session without a connection"]],
  sessionsMax: [
    [peers, "that all hold leases are as many as the limit, and one more is refused until one of them ends"],
    [core, "are for {Limits.sessionsMax} sessions; of those that nobody is connected to, the oldest makes room"]
  ],
  nameCharsMax: [[here, "a name is for namespaces, agents and credentials, too"]],
  progressWhole: [[progressMessages, "end at their limits: the limit passes, one more is refused"]],
  entryNameBytesMax: [[progressMessages, "end at their limits: the limit passes, one more is refused"]],
  entriesPerTaskMax: [
    [progressModel, "are as many as the bound says, signals among them; one that is there is accepted still"]
  ],
  entryBytesPerTaskMax: [[progressModel, "are as large together as the bound says: {over} bytes beyond"]],
  payloadBytesMax: [["test/contract/queue.ts", "a payload of the limit passes, one byte more is refused"]],
  payloadBytesCeiling: [
    ["test/contract/queue.ts", "the largest payload that a queue may allow comes back, and its death is told"]
  ],
  batchItemsMax: [
    [
      "test/contract/queue.ts",
      "an atomic batch is put whole or not at all, and refused above the capacity or one frame"
    ]
  ],
  batchBytesMax: [[here, "bytes of a batch is for what one lease answers with"]],
  browseTasksMax: [[here, "tasks that one purge or browse looks at is a place to go on from"]],
  sweepTasksMax: [[here, "tasks that one purge or browse looks at is a place to go on from"]],
  walkSlotsMax: [[structures, "looks at a bounded number of tasks of others, and goes on behind them"]],
  redriveTasksMax: [[here, "tasks of one redrive is for all that fit, too"]],
  // Of later sections: what a peer lets a manager keep, and says of it.
  closeMs: [[peers, "that of a peer that does not take the last word, nor the answers before its goodbye"]],
  answersRememberedMax: [[peers, "answers that are not acknowledged ends the connection, and the session resumes"]]
}

/** No bounds on a peer, and why. */
export const unbounded: { readonly [K in Limit]?: string } = {
  frameBytesTarget: "where a writer ends its own frames; a reader takes what is larger",
  outboundBytesTurn: "when a client hands over what it has written; nothing is refused",
  scramIterationsGenerated: "what this end chooses for its own verifiers",
  scramIterationsPassword: "what this end chooses for its own verifiers",
  scramNonceBytesMin: "what this end draws for its own nonces; a peer's may be short, and only weakens its own login",
  authkeyGeneratedBytes: "what this end draws for its own keys",
  logBurstMs: "how often this end logs",
  heartbeatMs: "when a client speaks if it has nothing else to say",
  heartbeatMsMin: "how often a client lets a manager make it speak",
  suspendMsMin: "how long a waiting task waits at least: a shorter wait is taken as this one",
  stepNameCharsMax: "what a client lets its program name; the manager bounds the bytes",
  silenceLookMs: "how often this end looks for silence",
  quietMs: "when a manager speaks if its answers have to wait"
}
