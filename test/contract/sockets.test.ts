/** What both ends of a connection ask of the system: no delay for small writes, and a look at a silent peer now and then. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import * as net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Client, Manager, SharedCounter } from "millrace"
import { fingerprintOf, makeCertificate } from "../../src/auth/Certificate.ts"
import { makeSigningKey, randomBytes } from "../../src/platform/Crypto.ts"
import { auth, inProcess } from "./layers.ts"

type Asked = "setNoDelay" | "setKeepAlive"

/** What the runtime hands to the system; not every way to it goes through the methods of a socket. */
interface Handle {
  setNoDelay: (on: boolean) => number
  setKeepAlive: (on: boolean, ...more: ReadonlyArray<unknown>) => number
}

/** The prototype of the handles of TCP sockets, found at a real one. */
const handles = Effect.promise(
  () =>
    new Promise<Handle>((resolve, reject) => {
      const server = net.createServer((socket) => socket.destroy())
      server.once("error", reject)
      server.listen(0, "127.0.0.1", () => {
        const socket = net.connect((server.address() as net.AddressInfo).port, "127.0.0.1", () => {
          const { _handle } = socket as unknown as { readonly _handle: object }
          resolve(Object.getPrototypeOf(_handle) as Handle)
          socket.destroy()
          server.close()
        })
      })
    })
)

/** Remembers which handles were asked for it, while the scope is open. */
const recording = Effect.gen(function* () {
  const prototype = yield* handles
  const asked: Record<Asked, Set<unknown>> = { setNoDelay: new Set(), setKeepAlive: new Set() }
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      const { setKeepAlive, setNoDelay } = prototype
      prototype.setNoDelay = function (this: unknown, on) {
        if (on) asked.setNoDelay.add(this)
        return setNoDelay.call(this, on)
      }
      prototype.setKeepAlive = function (this: unknown, on, ...more) {
        if (on) asked.setKeepAlive.add(this)
        return setKeepAlive.call(this, on, ...more)
      }
      return { setKeepAlive, setNoDelay }
    }),
    (before) => Effect.sync(() => Object.assign(prototype, before))
  )
  return asked
})

const counter = SharedCounter.make("visits")

/** A manager and a client of it that has been answered, while the scope is open; the port. */
const pairOf = (listen: Partial<Manager.ListenOptions>, connect: Partial<Client.ConnectOptions>) =>
  Effect.gen(function* () {
    const manager = Manager.layerTcp({ auth, port: 0, ...listen }).pipe(Layer.provide(inProcess))
    const listening = yield* Layer.build(Layer.fresh(manager))
    const { address } = yield* Effect.provide(Manager.Listening, listening)
    const at = address._tag === "Tcp" ? { port: address.port } : { path: address.path }
    const client = yield* Layer.build(Layer.fresh(Client.layerTcp({ auth, ...at, ...connect })))
    assert.strictEqual(yield* Effect.provide(counter.increment(), client), 1)
    return address._tag === "Tcp" ? address.port : 0
  })

/** Of the connections of a port, as Linux has them: which have a timer that looks at a silent peer. */
const timersOf = (port: number): ReadonlyArray<boolean> => {
  const hex = port.toString(16).toUpperCase().padStart(4, "0")
  const rows = readFileSync("/proc/self/net/tcp", "utf8").split("\n").slice(1)
  return rows.flatMap((row) => {
    // number local remote state queues timer:when ...
    const [, local = "", remote = "", state, , timer] = row.trim().split(/\s+/)
    const ofPort = local.endsWith(`:${hex}`) || remote.endsWith(`:${hex}`)
    return ofPort && state === "01" ? [timer?.startsWith("02:") === true] : []
  })
}

const own = makeCertificate({
  key: makeSigningKey(),
  hosts: ["127.0.0.1"],
  serial: randomBytes(16),
  now: Date.now()
})

describe("a TCP connection", () => {
  const cases = [
    ["without TLS", {}, {}],
    ["with TLS", { tls: own }, { tls: { fingerprint: fingerprintOf(own.certificate)! } }]
  ] as const
  for (const [name, listen, connect] of cases) {
    it.live(`${name} is without delay and kept alive, at both ends`, () =>
      Effect.gen(function* () {
        const asked = yield* recording
        const port = yield* pairOf(listen, connect)
        assert.deepStrictEqual([asked.setNoDelay.size, asked.setKeepAlive.size], [2, 2])
        if (!existsSync("/proc/self/net/tcp")) return
        // Bytes that wait for their acknowledgement have another timer for a moment.
        let timers = timersOf(port)
        for (let i = 0; i < 200 && !timers.every(Boolean); i++) {
          yield* Effect.sleep("10 millis")
          timers = timersOf(port)
        }
        assert.deepStrictEqual(timers, [true, true])
      }).pipe(Effect.scoped)
    )
  }
})

describe("a connection over a Unix socket", () => {
  it.live("has neither, and works", () =>
    Effect.gen(function* () {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-sockets-"))),
        (at) => Effect.sync(() => rmSync(at, { recursive: true }))
      )
      const asked = yield* recording
      yield* pairOf({ path: join(folder, "manager.sock") }, {})
      assert.deepStrictEqual([asked.setNoDelay.size, asked.setKeepAlive.size], [0, 0])
    }).pipe(Effect.scoped)
  )
})
