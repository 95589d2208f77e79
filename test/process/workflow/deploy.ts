/**
 * A deployment that is begun by one program and finished by another. Arguments: port, and `begin` or `finish`; the second
 * one is given the execution id that the first one says.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Activity from "effect/workflow/Activity"
import * as DurableClock from "effect/workflow/DurableClock"
import * as DurableDeferred from "effect/workflow/DurableDeferred"
import * as Workflow from "effect/workflow/Workflow"
import { engineAt } from "./order.ts"

const [port = "", step = "", executionId = ""] = process.argv.slice(2)
const log: Array<string> = []
const Approve = DurableDeferred.make("approve", { success: Schema.String })
const Deploy = Workflow.make("Deploy", {
  payload: { sha: Schema.String },
  success: Schema.String,
  idempotencyKey: ({ sha }) => sha
})
const DeployLive = Deploy.toLayer(
  Effect.fnUntraced(function* ({ sha }) {
    const image = yield* Activity.make({
      name: "build",
      success: Schema.String,
      execute: Effect.sync(() => {
        log.push("BUILD")
        return `img-${sha}`
      })
    })
    yield* DurableClock.sleep({ name: "soak", duration: "10 millis", inMemoryThreshold: 0 })
    const who = yield* DurableDeferred.await(Approve)
    yield* Activity.make({ name: "ship", execute: Effect.sync(() => log.push(`SHIP ${image} for ${who}`)) })
    return image
  })
)

const begin = Effect.gen(function* () {
  const id = yield* Deploy.execute({ sha: "abc" }, { discard: true })
  let waits = false
  while (!waits) {
    yield* Effect.sleep("10 millis")
    const polled = yield* Deploy.poll(id)
    waits = Option.isSome(polled) && polled.value._tag === "Suspended"
  }
  console.log(JSON.stringify({ id, log }))
})
const finish = Effect.gen(function* () {
  const token = DurableDeferred.tokenFromExecutionId(Approve, { workflow: Deploy, executionId })
  yield* DurableDeferred.succeed(Approve, { token, value: "kim" })
  console.log(JSON.stringify({ result: yield* Deploy.execute({ sha: "abc" }), log }))
})

const engine = engineAt(Number(port), process.env["MILLRACE_AUTHKEY"] ?? "").pipe(Layer.orDie)
await Effect.runPromise(Effect.provide(step === "begin" ? begin : finish, Layer.provideMerge(DeployLive, engine)))
