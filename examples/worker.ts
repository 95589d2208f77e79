/**
 * The worker of the ancestor's two programs, translated line by line.
 *
 *     QueueManager.register('getTaskQueue'); QueueManager.register('getResultQueue')
 *     manager = QueueManager(address=(server, 8001), authkey=...)   Client.layerTcp
 *     manager.connect()
 *     task, result = manager.getTaskQueue(), manager.getResultQueue()
 *     while not task.empty():                                       isEmpty
 *         url = task.get(True, timeout=5)                           get({ timeout: "5 seconds" })
 *         print('run task download %s...' % url)
 *         time.sleep(1)
 *         result.put('%s ---> success' % url)
 *
 * Run it with `node examples/worker.ts [host]` or `deno run -A examples/worker.ts [host]` while master.ts runs. Between
 * `get` and `put` a task is this program's alone, as in the original: if it dies there, that task is gone. A worker that
 * loses nothing leases instead; that is `Worker.layer`, see crawler-layers.ts.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect } from "effect"
import { Client } from "../src/index.ts"
import { authkey, getResultQueue, getTaskQueue, port } from "./queues.ts"

const host = process.argv[2] ?? "127.0.0.1"

// The master leaves with its manager when it has its last result, and may do so while we ask whether there is more.
const more = getTaskQueue.isEmpty.pipe(
  Effect.map((empty) => !empty),
  Effect.catchTag(["ConnectionLost", "ConnectFailed"], () => Effect.succeed(false))
)

const worker = Effect.gen(function* () {
  yield* Console.log(`Connect to server ${host}...`)
  while (yield* more) {
    const url = yield* getTaskQueue.get({ timeout: "5 seconds" })
    yield* Console.log(`run task download ${url}...`)
    yield* Effect.sleep("1 second")
    yield* getResultQueue.put(`${url} ---> success`)
  }
})

worker.pipe(
  Effect.catchTag("Empty", () => Console.log("The queue is empty.")),
  Effect.provide(Client.layerTcp({ host, port, auth: { key: authkey } })),
  NodeRuntime.runMain
)
