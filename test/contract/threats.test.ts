/**
 * Threats to a manager, by the numbers of docs/security.md, over real sockets: somebody in the middle, a manager that is
 * none, what was recorded and said again, commands before the login, bytes that come one at a time, names made to hurt,
 * sessions of others.
 */
import { once } from "node:events"
import { chmodSync, existsSync, mkdtempSync, rmSync, statSync } from "node:fs"
import * as net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { Client, Limits, Manager, SharedDict, SharedSet, Store, TaskQueue } from "millrace"
import { vi } from "vitest"
import { makeCertificate } from "../../src/auth/Certificate.ts"
import { deriveKeys, keyBytes, saltPassword } from "../../src/auth/Credentials.ts"
import { Code } from "../../src/model/Refusal.ts"
import type * as Crypto from "../../src/platform/Crypto.ts"
import { makeSigningKey, randomBytes, useRandomBytes } from "../../src/platform/Crypto.ts"
import { Reader, toHex } from "../../src/wire/Bytes.ts"
import * as ClientMessages from "../../src/wire/ClientMessages.ts"
import { FrameReader, frame } from "../../src/wire/Frames.ts"
import * as ManagerMessages from "../../src/wire/ManagerMessages.ts"
import { ClientType as C, ManagerType as M } from "../../src/wire/Vocabulary.ts"
import { Random } from "../unit/random.ts"
import { clientMessages } from "../unit/wire/messages.ts"
import { auth } from "./layers.ts"
import { hello, Raw } from "./raw.ts"

const derivations = vi.hoisted((): Array<number> => [])

vi.mock("../../src/platform/Crypto.ts", async (original) => {
  const crypto = await original<typeof Crypto>()
  return {
    ...crypto,
    pbkdf2Sha256: (password: Uint8Array, salt: Uint8Array, iterations: number) => {
      derivations.push(iterations)
      return crypto.pbkdf2Sha256(password, salt, iterations)
    }
  }
})

/** A manager of its own on a free port, with whoever is named. */
const managed = (options: Partial<Manager.ListenOptions> = {}) =>
  Manager.layerTcp({ port: 0, auth, ...options }).pipe(
    Layer.provideMerge(Manager.layer({ queues: [] })),
    Layer.provide(Store.layerMemory),
    Layer.fresh
  )

const portOf = Effect.map(Manager.Listening, ({ address }) => (address._tag === "Tcp" ? address.port : 0))

const connectTo = (port: number) =>
  Effect.acquireRelease(
    Effect.sync(() => new Raw(port)),
    (raw) => Effect.sync(() => raw.socket.destroy())
  )

const Letters = TaskQueue.make("letters", { payload: Schema.String, result: Schema.String })

/** Puts and gets one letter, or says why there is no client. */
const attempt = (port: number, options: Partial<Client.ConnectOptions> = {}) =>
  Effect.gen(function* () {
    const letter = Effect.andThen(Letters.put("a-letter-to-be-read"), Letters.get({ timeout: "5 seconds" }))
    const end = yield* Effect.result(Effect.provide(letter, Client.layerTcp({ port, auth, ...options })))
    return end._tag === "Success" ? "ok" : `${end.failure._tag}: ${end.failure.message}`
  })

type Side = "client" | "manager"
type Message = ClientMessages.ClientMessage | ManagerMessages.ManagerMessage

interface Middle {
  readonly port: number
  /** What passed in each direction, edits included. */
  readonly bytes: { readonly client: Array<Uint8Array>; readonly manager: Array<Uint8Array> }
}

const framed = (side: Side, message: Message): Uint8Array =>
  frame((w) =>
    side === "client"
      ? ClientMessages.encode(w, message as ClientMessages.ClientMessage)
      : ManagerMessages.encode(w, message as ManagerMessages.ManagerMessage)
  )

const decode = (side: Side, body: Uint8Array): Message =>
  side === "client" ? ClientMessages.decode(new Reader(body)) : ManagerMessages.decode(new Reader(body))

