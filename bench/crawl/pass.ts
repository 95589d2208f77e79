/** One crawl of the whole site, as each system reports it. */
import process from "node:process"
import { monotonicMs, usage } from "../harness/role.ts"

export interface CrawlPass {
  /** The first page. */
  readonly url: string
  /** Requests at a time. */
  readonly concurrency: number
}

export interface CrawlResult {
  /** The URL of each page that was read, as often as it was read. */
  readonly visited: ReadonlyArray<string>
  readonly seconds: number
  /** Of this process, all its threads. */
  readonly cpuSeconds: number
  /** The most that this process has had at any time. */
  readonly peakRssBytes: number
}

export const peakRssBytes = (): number => process.resourceUsage().maxRSS * 1_024

/** Runs one crawl, which answers what it has visited. */
export const measured = async (crawl: () => Promise<ReadonlyArray<string>>): Promise<CrawlResult> => {
  const { cpuSeconds } = usage()
  const from = monotonicMs()
  const visited = await crawl()
  const seconds = (monotonicMs() - from) / 1_000
  return { visited, seconds, cpuSeconds: usage().cpuSeconds - cpuSeconds, peakRssBytes: peakRssBytes() }
}
