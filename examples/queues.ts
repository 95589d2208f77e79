/** What master and worker share: the two queues of the original, its port and its authkey. */
import { Schema } from "effect"
import { TaskQueue } from "../src/index.ts"

export const port = Number(process.env["MILLRACE_PORT"] ?? "8001")
export const authkey = "痛点就是起点"

export const getTaskQueue = TaskQueue.make("getTaskQueue", { payload: Schema.String })
export const getResultQueue = TaskQueue.make("getResultQueue", { payload: Schema.String })
