/**
 * One attempt at getting a file, as an effect that can be killed at any point and gone on with by another worker.
 *
 * The bytes stream into a temporary file; they are counted, hashed and judged on the way and are never in memory as a
 * whole. Every so often they are made durable and a checkpoint is saved, beside the stream and not in its way. An attempt
 * that has a checkpoint asks for the rest with `Range` and `If-Range`, and goes on only when the answer proves to be of the
 * same version (`Range.ts`) and the file in the folder has the bytes that were hashed (`Partial.ts`). In every other case
 * it begins at the start, by one more request at most. Retries are the queue's job.
 *
 * Resuming needs `Accept-Encoding: identity`, which is the default: of an encoded body the offsets are those of the encoded
 * bytes, few servers encode the same file to the same bytes twice, and an encoder cannot be entered in its middle. A body
 * that comes encoded all the same is decoded, and saves no checkpoint.
 *
 * Invariant: a file has its final name only when it is complete, has the hash that was asked for, and is on the disk
 * (unless the disk is not to be waited for: `sync`).
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type * as Path from "effect/Path"
import * as Scope from "effect/Scope"
import * as Limits from "../Limits.ts"
import * as Inflate from "../platform/Inflate.ts"
import { Body, monotonicMs } from "./Body.ts"
import * as Fetch from "./Fetch.ts"
import * as Partial from "./Partial.ts"
import * as Range from "./Range.ts"

export interface TransferOptions {
  readonly url: string
  readonly referer?: string | undefined
  readonly allow?: ((url: URL) => boolean) | undefined
  /** The hash that the file must have, in hexadecimal. */
  readonly sha256?: string | undefined
  /** Of the previous attempt: `task.checkpoint`. */
  readonly checkpoint?: Range.Checkpoint | undefined
  /** `task.saveCheckpoint`. Without it nothing is kept of an attempt that fails. */
  readonly saveCheckpoint?: ((checkpoint: Range.Checkpoint) => Effect.Effect<void>) | undefined
  /** `task.progress`: told the part of the file that is there, 0 to 1, where its size is known. */
  readonly progress?: ((part: number) => Effect.Effect<void>) | undefined
  /** Names what is attempted, such as `task.id`; attempts of one name must not run at the same time. Default: the URL. */
  readonly id?: string | undefined
  /** `task.attempt`: a first one does not look for temporary files of earlier ones. */
  readonly attempt?: number | undefined
  /** Asks for gzip, deflate or br. What comes encoded cannot be resumed. */
  readonly compressed?: boolean | undefined
  /**
   * Whether the file and its name are on the disk when the download succeeds. Default: true. `false`: they are handed to
   * the operating system, as `curl` and a browser do it; what a crash of the program leaves is whole still, a loss of power
   * can cost the file, or its bytes. What a checkpoint counts on is on the disk either way.
   */
  readonly sync?: boolean | undefined
  /** Default and meaning: `Limits.checkpointEveryBytes` and so on. */
  readonly checkpointEveryBytes?: number | undefined
  readonly checkpointEveryMs?: number | undefined
  readonly bytesPerSecondMin?: number | undefined
  readonly speedWindowMs?: number | undefined
}

export interface Received {
  readonly finalUrl: string
  readonly bytes: number
  readonly sha256: string
  readonly contentType: string | undefined
  /** The first bytes, as many as were asked for. */
  readonly head: Uint8Array
}

/** Where a file goes, and what is asked of it. */
export interface Job<A> {
  /** Of the temporary file: on the file system of the final one. */
  readonly directory: string
  /** The final name, where it is known before. */
  readonly name: string
  readonly accept: string
  readonly bytesMax: number
  /** Bytes of the beginning that `refuse` wants to see. */
  readonly headBytes: number
  /** Why these first bytes are not of what is wanted. */
  readonly refuse: (head: Uint8Array, contentType: string | undefined, bytes: number) => string | undefined
  readonly publish: (
    partial: Partial.Partial,
    received: Received,
    fail: Partial.Fail
  ) => Effect.Effect<A, Fetch.FetchError, FileSystem.FileSystem | Path.Path>
}

