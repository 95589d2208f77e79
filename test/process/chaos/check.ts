/**
 * What must hold of a chaos run, checked from what its processes said: pure, and itself tested with planted histories.
 *
 * - a receipt's task has exactly one outcome, and each put that was answered made exactly one task;
 * - no handler starts after the master has seen its task's outcome;
 * - a task is delivered again only after the process that had it was killed: who lives keeps what it holds;
 * - each commit put its one child, and no other did.
 */
export interface Death {
  readonly pid: number
  readonly at: bigint
}

export interface History {
  /** The master's lines: `ack n task from to`, `perhaps n tag`, `outcome tag task n at`, `child ...`, `counts ...`. */
  readonly said: string
  /** The workers' lines: `start|end|child at task n pid`. */
  readonly deliveries: string
  readonly deaths: ReadonlyArray<Death>
  /** When the manager was killed. Without: nothing is counted as held over. */
  readonly managerDeaths?: ReadonlyArray<bigint> | undefined
}

export interface Findings {
  readonly acknowledged: number
  /** Puts of which the client could not say whether they happened. */
  readonly perhaps: number
  /** Puts that were under way when the manager died and have their receipt all the same. */
  readonly heldOver: number
  readonly outcomes: number
  readonly children: number
  readonly deliveries: number
  readonly redeliveries: number
  /** Handlers that began before a death of the manager and whose commit was taken after it. */
  readonly outlasted: number
  /** At most a hundred. */
  readonly violations: ReadonlyArray<string>
}

interface Outcome {
  readonly tag: string
  readonly n: number
  readonly at: bigint
}

interface Start {
  readonly at: bigint
  readonly pid: number
  end: bigint | undefined
}

const linesOf = (text: string): ReadonlyArray<ReadonlyArray<string>> =>
  text
    .split("\n")
    .slice(0, -1)
    .map((line) => line.split(" "))

export const check = ({ deaths, deliveries, managerDeaths = [], said }: History): Findings => {
  const violations: Array<string> = []
  const wrong = (text: string): void => {
    if (violations.length < 100) violations.push(text)
  }
  const diedAt = new Map(deaths.map(({ at, pid }) => [pid, at]))
  const spans = (from: bigint, to: bigint): boolean => managerDeaths.some((at) => from < at && at < to)

  const tasks = new Map<number, string>()
  const perhaps = new Set<number>()
  const outcomes = new Map<string, Outcome>()
  const children = new Map<string, Outcome>()
  const counts = new Map<string, ReadonlyArray<number>>()
  let heldOver = 0
  for (const [kind, a = "", b = "", c = "", d = "0", ...rest] of linesOf(said)) {
    if (kind === "ack") {
      if (tasks.has(Number(a))) wrong(`put ${a} has two receipts`)
      tasks.set(Number(a), b)
      if (spans(BigInt(c), BigInt(d))) heldOver++
    } else if (kind === "perhaps") perhaps.add(Number(a))
    else if (kind === "outcome" || kind === "child") {
      const into = kind === "outcome" ? outcomes : children
      if (into.has(b)) wrong(`${kind} of task ${b} was read twice`)
      into.set(b, { tag: a, n: Number(c), at: BigInt(d) })
    } else if (kind === "counts") counts.set(a, [b, c, d, ...rest].map(Number))
  }

  // Every receipt ends in exactly one outcome, and nothing else does.
  const taken = new Map<number, string>()
  for (const [n, task] of tasks) {
    const outcome = outcomes.get(task)
    if (outcome === undefined) wrong(`put ${n} was acknowledged as task ${task} and has no outcome`)
    else if (outcome.tag === "Success" && outcome.n !== n)
      wrong(`task ${task} of put ${n} has the outcome of ${outcome.n}`)
  }
  for (const [task, { n, tag }] of outcomes) {
    if (tag !== "Success") continue
    const other = taken.get(n)
    if (other !== undefined) wrong(`put ${n} became two tasks, ${other} and ${task}`)
    taken.set(n, task)
    if (!tasks.has(n) && !perhaps.has(n)) wrong(`put ${n} was never answered and ran`)
  }
  for (const [name, [puts = 0, done = 0, dead = 0, cancelled = 0, left = 0]] of counts) {
    if (puts !== done + dead + cancelled + left)
      wrong(`${name}: ${puts} puts, ${done} + ${dead} + ${cancelled} + ${left}`)
    const read = name === "jobs" ? outcomes : children
    if (read.size !== done + dead + cancelled)
      wrong(`${name}: ${done + dead + cancelled} ended, ${read.size} outcomes read`)
  }
  if (counts.size === 0) wrong("the master did not come to its end")

  // A success put one child, and nothing else did.
  const successes = [...outcomes.values()].filter(({ tag }) => tag === "Success").length
  const parents = new Map<number, string>()
  for (const [task, { n }] of children) {
    const other = parents.get(n)
    if (other !== undefined) wrong(`put ${n} has two children, ${other} and ${task}`)
    parents.set(n, task)
    if (!taken.has(n)) wrong(`put ${n} has a child and no success`)
  }
  if (parents.size !== successes) wrong(`${successes} successes have ${parents.size} children`)

  // Deliveries: none after the outcome was seen, and a second one only after its holder was killed.
  const starts = new Map<string, Array<Start>>()
  let delivered = 0
  for (const [kind, at = "0", task = "", , pid = "0"] of linesOf(deliveries)) {
    const outcome = (kind === "child" ? children : outcomes).get(task)
    const time = BigInt(at)
    if (kind === "end") {
      const mine = starts.get(task)?.findLast((start) => start.pid === Number(pid))
      if (mine !== undefined) mine.end = time
      continue
    }
    delivered++
    const before = starts.get(task) ?? []
    if (before.length === 0) starts.set(task, before)
    before.push({ at: time, pid: Number(pid), end: undefined })
    if (outcome !== undefined && time > outcome.at) wrong(`task ${task} was delivered after its outcome was seen`)
  }
  let redeliveries = 0
  let outlasted = 0
  for (const [task, all] of starts) {
    all.sort((a, b) => (a.at < b.at ? -1 : 1))
    for (let i = 1; i < all.length; i++) {
      redeliveries++
      const death = diedAt.get(all[i - 1]!.pid)
      if (death === undefined || death > all[i]!.at) {
        wrong(`task ${task} was delivered to ${all[i]!.pid} while ${all[i - 1]!.pid} lived and held it`)
      }
    }
    const last = all.at(-1)!
    const outcome = outcomes.get(task)
    if (outcome?.tag === "Success" && last.end !== undefined && spans(last.at, last.end)) outlasted++
  }
  return {
    acknowledged: tasks.size,
    perhaps: perhaps.size,
    heldOver,
    outcomes: outcomes.size,
    children: children.size,
    deliveries: delivered,
    redeliveries,
    outlasted,
    violations
  }
}
