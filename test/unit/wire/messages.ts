/** Random messages of every type, both sides: what a decoder must take, and what mutations begin with. */
import * as Limits from "../../../src/Limits.ts"
import { Writer } from "../../../src/wire/Bytes.ts"
import type * as Client from "../../../src/wire/ClientMessages.ts"
import type * as Manager from "../../../src/wire/ManagerMessages.ts"
import {
  type Browsed,
  ClientType as C,
  type Delivery,
  type Entry,
  type Filter,
  ManagerType as M,
  type Outcome,
  type QueueStats,
  type TaskOptions
} from "../../../src/wire/Vocabulary.ts"
import type { Random } from "../random.ts"

const uint = (r: Random): number => Math.floor(r.next() * 2 ** r.int(54)) % (Number.MAX_SAFE_INTEGER + 1)
const uints = (r: Random, length = r.int(20)): ReadonlyArray<number> => Array.from({ length }, () => uint(r))
const held = (r: Random): ReadonlyArray<number> => uints(r, 2 * r.int(10))
const text = (r: Random, max = 40): string =>
  Array.from({ length: r.int(max) }, () => r.pick(["a", "é", "痛", "😀", "\u0000"])).join("")
const name = (r: Random): string => `queue-${r.int(1_000)}.x:y_`
const maybe = <A>(r: Random, make: () => A): A | undefined => (r.chance(50) ? make() : undefined)
const many = <A>(r: Random, make: () => A): ReadonlyArray<A> => Array.from({ length: r.int(6) }, make)

const options = (r: Random): TaskOptions => ({
  id: maybe(r, () => text(r)),
  priority: maybe(r, () => r.int(256)),
  delayMs: maybe(r, () => r.int(1_000_000)),
  ttlMs: maybe(r, () => r.int(1_000_000)),
  key: maybe(r, () => text(r)),
  labels: maybe(r, () => many(r, () => text(r, 10))),
  trace: maybe(r, () => text(r))
})

const filter = (r: Random): Filter => ({
  key: maybe(r, () => text(r)),
  label: maybe(r, () => text(r, 10)),
  id: maybe(r, () => text(r)),
  priorityMin: maybe(r, () => r.int(256)),
  priorityMax: maybe(r, () => r.int(256))
})

/** Of either sign. */
const int = (r: Random): number => {
  const size = uint(r)
  return size > 0 && r.chance(50) ? -size : size
}

const dictChange = (r: Random) => ({
  key: text(r, 20),
  value: maybe(r, () => r.bytes(r.int(50))),
  expected: maybe(r, () => uint(r))
})

const sparse = <A>(r: Random, length: number, make: () => A): ReadonlyArray<A | undefined> | undefined => {
  const items = Array.from({ length }, () => maybe(r, make))
  return items.some((item) => item !== undefined) ? items : undefined
}

/** A field that is there only with a value. */
const present = <K extends string, A>(field: K, value: A | undefined): { readonly [k in K]?: A } =>
  value === undefined ? {} : ({ [field]: value } as { readonly [k in K]: A })

/** What a heartbeat says of one lease. */
const report = (r: Random) => ({
  task: uint(r),
  fence: uint(r),
  progress: maybe(r, () => r.int(Limits.progressWhole + 1)),
  checkpoint: maybe(r, () => r.bytes(r.int(50)))
})

type MakeClient = { readonly [K in keyof typeof C]: (r: Random) => Client.ClientMessage }

