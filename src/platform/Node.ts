/**
 * The network port over `node:net`, for Node, Deno and Bun alike.
 *
 * `noDelay` is always on: writes are coalesced above, once per round. Errors of the system are mapped here, by code.
 */
import * as net from "node:net"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { ConnectFailed, ListenFailed } from "../Errors.ts"
import { type Address, type Connection, formatAddress, type Handler, Network } from "./Network.ts"

const closeReasons: Readonly<Record<string, string>> = {
  ECONNRESET: "reset by the peer",
  EPIPE: "closed by the peer",
  ETIMEDOUT: "timed out",
  ECONNREFUSED: "connection refused",
  EADDRINUSE: "the address is in use; stop the other program or choose another port",
  EADDRNOTAVAIL: "this machine does not have that address",
  EACCES: "not permitted; ports below 1024 need privileges",
  ENOTFOUND: "the host name is not known",
  EAI_AGAIN: "the host name could not be looked up",
  EHOSTUNREACH: "the host cannot be reached",
  ENETUNREACH: "the network cannot be reached"
}

const reasonOf = (error: unknown): string => {
  const code = typeof error === "object" && error !== null && "code" in error ? String(error.code) : ""
  return closeReasons[code] ?? (code !== "" ? code : String(error))
}

const connectionOf = (socket: net.Socket): Connection => ({
  peer: `${socket.remoteAddress ?? "unix"}:${socket.remotePort ?? 0}`,
  write: (bytes) => void socket.write(bytes),
  pendingBytes: () => socket.writableLength,
  pause: () => void socket.pause(),
  resume: () => void socket.resume(),
  close: () => void socket.end(() => socket.destroy()),
  destroy: () => void socket.destroy()
})

const attach = (socket: net.Socket, handler: Handler): void => {
  let reason = "closed by the peer"
  socket.on("data", (chunk) => handler.onData(chunk as Uint8Array))
  socket.on("drain", () => handler.onDrain())
  socket.on("end", () => socket.end())
  socket.on("error", (error) => {
    reason = reasonOf(error)
  })
  socket.on("close", () => handler.onClose(reason))
}

const listenOptions = (address: Address): net.ListenOptions =>
  address._tag === "Unix" ? { path: address.path } : { host: address.host, port: address.port }

const listen: Network["Service"]["listen"] = (address, accept) =>
  Effect.acquireRelease(
    Effect.callback<
      { readonly server: net.Server; readonly open: Set<net.Socket>; readonly bound: Address },
      ListenFailed
    >((resume) => {
      const open = new Set<net.Socket>()
      const server = net.createServer({ noDelay: true, keepAlive: true, allowHalfOpen: false }, (socket) => {
        open.add(socket)
        socket.once("close", () => open.delete(socket))
        socket.on("error", () => {})
        attach(socket, accept(connectionOf(socket)))
      })
      server.once("error", (error) =>
        resume(Effect.fail(new ListenFailed({ address: formatAddress(address), reason: reasonOf(error) })))
      )
      server.listen(listenOptions(address), () => {
        // An accept that fails (out of descriptors) must not end the manager; the peer will dial again.
        server.on("error", () => {})
        const at = server.address()
        const bound: Address =
          at !== null && typeof at === "object" ? { _tag: "Tcp", host: at.address, port: at.port } : address
        resume(Effect.succeed({ server, open, bound }))
      })
    }),
    ({ server, open }) =>
      Effect.callback<void>((resume) => {
        for (const socket of open) socket.destroySoon()
        server.close(() => resume(Effect.void))
      }).pipe(Effect.timeoutOption("2 seconds"))
  ).pipe(Effect.map(({ bound }) => bound))

const dial: Network["Service"]["dial"] = (address, timeoutMs, handler) =>
  Effect.callback<Connection, ConnectFailed>((resume) => {
    const socket = net.connect(
      address._tag === "Unix"
        ? { path: address.path }
        : { host: address.host, port: address.port, noDelay: true, keepAlive: true }
    )
    const fail = (reason: string): void =>
      resume(Effect.fail(new ConnectFailed({ address: formatAddress(address), reason })))
    const onError = (error: unknown): void => {
      clearTimeout(timer)
      socket.destroy()
      fail(reasonOf(error))
    }
    const timer = setTimeout(() => {
      socket.destroy()
      fail(`no answer within ${timeoutMs} ms`)
    }, timeoutMs)
    socket.once("error", onError)
    socket.once("connect", () => {
      clearTimeout(timer)
      socket.off("error", onError)
      const connection = connectionOf(socket)
      attach(socket, handler(connection))
      resume(Effect.succeed(connection))
    })
    return Effect.sync(() => {
      clearTimeout(timer)
      socket.destroy()
    })
  })

export const layer: Layer.Layer<Network> = Layer.succeed(Network, Network.of({ listen, dial }))
