/**
 * Every client message x role x (a name that the role may use, another name), against a real manager over TCP. The table
 * below is written down here anew: it must not be the one that the manager itself goes by.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { Client, Limits, Manager, SharedSet, TaskQueue, Worker } from "millrace"
import { deriveVerifier, encodeVerifier, keyBytes } from "../../src/auth/Credentials.ts"
import { type Role, roles } from "../../src/auth/Roles.ts"
import { Code } from "../../src/model/Refusal.ts"
import type * as ClientMessages from "../../src/wire/ClientMessages.ts"
import type * as ManagerMessages from "../../src/wire/ManagerMessages.ts"
import { ClientType as C, ManagerType as M } from "../../src/wire/Vocabulary.ts"
import { auth, inProcess } from "./layers.ts"
import { hello, Raw } from "./raw.ts"

const keyOf = (user: string): string => `key-of-${user}-0123456789-abcdefghijklmnopqrstuvwxyz`

const credential = (
  user: string,
  grants: ReadonlyArray<{ readonly role: Role; readonly queues: ReadonlyArray<string> }>
) => ({
  user,
  key: keyOf(user),
  roles: grants.map((grant) => (grant.role === "observer" ? grant : { ...grant, objects: grant.queues }))
})

const credentials = [
  auth,
  ...roles.map((role) => credential(role, [{ role, queues: ["mine*"] }])),
  { user: "everything", key: keyOf("everything"), roles: [{ role: "admin", queues: ["*"] } as const] },
  credential("both", [
    { role: "worker", queues: ["mine.pages"] },
    { role: "producer", queues: ["mine.images*"] },
    { role: "observer", queues: ["mine.watched"] }
  ])
]

const listening = (more: ReadonlyArray<Manager.Credential> = []) =>
  Manager.layerTcp({ port: 0, auth: [...credentials, ...more] })

type Answer = ManagerMessages.Answer
type Ask = (make: (request: number) => ClientMessages.Request) => Promise<Answer>

let requests = 0

const asker =
  (raw: Raw): Ask =>
  async (make) => {
    const request = ++requests
    raw.say(make(request))
    return answerOf(raw, request)
  }

const answerOf = async (raw: Raw, request: number): Promise<Answer> => {
  const found = (): ManagerMessages.ManagerMessage | undefined =>
    raw.heard.find((m) => "request" in m && m.request === request)
  await raw.until(() => found() !== undefined || raw.closed, `the answer to ${request}`)
  return found() as Answer
}

/** What one cell acts on: a queue with a dead letter, a leased and a ready task, and three objects. */
interface Place {
  readonly name: string
  readonly queue: number
  readonly dead: number
  readonly leased: number
  readonly fence: number
  readonly ready: number
  readonly set: number
  readonly dict: number
  readonly counter: number
  /** A task that its own session has in a queue that it may use, if it may. */
  readonly own: readonly [task: number, fence: number]
}

const bytes = Uint8Array.of(1, 0x31)
const no = { key: undefined, label: undefined, id: undefined, priorityMin: undefined, priorityMax: undefined }

const openOf =
  (name: string, policy?: ReadonlyArray<number>) =>
  (request: number): ClientMessages.Open => {
    return { type: C.open, request, name, fingerprint: new Uint8Array(), schema: "", accepts: [], policy }
  }

const lease =
  (queue: number, get = false) =>
  (request: number): ClientMessages.Lease => {
    return { type: C.lease, request, queue, count: 1, waitMs: 0, get }
  }

const number = (answer: Answer): number => {
  if (answer.type === M.opened) return answer.queue
  if (answer.type === M.objectOpened) return answer.object
  throw new Error(`opened nothing: ${JSON.stringify(answer)}`)
}

const leaseOf = (answer: Answer): readonly [number, number] => {
  if (answer.type !== M.leased) throw new Error(`leased nothing: ${JSON.stringify(answer)}`)
  return [answer.items[0]!.task, answer.items[0]!.fence]
}

const put =
  (queue: number, count = 1) =>
  (request: number): ClientMessages.Put => {
    const payloads = new Array<Uint8Array>(count).fill(bytes)
    return { type: C.put, request, queue, atomic: true, waitMs: 0, payloads, options: undefined }
  }

/** Dedupe ids of the tasks of a place: the dead letter, the leased and the ready one. */
const ids = ["dead", "leased", "ready"]

const openObject =
  (name: string, kind: number, create = true) =>
  (request: number) =>
    ({ type: C.openObject, request, name, kind, create }) as const

/** `mine`: the tester takes the leases itself where it may; else the admin has them. */
const prepare = async (admin: Ask, tester: Ask, name: string, mine: boolean, mayLease: boolean): Promise<Place> => {
  const queue = number(await admin(openOf(name, [])))
  await admin((request) => ({ ...put(queue, 3)(request), options: ids.map((id) => ({ id })) }))
  const [dead, deadFence] = leaseOf(await admin(lease(queue)))
  const failures = [{ reason: 1, error: undefined, text: "poison", retryAfterMs: undefined }]
  await admin((request) => ({ type: C.fail, request, tasks: [dead], fences: [deadFence], failures }))
  const [leased, fence] = leaseOf(await (mine && mayLease ? tester : admin)(lease(queue)))
  const repeat = { id: "hourly", everyMs: 3_600_000, cron: undefined, zone: "UTC", payload: bytes, options: undefined }
  await admin((request) => ({ type: C.repeat, request, queue, ...repeat }))
  const set = number(await admin(openObject(`${name}.set`, 0)))
  const dict = number(await admin(openObject(`${name}.dict`, 1)))
  const counter = number(await admin(openObject(`${name}.counter`, 2)))
  await admin((request) => ({ type: C.setKeys, request, object: set, action: 0, keys: [bytes] }))
  const writes = [{ key: "a", value: bytes, expected: undefined }]
  await admin((request) => ({ type: C.dictWrite, request, object: dict, writes }))
  let own: readonly [number, number] = [leased, fence]
  if (!mine && mayLease) {
    const room = number(await admin(openOf(`mine.own.${name}`, [])))
    await admin(put(room))
    own = leaseOf(await tester(lease(room)))
  }
  return { name, queue, dead, leased, fence, ready: leased + 1, set, dict, counter, own }
}