export const clientMessages: MakeClient = {
  hello: (r) => ({
    type: C.hello,
    magic: "millrace",
    versionMin: uint(r),
    versionMax: uint(r),
    capabilities: uint(r),
    frameBytesMax: uint(r),
    role: text(r),
    namespace: name(r),
    agent: text(r)
  }),
  authFirst: (r) => ({ type: C.authFirst, mechanism: "SCRAM-SHA-256", message: text(r) }),
  authFinal: (r) => ({ type: C.authFinal, message: text(r) }),
  sessionOpen: (r) => ({ type: C.sessionOpen, session: maybe(r, () => r.bytes(16)), held: held(r) }),
  heartbeat: (r) => ({
    type: C.heartbeat,
    sequence: uint(r),
    held: held(r),
    ...present(
      "reports",
      maybe(r, () => many(r, () => report(r)))
    )
  }),
  goodbye: () => ({ type: C.goodbye }),
  abandon: (r) => ({ type: C.abandon, request: uint(r) }),
  answered: (r) => ({ type: C.answered, ranges: held(r) }),
  openObject: (r) => ({ type: C.openObject, request: uint(r), name: name(r), kind: r.int(3), create: r.chance(50) }),
  setKeys: (r) => ({
    type: C.setKeys,
    request: uint(r),
    object: uint(r),
    action: r.int(3),
    keys: many(r, () => r.bytes(r.int(50)))
  }),
  count: (r) => ({ type: C.count, request: uint(r), object: uint(r), by: int(r) }),
  countSet: (r) => ({
    type: C.countSet,
    request: uint(r),
    object: uint(r),
    expected: maybe(r, () => int(r)),
    value: int(r)
  }),
  dictGet: (r) => ({ type: C.dictGet, request: uint(r), object: uint(r), keys: many(r, () => text(r, 20)) }),
  dictWrite: (r) => ({ type: C.dictWrite, request: uint(r), object: uint(r), writes: many(r, () => dictChange(r)) }),
  listObject: (r) => ({
    type: C.listObject,
    request: uint(r),
    object: uint(r),
    after: maybe(r, () => r.bytes(16)),
    count: r.int(1_001)
  }),
  open: (r) => ({
    type: C.open,
    request: uint(r),
    name: name(r),
    fingerprint: r.bytes(r.pick([0, 32])),
    schema: text(r, 300),
    accepts: many(r, () => r.bytes(32)),
    policy: maybe(r, () => uints(r))
  }),
  put: (r) => {
    const payloads = many(r, () => r.bytes(r.int(300)))
    const all = sparse(r, payloads.length, () => options(r))
    return {
      type: C.put,
      request: uint(r),
      queue: uint(r),
      atomic: r.chance(50),
      waitMs: maybe(r, () => r.int(9_999)),
      payloads,
      options: all
    }
  },
  lease: (r) => ({
    type: C.lease,
    request: uint(r),
    queue: uint(r),
    count: r.int(4_097),
    waitMs: maybe(r, () => r.int(Limits.waitMsMax + 1)),
    get: r.chance(50)
  }),
  subscribe: (r) => {
    return { type: C.subscribe, request: uint(r), queue: uint(r), credit: r.int(65_537), prefetch: r.int(65_537) }
  },
  lane: (r) => ({
    type: C.lane,
    request: uint(r),
    queue: uint(r),
    key: text(r, 300),
    change: r.pick([0, 1, 2, 3, 4] as const),
    limits: maybe(r, () => ({
      concurrency: maybe(r, () => r.int(65_537)),
      ratePerMinute: maybe(r, () => r.int(60_000_001)),
      burst: maybe(r, () => r.int(1_000_001)),
      gapMs: maybe(r, () => r.int(86_400_001)),
      weight: maybe(r, () => r.int(1_001))
    })),
    forMs: maybe(r, () => r.int(1_000_000))
  }),
  credit: (r) => ({
    type: C.credit,
    stream: uint(r),
    credit: r.int(65_537),
    ...(r.chance(50) ? { prefetch: r.int(65_537) } : {})
  }),
  unsubscribe: (r) => ({ type: C.unsubscribe, request: uint(r), stream: uint(r) }),
  commit: (r) => {
    const tasks = uints(r)
    const effects = sparse(r, tasks.length, () => {
      const sets = many(r, () => ({ object: uint(r), key: r.bytes(r.int(40)) }))
      return {
        puts: many(r, () => {
          const put = { queue: uint(r), payload: r.bytes(r.int(50)), options: maybe(r, () => options(r)) }
          return sets.length > 0 && r.chance(50) ? { ...put, ifNew: r.int(sets.length) } : put
        }),
        sets,
        counts: many(r, () => ({ object: uint(r), by: int(r) })),
        writes: many(r, () => ({ object: uint(r), ...dictChange(r) }))
      }
    })
    return {
      type: C.commit,
      request: uint(r),
      tasks,
      fences: tasks.map(() => uint(r)),
      results: tasks.map(() => r.bytes(r.int(100))),
      effects,
      together: r.chance(50),
      ...present(
        "slowDowns",
        sparse(r, tasks.length, () => r.int(1_000_000))
      )
    }
  },
  release: (r) => ({ type: C.release, request: uint(r), held: held(r) }),
  fail: (r) => {
    const tasks = uints(r)
    return {
      type: C.fail,
      request: uint(r),
      tasks,
      fences: tasks.map(() => uint(r)),
      failures: tasks.map(() => ({
        reason: r.int(16),
        error: maybe(r, () => r.bytes(r.int(100))),
        text: text(r, 300),
        retryAfterMs: maybe(r, () => r.int(1_000_000)),
        ...present(
          "slowDownMs",
          maybe(r, () => r.int(1_000_000))
        )
      }))
    }
  },
  started: (r) => ({ type: C.started, held: held(r) }),
  acknowledge: (r) => ({ type: C.acknowledge, held: held(r) }),
  renew: (r) => ({ type: C.renew, request: uint(r), held: held(r) }),
  peek: (r) => ({ type: C.peek, request: uint(r), queue: uint(r), count: r.int(1_001) }),
  stats: (r) => ({ type: C.stats, request: uint(r), queue: maybe(r, () => uint(r)) }),
  join: (r) => ({ type: C.join, request: uint(r), queue: uint(r), waitMs: maybe(r, () => r.int(9_999)) }),
  close: (r) => ({ type: C.close, request: uint(r), queue: uint(r), immediate: r.chance(50) }),
  outcome: (r) => ({
    type: C.outcome,
    request: uint(r),
    queue: uint(r),
    task: uint(r),
    waitMs: maybe(r, () => r.int(9_999))
  }),
  follow: (r) => ({ type: C.follow, request: uint(r), queue: uint(r), cursor: uint(r), credit: r.int(65_537) }),
  cancel: (r) => ({ type: C.cancel, request: uint(r), queue: uint(r), tasks: uints(r) }),
  pause: (r) => ({ type: C.pause, request: uint(r), queue: uint(r), paused: r.chance(50) }),
  purge: (r) => ({
    type: C.purge,
    request: uint(r),
    queue: uint(r),
    filter: filter(r),
    after: uint(r),
    upTo: maybe(r, () => uint(r))
  }),
  browse: (r) => ({
    type: C.browse,
    request: uint(r),
    queue: uint(r),
    state: maybe(r, () => r.int(16)),
    filter: filter(r),
    after: uint(r),
    limit: r.int(1_001),
    payloads: r.chance(50)
  }),
  redrive: (r) => ({
    type: C.redrive,
    request: uint(r),
    queue: uint(r),
    tasks: maybe(r, () => uints(r)),
    filter: filter(r),
    after: uint(r),
    upTo: maybe(r, () => uint(r))
  }),
  checkpoint: (r) => {
    const tasks = uints(r)
    return {
      type: C.checkpoint,
      request: uint(r),
      tasks,
      fences: tasks.map(() => uint(r)),
      values: tasks.map(() => r.bytes(r.int(100)))
    }
  },
  step: (r) => ({
    type: C.step,
    request: uint(r),
    items: many(r, () => ({ task: uint(r), fence: uint(r), name: `s${text(r)}`, value: r.bytes(r.int(100)) }))
  }),
  suspend: (r) => ({
    type: C.suspend,
    request: uint(r),
    items: many(r, () => ({
      task: uint(r),
      fence: uint(r),
      forMs: maybe(r, () => r.int(1_000_000)),
      seen: uint(r)
    }))
  }),
  signal: (r) => {
    const byNumber = r.chance(50)
    return {
      type: C.signal,
      request: uint(r),
      queue: uint(r),
      task: byNumber ? uint(r) : undefined,
      id: byNumber ? undefined : text(r),
      name: `!${text(r)}`,
      value: r.bytes(r.int(100))
    }
  },
  find: (r) => ({ type: C.find, request: uint(r), queue: uint(r), id: text(r) }),
  explain: (r) => ({ type: C.explain, request: uint(r), queue: uint(r), task: maybe(r, () => uint(r)) }),
  repeat: (r) => ({
    type: C.repeat,
    request: uint(r),
    queue: uint(r),
    id: text(r),
    everyMs: maybe(r, () => uint(r)),
    cron: maybe(r, () => text(r)),
    zone: text(r, 16),
    payload: r.bytes(r.int(300)),
    options: maybe(r, () => options(r))
  }),
  repeats: (r) => ({ type: C.repeats, request: uint(r), queue: uint(r) }),
  removeRepeat: (r) => ({ type: C.removeRepeat, request: uint(r), queue: uint(r), id: text(r) })
}

