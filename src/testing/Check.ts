/**
 * Judges the history of a drained schedule against the account of its manager: S1 to S9 as users see them, and S15.
 *
 * Linear in the history. Each violation names its invariant and what contradicts what.
 */
import { byHand, commits, type ObjectEnds } from "./CheckObjects.ts"
import { recordings } from "./CheckSteps.ts"
import type { Delivery, EndCall, History, OutcomeRead, PutCall, PutItem, SaveCall } from "./History.ts"
import type { LedgerTask, Violated } from "./Ledger.ts"

/** A task of the ledger with what its payload says. */
export interface Account {
  readonly task: LedgerTask
  readonly taskId: string
  readonly queue: string
  readonly u: number
  readonly payload: string
}

export interface Known {
  /** Dedupe ids are kept this long, and so many of them, after their task has ended. */
  readonly dedupeKeptMs: number
  readonly dedupeKept: number
}

export interface Evidence {
  readonly history: History
  readonly accounts: ReadonlyArray<Account>
  readonly queues: ReadonlyMap<string, Known>
  /** What `stats` says in the end, per queue. */
  readonly stats: ReadonlyMap<string, Stats>
  /** What the shared objects are in the end. */
  readonly objects: ObjectEnds
}

export interface Stats {
  readonly puts: number
  readonly ready: number
  readonly delayed: number
  readonly leased: number
  readonly done: number
  readonly dead: number
  readonly cancelled: number
  readonly acknowledged: number
  readonly purged: number
}

const outcomeNames = ["Success", "Failure", "Dead", "Cancelled"] as const

export const check = (evidence: Evidence, violated: Violated): void => {
  const { accounts } = evidence
  const history = since(evidence.history)
  const byId = new Map(accounts.map((account) => [account.taskId, account]))
  const byItem = new Map<number, Account>()
  const repeated = new Set(evidence.history.repeats.flatMap(({ item }) => item?.u ?? []))
  for (const account of accounts) {
    const other = byItem.get(account.u)
    // A dead letter that was put again.
    if (other?.task.redriven === true) continue
    if (other !== undefined && !repeated.has(account.u))
      violated("S4", `payload ${account.u} was put once and is tasks ${other.taskId}, ${account.taskId}`)
    byItem.set(account.u, account)
  }
  const { children: allChildren, repeats: allRepeats } = evidence.history
  origins({ ...history, children: allChildren, repeats: allRepeats }, accounts, violated)
  for (const put of history.puts) receipts(put, byId, violated)
  children(history, byItem, byId, violated)
  for (const { queue, task, taskId } of accounts) {
    if (task.state === "ready" || task.state === "delayed" || task.state === "leased") {
      violated("S6", `task ${taskId} of ${queue} is ${task.state} after everything was done`)
    }
  }
  dedupe(evidence, violated)
  deliveries(history.deliveries, byId, byItem, violated)
  // Of repeats the payload does not say which task it is.
  const single = ({ u }: { readonly u: number }): boolean => !repeated.has(u)
  checkpoints(history.saves, history.deliveries.filter(single), violated)
  recordings(
    history.steps.filter(single),
    history.signals,
    history.ends,
    history.deliveries.filter(single),
    byId,
    violated
  )
  repeats(evidence.history, violated)
  ends(history.ends, byId, violated)
  outcomes(history, evidence.history, byId, violated)
  for (const queue of evidence.queues.keys()) {
    // Children stay, as puts do: what was committed just before a power loss may have been done.
    const outcomes = history.outcomes.filter(({ taskId }) => byId.has(taskId) && single(byId.get(taskId)!))
    const seen = { children: evidence.history.children, outcomes }
    commits(queue, accounts, byId, seen, evidence.objects, violated)
  }
  byHand(history.shared, evidence.objects, violated)
  for (const [queue, stats] of evidence.stats) conservation(queue, stats, accounts, violated)
}

/** `buffered`: what was answered before a power loss may be gone, and its numbers used anew. Puts stay: they explain. */
type Seen = Pick<
  History,
  "puts" | "children" | "ends" | "deliveries" | "outcomes" | "shared" | "saves" | "steps" | "signals"
>

const since = (history: History): Seen => {
  const { children, deliveries, ends, lostAt, outcomes, puts, saves, shared, signals, steps } = history
  if (lostAt < 0) return history
  // What was on its way when the power failed arrives when the network lets it.
  const settledAt = lostAt + underWayUs
  const forgiven = puts.map((put): PutCall => (put.startedAt > lostAt ? put : { ...put, verdict: "open" }))
  return {
    puts: forgiven,
    steps: steps.map((call) => (call.startedAt > settledAt ? call : { ...call, verdict: "open" })),
    signals: signals.map((call) => (call.startedAt > settledAt ? call : { ...call, verdict: "open" })),
    saves: saves.map((call) => (call.startedAt > settledAt ? call : { ...call, verdict: "open" })),
    shared: shared.map((call) => (call.startedAt > settledAt ? call : { ...call, verdict: "open" })),
    children: children.filter(({ run }) => run.at > settledAt),
    ends: ends.filter(({ startedAt }) => startedAt > settledAt),
    deliveries: deliveries.filter(({ at }) => at > settledAt),
    outcomes: outcomes.filter(({ at }) => at > settledAt)
  }
}

