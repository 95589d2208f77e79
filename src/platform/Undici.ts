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
 * Ends a request in flight. Aborting one that has ended does nothing, where an `AbortController` makes an error with a
 * stack trace for it: 2.4 % of a profile of small downloads, without its events.
 */
export class Abort extends EventEmitter {
  abort(): void {
    this.emit("abort")
  }
}
