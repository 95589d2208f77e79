/**
 * Work `crawl`: a generated site of HTML pages on loopback, crawled by Millrace, by Crawlee, by Scrapy, and by a bare loop of
 * undici and htmlparser2, which is the ceiling. What counts is pages per CPU second of all processes that crawl; the server
 * is another process, and not counted.
 *
 * Every round has one crawl of each system, in an order that turns by one; the first is the warm-up. Asserted: every page
 * was asked for exactly once by the server's count, nothing else was asked for, and the crawler's own list says the same.
 */
import { loadavg } from "node:os"
import type { CrawlResult } from "./crawl/pass.ts"
import type { Started } from "./crawl/server.ts"
import { pathOf } from "./crawl/site.ts"
import { type Crawler, type System, systems } from "./crawl/systems.ts"
import { type Child, type ProfileTo, withChildren } from "./harness/children.ts"
import { withFolder } from "./harness/folder.ts"
import { hottestTables } from "./harness/profile.ts"
import { type Durability, type Measurement, progress, spread, table } from "./harness/report.ts"
import type { Work, WorkOptions, WorkReport } from "./harness/work.ts"

const pagesDefault = 2_000
/** Requests at a time, of every system. */
const concurrency = 32
const seed = 1

interface Figures {
  readonly unit: Measurement["unit"]
  readonly digits: number
  readonly of: (pages: number, result: CrawlResult) => number
}

const measures: Readonly<Record<string, Figures>> = {
  "per-cpu": { unit: "pages/CPU-s", digits: 0, of: (pages, { cpuSeconds }) => pages / cpuSeconds },
  wall: { unit: "pages/s", digits: 0, of: (pages, { seconds }) => pages / seconds },
  cpu: { unit: "CPU-s/1000 pages", digits: 3, of: (pages, { cpuSeconds }) => (1_000 * cpuSeconds) / pages },
  rss: { unit: "MiB", digits: 0, of: (_, { peakRssBytes }) => peakRssBytes / 2 ** 20 }
}

const check = (pages: number, origin: string, result: CrawlResult, asked: ReadonlyMap<string, number>): void => {
  const seen = new Set(result.visited)
  if (result.visited.length !== pages) throw new Error(`${result.visited.length} pages were read, ${pages} are there`)
  for (let page = 0; page < pages; page++) {
    const path = pathOf(page)
    if (!seen.has(`${origin}${path}`)) throw new Error(`${path} was not read`)
    if (asked.get(path) !== 1) throw new Error(`${path} was asked for ${asked.get(path) ?? 0} times`)
  }
  const other = [...asked.keys()].length - pages
  if (other !== 0) throw new Error(`${other} paths were asked for that are no pages`)
}

interface Entry {
  readonly system: System
  readonly crawl: Crawler
  readonly results: Array<CrawlResult>
}

const crawlOnce = async (
  { crawl, results, system }: Entry,
  server: Child,
  origin: string,
  pages: number,
  label: string
): Promise<void> => {
  await server.call("taken")
  const result = await crawl({ url: `${origin}${pathOf(0)}`, concurrency })
  const asked = new Map(await server.call<ReadonlyArray<readonly [string, number]>>("taken"))
  try {
    check(pages, origin, result, asked)
  } catch (error) {
    throw new Error(`${system.name}: ${error instanceof Error ? error.message : String(error)}`)
  }
  const figures = Object.values(measures).map(({ digits, of, unit }) => `${of(pages, result).toFixed(digits)} ${unit}`)
  progress(`crawl ${label} ${system.name}: ${figures.join(", ")}, load ${loadavg()[0]!.toFixed(1)}`)
  results.push(result)
}

interface Crawled {
  readonly entries: ReadonlyArray<Entry>
  readonly bytesPerPage: number
}

