/**
 * Judges what is left of the shared objects (S4, S21): what joins a commit happened once for each task that succeeded, and
 * never without it; what was asked for by hand happened once if it was answered, and not at all if it was refused.
 *
 * Requests about one key are held against each other in real time: what was answered before another request began is
 * known to it.
 */
import type { Account } from "./Check.ts"
import type { History, SharedCall } from "./History.ts"
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

// ---- by hand

/** Whether it may have had its effect. */
const maybe = ({ verdict }: SharedCall): boolean => verdict !== "definite"
const ok = ({ verdict }: SharedCall): boolean => verdict === "ok"

export const byHand = (calls: ReadonlyArray<SharedCall>, ends: ObjectEnds, violated: Violated): void => {
  const byKey = new Map<string, Array<SharedCall>>()
  for (const call of calls) {
    const known = byKey.get(`${call.queue} ${call.key}`)
    if (known === undefined) byKey.set(`${call.queue} ${call.key}`, [call])
    else known.push(call)
  }
  for (const [name, about] of byKey) {
    const { key, queue } = about[0]!
    const end = ends.get(queue)
    const say = (invariant: string, text: string): void => violated(invariant, `${name}: ${text}`)
    if (end?.kind === "counter") counted(about, end.value, say)
    else if (end?.kind === "set") {
      const there = end.keys.includes(key)
      if (queue === "owned") followed(about, there, say)
      else grown(about, there, say)
    } else if (end?.kind === "dict" && queue === "onces") once(about, end.entries.get(key)?.value, say)
    else if (end?.kind === "dict") versioned(about, end.entries.get(key), say)
  }
}

type Say = (invariant: string, text: string) => void

/** A key that is only ever added. */
const grown = (calls: ReadonlyArray<SharedCall>, there: boolean, say: Say): void => {
  const adds = calls.filter((call) => call.op === "add" && maybe(call))
  const done = adds.filter(ok)
  const news = done.filter(({ answer }) => answer === true)
  if (news.length > 1) say("S21", `it was new ${news.length} times`)
  if (news.length === 0 && there && adds.length === done.length) say("S21", "it is there and was never new")
  if (there && adds.length === 0) say("S21", "it is there and nobody added it")
  if (!there && done.length > 0) say("S1", "its addition was acknowledged, and it is not there")
  const known = Math.min(...done.map(({ endedAt }) => endedAt))
  const begun = Math.min(...adds.map(({ startedAt }) => startedAt))
  for (const call of calls.filter(ok)) {
    const found = call.op === "has" ? call.answer === true : call.answer === false
    if (call.startedAt > known && !found) say("S1", `${call.op} did not find what was acknowledged before`)
    if (call.op === "has" && found && call.endedAt < begun) say("S21", "it was found before it was added")
  }
}

/** A key of one user, who asks for one thing after the other, up to the first that does not end well. */
const followed = (calls: ReadonlyArray<SharedCall>, there: boolean, say: Say): void => {
  let is = false
  for (const { answer, op, verdict } of calls) {
    if (verdict === "definite") continue
    if (verdict !== "ok") return
    if (answer !== (op === "add" ? !is : is)) say("S21", `${op} was answered with ${answer}`)
    is = op === "has" ? is : op === "add"
  }
  if (there !== is) say("S1", `it is ${there ? "" : "not "}there, its last change was acknowledged`)
}

/** Sums of a counter that only grows: each answered increment has its own part of the way. */
const counted = (calls: ReadonlyArray<SharedCall>, end: number, say: Say): void => {
  const sumOf = (of: ReadonlyArray<SharedCall>): number => of.reduce((sum, { value }) => sum + value!, 0)
  const done = calls.filter(ok)
  const least = sumOf(done)
  const most = sumOf(calls.filter(maybe))
  if (end < least) say("S1", `${least} was acknowledged, it is ${end}`)
  if (end > most) say("S4", `at most ${most} was added, it is ${end}`)
  const parts = done.map((call) => ({ call, from: (call.answer as number) - call.value!, to: call.answer as number }))
  parts.sort((a, b) => a.to - b.to)
  let latest = 0
  let before = 0
  for (const { call, from, to } of parts) {
    if (from < before) say("S21", `${from} to ${to} was given twice`)
    if (call.endedAt < latest) say("S21", `${to} was answered before a smaller sum was asked for`)
    latest = Math.max(latest, call.startedAt)
    before = to
  }
}

