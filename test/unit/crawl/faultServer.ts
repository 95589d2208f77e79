/**
 * A loopback server of one file that answers ranges as RFC 9110 wants, and in every way that it does not want.
 *
 * `file` is what the server has now; `fault` decides how it answers, and may be exchanged between two requests. What was
 * asked and how many bytes of bodies went out is in `requests`.
 */
import type * as http from "node:http"
import * as zlib from "node:zlib"
import * as Effect from "effect/Effect"
import { serve } from "./server.ts"

export interface ServedFile {
  readonly bytes: Uint8Array
  readonly etag?: string | undefined
  readonly lastModified?: string | undefined
  /** Sent as `Date`; false: none is sent. Default: now. */
  readonly date?: string | false | undefined
  /** The length is not told. */
  readonly chunked?: boolean | undefined
}

export interface Asked {
  readonly path: string
  readonly range: string | undefined
  readonly ifRange: string | undefined
  readonly acceptEncoding: string | undefined
  status: number
  /** Bytes of the body that were written. */
  sent: number
}

interface Exchange {
  readonly request: http.IncomingMessage
  readonly response: http.ServerResponse
  readonly file: ServedFile
  readonly asked: Asked
  /** The offset that was asked for. */
  readonly from: number | undefined
}

export type Fault = (exchange: Exchange) => void

export interface FaultServer {
  readonly origin: string
  file: ServedFile
  fault: Fault
  readonly requests: Array<Asked>
}

export const faultServer = (file: ServedFile) =>
  Effect.gen(function* () {
    const state = { file, fault: honest, requests: [] as Array<Asked> }
    const { origin } = yield* serve((request, response) => {
      const { "accept-encoding": acceptEncoding, "if-range": ifRange, range } = request.headers
      const header = (value: string | ReadonlyArray<string> | undefined) =>
        typeof value === "string" ? value : undefined
      const asked: Asked = {
        path: request.url!,
        ...{ range, ifRange: header(ifRange), acceptEncoding: header(acceptEncoding) },
        ...{ status: 0, sent: 0 }
      }
      state.requests.push(asked)
      response.on("error", () => {})
      const from = /^bytes=(\d+)-$/.exec(range ?? "")?.[1]
      state.fault({ request, response, file: state.file, asked, from: from === undefined ? undefined : Number(from) })
    })
    const server: FaultServer = Object.assign(state, { origin })
    return server
  })

type Headers = Record<string, string | number>

const versionOf = ({ date, etag, lastModified }: ServedFile, response: http.ServerResponse): Headers => {
  response.sendDate = date === undefined
  return {
    "content-type": "application/octet-stream",
    ...(date === undefined || date === false ? {} : { date }),
    ...(etag === undefined ? {} : { etag }),
    ...(lastModified === undefined ? {} : { "last-modified": lastModified })
  }
}

const start = ({ asked, response }: Exchange, status: number, headers: Headers): void => {
  asked.status = status
  response.writeHead(status, headers)
}

const write = ({ asked, response }: Exchange, bytes: Uint8Array): void => {
  asked.sent += bytes.length
  response.write(bytes)
}

const finish = (exchange: Exchange, bytes: Uint8Array): void => {
  exchange.asked.sent += bytes.length
  exchange.response.end(bytes)
}

const lengthOf = ({ bytes, chunked }: ServedFile, from = 0): Headers =>
  chunked === true ? {} : { "content-length": bytes.length - from }

/** Whether the range is to be honoured: `If-Range` compares strongly, and a date only as it stands. */
const unchanged = ({ asked: { ifRange }, file }: Exchange): boolean =>
  ifRange === undefined || (ifRange === file.etag && !ifRange.startsWith("W/")) || ifRange === file.lastModified

const partHeaders = ({ file, response }: Exchange, from: number, total = file.bytes.length): Headers => ({
  ...versionOf(file, response),
  "content-range": `bytes ${from}-${total - 1}/${total}`
})

const begin = (exchange: Exchange, extra: Headers = {}): Uint8Array | undefined => {
  const { file, from, response } = exchange
  if (from === undefined || !unchanged(exchange)) {
    start(exchange, 200, { ...versionOf(file, response), ...lengthOf(file), ...extra })
    return file.bytes
  }
  if (from >= file.bytes.length) {
    unsatisfied(exchange)
    return undefined
  }
  start(exchange, 206, { ...partHeaders(exchange, from), ...lengthOf(file, from), ...extra })
  return file.bytes.subarray(from)
}

