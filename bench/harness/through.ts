/** A longer way to a server, for the variants that add to the round trip. */
import type { Child, StartOptions } from "./children.ts"

/** Answers, for the port of a server, the one that clients dial: its own if nothing is added. */
export const through =
  (start: (options: StartOptions) => Child, addedRoundTripMs: number) =>
  async (port: number): Promise<number> => {
    if (addedRoundTripMs === 0) return port
    const proxy = start({ name: "delay", script: new URL("./delay.ts", import.meta.url) })
    return proxy.call<number>("through", { port, eachWayMs: addedRoundTripMs / 2 })
  }
