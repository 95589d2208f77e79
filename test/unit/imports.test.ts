import { readdirSync, readFileSync } from "node:fs"
import { dirname, join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"

const root = fileURLToPath(new URL("../../src", import.meta.url))

const ports = [
  "platform/Network",
  "platform/Strangers",
  "platform/Tls",
  "platform/Pair",
  "platform/Schedule",
  "platform/Crypto"
]
const common = ["Errors", "Limits"]

/** What each room may import, besides itself: rooms, or single files. Design §2. */
const arrows: Readonly<Record<string, ReadonlyArray<string>>> = {
  model: ["Limits", "wire/Bytes"],
  wire: ["Limits"],
  auth: ["Limits", "platform/Crypto"],
  store: ["model", "platform/Crypto", "platform/DataFolder", "platform/Sqlite", "platform/Thread", ...common],
  manager: ["auth", "wire", "store", "model", ...ports, ...common],
  client: ["wire", "auth", "model", "platform/Json", "platform/Text", ...ports, ...common],
  worker: ["client", "wire", "model", "platform/Schedule", ...common],
  actor: ["client", "worker", "model", "wire", ...common],
  crawl: [
    ...["worker", "client", "platform/Crypto", "platform/Inflate", "platform/Undici"],
    ...["TaskQueue", "Task", "Worker", "Client", ...common]
  ],
  platform: common,
  testing: ["model", "wire", "auth", "store", "manager", "client", "worker", "actor", "platform", ...common],
  Errors: [],
  Limits: []
}

const free = new Set([
  "cli",
  "index",
  "Client",
  "Manager",
  "PersistedQueueStore",
  "SharedCounter",
  "SharedDict",
  "SharedSet",
  "Signal",
  "Step",
  "Store",
  "Task",
  "TaskQueue",
  "Worker",
  "Workflows"
])
const pure = new Set(["model", "wire", "auth"])

/** The room of a file below `src`, or its own name for a file at the top. */
const roomOf = (file: string): string => file.split("/")[0]!.replace(/\.ts$/, "")

const withoutComments = (source: string): string =>
  source.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|[^:"'`])\/\/.*$/gm, "$1")

const importsOf = (source: string): ReadonlyArray<string> =>
  [...source.matchAll(/(?:\bfrom\s*|\bimport\s*\(?\s*)["']([^"']+)["']/g)].map((match) => match[1]!)

const violationsOf = (file: string, text: string): ReadonlyArray<string> => {
  const source = withoutComments(text)
  const room = roomOf(file)
  const found: Array<string> = []
  for (const name of importsOf(source)) {
    if (name.startsWith(".")) {
      const target = join(dirname(file), name)
      const to = roomOf(target)
      if (to === room || free.has(room)) continue
      const allowed = arrows[room] ?? []
      if (!allowed.includes(to) && !allowed.includes(target.replace(/\.ts$/, ""))) found.push(`${file} imports ${name}`)
    } else if (name.startsWith("node:")) {
      if (room !== "platform") found.push(`${file} imports ${name}`)
    } else if (name === "undici" || name.startsWith("undici/")) {
      if (file !== "platform/Undici.ts" || name !== "undici/index.js") found.push(`${file} imports ${name}`)
    } else if (name.startsWith("@effect/platform-node")) {
      if (room !== "cli") found.push(`${file} imports ${name}`)
    } else if (pure.has(room) && (name === "effect" || name === "effect/Effect")) {
      found.push(`${file} imports ${name}`)
    }
  }
  if (room === "platform") return found
  const ambient =
    /\b(Date\.now|performance\.now|Math\.random|setTimeout|setInterval|setImmediate|randomUUID|new Date\(\))/g
  for (const match of source.matchAll(ambient)) found.push(`${file} uses ${match[1]}`)
  return found
}

const files = readdirSync(root, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
  .map((entry) => relative(root, join(entry.parentPath, entry.name)))

describe("the rooms", () => {
  it("import only in the direction of the design, and name the runtime in one room only", () => {
    assert.isAbove(files.length, 40)
    assert.deepStrictEqual(
      files.flatMap((file) => violationsOf(file, readFileSync(join(root, file), "utf8"))),
      []
    )
  })

  it("are all known: a new one needs its arrows", () => {
    for (const file of files) {
      const room = roomOf(file)
      assert.isTrue(room in arrows || free.has(room), `${file} is in no known room`)
    }
  })

  const bad: ReadonlyArray<readonly [file: string, source: string]> = [
    ["model/X.ts", 'import { Wire } from "../wire/Frames.ts"'],
    ["model/X.ts", 'import type { A } from "../Errors.ts"'],
    ["model/sub/X.ts", 'export * from "../../manager/Core.ts"'],
    ["model/X.ts", 'import * as Effect from "effect/Effect"'],
    ["wire/X.ts", 'import { Effect } from "effect"'],
    ["wire/X.ts", 'import {\n  A,\n  B\n} from "../model/Task.ts"'],
    ["auth/X.ts", 'import { Network } from "../platform/Network.ts"'],
    ["auth/X.ts", 'const c = await import("node:crypto")'],
    ["store/X.ts", 'import "../manager/Core.ts"'],
    ["manager/X.ts", 'import { Client } from "../client/Client.ts"'],
    ["manager/X.ts", 'import { layer } from "../platform/Node.ts"'],
    ["manager/X.ts", 'type A = import("../worker/Worker.ts").A'],
    ["client/X.ts", 'import { Core } from "../manager/Core.ts"'],
    ["client/X.ts", 'import { Store } from "../Store.ts"'],
    ["worker/X.ts", 'import { sha256 } from "../platform/Crypto.ts"'],
    ["crawl/X.ts", 'import { Core } from "../manager/Core.ts"'],
    ["crawl/X.ts", 'import { fetch } from "undici"'],
    ["platform/Undici.ts", 'import { fetch } from "undici"'],
    ["platform/Node.ts", 'import { fetch } from "undici/index.js"'],
    ["crawl/X.ts", 'import * as fs from "node:fs"'],
    ["Manager.ts", 'import * as fs from "node:fs"'],
    ["crawl/X.ts", 'import * as Node from "@effect/platform-node"'],
    ["client/X.ts", "const a = Date.now()"],
    ["crawl/X.ts", "const b = Math.random() * 2"],
    ["worker/X.ts", "setTimeout(() => {}, 5)"],
    ["manager/X.ts", "const at = performance.now()"]
  ]
  for (const [file, source] of bad) {
    it(`may not: ${file}, ${source.replaceAll("\n", " ")}`, () => {
      assert.strictEqual(violationsOf(file, `/** A file. */\n${source}\n`).length, 1)
    })
  }

  it("may say anything in a comment", () => {
    const source = '// Date.now()\n/* import "../manager/Core.ts"\n setTimeout */\nconst url = "http://x"\n'
    assert.deepStrictEqual(violationsOf("model/X.ts", source), [])
  })
})
