/** Peers of other versions: windows that overlap and windows that do not, messages that have grown, messages unheard of. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { Client, type Errors, Limits, Manager, Store, TaskQueue, Worker } from "millrace"
import { layerLink } from "../../src/client/Client.ts"
import type { LinkOptions } from "../../src/client/Link.ts"
import { Code } from "../../src/model/Refusal.ts"
import { type Connection, type Handler, Network } from "../../src/platform/Network.ts"
import * as Node from "../../src/platform/Node.ts"
import { Reader } from "../../src/wire/Bytes.ts"
import * as ClientMessages from "../../src/wire/ClientMessages.ts"
import { FrameReader, frame } from "../../src/wire/Frames.ts"
import * as ManagerMessages from "../../src/wire/ManagerMessages.ts"
import { ClientType as C, ManagerType as M, type Versions, versionsText } from "../../src/wire/Vocabulary.ts"
import { auth } from "./layers.ts"
import { hello, Raw } from "./raw.ts"

const Letters = TaskQueue.make("letters", { payload: Schema.String, result: Schema.String })

const quiet = Logger.layer([])

/** A manager that speaks these versions; its port. */
const managerOf = (versions: Versions, port = 0) =>
  Effect.gen(function* () {
    const manager = Manager.layer({ queues: [], versions }).pipe(Layer.provide(Store.layerMemory))
    const context = yield* Layer.build(Layer.fresh(Manager.layerTcp({ port, auth }).pipe(Layer.provide(manager))))
    const { address } = yield* Effect.provide(Manager.Listening, context)
    return address._tag === "Tcp" ? address.port : 0
  })

type Wrap = (handler: Handler, connection: Connection) => Handler

/** A client that speaks these versions and hears what `wrap` makes of what it is told. */
const clientOf = (port: number, options: Partial<LinkOptions>, wrap: Wrap = (handler) => handler) =>
  Effect.map(Network, (network) =>
    layerLink({
      address: `127.0.0.1:${port}`,
      auth,
      waitForManager: false,
      reconnectCapMs: 20,
      ...options,
      dial: (handler) =>
        network.dial({ _tag: "Tcp", host: "127.0.0.1", port }, Limits.dialMs, (made) => wrap(handler(made), made))
    })
  ).pipe(Layer.unwrap, Layer.provide(Node.layer))

/** Calls `heard` with every message that a manager says. */
const listeningTo =
  (heard: (message: ManagerMessages.ManagerMessage) => void): Wrap =>
  (handler) => {
    const reader = new FrameReader(Limits.frameBytesMax)
    const onData = (chunk: Uint8Array): void => {
      reader.push(chunk, (body) => {
        const r = new Reader(body)
        while (!r.done) heard(ManagerMessages.decode(r))
      })
      handler.onData(chunk)
    }
    return { ...handler, onData }
  }

/** All that a client does, once round. */
const roundTrip = Effect.gen(function* () {
  const { taskId } = yield* Letters.put("a")
  const [lease] = yield* Letters.lease({ timeout: "5 seconds" })
  yield* Letters.commit(lease!, `${lease!.payload}!`)
  const outcome = yield* Letters.outcome(taskId)
  return outcome._tag === "Success" ? outcome.result : outcome._tag
})

const windows: ReadonlyArray<Versions> = [
  { min: 1, max: 1 },
  { min: 0, max: 1 },
  { min: 1, max: 2 },
  { min: 1, max: 3 },
  { min: 2, max: 2 },
  { min: 2, max: 3 },
  { min: 0, max: 0 }
]

/** The highest version that both speak, found by looking at each. */
const common = (a: Versions, b: Versions): number | undefined => {
  for (let version = 9; version >= 0; version--) {
    if ([a, b].every(({ max, min }) => version >= min && version <= max)) return version
  }
  return undefined
}

