/** How the master and the workers reach the manager: address and key come from the environment. */
import type * as Layer from "effect/Layer"
import * as Client from "../../src/Client.ts"
import { required } from "../harness/role.ts"

export const client: Layer.Layer<Client.Client, Client.LoginError> = Client.layerTcp({
  port: Number(required("MILLRACE_BENCH_PORT")),
  auth: { key: required("MILLRACE_BENCH_KEY") }
})
