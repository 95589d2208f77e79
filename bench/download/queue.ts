/** The queue of the work `download`: one task, one file. */
import * as Schema from "effect/Schema"
import { Download } from "../../src/crawl/index.ts"
import * as TaskQueue from "../../src/TaskQueue.ts"

export const Files = TaskQueue.make("bench.files", {
  payload: Schema.Struct({ url: Schema.String, path: Schema.String, sync: Schema.Boolean }),
  result: Schema.Struct({ bytes: Schema.Int, sha256: Schema.String }),
  checkpoint: Download.Checkpoint
})
