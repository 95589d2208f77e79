/** The site's server, a process of its own: pages made before the first request, and a count of requests for each. */
import { createServer } from "node:http"
import { listen } from "../harness/listen.ts"
import { serve } from "../harness/role.ts"
import { renderSite } from "./site.ts"

let site: ReadonlyMap<string, Buffer> = new Map()
let asked = new Map<string, number>()

const server = createServer((request, response) => {
  const path = request.url ?? ""
  asked.set(path, (asked.get(path) ?? 0) + 1)
  const page = site.get(path)
  if (page === undefined) {
    response.writeHead(404, { "content-type": "text/plain", "content-length": 0 }).end()
    return
  }
  response.writeHead(200, { "content-type": "text/html; charset=utf-8", "content-length": page.length }).end(page)
})
// A crawler that rests between two rounds finds its connections as it left them, or makes new ones: no race at 5 s.
server.keepAliveTimeout = 600_000

export interface Started {
  readonly origin: string
  readonly bytes: number
}

const start = async ({ pages, seed }: { readonly pages: number; readonly seed: number }): Promise<Started> => {
  const origin = `http://127.0.0.1:${await listen(server)}`
  site = renderSite({ pages, seed, origin })
  return { origin, bytes: [...site.values()].reduce((sum, page) => sum + page.length, 0) }
}

/** Requests since the last call, by path. */
const taken = (): ReadonlyArray<readonly [string, number]> => {
  const counts = [...asked]
  asked = new Map()
  return counts
}

serve({ start, taken }, async () => {
  server.closeAllConnections()
  server.close()
})
