/**
 * The programs of a schedule: clients that use queues in every way, and workers whose handlers end in every way.
 *
 * They are written as users write them (`TaskQueue`, `Worker.start`), run as simulated processes, and record in the
 * history what they saw. What they do next is drawn from their process's own generator.
 */

import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Client, type ClientShape, make as makeClient } from "../client/Client.ts"
import { Link, type LinkOptions, type LoginError } from "../client/Link.ts"
import { taskIdOf } from "../client/TaskId.ts"
import type { Collecting, CommitAllError, Lease, Outcome, PutOptions, Timeout } from "../client/TaskQueue.ts"
import * as Limits from "../Limits.ts"
import type * as Wire from "../wire/Vocabulary.ts"
import * as Task from "../worker/Task.ts"
import * as Worker from "../worker/Worker.ts"
import type { Stats } from "./Check.ts"
import type { ObjectEnd } from "./CheckObjects.ts"
import type { FaultCounts } from "./FaultCounts.ts"
import {
  type Call,
  type Delivery,
  type EndCall,
  type History,
  type PutCall,
  type PutItem,
  type Recorded,
  type RepeatCall,
  type SaveCall,
  type SharedCall,
  type SignalCall,
  type StepCall,
  verdictOf
} from "./History.ts"
import { Bad, type Item, type Operation, type Plan, type SimQueue } from "./Plan.ts"
import type { SeededRandom } from "./Random.ts"
import { clicks, collect, type Hand, notes, objectsOf, onces, owned, readAll, useObject, words } from "./Sharing.ts"
import type { SimNetwork } from "./SimNetwork.ts"
import * as Stepping from "./Stepping.ts"
import type { Process, World } from "./World.ts"

/** What the programs of one schedule share. */
export interface Stage {
  readonly world: World
  readonly network: SimNetwork
  readonly plan: Plan
  readonly history: History
  /** What was done, by kind. */
  readonly kinds: FaultCounts
  readonly link: Pick<LinkOptions, "auth" | "saltPassword">
  /** From here on nothing misbehaves: handlers succeed, clients ask for nothing new. */
  healing: boolean
  readonly numbers: { item: number; result: number; reader: number }
  /** Links of living programs, to see that they come back. */
  readonly links: Map<Process, Link>
  readonly defect: (text: string) => void
  /** What each client does besides reading. */
  readonly work: Map<Process, Fiber.Fiber<unknown>>
  /** Task ids that any client has learned: what `outcome` asks for. */
  readonly known: Array<{ readonly queue: SimQueue; readonly taskId: string }>
  /** Tasks whose handlers may wait for the signal `go`, and those that have it for certain. */
  readonly waiting: Map<string, SimQueue>
  readonly signalled: Set<string>
  /** Operations that each client has left, over its restarts. */
  readonly left: Array<number>
}

export const managerAddress = { _tag: "Tcp", host: "manager", port: 8001 } as const

/** A client of the simulated manager, as `Client.layerTcp` makes it. */
export const connect = (stage: Stage, process: Process): Effect.Effect<ClientShape, LoginError, Scope.Scope> =>
  Effect.gen(function* () {
    const port = stage.network.portOf(process)
    const link = new Link({
      address: "manager:8001",
      dial: (handler) => port.dial(managerAddress, Limits.dialMs, handler),
      waitForManager: true,
      ...stage.link
    })
    stage.links.set(process, link)
    yield* link.run
    return Client.of(makeClient(link))
  })

// ---- recording

const begin = (world: World, client: string, queue: string): Call => ({
  client,
  queue,
  startedAt: world.now,
  endedAt: Number.POSITIVE_INFINITY,
  verdict: "open",
  error: undefined
})

/** Runs a call and writes down how it ended; its failure goes no further. */
const recorded = <A, E>(
  stage: Stage,
  call: Call & { readonly op: string },
  effect: Effect.Effect<A, E, Client>,
  onOk: (value: A) => void,
  onFailure: (error: E) => void = () => {}
): Effect.Effect<A | undefined, never, Client> =>
  Effect.onExit(effect, (exit) =>
    Effect.sync(() => {
      const { world } = stage
      if (Exit.isSuccess(exit)) {
        call.endedAt = world.now
        call.verdict = "ok"
        onOk(exit.value)
      } else {
        const failed = exit.cause.reasons.find(Cause.isFailReason)
        if (failed !== undefined) {
          const { tag, verdict } = verdictOf(failed.error)
          call.endedAt = world.now
          call.verdict = verdict
          call.error = tag
          onFailure(failed.error)
        } else if (!Cause.hasInterruptsOnly(exit.cause)) {
          stage.defect(`${call.op} of ${call.client} died: ${Cause.pretty(exit.cause)}`)
        }
      }
      world.trace("call", call.client, call.op, call.queue, call.verdict, call.error ?? "")
    })
  ).pipe(Effect.catchCause((cause) => (Cause.hasInterruptsOnly(cause) ? Effect.interrupt : Effect.undefined)))

