/** A loopback HTTP server for tests: the handler decides everything, and the scope closes it with all connections. */
import * as http from "node:http"
import type { AddressInfo } from "node:net"
import * as Effect from "effect/Effect"

export interface Server {
  readonly origin: string
  /** Connections that are open now. */
  readonly connections: Effect.Effect<number>
}

export const serve = (
  handler: (request: http.IncomingMessage, response: http.ServerResponse, origin: string) => void
) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly server: http.Server; readonly origin: string }>((resume) => {
      let origin = ""
      const server = http.createServer((request, response) => handler(request, response, origin))
      server.listen(0, "127.0.0.1", () => {
        origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
        resume(Effect.succeed({ server, origin }))
      })
    }),
    ({ server }) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  ).pipe(
    Effect.map(
      ({ origin, server }): Server => ({
        origin,
        connections: Effect.callback<number>((resume) => {
          server.getConnections((_, count) => resume(Effect.succeed(count)))
        })
      })
    )
  )

/** The smallest PNG: one transparent pixel. */
export const pixel: Uint8Array = new Uint8Array(
  Buffer.from(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==",
    "base64"
  )
)
