/**
 * An engine alone in a process, filled with waiting tasks as the wire brings them: decoded frames of 256 items, whose
 * payloads are views of their frame. `fill` answers what the process holds before and after, each after a collection.
 */
import process from "node:process"
import * as v8 from "node:v8"
import { runInNewContext } from "node:vm"
import { Engine, type Out } from "../../src/model/Engine.ts"
import { defaults } from "../../src/model/Policy.ts"
import { Session } from "../../src/model/Session.ts"
import { Reader } from "../../src/wire/Bytes.ts"
import * as Client from "../../src/wire/ClientMessages.ts"
import { frame } from "../../src/wire/Frames.ts"
import { ClientType as C } from "../../src/wire/Vocabulary.ts"
import { serve } from "../harness/role.ts"

export interface FillOptions {
  readonly tasks: number
  readonly payloadBytes: number
}

export interface Filled {
  /** Heap and array buffers that the tasks hold, their payloads included. */
  readonly heldBytes: number
  /** The same less the payloads themselves. */
  readonly indexBytes: number
  readonly rssBytes: number
  readonly seconds: number
}

const itemsPerFrame = 256

v8.setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void

const held = (): number => {
  collect()
  collect()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

const nothing = (): void => {}
const silent: Out = {
  changed: nothing,
  queueChanged: nothing,
  putProgress: nothing,
  laneChanged: nothing,
  standings: nothing,
  purged: nothing,
  objectMade: nothing,
  setAdded: nothing,
  setRemoved: nothing,
  counterChanged: nothing,
  dictChanged: nothing,
  objectOpened: nothing,
  bits: nothing,
  dictEntries: nothing,
  dictWritten: nothing,
  setPage: nothing,
  dictPage: nothing,
  counted: nothing,
  redriven: nothing,
  cancelling: nothing,
  refused: (_session, _request, why) => {
    throw new Error(`refused with code ${why.code}`)
  },
  done: nothing,
  putDone: nothing,
  putItems: nothing,
  leased: nothing,
  items: nothing,
  deliver: nothing,
  outcomes: () => 0,
  outcomesGap: nothing,
  outcome: nothing,
  repeatChanged: nothing,
  repeats: nothing
}

/** Kept, so that what it holds is counted. */
let engine: Engine | undefined

const fill = ({ payloadBytes, tasks }: FillOptions): Filled => {
  const before = held()
  const rssBefore = process.memoryUsage.rss()
  const from = performance.now()
  engine = new Engine({ epoch: 1, seed: 1, out: silent })
  const definition = {
    name: "q",
    fingerprint: new Uint8Array(32),
    schema: "",
    accepts: [],
    durability: "memory"
  } as const
  engine.declare({ ...definition, policy: { ...defaults, capacity: 2 * tasks } })
  const session = engine.connect((id) => new Session(id))
  const payload = new Uint8Array(payloadBytes).fill(0x61)
  for (let put = 0; put < tasks; put += itemsPerFrame) {
    const payloads = new Array<Uint8Array>(Math.min(itemsPerFrame, tasks - put)).fill(payload)
    const about = { request: 1, queue: 0, atomic: false, waitMs: 0, options: undefined }
    const bytes = frame((w) => Client.encode(w, { type: C.put, ...about, payloads }))
    const message = Client.decode(new Reader(bytes.subarray(4)))
    if (message.type !== C.put) throw new Error("not a put")
    engine.put(session, 1, 0, false, 0, message.payloads, undefined, 1_000)
    engine.dispatch(1_000)
  }
  const seconds = (performance.now() - from) / 1_000
  const heldBytes = held() - before
  const rssBytes = process.memoryUsage.rss() - rssBefore
  const { ready } = engine.queues[0]!
  if (ready.size !== tasks) throw new Error(`${ready.size} tasks wait, ${tasks} were put`)
  return { heldBytes, indexBytes: heldBytes - tasks * payloadBytes, rssBytes, seconds }
}

serve({ fill }, () => Promise.resolve())
