/** The workflows of the process tests: activities that write down that they run, a clock, a child, and an approval. */
import { appendFileSync } from "node:fs"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Activity from "effect/workflow/Activity"
import * as DurableClock from "effect/workflow/DurableClock"
import * as DurableDeferred from "effect/workflow/DurableDeferred"
import * as Workflow from "effect/workflow/Workflow"
import * as Client from "../../../src/Client.ts"
import * as Workflows from "../../../src/Workflows.ts"

class Gateway extends Schema.TaggedError<Gateway>()("Gateway", { attempt: Schema.Int }) {}

export const Order = Workflow.make("Order", {
  payload: { id: Schema.String },
  success: Schema.String,
  idempotencyKey: ({ id }) => id
})
const Parcel = Workflow.make("Parcel", {
  payload: { id: Schema.String },
  success: Schema.String,
  idempotencyKey: ({ id }) => id
})
export const Approval = DurableDeferred.make("Approval", { success: Schema.String })

export const activities = ["charge", "pack", "ship"] as const
/** Where a program kills itself: in an activity, when it has its value, when that is recorded. */
export const places = ["within", "done", "recorded"] as const

/** What an uninterrupted run gives. */
export const resultOf = (id: string): string => `charged ${id} on attempt 2, packed ${id}, for kim, shipped ${id}`

/** The bodies. `plan`: `place activity id`, where to kill this program, or `stop activity id`. */
export const bodies = (journal: string, plan: string) => {
  const note = (...words: ReadonlyArray<string | number>): void => appendFileSync(journal, `${words.join(" ")}\n`)
  const die = (...at: ReadonlyArray<string>): void => {
    if (at.join(" ") === plan) process.kill(process.pid, "SIGKILL")
  }
  const stop = (name: string, id: string): void => {
    if (plan === `stop ${name} ${id}`) process.kill(process.pid, "SIGSTOP")
  }
  const noted = <A>(name: string, id: string, value: Effect.Effect<A, Gateway>) =>
    Effect.gen(function* () {
      note("run", name, id, yield* Activity.CurrentAttempt)
      yield* Effect.sleep("5 millis")
      die("within", name, id)
      stop(name, id)
      const result = yield* value
      die("done", name, id)
      return result
    })
  const recorded = (name: string, id: string) =>
    Effect.sync(() => {
      note("recorded", name, id)
      die("recorded", name, id)
    })
  const order = Order.toLayer(
    Effect.fnUntraced(function* ({ id }) {
      const charge = Activity.make({
        name: "charge",
        success: Schema.String,
        error: Gateway,
        execute: Effect.flatMap(Activity.CurrentAttempt, (attempt) => {
          const value = `charged ${id} on attempt ${attempt}`
          return noted("charge", id, attempt < 2 ? Effect.fail(new Gateway({ attempt })) : Effect.succeed(value))
        })
      })
      const charged = yield* charge.pipe(
        Activity.retry({ times: 3 }),
        Effect.orDie,
        Order.withCompensation(() => Effect.sync(() => note("refund", id)))
      )
      yield* recorded("charge", id)
      yield* DurableClock.sleep({ name: "cool-off", duration: "50 millis", inMemoryThreshold: 0 })
      const packed = yield* Parcel.execute({ id })
      // Before it, the order waits for its parcel, and is woken by it.
      yield* Effect.sync(() => note("reached", "approval", id))
      const approved = yield* DurableDeferred.await(Approval)
      const shipped = yield* Activity.make({
        name: "ship",
        success: Schema.String,
        execute: Effect.orDie(noted("ship", id, Effect.succeed(`shipped ${id}`)))
      })
      yield* recorded("ship", id)
      return [charged, packed, `for ${approved}`, shipped].join(", ")
    })
  )
  const parcel = Parcel.toLayer(
    Effect.fnUntraced(function* ({ id }) {
      const packed = yield* Activity.make({
        name: "pack",
        success: Schema.String,
        execute: Effect.orDie(noted("pack", id, Effect.succeed(`packed ${id}`)))
      })
      yield* recorded("pack", id)
      return packed
    })
  )
  return Layer.merge(order, parcel)
}

export const engineAt = (port: number, key: string) =>
  Workflows.layer({ lease: "1 second" }).pipe(
    Layer.provide(Client.layerTcp({ port, auth: { key }, waitForManager: true, reconnectCap: "100 millis" }))
  )
