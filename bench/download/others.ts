/** Clients that are not ours, each with what makes it fast for many small files of one host. */
import { execFileSync } from "node:child_process"
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { findProgram } from "../peers/system.ts"
import type { ClientContext, ClientSystem, Pass } from "./system.ts"

/** Connections of `curl` and of `aria2c`. */
const connections = 16
/** `wget` has one connection. */
const wgets = 8
/** Programs that sync at the same time, so that they share the commits of the file system. */
const syncs = 8

const passMs = 600_000

interface Written {
  readonly script: string
  readonly lists: Readonly<Record<string, string>>
}

/** Writes lists and script into the folder of the system; a pass runs the script. */
const scripted =
  (name: string, write: (context: ClientContext, list: (name: string) => string) => Written): ClientSystem["start"] =>
  async (context) => {
    const { folder, out, start, sync } = context
    mkdirSync(folder, { recursive: true })
    const pathOf = (list: string): string => join(folder, list)
    const { lists, script } = write(context, pathOf)
    for (const [list, text] of Object.entries(lists)) writeFileSync(pathOf(list), text)
    const synced = `find "${out}" -type f -print0 | xargs -0 -n 128 -P ${syncs} sync\nsync "${out}"\n`
    writeFileSync(pathOf("run.sh"), `${script}\n${sync ? synced : ""}`)
    const host = start({ name, script: new URL("./command.ts", import.meta.url) })
    return { pass: () => host.call<Pass>("pass", pathOf("run.sh"), passMs) }
  }

const missing = (name: string) => (): string | undefined =>
  findProgram(name) === undefined ? `${name} is not installed` : undefined

const version = (name: string) => (): string => {
  const [line = ""] = execFileSync(findProgram(name)!, ["--version"], { encoding: "utf8" }).split("\n")
  return `${name} ${/\d+(\.\d+)+/.exec(line)?.[0] ?? "unknown"}`
}

export const curl: ClientSystem = {
  name: "curl --parallel",
  how: `--parallel --parallel-max ${connections}, a configuration file of URLs and files`,
  missing: missing("curl"),
  version: version("curl"),
  start: scripted("curl", ({ files, origin, out }, list) => ({
    script: `curl --no-progress-meter --fail --parallel --parallel-max ${connections} --config "${list("curl.txt")}"`,
    lists: { "curl.txt": files.map(({ name }) => `url = "${origin}/${name}"\noutput = "${out}/${name}"\n`).join("") }
  }))
}

export const aria2: ClientSystem = {
  name: "aria2c",
  how: `-j ${connections}, an input file of URLs and files, --file-allocation=none`,
  missing: missing("aria2c"),
  version: version("aria2c"),
  start: scripted("aria2c", ({ files, origin, out }, list) => ({
    script: `aria2c --no-conf --quiet -j ${connections} --file-allocation=none -d "${out}" -i "${list("aria2.txt")}"`,
    lists: { "aria2.txt": files.map(({ name }) => `${origin}/${name}\n  out=${name}\n`).join("") }
  }))
}

export const wget: ClientSystem = {
  name: "wget",
  how: `${wgets} processes with a list and a connection each`,
  missing: missing("wget"),
  version: version("wget"),
  start: scripted("wget", ({ files, origin, out }, list) => {
    const names = Array.from({ length: wgets }, (_, i) => `wget-${i}.txt`)
    const part = (i: number): string =>
      files
        .filter((_, at) => at % wgets === i)
        .map(({ name }) => `${origin}/${name}\n`)
        .join("")
    const started = names.map((name) => `wget --quiet --no-config -P "${out}" -i "${list(name)}" & pids="$pids $!"`)
    return {
      script: `${started.join("\n")}\nfor pid in $pids; do wait "$pid"; done`,
      lists: Object.fromEntries(names.map((name, i) => [name, part(i)]))
    }
  })
}
