/** `millrace work --module`: a worker of one's own against a real manager, its stops, and the manager's. */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { assert, describe, it } from "@effect/vitest"
import { afterAll } from "vitest"
import { Jobs } from "./fixtures/jobs.ts"
import { Mixed } from "./fixtures/quarantine.ts"
import {
  asClient,
  assertOneLine,
  fixture,
  freePort,
  millrace,
  run,
  serve,
  stopAll,
  temporaryFolder,
  until
} from "./support.ts"

const startWorker = (port: number) => millrace(["work", "--module", fixture("worker.ts"), "--port", String(port)])
const put = (port: number, name: string, ms: number) => asClient(port, Jobs.put({ name, ms }, { id: name }))
const stats = (port: number) => asClient(port, Jobs.stats)
const resultOf = (port: number, taskId: string) => asClient(port, Jobs.outcome(taskId))
const times = (text: string, pattern: RegExp): number => text.match(new RegExp(pattern, "g"))?.length ?? 0

afterAll(stopAll)

describe.concurrent("a worker that is asked to stop", () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    it(`on ${signal} ends what runs, commits its result, and takes nothing new`, async () => {
      const { port } = await serve()
      const worker = startWorker(port)
      const receipts = []
      for (const name of ["a", "b", "c"]) receipts.push(await put(port, name, 2_500))
      await worker.said(/begin b/)
      worker.kill(signal)
      const ended = await worker.ended(10_000)
      assert.strictEqual(ended.code, 0, ended.stderr)
      assert.match(ended.stderr, /end a/)
      assert.match(ended.stderr, /end b/)
      assert.notMatch(ended.stderr, /begin c/)
      const { done, leased, ready } = await stats(port)
      assert.deepStrictEqual({ done, leased, ready }, { done: 2, leased: 0, ready: 1 })
      const outcome = await resultOf(port, receipts[0]!.taskId)
      assert.strictEqual(outcome._tag, "Success")
      assert.deepStrictEqual(outcome._tag === "Success" && outcome.result, { name: "a", attempt: 1 })
    })
  }

  it("interrupts what outlasts the grace period; its task returns at once, uncounted", async () => {
    const { port } = await serve()
    const worker = startWorker(port)
    await put(port, "long", 60_000)
    await worker.said(/begin long 1/)
    const stoppedAt = performance.now()
    worker.kill("SIGTERM")
    const ended = await worker.ended(12_000)
    const took = performance.now() - stoppedAt
    assert.strictEqual(ended.code, 0, ended.stderr)
    assert.notMatch(ended.stderr, /end long/)
    assert.isAbove(took, 3_900)
    const [lease] = await asClient(port, Jobs.lease({ timeout: 0 }))
    assert.strictEqual(lease?.payload.name, "long")
    assert.strictEqual(lease?.attempt, 1)
  })

  it("hurries when it is asked twice: its task returns at once, uncounted", async () => {
    const { port } = await serve()
    const worker = millrace(["work", "--module", fixture("patientWorker.ts"), "--port", String(port)])
    await put(port, "long", 3_600_000)
    await worker.said(/begin long 1/)
    worker.kill("SIGTERM")
    await sleep(300)
    worker.kill("SIGTERM")
    const ended = await worker.ended(10_000)
    assert.strictEqual(ended.code, 0, ended.stderr)
    const { leased, ready } = await stats(port)
    assert.deepStrictEqual({ leased, ready }, { leased: 0, ready: 1 })
    const [lease] = await asClient(port, Jobs.lease({ timeout: 0 }))
    assert.strictEqual(lease?.attempt, 1)
  })

  it("ends without another word when it is asked a third time", async () => {
    const { port } = await serve()
    const worker = millrace(["work", "--module", fixture("patientWorker.ts"), "--port", String(port)])
    await put(port, "stuck", 3_600_000)
    await worker.said(/begin stuck 1/)
    for (let i = 0; i < 3; i++) {
      worker.kill("SIGINT")
      await sleep(200)
    }
    assert.strictEqual((await worker.ended(10_000)).code, 130)
  })

  it("with nothing to do it ends at once", async () => {
    const { port } = await serve()
    const worker = startWorker(port)
    await put(port, "only", 0)
    await worker.said(/end only/)
    worker.kill("SIGTERM")
    // Well below the grace period.
    assert.strictEqual((await worker.ended(3_000)).code, 0)
  })
})

