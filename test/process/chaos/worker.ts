/** A worker that writes down every start and end of a handler before and after it. Arguments: port, file. */
import { appendFileSync } from "node:fs"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Client from "../../../src/Client.ts"
import * as Worker from "../../../src/Worker.ts"
import { auth, Children, Jobs, now } from "./queues.ts"

const [port = "", file = ""] = process.argv.slice(2)

// With the system at once: what was written is there after a kill.
const note = (kind: string, task: string, n: number): void =>
  appendFileSync(file, `${kind} ${now()} ${task} ${n} ${process.pid}\n`)

const jobs = Worker.layer(
  Jobs,
  Effect.fnUntraced(function* (task) {
    const { ms, n } = task.payload
    note("start", task.id, n)
    if (ms > 0) yield* Effect.sleep(ms)
    yield* task.put(Children, { n })
    note("end", task.id, n)
    return { n, pid: process.pid }
  }),
  { concurrency: 16 }
)

const children = Worker.layer(
  Children,
  (task) =>
    Effect.sync(() => {
      note("child", task.id, task.payload.n)
      return { n: task.payload.n }
    }),
  { concurrency: 16 }
)

Layer.mergeAll(jobs, children).pipe(
  Layer.provide(Client.layerTcp({ port: Number(port), auth, waitForManager: true, reconnectCap: "250 millis" })),
  Layer.launch,
  NodeRuntime.runMain
)
