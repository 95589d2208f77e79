/**
 * A second thread that answers requests one after the other, on Node, Deno and Bun (`node:worker_threads`).
 *
 * Requests are answered in the order in which they were made. A thread that ends before it was asked to ends every
 * request that waits.
 */
import { setImmediate } from "node:timers"
import { parentPort, Worker, workerData } from "node:worker_threads"

export interface Thread<Request, Answer> {
  /** Calls back exactly once; with undefined when the thread is gone. `transfer` is no longer the caller's. */
  readonly ask: (
    request: Request,
    transfer: ReadonlyArray<ArrayBuffer>,
    answer: (answer: Answer | undefined) => void
  ) => void
  /** Why it is gone, if it is. */
  readonly gone: () => string | undefined
}

/** Starts `script` (a module without extension, beside `moduleUrl`) with `data`. */
export const startThread = <Data, Request, Answer>(
  script: string,
  moduleUrl: string,
  data: Data
): Thread<Request, Answer> => {
  // The package holds `.js` files, the repository `.ts` files that the runtimes run as they are.
  const extension = moduleUrl.split(/[?#]/)[0]!.endsWith(".ts") ? ".ts" : ".js"
  const worker = new Worker(new URL(script + extension, moduleUrl), { workerData: data })
  const waiting: Array<(answer: Answer | undefined) => void> = []
  let reason: string | undefined
  const lose = (text: string): void => {
    reason ??= text
    for (const answer of waiting.splice(0)) answer(undefined)
  }
  worker.on("message", (answer: Answer) => waiting.shift()?.(answer))
  worker.on("error", (error) => lose(error instanceof Error ? error.message : String(error)))
  worker.on("messageerror", (error) => lose(error.message))
  worker.on("exit", () => lose("its thread has ended"))
  return {
    ask: (request, transfer, answer) => {
      if (reason !== undefined) return answer(undefined)
      waiting.push(answer)
      worker.postMessage(request, transfer)
    },
    gone: () => reason
  }
}

export interface Served<Answer> {
  readonly answer: Answer
  readonly transfer: ReadonlyArray<ArrayBuffer>
  /** Runs when the answer is out. */
  readonly after?: (() => void) | undefined
  /** Nothing is asked after this. */
  readonly end?: boolean
}

/** The other side: `begin` gets the data and returns what answers each request. */
export const serveThread = <Data, Request, Answer>(
  begin: (data: Data) => (request: Request) => Served<Answer>
): void => {
  const port = parentPort
  if (port === null) throw new Error("not in a thread")
  const serve = begin(workerData as Data)
  port.on("message", (request: Request) => {
    const { after, answer, end, transfer } = serve(request)
    port.postMessage(answer, transfer)
    after?.()
    if (end === true) close(port)
  })
}

/** Deno's port has no `close`; a thread there ends itself as a worker of the web does. */
const close = (port: { readonly close?: () => void }): void => {
  if (typeof port.close === "function") return port.close()
  setImmediate(() => (globalThis as { readonly close?: () => void }).close?.())
}
