/**
 * The network port over `node:net` and `node:tls`, for Node, Deno and Bun alike.
 *
 * `noDelay` is always on: writes are coalesced above, once per round. Errors of the system are mapped here, by code.
 */
import * as fs from "node:fs"
import * as net from "node:net"
import process from "node:process"
import * as tls from "node:tls"
import { isMainThread } from "node:worker_threads"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { ConnectFailed, ListenFailed } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import {
  type Address,
  type ClientTls,
  type Connection,
  formatAddress,
  type Handler,
  Network,
  type ServerTls,
  sourceOf
} from "./Network.ts"
import { Strangers } from "./Strangers.ts"
import { certificateFault, channelBinding, clientOptions, serverOptions } from "./Tls.ts"

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
  ENETUNREACH: "the network cannot be reached",
  DEPTH_ZERO_SELF_SIGNED_CERT:
    "its certificate is its own and nobody vouches for it; use its join string, or name its certificate (--tls-ca)",
  SELF_SIGNED_CERT_IN_CHAIN: "its certificate comes from an authority that is not known here; name it (--tls-ca)",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    "its certificate comes from an authority that is not known here; name it (--tls-ca)",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "its certificate comes from an authority that is not known here; name it (--tls-ca)",
  ERR_TLS_CERT_ALTNAME_INVALID: "its certificate is for another host",
  CERT_HAS_EXPIRED: "its certificate has expired",
  ERR_SSL_WRONG_VERSION_NUMBER: "it does not speak TLS; leave out --tls, or give the manager a certificate",
  ERR_SSL_PACKET_LENGTH_TOO_LONG: "it does not speak TLS; leave out --tls, or give the manager a certificate",
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: "it asks for a client certificate (--tls-cert, --tls-key)"
}

/** What a listener finds where a client began with something else. */
const notTls = new Set(["ERR_SSL_WRONG_VERSION_NUMBER", "ERR_SSL_PACKET_LENGTH_TOO_LONG", "ERR_SSL_HTTP_REQUEST"])

const reasonOf = (error: unknown): string => {
  const code = typeof error === "object" && error !== null && "code" in error ? String(error.code) : ""
  return closeReasons[code] ?? (code !== "" ? code : String(error))
}

const peerOf = (socket: net.Socket): string => `${socket.remoteAddress ?? "unix"}:${socket.remotePort ?? 0}`

const connectionOf = (socket: net.Socket): Connection => ({
  peer: peerOf(socket),
  channelBinding: channelBinding(socket),
  write: (bytes) => void socket.write(bytes),
  lend: (bytes, done) => {
    socket.write(bytes, (error) => {
      if (error === undefined || error === null) done()
    })
  },
  cork: () => void socket.cork(),
  uncork: () => void socket.uncork(),
  pendingBytes: () => socket.writableLength,
  pause: () => void socket.pause(),
  resume: () => void socket.resume(),
  close: () => void socket.end(() => socket.destroy()),
  destroy: () => void socket.destroy()
})

const attach = (socket: net.Socket, handler: Handler): void => {
  let reason = "closed by the peer"
  socket.on("data", handler.onData)
  socket.on("drain", handler.onDrain)
  socket.on("end", endToo)
  socket.on("error", (error) => {
    reason = reasonOf(error)
  })
  socket.on("close", () => handler.onClose(reason))
}

function endToo(this: net.Socket): void {
  this.end()
}

const listenOptions = (address: Address): net.ListenOptions =>
  address._tag === "Unix" ? { path: address.path } : { host: address.host, port: address.port }

/**
 * A listener whose connections are handed over when they can carry frames. Those in a TLS handshake are bounded in number,
 * in all and from one address, and in time: nothing else knows of them yet.
 */
const serverOf = (
  secure: ServerTls | undefined,
  accept: (socket: net.Socket) => void,
  failed: (peer: string, reason: string) => void
): net.Server => {
  const options = { noDelay: true, keepAlive: true, allowHalfOpen: false }
  if (secure === undefined) return net.createServer(options, accept)
  const strangers = new Strangers()
  const handshakes = new Set<string>()
  const end = (peer: string): void => {
    if (handshakes.delete(peer)) strangers.leave(sourceOf(peer))
  }
  const server = tls.createServer(
    { ...options, ...serverOptions(secure), handshakeTimeout: Limits.handshakeMs },
    (socket) => {
      end(peerOf(socket))
      accept(socket)
    }
  )
  // What the runtime does with a connection comes behind the look at the places: one that has none gets no TLS.
  const begin = server.listeners("connection")
  server.removeAllListeners("connection")
  server.on("connection", (socket: net.Socket) => {
    const peer = peerOf(socket)
    const full = strangers.enter(sourceOf(peer))
    socket.on("error", () => {})
    if (full !== undefined) {
      failed(peer, full)
      socket.destroy()
      return
    }
    handshakes.add(peer)
    socket.once("close", () => end(peer))
    peers.set(socket, peer)
    for (const listener of begin) listener.call(server, socket)
  })
  server.on("tlsClientError", (error, socket) => {
    const code = "code" in error ? String(error.code) : ""
    const reason = notTls.has(code) ? "it does not speak TLS" : `no TLS 1.3: ${reasonOf(error)}`
    // One that is closed has forgotten its address; the socket below it is remembered.
    const below = "_parent" in socket ? (socket._parent as net.Socket | undefined) : undefined
    const peer = below === undefined ? undefined : peers.get(below)
    failed(peer ?? (socket.remoteAddress === undefined ? "unknown:0" : peerOf(socket)), reason)
    socket.destroy()
  })
  return server
}

