/** A counter shared by all clients of a manager. See `actor/SharedCounter.ts`. */
export * from "./actor/SharedCounter.ts"
