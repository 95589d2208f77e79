/** Serves the files of a folder, in place of nginx. They are small: each is read once and kept. */
import { readFileSync } from "node:fs"
import { createServer } from "node:http"
import { join } from "node:path"
import { listen } from "../harness/listen.ts"
import { required, serve } from "../harness/role.ts"

const root = required("BENCH_ROOT")
const known = new Map<string, Buffer>()

const server = createServer((request, response) => {
  const name = /^\/([\w.]+)$/.exec(request.url ?? "")?.[1]
  if (name === undefined) return response.writeHead(404).end()
  const body = known.get(name) ?? readFileSync(join(root, name))
  known.set(name, body)
  return response
    .writeHead(200, { "content-length": body.length, "content-type": "application/octet-stream", etag: `"${name}"` })
    .end(body)
})
server.keepAliveTimeout = 60_000

const stop = async (): Promise<void> => {
  server.closeAllConnections()
  server.close()
}

serve({ port: () => listen(server) }, stop)
