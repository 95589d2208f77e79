/**
 * Looks at every command of a credential that may not do everything, before the engine acts on it.
 *
 * A name outside the credential's patterns is refused by the name alone, whether or not something has it. A number (of a
 * queue, an object, a task) that lies outside them is answered as one that is not there, in every word of the answer.
 * What is permitted is found once per queue and object and kept as bits: within one life of the manager numbers keep
 * their names.
 */
import {
  type Grant,
  ObjectBit,
  objectPermissions,
  type QueueAction,
  QueueBit,
  queuePermissions,
  rolesForObject,
  rolesForQueue
} from "../auth/Roles.ts"
import type { CommitEffects, Engine } from "../model/Engine.ts"
import { Code, type Refusal, refusal } from "../model/Refusal.ts"
import { Task } from "../model/Task.ts"
import type * as Client from "../wire/ClientMessages.ts"
import { ClientType as C } from "../wire/Vocabulary.ts"
import type { PeerSession } from "./Peer.ts"

/** Called for everything that is refused, or answered as not there, for want of a role. */
export type Denied = (session: PeerSession, action: string) => void

/** No task has it. */
const noTask = 0

export class Guard {
  readonly #grants: ReadonlyArray<Grant>
  readonly #engine: Engine
  readonly #denied: Denied
  readonly #queues = new Map<number, number>()
  readonly #objects = new Map<number, number>()

  constructor(grants: ReadonlyArray<Grant>, engine: Engine, denied: Denied) {
    this.#grants = grants
    this.#engine = engine
    this.#denied = denied
  }

