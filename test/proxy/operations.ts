/**
 * Every operation of a client, each with a way to count how often it has been done.
 *
 * `prepare` and `act` are run by the client whose network is at fault, `prepare` before the fault; `times` is counted by
 * a neighbour on a healthy connection. 1 after a success, 0 after a definite error, either after an indefinite one.
 */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import {
  type Client,
  type Errors,
  SharedCounter,
  SharedDict,
  SharedSet,
  Signal,
  Step,
  TaskQueue,
  Worker
} from "millrace"

class Failed extends Schema.TaggedError<Failed>()("Failed", { why: Schema.String }) {}

const Told = Signal.make("told", Schema.Int)

const queueOf = (name: string) =>
  TaskQueue.make(name, {
    payload: Schema.Int,
    result: Schema.String,
    error: Failed,
    checkpoint: Schema.Int,
    policy: { backoff: { base: 0, jitter: 0 }, lease: "2 minutes" }
  })

/** What one case works on: names of its own. */
export interface Room {
  readonly q: ReturnType<typeof queueOf>
  readonly set: SharedSet.SharedSet
  readonly counter: SharedCounter.SharedCounter
  readonly dict: SharedDict.SharedDict<number>
}

export const roomOf = (name: string): Room => ({
  q: queueOf(name),
  set: SharedSet.make(name),
  counter: SharedCounter.make(name),
  dict: SharedDict.make(name, { value: Schema.Int })
})

type Need = Client.Client | Scope.Scope
type Failure = Errors.MillraceError | Failed

export interface Operation {
  readonly name: string
  readonly prepare: (room: Room) => Effect.Effect<Effect.Effect<unknown, Failure, Need>, Failure, Need>
  /** Counted by the neighbour until it is no longer 0, or for a while. */
  readonly times: (room: Room) => Effect.Effect<number, Failure, Client.Client>
}

type Stats = TaskQueue.QueueStats
const once = (holds: boolean): number => (holds ? 1 : 0)
const counted =
  (count: (stats: Stats) => number): Operation["times"] =>
  ({ q }) =>
    Effect.map(q.stats, count)
/** It changes nothing. */
const reads: Operation["times"] = () => Effect.succeed(1)

const leased = ({ q }: Room) =>
  Effect.gen(function* () {
    yield* q.put(1)
    const [lease] = yield* q.lease()
    return lease!
  })

const op = (
  name: string,
  prepare: (room: Room) => Effect.Effect<Effect.Effect<unknown, Failure, Need>, Failure, Need>,
  times: Operation["times"]
): Operation => ({ name, prepare, times })

/** Nothing to prepare but the first use of each name. */
const plain = (
  name: string,
  act: (room: Room) => Effect.Effect<unknown, Failure, Need>,
  times: Operation["times"]
): Operation => op(name, (room) => Effect.as(room.q.stats, act(room)), times)

const onLease = (
  name: string,
  act: (room: Room, lease: TaskQueue.Lease<number, number>) => Effect.Effect<unknown, Failure, Need>,
  times: Operation["times"]
): Operation => op(name, (room) => Effect.map(leased(room), (lease) => act(room, lease)), times)

const answers = <A, E, R>(effect: Effect.Effect<A, E, R>, expected: A): Effect.Effect<void, E, R> =>
  Effect.map(effect, (answer) => assert.deepStrictEqual(answer, expected))

