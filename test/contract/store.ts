/**
 * The contract of every store, as a suite that takes a "disk": something that can be opened again and again.
 *
 * Each test opens a fresh disk by scopes of its own, as a manager does that stops and is started again.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Scope, Stream } from "effect"
import { Errors, Store } from "millrace"
import { Random } from "../unit/random.ts"

export interface Disk {
  /** A layer that opens this disk. Always the same disk. */
  readonly layer: Layer.Layer<Store.Store, Errors.StoreOpenError>
  /** Changes a byte of a row behind the store's back. The disk is closed. Undefined: this kind cannot. */
  readonly damage?: ((seq: number) => void) | undefined
}

type Service = Store.Store["Service"]

/** Runs `use` with the disk open, and closes it. */
export const withStore = <A, E>(disk: Disk, use: (store: Service) => Effect.Effect<A, E>) =>
  Effect.scoped(
    Effect.gen(function* () {
      const context = yield* Layer.build(Layer.fresh(disk.layer))
      return yield* use(yield* Store.Store.pipe(Effect.provideContext(context)))
    })
  )

export const bodyOf = (seq: number, size = 64): Uint8Array => new Random(seq).bytes(size)

export const rowsFrom = (first: number, count: number, size = 64): ReadonlyArray<Store.Row> =>
  Array.from({ length: count }, (_, i) => ({ seq: first + i, body: bodyOf(first + i, size) }))

export const batch = (
  rows: ReadonlyArray<Store.Row>,
  dropBefore = 0,
  durability: Store.Batch["durability"] = "fsync"
): Store.Batch => ({ rows, dropBefore, durability })

export const loaded = (store: Service) => Stream.runCollect(store.load)

export const same = (actual: ReadonlyArray<Store.Row>, expected: ReadonlyArray<Store.Row>): void => {
  assert.deepStrictEqual(
    actual.map(({ seq }) => seq),
    expected.map(({ seq }) => seq)
  )
  for (let i = 0; i < expected.length; i++) {
    // Not `deepStrictEqual`: it takes a second for 16 MiB.
    assert.strictEqual(Buffer.compare(actual[i]!.body, expected[i]!.body), 0, `row ${expected[i]!.seq}`)
  }
}

