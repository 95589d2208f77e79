/**
 * A disk inside a `World`, and the store port over it: a commit first reaches the page cache, then the disk.
 *
 * After a crash of the process everything that was applied is there; after a power loss only what was synced for certain,
 * and of the rest any number of batches from the front. Commits take their time, fail as full, or break before or after
 * they were applied; the process may be made to die at each of these moments.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { StoreBroken, StoreDamaged, StoreFull } from "../Errors.ts"
import { batchFault, type Row } from "../store/Batch.ts"
import type { StoreShape } from "../store/Store.ts"
import type { FaultCounts } from "./FaultCounts.ts"
import type { SeededRandom } from "./Random.ts"
import { ms, type Process, type World } from "./World.ts"

/** Probabilities are per commit. */
export interface StoreFaults {
  readonly latencyUs: readonly [min: number, max: number]
  /** A commit that takes 10 ms to 5 s. */
  readonly slow: number
  readonly full: number
  readonly brokenNotApplied: number
  readonly brokenApplied: number
  /** The process dies before the commit is applied, after it and before its answer, or right after its answer. */
  readonly crash: number
  /** How often a crash is a power loss. */
  readonly powerLoss: number
  /** How often a row that is read turns out to be damaged. It is until someone repairs it. */
  readonly damage: number
}

export const sound: StoreFaults = {
  latencyUs: [50, 300],
  slow: 0,
  full: 0,
  brokenNotApplied: 0,
  brokenApplied: 0,
  crash: 0,
  powerLoss: 0,
  damage: 0
}

export const storeFaultKinds = [
  "commit slow",
  "commit full",
  "commit broken, not applied",
  "commit broken, applied",
  "crash before a commit",
  "crash between a commit and its answer",
  "crash after a commit",
  "power lost",
  "store low",
  "row damaged",
  "damaged log refused"
]

/** The reason that every simulated failure gives, so that others are seen. */
export const simulated = "simulated"

interface State {
  readonly first: number
  readonly last: number
}

export class SimDisk {
  readonly instance: Uint8Array
  readonly durability: "fsync" | "buffered"
  faults: StoreFaults
  epoch = 0
  low = false
  /** A commit was handed over; what was decided until now is in the log when it ends with row `last`. */
  onCommit: (last: number) => void = () => {}
  /** The process is to die now. */
  onCrash: (powerLost: boolean) => void = () => {}
  /** Rows that are not what was written, with how often each was asked for since. */
  readonly damaged = new Map<number, number>()
  /** A damaged row is asked for again and again. */
  onInsistence: (seq: number) => void = () => {}
  readonly #world: World
  readonly #random: SeededRandom
  readonly #counts: FaultCounts
  /** Rows in the page cache; those below `first` until their removal is synced. */
  #rows: Array<Row> = []
  #state: State = { first: 1, last: 0 }
  #synced: State = { first: 1, last: 0 }
  /** What each batch that is not synced has left behind, oldest first. */
  #unsynced: Array<State> = []
  #syncing = false

  constructor(world: World, durability: "fsync" | "buffered", faults: StoreFaults, counts: FaultCounts) {
    this.#world = world
    this.#random = world.random.fork()
    this.#counts = counts
    this.durability = durability
    this.faults = faults
    this.instance = this.#random.bytes(8)
  }

  get last(): number {
    return this.#state.last
  }

  get rows(): ReadonlyArray<Row> {
    return this.#rows.filter(({ seq }) => seq >= this.#state.first)
  }

  /** Power is gone: of what was not synced, some batches from the front are on the disk. Returns how many are not. */
  losePower(): number {
    const kept = this.#random.int(this.#unsynced.length + 1)
    const lost = this.#unsynced.length - kept
    this.#state = this.#unsynced[kept - 1] ?? this.#synced
    this.#rows = this.#rows.filter(({ seq }) => seq <= this.#state.last)
    this.#sync()
    return lost
  }

