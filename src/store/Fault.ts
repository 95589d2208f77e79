/**
 * What a store can run into, as plain data that crosses a thread; `Sqlite.ts` makes the public errors of it.
 *
 * Nothing here imports Effect: a store's thread loads only what it needs to write and read.
 */

export type Fault =
  | { readonly kind: "broken"; readonly reason: string; readonly code: number; readonly remedy: string }
  | { readonly kind: "full"; readonly neededBytes: number }
  | { readonly kind: "damaged"; readonly file: string; readonly finding: string; readonly remedy: string }
  | { readonly kind: "locked"; readonly directory: string; readonly holder: string; readonly remedy: string }
  | { readonly kind: "tooNew"; readonly file: string; readonly found: number; readonly known: number }
  | { readonly kind: "misconfigured"; readonly field: string; readonly value: string; readonly remedy: string }

/** Carries a fault out of an opening. */
export class Refused extends Error {
  readonly fault: Fault

  constructor(fault: Fault) {
    super(fault.kind)
    this.fault = fault
  }
}

export const remedies = {
  restart:
    "look at the disk and the system's log, then start again: what was answered is read back from the file, what was under way may be there or not",
  restore:
    "keep a copy of the folder; put a backup of it back and open it with acceptLoss (serve --accept-loss), or name another directory to begin anew",
  vanished:
    "put back the file that belongs here; to go on with what the file has, and lose the rest for good, open it with acceptLoss (serve --accept-loss)"
} as const
