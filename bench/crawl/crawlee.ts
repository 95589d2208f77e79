/**
 * Crawlee's CheerioCrawler, told to be fast: storage in memory, all requests at a time from the beginning, no sessions, no
 * retries, no generated headers, no log. The package is looked for when it is needed: the project is checked without it.
 */
import { tmpdir } from "node:os"
import process from "node:process"
import { serve } from "../harness/role.ts"
import { type CrawlPass, measured } from "./pass.ts"

interface Context {
  readonly request: { readonly url: string }
  readonly enqueueLinks: (options: object) => Promise<unknown>
}

interface Crawlee {
  readonly CheerioCrawler: new (
    options: object,
    configuration: unknown
  ) => { readonly run: (urls: ReadonlyArray<string>) => Promise<unknown> }
  readonly Configuration: new (options: object) => unknown
  readonly LogLevel: { readonly OFF: number }
  readonly log: { readonly setLevel: (level: number) => void }
}

const packageName: string = "@crawlee/cheerio"
const { CheerioCrawler, Configuration, LogLevel, log } = (await import(packageName)) as Crawlee
log.setLevel(LogLevel.OFF)
// Nothing is persisted; should anything be, it does not land in the project.
process.env["CRAWLEE_STORAGE_DIR"] = tmpdir()

const crawl = async ({ concurrency, url }: CrawlPass): Promise<ReadonlyArray<string>> => {
  const visited: Array<string> = []
  const failures: Array<string> = []
  const crawler = new CheerioCrawler(
    {
      minConcurrency: concurrency,
      maxConcurrency: concurrency,
      autoscaledPoolOptions: { desiredConcurrency: concurrency },
      maxRequestRetries: 0,
      useSessionPool: false,
      persistCookiesPerSession: false,
      respectRobotsTxtFile: false,
      statisticsOptions: { saveErrorSnapshots: false, logIntervalSecs: 3_600 },
      preNavigationHooks: [
        (_: unknown, got: { useHeaderGenerator?: boolean }) => {
          got.useHeaderGenerator = false
        }
      ],
      requestHandler: async ({ enqueueLinks, request }: Context) => {
        // It keeps the fragment of the link that it came by.
        visited.push(request.url.replace(/#.*/, ""))
        await enqueueLinks({ selector: "a[href]", strategy: "same-hostname" })
      },
      failedRequestHandler: ({ request }: Context, error: Error) => {
        failures.push(`${request.url}: ${error.message}`)
      }
    },
    // A store of its own for every crawl: what was seen in one is new in the next.
    new Configuration({ persistStorage: false, purgeOnStart: false, availableMemoryRatio: 1 })
  )
  await crawler.run([url])
  if (failures.length > 0) throw new Error(failures[0])
  return visited
}

serve({ crawl: (pass: CrawlPass) => measured(() => crawl(pass)) }, async () => {})
