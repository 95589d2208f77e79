/**
 * What a running task knows of its steps, its signals and its unsaved progress; one per task, made by its first use.
 *
 * A handler that only waits is suspended: when none of its steps runs and something waits, the attempt ends without being
 * counted, and the task comes back when the earliest wait is over or a signal has come. It holds no worker meanwhile.
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { ClientShape } from "../client/Client.ts"
import { requestErrorOf, unexpected } from "../client/Client.ts"
import { type RequestError, StepInvalid } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import { Code } from "../model/Refusal.ts"
import { soon } from "../platform/Schedule.ts"
import type { Entry } from "../wire/Vocabulary.ts"
import { ClientType as C, ManagerType as M } from "../wire/Vocabulary.ts"

/** The end of an attempt that only waits. */
export interface Suspension {
  /** Milliseconds by the worker's clock; undefined: only a signal ends it. */
  readonly dueAt: number | undefined
  readonly clock: Clock.Clock
  readonly seen: number
}

/** What is left of it, as it is said: a report may have waited for its connection. */
export const forMsOf = ({ clock, dueAt }: Suspension): number | undefined =>
  dueAt === undefined
    ? undefined
    : Math.min(Limits.delayMsMax, Math.max(0, Math.ceil(dueAt - clock.currentTimeMillisUnsafe())))

export interface StepsHost {
  readonly client: ClientShape
  readonly task: number
  readonly fence: number
  /** Ends the attempt: the handler is interrupted. */
  readonly suspend: (suspension: Suspension) => void
  /** The lease is lost: the handler is interrupted, and nothing is reported. */
  readonly lost: () => void
}

interface Wait {
  readonly dueAt: number | undefined
  readonly clock: Clock.Clock
}

const began = "$began "

/**
 * When the first attempt began: kept by a worker with `overall`, which the next worker may be without. It names the task: one
 * that was put again has the entries of the old one, and all of its time.
 */
export const beganOf = (steps: Steps): string => `${began}${steps.task}`

/** Recorded by the handler: no signal, and nothing of the worker's own. */
export const isStep = (entry: string): boolean => entry[0] !== "!" && !entry.startsWith(began)

export class Steps {
  readonly entries: Map<string, Uint8Array>
  /** Names of steps that this attempt has come to. */
  readonly reached = new Set<string>()
  /** An older version of the handler was accepted: steps that are recorded need not be reached. */
  accepted = false
  /** A step was refused: the lease is someone else's. */
  lost = false
  readonly #host: StepsHost
  readonly #waits = new Set<Wait>()
  #active = 0
  #looking = false

  constructor(host: StepsHost, entries: ReadonlyArray<Entry> | undefined) {
    this.#host = host
    this.entries = new Map(entries)
  }

  get task(): number {
    return this.#host.task
  }

  /** The first step that is recorded and that the handler has not come to, undefined if there is none. */
  get unreached(): string | undefined {
    if (this.accepted) return undefined
    for (const name of this.entries.keys()) if (isStep(name) && !this.reached.has(name)) return name
    return undefined
  }

  /** Runs what must not be cut by a suspension. */
  active<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    // Uninterruptible between the two: a count that is not taken back keeps the handler from ever being suspended.
    return Effect.uninterruptibleMask((restore) => {
      this.#active++
      return Effect.ensuring(
        restore(effect),
        Effect.sync(() => {
          this.#active--
          this.#look()
        })
      )
    })
  }

  /** Records an entry, durably; returns when it is. A full disk is waited for. */
  record(name: string, value: Uint8Array): Effect.Effect<void, RequestError | StepInvalid> {
    const { client, fence, task } = this.#host
    const known = this.entries.get(name)
    if (known !== undefined) return Effect.void
    const recorded = client.ask((request) => ({ type: C.step, request, items: [{ task, fence, name, value }] }))
    return recorded.pipe(
      Effect.catchTag("Refusal", (refusal) => Effect.fail(requestErrorOf(refusal))),
      Effect.flatMap((answer): Effect.Effect<void, RequestError | StepInvalid> => {
        if (answer.type === M.done) {
          this.entries.set(name, value)
          return Effect.void
        }
        if (answer.type !== M.items) return Effect.fail(unexpected(answer))
        if (answer.codes[0] === Code.limitExceeded) {
          const most = `${Limits.entriesPerTaskMax} steps and signals, ${Limits.entryBytesPerTaskMax} bytes together`
          return Effect.fail(new StepInvalid({ step: name, reason: `a task has at most ${most}` }))
        }
        this.lost = true
        this.#host.lost()
        return Effect.interrupt
      }),
      Effect.catchTag("StoreFull", () => Effect.andThen(Effect.sleep("1 second"), this.record(name, value))),
      // Nothing was asked. The session may come back with its lease; if it does not, the handler is interrupted.
      Effect.catchTag("ConnectFailed", () => Effect.andThen(Effect.sleep("200 millis"), this.record(name, value)))
    )
  }

  /** Waits until the attempt is suspended: never returns. Where it cannot be interrupted it would hang, and dies instead. */
  wait(dueAt: number | undefined): Effect.Effect<never> {
    return Effect.withFiber((fiber): Effect.Effect<never> => {
      if ((fiber as { readonly interruptible?: boolean }).interruptible === false) {
        return Effect.die(new Error("a handler cannot wait in Step.sleep or Step.waitFor where it is uninterruptible"))
      }
      return Effect.clockWith((clock) =>
        Effect.callback<never>(() => {
          const wait: Wait = { dueAt, clock }
          this.#waits.add(wait)
          this.#look()
          return Effect.sync(() => this.#waits.delete(wait))
        })
      )
    })
  }

  /** Not at once: whoever goes on now may begin another step. */
  #look(): void {
    if (this.#looking || this.#waits.size === 0) return
    this.#looking = true
    soon(() => {
      this.#looking = false
      if (this.#active > 0 || this.#waits.size === 0) return
      const [first] = this.#waits
      let dueAt: number | undefined
      for (const wait of this.#waits) {
        if (wait.dueAt !== undefined) dueAt = Math.min(dueAt ?? wait.dueAt, wait.dueAt)
      }
      this.#host.suspend({ dueAt, clock: first!.clock, seen: this.entries.size })
    })
  }
}

/** Provided to every handler by its worker. */
export class CurrentTask extends Context.Service<CurrentTask, { readonly steps: Steps }>()(
  "millrace/worker/CurrentTask"
) {}
