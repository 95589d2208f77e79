/**
 * A store that keeps its rows in a plain array, for tests that stop a manager and start another on the same "disk".
 *
 * It obeys the contract of every store; what it cannot do is lose power. `MemoryDisk` outlives the layer and may be
 * looked at and bent by the test: drop a row, change a byte, turn the switch for "full".
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { StoreBroken, StoreDamaged, StoreFull, StoreLocked } from "../Errors.ts"
import { randomBytes } from "../platform/Crypto.ts"
import { batchFault, type Row } from "../store/Batch.ts"
import { Store, type StoreShape } from "../store/Store.ts"

export interface MemoryDiskOptions {
  /** Default: random. Give one where a run has to be the same every time. */
  readonly instance?: Uint8Array | undefined
  readonly durability?: "fsync" | "buffered" | undefined
}

export class MemoryDisk {
  readonly instance: Uint8Array
  readonly durability: "fsync" | "buffered"
  /** What is on the disk, in order. */
  rows: Array<Row> = []
  first = 1
  last = 0
  epoch = 0
  open = false
  /** Batches that were applied. */
  commits = 0
  /** No room for new work: what `low` says. */
  low = false
  /** No room at all: a commit is `StoreFull`. */
  full = false

  constructor(options: MemoryDiskOptions = {}) {
    this.instance = options.instance ?? randomBytes(8)
    this.durability = options.durability ?? "fsync"
  }

  row(seq: number): Row | undefined {
    return this.rows.find((row) => row.seq === seq)
  }
}

/** One manager at a time; the disk is free again when the layer's scope closes. */
export const layerMemoryLog = (disk: MemoryDisk): Layer.Layer<Store, StoreLocked> => Layer.effect(Store, open(disk))

const open = (disk: MemoryDisk): Effect.Effect<StoreShape, StoreLocked, Scope.Scope> =>
  Effect.gen(function* () {
    let broken: StoreBroken | undefined
    yield* Effect.acquireRelease(
      Effect.suspend(() => {
        if (!disk.open) return Effect.sync(() => (disk.open = true))
        return new StoreLocked({ directory: "memory", holder: "another layer", remedy: "close it first" })
      }),
      () =>
        Effect.sync(() => {
          disk.open = false
          broken ??= new StoreBroken({ reason: "it is closed" })
        })
    )
    disk.epoch++
    const missing = (seq: number): StoreDamaged =>
      new StoreDamaged({ file: "memory", finding: `row ${seq} is missing`, remedy: "look at the test" })
    return Store.of({
      durability: disk.durability,
      keeps: true,
      identity: { instance: disk.instance, epoch: disk.epoch },
      low: () => disk.low || disk.full,
      load: Stream.suspend(() => {
        const rows = [...disk.rows]
        for (let seq = disk.first; seq <= disk.last; seq++) {
          if (rows[seq - disk.first]?.seq !== seq) {
            return Stream.concat(Stream.fromIterable(rows.slice(0, seq - disk.first)), Stream.fail(missing(seq)))
          }
        }
        return Stream.fromIterable(rows)
      }),
      commit: (batch) =>
        Effect.suspend((): Effect.Effect<void, StoreBroken | StoreFull> => {
          const wrong = batchFault(batch, disk.last)
          if (wrong !== undefined) broken ??= new StoreBroken({ reason: wrong })
          if (broken !== undefined) return Effect.fail(broken)
          if (disk.full) {
            const neededBytes = batch.rows.reduce((sum, { body }) => sum + body.byteLength, 0)
            return Effect.fail(new StoreFull({ neededBytes }))
          }
          for (const { body, seq } of batch.rows) disk.rows.push({ seq, body: body.slice() })
          disk.last += batch.rows.length
          if (batch.dropBefore > disk.first) {
            disk.rows = disk.rows.filter(({ seq }) => seq >= batch.dropBefore)
            disk.first = batch.dropBefore
          }
          if (batch.rows.length > 0 || batch.dropBefore > 0) disk.commits++
          return Effect.void
        }),
      read: (seqs) =>
        Effect.suspend(() => {
          if (broken !== undefined) return broken
          const found = new Map(disk.rows.map((row) => [row.seq, row]))
          return Effect.succeed(seqs.flatMap((seq) => found.get(seq) ?? []))
        }),
      reopen: Effect.suspend(() => {
        disk.open = false
        broken ??= new StoreBroken({ reason: "it is closed" })
        return open(disk)
      })
    })
  })
