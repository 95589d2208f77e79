import { assert, describe, it } from "@effect/vitest"
import * as Limits from "../../../src/Limits.ts"
import { Malformed, Reader } from "../../../src/wire/Bytes.ts"
import * as Client from "../../../src/wire/ClientMessages.ts"
import * as Manager from "../../../src/wire/ManagerMessages.ts"
import { ClientType as C, ManagerType as M, type Outcome, type TaskOptions } from "../../../src/wire/Vocabulary.ts"
import { Random } from "../random.ts"
import { clientMessages, encoded, managerMessages, stats } from "./messages.ts"

interface Side {
  readonly name: string
  readonly make: ReadonlyArray<(r: Random) => unknown>
  readonly encode: (message: unknown) => Uint8Array
  readonly decode: (r: Reader) => unknown
}

const sides: ReadonlyArray<Side> = [
  {
    name: "client",
    make: Object.values(clientMessages),
    encode: (message) => encoded((w) => Client.encode(w, message as Client.ClientMessage)),
    decode: Client.decode
  },
  {
    name: "manager",
    make: Object.values(managerMessages),
    encode: (message) => encoded((w) => Manager.encode(w, message as Manager.ManagerMessage)),
    decode: Manager.decode
  }
]

/** The bytes of the elements inside the outer array: its header is one byte for all messages of version 1. */
const withLength = (bytes: Uint8Array, length: number, more: ReadonlyArray<number> = []): Uint8Array =>
  Uint8Array.from([0x90 | length, ...bytes.subarray(1), ...more])

const mutate = (r: Random, bytes: Uint8Array): Uint8Array => {
  const copy = Uint8Array.from(bytes)
  for (let i = 1 + r.int(4); i > 0; i--) {
    const at = r.int(copy.byteLength)
    const what = r.int(5)
    if (what === 0) copy[at] = r.int(256)
    else if (what === 1) copy[at]! ^= 1 << r.int(8)
    else if (what === 2) return copy.subarray(0, at)
    else if (what === 3) copy[at] = r.pick([0xc0, 0xdd, 0xdc, 0xc6, 0xdb, 0xcf, 0x90, 0x9f, 0xff])
    else copy.copyWithin(at, r.int(copy.byteLength), r.int(copy.byteLength))
  }
  return copy
}

const outcomeOf = (decode: (r: Reader) => unknown, bytes: Uint8Array): string => {
  try {
    decode(new Reader(bytes))
    return "decoded"
  } catch (error) {
    if (error instanceof Malformed) return error.message
    throw error
  }
}

/** Whether it has what it may leave out. */
const hasAddition = (message: unknown): boolean => {
  if (typeof message !== "object" || message === null || !("type" in message)) return false
  return message.type === C.credit ? "prefetch" in message : "reports" in message
}

/** The message with what it may leave out: only then is one more element one that nobody knows. */
const whole = (message: unknown): unknown => {
  const { type } = message as { readonly type: number }
  if (type === C.credit && !hasAddition(message)) return { ...(message as Client.Credit), prefetch: 0 }
  return type === C.heartbeat && !hasAddition(message) ? { ...(message as Client.Heartbeat), reports: [] } : message
}

for (const side of sides) {
  describe(`messages of the ${side.name}`, () => {
    it("are the same after the journey, of every type and with any values", () => {
      const r = new Random(10)
      for (const make of side.make) {
        for (let i = 0; i < 200; i++) {
          const message = make(r)
          const reader = new Reader(side.encode(message))
          assert.deepStrictEqual(side.decode(reader), message)
          assert.isTrue(reader.done)
        }
      }
      console.log(`${side.name}: ${side.make.length} types x 200`)
    })

    it("may grow at their end, and may not be shorter", () => {
      const r = new Random(11)
      for (const make of side.make) {
        const message = whole(make(r))
        const bytes = side.encode(message)
        const length = bytes[0]! & 0x0f
        // A nil, and an array that holds a string and an integer.
        const longer = new Reader(withLength(bytes, length + 2, [0xc0, 0x92, 0xa1, 0x61, 0xcc, 0xff]))
        assert.deepStrictEqual(side.decode(longer), message)
        assert.isTrue(longer.done)
        const shortest = length - (hasAddition(message) ? 1 : 0)
        if (shortest === 1) continue
        assert.match(outcomeOf(side.decode, withLength(bytes, shortest - 1)), /has \d+ elements, not \d+/)
      }
    })

    it("of an unknown type, of no type, or of the other side are refused", () => {
      const known = new Set(side.make.map((make) => side.encode(make(new Random(1)))[1]!))
      for (let type = 0; type < 0x80; type++) {
        if (known.has(type)) continue
        assert.match(outcomeOf(side.decode, Uint8Array.from([0x91, type])), /unknown message type/)
      }
      assert.match(outcomeOf(side.decode, Uint8Array.from([0x90])), /unknown message type/)
      assert.match(outcomeOf(side.decode, Uint8Array.from([0x91, 0xcd, 1, 0])), /above 255/)
      assert.match(outcomeOf(side.decode, Uint8Array.from([0xdc, 0, 33])), /at most 32/)
    })

    it("that are cut short are refused at every byte", () => {
      const r = new Random(12)
      for (const make of side.make) {
        const bytes = side.encode(make(r))
        for (let cut = 0; cut < bytes.byteLength; cut++) {
          assert.notStrictEqual(outcomeOf(side.decode, bytes.subarray(0, cut)), "decoded")
        }
      }
    })

    it("20,000 seeded mutations are decoded or Malformed, nothing else", () => {
      const r = new Random(13)
      let refused = 0
      for (let i = 0; i < 20_000; i++) {
        const bytes = side.encode(r.pick(side.make)(r))
        if (outcomeOf(side.decode, mutate(r, bytes)) !== "decoded") refused++
      }
      console.log(`${side.name}: 20,000 mutations, ${refused} refused`)
      assert.isAbove(refused, 4_000)
      assert.isBelow(refused, 20_000)
    })
  })
}

