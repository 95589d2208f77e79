/**
 * Loaded before a run (`--import`): replaces one piece of one source file by a wrong one, so that the package itself
 * holds no flag and no bug. Which one is in the environment. A piece that is not found exactly once ends the run.
 */
import { readFileSync } from "node:fs"
import { registerHooks } from "node:module"
import { fileURLToPath } from "node:url"
import { plants } from "./plants.ts"

const name = process.env["MILLRACE_PLANTED"] ?? ""
const plant = plants.find((plant) => plant.name === name)
if (plant === undefined) throw new Error(`there is no planted bug "${name}"`)

const wanted = new Map(
  plant.edits.map((edit) => [new URL(`../../../src/${edit.file}`, import.meta.url).href, edit.file])
)
const seen = new Set<string>()

registerHooks({
  load(url, context, next) {
    const file = wanted.get(url)
    if (file === undefined) return next(url, context)
    let source = readFileSync(fileURLToPath(url), "utf8")
    for (const edit of plant.edits) {
      if (edit.file !== file) continue
      const pieces = source.split(edit.find)
      if (pieces.length !== 2) {
        throw new Error(`${file} has the piece of "${name}" ${pieces.length - 1} times: ${edit.find}`)
      }
      source = pieces.join(edit.replace)
    }
    seen.add(url)
    return { format: "module-typescript", source, shortCircuit: true }
  }
})

process.on("exit", () => {
  for (const [url, file] of wanted)
    if (!seen.has(url)) console.error(`"${name}" was not planted: ${file} was never loaded`)
})
