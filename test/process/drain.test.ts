/**
 * `millrace serve` that is told to end while its peers do not help: it ends all the same, with code 0, and those who come back
 * find everything that was answered.
 */
import { writeFileSync } from "node:fs"
import * as net from "node:net"
import { join } from "node:path"
import * as tls from "node:tls"
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { afterAll } from "vitest"
import { makeCertificate } from "../../src/auth/Certificate.ts"
import * as Client from "../../src/Client.ts"
import * as Errors from "../../src/Errors.ts"
import { Code } from "../../src/model/Refusal.ts"
import { makeSigningKey, randomBytes } from "../../src/platform/Crypto.ts"
import type * as ClientMessages from "../../src/wire/ClientMessages.ts"
import { ClientType as C, ControlKind, ManagerType as M } from "../../src/wire/Vocabulary.ts"
import { hello, Raw } from "../contract/raw.ts"
import { Jobs } from "./fixtures/jobs.ts"
import { asClient, fixture, key, millrace, type Program, serve, stopAll, temporaryFolder } from "./support.ts"

afterAll(stopAll)

/** It waits for rounds, and for what is written, for 2 s each; the rest is for a busy machine. */
const budgetMs = 10_000

/** It ends by itself, in order. */
const endsInOrder = async (program: Program): Promise<void> => {
  program.kill("SIGTERM")
  const ended = await program.ended(budgetMs)
  assert.strictEqual(ended.code, 0, ended.stderr)
  assert.notMatch(ended.stderr, /ERROR|FATAL|internal error/)
}

const folder = (): string => join(temporaryFolder(), "data")

const startWorker = (port: number): Program =>
  millrace(["work", "--module", fixture("worker.ts"), "--port", String(port)])

const open: ClientMessages.Open = {
  ...{ type: C.open, request: 1, name: "jobs", accepts: [], policy: undefined, schema: "" },
  fingerprint: new Uint8Array()
}

/** A peer that has logged in and opened the queue of jobs. */
const peerAt = async (port: number): Promise<{ readonly raw: Raw; readonly queue: number }> => {
  const raw = new Raw(port)
  await raw.login({ key: key })
  raw.say(open)
  return { raw, queue: (await raw.next(M.opened)).queue }
}

