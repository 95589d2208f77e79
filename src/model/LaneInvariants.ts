/**
 * What must hold of the lanes of one queue after every operation, checked from the outside and without mercy for cost.
 *
 * Every lane stands where its limits, its leases and its tasks put it, every list and heap is whole, every count is the
 * count of what it counts.
 */
import { type Lane, Stand } from "./Lane.ts"
import type { Lanes } from "./Lanes.ts"
import { State, type Task } from "./Task.ts"

type Say = (holds: boolean, text: () => string) => void

/** Ensures: nothing is changed. `each` is called with every ready task. */
export const checkLanes = (lanes: Lanes, say: Say, each: (task: Task) => void = () => {}): void => {
  const inside = lanes.inside()
  const all = [inside.plain, ...inside.lanes.values()]
  let size = 0
  let settings = 0
  let unlimitedTasks = 0
  let limitedLanes = 0
  for (const lane of all) {
    size += lane.size
    if (lane.paused || lane.override !== undefined) settings++
    if (lane.stand === Stand.ring && lane.limits.limited) limitedLanes++
    if (lane.stand === Stand.ring && !lane.limits.limited) unlimitedTasks += lane.size
    buckets(lane, say, each)
    stands(lane, lanes, say)
  }
  say(size === lanes.size, () => `ready.size is ${lanes.size}, ${size} are listed`)
  say(settings === inside.settings, () => `${inside.settings} lane settings are counted, ${settings} there`)
  say(
    unlimitedTasks === inside.unlimitedTasks,
    () => `${inside.unlimitedTasks} unlimited tasks, ${unlimitedTasks} there`
  )
  say(limitedLanes === inside.limitedLanes, () => `${inside.limitedLanes} limited open lanes, ${limitedLanes} there`)
  rings(lanes, all, say)
  heap(inside.timed, Stand.timed, all, say)
  heap(inside.idle, Stand.idle, all, say)
  sizes(lanes, say)
}

const nameOf = (lane: Lane): string => (lane.key === undefined ? "the lane without a key" : `lane "${lane.key}"`)

const buckets = (lane: Lane, say: Say, each: (task: Task) => void): void => {
  let size = 0
  let last = -1
  for (let bucket = lane.first; bucket !== undefined; bucket = bucket.next) {
    const { priority } = bucket
    say(priority > last, () => `${nameOf(lane)}: priority ${priority} after ${last}`)
    last = priority
    say(!bucket.empty || lane.size === 0, () => `${nameOf(lane)}: an empty bucket beside tasks`)
    let before: Task | undefined
    // A corrupt list may be a ring.
    for (let task = bucket.head; task !== undefined && size <= lane.size; task = task.next) {
      const { n, place } = task
      const previous = before
      size++
      each(task)
      say(task.prev === previous, () => `task ${n}: the ready list of priority ${priority} is not linked back`)
      say(task.priority === priority, () => `task ${n}: in the ready list of priority ${priority}`)
      say(task.options?.key === lane.key, () => `task ${n}: in ${nameOf(lane)}`)
      say(task.state === State.ready, () => `task ${n}: state ${task.state} in a list of state ${State.ready}`)
      const rising = previous === undefined || previous.place < place || (previous.place === place && previous.n < n)
      say(rising, () => `task ${n}: place ${place} out of order`)
      before = task
    }
    const end = before
    say(bucket.tail === end, () => `${nameOf(lane)}: the ready list of priority ${priority} does not end at its tail`)
    const returned = bucket.returned?.toArray() ?? []
    for (const [i, task] of returned.entries()) {
      size++
      each(task)
      say(task.priority === priority, () => `task ${task.n}: returned to priority ${priority}`)
      say(task.options?.key === lane.key, () => `task ${task.n}: in ${nameOf(lane)}`)
      say(task.state === State.ready, () => `task ${task.n}: state ${task.state} in a list of state ${State.ready}`)
      const parent = i === 0 ? undefined : returned[(i - 1) >> 1]
      const ordered = parent === undefined || parent.place <= task.place
      say(ordered, () => `task ${task.n}: the heap of returned tasks is out of order`)
    }
  }
  const listed = size
  say(listed === lane.size, () => `${nameOf(lane)}: size is ${lane.size}, ${listed} are listed`)
}