/** The longest stall of a simulated connection, and a little more. */
const underWayUs = 45_000_000

/** S2, S3: whatever the manager has was put by someone, as it is, and not by a call that certainly failed. */
const origins = (
  history: Seen & Pick<History, "repeats">,
  accounts: ReadonlyArray<Account>,
  violated: Violated
): void => {
  const put = new Map<number, { readonly call: PutCall; readonly item: PutItem; readonly at: number }>()
  for (const call of history.puts) for (const [at, item] of call.items.entries()) put.set(item.u, { call, item, at })
  /** Payloads of children and of repeats. */
  const others = new Map<number, Pick<PutCall, "queue" | "verdict" | "error"> & { readonly payload: string }>()
  for (const { item, queue } of history.children) {
    others.set(item.u, { payload: item.payload, queue, verdict: "open", error: undefined })
  }
  for (const { error, item, queue, verdict } of history.repeats) {
    if (item !== undefined) others.set(item.u, { payload: item.payload, queue, verdict, error })
  }
  for (const { payload, queue, taskId, u } of accounts) {
    const origin = put.get(u)
    const other = others.get(u)
    if (origin === undefined && other === undefined) {
      violated("S2", `task ${taskId} of ${queue} has payload ${u}, which nobody put`)
      continue
    }
    if ((origin?.item ?? other!).payload !== payload) violated("S2", `task ${taskId} has another payload than was put`)
    if ((origin?.call.queue ?? other!.queue) !== queue)
      violated("S2", `task ${taskId} is on ${queue}, and was put elsewhere`)
    if (other?.verdict === "definite") {
      violated("S3", `payload ${u} is task ${taskId}, and its repeat was refused (${other.error})`)
    }
    if (origin !== undefined && origin.call.verdict === "definite" && origin.at >= origin.call.accepted) {
      violated("S3", `payload ${u} is task ${taskId}, and its put certainly failed (${origin.call.error})`)
    }
  }
}

/** S1, S5: what was acknowledged is there; a duplicate is one of the same id. */
const receipts = (put: PutCall, byId: ReadonlyMap<string, Account>, violated: Violated): void => {
  if (put.verdict !== "ok") return
  if (put.receipts.length !== put.items.length) {
    violated("S1", `a put of ${put.items.length} was answered with ${put.receipts.length} receipts`)
  }
  for (const [i, { duplicate, taskId }] of put.receipts.entries()) {
    const account = byId.get(taskId)
    const item = put.items[i]!
    if (account === undefined) violated("S1", `payload ${item.u} was acknowledged as task ${taskId}, which is lost`)
    else if (!duplicate && account.u !== item.u) violated("S1", `task ${taskId} is payload ${account.u}, not ${item.u}`)
    else if (duplicate && (item.id === undefined || account.task.id !== item.id)) {
      violated("S5", `payload ${item.u} (id ${item.id}) is called a duplicate of id ${account.task.id}`)
    }
  }
}

/** S4: the children of a commit are put with it, all of them, and never without it. */
const children = (
  history: Seen,
  byItem: ReadonlyMap<number, Account>,
  byId: ReadonlyMap<string, Account>,
  violated: Violated
): void => {
  const results = new Map<string, number | undefined>()
  for (const { outcome, result, taskId } of history.outcomes) if (outcome === "Success") results.set(taskId, result)
  for (const { ifNew, item, run } of history.children) {
    const child = byItem.get(item.u)
    const parent = byId.get(run.taskId ?? "")
    if (
      child !== undefined &&
      (parent?.task.state !== "ended" || parent.task.outcome !== 0 || run.result === undefined)
    ) {
      violated("S4", `payload ${item.u} was put with a commit that never was`)
    }
    if (run.taskId === undefined || run.result === undefined || !results.has(run.taskId)) continue
    const committed = results.get(run.taskId) === run.result
    // Whether the key was new is seen in the end.
    if (ifNew !== undefined && child === undefined) continue
    if (committed !== (child !== undefined)) {
      violated(
        "S4",
        `payload ${item.u} was ${committed ? "not " : ""}put, its parent's commit was ${committed ? "" : "not "}done`
      )
    }
  }
}

