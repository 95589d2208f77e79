/** The hottest functions of a V8 CPU profile, by self time. */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import type { ProfileTo } from "./children.ts"
import { table } from "./report.ts"

interface CpuProfile {
  readonly nodes: ReadonlyArray<{
    readonly id: number
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number }
  }>
  readonly samples: ReadonlyArray<number>
  readonly timeDeltas: ReadonlyArray<number>
}

export interface Hot {
  readonly name: string
  readonly place: string
  readonly ms: number
  /** Of the time in which the process was not idle. */
  readonly share: number
}

const placeOf = (url: string, line: number): string => {
  const short = url.replace(/^.*\/node_modules\//, "").replace(/^file:\/\/.*?\/(?=(src|bench)\/)/, "")
  return short === "" ? "" : `${short}:${line + 1}`
}

export const hottest = (file: string, count: number): { readonly busyMs: number; readonly functions: Array<Hot> } => {
  const profile = JSON.parse(readFileSync(file, "utf8")) as CpuProfile
  const byId = new Map(profile.nodes.map((node) => [node.id, node.callFrame]))
  const self = new Map<string, { readonly name: string; readonly place: string; us: number }>()
  let busy = 0
  profile.samples.forEach((id, i) => {
    const frame = byId.get(id)
    if (frame === undefined || frame.functionName === "(idle)") return
    const us = profile.timeDeltas[i + 1] ?? 0
    busy += us
    const place = placeOf(frame.url, frame.lineNumber)
    const key = `${frame.functionName} ${place}`
    const known = self.get(key)
    if (known === undefined) self.set(key, { name: frame.functionName || "(anonymous)", place, us })
    else known.us += us
  })
  const functions = [...self.values()]
    .sort((a, b) => b.us - a.us)
    .slice(0, count)
    .map(({ name, place, us }) => ({ name, place, ms: us / 1_000, share: us / busy }))
  return { busyMs: busy / 1_000, functions }
}

export const hottestTable = (role: string, file: string): string => {
  const { busyMs, functions } = hottest(file, 10)
  const rows = functions.map(({ ms, name, place, share }) => [
    Number((share * 100).toFixed(1)),
    Math.round(ms),
    name,
    place
  ])
  return `${role}: ${Math.round(busyMs)} ms busy\n${table(["self %", "ms", "function", "place"], rows)}`
}

/** Of each role whose process has ended; none without a profile. */
export const hottestTables = (profile: ProfileTo | undefined, roles: ReadonlyArray<string>): ReadonlyArray<string> =>
  profile === undefined
    ? []
    : roles.map((role) => {
        const name = `${profile.name}-${role}`
        return hottestTable(name, join(profile.directory, `${name}.cpuprofile`))
      })