describe("windows of versions", () => {
  for (const theirs of windows) {
    it.live(
      `a manager of ${versionsText(theirs)} serves whom it has a version in common with, and refuses the rest (M25)`,
      () =>
        Effect.gen(function* () {
          const port = yield* managerOf(theirs)
          for (const ours of windows) {
            const version = common(ours, theirs)
            const said: Array<ManagerMessages.Hello> = []
            const wrap = listeningTo((message) => {
              if (message.type === M.hello) said.push(message)
            })
            const end = yield* Effect.result(Effect.provide(roundTrip, clientOf(port, { versions: ours }, wrap)))
            const raw = new Raw(port)
            raw.say({ ...hello, versionMin: ours.min, versionMax: ours.max })
            if (version === undefined) {
              assert.strictEqual(end._tag, "Failure", versionsText(ours))
              const error = (end as { readonly failure: Errors.MillraceError }).failure
              const both = { ours: versionsText(ours), theirs: versionsText(theirs) }
              assert.deepInclude(error, { _tag: "VersionUnsupported", ...both })
              assert.include(
                error.message,
                `this side speaks ${both.ours}, the other ${both.theirs}. Update the older one.`
              )
              assert.lengthOf(said, 0)
              const text = yield* Effect.promise(() => raw.refused(Code.version))
              assert.strictEqual(text, versionsText(theirs))
            } else {
              assert.deepStrictEqual(end._tag === "Success" ? end.success : end, "a!", versionsText(ours))
              const { versionMax, versionMin } = said[0]!
              assert.deepStrictEqual(
                [said.length, said[0]!.version, versionMin, versionMax],
                [1, version, theirs.min, theirs.max]
              )
              assert.strictEqual((yield* Effect.promise(() => raw.next(M.hello))).version, version)
            }
            raw.socket.destroy()
          }
        }).pipe(Effect.scoped, Effect.provide(quiet))
    )
  }

  it.live("a window upside down has no version in common with anybody", () =>
    Effect.gen(function* () {
      const raw = new Raw(yield* managerOf({ min: 1, max: 3 }))
      raw.say({ ...hello, versionMin: 3, versionMax: 1 })
      assert.strictEqual(yield* Effect.promise(() => raw.refused(Code.version)), "1-3")
    }).pipe(Effect.scoped, Effect.provide(quiet))
  )

  it.live("a client that meets a manager of another version after a loss says so, and goes on when it can", () =>
    Effect.gen(function* () {
      let port = 0
      const era = <A, E, R>(versions: Versions, run: Effect.Effect<A, E, R>) =>
        Effect.scoped(
          Effect.gen(function* () {
            port = yield* managerOf(versions, port)
            return yield* run
          })
        )
      yield* era({ min: 1, max: 1 }, Effect.void)
      const patient = clientOf(port, { waitForManager: true })
      // Taken before the client looks, so that it finds it at once.
      const first = yield* Effect.forkChild(era({ min: 1, max: 2 }, Effect.never), { startImmediately: true })
      const context = yield* Layer.build(patient)
      assert.strictEqual(yield* Effect.provide(roundTrip, context), "a!")
      yield* Fiber.interrupt(first)
      yield* era(
        { min: 2, max: 3 },
        Effect.gen(function* () {
          const told = Effect.flip(Effect.provide(Letters.size, context))
          const error = yield* Effect.repeat(told, {
            schedule: Schedule.spaced("10 millis"),
            until: ({ _tag }) => _tag === "VersionUnsupported"
          })
          assert.deepInclude(error, { _tag: "VersionUnsupported", ours: "1-1", theirs: "2-3" })
        })
      )
      const back = yield* era(
        { min: 0, max: 1 },
        Effect.retry(Effect.provide(roundTrip, context), Schedule.spaced("10 millis"))
      )
      assert.strictEqual(back, "a!")
    }).pipe(Effect.scoped, Effect.provide(quiet))
  )
})

/** A listener that says hello as told, and remembers what it hears. */
const saying = (answer: Partial<ManagerMessages.Hello>) =>
  Effect.gen(function* () {
    const network = yield* Network
    const heard: Array<ClientMessages.ClientMessage> = []
    const bytes = frame((w) =>
      ManagerMessages.encode(w, {
        ...{ type: M.hello, magic: "millrace", version: 1, versionMin: 1, versionMax: 1 },
        ...{ capabilities: 0, frameBytesMax: Limits.frameBytesMax, mechanisms: ["SCRAM-SHA-256"] },
        ...answer
      })
    )
    const address = yield* network.listen({ _tag: "Tcp", host: "127.0.0.1", port: 0 }, (connection) => {
      const reader = new FrameReader(Limits.frameBytesMax)
      const onData = (chunk: Uint8Array): void =>
        void reader.push(chunk, (body) => {
          heard.push(ClientMessages.decode(new Reader(body)))
          if (heard.length === 1) connection.write(bytes)
        })
      return { onData, onDrain: () => {}, onClose: () => {} }
    })
    return { heard, port: address._tag === "Tcp" ? address.port : 0 }
  }).pipe(Effect.provide(Node.layer))