/** S5: tasks of one dedupe id do not live at the same time, nor within its retention. */
const dedupe = ({ accounts, queues }: Evidence, violated: Violated): void => {
  const last = new Map<string, LedgerTask>()
  for (const { queue, task } of accounts) {
    if (task.id === undefined) continue
    const key = `${queue} ${task.id}`
    const before = last.get(key)
    last.set(key, task)
    if (before === undefined) continue
    const { dedupeKept, dedupeKeptMs } = queues.get(queue)!
    const ended = before.state === "ended" || before.state === "acknowledged" || before.state === "purged"
    // With a bound on the number kept, an id may be forgotten earlier.
    const until = before.endedAt + (dedupeKept >= 1_000 ? dedupeKeptMs : 0)
    if (!ended || task.putAt < until) {
      violated("S5", `id "${task.id}" of ${queue} was put as task ${before.task} and again as task ${task.task}`)
    }
  }
}

const deliveries = (
  all: ReadonlyArray<Delivery>,
  byId: ReadonlyMap<string, Account>,
  byItem: ReadonlyMap<number, Account>,
  violated: Violated
): void => {
  const leases = new Set<string>()
  for (const { client, fence, how, payload, queue, taskId, u } of all) {
    const account = taskId === undefined ? byItem.get(u) : byId.get(taskId)
    if (account === undefined) {
      violated("S2", `${client} was delivered task ${taskId ?? "?"} (payload ${u}), which was never put`)
      continue
    }
    if (account.payload !== payload || account.queue !== queue) {
      violated("S2", `${client} was delivered task ${account.taskId} with another payload, or from another queue`)
    }
    if (how !== "lease") continue
    const lease = `${taskId} ${fence}`
    if (leases.has(lease)) violated("S14", `the lease of task ${taskId} under fence ${fence} was handed out twice`)
    leases.add(lease)
  }
}

/**
 * S1, S3: a lease has what was saved last under an earlier one, or something later of which nobody knows whether it was
 * saved. A dead letter that is put again is another task with the same payload, and has what the old one had.
 */
const checkpoints = (saves: ReadonlyArray<SaveCall>, all: ReadonlyArray<Delivery>, violated: Violated): void => {
  const byItem = new Map<number, Array<SaveCall>>()
  for (const save of saves) {
    const known = byItem.get(save.u)
    if (known === undefined) byItem.set(save.u, [save])
    else known.push(save)
  }
  for (const { checkpoint, fence, how, taskId, u } of all) {
    if (how !== "lease") continue
    // Fences and task numbers rise; of one lease the saves are in the order of the history.
    const before = (byItem.get(u) ?? [])
      .filter((save) => save.taskId < taskId! || (save.taskId === taskId && save.fence < fence!))
      .sort((a, b) => (a.taskId === b.taskId ? a.fence - b.fence : a.taskId < b.taskId ? -1 : 1))
    const last = before.findLastIndex(({ verdict }) => verdict === "ok")
    const found = before.findIndex(({ value }) => value === checkpoint)
    if (checkpoint !== undefined && found < 0) violated("S2", `task ${taskId} has checkpoint ${checkpoint} of nobody`)
    else if (found < last) violated("S1", `task ${taskId} has lost checkpoint ${before[last]!.value}`)
    else if (before[found]?.verdict === "definite") violated("S3", `task ${taskId} has a checkpoint that was refused`)
  }
}

/** S1, S2: a repeat that was acknowledged, and that nobody removed, is there. */
const repeats = ({ lostAt, others, repeats: calls, repeatsListed }: History, violated: Violated): void => {
  for (const [queue, { askedAt, ids }] of repeatsListed) {
    const mine = calls.filter((call) => call.queue === queue)
    for (const id of ids) {
      const maker = mine.find((call) => call.op === "repeat" && call.id === id && call.verdict !== "definite")
      if (maker === undefined) violated("S2", `repeat "${id}" of ${queue} is there, and nobody made it`)
    }
    if (others.some((call) => call.op === "close" && call.queue === queue && call.verdict !== "definite")) continue
    for (const { endedAt, id, op, startedAt, verdict } of mine) {
      if (op !== "repeat" || verdict !== "ok" || ids.includes(id)) continue
      if (endedAt >= askedAt || startedAt <= lostAt + underWayUs) continue
      const removed = mine.some((call) => call.op === "removeRepeat" && call.id === id && call.verdict !== "definite")
      if (!removed) violated("S1", `repeat "${id}" of ${queue} was acknowledged, and is lost`)
    }
  }
}

