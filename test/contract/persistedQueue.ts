/** What Effect's `PersistedQueue` does with its own stores, to be done with any other. */
import { assert, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as PersistedQueue from "effect/persistence/PersistedQueue"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as DurableQueue from "effect/workflow/DurableQueue"
import * as Workflow from "effect/workflow/Workflow"
import * as WorkflowEngine from "effect/workflow/WorkflowEngine"
import { eventually } from "./queue.ts"

type Store = PersistedQueue.PersistedQueueStore

let names = 0
const fresh = (): string => `persisted-${++names}`
const at0 = Schedule.spaced(0)

const Item = Schema.Struct({ n: Schema.BigInt })

interface MakeOptions {
  readonly name?: string
  readonly maxAttempts?: number
  readonly retrySchedule?: Schedule.Schedule<unknown, number>
}

/** A queue of its own for every test. */
export const items = ({ name = fresh(), ...options }: MakeOptions = {}) =>
  Effect.map(PersistedQueue.make({ schema: Item, retrySchedule: at0, ...options, name }), (queue) => ({
    name,
    ...queue
  }))

type Items = Effect.Success<ReturnType<typeof items>>

export const taken = (queue: Items) =>
  queue.take(({ n }, { attempts, id }) => Effect.succeed({ n: Number(n), attempts, id }))

export const boom = (queue: Items) => queue.take((_, { attempts }) => Effect.fail(attempts)).pipe(Effect.flip)

/** What was offered last is the next to come: nothing else is there. */
export const nothingElse = Effect.fnUntraced(function* (queue: Items) {
  const mark = Math.floor(Math.random() * 1e9)
  yield* queue.offer({ n: BigInt(-mark) })
  assert.strictEqual((yield* taken(queue)).n, -mark)
})

/** A take that holds its element until it is told what to do with it, or interrupted. */
export const holding = Effect.fnUntraced(function* (queue: Items) {
  const begun = Latch.makeUnsafe()
  const go = Latch.makeUnsafe()
  let attempt = 0
  const fiber = yield* queue
    .take((_, { attempts }) => {
      attempt = attempts
      return Effect.andThen(begun.open, go.await)
    })
    .pipe(Effect.forkScoped)
  yield* begun.await
  return { fiber, go, attempt }
})

export interface Contract {
  readonly name: string
  readonly layer: Layer.Layer<Store, unknown>
  /** Whether ids that the queue made up are remembered, too; Effect's stores differ. */
  readonly remembersOwnIds: boolean
}

export const contract = ({ layer, name, remembersOwnIds }: Contract): void => {
  it.layer(PersistedQueue.layer.pipe(Layer.provideMerge(Layer.fresh(layer))), { excludeTestServices: true })(
    name,
    (it) => {
      it.effect("what is offered is taken once, with its id and the first attempt", () =>
        Effect.gen(function* () {
          const queue = yield* items()
          const id = yield* queue.offer({ n: 12345678901234567890n })
          const seen = yield* queue.take((value, metadata) => Effect.succeed({ ...value, ...metadata }))
          assert.deepStrictEqual(seen, { n: 12345678901234567890n, id, attempts: 1 })
          yield* nothingElse(queue)
        })
      )

      it.effect("elements come in the order in which they were offered", () =>
        Effect.gen(function* () {
          const queue = yield* items()
          for (let n = 1; n <= 20; n++) yield* queue.offer({ n: BigInt(n) })
          const order: Array<number> = []
          for (let n = 1; n <= 20; n++) order.push((yield* taken(queue)).n)
          assert.deepStrictEqual(
            order,
            Array.from({ length: 20 }, (_, i) => i + 1)
          )
        })
      )

      it.effect("a take waits for an offer, and many takes for many", () =>
        Effect.gen(function* () {
          const queue = yield* items()
          const takers = yield* Effect.forEach([1, 2, 3], () => Effect.forkScoped(taken(queue)))
          for (const n of [1n, 2n, 3n]) yield* queue.offer({ n })
          const got = yield* Effect.forEach(takers, Fiber.join)
          assert.deepStrictEqual(got.map(({ n }) => n).sort(), [1, 2, 3])
        })
      )

      it.effect(
        "an id is added once: while it waits, while it is processed, after it is done, after it has failed",
        () =>
          Effect.gen(function* () {
            const queue = yield* items({ maxAttempts: 1 })
            const again = queue.offer({ n: 2n }, { id: "the-id" })
            assert.strictEqual(yield* queue.offer({ n: 1n }, { id: "the-id" }), "the-id")
            yield* again
            const { fiber, go } = yield* holding(queue)
            yield* again
            yield* go.open
            yield* Fiber.join(fiber)
            assert.strictEqual(yield* again, "the-id")
            yield* nothingElse(queue)
            yield* queue.offer({ n: 1n }, { id: "failing" })
            yield* boom(queue)
            yield* queue.offer({ n: 1n }, { id: "failing" })
            yield* nothingElse(queue)
          })
      )

      it.effect(`an id that the queue made up is ${remembersOwnIds ? "" : "not "}remembered`, () =>
        Effect.gen(function* () {
          const queue = yield* items()
          const id = yield* queue.offer({ n: 1n })
          yield* queue.offer({ n: 2n }, { id })
          const got = [(yield* taken(queue)).n]
          if (!remembersOwnIds) got.push((yield* taken(queue)).n)
          assert.deepStrictEqual(got, remembersOwnIds ? [1] : [1, 2])
          yield* nothingElse(queue)
        })
      )

      it.effect("queues are apart by name, whatever the name", () =>
        Effect.gen(function* () {
          const long = "x".repeat(240)
          const all = [
            "",
            " ",
            "a/b",
            "a b",
            "a:002fb",
            "effect:a:002fb",
            "effect:a/b",
            "ü",
            "u\u0308",
            long,
            `${long}y`
          ]
          const queues = yield* Effect.forEach(all, (name) => items({ name: `${name}`, maxAttempts: 3 }))
          for (const [i, queue] of queues.entries()) yield* queue.offer({ n: BigInt(i) }, { id: "same" })
          for (const [i, queue] of queues.entries()) {
            assert.strictEqual((yield* taken(queue)).n, i, all[i])
            yield* nothingElse(queue)
          }
        })
      )

      it.effect("a failure is the take's, and the element comes again with the next attempt", () =>
        Effect.gen(function* () {
          const queue = yield* items()
          yield* queue.offer({ n: 1n }, { id: "a" })
          assert.strictEqual(yield* boom(queue), 1)
          assert.strictEqual(yield* boom(queue), 2)
          assert.deepStrictEqual(yield* taken(queue), { n: 1, id: "a", attempts: 3 })
          yield* nothingElse(queue)
        })
      )

      it.effect("a defect is a failure", () =>
        Effect.gen(function* () {
          const queue = yield* items()
          yield* queue.offer({ n: 1n })
          const exit = yield* Effect.exit(queue.take(() => Effect.die("a bug")))
          assert.isTrue(Exit.hasDies(exit))
          assert.strictEqual((yield* taken(queue)).attempts, 2)
        })
      )

      it.effect("a retry waits as long as the schedule says", () =>
        Effect.gen(function* () {
          const queue = yield* items({ retrySchedule: Schedule.spaced("1 hour") })
          yield* queue.offer({ n: 1n })
          yield* boom(queue)
          yield* nothingElse(queue)
          const soon = yield* items({ retrySchedule: Schedule.spaced("1500 millis") })
          const before = performance.now()
          yield* soon.offer({ n: 1n })
          yield* boom(soon)
          assert.strictEqual((yield* taken(soon)).attempts, 2)
          // Effect's SQL store counts whole seconds, from the last one on.
          assert.isAtLeast(performance.now() - before, 990)
        })
      )

      it.effect("after the last attempt nothing comes", () =>
        Effect.gen(function* () {
          const queue = yield* items({ maxAttempts: 3 })
          yield* queue.offer({ n: 1n })
          assert.deepStrictEqual([yield* boom(queue), yield* boom(queue), yield* boom(queue)], [1, 2, 3])
          yield* nothingElse(queue)
        })
      )

      it.effect("an interruption gives back uncounted, after failures too", () =>
        Effect.gen(function* () {
          const queue = yield* items({ maxAttempts: 2 })
          yield* queue.offer({ n: 1n })
          for (let i = 0; i < 3; i++) {
            const { attempt, fiber } = yield* holding(queue)
            assert.strictEqual(attempt, 1)
            yield* Fiber.interrupt(fiber)
          }
          assert.strictEqual(yield* boom(queue), 1)
          for (let i = 0; i < 3; i++) {
            const { attempt, fiber } = yield* holding(queue)
            assert.strictEqual(attempt, 2)
            yield* Fiber.interrupt(fiber)
          }
          assert.strictEqual((yield* taken(queue)).attempts, 2)
          yield* nothingElse(queue)
        })
      )

      it.effect("a take that is interrupted while it waits takes nothing with it", () =>
        Effect.gen(function* () {
          const queue = yield* items()
          for (let i = 0; i < 20; i++) {
            const waiting = yield* Effect.forkScoped(taken(queue))
            if (i % 2 === 0) yield* Effect.sleep("2 millis")
            // Both at once, and either may be first.
            yield* Effect.all([queue.offer({ n: BigInt(i) }), Fiber.interrupt(waiting)], { concurrency: 2 })
            const exit = yield* Fiber.await(waiting)
            if (Exit.isFailure(exit)) {
              assert.deepInclude(yield* taken(queue), { n: i, attempts: 1 })
            } else assert.strictEqual(exit.value.n, i)
          }
          yield* nothingElse(queue)
        })
      )

      it.effect("what is being processed does not come to another take", () =>
        Effect.gen(function* () {
          const queue = yield* items()
          yield* queue.offer({ n: 1n })
          const { fiber, go } = yield* holding(queue)
          yield* nothingElse(queue)
          yield* go.open
          yield* Fiber.join(fiber)
          yield* nothingElse(queue)
        })
      )

      it.effect("what does not decode fails at once, and the take goes on with the next", () =>
        Effect.gen(function* () {
          const store = yield* PersistedQueue.PersistedQueueStore
          const queue = yield* items()
          for (const [id, element] of Object.entries({ one: { n: null }, two: "text", three: null })) {
            yield* store.offer({ name: queue.name, id, element, isCustomId: true })
          }
          yield* queue.offer({ n: 1n })
          assert.deepInclude(yield* taken(queue), { n: 1, attempts: 1 })
          yield* queue.offer({ n: 2n }, { id: "one" })
          yield* nothingElse(queue)
        })
      )

      it.effect("many takers get each element once, and failed ones once more", () =>
        Effect.gen(function* () {
          const queue = yield* items()
          const total = 60
          yield* Effect.forEach(
            Array.from({ length: total }, (_, i) => BigInt(i)),
            (n) => queue.offer({ n }),
            {
              concurrency: 8
            }
          )
          const times = new Map<bigint, number>()
          const done = new Set<bigint>()
          const worker = queue
            .take(({ n }) =>
              Effect.suspend(() => {
                const count = (times.get(n) ?? 0) + 1
                times.set(n, count)
                if (n % 3n === 0n && count === 1) return Effect.fail("at first")
                done.add(n)
                return Effect.void
              })
            )
            .pipe(Effect.ignore, Effect.forever)
          const workers = yield* Effect.forkScoped(
            Effect.all(
              Array.from({ length: 8 }, () => worker),
              { concurrency: 8 }
            )
          )
          yield* eventually(
            Effect.sync(() => done.size === total),
            "all are done"
          )
          yield* Fiber.interrupt(workers)
          for (const [n, count] of times) assert.strictEqual(count, n % 3n === 0n ? 2 : 1, `${n}`)
          yield* nothingElse(queue)
        })
      )

      it.effect("a take lasts as long as its scope, and the scope's exit decides", () =>
        Effect.gen(function* () {
          const store = yield* PersistedQueue.PersistedQueueStore
          const queue = yield* items()
          yield* queue.offer({ n: 7n }, { id: "scoped" })
          const options = { name: queue.name, maxAttempts: 5, retryDelay: () => Effect.succeed(Duration.zero) }
          const take = Effect.fnUntraced(function* (exit: Exit.Exit<unknown, unknown>) {
            const scope = yield* Scope.make()
            const item = yield* Scope.provide(store.take(options), scope)
            yield* nothingElse(queue)
            yield* Scope.close(scope, exit)
            return item
          })
          const item = (attempts: number) => ({ id: "scoped", attempts, element: { n: "7" } })
          assert.deepStrictEqual(yield* take(Exit.fail("no")), item(1))
          assert.deepStrictEqual(yield* take(Exit.interrupt()), item(2))
          assert.deepStrictEqual(yield* take(Exit.die("no")), item(2))
          assert.deepStrictEqual(yield* take(Exit.void), item(3))
          yield* nothingElse(queue)
        })
      )

      it.effect("a delayed element comes when its delay is over, and not before; an endless one never", () =>
        Effect.gen(function* () {
          const queue = yield* items()
          yield* queue.offer({ n: 1n }, { id: "late", delay: "1 hour" })
          yield* queue.offer({ n: 2n }, { id: "late" })
          yield* queue.offer({ n: 3n }, { id: "never", delay: "Infinity" })
          yield* nothingElse(queue)
          const before = performance.now()
          yield* queue.offer({ n: 4n }, { id: "never", delay: "300 millis" })
          yield* queue.offer({ n: 5n }, { delay: 0 })
          assert.strictEqual((yield* taken(queue)).n, 5)
          assert.deepInclude(yield* taken(queue), { n: 4, attempts: 1 })
          assert.isAtLeast(performance.now() - before, 299)
        })
      )

      it.effect("a cleanup frees the ids of what was completed that long ago, and of nothing else", () =>
        Effect.gen(function* () {
          const store = yield* PersistedQueue.PersistedQueueStore
          const queue = yield* items({ maxAttempts: 1 })
          const offer = (n: number, id: string) => queue.offer({ n: BigInt(n) }, { id })
          const clean = (completed: Duration.Input, failed?: Duration.Input) =>
            store.cleanup({
              timeToLive: Duration.fromInputUnsafe(completed),
              failedTimeToLive: failed === undefined ? undefined : Duration.fromInputUnsafe(failed)
            })
          const old = Effect.sleep("2200 millis")
          yield* offer(1, "done")
          yield* taken(queue)
          yield* offer(1, "failed")
          yield* boom(queue)
          yield* offer(1, "held")
          const { fiber, go } = yield* holding(queue)
          yield* offer(1, "waits")
          yield* clean("30 days")
          for (const id of ["done", "failed", "held", "waits"]) yield* offer(2, id)
          yield* old
          yield* clean("1 second")
          yield* clean("30 days")
          for (const id of ["done", "failed", "held", "waits"]) yield* offer(3, id)
          assert.deepInclude(yield* taken(queue), { n: 1, id: "waits" })
          assert.deepInclude(yield* taken(queue), { n: 3, id: "done", attempts: 1 })
          yield* nothingElse(queue)
          yield* go.open
          yield* Fiber.join(fiber)
          yield* offer(4, "held")
          yield* nothingElse(queue)
          // Again, and what failed too.
          yield* offer(4, "done")
          yield* old
          yield* clean("1 second", "1 second")
          for (const id of ["done", "failed"]) yield* offer(5, id)
          for (const id of ["done", "failed"]) yield* offer(6, id)
          assert.deepInclude(yield* taken(queue), { n: 5, id: "done", attempts: 1 })
          assert.deepInclude(yield* taken(queue), { n: 5, id: "failed", attempts: 1 })
          yield* nothingElse(queue)
        })
      )

      it.effect("DurableQueue.process waits for its worker, once per key, and has its result or its error", () =>
        Effect.gen(function* () {
          const Work = DurableQueue.make({
            name: fresh(),
            payload: { n: Schema.Int },
            success: Schema.Int,
            error: Schema.String,
            idempotencyKey: ({ n }) => `${n}`
          })
          const Flow = Workflow.make(fresh(), {
            payload: { n: Schema.Int },
            success: Schema.Int,
            error: Schema.String,
            idempotencyKey: ({ n }) => `${n}`
          })
          const runs: Array<number> = []
          const layer = Layer.mergeAll(
            Flow.toLayer(({ n }) => DurableQueue.process(Work, { n })),
            DurableQueue.worker(
              Work,
              ({ n }) =>
                Effect.suspend(() => {
                  runs.push(n)
                  return n < 0 ? Effect.fail(`no ${n}`) : Effect.succeed(n * 2)
                }),
              { concurrency: 3 }
            )
          ).pipe(Layer.provideMerge(WorkflowEngine.layerMemory))
          yield* Effect.gen(function* () {
            const results = yield* Effect.forEach([1, 2, 3, 1, 2], (n) => Flow.execute({ n }), { concurrency: 5 })
            assert.deepStrictEqual(results, [2, 4, 6, 2, 4])
            assert.strictEqual(yield* Effect.flip(Flow.execute({ n: -1 })), "no -1")
          }).pipe(Effect.provide(layer))
          assert.deepStrictEqual(
            runs.sort((a, b) => a - b),
            [-1, 1, 2, 3]
          )
        })
      )

      it.effect("an empty queue gives nothing", () =>
        Effect.gen(function* () {
          const queue = yield* items()
          assert.isTrue(Option.isNone(yield* Effect.timeoutOption(taken(queue), "100 millis")))
          yield* nothingElse(queue)
        })
      )
    }
  )
}