type Services = Fetch.Fetch | FileSystem.FileSystem | Path.Path

/** Runs one attempt. After a success or a failure for good no temporary file of it, or of the checkpoint, is left. */
export const transfer = <A>(options: TransferOptions, job: Job<A>): Effect.Effect<A, Fetch.FetchError, Services> =>
  Effect.scoped(attempt(options, job))

const attempt = Effect.fnUntraced(function* <A>(options: TransferOptions, job: Job<A>) {
  const key = Partial.keyOf(job.name, options.id ?? options.url)
  const ifRange = Range.ifRangeOf(options.checkpoint, options.url)
  const earlier = ifRange === undefined ? undefined : options.checkpoint
  const mayBeMore = options.id !== undefined && (earlier !== undefined || options.attempt !== 1)
  const discardEarlier =
    earlier === undefined && !mayBeMore
      ? Effect.void
      : Effect.gen(function* () {
          if (earlier !== undefined) yield* Partial.discardPart(job.directory, key, earlier.part)
          if (mayBeMore) yield* Partial.discardAll(job.directory, key)
        })
  return yield* Effect.onExit(run(options, job, key, earlier, ifRange), (exit) =>
    Exit.isSuccess(exit) || endsForGood(exit.cause) ? discardEarlier : Effect.void
  )
})

const errorOf = (cause: Cause.Cause<Fetch.FetchError>): Fetch.FetchError | undefined =>
  Option.getOrUndefined(Cause.findErrorOption(cause))

/** Nothing of the attempt is worth keeping. */
const endsForGood = (cause: Cause.Cause<Fetch.FetchError>): boolean => {
  const error = errorOf(cause)
  return error !== undefined && (!Fetch.retryable(error) || error.cause === "digest")
}

/**
 * An answer that can be used: the rest of what an earlier attempt has, and that taken over, or the whole file, or a status
 * that says why there is nothing. Two requests at most.
 */
const negotiate = Effect.fnUntraced(function* <A>(
  options: TransferOptions,
  job: Job<A>,
  key: string,
  here: Range.Checkpoint | undefined,
  ifRange: string | undefined
) {
  const whole: Range.Verdict = { _tag: "Whole" }
  if (here === undefined) {
    const response = yield* ask(options, job, undefined, undefined)
    return { response, verdict: whole, resumed: undefined, partial: undefined }
  }
  const scope = yield* Scope.fork(yield* Effect.scope)
  const response = yield* Scope.provide(ask(options, job, here, ifRange), scope)
  let verdict = Range.judge(response, here)
  let partial: Partial.Partial | undefined
  const durable = options.sync !== false
  if (verdict._tag === "Append" || verdict._tag === "Complete") {
    partial = yield* Partial.create(job.directory, key, durable, failOf(response))
    const adopted = yield* Partial.adopt(partial, job.directory, key, here, failOf(response))
    if (adopted) return { response, verdict, resumed: here, partial }
    verdict = { _tag: "Again", why: "the temporary file is not what was saved" }
  }
  if (verdict._tag !== "Again") return { response, verdict: whole, resumed: undefined, partial }
  yield* Effect.logDebug(`the download begins again: ${verdict.why}`).pipe(Effect.annotateLogs("url", options.url))
  // first, for it may hold the one connection that there is
  yield* Scope.close(scope, Exit.void)
  const second = yield* ask(options, job, undefined, undefined)
  return { response: second, verdict: whole, resumed: undefined, partial }
})

