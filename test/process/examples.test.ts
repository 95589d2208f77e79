import { spawn } from "node:child_process"
import { createServer } from "node:net"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"

const root = fileURLToPath(new URL("../..", import.meta.url))

const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address()
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0))
    })
  })

/** Runs an example to its end. */
const run = (file: string, port: number, until?: RegExp) => {
  const env = { ...process.env, MILLRACE_PORT: String(port) }
  const child = spawn(process.execPath, [join(root, "examples", file)], { cwd: root, env })
  let text = ""
  let said: () => void = () => {}
  const ready = new Promise<void>((resolve) => {
    said = resolve
  })
  const timer = setTimeout(() => child.kill("SIGKILL"), 40_000)
  const hear = (chunk: Buffer): void => {
    text += chunk.toString()
    if (until?.test(text)) said()
  }
  child.stdout.on("data", hear)
  child.stderr.on("data", hear)
  const ended = new Promise<{ code: number | null; text: string }>((resolve) =>
    child.once("exit", (code) => {
      clearTimeout(timer)
      said()
      resolve({ code, text })
    })
  )
  return { ready, ended }
}

describe("the examples run as their comments say", { timeout: 60_000 }, () => {
  it("master and worker: ten tasks, ten results, in two programs", async () => {
    const port = await freePort()
    const master = run("master.ts", port, /try get result/)
    await master.ready
    const worker = await run("worker.ts", port).ended
    const { code, text } = await master.ended
    assert.strictEqual(code, 0, text)
    assert.strictEqual(worker.code, 0, worker.text)
    for (let i = 0; i < 10; i++) {
      assert.include(text, `put task ImageUrl_${i} ...`)
      assert.include(worker.text, `run task download ImageUrl_${i}...`)
      assert.include(text, `result is ImageUrl_${i} ---> success`)
    }
  })

  it("embedded: a queue service behind a web server", async () => {
    const { code, text } = await run("embedded.ts", 0).ended
    assert.strictEqual(code, 0, text)
    assert.include(text, '200 {"result":"HELLO!"}')
    assert.include(text, "422")
  })

  it("crawler-layers: a crawl and a queue behind it, in one process", async () => {
    const { code, text } = await run("crawler-layers.ts", 0).ended
    assert.strictEqual(code, 0, text)
    assert.include(text, "40 pages, 300 images")
    assert.include(text, "300 weighed")
  })
})
