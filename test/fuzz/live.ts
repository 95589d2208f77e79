/**
 * Legal and illegal sequences of commands on a live manager, from 1 to 100 links, beside a neighbour that only works.
 *
 *     world = one manager, one neighbour, some hundred sequences; sequence = links, frames, cuts, ends, takeovers
 *
 * After each sequence the neighbour has put, leased and committed without an error, every link is closed, the engine's
 * invariants hold, and when the sessions that were left have said goodbye there are as many as before. No turn of the
 * event loop may take over 100 ms of the thread's time: a sequence with a longer one is run again in a world of its own.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schema from "effect/Schema"
import * as Limits from "../../src/Limits.ts"
import * as Manager from "../../src/Manager.ts"
import type { Core } from "../../src/manager/Core.ts"
import { PeerSession } from "../../src/manager/Peer.ts"
import { check } from "../../src/model/Invariants.ts"
import * as Store from "../../src/Store.ts"
import * as TaskQueue from "../../src/TaskQueue.ts"
import * as ClientMessages from "../../src/wire/ClientMessages.ts"
import { frame } from "../../src/wire/Frames.ts"
import { ClientType as C } from "../../src/wire/Vocabulary.ts"
import { Random } from "../unit/random.ts"
import { clientMessages } from "../unit/wire/messages.ts"
import { mutated } from "./bytes.ts"
import { type Dial, FuzzPeer, Known } from "./peer.ts"
import { inputMsMax, threadMs } from "./target.ts"

export interface LiveOptions {
  readonly seed: number
  readonly sequences: number
  /** Over real sockets, with a login. Default: pairs of ends in this process. */
  readonly tcp?: boolean
  /** A planted bug, for the test of this test. */
  readonly sabotage?: (core: Core) => void
  readonly stop?: () => boolean
}

export interface LiveResult {
  sequences: number
  links: number
  frames: number
  commands: number
  answers: number
  closings: number
  takeovers: number
  /** Tasks that were suspended, and steps and signals that were recorded. */
  suspended: number
  entries: number
  /** Tasks that the neighbour put, leased and committed. */
  neighbour: number
  /** Of the thread's time. */
  longestTurnMs: number
  failure: string | undefined
}

export const newLiveResult = (): LiveResult => ({
  sequences: 0,
  links: 0,
  frames: 0,
  commands: 0,
  answers: 0,
  closings: 0,
  takeovers: 0,
  suspended: 0,
  entries: 0,
  neighbour: 0,
  longestTurnMs: 0,
  failure: undefined
})

/** Sequences of one manager: then it is replaced, so that what they leave behind does not slow the next ones down. */
export const worldSequences = 200

const key = "a-secret-of-the-fuzzed-manager-0123456789abcd"
const neighbourQueue = TaskQueue.make("neighbour", { payload: Schema.Int, result: Schema.Int })

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
const names = ["a", "b", "c", "d", "e", "f"]
const commands = Object.values(clientMessages)
const huge = [1_000_000, 2 ** 31, 2 ** 32, Number.MAX_SAFE_INTEGER - 1, Number.MAX_SAFE_INTEGER]

/** A number that was heard, mostly; one that is made up, or that nothing has. */
const aimed = (random: Random, known: ReadonlyArray<number>, made: number): number => {
  if (known.length > 0 && random.int(8) > 0) return random.pick(known)
  return random.int(3) === 0 ? random.pick(huge) : made
}

const held = (random: Random, { leases }: Known): ReadonlyArray<number> => {
  const pairs: Array<number> = []
  for (let i = random.int(6); i > 0; i--) {
    const at = 2 * random.int(leases.length / 2)
    const task = leases[at] ?? random.int(1_000)
    const fence = leases[at + 1] ?? random.int(1_000)
    pairs.push(random.int(9) === 0 ? random.pick(huge) : task, random.int(6) === 0 ? fence + random.int(3) - 1 : fence)
  }
  return pairs.map((value) => Math.min(Math.max(0, value), Number.MAX_SAFE_INTEGER))
}

/** Numbers of a lease of its own, mostly; of one that was heard, or near it, or of none. */
const lease = (
  random: Random,
  { leases }: FuzzPeer,
  known: Known
): { readonly task: number; readonly fence: number } => {
  const at = leases.length - 2 - 2 * random.int(Math.min(4, leases.length / 2))
  const [task, fence] = leases.length > 0 && random.int(4) > 0 ? leases.slice(at) : held(random, known)
  return { task: task ?? random.int(1_000), fence: fence ?? random.int(1_000) }
}

