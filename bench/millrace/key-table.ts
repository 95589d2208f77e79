/**
 * The table of a shared set alone in a process, filled with URLs of 82 bytes: `fill` answers the resident memory, bytes an
 * entry, and nanoseconds of processor time per addition and per look-up (the key made, hashed and added).
 */
import process from "node:process"
import { FingerprintTable } from "../../src/model/objects/FingerprintTable.ts"
import { SipHash } from "../../src/model/objects/SipHash.ts"
import { serve } from "../harness/role.ts"

export interface TableFigures {
  readonly bytesPerEntry: number
  /** Growth of the process at its highest. */
  readonly rssBytesPerEntry: number
  readonly nsPerAdd: number
  readonly nsPerHas: number
  /** The slowest of each 64th addition. */
  readonly slowestMs: number
}

const template = "https://www.example.com/a/section/of/pages/with/a/rather/long/path/page-0000000000"
const url = new TextEncoder().encode(template)
const digits = url.byteLength

/** The same bytes each time, so that the keys themselves cost no memory here. */
const write = (n: number): void => {
  for (let at = digits - 1; at >= digits - 10; at--) {
    url[at] = 0x30 + (n % 10)
    n = Math.floor(n / 10)
  }
}

const fill = ({ entries }: { entries: number }): TableFigures => {
  const before = process.memoryUsage.rss()
  const table = new FingerprintTable()
  const hash = new SipHash(Uint8Array.from({ length: 16 }, (_, i) => i * 7 + 1))
  let slowestMs = 0
  let peak = 0
  const start = process.cpuUsage()
  for (let n = 0; n < entries; n++) {
    const from = n % 64 === 0 ? performance.now() : 0
    write(n)
    hash.of(url)
    if (!table.add(hash.words, 1 + Math.floor(n / 600), (n % 600) * 96)) throw new Error(`${n} was there`)
    if (from > 0) slowestMs = Math.max(slowestMs, performance.now() - from)
    if (n % 262_144 === 0) peak = Math.max(peak, process.memoryUsage.rss())
  }
  const adding = process.cpuUsage(start)
  peak = Math.max(peak, process.memoryUsage.rss())
  const middle = process.cpuUsage()
  const looked = Math.min(entries, 2_000_000)
  for (let n = 0; n < looked; n++) {
    write(n * 5)
    hash.of(url)
    if (table.has(hash.words) !== n * 5 < entries) throw new Error(`${n * 5} is not as it was left`)
  }
  const looking = process.cpuUsage(middle)
  if (table.size !== entries) throw new Error(`${table.size} entries of ${entries}`)
  const nsOf = ({ system, user }: NodeJS.CpuUsage, count: number): number => (1_000 * (system + user)) / count
  return {
    bytesPerEntry: table.bytes / entries,
    rssBytesPerEntry: (peak - before) / entries,
    nsPerAdd: nsOf(adding, entries),
    nsPerHas: nsOf(looking, looked),
    slowestMs
  }
}

serve({ fill }, () => Promise.resolve())
