/** Every target, and the inputs that once failed: those are looked at first in every run. */
import { readFileSync } from "node:fs"
import { fromHex } from "../../src/wire/Bytes.ts"
import { replayKept, type Target } from "./target.ts"
import * as Targets from "./targets.ts"

export const targets: ReadonlyArray<Target> = [
  Targets.frames(),
  Targets.clientDecoder(),
  Targets.managerDecoder(),
  Targets.scram(),
  Targets.handshake(),
  Targets.payloads(),
  Targets.rows(),
  Targets.crawl()
]

interface Kept {
  readonly target: string
  /** What was wrong. */
  readonly why: string
  /** Hex; `{n}` behind a byte repeats it. */
  readonly input: string
}

const kept = JSON.parse(readFileSync(new URL("kept/inputs.json", import.meta.url), "utf8")) as ReadonlyArray<Kept>

const unpacked = (input: string): Uint8Array =>
  fromHex(input.replace(/(..)\{(\d+)\}/g, (_, byte: string, times: string) => byte.repeat(Number(times))))

/** How many kept inputs a target has, and what fails. */
export const replay = (target: Target): { readonly inputs: number; readonly failure: string | undefined } => {
  const own = kept.filter((each) => each.target === target.name)
  const inputs = own.map(({ input, why }) => ({ why, input: unpacked(input) }))
  return { inputs: inputs.length, failure: replayKept(target, inputs) }
}

/** Kept inputs of targets that are not there: a renamed target must not lose them. */
export const strays = kept.filter(({ target }) => !targets.some(({ name }) => name === target))
