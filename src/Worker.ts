/** Worker programs. See `worker/Worker.ts`. */
export * from "./worker/Worker.ts"
