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
import { fingerprintOf, makeCertificate } from "../../src/auth/Certificate.ts"
import { encodeJoin } from "../../src/auth/Join.ts"
import { makeSigningKey, randomBytes } from "../../src/platform/Crypto.ts"
import { SeededRandom } from "../../src/testing/Random.ts"
import { Proxy } from "../proxy/Proxy.ts"
import { auth, inProcess } from "./layers.ts"

const counter = SharedCounter.make("visits")

/** A manager of its own, with these doors; its port if it has one. */
const managerAt = (...doors: ReadonlyArray<Pick<Manager.ListenOptions, "host" | "path" | "tls">>) =>
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

  it.live("may be given join strings, each with the certificate of its manager", () =>
    Effect.gen(function* () {
      const certificates = [1, 2].map(() =>
        makeCertificate({ key: makeSigningKey(), hosts: ["127.0.0.1"], serial: randomBytes(16), now: Date.now() })
      )
      const joins: Array<string> = []
      const scopes: Array<Scope.Closeable> = []
      for (const tls of certificates) {
        const scope = yield* Scope.fork(yield* Effect.scope)
        const port = yield* Scope.provide(managerAt({ tls }), scope)
        const fingerprint = fingerprintOf(tls.certificate)!
        joins.push(encodeJoin({ user: "default", host: "127.0.0.1", port, fingerprint }))
        scopes.push(scope)
      }
      const client = yield* clientAt([{ host: "127.0.0.1", port: yield* deadPort }, ...joins.map((join) => ({ join }))])
      assert.strictEqual(yield* Effect.provide(visit, client), 1)
      yield* Scope.close(scopes[0]!, Exit.void)
      yield* Effect.provide(visit, client)
      const { link } = yield* Effect.provide(Client.Client, client)
      assert.include(joins[1], `@${link.address}/`)
      // The certificate of one is no good for the other.
      const swapped = joins[1]!.replace(/sha256=.*/, /sha256=.*/.exec(joins[0]!)![0])
      const error = yield* Effect.flip(clientAt([{ join: swapped }]))
      assert.include(error.message, "its certificate is another one")
    }).pipe(Effect.scoped)
  )
})

describe("addresses that make no sense fail typed, with the field, the value and the remedy", () => {
  const refusal = (options: Partial<Client.ConnectOptions>) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Layer.build(Layer.fresh(Client.layerTcp({ auth, ...options }))))
      if (error._tag !== "ConfigurationInvalid") throw error
      return error.message
    }).pipe(Effect.scoped)

  const port = "use a port from 1 to 65535."
  const host = "name a host, or an address without brackets."
  const join = `millrace://default@127.0.0.1:8001/?sha256=${"0".repeat(64)}`
  const cases: ReadonlyArray<readonly [Partial<Client.ConnectOptions>, string]> = [
    [{ port: 0 }, `port is 0: ${port}`],
    [{ port: 65_536 }, `port is 65536: ${port}`],
    [{ port: 8_001.5 }, `port is 8001.5: ${port}`],
    [{ port: Number.NaN }, `port is NaN: ${port}`],
    [{ host: "" }, `host is "": ${host}`],
    [{ host: "[::1]" }, `host is "[::1]": ${host}`],
    [{ host: "two words" }, `host is "two words": ${host}`],
    [{ host: "x".repeat(254) }, `host is "${"x".repeat(100)}...": ${host}`],
    [{ path: "" }, 'path is "": name the socket by a path.'],
    [{ join: "millrace://x" }, "join is no join string: use the whole line that millrace serve --network prints"],
    [{ join: join.replace(/0$/, "") }, "join is a join string whose fingerprint is not 64 hexadecimal digits: "],
    [{ addresses: [] }, "addresses is a list of 0: give 1 to 16 addresses."],
    [{ addresses: [{ host: "a", port: 0 }] }, `addresses[0].port is 0: ${port}`],
    [{ addresses: [{ host: "a" }, { host: "a\u001b" }] }, `addresses[1].host is "a\\u001b": ${host}`],
    [{ addresses: [{ path: "/a" }, { path: "a\0" }] }, 'addresses[1].path is "a\\u0000": name the socket by a path.'],
    [{ addresses: [{ join: "x" }] }, "addresses[0].join is no join string: use the whole line"],
    [{ addresses: [{ host: "a" }], port: 1 }, "addresses is given beside port: use one of the two."],
    [{ addresses: [{ host: "a" }], join }, "addresses is given beside join: use one of the two."],
    [
      { addresses: [{ join }, { join: join.replace("default", "other") }] },
      "addresses is join strings of several credentials: say which one this program has (auth.user)."
    ],
    [{ reconnectCap: "9 millis" }, "reconnectCap is 9 ms: use 10 ms to an hour."],
    [{ reconnectCap: "61 minutes" }, "reconnectCap is 3660000 ms: use 10 ms to an hour."]
  ]
  for (const [options, message] of cases) {
    it.live(message, () => Effect.map(refusal(options), (said) => assert.include(said, message)))
  }

  it.live("17 of them; 16 are not too many", () =>
    Effect.gen(function* () {
      const port = yield* managerAt({})
      const many = Array.from({ length: Limits.addressesMax }, () => ({ host: "127.0.0.1", port }))
      yield* clientAt(many)
      const message = yield* refusal({ addresses: [...many, ...many.slice(0, 1)] })
      assert.strictEqual(message, "addresses is a list of 17: give 1 to 16 addresses.")
    }).pipe(Effect.scoped)
  )
})
