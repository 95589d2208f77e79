/** What a workflow engine at a manager has beyond one in memory: several programs, workers, limits. */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as PersistedQueue from "effect/persistence/PersistedQueue"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Activity from "effect/workflow/Activity"
import * as DurableClock from "effect/workflow/DurableClock"
import * as DurableDeferred from "effect/workflow/DurableDeferred"
import * as DurableQueue from "effect/workflow/DurableQueue"
import * as Workflow from "effect/workflow/Workflow"
import { Client, Manager, PersistedQueueStore, Workflows } from "millrace"
import { connected, inProcess, listening } from "./layers.ts"
import { eventually } from "./queue.ts"
import { Approval, approve, Bad, noted, register, untilSuspended, workflowOf } from "./workflow.ts"

/** Another program: a client and an engine of its own. It ends with its scope. */
const program = (options: Workflows.Options = {}) =>
  Effect.map(
    Layer.build(Layer.fresh(Workflows.layer(options).pipe(Layer.provideMerge(connected)))),
    (context) =>
      <A, E, R>(effect: Effect.Effect<A, E, R>) =>
        Effect.provideContext(effect, context)
  )

describe("workflows of several programs", () => {
  it.layer(listening, { excludeTestServices: true })((it) => {
    it.effect(
      "a program without the workflow's body executes it, completes its deferreds, polls and interrupts it",
      () =>
        Effect.gen(function* () {
          const workflow = workflowOf()
          const [worker, caller] = [yield* program(), yield* program()]
          yield* worker(register(workflow.toLayer(() => DurableDeferred.await(Approval))))
          yield* Effect.gen(function* () {
            const id = yield* workflow.execute({ id: "a" }, { discard: true })
            yield* untilSuspended(workflow, id)
            yield* approve(workflow, id, "from afar")
            assert.strictEqual(yield* workflow.execute({ id: "a" }), "from afar")
            const other = yield* workflow.execute({ id: "b" }, { discard: true })
            yield* untilSuspended(workflow, other)
            yield* workflow.interrupt(other)
            const exit = yield* Effect.exit(workflow.execute({ id: "b" }))
            assert.isTrue(Exit.isFailure(exit) && Cause.hasInterrupts(exit.cause))
          }).pipe(caller)
        })
    )

    it.effect("a deferred completed elsewhere cuts a run that does something else beside waiting for it", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        const [worker, caller] = [yield* program(), yield* program()]
        let begun = 0
        const endless = Activity.make({
          name: "endless",
          success: Schema.String,
          execute: Effect.suspend(() => {
            begun++
            return Effect.never
          })
        })
        yield* worker(
          register(
            workflow.toLayer(() =>
              DurableDeferred.raceAll({
                name: "who",
                success: Schema.String,
                error: Bad,
                effects: [DurableDeferred.await(Approval), endless]
              })
            )
          )
        )
        yield* Effect.gen(function* () {
          const id = yield* workflow.execute({ id: "a" }, { discard: true })
          yield* eventually(
            Effect.sync(() => begun === 1),
            "it has begun"
          )
          yield* approve(workflow, id, "enough")
          assert.strictEqual(yield* workflow.execute({ id: "a" }), "enough")
        }).pipe(caller)
      })
    )

    it.effect("what the end of its program cuts goes on in another one, and is not compensated for that", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        const first = yield* Scope.make()
        const one = yield* Scope.provide(program({ grace: 0 }), first)
        const two = yield* program()
        const [ran, undone, ends]: [Array<string>, Array<string>, Array<string>] = [[], [], []]
        const body = (who: string) =>
          workflow.toLayer(
            Effect.fnUntraced(function* () {
              yield* Workflow.addFinalizer((exit) => Effect.sync(() => ends.push(`${who} ${exit._tag}`)))
              const before = yield* workflow.withCompensation(noted(ran, "before"), () =>
                Effect.sync(() => undone.push(who))
              )
              const cut = yield* Activity.make({
                name: "cut",
                success: Schema.String,
                execute: Effect.suspend(() => {
                  ran.push(who)
                  return who === "one" ? Effect.never : Effect.succeed(who)
                })
              })
              return `${before} ${cut}`
            })
          )
        yield* one(register(body("one"))).pipe(Scope.provide(first))
        yield* two(workflow.execute({ id: "a" }, { discard: true }))
        yield* eventually(
          Effect.sync(() => ran.includes("one")),
          "it has begun"
        )
        yield* Scope.close(first, Exit.void)
        assert.deepStrictEqual([undone, ends], [[], []])
        yield* two(register(body("two")))
        assert.strictEqual(yield* two(workflow.execute({ id: "a" })), "before1 two")
        assert.deepStrictEqual([ran, undone, ends], [["before", "one", "two"], [], ["two Success"]])
      })
    )

    it.effect("of two programs with the body one runs an execution at a time, and all activities run once", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        const running = new Map<string, number>()
        const ran = new Map<string, number>()
        let [atOnce, programs] = [0, new Set<number>()]
        const body = (who: number) =>
          workflow.toLayer(
            Effect.fnUntraced(function* ({ id }) {
              programs = new Set([...programs, who])
              for (const name of ["x", "y", "z"]) {
                yield* Activity.make({
                  name,
                  execute: Effect.gen(function* () {
                    const now = (running.get(id) ?? 0) + 1
                    atOnce = Math.max(atOnce, now)
                    running.set(id, now)
                    ran.set(`${id} ${name}`, (ran.get(`${id} ${name}`) ?? 0) + 1)
                    yield* Effect.sleep("5 millis")
                    running.set(id, now - 1)
                  })
                })
                yield* DurableClock.sleep({ name, duration: "20 millis", inMemoryThreshold: 0 })
              }
              return id
            })
          )
        const [one, two] = [yield* program({ concurrency: 3 }), yield* program({ concurrency: 3 })]
        yield* one(register(body(1)))
        yield* two(register(body(2)))
        const ids = Array.from({ length: 24 }, (_, i) => `${i}`)
        const results = yield* one(Effect.forEach(ids, (id) => workflow.execute({ id }), { concurrency: "unbounded" }))
        assert.deepStrictEqual(results, ids)
        assert.strictEqual(atOnce, 1)
        assert.deepStrictEqual([...new Set(ran.values())], [1])
        assert.strictEqual(ran.size, 72)
        assert.strictEqual(programs.size, 2)
      })
    )

    it.effect("executions that wait hold no worker, and leave what they hold of this program", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        const one = yield* program({ concurrency: 1 })
        const [held, ends]: [Array<string>, Array<string>] = [[], []]
        yield* one(
          register(
            workflow.toLayer(
              Effect.fnUntraced(function* ({ id }) {
                const resource = Effect.acquireRelease(
                  Effect.sync(() => held.push(id)),
                  () => Effect.sync(() => held.splice(held.indexOf(id), 1))
                )
                yield* Workflow.provideScope(resource)
                yield* Workflow.addFinalizer((exit) => Effect.sync(() => ends.push(`${id} ${exit._tag}`)))
                return yield* DurableDeferred.await(Approval)
              })
            )
          )
        )
        yield* Effect.gen(function* () {
          for (const id of ["a", "b", "c"]) {
            yield* untilSuspended(workflow, yield* workflow.execute({ id }, { discard: true }))
          }
          assert.deepStrictEqual([held, ends], [[], []])
          for (const id of ["c", "a", "b"]) {
            yield* approve(workflow, yield* workflow.executionId({ id }), id)
            assert.strictEqual(yield* workflow.execute({ id }), id)
          }
          assert.deepStrictEqual(ends, ["c Success", "a Success", "b Success"])
        }).pipe(one)
      })
    )

    it.effect("an execution that is cancelled, or has more to record than there is room, ends for its callers", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        const one = yield* program()
        yield* one(
          register(
            workflow.toLayer(
              Effect.fnUntraced(function* ({ id }) {
                if (id === "waits") return yield* DurableDeferred.await(Approval)
                if (id === "large") return "x".repeat(1_100_000)
                if (id === "large activity") {
                  const execute = Effect.succeed("x".repeat(1_100_000))
                  return yield* Activity.make({ name: "large", success: Schema.String, execute })
                }
                for (let i = 0; i < 1_100; i++) yield* Activity.make({ name: `${i}`, execute: Effect.void })
                return "no"
              })
            )
          )
        )
        const why = (id: string) =>
          Effect.map(Effect.exit(workflow.execute({ id })), (exit) =>
            Exit.isFailure(exit) && Cause.hasDies(exit.cause) ? Cause.pretty(exit.cause) : "it went well"
          )
        yield* Effect.gen(function* () {
          const id = yield* workflow.execute({ id: "waits" }, { discard: true })
          yield* untilSuspended(workflow, id)
          const queue = Workflows.queue(workflow._tag)
          yield* queue.cancel((yield* queue.find(id))!.taskId)
          assert.match(yield* why("waits"), /cancelled/)
          const polled = Option.getOrThrow(yield* workflow.poll(id))
          assert.isTrue(polled._tag === "Complete" && Exit.isFailure(polled.exit))
          assert.match(yield* why("many"), /1024 steps and signals/)
          assert.match(yield* why("large activity"), /at most 1048576/)
          assert.match(yield* why("large"), /result has 11000\d\d bytes/)
        }).pipe(one)
      })
    )

    it.effect("names of any kind and length are names of their own", () =>
      Effect.gen(function* () {
        const one = yield* program()
        const names = ["", "!", "a/b", "\u{1F980}", "x".repeat(2_000), `${"x".repeat(1_999)}y`, "\n"]
        const ran: Array<string> = []
        for (const tag of names) {
          const workflow = Workflow.make(`Named ${tag}`, {
            payload: { id: Schema.String },
            success: Schema.Array(Schema.String),
            idempotencyKey: ({ id }) => id
          })
          yield* one(
            register(
              workflow.toLayer(() =>
                Effect.gen(function* () {
                  const values: Array<string> = []
                  for (const name of names) {
                    values.push(yield* noted(ran, name))
                    yield* DurableDeferred.into(Effect.void, DurableDeferred.make(name))
                  }
                  yield* DurableClock.sleep({ name: tag, duration: 1, inMemoryThreshold: 0 })
                  return values
                })
              )
            )
          )
          const from = ran.length
          const values = yield* one(workflow.execute({ id: tag }))
          assert.deepStrictEqual(
            values,
            names.map((name, i) => `${name}${from + i + 1}`)
          )
        }
        assert.strictEqual(ran.length, names.length ** 2)
      })
    )

    it.effect("a child that somebody else began wakes the parents that joined it", () =>
      Effect.gen(function* () {
        const [parent, child] = [workflowOf(), workflowOf()]
        const [worker, caller] = [yield* program(), yield* program()]
        yield* worker(register(child.toLayer(() => DurableDeferred.await(Approval))))
        yield* worker(register(parent.toLayer(() => child.execute({ id: "c" }))))
        yield* Effect.gen(function* () {
          const childId = yield* child.execute({ id: "c" }, { discard: true })
          yield* untilSuspended(child, childId)
          const ids = yield* Effect.forEach(["a", "b"], (id) => parent.execute({ id }, { discard: true }))
          for (const id of ids) yield* untilSuspended(parent, id)
          yield* approve(child, childId, "joined")
          for (const id of ["a", "b"]) assert.strictEqual(yield* parent.execute({ id }), "joined")
        }).pipe(caller)
      })
    )

    it.effect("a child that is forgotten meanwhile is not begun again by its parent", () =>
      Effect.gen(function* () {
        const [parent, child] = [workflowOf(), workflowOf()]
        const one = yield* program({ dedupe: { count: 1 }, outcomes: { count: 1 } })
        const begun: Array<string> = []
        yield* one(register(child.toLayer(({ id }) => Effect.sync(() => `${id}${begun.push(id)}`))))
        yield* one(
          register(
            parent.toLayer(
              Effect.fnUntraced(function* () {
                yield* child.execute({ id: "discarded" }, { discard: true })
                const awaited = yield* child.execute({ id: "awaited" })
                return `${awaited} ${yield* DurableDeferred.await(Approval)}`
              })
            )
          )
        )
        yield* Effect.gen(function* () {
          const id = yield* parent.execute({ id: "a" }, { discard: true })
          yield* untilSuspended(parent, id)
          for (const other of ["x", "y", "z"]) yield* child.execute({ id: other })
          assert.isTrue(Option.isNone(yield* child.poll(yield* child.executionId({ id: "awaited" }))))
          yield* approve(parent, id, "on")
          assert.match(yield* parent.execute({ id: "a" }), /^awaited\d on$/)
          assert.deepStrictEqual(begun.toSorted(), ["awaited", "discarded", "x", "y", "z"])
        }).pipe(one)
      })
    )

    it.effect("a parent whose child has more to record than there is room hears of it", () =>
      Effect.gen(function* () {
        const [parent, child] = [workflowOf(), workflowOf()]
        const one = yield* program()
        yield* one(
          register(
            child.toLayer(
              Effect.fnUntraced(function* () {
                const gate = yield* DurableDeferred.await(Approval)
                for (let i = 0; i < 1_100; i++) yield* Activity.make({ name: `${i}`, execute: Effect.void })
                return gate
              })
            )
          )
        )
        yield* one(register(parent.toLayer(() => child.execute({ id: "c" }))))
        yield* Effect.gen(function* () {
          const id = yield* parent.execute({ id: "a" }, { discard: true })
          const childId = yield* child.executionId({ id: "c" })
          yield* untilSuspended(child, childId)
          yield* untilSuspended(parent, id)
          yield* approve(child, childId, "go")
          const exit = yield* Effect.exit(parent.execute({ id: "a" }))
          assert.match(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "", /1024 steps and signals/)
        }).pipe(one)
      })
    )

    it.effect("DurableQueue keeps its elements at the same manager, and its workers are other programs", () =>
      Effect.gen(function* () {
        const workflow = workflowOf()
        const Work = DurableQueue.make({
          name: workflow._tag,
          payload: { n: Schema.Int },
          success: Schema.Int,
          idempotencyKey: ({ n }) => `${n}`
        })
        const store = PersistedQueueStore.layer().pipe(Layer.provide(Layer.orDie(connected)))
        const factory = PersistedQueue.layer.pipe(Layer.provide(store))
        const [one, two] = [yield* program(), yield* program()]
        const worked: Array<number> = []
        const doubled = DurableQueue.worker(Work, ({ n }) => Effect.sync(() => 2 * worked.push(n)))
        yield* two(register(Layer.provide(doubled, factory)))
        const body = workflow.toLayer(() =>
          Effect.map(
            Effect.forEach([5, 6], (n) => DurableQueue.process(Work, { n })),
            (all) => all.join(" ")
          )
        )
        yield* one(register(Layer.provide(body, factory)))
        assert.strictEqual(yield* one(workflow.execute({ id: "a" })), "2 4")
        assert.deepStrictEqual(worked, [5, 6])
      })
    )

    it("options out of range are said at once", () => {
      assert.throws(() => Workflows.layer({ lease: 1 }), /lease/)
    })

    it.effect("a resumed failure goes on with the results of its children", () =>
      Effect.gen(function* () {
        const [parent, child] = [workflowOf(Context.make(Workflow.SuspendOnFailure, true)), workflowOf()]
        const one = yield* program()
        let [children, mended] = [0, false]
        yield* one(register(child.toLayer(() => Effect.sync(() => `child ${++children}`))))
        yield* one(
          register(
            parent.toLayer(
              Effect.fnUntraced(function* () {
                const value = yield* child.execute({ id: "c" })
                if (!mended) return yield* new Bad({ why: "not yet" })
                return value
              })
            )
          )
        )
        yield* Effect.gen(function* () {
          const id = yield* parent.execute({ id: "a" }, { discard: true })
          yield* untilSuspended(parent, id)
          mended = true
          yield* parent.resume(id)
          assert.strictEqual(yield* parent.execute({ id: "a" }), "child 1")
          assert.strictEqual(children, 1)
        }).pipe(one)
      })
    )
  })
})