/** All systems with one durability. The results of the warm-up are the first of each. */
const crawlAll = (
  present: ReadonlyArray<System>,
  durability: Durability,
  pages: number,
  options: WorkOptions
): Promise<Crawled> =>
  withFolder((folder) =>
    withChildren(async (start) => {
      const server = start({ name: "site", script: new URL("./crawl/server.ts", import.meta.url) })
      const { bytes, origin } = await server.call<Started>("start", { pages, seed })
      const { profile } = options
      const profileOf = (name: string): ProfileTo | undefined =>
        profile && { directory: profile.directory, name: `${profile.name}-${name}` }
      const entries: Array<Entry> = []
      for (const system of present) {
        const crawl = await system.start({ start, profileOf, folder, durability, concurrency })
        entries.push({ system, crawl, results: [] })
      }
      for (let round = 0; round <= options.runs; round++) {
        for (let i = 0; i < entries.length; i++) {
          const label = round === 0 ? "warm-up" : `round ${round} of ${options.runs}`
          await crawlOnce(entries[(i + round) % entries.length]!, server, origin, pages, label)
        }
      }
      return { entries, bytesPerPage: bytes / pages }
    })
  )

const head = ["system", "pages/CPU-s", "min", "max", "CPU-s/1000", "pages/s", "MiB", "millrace/system"]

const runWith = async (
  present: ReadonlyArray<System>,
  durability: Durability,
  options: WorkOptions
): Promise<WorkReport> => {
  const pages = options.tasks ?? pagesDefault
  const { bytesPerPage, entries } = await crawlAll(present, durability, pages, options)
  const valuesOf = ({ results }: Entry, measure: Figures): ReadonlyArray<number> =>
    results.slice(1).map((result) => measure.of(pages, result))
  const own = entries[0]!
  const measurements = Object.entries(measures)
    .filter(([variant]) => options.variant === undefined || options.variant === variant)
    .flatMap(([variant, measure]) =>
      entries.map((entry): Measurement => {
        const values = valuesOf(entry, measure)
        const ratios = valuesOf(own, measure).map((value, i) => value / values[i]!)
        return {
          work: "crawl",
          variant,
          durability,
          workers: entry.system.workers,
          system: entry.system.name,
          ...spread(values, measure.digits),
          unit: measure.unit,
          runs: options.runs,
          ratio: spread(ratios, 2).median
        }
      })
    )
  const rows = entries.map((entry) => {
    const figures = (variant: string) => spread(valuesOf(entry, measures[variant]!), measures[variant]!.digits)
    const perCpu = figures("per-cpu")
    const ratios = valuesOf(own, measures["per-cpu"]!).map(
      (value, i) => value / valuesOf(entry, measures["per-cpu"]!)[i]!
    )
    return [
      entry.system.name,
      ...[perCpu.median, perCpu.min, perCpu.max, figures("cpu").median, figures("wall").median, figures("rss").median],
      spread(ratios, 2).median
    ]
  })
  const site = `${pages} pages of ${(bytesPerPage / 1_024).toFixed(1)} KiB, ${concurrency} requests at a time, ${durability}`
  const notes = [`crawl: ${site}\n${table(head, rows)}`]
  const { profile } = options
  notes.push(...hottestTables(profile, [...new Set(entries.flatMap(({ system }) => system.profiles))]))
  return { measurements, notes }
}

export const crawl: Work = {
  name: "crawl",
  variants: Object.keys(measures),
  onlyByName: true,
  profiled: true,
  run: async (options): Promise<WorkReport> => {
    const measurements: Array<Measurement> = []
    const notes: Array<string> = []
    const present = systems.filter((system) => {
      const why = system.missing()
      if (why !== undefined) notes.push(`skipped: ${system.name}: ${why} (bench/setup.sh)`)
      return why === undefined
    })
    for (const durability of options.durabilities ?? (["memory"] as const)) {
      // The others keep nothing: they are measured beside what keeps as little.
      const able = present.filter(({ durabilities }) => durabilities.includes(durability))
      const report = await runWith(able, durability, options)
      measurements.push(...report.measurements)
      notes.push(...report.notes)
    }
    notes.push(
      `crawlers  ${present
        .map((system) => system.version())
        .filter((version) => version !== "")
        .join(", ")}`
    )
    return { measurements, notes }
  }
}