  /** The store as the process that opens it has it. */
  open(process: Process): StoreShape {
    const epoch = ++this.epoch
    let broken: StoreBroken | undefined
    const breakDown = (): StoreBroken => {
      broken ??= new StoreBroken({ reason: simulated })
      return broken
    }
    return {
      durability: this.durability,
      keeps: true,
      identity: { instance: this.instance, epoch },
      low: () => this.low,
      load: Stream.suspend(() => {
        const rows = this.rows
        const sound = rows.findIndex(({ seq }) => this.damaged.has(seq))
        if (sound < 0) return Stream.fromIterable([...rows])
        this.#counts.fired("damaged log refused")
        const finding = `${simulated} damage of row ${rows[sound]!.seq}`
        const damaged = new StoreDamaged({ file: "the disk", finding, remedy: "repair it" })
        return Stream.concat(Stream.fromIterable(rows.slice(0, sound)), Stream.fail(damaged))
      }),
      commit: (batch) =>
        Effect.callback<void, StoreFull | StoreBroken>((resume) => {
          const random = this.#random
          const { faults } = this
          if (broken !== undefined) return resume(Effect.fail(broken))
          const wrong = batchFault(batch, this.last)
          if (wrong !== undefined) return resume(Effect.fail(new StoreBroken({ reason: wrong })))
          const latency = this.#latency()
          const answer = (effect: Effect.Effect<void, StoreFull | StoreBroken>, us: number): void =>
            void process.after(us, "stored", () => resume(effect))
          if (random.chance(faults.full)) {
            this.#counts.fired("commit full")
            return answer(Effect.fail(new StoreFull({ neededBytes: 1 })), latency)
          }
          this.onCommit(this.last + batch.rows.length)
          if (random.chance(faults.brokenNotApplied)) {
            this.#counts.fired("commit broken, not applied")
            return answer(Effect.fail(breakDown()), latency)
          }
          const crash = random.chance(faults.crash) ? random.int(3) : -1
          if (crash === 0) return this.#crash(process, "crash before a commit", latency >> 1)
          process.after(latency >> 1, "apply", () => {
            this.#apply(batch.rows, batch.dropBefore)
            if (random.chance(faults.brokenApplied)) {
              this.#counts.fired("commit broken, applied")
              return answer(Effect.fail(breakDown()), latency >> 1)
            }
            if (crash === 1) return this.#crash(process, "crash between a commit and its answer", latency >> 2)
            process.after(latency >> 1, "stored", () => {
              if (batch.durability === "fsync") this.#sync()
              else this.#syncLater()
              if (crash === 2) this.#crash(process, "crash after a commit", random.int(2_000))
              resume(Effect.void)
            })
          })
        }),
      read: (seqs) =>
        Effect.callback<ReadonlyArray<Row>, StoreBroken>((resume) => {
          if (broken !== undefined) return resume(Effect.fail(broken))
          process.after(this.#latency(), "read", () => {
            const found = new Map(this.rows.map((row) => [row.seq, row]))
            for (const seq of seqs) if (found.has(seq)) this.#damage(seq)
            resume(Effect.succeed(seqs.flatMap((seq) => (this.damaged.has(seq) ? [] : (found.get(seq) ?? [])))))
          })
        }),
      reopen: Effect.sync(() => {
        broken ??= new StoreBroken({ reason: `${simulated}: closed` })
        return this.open(process)
      })
    }
  }

  #damage(seq: number): void {
    const asked = this.damaged.get(seq)
    if (asked !== undefined) {
      this.damaged.set(seq, asked + 1)
      if (asked === 200) this.onInsistence(seq)
    } else if (this.#random.chance(this.faults.damage)) {
      this.#counts.fired("row damaged")
      this.#world.trace("damaged", seq)
      this.damaged.set(seq, 0)
    }
  }

  #apply(rows: ReadonlyArray<Row>, dropBefore: number): void {
    for (const { body, seq } of rows) this.#rows.push({ seq, body: body.slice() })
    const { first, last } = this.#state
    this.#state = { first: Math.max(first, dropBefore), last: last + rows.length }
    this.#unsynced.push(this.#state)
    this.#world.trace("applied", this.#state.last, rows.length, dropBefore)
  }

  #sync(): void {
    this.#synced = this.#state
    this.#unsynced = []
    this.#rows = this.#rows.filter(({ seq }) => seq >= this.#synced.first)
  }

  /** `buffered`: at most a second of work is not on the disk. */
  #syncLater(): void {
    if (this.#syncing) return
    this.#syncing = true
    this.#world.outside.after(1_000 * ms, "sync", () => {
      this.#syncing = false
      this.#sync()
    })
  }

  #crash(process: Process, kind: string, us: number): void {
    this.#counts.fired(kind)
    this.#world.outside.after(us, "crash", () => {
      if (process.alive) this.onCrash(this.#random.chance(this.faults.powerLoss))
    })
  }

  #latency(): number {
    const { latencyUs, slow } = this.faults
    if (!this.#random.chance(slow)) return this.#random.between(...latencyUs)
    this.#counts.fired("commit slow")
    return this.#random.pick([10, 100, 1_000, 5_000]) * ms
  }
}
