/** The bugs that the simulation must find (reliability reference, section 10), each as an edit of the sources. */

export interface Edit {
  /** Below `src`. */
  readonly file: string
  /** There exactly once. */
  readonly find: string
  readonly replace: string
}

export interface Plant {
  readonly name: string
  readonly edits: ReadonlyArray<Edit>
}

const engine = "model/Engine.ts"

export const plants: ReadonlyArray<Plant> = [
  {
    name: "fence ignored",
    edits: [
      {
        file: engine,
        find: "owner.state === State.leased && owner.holder === session && this.fence(owner) === fence",
        replace: "owner.state === State.leased && owner.holder === session"
      }
    ]
  },
  {
    name: "late commit accepted",
    edits: [
      { file: "manager/Core.ts", find: "    this.engine.tick(now)\n", replace: "" },
      {
        file: "manager/Core.ts",
        find: "    this.engine.dispatch(now)\n",
        replace: "    this.engine.tick(now)\n    this.engine.dispatch(now)\n"
      }
    ]
  },
  {
    name: "renewal after expiry accepted",
    edits: [
      {
        file: engine,
        find: "else if (!this.#holds(session, held[i]!)) lost.push(held[i]!)",
        replace: "else if (!(this.tasks.owner(held[i]!) instanceof Task)) lost.push(held[i]!)"
      }
    ]
  },
  {
    name: "expiry off by one",
    edits: [
      {
        file: engine,
        find: "while (queue.leaseHead !== undefined && queue.leaseHead.at <= now) ",
        replace: "while (queue.leaseHead !== undefined && queue.leaseHead.at <= now + 1) "
      }
    ]
  },
  {
    name: "lost waiter",
    edits: [
      {
        file: engine,
        find: `    queue.ready.giveBack(task)
    this.#out.changed("ready", task)
    this.#touched.add(queue)`,
        replace: `    queue.ready.giveBack(task)
    this.#out.changed("ready", task)`
      }
    ]
  },
  {
    name: "FIFO broken on release",
    edits: [
      {
        file: engine,
        find: "    task.attempt--\n    if (++task.releases",
        replace: "    task.attempt--\n    task.place = this.#nextTask\n    if (++task.releases"
      }
    ]
  },
  {
    name: "delay shortened by a wall-clock step",
    edits: [
      {
        file: "manager/Manager.ts",
        find: "startedAt + Number((clock.monotonicTimeNanosUnsafe() - startedNanos) / 1_000_000n)",
        replace: "Number(startedNanos) * 0 + startedAt * 0 + clock.currentTimeMillisUnsafe()"
      }
    ]
  },
  {
    name: "attempt counted at failure",
    edits: [
      {
        file: engine,
        find: "    task.attempt++\n    task.leases++\n",
        replace: "    task.leases++\n"
      },
      {
        file: engine,
        find: "    this.#takeLease(task)\n    this.#addReason(task, failure.reason, failure.text)\n",
        replace:
          "    this.#takeLease(task)\n    task.attempt++\n    this.#addReason(task, failure.reason, failure.text)\n"
      }
    ]
  },
  // What the simulation found in earlier versions.
  {
    name: "a lease that the session has anew is called lost",
    edits: [
      {
        file: engine,
        find: "else if (!this.#holds(session, held[i]!)) lost.push(held[i]!)",
        replace: "else lost.push(held[i]!)"
      }
    ]
  },
  {
    name: "a batch that may never fit waits",
    edits: [
      {
        file: engine,
        find: "waitMs === 0 || (atomic && payloads.length > policy.capacity)",
        replace: "waitMs === 0"
      }
    ]
  },
  {
    name: "a closed queue does not say what it took",
    edits: [
      {
        file: "client/TaskQueue.ts",
        find: `          if (status === PutStatus.spent) {
            return yield* new Errors.Closed({ queue: this.name, accepted: receipts.length })`,
        replace: `          if (status === PutStatus.spent) {
            return yield* new Errors.Closed({ queue: this.name })`
      }
    ]
  }
]