const unsatisfied = (exchange: Exchange, extra: Headers = {}): void => {
  const { file, response } = exchange
  const range = { "content-range": `bytes */${file.bytes.length}`, "content-length": 0 }
  start(exchange, 416, { ...versionOf(file, response), ...range, ...extra })
  finish(exchange, new Uint8Array())
}

/** As the standard says. */
export const honest: Fault = (exchange) => {
  const bytes = begin(exchange)
  if (bytes !== undefined) finish(exchange, bytes)
}

/** Answers a part of the file with headers and bytes of the test's choice; whole files honestly. */
const part =
  (answer: (exchange: Exchange, from: number) => void): Fault =>
  (exchange) =>
    exchange.from === undefined ? honest(exchange) : answer(exchange, exchange.from)

const partWith = (headers: (exchange: Exchange, from: number) => Headers): Fault =>
  part((exchange, from) => {
    const bytes = exchange.file.bytes.subarray(from)
    start(exchange, 206, { "content-length": bytes.length, ...headers(exchange, from) })
    finish(exchange, bytes)
  })

/** The connection breaks off when the file's bytes before `at` are out, and a moment for them to arrive has passed. */
export const cutAt =
  (at: number): Fault =>
  (exchange) => {
    const bytes = begin(exchange)
    if (bytes === undefined) return
    const from = exchange.file.bytes.length - bytes.length
    exchange.asked.sent += at - from
    exchange.response.write(bytes.subarray(0, at - from), () => setTimeout(() => exchange.response.destroy(), 100))
  }

/** 200 and the whole file, whatever was asked. */
export const ignoresRange: Fault = (exchange) => {
  start(exchange, 200, { ...versionOf(exchange.file, exchange.response), ...lengthOf(exchange.file) })
  finish(exchange, exchange.file.bytes)
}

/** A part of the file as it is now, whatever version was asked for. */
export const ignoresIfRange: Fault = partWith(partHeaders)

/** The same, and the version of the part is not told. */
export const hidesVersion: Fault = partWith((exchange, from) => ({
  "content-range": partHeaders(exchange, from)["content-range"]!
}))

/** A part that begins elsewhere than asked, and says so. */
export const shiftedPart = (by: number): Fault =>
  part((exchange, from) => {
    const bytes = exchange.file.bytes.subarray(from + by)
    start(exchange, 206, { ...partHeaders(exchange, from + by), "content-length": bytes.length })
    finish(exchange, bytes)
  })

/** A `Content-Range` of the test's choice before the right bytes. */
export const contentRange = (value: (from: number, total: number) => string): Fault =>
  partWith((exchange, from) => ({
    ...partHeaders(exchange, from),
    "content-range": value(from, exchange.file.bytes.length)
  }))

export const noContentRange: Fault = part((exchange, from) => {
  const bytes = exchange.file.bytes.subarray(from)
  start(exchange, 206, { ...versionOf(exchange.file, exchange.response), "content-length": bytes.length })
  finish(exchange, bytes)
})

export const multipart: Fault = part((exchange, from) => {
  const { file, response } = exchange
  const head = `--x\r\ncontent-type: image/png\r\ncontent-range: bytes ${from}-${file.bytes.length - 1}/${file.bytes.length}\r\n\r\n`
  start(exchange, 206, { ...versionOf(file, response), "content-type": "multipart/byteranges; boundary=x" })
  finish(exchange, Buffer.concat([Buffer.from(head), file.bytes.subarray(from), Buffer.from("\r\n--x--\r\n")]))
})

/** Fewer bytes than were asked for, and it says so: allowed (RFC 9110, 15.3.7). */
export const shortPart = (bytes: number): Fault =>
  part((exchange, from) => {
    const { file, response } = exchange
    const range = `bytes ${from}-${from + bytes - 1}/${file.bytes.length}`
    start(exchange, 206, { ...versionOf(file, response), "content-range": range, "content-length": bytes })
    finish(exchange, file.bytes.subarray(from, from + bytes))
  })

/** A part whose length is not the one of its range. */
export const partOfOtherLength: Fault = part((exchange, from) => {
  const bytes = exchange.file.bytes.subarray(from, -1)
  start(exchange, 206, { ...partHeaders(exchange, from), "content-length": bytes.length })
  finish(exchange, bytes)
})

