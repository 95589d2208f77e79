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
  /** Found by a long run only (`MILLRACE_PLANTED=... --seeds 20000`). */
  readonly rare?: boolean
  /** Where the 2,000 seeds of every commit begin: near one that finds it. A release takes fresh ones. Default 1. */
  readonly from?: number
  readonly edits: ReadonlyArray<Edit>
}

const engine = "model/Engine.ts"
const core = "manager/Core.ts"

export const plants: ReadonlyArray<Plant> = [
  {
    name: "fence ignored",
    from: 26,
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
      {
        file: engine,
        find: "      return owner.state === State.leased && owner.holder === session && this.fence(owner) === fence\n",
        replace:
          "      return (owner.state !== State.leased || owner.holder === session) && this.fence(owner) === fence\n"
      }
    ]
  },
  {
    name: "renewal after expiry accepted",
    edits: [
      {
        file: engine,
        find: "} else if (!this.#holds(session, held[i]!)) lost.push(held[i]!)",
        replace: "} else if (!(this.tasks.owner(held[i]!) instanceof Task)) lost.push(held[i]!)"
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
        find: `    queue.overflow?.add(task)
    this.#out.changed("ready", task)
    this.#touched.add(queue)`,
        replace: `    queue.overflow?.add(task)
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
        file: "manager/Life.ts",
        find: "const now = (): number => base + Number(sinceNanos() / 1_000_000n)",
        replace: "const now = (): number => base * 0 + clock.currentTimeMillisUnsafe()"
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
  {
    name: "answer before the transaction",
    edits: [
      {
        file: core,
        find: "    store.commit({ rows, dropBefore,",
        replace: "    this.#letOut()\n    store.commit({ rows, dropBefore,"
      }
    ]
  },
  {
    name: "read answered from a state not yet durable",
    from: 550,
    edits: [
      {
        file: core,
        find: "      this.#answer(session, { type: M.outcome, request, outcome })\n",
        replace:
          "      this.#answer(session, { type: M.outcome, request, outcome })\n      ;(session as PeerSession).peer?.flush()\n"
      }
    ]
  },
  {
    name: "lower sync setting under fsync",
    edits: [
      {
        file: core,
        find: 'durability: level === Level.fsync ? "fsync" : "buffered" }',
        replace: 'durability: level === Level.fsync ? "buffered" : "buffered" }'
      }
    ]
  },
  {
    name: "failed transaction swallowed",
    edits: [
      {
        file: "manager/Life.ts",
        find: "orFail(Effect.andThen(store.commit(batch), Effect.sync(done)))",
        replace: "orFail(Effect.andThen(Effect.ignore(store.commit(batch)), Effect.sync(done)))"
      }
    ]
  },
  {
    name: "result and completion in two transactions",
    edits: [
      {
        file: core,
        find: "    recorder.changed(change, task)\n",
        replace:
          '    if (change === "ended") soon(() => recorder.changed(change, task))\n    else recorder.changed(change, task)\n'
      }
    ]
  },
  {
    name: "deduplication forgotten at restart",
    edits: [
      {
        file: "model/Restore.ts",
        find: "queue.idsEnded.push(...ids.sort((a, b) => a.until - b.until || a.n - b.n))",
        replace: "for (const { id } of ids) queue.ids.delete(id)"
      }
    ]
  },
  {
    name: "request id not scoped",
    edits: [
      {
        file: core,
        find: "    const before = session.answers.get(m.request)\n",
        replace:
          "    const before = [...this.#sessions.values()].map((any) => any.answers.get(m.request)).find((any) => any !== undefined)\n"
      }
    ]
  },
  {
    name: "repeated lease request leases twice",
    edits: [
      {
        file: core,
        find: "    if (before !== undefined && this.#answerAgain(",
        replace: "    if (before !== undefined && m.type !== C.lease && this.#answerAgain("
      }
    ]
  },
  {
    name: "StoreFull blocks commit",
    from: 68,
    edits: [
      {
        file: core,
        find: "      case C.commit:\n",
        replace:
          '      case C.commit:\n        if (this.#host.store?.low() === true) return this.refused(session, m.request, refusal(Code.storeFull, "", 1))\n'
      }
    ]
  },
  {
    name: "lane limit ignored after restart",
    edits: [{ file: engine, find: "queue.ready.leasedBefore(task)", replace: "" }]
  },
  {
    name: "a refused commit changes shared objects",
    edits: [
      {
        file: engine,
        find: "      if (why !== undefined) return why.code\n      this.#apply(effects, now)\n",
        replace: "      this.#apply(effects, now)\n      if (why !== undefined) return why.code\n"
      }
    ]
  },
  {
    name: "an increment is not stored",
    edits: [{ file: core, find: "=> this.#recorder?.counter(counter)", replace: "=> void counter" }]
  },
  {
    name: "a repeated increment counts twice",
    from: 350,
    edits: [
      {
        file: core,
        find: "    if (before !== undefined && this.#answerAgain(",
        replace: "    if (before !== undefined && m.type !== C.count && this.#answerAgain("
      }
    ]
  },
  {
    name: "a stale compare-and-set writes",
    edits: [
      {
        file: "model/Objects.ts",
        find: "if (expected !== undefined && expected !== version) {",
        replace: "if (expected !== undefined && expected > version) {"
      }
    ]
  },
  {
    name: "a checkpoint is not stored",
    from: 48,
    edits: [{ file: "model/Restore.ts", find: "        task.checkpoint = record.bytes\n", replace: "" }]
  },
  {
    name: "a restart forgets the occurrence under way",
    from: 48,
    edits: [
      {
        file: "model/Repeat.ts",
        find: "repeat.task = state.task !== 0 && lives(state.task) ? state.task : 0",
        replace: "repeat.task = 0"
      }
    ]
  },
  {
    name: "a slow-down is forgotten at restart",
    from: 35,
    edits: [{ file: "model/Lanes.ts", find: "    this.slowDown(key, setting.slowedUntil)\n", replace: "" }]
  },
  {
    name: "a full queue drops the newest",
    edits: [{ file: "model/Overflow.ts", find: "a.n < b.n", replace: "a.n > b.n" }]
  },
  {
    name: "a time to live is forgotten at restart",
    edits: [
      {
        file: engine,
        find: "    if (ttlMs !== undefined && !task.expired) {\n",
        replace: "    if (ttlMs !== undefined && ttlMs < 0 && !task.expired) {\n"
      }
    ]
  },
  {
    name: "a recorded step is run again",
    edits: [
      {
        file: core,
        find: "      entries: task.entries === undefined ? undefined : [...task.entries]\n",
        replace: "      entries: undefined\n"
      }
    ]
  },
  {
    name: "a recorded step is run again by a worker",
    edits: [
      {
        file: core,
        find: "options?.key, options?.trace, checkpoint, entries)",
        replace: "options?.key, options?.trace, checkpoint, entries && undefined)"
      }
    ]
  },
  {
    name: "a recorded step is run again after a restart",
    edits: [
      {
        file: "model/Restore.ts",
        find: "for (const [name, value] of record.entries) task?.addEntry(name, value)",
        replace: "void task"
      }
    ]
  },
  {
    name: "a step is recorded over another",
    edits: [
      {
        file: "model/Progress.ts",
        find: "    if (entries?.has(name) === true) return 0\n",
        replace:
          "    if (entries?.has(name) === true) {\n      if (entries.get(name)!.byteLength === value.byteLength) (entries as Map<string, Uint8Array>).set(name, value)\n      return 0\n    }\n"
      }
    ]
  },
  {
    name: "a redrive forgets the steps",
    edits: [
      {
        file: "model/Operations.ts",
        find: "    if (entries !== undefined) for (const [name, value] of entries) task.addEntry(name, value)\n",
        replace: "    void entries\n"
      }
    ]
  },
  {
    name: "a suspend loses a signal that came before it",
    edits: [
      {
        file: "model/Progress.ts",
        find: "const news = (task.entries?.size ?? 0) > seen\n",
        replace: "const news = (task.entries?.size ?? 0) < seen * 0\n"
      }
    ]
  },
  {
    name: "a signal does not wake",
    edits: [
      {
        file: "model/Progress.ts",
        find: "    if (owner.suspended && owner.state === State.delayed) this.#inside.wake(owner, now)\n",
        replace: ""
      }
    ]
  },
  // What the simulation found in earlier versions.
  {
    name: "a paused queue calls for rounds without end",
    edits: [{ file: engine, find: "      ready.open(now)\n      return\n", replace: "      return\n" }]
  },
  {
    name: "a put that has entered in part is refused",
    from: 2630,
    edits: [
      {
        file: core,
        find: "const begun = session.partial?.has(m.request) === true",
        replace: "const begun = false"
      }
    ]
  },
  {
    name: "an answer waits for some of its payloads only",
    from: 215,
    edits: [
      {
        file: core,
        find: "for (const task of tasks) if (task.home > 0) this",
        replace: "for (const task of tasks) if (this.#payload(task) === undefined) this"
      }
    ]
  },
  {
    name: "a put is refused and then done",
    rare: true,
    edits: [
      {
        file: core,
        find: "    if (peer.crossing.size > 0 && peer.crossing.delete(m.request)) return\n",
        replace: ""
      }
    ]
  },
  {
    name: "a lease that the session has anew is called lost",
    from: 70,
    edits: [
      {
        file: engine,
        find: "} else if (!this.#holds(session, held[i]!)) lost.push(held[i]!)",
        replace: "} else lost.push(held[i]!)"
      }
    ]
  },
  {
    name: "a batch that may never fit waits",
    rare: true,
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
    from: 1015,
    edits: [
      {
        file: "client/TaskQueue.ts",
        find: `          if (status === PutStatus.spent) {
            return yield* new Errors.Closed({ queue: this.name, accepted: receipts.length })`,
        replace: `          if (status === PutStatus.spent) {
            return yield* new Errors.Closed({ queue: this.name })`
      }
    ]
  },
  {
    name: "a reader waits for a row that is lost",
    from: 50,
    edits: [{ file: core, find: " && !this.#unreadable.has(home)", replace: "" }]
  }
]
