/** What a work is: something that can be measured on a system, in variants. */
import type { Durability, Measurement } from "./report.ts"

export interface WorkOptions {
  readonly runs: number
  /** Tasks (or samples) of one run; undefined: the work's own choice for the variant. */
  readonly tasks: number | undefined
  /** Undefined: all. */
  readonly variant: string | undefined
  /** Undefined: the work's own choice. */
  readonly durabilities: ReadonlyArray<Durability> | undefined
  readonly profile: { readonly directory: string; readonly name: string } | undefined
}

export interface WorkReport {
  readonly measurements: ReadonlyArray<Measurement>
  /** For people: settings, CPU time, profiles. */
  readonly notes: ReadonlyArray<string>
}

export interface Work {
  readonly name: string
  readonly variants: ReadonlyArray<string>
  /** Takes minutes, or programs of others: it runs when it is named, and is no part of a run of all works. */
  readonly onlyByName?: true
  readonly run: (options: WorkOptions) => Promise<WorkReport>
}