const volatile = /^(oldestReadyMs|nextDueMs|nextLeaseEndMs|workers|readers|waitingTakers|\w+(1|10|60)s)$/

/** All that a command may change, as text. */
const snapshot = async (admin: Ask, { counter, dict, leased, name, queue, set }: Place): Promise<string> => {
  const filter = no
  const seen = await Promise.all([
    admin((request) => ({ type: C.stats, request, queue })),
    admin((request) => {
      return { type: C.browse, request, queue, state: undefined, filter, after: 0, limit: 100, payloads: true }
    }),
    admin((request) => ({ type: C.browse, request, queue, state: 6, filter, after: 0, limit: 100, payloads: true })),
    admin((request) => ({ type: C.explain, request, queue, task: leased })),
    admin((request) => ({ type: C.repeats, request, queue })),
    admin((request) => ({ type: C.listObject, request, object: set, after: undefined, count: 100 })),
    admin((request) => ({ type: C.listObject, request, object: dict, after: undefined, count: 100 })),
    admin((request) => ({ type: C.count, request, object: counter, by: 0 })),
    admin(openOf(`${name}.made`)),
    admin(openObject(`${name}.made`, 0, false))
  ])
  return JSON.stringify(seen, (key, value) => {
    if (key === "request" || volatile.test(key)) return undefined
    return value instanceof Uint8Array ? Buffer.from(value).toString("hex") : value
  })
}

type Message = ClientMessages.ClientMessage

interface Cell {
  readonly says: (place: Place, request: number) => Message
  /** p(roducer), w(orker), o(bserver), a(dmin): who may; `*`: everyone, it is about the own session alone. */
  readonly who: string
  /** By what the message finds it, which decides how a peer that may not hears so. */
  readonly by: "name" | "queue" | "object" | "lease" | "child" | "effect" | "session"
  /** Whether it leaves a trace where it is permitted. */
  readonly changes?: boolean
}

const effects = { puts: [], sets: [], counts: [], writes: [] }
const commit =
  (brings: (place: Place) => Partial<ClientMessages.CommitEffects>, together: boolean) =>
  (place: Place, request: number): ClientMessages.Commit => {
    const [task, fence] = place.own
    const each = [{ ...effects, ...brings(place) }]
    return { type: C.commit, request, tasks: [task], fences: [fence], results: [bytes], effects: each, together }
  }
const child = ({ queue }: Place) => ({ puts: [{ queue, payload: bytes, options: undefined }] })
const page = { filter: no, after: 0 }

