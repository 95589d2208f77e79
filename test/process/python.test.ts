/** The client in Python, which is written from docs/protocol.md alone, against a real manager and beside our own client. */
import { spawnSync } from "node:child_process"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { afterAll, beforeAll } from "vitest"
import * as TaskQueue from "../../src/TaskQueue.ts"
import { ClientType as C, ManagerType as M } from "../../src/wire/Vocabulary.ts"
import { Raw } from "../contract/raw.ts"
import { asClient, fixture, key, type Serving, serve, startCommand, stopAll, temporaryFolder } from "./support.ts"

const reason = (() => {
  const { error, status } = spawnSync("python3", ["-c", "import sys; sys.exit(sys.version_info < (3, 9))"])
  if (error !== undefined) return `there is no python3 (${error.message})`
  return status === 0 ? undefined : "python3 is older than 3.9"
})()
if (reason !== undefined) console.log(`skipped: ${reason}`)

const options = { payload: Schema.Json, result: Schema.Json }
const bytesOptions = { payload: Schema.Uint8Array, result: Schema.Uint8Array }
const ToPython = TaskQueue.make("to-python", options)
const FromPython = TaskQueue.make("from-python", options)
const BytesToPython = TaskQueue.make("bytes-to-python", bytesOptions)
const BytesFromPython = TaskQueue.make("bytes-from-python", bytesOptions)

/** The same values are in check.py. */
const values: ReadonlyArray<Schema.Json> = [
  ...[null, true, false, 0, -1, 127, 128, 65_536, 2 ** 53 - 1, -(2 ** 53 - 1), 1.5, -0.25, 1e-7, 1e21],
  ...["", "plain", "grün 漢字 🦊", 'quote " back \\ line\n\u0000\u2028', [], {}, [[], [[1, [null]]], { a: [] }]],
  { b: 1, a: { é: [1, 2.5, { deep: null }] } }
]
const bytes = [
  new Uint8Array(),
  new Uint8Array(1),
  Uint8Array.from({ length: 256 }, (_, i) => i),
  new Uint8Array(70_000).fill(0x78)
]

let serving: Serving
let keyFile: string

/** What check.py says to this. */
const python = async (what: string, ...args: ReadonlyArray<string>): Promise<unknown> => {
  const script = fixture("python/check.py")
  const program = startCommand("python3", ["-B", script, String(serving.port), keyFile, what, ...args])
  const { code, stderr, stdout } = await program.ended(50_000)
  assert.strictEqual(code, 0, stderr)
  assert.strictEqual(stderr, "")
  return JSON.parse(stdout)
}

afterAll(stopAll)

