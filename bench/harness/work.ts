/** What a work is: something that can be measured on a system, in variants. */
import type { Durability, Measurement } from "./report.ts"

export interface WorkOptions {
  readonly runs: number
  /** Tasks (or samples) of one run; undefined: the work's own choice for the variant. */
  readonly tasks: number | undefined
  /** All works are run: each takes its shorter form, so that they end within two minutes together. */
  readonly short: boolean
  /** Undefined: all. */
  readonly variant: string | undefined
  /** Undefined: the work's own choice. */
  readonly durabilities: ReadonlyArray<Durability> | undefined
  /** Only with `--peers`; undefined: all. Millrace is always among them. */
  readonly systems?: ReadonlyArray<string> | undefined
  readonly profile: { readonly directory: string; readonly name: string } | undefined
}

export interface WorkReport {
  readonly measurements: ReadonlyArray<Measurement>
  /** For people: settings, CPU time, profiles. */
  readonly notes: ReadonlyArray<string>
  /** Budgets that were not kept: said after the figures, with exit code 1. */
  readonly failures?: ReadonlyArray<string>
}

export interface Work {
  readonly name: string
  readonly variants: ReadonlyArray<string>
  /** Takes minutes, or programs of others: it runs when `--only` names it, and is no part of a run of all works. */
  readonly onlyByName?: boolean
  /** Runs where `--runs` says nothing; 5 if this does not either. */
  readonly runs?: number
  /** The same when all works are run. */
  readonly shortRuns?: number
  /** `--profile` gives the hottest functions of its processes. */
  readonly profiled?: boolean
  readonly run: (options: WorkOptions) => Promise<WorkReport>
}