const taskId = (random: Random): string => random.pick(["one", "two", "three", "four"])

/** Few names, so that they meet. */
const stepName = (random: Random): string => random.pick(["", "a", "b", "c"])

/** A command of the grammar. */
const command = (random: Random, peer: FuzzPeer, known: Known, forbidden: number): ClientMessages.ClientMessage => {
  // Work and its ends more often than the rest, logins and goodbyes seldom.
  const drawn = random.int(3) === 0 ? random.pick(workers)(random) : random.pick(commands)(random)
  if ((drawn.type <= C.sessionOpen || drawn.type === C.goodbye || drawn.type === C.close) && random.int(20) > 0) {
    const beat = { type: C.heartbeat, sequence: random.int(100), held: held(random, known) } as const
    if (random.chance(50)) return beat
    const drawn = clientMessages.heartbeat(random) as ClientMessages.Heartbeat
    return { ...beat, reports: (drawn.reports ?? []).map((report) => ({ ...report, ...lease(random, peer, known) })) }
  }
  return aim(random, peer, known, forbidden, drawn)
}

/** The message with its numbers aimed at what is there; never at the neighbour's queue. */
const aim = (
  random: Random,
  peer: FuzzPeer,
  known: Known,
  forbidden: number,
  drawn: ClientMessages.ClientMessage
): ClientMessages.ClientMessage => {
  const queueOf = (made: number): number => {
    const queue = aimed(random, known.queues, made)
    return queue === forbidden ? random.pick(huge) : queue
  }
  const m: Record<string, unknown> = { ...drawn }
  if ("request" in m) m["request"] = random.int(12) === 0 ? random.int(40) : 100 + peer.request++
  if ("queue" in m) m["queue"] = queueOf(random.int(20))
  if ("object" in m) m["object"] = aimed(random, known.objects, random.int(20))
  if ("stream" in m) m["stream"] = aimed(random, known.streams, random.int(20))
  if ("name" in m) m["name"] = drawn.type === C.signal ? `!${stepName(random)}` : random.pick(names)
  if ("waitMs" in m && random.int(4) > 0) m["waitMs"] = random.int(3) === 0 ? undefined : random.int(20)
  if ("held" in m) m["held"] = held(random, known)
  if (drawn.type === C.open) {
    m["fingerprint"] = new Uint8Array()
    const lanes = [20, 0, 1_000, 3, 0, 100, 0, 0, 1_000, 50, 60_000, 50, 60_000, 0, random.int(2), random.int(3)]
    m["policy"] = random.pick([[], [], lanes, drawn.policy])
  }
  if (drawn.type === C.step) {
    m["items"] = drawn.items.map((item) => ({ ...item, ...lease(random, peer, known), name: stepName(random) }))
  }
  if (drawn.type === C.suspend) {
    // Short ones mostly: then they end within the sequence.
    m["items"] = drawn.items.map((item) => ({
      ...item,
      ...lease(random, peer, known),
      forMs: random.int(3) === 0 ? undefined : random.int(random.pick([1, 20, 1_000_000])),
      seen: random.int(4)
    }))
  }
  // By number or by id; the ids of tasks are few as well.
  if (drawn.type === C.signal && drawn.id !== undefined) m["id"] = taskId(random)
  if (drawn.type === C.find) m["id"] = taskId(random)
  if (drawn.type === C.put) {
    m["options"] = drawn.options?.map((options) => {
      return options?.id === undefined || random.int(3) === 0 ? options : { ...options, id: taskId(random) }
    })
  }
  if (drawn.type === C.heartbeat && drawn.reports !== undefined) {
    m["reports"] = drawn.reports.map((report) => ({ ...report, ...lease(random, peer, known) }))
  }
  if (drawn.type === C.commit || drawn.type === C.fail || drawn.type === C.checkpoint) {
    // As many pairs as the message has items: other fields go by their number.
    const pairs = Array.from(drawn.tasks, () => held(random, known).slice(0, 2))
    m["tasks"] = pairs.map(([task]) => task ?? random.int(1_000))
    m["fences"] = pairs.map((pair) => pair[1] ?? random.int(1_000))
  } else if ("tasks" in m && Array.isArray(m["tasks"])) {
    m["tasks"] = m["tasks"].map(() => aimed(random, known.tasks, random.int(1_000)))
  }
  if ("task" in m && m["task"] !== undefined) m["task"] = aimed(random, known.tasks, random.int(1_000))
  if (drawn.type === C.commit && drawn.effects !== undefined) {
    const object = (): number => aimed(random, known.objects, random.int(20))
    m["effects"] = drawn.effects.map((effects) =>
      effects === undefined
        ? undefined
        : {
            puts: effects.puts.map((put) => ({ ...put, queue: queueOf(random.int(20)) })),
            sets: effects.sets.map((set) => ({ ...set, object: object() })),
            counts: effects.counts.map((count) => ({ ...count, object: object() })),
            writes: effects.writes.map((write) => ({ ...write, object: object() }))
          }
    )
  }
  return m as unknown as ClientMessages.ClientMessage
}

