/**
 * Runs a function after what the event loop has in hand: data that has arrived is handed over first, so that rounds and
 * writes form by themselves. One macrotask, no timer; Node, Deno and Bun all have it.
 */
import { setImmediate } from "node:timers"

let turn: (run: () => void) => void = (run) => void setImmediate(run)

export const soon = (run: () => void): void => turn(run)

/** Replaces the event loop, for a simulation; returns what puts the old one back. */
export const useTurns = (replacement: (run: () => void) => void): (() => void) => {
  const before = turn
  turn = replacement
  return () => {
    turn = before
  }
}
