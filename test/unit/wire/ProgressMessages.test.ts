/** Steps, signals, suspensions, and what rides on heartbeats: bounds, names, and how each array may grow. */
import { assert, describe, it } from "@effect/vitest"
import * as Limits from "../../../src/Limits.ts"
import { Malformed, Reader, Writer } from "../../../src/wire/Bytes.ts"
import * as Client from "../../../src/wire/ClientMessages.ts"
import * as Manager from "../../../src/wire/ManagerMessages.ts"
import type { Report, Step, Suspend } from "../../../src/wire/ProgressMessages.ts"
import {
  type Browsed,
  ClientType as C,
  type Delivery,
  type Entry,
  ManagerType as M
} from "../../../src/wire/Vocabulary.ts"
import { encoded } from "./messages.ts"

const bytes = Uint8Array.of(1, 0x31)
const x = (size: number): string => "x".repeat(size)

/** What becomes of bytes that a client, or a manager, has said. */
const said = (decode: (r: Reader) => unknown, what: Uint8Array): string => {
  const r = new Reader(what)
  try {
    decode(r)
    assert.isTrue(r.done, "something is left over")
    return "decoded"
  } catch (error) {
    if (error instanceof Malformed) return error.message
    throw error
  }
}
const toManager = (m: Client.ClientMessage): string =>
  said(
    Client.decode,
    encoded((w) => Client.encode(w, m))
  )
const toClient = (m: Manager.ManagerMessage): string =>
  said(
    Manager.decode,
    encoded((w) => Manager.encode(w, m))
  )

const step = (change: Partial<Step["items"][number]>, count = 1): Step => ({
  type: C.step,
  request: 1,
  items: new Array(count).fill({ task: 1, fence: 2, name: "fetch", value: bytes, ...change })
})
const suspend = (change: Partial<Suspend["items"][number]>, count = 1): Suspend => ({
  type: C.suspend,
  request: 1,
  items: new Array(count).fill({ task: 1, fence: 2, forMs: undefined, seen: 0, ...change })
})
const signal = (change: Partial<Extract<Client.Request, { readonly type: typeof C.signal }>>) =>
  ({ type: C.signal, request: 1, queue: 0, task: 7, id: undefined, name: "!paid", value: bytes, ...change }) as const
const find = (id: string) => ({ type: C.find, request: 1, queue: 0, id }) as const
const heartbeat = (change: Partial<Report>, count = 1): Client.Heartbeat => ({
  type: C.heartbeat,
  sequence: 1,
  held: [1, 2],
  reports: new Array(count).fill({ task: 1, fence: 2, progress: undefined, checkpoint: undefined, ...change })
})
const delivery = (entries: ReadonlyArray<Entry> | undefined): Delivery => {
  const plain = { task: 1, fence: 2, attempt: 1, payload: bytes, key: undefined, trace: undefined }
  const whole = { ...plain, checkpoint: undefined }
  return entries === undefined ? whole : { ...whole, entries }
}
const deliver = (entries: ReadonlyArray<Entry> | undefined): Manager.ManagerMessage => {
  return { type: M.deliver, stream: 1, items: [delivery(entries)] }
}
const answer = (change: Partial<Manager.Heartbeat>): Manager.Heartbeat => ({
  type: M.heartbeat,
  sequence: 1,
  lost: [],
  cancelled: [],
  draining: false,
  heartbeatMs: 5_000,
  requestsInFlightMax: 256,
  unsaved: [],
  ...change
})
const browsed: Browsed = {
  task: 1,
  state: 2,
  attempt: 0,
  priority: 128,
  putAtMs: 1,
  atMs: 2,
  holder: undefined,
  origin: undefined,
  payload: undefined,
  id: undefined,
  key: undefined,
  labels: [],
  reasons: [],
  checkpointBytes: 0,
  progress: undefined,
  entries: 0,
  suspended: false
}
const browse = (change: Partial<Browsed>): Manager.ManagerMessage => ({
  type: M.browsed,
  request: 1,
  items: [{ ...browsed, ...change }],
  next: undefined
})

