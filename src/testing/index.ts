/**
 * Deterministic simulation of Millrace: real manager, clients and workers on a simulated clock, scheduler, network,
 * store and source of random bytes, with faults drawn from a seed, and checkers over what was seen.
 */
export { FaultCounts } from "./FaultCounts.ts"
export * from "./History.ts"
export { SeededRandom } from "./Random.ts"
export * as SimNetwork from "./SimNetwork.ts"
export { type Counts, type Report, type SimulateOptions, simulate } from "./Simulation.ts"
export { TraceHash } from "./TraceHash.ts"
export { Process, World } from "./World.ts"
