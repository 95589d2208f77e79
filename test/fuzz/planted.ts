/** One planted bug for each target, in test code alone: each must be found within the target's smoke. */
import * as Scram from "../../src/auth/Scram.ts"
import * as Codec from "../../src/client/Codec.ts"
import * as Srcset from "../../src/crawl/Srcset.ts"
import * as Url from "../../src/crawl/Url.ts"
import type { Core } from "../../src/manager/Core.ts"
import { readRow } from "../../src/model/Records.ts"
import { Task } from "../../src/model/Task.ts"
import { Malformed, Reader } from "../../src/wire/Bytes.ts"
import * as ClientMessages from "../../src/wire/ClientMessages.ts"
import { FrameReader } from "../../src/wire/Frames.ts"
import * as ManagerMessages from "../../src/wire/ManagerMessages.ts"
import type { Random } from "../unit/random.ts"
import type { Target } from "./target.ts"
import * as Targets from "./targets.ts"

/** Goes on with the next chunk after a fault, as a reader does that looks for the next frame. */
class Resynchronising {
  fault: string | undefined = undefined
  #reader: FrameReader
  #limit: number

  constructor(limit: number) {
    this.#limit = limit
    this.#reader = new FrameReader(limit)
  }

  set limit(bytes: number) {
    this.#limit = bytes
    this.#reader.limit = bytes
  }

  get limit(): number {
    return this.#limit
  }

  get partial(): boolean {
    return this.#reader.partial
  }

