/** What `npm run bench` refuses before it measures anything. */
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"

const root = fileURLToPath(new URL("../../..", import.meta.url))
const bench = (...args: ReadonlyArray<string>) =>
  spawnSync(process.execPath, [`${root}bench/main.ts`, ...args], { cwd: root, encoding: "utf8", timeout: 50_000 })

describe("the command line of the bench", () => {
  const mistakes: ReadonlyArray<readonly [args: ReadonlyArray<string>, says: RegExp]> = [
    [["--check", "--peers"], /--check takes no --peers/],
    [["--check", "--profile", "x"], /--check takes no --profile/],
    [["--check", "--update", "--tolerance", "20"], /--update takes the tolerance/],
    [["--update"], /belong to --check/],
    [["--only", "memory", "--profile", "x"], /memory gives no profile; those are .*crawl-dispatch/],
    [["--only", "nothing"], /no work "nothing" here; the works are .*connections/],
    [["--only", "latency", "--variant", "nothing"], /no such variant "nothing": latency has .*p50/]
  ]
  for (const [args, says] of mistakes) {
    it(`ends with 2 for ${args.join(" ")}`, () => {
      const { status, stderr, stdout } = bench(...args)
      assert.match(stderr, says)
      assert.strictEqual(status, 2)
      assert.strictEqual(stdout, "")
    })
  }
})