describe("a manager that chose a version which the client does not speak", () => {
  const refused = (answer: Partial<ManagerMessages.Hello>, versions?: Versions) =>
    Effect.gen(function* () {
      const { heard, port } = yield* saying(answer)
      const client = versions === undefined ? Client.layerTcp({ port, auth }) : clientOf(port, { versions })
      const error = yield* Effect.flip(Layer.build(Layer.fresh(client)))
      // Not a word of a login.
      assert.deepStrictEqual(
        heard.map(({ type }) => type),
        [C.hello]
      )
      return error
    }).pipe(Effect.scoped, Effect.provide(quiet))

  it.live("is refused before the login, with both windows when they have nothing in common", () =>
    Effect.gen(function* () {
      const newer = yield* refused({ version: 2, versionMin: 2, versionMax: 4 })
      assert.deepInclude(newer, { _tag: "VersionUnsupported", ours: "1-1", theirs: "2-4" })
      const older = yield* refused({ version: 0, versionMin: 0, versionMax: 0 })
      assert.deepInclude(older, { _tag: "VersionUnsupported", ours: "1-1", theirs: "0-0" })
      assert.include(older.message, "Update the older one")
    })
  )

  it.live("is refused before the login as a breach when it had one in common", () =>
    Effect.gen(function* () {
      const above = yield* refused({ version: 2, versionMin: 1, versionMax: 2 })
      assert.strictEqual(above._tag, "ProtocolViolated")
      assert.include(above.message, "the manager chose version 2, and this side speaks 1-1")
      const below = yield* refused({ version: 1, versionMin: 1, versionMax: 3 }, { min: 2, max: 3 })
      assert.include(below.message, "the manager chose version 1, and this side speaks 2-3")
    })
  )
})

/** Two elements more at the end of a message: nil, and an array that holds a string and an integer. */
const more = [0xc0, 0x92, 0xa1, 0x61, 0xcc, 0xff] as const

/** What these may leave out; first of all it comes: no reports, and no prefetch. */
const leftOut: Readonly<Record<number, readonly [elements: number, last: number]>> = {
  [C.heartbeat]: [3, 0x90],
  [C.credit]: [3, 0]
}

const longer = (message: Uint8Array): Uint8Array => {
  const known = message[0]! & 0x0f
  const [elements, last] = leftOut[message[1]!] ?? [-1, 0]
  const added = known === elements ? [last, ...more] : [...more]
  const length = known + (known === elements ? 3 : 2)
  const head = length < 16 ? [0x90 | length] : [0xdc, 0, length]
  return Uint8Array.from([...head, ...message.subarray(1), ...added])
}

/** Passes frames on, each message as `grow` makes it. */
const grower = (
  decode: (r: Reader) => { readonly type: number },
  grow = (message: Uint8Array, _type: number) => longer(message)
) => {
  const reader = new FrameReader(Limits.frameBytesMax)
  const types = new Set<number>()
  const push = (chunk: Uint8Array, pass: (bytes: Uint8Array) => void): void =>
    void reader.push(chunk, (body) => {
      const r = new Reader(body)
      const parts: Array<Uint8Array> = []
      while (!r.done) {
        const from = r.position
        const { type } = decode(r)
        types.add(type)
        parts.push(grow(body.subarray(from, r.position), type))
      }
      const all = Buffer.concat(parts)
      const head = Buffer.alloc(4)
      head.writeUInt32BE(all.byteLength)
      pass(Buffer.concat([head, all]))
    })
  return { push, types }
}

/** All that is said on both sides of a session, by hand and by a worker. */
const session = Effect.gen(function* () {
  assert.strictEqual(yield* roundTrip, "a!")
  yield* Effect.scoped(
    Effect.gen(function* () {
      yield* Worker.start(Letters, ({ payload }) => Effect.succeed(payload.toUpperCase()))
      assert.strictEqual(yield* Letters.putWait("b"), "B")
    })
  )
  const { link } = yield* Client.Client
  const proven = Effect.callback<void>((resume) => {
    const sequence = link.nextHeartbeat
    link.residents.add({ heard: (heard) => void (heard >= sequence && resume(Effect.void)) })
    link.heartbeat()
  })
  yield* proven
  const { done, puts } = yield* Letters.stats
  assert.deepStrictEqual([done, puts], [2, 2])
  assert.strictEqual(link.generation, 1)
})