const delivery = (r: Random): Delivery => {
  const extra = r.chance(50)
  return {
    task: uint(r),
    fence: uint(r),
    attempt: uint(r),
    payload: r.bytes(r.int(100)),
    key: extra ? text(r) : undefined,
    trace: extra ? text(r) : undefined,
    checkpoint: extra ? r.bytes(r.int(30)) : undefined,
    ...present(
      "entries",
      maybe(r, () => entries(r))
    )
  }
}

/** Steps and signals; no name comes twice. */
const entries = (r: Random): ReadonlyArray<Entry> => [
  ...new Map(many(r, () => [`${r.pick(["", "!"])}${text(r)}`, r.bytes(r.int(30))] as const))
]

const outcome = (r: Random): Outcome => ({
  task: uint(r),
  outcome: r.int(16),
  attempts: uint(r),
  endedAtMs: uint(r),
  body: maybe(r, () => r.bytes(r.int(100))),
  reasons: many(r, () => ({ attempt: uint(r), reason: uint(r), text: text(r) }))
})

export const stats = (r: Random): QueueStats => ({
  name: name(r),
  durability: "memory",
  closed: "open",
  capacity: uint(r),
  ready: uint(r),
  delayed: uint(r),
  leased: uint(r),
  done: uint(r),
  dead: uint(r),
  cancelled: uint(r),
  acknowledged: uint(r),
  puts: uint(r),
  duplicates: uint(r),
  refused: uint(r),
  oldestReadyMs: uint(r),
  outcomesFirst: uint(r),
  outcomesNext: uint(r),
  workers: uint(r),
  paused: r.chance(50),
  nextDueMs: uint(r),
  nextLeaseEndMs: uint(r),
  waitingBytes: uint(r),
  outcomeBytes: uint(r),
  deadLetterBytes: uint(r),
  deadLetters: uint(r),
  waitingPuts: uint(r),
  waitingTakers: uint(r),
  readers: uint(r),
  repeats: uint(r),
  puts1s: uint(r),
  puts10s: uint(r),
  puts60s: uint(r),
  leases1s: uint(r),
  leases10s: uint(r),
  leases60s: uint(r),
  commits1s: uint(r),
  commits10s: uint(r),
  commits60s: uint(r),
  failures1s: uint(r),
  failures10s: uint(r),
  failures60s: uint(r),
  lanes: many(r, () => [text(r), uint(r), uint(r), uint(r)]),
  purged: uint(r),
  dropped: uint(r),
  redriven: uint(r),
  capacityBytes: uint(r)
})

