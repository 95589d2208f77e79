/**
 * One schedule: the real manager, real clients and real workers in a simulated world, from a seed.
 *
 *     faults (drawn) -> healing (faults off, everything restarted) -> drained? -> checks of the history -> end
 *
 * `simulate` is a function of its seed: the same seed gives the same events, byte for byte (`hash`).
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { userDefault } from "../auth/Auth.ts"
import { deriveVerifier, keyBytes, saltPassword } from "../auth/Credentials.ts"
import { taskIdOf } from "../client/TaskId.ts"
import * as Limits from "../Limits.ts"
import type { Core } from "../manager/Core.ts"
import * as Manager from "../manager/Manager.ts"
import type { Gate } from "../manager/Peer.ts"
import { Reason } from "../model/Task.ts"
import { layer as memory } from "../store/Memory.ts"
import { Store } from "../store/Store.ts"
import { toHex } from "../wire/Bytes.ts"
import { type Account, check, type Evidence, type Stats } from "./Check.ts"
import type { ObjectEnd } from "./CheckObjects.ts"
import { FaultCounts } from "./FaultCounts.ts"
import { History } from "./History.ts"
import { attach, Ledger } from "./Ledger.ts"
import { describe, draw, type Mishap, type Plan } from "./Plan.ts"
import {
  auditorProgram,
  clientProgram,
  managerAddress,
  operatorProgram,
  type Stage,
  workerProgram
} from "./Programs.ts"
import type { SeededRandom } from "./Random.ts"
import { networkFaultKinds, SimNetwork } from "./SimNetwork.ts"
import { SimDisk, simulated, sound, storeFaultKinds } from "./SimStore.ts"
import { ms, type Process, World } from "./World.ts"

export interface SimulateOptions {
  /** Prints the trace. */
  readonly print?: ((line: string) => void) | undefined
  /** Changes what the checkers see: a schedule that must then fail proves that they look (the canary). */
  readonly tamper?: ((evidence: Evidence) => Evidence) | undefined
}

/** A schedule with an acknowledged task taken away before the checkers look. Must fail. */
export const canary = (seed: number): Promise<Report> =>
  simulate(seed, {
    tamper: (evidence) => {
      const acknowledged = evidence.history.puts.flatMap(({ receipts }) => receipts.map(({ taskId }) => taskId))
      return { ...evidence, accounts: evidence.accounts.filter(({ taskId }) => taskId !== acknowledged[0]) }
    }
  })

/** Every kind of fault that a long enough run must have seen. */
export const faultKinds: ReadonlyArray<string> = [
  ...networkFaultKinds,
  ...storeFaultKinds,
  "manager killed",
  "client killed",
  "worker killed",
  "worker stopped",
  "client paused",
  "worker paused",
  "manager paused",
  "wall clock stepped",
  "timers late",
  "lease outstayed"
]

/** Every kind of operation that a long enough run must have done. */
export const operationKinds: ReadonlyArray<string> = [
  "commit with effects",
  "commit with a condition",
  "commit with a child if new",
  "shared add",
  "shared has",
  "shared remove",
  "shared count",
  "shared once",
  "shared write",
  "shared writeIf",
  "shared delete",
  "shared read",
  "checkpoint",
  "checkpoint handed on",
  "step",
  "step again",
  "step handed on",
  "suspend",
  "suspend until a signal",
  "signal",
  "signal by id",
  "signal handed on",
  "signal before its suspend",
  "find",
  "worker waits",
  "worker left",
  "step handed on to a worker",
  "repeat",
  "repeat removed",
  "occurrence",
  "lane limit",
  "lane slowDown",
  "lane clear",
  "lane pause",
  "slowed down by a handler",
  "dropped",
  "expired",
  "died of damage"
]

export interface Report {
  readonly seed: number
  readonly hash: string
  readonly plan: string
  /** Each begins with the number of the invariant. */
  readonly violations: ReadonlyArray<string>
  readonly faults: FaultCounts
  /** Operations that must all have been met, by kind. */
  readonly kinds: FaultCounts
  readonly counts: Counts
}

export interface Counts {
  schedules: number
  operations: number
  deliveries: number
  /** Deliveries of a task after its first: permitted, and worth knowing. */
  duplicates: number
  outcomesRead: number
  crashes: number
  recoveries: number
  events: number
  simulatedMs: number
}