/** A server on a free port of this machine whose connections end with the scope. */
const server = (accept: (socket: net.Socket) => void) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const sockets = new Set<net.Socket>()
        const server = net.createServer((socket) => {
          sockets.add(socket.on("error", () => {}).on("close", () => sockets.delete(socket)))
          accept(socket)
        })
        await once(server.listen(0, "127.0.0.1"), "listening")
        return { server, sockets }
      }),
      ({ server, sockets }) =>
        Effect.sync(() => {
          for (const socket of sockets) socket.destroy()
          server.close()
        })
    ),
    ({ server }) => (server.address() as net.AddressInfo).port
  )

/** One in the middle who passes on what he hears, or what `edit` makes of a frame's one message. */
const between = (to: number, edit?: (side: Side, message: Message) => Message) =>
  Effect.gen(function* () {
    const bytes: Middle["bytes"] = { client: [], manager: [] }
    const pass = (side: Side, from: net.Socket, onto: net.Socket): void => {
      const reader = new FrameReader(Limits.frameBytesMax)
      const write = (whole: Uint8Array): void => {
        bytes[side].push(whole)
        onto.write(whole)
      }
      from.on("data", (chunk: Buffer) => {
        if (edit === undefined) return write(chunk)
        reader.push(chunk, (body) => {
          const message = decode(side, body)
          const edited = edit(side, message)
          // Passed on as it was: what is written anew is no other, so that what fails fails by the edit.
          const same = framed(side, message)
          assert.deepStrictEqual(Buffer.from(same.subarray(4)), Buffer.from(body), "not the same when written anew")
          write(edited === message ? same : framed(side, edited))
        })
      })
      from.on("close", () => onto.destroy())
    }
    const port = yield* server((near) => {
      const far = net.connect({ host: "127.0.0.1", port: to, noDelay: true })
      far.on("error", () => {})
      pass("client", near, far)
      pass("manager", far, near)
    })
    return { port, bytes } satisfies Middle
  })

describe("one who records a login", () => {
  const spellings = (secret: Uint8Array): ReadonlyArray<Buffer> => {
    const bytes = Buffer.from(secret)
    const texts = (["hex", "base64", "base64url"] as const).map((how) => Buffer.from(bytes.toString(how)))
    return [bytes, ...texts]
  }

  it.live("has no secret in what he recorded, nor anything to log in with (M3)", () =>
    Effect.gen(function* () {
      const middle = yield* between(yield* portOf)
      assert.strictEqual(yield* attempt(middle.port), "ok")
      const recorded = Buffer.concat([...middle.bytes.client, ...middle.bytes.manager])
      // Without TLS he reads the rest: it is the record of a login.
      const challenge = /s=([^,]+),i=(\d+)/.exec(recorded.toString("latin1"))
      assert.isNotNull(challenge)
      for (const text of ["n=default", "a-letter-to-be-read"]) assert.isTrue(recorded.includes(text), text)
      const [, salt, iterations] = challenge!
      const salted = yield* Effect.promise(() =>
        saltPassword(keyBytes(auth.key), Buffer.from(salt!, "base64"), Number(iterations))
      )
      const { clientKey, serverKey, storedKey } = deriveKeys(salted)
      for (const secret of [keyBytes(auth.key), salted, clientKey, serverKey, storedKey]) {
        for (const spelling of spellings(secret)) assert.strictEqual(recorded.indexOf(spelling), -1)
      }
    }).pipe(Effect.scoped, Effect.provide(managed()))
  )

  it.live("reads nothing at all where there is TLS (M3)", () => {
    const key = makeSigningKey()
    const own = makeCertificate({ key, hosts: ["127.0.0.1"], serial: randomBytes(16), now: Date.now() })
    return Effect.gen(function* () {
      const middle = yield* between(yield* portOf)
      assert.strictEqual(yield* attempt(middle.port, { tls: { authorities: own.certificate } }), "ok")
      const recorded = Buffer.concat([...middle.bytes.client, ...middle.bytes.manager])
      assert.isAbove(recorded.byteLength, 1_000)
      for (const text of ["default", "SCRAM", "letter", auth.key]) assert.isFalse(recorded.includes(text), text)
    }).pipe(Effect.scoped, Effect.provide(managed({ tls: own })))
  })
})

type Edit = readonly [field: string, side: Side, type: number, edit: (message: never) => object]