const cells: Readonly<Record<keyof typeof C, Readonly<Record<string, Cell>>>> = {
  // The handshake is over: these four have their own tests.
  hello: {},
  authFirst: {},
  authFinal: {},
  sessionOpen: {},
  heartbeat: {
    "of a lease": {
      says: ({ fence, leased }) => ({ type: C.heartbeat, sequence: 1, held: [leased, fence] }),
      who: "wa",
      by: "lease"
    },
    "with progress": {
      says: ({ fence, leased }) => {
        const reports = [{ task: leased, fence, progress: 5_000, checkpoint: undefined }]
        return { type: C.heartbeat, sequence: 1, held: [leased, fence], reports }
      },
      who: "wa",
      by: "lease",
      changes: true
    },
    "with a checkpoint": {
      says: ({ fence, leased }) => {
        const reports = [{ task: leased, fence, progress: undefined, checkpoint: bytes }]
        return { type: C.heartbeat, sequence: 1, held: [leased, fence], reports }
      },
      who: "wa",
      by: "lease",
      changes: true
    }
  },
  goodbye: { "at the end": { says: () => ({ type: C.goodbye }), who: "*", by: "session" } },
  open: {
    "a queue that is there": { says: ({ name }, request) => openOf(name)(request), who: "pwoa", by: "name" },
    "a queue with a policy that is there": {
      says: ({ name }, request) => openOf(name, [])(request),
      who: "pwoa",
      by: "name"
    },
    "makes a queue": {
      says: ({ name }, request) => openOf(`${name}.made`, [])(request),
      who: "pwa",
      by: "name",
      changes: true
    }
  },
  put: { "a task": { says: ({ queue }, request) => put(queue)(request), who: "pa", by: "queue", changes: true } },
  lease: {
    "a task": { says: ({ queue }, request) => lease(queue)(request), who: "wa", by: "queue", changes: true },
    "by get": { says: ({ queue }, request) => lease(queue, true)(request), who: "wa", by: "queue", changes: true }
  },
  subscribe: {
    "to tasks": {
      says: ({ queue }, request) => ({ type: C.subscribe, request, queue, credit: 1, prefetch: 0 }),
      who: "wa",
      by: "queue",
      changes: true
    }
  },
  credit: { "for no stream": { says: () => ({ type: C.credit, stream: 9_999, credit: 1 }), who: "*", by: "session" } },
  unsubscribe: {
    "from no stream": {
      says: (_, request) => ({ type: C.unsubscribe, request, stream: 9_999 }),
      who: "*",
      by: "session"
    }
  },
  commit: {
    "of a lease": {
      says: ({ fence, leased }, request) => {
        return { type: C.commit, request, tasks: [leased], fences: [fence], results: [bytes], effects: undefined }
      },
      who: "wa",
      by: "lease",
      changes: true
    },
    "of a lease, together": {
      says: ({ fence, leased }, request) => {
        const one = { tasks: [leased], fences: [fence], results: [bytes], effects: undefined }
        return { type: C.commit, request, ...one, together: true }
      },
      who: "wa",
      by: "lease",
      changes: true
    },
    "with a child": { says: commit(child, false), who: "wa", by: "child", changes: true },
    "with a child, together": { says: commit(child, true), who: "wa", by: "child", changes: true },
    "with a set addition": {
      says: commit(({ set }) => ({ sets: [{ object: set, key: Uint8Array.of(9) }] }), false),
      who: "wa",
      by: "effect",
      changes: true
    },
    "with an increment": {
      says: commit(({ counter }) => ({ counts: [{ object: counter, by: 1 }] }), true),
      who: "wa",
      by: "effect",
      changes: true
    },
    "with a dict write": {
      says: commit(({ dict }) => ({ writes: [{ object: dict, key: "b", value: bytes, expected: undefined }] }), false),
      who: "wa",
      by: "effect",
      changes: true
    }
  },
  release: {
    "of a lease": {
      says: ({ fence, leased }, request) => ({ type: C.release, request, held: [leased, fence] }),
      who: "wa",
      by: "lease",
      changes: true
    }
  },
  fail: {
    "kills a task": {
      says: ({ fence, leased }, request) => {
        const failures = [{ reason: 1, error: undefined, text: "poison", retryAfterMs: undefined }]
        return { type: C.fail, request, tasks: [leased], fences: [fence], failures }
      },
      who: "wa",
      by: "lease",
      changes: true
    }
  },
  started: {
    "of a lease": {
      says: ({ fence, leased }) => ({ type: C.started, held: [leased, fence] }),
      who: "wa",
      by: "lease",
      changes: true
    }
  },
  acknowledge: {
    "of a lease": {
      says: ({ fence, leased }) => ({ type: C.acknowledge, held: [leased, fence] }),
      who: "wa",
      by: "lease",
      changes: true
    }
  },
  renew: {
    "of a lease": {
      says: ({ fence, leased }, request) => ({ type: C.renew, request, held: [leased, fence] }),
      who: "wa",
      by: "lease"
    }
  },
  checkpoint: {
    "of a lease": {
      says: ({ fence, leased }, request) => {
        return { type: C.checkpoint, request, tasks: [leased], fences: [fence], values: [bytes] }
      },
      who: "wa",
      by: "lease",
      changes: true
    }
  },
  step: {
    "of a lease": {
      says: ({ fence, leased }, request) => {
        return { type: C.step, request, items: [{ task: leased, fence, name: "fetched", value: bytes }] }
      },
      who: "wa",
      by: "lease",
      changes: true
    }
  },
  suspend: {
    "for a while": {
      says: ({ fence, leased }, request) => {
        return { type: C.suspend, request, items: [{ task: leased, fence, forMs: 3_600_000, seen: 0 }] }
      },
      who: "wa",
      by: "lease",
      changes: true
    },
    "until a signal": {
      says: ({ fence, leased }, request) => {
        return { type: C.suspend, request, items: [{ task: leased, fence, forMs: undefined, seen: 0 }] }
      },
      who: "wa",
      by: "lease",
      changes: true
    }
  },
  signal: {
    "by number": {
      says: ({ leased, queue }, request) => {
        return { type: C.signal, request, queue, task: leased, id: undefined, name: "!paid", value: bytes }
      },
      who: "pwa",
      by: "queue",
      changes: true
    },
    "by id": {
      says: ({ queue }, request) => {
        return { type: C.signal, request, queue, task: undefined, id: "ready", name: "!paid", value: bytes }
      },
      who: "pwa",
      by: "queue",
      changes: true
    }
  },
  find: {
    "a living task": {
      says: ({ queue }, request) => ({ type: C.find, request, queue, id: "leased" }),
      who: "pwoa",
      by: "queue"
    },
    "an ended task": {
      says: ({ queue }, request) => ({ type: C.find, request, queue, id: "dead" }),
      who: "pwoa",
      by: "queue"
    }
  },
  peek: {
    "at what is next": {
      says: ({ queue }, request) => ({ type: C.peek, request, queue, count: 1 }),
      who: "oa",
      by: "queue"
    }
  },
  browse: {
    "without payloads": {
      says: ({ queue }, request) => {
        return { type: C.browse, request, queue, state: undefined, ...page, limit: 9, payloads: false }
      },
      who: "oa",
      by: "queue"
    },
    "with payloads": {
      says: ({ queue }, request) => {
        return { type: C.browse, request, queue, state: undefined, ...page, limit: 9, payloads: true }
      },
      who: "a",
      by: "queue"
    },
    "dead letters with payloads": {
      says: ({ queue }, request) => ({ type: C.browse, request, queue, state: 6, ...page, limit: 9, payloads: true }),
      who: "a",
      by: "queue"
    }
  },
  stats: {
    "of a queue": { says: ({ queue }, request) => ({ type: C.stats, request, queue }), who: "oa", by: "queue" },
    "of all queues": { says: (_, request) => ({ type: C.stats, request, queue: undefined }), who: "*", by: "session" }
  },
  explain: {
    "a queue": {
      says: ({ queue }, request) => ({ type: C.explain, request, queue, task: undefined }),
      who: "oa",
      by: "queue"
    },
    "a task": {
      says: ({ leased, queue }, request) => ({ type: C.explain, request, queue, task: leased }),
      who: "oa",
      by: "queue"
    }
  },
  join: {
    "without waiting": {
      says: ({ queue }, request) => ({ type: C.join, request, queue, waitMs: 0 }),
      who: "pa",
      by: "queue"
    }
  },
  close: {
    "at once": {
      says: ({ queue }, request) => ({ type: C.close, request, queue, immediate: true }),
      who: "a",
      by: "queue",
      changes: true
    }
  },
  outcome: {
    "of a task": {
      says: ({ dead, queue }, request) => ({ type: C.outcome, request, queue, task: dead, waitMs: 0 }),
      who: "pa",
      by: "queue"
    }
  },
  follow: {
    "from the first": {
      says: ({ queue }, request) => ({ type: C.follow, request, queue, cursor: 0, credit: 9 }),
      who: "pa",
      by: "queue"
    }
  },
  abandon: { "of no request": { says: () => ({ type: C.abandon, request: 9_999_999 }), who: "*", by: "session" } },
  cancel: {
    "a task": {
      says: ({ leased, queue, ready }, request) => ({ type: C.cancel, request, queue, tasks: [leased, ready] }),
      who: "a",
      by: "queue",
      changes: true
    }
  },
  pause: {
    "a queue": {
      says: ({ queue }, request) => ({ type: C.pause, request, queue, paused: true }),
      who: "a",
      by: "queue",
      changes: true
    }
  },
  purge: {
    "what waits": {
      says: ({ queue }, request) => ({ type: C.purge, request, queue, ...page, upTo: undefined }),
      who: "a",
      by: "queue",
      changes: true
    }
  },
  redrive: {
    "a dead letter": {
      says: ({ dead, queue }, request) => ({
        type: C.redrive,
        request,
        queue,
        tasks: [dead],
        ...page,
        upTo: undefined
      }),
      who: "a",
      by: "queue",
      changes: true
    }
  },
  lane: {
    "is paused": {
      says: ({ queue }, request) => {
        return { type: C.lane, request, queue, key: "k", change: 2, limits: undefined, forMs: undefined }
      },
      who: "a",
      by: "queue"
    }
  },
  repeat: {
    "every hour": {
      says: ({ queue }, request) => {
        const every = { id: "new", everyMs: 3_600_000, cron: undefined, zone: "UTC" }
        return { type: C.repeat, request, queue, ...every, payload: bytes, options: undefined }
      },
      who: "a",
      by: "queue",
      changes: true
    }
  },
  repeats: {
    "of a queue": { says: ({ queue }, request) => ({ type: C.repeats, request, queue }), who: "oa", by: "queue" }
  },
  removeRepeat: {
    "of a queue": {
      says: ({ queue }, request) => ({ type: C.removeRepeat, request, queue, id: "hourly" }),
      who: "a",
      by: "queue",
      changes: true
    }
  },
  answered: { "to nothing": { says: () => ({ type: C.answered, ranges: [] }), who: "*", by: "session" } },
  openObject: {
    "that is there": { says: ({ name }, request) => openObject(`${name}.set`, 0)(request), who: "pwa", by: "name" },
    "that is not there": {
      says: ({ name }, request) => openObject(`${name}.made`, 0)(request),
      who: "pwa",
      by: "name",
      changes: true
    }
  },
  setKeys: {
    adds: {
      says: ({ set }, request) => ({ type: C.setKeys, request, object: set, action: 0, keys: [Uint8Array.of(7)] }),
      who: "pwa",
      by: "object",
      changes: true
    },
    has: {
      says: ({ set }, request) => ({ type: C.setKeys, request, object: set, action: 1, keys: [bytes] }),
      who: "pwa",
      by: "object"
    },
    removes: {
      says: ({ set }, request) => ({ type: C.setKeys, request, object: set, action: 2, keys: [bytes] }),
      who: "pwa",
      by: "object",
      changes: true
    }
  },
  count: {
    "up by one": {
      says: ({ counter }, request) => ({ type: C.count, request, object: counter, by: 1 }),
      who: "pwa",
      by: "object",
      changes: true
    }
  },
  countSet: {
    "to seven": {
      says: ({ counter }, request) => ({ type: C.countSet, request, object: counter, expected: undefined, value: 7 }),
      who: "pwa",
      by: "object",
      changes: true
    }
  },
  dictGet: {
    "a key": {
      says: ({ dict }, request) => ({ type: C.dictGet, request, object: dict, keys: ["a"] }),
      who: "pwa",
      by: "object"
    }
  },
  dictWrite: {
    "a key": {
      says: ({ dict }, request) => {
        const writes = [{ key: "a", value: undefined, expected: undefined }]
        return { type: C.dictWrite, request, object: dict, writes }
      },
      who: "pwa",
      by: "object",
      changes: true
    }
  },
  listObject: {
    "a set": {
      says: ({ set }, request) => ({ type: C.listObject, request, object: set, after: undefined, count: 9 }),
      who: "pwa",
      by: "object"
    }
  }
}

