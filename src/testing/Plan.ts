/**
 * What one seed draws: how many programs, which queues, how they are used, and which faults there are and how often.
 *
 * Every seed has its own rates, zero included, so that each fault also meets schedules in which it is the only one.
 */
import * as Schema from "effect/Schema"
import { make, type TaskQueue } from "../client/TaskQueue.ts"
import type { SeededRandom } from "./Random.ts"
import type { NetworkFaults } from "./SimNetwork.ts"
import { healthy } from "./SimNetwork.ts"
import { type StoreFaults, sound } from "./SimStore.ts"
import { ms } from "./World.ts"

export const Item = Schema.Struct({ u: Schema.Int, pad: Schema.String })
export type Item = typeof Item.Type

export class Bad extends Schema.TaggedError<Bad>()("Bad", { why: Schema.String }) {}

export type SimQueue = TaskQueue<Item, number, Bad, number>

/** What happens outside of the programs, at random moments. */
export type Mishap =
  | "reset"
  | "stall"
  | "oneWay"
  | "cut"
  | "killClient"
  | "killWorker"
  | "stopWorker"
  | "pauseClient"
  | "pauseWorker"
  | "pauseManager"
  | "clockStep"
  | "timersLate"
  | "crash"
  | "storeLow"

export type Operation =
  | "put"
  | "putAll"
  | "get"
  | "lease"
  | "outcome"
  | "peek"
  | "stats"
  | "join"
  | "close"
  | "cancel"
  | "pause"
  | "purge"
  | "redrive"
  /** One of the requests about shared objects. */
  | "share"
  | "repeat"
  | "lane"
  /** A lease whose handler records steps, and may wait for a time or a signal. */
  | "step"
  | "signal"
  | "find"

export type Ending =
  | "succeed"
  | "fail"
  | "kill"
  | "release"
  | "retryAfter"
  | "die"
  | "interrupt"
  | "endless"
  | "outstay"

export interface Plan {
  readonly seed: number
  readonly queues: ReadonlyArray<SimQueue>
  readonly clients: number
  readonly workers: number
  /** Operations of each client. */
  readonly operations: number
  readonly faultsMs: number
  readonly network: NetworkFaults
  readonly durability: "memory" | "fsync" | "buffered"
  readonly store: StoreFaults
  /** Bytes of payloads that the manager keeps in memory. */
  readonly residentBytesMax: number | undefined
  /** Mean time between two mishaps; infinite: none. */
  readonly mishapMs: number
  readonly mishaps: Readonly<Partial<Record<Mishap, number>>>
  readonly uses: Readonly<Partial<Record<Operation, number>>>
  readonly endings: Readonly<Partial<Record<Ending, number>>>
  /** Longest think time between two operations, and longest run of a handler. */
  readonly thinkMs: number
  readonly handlerMs: number
  readonly payloadBytesMax: number
  readonly concurrency: number
  readonly prefetch: number
  /** Whether commits change shared objects. */
  readonly effects: boolean
  /** Whether those who lease by hand save their progress. */
  readonly saves: boolean
  /** How often a handler asks for its lane to wait. */
  readonly slowDowns: number
}

/** What the lanes of a queue are limited to, by its variant. */
const lanes = [
  {},
  { lane: { concurrency: 1 } },
  { lane: { concurrency: 2, gap: 50 } },
  {},
  { lane: { ratePerSecond: 20, burst: 2 } },
  { lane: { gap: 200 } }
]

/** How else a queue bounds what waits. */
const bounds = [
  {},
  { overflow: "dropOldest", capacity: 5 },
  { capacityBytes: 2_000 },
  { overflow: "dropOldest", capacityBytes: 3_000 }
] as const

/** Queues are made once: their codecs cost more than a schedule's use of them. */
const queueOf = (() => {
  const made = new Map<string, SimQueue>()
  return (variant: number, bound: number): SimQueue => {
    const name = bound === 0 ? `q${variant}` : `q${variant}.${bound}`
    const known = made.get(name)
    if (known !== undefined) return known
    const capacities = [3, 10, 50, 100_000]
    const leases = [1_000, 2_000, 5_000, 10_000]
    const queue: SimQueue = make(name, {
      payload: Item,
      result: Schema.Int,
      error: Bad,
      checkpoint: Schema.Int,
      policy: {
        capacity: capacities[variant % 4]!,
        lease: leases[(variant >> 2) % 4]!,
        maxAttempts: 1 + ((variant >> 4) % 4),
        backoff: { base: variant % 3 === 0 ? 0 : 200, cap: 2_000 },
        ...lanes[variant % 6],
        ...bounds[bound],
        ...(variant % 5 === 0 ? { dedupe: { count: 5, age: "3 seconds" } } : {}),
        ...(variant % 7 === 0 ? { outcomes: { count: 20, age: "10 seconds" } } : {})
      }
    })
    made.set(name, queue)
    return queue
  }
})()

const variants = 48