describe("fields of messages", () => {
  const r = new Random(14)
  const decodeClient = (message: Client.ClientMessage): string =>
    outcomeOf(
      Client.decode,
      encoded((w) => Client.encode(w, message))
    )
  const decodeManager = (message: Manager.ManagerMessage): string =>
    outcomeOf(
      Manager.decode,
      encoded((w) => Manager.encode(w, message))
    )

  it("end at their limits: the limit passes, one more is refused", () => {
    const put = (change: TaskOptions): Client.ClientMessage => ({
      type: C.put,
      request: 1,
      queue: 0,
      atomic: false,
      waitMs: 0,
      payloads: [r.bytes(1)],
      options: [change]
    })
    const x = (size: number): string => "x".repeat(size)
    const many = (count: number): ReadonlyArray<Uint8Array> => new Array<Uint8Array>(count).fill(new Uint8Array(1))
    const batch = (count: number): Client.ClientMessage => ({
      type: C.put,
      request: 1,
      queue: 0,
      atomic: false,
      waitMs: 0,
      payloads: many(count),
      options: undefined
    })
    const open = (change: Partial<Client.Open>): Client.ClientMessage => ({
      type: C.open,
      request: 1,
      name: "q",
      fingerprint: r.bytes(32),
      schema: "",
      accepts: [],
      policy: undefined,
      ...change
    })
    const repeat = (change: Partial<Client.Repeat>): Client.ClientMessage => ({
      type: C.repeat,
      request: 1,
      queue: 0,
      id: "",
      everyMs: undefined,
      cron: undefined,
      zone: "",
      payload: r.bytes(1),
      options: undefined,
      ...change
    })
    const lane = (change: Partial<Client.Lane>): Client.ClientMessage => ({
      type: C.lane,
      request: 1,
      queue: 0,
      key: "k",
      change: 0,
      limits: undefined,
      forMs: undefined,
      ...change
    })
    const limits: ReadonlyArray<readonly [limit: number, make: (value: number) => Client.ClientMessage]> = [
      [Limits.taskIdBytesMax, (size) => put({ id: x(size) })],
      [255, (priority) => put({ priority })],
      [Limits.delayMsMax, (delayMs) => put({ delayMs })],
      [Limits.delayMsMax, (ttlMs) => put({ ttlMs })],
      [Limits.taskKeyBytesMax, (size) => put({ key: x(size) })],
      [Limits.labelsPerTaskMax, (count) => put({ labels: new Array<string>(count).fill("l") })],
      [Limits.labelBytesMax, (size) => put({ labels: [x(size)] })],
      [Limits.traceBytesMax, (size) => put({ trace: x(size) })],
      [Limits.batchItemsMax, batch],
      [Limits.nameCharsMax, (size) => open({ name: x(size) })],
      [Limits.schemaTextBytesMax, (size) => open({ schema: x(size) })],
      [
        Limits.acceptedFingerprintsMax,
        (count) => open({ accepts: new Array<Uint8Array>(count).fill(new Uint8Array(32)) })
      ],
      [Limits.batchItemsMax, (count) => ({ type: C.lease, request: 1, queue: 0, count, waitMs: 0, get: false })],
      [Limits.waitMsMax, (waitMs) => ({ type: C.lease, request: 1, queue: 0, count: 1, waitMs, get: false })],
      [Limits.creditMax, (credit) => ({ type: C.subscribe, request: 1, queue: 0, credit, prefetch: 0 })],
      [Limits.creditMax, (prefetch) => ({ type: C.subscribe, request: 1, queue: 0, credit: 1, prefetch })],
      [Limits.taskKeyBytesMax, (size) => lane({ key: x(size) })],
      [4, (change) => lane({ change: change as Client.Lane["change"] })],
      [Limits.concurrencyMax, (concurrency) => lane({ limits: { concurrency } })],
      [Limits.laneRatePerMinuteMax, (ratePerMinute) => lane({ limits: { ratePerMinute } })],
      [Limits.laneBurstMax, (burst) => lane({ limits: { burst } })],
      [Limits.laneGapMsMax, (gapMs) => lane({ limits: { gapMs } })],
      [Limits.laneWeightMax, (weight) => lane({ limits: { weight } })],
      [Limits.delayMsMax, (forMs) => lane({ forMs })],
      [Limits.creditMax, (credit) => ({ type: C.follow, request: 1, queue: 0, cursor: 0, credit })],
      [Limits.repeatIdBytesMax, (size) => repeat({ id: x(size) })],
      [Limits.cronBytesMax, (size) => repeat({ cron: x(size) })],
      [Limits.zoneBytesMax, (size) => repeat({ zone: x(size) })],
      [Limits.pageItemsMax, (count) => ({ type: C.peek, request: 1, queue: 0, count })],
      [Limits.scramMessageCharsMax, (size) => ({ type: C.authFinal, message: x(size) })]
    ]
    for (const [limit, make] of limits) {
      for (const value of [limit - 1, limit]) assert.strictEqual(decodeClient(make(value)), "decoded", `${limit}`)
      assert.notStrictEqual(decodeClient(make(limit + 1)), "decoded", `${limit + 1}`)
    }
  })

  it("the counts of a queue from a manager that has fewer of them read as none of the others", () => {
    const whole = stats(r)
    const bytes = encoded((w) => Manager.encode(w, { type: M.stats, request: 1, queues: [whole] }))
    // type array, type, request, array of one, array 16 of 43 elements: cut down to the 18 of the first version.
    const at = bytes.indexOf(0xdc)
    assert.deepStrictEqual([...bytes.subarray(at, at + 3)], [0xdc, 0, 46])
    const reader = new Reader(bytes)
    reader.position = at + 3
    reader.skip(18)
    const older = bytes.slice(0, reader.position)
    older[at + 2] = 18
    const decoded = Manager.decode(new Reader(older))
    const [counts] = decoded.type === M.stats ? decoded.queues : []
    const { name, workers } = whole
    assert.deepStrictEqual(
      [counts!.name, counts!.workers, counts!.paused, counts!.puts60s, counts!.lanes],
      [name, workers, false, 0, []]
    )
  })

  it("an item is a payload or an array of eight, not an empty array with a payload behind it", () => {
    const repeat: Client.ClientMessage = {
      type: C.repeat,
      request: 1,
      queue: 0,
      id: "r",
      everyMs: 1_000,
      cron: undefined,
      zone: "UTC",
      payload: Uint8Array.of(7),
      options: undefined
    }
    const effects = {
      puts: [{ queue: 0, payload: Uint8Array.of(7), options: undefined }],
      sets: [],
      counts: [],
      writes: []
    }
    const commit: Client.ClientMessage = {
      type: C.commit,
      request: 1,
      tasks: [1],
      fences: [1],
      results: [new Uint8Array()],
      effects: [effects]
    }
    for (const message of [repeat, commit]) {
      const bytes = encoded((w) => Client.encode(w, message))
      const at = Buffer.from(bytes).indexOf(Uint8Array.of(0xc4, 1, 7))
      const bad = Uint8Array.from([...bytes.subarray(0, at), 0x90, ...bytes.subarray(at)])
      assert.match(outcomeOf(Client.decode, bad), /eight elements/)
    }
  })

  it("a fingerprint has 32 bytes, or none", () => {
    for (const size of [0, 31, 32, 33]) {
      const open = { type: C.open, request: 1, name: "q", fingerprint: r.bytes(size), schema: "", accepts: [] } as const
      const said = decodeClient({ ...open, policy: undefined })
      assert.strictEqual(said === "decoded", size === 0 || size === 32, `${size} bytes: ${said}`)
    }
  })

  it("names are plain, and leases come in pairs", () => {
    for (const bad of ["", "a b", "ä", "a/b", "a\n", "../x"]) {
      const open = { type: C.open, request: 1, name: bad, fingerprint: r.bytes(32), schema: "", accepts: [] } as const
      assert.match(decodeClient({ ...open, policy: undefined }), /a name has/)
    }
    assert.match(decodeClient({ type: C.started, held: [1, 2, 3] }), /pairs/)
  })

  it("an outcome carries the payload of a dead task up to the largest that a queue may allow", () => {
    const item = (size: number): Outcome => ({
      task: 1,
      outcome: 2,
      attempts: 1,
      endedAtMs: 1,
      body: new Uint8Array(size),
      reasons: []
    })
    for (const size of [Limits.payloadBytesMax + 1, Limits.payloadBytesCeiling]) {
      assert.strictEqual(decodeManager({ type: M.outcome, request: 1, outcome: item(size) }), "decoded")
    }
    const over = item(Limits.payloadBytesCeiling + 1)
    assert.match(decodeManager({ type: M.outcome, request: 1, outcome: over }), /at most/)
  })
})