const key = "a-key-with-roles-for-workflows-0123456789"
const queues = ["workflow*", "effect:workflow*"]
const withRoles = Manager.layerTcp({
  port: 0,
  auth: [
    {
      user: "flows",
      key,
      roles: [
        { role: "producer", queues },
        { role: "worker", queues }
      ]
    }
  ]
}).pipe(Layer.provide(inProcess))

describe("workflows of a credential with roles", () => {
  it.layer(withRoles, { excludeTestServices: true })((it) => {
    it.effect("need a producer and a worker, of the queues of workflows alone", () =>
      Effect.gen(function* () {
        const { address } = yield* Manager.Listening
        const port = address._tag === "Tcp" ? address.port : 0
        const engine = Workflows.layer().pipe(Layer.provide(Client.layerTcp({ port, auth: { user: "flows", key } })))
        const context = yield* Layer.build(engine)
        const [parent, child] = [workflowOf(), workflowOf()]
        yield* Effect.gen(function* () {
          yield* register(child.toLayer(() => DurableDeferred.await(Approval)))
          yield* register(parent.toLayer(() => child.execute({ id: "c" })))
          const childId = yield* child.executionId({ id: "c" })
          yield* approve(child, childId, "early")
          const id = yield* parent.execute({ id: "a" }, { discard: true })
          assert.strictEqual(yield* parent.execute({ id: "a" }), "early")
          yield* parent.interrupt(id)
          assert.isTrue(Option.isSome(yield* parent.poll(id)))
        }).pipe(Effect.provideContext(context))
      })
    )
  })
})