export const noCounts = (): Counts => ({
  schedules: 0,
  operations: 0,
  deliveries: 0,
  duplicates: 0,
  outcomesRead: 0,
  crashes: 0,
  recoveries: 0,
  events: 0,
  simulatedMs: 0
})

export const addCounts = (into: Counts, more: Counts): void => {
  for (const key of Object.keys(into) as Array<keyof Counts>) into[key] += more[key]
}

/** Runs one schedule. Takes real time only, never waits for any. */
export const simulate = async (seed: number, options: SimulateOptions = {}): Promise<Report> => {
  const login = await prepared()
  return new Simulation(seed, login, options).run()
}

interface Login {
  readonly key: string
  readonly salted: Uint8Array
  readonly gate: Gate
}

/** PBKDF2 runs beside the event loop, so it is done before the first schedule, once. */
const prepared = (() => {
  let login: Promise<Login> | undefined
  const make = async (): Promise<Login> => {
    const key = "a-secret-of-the-simulation-0123456789abcdefg"
    const salt = new Uint8Array(16).fill(7)
    const iterations = Limits.scramIterationsMin
    const verifier = await deriveVerifier(userDefault, keyBytes(key), salt, iterations)
    const salted = await saltPassword(keyBytes(key), salt, iterations)
    const gate: Gate = {
      verifier: (name) => (name === userDefault ? verifier : undefined),
      grants: () => undefined,
      iterations: [iterations],
      mockSecret: new Uint8Array(32)
    }
    return { key, salted, gate }
  }
  return () => {
    login ??= make()
    return login
  }
})()

interface Program {
  readonly process: Process
  readonly fiber: Fiber.Fiber<void>
}

/** After the faults are over: time for everything to be done, and for everyone to be back. */
const healingMs = 180_000
/** How long clients may wait for what they wait for, once the faults are over. */
const patienceMs = 20_000
/** For each queue of a worker: its longest grace, a second for interrupted handlers, two for the last reports. */
const drainMs = 3_000 + 1_000 + 2_000 + 500
/** Heartbeats that do not come, and programs that outstay a lease. */
const foundOutMs = 40_000
const reconnectMs = Limits.heartbeatDeadMs + Limits.silenceLookMs + Limits.dialMs + Limits.reconnectCapMs + 5_000

class Simulation {
  readonly world: World
  readonly plan: Plan
  readonly faults = new FaultCounts()
  readonly violations: Array<string> = []
  readonly stage: Stage
  readonly ledger: Ledger
  readonly #random: SeededRandom
  readonly #login: Login
  readonly #options: SimulateOptions
  readonly #clients: Array<Program | undefined> = []
  readonly #workers: Array<Program | undefined> = []
  #manager: Program | undefined
  readonly #disk: SimDisk | undefined
  /** What was decided when the commit that ends with this row was made. */
  #sealed = new Map<number, number>()
  #crashes = 0
  #recoveries = 0
  #core: Core | undefined
  #names = 0
  #doneAt: number | undefined

