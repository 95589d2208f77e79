/**
 * What 10,000,000 URLs cost as a set: `node bench/shared-set-memory.ts [entries]`. Prints the resident memory of this
 * process before and after, bytes per entry, and nanoseconds of processor time per addition and per look-up of
 * 82-byte keys (the key made, hashed and added).
 */
import { FingerprintTable } from "../src/model/objects/FingerprintTable.ts"
import { SipHash } from "../src/model/objects/SipHash.ts"

const entries = Number(process.argv[2] ?? 10_000_000)
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

const before = process.memoryUsage().rss
const table = new FingerprintTable()
const hash = new SipHash(Uint8Array.from({ length: 16 }, (_, i) => i * 7 + 1))
let worst = 0
let peak = 0
const start = process.cpuUsage()
for (let n = 0; n < entries; n++) {
  const from = n % 64 === 0 ? performance.now() : 0
  write(n)
  hash.of(url)
  if (!table.add(hash.words, 1 + Math.floor(n / 600), (n % 600) * 96)) throw new Error(`${n} was there`)
  if (from > 0) worst = Math.max(worst, performance.now() - from)
  if (n % 262_144 === 0) peak = Math.max(peak, process.memoryUsage().rss)
}
const adding = process.cpuUsage(start)
const middle = process.cpuUsage()
const looked = Math.min(entries, 2_000_000)
for (let n = 0; n < looked; n++) {
  write(n * 5)
  hash.of(url)
  if (table.has(hash.words) !== n * 5 < entries) throw new Error(`${n * 5} is not as it was left`)
}
const looking = process.cpuUsage(middle)
const { rss } = process.memoryUsage()
const nsOf = ({ system, user }: NodeJS.CpuUsage, count: number): number => Math.round((1_000 * (system + user)) / count)
const mib = (bytes: number): number => Math.round(bytes / 104_857.6) / 10
console.log(
  JSON.stringify({
    entries: table.size,
    rssMiBBefore: mib(before),
    rssMiB: mib(rss),
    rssMiBPeak: mib(Math.max(peak, rss)),
    tableMiB: mib(table.bytes),
    bytesPerEntry: Math.round((10 * table.bytes) / table.size) / 10,
    nsPerAdd: nsOf(adding, entries),
    nsPerHas: nsOf(looking, looked),
    slowestOf64thMs: Math.round(worst * 100) / 100
  })
)
