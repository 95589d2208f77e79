/**
 * Work `download`: 10,000 files from nginx on loopback, by Millrace's downloader and by `curl --parallel`, `aria2c` and
 * `wget`, each with one core to itself. `plain`: a file is written and has its name. `fsync`: it is on the disk as well.
 * Every round has one pass of each client, in an order that turns by one each round; the first round is the warm-up.
 */
import { mkdirSync, readdirSync, renameSync, truncateSync } from "node:fs"
import { loadavg } from "node:os"
import { join } from "node:path"
import { coresNote } from "./download/cores.ts"
import { checkFiles, largestBytes, makeFiles, medianBytes, type ServedFile, sigma } from "./download/files.ts"
import { millrace, millraceQueue } from "./download/millrace.ts"
import { aria2, curl, wget } from "./download/others.ts"
import { type Server, startServer } from "./download/server.ts"
import type { ClientSystem, Pass } from "./download/system.ts"
import { withChildren } from "./harness/children.ts"
import { withFolder } from "./harness/folder.ts"
import { hottestTables } from "./harness/profile.ts"
import { type Durability, type Measurement, progress, spread, table } from "./harness/report.ts"
import type { Work, WorkOptions, WorkReport } from "./harness/work.ts"

const count = 10_000

/** Millrace comes first: the others are compared with it. */
const systems: ReadonlyArray<ClientSystem> = [millrace, millraceQueue, curl, aria2, wget]

const durabilityOf: Readonly<Record<string, Durability>> = { plain: "buffered", fsync: "fsync" }

/**
 * Empties the files of a pass and leaves them where they are until the end. For minutes after files are deleted, ext4
 * looks at each of their inodes before it makes a file: 0.8 ms of CPU time a file instead of 0.1.
 */
const putAway = (out: string, to: string): void => {
  renameSync(out, to)
  for (const name of readdirSync(to)) truncateSync(join(to, name))
}

const measured = async (
  variant: string,
  present: ReadonlyArray<ClientSystem>,
  { profile, runs }: WorkOptions,
  files: ReadonlyArray<ServedFile>,
  folder: string
): Promise<{ readonly server: Server; readonly passes: ReadonlyMap<ClientSystem, ReadonlyArray<Pass>> }> =>
  withChildren(async (start) => {
    const durability = durabilityOf[variant]!
    const context = (name: string) => ({
      ...{ start, folder: join(folder, variant, name), durability }
    })
    const server = await startServer(context("nginx"), join(folder, "files"))
    const clients = []
    for (const system of present) {
      const own = context(system.name.replace(/\W+/g, "-"))
      const out = join(own.folder, "out")
      const origin = `http://127.0.0.1:${server.port}`
      const client = await system.start({ ...own, files, origin, out, sync: durability === "fsync", profile })
      clients.push({ system, out, client, passes: [] as Array<Pass> })
    }
    for (let round = 0; round <= runs; round++) {
      for (let i = 0; i < clients.length; i++) {
        const { client, out, passes, system } = clients[(i + round) % clients.length]!
        mkdirSync(out, { recursive: true })
        const pass = await client.pass()
        checkFiles(out, files, system.name)
        putAway(out, `${out}-${round}`)
        const label = round === 0 ? "warm-up" : `round ${round} of ${runs}`
        const rate = Math.round(files.length / pass.seconds)
        const used = `${pass.cpuSeconds.toFixed(2)} s of CPU, ${(pass.rssBytes / 2 ** 20).toFixed(0)} MiB`
        progress(
          `download ${variant} ${label} ${system.name}: ${pass.seconds.toFixed(2)} s, ${rate} files/s, ${used}, load ${loadavg()[0]!.toFixed(1)}`
        )
        if (round > 0) passes.push(pass)
      }
    }
    return { server, passes: new Map(clients.map(({ passes, system }) => [system, passes])) }
  })

const head = ["system", "median", "min", "max", "unit", "CPU s/1,000 files", "peak MiB", "millrace/system"]

const runVariant = async (
  variant: string,
  options: WorkOptions,
  present: ReadonlyArray<ClientSystem>,
  files: ReadonlyArray<ServedFile>,
  folder: string
): Promise<WorkReport> => {
  const { passes, server } = await measured(variant, present, options, files, folder)
  const rates = (of: ReadonlyArray<Pass>): ReadonlyArray<number> => of.map(({ seconds }) => files.length / seconds)
  const own = rates(passes.get(millrace)!)
  const measurements: Array<Measurement> = []
  const rows: Array<ReadonlyArray<string | number>> = []
  for (const [system, of] of passes) {
    const common = { work: "download", durability: durabilityOf[variant]!, workers: 1, runs: options.runs } as const
    const ratio = spread(
      rates(of).map((rate, i) => own[i]! / rate),
      2
    ).median
    const speed = spread(rates(of), 0)
    const cpu = spread(
      of.map(({ cpuSeconds }) => (cpuSeconds * 1_000) / files.length),
      4
    )
    const rss = spread(
      of.map(({ rssBytes }) => rssBytes / 2 ** 20),
      0
    )
    const { name } = system
    measurements.push(
      { ...common, variant, system: name, ...speed, unit: "files/s", ratio },
      { ...common, variant: `${variant}-cpu`, system: name, ...cpu, unit: "CPU s/1,000 files" },
      { ...common, variant: `${variant}-rss`, system: name, ...rss, unit: "MiB" }
    )
    rows.push([name, speed.median, speed.min, speed.max, "files/s", cpu.median, rss.max, ratio])
  }
  const notes = [`download ${variant}, from ${server.name}, ${coresNote}\n${table(head, rows)}`]
  const roles = ["download", "worker"].map((role) => `${role}-${variant}`)
  notes.push(...hottestTables(options.profile, roles))
  return { measurements, notes }
}

export const download: Work = {
  name: "download",
  variants: Object.keys(durabilityOf),
  onlyByName: true,
  profiled: true,
  run: (options) =>
    withFolder(async (folder) => {
      const files = makeFiles(join(folder, "files"), options.tasks ?? count)
      const total = files.reduce((bytes, file) => bytes + file.bytes, 0)
      const notes: Array<string> = []
      const present = systems.filter(({ missing, name }) => {
        const why = missing()
        if (why !== undefined) notes.push(`skipped: ${name}: ${why} (bench/setup.sh)`)
        return why === undefined
      })
      const measurements: Array<Measurement> = []
      for (const [variant, durability] of Object.entries(durabilityOf)) {
        if (options.variant !== undefined && options.variant !== variant) continue
        if (options.durabilities !== undefined && !options.durabilities.includes(durability)) continue
        const report = await runVariant(variant, options, present, files, folder)
        measurements.push(...report.measurements)
        notes.push(...report.notes)
      }
      const others = "fsync: the others sync every file when all have come (sync, 8 at a time), in their time"
      const versions = present.map(({ version }) => version()).filter((version) => version !== "")
      const kib = (bytes: number): string => `${Math.round(bytes / 1_024)} KiB`
      notes.push(
        `${files.length} files, log-normal: median ${kib(medianBytes)}, sigma ${sigma}, at most ${kib(largestBytes)}; ${(total / 2 ** 20).toFixed(1)} MiB in all`,
        [...present.map(({ how, name }) => `${name}: ${how}`), others].join("\n"),
        `clients   ${versions.length === 0 ? "none" : versions.join(", ")}`
      )
      return { measurements, notes }
    })
}