const run = Effect.fnUntraced(function* <A>(
  options: TransferOptions,
  job: Job<A>,
  key: string,
  earlier: Range.Checkpoint | undefined,
  ifRange: string | undefined
) {
  const { directory } = job
  const here = earlier !== undefined && (yield* Partial.isHere(directory, key, earlier)) ? earlier : undefined
  const negotiated = yield* negotiate(options, job, key, here, ifRange)
  const { response, resumed, verdict } = negotiated
  const fail = failOf(response)
  const refused = resumed === undefined && !Fetch.isSuccess(response) ? yield* Fetch.statusError(response) : undefined
  if (refused !== undefined) return yield* refused
  const encodingName = response.headers["content-encoding"]?.trim().toLowerCase() || "identity"
  const encoding = Inflate.encodingOf(encodingName)
  if (encoding === undefined && encodingName !== "identity") {
    return yield* fail("decode", `encoded as ${encodingName.slice(0, 100)}, which was not asked for`)
  }
  const length = Fetch.contentLength(response)
  const total = totalOf(verdict, resumed, encoding === undefined ? length : undefined)
  const promised = Math.max(total ?? 0, length ?? 0)
  if (promised > job.bytesMax) return yield* fail("size", `${promised} bytes promised, ${job.bytesMax} allowed`)

  const partial = negotiated.partial ?? (yield* Partial.create(directory, key, options.sync !== false, fail))
  const state: State = {
    partial,
    response,
    total,
    contentType: response.headers["content-type"] ?? resumed?.contentType,
    validator: encoding === undefined ? (resumed ?? Range.validatorOf(response.headers)) : undefined,
    replaces: resumed?.part,
    savedBytes: 0,
    saving: undefined
  }
  if (here !== undefined && resumed === undefined) yield* Partial.discardPart(directory, key, here.part)
  const save = saverOf(options, job, key, state, fail)
  const complete = verdict._tag === "Complete" || (resumed !== undefined && resumed.bytes === total)
  const body = new Body(
    response,
    {
      bytesMax: job.bytesMax,
      encoding,
      promised: verdict._tag === "Append" ? verdict.bytes : length,
      bytesPerSecondMin: options.bytesPerSecondMin ?? Limits.bytesPerSecondMin,
      speedWindowMs: options.speedWindowMs ?? Limits.speedWindowMs
    },
    yield* Clock.Clock,
    fail
  )
  const work = Effect.gen(function* () {
    // the earlier file goes, and this one is the one to go on with
    if (resumed !== undefined && save !== undefined) yield* save
    const head: Head = { bytes: new Uint8Array(job.headBytes), size: 0 }
    if (state.partial.bytes > 0) head.size = yield* Partial.readHead(state.partial, head.bytes, fail)
    if (!complete) yield* receive(options, job, state, body, head, save, fail)
    return yield* finish(options, job, state, head, fail)
  })
  return yield* Effect.onExit(work, (exit) =>
    // most end well, with nothing to settle
    Exit.isSuccess(exit) && state.saving === undefined && !partial.keep ? Effect.void : settle(exit, state, save)
  )
})

interface State {
  readonly partial: Partial.Partial
  readonly response: Fetch.FetchResponse
  readonly total: number | undefined
  readonly contentType: string | undefined
  readonly validator: Range.Validator | Range.Checkpoint | undefined
  /** The part of an earlier attempt that the first checkpoint of this one replaces. */
  replaces: string | undefined
  savedBytes: number
  saving: Fiber.Fiber<void, Fetch.FetchError> | undefined
}

const failOf =
  ({ status, url }: Fetch.FetchResponse): Partial.Fail =>
  (cause, detail) =>
    new Fetch.FetchError({ url, cause, detail, status })

/** Bytes of the whole file, as far as they are known. */
const totalOf = (
  verdict: Range.Verdict,
  resumed: Range.Checkpoint | undefined,
  length: number | undefined
): number | undefined => {
  if (verdict._tag === "Append") return verdict.total
  return verdict._tag === "Complete" ? resumed?.bytes : length
}