const peers = new WeakMap<net.Socket, string>()

/**
 * A Unix socket is its owner's alone from its first moment: it is made under a mask (`listen` binds before it returns). A
 * thread may not set one; there the mode is set afterwards.
 */
const privately = (address: Address): { readonly bound: () => void; readonly done: () => void } => {
  const nothing = (): void => {}
  if (address._tag !== "Unix" || process.platform === "win32") return { bound: nothing, done: nothing }
  if (!isMainThread) return { bound: nothing, done: () => fs.chmodSync(address.path, 0o700) }
  const before = process.umask(0o077)
  return { bound: () => void process.umask(before), done: nothing }
}

/** A socket that a killed manager left behind is in the way of the next one: nobody answers there, and it goes. */
const clearStale = (address: Address): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (address._tag !== "Unix" || fs.statSync(address.path, { throwIfNoEntry: false })?.isSocket() !== true) {
      return resume(Effect.void)
    }
    const socket = net.connect({ path: address.path })
    socket.once("connect", () => {
      socket.destroy()
      resume(Effect.void)
    })
    socket.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ECONNREFUSED") fs.rmSync(address.path, { force: true })
      resume(Effect.void)
    })
  })

const listen: Network["Service"]["listen"] = (address, accept, secure, failed) =>
  Effect.andThen(clearStale(address), bind(address, accept, secure, failed))

const bind: Network["Service"]["listen"] = (address, accept, secure, failed = () => {}) =>
  Effect.acquireRelease(
    Effect.callback<
      { readonly server: net.Server; readonly open: Set<net.Socket>; readonly bound: Address },
      ListenFailed
    >((resume) => {
      const open = new Set<net.Socket>()
      function left(this: net.Socket): void {
        open.delete(this)
      }
      const take = (socket: net.Socket): void => {
        open.add(socket)
        socket.on("close", left)
        attach(socket, accept(connectionOf(socket)))
      }
      const server = serverOf(secure, take, failed)
      server.once("error", (error) =>
        resume(Effect.fail(new ListenFailed({ address: formatAddress(address), reason: reasonOf(error) })))
      )
      const opened = privately(address)
      server.listen(listenOptions(address), () => {
        opened.done()
        // An accept that fails (out of descriptors) must not end the manager; the peer will dial again.
        server.on("error", () => {})
        const at = server.address()
        const bound: Address =
          at !== null && typeof at === "object" ? { _tag: "Tcp", host: at.address, port: at.port } : address
        resume(Effect.succeed({ server, open, bound }))
      })
      opened.bound()
    }),
    ({ server, open }) =>
      Effect.callback<void>((resume) => {
        for (const socket of open) socket.destroySoon()
        server.close(() => resume(Effect.void))
      }).pipe(Effect.timeoutOption("2 seconds"))
  ).pipe(Effect.map(({ bound }) => bound))

const socketOf = (address: Address, secure: ClientTls | undefined): net.Socket => {
  const at =
    address._tag === "Unix"
      ? { path: address.path }
      : { host: address.host, port: address.port, noDelay: true, keepAlive: true }
  if (secure === undefined) return net.connect(at)
  return tls.connect({ ...at, ...clientOptions(secure, address._tag === "Unix" ? "localhost" : address.host) })
}

const dial: Network["Service"]["dial"] = (address, timeoutMs, handler, secure) =>
  Effect.callback<Connection, ConnectFailed>((resume) => {
    const fail = (reason: string): void =>
      resume(Effect.fail(new ConnectFailed({ address: formatAddress(address), reason })))
    let socket: net.Socket
    try {
      socket = socketOf(address, secure)
    } catch (error) {
      return fail(`TLS cannot begin: ${error instanceof Error ? error.message : String(error)}`)
    }
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
    socket.once(secure === undefined ? "connect" : "secureConnect", () => {
      clearTimeout(timer)
      socket.off("error", onError)
      const fault =
        socket instanceof tls.TLSSocket && secure !== undefined ? certificateFault(socket, secure) : undefined
      if (fault !== undefined) {
        socket.on("error", () => {})
        socket.destroy()
        return fail(fault)
      }
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