describe("the messages of progress", () => {
  it("end at their limits: the limit passes, one more is refused", () => {
    const ofClients: ReadonlyArray<readonly [limit: number, make: (value: number) => Client.ClientMessage]> = [
      [Limits.entryNameBytesMax, (size) => step({ name: x(size) })],
      [Limits.payloadBytesMax, (size) => step({ value: new Uint8Array(size) })],
      [Limits.batchItemsMax, (count) => step({}, count)],
      [Limits.delayMsMax, (forMs) => suspend({ forMs })],
      [Limits.batchItemsMax, (count) => suspend({}, count)],
      [Limits.entryNameBytesMax, (size) => signal({ name: `!${x(size - 1)}` })],
      [Limits.payloadBytesMax, (size) => signal({ value: new Uint8Array(size) })],
      [Limits.taskIdBytesMax, (size) => signal({ task: undefined, id: x(size) })],
      [Limits.taskIdBytesMax, (size) => find(x(size))],
      [Limits.progressWhole, (progress) => heartbeat({ progress })],
      [Limits.payloadBytesMax, (size) => heartbeat({ checkpoint: new Uint8Array(size) })],
      [Limits.batchItemsMax, (count) => heartbeat({}, count)]
    ]
    for (const [limit, make] of ofClients) {
      for (const value of [limit - 1, limit]) assert.strictEqual(toManager(make(value)), "decoded", `${limit}`)
      assert.match(toManager(make(limit + 1)), /at most|above/, `${limit + 1}`)
    }
    const named = (count: number): ReadonlyArray<Entry> => Array.from({ length: count }, (_, i) => [`${i}`, bytes])
    const ofManagers: ReadonlyArray<readonly [limit: number, make: (value: number) => Manager.ManagerMessage]> = [
      [Limits.entriesPerTaskMax, (count) => deliver(named(count))],
      [Limits.entryNameBytesMax, (size) => deliver([[x(size), bytes]])],
      [Limits.payloadBytesMax, (size) => deliver([["fetch", new Uint8Array(size)]])],
      [Limits.batchItemsMax, (count) => answer({ unsaved: new Array<number>(count).fill(1) })],
      [Limits.progressWhole, (progress) => browse({ progress })],
      [15, (standing) => ({ type: M.found, request: 1, task: 7, standing })]
    ]
    for (const [limit, make] of ofManagers) {
      for (const value of [limit - 1, limit]) assert.strictEqual(toClient(make(value)), "decoded", `${limit}`)
      assert.match(toClient(make(limit + 1)), /at most|above/, `${limit + 1}`)
    }
    // In bytes, not in characters.
    assert.strictEqual(toManager(step({ name: "é".repeat(Limits.entryNameBytesMax / 2) })), "decoded")
    assert.match(toManager(step({ name: "é".repeat(Limits.entryNameBytesMax / 2 + 1) })), /at most/)
  })

  it("name a signal with a ! in front and a step without, and no other way round", () => {
    assert.match(toManager(step({ name: "" })), /a step has a name/)
    assert.match(toManager(signal({ name: "" })), /a step has a name/)
    for (const name of ["a", "a!", " !a", "ǃa"]) {
      assert.strictEqual(toManager(step({ name })), "decoded", name)
      assert.match(toManager(signal({ name })), /begins with !/, name)
    }
    for (const name of ["!", "!a", "!!"]) {
      assert.strictEqual(toManager(signal({ name })), "decoded", name)
      assert.match(toManager(step({ name })), /begins with !/, name)
    }
    // One bad name among good ones is enough.
    const { items } = step({})
    assert.match(toManager({ ...step({}), items: [...items, ...step({ name: "!a" }).items] }), /begins with !/)
  })

  it("name the task of a signal by number or by id, never by both or neither", () => {
    assert.strictEqual(toManager(signal({ task: 7, id: undefined })), "decoded")
    assert.strictEqual(toManager(signal({ task: undefined, id: "a" })), "decoded")
    assert.match(toManager(signal({ task: 7, id: "a" })), /by number or by id/)
    assert.match(toManager(signal({ task: undefined, id: undefined })), /by number or by id/)
  })
})

