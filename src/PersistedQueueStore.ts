/** Effect's `PersistedQueue` and `DurableQueue` at a manager. See `worker/PersistedQueueStore.ts`. */
export { layer, type Options, queue } from "./worker/PersistedQueueStore.ts"
