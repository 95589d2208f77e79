/**
 * Requests to a log and their answers, as data: what a store asks of its thread, or of the log itself without one.
 *
 * To the thread the rows of a batch cross in one buffer that is handed over: a commit costs one copy, and keeps no
 * reference to the manager's memory.
 */
import * as Thread from "../platform/Thread.ts"
import type { Batch, Row } from "./Batch.ts"
import { type Fault, Refused } from "./Fault.ts"
import { type LogOptions, type Page, type Reserve, SqliteLog } from "./SqliteLog.ts"

export type Request =
  | { readonly ask: "open" }
  | { readonly ask: "commit"; readonly batch: Batch }
  | { readonly ask: "page"; readonly from: number }
  | { readonly ask: "read"; readonly seqs: ReadonlyArray<number> }
  | { readonly ask: "tend" }
  | { readonly ask: "close" }

export interface Answer {
  readonly fault: Fault | undefined
  readonly reserve: Reserve
  readonly opened?: { readonly instance: Uint8Array; readonly epoch: number; readonly sqliteVersion: string }
  readonly page?: Page
  readonly rows?: ReadonlyArray<Row>
}

/** What the log says to a request. After a commit its `settle` is still to be called, when the answer is out. */
export const answerTo = (log: SqliteLog, request: Request): Answer => {
  switch (request.ask) {
    case "open": {
      const { epoch, instance, reserve, sqliteVersion } = log
      return { fault: undefined, reserve, opened: { epoch, instance, sqliteVersion } }
    }
    case "commit": {
      const fault = log.commit(request.batch)
      return { fault, reserve: log.reserve }
    }
    case "page": {
      const { fault, value } = log.page(request.from)
      return { fault, reserve: log.reserve, ...(value === undefined ? {} : { page: value }) }
    }
    case "read": {
      const { fault, value } = log.read(request.seqs)
      return { fault, reserve: log.reserve, ...(value === undefined ? {} : { rows: value }) }
    }
    case "tend":
      return { fault: log.tend(), reserve: log.reserve }
    case "close":
      log.close()
      return { fault: undefined, reserve: log.reserve }
  }
}

interface PackedCommit {
  readonly ask: "packed"
  readonly seqs: ReadonlyArray<number>
  readonly sizes: ReadonlyArray<number>
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly dropBefore: number
  readonly durability: Batch["durability"]
}

/** A request as it crosses to the thread. */
export type Message = Exclude<Request, { readonly ask: "commit" }> | PackedCommit

export const pack = (request: Request): Message => {
  if (request.ask !== "commit") return request
  const { dropBefore, durability, rows } = request.batch
  const sizes = rows.map(({ body }) => body.byteLength)
  const bytes = new Uint8Array(sizes.reduce((sum, size) => sum + size, 0))
  let at = 0
  for (const { body } of rows) {
    bytes.set(body, at)
    at += body.byteLength
  }
  return { ask: "packed", seqs: rows.map(({ seq }) => seq), sizes, bytes, dropBefore, durability }
}

const unpack = (message: Message): Request => {
  if (message.ask !== "packed") return message
  const { bytes, dropBefore, durability, seqs, sizes } = message
  let at = 0
  const rows = sizes.map((size, i): Row => {
    at += size
    return { seq: seqs[i]!, body: bytes.subarray(at - size, at) }
  })
  return { ask: "commit", batch: { rows, dropBefore, durability } }
}

/** The buffers of rows that own theirs: these are handed over, the others are copied. */
const buffersOf = (rows: ReadonlyArray<Row>): ReadonlyArray<ArrayBuffer> => {
  const found = new Set<ArrayBuffer>()
  for (const { body } of rows) {
    const { buffer } = body
    if (buffer instanceof ArrayBuffer && body.byteLength > 0 && body.byteLength === buffer.byteLength) found.add(buffer)
  }
  return [...found]
}

/** Runs in the thread: opens the log, and answers until it is closed. A refusal is the answer to everything. */
export const serve = (): void =>
  Thread.serveThread<LogOptions, Message, Answer>((options) => {
    let log: SqliteLog
    try {
      log = new SqliteLog(options)
    } catch (error) {
      if (!(error instanceof Refused)) throw error
      const answer: Answer = { fault: error.fault, reserve: { ballast: false, spareBytes: 0 } }
      return () => ({ answer, transfer: [], end: true })
    }
    return (message) => {
      const request = unpack(message)
      const answer = answerTo(log, request)
      return {
        answer,
        transfer: buffersOf(answer.page?.rows ?? answer.rows ?? []),
        after: request.ask === "commit" ? () => log.settle() : undefined,
        end: request.ask === "close"
      }
    }
  })
