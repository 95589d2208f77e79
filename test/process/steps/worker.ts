/**
 * A worker whose steps are written down as they run, and as they are recorded. Arguments: port, journal, where to kill itself
 * (`place:step`, or nothing).
 */

import { randomBytes } from "node:crypto"
import { appendFileSync } from "node:fs"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Client from "../../../src/Client.ts"
import * as Step from "../../../src/Step.ts"
import * as Worker from "../../../src/Worker.ts"
import { auth, names, Steps, valueOf } from "./queue.ts"

const [port = "", journal = "", kill = ""] = process.argv.slice(2)
const [place = "", at = ""] = kill.split(":")

const Value = Schema.Struct({ value: Schema.Int, nonce: Schema.String })

// With the system at once: what was written is there after a kill.
const note = (...words: ReadonlyArray<string | number>): void => appendFileSync(journal, `${words.join(" ")}\n`)

const worker = Worker.layer(
  Steps,
  Effect.fnUntraced(function* (task) {
    const { n, sleepMs } = task.payload
    note("start", n, task.attempt, process.pid)
    const die = (where: string, step: number): void => {
      // A task that was lost once is left alone: the third loss would quarantine it.
      if (place !== where || Number(at) !== step || task.attempt > 1) return
      note("kill", n, step, where)
      process.kill(process.pid, "SIGKILL")
    }
    const run = Effect.fnUntraced(function* (step: number) {
      die("before", step)
      const value = yield* Step.run(
        names[step]!,
        Value,
        Effect.gen(function* () {
          const nonce = randomBytes(6).toString("hex")
          note("run", n, step, nonce, process.pid)
          die("within", step)
          yield* Effect.sleep(step % 2 === 0 ? 2 : 6)
          die("done", step)
          return { value: valueOf(n, step), nonce }
        })
      )
      note("recorded", n, step, value.nonce)
      die("recorded", step)
      return value
    })
    const values = [yield* run(0), yield* run(1), yield* run(2)]
    yield* task.saveCheckpoint({ done: 3 })
    if (sleepMs > 0) yield* Step.sleep("a while", sleepMs)
    values.push(...(yield* Effect.all([run(3), run(4)], { concurrency: 2 })), yield* run(5))
    note("end", n, process.pid)
    return { n, values: values.map(({ value }) => value), nonces: values.map(({ nonce }) => nonce) }
  }),
  { concurrency: 4, prefetch: 4 }
)

worker.pipe(
  Layer.provide(Client.layerTcp({ port: Number(port), auth, waitForManager: true, reconnectCap: "100 millis" })),
  Layer.launch,
  NodeRuntime.runMain
)
