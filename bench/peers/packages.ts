/** What is in `bench/node_modules`, which may be absent. */
import { existsSync, readFileSync } from "node:fs"

const packageFile = (name: string): URL => new URL(`../node_modules/${name}/package.json`, import.meta.url)

/** Why they cannot be used, or undefined. */
export const missingPackages = (names: ReadonlyArray<string>): string | undefined => {
  const absent = names.filter((name) => !existsSync(packageFile(name)))
  return absent.length === 0 ? undefined : `${absent.join(" and ")} not in bench/node_modules`
}

export const packageVersion = (name: string): string =>
  (JSON.parse(readFileSync(packageFile(name), "utf8")) as { readonly version: string }).version
