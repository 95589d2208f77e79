/** What a client must be able to do to be measured in the work `download`. */
import type { Context } from "../peers/system.ts"
import type { ServedFile } from "./files.ts"

/** What one download of all files took. */
export interface Pass {
  readonly seconds: number
  /** Of the client and its helpers. */
  readonly cpuSeconds: number
  readonly rssBytes: number
}

export interface ClientContext extends Pick<Context, "start" | "folder" | "durability"> {
  readonly files: ReadonlyArray<ServedFile>
  /** Of the server, without a slash at the end. */
  readonly origin: string
  /** Empty at the beginning of each pass. */
  readonly out: string
  /** Whether each file must be on the disk. */
  readonly sync: boolean
  readonly profile: { readonly directory: string; readonly name: string } | undefined
}

export interface ClientSystem {
  readonly name: string
  /** For the output: how it is driven. */
  readonly how: string
  /** Why it cannot run here, or undefined. */
  readonly missing: () => string | undefined
  /** For the output. */
  readonly version: () => string
  readonly start: (context: ClientContext) => Promise<{ readonly pass: () => Promise<Pass> }>
}
