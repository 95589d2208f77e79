/** A task as its handler sees it, and the ways out of a handler. See `worker/Task.ts`. */
export * from "./worker/Task.ts"