const payloadText = (item: Item): string => JSON.stringify(item)

/** A payload that no other put has. */
const nextItem = (stage: Stage, random: SeededRandom): Item => ({
  u: ++stage.numbers.item,
  pad: "x".repeat(random.int(stage.plan.payloadBytesMax))
})

const drawTimeout = (random: SeededRandom): Timeout => random.pick([0, 0, 100, 1_000, 5_000, "forever"])

/** A child for some queue of the schedule. */
const nextChild = (stage: Stage, random: SeededRandom): readonly [queue: SimQueue, value: Item, item: PutItem] => {
  const value = nextItem(stage, random)
  const item: PutItem = {
    u: value.u,
    payload: payloadText(value),
    id: undefined,
    priority: 128,
    delayMs: 0,
    ttlMs: undefined,
    key: undefined
  }
  return [random.pick(stage.plan.queues), value, item]
}

/** Keys of tasks: few, so that they meet. */
const lanes = ["a", "b", "c"]

/** Dedupe ids of one schedule: few, so that they meet. */
const ids = 12

const treatments = ["commit", "commit", "commit", "release", "fail", "kill", "renew", "late", "twice", "never"] as const

/** What handlers wait for. */
const go = "!go"

// ---- clients

/** A client that uses the queues until it has used up its operations, then stays for its readers. */
export const clientProgram = (stage: Stage, process: Process, slot: number): Effect.Effect<void> =>
  Effect.scoped(
    Effect.gen(function* () {
      const client = yield* connect(stage, process)
      const random = process.random
      const user = new User(stage, process, slot)
      const inClient = Effect.provideService(Client, client)
      for (const queue of stage.plan.queues) {
        if (random.chance(0.4)) yield* Effect.forkScoped(inClient(user.read(queue)))
      }
      const hands = random.pick([1, 2, 6])
      const all = Effect.all(
        Array.from({ length: hands }, () => user.work),
        { concurrency: "unbounded" }
      )
      stage.work.set(process, yield* Effect.forkScoped(inClient(all)))
      yield* Effect.never
    })
  ).pipe(Effect.catch((error) => Effect.sync(() => stage.defect(`${process.name} gave up: ${error.message}`))))

class User {
  readonly #stage: Stage
  readonly #name: string
  readonly #random: SeededRandom
  readonly #slot: number

  constructor(stage: Stage, process: Process, slot: number) {
    this.#stage = stage
    this.#name = process.name
    this.#random = process.random
    this.#slot = slot
  }

