/** TLS 1.3 on real sockets: whose certificate is taken, and what a login is bound to. */
import { once } from "node:events"
import type * as net from "node:net"
import * as tls from "node:tls"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { Client, Manager, TaskQueue } from "millrace"
import { type Certificate, fingerprintOf, makeCertificate } from "../../src/auth/Certificate.ts"
import { encodeJoin } from "../../src/auth/Join.ts"
import { makeSigningKey, randomBytes } from "../../src/platform/Crypto.ts"
import { auth, inProcess } from "./layers.ts"

const certificateFor = (...hosts: ReadonlyArray<string>): Certificate =>
  makeCertificate({ key: makeSigningKey(), hosts, serial: randomBytes(16), now: Date.now() })

const own = certificateFor("localhost", "127.0.0.1")
const other = certificateFor("localhost", "127.0.0.1")
const fingerprint = fingerprintOf(own.certificate)!

const listening = (options: Partial<Manager.ListenOptions> = {}) =>
  Manager.layerTcp({ port: 0, auth, tls: own, ...options }).pipe(Layer.provide(inProcess))

const port = Effect.map(Manager.Listening, ({ address }) => (address._tag === "Tcp" ? address.port : 0))

const Letters = TaskQueue.make("letters", { payload: Schema.String })

/** Puts and gets one letter, or says why there is no client. */
const attempt = (options: Partial<Client.ConnectOptions>) =>
  Effect.gen(function* () {
    const client = Client.layerTcp({ port: yield* port, auth, ...options })
    const letter = Effect.andThen(Letters.put("x"), Letters.get({ timeout: "5 seconds" }))
    const end = yield* Effect.result(Effect.provide(letter, client))
    return end._tag === "Success" ? end.success : `${end.failure._tag}: ${end.failure.message}`
  })

const expectRefused = (text: string, tag: string, pattern: RegExp): void => {
  assert.match(text, new RegExp(`^${tag}: `))
  assert.match(text, pattern)
}

