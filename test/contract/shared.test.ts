/** Shared objects and the commits that change them, through the public operations, in process and over TCP. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { type Client, Limits, SharedCounter, SharedDict, SharedSet, TaskQueue, Worker } from "millrace"
import { inProcess, overTcp } from "./layers.ts"
import { failure, numbers } from "./queue.ts"

let names = 0
const setOf = () => SharedSet.make(`set-${++names}`)
const counterOf = () => SharedCounter.make(`counter-${++names}`)
const dictOf = () => SharedDict.make(`dict-${++names}`, { value: Schema.Struct({ delay: Schema.Int }) })

const suite = (provided: Layer.Layer<Client.Client, unknown>): void => {
  it.layer(provided, { excludeTestServices: true })((it) => {
    it.effect("a set says what is new, over as many messages as it takes, and lists every key once", () =>
      Effect.gen(function* () {
        const seen = setOf()
        const keys = Array.from({ length: 10_000 }, (_, i) => `https://example.com/${i}/é`)
        assert.deepStrictEqual(yield* seen.addAll([...keys, ...keys]), [
          ...keys.map(() => true),
          ...keys.map(() => false)
        ])
        assert.strictEqual(yield* seen.size, 10_000)
        assert.deepStrictEqual(yield* seen.hasAll([keys[7]!, "x"]), [true, false])
        assert.deepStrictEqual([yield* seen.remove(keys[7]!), yield* seen.remove(keys[7]!)], [true, false])
        assert.deepStrictEqual([yield* seen.add(keys[7]!), yield* seen.has(keys[7]!)], [true, true])
        assert.deepStrictEqual([...(yield* Stream.runCollect(seen.keys))].sort(), keys.sort())
        const fault = yield* failure(seen.add("k".repeat(Limits.setKeyBytesMax + 1)), "LimitExceeded")
        assert.strictEqual(fault.limit, "setKeyBytesMax")
      })
    )

    it.effect("a counter adds, compares and sets, and refuses to overflow", () =>
      Effect.gen(function* () {
        const pages = counterOf()
        assert.deepStrictEqual([yield* pages.increment(), yield* pages.increment(-5)], [1, -4])
        yield* pages.compareAndSet(-4, 9)
        const conflict = yield* failure(pages.compareAndSet(-4, 1), "Conflict")
        assert.deepStrictEqual([conflict.object, conflict.current], [pages.name, 9])
        yield* failure(pages.increment(Number.MAX_SAFE_INTEGER), "CounterOverflow")
        yield* failure(pages.increment(0.5), "LimitExceeded")
        yield* pages.set(3)
        assert.strictEqual(yield* pages.value, 3)
        // The name is one, the kind is another.
        const mismatch = yield* failure(SharedSet.make(pages.name).add("a"), "ObjectKindMismatch")
        assert.deepStrictEqual([mismatch.kind, mismatch.wanted], ["counter", "set"])
      })
    )

    it.effect("a dict keeps typed values with versions", () =>
      Effect.gen(function* () {
        const robots = dictOf()
        assert.strictEqual(yield* robots.get("a"), undefined)
        const first = yield* robots.set("a", { delay: 1 })
        assert.deepStrictEqual(yield* robots.entry("a"), { value: { delay: 1 }, version: first })
        assert.deepStrictEqual(
          [yield* robots.setIfAbsent("a", { delay: 2 }), yield* robots.setIfAbsent("b", { delay: 2 })],
          [false, true]
        )
        const second = yield* robots.compareAndSet("a", first, { delay: 3 })
        const conflict = yield* failure(robots.compareAndSet("a", first, { delay: 4 }), "Conflict")
        assert.deepStrictEqual([conflict.key, conflict.current], ["a", second])
        yield* failure(robots.compareAndDelete("a", first), "Conflict")
        assert.strictEqual(yield* robots.size, 2)
        assert.deepStrictEqual(
          [...(yield* Stream.runCollect(robots.entries))].map(([key, { value }]) => [key, value.delay]),
          [
            ["a", 3],
            ["b", 2]
          ]
        )
        yield* robots.compareAndDelete("a", second)
        assert.deepStrictEqual([yield* robots.delete("a"), yield* robots.delete("b")], [false, true])
        yield* failure(robots.set("a", { delay: 0.5 }), "PayloadInvalid")
        const other = SharedDict.make(robots.name, { value: Schema.String })
        yield* other.set("text", "words")
        yield* failure(robots.get("text"), "DecodeFailed")
      })
    )

    it.effect("leases are committed all or none, with what comes along", () =>
      Effect.gen(function* () {
        const q = numbers()
        const children = numbers()
        const [seen, pages, robots] = [setOf(), counterOf(), dictOf()]
        yield* q.putAll([1, 2, 3])
        const [a, b, c] = yield* q.lease({ max: 3 })
        const expand =
          (version: number) => (commit: Parameters<NonNullable<Parameters<typeof q.commitAll>[1]>["also"] & {}>[0]) =>
            Effect.gen(function* () {
              yield* commit.putIfNew(seen, "x", children, 10)
              yield* commit.putIfNew(seen, "x", children, 11)
              yield* commit.putIfNew(seen, "y", children, 12)
              yield* commit.put(children, 13)
              yield* commit.increment(pages)
              yield* commit.set(robots, "host", { delay: 1 }, { version })
            })
        const both = [
          { lease: a!, result: "a" },
          { lease: b!, result: "b" }
        ] as const
        const conflict = yield* failure(q.commitAll(both, { also: expand(7) }), "Conflict")
        assert.deepStrictEqual([conflict.object, conflict.key, conflict.current], [robots.name, "host", 0])
        yield* q.release(c!)
        const lost = yield* failure(
          q.commitAll([...both, { lease: c!, result: "c" }], { also: expand(0) }),
          "LeaseLost"
        )
        assert.strictEqual(lost.taskId, c!.taskId)
        assert.deepStrictEqual(
          [yield* seen.size, yield* pages.value, yield* robots.size, yield* children.size],
          [0, 0, 0, 0]
        )
        yield* q.commitAll(both, { also: expand(0) })
        assert.deepStrictEqual([yield* seen.size, yield* pages.value, yield* robots.size], [2, 1, 1])
        assert.deepStrictEqual(yield* children.peek(9), [10, 12, 13])
        const { done, leased, ready } = yield* q.stats
        assert.deepStrictEqual([done, leased, ready], [2, 0, 1])
        yield* failure(q.commitAll(both), "AlreadyEnded")
      })
    )

    it.effect("a crawl follows every link exactly once, whoever finds it first", () =>
      Effect.gen(function* () {
        const links = TaskQueue.make(`links-${++names}`, { payload: Schema.Int, policy: { backoff: { base: 0 } } })
        const [seen, pages, sizes] = [setOf(), counterOf(), dictOf()]
        const size = 300
        const visits: Array<number> = []
        for (let i = 0; i < 2; i++) {
          yield* Worker.start(
            links,
            Effect.fnUntraced(function* (task) {
              visits.push(task.payload)
              // Attempts that fail leave nothing behind.
              for (const next of [task.payload * 2, task.payload * 2 + 1, task.payload + 1, 1]) {
                if (next < size) yield* task.putIfNew(seen, `page ${next}`, links, next)
              }
              yield* task.increment(pages)
              yield* task.set(sizes, `page ${task.payload}`, { delay: task.payload }, { version: 0 })
              if (task.payload % 5 === 0 && task.attempt === 1) return yield* Effect.die("the first attempt breaks")
            }),
            { concurrency: 8 }
          )
        }
        yield* seen.add("page 1")
        yield* links.put(1)
        yield* links.join()
        assert.deepStrictEqual(
          [yield* seen.size, yield* pages.value, yield* sizes.size],
          [size - 1, size - 1, size - 1]
        )
        const { dead, done, puts } = yield* links.stats
        assert.deepStrictEqual([puts, done, dead], [size - 1, size - 1, 0])
        assert.strictEqual(new Set(visits).size, size - 1)
      })
    )

    it.effect("a commit that meets another version is a failed attempt, and the next one reads anew", () =>
      Effect.gen(function* () {
        const q = numbers()
        const robots = dictOf()
        yield* robots.set("a", { delay: 0 })
        yield* Worker.start(
          q,
          Effect.fnUntraced(function* (task) {
            const entry = yield* Effect.orDie(robots.entry("a"))
            // Someone else is faster, once.
            if (task.attempt === 1) yield* Effect.orDie(robots.set("a", { delay: 100 }))
            yield* task.set(robots, "a", { delay: entry!.value.delay + 1 }, { version: entry!.version })
            return "done"
          })
        )
        const { taskId } = yield* q.put(1)
        const outcome = yield* q.outcome(taskId)
        assert.deepStrictEqual([outcome._tag, outcome.attempts], ["Success", 2])
        assert.deepStrictEqual(yield* robots.get("a"), { delay: 101 })
      })
    )
  })
}

describe("shared objects in this process", () => suite(inProcess))
describe("shared objects over TCP", () => suite(overTcp))