export const operations: ReadonlyArray<Operation> = [
  // ---- queues: putting
  op(
    "open and put",
    ({ q }) => Effect.succeed(q.put(1)),
    counted(({ puts }) => puts)
  ),
  plain(
    "put",
    ({ q }) => q.put(1),
    counted(({ puts }) => puts)
  ),
  plain(
    "put with an id",
    ({ q }) => q.put(1, { id: "one" }),
    counted(({ duplicates, puts }) => puts + 10 * duplicates)
  ),
  plain(
    "putAll",
    ({ q }) => q.putAll([1, 2, 3]),
    counted(({ puts }) => puts / 3)
  ),
  plain(
    "putAll, atomic",
    ({ q }) => q.putAll([1, 2, 3], { atomic: true }),
    counted(({ puts }) => puts / 3)
  ),
  op(
    "put into a full queue",
    (room) =>
      Effect.gen(function* () {
        const q = TaskQueue.make(room.q.name, {
          payload: Schema.Int,
          result: Schema.String,
          error: Failed,
          checkpoint: Schema.Int,
          policy: { capacity: 1 }
        })
        yield* q.put(1)
        // Without a connection nothing is asked.
        const asked = Effect.retry(q.get(), Schedule.spaced("20 millis"))
        const makeRoom = Effect.andThen(Effect.sleep("30 millis"), asked)
        return Effect.all([q.put(2), makeRoom], { concurrency: "unbounded" })
      }),
    counted(({ puts }) => puts - 1)
  ),
  plain(
    "putWait",
    ({ q }) =>
      Effect.scoped(
        Effect.andThen(
          Worker.start(q, (task) => Effect.succeed(`done ${task.payload}`)),
          answers(q.putWait(1), "done 1")
        )
      ),
    counted(({ done, puts }) => (done === puts ? puts : -1))
  ),
  // ---- queues: taking
  op(
    "get",
    ({ q }) => Effect.as(q.put(7), answers(q.get(), 7)),
    counted(({ acknowledged, leased, ready }) => (leased + ready === 0 ? acknowledged : 0))
  ),
  op(
    "lease, and commit it",
    ({ q }) =>
      Effect.as(
        q.putAll([1, 2]),
        Effect.flatMap(q.lease({ max: 1 }), ([lease]) => q.commit(lease!, ""))
      ),
    counted(({ done, leased, ready }) => (leased === 0 && ready === 1 ? done : 10 * leased))
  ),
  onLease(
    "commit",
    ({ q }, lease) => q.commit(lease, "well"),
    counted(({ done }) => done)
  ),
  onLease(
    "commitAll with what joins it",
    ({ counter, q }, lease) =>
      q.commitAll([{ lease, result: "" }], {
        also: (commit) => Effect.andThen(commit.put(q, 2), commit.increment(counter, 1))
      }) as Effect.Effect<unknown, Failure, Need>,
    ({ counter, q }) =>
      Effect.map(Effect.all([q.stats, counter.value]), ([{ done, puts }, value]) =>
        done === puts - 1 && done === value ? done : -1
      )
  ),
  onLease(
    "release",
    ({ q }, lease) => q.release(lease),
    counted(({ leased, ready }) => once(leased === 0 && ready === 1))
  ),
  onLease(
    "fail",
    ({ q }, lease) => q.fail(lease, new Failed({ why: "" }), { retryAfter: "1 hour" }),
    ({ q }) => Effect.map(q.browse({ state: "delayed" }), ({ tasks }) => tasks[0]?.reasons.length ?? 0)
  ),
  onLease(
    "kill",
    ({ q }, lease) => q.kill(lease, ""),
    counted(({ dead }) => dead)
  ),
  onLease(
    "renew",
    ({ q }, lease) => q.renew(lease),
    counted(({ leased }) => leased)
  ),
  onLease(
    "checkpoint",
    ({ q }, lease) => q.checkpoint(lease, 5),
    ({ q }) => Effect.map(q.browse({ state: "leased" }), ({ tasks }) => once((tasks[0]?.checkpointBytes ?? 0) > 0))
  ),
  op(
    "a worker's tasks",
    ({ q }) =>
      Effect.gen(function* () {
        const seen: Array<number> = []
        yield* Worker.start(
          q,
          (task) =>
            Effect.sync(() => {
              seen.push(task.payload)
              return ""
            }),
          { concurrency: 2, grace: "1 second" }
        )
        return Effect.andThen(
          q.putAll([1, 2, 3, 4, 5]),
          Effect.map(q.join(), () => assert.deepStrictEqual(seen.toSorted(), [1, 2, 3, 4, 5]))
        )
      }),
    counted(({ done }) => done / 5)
  ),
  // ---- queues: looking and waiting
  op(
    "outcome",
    (room) =>
      Effect.gen(function* () {
        const lease = yield* leased(room)
        yield* room.q.commit(lease, "well")
        return Effect.map(room.q.outcome(lease.taskId), ({ _tag }) => assert.strictEqual(_tag, "Success"))
      }),
    reads
  ),
  op(
    "outcomes",
    ({ q }) =>
      Effect.gen(function* () {
        const receipts = yield* q.putAll([1, 2, 3])
        for (const { taskId } of receipts) yield* q.cancel(taskId)
        return q.outcomesFrom(0).pipe(
          Stream.take(3),
          Stream.runCollect,
          Effect.map((outcomes) =>
            assert.deepStrictEqual(
              outcomes.map(({ taskId }) => taskId),
              receipts.map(({ taskId }) => taskId)
            )
          )
        )
      }),
    reads
  ),
  plain("join", ({ q }) => q.join(), reads),
  op("peek", ({ q }) => Effect.as(q.putAll([1, 2]), answers(q.peek(2), [1, 2])), reads),
  op(
    "browse",
    ({ q }) =>
      Effect.as(
        q.putAll([1, 2]),
        answers(
          Effect.map(q.browse(), ({ tasks }) => tasks.map(({ payload }) => payload)),
          [1, 2]
        )
      ),
    reads
  ),
  op("stats", ({ q }) => Effect.as(q.put(1), answers(q.size, 1)), reads),
  op("explain", ({ q }) => Effect.map(q.put(1), ({ taskId }) => q.explain(taskId)), reads),
  // ---- queues: operating
  op(
    "cancel",
    ({ q }) =>
      Effect.map(q.put(1), ({ taskId }) =>
        answers(q.cancel(taskId), { taskId, cancelled: true, was: "ready" as const })
      ),
    counted(({ cancelled }) => cancelled)
  ),
  plain(
    "pause",
    ({ q }) => q.pause(),
    counted(({ paused }) => once(paused))
  ),
  op(
    "resume",
    ({ q }) => Effect.as(q.pause(), q.resume()),
    counted(({ paused }) => once(!paused))
  ),
  op(
    "purge",
    ({ q }) => Effect.as(q.putAll([1, 2]), answers(q.purge(), 2)),
    counted(({ purged }) => purged / 2)
  ),
  op(
    "redrive",
    (room) =>
      Effect.flatMap(leased(room), (lease) =>
        Effect.as(
          room.q.kill(lease, ""),
          answers(
            Effect.map(room.q.redrive(), ({ length }) => length),
            1
          )
        )
      ),
    counted(({ deadLetters, ready, redriven }) => (ready === redriven && deadLetters === 1 - redriven ? redriven : -1))
  ),
  plain(
    "close",
    ({ q }) => q.close(),
    counted(({ closed }) => once(closed !== "open"))
  ),
  plain(
    "a lane's limit",
    ({ q }) => q.lane("a").pause,
    ({ q }) =>
      Effect.gen(function* () {
        yield* q.put(1, { key: "a" })
        const { lanes } = yield* q.stats
        const got = yield* Effect.result(q.lease({ timeout: 0 }))
        return once(lanes.length === 1 && got._tag === "Failure")
      })
  ),
  plain(
    "repeat",
    ({ q }) => q.repeat("r", { every: "1 hour" }, 1),
    ({ q }) => Effect.map(q.repeats, ({ length }) => length)
  ),
  op(
    "repeats",
    ({ q }) =>
      Effect.as(
        q.repeat("r", { every: "1 hour" }, 1),
        answers(
          Effect.map(q.repeats, ({ length }) => length),
          1
        )
      ),
    reads
  ),
  op(
    "removeRepeat",
    ({ q }) => Effect.as(q.repeat("r", { every: "1 hour" }, 1), answers(q.removeRepeat("r"), true)),
    ({ q }) => Effect.map(q.repeats, ({ length }) => 1 - length)
  ),
  // ---- progress
  op(
    "signal",
    ({ q }) => Effect.map(q.put(1), ({ taskId }) => q.signal(taskId, Told, 5)),
    ({ q }) => Effect.map(q.browse(), ({ tasks }) => tasks[0]?.entries ?? 0)
  ),
  op(
    "find",
    ({ q }) =>
      Effect.as(
        q.put(1, { id: "one" }),
        answers(
          Effect.map(q.find("one"), (found) => found?.state),
          "ready"
        )
      ),
    reads
  ),
  op(
    "a worker with a step and a checkpoint",
    ({ q }) =>
      Effect.as(
        Worker.start(
          q,
          Effect.fnUntraced(function* (task) {
            yield* Effect.orDie(task.saveCheckpoint(1))
            return yield* Effect.orDie(Step.run("step", Schema.String, Effect.succeed("done")))
          })
        ),
        answers(q.putWait(1), "done")
      ),
    counted(({ done }) => done)
  ),
  op(
    "outcomesAs",
    ({ q }) =>
      Effect.gen(function* () {
        yield* Worker.start(q, () => Effect.succeed("done"))
        const read = q.outcomesAs("reader").pipe(Stream.take(1), Stream.runCollect)
        yield* q.putWait(1)
        return answers(
          Effect.map(read, ({ length }) => length),
          1
        )
      }),
    reads
  ),
  // ---- shared objects
  plain(
    "set: addAll",
    ({ set }) => answers(set.addAll(["a", "b"]), [true, true]),
    ({ set }) => Effect.map(set.size, (size) => size / 2)
  ),
  op("set: has", ({ set }) => Effect.as(set.add("a"), answers(set.has("a"), true)), reads),
  op(
    "set: remove",
    ({ set }) => Effect.as(set.addAll(["a", "b"]), answers(set.remove("a"), true)),
    ({ set }) => Effect.map(set.size, (size) => 2 - size)
  ),
  plain(
    "counter: increment",
    ({ counter }) => answers(counter.increment(), 1),
    ({ counter }) => counter.value
  ),
  op(
    "counter: compareAndSet",
    ({ counter }) => Effect.as(counter.set(5), counter.compareAndSet(5, 6)),
    ({ counter }) => Effect.map(counter.value, (value) => value - 5)
  ),
  plain(
    "dict: set",
    ({ dict }) => answers(dict.set("k", 5), 1),
    ({ dict }) => Effect.map(dict.entry("k"), (entry) => entry?.version ?? 0)
  ),
  op(
    "dict: compareAndSet",
    ({ dict }) => Effect.map(dict.set("k", 1), (version) => answers(dict.compareAndSet("k", version, 2), 2)),
    ({ dict }) => Effect.map(dict.entry("k"), (entry) => (entry?.version ?? 0) - 1)
  ),
  op("dict: get", ({ dict }) => Effect.as(dict.set("k", 5), answers(dict.get("k"), 5)), reads),
  op(
    "dict: delete",
    ({ dict }) => Effect.as(dict.set("k", 5), answers(dict.delete("k"), true)),
    ({ dict }) => Effect.map(dict.size, (size) => 1 - size)
  ),
  op(
    "dict: entries",
    ({ dict }) =>
      Effect.as(
        dict.set("k", 5),
        answers(
          Effect.map(Stream.runCollect(dict.entries), (entries) => entries.map(([key]) => key)),
          ["k"]
        )
      ),
    reads
  )
]

/** Runs it and says how it ended; a defect is no ending. */
export const ending = <A, R>(effect: Effect.Effect<A, Failure, R>): Effect.Effect<Failure | undefined, never, R> =>
  Effect.flatMap(Effect.exit(effect), (exit) => {
    if (Exit.isSuccess(exit)) return Effect.undefined
    const failed = exit.cause.reasons.find((reason) => reason._tag === "Fail")
    return failed === undefined ? Effect.failCause(exit.cause as never) : Effect.succeed(failed.error)
  })
