/** Workflows whose programs are killed, and whose manager is: another one goes on where they were. */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as DurableDeferred from "effect/workflow/DurableDeferred"
import type * as WorkflowEngine from "effect/workflow/WorkflowEngine"
import { afterAll } from "vitest"
import { freePort, key, type Program, root, serve, start, stopAll, temporaryFolder, until } from "./support.ts"
import { Approval, activities, engineAt, Order, places, resultOf } from "./workflow/order.ts"

afterAll(stopAll)

const script = (name: string): string => join(root, "test/process/workflow", name)

/** As a program that has no bodies. */
const asCaller = <A, E>(port: number, effect: Effect.Effect<A, E, WorkflowEngine.WorkflowEngine>): Promise<A> =>
  Effect.runPromise(effect.pipe(Effect.provide(engineAt(port, key)), Effect.timeout("60 seconds")))

const approve = (id: string) =>
  Effect.flatMap(DurableDeferred.tokenFromPayload(Approval, { workflow: Order, payload: { id } }), (token) =>
    DurableDeferred.succeed(Approval, { token, value: "kim" })
  )

const waits = (executionId: string) =>
  Effect.map(Order.poll(executionId), (polled) => Option.isSome(polled) && polled.value._tag === "Suspended")

interface Bench {
  readonly port: number
  readonly folder: string
  readonly journal: string
  readonly manager: Program
  readonly worker: (plan?: string) => Promise<Program>
  /** How often an activity of an order ran, by its attempts. */
  readonly ran: (activity: string, id: string, attempt: number) => number
}

const bench = async (): Promise<Bench> => {
  const folder = temporaryFolder()
  const journal = join(folder, "journal")
  writeFileSync(journal, "")
  const port = await freePort()
  const { program } = await serve(["--port", `${port}`, "--data", join(folder, "data")])
  const worker = async (plan = ""): Promise<Program> => {
    const program = start(script("worker.ts"), [`${port}`, journal, plan])
    await program.said(/works/)
    return program
  }
  const ran: Bench["ran"] = (activity, id, attempt) =>
    readFileSync(journal, "utf8")
      .split("\n")
      .filter((line) => line === `run ${activity} ${id} ${attempt}`).length
  return { port, folder, journal, manager: program, worker, ran }
}

