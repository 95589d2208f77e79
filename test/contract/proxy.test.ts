/**
 * Every operation of a client, over real sockets, under everything that the proxy does to them: each has one effect and is
 * answered, or ends with a typed error that says what is known. Heartbeats are the real ones: a connection that has fallen
 * silent is found by them.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schedule from "effect/Schedule"
import { Client, Errors, Manager } from "millrace"
import { SeededRandom } from "../../src/testing/Random.ts"
import { type Fault, faults } from "../proxy/faults.ts"
import { ending, type Operation, operations, roomOf } from "../proxy/operations.ts"
import { Proxy } from "../proxy/Proxy.ts"
import { auth, connected, listening } from "./layers.ts"

const rounds = Number(process.env["MILLRACE_PROXY_ROUNDS"] ?? 1)
const firstSeed = Number(process.env["MILLRACE_SEED"] ?? 1)

interface Line {
  fired: number
  answered: number
  definite: number
  indefinite: number
  reconnected: number
}

/** Operations that were not asked again by themselves, with what they were told. */
const endedInError = new Set<string>()

/** Every lost connection is a line, and there are hundreds. */
const quiet = Logger.layer([])

const portOf = Effect.map(Manager.Listening, ({ address }) => (address._tag === "Tcp" ? address.port : 0))

const proxyTo = (port: number, random: SeededRandom) =>
  Effect.acquireRelease(
    Effect.promise(() => new Proxy(port, random).listen()),
    (proxy) => Effect.sync(() => proxy.close())
  )

const clientOf = (port: number) => Layer.build(Layer.fresh(Client.layerTcp({ port, auth, reconnectCap: "50 millis" })))

const oneCase = (operation: Operation, fault: Fault, seed: number, line: Line) =>
  Effect.gen(function* () {
    const random = new SeededRandom(seed)
    const room = roomOf(`${operation.name}-${fault.name}-${seed}`.replaceAll(/[^a-zA-Z0-9]+/g, "-"))
    const proxy = yield* proxyTo(yield* portOf, random)
    const context = yield* clientOf(proxy.port)
    const neighbour = yield* Client.Client
    const act = yield* Effect.provide(operation.prepare(room), context)
    proxy.plant(fault.direction, fault.toxic(random))
    const failure = yield* Effect.provide(ending(act), context).pipe(Effect.timeout("60 seconds"))
    const fired = proxy.fired.get(fault.name) ?? 0
    line.fired += fired
    line.reconnected += proxy.accepted - 1
    proxy.heal()
    // The last word of some operations has no answer: it is on its way.
    let times = 0
    for (let i = 0; i < 100 && times === 0; i++) {
      if (i > 0) yield* Effect.sleep("10 millis")
      times = yield* Effect.provideService(operation.times(room), Client.Client, neighbour)
      if (failure !== undefined && i > 10) break
    }
    const outcome = failure === undefined ? "answered" : (Errors.facts[failure._tag as "Full"]?.outcome ?? "unknown")
    const allowed: Readonly<Record<string, ReadonlyArray<number>>> = {
      answered: [1],
      definite: [0],
      indefinite: [0, 1]
    }
    if (allowed[outcome]?.includes(times) !== true) {
      throw new Error(`it was done ${times} times and ended ${outcome} (${String(failure)})`)
    }
    if (fired === 0) throw new Error("the fault did not fire")
    line[outcome as "answered"]++
    if (failure !== undefined) endedInError.add(`${operation.name} (${failure._tag}, ${outcome})`)
  }).pipe(
    Effect.scoped,
    Effect.catchCause((cause) => Effect.succeed(`${operation.name} under ${fault.name}, seed ${seed}: ${cause}`)),
    Effect.map((failed) => (typeof failed === "string" ? failed : undefined))
  )

describe("every operation of a client", () => {
  it.live(
    "has one effect, and an answer or a typed error, under every fault of a real network",
    () =>
      Effect.gen(function* () {
        const lines = new Map(
          faults.map(({ name }): [string, Line] => [
            name,
            { fired: 0, answered: 0, definite: 0, indefinite: 0, reconnected: 0 }
          ])
        )
        const failed: Array<string> = []
        for (let round = 0; round < rounds; round++) {
          const cases = faults.flatMap((fault) =>
            operations.map((operation, i) => ({ fault, operation, seed: (firstSeed + round) * 1_000 + i }))
          )
          // Those that only a heartbeat finds wait for it together.
          const isSilent = ({ fault }: (typeof cases)[number]): boolean => /block|half-open/.test(fault.name)
          const run = (some: typeof cases, concurrency: number) =>
            Effect.forEach(
              some,
              ({ fault, operation, seed }) =>
                Effect.map(oneCase(operation, fault, seed, lines.get(fault.name)!), (text) => {
                  if (text !== undefined) failed.push(text)
                }),
              { concurrency, discard: true }
            )
          yield* Effect.all(
            [
              run(cases.filter(isSilent), 200),
              run(
                cases.filter((each) => !isSilent(each)),
                16
              )
            ],
            { concurrency: 2 }
          )
        }
        console.log(`${tableOf(lines)}\ntyped errors: ${[...endedInError].join(", ")}`)
        assert.deepStrictEqual(failed, [])
        for (const [name, { fired }] of lines) assert.isAbove(fired, 0, name)
      }).pipe(Effect.provide(Layer.fresh(connected.pipe(Layer.provideMerge(listening)))), Effect.provide(quiet)),
    120_000 * rounds
  )
})

describe("a login", () => {
  it.live("that is cut at any byte, in order or not, is begun anew until one is not", () =>
    Effect.gen(function* () {
      const proxy = yield* proxyTo(yield* portOf, new SeededRandom(firstSeed))
      const room = roomOf("logins")
      const client = yield* clientOf(proxy.port)
      let cuts = 0
      for (const direction of ["up", "down"] as const) {
        for (const kind of ["reset", "end"] as const) {
          for (let after = 0; after < 240; after += kind === "reset" ? 7 : 23) {
            proxy.plantNext(direction, { kind, after })
            proxy.cut()
            const before = proxy.accepted
            const { value } = room.counter
            yield* Effect.retry(Effect.provide(value, client), Schedule.spaced("5 millis"))
            // Later bytes may belong to what is said after the login.
            assert.isAbove(proxy.accepted, before)
            cuts++
          }
        }
      }
      const fired = [...proxy.fired.values()].reduce((sum, n) => sum + n, 0)
      console.log(`${cuts} logins, ${fired} cut: ${[...proxy.fired].map((each) => each.join(" ")).join(", ")}`)
      for (const name of ["reset up", "reset down", "end up", "end down"]) assert.isAbove(proxy.fired.get(name) ?? 0, 0)
      assert.strictEqual(yield* Effect.provide(room.counter.increment(), client), 1)
    }).pipe(Effect.scoped, Effect.provide(Layer.fresh(listening)), Effect.provide(quiet))
  )
})

const tableOf = (lines: ReadonlyMap<string, Line>): string => {
  const rows = [...lines].map(([name, { answered, definite, fired, indefinite, reconnected }]) =>
    [name.padEnd(14), ...[fired, answered, definite, indefinite, reconnected].map((n) => `${n}`.padStart(11))].join("")
  )
  return [`${"fault".padEnd(14)}      fired   answered   definite indefinite reconnected`, ...rows].join("\n")
}
