/** Guessing a key over the network: slow, however many connections do it, and no nuisance to those who know theirs. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import { Client, Limits, Manager } from "millrace"
import * as Scram from "../../src/auth/Scram.ts"
import { Code } from "../../src/model/Refusal.ts"
import { randomBytes, sha256 } from "../../src/platform/Crypto.ts"
import { ClientType as C, ManagerType as M } from "../../src/wire/Vocabulary.ts"
import { auth, listening } from "./layers.ts"
import { hello, Raw } from "./raw.ts"

const wrongKey = "wrong-key-wrong-key-wrong-key-wrong-key-0123"

/** How a guess ended. */
const guess = async (port: number, user: string): Promise<"checked" | "turned away"> => {
  const raw = new Raw(port)
  const over = raw.until(() => raw.closed, "the end of the connection")
  await Promise.race([raw.login({ user, key: wrongKey }).catch(() => over), over])
  await over
  const closing = raw.heard.find((message) => message.type === M.closing)
  const code = closing?.type === M.closing ? closing.code : undefined
  if (code === Code.authentication) return "checked"
  assert.strictEqual(code, Code.tooManyConnections)
  return "turned away"
}

const login = (port: number) =>
  Effect.scoped(Effect.asVoid(Effect.provide(Client.Client, Client.layerTcp({ port, auth }))))

/** A thousand guesses under `user`, most of them at once; the one who knows the key logs in before, between and after. */
const attack = (user: string) =>
  Effect.gen(function* () {
    const { address } = yield* Manager.Listening
    const port = address._tag === "Tcp" ? address.port : 0
    yield* login(port)
    const ends: Array<string> = []
    for (const count of [1, 1, 1, 500, 500]) {
      const guesses = Array.from({ length: count }, () => guess(port, user))
      ends.push(...(yield* Effect.promise(() => Promise.all(guesses))))
      if (user !== "default") yield* login(port)
    }
    return { user, guesses: ends.length, checked: ends.filter((end) => end === "checked").length }
  }).pipe(Effect.provide(Layer.fresh(listening)))

describe("wrong logins", () => {
  it.live("are checked one by one and ever more slowly, for a name that is known as for one that nobody has (M2)", () =>
    Effect.gen(function* () {
      const counts = yield* Effect.all([attack("default"), attack("nobody")], { concurrency: 2 })
      console.log(counts)
      for (const { checked, guesses } of counts) {
        assert.strictEqual(guesses, 1_003)
        assert.isAtLeast(checked, 3)
        assert.isBelow(checked, 40)
      }
    })
  )

  it.live("are not checked all at once either when every challenge is collected before the first proof (M2)", () =>
    Effect.gen(function* () {
      const { address } = yield* Manager.Listening
      const port = address._tag === "Tcp" ? address.port : 0
      const codes = yield* Effect.promise(async () => {
        const links = await Promise.all(
          Array.from({ length: 100 }, async () => {
            const raw = new Raw(port)
            const mine = raw.say(hello)
            await raw.next(M.hello)
            const helloHash = sha256(Buffer.concat([mine, raw.bodies[0]!]))
            const first = Scram.clientFirst({ name: "default", nonce: randomBytes(18), helloHash })
            raw.say({ type: C.authFirst, mechanism: Scram.mechanism, message: first.message })
            const step = Scram.clientChallenge(first.state, (await raw.next(M.authChallenge)).message)
            assert(step._tag === "Derive")
            return { raw, final: Scram.clientFinal(step.state, new Uint8Array(32)) }
          })
        )
        for (const { final, raw } of links) raw.say({ type: C.authFinal, message: final.message })
        return Promise.all(links.map(async ({ raw }) => (await raw.next(M.closing)).code))
      })
      assert.strictEqual(codes.length, 100)
      assert.strictEqual(codes.filter((code) => code === Code.authentication).length, Limits.loginFailuresFree)
      assert.strictEqual(codes.filter((code) => code === Code.tooManyConnections).length, 97)
      // Who knows the key gets in, in its turn.
      yield* Effect.retry(login(port), { times: 20, schedule: Schedule.spaced("1 second") })
    }).pipe(Effect.provide(Layer.fresh(listening)))
  )
})