/** S8, S9: what was answered to those who ended leases fits what became of the tasks. */
const ends = (calls: ReadonlyArray<EndCall>, byId: ReadonlyMap<string, Account>, violated: Violated): void => {
  const committed = new Map<string, EndCall>()
  for (const call of calls) {
    const { client, fence, op, taskId } = call
    const account = byId.get(taskId)
    if (account === undefined) {
      violated("S2", `${client} did ${op} on task ${taskId}, which was never put`)
      continue
    }
    if (call.error === "StoreFull")
      violated("S1", `a full store refused the ${op} of task ${taskId}: only puts need room`)
    if (call.verdict !== "ok") continue
    if (op === "commit") {
      if (account.task.outcome !== 0)
        violated("S8", `the commit of task ${taskId} was acknowledged and is not its outcome`)
      const other = committed.get(taskId)
      if (other !== undefined) violated("S8", `task ${taskId} was committed by ${other.client} and by ${client}`)
      committed.set(taskId, call)
      if (account.task.fence !== fence) {
        violated("S9", `task ${taskId} was committed under fence ${fence}, its last was ${account.task.fence}`)
      }
    }
    if (op === "kill" && account.task.outcome !== 1 && account.task.outcome !== 2) {
      violated("S8", `task ${taskId} was killed and its outcome is ${outcomeNames[account.task.outcome]}`)
    }
  }
}

/** S8: every reader sees the same outcome, and a result that its holder committed; a stream leaves none out. */
const outcomes = (history: Seen, all: Seen, byId: ReadonlyMap<string, Account>, violated: Violated): void => {
  const first = new Map<string, OutcomeRead>()
  const next = new Map<number, number>()
  const committers = new Map<number, { readonly taskId: string | undefined; readonly verdict: string }>()
  for (const { result, taskId, verdict } of all.ends)
    if (result !== undefined) committers.set(result, { taskId, verdict })
  for (const { result, taskId } of all.deliveries) {
    if (result !== undefined) committers.set(result, { taskId, verdict: "open" })
  }
  for (const read of history.outcomes) {
    const { attempts, client, outcome, queue, reader, result, taskId } = read
    const account = byId.get(taskId)
    if (account === undefined) {
      violated("S2", `${client} read an outcome of task ${taskId}, which was never put`)
      continue
    }
    if (outcome !== outcomeNames[account.task.outcome]) {
      violated(
        "S8",
        `${client} read ${outcome} of task ${taskId}, which ended in ${outcomeNames[account.task.outcome]}`
      )
    }
    const before = first.get(taskId)
    if (before === undefined) first.set(taskId, read)
    else if (before.outcome !== outcome || before.result !== result || before.attempts !== attempts) {
      violated("S8", `task ${taskId} was read as ${before.outcome} ${before.result} and as ${outcome} ${result}`)
    }
    if (outcome === "Success") {
      const by = result === undefined ? undefined : committers.get(result)
      if (by?.taskId !== taskId) violated("S8", `task ${taskId} has result ${result}, which nobody committed for it`)
      if (by?.verdict === "definite") violated("S3", `task ${taskId} has result ${result}, whose commit was refused`)
    }
    if (reader === undefined) continue
    const expected = next.get(reader)
    if (expected !== undefined && account.task.cursor !== expected) {
      violated("S8", `reader ${reader} of ${queue} saw outcome ${account.task.cursor} after ${expected - 1}`)
    }
    next.set(reader, account.task.cursor + 1)
  }
  for (const call of history.ends) {
    if (call.op !== "commit" || call.verdict !== "ok") continue
    const read = first.get(call.taskId)
    if (read !== undefined && read.result !== call.result) {
      violated(
        "S8",
        `the commit of ${call.result} to task ${call.taskId} was acknowledged, its outcome is ${read.result}`
      )
    }
  }
}

/** S15: what was put is what became of it, in the ledger and in the manager's own counts. */
const conservation = (name: string, stats: Stats, accounts: ReadonlyArray<Account>, violated: Violated): void => {
  const { acknowledged, cancelled, dead, delayed, done, leased, purged, puts, ready } = stats
  const sum = ready + delayed + leased + done + dead + cancelled + acknowledged + purged
  if (sum !== puts) violated("S15", `${name}: ${puts} puts and ${sum} tasks: ${JSON.stringify(stats)}`)
  const mine = accounts.filter(({ queue }) => queue === name)
  const count = (holds: (task: LedgerTask) => boolean): number => mine.filter(({ task }) => holds(task)).length
  const counted = {
    puts: mine.length,
    done: count((task) => task.outcome === 0),
    dead: count((task) => task.outcome === 1 || task.outcome === 2),
    cancelled: count((task) => task.outcome === 3),
    acknowledged: count((task) => task.state === "acknowledged"),
    purged: count((task) => task.state === "purged")
  }
  for (const [key, value] of Object.entries(counted)) {
    const said = stats[key as keyof Stats]
    if (said !== value) violated("S15", `${name}: stats say ${key} ${said}, the ledger has ${value}`)
  }
}