/** One in the middle who ends TLS with a certificate of its own, and passes on what it reads, edited if need be. */
const between = (to: number, certificate: Certificate, edit: (chunk: Buffer) => Buffer = (chunk) => chunk) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const sockets = new Set<net.Socket>()
        const server = tls.createServer({ cert: certificate.certificate, key: certificate.privateKey }, (near) => {
          const far = tls.connect({ host: "127.0.0.1", port: to, rejectUnauthorized: false })
          for (const socket of [near, far]) sockets.add(socket.on("error", () => {}))
          near.on("data", (chunk) => far.write(chunk)).on("close", () => far.destroy())
          far.on("data", (chunk: Buffer) => near.write(edit(chunk))).on("close", () => near.destroy())
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

describe("a manager with TLS", () => {
  it.layer(listening(), { excludeTestServices: true })((it) => {
    it.effect("serves a client that has its join string, or knows its certificate another way", () =>
      Effect.gen(function* () {
        const at = yield* port
        const join = encodeJoin({ user: "default", host: "127.0.0.1", port: at, fingerprint })
        assert.strictEqual(yield* attempt({ join }), "x")
        // All that is said beside it about the place is left alone.
        assert.strictEqual(yield* attempt({ join, host: "host.invalid", port: 1 }), "x")
        assert.strictEqual(yield* attempt({ tls: { fingerprint: fingerprint.toUpperCase() } }), "x")
        assert.strictEqual(yield* attempt({ tls: { authorities: own.certificate } }), "x")
        assert.strictEqual(yield* attempt({ tls: { authorities: own.certificate }, host: "localhost" }), "x")
      })
    )

    it.effect("binds the login to the connection, and a client may insist on that", () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* attempt({ tls: { fingerprint }, channelBinding: "required" }), "x")
      })
    )

    it.effect("is not taken by a client that knows another certificate, or no reason to trust this one", () =>
      Effect.gen(function* () {
        const wrong = yield* attempt({ tls: { fingerprint: fingerprintOf(other.certificate)! } })
        expectRefused(wrong, "ConnectFailed", new RegExp(`its certificate is another one \\(sha256 ${fingerprint}\\)`))
        expectRefused(yield* attempt({ tls: true }), "ConnectFailed", /nobody vouches for it/)
        expectRefused(yield* attempt({ tls: { authorities: other.certificate } }), "ConnectFailed", /certificate/)
      })
    )

    it.effect("tells a client without TLS, and one with a broken join string, what is missing", () =>
      Effect.gen(function* () {
        expectRefused(yield* attempt({}), "ConnectFailed", /whether it wants TLS/)
        const broken = yield* attempt({ join: "millrace://x" })
        expectRefused(broken, "ConfigurationInvalid", /^[^:]+: join is no join string: use the whole line/)
      })
    )

    it.effect("speaks TLS 1.3 and nothing older", () =>
      Effect.gen(function* () {
        const at = yield* port
        const code = yield* Effect.promise(async () => {
          const socket = tls.connect({ host: "127.0.0.1", port: at, rejectUnauthorized: false, maxVersion: "TLSv1.2" })
          const [error] = await once(socket, "error")
          return String((error as NodeJS.ErrnoException).code)
        })
        assert.match(code, /VERSION/)
      })
    )

    it.effect("a wrong key is refused as without TLS", () =>
      Effect.gen(function* () {
        const wrong = yield* attempt({
          tls: { fingerprint },
          auth: { key: "another-key-another-key-another-key-another" }
        })
        expectRefused(wrong, "AuthenticationFailed", /wrong key or unknown user/)
      })
    )

    it.effect("one in the middle, whose certificate the client takes, cannot pass a login on (M4)", () =>
      Effect.gen(function* () {
        const middle = yield* between(yield* port, other)
        const trusting = { port: middle, tls: { authorities: other.certificate } }
        expectRefused(yield* attempt(trusting), "AuthenticationFailed", /wrong key or unknown user/)
        // Nor by taking away the offer that the login could be bound.
        const strip = (chunk: Buffer): Buffer =>
          Buffer.from(chunk.toString("latin1").replaceAll("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256-PLUT"), "latin1")
        const stripping = yield* between(yield* port, other, strip)
        expectRefused(yield* attempt({ ...trusting, port: stripping }), "AuthenticationFailed", /./)
        // The same path with the manager's own certificate, and no binding to check, is none that could be told.
        expectRefused(yield* attempt({ port: middle, tls: { fingerprint } }), "ConnectFailed", /another one/)
      }).pipe(Effect.scoped)
    )
  })

  it.live("that asks for certificates takes clients that have one, and no others", () =>
    Effect.gen(function* () {
      const client = certificateFor("worker-1")
      const mutual = listening({ tls: { ...own, clientAuthorities: client.certificate } })
      yield* Effect.gen(function* () {
        assert.strictEqual(yield* attempt({ tls: { fingerprint, ...client } }), "x")
        expectRefused(yield* attempt({ tls: { fingerprint } }), "ConnectFailed", /./)
        expectRefused(yield* attempt({ tls: { fingerprint, ...other } }), "ConnectFailed", /./)
      }).pipe(Effect.provide(mutual))
    })
  )

  it.live("does not start with texts that are no certificate, or a key that is another's", () =>
    Effect.gen(function* () {
      for (const wrong of [
        { certificate: "x", privateKey: own.privateKey },
        { certificate: own.certificate, privateKey: "x" },
        { certificate: own.certificate, privateKey: other.privateKey }
      ]) {
        const error = yield* Effect.flip(Effect.provide(port, listening({ tls: wrong })))
        assert.match(error.message, /^tls is /)
        assert.match(error.message, /give a certificate and its private key/)
      }
      const socket = yield* Effect.flip(Effect.provide(port, listening({ path: "unused.sock" })))
      assert.match(socket.message, /a Unix socket has no TLS/)
    })
  )
})

describe("a manager's address", () => {
  const cases = [
    { host: "127.0.0.1", tls: undefined, insecureNetwork: false, starts: true },
    { host: "127.0.0.1", tls: own, insecureNetwork: false, starts: true },
    { host: "0.0.0.0", tls: undefined, insecureNetwork: false, starts: false },
    { host: "::", tls: undefined, insecureNetwork: false, starts: false },
    { host: "0.0.0.0", tls: undefined, insecureNetwork: true, starts: true },
    { host: "0.0.0.0", tls: own, insecureNetwork: false, starts: true }
  ]
  for (const { starts, ...options } of cases) {
    const how = `${options.tls === undefined ? "without" : "with"} TLS${options.insecureNetwork ? ", insecure" : ""}`
    it.live(`${options.host} ${how} is ${starts ? "listened on" : "refused"} (M1)`, () =>
      Effect.gen(function* () {
        const end = yield* Effect.result(Effect.provide(Manager.Listening, listening(options)))
        assert.strictEqual(end._tag, starts ? "Success" : "Failure")
        if (end._tag === "Success") {
          assert.strictEqual(end.success.address._tag === "Tcp" && end.success.address.host, options.host)
        } else assert.match(end.failure.message, /a manager without TLS is only for this machine/)
      })
    )
    it.live(`${options.host} ${how} without credentials is refused (M1)`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(Effect.provide(Manager.Listening, listening({ ...options, auth: [] })))
        assert.match(error.message, starts ? /without any nobody could log in/ : /only for this machine/)
      })
    )
  }
})