/** A key that is written only where it is absent, and never deleted. */
const once = (calls: ReadonlyArray<SharedCall>, end: number | undefined, say: Say): void => {
  const done = calls.filter(ok)
  const first = done.filter(({ answer }) => answer === true)
  if (first.length > 1) say("S21", `it was absent ${first.length} times`)
  if (end === undefined && done.length > 0) say("S1", "it was written, and is absent")
  if (first.length === 1 && end !== undefined && end !== first[0]!.value) {
    say("S21", `${first[0]!.value} was written first, it is ${end}`)
  }
  const writer = calls.find(({ value }) => value === end)
  if (end === undefined || writer === undefined) return
  if (!maybe(writer) || (ok(writer) && writer.answer === false)) say("S3", `it is ${end}, which was refused`)
}

interface Entry {
  readonly value: number
  readonly version: number
}

/** A key that is read, written, written with a condition, and deleted. */
const versioned = (calls: ReadonlyArray<SharedCall>, end: Entry | undefined, say: Say): void => {
  const isWrite = ({ op }: SharedCall): boolean => op === "write" || op === "writeIf"
  const writers = new Map(calls.filter(isWrite).map((call) => [call.value!, call]))
  const deletions = calls.filter((call) => call.op === "delete" && maybe(call))
  const done = calls.filter((call) => isWrite(call) && ok(call))
  const values = new Map<number, number>()
  const bases = new Set<number>()
  for (const { answer, expected, value } of done) {
    const version = answer as number
    if (values.has(version)) say("S21", `version ${version} was given to two writes`)
    values.set(version, value!)
    if (expected === undefined) continue
    if (version <= expected) say("S21", `version ${version} rests on version ${expected}`)
    if (expected > 0 && bases.has(expected)) say("S21", `two writes rest on version ${expected}`)
    bases.add(expected)
  }
  /** Someone knows that this was there (or, version 0, that nothing was) at some time between. */
  const seen = (from: number, to: number, version: number, value: number | undefined): void => {
    for (const write of done) {
      if (write.endedAt >= from || version >= (write.answer as number)) continue
      if (version > 0 || deletions.length === 0) say("S1", `version ${version} was seen after version ${write.answer}`)
    }
    if (version === 0 || value === undefined) return
    const writer = writers.get(value)
    if (writer === undefined || writer.startedAt > to) return say("S21", `${value} was read and not written before`)
    if (!maybe(writer)) say("S3", `${value} was read, and its write was refused`)
    if (ok(writer) && writer.answer !== version) say("S21", `${value} has versions ${writer.answer} and ${version}`)
    const other = values.get(version)
    if (other !== undefined && other !== value) say("S21", `version ${version} is ${other} and ${value}`)
    values.set(version, value)
    for (const deletion of deletions) {
      if (!ok(deletion) || deletion.endedAt >= from || writer.endedAt >= deletion.startedAt) continue
      say("S21", `${value} was read after it had been deleted`)
    }
  }
  for (const call of calls) {
    if (call.op === "read" && ok(call)) seen(call.startedAt, call.endedAt, call.answer as number, call.value)
    if (call.op !== "writeIf") continue
    // What it rests on was there when it was written; a refusal says what was there instead.
    if (ok(call)) seen(call.startedAt, call.endedAt, call.expected!, undefined)
    else if (call.error === "Conflict" && call.answer === call.expected) say("S21", "a write was refused for nothing")
  }
  seen(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, end?.version ?? 0, end?.value)
}
