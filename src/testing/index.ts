/**
 * Deterministic simulation of Millrace: real manager, clients and workers on a simulated clock, scheduler, network,
 * store and source of random bytes, with faults drawn from a seed, and checkers over what was seen.
 */
export { type Account, check, type Evidence, type Known, type Stats } from "./Check.ts"
export type { ObjectEnd, ObjectEnds } from "./CheckObjects.ts"
export { FaultCounts } from "./FaultCounts.ts"
export * from "./History.ts"
export { type LaneDecision, LaneLedger } from "./LaneLedger.ts"
export { attach, type Cause, type Decision, Ledger, type LedgerTask, type Violated } from "./Ledger.ts"
export { type Asker, type ObjectDecision, ObjectLedger } from "./ObjectLedger.ts"
export { SeededRandom } from "./Random.ts"
export { type RepeatDecision, RepeatLedger } from "./RepeatLedger.ts"
export { healthy, type NetworkFaults, SimNetwork } from "./SimNetwork.ts"
export {
  addCounts,
  type Counts,
  canary,
  faultKinds,
  noCounts,
  operationKinds,
  type Report,
  type SimulateOptions,
  simulate
} from "./Simulation.ts"
export { TraceHash } from "./TraceHash.ts"
export { Process, World } from "./World.ts"