const browsed = (r: Random): Browsed => ({
  task: uint(r),
  state: r.int(16),
  attempt: uint(r),
  priority: r.int(256),
  putAtMs: uint(r),
  atMs: uint(r),
  holder: maybe(r, () => uint(r)),
  origin: maybe(r, () => uint(r)),
  payload: maybe(r, () => r.bytes(r.int(100))),
  id: maybe(r, () => text(r)),
  key: maybe(r, () => text(r)),
  labels: many(r, () => text(r, 10)),
  reasons: many(r, () => ({ attempt: uint(r), reason: uint(r), text: text(r) })),
  checkpointBytes: uint(r),
  progress: maybe(r, () => r.int(Limits.progressWhole + 1)),
  entries: uint(r),
  suspended: r.chance(50)
})

type MakeManager = { readonly [K in keyof typeof M]: (r: Random) => Manager.ManagerMessage }

export const managerMessages: MakeManager = {
  hello: (r) => ({
    type: M.hello,
    magic: "millrace",
    version: uint(r),
    versionMin: uint(r),
    versionMax: uint(r),
    capabilities: uint(r),
    frameBytesMax: uint(r),
    mechanisms: many(r, () => text(r, 10))
  }),
  authChallenge: (r) => ({ type: M.authChallenge, message: text(r) }),
  authOk: (r) => ({ type: M.authOk, message: text(r) }),
  sessionOpened: (r) => ({
    type: M.sessionOpened,
    session: r.bytes(16),
    resumed: r.chance(50),
    instance: r.bytes(8),
    heartbeatMs: uint(r),
    requestsInFlightMax: uint(r),
    durability: "fsync",
    lost: uints(r)
  }),
  heartbeat: (r) => ({
    type: M.heartbeat,
    sequence: uint(r),
    lost: uints(r),
    cancelled: uints(r),
    draining: r.chance(50),
    heartbeatMs: uint(r),
    requestsInFlightMax: uint(r),
    unsaved: uints(r)
  }),
  control: (r) => ({ type: M.control, kind: uint(r), tasks: uints(r) }),
  closing: (r) => ({ type: M.closing, code: uint(r), text: text(r, 300) }),
  done: (r) => ({ type: M.done, request: uint(r) }),
  refused: (r) => ({
    type: M.refused,
    request: uint(r),
    code: uint(r),
    subject: text(r, 900),
    value: uint(r),
    limit: uint(r)
  }),
  opened: (r) => ({
    type: M.opened,
    request: uint(r),
    queue: uint(r),
    durability: "memory",
    policy: uints(r),
    outcomesNext: uint(r)
  }),
  putDone: (r) => ({ type: M.putDone, request: uint(r), first: uint(r), count: uint(r) }),
  putItems: (r) => ({
    type: M.putItems,
    request: uint(r),
    tasks: uints(r),
    statuses: uints(r),
    firsts: uints(r)
  }),
  leased: (r) => ({ type: M.leased, request: uint(r), items: many(r, () => delivery(r)) }),
  streaming: (r) => ({ type: M.streaming, request: uint(r), stream: uint(r) }),
  items: (r) => ({ type: M.items, request: uint(r), codes: uints(r) }),
  peeked: (r) => ({ type: M.peeked, request: uint(r), items: many(r, () => delivery(r)) }),
  stats: (r) => ({ type: M.stats, request: uint(r), queues: many(r, () => stats(r)) }),
  outcome: (r) => ({ type: M.outcome, request: uint(r), outcome: outcome(r) }),
  deliver: (r) => ({ type: M.deliver, stream: uint(r), items: many(r, () => delivery(r)) }),
  outcomes: (r) => ({ type: M.outcomes, stream: uint(r), next: uint(r), items: many(r, () => outcome(r)) }),
  gap: (r) => ({ type: M.gap, stream: uint(r), cursor: uint(r), oldest: uint(r) }),
  counted: (r) => ({
    type: M.counted,
    request: uint(r),
    count: uint(r),
    next: maybe(r, () => uint(r)),
    upTo: uint(r)
  }),
  browsed: (r) => ({
    type: M.browsed,
    request: uint(r),
    items: many(r, () => browsed(r)),
    next: maybe(r, () => uint(r))
  }),
  redriven: (r) => ({
    type: M.redriven,
    request: uint(r),
    tasks: uints(r, 2 * r.int(10)),
    next: maybe(r, () => uint(r)),
    upTo: uint(r)
  }),
  standings: (r) => ({ type: M.standings, request: uint(r), standings: uints(r) }),
  explained: (r) => ({
    type: M.explained,
    request: uint(r),
    facts: many(r, () => ({ kind: uint(r), subject: text(r), at: uint(r), value: uint(r), limit: uint(r) }))
  }),
  found: (r) => ({ type: M.found, request: uint(r), task: maybe(r, () => uint(r)), standing: r.int(16) }),
  repeats: (r) => ({
    type: M.repeats,
    request: uint(r),
    items: many(r, () => ({
      id: text(r),
      everyMs: maybe(r, () => uint(r)),
      cron: maybe(r, () => text(r)),
      zone: text(r, 16),
      nextAtMs: uint(r),
      task: maybe(r, () => uint(r)),
      lastAtMs: maybe(r, () => uint(r)),
      occurrences: uint(r),
      payload: r.bytes(r.int(300)),
      options: maybe(r, () => options(r))
    }))
  }),
  objectOpened: (r) => ({
    type: M.objectOpened,
    request: uint(r),
    object: uint(r),
    durability: "fsync",
    size: uint(r)
  }),
  bits: (r) => {
    const count = r.int(100)
    return { type: M.bits, request: uint(r), count, bits: r.bytes((count + 7) >> 3) }
  },
  counter: (r) => ({ type: M.counter, request: uint(r), done: r.chance(50), value: int(r) }),
  entries: (r) => ({
    type: M.entries,
    request: uint(r),
    items: many(r, () => maybe(r, () => ({ version: uint(r), value: r.bytes(r.int(50)) })))
  }),
  written: (r) => ({ type: M.written, request: uint(r), versions: uints(r) }),
  keys: (r) => ({
    type: M.keys,
    request: uint(r),
    keys: many(r, () => r.bytes(r.int(50))),
    next: maybe(r, () => r.bytes(16))
  }),
  pairs: (r) => ({
    type: M.pairs,
    request: uint(r),
    items: many(r, () => ({ key: text(r, 20), version: uint(r), value: r.bytes(r.int(50)) })),
    next: maybe(r, () => r.bytes(8))
  })
}

export const encoded = (write: (w: Writer) => void): Uint8Array => {
  const w = new Writer(1)
  write(w)
  return w.bytes.slice(0, w.position)
}