/** `make` gives a fresh disk to each test. */
export const storeContract = (name: string, make: () => Disk) =>
  describe(`store contract: ${name}`, () => {
    const test = (title: string, body: (disk: Disk) => Effect.Effect<unknown, unknown>) =>
      it.live(title, () => Effect.suspend(() => body(make())))

    test("a new log is empty, keeps, and has an identity", (disk) =>
      withStore(disk, (store) =>
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* loaded(store), [])
          assert.isTrue(store.keeps)
          assert.isFalse(store.low())
          assert.strictEqual(store.identity.instance.byteLength, 8)
          assert.strictEqual(store.identity.epoch, 1)
        })
      ))

    test("what was committed is loaded again, in order, after every reopening, and nothing else", (disk) =>
      Effect.gen(function* () {
        let next = 1
        for (let life = 0; life < 4; life++) {
          yield* withStore(disk, (store) =>
            Effect.gen(function* () {
              same(yield* loaded(store), rowsFrom(1, next - 1))
              for (const count of [1, 3, 8]) {
                yield* store.commit(batch(rowsFrom(next, count), 0, count === 3 ? "buffered" : "fsync"))
                next += count
              }
              same(yield* loaded(store), rowsFrom(1, next - 1))
            })
          )
        }
        assert.strictEqual(next, 49)
      }))

    test("the epoch rises by one with every opening, the instance stays", (disk) =>
      Effect.gen(function* () {
        const identities: Array<Store.Identity> = []
        for (let life = 0; life < 3; life++) {
          yield* withStore(disk, (store) => Effect.sync(() => identities.push(store.identity)))
        }
        assert.deepStrictEqual(
          identities.map(({ epoch }) => epoch),
          [1, 2, 3]
        )
        for (const { instance } of identities) assert.deepEqual([...instance], [...identities[0]!.instance])
      }))

    test("two disks have different instances", () =>
      Effect.gen(function* () {
        const instance = (disk: Disk) => withStore(disk, (store) => Effect.succeed(store.identity.instance.join()))
        assert.notStrictEqual(yield* instance(make()), yield* instance(make()))
      }))

    test("commits that are made at once are applied in their order", (disk) =>
      withStore(disk, (store) =>
        Effect.gen(function* () {
          const commits = Array.from({ length: 20 }, (_, i) => store.commit(batch(rowsFrom(1 + i * 2, 2))))
          yield* Effect.all(commits, { concurrency: 20 })
          same(yield* loaded(store), rowsFrom(1, 40))
        })
      ))

    for (const [title, wrong] of [
      ["a gap after the last row", batch(rowsFrom(5, 1))],
      ["a number that is taken", batch(rowsFrom(3, 1))],
      ["a gap inside the batch", batch([...rowsFrom(4, 2), ...rowsFrom(7, 1)])],
      ["dropping rows that are still to come", batch(rowsFrom(4, 1), 6)],
      ["a number that is none", batch([{ seq: Number.NaN, body: bodyOf(1) }])]
    ] as const) {
      test(`${title} is refused: nothing of it is applied, and everything after it is refused`, (disk) =>
        Effect.gen(function* () {
          yield* withStore(disk, (store) =>
            Effect.gen(function* () {
              yield* store.commit(batch(rowsFrom(1, 3)))
              const failure = yield* Effect.flip(store.commit(wrong))
              assert.strictEqual(failure._tag, "StoreBroken")
              assert.strictEqual(Errors.facts[failure._tag].outcome, "indefinite")
              assert.strictEqual((yield* Effect.flip(store.commit(batch(rowsFrom(4, 1)))))._tag, "StoreBroken")
              assert.strictEqual((yield* Effect.flip(store.read([1])))._tag, "StoreBroken")
            })
          )
          yield* withStore(disk, (store) =>
            Effect.gen(function* () {
              same(yield* loaded(store), rowsFrom(1, 3))
              yield* store.commit(batch(rowsFrom(4, 1)))
            })
          )
        }))
    }

    test("rows are dropped with the batch that says so, and numbers go on after all are gone", (disk) =>
      Effect.gen(function* () {
        yield* withStore(disk, (store) =>
          Effect.gen(function* () {
            yield* store.commit(batch(rowsFrom(1, 10)))
            yield* store.commit(batch(rowsFrom(11, 2), 8))
            same(yield* loaded(store), rowsFrom(8, 5))
            yield* store.commit(batch([], 10))
            same(yield* loaded(store), rowsFrom(10, 3))
            // Lower than before: nothing comes back, nothing is dropped.
            yield* store.commit(batch([], 3))
            same(yield* loaded(store), rowsFrom(10, 3))
          })
        )
        yield* withStore(disk, (store) =>
          Effect.gen(function* () {
            same(yield* loaded(store), rowsFrom(10, 3))
            yield* store.commit(batch([], 13))
            assert.deepStrictEqual(yield* loaded(store), [])
          })
        )
        yield* withStore(disk, (store) =>
          Effect.gen(function* () {
            assert.deepStrictEqual(yield* loaded(store), [])
            yield* store.commit(batch(rowsFrom(13, 1), 13))
            same(yield* loaded(store), rowsFrom(13, 1))
          })
        )
      }))

    test("a batch of nothing changes nothing", (disk) =>
      Effect.gen(function* () {
        yield* withStore(disk, (store) =>
          Effect.gen(function* () {
            yield* store.commit(batch([]))
            yield* store.commit(batch(rowsFrom(1, 1), 0, "buffered"))
            yield* store.commit(batch([]))
            yield* store.commit(batch(rowsFrom(2, 1)))
          })
        )
        yield* withStore(disk, (store) => Effect.map(loaded(store), (rows) => same(rows, rowsFrom(1, 2))))
      }))

    test("rows are read in the order asked for; those that are gone or never were are left out", (disk) =>
      withStore(disk, (store) =>
        Effect.gen(function* () {
          yield* store.commit(batch(rowsFrom(1, 9)))
          yield* store.commit(batch([], 4))
          const rows = yield* store.read([9, 2, 4, 77, 5, 4, 0])
          same(
            rows,
            [9, 4, 5, 4].map((seq) => ({ seq, body: bodyOf(seq) }))
          )
          assert.deepStrictEqual(yield* store.read([]), [])
        })
      ))

    test("a damaged row is left out of a reading, and refuses a load by its number", (disk) =>
      Effect.gen(function* () {
        if (disk.damage === undefined) return
        yield* withStore(disk, (store) => store.commit(batch(rowsFrom(1, 5))))
        disk.damage(3)
        yield* withStore(disk, (store) =>
          Effect.gen(function* () {
            same(yield* store.read([2, 3, 4]), [...rowsFrom(2, 1), ...rowsFrom(4, 1)])
            const failure = yield* Effect.flip(loaded(store))
            assert.strictEqual(failure._tag, "StoreDamaged")
            assert.match(failure.message, /row 3 /)
          })
        )
      }))

    test("bodies of no byte, of a slice, and of 16 MiB come back as they were", (disk) =>
      Effect.gen(function* () {
        const large = new Uint8Array(16 * 1_024 * 1_024).fill(171)
        large[large.length - 1] = 3
        const slab = bodyOf(99, 1_000)
        const rows = [
          { seq: 1, body: new Uint8Array(0) },
          { seq: 2, body: slab.subarray(10, 20) },
          { seq: 3, body: large },
          { seq: 4, body: slab.subarray(990) }
        ]
        yield* withStore(disk, (store) =>
          Effect.gen(function* () {
            yield* store.commit(batch(rows))
            assert.strictEqual(slab.byteLength, 1_000)
            assert.strictEqual(large.byteLength, 16 * 1_024 * 1_024)
          })
        )
        yield* withStore(disk, (store) =>
          Effect.gen(function* () {
            same(yield* loaded(store), rows)
            same(yield* store.read([3, 1]), [rows[2]!, rows[0]!])
          })
        )
      }))

    test("thousands of rows are loaded a page at a time", (disk) =>
      Effect.gen(function* () {
        const count = 4_000
        yield* withStore(disk, (store) =>
          Effect.gen(function* () {
            for (let first = 1; first <= count; first += 200) {
              yield* store.commit(batch(rowsFrom(first, 200, 700), 0, "buffered"))
            }
          })
        )
        yield* withStore(disk, (store) =>
          Effect.gen(function* () {
            let seq = 0
            yield* Stream.runForEach(store.load, (row) =>
              Effect.sync(() => {
                seq++
                assert.strictEqual(row.seq, seq)
                if (seq % 97 === 0) same([row], rowsFrom(seq, 1, 700))
              })
            )
            assert.strictEqual(seq, count)
            // A reader that stops early leaves nothing open.
            assert.strictEqual((yield* Stream.runCollect(Stream.take(store.load, 3))).length, 3)
            yield* store.commit(batch(rowsFrom(count + 1, 1)))
          })
        )
      }))

    test("a second opening is refused at once while the first is open, and takes nothing from it", (disk) =>
      Effect.gen(function* () {
        yield* withStore(disk, (store) =>
          Effect.gen(function* () {
            yield* store.commit(batch(rowsFrom(1, 1)))
            for (let i = 0; i < 2; i++) {
              const failure = yield* Effect.flip(withStore(disk, () => Effect.void))
              assert.strictEqual(failure._tag, "StoreLocked")
            }
            yield* store.commit(batch(rowsFrom(2, 1)))
          })
        )
        yield* withStore(disk, (store) =>
          Effect.gen(function* () {
            same(yield* loaded(store), rowsFrom(1, 2))
            assert.strictEqual(store.identity.epoch, 2)
          })
        )
      }))

    test("a store that is closed refuses", (disk) =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const context = yield* Layer.build(Layer.fresh(disk.layer)).pipe(Scope.provide(scope))
        const store = yield* Store.Store.pipe(Effect.provideContext(context))
        yield* store.commit(batch(rowsFrom(1, 1)))
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual((yield* Effect.flip(store.commit(batch(rowsFrom(2, 1)))))._tag, "StoreBroken")
        yield* withStore(disk, (again) => Effect.map(loaded(again), (rows) => same(rows, rowsFrom(1, 1))))
      }))
  })
