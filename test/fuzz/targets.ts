/**
 * The targets. Each is made from the functions that it looks at, so that the same target runs on the real ones and, to
 * prove that it sees anything, on ones with a planted bug.
 */
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import { deriveKeys, type Verifier } from "../../src/auth/Credentials.ts"
import * as Scram from "../../src/auth/Scram.ts"
import * as Codec from "../../src/client/Codec.ts"
import * as Extract from "../../src/crawl/Extract.ts"
import * as Srcset from "../../src/crawl/Srcset.ts"
import * as Url from "../../src/crawl/Url.ts"
import * as Limits from "../../src/Limits.ts"
import { Core } from "../../src/manager/Core.ts"
import type { Gate } from "../../src/manager/Peer.ts"
import { formatVersion } from "../../src/model/Journal.ts"
import { Kind, readRow } from "../../src/model/Records.ts"
import { sha256 } from "../../src/platform/Crypto.ts"
import type { Connection } from "../../src/platform/Network.ts"
import { concat, Malformed, Reader, Writer } from "../../src/wire/Bytes.ts"
import * as ClientMessages from "../../src/wire/ClientMessages.ts"
import { FrameReader, frame } from "../../src/wire/Frames.ts"
import * as ManagerMessages from "../../src/wire/ManagerMessages.ts"
import { ClientType as C, ManagerType as M } from "../../src/wire/Vocabulary.ts"
import type { Random } from "../unit/random.ts"
import { clientMessages, encoded, managerMessages } from "../unit/wire/messages.ts"
import { sameBytes, valueEnd } from "./bytes.ts"
import type { Target } from "./target.ts"

const utf8 = new TextEncoder()
const words = (...texts: ReadonlyArray<string>): ReadonlyArray<Uint8Array> => texts.map((text) => utf8.encode(text))
const bytes = (...pieces: ReadonlyArray<ReadonlyArray<number>>): ReadonlyArray<Uint8Array> =>
  pieces.map((piece) => Uint8Array.from(piece))

const expect = (holds: boolean, what: string): void => {
  if (!holds) throw new Error(what)
}

// ---- frames

/** What of a frame reader is looked at. */
export interface Frames {
  readonly fault: string | undefined
  readonly partial: boolean
  set limit(bytes: number)
  readonly push: (chunk: Uint8Array, onFrame: (body: Uint8Array) => void) => void
}

/** Bytes of an input before its stream: how it is cut, the limit, and whether the first frame raises that. */
const framesHead = 6

