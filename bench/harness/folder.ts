/** Temporary folders on a real disk, removed when their use ends. */

import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import process from "node:process"

/** In `MILLRACE_BENCH_DISK`, or the system's folder for temporary files. */
export const withFolder = async <A>(use: (folder: string) => Promise<A>): Promise<A> => {
  const folder = mkdtempSync(join(process.env["MILLRACE_BENCH_DISK"] ?? tmpdir(), "millrace-bench-"))
  try {
    return await use(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
