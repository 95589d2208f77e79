/**
 * Runs a function after what the event loop has in hand: data that has arrived is handed over first, so that rounds and
 * writes form by themselves. One macrotask, no timer; Node, Deno and Bun all have it.
 */
import { setImmediate } from "node:timers"

export const soon = (run: () => void): void => void setImmediate(run)
