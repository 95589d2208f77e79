/** A program that runs the bodies. Arguments: port, journal, where to kill itself. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { bodies, engineAt } from "./order.ts"

const [port = "", journal = "", plan = ""] = process.argv.slice(2)

bodies(journal, plan).pipe(
  Layer.provide(engineAt(Number(port), process.env["MILLRACE_AUTHKEY"] ?? "")),
  Layer.build,
  Effect.andThen(Effect.sync(() => console.log("works"))),
  Effect.andThen(Effect.never),
  Effect.scoped,
  NodeRuntime.runMain
)
