/**
 * Judges what is left of the shared objects against what became of the tasks (S4, S21): what joins a commit happened once
 * for each task that succeeded, and never without it.
 */
import type { Account } from "./Check.ts"
import type { History } from "./History.ts"
import type { Violated } from "./Ledger.ts"
import { inChain } from "./Sharing.ts"

/** What a client reads of one object in the end. */
export type ObjectEnd =
  | { readonly kind: "counter"; readonly value: number }
  | { readonly kind: "set"; readonly keys: ReadonlyArray<string> }
  | {
      readonly kind: "dict"
      readonly entries: ReadonlyMap<string, { readonly value: number; readonly version: number }>
    }

export type ObjectEnds = ReadonlyMap<string, ObjectEnd>

/** Assumes: every commit of this queue had the effects of `Sharing.collect`. */
export const commits = (
  queue: string,
  accounts: ReadonlyArray<Account>,
  byId: ReadonlyMap<string, Account>,
  { children, outcomes }: Pick<History, "children" | "outcomes">,
  ends: ObjectEnds,
  violated: Violated
): void => {
  const successes = accounts.filter((account) => account.queue === queue && account.task.outcome === 0)
  const succeeded = new Map(successes.map((account) => [String(account.u), account]))
  const counter = ends.get(`successes.${queue}`)
  if (counter?.kind === "counter" && counter.value !== successes.length) {
    violated("S21", `${successes.length} tasks of ${queue} succeeded and counted up to ${counter.value}`)
  }
  const marked = ends.get(`marked.${queue}`)
  if (marked?.kind === "set") differences(`the set of ${queue}`, marked.keys, succeeded, violated)
  const results = ends.get(`results.${queue}`)
  if (results?.kind === "dict") {
    differences(`the dict of ${queue}`, [...results.entries.keys()], succeeded, violated)
    for (const { outcome, queue: of, result, taskId } of outcomes) {
      if (outcome !== "Success" || of !== queue) continue
      const entry = results.entries.get(String(byId.get(taskId)?.u))
      if (entry !== undefined && entry.value !== result) {
        violated("S21", `task ${taskId} has result ${result}, and its commit wrote ${entry.value}`)
      }
    }
  }
  const chain = ends.get(`chain.${queue}`)
  if (chain?.kind === "dict") {
    const value = chain.entries.get("n")?.value ?? 0
    const expected = successes.filter(({ u }) => inChain(u)).length
    if (value !== expected) violated("S21", `${expected} commits of ${queue} counted the chain up, to ${value}`)
  }
  const links = ends.get(`links.${queue}`)
  if (links?.kind === "set") ifNew(`links.${queue}`, links.keys, accounts, children, violated)
}

const differences = (
  what: string,
  keys: ReadonlyArray<string>,
  expected: ReadonlyMap<string, unknown>,
  violated: Violated
): void => {
  const found = new Set(keys)
  if (found.size !== keys.length) violated("S21", `${what} lists a key twice`)
  for (const key of found) if (!expected.has(key)) violated("S4", `${what} has ${key}, whose commit never was`)
  for (const key of expected.keys()) if (!found.has(key)) violated("S4", `${what} lacks ${key}, whose commit was done`)
}

/** A key of the set has exactly one child, and a child its key. */
const ifNew = (
  set: string,
  keys: ReadonlyArray<string>,
  accounts: ReadonlyArray<Account>,
  children: History["children"],
  violated: Violated
): void => {
  const put = new Set(accounts.map(({ u }) => u))
  const found = new Map<string, number>()
  for (const { ifNew, item } of children) {
    if (ifNew?.set !== set || !put.has(item.u)) continue
    const before = found.get(ifNew.key)
    if (before !== undefined) violated("S4", `key ${ifNew.key} of ${set} was new to payloads ${before} and ${item.u}`)
    found.set(ifNew.key, item.u)
  }
  differences(set, keys, found, violated)
}
