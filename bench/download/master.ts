/** Puts a task for each file and reads all results: each must be of its file, once. */
import { join } from "node:path"
import * as Effect from "effect/Effect"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Stream from "effect/Stream"
import { monotonicMs, serve } from "../harness/role.ts"
import { client } from "../millrace/connect.ts"
import type { ServedFile } from "./files.ts"
import { Files } from "./queue.ts"

const runtime = ManagedRuntime.make(client)

interface Order {
  readonly files: ReadonlyArray<ServedFile>
  readonly origin: string
  readonly out: string
  readonly sync: boolean
}

/** Seconds from the first put to the last result. */
const pass = ({ files, origin, out, sync }: Order): Promise<number> =>
  runtime.runPromise(
    Effect.gen(function* () {
      const { outcomesNext } = yield* Files.stats
      const beganMs = monotonicMs()
      const payloads = files.map(({ name }) => ({ url: `${origin}/${name}`, path: join(out, name), sync }))
      const put = yield* Files.putAll(payloads)
      const open = new Map(put.map(({ taskId }, i) => [taskId, files[i]!]))
      yield* Files.outcomesFrom(outcomesNext).pipe(
        Stream.take(files.length),
        Stream.runForEach((outcome) =>
          Effect.sync(() => {
            const file = open.get(outcome.taskId)
            if (outcome._tag !== "Success" || !open.delete(outcome.taskId) || outcome.result.sha256 !== file?.sha256) {
              throw new Error(`an outcome that must not be: ${JSON.stringify(outcome).slice(0, 500)}`)
            }
          })
        )
      )
      return (monotonicMs() - beganMs) / 1_000
    })
  )

serve({ ready: () => runtime.runPromise(Effect.void), pass }, () => runtime.dispose())