/** The attribute of a SCRAM text with another first character. */
const changed =
  (attribute: string, at = 0) =>
  ({ message }: { readonly message: string }): object => {
    const start =
      message.search(new RegExp(`(^|,)${attribute}=`)) + attribute.length + 1 + (message[0] === attribute ? 0 : 1)
    const place = start + at
    return { message: `${message.slice(0, place)}${message[place] === "A" ? "B" : "A"}${message.slice(place + 1)}` }
  }

const replaced =
  (from: string, to: string) =>
  ({ message }: { readonly message: string }): object => ({ message: message.replace(from, to) })

const edits: ReadonlyArray<Edit> = [
  ["client hello: magic", "client", C.hello, () => ({ magic: "millrach" })],
  ["client hello: versionMin", "client", C.hello, () => ({ versionMin: 0 })],
  ["client hello: versionMax", "client", C.hello, () => ({ versionMax: 2 })],
  ["client hello: capabilities", "client", C.hello, () => ({ capabilities: 1 })],
  ["client hello: frameBytesMax", "client", C.hello, () => ({ frameBytesMax: 1_048_576 })],
  ["client hello: role", "client", C.hello, () => ({ role: "admin" })],
  ["client hello: namespace", "client", C.hello, () => ({ namespace: "other" })],
  ["client hello: agent", "client", C.hello, () => ({ agent: "millrace/0.0.9" })],
  ["manager hello: magic", "manager", M.hello, () => ({ magic: "millrach" })],
  ["manager hello: version", "manager", M.hello, () => ({ version: 0 })],
  ["manager hello: versionMin", "manager", M.hello, () => ({ versionMin: 0 })],
  ["manager hello: versionMax", "manager", M.hello, () => ({ versionMax: 2 })],
  ["manager hello: capabilities", "manager", M.hello, () => ({ capabilities: 1 })],
  ["manager hello: frameBytesMax", "manager", M.hello, () => ({ frameBytesMax: 1_048_576 })],
  ["manager hello: one mechanism more", "manager", M.hello, () => ({ mechanisms: ["SCRAM-SHA-1", "SCRAM-SHA-256"] })],
  ["manager hello: other mechanisms", "manager", M.hello, () => ({ mechanisms: ["PLAIN"] })],
  ["manager hello: no mechanism", "manager", M.hello, () => ({ mechanisms: [] })],
  ["authFirst: mechanism", "client", C.authFirst, () => ({ mechanism: "SCRAM-SHA-256-PLUS" })],
  ["authFirst: channel binding", "client", C.authFirst, replaced("n,,", "y,,")],
  ["authFirst: name", "client", C.authFirst, replaced("n=default", "n=another")],
  ["authFirst: nonce", "client", C.authFirst, changed("r")],
  ["authChallenge: the client's nonce", "manager", M.authChallenge, changed("r")],
  ["authChallenge: the manager's nonce", "manager", M.authChallenge, changed("r", 30)],
  ["authChallenge: salt", "manager", M.authChallenge, changed("s")],
  ["authChallenge: iterations", "manager", M.authChallenge, replaced("i=4096", "i=4097")],
  ["authFinal: channel binding", "client", C.authFinal, replaced("c=biws", "c=eSws")],
  ["authFinal: nonce", "client", C.authFinal, changed("r", 30)],
  ["authFinal: hello hash", "client", C.authFinal, changed("h")],
  ["authFinal: proof", "client", C.authFinal, changed("p")],
  ["authOk: signature", "manager", M.authOk, changed("v")],
  ["authOk: an error instead", "manager", M.authOk, () => ({ message: "e=other-error" })]
]

