/** A client with several addresses: TCP over IPv4 and IPv6, Unix sockets. */
import { mkdtempSync, rmSync } from "node:fs"
import * as net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { Client, Limits, Manager, SharedCounter } from "millrace"
import { SeededRandom } from "../../src/testing/Random.ts"
import { Proxy } from "../proxy/Proxy.ts"
import { auth, inProcess } from "./layers.ts"

const counter = SharedCounter.make("visits")

/** A manager of its own, with these doors; its port if it has one. */
const managerAt = (...doors: ReadonlyArray<{ readonly host?: string; readonly path?: string }>) =>
  Effect.gen(function* () {
    const manager = yield* Layer.build(Layer.fresh(inProcess))
    let port = 0
    for (const door of doors) {
      const listening = yield* Effect.provide(
        Layer.build(Layer.fresh(Manager.layerTcp({ port: 0, auth, ...door }))),
        manager
      )
      const { address } = yield* Effect.provide(Manager.Listening, listening)
      if (address._tag === "Tcp") port = address.port
    }
    return port
  })

const clientAt = (addresses: ReadonlyArray<Client.AddressInput>, key = auth.key) =>
  Layer.build(Layer.fresh(Client.layerTcp({ addresses, auth: { key }, reconnectCap: "20 millis" })))

const proxyTo = (port: number) =>
  Effect.acquireRelease(
    Effect.promise(() => new Proxy(port, new SeededRandom(1)).listen()),
    (proxy) => Effect.sync(() => proxy.close())
  )

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** A port that nobody listens on. */
const deadPort = Effect.map(proxyTo(1), (proxy) => {
  proxy.refuse()
  return proxy.port
})

const hasIpv6 = Effect.callback<boolean>((resume) => {
  const server = net.createServer()
  server.once("error", () => resume(Effect.succeed(false)))
  server.listen(0, "::1", () => server.close(() => resume(Effect.succeed(true))))
})

/** Asks until it is connected. */
const visit = Effect.retry(counter.increment(), Schedule.spaced("10 millis"))

describe("a client with several addresses", () => {
  it.live("tries them in order, over TCP and Unix sockets, and takes the first that lets it in", () =>
    Effect.gen(function* () {
      const path = join(yield* folder, "manager")
      yield* managerAt({ path })
      const nobody = yield* deadPort
      const client = yield* clientAt([{ host: "127.0.0.1", port: nobody }, { path: `${path}-none` }, { path }])
      assert.strictEqual(yield* Effect.provide(visit, client), 1)
      assert.strictEqual((yield* Effect.provide(Client.Client, client)).link.address, path)
    }).pipe(Effect.scoped)
  )

  it.live("speaks IPv6", (context) =>
    Effect.gen(function* () {
      if (!(yield* hasIpv6)) return context.skip("there is no ::1 here")
      const port = yield* managerAt({ host: "::1" })
      const client = yield* clientAt([{ host: "::1", port }])
      assert.strictEqual(yield* Effect.provide(visit, client), 1)
      assert.strictEqual((yield* Effect.provide(Client.Client, client)).link.address, `[::1]:${port}`)
    }).pipe(Effect.scoped)
  )

  it.live("remembers the one that let it in, and resumes its session there", () =>
    Effect.gen(function* () {
      const port = yield* managerAt({})
      const first = yield* proxyTo(yield* deadPort)
      const second = yield* proxyTo(port)
      const client = yield* clientAt([
        { host: "127.0.0.1", port: first.port },
        { host: "127.0.0.1", port: second.port }
      ])
      assert.strictEqual(first.accepted, 1)
      for (let i = 1; i <= 5; i++) {
        second.cut()
        assert.strictEqual(yield* Effect.provide(visit, client), i)
      }
      assert.deepStrictEqual([first.accepted, second.accepted], [1, 6])
      assert.strictEqual((yield* Effect.provide(Client.Client, client)).link.generation, 1)
    }).pipe(Effect.scoped)
  )

  it.live("goes to another manager when its own is gone, and begins a session there", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const own = yield* Scope.provide(managerAt({}), scope)
      const other = yield* managerAt({})
      const client = yield* clientAt([
        { host: "127.0.0.1", port: own },
        { host: "127.0.0.1", port: other }
      ])
      assert.strictEqual(yield* Effect.provide(visit, client), 1)
      yield* Scope.close(scope, Exit.void)
      yield* Effect.provide(visit, client)
      const { link } = yield* Effect.provide(Client.Client, client)
      assert.deepStrictEqual([link.address, link.generation], [`127.0.0.1:${other}`, 2])
    }).pipe(Effect.scoped)
  )

  it.live("fails naming every address and why, when none of them answers", () =>
    Effect.gen(function* () {
      const nobody = yield* deadPort
      const error = yield* Effect.flip(clientAt([{ host: "127.0.0.1", port: nobody }, { path: "/nowhere/manager" }]))
      assert.strictEqual(error._tag, "ConnectFailed")
      const at = `127.0.0.1:${nobody}`
      assert.include(error.message, `at ${at}, /nowhere/manager (${at}: connection refused; /nowhere/manager: `)
    }).pipe(Effect.scoped)
  )

  it.live("takes a wrong key for the answer, and does not offer it elsewhere", () =>
    Effect.gen(function* () {
      const port = yield* managerAt({})
      const second = yield* proxyTo(port)
      const addresses = [
        { host: "127.0.0.1", port },
        { host: "127.0.0.1", port: second.port }
      ]
      const error = yield* Effect.flip(clientAt(addresses, "another key, long enough 0123456789"))
      assert.deepInclude(error, { _tag: "AuthenticationFailed", address: `127.0.0.1:${port}` })
      assert.strictEqual(second.accepted, 0)
    }).pipe(Effect.scoped)
  )

  it.live("has 1 to 16 of them, with ports that there are", () =>
    Effect.gen(function* () {
      const port = yield* managerAt({})
      const many = Array.from({ length: Limits.addressesMax }, () => ({ host: "127.0.0.1", port }))
      yield* clientAt(many)
      const both = Layer.build(Client.layerTcp({ addresses: many, port, auth }))
      assert.match((yield* Effect.flip(both)).message, /beside a host, port, path or join string/)
      for (const addresses of [[], [...many, ...many.slice(0, 1)], [{ host: "127.0.0.1", port: 65_536 }]]) {
        assert.strictEqual((yield* Effect.flip(clientAt(addresses)))._tag, "ConnectFailed")
      }
    }).pipe(Effect.scoped)
  )
})
