/**
 * Faktory, which is named and left out: its server is a Go program that is in neither npm (whose `faktory-worker` is a client
 * of it) nor Debian, and nothing was written that could not be tried.
 */
import type { System } from "../system.ts"

export const faktory: System = {
  name: "faktory",
  variants: [],
  durabilities: [],
  missing: () => "its server is a package of neither npm nor Debian, so there is no program for it here",
  version: () => "",
  warmUp: 0,
  start: () => Promise.reject(new Error("there is no program for faktory"))
}
