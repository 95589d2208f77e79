/**
 * The prototype: the same processes on bare sockets, without an engine, Effect or Schemas. It is the ceiling that design and
 * profile are held against, and no queue to use.
 */
import { variants } from "../harness/variants.ts"
import type { System } from "../peers/system.ts"

export const plainSockets: System = {
  name: "plain-sockets",
  variants: Object.keys(variants),
  durabilities: ["memory"],
  missing: () => undefined,
  version: () => "",
  warmUp: 100_000,
  start: async ({ settings, start, through }) => {
    const role = (file: string, name: string, port?: number) =>
      start({
        name: `plain-sockets ${name}`,
        script: new URL(`./${file}.ts`, import.meta.url),
        ...(port === undefined ? {} : { env: { BENCH_PORT: String(port) } })
      })
    const port = await through(await role("manager", "manager").call<number>("port"))
    const crew = Array.from({ length: settings.workers }, (_, i) => role("worker", `worker-${i + 1}`, port))
    const master = role("master", "master", port)
    await Promise.all([master, ...crew].map((child) => child.call("ready")))
    return { pass: (options) => master.call<number>("pass", options, 120_000) }
  }
}
