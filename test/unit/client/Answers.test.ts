/** What a client makes of answers that its manager should not give. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { Limits, TaskQueue } from "millrace"
import { layerLink } from "../../../src/client/Client.ts"
import type { Connection, Handler } from "../../../src/platform/Network.ts"
import { Reader } from "../../../src/wire/Bytes.ts"
import * as ClientMessages from "../../../src/wire/ClientMessages.ts"
import { FrameReader, frame } from "../../../src/wire/Frames.ts"
import * as ManagerMessages from "../../../src/wire/ManagerMessages.ts"
import { ClientType as C, ManagerType as M } from "../../../src/wire/Vocabulary.ts"

type Answer = (message: ClientMessages.ClientMessage) => ManagerMessages.ManagerMessage | undefined

/** A manager in this process that opens sessions and queues, and answers the rest with `answer`. */
const scripted = (answer: Answer) => {
  const dial = (make: (connection: Connection) => Handler): Connection => {
    const reader = new FrameReader(65_536)
    const replyTo = (message: ClientMessages.ClientMessage): ManagerMessages.ManagerMessage | undefined => {
      if (message.type === C.hello) {
        const versions = { version: 1, versionMin: 1, versionMax: 1, capabilities: 0, frameBytesMax: 65_536 }
        return { type: M.hello, magic: "millrace", ...versions, mechanisms: [] }
      }
      if (message.type === C.sessionOpen) {
        const tokens = { session: new Uint8Array(16), instance: new Uint8Array(8), resumed: false, lost: [] }
        return { type: M.sessionOpened, ...tokens, heartbeatMs: 5_000, requestsInFlightMax: 256, durability: "memory" }
      }
      if (message.type !== C.open) return answer(message)
      const { request } = message
      return { type: M.opened, request, queue: 1, durability: "memory", policy: [], outcomesNext: 0 }
    }
    const connection: Connection = {
      peer: "scripted",
      write: (bytes) =>
        reader.push(bytes, (body) => {
          const r = new Reader(body)
          while (!r.done) {
            const reply = replyTo(ClientMessages.decode(r))
            if (reply !== undefined) {
              const framed = frame((w) => ManagerMessages.encode(w, reply))
              setImmediate(() => handler.onData(framed))
            }
          }
        }),
      pendingBytes: () => 0,
      pause: () => {},
      resume: () => {},
      close: () => handler.onClose("closed"),
      destroy: () => handler.onClose("closed")
    }
    const handler = make(connection)
    return connection
  }
  return layerLink({
    address: "a scripted manager",
    dial: (make) => Effect.sync(() => dial(make)),
    auth: undefined,
    waitForManager: false
  })
}

const queue = TaskQueue.make("q", { payload: Schema.Int })

describe("answers that a manager should not give", () => {
  it.live("more tasks put than were sent: the protocol is violated, and nothing is counted through", () =>
    Effect.gen(function* () {
      for (const count of [0, 2, 4, Number.MAX_SAFE_INTEGER]) {
        const layer = scripted((message) =>
          message.type === C.put ? { type: M.putDone, request: message.request, first: 1, count } : undefined
        )
        const error = yield* Effect.flip(queue.putAll([1, 2, 3])).pipe(Effect.provide(layer))
        assert.strictEqual(error._tag, "ProtocolViolated", error.message)
      }
    })
  )
})

describe("a manager that has not proven itself", () => {
  /** Says hello and a challenge, then `flood`; ends with whether the client has cut it. */
  const impostor = (flood: (say: (bytes: Uint8Array) => void) => void) =>
    Effect.gen(function* () {
      const cut = yield* Deferred.make<void>()
      const dial = (make: (connection: Connection) => Handler): Connection => {
        const reader = new FrameReader(65_536)
        const end = (): void => {
          Deferred.doneUnsafe(cut, Effect.void)
          handler.onClose("cut")
        }
        const say = (bytes: Uint8Array): void => void setImmediate(() => handler.onData(bytes))
        const connection: Connection = {
          peer: "impostor",
          write: (bytes) =>
            reader.push(bytes, (body) => {
              const message = ClientMessages.decode(new Reader(body))
              if (message.type === C.hello) {
                const versions = { version: 1, versionMin: 1, versionMax: 1, capabilities: 0, frameBytesMax: 65_536 }
                const hello = { type: M.hello, magic: "millrace", ...versions, mechanisms: ["SCRAM-SHA-256"] } as const
                say(frame((w) => ManagerMessages.encode(w, hello)))
              } else if (message.type === C.authFirst) {
                const nonce = /r=(.*)$/.exec(message.message)?.[1]
                const challenge = `r=${nonce}x,s=QEFCQ0RFRkdISUpLTE1OTw==,i=1000000`
                say(frame((w) => ManagerMessages.encode(w, { type: M.authChallenge, message: challenge })))
                flood(say)
              }
            }),
          pendingBytes: () => 0,
          pause: () => {},
          resume: () => {},
          close: end,
          destroy: end
        }
        const handler = make(connection)
        return connection
      }
      const link = layerLink({
        address: "an impostor",
        dial: (make) => Effect.sync(() => dial(make)),
        auth: { key: "a-key-that-the-impostor-has-not-0123456789ab" },
        waitForManager: false,
        saltPassword: () => Effect.never
      })
      const login = yield* Effect.forkChild(Effect.exit(Effect.scoped(Layer.build(Layer.fresh(link)))))
      const said = yield* Effect.timeoutOption(Deferred.await(cut), "3 seconds")
      yield* Fiber.interrupt(login)
      return Option.isSome(said)
    })

  const filler = (size: number): Uint8Array => {
    const bytes = new Uint8Array(4 + size)
    new DataView(bytes.buffer).setUint32(0, size)
    return bytes
  }

  it.live("is cut when it says more than a login has, or more at once, while the client works for it", () =>
    Effect.gen(function* () {
      const frames = (count: number) => (say: (bytes: Uint8Array) => void) => {
        for (let i = 0; i < count; i++) say(filler(1))
      }
      assert.isTrue(yield* impostor(frames(Limits.preAuthFramesMax - 1)))
      assert.isTrue(yield* impostor((say) => say(filler(Limits.unprovenFrameBytesMax + 1).subarray(0, 5))))
    })
  )

  it.live("is heard out within both", () =>
    Effect.gen(function* () {
      const most = [1, 1, 1, Limits.unprovenFrameBytesMax]
      assert.strictEqual(most.length, Limits.preAuthFramesMax - 2)
      for (const sizes of [[1, 1, Limits.unprovenFrameBytesMax - 1], most]) {
        assert.isFalse(
          yield* impostor((say) => {
            for (const size of sizes) say(filler(size))
          })
        )
      }
    })
  )
})
