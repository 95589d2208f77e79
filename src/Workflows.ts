/** Effect's workflows at a manager. See `worker/Workflows.ts`. */
export { layer, type Options, queue } from "./worker/Workflows.ts"
