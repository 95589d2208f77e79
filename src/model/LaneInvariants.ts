/**
 * What must hold of the lanes of one queue after every operation, checked from the outside and without mercy for cost.
 *
 * Every lane stands where its limits, its leases and its tasks put it, every list and heap is whole, every count is the
 * count of what it counts.
 */
import { type Lane, Stand } from "./Lane.ts"
import type { Lanes, LanesInside } from "./Lanes.ts"
import { State, type Task } from "./Task.ts"

type Say = (text: string) => void

/** Ensures: nothing is changed. `each` is called with every ready task. */
export const checkLanes = (lanes: Lanes, say: Say, each: (task: Task) => void = () => {}): void => {
  const inside = lanes.inside()
  let size = 0
  let open = 0
  let timed = 0
  let idle = 0
  let filled = 0
  let settings = 0
  let unlimitedTasks = 0
  let limitedLanes = 0
  const look = (lane: Lane): void => {
    size += lane.size
    if (lane.stand === Stand.ring) open++
    else if (lane.stand === Stand.timed) timed++
    else if (lane.stand === Stand.idle) idle++
    if (lane.key !== undefined && lane.size > 0) filled++
    if (lane.paused || lane.override !== undefined) settings++
    if (lane.stand === Stand.ring && lane.limits.limited) limitedLanes++
    if (lane.stand === Stand.ring && !lane.limits.limited) unlimitedTasks += lane.size
    buckets(lane, say, each)
    stands(lane, lanes, inside, say)
  }
  look(inside.plain)
  for (const lane of inside.lanes.values()) look(lane)
  if (size !== lanes.size) say(`ready.size is ${lanes.size}, ${size} are listed`)
  if (settings !== inside.settings) say(`${inside.settings} lane settings are counted, ${settings} there`)
  if (unlimitedTasks !== inside.unlimitedTasks) say(`${inside.unlimitedTasks} unlimited tasks, ${unlimitedTasks} there`)
  if (limitedLanes !== inside.limitedLanes) say(`${inside.limitedLanes} limited open lanes, ${limitedLanes} there`)
  rings(inside, open, say)
  heap(inside.timed, Stand.timed, timed, say)
  heap(inside.idle, Stand.idle, idle, say)
  sizes(inside, filled, say)
}

const nameOf = (lane: Lane): string => (lane.key === undefined ? "the lane without a key" : `lane "${lane.key}"`)

const buckets = (lane: Lane, say: Say, each: (task: Task) => void): void => {
  let size = 0
  let last = -1
  for (let bucket = lane.first; bucket !== undefined; bucket = bucket.next) {
    const { priority } = bucket
    if (priority <= last) say(`${nameOf(lane)}: priority ${priority} after ${last}`)
    last = priority
    if (bucket.empty && lane.size > 0) say(`${nameOf(lane)}: an empty bucket beside tasks`)
    let before: Task | undefined
    // A corrupt list may be a ring.
    for (let task = bucket.head; task !== undefined && size <= lane.size; task = task.next) {
      const { n, place } = task
      size++
      each(task)
      if (task.prev !== before) say(`task ${n}: the ready list of priority ${priority} is not linked back`)
      if (task.priority !== priority) say(`task ${n}: in the ready list of priority ${priority}`)
      if (task.options?.key !== lane.key) say(`task ${n}: in ${nameOf(lane)}`)
      if (task.state !== State.ready) say(`task ${n}: state ${task.state} in a list of state ${State.ready}`)
      const rising = before === undefined || before.place < place || (before.place === place && before.n < n)
      if (!rising) say(`task ${n}: place ${place} out of order`)
      before = task
    }
    if (bucket.tail !== before) say(`${nameOf(lane)}: the ready list of priority ${priority} does not end at its tail`)
    const returned = bucket.returned?.entries() ?? []
    for (let i = 0; i < returned.length; i++) {
      const task = returned[i]!
      size++
      each(task)
      if (task.priority !== priority) say(`task ${task.n}: returned to priority ${priority}`)
      if (task.options?.key !== lane.key) say(`task ${task.n}: in ${nameOf(lane)}`)
      if (task.state !== State.ready) say(`task ${task.n}: state ${task.state} in a list of state ${State.ready}`)
      const parent = i === 0 ? undefined : returned[(i - 1) >> 1]
      const ordered = parent === undefined || parent.place <= task.place
      if (!ordered) say(`task ${task.n}: the heap of returned tasks is out of order`)
    }
  }
  if (size !== lane.size) say(`${nameOf(lane)}: size is ${lane.size}, ${size} are listed`)
}