/** 416 to every part. */
export const unsatisfiable: Fault = part((exchange) => unsatisfied(exchange))

/** 416 that names the size held, of no version. */
export const unsatisfiableOfNoVersion: Fault = part((exchange) => {
  const range = `bytes */${exchange.file.bytes.length}`
  start(exchange, 416, { "content-range": range, "content-length": 0 })
  finish(exchange, new Uint8Array())
})

/** Every answer is gzip, parts included, though identity was asked for. */
export const gzipAlways: Fault = (exchange) => {
  const { file, from, response } = exchange
  const encoded = zlib.gzipSync(file.bytes)
  const headers = { ...versionOf(file, response), "content-encoding": "gzip" }
  if (from === undefined || !unchanged(exchange)) {
    start(exchange, 200, { ...headers, "content-length": encoded.length })
    return finish(exchange, encoded)
  }
  const bytes = encoded.subarray(Math.min(from, encoded.length - 1))
  const range = { "content-range": `bytes ${from}-${from + bytes.length - 1}/${file.bytes.length}` }
  start(exchange, 206, { ...headers, ...range, "content-length": bytes.length })
  return finish(exchange, bytes)
}

/** A body as it stands, with an encoding's name. */
export const encoded =
  (name: string, body: Uint8Array): Fault =>
  (exchange) => {
    const headers = versionOf(exchange.file, exchange.response)
    start(exchange, 200, { ...headers, "content-encoding": name, "content-length": body.length })
    finish(exchange, body)
  }

/** Promises this many bytes more than it has, or fewer. */
export const liesAboutLength =
  (by: number): Fault =>
  (exchange) => {
    const { file, response } = exchange
    const length = { "content-length": file.bytes.length + by, connection: "close" }
    exchange.asked.status = 200
    response.strictContentLength = false
    response.writeHead(200, { ...versionOf(file, response), ...length })
    response.socket!.on("error", () => {})
    response.flushHeaders()
    // past the rules of the module, which would not let a body of another length out
    response.socket!.end(file.bytes)
    exchange.asked.sent += file.bytes.length
  }

/** Bytes come in small pieces with a pause between them, until `done` says that it is enough; then the rest at once. */
export const drips =
  (bytes: number, ms: number, done: () => boolean = () => false): Fault =>
  (exchange) => {
    const body = begin(exchange)
    if (body === undefined) return
    let at = 0
    const timer = setInterval(() => {
      if (exchange.response.destroyed) return clearInterval(timer)
      if (done() || at + bytes >= body.length) {
        clearInterval(timer)
        return finish(exchange, body.subarray(at))
      }
      write(exchange, body.subarray(at, at + bytes))
      at += bytes
    }, ms)
  }

/** The bytes before `at`, and then nothing, while the connection stays. */
export const silentAt =
  (at: number): Fault =>
  (exchange) => {
    const body = begin(exchange)
    if (body !== undefined) write(exchange, body.subarray(0, at - (exchange.file.bytes.length - body.length)))
  }

/** A body of no end. */
export const endless: Fault = (exchange) => {
  start(exchange, 200, versionOf(exchange.file, exchange.response))
  pour(exchange)
}

const pour = ({ file, response }: Exchange): void => {
  const more = (): void => {
    while (!response.destroyed && response.write(file.bytes)) {}
  }
  response.on("drain", more)
  more()
}

/** The right part, and then more without end. */
export const endlessPart: Fault = part((exchange, from) => {
  start(exchange, 206, partHeaders(exchange, from))
  exchange.response.write(exchange.file.bytes.subarray(from))
  pour(exchange)
})

export const status =
  (code: number): Fault =>
  (exchange) => {
    start(exchange, code, {})
    finish(exchange, new Uint8Array())
  }

/** Sends a request for `path` on to another one. */
export const redirects =
  (path: string, to: () => string, then: Fault = honest): Fault =>
  (exchange) => {
    if (exchange.request.url !== path) return then(exchange)
    start(exchange, 302, { location: to() })
    return finish(exchange, new Uint8Array())
  }

/** Bytes that look random and are the same every time. */
export const deterministic = (size: number, seed = 1): Uint8Array => {
  const words = new Uint32Array(Math.ceil(size / 4))
  let x = seed
  for (let i = 0; i < words.length; i++) {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    words[i] = x
  }
  return new Uint8Array(words.buffer, 0, size)
}
