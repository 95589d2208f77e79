/**
 * What the protocol's own MessagePack subset costs beside msgpackr: encode and decode of a put of 256 payloads of 60 bytes.
 * The figures of ADR 0002. Run it with `node bench/messagepack.ts`.
 */
import { readFileSync } from "node:fs"
import process from "node:process"
import { isNativeAccelerationEnabled, Packr, Unpackr } from "msgpackr"
import { Reader } from "../src/wire/Bytes.ts"
import * as Client from "../src/wire/ClientMessages.ts"
import { FrameWriter, flushed } from "../src/wire/Frames.ts"
import { ClientType } from "../src/wire/Vocabulary.ts"

const rounds = 3_000
const payloads = Array.from({ length: 256 }, (_, i) => new Uint8Array(60).fill(i))
const message: Client.Put = {
  type: ClientType.put,
  request: 7,
  queue: 0,
  atomic: false,
  waitMs: undefined,
  payloads,
  options: undefined
}
const packr = new Packr({ useRecords: false })
const unpackr = new Unpackr({ useRecords: false })
const frames = new FrameWriter()

const theirsEncode = (): Uint8Array => packr.pack([ClientType.put, 7, 0, false, null, payloads])
const oursEncode = (): Uint8Array => {
  Client.encode(frames.begin(), message)
  return flushed(frames)
}
const theirs = theirsEncode()
const ours = Buffer.from(oursEncode().subarray(4))
// Both are the same MessagePack value.
if (JSON.stringify(unpackr.unpack(ours)) !== JSON.stringify(unpackr.unpack(theirs)))
  throw new Error("not the same value")

/** Microseconds per call: the median of nine runs. */
const measure = (run: () => unknown): string => {
  const times: Array<number> = []
  for (let i = 0; i < rounds; i++) run()
  for (let repeat = 0; repeat < 9; repeat++) {
    const startedAt = process.hrtime.bigint()
    for (let i = 0; i < rounds; i++) run()
    times.push(Number(process.hrtime.bigint() - startedAt) / rounds / 1_000)
  }
  return times.sort((a, b) => a - b)[4]!.toFixed(1)
}

const manifest = new URL("../node_modules/msgpackr/package.json", import.meta.url)
const { version } = JSON.parse(readFileSync(manifest, "utf8")) as { version: string }
console.log(
  `node ${process.version}, msgpackr ${version} (native addon ${isNativeAccelerationEnabled}), ${ours.length} bytes`
)
for (let run = 1; run <= 3; run++) {
  const row = {
    "msgpackr encode": measure(theirsEncode),
    "msgpackr decode": measure(() => unpackr.unpack(theirs)),
    "msgpackr both": measure(() => unpackr.unpack(theirsEncode())),
    "ours encode": measure(oursEncode),
    "ours decode": measure(() => Client.decode(new Reader(ours))),
    "ours both": measure(() => Client.decode(new Reader(oursEncode().subarray(4))))
  }
  console.log(
    Object.entries(row)
      .map(([name, us]) => `${name} ${us} us`)
      .join(", ")
  )
}
