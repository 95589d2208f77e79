/** `millrace crawl` against the sample site: what it prints, what it stores, and what a kill at any place leaves behind. */
import { createHash } from "node:crypto"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { basename, join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { afterAll, afterEach } from "vitest"
import { type Site, startSite } from "../../examples/sample-site/site.ts"
import { childrenOf, isAlive, millrace, type Program, run, stopAll, temporaryFolder, until } from "./support.ts"

const sites = new Set<Site>()
const siteWith = async (delayMs = 0): Promise<Site> => {
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

interface Line {
  readonly kind: string
  readonly url: string
  readonly status: string
  readonly file?: string
  readonly sha256?: string
}

const reportIn = (out: string): ReadonlyArray<Line> =>
  readFileSync(join(out, "report.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Line)

/** What the crawl has brought: without the queues, which it keeps in a folder beside. */
const filesIn = (out: string): ReadonlyArray<string> =>
  readdirSync(out, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && basename(entry.parentPath) !== ".millrace")
    .map((entry) => join(entry.parentPath, entry.name))

const temporariesIn = (out: string): ReadonlyArray<string> =>
  filesIn(out).filter((file) => basename(file).startsWith(".tmp-"))

const pathOf = (url: string): string => new URL(url).pathname + new URL(url).search

/** Every URL of the site is reported once, and every image is stored with the content that the site has. */
const assertComplete = (out: string, { manifest }: Site): void => {
  const lines = reportIn(out)
  const byPath = new Map(lines.map((line) => [`${line.kind} ${pathOf(line.url)}`, line]))
  assert.strictEqual(lines.length, byPath.size, "each URL is reported once")
  assert.strictEqual(lines.length, manifest.pages.length + manifest.images.length + 2)
  for (const page of manifest.pages) assert.strictEqual(byPath.get(`page ${page}`)?.status, "done", page)
  for (const { path, sha256 } of manifest.images) {
    const line = byPath.get(`image ${path}`)
    assert.strictEqual(line?.sha256, sha256, path)
    assert.strictEqual(
      createHash("sha256")
        .update(readFileSync(join(out, line!.file!)))
        .digest("hex"),
      sha256,
      path
    )
  }
  assert.strictEqual(byPath.get(`image ${manifest.failing}`)?.status, "failed")
  assert.strictEqual(byPath.get(`page ${manifest.broken}`)?.status, "failed")
}

const pageHits = ({ hits, manifest }: Site): number =>
  [...manifest.pages, manifest.broken].reduce((sum, path) => sum + (hits.get(path) ?? 0), 0)

const startCrawl = (site: Site, out: string, ...args: ReadonlyArray<string>): Program =>
  millrace(["crawl", site.url, "--out", out, ...args])

const stored = (out: string): number => (existsSync(out) ? filesIn(out).length : 0)

/** The workers of a crawl, when both run and files arrive. */
const workersInMidCrawl = async (crawl: Program, out: string): Promise<ReadonlyArray<number>> => {
  await until("a few files are stored", () => stored(out) > 20, 20_000)
  const workers = childrenOf(crawl.pid)
  assert.lengthOf(workers, 2)
  return workers
}

describe("millrace crawl", () => {
  it("--json: one line on standard output, every image stored with its content, each URL reported once", async () => {
    const site = await siteWith()
    const out = temporaryFolder()
    const ended = await run(["crawl", site.url, "--out", out, "--json"])
    assert.strictEqual(ended.code, 0, ended.stderr)
    assert.match(ended.stdout, /^\{.*\}\n$/)
    const { brokenPages, bytes, downloaded, failed, images, leftOut, pages, seconds, workers } = JSON.parse(
      ended.stdout
    )
    assert.deepStrictEqual(
      { brokenPages, downloaded, failed, images, leftOut, pages, workers },
      { brokenPages: 1, downloaded: 300, failed: 1, images: 301, leftOut: 0, pages: 40, workers: 2 }
    )
    assert.strictEqual(
      bytes,
      site.manifest.images.reduce((sum, image) => sum + image.bytes, 0)
    )
    assert.isAbove(seconds, 0)
    assertComplete(out, site)
    assert.deepStrictEqual(temporariesIn(out), [])
    assert.notMatch(ended.stderr, /WARN|ERROR|\n\s+at /)
  })

  it("without --json: plain lines of progress and a table, no control characters", async () => {
    const site = await siteWith(5)
    const out = temporaryFolder()
    const ended = await run(["crawl", site.url, "--out", out, "--workers", "1"])
    assert.strictEqual(ended.code, 0, ended.stderr)
    assert.match(ended.stdout, /^\d+ pages, \d+ images \(.*\).* waiting$/m)
    assert.match(ended.stdout, /^ {2}pages +40$/m)
    assert.match(ended.stdout, /^ {2}downloaded +300$/m)
    assert.match(ended.stdout, /^ {2}workers +1$/m)
    assert.include(ended.stdout, `report.jsonl in ${out}`)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what must not be there
    assert.notMatch(ended.stdout + ended.stderr, /[\r\x1b]/)
    assertComplete(out, site)
  })

  it("--max-pages 5 asks the site for five pages and no more, and counts what it left out", async () => {
    const site = await siteWith()
    const ended = await run(["crawl", site.url, "--out", temporaryFolder(), "--json", "--max-pages", "5"])
    assert.strictEqual(ended.code, 0, ended.stderr)
    assert.strictEqual(pageHits(site), 5)
    const { brokenPages, leftOut, pages } = JSON.parse(ended.stdout)
    assert.strictEqual(pages + brokenPages, 5)
    assert.isAbove(leftOut, 0)
  })

  it("--depth 1 reads the first page and what it links to, --depth 0 the first page only", async () => {
    const site = await siteWith()
    const one = JSON.parse(
      (await run(["crawl", site.url, "--out", temporaryFolder(), "--json", "--depth", "1"])).stdout
    )
    const hits = pageHits(site)
    assert.strictEqual(one.pages, hits)
    assert.isAbove(hits, 1)
    assert.isBelow(hits, 40)
    const none = JSON.parse(
      (await run(["crawl", site.url, "--out", temporaryFolder(), "--json", "--depth", "0"])).stdout
    )
    assert.strictEqual(none.pages, 1)
    assert.strictEqual(pageHits(site), hits + 1)
    assert.isAbove(none.downloaded, 0)
  })

  it.skipIf(process.platform !== "linux")(
    "--host: its workers come to the address that the manager listens on",
    async () => {
      const site = await siteWith()
      for (const host of ["127.0.0.2", "0.0.0.0"]) {
        const args = ["crawl", site.url, "--out", temporaryFolder(), "--json", "--depth", "0", "--workers", "1"]
        const ended = await run([...args, "--host", host, "--insecure-network"])
        assert.strictEqual(ended.code, 0, ended.stderr)
        assert.strictEqual(JSON.parse(ended.stdout).pages, 1)
      }
    }
  )

  it("a second crawl into the same folder stores nothing twice and reports anew", async () => {
    const site = await siteWith()
    const out = temporaryFolder()
    const args = ["crawl", site.url, "--out", out, "--json", "--depth", "0"]
    const first = JSON.parse((await run(args)).stdout)
    const files = [...filesIn(out)].sort()
    const second = JSON.parse((await run(args)).stdout)
    assert.strictEqual(second.downloaded, first.downloaded)
    assert.deepStrictEqual([...filesIn(out)].sort(), files)
  })
})

describe("millrace crawl, killed in the middle", () => {
  it("a worker killed with SIGKILL costs nothing: no image is lost, each URL is reported once", async () => {
    const site = await siteWith(60)
    const out = temporaryFolder()
    const crawl = startCrawl(site, out, "--json", "--lease", "1")
    const [victim] = await workersInMidCrawl(crawl, out)
    process.kill(victim!, "SIGKILL")
    const ended = await crawl.ended(40_000)
    assert.strictEqual(ended.code, 0, ended.stderr)
    const { downloaded, failed, images, pages } = JSON.parse(ended.stdout)
    assert.deepStrictEqual(
      { downloaded, failed, images, pages },
      { downloaded: 300, failed: 1, images: 301, pages: 40 }
    )
    assert.match(ended.stderr, /worker \d ended by SIGKILL; .*starting it again/)
    assertComplete(out, site)
  })

  it("both workers killed with SIGKILL are started again, and nothing is missing", async () => {
    const site = await siteWith(60)
    const out = temporaryFolder()
    const crawl = startCrawl(site, out, "--json", "--lease", "1")
    for (const worker of await workersInMidCrawl(crawl, out)) process.kill(worker, "SIGKILL")
    const ended = await crawl.ended(40_000)
    assert.strictEqual(ended.code, 0, ended.stderr)
    assert.strictEqual(JSON.parse(ended.stdout).downloaded, 300)
    assertComplete(out, site)
  })

  for (const whole of [false, true]) {
    it(`SIGINT${whole ? " to the whole group, as from a terminal," : ""} ends with code 130, without workers or half files left`, async () => {
      const site = await siteWith(60)
      const out = temporaryFolder()
      const crawl = startCrawl(site, out)
      const workers = await workersInMidCrawl(crawl, out)
      if (whole) for (const worker of workers) process.kill(worker, "SIGINT")
      crawl.kill("SIGINT")
      const ended = await crawl.ended(15_000)
      assert.strictEqual(ended.code, 130, ended.stderr)
      assert.deepStrictEqual(workers.filter(isAlive), [])
      assert.deepStrictEqual(temporariesIn(out), [])
      assert.include(ended.stderr, `interrupted; what is done is in ${out}`)
      assert.notMatch(ended.stderr, /starting it again|ERROR|\n\s+at /)
      // What is stored is whole.
      const known = new Set(site.manifest.images.map(({ sha256 }) => sha256))
      for (const file of filesIn(out)) {
        if (basename(file) === "report.jsonl") continue
        assert.isTrue(known.has(createHash("sha256").update(readFileSync(file)).digest("hex")), file)
      }
    })
  }

  it("killed with SIGKILL it leaves no workers behind: they end by themselves, with no half files", async () => {
    const site = await siteWith(60)
    const out = temporaryFolder()
    const crawl = startCrawl(site, out)
    const workers = await workersInMidCrawl(crawl, out)
    crawl.kill("SIGKILL")
    await until("the workers have ended", () => !workers.some(isAlive), 8_000)
    assert.deepStrictEqual(temporariesIn(out), [])
  })

  it("a worker that cannot work ends the crawl with code 1 when it is the last", async () => {
    const site = await siteWith(60)
    const out = temporaryFolder()
    const crawl = startCrawl(site, out, "--workers", "1", "--json", "--lease", "1")
    // Killed more often than it is started again.
    for (const killed = new Set<number>(); killed.size < 4; ) {
      const fresh = () => childrenOf(crawl.pid).find((pid) => !killed.has(pid))
      await until("a worker runs", () => fresh() !== undefined)
      const pid = fresh()!
      killed.add(pid)
      process.kill(pid, "SIGKILL")
    }
    const ended = await crawl.ended(15_000)
    assert.strictEqual(ended.code, 1, ended.stderr)
    assert.strictEqual(ended.stdout, "")
    assert.match(ended.stderr, /millrace: .*workers/)
    assert.notMatch(ended.stderr, /\n\s+at /)
  })
})
