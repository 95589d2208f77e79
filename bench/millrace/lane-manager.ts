/**
 * The manager of the work `lanes`. It is the manager of every work, with one look from outside: when was each lane granted
 * a lease, by the engine's clock (the one that decides) and by the machine's.
 */
import { Lanes } from "../../src/model/Lanes.ts"
import { monotonicMs } from "../harness/role.ts"
import { serveManager } from "./serveManager.ts"

export interface Grants {
  readonly grants: number
  readonly seconds: number
  /** The smallest time between two grants of one lane. */
  readonly smallestGapMs: number
  readonly smallestMachineGapMs: number
}

interface Last {
  engineMs: number
  machineMs: number
}

const last = new Map<string, Last>()
let grants = 0
let from = 0
let to = 0
let smallestGapMs = Number.POSITIVE_INFINITY
let smallestMachineGapMs = Number.POSITIVE_INFINITY

const pop = Lanes.prototype.pop
Lanes.prototype.pop = function (now, prefetch) {
  const task = pop.call(this, now, prefetch)
  const key = task?.options?.key
  if (task === undefined || key === undefined || task.queue.policy.laneGapMs === 0) return task
  const machineMs = monotonicMs()
  if (grants++ === 0) from = machineMs
  to = machineMs
  const before = last.get(key)
  if (before === undefined) last.set(key, { engineMs: now, machineMs })
  else {
    smallestGapMs = Math.min(smallestGapMs, now - before.engineMs)
    smallestMachineGapMs = Math.min(smallestMachineGapMs, machineMs - before.machineMs)
    before.engineMs = now
    before.machineMs = machineMs
  }
  return task
}

/** What was seen since the last call. Lanes are remembered: a gap over two passes counts. */
export const takeGrants = (): Grants => {
  const seen = { grants, seconds: (to - from) / 1_000, smallestGapMs, smallestMachineGapMs }
  grants = 0
  smallestGapMs = Number.POSITIVE_INFINITY
  smallestMachineGapMs = Number.POSITIVE_INFINITY
  return seen
}

serveManager({ grants: takeGrants })
