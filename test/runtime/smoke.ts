/**
 * The same smoke on every runtime: a manager, a worker over TCP, tasks by hand and by handler, a crawl of the sample site
 * with worker processes of this runtime. Prints one line a check; exits 0 only if all hold.
 */
import assert from "node:assert/strict"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import process from "node:process"
import { fileURLToPath } from "node:url"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Layer, Schema, Stream } from "effect"
import { Activity, DurableDeferred, Workflow } from "effect/workflow"
import { startSite } from "../../examples/sample-site/site.ts"
import { fingerprintOf, makeCertificate } from "../../src/auth/Certificate.ts"
import { encodeJoin } from "../../src/auth/Join.ts"
import { runCrawl } from "../../src/cli/runCrawl.ts"
import { Client, Manager, Signal, Step, Store, TaskQueue, Worker, Workflows } from "../../src/index.ts"
import { makeSigningKey, randomBytes } from "../../src/platform/Crypto.ts"

const key = "smoke-0123456789abcdefghijklmnopqrstuvwxyzABCDEF"

const Jobs = TaskQueue.make("jobs", {
  payload: Schema.Struct({ n: Schema.Int }),
  result: Schema.Int,
  policy: { lease: "2 seconds" }
})
const Hand = TaskQueue.make("by-hand", { payload: Schema.String, result: Schema.String })

let passed = 0
const check = (name: string): void => {
  passed++
  console.log(`ok   ${name}`)
}

const own = makeCertificate({
  key: makeSigningKey(),
  hosts: ["localhost", "127.0.0.1"],
  serial: randomBytes(16),
  now: Date.now()
})

/** Deno exports no keying material: there the certificate alone protects. */
const binds = !("Deno" in globalThis)

const secure = Effect.gen(function* () {
  const { address } = yield* Manager.Listening
  const port = address._tag === "Tcp" ? address.port : 0
  const letter = (fingerprint: string, options: Partial<Client.ConnectOptions> = {}) => {
    const join = encodeJoin({ user: "default", host: "127.0.0.1", port, fingerprint })
    const exchange = Effect.andThen(Hand.put("x"), Hand.get({ timeout: "5 seconds" }))
    return Effect.result(Effect.provide(exchange, Client.layerTcp({ join, auth: { key }, ...options })))
  }
  const fingerprint = fingerprintOf(own.certificate)!
  assert.equal((yield* letter(fingerprint))._tag, "Success")
  assert.equal((yield* letter(fingerprint, { channelBinding: "required" }))._tag, binds ? "Success" : "Failure")
  const other = yield* letter(fingerprint.replace(/^./, (digit) => (digit === "0" ? "1" : "0")))
  assert.equal(other._tag === "Failure" && other.failure._tag, "ConnectFailed")
  assert.equal((yield* letter(fingerprint, { tls: { authorities: own.certificate } }))._tag, "Success")
}).pipe(
  Effect.provide(
    Manager.layerTcp({ port: 0, auth: { key }, tls: own }).pipe(
      Layer.provide(Manager.layer({ queues: [Hand] })),
      Layer.provide(Store.layerMemory)
    )
  )
)

const queues = Effect.gen(function* () {
  const { address } = yield* Manager.Listening
  const port = address._tag === "Tcp" ? address.port : 0
  const client = Client.layerTcp({ port, auth: { key } })
  const worker = Worker.layer(Jobs, (task) => Effect.delay(Effect.succeed(task.payload.n * 2), 1), { concurrency: 8 })
  yield* Effect.gen(function* () {
    yield* Jobs.putAll(Array.from({ length: 1_000 }, (_, n) => ({ n })))
    const outcomes = yield* Jobs.outcomes.pipe(Stream.take(1_000), Stream.runCollect)
    assert.equal(new Set(outcomes.map(({ taskId }) => taskId)).size, 1_000)
    const sum = outcomes.reduce((sum, outcome) => sum + (outcome._tag === "Success" ? outcome.result : 0), 0)
    assert.equal(sum, 999_000)
    check("1000 tasks through a worker, each outcome once")
    const { taskId } = yield* Hand.put("a")
    const [lease] = yield* Hand.lease()
    assert.equal(lease?.taskId, taskId)
    yield* Hand.commit(lease!, "b")
    assert.deepEqual(yield* Hand.outcome(taskId), { _tag: "Success", taskId, attempts: 1, result: "b" })
    check("put, lease, commit and outcome by hand")
    yield* Hand.put("c")
    assert.equal(yield* Hand.get(), "c")
    assert.equal((yield* Effect.flip(Hand.get({ timeout: 0 })))._tag, "Empty")
    check("get, and Empty")
  }).pipe(Effect.provide(worker.pipe(Layer.provideMerge(client))))
  yield* secure
  check("TLS 1.3 by a join string, the login bound where the runtime can, and no other certificate")
  const wrong = Layer.build(Client.layerTcp({ port, auth: { key: `${key}x` } })).pipe(Effect.scoped, Effect.flip)
  assert.equal((yield* wrong)._tag, "AuthenticationFailed")
  check("a wrong key is refused")
}).pipe(
  Effect.provide(
    Manager.layerTcp({ port: 0, auth: { key } }).pipe(
      Layer.provideMerge(Manager.layer({ queues: [Jobs, Hand] })),
      Layer.provide(Store.layerMemory)
    )
  )
)