/** One request, which is given up when its scope closes. */
const ask = <A>(
  { allow, compressed, referer, url }: TransferOptions,
  { accept }: Job<A>,
  checkpoint: Range.Checkpoint | undefined,
  ifRange: string | undefined
): Effect.Effect<Fetch.FetchResponse, Fetch.FetchError, Fetch.Fetch | Scope.Scope> =>
  Effect.flatMap(Fetch.Fetch, ({ open }) => {
    const range =
      checkpoint === undefined || ifRange === undefined ? undefined : { from: Range.offsetOf(checkpoint), ifRange }
    const acceptEncoding = compressed === true && range === undefined ? "gzip, deflate, br" : undefined
    return open(url, { accept, referer, allow, range, acceptEncoding })
  })

/** Makes what is there durable and saves it; undefined where nothing can be resumed. */
const saverOf = <A>(
  options: TransferOptions,
  job: Job<A>,
  key: string,
  state: State,
  fail: Partial.Fail
): Effect.Effect<void, Fetch.FetchError, FileSystem.FileSystem | Path.Path> | undefined => {
  const { contentType, partial, response, total, validator } = state
  const { saveCheckpoint, url } = options
  if (saveCheckpoint === undefined || validator === undefined || url.length > Limits.urlCharsMax) return undefined
  const version = "etag" in validator ? { etag: validator.etag! } : { lastModified: validator.lastModified! }
  const known = contentType !== undefined && contentType.length <= Limits.contentTypeCharsMax
  return Effect.gen(function* () {
    // the bytes and their hash as of now; the stream goes on while they are made durable
    const { bytes, hash, part } = partial
    const checkpoint: Range.Checkpoint = {
      ...{ url, source: Range.sourceOf(response.url), part, bytes, sha256: hash.soFar(), ...version },
      ...(total === undefined ? {} : { total }),
      ...(known ? { contentType } : {})
    }
    yield* Partial.sync(partial, fail)
    // before it is known to be saved: an answer that is lost must not cost the file
    partial.keep = true
    yield* saveCheckpoint(checkpoint)
    state.savedBytes = bytes
    if (state.replaces !== undefined) yield* Partial.discardPart(job.directory, key, state.replaces)
    state.replaces = undefined
  })
}

interface Head {
  readonly bytes: Uint8Array
  size: number
}

const refusal = <A>(job: Job<A>, state: State, head: Head, fail: Partial.Fail): Fetch.FetchError | undefined => {
  const why = job.refuse(head.bytes.subarray(0, head.size), state.contentType, state.partial.bytes)
  return why === undefined ? undefined : fail("type", why)
}

const receive = Effect.fnUntraced(function* <A>(
  options: TransferOptions,
  job: Job<A>,
  state: State,
  body: Body,
  head: Head,
  save: Effect.Effect<void, Fetch.FetchError, FileSystem.FileSystem | Path.Path> | undefined,
  fail: Partial.Fail
) {
  const clock = yield* Clock.Clock
  const { partial, total } = state
  const { progress } = options
  const everyBytes = options.checkpointEveryBytes ?? Limits.checkpointEveryBytes
  const everyMs = options.checkpointEveryMs ?? Limits.checkpointEveryMs
  const told = save !== undefined || progress !== undefined
  let nowMs = monotonicMs(clock)
  let progressAtMs = nowMs + Limits.progressEveryMs
  let saveAtMs = nowMs + everyMs
  let saveAtBytes = partial.bytes + everyBytes
  let judged = head.size >= job.headBytes
  while (true) {
    const enough = judged ? Limits.blockBytes : job.headBytes
    const untilMs = told ? Math.min(progressAtMs, saveAtMs) : Number.POSITIVE_INFINITY
    const block = yield* Effect.promise(() => body.next(enough, untilMs))
    if (!judged) {
      const more = block.bytes.subarray(0, job.headBytes - head.size)
      head.bytes.set(more, head.size)
      head.size += more.length
    }
    // before it is written: what is held stays good
    if (total !== undefined && partial.bytes + block.bytes.length > total) {
      return yield* fail("reset", `more than the ${total} bytes that were promised`)
    }
    yield* Partial.write(partial, block.bytes, fail)
    if (!judged && head.size >= job.headBytes) {
      judged = true
      const refused = refusal(job, state, head, fail)
      if (refused !== undefined) return yield* refused
    }
    if (typeof block.end === "object") return yield* block.end
    if (block.end === "end") break
    nowMs = monotonicMs(clock)
    if (nowMs >= progressAtMs) {
      if (progress !== undefined && total !== undefined && total > 0) yield* progress(partial.bytes / total)
      progressAtMs = nowMs + Limits.progressEveryMs
    }
    if (partial.bytes >= saveAtBytes || nowMs >= saveAtMs) {
      if (save !== undefined && partial.bytes > state.savedBytes) {
        // one at a time: what a crash costs is less than two intervals
        if (state.saving !== undefined) yield* Fiber.join(state.saving)
        state.saving = yield* Effect.forkChild(save, { startImmediately: true })
      }
      saveAtMs = nowMs + everyMs
      saveAtBytes = partial.bytes + everyBytes
    }
  }
})