/** Where it stands is where it must, with the time that the lanes last saw. */
const stands = (lane: Lane, lanes: Lanes, { lanes: known, now }: LanesInside, say: Say): void => {
  const { key, limits, running, size } = lane
  if (key !== undefined && known.get(key) !== lane) say(`${nameOf(lane)} is not under its key`)
  if (running < 0) say(`${nameOf(lane)}: ${running} leases`)
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
  if (lane.stand !== expected) say(`${nameOf(lane)} stands at ${lane.stand}, must at ${expected}`)
  if (lane.stand === Stand.timed && !(lane.at > now)) say(`${nameOf(lane)} is open and waits for its time`)
  const first = lane.first?.priority
  if (lane.stand === Stand.ring && lane.priority !== first) say(`${nameOf(lane)} is in the ring of another priority`)
  const turn = lane.turn >= 1 && lane.turn <= limits.weight
  if (lane.stand === Stand.ring && !turn) say(`${nameOf(lane)}: ${lane.turn} tasks left in a turn of ${limits.weight}`)
}

const rings = ({ occupied, rings }: LanesInside, standing: number, say: Say): void => {
  let listed = 0
  const words = [0, 0, 0, 0, 0, 0, 0, 0]
  for (let priority = 0; priority < rings.length; priority++) {
    const head = rings[priority]
    if (head === undefined) continue
    words[priority >> 5]! |= 1 << (31 - (priority & 31))
    let lane: Lane | undefined = head
    while (lane !== undefined && listed <= standing) {
      listed++
      if (lane.stand !== Stand.ring) say(`${nameOf(lane)} is in a ring and stands at ${lane.stand}`)
      if (lane.priority !== priority) say(`${nameOf(lane)} is in the ring of priority ${priority}`)
      if (lane.ringNext?.ringPrev !== lane) say(`${nameOf(lane)}: its ring is not linked back`)
      lane = lane.ringNext === head ? undefined : lane.ringNext
    }
  }
  for (let word = 0; word < 8; word++) {
    const wrong = words[word]! ^ occupied[word]!
    if (wrong !== 0) say(`the ring of priority ${32 * word + Math.clz32(wrong)} is not where it is looked for`)
  }
  if (listed !== standing) say(`${standing} lanes stand in rings, ${listed} are listed`)
}

const heap = (entries: ReadonlyArray<Lane>, stand: Stand, standing: number, say: Say): void => {
  for (let i = 0; i < entries.length; i++) {
    const lane = entries[i]!
    if (lane.slot !== i) say(`${nameOf(lane)} in slot ${i} believes it is in ${lane.slot}`)
    if (lane.stand !== stand) say(`${nameOf(lane)} is in the heap of ${stand} and stands at ${lane.stand}`)
    const parent = i === 0 ? undefined : entries[(i - 1) >> 1]
    if (!(parent === undefined || parent.at <= lane.at)) say(`the heap of lanes is out of order at slot ${i}`)
  }
  if (standing !== entries.length) say(`${standing} lanes stand at ${stand}, ${entries.length} are in its heap`)
}

const sizes = ({ lanes: known, sizes }: LanesInside, filled: number, say: Say): void => {
  let listed = 0
  for (const [size, head] of sizes.entries()) {
    for (let lane = head; lane !== undefined && listed <= known.size; lane = lane.sizeNext) {
      const { key, size: tasks, sizeClass } = lane
      listed++
      const right = sizeClass === size && 32 - Math.clz32(tasks) === size
      if (!right) say(`lane "${key}" has ${tasks} tasks and is in the list of size ${size}`)
    }
  }
  if (listed !== filled) say(`${filled} lanes have tasks, ${listed} are listed by size`)
}