describe.concurrent("a manager that is told to end, ends in order", () => {
  it("while workers hold leases that they do not return; they are told, and go on when it is back", async () => {
    const data = folder()
    const { port, program } = await serve(["--data", data])
    const worker = startWorker(port)
    await asClient(port, Jobs.put({ name: "long", ms: 1_500 }))
    await worker.said(/begin long 1/)
    await asClient(port, Jobs.put({ name: "kept", ms: 0 }, { priority: 0 }))
    await worker.said(/end kept/)
    // One that holds a lease, and reads, and does nothing about it.
    const { queue, raw } = await peerAt(port)
    await asClient(port, Jobs.pause())
    await asClient(port, Jobs.putAll([{ name: "held", ms: 0 }]))
    const lease = { type: C.lease, request: 2, queue, count: 1, waitMs: undefined, get: false } as const
    raw.say(lease)
    await asClient(port, Jobs.resume())
    await endsInOrder(program)
    await raw.until(() => raw.closed, "the end of the connection")
    const control = raw.heard.find(({ type }) => type === M.control)
    assert.strictEqual(control?.type === M.control && control.kind, ControlKind.draining)
    const last = raw.heard.at(-1)
    assert.strictEqual(last?.type === M.closing && last.code, Code.draining)
    await serve(["--data", data, "--port", String(port)])
    await worker.said(/connected to the manager at .* again/)
    await asClient(port, Jobs.put({ name: "new", ms: 0 }))
    await worker.said(/end new/)
    await worker.said(/end held/)
    await asClient(port, Jobs.join())
    const { dead, done, puts } = await asClient(port, Jobs.stats)
    assert.deepStrictEqual([puts, done, dead], [4, 4, 0])
  }, 60_000)

  it("while clients do not read what they have asked for", async () => {
    const data = folder()
    const { port, program } = await serve(["--data", data])
    await asClient(port, Jobs.put({ name: "x".repeat(1_000_000), ms: 0 }))
    const { queue, raw } = await peerAt(port)
    raw.socket.pause()
    // More than the system holds for it, less than what ends its connection.
    raw.say(...Array.from({ length: 32 }, (_, i) => ({ type: C.peek, request: 10 + i, queue, count: 1 }) as const))
    await asClient(port, Jobs.put({ name: "after", ms: 0 }))
    await endsInOrder(program)
    assert.isFalse(raw.closed)
    raw.socket.destroy()
    const again = await serve(["--data", data])
    assert.strictEqual((await asClient(again.port, Jobs.stats)).puts, 2)
  }, 60_000)

  it("while logins are under way, at every step", async () => {
    const { port, program } = await serve(["--data", folder()])
    const silent = new Raw(port)
    const half = new Raw(port)
    half.write(Uint8Array.of(0, 0, 0, 29, 0x99))
    const greeted = new Raw(port)
    greeted.say(hello)
    await greeted.next(M.hello)
    const challenged = new Raw(port)
    challenged.say(hello)
    await challenged.next(M.hello)
    challenged.say({
      type: C.authFirst,
      mechanism: "SCRAM-SHA-256",
      message: "n,,n=default,r=abcdefghijklmnopqrstuvwx"
    })
    await challenged.next(M.authChallenge)
    const told = Promise.all([silent, half, greeted, challenged].map((raw) => raw.refused(Code.draining)))
    await endsInOrder(program)
    assert.deepStrictEqual(new Set(await told), new Set(["the manager has stopped listening"]))
  }, 60_000)

  it("while TLS handshakes are under way", async () => {
    const cwd = temporaryFolder()
    const made = makeCertificate({
      ...{ key: makeSigningKey(), hosts: ["127.0.0.1"] },
      ...{ serial: randomBytes(16), now: Date.now() }
    })
    writeFileSync(join(cwd, "cert.pem"), made.certificate)
    writeFileSync(join(cwd, "key.pem"), made.privateKey, { mode: 0o600 })
    const { port, program } = await serve(["--data", folder(), "--tls-cert", "cert.pem", "--tls-key", "key.pem"], {
      cwd
    })
    const closed = [undefined, Uint8Array.of(0x16, 3, 1, 2, 0, 1, 0)].map(
      (bytes) =>
        new Promise<void>((resolve) => {
          const socket = net.connect(port, "127.0.0.1", () => bytes !== undefined && socket.write(bytes))
          socket.on("error", () => {})
          socket.on("close", () => resolve())
        })
    )
    // One whose TLS is done, and who says nothing: those before it have been taken by then.
    await new Promise<void>((resolve, reject) => {
      const socket = tls.connect({ host: "127.0.0.1", port, rejectUnauthorized: false }, resolve)
      socket.once("error", reject)
      socket.on("error", () => {})
    })
    await endsInOrder(program)
    await Promise.all(closed)
  }, 60_000)

  it("while producers put without end; what was answered is there when it is back, and they and workers go on", async () => {
    const data = folder()
    const { port, program } = await serve(["--data", data])
    const worker = startWorker(port)
    const answered = new Set<string>()
    let returned = false
    const produce = (lane: number) =>
      Effect.gen(function* () {
        let afterwards = 0
        for (let i = 0; afterwards < 50; i++) {
          const id = `${lane}-${i}`
          for (;;) {
            const end = yield* Effect.result(Jobs.put({ name: id, ms: 0 }, { id }))
            if (end._tag === "Success") break
            // Nothing is in doubt: it is put again, and was not there before.
            assert.strictEqual(Errors.facts[end.failure._tag].outcome, "definite", end.failure._tag)
            yield* Effect.sleep("20 millis")
          }
          answered.add(id)
          if (returned) afterwards++
        }
      })
    const all = Effect.gen(function* () {
      const producers = yield* Effect.forkChild(
        Effect.forEach(
          Array.from({ length: 32 }, (_, lane) => lane),
          produce,
          { concurrency: "unbounded", discard: true }
        )
      )
      yield* Effect.promise(() => worker.said(/end \d+-\d+/))
      yield* Effect.promise(() => endsInOrder(program))
      const before = answered.size
      assert.strictEqual((yield* Effect.flip(Jobs.put({ name: "nowhere", ms: 0 })))._tag, "ConnectFailed")
      yield* Effect.promise(() => serve(["--data", data, "--port", String(port)]))
      returned = true
      yield* Fiber.join(producers)
      yield* Effect.promise(() => worker.said(/connected to the manager at .* again/))
      yield* Jobs.join()
      const { dead, done, duplicates, puts } = yield* Jobs.stats
      assert.deepStrictEqual([puts, done, dead, duplicates], [answered.size, answered.size, 0, 0])
      assert.isAbove(before, 0)
      assert.isAbove(answered.size, before)
    })
    await Effect.runPromise(
      all.pipe(
        Effect.provide(Client.layerTcp({ port, auth: { key: key }, reconnectCap: "200 millis" })),
        Effect.timeout(Duration.minutes(1)),
        Effect.scoped
      )
    )
  }, 90_000)
})