const absent = 8_000_000

/** The same place, as if nothing were there. */
const nowhere = (place: Place, by: Cell["by"]): Place => {
  const there = { ...place, queue: absent, set: absent, dict: absent, counter: absent }
  return by === "lease" ? { ...there, leased: absent, fence: place.fence } : there
}

const text = (answer: Answer | ManagerMessages.Heartbeat | undefined): string =>
  JSON.stringify(answer ?? "nothing", (key, value) => (key === "request" ? undefined : value))

const portOf = Effect.map(Manager.Listening, ({ address }) => (address._tag === "Tcp" ? address.port : 0))

const withRaw = (port: number) =>
  Effect.acquireRelease(
    Effect.sync(() => new Raw(port)),
    (raw) => Effect.sync(() => raw.socket.destroy())
  )

/** Says it, and waits for the answer, or for the answer to what is said behind it. */
const ask = async (raw: Raw, cell: Cell, place: Place): Promise<Answer | ManagerMessages.Heartbeat | undefined> => {
  const request = ++requests
  const message = cell.says(place, request)
  raw.say(message)
  if (message.type === C.heartbeat) return raw.next(M.heartbeat)
  if ("request" in message && message.type !== C.abandon) return answerOf(raw, request)
  if (message.type === C.goodbye) await raw.until(() => raw.closed, "the end of the connection")
  else await asker(raw)((barrier) => ({ type: C.renew, request: barrier, held: [] }))
  return undefined
}