describe("one in the middle", () => {
  it.live("who edits nothing passes a login on", () =>
    Effect.gen(function* () {
      const middle = yield* between(yield* portOf, (_, message) => message)
      const end = yield* Effect.result(
        Effect.scoped(Layer.build(Layer.fresh(Client.layerTcp({ port: middle.port, auth }))))
      )
      assert.strictEqual(end._tag, "Success")
    }).pipe(Effect.scoped, Effect.provide(managed()))
  )

  for (const [field, side, type, edit] of edits) {
    it.live(`who edits one field of the login makes it fail: ${field} (M4)`, () =>
      Effect.gen(function* () {
        const { counters } = yield* Manager.Manager
        const { sessions } = yield* counters
        let edited = 0
        const middle = yield* between(yield* portOf, (from, message) => {
          if (from !== side || message.type !== type) return message
          edited++
          const result = { ...message, ...edit(message as never) } as Message
          assert.notDeepEqual(result, message)
          return result
        })
        const end = yield* Effect.result(
          Effect.scoped(Layer.build(Layer.fresh(Client.layerTcp({ port: middle.port, auth }))))
        )
        assert.strictEqual(edited, 1)
        assert(end._tag === "Failure")
        assert.include(
          ["AuthenticationFailed", "ProtocolViolated", "VersionUnsupported", "ConnectFailed"],
          end.failure._tag,
          end.failure.message
        )
        assert.strictEqual((yield* counters).sessions, sessions)
      }).pipe(Effect.scoped, Effect.provide(managed({ auth: [auth, { ...auth, user: "another" }] })))
    )
  }
})

describe("a manager that is none", () => {
  const salt = "QEFCQ0RFRkdISUpLTE1OTw=="
  const first =
    (iterations: string, nonce = (own: string) => `${own}x`) =>
    (said: ClientMessages.ClientMessage) => {
      if (said.type !== C.authFirst) return undefined
      const own = /r=(.*)$/.exec(said.message)![1]!
      return { type: M.authChallenge, message: `r=${nonce(own)},s=${salt},i=${iterations}` } as const
    }
  type Script = (said: ClientMessages.ClientMessage) => ManagerMessages.ManagerMessage | undefined
  /** Challenges as it should, and says this to the proof. */
  const last = (message: string): Script => {
    const challenge = first("4096")
    return (said) => challenge(said) ?? (said.type === C.authFinal ? { type: M.authOk, message } : undefined)
  }
  const opened = {
    ...{ type: M.sessionOpened, session: new Uint8Array(16), resumed: false, instance: new Uint8Array(8) },
    ...{ heartbeatMs: 5_000, requestsInFlightMax: 256, durability: "fsync", lost: [] }
  } as const
  const cases: ReadonlyArray<readonly [what: string, derivations: number, script: Script]> = [
    ["one iteration", 0, first("1")],
    ["one iteration below the bounds", 0, first(String(Limits.scramIterationsMin - 1))],
    ["one iteration above the bounds", 0, first(String(Limits.scramIterationsMax + 1))],
    ["2^31-1 iterations", 0, first(String(2 ** 31 - 1))],
    ["a nonce of its own", 0, first("4096", () => "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB")],
    ["the client's nonce and nothing behind it", 0, first("4096", (own) => own)],
    ["no signature", 1, last("v=")],
    ["nothing where the signature should be", 1, last("")],
    ["a signature of another key", 1, last(`v=${Buffer.alloc(32, 7).toString("base64")}`)],
    [
      "the word that all is well instead of a challenge",
      0,
      (said) => (said.type === C.authFirst ? { type: M.authOk, message: "v=" } : undefined)
    ],
    ["a session instead of a challenge", 0, (said) => (said.type === C.authFirst ? opened : undefined)],
    [
      "a session instead of a signature",
      1,
      (said) => first("4096")(said) ?? (said.type === C.authFinal ? opened : undefined)
    ]
  ]

  for (const [what, derived, script] of cases) {
    it.live(`is refused, and told no command: ${what} (M5)`, () =>
      Effect.gen(function* () {
        const heard: Array<ClientMessages.ClientMessage> = []
        const port = yield* server((socket) => {
          const reader = new FrameReader(65_536)
          const say = (message: ManagerMessages.ManagerMessage): void => void socket.write(framed("manager", message))
          socket.on("data", (chunk) =>
            reader.push(chunk as Buffer, (body) => {
              const said = ClientMessages.decode(new Reader(body))
              heard.push(said)
              if (said.type === C.hello) {
                const versions = { version: 1, versionMin: 1, versionMax: 1, capabilities: 0, frameBytesMax: 65_536 }
                say({ type: M.hello, magic: "millrace", ...versions, mechanisms: ["SCRAM-SHA-256"] })
              }
              const answer = script(said)
              if (answer !== undefined) say(answer)
            })
          )
        })
        derivations.length = 0
        const end = yield* attempt(port)
        assert.match(end, /^(AuthenticationFailed|ProtocolViolated): /)
        assert.strictEqual(derivations.length, derived, `derivations of ${derivations.join()} iterations`)
        for (const { type } of heard) assert.include([C.hello, C.authFirst, C.authFinal], type)
      }).pipe(Effect.scoped)
    )
  }
})