/** Where it stands is where it must, with the time that the lanes last saw. */
const stands = (lane: Lane, lanes: Lanes, say: Say): void => {
  const { key, limits, running, size } = lane
  const { lanes: known, now } = lanes.inside()
  say(key === undefined || known.get(key) === lane, () => `${nameOf(lane)} is not under its key`)
  say(running >= 0, () => `${nameOf(lane)}: ${running} leases`)
  const blocked = lane.paused || (limits.concurrency > 0 && running >= limits.concurrency)
  const state = key === undefined ? "Open" : lanes.laneStats(key, now).state._tag
  const setting = lane.paused || lane.override !== undefined
  const kept = running > 0 || setting || key === undefined
  const expected =
    size > 0
      ? blocked
        ? Stand.nowhere
        : state === "Open"
          ? Stand.ring
          : Stand.timed
      : kept
        ? Stand.nowhere
        : Stand.idle
  say(lane.stand === expected, () => `${nameOf(lane)} stands at ${lane.stand}, must at ${expected}`)
  say(lane.stand !== Stand.timed || lane.at > now, () => `${nameOf(lane)} is open and waits for its time`)
  const first = lane.first?.priority
  say(lane.stand !== Stand.ring || lane.priority === first, () => `${nameOf(lane)} is in the ring of another priority`)
  const turn = lane.turn >= 1 && lane.turn <= limits.weight
  say(lane.stand !== Stand.ring || turn, () => `${nameOf(lane)}: ${lane.turn} tasks left in a turn of ${limits.weight}`)
}

const rings = (lanes: Lanes, all: ReadonlyArray<Lane>, say: Say): void => {
  const { occupied, rings } = lanes.inside()
  let listed = 0
  for (let priority = 0; priority < 256; priority++) {
    const head = rings[priority]
    const bit = (occupied[priority >> 5]! >>> (31 - (priority & 31))) & 1
    say((head !== undefined) === (bit === 1), () => `the ring of priority ${priority} is not where it is looked for`)
    let lane = head
    while (lane !== undefined && listed <= all.length) {
      const here = lane
      listed++
      say(here.stand === Stand.ring, () => `${nameOf(here)} is in a ring and stands at ${here.stand}`)
      say(here.priority === priority, () => `${nameOf(here)} is in the ring of priority ${priority}`)
      say(here.ringNext?.ringPrev === here, () => `${nameOf(here)}: its ring is not linked back`)
      lane = here.ringNext === head ? undefined : here.ringNext
    }
  }
  const standing = all.filter(({ stand }) => stand === Stand.ring).length
  say(listed === standing, () => `${standing} lanes stand in rings, ${listed} are listed`)
}

const heap = (entries: ReadonlyArray<Lane>, stand: Stand, all: ReadonlyArray<Lane>, say: Say): void => {
  for (const [i, lane] of entries.entries()) {
    say(lane.slot === i, () => `${nameOf(lane)} in slot ${i} believes it is in ${lane.slot}`)
    say(lane.stand === stand, () => `${nameOf(lane)} is in the heap of ${stand} and stands at ${lane.stand}`)
    const parent = i === 0 ? undefined : entries[(i - 1) >> 1]
    say(parent === undefined || parent.at <= lane.at, () => `the heap of lanes is out of order at slot ${i}`)
  }
  const standing = all.filter((lane) => lane.stand === stand).length
  say(standing === entries.length, () => `${standing} lanes stand at ${stand}, ${entries.length} are in its heap`)
}

const sizes = (lanes: Lanes, say: Say): void => {
  const { lanes: known, sizes } = lanes.inside()
  let listed = 0
  for (const [size, head] of sizes.entries()) {
    for (let lane = head; lane !== undefined && listed <= known.size; lane = lane.sizeNext) {
      const { key, size: tasks, sizeClass } = lane
      listed++
      const right = sizeClass === size && 32 - Math.clz32(tasks) === size
      say(right, () => `lane "${key}" has ${tasks} tasks and is in the list of size ${size}`)
    }
  }
  const filled = [...known.values()].filter(({ size }) => size > 0).length
  say(listed === filled, () => `${filled} lanes have tasks, ${listed} are listed by size`)
}
