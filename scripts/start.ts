/**
 * `npm start`: the main job end to end, offline. Serves the sample site, crawls it with one manager and two worker
 * processes over TCP, and checks every stored file against the site's own list. Exits 0 only if all is there.
 *
 *     npm start [-- --json] [--workers N] [--port SITE_PORT]
 */
import { createHash } from "node:crypto"
import { readFile, rm } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { type Site, startSite } from "../examples/sample-site/site.ts"
import { jsonLine, progressTo, summaryTable } from "../src/cli/crawl.ts"
import { runCrawl } from "../src/cli/runCrawl.ts"

const { values } = parseArgs({
  options: { json: { type: "boolean" }, workers: { type: "string" }, out: { type: "string" } }
})
const json = values.json ?? false
// npm runs scripts in the package's folder; the files belong where the command was given.
const startedIn = process.env["INIT_CWD"] ?? process.cwd()
const out = join(startedIn, values.out ?? "downloads")
const script = fileURLToPath(new URL("../src/cli/main.ts", import.meta.url))

const site = Effect.acquireRelease(
  Effect.promise(() => startSite({ port: 0 })),
  (site) => Effect.promise(() => site.close())
)

interface Line {
  readonly kind: string
  readonly url: string
  readonly status: string
  readonly file?: string
  readonly sha256?: string
}

const pathOf = (url: string): string => new URL(url).pathname + new URL(url).search

/** What is wrong with the folder, compared with the site's own list. */
const findings = async (site: Site): Promise<ReadonlyArray<string>> => {
  const wrong: Array<string> = []
  const lines = (await readFile(join(out, "report.jsonl"), "utf8"))
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Line)
  const byPath = new Map(lines.map((line) => [`${line.kind} ${pathOf(line.url)}`, line]))
  if (byPath.size !== lines.length) wrong.push(`${lines.length - byPath.size} URLs are reported more than once`)
  for (const page of site.manifest.pages) {
    if (byPath.get(`page ${page}`)?.status !== "done") wrong.push(`page ${page} was not read`)
  }
  for (const image of site.manifest.images) {
    const line = byPath.get(`image ${image.path}`)
    if (line?.file === undefined) wrong.push(`image ${image.path} is missing`)
    else {
      const hash = createHash("sha256")
        .update(await readFile(join(out, line.file)))
        .digest("hex")
      if (hash !== image.sha256 || line.sha256 !== image.sha256) wrong.push(`image ${image.path} has the wrong content`)
    }
  }
  if (byPath.get(`image ${site.manifest.failing}`)?.status !== "failed") wrong.push("the failing image is not reported")
  if (byPath.get(`page ${site.manifest.broken}`)?.status !== "failed") wrong.push("the broken link is not reported")
  const expected = site.manifest.pages.length + site.manifest.images.length + 2
  if (lines.length !== expected) wrong.push(`${lines.length} URLs are reported, ${expected} exist`)
  return wrong
}

const program = Effect.gen(function* () {
  yield* Effect.promise(() => rm(out, { recursive: true, force: true }))
  const sample = yield* site
  const say = json ? Console.error : Console.log
  yield* say(
    `sample site at ${sample.url}: ${sample.manifest.pages.length} pages, ${sample.manifest.images.length} images`
  )
  const show = yield* progressTo({ json })
  const workers = Number(values.workers ?? "2")
  const report = yield* runCrawl({
    url: sample.url,
    out,
    workers,
    hostConcurrency: 4,
    script,
    onProgress: show.update
  }).pipe(Effect.ensuring(show.end))
  const wrong = yield* Effect.promise(() => findings(sample))
  const counts = `${report.pages}/${report.brokenPages}/${report.downloaded}/${report.failed}`
  const expected = `${sample.manifest.pages.length}/1/${sample.manifest.images.length}/1`
  const complete = counts === expected && wrong.length === 0
  for (const finding of wrong.slice(0, 20)) yield* Console.error(`wrong: ${finding}`)
  if (counts !== expected) yield* Console.error(`wrong: pages/broken/downloaded/failed are ${counts}, not ${expected}`)
  if (complete) yield* say(`every file's hash is the one the site says (${sample.manifest.images.length} files)`)
  yield* json ? Console.log(jsonLine(report)) : Console.log(summaryTable(report, out))
  return complete
}).pipe(Effect.scoped, Effect.provide(NodeServices.layer))

NodeRuntime.runMain(
  program.pipe(
    Effect.tapError((error) => Console.error(`start: ${error.message}`)),
    Effect.flatMap((complete) => (complete ? Effect.void : Effect.fail("incomplete")))
  ),
  { disableErrorReporting: true }
)