describe("what was recorded and is said again", () => {
  it.live("fails at the login, and what followed it has no effect (M7)", () =>
    Effect.gen(function* () {
      const port = yield* portOf
      const middle = yield* between(port, (_, message) => message)
      yield* Effect.scoped(Effect.provide(Letters.put("once"), Client.layerTcp({ port: middle.port, auth })))
      const watch = yield* connectTo(port)
      const { counters } = yield* Manager.Manager
      yield* Effect.promise(() => watch.login())
      const { sessions } = yield* counters
      const frames = middle.bytes.client
      assert.isAtLeast(frames.length, 5)
      for (const together of [true, false]) {
        const again = yield* connectTo(port)
        yield* Effect.promise(async () => {
          if (together) again.write(Buffer.concat(frames))
          else {
            // At the pace of a login.
            again.write(frames[0]!)
            await again.next(M.hello)
            again.write(frames[1]!)
            await again.next(M.authChallenge)
            again.write(Buffer.concat(frames.slice(2)))
          }
          await again.refused(Code.authentication)
          assert.isUndefined(again.heard.find(({ type }) => type === M.authOk || type === M.sessionOpened))
        })
      }
      yield* Effect.promise(async () => {
        const answer = await watch.ask((request) => ({ type: C.stats, request, queue: undefined }))
        assert(answer.type === M.stats)
        assert.deepStrictEqual(
          answer.queues.map(({ name, puts }) => [name, puts]),
          [["letters", 1]]
        )
      })
      assert.strictEqual((yield* counters).sessions, sessions)
    }).pipe(Effect.scoped, Effect.provide(managed()))
  )
})

/** States of a connection, and how to get there; each takes the message of its place in the login, and no other. */
const states: ReadonlyArray<
  readonly [state: string, takes: keyof typeof C | undefined, go: (raw: Raw) => Promise<unknown>]
> = [
  ["hello", "hello", async () => {}],
  [
    "challenge",
    "authFirst",
    async (raw) => {
      raw.say(hello)
      await raw.next(M.hello)
    }
  ],
  [
    "proof",
    "authFinal",
    async (raw) => {
      raw.say(hello)
      await raw.next(M.hello)
      const message = `n,,n=default,r=${toHex(randomBytes(18))}`
      raw.say({ type: C.authFirst, mechanism: "SCRAM-SHA-256", message })
      await raw.next(M.authChallenge)
    }
  ],
  ["session", "sessionOpen", (raw) => raw.prove()]
]
const ofLogin = states.map(([, takes]) => takes)

