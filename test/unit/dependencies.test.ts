/** What comes with the package when it is installed: few packages, each of one version and one hash, none of which runs. */
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"

interface Locked {
  readonly version: string
  readonly integrity?: string
  readonly dev?: boolean
  readonly hasInstallScript?: boolean
}

const root = fileURLToPath(new URL("../..", import.meta.url))
const json = (file: string) => JSON.parse(readFileSync(join(root, file), "utf8"))
const manifest = json("package.json") as {
  readonly dependencies: Readonly<Record<string, string>>
  readonly devDependencies: Readonly<Record<string, string>>
  readonly scripts: Readonly<Record<string, string>>
}

/** Whoever adds one says here that it was looked at. */
const direct = ["@effect/platform-node", "effect", "htmlparser2", "undici"]

/** What these bring with them. */
const indirect = [
  "@effect/platform-node-shared",
  "@redis/bloom",
  "@redis/client",
  "@redis/json",
  "@redis/search",
  "@redis/time-series",
  "@types/node",
  "@types/ws",
  "dom-serializer",
  "domelementtype",
  "domhandler",
  "domutils",
  "entities",
  "redis",
  "undici-types",
  "ws"
]

const locked = json("package-lock.json").packages as Readonly<Record<string, Locked>>
const installed = Object.entries(locked)
  .filter(([path, { dev }]) => path !== "" && dev !== true)
  .map(([path, entry]) => ({ name: path.replace(/^.*node_modules\//, ""), path, ...entry }))

const atInstall = ["preinstall", "install", "postinstall", "prepare"]

describe("the packages that are installed with this one", () => {
  it("are those that were looked at, each of one version and one hash (M23)", () => {
    assert.deepStrictEqual(Object.keys(manifest.dependencies).sort(), [...direct].sort())
    assert.deepStrictEqual(installed.map(({ name }) => name).sort(), [...direct, ...indirect].sort())
    for (const { integrity, name } of installed) assert.match(integrity ?? "", /^sha512-[\w+/]{86}==$/, name)
    for (const [name, version] of Object.entries({ ...manifest.dependencies, ...manifest.devDependencies })) {
      assert.match(version, /^\d+\.\d+\.\d+$/, `${name} is not pinned`)
      assert.strictEqual(locked[`node_modules/${name}`]?.version, version, name)
    }
  })

  it("run nothing when they are installed, nor does this one (M23)", () => {
    for (const { hasInstallScript, name, path } of installed) {
      assert.isNotTrue(hasInstallScript, name)
      // The lock says so, and so does what is there; a package that only some programs need may be missing.
      if (!existsSync(join(root, path))) continue
      const { scripts = {} } = json(join(path, "package.json")) as { scripts?: Readonly<Record<string, string>> }
      const run = atInstall.filter((script) => script !== "prepare" && script in scripts)
      assert.deepStrictEqual(run, [], name)
      assert.isFalse(existsSync(join(root, path, "binding.gyp")), name)
    }
    assert.deepStrictEqual(
      atInstall.filter((script) => script in manifest.scripts),
      []
    )
  })

  it("are all that the sources import (M23)", () => {
    const imported = new Set<string>()
    for (const entry of readdirSync(join(root, "src"), { recursive: true, withFileTypes: true })) {
      if (!entry.isFile() || !entry.name.endsWith(".ts")) continue
      const source = readFileSync(join(entry.parentPath, entry.name), "utf8")
      for (const [, name] of source.matchAll(/^(?:import|export)\b[^"]*?\bfrom "([^."][^"]*)"/gm)) imported.add(name!)
      for (const [, name] of source.matchAll(/\bimport\(\s*"([^."][^"]*)"/g)) imported.add(name!)
    }
    const packages = [...imported]
      .filter((name) => !name.startsWith("node:"))
      .map((name) => (name.startsWith("@") ? name.split("/").slice(0, 2).join("/") : name.split("/")[0]!))
    assert.deepStrictEqual([...new Set(packages)].sort(), [...direct].sort())
  })
})
