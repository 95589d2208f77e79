/**
 * S19 as users see it: a step or a signal that was acknowledged is delivered with every later attempt, with the value that
 * was recorded first and in the order of recording; one that was refused is not there; one of which nobody knows is there
 * with one value or not at all.
 *
 * Tasks are known by their payload: a dead letter that is put again is another task, and has what the old one had.
 */
import type { Account } from "./Check.ts"
import type { Delivery, EndCall, Recorded, SignalCall, StepCall } from "./History.ts"
import type { Violated } from "./Ledger.ts"

/** Of one payload and one name. */
interface Story {
  readonly steps: Array<StepCall>
  readonly signals: Array<SignalCall>
}

export const recordings = (
  steps: ReadonlyArray<StepCall>,
  signals: ReadonlyArray<SignalCall>,
  ends: ReadonlyArray<EndCall>,
  deliveries: ReadonlyArray<Delivery>,
  byId: ReadonlyMap<string, Account>,
  violated: Violated
): void => {
  const stories = new Map<number, Map<string, Story>>()
  const storyOf = (u: number, name: string): Story => {
    const known = stories.get(u) ?? new Map<string, Story>()
    stories.set(u, known)
    const story = known.get(name) ?? { steps: [], signals: [] }
    known.set(name, story)
    return story
  }
  for (const step of steps) storyOf(step.u, step.name).steps.push(step)
  /** Of signals by dedupe id the value says whose they were. */
  const byIdValue = new Map<number, SignalCall>()
  for (const signal of signals) {
    const account = signal.taskId === undefined ? undefined : byId.get(signal.taskId)
    if (account !== undefined) storyOf(account.u, signal.name).signals.push(signal)
    else if (signal.taskId === undefined) byIdValue.set(signal.value, signal)
  }
  /** A dedupe id stays with the dead letter when that is put again. */
  const ids = new Set<string>()
  for (const { task, u } of byId.values()) ids.add(`${u} ${task.id}`)
  const before = new Map<number, ReadonlyArray<Recorded>>()
  for (const delivery of inOrder(deliveries)) {
    const { entries, taskId, u } = delivery
    if (entries === undefined) continue
    const last = before.get(u) ?? []
    if (!last.every(([name, value], i) => name === entries[i]?.[0] && value === entries[i][1])) {
      violated("S19", `task ${taskId} had ${textOf(last)} and then ${textOf(entries)}`)
    }
    before.set(u, entries)
    const found = new Map(entries)
    if (found.size < entries.length) violated("S19", `task ${taskId} has a name twice: ${textOf(entries)}`)
    for (const [name, story] of stories.get(u) ?? []) {
      const value = found.get(name)
      const sure = [...story.steps.filter((step) => isBefore(step, delivery)), ...story.signals].filter(
        ({ endedAt, op, verdict }) => verdict === "ok" && (op === "step" || endedAt <= delivery.askedAt!)
      )
      if (value === undefined && sure.length > 0) {
        violated("S19", `task ${taskId} lacks "${name}", which was recorded as ${sure[0]!.value}`)
      }
    }
    for (const [name, value] of entries) {
      const story = stories.get(u)?.get(name)
      const calls = [...(story?.steps.filter((step) => isBefore(step, delivery)) ?? []), ...(story?.signals ?? [])]
      const foundById = byIdValue.get(value)
      const call = calls.find((call) => call.value === value) ?? (foundById?.name === name ? foundById : undefined)
      if (call === undefined) {
        violated("S19", `task ${taskId} has "${name}" as ${value}, which nobody recorded`)
        continue
      }
      if (call === foundById && !ids.has(`${u} ${foundById.id}`)) {
        violated("S19", `task ${taskId} has a signal that was sent to id ${foundById.id}, which it never had`)
      }
      if (call.verdict === "definite") {
        violated("S19", `task ${taskId} has "${name}" as ${value}, which was refused (${call.error})`)
      }
      // When one call is answered, a value stands: that of a call that had begun by then.
      const settled = calls.reduce(
        (at, { endedAt, verdict }) => (verdict === "ok" ? Math.min(at, endedAt) : at),
        Number.POSITIVE_INFINITY
      )
      if (call.startedAt >= settled && call.endedAt !== settled) {
        violated("S19", `task ${taskId} has "${name}" as ${value}, which was recorded over another`)
      }
    }
  }
  afterEnd(steps, ends, violated)
}

/** S9: what ends a lease ends its recording too. */
const afterEnd = (steps: ReadonlyArray<StepCall>, ends: ReadonlyArray<EndCall>, violated: Violated): void => {
  const over = new Map<string, number>()
  for (const { endedAt, fence, op, taskId, verdict } of ends) {
    if (verdict === "ok" && op !== "renew") over.set(`${taskId} ${fence}`, endedAt)
  }
  for (const { fence, name, startedAt, taskId, verdict } of steps) {
    const at = over.get(`${taskId} ${fence}`)
    if (verdict === "ok" && at !== undefined && startedAt > at) {
      violated("S9", `task ${taskId}: "${name}" was recorded under fence ${fence}, whose lease was over`)
    }
  }
}

/** Fences and task numbers rise. */
const isBefore = (step: StepCall, { fence, taskId }: Delivery): boolean =>
  step.taskId < taskId! || (step.taskId === taskId && step.fence < fence!)

const inOrder = (deliveries: ReadonlyArray<Delivery>): ReadonlyArray<Delivery> =>
  deliveries
    .filter(({ entries }) => entries !== undefined)
    .sort((a, b) => (a.taskId === b.taskId ? a.fence! - b.fence! : a.taskId! < b.taskId! ? -1 : 1))

const textOf = (entries: ReadonlyArray<Recorded>): string =>
  entries.length === 0 ? "nothing" : entries.map(([name, value]) => `${name}=${value}`).join()
