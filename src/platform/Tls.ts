/**
 * TLS 1.3 over `node:tls`, for Node, Deno and Bun alike: what a listener and a client pass to it, whose certificate it
 * is, and what a login is bound to.
 */
import * as net from "node:net"
import * as tls from "node:tls"
import { Hex } from "effect/encoding"
import { sha256 } from "./Crypto.ts"
import type { ClientTls, ServerTls } from "./Network.ts"

/** RFC 9266: the label, an empty context, 32 bytes. */
const exporterLabel = "EXPORTER-Channel-Binding"
const exporterBytes = 32

/** The exported bytes of a connection; undefined where the runtime cannot, or it is not TLS 1.3. */
export const channelBinding = (socket: net.Socket): Uint8Array | undefined => {
  if (!(socket instanceof tls.TLSSocket)) return undefined
  try {
    if (socket.getProtocol() !== "TLSv1.3") return undefined
    const bytes = socket.exportKeyingMaterial(exporterBytes, exporterLabel, Buffer.alloc(0))
    return bytes.byteLength === exporterBytes ? bytes : undefined
  } catch {
    return undefined
  }
}

export const serverOptions = ({ certificate, clientAuthorities, privateKey }: ServerTls): tls.TlsOptions => ({
  cert: certificate,
  key: privateKey,
  minVersion: "TLSv1.3",
  ...(clientAuthorities === undefined ? {} : { ca: clientAuthorities, requestCert: true, rejectUnauthorized: true })
})

/** Why the texts of a listener cannot be used; undefined: they can. */
export const serverFault = (options: ServerTls): string | undefined => {
  try {
    tls.createSecureContext(serverOptions(options))
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

export const clientOptions = (
  { authorities, certificate, fingerprint, privateKey }: ClientTls,
  host: string
): tls.ConnectionOptions => ({
  minVersion: "TLSv1.3",
  // A name, never an address (RFC 6066, section 3); the certificate is checked against the host either way.
  ...(net.isIP(host) === 0 ? { servername: host } : {}),
  ...(authorities === undefined ? {} : { ca: authorities }),
  ...(certificate === undefined ? {} : { cert: certificate }),
  ...(privateKey === undefined ? {} : { key: privateKey }),
  // One that is known by its fingerprint needs nobody to vouch for it: it is compared in `certificateFault`. Said either
  // way: left out, a variable of the environment decides.
  rejectUnauthorized: fingerprint === undefined
})

/** Why the manager's certificate is not the one that was asked for; undefined: it is, or any that was verified may be. */
export const certificateFault = (socket: tls.TLSSocket, { fingerprint }: ClientTls): string | undefined => {
  if (fingerprint === undefined) return undefined
  const { raw } = socket.getPeerCertificate()
  if (raw === undefined) return "its certificate cannot be seen on this runtime, so it cannot be compared"
  const found = Hex.encode(sha256(raw))
  return found === fingerprint.toLowerCase() ? undefined : `its certificate is another one (sha256 ${found})`
}
