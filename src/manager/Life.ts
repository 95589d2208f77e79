/**
 * One life of a manager: a core over an opened store, from the log's first row to the failure that ends it.
 *
 * What waits, forks and logs around the core is here; `Manager` decides what follows a failure.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { StoreBroken, StoreDamaged } from "../Errors.ts"
import { durabilityOf } from "../model/Policy.ts"
import type { QueueDefinition } from "../model/Queue.ts"
import type { StoreShape } from "../store/Store.ts"
import { Malformed } from "../wire/Bytes.ts"
import type { Versions } from "../wire/Vocabulary.ts"
import { Core, type Host } from "./Core.ts"

export interface Life {
  readonly core: Core
  /** Succeeds with the reason when this core can no longer be trusted: its store broke, or its engine did. */
  readonly failed: Effect.Effect<StoreBroken>
}

/** Rebuilds the state from the store and begins to work; ends with the scope. */
export const start = Effect.fnUntraced(function* (
  store: StoreShape,
  options: {
    readonly queues: ReadonlyArray<Omit<QueueDefinition, "durability">>
    readonly residentBytesMax?: number | undefined
    readonly inspect?: ((core: Core) => void) | undefined
    readonly versions?: Versions | undefined
  }
): Effect.fn.Return<Life, StoreBroken | StoreDamaged, Scope.Scope> {
  const clock = yield* Clock.Clock
  const run = Effect.runForkWith(yield* Effect.context<never>())
  const failure = yield* Deferred.make<StoreBroken>()
  const startedNanos = clock.monotonicTimeNanosUnsafe()
  // Engine time: the later of the wall clock and the log's last round, and from then on only what has passed since.
  let base = clock.currentTimeMillisUnsafe()
  const sinceNanos = (): bigint => clock.monotonicTimeNanosUnsafe() - startedNanos
  const now = (): number => base + Number(sinceNanos() / 1_000_000n)

  let alarm: { readonly at: number; readonly fiber: Fiber.Fiber<void> } | undefined
  let stopped = false
  const disarm = (): void => {
    if (alarm !== undefined) run(Fiber.interrupt(alarm.fiber))
    alarm = undefined
  }
  const fail = (reason: string): void => {
    core.stop()
    run(Effect.logError("the manager is broken and has stopped", reason))
    Deferred.doneUnsafe(failure, Effect.succeed(new StoreBroken({ reason: reason.split("\n")[0] ?? "" })))
  }
  // Nothing may be promised any more: every connection ends, and what waits is indefinite.
  const orFail = <A, E>(effect: Effect.Effect<A, E>): void =>
    void run(Effect.catchCause(effect, (cause) => Effect.sync(() => fail(reasonOf(cause)))))
  const host: Host = {
    now,
    wall: () => clock.currentTimeMillisUnsafe(),
    alarm: (at) => {
      if (stopped) return
      // An alarm that is early costs one empty round; a new one per round would cost a fiber each.
      if (alarm !== undefined && alarm.at <= at) return
      disarm()
      if (at === Number.POSITIVE_INFINITY) return
      // From the fraction of the millisecond on, for a lane with a gap loses what the alarm is late at every turn.
      const exactMs = at - base - Number(sinceNanos()) / 1_000_000
      const waitMs = Math.min(Math.max(0, Math.ceil(exactMs)), 3_600_000)
      const ring = Effect.sync(() => {
        alarm = undefined
        core.wake()
      })
      alarm = { at, fiber: run(Effect.andThen(Effect.sleep(waitMs), ring)) }
    },
    store: store.keeps
      ? {
          commit: (batch, done) => orFail(Effect.andThen(store.commit(batch), Effect.sync(done))),
          read: (seqs, done) => orFail(Effect.flatMap(store.read(seqs), (rows) => Effect.sync(() => done(rows)))),
          low: store.low
        }
      : undefined,
    durability: store.durability,
    failed: (text) => fail(text),
    log: (level, text, details) => {
      const log = level === "info" ? Effect.logInfo : level === "warn" ? Effect.logWarning : Effect.logError
      run(log(text).pipe(Effect.annotateLogs({ room: "manager", ...details })))
    }
  }
  const core: Core = new Core({
    queues: options.queues.map((definition) => ({
      ...definition,
      durability: durabilityOf(definition.policy, store.durability)
    })),
    host,
    ...(store.keeps ? { identity: store.identity } : {}),
    residentBytesMax: options.residentBytesMax,
    versions: options.versions
  })
  options.inspect?.(core)
  if (store.keeps) {
    let rows = 0
    let bytes = 0
    yield* Stream.runForEachArray(store.load, (page) =>
      Effect.try({
        try: () => {
          for (const row of page) {
            core.restore(row)
            rows++
            bytes += row.body.byteLength
          }
        },
        catch: (error) => damagedOf(error)
      })
    )
    base = Math.max(base, core.restoredUntil)
    yield* Effect.try({ try: () => core.start(), catch: (error) => damagedOf(error) })
    const away = core.lettersAway()
    // A few rows at a time: they are let go of when their letters have what they need.
    for (let i = 0; i < away.length; i += 64) core.lettersRead(yield* store.read(away.slice(i, i + 64)))
    if (rows > 0) {
      yield* Effect.logInfo("the manager has its state from the store").pipe(
        Effect.annotateLogs({ room: "manager", rows, bytes, tasks: core.engine.unfinished })
      )
    }
  }
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      stopped = true
      disarm()
      core.stop()
    })
  )
  return { core, failed: Deferred.await(failure) }
})

const reasonOf = (cause: Cause.Cause<unknown>): string => {
  const error = cause.reasons.find(Cause.isFailReason)?.error
  return error instanceof Error ? error.message : Cause.pretty(cause)
}

/** A row that is what was written, and says what cannot be. */
const damagedOf = (error: unknown): StoreDamaged => {
  const finding = error instanceof Malformed ? error.message : `the state cannot be rebuilt (${String(error)})`
  const remedy = "run the version that wrote it, or restore a backup"
  return new StoreDamaged({ file: "the log", finding, remedy })
}
