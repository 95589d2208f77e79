/**
 * Reads the outcomes of one queue in order, over reconnects: a buffer between the link's pushes and a pulling stream.
 *
 * The manager sends as long as the reader has credit, and credit comes back as items are pulled: a slow reader holds at
 * most `window` items. After a lost connection the reader goes on at its cursor; if the manager has started a new life
 * meanwhile, its log is another one, and the reader fails.
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { ConnectionLost, OutcomesGap, type RequestError } from "../Errors.ts"
import type { Outcome } from "../wire/Vocabulary.ts"
import { ClientType as C, ManagerType as M } from "../wire/Vocabulary.ts"
import { type ClientShape, type OpenableQueue, requestErrorOf, unexpected } from "./Client.ts"
import type { Resident } from "./Link.ts"

const window = 8_192

export type ReadError = RequestError | OutcomesGap

export class OutcomeReader {
  readonly #client: ClientShape
  readonly #queue: OpenableQueue
  #cursor: number
  #stream = -1
  #buffer: Array<Outcome> = []
  #consumed = 0
  #failure: ReadError | undefined = undefined
  #waiting: (() => void) | undefined = undefined
  #closed = false

  constructor(client: ClientShape, queue: OpenableQueue, cursor: number) {
    this.#client = client
    this.#queue = queue
    this.#cursor = cursor
  }

  /** Of the next outcome that `next` gives. */
  get cursor(): number {
    return this.#cursor
  }

  readonly start: Effect.Effect<void, ReadError, Scope.Scope> = Effect.contextWith(
    (context: Context.Context<never>) => {
      const { link } = this.#client
      const run = Effect.runForkWith(context)
      const resident: Resident = {
        down: () => {
          this.#stream = -1
          this.#buffer = []
        },
        up: (resumed) => {
          if (!resumed) {
            return this.#fail(new ConnectionLost({ address: link.address, reason: "the manager has started anew" }))
          }
          // Lost again meanwhile: the next `up` follows on.
          const failed = (error: ReadError): void => {
            if (error._tag !== "ConnectionLost" && error._tag !== "ConnectFailed") this.#fail(error)
          }
          run(Effect.catch(this.#follow, (error) => Effect.sync(() => failed(error))))
        }
      }
      link.residents.add(resident)
      return Effect.andThen(
        Effect.addFinalizer(() =>
          Effect.sync(() => {
            this.#closed = true
            link.residents.delete(resident)
            if (this.#stream < 0 || !link.connected) return
            link.forget(this.#stream)
            link.ask({ type: C.unsubscribe, request: link.nextRequest, stream: this.#stream }, () => {})
          })
        ),
        // Lost while it was asked: the next `up` follows on.
        Effect.catchTag(this.#follow, "ConnectionLost", () => Effect.void)
      )
    }
  )

  /** All that is buffered, at least one. */
  readonly next: Effect.Effect<readonly [Outcome, ...Array<Outcome>], ReadError> = Effect.callback((resume) => {
    const take = (): void => {
      const items = this.#buffer
      const [first] = items
      if (first !== undefined) {
        this.#buffer = []
        this.#cursor += items.length
        this.#giveCredit(items.length)
        return resume(Effect.succeed(items as [Outcome, ...Array<Outcome>]))
      }
      if (this.#failure !== undefined) return resume(Effect.fail(this.#failure))
      this.#waiting = take
    }
    take()
    return Effect.sync(() => {
      this.#waiting = undefined
    })
  })

  readonly #follow: Effect.Effect<void, ReadError> = Effect.suspend(() => {
    const { link, open } = this.#client
    return Effect.flatMap(open(this.#queue), (opened) =>
      Effect.callback<void, ReadError>((resume) => {
        const request = link.nextRequest
        const credit = window
        const cursor = this.#cursor
        link.ask({ type: C.follow, request, queue: opened.id, cursor, credit }, (answer) => {
          if (answer instanceof Error) return resume(Effect.fail(answer))
          if (answer.type === M.refused)
            return resume(Effect.fail(requestErrorOf({ _tag: "Refusal", refused: answer })))
          if (answer.type !== M.streaming) return resume(Effect.fail(unexpected(answer)))
          if (this.#closed) {
            // The reader has gone while this was on its way.
            const unsubscribe = { type: C.unsubscribe, request: link.nextRequest, stream: answer.stream } as const
            link.ask(unsubscribe, () => {})
            return resume(Effect.void)
          }
          // Registered here and now: the first items may be in the same frame.
          this.#stream = answer.stream
          this.#consumed = 0
          link.receive(answer.stream, {
            outcomes: (items) => {
              for (const item of items) this.#buffer.push(item)
              this.#wake()
            },
            gap: (from, oldest) =>
              this.#fail(new OutcomesGap({ queue: this.#queue.definition.name, cursor: from, oldest }))
          })
          resume(Effect.void)
        })
      })
    )
  })

  #giveCredit(count: number): void {
    this.#consumed += count
    if (this.#consumed < window / 4 || this.#stream < 0) return
    this.#client.link.tell({ type: C.credit, stream: this.#stream, credit: this.#consumed })
    this.#consumed = 0
  }

  #fail(error: ReadError): void {
    this.#failure = error
    this.#wake()
  }

  #wake(): void {
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.()
  }
}
