/** `npm start`, as a stranger's first command. */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { afterAll } from "vitest"
import { root, start, stopAll, temporaryFolder } from "./support.ts"

afterAll(stopAll)

describe("npm start", () => {
  it("crawls the sample site into the folder it was started in, and ends with the summary", async () => {
    const folder = temporaryFolder()
    const program = start(join(root, "scripts/start.ts"), ["--json"], { cwd: root, env: { INIT_CWD: folder } })
    const ended = await program.ended(45_000)
    assert.strictEqual(ended.code, 0, ended.stderr)
    const { bytes, downloaded, failed, images, pages, workers } = JSON.parse(ended.stdout.trim().split("\n").at(-1)!)
    assert.deepStrictEqual(
      { downloaded, failed, images, pages, workers },
      { downloaded: 300, failed: 1, images: 301, pages: 40, workers: 2 }
    )
    assert.isAbove(bytes, 0)
    assert.match(ended.stdout, /^\{.*\}\n$/)
    const report = readFileSync(join(folder, "downloads/report.jsonl"), "utf8").trim().split("\n")
    assert.lengthOf(report, 342)
    assert.notMatch(ended.stderr, /WARN|ERROR|wrong:|\n\s+at /)
  })
})
