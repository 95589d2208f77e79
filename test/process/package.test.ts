/** The package as npm would install it: built, packed and unpacked beside its dependencies, in a folder of its own. */
import { execFile } from "node:child_process"
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { promisify } from "node:util"
import { assert, describe, it } from "@effect/vitest"
import { afterAll, beforeAll } from "vitest"
import { startSite } from "../../examples/sample-site/site.ts"
import { root, start, stopAll, temporaryFolder } from "./support.ts"

const exec = (file: string, args: ReadonlyArray<string>, cwd: string) =>
  promisify(execFile)(file, [...args], { cwd, timeout: 60_000 })

interface Manifest {
  readonly version: string
  readonly bin: { readonly millrace: string }
  readonly files: ReadonlyArray<string>
  readonly exports: Readonly<Record<string, string>>
  readonly dependencies: Readonly<Record<string, string>>
}

const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as Manifest
const tsc = join(root, "node_modules/typescript/bin/tsc")
let consumer = ""
let installed = ""

/** Builds into a copy, so that no `dist` of the repository is touched or trusted. */
beforeAll(async () => {
  const folder = temporaryFolder()
  const copy = join(folder, "copy")
  mkdirSync(copy)
  for (const file of ["package.json", "tsconfig.json", "tsconfig.build.json", ...manifest.files]) {
    if (file !== "dist" && existsSync(join(root, file))) cpSync(join(root, file), join(copy, file), { recursive: true })
  }
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"))
  await exec(process.execPath, [tsc, "-p", "tsconfig.build.json"], copy)
  const packed = await exec("npm", ["pack", "--ignore-scripts", "--offline", "--silent"], copy)

  consumer = join(folder, "consumer")
  installed = join(consumer, "node_modules/millrace")
  mkdirSync(join(consumer, "node_modules"), { recursive: true })
  writeFileSync(join(consumer, "package.json"), '{ "name": "consumer", "private": true, "type": "module" }\n')
  await exec("tar", ["-xzf", join(copy, packed.stdout.trim())], folder)
  renameSync(join(folder, "package"), installed)
  // Copies of nothing: what Node must be able to run from below node_modules is millrace itself.
  for (const entry of readdirSync(join(root, "node_modules"))) {
    if (entry.startsWith(".") || entry === "millrace") continue
    symlinkSync(join(root, "node_modules", entry), join(consumer, "node_modules", entry))
  }
})
afterAll(stopAll)

describe("the packed package", () => {
  it("has a file for every subpath of its exports, and for its program", () => {
    for (const [subpath, file] of Object.entries(manifest.exports)) {
      assert.isTrue(existsSync(join(installed, file)), `${subpath} -> ${file}`)
      if (file.endsWith(".js")) assert.isTrue(existsSync(join(installed, file.replace(/\.js$/, ".d.ts"))), subpath)
    }
    assert.match(readFileSync(join(installed, manifest.bin.millrace), "utf8"), /^#!\/usr\/bin\/env node\n/)
  })

  it("imports from another package by every subpath, with plain node", async () => {
    const names = Object.keys(manifest.exports).filter((subpath) => subpath !== "./package.json")
    const specifiers = names.map((subpath) => subpath.replace(/^\./, "millrace"))
    writeFileSync(
      join(consumer, "check.mjs"),
      `const wrong = []
for (const specifier of ${JSON.stringify(specifiers)}) {
  try {
    if (Object.keys(await import(specifier)).length === 0) wrong.push(specifier + " exports nothing")
  } catch (error) {
    wrong.push(specifier + ": " + error.message)
  }
}
console.log(JSON.stringify(wrong))
`
    )
    const ended = await start("check.mjs", [], { cwd: consumer }).ended()
    assert.strictEqual(ended.stderr, "")
    assert.deepStrictEqual(JSON.parse(ended.stdout), [])
  })

  it("has types that a strict program of another package compiles against", async () => {
    writeFileSync(
      join(consumer, "program.ts"),
      `import { Effect, Layer, Schema } from "effect"
import { Manager, Store, TaskQueue, Worker } from "millrace"
import * as Client from "millrace/Client"

const Squares = TaskQueue.make("squares", { payload: Schema.Int, result: Schema.Int })
export const worker = Worker.layer(Squares, (task) => Effect.succeed(task.payload * task.payload))
export const program: Effect.Effect<number, unknown> = Squares.putWait(7).pipe(
  Effect.provide(Manager.layer({ queues: [Squares] }).pipe(Layer.provide(Store.layerMemory)))
)
export const remote = Client.layerTcp({ port: 8001, auth: { key: "k" } })
// @ts-expect-error a payload of another type
export const wrong = Squares.put("seven")
`
    )
    const flags = ["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--skipLibCheck", "--target", "es2024"]
    const args = [tsc, ...flags, "--module", "nodenext", "--types", "node", "program.ts"]
    const { stdout } = await exec(process.execPath, args, consumer).catch((error: { stdout: string }) => error)
    assert.strictEqual(stdout, "")
  })

  it("its program runs: its version, and a crawl with a worker process of its own", async () => {
    const bin = join(installed, manifest.bin.millrace)
    const version = await start(bin, ["--version"], { cwd: consumer }).ended()
    assert.strictEqual(version.stdout, `millrace v${manifest.version}\n`)
    const site = await startSite({ port: 0 })
    try {
      const args = ["crawl", site.url, "--out", join(consumer, "out"), "--json", "--workers", "1", "--depth", "0"]
      const ended = await start(bin, args, { cwd: consumer }).ended()
      assert.strictEqual(ended.code, 0, ended.stderr)
      assert.strictEqual(JSON.parse(ended.stdout).pages, 1)
    } finally {
      await site.close()
    }
  })

  it("carries its sources, but neither tests nor secrets", () => {
    const top = readdirSync(installed).sort()
    for (const name of ["dist", "src", "package.json"]) assert.include(top, name)
    for (const name of ["test", "bench", "node_modules", "downloads", ".scratch"]) assert.notInclude(top, name)
  })
})