describe("a message out of its turn", () => {
  const all = Object.keys(clientMessages) as ReadonlyArray<keyof typeof C>
  const snapshot = async (raw: Raw): Promise<string> => {
    const answer = await raw.ask((request) => ({ type: C.stats, request, queue: undefined }))
    return JSON.stringify(answer, (name, value) => (/^request$|Ms$|\d0?s$/.test(name) ? undefined : value))
  }

  for (const [state, takes, go] of [...states, ["open", undefined, (raw: Raw) => raw.login()] as const]) {
    it.live(`in state ${state} closes its connection and does nothing, whichever it is (M8)`, () =>
      Effect.gen(function* () {
        const port = yield* portOf
        const { counters } = yield* Manager.Manager
        const watch = yield* connectTo(port)
        const random = new Random(8)
        // What a role may say in state open is the table of roles; here it is what nobody may.
        const wrong = all.filter((name) => (state === "open" ? ofLogin.includes(name) : name !== takes))
        assert.isAtLeast(wrong.length, state === "open" ? 4 : 40)
        yield* Effect.promise(async () => {
          await watch.login()
          const open = { type: C.open, name: "there", fingerprint: new Uint8Array(), schema: "", accepts: [] } as const
          const opened = await watch.ask((request) => ({ ...open, request, policy: [] }))
          assert(opened.type === M.opened)
          const put = {
            type: C.put,
            queue: opened.queue,
            atomic: false,
            waitMs: 0,
            payloads: [new Uint8Array(1)]
          } as const
          await watch.ask((request) => ({ ...put, request, options: undefined }))
        })
        const before = yield* Effect.promise(() => snapshot(watch))
        const { sessions } = yield* counters
        for (const name of wrong) {
          const raw = yield* connectTo(port)
          yield* Effect.promise(async () => {
            await go(raw)
            raw.say(clientMessages[name](random))
            await raw.refused(Code.protocol)
            assert.deepStrictEqual(raw.heard, [], `${name} was answered in state ${state}`)
          })
        }
        assert.strictEqual(yield* Effect.promise(() => snapshot(watch)), before)
        assert.strictEqual((yield* counters).sessions, sessions + (state === "open" ? wrong.length : 0))
        // In its turn each of them is taken.
        const raw = yield* connectTo(port)
        yield* Effect.promise(() => raw.login())
      }).pipe(Effect.scoped, Effect.provide(managed()))
    )
  }
})

describe("peers that say a byte at a time", () => {
  it.live("are closed when their time is up, 500 of them; who logs in meanwhile works as ever (M11)", () =>
    Effect.gen(function* () {
      const port = yield* portOf
      const whole = framed("client", { ...hello, role: "r".repeat(200), agent: "a".repeat(200) })
      const first = framed("client", {
        type: C.authFirst,
        mechanism: "SCRAM-SHA-256",
        message: `n,,n=default,r=${"n".repeat(300)}`
      })
      const slow = yield* Effect.forEach(Array.from({ length: 500 }), () => connectTo(port), { concurrency: 50 })
      // Some in the middle of their hello, some in the middle of what comes after it.
      const left = slow.map((raw, i) => {
        const bytes = i % 2 === 0 ? whole : first
        if (i % 2 === 1) raw.say(hello)
        return { raw, bytes, at: 0 }
      })
      let said = 0
      const timer = setInterval(() => {
        for (const one of left) {
          if (one.raw.closed || one.at >= one.bytes.byteLength - 1) continue
          one.raw.write(one.bytes.subarray(one.at, ++one.at))
          said++
        }
      }, 100)
      yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(timer)))
      yield* Effect.gen(function* () {
        for (let i = 0; i < 200; i++) {
          yield* Letters.put(`${i}`)
          const [lease] = yield* Letters.lease()
          assert.strictEqual(lease!.payload, `${i}`)
          yield* Letters.commit(lease!, "done")
        }
      }).pipe(Effect.provide(Client.layerTcp({ port, auth })))
      yield* Effect.promise(async () => {
        for (const raw of slow) await raw.refused(Code.handshakeTimeout)
      })
      assert.isAbove(said, 5 * slow.length)
      // None was closed for having said it all.
      for (const { at, bytes } of left) assert.isBelow(at, bytes.byteLength - 1)
    }).pipe(Effect.scoped, Effect.provide(managed()))
  )
})

const traps = ["__proto__", "constructor", "prototype", "toString", "hasOwnProperty", "0", "1", "4294967294"]