/** An array, header first, of what `write` writes. */
const bytesOf = (write: (w: Writer) => void): Uint8Array => {
  const w = new Writer(64)
  write(w)
  return w.bytes.slice(0, w.position)
}

/** Elements that this version does not know. */
const unknown = [0xc0, 0x92, 0xa1, 0x61, 0xcc, 0xff]

describe("heartbeats", () => {
  const held = [1, 2]
  const reports: ReadonlyArray<Report> = [{ task: 1, fence: 2, progress: 5_000, checkpoint: bytes }]
  const written = (length: number, more: ReadonlyArray<number>): Uint8Array => {
    const whole = encoded((w) => Client.encode(w, { type: C.heartbeat, sequence: 3, held, reports }))
    const short = encoded((w) => Client.encode(w, { type: C.heartbeat, sequence: 3, held }))
    return Uint8Array.from([0x90 | length, ...(length === 3 ? short : whole).subarray(1), ...more])
  }

  it("of three, four and five elements are taken", () => {
    const decoded = (bytes: Uint8Array) => {
      const r = new Reader(bytes)
      const m = Client.decode(r)
      assert.isTrue(r.done)
      return m
    }
    assert.deepStrictEqual<unknown>(decoded(written(3, [])), { type: C.heartbeat, sequence: 3, held })
    for (const [length, more] of [
      [4, []],
      [5, [0xc0]],
      [6, unknown]
    ] as const) {
      assert.deepStrictEqual<unknown>(decoded(written(length, more)), { type: C.heartbeat, sequence: 3, held, reports })
    }
  })

  it("of two elements, or whose reports are no array of reports, are refused", () => {
    const before = written(3, []).subarray(0, 3)
    assert.match(said(Client.decode, Uint8Array.from([0x92, ...before.subarray(1)])), /has 2 elements, not 3/)
    for (const bad of [[0xc0], [0x01], [0x91, 0x01], [0x91, 0x93, 1, 2, 3], [0xa0]]) {
      const start = written(3, [])
      assert.notStrictEqual(said(Client.decode, Uint8Array.from([0x94, ...start.subarray(1), ...bad])), "decoded")
    }
  })

  it("of a manager say all seven things: a shorter one is refused", () => {
    const whole = encoded((w) => Manager.encode(w, answer({ draining: true, unsaved: [7] })))
    assert.strictEqual(whole[0], 0x98)
    for (let length = 4; length < 8; length++) {
      assert.match(said(Manager.decode, Uint8Array.from([0x90 | length, ...whole.subarray(1)])), /elements, not 8/)
    }
  })
})

