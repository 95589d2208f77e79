/**
 * The store over SQLite: `SqliteLog` in a thread of its own, or called directly.
 *
 * The thread is the default because no commit, checkpoint or slow disk then stops the event loop of the program around
 * it; called directly, a manager that has its process to itself is up to a fifth faster (docs/adr/0005-log-store.md).
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import {
  ConfigurationInvalid,
  StoreBroken,
  StoreDamaged,
  StoreFull,
  StoreLocked,
  type StoreOpenError,
  StoreTooNew
} from "../Errors.ts"
import * as Limits from "../Limits.ts"
import * as Folder from "../platform/DataFolder.ts"
import * as Sqlite from "../platform/Sqlite.ts"
import { startThread } from "../platform/Thread.ts"
import { type Fault, Refused, remedies } from "./Fault.ts"
import { type LogOptions, SqliteLog } from "./SqliteLog.ts"
import { type Answer, answerTo, type Message, pack, type Request } from "./SqliteThread.ts"
import { Store, type StoreShape } from "./Store.ts"

export interface SqliteOptions {
  /** Made with mode 0700 when it is not there. Belongs to one manager. Not on a network file system. */
  readonly directory: string
  /** What an answer means: `fsync` (default) is on disk, `buffered` is handed to the operating system. */
  readonly durability?: "fsync" | "buffered" | undefined
  /** Kept free as a file for the transactions that a full disk must not stop. Default 16 MiB. */
  readonly ballastBytes?: number | undefined
  /** Free space below which `low` is true. Default 64 MiB. */
  readonly lowWaterBytes?: number | undefined
  /**
   * Opens a file that lacks committed transactions: a restored backup, or the end of a log that is lost for good.
   * Needed once; damaged rows are refused all the same.
   */
  readonly acceptLoss?: boolean | undefined
  /** Writes in a thread of its own. Default true; see docs/adr/0005-log-store.md for what it costs. */
  readonly thread?: boolean | undefined
}

/** While a log is in use only `broken` is left; another fault there is one all the same. */
const brokenOf = (fault: Fault): StoreBroken => {
  if (fault.kind !== "broken") return new StoreBroken({ reason: errorOf(fault).message })
  const { code, reason, remedy } = fault
  return new StoreBroken({ reason, remedy, ...(code === 0 ? {} : { code }) })
}

const errorOf = (fault: Fault): StoreOpenError => {
  switch (fault.kind) {
    case "broken":
      return brokenOf(fault)
    case "full":
      return new StoreFull(fault)
    case "damaged":
      return new StoreDamaged(fault)
    case "locked":
      return new StoreLocked(fault)
    case "tooNew":
      return new StoreTooNew(fault)
    case "misconfigured":
      return new ConfigurationInvalid(fault)
  }
}

/** Answers each request exactly once, in order. */
type Ask = (request: Request, answer: (answer: Answer) => void) => void

const inThread = (options: LogOptions): Ask => {
  const thread = startThread<LogOptions, Message, Answer>("./SqliteThreadMain", import.meta.url, options)
  return (request, answer) => {
    const message = pack(request)
    thread.ask(message, message.ask === "packed" ? [message.bytes.buffer] : [], (found) => {
      if (found !== undefined) return answer(found)
      const reason = thread.gone() ?? "its thread has ended"
      const fault: Fault = { kind: "broken", reason, code: 0, remedy: remedies.restart }
      answer({ fault, reserve: { ballast: false, spareBytes: 0 } })
    })
  }
}

const direct = (options: LogOptions): Ask => {
  let log: SqliteLog
  try {
    log = new SqliteLog(options)
  } catch (error) {
    if (!(error instanceof Refused)) throw error
    const { fault } = error
    return (_, answer) => answer({ fault, reserve: { ballast: false, spareBytes: 0 } })
  }
  return (request, answer) => {
    answer(answerTo(log, request))
    if (request.ask === "commit") log.settle()
  }
}

/**
 * Keeps the log in `millrace.db` of a folder, one transaction a batch.
 *
 * Refuses, and changes nothing: a folder that another manager has, a newer schema, another application's file, a
 * damaged file, and one that lacks what was committed. An older schema is migrated, after a copy (`millrace.db.v0`).
 */
export const layer = (options: SqliteOptions): Layer.Layer<Store, StoreOpenError> => Layer.effect(Store, open(options))

