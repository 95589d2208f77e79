/** A set shared by all clients of a manager. See `actor/SharedSet.ts`. */
export * from "./actor/SharedSet.ts"