describe("workflows whose programs are killed", () => {
  it("go on in another program, be it in an activity, before it is recorded or after", async () => {
    const { journal, port, ran, worker } = await bench()
    const plans = activities.flatMap((activity) => places.map((place) => [place, activity] as const))
    for (const [place, activity] of plans) {
      const id = `${place}-${activity}`
      const doomed = await worker(`${place} ${activity} ${id}`)
      await asCaller(port, Effect.andThen(Order.execute({ id }, { discard: true }), approve(id)))
      assert.strictEqual((await doomed.ended(30_000)).signal, "SIGKILL", id)
      const heir = await worker()
      assert.strictEqual(await asCaller(port, Order.execute({ id })), resultOf(id))
      heir.kill("SIGTERM")
      await heir.ended()
      for (const other of activities) {
        const last = other === "charge" ? 2 : 1
        // `within` of an activity that is tried again is in its first attempt.
        const cut = place === "within" ? 1 : last
        for (let attempt = 1; attempt <= last; attempt++) {
          const again = other === activity && place !== "recorded" && attempt === cut
          assert.strictEqual(ran(other, id, attempt), again ? 2 : 1, `${id}: ${other}, attempt ${attempt}`)
        }
      }
    }
    assert.notMatch(readFileSync(journal, "utf8"), /refund/)
  }, 300_000)

  it("are not given up for programs that died before a wait, and after it", async () => {
    const { port, worker } = await bench()
    const id = "unlucky"
    await asCaller(port, Effect.andThen(Order.execute({ id }, { discard: true }), approve(id)))
    for (const activity of ["charge", "charge", "ship", "ship"]) {
      assert.strictEqual((await (await worker(`within ${activity} ${id}`)).ended(30_000)).signal, "SIGKILL")
    }
    await worker()
    assert.strictEqual(await asCaller(port, Order.execute({ id })), resultOf(id))
  }, 120_000)

  it("go on elsewhere when their program was stopped for too long, which then changes nothing", async () => {
    const { journal, port, ran, worker } = await bench()
    const id = "stopped"
    const stopped = await worker(`stop ship ${id}`)
    await asCaller(port, Effect.andThen(Order.execute({ id }, { discard: true }), approve(id)))
    await until("it is in its last activity", () => ran("ship", id, 1) === 1)
    const heir = await worker()
    assert.strictEqual(await asCaller(port, Order.execute({ id })), resultOf(id))
    heir.kill("SIGTERM")
    await heir.ended()
    stopped.kill("SIGCONT")
    // It works again, by itself.
    await asCaller(port, approve("next"))
    assert.strictEqual(await asCaller(port, Order.execute({ id: "next" })), resultOf("next"))
    assert.deepStrictEqual([ran("charge", id, 1), ran("charge", id, 2), ran("ship", id, 1)], [1, 1, 2])
    const lines = readFileSync(journal, "utf8").split("\n")
    assert.strictEqual(lines.filter((line) => line === `recorded ship ${id}`).length, 1)
    assert.notInclude(lines, `refund ${id}`)
  }, 120_000)

  it("wait while no program runs, over a killed manager too, and go on with the next program", async () => {
    const { folder, journal, manager, port, ran, worker } = await bench()
    const first = await worker()
    const id = "waits"
    const executionId = await asCaller(port, Order.execute({ id }, { discard: true }))
    await until("it comes to its approval", () => readFileSync(journal, "utf8").includes(`reached approval ${id}`))
    await asCaller(
      port,
      Effect.gen(function* () {
        while (!(yield* waits(executionId))) yield* Effect.sleep("20 millis")
      })
    )
    first.kill("SIGKILL")
    await first.ended()
    manager.kill("SIGKILL")
    await manager.ended()
    await serve(["--port", `${port}`, "--data", join(folder, "data")])
    assert.isTrue(await asCaller(port, waits(executionId)))
    await asCaller(port, approve(id))
    assert.strictEqual(ran("ship", id, 1), 0)
    await worker()
    assert.strictEqual(await asCaller(port, Order.execute({ id })), resultOf(id))
    assert.deepStrictEqual(
      [ran("charge", id, 1), ran("charge", id, 2), ran("pack", id, 1), ran("ship", id, 1)],
      [1, 1, 1, 1]
    )
  }, 120_000)

  it("have their callers wait over a restart of the manager", async () => {
    const { folder, manager, port, worker } = await bench()
    await worker()
    const id = "restart"
    const result = asCaller(port, Order.execute({ id }))
    const executionId = await asCaller(port, Order.executionId({ id }))
    await asCaller(
      port,
      Effect.gen(function* () {
        while (!(yield* waits(executionId))) yield* Effect.sleep("20 millis")
      })
    )
    manager.kill("SIGKILL")
    await manager.ended()
    await serve(["--port", `${port}`, "--data", join(folder, "data")])
    await asCaller(port, approve(id))
    assert.strictEqual(await result, resultOf(id))
  }, 120_000)
})

describe("programs written for Effect's engine", () => {
  it("do at a manager what they do in memory", async () => {
    const { port } = await bench()
    const outputs = await Promise.all(
      ["memory", `${port}`].map((where) => start(script("approvals.ts"), [where]).ended(60_000))
    )
    const [memory, ours] = outputs.map(({ stderr, stdout }) => {
      assert.strictEqual(stderr, "")
      return JSON.parse(stdout) as ReadonlyArray<string>
    })
    assert.deepStrictEqual(ours, memory)
    assert.deepStrictEqual(ours?.slice(0, 4), ["charge attempt 1", "charge attempt 2", "suspended", "ch_o1_5 true"])
    assert.isTrue(ours?.includes("refund ch_o2_5"))
  }, 120_000)

  it("end while their workflow waits, and are finished by others", async () => {
    const { port } = await bench()
    const first = await start(script("deploy.ts"), [`${port}`, "begin"]).ended(60_000)
    const begun = JSON.parse(first.stdout) as { readonly id: string; readonly log: ReadonlyArray<string> }
    assert.deepStrictEqual(begun.log, ["BUILD"])
    const second = await start(script("deploy.ts"), [`${port}`, "finish", begun.id]).ended(60_000)
    assert.deepStrictEqual(JSON.parse(second.stdout), { result: "img-abc", log: ["SHIP img-abc for kim"] })
  }, 120_000)
})
