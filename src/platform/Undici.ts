/**
 * The one place that names undici, always as `undici/index.js`.
 *
 * On Bun the bare name is a built-in shim that silently ignores custom connectors (oven-sh/bun#42084); the file path
 * loads the real package on Node, Deno and Bun alike. The check below refuses to start with anything else.
 */
import { EventEmitter } from "node:events"
import * as undici from "undici/index.js"

if (typeof undici.Agent.prototype.compose !== "function" || undici.interceptors?.dns === undefined) {
  throw new Error("millrace: the module undici/index.js is not the real undici; install undici 8.12.4")
}

export const Agent = undici.Agent
export type Agent = import("undici/index.js").Agent
export type Dispatcher = import("undici/index.js").Dispatcher
export const request = undici.request

/**
 * What ends requests. undici takes one in place of an `AbortSignal`; every request is made with one, and to make and to fire
 * it costs 0.1 us, where an `AbortController` costs 3.8.
 */
export class Abort extends EventEmitter {
  constructor() {
    super()
    // Each hop of a redirect adds two, and their number is bounded.
    this.setMaxListeners(0)
  }

  /** Every request that was made with it and is not done yet. */
  fire(): void {
    this.emit("abort")
  }
}
