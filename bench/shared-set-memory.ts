/** Work `shared-set-memory`: what a set of 10,000,000 URLs costs in memory, and an addition and a look-up in processor time. */
import { withChildren } from "./harness/children.ts"
import { type Measurement, progress, spread } from "./harness/report.ts"
import type { Work } from "./harness/work.ts"
import type { TableFigures } from "./millrace/key-table.ts"

const entriesDefault = 10_000_000
const fillMs = 600_000
interface Shown {
  readonly of: keyof TableFigures
  readonly unit: Measurement["unit"]
  readonly digits: number
}
const shown: Readonly<Record<string, Shown>> = {
  table: { of: "bytesPerEntry", unit: "bytes/key", digits: 1 },
  "rss-peak": { of: "rssBytesPerEntry", unit: "bytes/key", digits: 1 },
  add: { of: "nsPerAdd", unit: "ns", digits: 0 },
  has: { of: "nsPerHas", unit: "ns", digits: 0 },
  slowest: { of: "slowestMs", unit: "ms", digits: 2 }
}

export const sharedSetMemory: Work = {
  name: "shared-set-memory",
  variants: Object.keys(shown),
  onlyByName: true,
  runs: 1,
  run: async ({ runs, tasks, variant: only }) => {
    const entries = tasks ?? entriesDefault
    const all: Array<TableFigures> = []
    for (let run = 1; run <= runs; run++) {
      // Each in a process of its own.
      const script = new URL("./millrace/key-table.ts", import.meta.url)
      const one = await withChildren((start) =>
        start({ name: "key table", script }).call<TableFigures>("fill", { entries }, fillMs)
      )
      progress(`shared-set-memory run ${run} of ${runs}: ${one.bytesPerEntry.toFixed(1)} bytes a key`)
      all.push(one)
    }
    const measurements = Object.entries(shown)
      .filter(([variant]) => variant === (only ?? variant))
      .map(
        ([variant, { digits, of, unit }]): Measurement => ({
          work: "shared-set-memory",
          variant,
          durability: "memory",
          workers: 0,
          system: "millrace",
          ...spread(
            all.map((one) => one[of]),
            digits
          ),
          unit,
          runs
        })
      )
    const notes = [
      `shared-set-memory: ${entries} URLs of 82 bytes; \`slowest\` is the slowest of every 64th addition, the growth of the table in it`
    ]
    return { measurements, notes }
  }
}
