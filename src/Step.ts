/** Steps of a handler that are recorded and not run again. See `worker/Step.ts`. */
export * from "./worker/Step.ts"
