import type { Out } from "../../../src/model/Engine.ts"
import { ended, type Life, legal, lifeOf, Standing } from "../../../src/model/Life.ts"
import { defaults, type Policy } from "../../../src/model/Policy.ts"
import type { QueueDefinition } from "../../../src/model/Queue.ts"
import { Code } from "../../../src/model/Refusal.ts"
import type { Repeat } from "../../../src/model/Repeat.ts"
import { PutStatus } from "../../../src/model/Session.ts"
import type { Task } from "../../../src/model/Task.ts"
import type { Disk } from "./disk.ts"
import type { Answer, Grant } from "./Reference.ts"

const codeNames = Object.fromEntries(Object.entries(Code).map(([name, code]) => [code, name]))
const statusNames = Object.fromEntries(Object.entries(PutStatus).map(([name, status]) => [status, name]))
export const standingNames = Object.fromEntries(Object.entries(Standing).map(([name, n]) => [n, name]))
const outcomeNames = ["success", "failure", "dead", "cancelled"]

export const definition = (name: string, policy: Partial<Policy>): QueueDefinition => ({
  name,
  fingerprint: new Uint8Array(32),
  schema: "",
  accepts: [],
  policy: { ...defaults, backoffJitterPercent: 0, ...policy },
  durability: "memory"
})

/** Collects what the engine decides, as text where the order of two requests means nothing. */
export class Collected implements Out {
  readonly answers = new Map<number, Answer>()
  grants = new Map<number, Array<Grant>>()
  /** Tasks in the order in which they were granted, by queue; who has looked at them takes them out. */
  readonly chosen = new Map<number, Array<number>>()
  published = new Map<number, string>()
  admitting: Array<number> = []
  /** The life of every task as the changes tell it. */
  readonly lives = new Map<number, Life["_tag"]>()
  /** Handlers that must stop, as `session:task`. */
  stops: Array<string> = []
  readonly faults: Array<string> = []
  /** Where durable changes go, if anywhere. */
  disk: Disk | undefined = undefined

