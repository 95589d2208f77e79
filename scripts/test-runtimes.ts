/**
 * `npm run test:runtimes`: the smoke of `test/runtime` on Node 22, Node 24, Deno 2 and Bun 1.4.
 *
 * The runtimes come as npm packages into `.runtimes/`, exact versions; this is the one test that needs the registry.
 */
import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))
const folder = join(root, ".runtimes")

const runtimes = [
  { name: "Node 22", pkg: "node", version: "22.23.3", bin: "node", args: [] },
  { name: "Node 24", pkg: "node", version: "24.21.0", bin: "node", args: [] },
  { name: "Deno 2", pkg: "deno", version: "2.9.6", bin: "deno", args: ["run", "-A"] },
  { name: "Bun 1.4", pkg: "bun", version: "1.4.5", bin: "bun", args: [] }
] as const

const only = process.argv[2]
let passed = 0
let failed = 0

for (const { args, bin, name, pkg, version } of runtimes) {
  if (only !== undefined && !name.toLowerCase().includes(only.toLowerCase())) continue
  const home = join(folder, `${pkg}-${version}`)
  const executable = join(home, "node_modules", ".bin", bin)
  if (!existsSync(executable)) {
    mkdirSync(home, { recursive: true })
    const dependencies = { [pkg]: version }
    const allowScripts = { [pkg]: true }
    writeFileSync(join(home, "package.json"), JSON.stringify({ private: true, dependencies, allowScripts }))
    const install = ["install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    const { status } = spawnSync("npm", install, { cwd: home, stdio: "inherit", timeout: 300_000 })
    if (status !== 0) console.log(`could not install ${pkg} ${version}`)
  }
  const startedAt = performance.now()
  const options = { cwd: root, encoding: "utf8", timeout: 120_000 } as const
  const shown = spawnSync(executable, ["--version"], options).stdout?.split("\n")[0]?.trim() ?? "?"
  const smoke = spawnSync(executable, [...args, "test/runtime/smoke.ts"], options)
  const seconds = ((performance.now() - startedAt) / 1_000).toFixed(1)
  const checks = (smoke.stdout ?? "").split("\n").filter((line) => line.startsWith("ok ")).length
  passed += checks
  if (smoke.status === 0) console.log(`ok     ${name} (${shown}): ${checks} checks in ${seconds} s`)
  else {
    failed++
    console.log(`FAILED ${name} (${shown}) after ${checks} checks in ${seconds} s`)
    console.log(`${smoke.stdout ?? ""}${smoke.stderr ?? ""}${smoke.error ?? ""}`.slice(-6_000))
  }
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1
