/** What this process holds after a full collection. */
import process from "node:process"
import * as v8 from "node:v8"
import { runInNewContext } from "node:vm"

export interface MemoryUse {
  readonly heapBytes: number
  readonly bufferBytes: number
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
  const { arrayBuffers, heapUsed, rss } = process.memoryUsage()
  return { heapBytes: heapUsed, bufferBytes: arrayBuffers, rssBytes: rss }
}
