/**
 * The same broken-off download, gone on with by us and by `curl -C -`, at the same server. Where curl ends with the right
 * file we must too, and ask for the same bytes. Where it does not we must all the same: curl has no `If-Range`.
 */
import { spawn, spawnSync } from "node:child_process"
import * as nodeFs from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { attempt, Keeper, Live, sha256, temporaryDirectory } from "./downloads.ts"
import * as Server from "./faultServer.ts"

const { error: missing, stdout } = spawnSync("curl", ["--version"], { encoding: "utf8", timeout: 10_000 })
const absent = missing !== undefined || !stdout.startsWith("curl ")

const size = 1_000_000
const bytes = Server.deterministic(size)
const changed = Server.deterministic(size, 2)
const file: Server.ServedFile = { bytes, etag: '"v1"' }
const newer: Server.ServedFile = { bytes: changed, etag: '"v2"' }

/** Goes on with what `path` has. Answers the exit code; 0 is success. */
const curl = (url: string, path: string) =>
  Effect.callback<number>((resume) => {
    const args = ["--silent", "--disable", "--max-time", "20", "--continue-at", "-", "--output", path, url]
    const child = spawn("curl", args, { stdio: "ignore", timeout: 30_000 })
    child.once("exit", (code) => resume(Effect.succeed(code ?? -1)))
    child.once("error", () => resume(Effect.succeed(-1)))
  })

const cases: ReadonlyArray<readonly [name: string, Server.Fault, Server.ServedFile, curlIsRight: boolean]> = [
  ["a server that gives the rest", Server.honest, file, true],
  ["a server that knows no ranges", Server.ignoresRange, file, false],
  ["a file that has changed", Server.honest, newer, false],
  ["a part of a file that has changed, whatever is asked", Server.ignoresIfRange, newer, false],
  ["a part from further on", Server.shiftedPart(1), file, false],
  ["a part without Content-Range", Server.noContentRange, file, false],
  ["416 to every part", Server.unsatisfiable, file, false],
  ["a body that is cut again", Server.cutAt(900_000), file, false],
  ["a part that is shorter than asked", Server.shortPart(1_000), file, false]
]

describe.skipIf(absent)("beside curl (skipped where there is none)", () => {
  for (const [name, fault, served, curlIsRight] of cases) {
    it.live(`${name}: we end with the right file, curl ${curlIsRight ? "too" : "does not"}`, () =>
      Effect.gen(function* () {
        const directory = yield* temporaryDirectory
        const keeper = new Keeper()
        const server = yield* Server.faultServer(file)
        server.fault = Server.cutAt(600_000)
        yield* Effect.flip(attempt(server.origin, directory, keeper))
        const held = keeper.checkpoint!.bytes
        const other = `${directory}/curl.bin`
        nodeFs.writeFileSync(other, bytes.subarray(0, held))

        server.file = served
        server.fault = fault
        server.requests.length = 0
        const code = yield* curl(`${server.origin}/file`, other)
        // an error, or success with a file that is not the server's (curl 7.88: when it has changed, at 416, at a short part)
        const right = code === 0 && sha256(nodeFs.readFileSync(other)) === sha256(served.bytes)
        assert.strictEqual(right, curlIsRight, `exit code ${code}`)
        const range = server.requests[0]!.range
        assert.strictEqual(range, `bytes=${held}-`)

        server.requests.length = 0
        let result = yield* Effect.option(attempt(server.origin, directory, keeper))
        assert.strictEqual(server.requests[0]!.range, range)
        // a body that is cut is for the queue to try again
        server.fault = Server.honest
        if (result._tag === "None") result = yield* Effect.option(attempt(server.origin, directory, keeper))
        assert.strictEqual(result._tag === "Some" && result.value.sha256, sha256(served.bytes))
        assert.strictEqual(sha256(nodeFs.readFileSync(`${directory}/file.bin`)), sha256(served.bytes))
      }).pipe(Effect.provide(Live))
    )
  }
})
