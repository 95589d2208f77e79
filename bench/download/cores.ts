/** One core for the client and another for everything else, where there are two and `taskset` is installed. */
import { availableParallelism } from "node:os"
import { findProgram } from "../peers/system.ts"

const pinned = availableParallelism() > 1 && findProgram("taskset") !== undefined

const on = (core: number): ReadonlyArray<string> => (pinned ? [findProgram("taskset")!, "-c", String(core)] : [])

/** What the client and its helpers are started through. */
export const clientCore = on(1)
/** The server, and whatever else does not belong to the client. */
export const otherCore = on(0)

export const coresNote = pinned ? "the client on core 1, everything else on core 0" : "client and server on all cores"