describe("names and payloads made to hurt", () => {
  const builtIn = [Object, Array, Function, Map, Uint8Array].map((made) => made.prototype as object)
  const shape = (): ReadonlyArray<unknown> =>
    builtIn.flatMap((one) => [Object.getPrototypeOf(one), ...Reflect.ownKeys(one)])

  it.live("are names and payloads like any others: no prototype is touched, nothing is mixed up (M14)", () =>
    Effect.gen(function* () {
      const before = shape()
      const port = yield* portOf
      const Any = Schema.Record(Schema.String, Schema.Json)
      const dict = SharedDict.make("constructor", { value: Any })
      const set = SharedSet.make("prototype")
      const texts = traps.map((trap) => `{"${trap}":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}`)
      yield* Effect.gen(function* () {
        for (const [i, trap] of traps.entries()) {
          const q = TaskQueue.make(trap, { payload: Any })
          const payload = JSON.parse(texts[i]!) as Record<string, never>
          const options = { id: trap, key: trap, labels: [trap] }
          yield* q.put(payload, options)
          assert.isTrue((yield* q.put(payload, options)).duplicate)
          const [task] = (yield* q.browse({ key: trap, label: trap, id: trap })).tasks
          assert.deepStrictEqual([task?.id, task?.key, task?.labels], [trap, trap, [trap]])
          assert.deepStrictEqual(
            (yield* q.stats).lanes.map(([key]) => key),
            [trap]
          )
          assert.strictEqual(JSON.stringify(yield* q.get({ timeout: 0 })), JSON.stringify(JSON.parse(texts[i]!)))
          assert.strictEqual(yield* dict.get(trap), undefined)
          yield* dict.set(trap, payload)
          assert.isTrue(yield* set.add(trap))
          assert.isFalse(yield* set.add(trap))
        }
        for (const [i, trap] of traps.entries()) {
          assert.strictEqual(JSON.stringify(yield* dict.get(trap)), JSON.stringify(JSON.parse(texts[i]!)))
        }
        assert.strictEqual(yield* dict.size, traps.length)
        assert.sameMembers(
          (yield* Client.stats).map(({ name }) => name),
          traps
        )
      }).pipe(Effect.provide(Client.layerTcp({ port, auth })))
      assert.deepStrictEqual(shape(), before)
      assert.isFalse("polluted" in {})
    }).pipe(Effect.scoped, Effect.provide(managed()))
  )

  it.live("nested a hundred thousand deep, before and behind what is known, close their connection (M14)", () =>
    Effect.gen(function* () {
      const port = yield* portOf
      const deep = Buffer.alloc(100_000, 0x91)
      const renew = framed("client", { type: C.renew, request: 1, held: [] }).subarray(4)
      const longer = Buffer.concat([Uint8Array.of(renew[0]! + 1), renew.subarray(1), deep])
      for (const body of [deep, longer]) {
        const raw = yield* connectTo(port)
        yield* Effect.promise(async () => {
          await raw.login()
          const length = new Uint8Array(4)
          new DataView(length.buffer).setUint32(0, body.byteLength)
          raw.write(Buffer.concat([length, body]))
          await raw.refused(Code.protocol)
        })
      }
      assert.strictEqual(yield* attempt(port), "ok")
    }).pipe(Effect.scoped, Effect.provide(managed()))
  )

  it("cost work in proportion to their size: twice the tasks, twice the reads (M14)", () => {
    const methods = ["array", "bin", "binSize", "bool", "nil", "skip", "str", "uint"] as const
    const reads = (tasks: number): number => {
      const labels = traps.slice(0, Limits.labelsPerTaskMax)
      const options = Array.from({ length: tasks }, (_, i) => ({ id: String(i), key: `__proto__${i}`, labels }))
      const payloads = options.map(() => Buffer.from('{"__proto__":1}'))
      const put = { type: C.put, request: 1, queue: 1, atomic: false, waitMs: 0, payloads, options } as const
      const body = framed("client", put).subarray(4)
      let count = 0
      const prototype = Reader.prototype as unknown as Record<string, (...args: Array<unknown>) => unknown>
      const originals = methods.map((name) => [name, prototype[name]!] as const)
      for (const [name, original] of originals) {
        prototype[name] = function (this: unknown, ...args: Array<unknown>) {
          count++
          return original.apply(this, args)
        }
      }
      try {
        const decoded = ClientMessages.decode(new Reader(body))
        assert(decoded.type === C.put)
        assert.strictEqual(decoded.payloads.length, tasks)
      } finally {
        for (const [name, original] of originals) prototype[name] = original
      }
      return count
    }
    const [one, two, four] = [reads(1_000), reads(2_000), reads(4_000)] as const
    assert.isAbove(one, 10_000)
    assert.strictEqual(four - two, 2 * (two - one))
  })
})