/** The stream of an input in random slices, beside a reader that has all of it at once. */
export const frames = (make: (limit: number) => Frames = (limit) => new FrameReader(limit)): Target => {
  let input: Uint8Array = new Uint8Array()
  let at = 0
  let count = 0
  let limit = 0
  let raised = 0
  let reader = make(1)
  let ended = false
  // One function for all inputs: a closure each would be a tenth of the time.
  const onFrame = (body: Uint8Array): void => {
    if (ended) throw new Error("a frame after the first malformed byte")
    const length = input[at]! * 0x100_0000 + input[at + 1]! * 0x1_0000 + input[at + 2]! * 0x100 + input[at + 3]!
    if (length === 0 || length > limit) throw new Error(`a frame of ${length} bytes was taken, the limit is ${limit}`)
    if (!sameBytes(input, at + 4, at + 4 + length, body, body.byteLength)) throw new Error("another body than was sent")
    at += 4 + length
    count++
    if (count === 1 && raised > 0) {
      limit = raised
      reader.limit = raised
    }
  }
  return {
    name: "frames",
    smoke: 200_000,
    tokens: bytes(
      [0, 0, 0, 0],
      [0, 0, 0, 1, 0xc0],
      [0, 0, 4, 0],
      [0, 0, 4, 1],
      [0xff, 0xff, 0xff, 0xff],
      [0x01, 0x40, 0, 0]
    ),
    make: (random) => {
      const parts: Array<Uint8Array> = [random.bytes(framesHead)]
      for (let i = random.int(8); i >= 0; i--) {
        const body = random.bytes(1 + random.int(random.pick([2, 20, 120])))
        parts.push(Uint8Array.of(0, 0, body.byteLength >> 8, body.byteLength & 255), body)
      }
      return concat(parts)
    },
    check: (given) => {
      input = given
      if (input.byteLength < framesHead) return 0
      let cuts = (input[0]! << 8) | input[1]! | 0x1_0000
      const step = input[2]! % 3
      limit = 1 + (((input[3]! << 8) | input[4]!) % 2_000)
      raised = input[5]! % 2 === 0 ? 0 : limit * 2
      reader = make(limit)
      ended = false
      at = framesHead
      count = 0
      for (let from = framesHead; from < input.byteLength; ) {
        cuts = Math.imul(cuts, 0x0019_660d) + 0x3c6e_f35f
        const size = step === 0 ? input.byteLength : 1 + ((cuts >>> 16) % (step === 1 ? 7 : 200))
        const to = Math.min(input.byteLength, from + size)
        const dead = reader.fault !== undefined
        const before = count
        reader.push(input.subarray(from, to), onFrame)
        expect(!dead || count === before, "a frame after the first malformed byte")
        from = to
      }
      // What the specification says of what is left.
      const left = input.byteLength - at
      let fault = false
      if (left >= 4) {
        const length = input[at]! * 0x100_0000 + input[at + 1]! * 0x1_0000 + input[at + 2]! * 0x100 + input[at + 3]!
        fault = length === 0 || length > limit
        expect(fault || left - 4 < length, "a whole frame was not handed out")
      }
      if (fault !== (reader.fault !== undefined)) throw new Error(`the fault is ${reader.fault}, expected: ${fault}`)
      if (!fault) expect(reader.partial === left > 0, "what has begun is not known")
      else {
        ended = true
        reader.push(Uint8Array.of(0, 0, 0, 1, 1), onFrame)
        ended = false
      }
      return Math.max(1, count)
    }
  }
}

// ---- messages