  push(chunk: Uint8Array, onFrame: (body: Uint8Array) => void): void {
    if (this.#reader.fault !== undefined) this.#reader = new FrameReader(this.#limit)
    this.#reader.push(chunk, onFrame)
    this.fault ??= this.#reader.fault
  }
}

/** Does not look at the largest value of a number. */
class Unbounded extends Reader {
  override uint(): number {
    return super.uint()
  }
}

/** Leaves the last of the elements that it does not know. */
class Short extends Reader {
  override skip(count: number, depth = 0): void {
    super.skip(depth === 0 && count > 1 ? count - 1 : count, depth)
  }
}

/** Decodes with another reader, and goes on in the given one where that stopped. */
const through =
  <A>(decode: (r: Reader) => A, make: (bytes: Uint8Array) => Reader) =>
  (r: Reader): A => {
    const other = make(r.bytes)
    other.position = r.position
    try {
      return decode(other)
    } finally {
      r.position = other.position
    }
  }

const payloadOf = (): Codec.Codec<Targets.Payload> => {
  const codec = Codec.make(Targets.Payload)
  return {
    encode: codec.encode,
    decode: (bytes) => {
      // Not caught: what is no JSON is an exception.
      JSON.parse(new TextDecoder().decode(bytes.subarray(1)))
      return codec.decode(bytes)
    }
  }
}

export interface Plant {
  readonly bug: string
  /** What the failure says. */
  readonly found: RegExp
  readonly target: Target
}

export const plants: ReadonlyArray<Plant> = [
  {
    bug: "a frame reader goes on after a fault",
    found: /after the first malformed byte/,
    target: Targets.frames((limit) => new Resynchronising(limit))
  },
  {
    bug: "numbers of a client message have no upper bound",
    found: /is above/,
    target: Targets.clientDecoder(through(ClientMessages.decode, (bytes) => new Unbounded(bytes)))
  },
  {
    bug: "an element of a longer manager message is left in the frame",
    found: /was read as/,
    target: Targets.managerDecoder(through(ManagerMessages.decode, (bytes) => new Short(bytes)))
  },
  {
    bug: "a client compares half of the manager's signature",
    found: /the client accepted/,
    target: Targets.scram({
      ...Scram,
      clientVerify: (state, text) => {
        const verdict = Scram.clientVerify(state, text)
        if (verdict._tag === "Ok" || verdict.reason !== "ServerSignatureMismatch") return verdict
        const right = Buffer.from(state.serverSignature).toString("base64").slice(0, 20)
        return text.startsWith(`v=${right}`) ? { _tag: "Ok" } : verdict
      }
    })
  },
  {
    bug: "a manager answers what comes after its last word",
    found: /after the last word/,
    target: Targets.handshake((core, connection) => {
      const handler = core.accept(connection, Targets.gate)
      let last = new Uint8Array()
      let closed = false
      const noted = core.accept(
        {
          ...connection,
          write: (bytes) => {
            last = bytes.slice()
          },
          close: () => {
            closed = true
          }
        },
        Targets.gate
      )
      return {
        ...handler,
        onData: (chunk) => {
          if (closed) connection.write(last)
          else noted.onData(chunk)
          handler.onData(chunk)
        }
      }
    })
  },
  { bug: "what is no JSON is an exception", found: /SyntaxError/, target: Targets.payloads(payloadOf()) },
  {
    bug: "a payload is said to lie one byte further in its row",
    found: /do not lie in a row/,
    target: Targets.rows((row, visitor) =>
      readRow(row, {
        ...visitor,
        put: visitor.put === undefined ? undefined : (n, queue, at, size) => visitor.put!(n, queue, at + 1, size)
      })
    )
  },
  {
    bug: "a URL keeps the name and password in it",
    found: /a URL with a user/,
    target: Targets.crawl({
      parse: (text, base) => URL.parse(text, base?.toString()) ?? undefined,
      srcset: Srcset.parse,
      key: Url.key
    })
  }
]

export interface LivePlant {
  readonly bug: string
  /** What the failure says. */
  readonly found: RegExp
  readonly sabotage: (core: Core) => void
}

export const livePlants: ReadonlyArray<LivePlant> = [
  {
    bug: "what a lost connection waited for goes on",
    found: /has no connection|and no connection/,
    sabotage: ({ engine }) => {
      engine.detach = () => {}
    }
  },
  {
    bug: "a lease is given back by whoever knows its number",
    found: /the neighbour failed: LeaseLost/,
    sabotage: ({ engine }) => {
      const release = engine.release.bind(engine)
      engine.release = (session, request, held, now) => {
        for (let i = 0; i + 1 < held.length; i += 2) {
          const task = engine.tasks.owner(held[i]!)
          const holder = task instanceof Task ? task.holder : undefined
          if (holder !== undefined) return release(holder, request, held, now)
        }
        release(session, request, held, now)
      }
    }
  },
  {
    bug: "a lease is suspended by whoever knows its number",
    found: /the neighbour failed: LeaseLost/,
    sabotage: ({ engine: { progress, tasks } }) => {
      const suspend = progress.suspend.bind(progress)
      progress.suspend = (session, request, items, now) => {
        for (const { task } of items) {
          const owner = tasks.owner(task)
          if (owner instanceof Task && owner.holder !== undefined) return suspend(owner.holder, request, items, now)
        }
        suspend(session, request, items, now)
      }
    }
  },
  {
    bug: "the bytes of a signal are not counted",
    found: /progressBytes is/,
    sabotage: ({ engine: { progress, queues } }) => {
      const signal = progress.signal.bind(progress)
      progress.signal = (...args) => {
        const queue = queues[args[2]]
        const before = queue?.progressBytes ?? 0
        signal(...args)
        if (queue !== undefined) queue.progressBytes = before
      }
    }
  },
  {
    bug: "a connection that is closed leaves its session behind",
    found: /never happened|counts|waits/,
    sabotage: ({ engine }) => {
      engine.goodbye = () => {}
    }
  }
]

/**
 * The input that must fail in every run: a decoder that makes room for what a length announces, before it looks at how
 * much has come. A canary that passes fails the run, for then nothing that is reported can be believed.
 */
export const canary: Target = {
  name: "canary",
  smoke: 4_000,
  tokens: [Uint8Array.of(0xc6, 0x7f, 0xff, 0xff)],
  make: (random: Random) => {
    const body = random.bytes(random.int(20))
    return Uint8Array.of(0, 0, 0, body.byteLength, ...body)
  },
  check: (input) => {
    if (input.byteLength < 4) return 1
    const size = new DataView(input.buffer, input.byteOffset, 4).getUint32(0) % 0x1000_0000
    const body = new Uint8Array(size)
    try {
      if (size > input.byteLength - 4) throw new Malformed("a body longer than its frame")
      body.set(input.subarray(4, 4 + size))
    } catch (error) {
      if (!(error instanceof Malformed)) throw error
    }
    return 1
  }
}