const Told = Signal.make("told", Schema.String)
const Long = TaskQueue.make("long", {
  payload: Schema.Int,
  result: Schema.String,
  checkpoint: Schema.Int,
  policy: { backoff: { base: 0, jitter: 0 } }
})
const Order = Workflow.make("Order", {
  payload: { id: Schema.String },
  success: Schema.String,
  idempotencyKey: ({ id }) => id
})
const Approval = DurableDeferred.make("Approval", { success: Schema.String })

/** Over SQLite of this runtime. */
const resumable = Effect.gen(function* () {
  let ran = 0
  const worker = Worker.layer(
    Long,
    Effect.fnUntraced(function* (task) {
      yield* task.saveCheckpoint(task.attempt)
      const n = yield* Step.run(
        "once",
        Schema.Int,
        Effect.sync(() => ++ran)
      )
      if (task.attempt === 1) return yield* Effect.die("the first attempt")
      const told = yield* Step.waitFor(Told)
      return `${n} ${told} ${task.checkpoint}`
    })
  )
  yield* Effect.gen(function* () {
    const { taskId } = yield* Long.put(1)
    yield* Effect.repeat(Long.browse({ state: "delayed" }), {
      until: ({ tasks }) => tasks.some(({ suspended }) => suspended),
      times: 2_000
    })
    yield* Long.signal(taskId, Told, "hello")
    const outcome = yield* Long.outcome(taskId)
    assert.equal(outcome._tag === "Success" && outcome.result, "1 hello 2")
    assert.equal(ran, 1)
  }).pipe(Effect.provide(worker))
  check("a step that is recorded, a wait without a worker, a signal, a checkpoint, over SQLite")
  let charged = 0
  const body = Order.toLayer(
    Effect.fnUntraced(function* ({ id }) {
      const charge = Effect.sync(() => `${id} ${++charged}`)
      const receipt = yield* Activity.make({ name: "charge", success: Schema.String, execute: charge })
      return `${receipt} ${yield* DurableDeferred.await(Approval)}`
    })
  )
  const engine = Workflows.layer()
  yield* Effect.gen(function* () {
    yield* Order.execute({ id: "o" }, { discard: true })
    const token = yield* DurableDeferred.tokenFromPayload(Approval, { workflow: Order, payload: { id: "o" } })
    yield* DurableDeferred.succeed(Approval, { token, value: "approved" })
    assert.equal(yield* Order.execute({ id: "o" }), "o 1 approved")
  }).pipe(Effect.provide(body.pipe(Layer.provideMerge(engine))))
  check("a workflow of Effect's at a manager")
})

const atManager = Effect.suspend(() => {
  const directory = mkdtempSync(join(tmpdir(), "millrace-smoke-"))
  const manager = Manager.layer({ queues: [Long] }).pipe(Layer.provide(Store.layerSqlite({ directory })))
  return Effect.ensuring(
    Effect.provide(resumable, manager),
    Effect.sync(() => rmSync(directory, { recursive: true }))
  )
})

const crawl = Effect.gen(function* () {
  const out = mkdtempSync(join(tmpdir(), "millrace-smoke-"))
  const site = yield* Effect.promise(() => startSite({ port: 0 }))
  const script = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url))
  const options = { url: site.url, out, workers: 2, hostConcurrency: 4, script, onProgress: () => Effect.void }
  const report = yield* runCrawl(options).pipe(Effect.provide(NodeServices.layer))
  const { brokenPages, downloaded, failed, images, pages } = report
  assert.deepEqual(
    { pages, brokenPages, images, downloaded, failed },
    { pages: 40, brokenPages: 1, images: 301, downloaded: 300, failed: 1 }
  )
  const lines = readFileSync(join(out, "report.jsonl"), "utf8").trim().split("\n")
  assert.equal(lines.length, 342)
  yield* Effect.promise(() => site.close())
  rmSync(out, { recursive: true })
  check(`a crawl of the sample site with two worker processes (${report.seconds} s)`)
})

await Effect.runPromise(Effect.andThen(queues, Effect.andThen(atManager, crawl)))
console.log(`${passed} checks passed`)
process.exit(passed === 8 ? 0 : 1)
