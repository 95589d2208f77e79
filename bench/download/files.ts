/** The files of the work `download`: the same ones on every machine, and the look at what a client has made of them. */
import { createHash } from "node:crypto"
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"

export interface ServedFile {
  readonly name: string
  readonly sha256: string
  readonly bytes: number
}

/** Log-normal: half of all files are smaller than this. */
export const medianBytes = 8 * 1_024
export const sigma = 1.2
/** Longer ones are cut to it. */
export const largestBytes = 4 * 2 ** 20

/** Evenly spread in [0, 1), always the same (mulberry32). */
const numbers = (seed: number) => (): number => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
}

/** Makes them in a folder. Each is a piece of one block of noise. */
export const makeFiles = (folder: string, count: number): ReadonlyArray<ServedFile> => {
  mkdirSync(folder, { recursive: true })
  const random = numbers(6)
  const noise = Buffer.alloc(2 * largestBytes)
  for (let at = 0; at < noise.length; at += 4) noise.writeUInt32LE(random() * 2 ** 32, at)
  return Array.from({ length: count }, (_, i) => {
    const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
    const bytes = Math.min(largestBytes, Math.max(1, Math.round(medianBytes * Math.exp(sigma * normal))))
    const from = Math.floor(random() * (noise.length - bytes))
    const body = noise.subarray(from, from + bytes)
    const name = `f${String(i).padStart(6, "0")}.bin`
    writeFileSync(join(folder, name), body)
    return { name, bytes, sha256: createHash("sha256").update(body).digest("hex") }
  })
}

/** Ensures: the folder has every file, whole, and nothing else. */
export const checkFiles = (folder: string, files: ReadonlyArray<ServedFile>, client: string): void => {
  for (const { name, sha256 } of files) {
    const found = createHash("sha256")
      .update(readFileSync(join(folder, name)))
      .digest("hex")
    if (found !== sha256) throw new Error(`${client}: ${name} has the hash ${found}, not ${sha256}`)
  }
  const there = readdirSync(folder).length
  if (there !== files.length) throw new Error(`${client}: ${there} files instead of ${files.length}`)
}
