/** The variants of work `crawl-dispatch`, the same for all systems. */

export interface Variant {
  /** Tasks of one call; 1: a call for each task. */
  readonly batch: number
  /** Calls under way at a time. */
  readonly inFlight: number
  /** Bytes of a payload as JSON; undefined: a URL and nothing else. */
  readonly payloadBytes?: number
  /** Worker processes. */
  readonly workers: number
  /** Handlers at a time in a worker; what may be leased ahead is not touched by it. */
  readonly concurrency: number
  /** Milliseconds added to each round trip between a client and the server, half of them each way. */
  readonly addedRoundTripMs: number
  /** Of a run. */
  readonly tasksMost: number
}

const batch256: Variant = {
  batch: 256,
  inFlight: 8,
  workers: 2,
  concurrency: 64,
  addedRoundTripMs: 0,
  tasksMost: 600_000
}
const single: Variant = { ...batch256, batch: 1, inFlight: 256, tasksMost: 300_000 }

export const variants: Readonly<Record<string, Variant>> = {
  batch256,
  single,
  "1kib": { ...batch256, payloadBytes: 1_024, tasksMost: 200_000 },
  // 256 of them would be 16 MiB a call.
  "64kib": { ...batch256, batch: 16, payloadBytes: 65_536, tasksMost: 10_000 },
  "batch256-w1": { ...batch256, workers: 1 },
  "batch256-w8": { ...batch256, workers: 8 },
  "batch256-c1": { ...batch256, concurrency: 1 },
  "batch256-rtt2": { ...batch256, addedRoundTripMs: 2 },
  "single-rtt2": { ...single, addedRoundTripMs: 2 }
}
