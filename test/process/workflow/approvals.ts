/**
 * A program as Effect's users write one: an order that is charged, cools off, and is approved or refused. Arguments:
 * `memory`, or a port.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Activity from "effect/workflow/Activity"
import * as DurableClock from "effect/workflow/DurableClock"
import * as DurableDeferred from "effect/workflow/DurableDeferred"
import * as Workflow from "effect/workflow/Workflow"
import * as WorkflowEngine from "effect/workflow/WorkflowEngine"
import { engineAt } from "./order.ts"

class Refused extends Schema.TaggedError<Refused>()("Refused", { order: Schema.String }) {}
const Order = Workflow.make("Order", {
  payload: { id: Schema.String, amount: Schema.Int },
  success: Schema.String,
  error: Refused,
  idempotencyKey: ({ id }) => id
})
const Approval = DurableDeferred.make("Approval", { success: Schema.Boolean })
const log: Array<string> = []

const charging = (id: string, amount: number) =>
  Activity.make({
    name: "charge",
    success: Schema.String,
    error: Schema.String,
    execute: Effect.gen(function* () {
      const attempt = yield* Activity.CurrentAttempt
      log.push(`charge attempt ${attempt}`)
      if (attempt < 2) return yield* Effect.die("gateway down")
      return `ch_${id}_${amount}`
    }).pipe(Effect.catchDefect((defect) => Effect.fail(String(defect))))
  }).pipe(Activity.retry({ times: 3 }), Effect.orDie)

const OrderLive = Order.toLayer(
  Effect.fnUntraced(function* ({ amount, id }, executionId) {
    const charge = yield* Order.withCompensation(charging(id, amount), (charge) =>
      Effect.sync(() => log.push(`refund ${charge}`))
    )
    yield* DurableClock.sleep({ name: "cool-off", duration: "20 millis", inMemoryThreshold: 0 })
    const ok = yield* DurableDeferred.await(Approval)
    if (!ok) return yield* new Refused({ order: id })
    return `${charge} ${executionId.length > 0}`
  })
)

const program = Effect.gen(function* () {
  for (const [id, approve] of [
    ["o1", true],
    ["o2", false]
  ] as const) {
    const executionId = yield* Order.execute({ id, amount: 5 }, { discard: true })
    // Until it waits: for the clock, then for its approval.
    for (let suspended = 0; suspended < 20; ) {
      const now = yield* Order.poll(executionId)
      suspended = Option.isSome(now) && now.value._tag === "Suspended" ? suspended + 1 : 0
      yield* Effect.sleep("10 millis")
    }
    log.push("suspended")
    const token = DurableDeferred.tokenFromExecutionId(Approval, { workflow: Order, executionId })
    yield* DurableDeferred.succeed(Approval, { token, value: approve })
    const exit = yield* Effect.exit(Order.execute({ id, amount: 5 }))
    log.push(Exit.isSuccess(exit) ? exit.value : String(Cause.squash(exit.cause)))
  }
  console.log(JSON.stringify(log))
})

const [where = "memory"] = process.argv.slice(2)
const engine =
  where === "memory"
    ? WorkflowEngine.layerMemory
    : engineAt(Number(where), process.env["MILLRACE_AUTHKEY"] ?? "").pipe(Layer.orDie)
await Effect.runPromise(Effect.provide(program, Layer.provideMerge(OrderLive, engine)))
