import { spawnSync } from "node:child_process"
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"

const root = fileURLToPath(new URL("../../..", import.meta.url))

/** Blocks of one language in a page: what stands on the fence line after the language, and the text. */
const blocks = (page: string, language: string) =>
  [...readFileSync(join(root, page), "utf8").matchAll(/^```(\w+)([^\n]*)\n([\s\S]*?)^```$/gm)]
    .filter(([, lang]) => lang === language)
    .map(([, , info, text]) => ({ file: /file=(\S+)/.exec(info ?? "")?.[1], text: text ?? "" }))

const pages = ["README.md", "docs/guide.md", "docs/two-machines.md"]

describe("snippets in README and docs", () => {
  it("type-check, every one", { timeout: 120_000 }, () => {
    const folder = join(root, ".snippets")
    rmSync(folder, { recursive: true, force: true })
    try {
      let count = 0
      for (const page of pages) {
        const home = join(folder, page.replaceAll(/\W/g, "-"))
        mkdirSync(home, { recursive: true })
        for (const { file, text } of blocks(page, "ts"))
          writeFileSync(join(home, file ?? `snippet-${count++}.ts`), text)
      }
      assert.isAtLeast(count, 4)
      const options = {
        extends: "../tsconfig.json",
        include: ["**/*.ts"],
        exclude: [],
        compilerOptions: { noUnusedLocals: false }
      }
      writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(options))
      const tsc = join(root, "node_modules/typescript/bin/tsc")
      const { status, stdout } = spawnSync(process.execPath, [tsc, "-p", folder], { encoding: "utf8", cwd: root })
      assert.strictEqual(status, 0, stdout)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })

  it("name only commands, scripts and flags that exist", { timeout: 60_000 }, () => {
    const scripts = new Set(Object.keys(JSON.parse(readFileSync(join(root, "package.json"), "utf8")).scripts as object))
    const lines = pages.flatMap((page) => blocks(page, "sh").flatMap(({ text }) => text.split("\n")))
    const help = new Map<string, string>()
    const env = { ...process.env, NODE_COMPILE_CACHE: join(root, "node_modules/.cache/millrace-tests") }
    let checked = 0
    for (const line of lines) {
      const code = line.split("#")[0] ?? ""
      for (const [, script] of code.matchAll(/npm (?:run )?(start|test\S*|bench|build)\b/g)) {
        assert.isTrue(scripts.has(script!), line)
        checked++
      }
      const command = /millrace (key \w+|\w+)(.*)/.exec(code)
      if (command === null) continue
      const name = command[1]!
      if (!help.has(name)) {
        const main = join(root, "src/cli/main.ts")
        const { status, stdout } = spawnSync(process.execPath, [main, ...name.split(" "), "--help"], {
          encoding: "utf8",
          env
        })
        assert.strictEqual(status, 0, name)
        help.set(name, stdout)
      }
      for (const [flag] of command[2]!.matchAll(/--[a-z-]+/g)) assert.include(help.get(name)!, flag, line)
      checked++
    }
    assert.isAtLeast(checked, 10)
  })

  it("link only to files that are there", () => {
    let links = 0
    for (const page of pages) {
      for (const [, target] of readFileSync(join(root, page), "utf8").matchAll(/\]\(([^)#:]+)\)/g)) {
        const path = join(root, dirname(page), target!)
        assert.doesNotThrow(() => {
          try {
            readFileSync(path)
          } catch {
            readdirSync(path)
          }
        }, `${page}: ${target}`)
        links++
      }
    }
    assert.isAtLeast(links, 5)
  })
})
