/** A crawl that was stopped goes on; one that ended starts anew; and nobody's data is taken for another's. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { afterAll, afterEach } from "vitest"
import { type Site, startSite } from "../../examples/sample-site/site.ts"
import {
  assertOneLine,
  childrenOf,
  isAlive,
  millrace,
  type Program,
  run,
  serve,
  stopAll,
  temporaryFolder,
  until
} from "./support.ts"

const sites = new Set<Site>()
const siteWith = async (delayMs: number): Promise<Site> => {
  const site = await startSite({ port: 0, delayMs })
  sites.add(site)
  return site
}

afterEach(async () => {
  await stopAll()
  for (const site of sites) await site.close()
  sites.clear()
})
afterAll(stopAll)

const lines = (out: string): ReadonlyArray<{ kind: string; url: string; status: string }> => {
  const file = join(out, "report.jsonl")
  if (!existsSync(file)) return []
  const text = readFileSync(file, "utf8").split("\n").slice(0, -1)
  return text.map((line) => JSON.parse(line))
}

const imageHits = ({ hits, manifest }: Site): ReadonlyMap<string, number> =>
  new Map(manifest.images.map(({ path }) => [path, hits.get(path) ?? 0]))

const sum = (numbers: Iterable<number>): number => [...numbers].reduce((all, one) => all + one, 0)

const midCrawl = async (crawl: Program, out: string): Promise<ReadonlyArray<number>> => {
  await until("60 images are reported", () => lines(out).filter(({ kind }) => kind === "image").length > 60, 30_000)
  return childrenOf(crawl.pid)
}

/** Handlers of both workers: what may be under way at a moment. */
const inFlightMax = 2 * 8

describe("millrace crawl, started again after it was stopped", () => {
  for (const signal of ["SIGKILL", "SIGINT"] as const) {
    it(`by ${signal}: it goes on, downloads nothing twice but what was under way, and the report is whole`, async () => {
      const site = await siteWith(40)
      const out = temporaryFolder()
      const command = ["crawl", site.url, "--out", out, "--json", "--lease", "2"]
      const first = millrace(command)
      const workers = await midCrawl(first, out)
      first.kill(signal)
      const { code, stderr } = await first.ended(15_000)
      if (signal === "SIGINT") {
        assert.strictEqual(code, 130, stderr)
        assert.include(stderr, "the same command goes on with the rest")
      }
      await until("the workers have ended", () => !workers.some(isAlive), 10_000)
      assert.isTrue(existsSync(join(out, ".millrace/millrace.db")))
      const reported = lines(out).length
      assert.isBelow(reported, 342)
      const before = imageHits(site)

      const ended = await run(command)
      assert.strictEqual(ended.code, 0, ended.stderr)
      assert.match(ended.stderr, /going on with the unfinished crawl of http/)
      const { brokenPages, bytes, downloaded, failed, pages } = JSON.parse(ended.stdout)
      assert.deepStrictEqual([pages, brokenPages, downloaded, failed], [40, 1, 300, 1])
      assert.strictEqual(bytes, sum(site.manifest.images.map((image) => image.bytes)))
      const urls = lines(out).map(({ kind, url }) => `${kind} ${url}`)
      assert.lengthOf(urls, 342)
      assert.lengthOf([...new Set(urls)], 342)
      // Whatever was asked for before and again was under way, or is one of those that need several requests.
      let again = 0
      for (const [path, hits] of imageHits(site)) if (before.get(path)! > 0 && hits > before.get(path)!) again++
      assert.isAtMost(again, inFlightMax + 1)
      assert.isAbove(sum(before.values()), 60)
      // It has ended: nothing is kept, and the same command is a new crawl.
      assert.isFalse(existsSync(join(out, ".millrace")))
    }, 90_000)
  }

  it("after it had ended: it starts anew", async () => {
    const site = await siteWith(0)
    const out = temporaryFolder()
    const command = ["crawl", site.url, "--out", out, "--json"]
    for (const times of [1, 2]) {
      const ended = await run(command)
      assert.strictEqual(ended.code, 0, ended.stderr)
      assert.strictEqual(JSON.parse(ended.stdout).downloaded, 300)
      assert.strictEqual(site.hits.get("/"), times)
      assert.lengthOf(lines(out), 342)
    }
  }, 60_000)

  it("refuses the unfinished crawl of another site, and drops it when told to", async () => {
    const site = await siteWith(40)
    const [out, data] = [temporaryFolder(), join(temporaryFolder(), "data")]
    const first = millrace(["crawl", site.url, "--out", out, "--data", data, "--json"])
    const workers = await midCrawl(first, out)
    const page = new URL(site.manifest.pages[1]!, site.url).href
    const other = ["crawl", page, "--out", out, "--data", data, "--json", "--depth", "0"]
    // While it runs not even --restart takes it away.
    assertOneLine(await run([...other, "--restart"]), /is in use by process \d+/)
    first.kill("SIGKILL")
    await first.ended(10_000)
    await until("the workers have ended", () => !workers.some(isAlive), 10_000)
    assertOneLine(await run(other), /--data is .*unfinished crawl of http.*--restart/)
    assert.isAbove(lines(out).length, 60)
    const ended = await run([...other, "--restart"])
    assert.strictEqual(ended.code, 0, ended.stderr)
    assert.strictEqual(JSON.parse(ended.stdout).pages, 1)
    assert.isFalse(existsSync(data))
  }, 90_000)

  it("--memory keeps nothing; a folder of a manager is not taken for a crawl's", async () => {
    const site = await siteWith(0)
    const out = temporaryFolder()
    const command = ["crawl", site.url, "--out", out, "--json", "--depth", "0"]
    assert.strictEqual((await run([...command, "--memory"])).code, 0)
    assert.notInclude(readdirSync(out), ".millrace")
    assertOneLine(await run([...command, "--memory", "--data", "x"]), /--memory is given beside --data/)
    const data = join(temporaryFolder(), "data")
    const { program } = await serve(["--data", data])
    program.kill("SIGTERM")
    await program.ended()
    assertOneLine(await run([...command, "--data", data]), /--data is .*the data of a manager, not of a crawl/)
    const unreadable = temporaryFolder()
    writeFileSync(join(unreadable, "crawl.json"), "{")
    assertOneLine(await run([...command, "--data", unreadable]), /its crawl\.json is not one of this program/)
  }, 60_000)
})