/** Weights of which about half are zero. Ensures: `always` is not. */
const some = <K extends string>(
  random: SeededRandom,
  names: ReadonlyArray<K>,
  always: K | undefined
): Partial<Record<K, number>> => {
  const weights: Partial<Record<K, number>> = {}
  for (const name of names) weights[name] = random.chance(0.5) ? random.next() : 0
  if (always !== undefined) weights[always] = 1 + random.next() * 3
  return weights
}

const sometimes = (random: SeededRandom, probability: number, most: number): number =>
  random.chance(probability) ? random.next() * most : 0

export const draw = (seed: number, random: SeededRandom): Plan => {
  const calm = random.chance(0.1)
  const latency = random.pick([100, 500, 2_000, 20_000])
  const network: NetworkFaults = calm
    ? healthy
    : {
        latencyUs: [latency >> 1, latency * 2],
        jitterUs: random.pick([0, 100, 5_000, 50_000]),
        refused: sometimes(random, 0.4, 0.5),
        unanswered: sometimes(random, 0.2, 0.3),
        breaks: sometimes(random, 0.4, 0.8),
        breakWithinBytes: random.pick([200, 2_000, 20_000]),
        cut: sometimes(random, 0.5, 1),
        singleBytes: sometimes(random, 0.3, 0.5),
        coalesced: sometimes(random, 0.5, 1),
        narrow: sometimes(random, 0.3, 0.5),
        lostAtEnd: sometimes(random, 0.5, 1)
      }
  const durability = random.weighted({ memory: 1, fsync: 3, buffered: 1 })
  const store: StoreFaults = calm
    ? sound
    : {
        latencyUs: random.pick([
          [20, 100],
          [100, 3_000],
          [1_000, 20_000]
        ]),
        slow: sometimes(random, 0.3, 0.05),
        full: sometimes(random, 0.3, 0.2),
        brokenNotApplied: sometimes(random, 0.3, 0.01),
        brokenApplied: sometimes(random, 0.3, 0.01),
        crash: sometimes(random, 0.4, 0.03),
        powerLoss: random.chance(0.5) ? random.next() : 0,
        damage: 0
      }
  const names: ReadonlyArray<Mishap> = [
    "reset",
    "stall",
    "oneWay",
    "cut",
    "killClient",
    "killWorker",
    "stopWorker",
    "pauseClient",
    "pauseWorker",
    "pauseManager",
    "clockStep",
    "timersLate",
    "crash",
    "storeLow"
  ]
  const mishaps = some(random, names, undefined)
  if (!names.some((name) => (mishaps[name] ?? 0) > 0)) mishaps.reset = 1
  const queues = new Set<number>()
  for (let i = random.between(1, 3); i > 0; i--) queues.add(random.int(variants))
  const made: Array<SimQueue> = []
  const clients = random.between(1, 4)
  const uses = some<Operation>(
    random,
    ["putAll", "get", "lease", "outcome", "peek", "stats", "join", "close", "cancel", "pause", "purge", "redrive"],
    "put"
  )
  if (uses.close !== undefined) uses.close *= 0.02
  if (uses.purge !== undefined) uses.purge *= 0.1
  const plan: Plan = {
    seed,
    queues: made,
    clients,
    workers: random.between(0, 3),
    operations: Math.floor(random.between(100, 300) / clients),
    faultsMs: random.pick([5_000, 20_000, 60_000]),
    network,
    durability,
    store,
    residentBytesMax: random.pick([undefined, undefined, 0, 1_000]),
    mishapMs: calm ? Number.POSITIVE_INFINITY : random.pick([200, 1_000, 4_000, 10_000]),
    mishaps,
    uses,
    endings: some<Ending>(
      random,
      ["fail", "kill", "release", "retryAfter", "die", "interrupt", "endless", "outstay"],
      "succeed"
    ),
    thinkMs: random.pick([0, 5, 50, 500]),
    handlerMs: random.pick([0, 2, 50, 2_000]),
    payloadBytesMax: random.pick([20, 200, 5_000]),
    concurrency: random.pick([1, 2, 8]),
    prefetch: random.pick([0, 1, 8]),
    // Drawn last: whatever else there is to draw keeps what a seed had before.
    effects: random.chance(0.35),
    saves: random.chance(0.4),
    slowDowns: random.chance(0.3) ? 0.2 : 0
  }
  if (random.chance(0.3)) uses.share = random.next() * 2
  if (random.chance(0.2)) uses.repeat = random.next() * 0.3
  if (random.chance(0.2)) uses.lane = random.next()
  for (const variant of queues) made.push(queueOf(variant, random.chance(0.25) ? random.between(1, 3) : 0))
  const damage = calm || !random.chance(0.3) ? 0 : random.next() * 0.05
  if (random.chance(0.4)) {
    uses.step = 0.2 + random.next() * 2
    uses.signal = random.next()
    uses.find = random.next() * 0.2
  }
  return { ...plan, store: { ...store, damage } }
}

/** A plan for people. */
export const describe = (plan: Plan): string => {
  const { queues, ...rest } = plan
  const policies = queues.map(({ definition: { name, policy } }) => ({ name, ...policy }))
  return JSON.stringify({ ...rest, queues: policies })
}

export const secondsUs = (seconds: number): number => seconds * 1_000 * ms
