/** Millrace's downloader in a process of its own, without a queue: one program that downloads a list of files. */
import { join } from "node:path"
import process from "node:process"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import { Download, Fetch } from "../../src/crawl/index.ts"
import { monotonicMs, serve, usage } from "../harness/role.ts"
import type { ServedFile } from "./files.ts"
import type { Pass } from "./system.ts"

const concurrency = 16

const runtime = ManagedRuntime.make(
  Layer.mergeAll(Fetch.layerWith({ connectionsPerOrigin: concurrency }), NodeServices.layer)
)

interface Order {
  readonly files: ReadonlyArray<ServedFile>
  readonly origin: string
  readonly out: string
  readonly sync: boolean
}

const pass = async ({ files, origin, out, sync }: Order): Promise<Pass> => {
  const cpuBefore = usage().cpuSeconds
  const beganMs = monotonicMs()
  await runtime.runPromise(
    Effect.forEach(
      files,
      ({ name, sha256 }) => Download.file({ url: `${origin}/${name}`, path: join(out, name), sha256, sync }),
      { concurrency, discard: true }
    )
  )
  const seconds = (monotonicMs() - beganMs) / 1_000
  return { seconds, cpuSeconds: usage().cpuSeconds - cpuBefore, rssBytes: process.resourceUsage().maxRSS * 1_024 }
}

serve({ pass }, () => runtime.dispose())
