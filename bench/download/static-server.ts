/** Serves the files of a folder, in place of nginx. They are small: each is read once and kept. */
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { createServer } from "node:http"
import { join } from "node:path"
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

const port = async (): Promise<number> => {
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  if (address === null || typeof address === "string") throw new Error("no port")
  return address.port
}

const stop = async (): Promise<void> => {
  server.closeAllConnections()
  server.close()
}

serve({ port }, stop)
