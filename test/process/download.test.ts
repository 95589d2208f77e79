/**
 * A large file whose worker is killed near its end: another process goes on where it was, or begins again where it has
 * not the folder; and at no moment is there a wrong file at the final path.
 */
import { createHash } from "node:crypto"
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import * as http from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { afterAll, assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Client from "../../src/Client.ts"
import * as Download from "../../src/crawl/Download.ts"
import * as Manager from "../../src/Manager.ts"
import * as Store from "../../src/Store.ts"
import { deterministic } from "../unit/crawl/faultServer.ts"
import { Files } from "./fixtures/downloadQueue.ts"
import { fixture, key, type Program, start, stopAll, temporaryFolder, until } from "./support.ts"

const size = 200_000_000
const body = deterministic(size)
const hashOf = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")
const hash = hashOf(body)
const old = "the file as it was before"
const etag = '"200MB"'
const piece = 1_048_576

/** Bytes that the server gives away for now: below the end a killed worker cannot have been done. */
let gate = size
const requests: Array<{ readonly range: string | undefined; sent: number }> = []

/** About 50 MB a second, up to the gate. */
const server = http.createServer((request, response) => {
  const { "if-range": ifRange, range } = request.headers
  const from = range !== undefined && ifRange === etag ? Number(/^bytes=(\d+)-$/.exec(range)?.[1]) : 0
  const asked = { range, sent: 0 }
  requests.push(asked)
  response.writeHead(from > 0 ? 206 : 200, {
    etag,
    "content-length": size - from,
    ...(from > 0 ? { "content-range": `bytes ${from}-${size - 1}/${size}` } : {})
  })
  let at = from
  const timer = setInterval(() => {
    if (response.destroyed || at === size) return clearInterval(timer)
    if (response.writableNeedDrain) return
    const next = Math.min(at + piece, gate)
    if (next > at) response.write(body.subarray(at, next))
    asked.sent += next - at
    at = next
    if (at === size) response.end()
  }, 20)
  response.on("close", () => clearInterval(timer))
})
const listening = new Promise<string>((resolve) => {
  server.listen(0, "127.0.0.1", () => resolve(`http://127.0.0.1:${(server.address() as AddressInfo).port}/large`))
})

afterAll(async () => {
  await stopAll()
  server.close()
  server.closeAllConnections()
})

/** Looks at the final path all the time: it has the old file, or the right one. */
const watch = (path: string): (() => { readonly looks: number; readonly wrong: ReadonlyArray<string> }) => {
  writeFileSync(path, old)
  const wrong: Array<string> = []
  let looks = 0
  let right = false
  const look = (): void => {
    looks++
    const there = statSync(path, { throwIfNoEntry: false })?.size
    if (there === old.length && !right) return
    if (there === size && right) return
    right = there === size && hashOf(readFileSync(path)) === hash
    if (!right) wrong.push(`${there} bytes`)
  }
  const timer = setInterval(look, 2)
  return () => {
    clearInterval(timer)
    look()
    return { looks, wrong }
  }
}

const temporaryBytes = (directory: string): number =>
  readdirSync(directory)
    .filter((name) => name.startsWith(Download.temporaryPrefix))
    .reduce((most, name) => Math.max(most, statSync(join(directory, name), { throwIfNoEntry: false })?.size ?? 0), 0)

const worker = (url: string, directory: string, checkpoint: string): Program =>
  start(fixture("download.ts"), [url, join(directory, "file.bin"), checkpoint])

/** A worker that is killed when it has 90 % of the file: its folder, and the checkpoint it left. */
const killed = async (url: string) => {
  const directory = temporaryFolder()
  const checkpoint = join(temporaryFolder(), "checkpoint.json")
  const watched = watch(join(directory, "file.bin"))
  gate = size * 0.97
  const first = worker(url, directory, checkpoint)
  await until("it has 90 % of the file", () => temporaryBytes(directory) >= size * 0.9, 45_000)
  first.kill("SIGKILL")
  assert.strictEqual((await first.ended()).signal, "SIGKILL")
  gate = size
  requests.length = 0
  assert.strictEqual(readFileSync(join(directory, "file.bin"), "utf8"), old)
  return { directory, checkpoint, watched }
}

describe("a worker that is killed with SIGKILL at 90 % of 200 MB", () => {
  it("is followed by one that has the folder: less than 15 % is sent again", async () => {
    const url = await listening
    const { checkpoint, directory, watched } = await killed(url)
    const ended = await worker(url, directory, checkpoint).ended(45_000)
    assert.strictEqual(ended.stdout, `done ${size} ${hash}\n`, ended.stderr)
    assert.strictEqual(requests.length, 1)
    assert.isAbove(requests[0]!.sent, 0)
    assert.isAtMost(requests[0]!.sent, size * 0.15)
    const { looks, wrong } = watched()
    assert.deepStrictEqual(wrong, [])
    assert.isAbove(looks, 100)
    assert.strictEqual(hashOf(readFileSync(join(directory, "file.bin"))), hash)
    assert.deepStrictEqual(readdirSync(directory), ["file.bin"])
  })

  it("is followed by one that has another folder: a clean start", async () => {
    const url = await listening
    const { checkpoint, directory, watched } = await killed(url)
    const other = temporaryFolder()
    const watchedThere = watch(join(other, "file.bin"))
    const ended = await worker(url, other, checkpoint).ended(45_000)
    assert.strictEqual(ended.stdout, `done ${size} ${hash}\n`, ended.stderr)
    assert.deepStrictEqual(requests, [{ range: undefined, sent: size }])
    assert.deepStrictEqual([...watched().wrong, ...watchedThere().wrong], [])
    assert.strictEqual(hashOf(readFileSync(join(other, "file.bin"))), hash)
    assert.deepStrictEqual(readdirSync(other), ["file.bin"])
    // what the killed one left goes with the sweep
    assert.strictEqual(readFileSync(join(directory, "file.bin"), "utf8"), old)
    assert.strictEqual(readdirSync(directory).length, 2)
    const swept = Download.sweep(directory, 0).pipe(Effect.provide(NodeServices.layer))
    assert.strictEqual(await Effect.runPromise(swept), 1)
    assert.deepStrictEqual(readdirSync(directory), ["file.bin"])
  })
})

describe("a worker of a manager that is killed with SIGKILL at 90 % of 200 MB", () => {
  const outcomeOf = async (shared: boolean) => {
    const url = await listening
    const listeningManager = Manager.layerTcp({ port: 0, auth: { key } }).pipe(
      Layer.provideMerge(Manager.layer({ queues: [Files] })),
      Layer.provide(Store.layerSqlite({ directory: join(temporaryFolder(), "data") }))
    )
    const first = temporaryFolder()
    const second = shared ? first : temporaryFolder()
    const watched = watch(join(second, "file.bin"))
    requests.length = 0
    gate = size * 0.97
    const program = Effect.flatMap(Manager.Listening, ({ address }) => {
      const port = address._tag === "Tcp" ? address.port : 0
      const worker = (folder: string): Program => start(fixture("downloadWorker.ts"), [String(port), folder])
      return Effect.gen(function* () {
        const { taskId } = yield* Files.put(url)
        const killed = worker(first)
        yield* Effect.promise(() => until("it has 90 % of the file", () => temporaryBytes(first) >= size * 0.9, 45_000))
        // With a heartbeat, not at once: what the manager knows by now is what the next attempt goes on from.
        yield* Effect.promise(() => sleep(1_500))
        const [task] = (yield* Files.browse({ state: "leased" })).tasks
        killed.kill("SIGKILL")
        yield* Effect.promise(() => killed.ended())
        gate = size
        requests.length = 0
        const other = worker(second)
        const outcome = yield* Files.outcome(taskId)
        other.kill("SIGTERM")
        yield* Effect.promise(() => other.ended())
        return { outcome, progress: task?.progress ?? 0 }
      }).pipe(Effect.scoped, Effect.provide(Client.layerTcp({ port, auth: { key } })))
    }).pipe(Effect.provide(listeningManager))
    const { outcome, progress } = await Effect.runPromise(program)
    const { looks, wrong } = watched()
    assert.deepStrictEqual(wrong, [])
    assert.isAbove(looks, 100)
    assert.strictEqual(hashOf(readFileSync(join(second, "file.bin"))), hash)
    assert.strictEqual(temporaryBytes(second), 0)
    // Told once a second, while bytes come.
    assert.isAbove(progress, 0.5)
    if (outcome._tag !== "Success") throw new Error(JSON.stringify(outcome))
    const { attempt, bytes, from, sha256 } = outcome.result
    assert.deepStrictEqual([bytes, sha256, attempt], [size, hash, 2])
    return { from, sent: requests.reduce((sum, { sent }) => sum + sent, 0) }
  }

  it("is followed by another that goes on from the checkpoint at the manager, at 85 % or more", async () => {
    const { from, sent } = await outcomeOf(true)
    assert.isAtLeast(from, size * 0.85)
    assert.isAtMost(sent, size * 0.15)
  }, 120_000)

  it("is followed by another that begins again where it has not the folder", async () => {
    const { sent } = await outcomeOf(false)
    assert.isAtLeast(sent, size)
  }, 120_000)
})