/** A checkpoint under way is of no more use; but a disk that has failed has failed, and says so only once. */
const endSaving = Effect.fnUntraced(function* (saving: Fiber.Fiber<void, Fetch.FetchError>) {
  yield* Fiber.interrupt(saving)
  const exit = yield* Fiber.await(saving)
  const error = Exit.isFailure(exit) ? errorOf(exit.cause) : undefined
  if (error !== undefined) return yield* error
})

/** Looks at the whole, and gives it its name. */
const finish = Effect.fnUntraced(function* <A>(
  options: TransferOptions,
  job: Job<A>,
  state: State,
  head: Head,
  fail: Partial.Fail
) {
  const { contentType, partial, response, total } = state
  if (state.saving !== undefined) yield* endSaving(state.saving)
  if (total !== undefined && partial.bytes !== total) {
    return yield* fail("reset", `${total} bytes promised, ${partial.bytes} received`)
  }
  const refused = refusal(job, state, head, fail)
  if (refused !== undefined) return yield* refused
  const sha256 = partial.hash.hex()
  if (options.sha256 !== undefined && options.sha256.toLowerCase() !== sha256) {
    return yield* fail("digest", `the hash is ${sha256}, not ${options.sha256}`)
  }
  const received = {
    ...{ finalUrl: response.url, bytes: partial.bytes, sha256, contentType },
    head: head.bytes.subarray(0, head.size)
  }
  if (options.progress !== undefined) yield* options.progress(1)
  // once it is begun it is done: an answer that says "interrupted" of a file that is there helps nobody
  return yield* Effect.uninterruptible(job.publish(partial, received, fail))
})

/** Keeps what the next attempt can use, and nothing else. */
const settle = Effect.fnUntraced(function* <A>(
  exit: Exit.Exit<A, Fetch.FetchError>,
  state: State,
  save: Effect.Effect<void, Fetch.FetchError, FileSystem.FileSystem | Path.Path> | undefined
) {
  const { partial, saving } = state
  const failed = Exit.isFailure(exit) ? exit.cause : undefined
  if (failed === undefined || endsForGood(failed)) {
    if (saving !== undefined) yield* Fiber.interrupt(saving)
    partial.keep = false
    return
  }
  const last = Effect.gen(function* () {
    if (saving !== undefined) yield* Fiber.await(saving)
    // after trouble with the disk it is not known what is in the file
    const known = errorOf(failed)?.cause !== "disk" && !Cause.hasDies(failed)
    if (save !== undefined && known && partial.bytes > state.savedBytes) yield* save
  })
  // in a fiber of its own, for the one that was interrupted could not be timed out
  const lasting = yield* Effect.forkChild(Effect.timeoutOption(last, Limits.checkpointLastMs), {
    startImmediately: true,
    uninterruptible: false
  })
  yield* Fiber.await(lasting)
  if (saving !== undefined) yield* Fiber.interrupt(saving)
})
