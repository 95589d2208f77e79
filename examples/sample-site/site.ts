/**
 * A web site on this machine to try a crawl on: 40 pages, 300 pictures, and the troubles of real sites.
 *
 * Run it (`node examples/sample-site/site.ts 8080`) and open it in a browser, or call `startSite` from a test. One link
 * is broken (404), one image always fails (500), one answers 503 with `Retry-After` twice, twelve are reached through
 * redirects only. `hits` counts the requests by path, so that a test can say what was fetched and what was not.
 *
 * Invariant: the site is the same at every start; only the origin in absolute links follows the port.
 */
import * as crypto from "node:crypto"
import * as http from "node:http"
import type { AddressInfo } from "node:net"
import { fileURLToPath } from "node:url"
import * as Pages from "./pages.ts"

export interface SiteImage {
  /** The path that pages name. */
  readonly path: string
  readonly sha256: string
  readonly bytes: number
  readonly contentType: string
}

export interface Manifest {
  /** Paths of the pages that exist. */
  readonly pages: ReadonlyArray<string>
  readonly images: ReadonlyArray<SiteImage>
  /** The image that always answers 500. */
  readonly failing: string
  /** The page that is not there. */
  readonly broken: string
}

export interface SiteOptions {
  /** 0 takes a free one. */
  readonly port: number
  readonly host?: string | undefined
  /** Delay of every answer. */
  readonly delayMs?: number | undefined
}

export interface Site {
  /** The first page. */
  readonly url: string
  readonly port: number
  readonly manifest: Manifest
  /** Requests so far, by path with query. */
  readonly hits: Map<string, number>
  readonly close: () => Promise<void>
}

interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array | string
}

const html = (status: number, body: string): Answer => ({
  status,
  headers: { "content-type": "text/html; charset=utf-8" },
  body
})

const text = (status: number, body: string, headers: Readonly<Record<string, string>> = {}): Answer => ({
  status,
  headers: { "content-type": "text/plain; charset=utf-8", ...headers },
  body
})

const image = (picture: Pages.Picture): Answer => ({
  status: 200,
  headers: { "content-type": picture.contentType, "cache-control": "max-age=3600" },
  body: picture.bytes
})

/** Every path of the site and what it answers the n-th time, counted from 1. */
const makeRoutes = (pictures: ReadonlyArray<Pages.Picture>, origin: string): Map<string, (nth: number) => Answer> => {
  const routes = new Map<string, (nth: number) => Answer>()
  for (let page = 0; page < Pages.pageCount; page++) {
    const body = Pages.renderPage(page, origin, pictures)
    routes.set(Pages.pagePath(page), () => html(200, body))
  }
  const unavailable = text(503, "Come back in a second.\n", { "retry-after": "1" })
  for (const picture of pictures) {
    const flaky = picture.index === Pages.flakyImage
    routes.set(picture.path, (nth) => (flaky && nth <= 2 ? unavailable : image(picture)))
    picture.redirects.forEach(({ from, status, to }, i) => {
      // one form of Location each: a path, and an absolute URL
      const location = (picture.index + i) % 2 === 0 ? to : origin + to
      routes.set(from, () => text(status, `See ${to}\n`, { location }))
    })
  }
  routes.set(Pages.failingPath, () => text(500, "This picture never comes.\n"))
  routes.set("/robots.txt", () => text(200, "User-agent: *\nAllow: /\n"))
  return routes
}

const makeManifest = (pictures: ReadonlyArray<Pages.Picture>): Manifest => ({
  pages: Array.from({ length: Pages.pageCount }, (_, page) => Pages.pagePath(page)),
  images: pictures.map(({ bytes, contentType, reference }) => ({
    path: reference,
    sha256: crypto.createHash("sha256").update(bytes).digest("hex"),
    bytes: bytes.length,
    contentType
  })),
  failing: Pages.failingPath,
  broken: Pages.brokenPath
})

export const startSite = async (options: SiteOptions): Promise<Site> => {
  const host = options.host ?? "127.0.0.1"
  const delayMs = options.delayMs ?? 0
  const hits = new Map<string, number>()
  const pictures = Pages.makePictures()
  const notFound = html(404, "<!DOCTYPE html><title>Not found</title><h1>There is no such page</h1>\n")
  let routes = new Map<string, (nth: number) => Answer>()

  const server = http.createServer((request, response) => {
    const path = request.url ?? "/"
    const nth = (hits.get(path) ?? 0) + 1
    hits.set(path, nth)
    const answer = request.method === "GET" ? (routes.get(path)?.(nth) ?? notFound) : text(405, "Only GET.\n")
    const send = () => {
      const length = String(Buffer.byteLength(answer.body))
      response.writeHead(answer.status, { ...answer.headers, "content-length": length }).end(answer.body)
    }
    if (delayMs > 0) setTimeout(send, delayMs)
    else send()
  })
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject)
    server.listen(options.port, host, resolve)
  })
  const { port } = server.address() as AddressInfo
  const origin = `http://${host.includes(":") ? `[${host}]` : host}:${port}`
  routes = makeRoutes(pictures, origin)
  return {
    url: `${origin}/`,
    port,
    manifest: makeManifest(pictures),
    hits,
    close: () =>
      new Promise((resolve, reject) => {
        server.close((error) => (error === undefined ? resolve() : reject(error)))
        server.closeAllConnections()
      })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const site = await startSite({ port: Number(process.argv[2] ?? 8080) })
  const { images, pages } = site.manifest
  console.log(`${site.url}  ${pages.length} pages, ${images.length} pictures. Ctrl-C stops it.`)
}