/** Everything that was logged, one text a line. */
const logged: Array<string> = []
const capture = Logger.layer([
  Logger.make(({ fiber, message }) => {
    const annotations = Object.entries(fiber.getRef(References.CurrentLogAnnotations))
    logged.push([message, ...annotations.map(([name, value]) => `${name}=${String(value)}`)].join(" "))
  })
])

describe("roles", () => {
  it.layer(listening().pipe(Layer.provideMerge(inProcess), Layer.provide(capture)), { excludeTestServices: true })(
    (it) => {
      let count = 0

      for (const role of roles) {
        for (const scope of ["mine", "other"] as const) {
          it.effect(
            `${role}, ${scope === "mine" ? "a name that it may use" : "another name"}: every message (M8, M15)`,
            () =>
              Effect.scoped(
                Effect.gen(function* () {
                  const port = yield* portOf
                  const admins = yield* withRaw(port)
                  yield* Effect.promise(() => admins.login())
                  const admin = asker(admins)
                  for (const [type, variants] of Object.entries(cells)) {
                    for (const [variant, cell] of Object.entries(variants)) {
                      const about = `${type} ${variant}`
                      const raw = yield* withRaw(port)
                      yield* Effect.promise(async () => {
                        await raw.login({ user: role, key: keyOf(role) })
                        const mine = scope === "mine"
                        const mayLease = role === "worker" || role === "admin"
                        const place = await prepare(admin, asker(raw), `${scope}.${++count}`, mine, mayLease)
                        const before = await snapshot(admin, place)
                        const permitted = cell.who === "*" || (mine && cell.who.includes(role[0]!))
                        const answer = await ask(raw, cell, place)
                        const after = await snapshot(admin, place)
                        if (permitted) {
                          if (cell.by !== "session") checkPermitted(about, cell, answer, before, after)
                        } else {
                          checkRefused(about, cell, answer, mine, mayLease)
                          assert.strictEqual(after, before, `${about}: it had an effect`)
                          const held = mayLease || (cell.by !== "child" && cell.by !== "effect")
                          if (cell.by !== "name" && !mine && held) {
                            const place2 = nowhere(place, cell.by)
                            const never = await ask(raw, cell, place2)
                            const ids =
                              cell.by === "lease" ? [place.leased] : [place.queue, place.set, place.dict, place.counter]
                            const same = ids.reduce(
                              (answered, id) => answered.replaceAll(new RegExp(`\\b${id}\\b`, "g"), String(absent)),
                              text(answer)
                            )
                            assert.strictEqual(
                              text(never),
                              same,
                              `${about}: what is there is not answered as what is not`
                            )
                          }
                        }
                        raw.socket.destroy()
                      })
                    }
                  }
                })
              ),
            120_000
          )
        }
      }

      const checkPermitted = (
        about: string,
        cell: Cell,
        answer: Awaited<ReturnType<typeof ask>>,
        before: string,
        after: string
      ): void => {
        if (answer !== undefined && answer.type === M.refused) {
          // Refused for its own reasons: the task has not ended, the wait is over.
          assert.include([Code.timedOut, Code.taskNotFound], answer.code, `${about}: ${answer.subject}`)
        }
        assert.isFalse(answer?.type === M.items && answer.codes.some((code) => code !== 0), about)
        if (answer?.type === M.heartbeat) assert.deepStrictEqual([answer.lost, answer.unsaved], [[], []], about)
        if (answer?.type === M.found) assert.isDefined(answer.task, about)
        if (cell.changes === true) assert.notStrictEqual(after, before, `${about}: the snapshot does not show it`)
      }

      const checkRefused = (
        about: string,
        cell: Cell,
        answer: Awaited<ReturnType<typeof ask>>,
        mine: boolean,
        mayLease: boolean
      ): void => {
        if (answer === undefined) return
        if (answer.type === M.heartbeat) {
          assert.deepStrictEqual([answer.lost.length, answer.cancelled.length], [1, 0], about)
          return
        }
        const code =
          answer.type === M.refused ? answer.code : answer.type === M.items ? answer.codes.find((one) => one !== 0) : 0
        if (cell.by === "name" || (cell.by === "queue" && mine)) {
          assert.strictEqual(code, Code.notPermitted, about)
          assert(answer.type === M.refused)
          assert.match(
            answer.subject,
            /^[\w ]+ (queue|object) "[\w.]+"; a credential needs the role [\w, ]+ for that name$/
          )
        } else if (cell.by === "queue") assert.strictEqual(code, Code.queueNotFound, about)
        else if (cell.by === "object") assert.strictEqual(code, Code.objectNotFound, about)
        else if (!mayLease || cell.by === "lease") assert.strictEqual(code, Code.leaseLost, about)
        else assert.strictEqual(code, cell.by === "child" ? Code.queueNotFound : Code.objectNotFound, about)
      }

      it.effect("a task that has ended is as absent to a credential that may not see its queue (M15)", () =>
        Effect.gen(function* () {
          const manager = yield* Manager.Manager
          const port = yield* portOf
          const before = (yield* manager.counters).notPermitted
          const [admins, workers] = yield* Effect.all([withRaw(port), withRaw(port)])
          yield* Effect.promise(async () => {
            await Promise.all([admins.login(), workers.login({ user: "worker", key: keyOf("worker") })])
            const [admin, worker] = [asker(admins), asker(workers)]
            for (const [name, committed, cancelled] of [
              ["mine.ended", Code.alreadyEnded, true],
              ["other.ended", Code.leaseLost, false]
            ] as const) {
              const { fence, leased, queue } = await prepare(admin, admin, name, false, false)
              await admin((request) => ({ type: C.cancel, request, queue, tasks: [leased] }))
              for (const together of [false, true]) {
                const one = { tasks: [leased], fences: [fence], results: [bytes], effects: undefined, together }
                const answer = await worker((request) => ({ type: C.commit, request, ...one }))
                const code = answer.type === M.items ? answer.codes[0] : answer.type === M.refused ? answer.code : 0
                assert.strictEqual(code, committed, name)
              }
              const lease = { task: leased, fence }
              const says: ReadonlyArray<(request: number) => ClientMessages.Request> = [
                (request) => ({ type: C.step, request, items: [{ ...lease, name: "s", value: bytes }] }),
                (request) => ({ type: C.suspend, request, items: [{ ...lease, forMs: 1, seen: 0 }] })
              ]
              for (const say of says) {
                const answer = await worker(say)
                assert.deepStrictEqual(answer.type === M.items && answer.codes, [committed], name)
              }
              workers.say({ type: C.heartbeat, sequence: 1, held: [leased, fence, 7_000_000, 1] })
              const heard = await workers.next(M.heartbeat)
              assert.deepStrictEqual(
                [heard.lost, heard.cancelled],
                cancelled ? [[7_000_000], [leased]] : [[leased, 7_000_000], []]
              )
            }
          })
          // Two commits, a step, a suspend and a heartbeat: what is hidden is counted, what is absent is not.
          assert.strictEqual((yield* manager.counters).notPermitted - before, 5)
        })
      )

      it.effect("an observer is shown no payload, and of the counts only those of its queues", () =>
        Effect.gen(function* () {
          const port = yield* portOf
          const [admins, observers, workers] = yield* Effect.all([withRaw(port), withRaw(port), withRaw(port)])
          yield* Effect.promise(async () => {
            await Promise.all([
              admins.login(),
              observers.login({ user: "observer", key: keyOf("observer") }),
              workers.login({ user: "worker", key: keyOf("worker") })
            ])
            const [admin, observer, worker] = [asker(admins), asker(observers), asker(workers)]
            const { fence, leased, queue } = await prepare(admin, worker, "mine.seen", true, true)
            const values = [Uint8Array.of(1, 0x32)]
            await worker((request) => ({ type: C.checkpoint, request, tasks: [leased], fences: [fence], values }))
            const items = [{ task: leased, fence, name: "seen", value: Uint8Array.of(1, 0x33) }]
            await worker((request) => ({ type: C.step, request, items }))
            await worker((request) => ({ type: C.release, request, held: [leased, fence] }))
            const whole = await admin((request) => ({ type: C.peek, request, queue, count: 1 }))
            assert(whole.type === M.peeked)
            assert.deepStrictEqual(
              whole.items.map(({ checkpoint, entries }) => [checkpoint, entries]),
              [[values[0], [["seen", Uint8Array.of(1, 0x33)]]]]
            )
            const peeked = await observer((request) => ({ type: C.peek, request, queue, count: 9 }))
            assert(peeked.type === M.peeked)
            assert.deepStrictEqual(
              peeked.items.map(({ checkpoint, entries, payload, task }) => {
                return [task, payload.byteLength, checkpoint, entries]
              }),
              [
                [leased, 0, undefined, undefined],
                [leased + 1, 0, undefined, undefined]
              ]
            )
            const repeats = await observer((request) => ({ type: C.repeats, request, queue }))
            assert(repeats.type === M.repeats)
            assert.deepStrictEqual(
              repeats.items.map(({ id, payload }) => [id, payload.byteLength]),
              [["hourly", 0]]
            )
            const stats = (ask: Ask) => ask((request) => ({ type: C.stats, request, queue: undefined }))
            const [seen, all] = [await stats(observer), await stats(admin)]
            assert(seen.type === M.stats && all.type === M.stats)
            assert.deepStrictEqual(
              seen.queues.map(({ name }) => name),
              all.queues.map(({ name }) => name).filter((name) => name.startsWith("mine"))
            )
          })
        })
      )

      it.effect("the roles of one credential add up: leases of one queue, children into another", () =>
        Effect.gen(function* () {
          const port = yield* portOf
          const [admins, raw] = yield* Effect.all([withRaw(port), withRaw(port)])
          yield* Effect.promise(async () => {
            await Promise.all([admins.login(), raw.login({ user: "both", key: keyOf("both") })])
            const [admin, both] = [asker(admins), asker(raw)]
            const pages = number(await admin(openOf("mine.pages", [])))
            await admin(put(pages))
            const images = number(await both(openOf("mine.images.1", [])))
            const [task, fence] = leaseOf(await both(lease(pages)))
            const watched = number(await admin(openOf("mine.watched", [])))
            const commitInto = (queue: number): Promise<Answer> => {
              const each = [{ ...effects, puts: [{ queue, payload: bytes, options: undefined }] }]
              const one = { tasks: [task], fences: [fence], results: [bytes], effects: each }
              return both((request) => ({ type: C.commit, request, ...one }))
            }
            const seen = await commitInto(watched)
            assert.deepStrictEqual(seen.type === M.items && seen.codes, [Code.notPermitted])
            assert.strictEqual((await commitInto(images)).type, M.done)
            for (const answer of [await both(lease(images)), await both(put(pages)), await both(openOf("other"))]) {
              assert.strictEqual(answer.type === M.refused && answer.code, Code.notPermitted)
            }
          })
        })
      )

      it.effect(
        "a worker's handler works on one queue and puts children on another; its master reads the outcomes",
        () =>
          Effect.gen(function* () {
            const port = yield* portOf
            const pages = TaskQueue.make("mine.e2e.pages", { payload: Schema.Int, result: Schema.Int })
            const images = TaskQueue.make("mine.e2e.images", { payload: Schema.Int, result: Schema.Int })
            const seen = SharedSet.make("mine.e2e.seen")
            const clientOf = (user: string) => Client.layerTcp({ port, auth: { user, key: keyOf(user) } })
            const workers = Layer.mergeAll(
              Worker.layer(pages, (task) =>
                Effect.gen(function* () {
                  yield* task.putIfNew(seen, String(task.payload), images, task.payload)
                  return task.payload
                })
              ),
              Worker.layer(images, (task) => Effect.succeed(10 * task.payload))
            ).pipe(Layer.provide(clientOf("worker")))
            const outcomes = yield* Effect.gen(function* () {
              yield* pages.putAll([1, 2, 2])
              yield* Stream.runDrain(Stream.take(pages.outcomes, 3))
              return yield* Stream.runCollect(Stream.take(images.outcomesFrom(0), 2))
            }).pipe(Effect.provide(Layer.merge(workers, clientOf("producer"))))
            assert.strictEqual([...outcomes].length, 2)
          })
      )

      it.effect("an admin of every queue has no objects that it was not given", () =>
        Effect.gen(function* () {
          const raw = yield* withRaw(yield* portOf)
          yield* Effect.promise(async () => {
            await raw.login({ user: "everything", key: keyOf("everything") })
            const ask = asker(raw)
            assert.strictEqual((await ask(openOf("any.queue", []))).type, M.opened)
            const answer = await ask(openObject("mine.9.set", 0))
            assert.strictEqual(answer.type === M.refused && answer.code, Code.notPermitted)
          })
        })
      )

      it.effect("a client hears NotPermitted: definite, with what it takes", () =>
        Effect.gen(function* () {
          const port = yield* portOf
          const q = TaskQueue.make("mine.typed", { payload: Schema.Int })
          const refused = yield* Effect.gen(function* () {
            yield* q.put(1)
            return yield* Effect.flip(q.pause())
          }).pipe(Effect.provide(Client.layerTcp({ port, auth: { user: "producer", key: keyOf("producer") } })))
          assert.strictEqual(refused._tag, "NotPermitted")
          assert.strictEqual(
            refused.message,
            'Not permitted: pause on queue "mine.typed"; a credential needs the role admin for that name.'
          )
        })
      )

      it.effect("a burst of refusals is one line of the log, with the address, and every one is counted", () =>
        Effect.gen(function* () {
          const manager = yield* Manager.Manager
          const port = yield* portOf
          const before = (yield* manager.counters).notPermitted
          const from = logged.length
          const stranger = { user: "stranger", key: keyOf("stranger") }
          const listener = Manager.layerTcp({
            port: 0,
            auth: [{ ...stranger, roles: [{ role: "worker", queues: ["x"] }] }]
          })
          yield* Effect.gen(function* () {
            const raw = yield* withRaw(yield* portOf)
            yield* Effect.promise(async () => {
              await raw.login(stranger)
              const ask = asker(raw)
              for (let i = 0; i < 100; i++) await ask(openOf(`guess.${i}`, []))
            })
          }).pipe(Effect.provide(listener))
          assert.strictEqual((yield* manager.counters).notPermitted - before, 100)
          const lines = logged.slice(from).filter((line) => line.includes("not permitted"))
          assert.strictEqual(lines.length, 1)
          assert.match(lines[0]!, /peer=127\.0\.0\.1:\d+ credential=stranger action=open of queue "guess\.0"$/)
          assert.isAbove(port, 0)
        })
      )

      it.effect("a session that comes back with fewer roles has its leases taken, and hears so", () =>
        Effect.gen(function* () {
          const port = yield* portOf
          const mover = { user: "mover", key: keyOf("mover") }
          const wide = Manager.layerTcp({ port: 0, auth: { ...mover, roles: [{ role: "worker", queues: ["*"] }] } })
          const narrow = Manager.layerTcp({
            port: 0,
            auth: { ...mover, roles: [{ role: "worker", queues: ["mine*"] }] }
          })
          const admins = yield* withRaw(port)
          yield* Effect.promise(() => admins.login())
          const admin = asker(admins)
          const [kept, taken] = yield* Effect.promise(async () => {
            const queues = [
              number(await admin(openOf("mine.moved", []))),
              number(await admin(openOf("other.moved", [])))
            ] as const
            for (const queue of queues) await admin(put(queue))
            return queues
          })
          const first = yield* Effect.map(Layer.build(Layer.fresh(wide)), (context) =>
            Context.get(context, Manager.Listening)
          )
          const second = yield* Effect.map(Layer.build(Layer.fresh(narrow)), (context) =>
            Context.get(context, Manager.Listening)
          )
          const [a, b] = [first, second].map(({ address }) => (address._tag === "Tcp" ? address.port : 0)) as [
            number,
            number
          ]
          const [before, after] = yield* Effect.all([withRaw(a), withRaw(b)])
          yield* Effect.promise(async () => {
            const { session } = await before.login(mover)
            const asks = asker(before)
            const held = [...leaseOf(await asks(lease(kept))), ...leaseOf(await asks(lease(taken)))]
            const opened = await after.login(mover, session, held)
            assert.isTrue(opened.resumed)
            assert.deepStrictEqual([...opened.lost], held.slice(2, 3))
            const again = asker(after)
            const renewed = await again((request) => ({ type: C.renew, request, held }))
            assert.deepStrictEqual(renewed.type === M.items && renewed.codes, [0, Code.leaseLost])
            const stats = await admin((request) => ({ type: C.stats, request, queue: taken }))
            assert.deepInclude(stats.type === M.stats ? stats.queues[0] : {}, { ready: 1, leased: 0 })
          })
        })
      )

      it.effect("hostile names, at the login and behind it, leave no control character in the log (M17)", () =>
        Effect.gen(function* () {
          const port = yield* portOf
          const from = logged.length
          const hostile = "\u001b[2J\r\n\u202e</script>\u009b"
          const says: ReadonlyArray<(raw: Raw) => Promise<unknown>> = [
            async (raw) => raw.say({ ...hello, agent: hostile, role: hostile, magic: hostile.slice(0, 8) }),
            async (raw) => raw.say({ ...hello, namespace: hostile }),
            async (raw) => {
              raw.say(hello)
              await raw.next(M.hello)
              const message = `n,,n=${hostile},r=abcdefghijklmnopqrstuvwx`
              raw.say({ type: C.authFirst, mechanism: "SCRAM-SHA-256", message })
            },
            async (raw) => {
              await raw.login({ user: "worker", key: keyOf("worker") })
              raw.say(openOf(hostile, [])(1))
            },
            async (raw) => {
              await raw.login({ user: "worker", key: keyOf("worker") })
              raw.say(openObject(hostile, 0)(1))
            }
          ]
          for (const say of says) {
            const raw = yield* withRaw(port)
            yield* Effect.promise(async () => {
              await say(raw)
              await raw.until(() => raw.closed, "the end of the connection")
            })
          }
          const lines = logged.slice(from)
          // The last two end for a reason that has been logged of this burst, and without the name.
          assert.isAtLeast(lines.length, says.length - 2)
          for (const line of lines) assert.match(line, /^[ -~]+$/)
        })
      )

      it.effect("credentials that cannot be are refused with the field, the value and a remedy", () =>
        Effect.gen(function* () {
          const key = keyOf("x")
          const cases: ReadonlyArray<readonly [auth: ReadonlyArray<Manager.Credential>, message: RegExp]> = [
            [[{ key, roles: [] }], /^auth\.roles of credential "default" is an empty list: a credential needs a role/],
            [
              [{ key, roles: [{ role: "root" as "admin", queues: ["*"] }] }],
              /roles\[0\]\.role of .* is "root": use producer/
            ],
            [
              [
                { key, user: "a" },
                { key, user: "a" }
              ],
              /^auth\.user is "a" twice: give each credential a name of its own/
            ],
            [[{ key, user: "\u001b[31m\u202e" }], /^auth\.user is "\\u001b\[31m\\u202e": use 1 to 200/],
            [[{ user: "a", verifier: "SCRAM" }], /^auth\.verifier of credential "a" is MalformedVerifier: use what/],
            [
              Array.from({ length: Limits.credentialsMax + 1 }, (_, i) => ({ key, user: `u${i}` })),
              /^auth is 1001 credentials: use at most 1000/
            ]
          ]
          for (const [auth, message] of cases) {
            const failed = yield* Effect.flip(
              Effect.scoped(Layer.build(Layer.fresh(Manager.layerTcp({ port: 0, auth }))))
            )
            assert.match(failed.message, message)
          }
        })
      )

      it.effect("a verifier in the place of the key lets in who has the key, and not who has the verifier (M6)", () =>
        Effect.gen(function* () {
          const key = keyOf("verified")
          const made = yield* Effect.promise(() => deriveVerifier("verified", keyBytes(key), new Uint8Array(16), 4_096))
          const verifier = encodeVerifier(made)
          const listener = Manager.layerTcp({ port: 0, auth: { user: "verified", verifier } })
          yield* Effect.gen(function* () {
            const port = yield* portOf
            const raw = yield* withRaw(port)
            yield* Effect.promise(() => raw.login({ user: "verified", key }))
            const stolen = Client.layerTcp({ port, auth: { user: "verified", key: verifier } })
            const failed = yield* Effect.flip(Effect.scoped(Layer.build(Layer.fresh(stolen))))
            assert.strictEqual(failed._tag, "AuthenticationFailed")
          }).pipe(Effect.provide(listener))
        })
      )
    }
  )
})
