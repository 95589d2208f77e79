/** Millrace: distributed processes for Effect. */
export * as Client from "./Client.ts"
export * as Errors from "./Errors.ts"
export * as Limits from "./Limits.ts"
export * as Manager from "./Manager.ts"
export * as Store from "./Store.ts"
export * as Task from "./Task.ts"
export * as TaskQueue from "./TaskQueue.ts"
export * as Worker from "./Worker.ts"