  #answer(request: number, answer: Answer): void {
    if (this.answers.has(request)) this.faults.push(`request ${request} is answered twice`)
    this.answers.set(request, answer)
  }

  changed: Out["changed"] = (change, task) => {
    const before = this.lives.get(task.n) ?? "New"
    this.disk?.recorder.changed(change, task)
    if (change === "put") this.admitting.push(task.queue.id)
    const fault = (to: string): void => void this.faults.push(`task ${task.n}: ${before} -> ${change} (${to})`)
    if (change === "checkpoint") return before === "Leased" ? undefined : fault(before)
    if (change === "entry") {
      // A signal reaches whatever lives.
      const signal = [...task.entries!.keys()].at(-1)!.startsWith("!") && (before === "Ready" || before === "Delayed")
      return before === "Leased" || signal ? undefined : fault(before)
    }
    if (change === "suspended" && (before !== "Leased" || !task.suspended)) fault(before)
    if (change === "redriven") return before === "Dead" || before === "Failed" ? undefined : fault(before)
    const { log } = task.queue
    const to =
      change === "acknowledged"
        ? "Taken"
        : change === "purged"
          ? "Purged"
          : change === "ended"
            ? ended[log.outcome(log.next - 1)]
            : lifeOf(task)._tag
    // That a delay is over is not told.
    const due = before === "Delayed" && legal("Delayed", "Ready") && legal("Ready", to)
    if (!legal(before, to) && !due) fault(to)
    this.lives.set(task.n, to)
  }
  queueChanged: Out["queueChanged"] = (queue) => this.disk?.recorder.queue(queue)
  putProgress: Out["putProgress"] = (session, request, batch) =>
    this.disk?.recorder.putProgress(session, request, batch)
  /** Occurrences in the order in which they were put, and every state of every repeat. */
  occurrences: Array<string> = []
  readonly repeated = new Map<string, number>()
  repeatChanged: Out["repeatChanged"] = (repeat, removed) => {
    this.disk?.recorder.repeat(repeat, removed)
    const { definition, occurrences, queue } = repeat
    const name = `${queue.id}/${definition.id}`
    if (occurrences > (this.repeated.get(name) ?? 0)) this.occurrences.push(name)
    if (removed) this.repeated.delete(name)
    else this.repeated.set(name, occurrences)
  }
  repeats: Out["repeats"] = (_, request, repeats) =>
    this.#answer(request, { _tag: "Repeats", repeats: repeats.map(repeatText) })
  laneChanged: Out["laneChanged"] = (queue, key) => this.disk?.recorder.lane(queue, key)
  refused: Out["refused"] = (_, request, why) =>
    this.#answer(request, { _tag: "Refused", why: codeNames[why.code] ?? String(why.code) })
  done: Out["done"] = (_, request) => this.#answer(request, { _tag: "Done" })
  putDone: Out["putDone"] = (_, request, first, count) =>
    this.#answer(request, { _tag: "Put", items: Array.from({ length: count }, (_, i) => `${first + i} accepted`) })
  putItems: Out["putItems"] = (_, request, tasks, statuses, firsts) => {
    const first = (i: number): string =>
      statuses[i] === PutStatus.duplicate ? ` ${standingNames[firsts?.[i] ?? 99] ?? "?"}` : ""
    const items = tasks.map((n, i) => `${n} ${statusNames[statuses[i]!]}${first(i)}`)
    this.#answer(request, { _tag: "Put", items })
  }
  standings: Out["standings"] = (_, request, standings) =>
    this.#answer(request, { _tag: "Items", items: standings.map((standing) => standingNames[standing]!) })
  purged: Out["purged"] = (_, request, count, next) => {
    if (next !== undefined) this.faults.push("a purge of a small queue goes on")
    this.#answer(request, { _tag: "Counted", count })
  }
  redriven: Out["redriven"] = (_, request, pairs, next) => {
    if (next !== undefined) this.faults.push("a redrive of a small queue goes on")
    this.#answer(request, { _tag: "Redriven", pairs: [...pairs] })
  }
  cancelling: Out["cancelling"] = (session, task) => void this.stops.push(`${session.id}:${task}`)
  #granted(task: Task): void {
    const chosen = this.chosen.get(task.queue.id)
    if (chosen === undefined) this.chosen.set(task.queue.id, [task.n])
    else chosen.push(task.n)
  }
  leased: Out["leased"] = (_, request, tasks) => {
    for (const task of tasks) this.#granted(task)
    this.#answer(request, { _tag: "Leased", tasks: tasks.map(leaseText) })
  }
  items: Out["items"] = (_, request, codes) =>
    this.#answer(request, { _tag: "Items", items: codes.map((code) => (code === 0 ? "ok" : codeNames[code]!)) })
  deliver: Out["deliver"] = (stream, task) => {
    this.#granted(task)
    const grants = this.grants.get(stream.queue.id) ?? []
    grants.push({ stream: stream.id, text: leaseText(task) })
    this.grants.set(stream.queue.id, grants)
  }
  outcomes: Out["outcomes"] = (stream, from, count) => {
    if (this.published.has(stream.id)) this.faults.push(`stream ${stream.id} is published to twice`)
    this.published.set(stream.id, `${from}+${count}`)
    return count
  }
  outcomesGap: Out["outcomesGap"] = (stream, oldest) => void this.published.set(stream.id, `gap ${oldest}`)
  objectMade: Out["objectMade"] = (object) => this.disk?.recorder.object(object)
  setAdded: Out["setAdded"] = (set, fingerprint, key, place) => {
    this.disk?.recorder.setAdded(set, fingerprint, key, place)
    this.disk?.added(place.row, place.offset, key.slice())
  }
  setRemoved: Out["setRemoved"] = (set, fingerprint) => this.disk?.recorder.setRemoved(set, fingerprint)
  counterChanged: Out["counterChanged"] = (counter) => this.disk?.recorder.counter(counter)
  dictChanged: Out["dictChanged"] = (dict, key, entry, version) => this.disk?.recorder.dict(dict, key, entry, version)
  objectOpened: Out["objectOpened"] = (_, request, object) =>
    this.#answer(request, { _tag: "Object", text: `${object.kind} ${object.id}` })
  bits: Out["bits"] = (_, request, count, bits) => {
    const text = Array.from({ length: count }, (_, i) => (bits[i >> 3]! >> (i & 7)) & 1).join("")
    this.#answer(request, { _tag: "Object", text: `bits ${text}` })
  }
  counted: Out["counted"] = (_, request, done, value) =>
    this.#answer(request, { _tag: "Object", text: `counted ${done} ${value}` })
  dictEntries: Out["dictEntries"] = (_, request, entries) =>
    this.#answer(request, {
      _tag: "Object",
      text: `entries ${entries.map((entry) => (entry ? `${entry.value.join("")}@${entry.version}` : "-")).join()}`
    })
  dictWritten: Out["dictWritten"] = (_, request, versions) =>
    this.#answer(request, { _tag: "Object", text: `written ${versions.join()}` })
  setPage: Out["setPage"] = (_, request, set, page) => {
    const keys = page.rows.map((row, i) => {
      const at = page.offsets[i]!
      return (set.texts?.read(row, at) ?? this.disk!.keyAt(row, at)).join("")
    })
    this.#answer(request, { _tag: "Object", text: `keys ${keys.sort().join()}` })
  }
  dictPage: Out["dictPage"] = (_, request, entries) =>
    this.#answer(request, { _tag: "Object", text: `pairs ${entries.map(({ key }) => key).join()}` })
  outcome: Out["outcome"] = (_, request, { log }, cursor) => {
    const reasons = (log.reasons(cursor) ?? []).map(({ reason }) => reason)
    const kind = outcomeNames[log.outcome(cursor)]
    const text = `${log.task(cursor)} ${kind} after ${log.attempts(cursor)} (${reasons.join(",")})`
    this.#answer(request, { _tag: "Outcome", text })
  }
}

const repeatText = ({ definition, nextAt, occurrences, task }: Repeat): string =>
  `${definition.id} every ${definition.everyMs} next ${nextAt} task ${task} after ${occurrences}`

const leaseText = (task: Task): string => {
  const entries = [...(task.entries ?? [])].map(([name, value]) => `,${name}=${value[0]}`).join("")
  const checkpoint = task.checkpoint === undefined ? "" : `/${task.checkpoint.byteLength}`
  return `${task.n}/${task.leases}/${task.attempt}${checkpoint}${entries}`
}