describe("the arrays of progress", () => {
  /** The message around the item of four elements that `write` writes: grown, and cut. */
  const grows = (message: Client.ClientMessage, write: (w: Writer) => void): void => {
    const whole = encoded((w) => Client.encode(w, message))
    const item = bytesOf(write)
    const at = Buffer.from(whole).indexOf(item)
    assert.isAbove(at, 0, "the item is not in the message")
    const around = (length: number, more: ReadonlyArray<number>): Uint8Array => {
      const end = at + item.byteLength
      return Uint8Array.from([...whole.subarray(0, at), 0x90 | length, ...whole.subarray(at + 1, end), ...more])
    }
    assert.deepStrictEqual(Client.decode(new Reader(around(6, unknown))), message)
    assert.strictEqual(said(Client.decode, around(6, unknown)), "decoded")
    assert.match(said(Client.decode, around(3, [])), /an item has 4 elements/)
  }

  it("pass over what a later version has put at the end of an item, and take no shorter one", () => {
    const lease = (w: Writer): void => {
      w.array(4)
      w.uint(1)
      w.uint(2)
    }
    grows(step({}), (w) => {
      lease(w)
      w.str("fetch")
      w.bin(bytes)
    })
    grows(suspend({ forMs: 9_000, seen: 3 }), (w) => {
      lease(w)
      w.uint(9_000)
      w.uint(3)
    })
    grows(heartbeat({ progress: 5_000, checkpoint: bytes }), (w) => {
      lease(w)
      w.uint(5_000)
      w.bin(bytes)
    })
  })

  it("of a browsed task grow behind its seventeen elements, and seventeen are needed", () => {
    const whole = encoded((w) => Manager.encode(w, browse({ progress: 10_000, entries: 3, suspended: true })))
    const at = Buffer.from(whole).indexOf(Uint8Array.of(0xdc, 0, 17))
    assert.isAbove(at, 0)
    const end = whole.byteLength - 1
    const item = (length: number, more: ReadonlyArray<number>) =>
      Uint8Array.from([...whole.subarray(0, at), 0xdc, 0, length, ...whole.subarray(at + 3, end), ...more, 0xc0])
    assert.deepStrictEqual(Manager.decode(new Reader(item(19, unknown))), Manager.decode(new Reader(whole)))
    assert.strictEqual(said(Manager.decode, item(19, unknown)), "decoded")
    assert.match(said(Manager.decode, item(16, [])), /seventeen elements/)
  })

  it("of a delivery hold its entries, and grow behind them", () => {
    const entries: ReadonlyArray<Entry> = [
      ["fetch", bytes],
      ["!paid", new Uint8Array()]
    ]
    for (const type of [M.leased, M.peeked] as const) {
      const whole = encoded((w) => Manager.encode(w, { type, request: 1, items: [delivery(entries)] }))
      const at = whole.indexOf(0x98)
      const longer = Uint8Array.from([...whole.subarray(0, at), 0x9a, ...whole.subarray(at + 1), ...unknown])
      assert.deepStrictEqual<unknown>(Manager.decode(new Reader(longer)), {
        type,
        request: 1,
        items: [delivery(entries)]
      })
      assert.strictEqual(said(Manager.decode, longer), "decoded")
    }
    // Without any it is what it was before there were entries.
    const none = encoded((w) => Manager.encode(w, deliver(undefined)))
    assert.deepStrictEqual<unknown>(Manager.decode(new Reader(none)), deliver(undefined))
    assert.isAbove(Buffer.from(none).indexOf(Uint8Array.of(0xdd, 0, 0, 0, 1, 0x94)), 0)
    // None, said as an empty array, is a delivery with an empty list.
    assert.deepStrictEqual<unknown>(
      Manager.decode(new Reader(encoded((w) => Manager.encode(w, deliver([]))))),
      deliver([])
    )
  })

  it("of entries come in pairs of a name and a value", () => {
    const whole = encoded((w) => Manager.encode(w, deliver([["fetch", bytes]])))
    const pair = bytesOf((w) => {
      w.array(2)
      w.str("fetch")
      w.bin(bytes)
    })
    const at = Buffer.from(whole).indexOf(pair)
    assert.strictEqual(at, whole.byteLength - pair.byteLength)
    const odd = (length: number, more: ReadonlyArray<number>) =>
      said(Manager.decode, Uint8Array.from([...whole.subarray(0, at), 0x90 | length, ...pair.subarray(1), ...more]))
    assert.match(odd(3, [0xa1, 0x61]), /pairs/)
    assert.strictEqual(odd(4, [0xa1, 0x61, 0xc4, 0]), "decoded")
    // Two names, or two values.
    assert.notStrictEqual(odd(4, [0xa1, 0x61, 0xa1, 0x62]), "decoded")
    assert.notStrictEqual(odd(4, [0xc4, 0, 0xc4, 0]), "decoded")
  })
})
