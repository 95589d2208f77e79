/** `npm run build`: plain tsc to `dist`. Node and Deno refuse type stripping below node_modules: the package ships .js. */
import { spawnSync } from "node:child_process"
import { chmodSync, rmSync } from "node:fs"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))
const tsc = fileURLToPath(new URL("../node_modules/typescript/bin/tsc", import.meta.url))

rmSync(`${root}dist`, { recursive: true, force: true })
const { status } = spawnSync(process.execPath, [tsc, "-p", "tsconfig.build.json"], { cwd: root, stdio: "inherit" })
if (status === 0) chmodSync(`${root}dist/cli/main.js`, 0o755)
process.exit(status ?? 1)