/** Messages in a frame, decoded, compared with a walker that knows no message, encoded and decoded once more. */
const decoder = <A>(
  name: string,
  smoke: number,
  make: ReadonlyArray<(random: Random) => A>,
  encode: (w: Writer, message: A) => void,
  decode: (r: Reader) => A,
  decodeAgain: (r: Reader) => A
): Target => {
  const w = new Writer(4_096)
  const again = new Writer(4_096)
  const written = (writer: Writer, message: A): Uint8Array => {
    writer.position = 0
    encode(writer, message)
    return writer.bytes.subarray(0, writer.position)
  }
  return {
    name,
    smoke,
    tokens: bytes(
      [0xc0],
      [0x90],
      [0xc4, 0x00],
      [0x90, 0xc4, 0x00],
      [0xcf, 0, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
      [0xcf, 0, 0x20, 0, 0, 0, 0, 0, 0],
      [0xdd, 0xff, 0xff, 0xff, 0xff],
      [0xdd, 0, 0, 0x10, 0],
      [0xc6, 0xff, 0xff, 0xff, 0xff],
      [0xdb, 0, 0, 0, 1, 0x61],
      [0xd9, 0x01, 0xff],
      [0xa9, 0x5f, 0x5f, 0x70, 0x72, 0x6f, 0x74, 0x6f, 0x5f, 0x5f],
      new Array<number>(40).fill(0x91)
    ),
    make: (random) => {
      // One message mostly, several as in a busy frame, and of two the smaller: large ones say little more.
      const one = (): Uint8Array => encoded((writer) => encode(writer, random.pick(make)(random)))
      if (random.int(8) === 0) return concat([one(), one(), one()])
      const [a, b] = [one(), one()]
      return random.int(4) === 0 || a.byteLength < b.byteLength ? a : b
    },
    check: (input) => {
      const r = new Reader(input)
      // As many as a manager looks at.
      for (let i = 0; i < Limits.messagesPerFrameMax && !r.done; i++) {
        const from = r.position
        let message: A
        try {
          message = decode(r)
        } catch (error) {
          if (error instanceof Malformed) return 1
          throw error
        }
        const end = valueEnd(input, from)
        if (end !== r.position) throw new Error(`a message of ${end - from} bytes was read as ${r.position - from}`)
        const first = written(w, message)
        if (sameBytes(input, from, end, first, first.byteLength)) continue
        const second = written(again, decodeAgain(new Reader(first)))
        if (!sameBytes(first, 0, first.byteLength, second, second.byteLength)) {
          throw new Error("what was decoded, encoded and decoded again is not the same")
        }
      }
      return 1
    },
    takes: (input) => {
      const r = new Reader(input)
      try {
        while (!r.done) decode(r)
        return true
      } catch {
        return false
      }
    }
  }
}

export const clientDecoder = (decode = ClientMessages.decode): Target =>
  decoder(
    "client messages",
    80_000,
    Object.values(clientMessages),
    ClientMessages.encode,
    decode,
    ClientMessages.decode
  )

export const managerDecoder = (decode = ManagerMessages.decode): Target =>
  decoder(
    "manager messages",
    80_000,
    Object.values(managerMessages),
    ManagerMessages.encode,
    decode,
    ManagerMessages.decode
  )

// ---- login

const helloHash = sha256(Uint8Array.of(1))
const salted = sha256(Uint8Array.of(2))
const salt = sha256(Uint8Array.of(3)).subarray(0, 16)
const mockSecret = sha256(Uint8Array.of(4))
const clientNonce = sha256(Uint8Array.of(5)).subarray(0, 18)
const serverNonce = sha256(Uint8Array.of(6)).subarray(0, 18)
const keys = deriveKeys(salted)
const verifier: Verifier = { name: "default", salt, iterations: 4_096, ...keys }
const lookup = (name: string): Verifier | undefined => (name === "default" ? verifier : undefined)

export interface ScramSteps {
  readonly serverFirst: typeof Scram.serverFirst
  readonly serverFinal: typeof Scram.serverFinal
  readonly clientChallenge: typeof Scram.clientChallenge
  readonly clientVerify: typeof Scram.clientVerify
}

/** A login in which one of the four messages is replaced by the input: nobody may come to believe in it. */
export const scram = (steps: ScramSteps = Scram): Target => {
  const first = Scram.clientFirst({ name: "default", nonce: clientNonce, helloHash })
  const serverFirst = (clientFirst: string) =>
    steps.serverFirst({ clientFirst, lookup, mockSecret, nonce: serverNonce, helloHash })
  const login = (replaced: number, text: string): ReadonlyArray<string> => {
    const said: Array<string> = []
    let touched = false
    const sent = (message: string): string => {
      if (said.push(message) - 1 !== replaced) return message
      touched = message !== text
      return text
    }
    const challenge = serverFirst(sent(first.message))
    if (challenge._tag === "Refused") return said
    const step = steps.clientChallenge(first.state, sent(challenge.message))
    if (step._tag === "Refused") return said
    expect(step.iterations >= 4_096 && step.iterations <= 1_000_000, `${step.iterations} iterations were asked for`)
    const untouched = step.iterations === verifier.iterations && sameBytes(step.salt, 0, step.salt.byteLength, salt, 16)
    const final = Scram.clientFinal(step.state, untouched ? salted : sha256(step.salt))
    const verdict = steps.serverFinal(challenge.state, sent(final.message))
    if (verdict._tag === "Refused") return said
    if (touched) throw new Error(`the server accepted a login whose message ${replaced} was replaced`)
    const end = steps.clientVerify(final.state, sent(verdict.message))
    if (end._tag === "Ok" && touched)
      throw new Error(`the client accepted a login whose message ${replaced} was replaced`)
    return said
  }
  const honest = login(4, "")
  expect(honest.length === 4, "an honest login does not succeed")
  const honestBytes = honest.map((text, i) => concat([Uint8Array.of(i), utf8.encode(text)]))
  return {
    name: "scram",
    smoke: 12_000,
    tokens: words(
      ...[
        "n,,",
        "y,,",
        "p=tls-unique,,",
        "n,a=root,",
        "n=default",
        "n=other",
        ",r=",
        ",s=",
        ",i=4096",
        ",i=4097",
        ",i=1"
      ],
      ...[
        ",m=x",
        ",x=1",
        ",h=",
        ",p=",
        ",c=biws",
        "c=eSws",
        "v=",
        "e=other-error",
        "=",
        ",",
        "AAAA",
        "\u00e9",
        " ",
        "\n",
        "\u0000"
      ]
    ),
    make: (random) => random.pick(honestBytes),
    check: (input) => {
      if (input.byteLength === 0) return 0
      let text = ""
      for (let i = 1; i < input.byteLength && i < 2_000; i++) text += String.fromCharCode(input[i]!)
      login(input[0]! % 4, text)
      return 1
    }
  }
}

// ---- the manager before login

const noAnswer = (): void => {}
export const gate: Gate = { verifier: lookup, grants: () => undefined, iterations: [4_096], mockSecret }

export const hello: ClientMessages.Hello = {
  type: C.hello,
  magic: "millrace",
  versionMin: 1,
  versionMax: 1,
  capabilities: 0,
  frameBytesMax: Limits.frameBytesMax,
  role: "",
  namespace: "default",
  agent: "fuzz"
}

const preAuthOutputBytesMax = 4_096

/** A connection to a manager whose key the peer does not have: small answers, one last word, never a session. */
export const handshake = (accept?: (core: Core, connection: Connection) => ReturnType<Core["accept"]>): Target => {
  const core = new Core({
    queues: [],
    host: {
      now: () => 1,
      alarm: noAnswer,
      store: undefined,
      durability: "memory",
      failed: (text) => {
        throw new Error(text)
      },
      log: noAnswer
    }
  })
  const first = Scram.clientFirst({ name: "default", nonce: clientNonce, helloHash })
  const said: ReadonlyArray<ClientMessages.ClientMessage> = [
    hello,
    { type: C.authFirst, mechanism: "SCRAM-SHA-256", message: first.message },
    { type: C.authFinal, message: `c=biws,r=x,h=y,p=${"A".repeat(43)}=` },
    { type: C.sessionOpen, session: undefined, held: [] }
  ]
  const framed = said.map((message) => frame((w) => ClientMessages.encode(w, message)))
  return {
    name: "handshake",
    smoke: 15_000,
    tokens: [
      ...framed,
      ...words("millrace", "default", "SCRAM-SHA-256", "n,,n=default,r=", "n,,n=x,r=aaaaaaaaaaaaaaaaaaaaaaaa")
    ],
    make: (random) => {
      const count = 1 + random.int(4)
      const parts = framed.slice(0, count)
      if (random.int(3) === 0)
        parts.push(frame((w) => ClientMessages.encode(w, random.pick(Object.values(clientMessages))(random))))
      return concat([random.bytes(1), ...parts])
    },
    check: (input) => {
      if (input.byteLength === 0) return 0
      let written = 0
      let lastWords = 0
      let closed = false
      const reader = new FrameReader(preAuthOutputBytesMax)
      const onAnswer = (body: Uint8Array): void => {
        const r = new Reader(body)
        const message = ManagerMessages.decode(r)
        expect(r.done, "two messages in one frame of the handshake")
        if (lastWords > 0) throw new Error("an answer after the last word")
        if (message.type === M.closing) lastWords++
        else if (message.type !== M.hello && message.type !== M.authChallenge) {
          throw new Error(`message ${message.type} without a login`)
        }
      }
      const connection: Connection = {
        peer: "fuzz",
        write: (chunk) => {
          written += chunk.byteLength
          reader.push(chunk, onAnswer)
        },
        pendingBytes: () => 0,
        pause: noAnswer,
        resume: noAnswer,
        close: () => {
          closed = true
        },
        destroy: () => {
          closed = true
        }
      }
      const handler = accept === undefined ? core.accept(connection, gate) : accept(core, connection)
      const size = 1 + (input[0]! % 4 === 0 ? input[0]! : 4_096)
      for (let at = 1; at < input.byteLength; at += size) handler.onData(input.subarray(at, at + size))
      handler.onClose("end of the input")
      expect(reader.fault === undefined, "what the manager writes is no frame")
      expect(written <= preAuthOutputBytesMax, `${written} bytes were written before a login`)
      expect(lastWords === 0 || closed, "a last word, and the connection stays open")
      expect(core.counters.sessions === 0, "a session without a login")
      return 1
    }
  }
}

// ---- payloads

export const Payload = Schema.Struct({
  id: Schema.Int,
  name: Schema.String,
  score: Schema.optional(Schema.Number),
  tags: Schema.Array(Schema.String),
  more: Schema.Record(Schema.String, Schema.NullOr(Schema.Boolean)),
  kind: Schema.Union([Schema.Literal("a"), Schema.Struct({ deep: Schema.Array(Schema.Int) })])
})
export type Payload = Schema.Schema.Type<typeof Payload>

const plain = (value: unknown): boolean => {
  if (typeof value !== "object" || value === null) return true
  const prototype: unknown = Object.getPrototypeOf(value)
  if (Array.isArray(value) ? prototype !== Array.prototype : prototype !== Object.prototype && prototype !== null)
    return false
  return Object.values(value).every(plain)
}

/** A value that decodes is a plain one, and survives being encoded; everything else is a fault and no exception. */
export const payloads = (codec: Codec.Codec<Payload> = Codec.make(Payload)): Target => {
  const real = Codec.make(Payload)
  const text = (random: Random): string =>
    Array.from({ length: random.int(8) }, () =>
      random.pick(["a", "\u00e9", "\ud83d\ude00", '"', "\\", "\u0000", "__proto__"])
    ).join("")
  return {
    name: "payloads",
    smoke: 50_000,
    tokens: words(
      ...[
        '"__proto__":',
        '"constructor":',
        '"prototype":{"polluted":true}',
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "null",
        "1e999",
        "-0"
      ],
      ...[
        "\\ud800",
        "\\u0000",
        '"id":',
        "9007199254740993",
        "[".repeat(60),
        '{"a":'.repeat(40),
        "true",
        '"a"',
        " ",
        "\u00e9"
      ]
    ),
    make: (random) => {
      const value: Payload = {
        id: random.int(1_000_000) - 500_000,
        name: text(random),
        ...(random.chance(50) ? { score: random.next() } : {}),
        tags: Array.from({ length: random.int(4) }, () => text(random)),
        more: Object.fromEntries(
          Array.from({ length: random.int(4) }, () => [text(random), random.pick([true, false, null])])
        ),
        kind: random.chance(50) ? "a" : { deep: [random.int(9)] }
      }
      return (real.encode(value) as Uint8Array).slice()
    },
    check: (input) => {
      const decoded = codec.decode(input)
      if (Exit.isFailure(decoded)) return 1
      const { value } = decoded
      expect(plain(value), "a decoded value has a prototype of its own")
      const first = real.encode(value)
      expect(first instanceof Codec.CodecFault === false, "what was decoded does not encode")
      const again = real.decode(first as Uint8Array)
      if (Exit.isFailure(again)) throw new Error("what was decoded and encoded does not decode")
      const [a, b] = [JSON.stringify(value), JSON.stringify(again.value)]
      if (a !== b) throw new Error(`${a} came back as ${b}`)
      return 1
    },
    takes: (input) => Exit.isSuccess(codec.decode(input))
  }
}

// ---- rows of the log

/**
 * Fields of each kind of record: u uint, s string, b bytes, p bytes that stay in the row, o bool, 0-9 a uint up to it,
 * [..] a list of these, r reasons, ? nil or what follows, m options behind their mark.
 */
const recordFields: Readonly<Record<number, string>> = {
  [Kind.queue]: "usbs[b][u]22o[u]",
  [Kind.put]: "uup",
  [Kind.putWith]: "uuuu?b?mp",
  [Kind.task]: "uu3uuuuuuuuouur?b?mp",
  [Kind.leased]: "uu",
  [Kind.returned]: "u3uuuuur",
  [Kind.ended]: "uuu3ur?p",
  [Kind.acknowledged]: "uu",
  [Kind.purged]: "uu",
  [Kind.redriven]: "uu",
  [Kind.outcome]: "uuu3uurp",
  [Kind.dedupe]: "usuu",
  [Kind.session]: "ubs",
  [Kind.sessionEnded]: "u",
  [Kind.answer]: "uu[u]",
  [Kind.answersSeen]: "u[u]",
  [Kind.putProgress]: "uu[u][u]",
  [Kind.namespace]: "uub",
  [Kind.checkpoint]: "ub",
  [Kind.suspended]: "uuu",
  [Kind.entries]: "u[sb]",
  [Kind.repeat]: "us?u?ssb?muuuuu",
  [Kind.repeatRemoved]: "us",
  [Kind.lane]: "us?ou*",
  [Kind.object]: "us22",
  [Kind.setAdded]: "uuuuup",
  [Kind.setRemoved]: "uuuuu",
  [Kind.counter]: "uouu",
  [Kind.dictEntry]: "usuub",
  [Kind.dictDeleted]: "usu"
}

const writeField = (w: Writer, field: string, random: Random): void => {
  switch (field) {
    case "u":
      return w.uint(Math.floor(random.next() * 2 ** random.int(53)))
    case "s":
      return w.str("\u00e9x".repeat(random.int(6)))
    case "b":
    case "p":
      return w.bin(random.bytes(random.int(24)))
    case "o":
      return w.bool(random.chance(50))
    case "r": {
      const count = random.int(3)
      w.array(count)
      for (let i = 0; i < count; i++) for (const each of "u9s") writeField(w, each, random)
      return
    }
    case "m":
      w.array(0)
      w.strOrNil(random.chance(50) ? "id" : undefined)
      w.uintOrNil(random.chance(50) ? random.int(256) : undefined)
      w.uintOrNil(random.chance(50) ? random.int(9_999) : undefined)
      w.strOrNil(random.chance(50) ? "key" : undefined)
      if (random.chance(50)) w.nil()
      else {
        w.array(1)
        w.str("label")
      }
      return w.strOrNil(undefined)
    case "*":
      if (random.chance(50)) return w.nil()
      w.array(0)
      for (let i = 0; i < 5; i++) w.uintOrNil(random.chance(50) ? random.int(99) : undefined)
      return
    default:
      return w.uint(random.int(Number(field) + 1))
  }
}

const writeRecord = (w: Writer, kind: number, random: Random): void => {
  w.uint(kind)
  const fields = recordFields[kind]!
  for (let i = 0; i < fields.length; i++) {
    const field = fields[i]!
    if (field === "?") {
      if (random.chance(50)) continue
      w.nil()
      i++
      // A lane that is nothing any more ends here.
      if (kind === Kind.lane) return
    } else if (field === "[") {
      const end = fields.indexOf("]", i)
      const count = random.int(3)
      w.array(count)
      for (let n = 0; n < count; n++) for (const each of fields.slice(i + 1, end)) writeField(w, each, random)
      i = end
    } else writeField(w, field, random)
  }
}

const spansOf = (record: object): ReadonlyArray<{ readonly at: number; readonly size: number }> =>
  Object.values(record).filter(
    (value) => typeof value === "object" && value !== null && "at" in value && "size" in value
  )

/** A row is read or refused; what it says stays in the row lies in it. */
export const rows = (read = readRow): Target => {
  const kinds = Object.values(Kind)
  for (const kind of kinds) expect(kind in recordFields, `no shape of record ${kind} is known`)
  let size = 0
  const inRow = (at: number, bytes: number): void => {
    if (at < 0 || at + bytes > size) throw new Error(`${bytes} bytes at ${at} do not lie in a row of ${size}`)
  }
  const visitors = [true, false].map((puts) => ({
    row: noAnswer,
    record: (record: object) => {
      for (const { at, size } of spansOf(record)) inRow(at, size)
    },
    ...(puts ? { put: (_n: number, _queue: number, at: number, bytes: number) => inRow(at, bytes) } : {})
  }))
  return {
    name: "stored rows",
    smoke: 80_000,
    tokens: bytes(
      [0xc0],
      [0xdd, 0xff, 0xff, 0xff, 0xff],
      [0xc6, 0xff, 0xff, 0xff, 0xff],
      [2, 1, 0, 0xc4, 0],
      [13, 1, 1, 0x91],
      new Array<number>(40).fill(0x91)
    ),
    make: (random) =>
      encoded((w) => {
        w.uint(formatVersion)
        w.uint(1)
        w.uint(1_000)
        for (let i = random.int(4); i >= 0; i--) writeRecord(w, random.pick(kinds), random)
      }),
    check: (input) => {
      size = input.byteLength
      for (const visitor of visitors) {
        try {
          read({ seq: 1, body: input }, visitor)
        } catch (error) {
          if (!(error instanceof Malformed)) throw error
        }
      }
      return 1
    },
    takes: (input) => {
      try {
        read({ seq: 1, body: input }, visitors[0]!)
        return true
      } catch {
        return false
      }
    }
  }
}

// ---- the crawl

export interface CrawlSteps {
  readonly parse: typeof Url.parse
  readonly key: typeof Url.key
  readonly srcset: typeof Srcset.parse
}

const here = new URL("https://example.com/a/b?c#d")
const decodeText = new TextDecoder()

/** URLs, srcset attributes and pages: the first byte says which. */
export const crawl = (
  { key, parse, srcset }: CrawlSteps = { parse: Url.parse, key: Url.key, srcset: Srcset.parse }
): Target => {
  const urls = [
    "https://example.com/%7Ea/%c3%a9?x=1&y=%20#z",
    "//a.b:81/../c",
    "http://u:p@h/",
    "?q",
    "data:text/plain,x"
  ]
  const sets = ["a.png 1x, b.png 2x", "a.png 100w 50h, b.png 200w,", "a,b.png (x, y) 1x, c", "  ,, a.png,, b"]
  const pages = [
    '<title>T</title><base href="/x/"><a href="y">z</a><img src=a.png srcset="b.png 1x, c.png 2x"><!-- x -->',
    "<svg><title>no</title><a href=x></svg><template><a href=t></template><noscript><img src=n></noscript>",
    '<link rel="icon" href="f.ico"><iframe src="i"></iframe><script>"<a href=s>"</script><area href=q>&amp;&#x41;'
  ]
  const check = (kind: number, text: string, split: number): void => {
    if (kind === 0) {
      const url = parse(text, here)
      if (url === undefined) return
      expect(url.href.length <= Limits.urlCharsMax, "a URL over its limit")
      expect(url.username === "" && url.password === "", "a URL with a user")
      const once = key(url)
      const again = parse(once)
      // A key may be longer than its URL only by what parsing adds, so one that does not parse is over the limit.
      if (again !== undefined && key(again) !== once) throw new Error(`the key of the key ${once} is ${key(again)}`)
      Url.isTrap(url)
    } else if (kind === 1) {
      for (const { url } of srcset(text))
        expect(url.length > 0 && !/[ \t\n\f\r]/.test(url), "a candidate without a URL")
    } else {
      const whole = Extract.extract(text, here)
      expect(whole.links.length + whole.images.length <= Limits.linksPerPageMax, "more links than are kept")
      const extractor = Extract.make(here)
      const at = text.length === 0 ? 0 : split % text.length
      extractor.write(text.slice(0, at))
      extractor.write(text.slice(at))
      const [a, b] = [JSON.stringify(whole), JSON.stringify(extractor.end())]
      if (a !== b) throw new Error(`cut at ${at}: ${b}, whole: ${a}`)
      // The parser takes two control characters for the signs of an end tag, which the standard does not.
      if (text.includes("\x1c") || text.includes("\x0f")) return
      const { images, links } = Extract.extract(text, here, { whole: true })
      const seen = JSON.stringify({ links, images })
      const kept = JSON.stringify({ links: whole.links, images: whole.images })
      if (kept !== seen) throw new Error(`of all that the parser sees: ${seen}, of what it has to: ${kept}`)
    }
  }
  return {
    name: "crawl",
    smoke: 30_000,
    tokens: words(
      ...[
        "%",
        "%7E",
        "%25",
        "%41",
        "%2f",
        "#",
        "?",
        "//",
        "/../",
        "@",
        ":",
        "http:",
        "\\",
        "xn--",
        "[::1]",
        ",",
        " ",
        "(",
        ")",
        "1x",
        "9w"
      ],
      ...[
        "<a href=",
        "<img src=",
        "<!--",
        "-->",
        "</title>",
        "<title>",
        "<svg>",
        "</svg>",
        "<template>",
        "&#",
        "&amp",
        "<![CDATA[",
        "\u00e9",
        "\u0000"
      ]
    ),
    make: (random) => {
      const kind = random.int(3)
      const text = random.pick([urls, sets, pages][kind]!)
      return concat([Uint8Array.of(kind), random.bytes(1), utf8.encode(text)])
    },
    check: (input) => {
      if (input.byteLength < 2) return 0
      check(input[0]! % 3, decodeText.decode(input.subarray(2)), input[1]!)
      return 1
    }
  }
}
