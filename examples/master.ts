/**
 * The master of the ancestor's two programs (Python's `multiprocessing.managers`), translated line by line.
 *
 *     class QueueManager(BaseManager): pass                       the two queues of queues.ts
 *     task_queue, result_queue = Queue(), Queue()
 *     QueueManager.register('getTaskQueue', lambda: task_queue)
 *     QueueManager.register('getResultQueue', lambda: result_queue)
 *     manager = QueueManager(address=('', 8001), authkey=...)     Manager.layerTcp
 *     manager.start(); task = manager.getTaskQueue(); ...
 *     for url in ["ImageUrl_" + str(i) for i in range(10)]:       put ten tasks
 *         print('put task %s ...' % url); task.put(url)
 *     print('try get result...')
 *     for i in range(10): print('result is %s' % result.get(timeout=10))
 *     manager.shutdown()
 *
 * Run it with `node examples/master.ts` (Node >= 22.19) or `deno run -A examples/master.ts`, then worker.ts in a second
 * terminal. The original bound every address of the machine with nothing but the authkey; here that takes
 * `--insecure-network`, and two machines are better served by TLS with a join string, which a later version brings.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Layer } from "effect"
import { Manager, Store } from "../src/index.ts"
import { authkey, getResultQueue, getTaskQueue, port } from "./queues.ts"

const insecureNetwork = process.argv.includes("--insecure-network")

const ManagerLive = Manager.layerTcp({
  host: insecureNetwork ? "0.0.0.0" : "127.0.0.1",
  port,
  auth: { key: authkey },
  insecureNetwork
}).pipe(Layer.provideMerge(Manager.layer({ queues: [getTaskQueue, getResultQueue] })), Layer.provide(Store.layerMemory))

const master = Effect.gen(function* () {
  for (const url of Array.from({ length: 10 }, (_, i) => `ImageUrl_${i}`)) {
    yield* Console.log(`put task ${url} ...`)
    yield* getTaskQueue.put(url)
  }
  yield* Console.log("try get result...")
  for (let i = 0; i < 10; i++) {
    const result = yield* getResultQueue.get({ timeout: "10 seconds" })
    yield* Console.log(`result is ${result}`)
  }
})

master.pipe(
  Effect.catchTag("Empty", () => Console.log("No result came for ten seconds: is a worker running?")),
  Effect.provide(ManagerLive),
  NodeRuntime.runMain
)