describe.concurrent("a worker and a manager that is not there", () => {
  it("waits for a manager that has not started yet, says so once, and works when it comes", async () => {
    const port = await freePort()
    const worker = startWorker(port)
    await worker.said(/No manager answers at .* Trying again/)
    await new Promise((resolve) => setTimeout(resolve, 1_500))
    await serve(["--port", String(port)])
    await worker.said(/connected to the manager/)
    await worker.said(/working for the manager at/)
    await put(port, "first", 1)
    await worker.said(/end first/)
    assert.strictEqual(times(worker.stderr, /No manager answers/), 1)
    assert.notMatch(worker.stderr, /again\n/)
    worker.kill("SIGTERM")
    assert.strictEqual((await worker.ended(5_000)).code, 0)
  })

  it("stops while it waits for one", async () => {
    const worker = startWorker(await freePort())
    await worker.said(/Trying again/)
    worker.kill("SIGTERM")
    assert.strictEqual((await worker.ended(5_000)).code, 0)
  })

  it("outlives a manager that is killed, says so once, and works for the next one at the same port", async () => {
    const port = await freePort()
    const first = await serve(["--port", String(port)])
    const worker = startWorker(port)
    await put(port, "before", 1)
    await worker.said(/end before/)
    // Two jobs are under way in the old manager's memory: they die with it, and must not hold the worker's places.
    await put(port, "lost-1", 60_000)
    await put(port, "lost-2", 60_000)
    await worker.said(/begin lost-2/)
    first.program.kill("SIGKILL")
    await first.program.ended(5_000)
    await worker.said(/connection to .* was lost/)
    await new Promise((resolve) => setTimeout(resolve, 1_000))
    await serve(["--port", String(port)])
    await worker.said(/connected to the manager at .* again/)
    for (const name of ["after-1", "after-2", "after-3", "after-4"]) await put(port, name, 300)
    await worker.said(/end after-4/)
    assert.strictEqual(times(worker.stderr, /was lost/), 1, worker.stderr)
    assert.strictEqual(times(worker.stderr, /No manager answers/), 0, worker.stderr)
    assert.notMatch(worker.stderr, /end lost/)
    const { done, leased, ready } = await stats(port)
    assert.deepStrictEqual({ done, leased, ready }, { done: 4, leased: 0, ready: 0 })
    worker.kill("SIGTERM")
    assert.strictEqual((await worker.ended(5_000)).code, 0)
  })

  it("a worker killed with SIGKILL loses its lease, and another one does the task as its next attempt", async () => {
    const { port } = await serve()
    const first = startWorker(port)
    const { taskId } = await put(port, "twice", 60_000)
    await first.said(/begin twice 1/)
    // The word that it has begun travels behind it; a lease that is lost before that word is not counted.
    await new Promise((resolve) => setTimeout(resolve, 500))
    first.kill("SIGKILL")
    const second = startWorker(port)
    await second.said(/begin twice 2/)
    const outcome = await resultOf(port, taskId)
    assert.deepStrictEqual(outcome._tag === "Success" && outcome.result, { name: "twice", attempt: 2 })
    assert.strictEqual((await stats(port)).done, 1)
    second.kill("SIGTERM")
    assert.strictEqual((await second.ended(5_000)).code, 0)
  })
})

describe.concurrent("a module that is no worker ends with code 1 and one line", () => {
  const work = (module: string) => run(["work", "--module", module])

  it("it is not there", async () => {
    assertOneLine(
      await work(join(temporaryFolder(), "none.ts")),
      /--module is .*none\.ts: it does not load .*Cannot find/
    )
  })

  it("it throws", async () => {
    assertOneLine(await work(fixture("throws.ts")), /throws\.ts: it does not load .*fails when it loads/)
  })

  it("it exports no layer", async () => {
    assertOneLine(await work(fixture("noLayer.ts")), /noLayer\.ts: its default export must be a layer/)
  })
})

it("a payload that does not decode goes to the dead letters and does not end the worker (M21)", async () => {
  const { port } = await serve()
  const worker = startWorker(port)
  await put(port, "good", 1)
  // A payload that no handler can read: it goes to the dead letters, and the next one is done.
  await run(["put", "jobs", '{"name":1}', "--port", String(port)])
  const { taskId } = await put(port, "next", 1)
  await worker.said(/end next/)
  assert.strictEqual((await resultOf(port, taskId))._tag, "Success")
  const { dead, done } = await stats(port)
  assert.deepStrictEqual({ dead, done }, { dead: 1, done: 2 })
  worker.kill("SIGTERM")
  assert.strictEqual((await worker.ended(5_000)).code, 0)
})

it("a task that kills three workers is dead with what is known of them; what they had taken ahead is not blamed", async () => {
  const { port } = await serve()
  const go = join(temporaryFolder(), "go")
  const bad = await asClient(port, Mixed.put({ go }))
  const good = await asClient(port, Mixed.putAll(Array.from({ length: 5 }, () => ({ go: null }))))
  const worker = () => millrace(["work", "--module", fixture("quarantine.ts"), "--port", String(port)])
  for (const attempt of [1, 2, 3]) {
    const program = worker()
    await program.said(new RegExp(`begin poison ${attempt}`))
    await until("the handler is known to run, and the others are taken ahead", async () => {
      const explained = await asClient(port, Mixed.explain(bad.taskId))
      const { leased } = await asClient(port, Mixed.stats)
      return explained._tag === "Leased" && explained.started && leased === 6
    })
    writeFileSync(`${go}.${attempt}`, "")
    assert.strictEqual((await program.ended()).signal, "SIGKILL")
  }
  const last = worker()
  const outcome = await asClient(port, Mixed.outcome(bad.taskId))
  assert.strictEqual(outcome._tag, "Dead")
  const reasons = outcome._tag === "Dead" ? outcome.reasons : []
  assert.strictEqual(
    reasons.filter((reason) => /the worker of session \d+ was lost/.test(reason)).length,
    3,
    reasons.join()
  )
  assert.match(reasons.at(-1)!, /lost 3 times while its handler ran/)
  for (const { taskId } of good) {
    const done = await asClient(port, Mixed.outcome(taskId))
    // Leased three times and more, and begun once.
    assert.deepStrictEqual([done._tag, done.attempts], ["Success", 1])
  }
  last.kill("SIGTERM")
  assert.strictEqual((await last.ended()).code, 0)
}, 60_000)
