/** A child that puts the chaos proxy between clients and servers: what passes is later by so much, each way. */
import { SeededRandom } from "../../src/testing/Random.ts"
import { Proxy } from "../../test/proxy/Proxy.ts"
import { serve } from "./role.ts"

const proxies: Array<Proxy> = []

/** Answers the port that clients dial. */
const through = async ({ eachWayMs, port }: { port: number; eachWayMs: number }): Promise<number> => {
  const proxy = await new Proxy(port, new SeededRandom(1)).listen()
  for (const direction of ["up", "down"] as const) proxy.plant(direction, { kind: "delay", ms: eachWayMs })
  proxies.push(proxy)
  return proxy.port
}

serve({ through }, async () => {
  for (const proxy of proxies) proxy.close()
})
