/** A manager on a Unix socket. */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { Client, Manager, TaskQueue } from "millrace"
import { auth, inProcess } from "./layers.ts"

const Letters = TaskQueue.make("letters", { payload: Schema.String })
const listening = (path: string) => Manager.layerTcp({ path, auth }).pipe(Layer.provide(Layer.fresh(inProcess)))

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-unix-"))),
  (at) => Effect.sync(() => rmSync(at, { recursive: true }))
)

const letter = (path: string) =>
  Effect.andThen(Letters.put("x"), Letters.get({ timeout: "5 seconds" })).pipe(
    Effect.provide(Client.layerTcp({ path, auth }))
  )

describe("a Unix socket", () => {
  it.live("serves programs of its owner and is nobody else's; it is gone with the manager (M20)", () =>
    Effect.gen(function* () {
      const path = join(yield* folder, "manager.sock")
      yield* Effect.gen(function* () {
        assert.deepStrictEqual((yield* Manager.Listening).address, { _tag: "Unix", path })
        assert.strictEqual(statSync(path).mode & 0o077, 0)
        assert.strictEqual(yield* letter(path), "x")
        const second = yield* Effect.flip(Effect.provide(Manager.Listening, listening(path)))
        assert.match(second.message, /the address is in use/)
        assert.strictEqual(yield* letter(path), "x", "the first goes on")
      }).pipe(Effect.provide(listening(path)))
      assert.isUndefined(statSync(path, { throwIfNoEntry: false }))
    }).pipe(Effect.scoped)
  )

  it.live("that a killed program left behind is taken over; another kind of file is not", () =>
    Effect.gen(function* () {
      const path = join(yield* folder, "manager.sock")
      const program = `require("node:net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`
      yield* Effect.promise(() => once(spawn(process.execPath, ["-e", program]), "exit"))
      assert.isTrue(statSync(path).isSocket())
      assert.strictEqual(yield* Effect.provide(letter(path), listening(path)), "x")
      writeFileSync(path, "mine")
      const refused = yield* Effect.flip(Effect.provide(Manager.Listening, listening(path)))
      assert.match(refused.message, /the address is in use/)
      assert.strictEqual(statSync(path).size, 4)
    }).pipe(Effect.scoped)
  )
})
