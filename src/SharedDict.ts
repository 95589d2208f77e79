/** A dict shared by all clients of a manager. See `actor/SharedDict.ts`. */
export * from "./actor/SharedDict.ts"
