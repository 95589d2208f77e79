/** Queue definitions, and what a program does with a queue. See `client/TaskQueue.ts`. */
export * from "./client/TaskQueue.ts"
