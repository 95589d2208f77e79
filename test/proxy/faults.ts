/** What the proxy does to every operation. `bench/RESULTS.md` has a table of it: a fault that is added here is added there. */
import type { SeededRandom } from "../../src/testing/Random.ts"
import type { Direction, Toxic } from "./Proxy.ts"

export interface Fault {
  readonly name: string
  readonly direction: Direction
  readonly toxic: (random: SeededRandom) => Toxic
}

const kinds: ReadonlyArray<readonly [Toxic["kind"], (random: SeededRandom) => Toxic]> = [
  ["latency", (random) => ({ kind: "latency", ms: random.between(5, 40), jitterMs: 20 })],
  ["stall", (random) => ({ kind: "stall", ms: random.between(100, 400) })],
  // A request and an answer have at least so many bytes: it breaks in one of them, before it, or right after it.
  ["reset", (random) => ({ kind: "reset", after: random.int(8) })],
  ["end", (random) => ({ kind: "end", after: random.int(8) })],
  ["block", () => ({ kind: "block" })],
  ["slice", () => ({ kind: "slice" })],
  ["bandwidth", (random) => ({ kind: "bandwidth", bytesPerSecond: random.between(500, 4_000) })]
]

export const faults: ReadonlyArray<Fault> = [
  ...kinds.flatMap(([kind, toxic]) =>
    (["up", "down"] as const).map((direction): Fault => ({ name: `${kind} ${direction}`, direction, toxic }))
  ),
  { name: "half-open", direction: "up", toxic: () => ({ kind: "half-open" }) }
]