describe.skipIf(reason !== undefined)(`the client in Python${reason === undefined ? "" : `: ${reason}`}`, () => {
  beforeAll(async () => {
    keyFile = join(temporaryFolder(), "key")
    writeFileSync(keyFile, `${key}\n`, { mode: 0o600 })
    serving = await serve(["--host", "127.0.0.1", "--authkey-file", keyFile], { env: { MILLRACE_AUTHKEY: undefined } })
  })

  it("puts with options, leases in order, commits with children, fails, releases, gets, and reads outcomes", async () => {
    const timedOut = { error: "TimedOut", name: "timedOut", code: 16, definite: true, subject: "py-session" }
    assert.deepStrictEqual(await python("session"), {
      statuses: ["accepted", "accepted", "accepted", "duplicate", "ready", "accepted"],
      sameTask: true,
      before: { ready: 3, delayed: 1, leased: 0, puts: 4, duplicates: 1 },
      order: ["urgent", "plain", "late"],
      lane: "lane",
      rest: [
        ["child", 1],
        ["plain", 2],
        ["late", 1]
      ],
      nothing: [],
      taken: "taken",
      outcomes: [
        ["success", 1, { seen: "urgent" }, []],
        [
          "failure",
          2,
          { why: "broken" },
          [
            [0, "not now"],
            [1, "never"]
          ]
        ],
        ["success", 1, null, []]
      ],
      unended: timedOut,
      join: timedOut,
      held: 0
    })
  })

  it("acknowledges its answers, so that a session may have more than the manager remembers, of several threads", async () => {
    assert.deepStrictEqual(await python("many"), [10_000, true, 8_800])
  })

  it("keeps a lease past its term by heartbeats", async () => {
    assert.deepStrictEqual(await python("beats"), [false, "success", 1, "in time"])
  })

  it("tells each refusal as an error of its own, with its code, its name, and whether it is definite", async () => {
    const said = (error: string, code: number, subject = "py-refusals", definite = true) => {
      const name = `${error[0]!.toLowerCase()}${error.slice(1)}`
      return { error, name, code, definite, subject }
    }
    const authentication = { ...said("AuthenticationFailed", 65, ""), name: "authentication" }
    const answer = (await python("refusals")) as Record<string, { readonly subject: string }>
    const task = answer["stale"]!.subject
    assert.match(task, /^#\d+$/)
    assert.deepStrictEqual<unknown>(answer, {
      wrongKey: authentication,
      nobody: authentication,
      noQueue: said("QueueNotFound", 1, "py-nowhere"),
      policy: said("DefinitionInvalid", 14, "py-policy\nleaseMs\nuse a whole number from 1000 to 86400000"),
      full: said("Full", 4),
      tooLarge: said("PayloadTooLarge", 3),
      fences: [true, true],
      stale: said("LeaseLost", 7, task),
      other: said("LeaseLost", 7, task),
      noTask: said("TaskNotFound", 9),
      ended: said("AlreadyEnded", 8, task),
      result: "fresh",
      closedPut: said("Closed", 6),
      closedLease: said("Closed", 6),
      afterClose: { ...said("ConnectionLost", 0, ""), name: "ConnectionLost" }
    })
  })

  it("leases what our client put, value for value, and our client reads the results", async () => {
    const receipts = await asClient(serving.port, ToPython.putAll(values))
    const bytesReceipts = await asClient(serving.port, BytesToPython.putAll(bytes))
    assert.deepStrictEqual(await python("work"), [true, true])
    const results = await asClient(
      serving.port,
      Effect.forEach(receipts, ({ taskId }) => ToPython.outcome(taskId, { timeout: 0 }))
    )
    assert.deepStrictEqual<unknown>(
      results.map((one) => (one._tag === "Success" ? one.result : one)),
      values
    )
    const bytesResults = await asClient(
      serving.port,
      Effect.forEach(bytesReceipts, ({ taskId }) => BytesToPython.outcome(taskId, { timeout: 0 }))
    )
    assert.deepStrictEqual<unknown>(
      bytesResults.map((one) => (one._tag === "Success" ? one.result : one)),
      bytes
    )
  })

  it("leases a task that has steps and signals, which it passes over, with the checkpoint of its last attempt", async () => {
    const saved = Schema.Struct({ at: Schema.Int })
    const queue = TaskQueue.make("to-python-again", { ...options, checkpoint: saved })
    await asClient(serving.port, queue.put("again"))
    const raw = new Raw(serving.port)
    await raw.login({ key })
    const one = { name: "to-python-again", fingerprint: new Uint8Array(), schema: "", accepts: [], policy: undefined }
    const opened = await raw.ask((request) => ({ type: C.open, request, ...one }))
    assert(opened.type === M.opened)
    const lease = { queue: opened.queue, count: 1, waitMs: 0, get: false }
    const leased = await raw.ask((request) => ({ type: C.lease, request, ...lease }))
    assert(leased.type === M.leased)
    const { fence, task } = leased.items[0]!
    const text = (json: string): Uint8Array => Uint8Array.of(1, ...new TextEncoder().encode(json))
    const items = [{ task, fence, name: "fetched", value: text("200") }]
    await raw.ask((request) => ({ type: C.step, request, items }))
    const signal = { queue: opened.queue, task, id: undefined, name: "!paid", value: text("true") }
    await raw.ask((request) => ({ type: C.signal, request, ...signal }))
    const checkpoint = { tasks: [task], fences: [fence], values: [text('{"at":7}')] }
    await raw.ask((request) => ({ type: C.checkpoint, request, ...checkpoint }))
    await raw.ask((request) => ({ type: C.release, request, held: [task, fence] }))
    raw.destroy()
    assert.deepStrictEqual(await python("again"), ["again", { at: 7 }, 1, false])
  })

  it("puts what our client leases, value for value, and reads the results", async () => {
    const echo = <A>(queue: TaskQueue.TaskQueue<A, A>) =>
      Effect.gen(function* () {
        const leases = yield* queue.lease({ max: 100, timeout: 0 })
        for (const lease of leases) yield* queue.commit(lease, lease.payload)
        return leases.map(({ payload }) => payload)
      })
    // The program that has the Schemas makes the queue.
    await asClient(serving.port, Effect.andThen(FromPython.size, BytesFromPython.size))
    const tasks = await python("put")
    assert.deepStrictEqual(await asClient(serving.port, echo(FromPython)), values)
    assert.deepStrictEqual(await asClient(serving.port, echo(BytesFromPython)), bytes)
    assert.deepStrictEqual(await python("results", JSON.stringify(tasks)), [true, true])
  })

  it("believes no manager that cannot prove the key, nor a length, and says nothing more to it", async () => {
    const [protocol, authentication] = [
      ["ProtocolViolated", 64],
      ["AuthenticationFailed", 65]
    ]
    assert.deepStrictEqual(await python("impostors"), {
      fewIterations: [...authentication!, 2],
      manyIterations: [...authentication!, 2],
      zeroInFront: [...authentication!, 2],
      ownNonce: [...authentication!, 2],
      otherNonce: [...authentication!, 2],
      mandatory: [...protocol!, 2],
      twice: [...protocol!, 2],
      order: [...protocol!, 2],
      signature: [...authentication!, 3],
      unsigned: [...protocol!, 3],
      skipped: [...protocol!, 2],
      noMechanism: [...authentication!, 1],
      magic: [...protocol!, 1],
      version: ["VersionUnsupported", 66, 1],
      ...Object.fromEntries(
        ["tooLong", "empty", "deep", "array", "bin", "cut", "map", "signed", "unknown", "utf8", "short"].map((lie) => [
          lie,
          [...protocol!, 1]
        ])
      ),
      gone: ["ConnectFailed", 0, 1]
    })
  })
})
