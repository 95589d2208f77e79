/** What this process holds after a full collection. */
import process from "node:process"
import * as v8 from "node:v8"
import { runInNewContext } from "node:vm"

export interface MemoryUse {
  readonly heapBytes: number
  readonly bufferBytes: number
  /** Array buffers, and what else V8 knows of outside its heap. */
  readonly externalBytes: number
  readonly rssBytes: number
}

let collect: (() => void) | undefined

export const memoryUse = (): MemoryUse => {
  if (collect === undefined) {
    v8.setFlagsFromString("--expose-gc")
    collect = runInNewContext("gc") as () => void
  }
  collect()
  collect()
  const { arrayBuffers, external, heapUsed, rss } = process.memoryUsage()
  return { heapBytes: heapUsed, bufferBytes: arrayBuffers, externalBytes: external, rssBytes: rss }
}