const workers = [
  clientMessages.open,
  clientMessages.put,
  clientMessages.put,
  clientMessages.lease,
  clientMessages.subscribe,
  clientMessages.commit,
  clientMessages.fail,
  clientMessages.release,
  clientMessages.started,
  clientMessages.renew,
  clientMessages.step,
  clientMessages.suspend,
  clientMessages.signal,
  clientMessages.find,
  clientMessages.heartbeat,
  clientMessages.openObject
]

const noBytes = new Uint8Array()

const progress = [clientMessages.step, clientMessages.step, clientMessages.suspend, clientMessages.heartbeat]
const answers = [clientMessages.signal, clientMessages.find, clientMessages.lease, clientMessages.release]

/** What leads far into a task that waits: a queue, a task with an id, its lease; then what its handler and others say. */
const resumable = async (random: Random, peer: FuzzPeer, known: Known, forbidden: number): Promise<void> => {
  const next = (): number => 100 + peer.request++
  const heard = async (holds: () => boolean): Promise<boolean> => {
    for (let i = 0; i < 50 && !holds() && !peer.closed; i++) await turn()
    return holds()
  }
  const one = { name: random.pick(names), fingerprint: noBytes, schema: "", accepts: [], policy: [] }
  const queues = known.queues.length
  peer.say([{ type: C.open, request: next(), ...one }])
  if (!(await heard(() => known.queues.length > queues))) return
  const queue = known.queues.at(-1)!
  if (queue === forbidden) return
  const leases = peer.leases.length
  const items = { payloads: [noBytes, noBytes], options: [{ id: taskId(random) }, undefined] }
  peer.say([
    { type: C.put, request: next(), queue, atomic: false, waitMs: 0, ...items },
    { type: C.lease, request: next(), queue, count: 2, waitMs: 0, get: false }
  ])
  if (!(await heard(() => peer.leases.length > leases))) return
  for (let i = 1 + random.int(4); i > 0; i--) {
    const drawn = random.pick(random.int(3) > 0 ? progress : answers)(random)
    const said = aim(random, peer, known, forbidden, drawn)
    peer.say([random.int(4) > 0 && "queue" in said && said.queue !== undefined ? { ...said, queue } : said])
    if (random.int(2) === 0) await turn()
  }
}