  readonly work: Effect.Effect<void, never, Client> = Effect.suspend(() => this.#work())

  #work = Effect.fnUntraced({ self: this }, function* () {
    const { left, plan } = this.#stage
    while (left[this.#slot]! > 0 && !this.#stage.healing) {
      left[this.#slot]!--
      if (plan.thinkMs > 0) yield* Effect.sleep(this.#random.int(plan.thinkMs))
      const queue = this.#random.pick(plan.queues)
      yield* this.#operation(this.#random.weighted<Operation>(plan.uses), queue)
    }
  })

  #operation(operation: Operation, queue: SimQueue): Effect.Effect<unknown, never, Client> {
    const random = this.#random
    const timeout = drawTimeout(random)
    switch (operation) {
      case "put":
        return this.#put(queue, 1, false, timeout)
      case "putAll":
        return this.#put(queue, random.between(2, 20), random.chance(0.4), timeout)
      case "get":
        return this.#get(queue, timeout)
      case "lease":
        return this.#lease(queue, timeout)
      case "outcome": {
        const { known } = this.#stage
        if (known.length === 0) return Effect.void
        const about = random.pick(known)
        return this.ask(about.queue, about.taskId, timeout)
      }
      case "peek":
        return recorded(this.#stage, this.#other("peek", queue), queue.peek(random.between(1, 5)), () => {})
      case "stats":
        return recorded(this.#stage, this.#other("stats", queue), queue.stats, () => {})
      case "join":
        return recorded(this.#stage, this.#other("join", queue), queue.join({ timeout }), () => {})
      case "cancel": {
        const { known } = this.#stage
        if (known.length === 0) return Effect.void
        const about = random.pick(known)
        return recorded(this.#stage, this.#other("cancel", about.queue), about.queue.cancel(about.taskId), () => {})
      }
      case "pause": {
        const pause = recorded(this.#stage, this.#other("pause", queue), queue.pause(), () => {})
        const resume = recorded(this.#stage, this.#other("resume", queue), queue.resume(), () => {})
        return Effect.andThen(pause, Effect.andThen(Effect.sleep(random.int(2_000)), resume))
      }
      case "purge":
        return recorded(this.#stage, this.#other("purge", queue), queue.purge(), () => {})
      case "redrive":
        return recorded(this.#stage, this.#other("redrive", queue), queue.redrive(), () => {})
      case "share":
        return this.#share()
      case "lane":
        return this.#lane(queue)
      case "repeat":
        return this.#repeat(queue)
      case "step":
        return this.#steppedLease(queue)
      case "signal":
        return this.#signal(queue)
      case "find":
        return recorded(
          this.#stage,
          this.#other("find", queue),
          Stepping.find(queue, `id${random.int(ids)}`),
          (found) => this.#stage.kinds.fired(found === undefined ? "find nobody" : "find")
        )
      case "close": {
        const mode = random.pick(["drain", "immediate"] as const)
        return recorded(this.#stage, this.#other("close", queue), queue.close({ mode }), () => {})
      }
    }
  }

  ask(queue: SimQueue, taskId: string, timeout: Timeout): Effect.Effect<unknown, never, Client> {
    return recorded(this.#stage, this.#other("outcome", queue), queue.outcome(taskId, { timeout }), (outcome) =>
      this.#read(queue, outcome, undefined)
    )
  }

  #share(): Effect.Effect<unknown, never, Client> {
    const { history, kinds, numbers, world } = this.#stage
    const ask: Hand["ask"] = (object, about, effect, onOk, onFailure) =>
      Effect.suspend(() => {
        const none = { value: undefined, expected: undefined, answer: undefined }
        const call: SharedCall = { ...begin(world, this.#name, object.name), ...none, ...about }
        history.shared.push(call)
        const succeeded = (answer: Parameters<typeof onOk>[0]): void => {
          kinds.fired(`shared ${call.op}`)
          onOk(answer, call)
        }
        return recorded(this.#stage, call, effect, succeeded, (error) => onFailure?.(error, call))
      })
    return useObject({ ask, random: this.#random, fresh: () => ++numbers.result })
  }

  #lane(queue: SimQueue): Effect.Effect<unknown, never, Client> {
    const { kinds } = this.#stage
    const random = this.#random
    const lane = queue.lane(random.pick(lanes))
    const change = random.pick(["limit", "limit", "slowDown", "clear", "pause"] as const)
    const once = <E>(effect: Effect.Effect<void, E, Client>) =>
      recorded(this.#stage, this.#other("lane", queue), effect, () => kinds.fired(`lane ${change}`))
    switch (change) {
      case "limit":
        return once(
          lane.limit({
            concurrency: random.pick([undefined, 0, 1, 3]),
            gap: random.pick([undefined, 0, 100, 500]),
            ratePerSecond: random.pick([undefined, 0, 2, 20]),
            burst: random.pick([undefined, 1, 4])
          })
        )
      case "slowDown":
        return once(lane.slowDown(random.int(3_000)))
      case "clear":
        return once(lane.clear)
      case "pause": {
        const pause = Effect.andThen(once(lane.pause), Effect.sleep(random.int(3_000)))
        return Effect.andThen(
          pause,
          Effect.suspend(() => once(lane.resume))
        )
      }
    }
  }

  #repeat(queue: SimQueue): Effect.Effect<unknown, never, Client> {
    const { history, kinds, world } = this.#stage
    const random = this.#random
    const id = `r${random.int(2)}`
    const about = begin(world, this.#name, queue.name)
    if (random.chance(0.2)) {
      const call: RepeatCall = { ...about, op: "removeRepeat", id, item: undefined }
      history.repeats.push(call)
      return recorded(this.#stage, call, queue.removeRepeat(id), () => kinds.fired("repeat removed"))
    }
    const item = nextItem(this.#stage, random)
    const call: RepeatCall = { ...about, op: "repeat", id, item: { u: item.u, payload: payloadText(item) } }
    history.repeats.push(call)
    const every = random.pick([1_000, 3_000, 10_000])
    const options = { key: random.chance(0.3) ? "a" : undefined, ttl: random.chance(0.2) ? 2_000 : undefined }
    return recorded(this.#stage, call, queue.repeat(id, { every }, item, options), () => kinds.fired("repeat"))
  }

  #other<Op extends string>(op: Op, queue: SimQueue): Call & { readonly op: Op } {
    const call = { ...begin(this.#stage.world, this.#name, queue.name), op }
    this.#stage.history.others.push(call as never)
    return call
  }

  #put(queue: SimQueue, count: number, atomic: boolean, timeout: Timeout): Effect.Effect<unknown, never, Client> {
    const { history, known, world } = this.#stage
    const random = this.#random
    const values = Array.from({ length: count }, () => nextItem(this.#stage, random))
    const withId = random.chance(0.3)
    const priority = random.chance(0.3) ? random.pick([0, 100, 255]) : undefined
    const delay = random.chance(0.2) ? random.int(5_000) : undefined
    const ttl = random.chance(0.1) ? random.between(100, 20_000) : undefined
    const key = random.chance(0.5) ? random.pick(lanes) : undefined
    const idOf = new Map(values.map((item) => [item.u, withId ? `id${random.int(ids)}` : undefined]))
    const items: ReadonlyArray<PutItem> = values.map((item) => ({
      u: item.u,
      payload: payloadText(item),
      id: idOf.get(item.u),
      priority: priority ?? 128,
      delayMs: delay ?? 0,
      ttlMs: ttl,
      key: count === 1 ? key : undefined
    }))
    const call: PutCall = {
      ...begin(world, this.#name, queue.name),
      op: "put",
      items,
      atomic: atomic || count === 1,
      receipts: [],
      accepted: 0
    }
    history.puts.push(call)
    world.show(
      "putting",
      this.#name,
      queue.name,
      `${items[0]!.u}..${items.at(-1)!.u}`,
      atomic ? "atomic" : "",
      String(timeout)
    )
    const options: Pick<PutOptions, "priority" | "delay" | "ttl" | "timeout"> = { priority, delay, ttl, timeout }
    const effect =
      count === 1
        ? Effect.map(queue.put(values[0]!, { ...options, key, id: items[0]!.id }), (receipt) => [receipt])
        : queue.putAll(values, {
            ...options,
            atomic,
            ...(withId ? { id: (item: Item) => idOf.get(item.u)! } : {})
          })
    return recorded(
      this.#stage,
      call,
      effect,
      (receipts) => {
        call.receipts = receipts.map(({ duplicate, taskId }) => ({ duplicate, taskId }))
        call.accepted = receipts.length
        for (const { taskId } of receipts) known.push({ queue, taskId })
      },
      (error) => {
        if (error._tag === "Full") call.accepted = error.accepted
        world.show("refused", this.#name, items[0]!.u, error._tag, JSON.stringify(error))
        if (error._tag === "Closed") call.accepted = error.accepted ?? 0
      }
    )
  }

  #get(queue: SimQueue, timeout: Timeout): Effect.Effect<unknown, never, Client> {
    const { history, world } = this.#stage
    return recorded(this.#stage, this.#other("get", queue), queue.get({ timeout }), (item) => {
      history.deliveries.push({
        how: "get",
        client: this.#name,
        queue: queue.name,
        at: world.now,
        taskId: undefined,
        fence: undefined,
        attempt: undefined,
        u: item.u,
        payload: payloadText(item),
        checkpoint: undefined,
        result: undefined
      })
    })
  }

  #lease = Effect.fnUntraced({ self: this }, function* (queue: SimQueue, timeout: Timeout) {
    const random = this.#random
    const max = random.between(1, 4)
    const leases = yield* recorded(
      this.#stage,
      this.#other("lease", queue),
      queue.lease({ max, timeout }),
      (leases) => {
        for (const lease of leases) this.#delivered(queue, lease)
      }
    )
    for (const lease of leases ?? []) yield* this.#treat(queue, lease)
  })

  /** Leases a task, goes on behind what earlier attempts have recorded, and ends the lease in some way. */
  #steppedLease = Effect.fnUntraced({ self: this }, function* (queue: SimQueue) {
    const random = this.#random
    const askedAt = this.#stage.world.now
    const leases = yield* recorded(
      this.#stage,
      this.#other("lease", queue),
      Stepping.lease(queue, random.between(1, 2), random.pick([0, 1_000])),
      (leases) => {
        for (const lease of leases) this.#delivered(queue, lease, lease.entries, askedAt)
      }
    )
    for (const lease of leases ?? []) {
      const left = yield* runSteps(this.#stage, this.#name, random, queue, lease)
      if (left === undefined) yield* random.chance(0.5) ? this.#end(queue, lease, "release") : this.#treat(queue, lease)
    }
  })

  #signal(queue: SimQueue): Effect.Effect<unknown, never, Client> {
    const random = this.#random
    const { known, waiting } = this.#stage
    const name = random.chance(0.7) ? go : "!x"
    const send = (of: SimQueue, to: Receiver) => sendSignal(this.#stage, this.#name, of, to, name)
    if (random.chance(0.2)) return send(queue, { id: `id${random.int(ids)}` })
    if (waiting.size > 0 && random.chance(0.7)) {
      const [taskId, of] = random.pick([...waiting])
      return send(of, { taskId })
    }
    if (known.length === 0) return Effect.void
    const about = random.pick(known)
    return send(about.queue, { taskId: about.taskId })
  }

  #delivered(
    queue: SimQueue,
    lease: Lease<Item, number>,
    entries: ReadonlyArray<Recorded> | undefined = undefined,
    askedAt: number | undefined = undefined
  ): void {
    const { history, kinds, known, world } = this.#stage
    if (lease.checkpoint !== undefined) kinds.fired("checkpoint handed on")
    if (entries?.some(([name]) => !name.startsWith("!"))) kinds.fired("step handed on")
    if (entries?.some(([name]) => name.startsWith("!"))) kinds.fired("signal handed on")
    known.push({ queue, taskId: lease.taskId })
    history.deliveries.push({
      how: "lease",
      client: this.#name,
      queue: queue.name,
      at: world.now,
      taskId: lease.taskId,
      fence: lease.handle.fence,
      attempt: lease.attempt,
      u: lease.payload.u,
      payload: payloadText(lease.payload),
      checkpoint: lease.checkpoint,
      entries,
      askedAt,
      result: undefined
    })
  }

  /** Does with a lease what people do: end it well, badly, late, twice, or never. */
  #treat = Effect.fnUntraced({ self: this }, function* (queue: SimQueue, lease: Lease<Item, number>): Effect.fn.Return<
    unknown,
    never,
    Client
  > {
    const random = this.#random
    const way = random.pick(treatments)
    if (this.#stage.plan.saves) for (let i = random.int(3); i > 0; i--) yield* this.#save(queue, lease)
    if (random.chance(0.5)) yield* Effect.sleep(random.int(this.#stage.plan.handlerMs + 1))
    switch (way) {
      case "renew":
        yield* this.#end(queue, lease, "renew")
        yield* Effect.sleep(random.int(lease.leaseMs))
        return yield* this.#end(queue, lease, "commit")
      case "late":
        // On both sides of the end of the term.
        yield* Effect.sleep(lease.leaseMs + random.between(-20, 20))
        return yield* this.#end(queue, lease, random.pick(["commit", "renew", "release", "fail"]))
      case "twice":
        yield* this.#end(queue, lease, "commit")
        return yield* this.#end(queue, lease, random.pick(["commit", "renew", "release", "fail", "kill"]))
      case "never":
        return undefined
      default:
        return yield* this.#end(queue, lease, way)
    }
  })

  #save(queue: SimQueue, lease: Lease<Item, number>): Effect.Effect<unknown, never, Client> {
    const { history, kinds, numbers, world } = this.#stage
    const value = ++numbers.result
    const { fence } = lease.handle
    const about = { op: "checkpoint", taskId: lease.taskId, fence, u: lease.payload.u, value } as const
    const call: SaveCall = { ...begin(world, this.#name, queue.name), ...about }
    history.saves.push(call)
    return recorded(this.#stage, call, queue.checkpoint(lease, value), () => kinds.fired("checkpoint"))
  }

  #end(
    queue: SimQueue,
    lease: Lease<Item, number>,
    op: Exclude<EndCall["op"], "suspend">
  ): Effect.Effect<unknown, never, Client> {
    const { history, numbers, world } = this.#stage
    const result = op === "commit" ? ++numbers.result : undefined
    const call: EndCall = {
      ...begin(world, this.#name, queue.name),
      op,
      taskId: lease.taskId,
      fence: lease.handle.fence,
      result
    }
    history.ends.push(call)
    const effect = {
      commit: () => (this.#stage.plan.effects ? this.#commitAll(queue, lease, result!) : queue.commit(lease, result!)),
      release: () => queue.release(lease),
      fail: () => queue.fail(lease, new Bad({ why: "by hand" })),
      kill: () => queue.kill(lease, "by hand"),
      renew: () => queue.renew(lease)
    }[op]()
    return recorded(this.#stage, call, effect, () => {})
  }

  /** A commit that brings about what a worker's would. */
  #commitAll(queue: SimQueue, lease: Lease<Item, number>, result: number): Effect.Effect<void, CommitAllError, Client> {
    const stage = this.#stage
    const run = { at: stage.world.now, taskId: lease.taskId, result }
    const also = (commit: Collecting) =>
      collect(stage, this.#random, queue, lease.payload.u, run, commit, () => nextChild(stage, this.#random))
    return queue.commitAll([{ lease, result }], { also })
  }

  /** Reads outcomes as they come, and begins anew after a gap or another life of the manager. */
  read(queue: SimQueue): Effect.Effect<never, never, Client> {
    const readOn = Effect.suspend(() => {
      const reader = ++this.#stage.numbers.reader
      const slow = this.#random.chance(0.2)
      return queue.outcomes.pipe(
        Stream.runForEach((outcome) =>
          Effect.andThen(
            Effect.sync(() => this.#read(queue, outcome, reader)),
            slow ? Effect.sleep(20) : Effect.void
          )
        )
      )
    })
    const again = Effect.andThen(
      Effect.catch(readOn, (error) => Effect.sync(() => this.#stage.world.trace("reader", this.#name, error._tag))),
      Effect.sleep("1 second")
    )
    return Effect.forever(again)
  }

  #read(queue: SimQueue, outcome: Outcome<number, Bad, Item>, reader: number | undefined): void {
    const { history, world } = this.#stage
    history.outcomes.push({
      client: this.#name,
      queue: queue.name,
      at: world.now,
      taskId: outcome.taskId,
      outcome: outcome._tag,
      result: outcome._tag === "Success" ? outcome.result : undefined,
      attempts: outcome.attempts,
      reader
    })
  }
}

// ---- steps

type Receiver = { readonly taskId: string } | { readonly id: string }

/**
 * Goes on behind what earlier attempts have recorded. Undefined: its caller ends the lease; else it waits, or it was left
 * between two steps.
 */
const runSteps = Effect.fnUntraced(function* (
  stage: Stage,
  name: string,
  random: SeededRandom,
  queue: SimQueue,
  lease: Stepping.SteppedLease
): Effect.fn.Return<"waits" | "left" | undefined, never, Client> {
  const { kinds, plan, waiting } = stage
  const { taskId } = lease
  const known = new Set(lease.entries.map(([name]) => name))
  for (let i = 0, count = random.between(1, 3); i < count; i++) {
    const step = `s${i}`
    // What is recorded is not done again; who does it all the same finds the first.
    const again = known.has(step)
    if (again && !random.chance(0.2)) continue
    if (random.chance(0.2)) yield* Effect.sleep(random.int(plan.handlerMs + 1))
    if (!(yield* recordStep(stage, name, queue, lease, step))) return "left"
    if (again) kinds.fired("step again")
    known.add(step)
    if (random.chance(0.1)) return "left"
  }
  if (stage.healing || random.chance(0.4)) return undefined
  const forSignal = !known.has(go) && random.chance(0.5)
  if (forSignal) {
    waiting.set(taskId, queue)
    // Before the wait, and its handler does not know.
    if (random.chance(0.3) && (yield* sendSignal(stage, name, queue, { taskId }, go))) {
      kinds.fired("signal before its suspend")
    }
  }
  const forMs = forSignal && random.chance(0.7) ? undefined : random.int(3_000)
  const done = yield* suspend(stage, name, queue, lease, forMs, known.size)
  // Its lease is over: nothing is recorded any more.
  if (done && random.chance(0.2)) yield* recordStep(stage, name, queue, lease, "s9")
  return "waits"
})

const recordStep = (
  stage: Stage,
  client: string,
  queue: SimQueue,
  lease: Stepping.SteppedLease,
  name: string
): Effect.Effect<boolean, never, Client> => {
  const value = ++stage.numbers.result
  const { fence } = lease.handle
  const about = { op: "step", taskId: lease.taskId, fence, u: lease.payload.u, name, value } as const
  const call: StepCall = { ...begin(stage.world, client, queue.name), ...about }
  stage.history.steps.push(call)
  const asked = recorded(stage, call, Stepping.step(queue, lease, name, value), () => stage.kinds.fired("step"))
  return Effect.map(asked, () => call.verdict === "ok")
}

const suspend = (
  stage: Stage,
  client: string,
  queue: SimQueue,
  lease: Stepping.SteppedLease,
  forMs: number | undefined,
  seen: number
): Effect.Effect<boolean, never, Client> => {
  const about = { op: "suspend", taskId: lease.taskId, fence: lease.handle.fence, result: undefined } as const
  const call: EndCall = { ...begin(stage.world, client, queue.name), ...about }
  stage.history.ends.push(call)
  const asked = recorded(stage, call, Stepping.suspend(queue, lease, forMs, seen), () =>
    stage.kinds.fired(forMs === undefined ? "suspend until a signal" : "suspend")
  )
  return Effect.map(asked, () => call.verdict === "ok")
}

const sendSignal = (
  stage: Stage,
  client: string,
  queue: SimQueue,
  to: Receiver,
  name: string
): Effect.Effect<boolean, never, Client> => {
  const call: SignalCall = {
    ...begin(stage.world, client, queue.name),
    op: "signal",
    taskId: "taskId" in to ? to.taskId : undefined,
    id: "id" in to ? to.id : undefined,
    name,
    value: ++stage.numbers.result
  }
  stage.history.signals.push(call)
  const asked = recorded(stage, call, Stepping.signal(queue, to, name, call.value), () => {
    stage.kinds.fired("id" in to ? "signal by id" : "signal")
    if ("taskId" in to && name === go) stage.signalled.add(to.taskId)
  })
  return Effect.map(asked, () => call.verdict === "ok")
}

// ---- workers

/** A worker program on some of the queues; `patient`: what it leases it does, whatever the plan says. */
export const workerProgram = (
  stage: Stage,
  process: Process,
  queues: ReadonlyArray<SimQueue>,
  patient: boolean
): Effect.Effect<void> =>
  Effect.scoped(
    Effect.gen(function* () {
      const { plan } = stage
      const client = yield* connect(stage, process)
      const brought = overhear(client)
      for (const queue of queues) {
        const handler = (task: Task.Task<Item>) => handle(stage, process, client, queue, task, brought(task), patient)
        yield* Effect.provideService(
          Worker.start(queue, handler, {
            concurrency: patient ? 8 : plan.concurrency,
            prefetch: patient ? 8 : plan.prefetch,
            grace: process.random.pick([0, 100, 3_000])
          }),
          Client,
          client
        )
      }
      yield* Effect.never
    })
  ).pipe(Effect.catch((error) => Effect.sync(() => stage.defect(`${process.name} gave up: ${error.message}`))))

/** What the streams of a worker bring, for its handlers: fences, steps and signals of the tasks they are given. */
const overhear = (client: ClientShape): ((task: Task.Task<Item>) => Wire.Delivery | undefined) => {
  const { link } = client
  const items = new Map<string, Wire.Delivery>()
  const receive = link.receive.bind(link)
  link.receive = (stream, receiver) =>
    receive(stream, {
      ...receiver,
      deliver: (more) => {
        const prefix = link.session?.prefix ?? ""
        for (const item of more) items.set(taskIdOf(prefix, item.task), item)
        receiver.deliver?.(more)
      }
    })
  return ({ attempt, id }) => {
    const item = items.get(id)
    items.delete(id)
    return item?.attempt === attempt ? item : undefined
  }
}

const handle = (
  stage: Stage,
  process: Process,
  client: ClientShape,
  queue: SimQueue,
  task: Task.Task<Item>,
  item: Wire.Delivery | undefined,
  patient: boolean
): Effect.Effect<number, Bad | Task.Control | Task.PutChildError> =>
  Effect.suspend(() => {
    const { history, plan, world } = stage
    const { random } = process
    const entries = item === undefined ? undefined : Stepping.recordedOf(item)
    if (entries?.some(([name]) => !name.startsWith("!"))) stage.kinds.fired("step handed on to a worker")
    const run: Delivery = {
      how: "worker",
      client: process.name,
      queue: queue.name,
      at: world.now,
      taskId: task.id,
      fence: item?.fence,
      entries,
      attempt: task.attempt,
      u: task.payload.u,
      payload: payloadText(task.payload),
      checkpoint: undefined,
      result: undefined
    }
    history.deliveries.push(run)
    stage.known.push({ queue, taskId: task.id })
    world.trace("run", process.name, task.id, task.attempt)
    const succeed = Effect.suspend((): Effect.Effect<number, Task.PutChildError> => {
      const result = ++stage.numbers.result
      run.result = result
      if (!plan.effects) return Effect.succeed(result)
      const effects = collect(stage, random, queue, run.u, run, task, () => nextChild(stage, random))
      return Effect.as(Effect.provideService(effects, Client, client), result)
    })
    if (patient || stage.healing) return succeed
    const ending = random.weighted(plan.endings)
    const length = plan.handlerMs === 0 || random.chance(0.3) ? 0 : random.int(plan.handlerMs)
    const end = Effect.suspend((): Effect.Effect<number, Bad | Task.Control | Task.PutChildError> => {
      switch (ending) {
        case "succeed":
          return succeed
        case "fail":
          return Effect.fail(new Bad({ why: "drawn" }))
        case "kill":
          return random.chance(0.5) ? Task.kill("drawn") : Task.kill("drawn", new Bad({ why: "killed" }))
        case "release":
          return Task.release
        case "retryAfter":
          return plan.slowDowns > 0 && random.chance(0.5)
            ? Task.retryAfter(random.int(1_000), "for the lane", undefined, { lane: true })
            : Task.retryAfter(random.int(1_000))
        case "die":
          return Effect.die("drawn")
        case "interrupt":
          return Effect.interrupt
        case "endless":
          return Effect.never
        case "outstay":
          // The event loop is blocked: no heartbeat, no renewal, and then it goes on as if nothing had happened.
          stage.network.counts.fired("lease outstayed")
          process.pausedUntil = world.now + queue.definition.policy.leaseMs * 1_500
          return Effect.andThen(Effect.sleep(1), succeed)
      }
    })
    const children = random.chance(0.1) ? random.between(1, 3) : 0
    const putChildren = Effect.forEach(Array.from({ length: children }), () => {
      const [target, value, item] = nextChild(stage, random)
      history.children.push({ queue: target.name, item, run })
      return task.put(target, value)
    })
    const work = length === 0 ? end : Effect.andThen(Effect.sleep(length), end)
    const once = children === 0 ? work : Effect.andThen(putChildren, work)
    const stepped = (lease: Stepping.SteppedLease) =>
      Effect.flatMap(
        Effect.provideService(runSteps(stage, process.name, random, queue, lease), Client, client),
        (left): typeof once => {
          if (left === undefined) return once
          stage.kinds.fired(`worker ${left}`)
          return left === "waits" ? Task.release : Effect.die("left between two steps")
        }
      )
    const all =
      item !== undefined && plan.uses.step !== undefined && random.chance(0.5)
        ? stepped(Stepping.leaseOf(queue, task.id, task.payload, item))
        : once
    if (task.key === undefined || plan.slowDowns === 0 || !random.chance(plan.slowDowns)) return all
    stage.kinds.fired("slowed down by a handler")
    return Effect.andThen(task.slowDown(random.int(2_000)), all)
  })

// ---- the auditor

/** Asks what became of every task that anyone was told of, and for the counts of every queue. */
export const auditorProgram = (
  stage: Stage,
  process: Process,
  known: ReadonlyArray<{ readonly queue: SimQueue; readonly taskId: string }>,
  stats: Map<string, Stats>,
  objects: Map<string, ObjectEnd>
): Effect.Effect<void> =>
  Effect.scoped(
    Effect.gen(function* () {
      const client = yield* connect(stage, process)
      const user = new User(stage, process, -1)
      const asked = new Map(known.map((one) => [one.taskId, one]))
      const ask = ({ queue, taskId }: { readonly queue: SimQueue; readonly taskId: string }) =>
        user.ask(queue, taskId, 0)
      const questions = Effect.forEach([...asked.values()], ask, { concurrency: 64, discard: true })
      const counts = Effect.forEach(stage.plan.queues, (queue) =>
        Effect.map(queue.stats, (found) => stats.set(queue.name, found))
      )
      const byCommits = stage.plan.queues.flatMap(({ name }) => Object.values(objectsOf(name)))
      const shared = [
        ...(stage.plan.effects ? byCommits : []),
        ...(stage.plan.uses.share === undefined ? [] : [words, owned, clicks, onces, notes])
      ]
      const all = Effect.all([questions, counts, readAll(shared, objects)])
      yield* Effect.provideService(all, Client, client)
    })
  ).pipe(Effect.catch((error) => Effect.sync(() => stage.defect(`the auditor gave up: ${error.message}`))))

/** Ends the pauses of those who paused a queue and died; and what else clients have set, until nobody can any more. */
export const operatorProgram = (stage: Stage, process: Process, forMs: number): Effect.Effect<void> =>
  Effect.scoped(
    Effect.gen(function* () {
      const client = yield* connect(stage, process)
      const { history, plan, world } = stage
      const until = world.nowMs + forMs
      const surely = <A, E>(effect: Effect.Effect<A, E, Client>): Effect.Effect<A> =>
        Effect.eventually(
          Effect.provideService(
            Effect.tapError(effect, () => Effect.sleep(500)),
            Client,
            client
          )
        )
      for (const queue of plan.queues) yield* surely(queue.resume())
      const { lane, repeat, step } = plan.uses
      if (lane === undefined && repeat === undefined && step === undefined) return
      for (let first = true; first || world.nowMs < until; first = false) {
        for (const queue of plan.queues) {
          if (lane !== undefined) for (const key of lanes) yield* surely(queue.lane(key).clear)
          const askedAt = world.now
          const repeats = yield* surely(queue.repeats)
          const ids = repeats.map(({ id }) => id)
          if (first) history.repeatsListed.set(queue.name, { askedAt, ids })
          for (const id of ids) yield* surely(queue.removeRepeat(id))
        }
        // L1: a task whose signal was acknowledged waits for no other, unless the power took it.
        for (const [taskId, queue] of stage.waiting) {
          if (stage.signalled.has(taskId) && history.lostAt < 0) continue
          yield* Effect.provideService(sendSignal(stage, process.name, queue, { taskId }, go), Client, client)
        }
        yield* Effect.sleep(5_000)
      }
    })
  ).pipe(Effect.catch((error) => Effect.sync(() => stage.defect(`the operator gave up: ${error.message}`))))
