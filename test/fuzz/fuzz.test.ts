/**
 * The smoke of the fuzzing (reliability reference, section 10, rows 8 and 9): kept inputs, every target, a live manager,
 * and the proof that bugs would be seen: a canary that must fail, and a planted bug for each target.
 *
 * Seeds are fixed here, so that a commit fails for what it changed; `npm run fuzz` draws fresh ones.
 */
import { assert, describe, it } from "@effect/vitest"
import { runClients } from "./client.ts"
import { runLive } from "./live.ts"
import { canary, livePlants, plants } from "./planted.ts"
import { replay, strays, targets } from "./registry.ts"
import { runTarget } from "./target.ts"

const seed = 1
const liveSequences = 1_000
const tcpSequences = 60
const clients = 400
/** A planted bug of the live manager is found within these. */
const plantSequences = 200

describe("fuzz", () => {
  it("keeps the inputs that once failed, each for a target that is there, and all of them pass", () => {
    assert.deepStrictEqual(strays, [])
    const replayed = targets.map((target) => replay(target))
    assert.deepStrictEqual(
      replayed.flatMap(({ failure }) => failure ?? []),
      []
    )
    console.log(`fuzz: ${replayed.reduce((sum, { inputs }) => sum + inputs, 0)} kept inputs pass`)
  })

  it.each(targets)("$name", (target) => {
    const { failure, frames, inputs, slowestMs } = runTarget(target, seed, target.smoke)
    assert.isUndefined(failure, JSON.stringify(failure, undefined, 2))
    console.log(`fuzz: ${target.name}: ${inputs} inputs, ${frames} frames, the slowest took ${slowestMs.toFixed(1)} ms`)
  })

  it("reports the canary, which allocates what a length announces", () => {
    assert.match(runTarget(canary, seed, canary.smoke).failure?.why ?? "it passed", /allocates/)
  })

  it.each(plants)("finds a planted bug: $bug", ({ bug, found, target }) => {
    const { failure, inputs } = runTarget(target, seed, target.smoke)
    assert.match(failure?.why ?? "not found", found)
    console.log(`fuzz: found after ${inputs} inputs: ${bug}`)
  })

  it("has a planted bug for every target", () => {
    assert.sameMembers(
      plants.map(({ target }) => target.name),
      targets.map(({ name }) => name)
    )
  })
})

describe("fuzz of a live manager", () => {
  it.each([
    { how: "in this process", sequences: liveSequences, tcp: false },
    { how: "over sockets, with a login", sequences: tcpSequences, tcp: true }
  ])("$how: the neighbour works, nothing is left behind (M9)", async ({ how, sequences, tcp }) => {
    const { failure, ...counts } = await runLive({ seed, sequences, tcp })
    assert.isUndefined(failure, failure)
    console.log(`fuzz: live ${how}: ${JSON.stringify(counts)}`)
    assert.strictEqual(counts.sequences, sequences)
    for (const [count, value] of Object.entries(counts)) assert.isAbove(value, 0, count)
  })

  it.each(livePlants)("finds a planted bug: $bug", async ({ found, sabotage }) => {
    const { failure } = await runLive({ seed, sequences: plantSequences, sabotage })
    assert.match(failure ?? "not found", found)
  })
})

describe("fuzz of a client", () => {
  it("asks an impostor for no session, and ends with typed errors whatever it is answered (M5)", async () => {
    const { ends, failure, ...counts } = await runClients({ seed, inputs: clients })
    assert.isUndefined(failure, failure)
    console.log(`fuzz: clients: ${JSON.stringify(counts)}, ended: ${JSON.stringify(ends)}`)
    assert.isAbove(counts.opened, clients / 10)
    const met = [
      "login: ProtocolViolated",
      "login: ConnectFailed",
      "login: AuthenticationFailed",
      "done",
      "ProtocolViolated"
    ]
    assert.includeMembers(Object.keys(ends), met)
  })
})