  /** Whether this may be done to the queue of that number; false when there is none. */
  may(queueId: number, action: QueueAction): boolean {
    return (this.#queue(queueId) & QueueBit[action]) !== 0
  }

  /** Why this request may not be; undefined: it goes on to the engine. */
  refusal(session: PeerSession, m: Client.Request): Refusal | undefined {
    switch (m.type) {
      case C.open:
        return this.#open(session, m)
      case C.put:
        return this.#onQueue(session, m.queue, "put", "put")
      case C.lease:
        return this.#onQueue(session, m.queue, "lease", m.get ? "get" : "lease")
      case C.subscribe:
        return this.#onQueue(session, m.queue, "lease", "subscribe")
      case C.outcome:
        return this.#onQueue(session, m.queue, "outcomes", "outcome")
      case C.follow:
        return this.#onQueue(session, m.queue, "outcomes", "outcomes")
      case C.join:
        return this.#onQueue(session, m.queue, "join", "join")
      case C.peek:
        return this.#onQueue(session, m.queue, "browse", "peek")
      case C.browse:
        return (
          this.#onQueue(session, m.queue, "browse", "browse") ??
          (m.payloads ? this.#onQueue(session, m.queue, "payloads", "browse with payloads") : undefined)
        )
      case C.stats:
        return m.queue === undefined ? undefined : this.#onQueue(session, m.queue, "stats", "stats")
      case C.explain:
        return this.#onQueue(session, m.queue, "explain", "explain")
      case C.repeats:
        return this.#onQueue(session, m.queue, "repeats", "list of repeats")
      case C.repeat:
        return this.#onQueue(session, m.queue, "repeat", "repeat")
      case C.removeRepeat:
        return this.#onQueue(session, m.queue, "repeat", "removal of a repeat")
      case C.cancel:
        return this.#onQueue(session, m.queue, "cancel", "cancel")
      case C.pause:
        return this.#onQueue(session, m.queue, "pause", m.paused ? "pause" : "resume")
      case C.purge:
        return this.#onQueue(session, m.queue, "purge", "purge")
      case C.redrive:
        return this.#onQueue(session, m.queue, "redrive", "redrive")
      case C.close:
        return this.#onQueue(session, m.queue, "close", "close")
      case C.signal:
        return this.#onQueue(session, m.queue, "signal", "signal")
      case C.find:
        return this.#onQueue(session, m.queue, "find", "find")
      case C.lane:
        return this.#onQueue(session, m.queue, "lane", "lane")
      case C.openObject:
        return this.#openObject(session, m)
      case C.setKeys:
      case C.count:
      case C.countSet:
      case C.dictGet:
      case C.dictWrite:
      case C.listObject:
        return this.#onObject(session, m.object)
      case C.commit: {
        // Done or refused as one: the refusal names the task, so `narrowed` has left its number as it was.
        if (m.together !== true) return undefined
        const unseen = m.tasks.find((n) => !this.#sees(session, n))
        return unseen === undefined ? undefined : refusal(Code.leaseLost, "", unseen)
      }
      // These name tasks or streams of the session alone: see `narrowed`.
      case C.release:
      case C.fail:
      case C.renew:
      case C.checkpoint:
      case C.step:
      case C.suspend:
      case C.unsubscribe:
        return undefined
    }
  }

  /** The message with the numbers of tasks that may not be seen made into one that no task has. */
  narrowed(session: PeerSession, m: Client.ClientMessage): Client.ClientMessage {
    switch (m.type) {
      case C.started:
      case C.acknowledge:
      case C.renew:
      case C.release: {
        const held = m.held.map((n, i) => (i % 2 === 1 || this.#sees(session, n) ? n : noTask))
        return { ...m, held }
      }
      case C.fail:
      case C.checkpoint:
        return { ...m, tasks: this.#seen(session, m.tasks) }
      case C.step:
        return { ...m, items: this.#visibleItems(session, m.items) }
      case C.suspend:
        return { ...m, items: this.#visibleItems(session, m.items) }
      case C.heartbeat: {
        const { reports } = m
        if (reports === undefined) return m
        return { ...m, reports: this.#visibleItems(session, reports) }
      }
      case C.commit:
        return m.together === true ? m : { ...m, tasks: this.#seen(session, m.tasks) }
      default:
        return m
    }
  }

  /** What of `held` is lost: what may not be seen, and what `ask` says of the rest. In the order of `held`. */
  lost(
    session: PeerSession,
    held: ReadonlyArray<number>,
    ask: (held: ReadonlyArray<number>) => ReadonlyArray<number>
  ): ReadonlyArray<number> {
    const rest: Array<number> = []
    const lost = new Set<number>()
    for (let i = 0; i + 1 < held.length; i += 2) {
      if (this.#sees(session, held[i]!)) rest.push(held[i]!, held[i + 1]!)
      else lost.add(held[i]!)
    }
    for (const n of ask(rest)) lost.add(n)
    return held.filter((n, i) => i % 2 === 0 && lost.has(n))
  }

  /** Those of these tasks that the credential may lease. */
  leasable(tasks: ReadonlySet<number>): ReadonlySet<number> {
    return new Set([...tasks].filter((n) => this.#isLeasable(n)))
  }

  /** Why a commit may not bring this about; part of the engine's own look at it, item by item. */
  effects(session: PeerSession, { counts, puts, sets, writes }: CommitEffects): Refusal | undefined {
    for (const { queue } of puts) {
      const why = this.#onQueue(session, queue, "child", "child put")
      if (why !== undefined) return why
    }
    for (const list of [sets, counts, writes]) {
      for (const { object } of list) {
        const why = this.#onObject(session, object)
        if (why !== undefined) return why
      }
    }
    return undefined
  }

  // ---- inside

  /** Bits; 0: no such queue, or none for this credential. */
  #queue(id: number): number {
    const known = this.#queues.get(id)
    if (known !== undefined) return known
    const queue = this.#engine.queues[id]
    if (queue === undefined) return 0
    const bits = queuePermissions(this.#grants, queue.definition.name)
    this.#queues.set(id, bits)
    return bits
  }

  #object(id: number): number {
    const known = this.#objects.get(id)
    if (known !== undefined) return known
    const object = this.#engine.objects.all[id]
    if (object === undefined) return 0
    const bits = objectPermissions(this.#grants, object.name)
    this.#objects.set(id, bits)
    return bits
  }

  #onQueue(session: PeerSession, id: number, action: QueueAction, what: string): Refusal | undefined {
    const bits = this.#queue(id)
    if ((bits & QueueBit[action]) !== 0) return undefined
    const queue = this.#engine.queues[id]
    if (bits === 0) {
      if (queue !== undefined) this.#denied(session, `${what} on queue "${queue.definition.name}"`)
      return refusal(Code.queueNotFound, `#${id}`, id)
    }
    return this.#refuse(session, `${what} on queue "${queue!.definition.name}"`, rolesForQueue(action))
  }

  #onObject(session: PeerSession, id: number): Refusal | undefined {
    if ((this.#object(id) & ObjectBit.use) !== 0) return undefined
    const object = this.#engine.objects.all[id]
    if (object !== undefined) this.#denied(session, `use of object "${object.name}"`)
    return refusal(Code.objectNotFound, `#${id}`, id)
  }

  #open(session: PeerSession, { name, policy }: Client.Open): Refusal | undefined {
    const bits = queuePermissions(this.#grants, name)
    if ((bits & QueueBit.open) === 0) return this.#refuse(session, `open of queue "${name}"`, rolesForQueue("open"))
    if (policy === undefined || (bits & QueueBit.declare) !== 0) return undefined
    if (this.#engine.find(name) !== undefined) return undefined
    return this.#refuse(session, `making queue "${name}"`, rolesForQueue("declare"))
  }

  #openObject(session: PeerSession, { create, name }: Extract<Client.Request, { readonly type: typeof C.openObject }>) {
    const bits = objectPermissions(this.#grants, name)
    if ((bits & ObjectBit.open) === 0) return this.#refuse(session, `open of object "${name}"`, rolesForObject("open"))
    if (!create || (bits & ObjectBit.make) !== 0 || this.#engine.objects.find(name) !== undefined) return undefined
    return this.#refuse(session, `making object "${name}"`, rolesForObject("make"))
  }

  #refuse(session: PeerSession, what: string, roles: ReadonlyArray<string>): Refusal {
    this.#denied(session, what)
    const words = roles.length < 2 ? roles.join() : `${roles.slice(0, -1).join(", ")} or ${roles.at(-1)}`
    return refusal(Code.notPermitted, `${what}; a credential needs the role ${words} for that name`)
  }

  #seen(session: PeerSession, tasks: ReadonlyArray<number>): ReadonlyArray<number> {
    return tasks.map((n) => this.#visible(session, n))
  }

  #visible(session: PeerSession, n: number): number {
    return this.#sees(session, n) ? n : noTask
  }

  #visibleItems<A extends { readonly task: number }>(session: PeerSession, items: ReadonlyArray<A>): ReadonlyArray<A> {
    return items.map((item) => ({ ...item, task: this.#visible(session, item.task) }))
  }

  /** False for a task that is not there, too: both are answered alike. */
  #sees(session: PeerSession, n: number): boolean {
    if (this.#isLeasable(n)) return true
    if (this.#engine.tasks.owner(n) !== undefined) this.#denied(session, `a lease of task ${n}`)
    return false
  }

  #isLeasable(n: number): boolean {
    const owner = this.#engine.tasks.owner(n)
    if (owner === undefined) return false
    return this.may((owner instanceof Task ? owner.queue : owner).id, "lease")
  }
}
