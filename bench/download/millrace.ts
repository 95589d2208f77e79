/** Millrace as a client: the downloader by itself, and behind a queue. */
import { randomBytes } from "node:crypto"
import type { Usage } from "../harness/children.ts"
import { storeEnvironment } from "../millrace/processes.ts"
import { clientCore, otherCore } from "./cores.ts"
import type { ClientContext, ClientSystem, Pass } from "./system.ts"

const passMs = 600_000

const orderOf = ({ files, origin, out, sync }: ClientContext) => ({ files, origin, out, sync })

const profileOf = ({ profile, sync }: ClientContext, role: string): ClientContext["profile"] =>
  profile && { ...profile, name: `${profile.name}-${role}-${sync ? "fsync" : "plain"}` }

export const millrace: ClientSystem = {
  name: "millrace",
  how: "Download.file, 16 at a time, in one process that stays; the hash of each file is asked for",
  missing: () => undefined,
  version: () => "",
  start: async (context) => {
    const script = new URL("./client.ts", import.meta.url)
    const profile = profileOf(context, "download")
    const client = context.start({ name: "client", script, through: clientCore, profile })
    return { pass: () => client.call<Pass>("pass", orderOf(context), passMs) }
  }
}

export const millraceQueue: ClientSystem = {
  name: "millrace, queue",
  how: "the same in the worker of a queue, leased 256 ahead; manager and master on the server's core",
  missing: () => undefined,
  version: () => "",
  start: async (context) => {
    const { durability, folder, start } = context
    const key = { MILLRACE_BENCH_KEY: randomBytes(32).toString("base64url") }
    const manager = start({
      name: "manager",
      script: new URL("../millrace/manager.ts", import.meta.url),
      env: { ...key, ...storeEnvironment(durability, folder) },
      through: otherCore
    })
    const env = { ...key, MILLRACE_BENCH_PORT: String(await manager.call<number>("port")) }
    const worker = start({
      name: "worker",
      script: new URL("./worker.ts", import.meta.url),
      env,
      through: clientCore,
      profile: profileOf(context, "worker")
    })
    const master = start({ name: "master", script: new URL("./master.ts", import.meta.url), env, through: otherCore })
    await Promise.all([master.call("ready"), worker.call("ready")])
    const pass = async (): Promise<Pass> => {
      const before: Usage = await worker.usage()
      const seconds = await master.call<number>("pass", orderOf(context), passMs)
      const after: Usage = await worker.usage()
      const rssBytes = await worker.call<number>("peakRss")
      return { seconds, cpuSeconds: after.cpuSeconds - before.cpuSeconds, rssBytes }
    }
    return { pass }
  }
}
