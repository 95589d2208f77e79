/**
 * The ceiling: undici and htmlparser2 in a loop, with an array for a queue and a set of what was seen. Nothing is kept,
 * tried again, limited or polite.
 */
import { Parser } from "htmlparser2"
import { Agent, request } from "undici/index.js"
import { serve } from "../harness/role.ts"
import { type CrawlPass, measured } from "./pass.ts"

const crawl = async ({ concurrency, url }: CrawlPass): Promise<ReadonlyArray<string>> => {
  const dispatcher = new Agent({ connections: concurrency, pipelining: 1, allowH2: false })
  const { host } = new URL(url)
  const seen = new Set([url])
  const queue = [url]
  const visited: Array<string> = []
  const page = async (url: string): Promise<void> => {
    const { body, statusCode } = await request(url, { dispatcher })
    const html = await body.text()
    if (statusCode !== 200) throw new Error(`${url} answered ${statusCode}`)
    const parser = new Parser({
      onopentag: (name, { href }) => {
        if (name !== "a" || href === undefined) return
        const link = URL.parse(href, url)
        if (link === null || link.host !== host) return
        link.hash = ""
        if (seen.has(link.href)) return
        seen.add(link.href)
        queue.push(link.href)
      }
    })
    parser.write(html)
    parser.end()
    visited.push(url)
  }
  await new Promise<void>((resolve, reject) => {
    let running = 0
    const fill = (): void => {
      while (running < concurrency && queue.length > 0) {
        running++
        page(queue.shift()!).then(() => {
          running--
          fill()
        }, reject)
      }
      if (running === 0) resolve()
    }
    fill()
  })
  await dispatcher.close()
  return visited
}

serve({ crawl: (pass: CrawlPass) => measured(() => crawl(pass)) }, async () => {})