const open = (options: SqliteOptions): Effect.Effect<StoreShape, StoreOpenError, Scope.Scope> =>
  Effect.gen(function* () {
    const unavailable = Sqlite.unavailable()
    if (unavailable !== undefined) {
      const remedy = "use a runtime that has it (Node 22.19 or newer), or keep tasks in memory (Store.layerMemory)"
      return yield* new ConfigurationInvalid({ field: "store", value: `sqlite (${unavailable})`, remedy })
    }
    const directory = Folder.resolvePath(options.directory)
    const durability = options.durability ?? "fsync"
    const lowWaterBytes = options.lowWaterBytes ?? Limits.storeLowWaterBytes
    const logOptions: LogOptions = {
      directory,
      durability,
      ballastBytes: options.ballastBytes ?? Limits.storeBallastBytes,
      lowWaterBytes,
      acceptLoss: options.acceptLoss ?? false
    }
    const send = options.thread === false ? direct(logOptions) : inThread(logOptions)
    let reserve: Answer["reserve"] = { ballast: false, spareBytes: 0 }
    const ask = (request: Request): Effect.Effect<Answer, Fault> =>
      Effect.uninterruptible(
        Effect.callback<Answer, Fault>((resume) =>
          send(request, (answer) => {
            reserve = answer.reserve
            resume(answer.fault === undefined ? Effect.succeed(answer) : Effect.fail(answer.fault))
          })
        )
      )
    /** Asked for at once and answered later: the thread reads and checks a page while the one before is decoded. */
    const pageAhead = (from: number): Effect.Effect<Answer, Fault> => {
      let found: Answer | undefined
      let waiting: ((answer: Answer) => void) | undefined
      send({ ask: "page", from }, (answer) => {
        reserve = answer.reserve
        found = answer
        waiting?.(answer)
      })
      return Effect.callback<Answer, Fault>((resume) => {
        waiting = ({ fault, ...answer }) =>
          resume(fault === undefined ? Effect.succeed({ fault, ...answer }) : Effect.fail(fault))
        if (found !== undefined) waiting(found)
      })
    }
    const close = Effect.ignore(ask({ ask: "close" }))
    const { opened } = yield* Effect.acquireRelease(Effect.mapError(ask({ ask: "open" }), errorOf), () => close)
    const { epoch, instance, sqliteVersion } = opened!

    yield* Effect.logDebug("the store is open").pipe(
      Effect.annotateLogs({ room: "store", directory, durability, epoch, sqlite: sqliteVersion })
    )
    if (Folder.openToOthers(directory)) {
      yield* Effect.logWarning(`${directory} can be listed by other users of this machine (its files cannot be read)`)
    }
    yield* Effect.forkScoped(
      Effect.forever(Effect.andThen(Effect.sleep(Limits.storeTendMs), Effect.ignore(ask({ ask: "tend" }))))
    )
    const space = Folder.sampledFreeBytes(directory, Limits.storeSpaceSampleMs, Limits.storeSpaceSampleBytes)

    return Store.of({
      durability,
      keeps: true,
      identity: { instance, epoch },
      low: () => !reserve.ballast || space.free() + reserve.spareBytes < lowWaterBytes,
      load: Stream.unwrap(
        Effect.sync(() => {
          const first = pageAhead(0)
          return Stream.paginate(first, (page) =>
            page.pipe(
              Effect.mapError((fault) => (fault.kind === "damaged" ? new StoreDamaged(fault) : brokenOf(fault))),
              Effect.map(({ page }) => {
                const { next, rows } = page!
                return [rows, next === 0 ? Option.none() : Option.some(pageAhead(next))] as const
              })
            )
          )
        })
      ),
      commit: (batch) =>
        Effect.suspend(() => {
          for (const { body } of batch.rows) space.wrote(body.byteLength)
          return Effect.mapError(ask({ ask: "commit", batch }), (fault) =>
            fault.kind === "full" ? new StoreFull(fault) : brokenOf(fault)
          )
        }),
      read: (seqs) =>
        ask({ ask: "read", seqs }).pipe(
          Effect.mapError(brokenOf),
          Effect.map(({ rows }) => rows!)
        ),
      reopen: Effect.andThen(close, open(options))
    })
  })
