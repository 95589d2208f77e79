/** What a task may wait for from outside. See `client/Signal.ts`. */
export * from "./client/Signal.ts"
