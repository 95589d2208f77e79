/** What crawls the site: how each is started, and what it answers of a crawl. */
import { execFileSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import process from "node:process"
import { fileURLToPath } from "node:url"
import type { Child, StartOptions } from "../harness/children.ts"
import { type Durability, durabilities } from "../harness/report.ts"
import { storeEnvironment } from "../millrace/processes.ts"
import { missingPackages, packageVersion } from "../peers/packages.ts"
import type { CrawlPass, CrawlResult } from "./pass.ts"

export interface Context {
  readonly start: (options: StartOptions) => Child
  readonly profileOf: (name: string) => StartOptions["profile"]
  readonly folder: string
  readonly durability: Durability
  readonly concurrency: number
}

export type Crawler = (pass: CrawlPass) => Promise<CrawlResult>

export interface System {
  readonly name: string
  /** Processes of its own that crawl. */
  readonly workers: number
  /** Why it cannot run here, or undefined. */
  readonly missing: () => string | undefined
  readonly version: () => string
  /** `memory` for what keeps nothing. */
  readonly durabilities: ReadonlyArray<Durability>
  /** Its processes that can be profiled. */
  readonly profiles: ReadonlyArray<string>
  readonly start: (context: Context) => Promise<Crawler>
}

/** A crawl takes no longer. */
const crawlMs = 300_000

const role = (file: string): URL => new URL(`./${file}.ts`, import.meta.url)
const own = { missing: () => undefined, version: () => "", durabilities } as const
const inMemory: ReadonlyArray<Durability> = ["memory"]

const millraceManager = (context: Context, name: string, worker: "here" | "apart"): { child: Child; key: string } => {
  const key = randomBytes(32).toString("base64url")
  const env = {
    MILLRACE_BENCH_KEY: key,
    MILLRACE_BENCH_WORKER: worker,
    MILLRACE_BENCH_CONCURRENCY: String(context.concurrency),
    ...storeEnvironment(context.durability, `${context.folder}/${name}`)
  }
  return { child: context.start({ name, script: role("millrace"), env, profile: context.profileOf(name) }), key }
}

const millrace: System = {
  ...own,
  name: "millrace",
  workers: 1,
  profiles: ["millrace"],
  start: async (context) => {
    const { child } = millraceManager(context, "millrace", "here")
    return (pass) => child.call("crawl", pass, crawlMs)
  }
}

const millraceProcesses: System = {
  ...own,
  name: "millrace-processes",
  workers: 1,
  profiles: ["millrace-manager", "millrace-worker"],
  start: async (context) => {
    const { child: manager, key } = millraceManager(context, "millrace-manager", "apart")
    const env = {
      MILLRACE_BENCH_KEY: key,
      MILLRACE_BENCH_PORT: String(await manager.call<number>("port")),
      MILLRACE_BENCH_CONCURRENCY: String(context.concurrency)
    }
    const name = "millrace-worker"
    const worker = context.start({ name, script: role("millrace-worker"), env, profile: context.profileOf(name) })
    await worker.call("ready")
    return async (pass) => {
      const before = await worker.usage()
      const result = await manager.call<CrawlResult>("crawl", pass, crawlMs)
      const after = await worker.usage()
      return {
        ...result,
        cpuSeconds: result.cpuSeconds + after.cpuSeconds - before.cpuSeconds,
        peakRssBytes: result.peakRssBytes + (await worker.call<number>("peak"))
      }
    }
  }
}

const node = (name: string, packages: ReadonlyArray<string>): System => ({
  name,
  workers: 1,
  durabilities: inMemory,
  profiles: [name],
  missing: () => missingPackages(packages),
  version: () => packages.map((name) => `${name} ${packageVersion(name)}`).join(", "),
  start: async ({ profileOf, start }) => {
    const child = start({ name, script: role(name), profile: profileOf(name) })
    return (pass) => child.call("crawl", pass, crawlMs)
  }
})

/** Debian's, whatever else is called `python3` here. */
const python = "/usr/bin/python3"

const scrapyVersion = (): string | undefined => {
  try {
    const text =
      "import scrapy, twisted, lxml.etree as e; print(scrapy.__version__, twisted.__version__, e.__version__)"
    return execFileSync(python, ["-c", text], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim()
  } catch {
    return undefined
  }
}

const scrapy: System = {
  name: "scrapy",
  workers: 1,
  durabilities: inMemory,
  profiles: [],
  missing: () => (scrapyVersion() === undefined ? "python3-scrapy is not installed" : undefined),
  version: () => {
    const [scrapy, twisted, lxml] = scrapyVersion()?.split(" ") ?? []
    return `scrapy ${scrapy} with twisted ${twisted}, lxml ${lxml}`
  },
  start: async ({ start }) => {
    const host = start({ name: "scrapy", script: new URL("../harness/program.ts", import.meta.url) })
    const args = ["-u", fileURLToPath(new URL("./spider.py", import.meta.url))]
    await host.call("start", { command: python, args, env: { PYTHONDONTWRITEBYTECODE: "1" }, lines: true })
    return (pass) => host.call("ask", pass, crawlMs)
  }
}

/** Millrace comes first: the others are compared with it. */
const all: ReadonlyArray<System> = [
  millrace,
  millraceProcesses,
  node("bare", []),
  node("crawlee", ["@crawlee/cheerio"]),
  scrapy
]

/** All, or those that `MILLRACE_BENCH_SYSTEMS` names. */
export const systems: ReadonlyArray<System> = all.filter(({ name }) => {
  const named = process.env["MILLRACE_BENCH_SYSTEMS"]
  return named === undefined || named.split(",").includes(name)
})