/** Runs the links of one sequence. */
const play = async (
  random: Random,
  dial: Dial,
  known: Known,
  forbidden: number,
  result: LiveResult
): Promise<ReadonlyArray<FuzzPeer>> => {
  const peers: Array<FuzzPeer> = []
  const tails = new Map<FuzzPeer, Uint8Array>()
  const count = random.pick([1, 1, 2, 2, 3, 4, 6, 10, random.int(20) === 0 ? 100 : 2])
  const steps = count + random.int(12 + 2 * count)
  const connect = (token: Uint8Array | undefined): FuzzPeer => {
    const peer = new FuzzPeer(dial, known, token, token === undefined ? [] : held(random, known))
    peers.push(peer)
    return peer
  }
  const framed = (peer: FuzzPeer): Uint8Array =>
    frame((w) => {
      for (let i = random.int(4); i >= 0; i--) {
        result.commands++
        ClientMessages.encode(w, command(random, peer, known, forbidden))
      }
    })
  for (let step = 0; step < steps; step++) {
    const open = peers.filter(({ closed }) => !closed)
    if (open.length < count && (step < count || random.int(2) === 0)) connect(undefined)
    const peer = random.pick(peers)
    if ("port" in dial && peer.busy && random.int(20) > 0) {
      await turn()
      continue
    }
    // What was cut before is said to its end first, or never.
    const tail = tails.get(peer)
    tails.delete(peer)
    if (tail !== undefined && random.int(4) > 0) peer.write(tail)
    switch (random.int(24)) {
      case 0:
        peer.destroy()
        break
      case 1:
        if (known.sessions.length > 0) {
          result.takeovers++
          connect(random.pick(known.sessions))
        }
        break
      case 2: {
        const bytes = framed(peer)
        const cut = random.int(bytes.byteLength)
        peer.write(bytes.subarray(0, cut))
        tails.set(peer, bytes.subarray(cut))
        break
      }
      case 3: {
        const bytes = framed(peer)
        peer.write(mutated(random, bytes.subarray(0, 4_096), bytes.subarray(0, 64), []).slice(0, 8_192))
        break
      }
      case 4: {
        // Without the header: the mutation is in the messages, and they are looked at.
        const body = mutated(random, framed(peer).subarray(4), noBytes, []).slice(0, 8_192)
        peer.write(frame((w) => w.reserve(body.byteLength)).subarray(0, 0))
        if (body.byteLength > 0) peer.write(Uint8Array.of(0, 0, body.byteLength >> 8, body.byteLength & 255, ...body))
        break
      }
      case 5:
        if (random.int(10) === 0) {
          const queue = aimed(random, known.queues, 0)
          peer.say(
            Array.from({ length: Limits.requestsInFlightMax + 20 }, (_, i): ClientMessages.Lease => {
              const request = 10_000 + i
              return {
                type: C.lease,
                request,
                queue: queue === forbidden ? 99 : queue,
                count: 1,
                waitMs: 50,
                get: true
              }
            })
          )
        } else if (random.int(5) === 0) peer.say([{ type: C.goodbye }])
        break
      case 7:
      case 8:
        await resumable(random, peer, known, forbidden)
        break
      case 6: {
        const bytes = framed(peer)
        for (let at = 0; at < bytes.byteLength; at += 7) peer.write(bytes.subarray(at, at + 7))
        break
      }
      default:
        peer.write(framed(peer))
    }
    if (random.int(3) === 0) await timedTurn(result)
  }
  await timedTurn(result)
  result.links += peers.length
  result.frames += known.frames
  return peers
}

const timedTurn = async (result: LiveResult): Promise<void> => {
  const from = threadMs()
  await turn()
  result.longestTurnMs = Math.max(result.longestTurnMs, threadMs() - from)
}

/** Waits, for a bounded number of turns, until it holds. */
const until = async (holds: () => boolean, what: () => string): Promise<void> => {
  for (let i = 0; i < 2_000; i++) {
    if (holds()) return
    await turn()
    if (i > 500) await new Promise((resolve) => setTimeout(resolve, 1))
  }
  throw new Error(`never happened: ${what()}`)
}

const randomOf = (seed: number, sequence: number): Random =>
  new Random(Math.imul(seed, 0x9e37_79b1) ^ Math.imul(sequence + 1, 0x85eb_ca6b))