describe("messages that a newer peer has made longer", () => {
  it.live("are read by a manager and by a client, hello included, as far as they know them", () =>
    Effect.gen(function* () {
      const manager = yield* Manager.Manager
      const network = yield* Network
      const up = grower(ClientMessages.decode)
      const down = grower(ManagerMessages.decode)
      let connections = 0
      const address = yield* network.listen({ _tag: "Tcp", host: "127.0.0.1", port: 0 }, (near) => {
        connections++
        const far = manager.connect(() => ({
          onData: (chunk) => down.push(chunk, near.write),
          onDrain: () => {},
          onClose: () => near.close()
        }))
        return { onData: (chunk) => up.push(chunk, far.write), onDrain: () => {}, onClose: () => far.destroy() }
      })
      const port = address._tag === "Tcp" ? address.port : 0
      yield* Effect.provide(session, clientOf(port, { auth: undefined }))
      for (const type of [
        C.hello,
        C.sessionOpen,
        C.open,
        C.put,
        C.lease,
        C.commit,
        C.subscribe,
        C.heartbeat,
        C.stats
      ]) {
        assert.isTrue(up.types.has(type), `client message ${type}`)
      }
      for (const type of [M.hello, M.sessionOpened, M.opened, M.leased, M.deliver, M.heartbeat, M.stats]) {
        assert.isTrue(down.types.has(type), `manager message ${type}`)
      }
      assert.strictEqual(connections, 1)
    }).pipe(
      Effect.scoped,
      Effect.provide(Manager.layer({ queues: [] }).pipe(Layer.provide(Store.layerMemory), Layer.fresh)),
      Effect.provide(Node.layer),
      Effect.provide(quiet)
    )
  )

  it.live("are read in a login as well", () =>
    Effect.gen(function* () {
      const port = yield* managerOf({ min: 1, max: 1 })
      // The login covers hello as it was said: nobody between the two may touch it.
      const down = grower(ManagerMessages.decode, (message, type) => (type === M.hello ? message : longer(message)))
      const wrap: Wrap = (handler) => ({ ...handler, onData: (chunk) => down.push(chunk, handler.onData) })
      yield* Effect.provide(session, clientOf(port, {}, wrap))
      assert.isTrue([M.authChallenge, M.authOk, M.sessionOpened].every((type) => down.types.has(type)))

      class Newer extends Raw {
        override say(...messages: ReadonlyArray<ClientMessages.ClientMessage>): Uint8Array {
          const bytes = frame((w) => {
            for (const message of messages) ClientMessages.encode(w, message)
          })
          let body = new Uint8Array()
          grower(ClientMessages.decode).push(bytes, (grown) => {
            this.write(grown)
            body = Uint8Array.from(grown.subarray(4))
          })
          return body
        }
      }
      const raw = new Newer(port)
      yield* Effect.promise(async () => {
        assert.isFalse((await raw.login()).resumed)
        raw.say({ type: C.stats, request: 1, queue: undefined })
        assert.strictEqual((await raw.next(M.stats)).queues[0]?.name, "letters")
      })
      raw.socket.destroy()
    }).pipe(Effect.scoped, Effect.provide(quiet))
  )
})

describe("a message of a type unheard of", () => {
  /** Behind the first message of `after`, whatever it is. */
  const strange = (after: number, injected: Uint8Array) => {
    let pending = true
    return grower(ManagerMessages.decode, (message, type) => {
      if (!pending || type !== after) return message
      pending = false
      return Buffer.concat([message, injected])
    })
  }
  const unknown = Uint8Array.of(0x91, 0x5e)

  it.live("ends the connection of the manager that says it; what was asked is asked again on the next one", () =>
    Effect.gen(function* () {
      const port = yield* managerOf({ min: 1, max: 1 })
      let dialled = 0
      const down = strange(M.opened, unknown)
      const wrap: Wrap = (handler) => {
        if (dialled++ > 0) return handler
        return { ...handler, onData: (chunk) => down.push(chunk, handler.onData) }
      }
      const context = yield* Layer.build(clientOf(port, {}, wrap))
      assert.strictEqual(
        yield* Effect.retry(Effect.provide(Letters.size, context), {
          schedule: Schedule.spaced("10 millis"),
          while: ({ _tag }) => _tag === "ConnectFailed"
        }),
        0
      )
      assert.strictEqual(dialled, 2)
    }).pipe(Effect.scoped, Effect.provide(quiet))
  )

  it.live("fails a login typed", () =>
    Effect.gen(function* () {
      const port = yield* managerOf({ min: 1, max: 1 })
      const down = grower(ManagerMessages.decode, (message, type) => (type === M.authChallenge ? unknown : message))
      const wrap: Wrap = (handler) => ({ ...handler, onData: (chunk) => down.push(chunk, handler.onData) })
      const error = yield* Effect.flip(Layer.build(clientOf(port, {}, wrap)))
      assert.strictEqual(error._tag, "ProtocolViolated")
    }).pipe(Effect.scoped, Effect.provide(quiet))
  )

  it.live("ends the connection of the client that says it, with a reason, and nobody else's", () =>
    Effect.gen(function* () {
      const port = yield* managerOf({ min: 1, max: 1 })
      const context = yield* Layer.build(clientOf(port, {}))
      for (const type of [0x3e, 0x5e, 0x7e]) {
        const raw = new Raw(port)
        yield* Effect.promise(() => raw.login())
        raw.write(Uint8Array.of(0, 0, 0, 2, 0x91, type))
        assert.match(
          yield* Effect.promise(() => raw.refused(Code.protocol)),
          new RegExp(`unknown message type ${type}`)
        )
      }
      assert.strictEqual(yield* Effect.provide(roundTrip, context), "a!")
      assert.strictEqual((yield* Effect.provide(Client.Client, context)).link.generation, 1)
    }).pipe(Effect.scoped, Effect.provide(quiet))
  )
})