  constructor(seed: number, login: Login, options: SimulateOptions) {
    this.#options = options
    this.world = new World(seed, options.print)
    this.#random = this.world.random.fork()
    this.plan = draw(seed, this.world.random.fork())
    this.#login = login
    this.ledger = new Ledger((invariant, text) => this.violated(invariant, text))
    this.world.show("plan", describe(this.plan))
    const { durability, store } = this.plan
    if (durability !== "memory") {
      this.#disk = new SimDisk(this.world, durability, store, this.faults)
      this.#disk.onCommit = (last) => {
        this.#sealed.delete(last)
        this.#sealed.set(last, this.ledger.decisions)
      }
      this.#disk.onInsistence = (seq) => {
        this.violated("L4", `row ${seq} cannot be read, and is asked for without end`)
      }
      this.#disk.onCrash = (powerLost) => this.#crash(powerLost)
    }
    this.world.onExcess = () => this.violated("L4", `${this.world.events} events: something runs without end`)
    this.world.onLog = (process, text) => {
      const broken = text.includes("the manager is broken") && !simulatedFault(text)
      if (broken) this.violated("defect", `${process.name}: ${text}`)
    }
    this.stage = {
      world: this.world,
      network: new SimNetwork(this.world, this.plan.network, this.faults),
      plan: this.plan,
      history: new History(),
      link: { auth: { key: login.key }, saltPassword: () => Effect.succeed(login.salted) },
      kinds: new FaultCounts(),
      healing: false,
      numbers: { item: 0, result: 0, reader: 0 },
      links: new Map(),
      work: new Map(),
      defect: (text) => this.violated("defect", text),
      known: [],
      waiting: new Map(),
      signalled: new Set(),
      left: Array.from({ length: this.plan.clients }, () => this.plan.operations)
    }
  }

  violated(invariant: string, text: string): void {
    // One fault breaks a thousand things; the first ones tell.
    if (this.violations.length < 20) this.violations.push(`${invariant}: ${text}`)
    this.world.show("VIOLATED", invariant, text)
  }

  run(): Report {
    return this.world.enter(() => this.#run())
  }

  #run(): Report {
    const { plan, stage, world } = this
    this.#startManager()
    for (let slot = 0; slot < plan.clients; slot++) this.#startClient(slot)
    for (let slot = 0; slot < plan.workers; slot++) this.#startWorker(slot)
    if (Number.isFinite(plan.mishapMs)) this.#nextMishap()
    world.run(plan.faultsMs * ms, () => this.violations.length > 0)
    if (this.violations.length === 0) this.#heal()
    return {
      seed: plan.seed,
      hash: world.hash.hex,
      plan: describe(plan),
      violations: this.violations,
      faults: this.faults,
      kinds: stage.kinds,
      counts: {
        schedules: 1,
        operations: stage.history.calls,
        deliveries: stage.history.deliveries.length,
        duplicates: this.ledger.duplicates,
        outcomesRead: stage.history.outcomes.length,
        crashes: this.#crashes,
        recoveries: this.#recoveries,
        events: world.events,
        simulatedMs: world.nowMs
      }
    }
  }

  // ---- processes

  #startManager(): void {
    const process = this.world.process(`manager${++this.#names}`)
    const { gate } = this.#login
    const disk = this.#disk
    const port = this.stage.network.portOf(process)
    const layer = Layer.provide(
      Manager.layer({
        queues: this.plan.queues,
        residentBytesMax: this.plan.residentBytesMax,
        inspect: (core) => {
          this.#begin(core)
        }
      }),
      disk === undefined ? memory : Layer.succeed(Store, Store.of(disk.open(process)))
    )
    const program = Effect.scoped(
      Effect.gen(function* () {
        const manager = Context.get(yield* Layer.build(layer), Manager.Manager)
        yield* port.listen(managerAddress, (connection) => manager.accept(connection, gate))
        yield* Effect.addFinalizer(() => manager.close(gate))
        yield* manager.failed
      })
    ).pipe(Effect.catch((error) => Effect.sync(() => this.#managerFailed(process, error.message))))
    this.#manager = { process, fiber: process.fork(program) }
  }

  /** A life of the manager, in a new process or in an old one that has opened its store again. */
  #begin(core: Core): void {
    this.#core = core
    const disk = this.#disk
    if (disk !== undefined) {
      if (this.ledger.life > 0) this.#recoveries++
      const stored = [...this.#sealed].filter(([last]) => last <= disk.last)
      this.#sealed = new Map(stored)
      this.ledger.revert(stored.at(-1)?.[1] ?? 0)
    }
    const say = (invariant: string, text: string): void => this.violated(invariant, text)
    this.ledger.damage = () => this.faults.counts.has("row damaged")
    attach(core, this.ledger, say, () => true)
  }

  /** It has given up; whoever runs it starts it again. */
  #managerFailed(process: Process, message: string): void {
    if (!simulatedFault(message)) return this.violated("defect", `the manager failed: ${message}`)
    this.faults.fired("manager gave up")
    // Whoever runs it has a copy of the disk.
    this.#disk?.damaged.clear()
    this.world.outside.after(ms, "exit", () => {
      if (process.alive) this.#crash(false)
    })
  }

  /** Everything of the manager's process is gone, and of the disk's cache if the power fails too. */
  #crash(powerLost: boolean): void {
    const { world } = this
    world.trace("crash", powerLost ? 1 : 0)
    this.#crashes++
    this.#kill(this.#manager!)
    if (powerLost) {
      this.faults.fired("power lost")
      const lost = this.#disk!.losePower()
      if (lost > 0 && this.plan.durability === "buffered") this.stage.history.lostAt = world.now
    }
    this.#core = undefined
    world.outside.after(this.#random.int(3_000) * ms, "restart", () => this.#startManager())
  }

  #startClient(slot: number): void {
    const process = this.world.process(`client${++this.#names}`)
    this.#clients[slot] = { process, fiber: process.fork(clientProgram(this.stage, process, slot)) }
  }

  #startWorker(slot: number, patient = false): void {
    const process = this.world.process(`worker${++this.#names}`)
    const { queues } = this.plan
    const some = queues.filter(() => process.random.chance(0.7))
    const served = patient || some.length === 0 ? queues : some
    this.#workers[slot] = { process, fiber: process.fork(workerProgram(this.stage, process, served, patient)) }
  }

  #kill(program: Program): void {
    this.stage.network.died(program.process, this.#random.chance(0.3))
    program.process.kill()
  }

  // ---- mishaps

  #nextMishap(): void {
    const wait = -Math.log(1 - this.#random.next()) * this.plan.mishapMs * ms
    this.world.outside.after(Math.ceil(wait), "mishap", () => {
      if (this.stage.healing) return
      this.#mishap(this.#random.weighted<Mishap>(this.plan.mishaps))
      this.#nextMishap()
    })
  }

  #mishap(mishap: Mishap): void {
    const { faults, world } = this
    const random = this.#random
    const { links } = this.stage.network
    const link = links.size === 0 ? undefined : [...links][random.int(links.size)]
    const until = world.now + random.pick([10, 200, 3_000, 15_000, 40_000]) * ms
    world.trace("mishap", mishap)
    switch (mishap) {
      case "reset":
        if (link === undefined) return
        faults.fired("connection reset")
        return link.reset(random.chance(0.5) ? link.left : link.right)
      case "stall":
        if (link === undefined) return
        faults.fired("stalled")
        return link.stall(until, [link.left, link.right])
      case "oneWay":
        if (link === undefined) return
        faults.fired("blocked one way")
        return link.stall(until, [random.chance(0.5) ? link.left : link.right])
      case "cut":
        if (link === undefined) return
        faults.fired("half-open")
        return link.cut()
      case "killClient":
        return this.#killOne("client killed", this.#clients, (slot) => this.#startClient(slot))
      case "killWorker":
        return this.#killOne("worker killed", this.#workers, (slot) => this.#startWorker(slot))
      case "stopWorker": {
        const slot = this.#slotOf(this.#workers)
        if (slot === undefined) return
        faults.fired("worker stopped")
        const { fiber, process } = this.#workers[slot]!
        this.#workers[slot] = undefined
        world.within(process, () => fiber.interruptUnsafe())
        return this.#later(() => this.#startWorker(slot))
      }
      case "pauseClient":
      case "pauseWorker": {
        const programs = mishap === "pauseClient" ? this.#clients : this.#workers
        const slot = this.#slotOf(programs)
        if (slot === undefined) return
        faults.fired(mishap === "pauseClient" ? "client paused" : "worker paused")
        programs[slot]!.process.pausedUntil = until
        return
      }
      case "pauseManager":
        faults.fired("manager paused")
        this.#manager!.process.pausedUntil = world.now + random.pick([10, 200, 3_000]) * ms
        return
      case "clockStep": {
        const process = random.pick(this.#living())
        faults.fired("wall clock stepped")
        process.wallOffsetMs = random.pick([-3_600_000, -1_000, 1_000, 3_600_000])
        return
      }
      case "timersLate": {
        const process = random.pick(this.#living())
        faults.fired("timers late")
        process.timersLate = random.pick([1, 1.5, 10])
        return
      }
      case "storeLow": {
        const disk = this.#disk
        if (disk === undefined) return
        faults.fired("store low")
        disk.low = true
        return void world.outside.after(random.int(5_000) * ms, "room", () => {
          disk.low = false
        })
      }
      case "crash":
        if (this.#disk === undefined || this.#core === undefined) return
        faults.fired("manager killed")
        return this.#crash(random.chance(this.plan.store.powerLoss))
    }
  }

  #slotOf(programs: ReadonlyArray<Program | undefined>): number | undefined {
    const living = programs.flatMap((program, slot) => (program === undefined ? [] : [slot]))
    return living.length === 0 ? undefined : this.#random.pick(living)
  }

  #killOne(kind: string, programs: Array<Program | undefined>, restart: (slot: number) => void): void {
    const slot = this.#slotOf(programs)
    if (slot === undefined) return
    this.faults.fired(kind)
    this.#kill(programs[slot]!)
    programs[slot] = undefined
    this.#later(() => restart(slot))
  }

  #later(run: () => void): void {
    this.world.outside.after(this.#random.int(5_000) * ms, "restart", () => {
      if (!this.stage.healing) run()
    })
  }

  #living(): ReadonlyArray<Process> {
    const programs = [this.#manager, ...this.#clients, ...this.#workers]
    return programs.flatMap((program) => (program === undefined ? [] : [program.process]))
  }

  // ---- healing

  #heal(): void {
    const { stage, world } = this
    world.trace("healing")
    stage.healing = true
    stage.network.heal()
    if (this.#disk !== undefined) {
      this.#disk.faults = sound
      this.#disk.low = false
      this.#disk.damaged.clear()
    }
    world.unpause()
    for (const process of this.#living()) process.timersLate = 1
    const stopped: Array<Fiber.Fiber<unknown>> = []
    for (const worker of this.#workers.splice(0)) {
      if (worker === undefined) continue
      if (this.#random.chance(0.3)) this.#kill(worker)
      else {
        world.within(worker.process, () => worker.fiber.interruptUnsafe())
        stopped.push(worker.fiber)
      }
    }
    for (let slot = 0; slot < 2; slot++) this.#startWorker(slot, true)
    const from = world.now
    const operator = world.process("operator")
    // Longer than anyone may wait for what was asked before.
    const operating = operator.fork(operatorProgram(stage, operator, patienceMs + 5_000))
    // Who waits for what may never come has had its time.
    world.outside.after(patienceMs * ms, "patience", () => {
      for (const [process, fiber] of stage.work) world.within(process, () => fiber.interruptUnsafe())
    })
    const drained = world.run(
      from + healingMs * ms,
      () => this.violations.length > 0 || (operating.pollUnsafe() !== undefined && this.#drained())
    )
    if (this.violations.length > 0) return
    if (!drained) this.violated("L1", `not drained ${healingMs} ms after the faults were over: ${this.#unfinished()}`)
    if (!this.#await(stopped, healingMs)) this.violated("L5", "a stopped worker did not end after the faults were over")
    world.trace("drained")
    this.#audit()
    if (this.violations.length === 0) this.#end(from)
  }

  /** Asks the manager, as a client, about everything that anyone was told; then judges the history. */
  #audit(): void {
    const { history, known } = this.stage
    const stats = new Map<string, Stats>()
    const process = this.world.process("auditor")
    const objects = new Map<string, ObjectEnd>()
    const fiber = process.fork(auditorProgram(this.stage, process, [...known], stats, objects))
    const answered = this.#await([fiber], 60_000)
    if (!answered) return this.violated("L1", "the manager did not answer what had become of the tasks")
    const accounts = this.#accounts()
    for (const { task } of accounts) {
      if (task.reason === Reason.dropped) this.stage.kinds.fired("dropped")
      if (task.reason === Reason.expired) this.stage.kinds.fired("expired")
      if (task.reason === Reason.damaged) this.stage.kinds.fired("died of damage")
    }
    const repeated = new Set(history.repeats.flatMap(({ item }) => item?.u ?? []))
    const occurrences = accounts.filter(({ u }) => repeated.has(u)).length
    if (occurrences > 0) this.stage.kinds.fired("occurrence", occurrences)
    const queues = new Map(this.plan.queues.map(({ definition, name }) => [name, definition.policy]))
    const evidence: Evidence = { history, accounts, queues, stats, objects }
    check(this.#options.tamper?.(evidence) ?? evidence, (invariant, text) => this.violated(invariant, text))
  }

  #accounts(): ReadonlyArray<Account> {
    const core = this.#core!
    const prefix = toHex(core.instance)
    return Array.from(this.ledger.tasks.values(), (task) => {
      // A codec byte, then JSON.
      const payload = utf8.decode(task.payload.subarray(1))
      const { u } = JSON.parse(payload) as { readonly u: number }
      const queue = core.engine.queues[task.queue]!.definition.name
      return { task, taskId: taskIdOf(prefix, task.task), queue, u, payload }
    })
  }

  /** L3 to L5: everyone is back, goes when told, and leaves nothing behind. */
  #end(healedAt: number): void {
    const { stage, world } = this
    const programs = [...this.#clients, ...this.#workers].flatMap((program) => (program === undefined ? [] : [program]))
    const back = (): boolean => programs.every(({ process }) => stage.links.get(process)?.connected === true)
    if (!world.run(healedAt + reconnectMs * ms, back)) {
      const away = programs.filter(({ process }) => stage.links.get(process)?.connected !== true)
      this.violated("L3", `not connected again: ${away.map(({ process }) => process.name).join(", ")}`)
    }
    world.trace("closing")
    for (const { fiber, process } of programs) world.within(process, () => fiber.interruptUnsafe())
    if (
      !this.#await(
        programs.map(({ fiber }) => fiber),
        drainMs * this.plan.queues.length
      )
    ) {
      this.violated("L5", `a program did not end within ${drainMs} ms per queue of being told`)
    }
    // What has no other end any more is found out by heartbeats that do not come; who outstays a lease wakes up first.
    world.run(world.now + foundOutMs * ms, () => false)
    const { engine } = this.#core!
    // Sessions of killed programs may be resumed for a day; they hold nothing.
    for (const session of engine.sessions) {
      const { id, leaseStreams, leased, outcomeStreams, waiting } = session
      const held = leased + waiting.size + leaseStreams.size + outcomeStreams.size
      if (held > 0) this.violated("L4", `session ${id} still has ${held} leases, waits and streams`)
    }
    for (const { id, left, right } of stage.network.links) {
      const open = left.closed ? right : right.closed ? left : undefined
      this.violated("L4", `connection ${id} is left, open at ${open?.process.name ?? "both ends"}`)
    }
    const timers = engine.timers.entries().filter(({ subject }) => subject._tag !== "Outcomes")
    if (timers.length > 0)
      this.violated(
        "L4",
        `timers are left: ${timers.map(({ at, subject }) => `${subject._tag} at ${at}`).join(", ")}, of ${engine.timers.next}`
      )
    const manager = this.#manager!
    world.within(manager.process, () => manager.fiber.interruptUnsafe())
    if (!this.#await([manager.fiber], 5_000)) this.violated("L5", "the manager did not end within 5 s of being told")
  }

  /** Lets the world go on until these fibers are over. */
  #await(fibers: ReadonlyArray<Fiber.Fiber<unknown>>, forMs: number): boolean {
    return this.world.run(
      this.world.now + forMs * ms,
      () => this.violations.length > 0 || fibers.every((fiber) => fiber.pollUnsafe() !== undefined)
    )
  }

  /** Nobody asks for anything any more, nothing is left, and nothing is on its way. */
  #drained(): boolean {
    const { work } = this.stage
    const busy = this.#clients.some((client) => {
      if (client === undefined) return false
      return work.get(client.process)?.pollUnsafe() === undefined
    })
    const done = !busy && this.#nothingLeft()
    if (!done) this.#doneAt = undefined
    else this.#doneAt ??= this.world.now
    return this.#doneAt !== undefined && this.world.now - this.#doneAt > 2_000 * ms
  }

  #nothingLeft(): boolean {
    const queues = this.#core?.engine.queues ?? []
    return (
      queues.length > 0 && queues.every(({ putWaiters, unfinished }) => unfinished === 0 && putWaiters.length === 0)
    )
  }

  #unfinished(): string {
    return this.#core!.engine.queues.map((queue) => {
      const { closed, definition, delayed, leased, putWaiters, ready } = queue
      return `${definition.name}: ${JSON.stringify({ ready: ready.size, delayed, leased, puts: putWaiters.length, closed })}`
    }).join(", ")
  }
}

/** A full store stops the manager too, once its reserve is used up: it starts again from what is stored. */
const simulatedFault = (text: string): boolean => text.includes(simulated) || text.includes("The store is full")

const utf8 = new TextDecoder()