/** One manager with its neighbour, and these sequences on it. Adds to `result`; its failure ends everything. */
const world = (options: LiveOptions, sequences: ReadonlyArray<number>, result: LiveResult): Promise<void> => {
  let core: Core | undefined
  const manager = Manager.layer({
    queues: [],
    inspect: (made) => {
      core = made
    }
  }).pipe(Layer.provide(Store.layerMemory))
  const layer = Layer.merge(Manager.layerTcp({ port: 0, auth: { key } }), Layer.empty).pipe(Layer.provideMerge(manager))
  const program = Effect.gen(function* () {
    const { connect } = yield* Manager.Manager
    const { address } = yield* Manager.Listening
    const run = Effect.runPromiseWith(yield* Effect.context<TaskQueueClient>())
    const dial: Dial = options.tcp === true ? { port: address._tag === "Tcp" ? address.port : 0, key } : { connect }
    const engine = core!.engine
    const { changed } = core!
    core!.changed = (change, task) => {
      if (change === "suspended") result.suspended++
      if (change === "entry") result.entries++
      changed(change, task)
    }
    yield* neighbourQueue.size
    options.sabotage?.(core!)
    const forbidden = engine.find("neighbour")!.id
    const baseline = engine.sessions.size
    const own = new Set(engine.sessions)
    const connected = (): number => {
      let count = 0
      for (const session of engine.sessions) {
        if (!own.has(session) && session instanceof PeerSession && session.peer !== undefined) count++
      }
      return count
    }
    let worked = 0
    const work = Effect.fnUntraced(function* (known: Known) {
      for (let i = 0; i < 2; i++) {
        yield* neighbourQueue.put(worked)
        const [lease] = yield* neighbourQueue.lease({ timeout: "10 seconds" })
        if (lease?.payload !== worked) throw new Error(`the neighbour leased ${lease?.payload}, it had put ${worked}`)
        // Somebody has overheard it, and has some turns to make use of that.
        const leased = engine.find("neighbour")!.leaseHead!
        for (let n = 0; n < 4; n++) known.leases.push(leased.n, engine.fence(leased))
        known.tasks.push(leased.n)
        for (let n = 0; n < 3; n++) yield* Effect.promise(turn)
        yield* neighbourQueue.commit(lease, worked)
        worked++
      }
    })
    const one = async (sequence: number): Promise<void> => {
      const before = result.longestTurnMs
      result.longestTurnMs = 0
      const known = new Known(forbidden)
      // Its failure is looked at when the links have had their say.
      const working = run(Effect.exit(work(known)))
      const peers = await play(randomOf(options.seed, sequence), dial, known, forbidden, result)
      const worker = await working
      if (Exit.isFailure(worker)) throw new Error(`the neighbour failed: ${Cause.pretty(worker.cause)}`)
      for (const peer of peers) peer.destroy()
      await until(
        () => core!.idle && peers.every(({ closed }) => closed) && connected() === 0,
        () => `${peers.filter(({ closed }) => !closed).length} links to be closed, ${connected()} sessions connected`
      )
      const fault = peers.find((peer) => peer.fault !== undefined)?.fault
      if (fault !== undefined) throw new Error(fault)
      const wrong = [...check(engine)]
      for (const session of engine.sessions) {
        if (own.has(session)) continue
        const { leaseStreams, outcomeStreams, waiting } = session
        if (leaseStreams.size + outcomeStreams.size > 0)
          wrong.push(`session ${session.id} has streams and no connection`)
        const left = [...waiting].find(({ kind }) => kind !== "put")
        if (left !== undefined) wrong.push(`a ${left.kind} of session ${session.id} waits and has no connection`)
      }
      if (wrong.length > 0) throw new Error(wrong.slice(0, 5).join("\n"))
      // Every session that is left says goodbye: then there are as many as before.
      const last = new Known(forbidden)
      const closers: Array<FuzzPeer> = []
      for (const session of engine.sessions) {
        if (own.has(session)) continue
        closers.push(new FuzzPeer(dial, last, session.token, [], [{ type: C.goodbye }]))
      }
      await until(
        () => core!.idle && closers.every(({ closed }) => closed),
        () => "the sessions left behind to say goodbye"
      )
      await until(
        () => engine.sessions.size === baseline,
        () => `${engine.sessions.size} sessions to become ${baseline} again`
      )
      const still = check(engine)
      if (still.length > 0) throw new Error(still.slice(0, 5).join("\n"))
      result.answers += known.answers
      result.closings += known.closings
      result.sequences++
      const longest = result.longestTurnMs
      result.longestTurnMs = before
      if (longest > inputMsMax && sequences.length > 1) {
        const again = newLiveResult()
        for (let i = 0; i < 2; i++) {
          const alone = newLiveResult()
          await world({ ...options, stop: () => false }, [sequence], alone)
          again.longestTurnMs = i === 0 ? alone.longestTurnMs : Math.min(again.longestTurnMs, alone.longestTurnMs)
        }
        if (again.longestTurnMs > inputMsMax) throw new Error(`a turn takes ${Math.round(again.longestTurnMs)} ms`)
      } else result.longestTurnMs = Math.max(before, longest)
    }
    yield* Effect.promise(async () => {
      for (const sequence of sequences) {
        if (options.stop?.() === true) break
        try {
          await one(sequence)
        } catch (error) {
          result.failure = `seed ${options.seed}, sequence ${sequence}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`
          break
        }
      }
    })
    result.neighbour += worked
    const queue = engine.find("neighbour")!
    if (result.failure === undefined && (queue.done !== worked || queue.puts !== worked)) {
      result.failure = `the neighbour committed ${worked} tasks, the manager counts ${queue.puts} puts and ${queue.done} done`
    }
  })
  return Effect.runPromise(program.pipe(Effect.provide(layer), Effect.provide(Logger.layer([]))))
}

type TaskQueueClient = Effect.Services<typeof neighbourQueue.size>

/** Sequences from `first` on, in steps of `step` worlds. */
export const runLive = async (
  options: LiveOptions,
  { first = 0, step = 1 }: { readonly first?: number; readonly step?: number } = {}
): Promise<LiveResult> => {
  const result = newLiveResult()
  for (let at = first; result.sequences < options.sequences && options.stop?.() !== true; at += step) {
    const count = Math.min(worldSequences, options.sequences - result.sequences)
    const sequences = Array.from({ length: count }, (_, i) => at * worldSequences + i)
    await world(options, sequences, result)
    if (result.failure !== undefined) break
  }
  return result
}