describe("tokens and ids", () => {
  it.live("are bytes of the crypto port, 128 bits of them for a session, and none comes twice (M16)", () =>
    Effect.gen(function* () {
      const drawn = new Set<string>()
      const restore = useRandomBytes((size) => {
        const bytes = globalThis.crypto.getRandomValues(new Uint8Array(size))
        drawn.add(toHex(bytes))
        return bytes
      })
      yield* Effect.addFinalizer(() => Effect.sync(restore))
      yield* Effect.gen(function* () {
        const port = yield* portOf
        const tokens = new Set<string>()
        for (let i = 0; i < 100; i++) {
          const raw = yield* connectTo(port)
          const { instance, session } = yield* Effect.promise(() => raw.login())
          assert.strictEqual(session.byteLength, 16)
          for (const bytes of [session, instance]) assert.isTrue(drawn.has(toHex(bytes)))
          tokens.add(toHex(session))
        }
        assert.strictEqual(tokens.size, 100)
        const { taskId } = yield* Letters.put("x").pipe(Effect.provide(Client.layerTcp({ port, auth })))
        assert.isTrue(drawn.has(taskId.slice(0, 16)), taskId)
      }).pipe(Effect.provide(managed()))
    }).pipe(Effect.scoped)
  )

  it.live("of another's session are answered like those of none, and take nothing from it (M16)", () =>
    Effect.gen(function* () {
      const port = yield* portOf
      const [mine, thief, guesser] = [yield* connectTo(port), yield* connectTo(port), yield* connectTo(port)]
      yield* Effect.promise(async () => {
        const { session } = await mine.login()
        const open = { type: C.open, name: "held", fingerprint: new Uint8Array(), schema: "", accepts: [] } as const
        const opened = await mine.ask((request) => ({ ...open, request, policy: [] }))
        assert(opened.type === M.opened)
        const { queue } = opened
        const put = { type: C.put, queue, atomic: false, waitMs: 0, payloads: [new Uint8Array(1)] } as const
        await mine.ask((request) => ({ ...put, request, options: undefined }))
        const lease = { type: C.lease, queue, count: 1, waitMs: 0, get: false } as const
        const leased = await mine.ask((request) => ({ ...lease, request }))
        assert(leased.type === M.leased)
        const held = leased.items.flatMap(({ fence, task }) => [task, fence])
        assert.strictEqual(held.length, 2)
        const other = { ...auth, user: "other" }
        const foreign = await thief.login(other, session, held)
        const unknown = await guesser.login(other, randomBytes(16), held)
        assert.notDeepEqual(foreign.session, session)
        assert.deepStrictEqual({ ...foreign, session: 0 }, { ...unknown, session: 0 })
        assert.deepStrictEqual([foreign.resumed, foreign.lost], [false, held.slice(0, 1)])
        const stats = await mine.ask((request) => ({ type: C.stats, request, queue }))
        assert.deepInclude(stats.type === M.stats ? stats.queues[0] : {}, { leased: 1, ready: 0 })
        assert.isFalse(mine.closed)
        const renewed = await mine.ask((request) => ({ type: C.renew, request, held }))
        assert.strictEqual(renewed.type, M.done)
      })
    }).pipe(Effect.scoped, Effect.provide(managed({ auth: [auth, { ...auth, user: "other" }] })))
  )
})

describe("a socket in a folder of others", () => {
  it.live("is its owner's alone from the moment it is there, not only later (M20)", () =>
    Effect.gen(function* () {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-threats-"))),
        (at) => Effect.sync(() => rmSync(at, { recursive: true }))
      )
      chmodSync(folder, 0o777)
      const path = join(folder, "manager.sock")
      const modes: Array<number> = []
      const { listen } = net.Server.prototype
      const mask = process.umask(0)
      net.Server.prototype.listen = function (this: net.Server, ...args: Array<unknown>) {
        const server = (listen as (...args: Array<unknown>) => net.Server).apply(this, args)
        // Bound, and nothing else has run: whoever watches the folder could connect now.
        if (existsSync(path)) modes.push(statSync(path).mode & 0o777)
        return server
      } as typeof listen
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          net.Server.prototype.listen = listen
          process.umask(mask)
        })
      )
      yield* Effect.provide(Effect.asVoid(Manager.Listening), managed({ path }))
      assert.deepStrictEqual(modes, [0o700])
      assert.strictEqual(process.umask(), 0)
    }).pipe(Effect.scoped)
  )
})
